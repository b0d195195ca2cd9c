"""`learn`: the seven lessons as a document, printed or written to a file."""

import argparse
from pathlib import Path

from salq.cli import options
from salq.cli.report import emit, note, say
from salq.core.errors import ConfigError
from salq.core.files import atomic_path


def add(commands: options.Commands) -> None:
    """Add the command."""
    parser = options.command(commands, "learn", run, "The seven lessons of the page as a document.", "Prints it, or writes it with --export.")
    parser.add_argument("--export", type=Path, metavar="FILE", help="write the document (Markdown) to this file")


def run(args: argparse.Namespace) -> int:
    """Do it."""
    from salq.lessons.document import document
    from salq.lessons.words import LESSONS

    if args.export is not None and args.export.is_dir():
        raise ConfigError(f"{args.export} is a folder; name a file, such as {args.export / 'lessons.md'}.")
    text = document()
    if args.export is not None:
        with atomic_path(args.export) as temporary:
            temporary.write_text(text, encoding="utf-8")
        note(f"The lessons are in {args.export}.")
    elif not args.json:
        say(text)
    if args.json:
        written = None if args.export is None else str(args.export)
        emit({"file": written, "lessons": [{"key": one.key, "title": one.title, "question": one.why} for one in LESSONS]})
    return 0
