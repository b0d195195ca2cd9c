"""How numbers and tables are printed: reports on stdout, everything that passes on stderr."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from salq.runs.log import finite

STABLE = ("perplexity", "kl", "bits_per_weight", "size_mb", "seconds", "peak_memory_gb")
"""Keys that every JSON report of a result has."""


def say(text: str = "") -> None:
    """A line of the report."""
    print(text)


def note(text: str) -> None:
    """A line beside the report."""
    print(text, file=sys.stderr, flush=True)


def emit(value: Mapping[str, Any]) -> None:
    """The report as one JSON object on one line, the last of the output; NaN and infinity are null."""
    print(json.dumps(finite(dict(value)), allow_nan=False), flush=True)


def with_stable_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with every stable key present (null when unknown), those first; per-window lists are left out."""
    return {key: values.get(key) for key in STABLE} | {key: value for key, value in values.items() if key not in STABLE and key != "per_window"}


def number(value: Any, digits: int = 4) -> str:
    """A number with about `digits` significant digits, without needless exponents; '-' for none."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if value != value or abs(value) == float("inf"):
        return "not finite"
    if value == 0 or 1e-3 <= abs(value) < 10 ** max(digits, 5):
        whole = len(str(int(abs(value))))
        return f"{value:,.{max(digits - whole, 0)}f}" if abs(value) >= 1 else f"{value:.{digits}g}"
    return f"{value:.{digits - 1}e}"


def percent(value: Any) -> str:
    """A fraction as a percentage."""
    return "-" if value is None else f"{100 * value:.1f} %"


def duration(seconds: float | None) -> str:
    """Seconds as people say them."""
    if seconds is None:
        return "-"
    seconds = max(0.0, seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned: text to the left, numbers to the right."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    right = [all(_is_number(row[column]) for row in rows) and bool(rows) for column in range(len(header))]
    shown = ["  ".join(cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(line, widths, right, strict=True)).rstrip() for line in lines]
    return "\n".join([shown[0], "  ".join("-" * width for width in widths), *shown[1:]])


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Name and value per line, values aligned."""
    width = max(len(name) for name, _ in pairs)
    return "\n".join(f"  {name.ljust(width)}  {value}".rstrip() for name, value in pairs)


def result_facts(metrics: Mapping[str, Any], phases: Mapping[str, float] | None = None) -> str:
    """The final numbers of a calibration or an evaluation, each with its unit and what it was measured on."""
    windows = f"{metrics.get('text')}, {metrics.get('windows')} windows of {metrics.get('window')} tokens"
    original = f"{metrics.get('reference', 'original')} {number(metrics.get('perplexity_original'))}"
    whole = f"whole model {number(metrics.get('model_bits_per_weight'), 3)}"
    spread = f"median {number(metrics.get('kl_median'))}, 99th percentile {number(metrics.get('kl_p99'))}"
    pairs = [
        ("perplexity", f"{_with_se(metrics, 'perplexity')}   ({original}; {windows})"),
        ("KL divergence", f"{_with_se(metrics, 'kl')} nats/token from the original, {spread}   (same text and windows)"),
        ("agreement", f"{percent(metrics.get('top1_agreement'))} of first choices are the original's   (same text and windows)"),
        ("noise floor", _floor(metrics.get("noise_floor"))),
        ("bits per weight", f"{number(metrics.get('bits_per_weight'), 3)} quantized matrices, {whole}"),
        ("size", f"{number(metrics.get('size_mb'))} MB quantized matrices, whole model {number(metrics.get('model_size_mb'))} MB"),
        ("executor", str(metrics.get("execution") or "-")),
        ("time", duration(metrics.get("seconds")) + _phases(phases or {})),
        ("peak memory", f"{number(metrics.get('peak_memory_gb'), 3)} GB"),
    ]
    return facts([(name, value) for name, value in pairs if not value.startswith("-")])


def _with_se(metrics: Mapping[str, Any], name: str) -> str:
    error = metrics.get(f"{name}_se")
    return number(metrics.get(name)) + (f" ± {number(error, 2)}" if error is not None else "")


def _floor(floor: Mapping[str, Any] | None) -> str:
    if floor is None:
        return "-"
    return f"KL {number(floor['kl'], 2)}, agreement {100 * floor['top1_agreement']:.2f} %: {floor['how']}   (same text and windows)"


def _phases(phases: Mapping[str, float]) -> str:
    return "   (" + ", ".join(f"{name} {duration(seconds)}" for name, seconds in phases.items() if name != "results") + ")" if phases else ""


def _is_number(cell: str) -> bool:
    return cell in {"-", "not finite", ""} or cell.replace(",", "").replace(".", "").lstrip("+-")[:1].isdigit()
