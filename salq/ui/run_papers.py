"""What a run's page says below its figures: everything needed to repeat it, and, when it failed, the last words of its worker. Without gradio."""

from html import escape
from typing import Any

from salq.core.errors import SalqError
from salq.runs import repeat
from salq.runs.store import RunStore
from salq.runs.worker import LOG, last_lines
from salq.ui.html import note

LAST_WORDS = 12
TROUBLED = ("failed", "interrupted")


def papers_html(store: RunStore, run_id: str, *, status: str, public: bool) -> str:
    """The command that repeats the run, its settings and hashes, and its worker's last lines when it ended badly.

    The worker's lines name folders of this machine, so a public host does not show them.
    """
    try:
        needed = repeat.needed(store, run_id)
    except SalqError as error:
        return note(str(error))
    log = last_lines(store.folder(run_id) / LOG, LAST_WORDS) if status in TROUBLED and not public else []
    last = f'<p class="salq-note">Last lines of its worker:</p><pre class="salq-log" tabindex="0">{escape(chr(10).join(log))}</pre>' if log else ""
    return last + _table(_rows(needed, public=public)) + "".join(note(one) for one in _sameness(needed))


def _rows(needed: dict[str, Any], *, public: bool) -> list[tuple[str, str]]:
    request, environment, inputs = needed["request"], needed["environment"], needed["inputs"]
    versions = ", ".join(
        f"{name} {environment[name]}" for name in ("salq", "python", "torch", "transformers", "onnxruntime") if environment.get(name)
    )
    machine = ", ".join(str(environment[name]) for name in ("device", "gpu", "cpu", "system") if environment.get(name))
    model = str(request["model"])
    rows = [
        ("Again", needed["command"]),
        ("Model", model.rsplit("/", 1)[-1] if public else model),
        ("Model files", inputs.get("model")),
        ("Text", inputs.get("calibration_name")),
        ("Text file", inputs.get("calibration")),
        ("Seed", str(request["seed"])),
        ("Versions", versions),
        ("Machine", f"{machine}, {environment.get('threads')} threads" if machine else ""),
        ("Codes", needed["codes_sha256"]),
    ]
    return [(name, str(value)) for name, value in rows if value]


def _sameness(needed: dict[str, Any]) -> list[str]:
    words = {True: "gave the same codes", False: "gave other codes", None: "has no codes yet"}
    return [f"Run {one['run']}, with the same request, {words[one['same_codes']]}." for one in needed["same_request"]]


def _table(rows: list[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><th scope='row'>{escape(name)}</th><td><code>{escape(value)}</code></td></tr>" for name, value in rows)
    return f'<table class="salq-papers"><tbody>{cells}</tbody></table>'
