"""`compare`: two runs side by side, with the paired difference of their losses on the same windows."""

import argparse
from collections.abc import Mapping
from typing import Any

from salq.cli import options
from salq.cli.follow import open_store, run_json
from salq.cli.report import emit, number, say, table
from salq.core.errors import ConfigError
from salq.runs.store import RunInfo

ROWS = (
    ("perplexity", "perplexity"),
    ("kl", "KL from the original (nats/token)"),
    ("top1_agreement", "same most likely token (share)"),
    ("bits_per_weight", "bits per weight, quantized matrices"),
    ("model_bits_per_weight", "bits per weight, whole model"),
    ("size_mb", "MB, quantized matrices"),
    ("model_size_mb", "MB, whole model"),
    ("seconds", "calibration time (s)"),
    ("peak_memory_gb", "peak memory (GB)"),
)
SAME_WINDOWS = ("text", "windows", "window", "tokens", "perplexity_original")


def add(commands: options.Commands) -> None:
    """Add the command."""
    parser = options.command(commands, "compare", run, "Compare two finished runs.")
    parser.add_argument("a", metavar="RUN_A", help="id, end of an id, or title of a run")
    parser.add_argument("b", metavar="RUN_B", help="the run that is compared with it")


def run(args: argparse.Namespace) -> int:
    """Do it."""
    store = open_store()
    a, b = (_finished(store.get(store.resolve(name))) for name in (args.a, args.b))
    paired = paired_difference(a.metrics, b.metrics)
    if args.json:
        differences = {key: _minus(b.metrics.get(key), a.metrics.get(key)) for key, _ in ROWS}
        emit({"a": run_json(a), "b": run_json(b), "difference": differences, "paired_nll": paired})
        return 0
    rows = []
    for key, label in ROWS:
        difference = _minus(b.metrics.get(key), a.metrics.get(key))
        signed = "-" if difference is None else f"{'+' if difference > 0 else ''}{number(difference)}"
        rows.append([label, number(a.metrics.get(key)), number(b.metrics.get(key)), signed])
    say(f"A  {a.title}   (run {a.id})\nB  {b.title}   (run {b.id})\n")
    say(table(["", "A", "B", "B - A"], rows))
    say()
    if paired is None:
        say("The runs were measured on different text or windows, so their losses cannot be paired; `evaluate --run` measures both alike.")
    else:
        error = "" if paired["standard_error"] is None else f" ± {number(paired['standard_error'], 2)} (standard error)"
        where = f"{a.metrics['text']}, {paired['windows']} windows of {a.metrics['window']} tokens"
        say(f"Paired over windows: B - A = {number(paired['difference'])}{error} nats/token   ({where})")
    return 0


def paired_difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any] | None:
    """Mean nll of B minus A in nats per token over the windows that both were measured on, and its standard error over windows.

    None when the runs were measured on different text or windows, or when a window's loss is not finite.
    """
    if any(a.get(key) != b.get(key) for key in SAME_WINDOWS) or not a.get("per_window") or not b.get("per_window"):
        return None
    first, second = a["per_window"], b["per_window"]
    if len(first["nll"]) != len(second["nll"]) or None in [*first["nll"], *second["nll"]]:
        return None
    from salq.evaluation.scores import ratio_estimate  # torch comes with it

    differences = [y - x for x, y in zip(first["nll"], second["nll"], strict=True)]
    mean = ratio_estimate(differences, [int(count) for count in first["tokens"]])
    return {"difference": mean.value, "standard_error": mean.standard_error, "windows": len(differences)}


def _finished(info: RunInfo) -> RunInfo:
    if info.status != "done" or info.kind != "calibrate":
        raise ConfigError(f"Run {info.id} is {info.status} and has no results to compare; choose two finished runs of calibrate.")
    return info


def _minus(b: Any, a: Any) -> float | None:
    return b - a if isinstance(a, int | float) and isinstance(b, int | float) else None
