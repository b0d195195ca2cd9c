"""`python -m salq`: the commands, and the one place where errors become a sentence and an exit code.

Exit codes: 0 done, 2 something that the user can fix (one sentence on stderr; with --json also {"error": ...} on stdout), 130 stopped.
Anything else is a bug and keeps its traceback. `--help` imports no torch: every command imports what it needs when it runs.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from salq import __version__
from salq.cli import bench, calibrate, catalogue, chat, compare, doctor, evaluate, experiment, explore, export, learn, options, runs, sweep, tokens
from salq.cli.report import emit, note
from salq.core.errors import ConfigError, SalqError

BAD_INPUT = 2
STOPPED = 130
COMMANDS = (learn, catalogue, explore, calibrate, sweep, experiment, evaluate, tokens, compare, runs, export, bench, doctor)


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one sentence, told like every other error."""

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError in place of printing the usage."""
        raise ConfigError(f"{message[:1].upper()}{message[1:]}; see `{self.prog} --help`.")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = Parser(prog="python -m salq", description="See what quantization does to a LLaMA, repair it, and talk to the result.")
    parser.add_argument("--version", action="version", version=f"salq {__version__}")
    parser.set_defaults(json=False)  # commands leave it alone unless --json is given, so it may stand before or after an action
    commands = parser.add_subparsers(metavar="COMMAND", parser_class=Parser)
    for module in COMMANDS:
        module.add(commands)
    chat.add_arguments(options.command(commands, "chat", _chat, "Talk to the original and its quantized forms side by side."))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character shows a question mark
    parser = build_parser()
    try:
        parsed = parser.parse_args(words)
        if not hasattr(parsed, "handler"):
            parser.print_help()
            return 0
        return int(parsed.handler(parsed))
    except SalqError as error:
        note(f"salq: {error}")
        if "--json" in words:
            emit({"error": str(error), "kind": type(error).__name__})
        return BAD_INPUT
    except KeyboardInterrupt:
        note("salq: stopped.")
        return STOPPED
    except BrokenPipeError:  # the reader (such as `head`) has seen enough
        sys.stderr.close()
        return 0


def _chat(args: argparse.Namespace) -> int:
    answers = chat.run(args)
    if args.json:
        emit(answers)
    return 0
