"""The file of figures about trust, benchmarks/results/reliability.json: one section per measurement, each with the command that made it."""

from pathlib import Path
from typing import Any

from salq.core.device import choose_device
from salq.core.files import read_json, write_json
from salq.runs.environment import environment

RESULT = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "reliability.json"


def section(name: str, path: Path = RESULT) -> dict[str, Any]:
    """What is recorded under that name; {} when nothing is."""
    try:
        found = read_json(path).get(name, {})
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def record(name: str, value: dict[str, Any], path: Path = RESULT) -> None:
    """Replace one section and leave the others as they are."""
    try:
        known = read_json(path)
    except (OSError, ValueError):
        known = {}
    known[name] = {**value, "environment": environment(choose_device("cpu"))}
    write_json(path, dict(sorted(known.items())))
