"""`runs`: list, show, resume, cancel, delete and repeat runs."""

import argparse
import time
from dataclasses import asdict
from datetime import datetime

from salq.cli import options
from salq.cli.follow import carry_out_and_report, open_store, run_json
from salq.cli.report import duration, emit, facts, note, number, percent, result_facts, say, table
from salq.core.errors import StoreError
from salq.core.files import read_json
from salq.core.progress import Progress, start_terms
from salq.runs.limits import check
from salq.runs.store import RunInfo, RunStore
from salq.runs.worker import LOG, last_line

CANCEL_SECONDS = 10.0


def add(commands: options.Commands) -> None:
    """Add the command with its own commands."""
    parser = options.command(commands, "runs", show_all, "List, show, resume, cancel, delete and repeat runs.")
    actions = parser.add_subparsers(metavar="ACTION", parser_class=type(parser))
    options.command(actions, "list", show_all, "List all runs, newest first.")
    _with_run(options.command(actions, "show", show, "Show one run: what was asked, how far it is, what came out."))
    resume = _with_run(options.command(actions, "resume", resume_run, "Go on with a run that was cancelled, failed or interrupted."))
    rerun = _with_run(options.command(actions, "rerun", rerun_run, "Start a new run with the same request: same codes on the same machine."))
    for action in (resume, rerun):
        action.add_argument("--background", action="store_true", help="hand the run to a worker process and return")
    _with_run(options.command(actions, "cancel", cancel, "Stop a run; its finished blocks are kept."))
    _with_run(options.command(actions, "delete", delete, "Delete a run and its blocks."))


def show_all(args: argparse.Namespace) -> int:
    """Print all runs."""
    found = open_store().list()
    if args.json:
        emit({"runs": [run_json(info) for info in found]})
        return 0
    if not found:
        say("There are no runs yet; `python -m salq calibrate` starts one.")
        return 0
    rows = [
        [info.id, info.title, _status(info), number(info.metrics.get("perplexity")), number(info.metrics.get("bits_per_weight"), 3), _when(info)]
        for info in found
    ]
    say(table(["run", "title", "status", "perplexity", "bits/weight", "created"], rows))
    return 0


def show(args: argparse.Namespace) -> int:
    """Print one run."""
    from salq.runs.blind import tally  # numpy comes with it

    store = open_store()
    info = store.get(store.resolve(args.run_id))
    if args.json:
        request = None if info.request is None else info.request.to_json()
        emit(
            run_json(info)
            | {
                "request": request,
                "environment": _environment(store, info.id),
                "output_errors": info.progress.output_errors,
                "blind_test": asdict(tally(store, info.id)),
                "details": info.progress.details,
            }
        )
        return 0
    say(f"{info.title}   (run {info.id})")
    say(facts([(name, value) for name, value in _about(store, info) if value]))
    if info.metrics and info.kind == "calibrate":
        say(result_facts(info.metrics, info.progress.phase_seconds))
    if judged := tally(store, info.id).words:
        say(f"\nBlind test: {judged}")
    errors = info.progress.output_errors
    if errors:
        say("\n" + blocks_table(info.progress))
    return 0


def resume_run(args: argparse.Namespace) -> int:
    """Go on with a run."""
    store = open_store()
    run_id = store.resolve(args.run_id)
    info = store.get(run_id)
    if info.is_active:
        raise StoreError(f"Run {run_id} is {info.status} already; `python -m salq runs show {run_id}` shows its progress.")
    if info.status == "done":
        raise StoreError(f"Run {run_id} is done; `python -m salq runs rerun {run_id}` starts the same run anew.")
    check(store.request(run_id))
    return carry_out_and_report(store, run_id, as_json=args.json, background=args.background)


def rerun_run(args: argparse.Namespace) -> int:
    """Start the same run anew."""
    store = open_store()
    request = store.request(store.resolve(args.run_id))
    check(request)
    return carry_out_and_report(store, store.create(request), as_json=args.json, background=args.background)


def cancel(args: argparse.Namespace) -> int:
    """Stop a run, and wait until it has."""
    store = open_store()
    run_id = store.resolve(args.run_id)
    store.cancel(run_id)
    deadline = time.monotonic() + CANCEL_SECONDS
    while store.is_alive(run_id) and time.monotonic() < deadline:
        time.sleep(0.1)
    info = store.get(run_id)
    if args.json:
        emit(run_json(info))
    else:
        say(f"Run {run_id} is {info.status}." if not info.is_active else f"Run {run_id} was asked to stop and does so after its current step.")
    return 0


def delete(args: argparse.Namespace) -> int:
    """Delete a run."""
    store = open_store()
    run_id = store.resolve(args.run_id)
    store.delete(run_id)
    if args.json:
        emit({"run": run_id, "deleted": True})
    else:
        note(f"Run {run_id} is deleted.")
    return 0


def blocks_table(progress: Progress) -> str:
    """Error of every finished block and, where it was calibrated, how large each loss term and its gradient were before the first step."""
    terms = {block: start_terms(details) for block, details in progress.details.items()}
    names = list(dict.fromkeys(term.name for found in terms.values() for term in found))
    rows = []
    for block, error in sorted(progress.output_errors.items()):
        by_name = {term.name: term for term in terms.get(block, [])}
        cells = [(number(term.value, 3), number(sum(norm**2 for norm in term.gradients.values()) ** 0.5, 3)) for term in by_name.values()]
        known = dict(zip(by_name, cells, strict=True))
        rows.append([str(block), percent(error), *(cell for name in names for cell in known.get(name, ("-", "-")))])
    return table(["block", "output error", *(words for name in names for words in (name, "its gradient"))], rows)


def _with_run(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("run_id", metavar="ID", help="id, beginning or end of an id, or title of a run")
    return parser


def _about(store: RunStore, info: RunInfo) -> list[tuple[str, str]]:
    environment = _environment(store, info.id)
    request = info.request
    return [
        ("status", _status(info)),
        ("problem", info.problem if info.status in {"failed", "unreadable"} else ""),
        ("last words", last_line(store.folder(info.id) / LOG) if info.status in {"failed", "interrupted"} else ""),
        ("created", _when(info)),
        ("model", "" if request is None else request.model),
        ("text", "" if request is None else f"{request.text}, seed {request.seed}"),
        ("device", str(environment.get("device_reason", ""))),
        ("versions", ", ".join(f"{name} {environment[name]}" for name in ("salq", "python", "torch", "transformers") if environment.get(name))),
        ("processor", str(environment.get("gpu") or environment.get("cpu") or "")),
    ]


def _environment(store: RunStore, run_id: str) -> dict[str, object]:
    try:
        found = read_json(store.folder(run_id) / "environment.json")
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _status(info: RunInfo) -> str:
    if info.status == "queued" and info.position:
        return f"queued, {info.position} ahead"
    if info.status == "running":
        left = "" if info.progress.eta is None else f", about {duration(info.progress.eta)} left"
        return f"running {info.progress.fraction:.0%}{left}"
    return info.status


def _when(info: RunInfo) -> str:
    return datetime.fromtimestamp(info.created).astimezone().strftime("%Y-%m-%d %H:%M")
