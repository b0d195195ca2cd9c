"""`doctor`: what of this machine works with salq, with the fix for what does not."""

import argparse

from salq.cli import options
from salq.cli.report import emit, say

MARKS = {"ok": "ok      ", "notice": "notice  ", "problem": "PROBLEM "}


def add(commands: options.Commands) -> None:
    """Add the command."""
    options.command(commands, "doctor", diagnose, "Say what of Python, torch, GPU, executors, folders, disk and hub works, with the fix.")


def diagnose(args: argparse.Namespace) -> int:
    """Look at everything; exit code 0 unless salq cannot work at all."""
    from salq.runs.health import checks, works

    found = []
    for check in checks():
        found.append(check)
        if not args.json:
            say(f"{MARKS[check.state]}{check.name}: {check.found}")
            if check.fix:
                say(f"            {check.fix}")
    good = works(found)
    if args.json:
        emit({"works": good, "checks": [check.to_json() for check in found]})
    else:
        say("\nsalq works here." if good else "\nsalq cannot work here until the problems above are fixed.")
    return 0 if good else 2
