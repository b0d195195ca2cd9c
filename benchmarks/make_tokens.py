"""Scores the kept conversation's answer token by token and keeps it under assets/results. `make assets` runs it after make_assets.py.

It uses the conversation and the calibrated run that make_assets.py made, under SALQ_HOME; about half a minute on one core. What is
kept under the same hash stays.
"""

import hashlib
import json
import shlex
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.make_assets import CHAT_SIDE, calibration_requests, command, short  # noqa: E402 - the checkout is put on the path first
from salq.chat.participants import Participant  # noqa: E402
from salq.chat.scoring import fork, load_pair, text_of, view  # noqa: E402
from salq.cli.follow import open_store  # noqa: E402
from salq.core.drain import drain  # noqa: E402
from salq.core.files import atomic_path, read_json  # noqa: E402
from salq.evaluation.restore import break_down  # noqa: E402
from salq.evaluation.tokens import score_tokens  # noqa: E402
from salq.models.catalogue import DEFAULT_MODEL  # noqa: E402
from salq.runs.exploration import kept_folder  # noqa: E402
from salq.runs.requests import CalibrateRequest  # noqa: E402
from salq.runs.sides import run_participant  # noqa: E402
from salq.ui.compare_actions import KeptChat, kept_chat  # noqa: E402


def asked() -> tuple[CalibrateRequest, KeptChat]:
    """The calibration and the conversation that are scored."""
    request = next(one for one in calibration_requests() if (one.method, one.spec.bits, one.spec.group_size) == CHAT_SIDE)
    chat = kept_chat(DEFAULT_MODEL)
    assert chat is not None, "make_assets.py keeps this conversation first"
    return request, chat


def fingerprint() -> str:
    """Hash of everything that is asked for: changes when the recipe or the kept conversation changes."""
    request, chat = asked()
    return hashlib.sha256(json.dumps([request.key(), chat.prompt, chat.answers]).encode()).hexdigest()


def main() -> int:
    """Score the original's answer and the run's, break the worst token down, keep all of it with the command."""
    path = kept_folder(DEFAULT_MODEL) / "tokens.json"
    if path.exists() and read_json(path).get("fingerprint") == fingerprint():
        return 0
    store, (request, chat) = open_store(), asked()
    run = next((info for info in store.list() if info.status == "done" and info.request is not None and info.request.key() == request.key()), None)
    assert run is not None, "make_assets.py makes this run first"
    pair = load_pair(Participant.original(DEFAULT_MODEL), run_participant(store, run.id), "cpu")
    messages = [{"role": "user", "content": chat.prompt}]
    texts = [text_of(pair.original, {"messages": messages, "answer": answer}) for answer in chat.answers]
    own, others = (view(pair, text, score_tokens(pair.original, pair.quantized, text.ids, text.first)) for text in texts)
    found = drain(break_down(pair.original, pair.quantized, texts[0].ids, texts[0].first + own["worst"]))
    words = ["--prompt", chat.prompt, "--text", chat.answers[0], "--where", str(own["worst"] + 1), "--device", "cpu"]
    kept = {
        "quantized": run.title, "prompt": chat.prompt, "view": own, "fork": fork((texts[0], texts[1]), (own, others)),
        "breakdown": found.to_json() | {"index": own["worst"]},
    }  # fmt: skip
    shown = f"{shlex.join(['python', '-m', 'salq', 'tokens', '--run', 'ID', *words])}   (ID: the run of `{command(*CHAT_SIDE)}`)"
    write({**short(kept), "command": shown, "fingerprint": fingerprint()})
    return 0


def write(kept: dict[str, Any]) -> None:
    """One line per part: numbers of a hundred tokens, one below the other, would be mostly white space."""
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False, allow_nan=False)}" for name, value in kept.items())
    with atomic_path(kept_folder(DEFAULT_MODEL) / "tokens.json") as temporary:
        temporary.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
