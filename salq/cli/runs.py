"""`runs`: list, show, resume, cancel, delete and repeat runs."""

import argparse
import time
from dataclasses import asdict
from datetime import datetime
from typing import Any

from salq.cli import options
from salq.cli.follow import carry_out, carry_out_and_report, open_store, report, run_json
from salq.cli.report import duration, emit, facts, note, number, percent, result_facts, say, table
from salq.core.errors import SalqError, StoreError
from salq.core.progress import Progress, start_terms
from salq.runs import repeat
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
    _with_run(options.command(actions, "pin", pin, "Protect a run from the quota of the disk (SALQ_QUOTA_GB)."))
    _with_run(options.command(actions, "unpin", unpin, "Let the quota remove the run again, when it is the oldest."))


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
        found = info.progress
        emit(run_json(info) | _needed(store, info) | {
            "output_errors": found.output_errors, "blind_test": asdict(tally(store, info.id)), "details": found.details,
        })  # fmt: skip
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
    if repeat.is_whole(store, run_id):
        raise StoreError(f"Run {run_id} is done; `python -m salq runs rerun {run_id}` starts the same run anew.")
    check(store.request(run_id))
    return carry_out_and_report(store, run_id, as_json=args.json, background=args.background)


def rerun_run(args: argparse.Namespace) -> int:
    """Start the same run anew, and say whether its codes are those of the first."""
    store = open_store()
    first = store.resolve(args.run_id)
    request = store.request(first)
    check(request)
    again = store.create(request)
    if args.background:
        note(f"`python -m salq runs show {again}` says, once it is done, whether its codes are those of run {first}.")
        return carry_out_and_report(store, again, as_json=args.json, background=True)
    store.clear_cancel(again)
    info = carry_out(store, again)
    compared = repeat.compare(store, again, first)
    beside = {
        "rerun_of": first, "codes_sha256": repeat.hash_of_run(store, again), "same_codes": compared.same, "differences": list(compared.differences)
    }  # fmt: skip
    code = report(info, as_json=args.json, beside=beside)
    if info.status == "done" and info.kind == "calibrate" and not args.json:
        say(f"\n{compared.words}")
    return code


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
        if info.is_active and info.silence is not None:
            say(f"It gave {info.silence_words}; if it hangs, end it in the terminal that it was started in. Its finished blocks are kept.")
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


def pin(args: argparse.Namespace) -> int:
    """Protect a run."""
    return _pin(args, pinned=True)


def unpin(args: argparse.Namespace) -> int:
    """Protect a run no longer."""
    return _pin(args, pinned=False)


def _pin(args: argparse.Namespace, *, pinned: bool) -> int:
    store = open_store()
    run_id = store.resolve(args.run_id)
    store.pin(run_id, pinned=pinned)
    if args.json:
        emit({"run": run_id, "pinned": pinned})
    else:
        say(f"Run {run_id} is {'pinned: the quota leaves it alone' if pinned else 'no longer pinned'}.")
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
    needed = _needed(store, info)
    environment = needed["environment"]
    request = info.request
    same = [f"{one['run']}: {'the same codes' if one['same_codes'] else 'other codes'}" for one in needed["same_request"]]
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
        ("threads", str(environment.get("threads") or "")),
        ("inputs", ", ".join(f"{name} {str(digest)[:16]}" for name, digest in needed["inputs"].items() if digest and not name.endswith("_name"))),
        ("codes", f"sha256 {needed['codes_sha256']}" if needed["codes_sha256"] else ""),
        ("same request", "; ".join(same)),
        ("again", needed["command"] if request is not None else ""),
    ]


def _needed(store: RunStore, info: RunInfo) -> dict[str, Any]:
    """What is needed to make the run again; empty values for a run whose request cannot be read."""
    try:
        return repeat.needed(store, info.id)
    except SalqError:
        return {"command": "", "request": None, "inputs": {}, "environment": {}, "codes_sha256": None, "same_request": []}


def _status(info: RunInfo) -> str:
    if info.status == "queued" and info.position:
        starts = "" if info.wait is None else f", starts in about {duration(info.wait)}"
        return f"queued, {info.position} ahead{starts}"
    if info.status == "running":
        left = "" if info.progress.eta is None else f", about {duration(info.progress.eta)} left"
        left = f", {info.silence_words}" if info.silence is not None else left
        return f"running {info.progress.fraction:.0%}{left}"
    return f"{info.status}, pinned" if info.pinned else info.status


def _when(info: RunInfo) -> str:
    return datetime.fromtimestamp(info.created).astimezone().strftime("%Y-%m-%d %H:%M")
