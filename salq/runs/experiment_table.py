"""From the finished sides of an experiment to its answer: one row per recipe and bit-width, each against the baseline of the same seeds."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from salq.evaluation.paired import Floats, Interval, degradation_removed, mean_difference, over_seeds
from salq.runs.experiment import BEST, ROUNDING, Experiment

Kept = Mapping[str, Any]


def rows(experiment: Experiment, kept: Sequence[Kept]) -> list[dict[str, Any]]:
    """One row per (bits, recipe), neighbours included; differences are against the baseline over the seeds both have.

    Keys: recipe, bits, seeds, bits_per_weight, size_mb, perplexity, kl, top1_agreement, seconds, peak_memory_gb (means over seeds), and for what is
    not the baseline: degradation_removed with interval [low, high], nll, kl_difference, top1_difference and output_error (B minus A, with
    intervals), sign_by_seed.
    """
    grouped: dict[tuple[int, str], dict[int, Kept]] = defaultdict(dict)
    for side in kept:
        grouped[side["bits"], side["recipe"]][side["seed"]] = side
    baseline = experiment.contenders[0].label
    order = [contender.label for contender in (ROUNDING, *experiment.contenders, BEST)]
    found = []
    for bits, label in sorted(grouped, key=lambda key: (key[0], order.index(key[1]))):
        here, base = grouped[bits, label], grouped.get((bits, baseline), {})
        common = sorted(set(here) & set(base)) if label != baseline else []
        row = _summary(label, bits, list(here.values()))
        if common:
            row |= _against([base[seed] for seed in common], [here[seed] for seed in common])
        found.append(row)
    return found


def markdown(experiment: Experiment, table: Sequence[Mapping[str, Any]], conditions: str) -> str:
    """The rows as a markdown table under the experiment's question."""
    lines = [
        f"# {experiment.name}: {experiment.question}", "", conditions, "",
        "| recipe | bits | bits/weight | MB | perplexity | KL (nats/token) | top-1 | degradation removed [95 %] | log-perplexity by seed "
        "| better blocks | time (s) | memory (GB) |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for row in table:
        removed, blocks = "-", "-"
        if "degradation_removed" in row:
            low, high = row["interval"]
            removed = f"{row['degradation_removed']:.1%} [{low:.1%}, {high:.1%}]"
            blocks = f"{row['blocks_better']} of {row['blocks']}" if "blocks" in row else "-"
        seeds = " ".join(f"{value:+.4f}" for value in row.get("nll_by_seed", [])) or "-"
        lines.append(
            f"| {row['recipe']} | {row['bits']} | {row['bits_per_weight']:.2f} | {row['size_mb']:.1f} | {row['perplexity']:.4g} | {row['kl']:.4g} "
            f"| {row['top1_agreement']:.1%} | {removed} | {seeds} | {blocks} | {row['seconds']:.0f} | {row['peak_memory_gb']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def _summary(label: str, bits: int, sides: Sequence[Kept]) -> dict[str, Any]:
    sums = [_sums(side) for side in sides]
    tokens = sum(float(part["tokens"].sum()) for part in sums)
    nll = sum(float(part["nll"].sum()) for part in sums) / tokens
    means = {name: float(np.mean([side[name] for side in sides])) for name in ("bits_per_weight", "size_mb", "seconds", "peak_memory_gb")}
    return {
        "recipe": label, "bits": bits, "seeds": sorted(side["seed"] for side in sides), **means,
        "perplexity": float(np.exp(nll)), "perplexity_original": sides[0]["perplexity_original"],
        "kl": sum(float(part["kl"].sum()) for part in sums) / tokens, "top1_agreement": sum(float(part["agrees"].sum()) for part in sums) / tokens,
    }  # fmt: skip


def _against(base: Sequence[Kept], here: Sequence[Kept]) -> dict[str, Any]:
    """Paired statistics of the same seeds on the same windows."""
    a, b = {name: _mean(base, name) for name in MEASURED}, {name: _mean(here, name) for name in MEASURED}
    tokens, original = _mean(base, "tokens"), _mean(base, "nll_original")
    removed = degradation_removed(original, a["nll"], b["nll"])
    by_seed = [float((_sums(y)["nll"].sum() - _sums(x)["nll"].sum()) / tokens.sum()) for x, y in zip(base, here, strict=True)]
    differences: dict[str, Interval] = {name: mean_difference(a[name], b[name], tokens) for name in MEASURED}
    return {
        "degradation_removed": removed.value, "interval": [removed.low, removed.high],
        "nll_difference": differences["nll"].to_json(), "kl_difference": differences["kl"].to_json(),
        "top1_difference": differences["agrees"].to_json(), "nll_by_seed": by_seed,
        **_blocks(base, here),
    }  # fmt: skip


def _blocks(base: Sequence[Kept], here: Sequence[Kept]) -> dict[str, Any]:
    """In how many blocks the relative output error on the calibration text is lower; nothing for recipes that see no text."""
    if any(None in side["output_errors"] for side in (*base, *here)):
        return {}
    errors_a, errors_b = (np.asarray([side["output_errors"] for side in sides], dtype=np.float64).mean(axis=0) for sides in (base, here))
    difference = errors_b - errors_a
    return {"blocks_better": int((difference < 0).sum()), "blocks": len(difference), "output_error_difference": float(difference.mean())}


MEASURED = ("nll", "kl", "agrees")


def _sums(side: Kept) -> dict[str, Floats]:
    return {
        name: np.asarray([np.inf if value is None else value for value in values], dtype=np.float64) for name, values in side["per_window"].items()
    }


def _mean(sides: Sequence[Kept], name: str) -> Floats:
    return over_seeds([_sums(side)[name].tolist() for side in sides])
