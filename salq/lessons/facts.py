"""The numbers in the lessons' sentences, from results of real runs that the repository keeps; nothing is typed in. Light: no torch."""

import statistics
from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Any

from salq.core.errors import SalqError
from salq.lessons.material import Material, kept_material
from salq.lessons.words import Lesson
from salq.models.catalogue import CATALOGUE
from salq.runs.exploration import kept
from salq.runs.kept import authors_name, kept_group, kept_maps, kept_runs

GROUP = 64
RANK = 64
"""Rank at which the lesson on adapters compares what is left."""


def facts(model: str) -> dict[str, str]:
    """Every number that is known of a catalogue model, by the name that the sentences use; empty for a model without kept results."""
    found: dict[str, str] = {}
    for part in (_of_runs, _of_exploration, _of_maps, _of_group, _of_material):
        try:
            found |= part(model)
        except (SalqError, KeyError, ValueError, IndexError, statistics.StatisticsError):
            continue  # a result that is not kept leaves its sentences out
    return found


def measured(lesson: Lesson, known: Mapping[str, str]) -> list[str]:
    """The lesson's sentences whose numbers are all known, filled in."""
    return [text.format(**known) for text in lesson.measured if all(name in known for name in placeholders(text))]


def placeholders(text: str) -> list[str]:
    """Names in braces, in order."""
    return [name for _, name, _, _ in Formatter().parse(text) if name]


def _of_runs(model: str) -> dict[str, str]:
    runs = [run.metrics for run in kept_runs(model) if run.metrics.get("perplexity")]
    told = {"original": perplexity(runs[0]["perplexity_original"])} if runs else {}
    for bits in (4, 3, 2):
        one = _run(runs, bits, GROUP, rounded=True)
        if one is not None:
            told |= {f"rtn{bits}": perplexity(one["perplexity"]), f"kl{bits}": f"{one['kl']:.2f}", f"agree{bits}": share(one["top1_agreement"])}
            told |= {f"bits{bits}": f"{one['bits_per_weight']:.2f}", f"se{bits}": f"{one['perplexity_se']:.1f}"}
    finer, best = _run(runs, 3, 32, rounded=True), _run(runs, 3, GROUP, rounded=False)
    if finer is not None:
        told |= {"rtn3_g32": perplexity(finer["perplexity"]), "bits3_g32": f"{finer['bits_per_weight']:.2f}"}
    if best is not None:
        told |= {
            "best3": perplexity(best["perplexity"]),
            "best3_name": authors_name(best["recipe"]),
            "bits_best3": f"{best['bits_per_weight']:.2f}",
            "run_rank": str(best["rank"]),
            "kl_best3": f"{best['kl']:.2f}",
            "agree_best3": share(best["top1_agreement"]),
        }
    return told


def _run(runs: Sequence[dict[str, Any]], bits: int, group: int, *, rounded: bool) -> dict[str, Any] | None:
    """The best run of a width and group size, rounded to nearest or calibrated."""
    fitting = [one for one in runs if one["bits"] == bits and one["group_size"] == group and (one["recipe"] == "rtn") is rounded]
    return min(fitting, key=lambda one: one["perplexity"]) if fitting else None


def _of_exploration(model: str) -> dict[str, str]:
    found = kept(model)
    if found is None:
        return {}
    told = {}
    for bits in (4, 3, 2):
        cells = found.cells("weight_error", f"w{bits}g{GROUP}")
        if cells is not None:
            told[f"weight_error{bits}"] = share(statistics.median(value for row in cells for value in row if value is not None))
    return told


def _of_maps(model: str) -> dict[str, str]:
    maps = kept_maps(model)
    if maps is None:
        return {}
    return {"top_saliency": share(maps.facts["saliency"]["top_share"]), "top_error": share(maps.facts["error"]["top_share"])}


def _of_group(model: str) -> dict[str, str]:
    group = kept_group(model)
    if group is None:
        return {}
    told = {f"step{bits}": f"{group.grids[str(bits)]['scale']:.3f}" for bits in (2, 3)}
    return told | {"title": CATALOGUE[model].title, "block": str(group.block), "matrix": group.matrix, "count": str(len(group.weights))}


def _of_material(model: str) -> dict[str, str]:
    found = kept_material(model)
    if found is None:
        return {}
    return _of_travel(found) | _of_spectrum(found) | _of_budget(found) | _of_shares(found)


def _of_travel(found: Material) -> dict[str, str]:
    three, two = found.travel["3"], found.travel["2"]
    ends = [curve[-1] for curve in three.without]
    best = min(range(len(ends)), key=ends.__getitem__)
    return {
        "alone3": share(statistics.fmean(three.alone)),
        "last3": share(three.together[-1]),
        "last2": share(two.together[-1]),
        "blocks": str(len(three.together)),
        "best_block": str(best),
        "best_last": share(ends[best]),
    }


def _of_spectrum(found: Material) -> dict[str, str]:
    spectrum = found.spectrum
    told = {"rank": str(RANK), "left_weight": share(left(spectrum.weight["3"], RANK)), "left_random": share(left(spectrum.random, RANK))}
    return told | ({"left_output": share(left(spectrum.output["3"], RANK))} if "3" in spectrum.output else {})


def left(values: Sequence[float], rank: int) -> float:
    """Share of the Frobenius norm that is left without the `rank` largest singular values (Eckart and Young 1936)."""
    squares = [value * value for value in values]
    return float((sum(squares[rank:]) / sum(squares)) ** 0.5)


def _of_budget(found: Material) -> dict[str, str]:
    if found.budget is None:
        return {}
    total = {bits: sum(value for row in rows for value in row) for bits, rows in found.budget.cost.items()}
    told = {"predicted_ratio": f"{total['2'] / total['3']:.1f}"}
    for one in found.budget.measured:
        name = "3" if one.uniform is not None else "_dealt3"
        if one.mean_bits == 3:  # noqa: PLR2004 - the width that the sentences are about
            told |= {f"{'uniform3' if one.uniform else 'dealt3'}": perplexity(one.perplexity), f"predicted{name}": f"{one.predicted:.0f}"}
    return told


def _of_shares(found: Material) -> dict[str, str]:
    return {name: share(value) for name, value in found.shares.items()} | {"row_count": str(len(found.row.weights))}


def perplexity(value: float) -> str:
    """A perplexity for a sentence."""
    return f"{value:.1f}" if value < 1000 else f"{value:,.0f}"  # noqa: PLR2004 - above that, a decimal says nothing


def share(value: float) -> str:
    """A share as a percentage."""
    return f"{100 * value:.1f}\u00a0%" if value < 0.1 else f"{100 * value:.0f}\u00a0%"  # noqa: PLR2004 - small shares need the decimal
