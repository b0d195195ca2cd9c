"""`export`: a finished run as a folder of its own, packed, to keep, copy, talk to or load with `salq.load_packed`."""

import argparse
import shlex
from pathlib import Path

from salq.cli import options
from salq.cli.follow import open_store
from salq.cli.report import emit, facts, number, say


def add(commands: options.Commands) -> None:
    """Add the command."""
    parser = options.command(commands, "export", run, "Write a finished run as a packed model in a folder of its own.")
    parser.add_argument("run_id", metavar="ID", help="id, beginning or end of an id, or title of a run")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="where to write; must not exist yet, or be empty")


def run(args: argparse.Namespace) -> int:
    """Do it."""
    from salq.runs.export import export_run

    store = open_store()
    run_id = store.resolve(args.run_id)
    about = export_run(store, run_id, args.folder)
    size = sum(path.stat().st_size for path in args.folder.expanduser().iterdir())
    if args.json:
        emit({"run": run_id, "folder": str(args.folder), "bytes": size, "metrics": about["metrics"]})
        return 0
    talk = shlex.join(["python", "-m", "salq", "chat", "--packed", str(args.folder)])
    say(f"Run {run_id} is in {args.folder}; `{talk}` talks to it, salq.load_packed reads it.")
    pairs = [("model", f"{about['source']['model']}, {about['metrics'].get('tag', '')}"), ("on disk", f"{number(size / 1e6)} MB, with tokenizer")]
    pairs += [("weights", f"{number(about['metrics'].get('model_size_mb'))} MB, {number(about['metrics'].get('size_mb'))} MB of them quantized")]
    say(facts(pairs))
    return 0
