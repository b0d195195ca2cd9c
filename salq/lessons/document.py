"""The seven lessons as one Markdown document: words, figures as tables and text drawings, every number from kept results."""

from collections.abc import Sequence

import torch

from salq.core.errors import StoreError
from salq.lessons import words
from salq.lessons.facts import facts, left, measured, perplexity, share
from salq.lessons.material import Material, Spectrum, kept_material
from salq.lessons.matrix import best_clip, squared_error
from salq.lessons.words import LESSONS, Lesson
from salq.models.catalogue import DEFAULT_MODEL
from salq.quant.frozen import rtn
from salq.quant.size import matrix_bits
from salq.quant.spec import QuantSpec
from salq.runs.kept import KeptRun, kept_runs

LINE = 72
"""Characters of a drawn line."""


def document(model: str = DEFAULT_MODEL) -> str:
    """The whole document. Raises StoreError when the repository keeps no material of this model."""
    material = kept_material(model)
    if material is None:
        raise StoreError(f"No lessons are kept for {model}; `make assets` measures them.")
    known, runs = facts(model), kept_runs(model)
    asked = "\n".join(f"- {lesson.why} Lesson {number}." for number, lesson in enumerate(LESSONS, 1))
    parts = [f"# {words.DOCUMENT_TITLE}", words.DOCUMENT_INTRO.format(**known), asked]
    for number, lesson in enumerate(LESSONS, 1):
        parts += [_heading(number, lesson), FIGURES[lesson.key](material, runs), *_telling(lesson, known)]
    parts.append(f"{material.title}, block {material.block}, {material.matrix}. {material.note} {_reference(runs)}".strip())
    return "\n\n".join(parts) + "\n"


def _heading(number: int, lesson: Lesson) -> str:
    law = "\n".join(f"    {line.strip()}" for line in lesson.law.split("     "))
    return f"## {number}. {lesson.title}\n\n**{lesson.why}**\n\n{lesson.lede}\n\n{law}"


def _telling(lesson: Lesson, known: dict[str, str]) -> list[str]:
    return [
        f"*Predict:* {lesson.ask.rstrip('?')}{'?' if lesson.ask.endswith('?') else ' …'} *{lesson.options[lesson.answer]}.*",
        lesson.reveal,
        *measured(lesson, known),
    ]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def ruler(values: Sequence[float], marks: Sequence[float], low: float, high: float) -> list[str]:
    """Two lines of text: how many values lie under each character, and the marks below them."""
    counts, ticks = [0] * LINE, ["-"] * LINE

    def at(value: float) -> int:
        return min(max(round((value - low) / (high - low) * (LINE - 1)), 0), LINE - 1)

    for value in values:
        counts[at(value)] += 1
    for mark in marks:
        ticks[at(mark)] = "|"
    return ["".join(str(min(count, 9)) if count else " " for count in counts).rstrip(), "".join(ticks)]


def _levels(material: Material, _: Sequence[KeptRun]) -> str:
    weights = material.group.weights
    group = torch.tensor([weights])
    edge = 1.35 * max(abs(value) for value in weights)
    drawn, rows = ["```text", ruler(weights, [], -edge, edge)[0]], []
    for bits in (4, 3, 2):
        spec = QuantSpec(bits=bits, group_size=None)  # type: ignore[arg-type]  # three of its widths
        frozen = rtn(group, spec)
        marks = [(code - int(frozen.zero_point)) * float(frozen.scale) for code in range(2**bits)]
        drawn.append(f"{ruler(weights, marks, -edge, edge)[1]}  {bits} bits")
        whole, (best, smallest) = squared_error(group, frozen.effective_weight()), best_clip(group, spec)
        rows.append([str(bits), str(2**bits), f"{float(frozen.scale):.4f}", f"{whole:.4f}", share(best), f"{smallest:.4f}"])
    picture = "\n".join([*drawn, "```"])
    said = f"{len(weights)} weights (digits: how many lie at a place) and the marks that they can move to:"
    header = ("bits", "marks", "step", "squared moves, full range", "best share of the range", "squared moves, clipped")
    return f"{said}\n\n{picture}\n\n{table(header, rows)}"


def _groups(material: Material, runs: Sequence[KeptRun]) -> str:
    row = torch.tensor([material.row.weights])
    rows = []
    for size in (256, 128, 64, 32, 16):
        if row.shape[1] % size:
            continue
        spec = QuantSpec(bits=3, group_size=size)
        bits = sum(matrix_bits(spec, 1, row.shape[1]).values()) / row.shape[1]
        found = next((one.metrics["perplexity"] for one in runs if (one.metrics["recipe"], one.metrics["tag"]) == ("rtn", spec.tag)), None)
        error = (squared_error(row, rtn(row, spec).effective_weight()) / row.shape[1]) ** 0.5
        rows.append([str(size), f"{bits:.3f}", f"{error:.4f}", "not measured" if found is None else perplexity(found)])
    said = f"{row.shape[1]} weights of one row at 3 bits, in groups of different sizes; the perplexity is that of the whole model:"
    return f"{said}\n\n{table(('weights in a group', 'bits per weight', 'root mean square move', 'perplexity'), rows)}"


