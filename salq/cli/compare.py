"""`compare`: two runs, or a run and the original or its rounding to nearest, on the same windows: a verdict, a table, and a report to keep."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salq.cli import options
from salq.cli.follow import open_store, run_json
from salq.cli.report import emit, note, number, say, table
from salq.core.errors import ConfigError
from salq.core.files import atomic_path
from salq.runs.limits import Limits
from salq.runs.requests import CalibrateRequest, Evaluation
from salq.runs.store import RunStore

if TYPE_CHECKING:
    from salq.runs.subjects import Subject

ROWS = (
    ("perplexity", "perplexity"),
    ("perplexity_se", "  its standard error"),
    ("kl", "KL from the original (nats/token)"),
    ("kl_se", "  its standard error"),
    ("kl_median", "  median token"),
    ("kl_p99", "  99th percentile"),
    ("top1_agreement", "same most likely token (share)"),
    ("bits_per_weight", "bits per weight, quantized matrices"),
    ("model_bits_per_weight", "bits per weight, whole model"),
    ("size_mb", "MB, quantized matrices"),
    ("model_size_mb", "MB, whole model"),
    ("seconds", "calibration time (s)"),
    ("peak_memory_gb", "peak memory (GB)"),
)


def add(commands: options.Commands) -> None:
    """Add the command."""
    parser = options.command(
        commands, "compare", run, "Compare two finished runs, or one with the original or with rounding to nearest.",
        "The verdict is paired over evaluation windows, so both must have been measured on the same text; with --text, --windows or --window "
        "both are measured anew.",
    )  # fmt: skip
    parser.add_argument("a", metavar="A", help="id, end of an id, or title of a run; or `original`; or `rtn`, the same grid rounded to nearest")
    parser.add_argument("b", metavar="B", help="what is compared with it")
    parser.add_argument("--text", dest="eval_text", metavar="SOURCE", help="measure both anew on this text: auto, bundled, wikitext2, c4 or a file")
    parser.add_argument("--windows", type=int, metavar="N", help="measure both anew on N windows")
    parser.add_argument("--window", type=int, metavar="L", help="measure both anew on windows of L tokens")
    parser.add_argument("--device", default="auto", help="where they are measured anew: auto, cpu or cuda:N (default auto)")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write the comparison as one HTML file that needs nothing else")


def run(args: argparse.Namespace) -> int:
    """Do it."""
    if args.html is not None and args.html.is_dir():
        raise ConfigError(f"{args.html} is a folder; name a file, such as {args.html / 'comparison.html'}.")
    from salq.runs.comparison import compared  # numpy comes with it
    from salq.runs.subjects import pair
    from salq.runs.verdict import document

    store = open_store()
    a, b = pair(store, args.a, args.b)
    if any(value is not None for value in (args.eval_text, args.windows, args.window)):
        a, b = _anew(store, (a, b), args)
    value = document(compared(store, a, b))
    if args.html is not None:
        _write(args.html, value)
    if args.json:
        sides = {key: _run(store, value[key]["run"]) | value[key] for key in ("a", "b")}  # what was measured last wins
        differences = {key: _difference(key, value["a"], value["b"]) for key, _ in ROWS}
        written = None if args.html is None else str(args.html)
        emit({**value, **sides, "difference": differences, "html": written})
        return 0
    say(f"A  {_who(value['a'])}\nB  {_who(value['b'])}\n")
    say(f"{value['verdict']}\n")
    say(table(["", "A", "B", "B - A"], _rows(value["a"], value["b"])))
    say("\n" + "\n".join(value["remarks"]))
    return 0


def _anew(store: RunStore, sides: "tuple[Subject, Subject]", args: argparse.Namespace) -> "tuple[Subject, Subject]":
    """Both sides measured on what the arguments name; what they leave out is as the first run has it."""
    from salq.cli.display import Display
    from salq.runs.remeasure import remeasured

    request = store.request(next(side.run for side in sides if side.run))
    assert isinstance(request, CalibrateRequest)  # a side is a run of calibrate
    wanted: dict[str, Any] = {
        "text": options.placed(args.eval_text) if args.eval_text is not None else request.evaluation.text,
        "windows": args.windows if args.windows is not None else request.evaluation.windows,
        "window": args.window if args.window is not None else request.evaluation.window,
    }
    limits = Limits.here()
    try:
        evaluation = Evaluation(**wanted)
    except ValueError as error:
        raise ConfigError(f"{wanted['windows']} windows of {wanted['window']} tokens cannot be evaluated; use at least 1 of at least 8.") from error
    limits.check_evaluation(evaluation.windows, evaluation.window)
    limits.check_text(evaluation.text, "evaluation")
    return Display().watch(remeasured(store, sides, evaluation, args.device))


def _write(path: Path, value: Mapping[str, Any]) -> None:
    from salq.figures.report import page  # plotly's room

    with atomic_path(path) as temporary:
        temporary.write_text(page(value), encoding="utf-8")
    note(f"The comparison is in {path}.")


def _rows(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for key, label in ROWS:
        difference = _difference(key, a, b)
        signed = "-" if difference is None else f"{'+' if difference > 0 else ''}{number(difference)}"
        rows.append([label, number(a.get(key)), number(b.get(key)), signed])
    return rows


def _run(store: RunStore, run_id: str | None) -> dict[str, Any]:
    return {} if run_id is None else run_json(store.get(run_id))


def _who(side: Mapping[str, Any]) -> str:
    return f"{side['title']}   (run {side['run']})" if side["run"] else str(side["title"])


def _difference(key: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> float | None:
    """B minus A; None where one of them has no such number, and for standard errors, whose difference says nothing."""
    one, other = a.get(key), b.get(key)
    return other - one if isinstance(one, int | float) and isinstance(other, int | float) and not key.endswith("_se") else None
