"""The command line, `python -m salq ...`: the only room that prints. It folds the same events and reads the same run store as the page."""

from salq.cli.program import main

__all__ = ["main"]