def _saliency(material: Material, _: Sequence[KeptRun]) -> str:
    weights, patch = torch.tensor(material.patch.weights), material.patch
    if patch.saliency is None:
        return "No saliency map was measured."
    move = (weights - rtn(weights, QuantSpec(bits=3, group_size=None)).effective_weight()).double().abs().flatten()
    fisher = torch.tensor(patch.saliency).double().flatten()
    cost = fisher * move.square() / 2
    rows = []
    for kept in (0.0, 0.02, 0.05, 0.1, 0.2):
        top = round(kept * len(cost))
        remain = [1 - float(cost[order.argsort(descending=True)[:top]].sum() / cost.sum()) for order in (fisher, move, weights.abs().flatten())]
        rows.append([f"{100 * kept:.0f} %", *map(share, remain)])
    count, size = weights.shape
    said = f"Predicted loss that is left in {count} groups of {size} weights of {patch.matrix} at 3 bits, when some of them stay exact:"
    return f"{said}\n\n{table(('kept exact', 'chosen by saliency', 'by size of the move', 'by size of the weight'), rows)}"


def _travel(material: Material, _: Sequence[KeptRun]) -> str:
    lines = ["```text"]
    for bits in ("3", "2"):
        way = material.travel[bits]
        lines.append(f"{bits} bits: error after each block, all blocks rounded (#), only this block rounded (o)")
        most = max(max(material.travel["2"].together), 1e-9)
        for block in [*range(0, len(way.together), max(len(way.together) // 10, 1)), len(way.together) - 1]:
            long, short = (round(value / most * 40) for value in (way.together[block], way.alone[block]))
            drawn = "".join("o" if i == short else "#" if i < long else " " for i in range(max(long, short + 1)))
            lines.append(f"block {block:>3}  {drawn.ljust(42)} {share(way.together[block])}")
        lines.append("")
    return "\n".join([*lines[:-1], "```"])


def _adapters(material: Material, _: Sequence[KeptRun]) -> str:
    spectrum = material.spectrum
    out, inputs = spectrum.shape
    rows = [
        [
            str(rank),
            f"{16 * rank * (out + inputs) / (out * inputs):.2f}",
            share(left(spectrum.weight["3"], rank)),
            share(left(spectrum.random, rank)),
            _outputs(spectrum, rank),
        ]
        for rank in (8, 16, 32, 64, 128)
        if rank < len(spectrum.random)
    ]
    said = f"Error of a {out} x {inputs} matrix at 3 bits that is left when its strongest directions are added back:"
    return f"{said}\n\n{table(('rank', 'bits per weight more', 'of the weights', 'of a random matrix', 'of the outputs'), rows)}"


def _outputs(spectrum: Spectrum, rank: int) -> str:
    return share(left(spectrum.output["3"], rank)) if "3" in spectrum.output else "not measured"


def _budget(material: Material, runs: Sequence[KeptRun]) -> str:
    rows = [
        [one.metrics["recipe"], one.metrics["tag"], f"{one.metrics['bits_per_weight']:.2f}", f"{one.metrics['size_mb']:.0f} MB", _with_error(one)]
        for one in sorted(runs, key=lambda one: (-one.metrics["bits"], one.metrics["perplexity"]))
    ]
    made = table(("method", "grid", "bits per weight", "quantized matrices", "perplexity"), rows)
    if material.budget is None:
        return made
    dealt = [
        [
            f"{one.mean_bits:.1f}",
            f"{one.uniform} bits everywhere" if one.uniform else "dealt out by saliency",
            f"{one.predicted:.0f}",
            perplexity(one.perplexity),
        ]
        for one in material.budget.measured
    ]
    return f"{made}\n\n{table(('mean bits of a code', 'deal', 'predicted rise of the loss, nats per sample', 'measured perplexity'), dealt)}"


def _with_error(run: KeptRun) -> str:
    return f"{perplexity(run.metrics['perplexity'])} ± {perplexity(run.metrics['perplexity_se'])}"


def _talk(material: Material, _: Sequence[KeptRun]) -> str:
    if material.talk is None:
        return "No answer was scored."
    talk = material.talk
    rows = []
    for name, told in talk.sides.items():
        same = sum(one.original[0][0] == one.quantized[0][0] for one in told)
        rows.append([name, f"{sum(one.kl for one in told) / len(told):.2f}", f"{same} of {len(told)}", " ".join(talk.answers[name].split())[:90]])
    made = table(
        ("model", "mean KL, nats per token", "same most likely token", "its own answer begins"), [[*row[:3], _plain(row[3])] for row in rows]
    )
    return f"> {talk.prompt}\n\nThe original answers: {_plain(talk.answers['original'])}\n\nShown this answer, token by token:\n\n{made}"


def _plain(text: str) -> str:
    """Text of a model inside Markdown: never markup."""
    return "".join(f"\\{one}" if one in "\\`*_{}[]<>|#" else one for one in text)


def _reference(runs: Sequence[KeptRun]) -> str:
    note = runs[0].metrics.get("reference", "full precision") if runs else "full precision"
    return "" if note == "full precision" else f"The original is a {note}."


FIGURES = {
    "levels": _levels,
    "groups": _groups,
    "saliency": _saliency,
    "travel": _travel,
    "adapters": _adapters,
    "budget": _budget,
    "talk": _talk,
}
