"""A controlled experiment: several recipes, the same model, bits, seeds, data order and texts; every finished side kept as a small JSON file.

A side is one (recipe, bits, seed). Its file says what was asked for and the sums of every evaluation window, which is all that paired statistics
need; it holds no path, so it is found again in a fresh checkout on any machine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from salq.core.errors import StoreError, UnknownNameError
from salq.core.files import last_part, read_json, write_json
from salq.runs.log import finite
from salq.runs.requests import CalibrateRequest, Evaluation
from salq.runs.store import RunStore
from salq.runs.subjects import Subject

KEPT = (
    "bits_per_weight", "size_mb", "model_bits_per_weight", "model_size_mb", "perplexity", "perplexity_original", "kl", "kl_median", "kl_p99",
    "top1_agreement", "seconds", "peak_memory_gb", "reference", "device", "text", "windows", "window",
)  # fmt: skip


@dataclass(frozen=True)
class Contender:
    """A recipe of the registry under a label of its own, with what is changed in it."""

    label: str
    recipe: str
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """What is compared: the first contender is the baseline. `question` is what the table answers."""

    name: str
    question: str
    contenders: tuple[Contender, ...]
    chooses: bool = False
    """Whether settings are chosen by it: it is then measured on held-out calibration text, never on text that is reported."""


NO_REGULARIZER = {"stages.*.regularizer.strength": 0.0}
"""SAPR's recipe without its term: ApiQ with a saliency map at hand."""
REFRESHED = {"saliency.refresh": 6}
"""Saliency of the model quantized so far, taken again every 6 blocks: four more passes on the default model."""
BLOCK_RATES = (
    (2e-2, 2e-3), (5e-3, 5e-4), (1e-2, 1e-3), (4e-2, 4e-3), (8e-2, 8e-3), (0.16, 0.016), (0.32, 0.032),
    (0.04, 0.016), (0.08, 0.004), (0.08, 0.016), (0.16, 0.004), (0.16, 0.008), (0.16, 0.032), (0.32, 0.008), (0.32, 0.016),
)  # fmt: skip
"""Learning rates of (clipping, adapter): first both together, from far too small to diverging, then each around the best with the other kept."""
STARTED_RATES = ((2e-2, 2e-3), (2e-2, 4e-3), (2e-2, 8e-3), (4e-2, 4e-3), (4e-2, 8e-3), (8e-2, 8e-3))
"""The same where clipping starts at the least rounding error and has less far to go."""
STARTED = {"quantizer.start": "error"}
CLOSED_FORM = {"quantizer.start": "error", "adapter.start": "output"}
COMPENSATED = {**CLOSED_FORM, "rounding": "compensated"}
ONE_PASS = {"data.n_samples": 64, "epochs": 1}
"""Over twice the text of ApiQ's quick preset: a third of its steps."""
SMALL_STEPS = {"stages.*.lr_clipping": 1e-2, "stages.*.lr_adapter": 4e-3}
"""For clipping and adapters beside weights that learn, or codes that make up for each other."""
RAW_LOSS = {"stages.*.objective.normalize": "raw"}


def _rates(label: str, recipe: str, also: Mapping[str, Any] = MappingProxyType({}), **rates: float) -> Contender:
    """A contender of a sweep over learning rates, with `also` changed; `where__field` stands for the path `where.field`."""
    return Contender(label, recipe, {**also, **{path.replace("__", "."): rate for path, rate in rates.items()}})


EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        Experiment(
            "sapr-vs-apiq",
            "Does SAPR's saliency term help ApiQ, all else equal?",
            (Contender("apiq", "apiq"), Contender("sapr", "sapr"), Contender("sapr-1", "sapr", {"stages.*.regularizer.strength": 1.0})),
        ),
        Experiment(
            "salq-vs-apiq",
            "What do our own recipes add to ApiQ at about the same cost?",
            (Contender("apiq", "apiq"), Contender("apiq-raw", "apiq", RAW_LOSS), Contender("salq", "salq"), Contender("salq-full", "salq-full")),
        ),
        Experiment(
            "ablations",
            "Which of our changes to ApiQ's blocks helps on its own?",
            (
                Contender("apiq", "apiq"),
                Contender("raw-loss", "apiq", RAW_LOSS),
                Contender("clipping-at-error", "apiq", STARTED),
                Contender("clipping-at-output", "apiq", {"quantizer.start": "output"}),
                Contender("adapter-at-residual", "apiq", {"adapter.start": "residual"}),
                Contender("adapter-at-output", "apiq", {"adapter.start": "output"}),
                Contender("both-in-closed-form", "apiq", CLOSED_FORM),
                Contender("compensated", "apiq", {"rounding": "compensated"}),
                Contender("adapter-at-saliency", "sapr", NO_REGULARIZER | {"adapter.start": "saliency"}),
                Contender("channel-saliency", "sapr", NO_REGULARIZER | {"stages.*.objective.channels": "saliency"}),
                Contender("channel-saliency-refreshed", "sapr", NO_REGULARIZER | {"stages.*.objective.channels": "saliency"} | REFRESHED),
                Contender("sapr", "sapr"),
                Contender("sapr-refreshed", "sapr", REFRESHED),
            ),
        ),
        Experiment(
            "quantizers",
            "Does a quantizer of quantization-aware training beat ApiQ's with little data and frozen weights? At 2 bits (SAPR's negative result).",
            (Contender("apiq", "apiq"), Contender("db-llm", "db-llm")),
        ),
        Experiment(
            "blocks-of-salq",
            "What should salq's blocks start from, learn and see, at less than ApiQ's cost? Measured on held-out calibration text.",
            (
                Contender("apiq", "apiq"),
                Contender("apiq-64", "apiq", {"data.n_samples": 64, "epochs": 3}),
                Contender("start", "apiq", CLOSED_FORM | {"epochs": 0}),
                *(
                    _rates(f"start-{clipping:g}-{adapter:g}", "apiq", CLOSED_FORM | ONE_PASS, lr_clipping=clipping, stages__0__lr_adapter=adapter)
                    for clipping, adapter in ((1e-2, 2e-3), (2e-2, 4e-3), (4e-2, 8e-3))
                ),
                Contender("compensated", "apiq", COMPENSATED | {"epochs": 0}),
                Contender("compensated-output", "apiq", COMPENSATED | {"quantizer.start": "output", "epochs": 0}),
                Contender("compensated-64", "apiq", COMPENSATED | ONE_PASS | {"epochs": 0}),
                Contender("compensated-learned", "apiq", COMPENSATED | ONE_PASS | SMALL_STEPS),
                *(
                    _rates(f"weights-{rate:g}", "apiq", COMPENSATED | ONE_PASS | SMALL_STEPS, stages__0__lr_weight=rate)
                    for rate in (5e-4, 1e-3, 2e-3)
                ),
                _rates("one-target", "apiq", COMPENSATED | ONE_PASS | SMALL_STEPS | {"augmented": False}, stages__0__lr_weight=1e-3),
            ),
            chooses=True,
        ),
        Experiment(
            "rates-of-blocks",
            "Which learning rates suit the blocks of ApiQ's quick preset? Measured on held-out calibration text.",
            (
                *(
                    _rates(f"apiq-{clipping:g}-{adapter:g}", "apiq", lr_clipping=clipping, stages__0__lr_adapter=adapter)
                    for clipping, adapter in BLOCK_RATES
                ),
                *(
                    _rates(f"started-{clipping:g}-{adapter:g}", "apiq", STARTED, lr_clipping=clipping, stages__0__lr_adapter=adapter)
                    for clipping, adapter in STARTED_RATES
                ),
            ),
            chooses=True,
        ),
        Experiment(
            "strengths-of-sapr",
            "How strong should SAPR's term be, relative to the output loss? Measured on held-out calibration text.",
            (
                Contender("apiq", "apiq"),
                *(
                    Contender(f"sapr-{strength:g}", "sapr", {"stages.*.regularizer.strength": strength})
                    for strength in (0.1, 0.01, 0.03, 0.3, 1, 0.003)
                ),
            ),
            chooses=True,
        ),
    )
}


@dataclass(frozen=True)
class Side:
    """One run of an experiment. `seed` also decides which text windows calibration sees, and in which order."""

    label: str
    seed: int
    request: CalibrateRequest

    @property
    def bits(self) -> int:
        """Bits per code."""
        return self.request.spec.bits

    @property
    def file(self) -> str:
        """Name of its file."""
        return f"{self.label}-{self.request.spec.tag}-seed{self.seed}.json"

    @property
    def key(self) -> str:
        """Hash of the request, with files named and not located, and whatever device it ran on."""
        asked = self.request
        evaluation = asked.evaluation.model_copy(update={"text": last_part(asked.evaluation.text)})
        return asked.model_copy(update={"text": last_part(asked.text), "evaluation": evaluation, "device": "auto"}).key()


def get(name: str) -> Experiment:
    """The experiment `name`. Raises UnknownNameError."""
    if name not in EXPERIMENTS:
        raise UnknownNameError.of("Experiment", name, list(EXPERIMENTS))
    return EXPERIMENTS[name]


def sides(experiment: Experiment, template: CalibrateRequest, bits: Sequence[int], seeds: int) -> list[Side]:
    """Every side, baseline first within each seed, and the honest neighbours, with the first seed: rounding to nearest at each bit-width and at the
    next one; and the best recipe at the next one, unless settings are chosen or a part of the model is calibrated.

    template: a request whose model, texts, device, preset and group size hold for all sides; its recipe, bits and seed are replaced.
    """
    from salq import recipes

    def side(contender: Contender, width: int, seed: int) -> Side:
        recipe = recipes.get(
            contender.recipe, preset=template.recipe.preset, bits=width, group_size=template.spec.group_size, overrides=contender.overrides
        )
        changed = {"recipe_json": recipe.model_dump(mode="json"), "seed": seed, "title": f"{experiment.name}: {contender.label}"}
        return Side(contender.label, seed, template.model_copy(update=changed))

    following = {NEXT_BITS[width] for width in bits if width in NEXT_BITS}
    neighbours = [side(ROUNDING, width, 0) for width in sorted({*bits, *following})]
    asked = [side(one, width, seed) for seed in range(seeds) for width in bits for one in experiment.contenders]
    known = {one.file for one in asked}
    whole = not experiment.chooses and template.n_blocks is None
    best = [side(BEST, width, 0) for width in sorted(following)] if whole else []
    return neighbours + asked + [one for one in best if one.file not in known]


ROUNDING, BEST = Contender("rtn", "rtn"), Contender("salq", "salq")
NEXT_BITS = {2: 3, 3: 4, 4: 8}


def load_side(folder: Path, side: Side) -> dict[str, Any] | None:
    """The kept result of a side, if there is one that was asked for in the same way."""
    path = folder / side.file
    if not path.is_file():
        return None
    try:
        kept = read_json(path)
    except ValueError as error:
        raise StoreError(f"{path} is not a result of an experiment ({error}); delete it, and the side is run again.") from error
    return kept if isinstance(kept, dict) and kept.get("key") == side.key else None


def keep_side(folder: Path, side: Side, subject: Subject) -> dict[str, Any]:
    """Write the result of a side, `subject` being its run as it is measured; returns what was written."""
    kept = {
        "key": side.key, "recipe": side.label, "bits": side.bits, "seed": side.seed, "model": side.request.short_model,
        "preset": side.request.recipe.preset, "tag": side.request.spec.tag, "calibration_text": last_part(side.request.text),
        "inputs": {name: value for name, value in subject.digests.items() if name in {"model", "calibration", "evaluation"} and value},
        **{name: subject.metrics.get(name) for name in KEPT}, "output_errors": list(subject.output_errors),
        "per_window": subject.metrics["per_window"],
    }  # fmt: skip
    write_json(folder / side.file, finite(kept))
    return kept


def same_codes(store: RunStore, request: CalibrateRequest) -> str | None:
    """A finished run that was asked for the same codes, and measured on another text or on other windows of it."""

    def codes(asked: CalibrateRequest) -> str:
        return asked.model_copy(update={"evaluation": Evaluation()}).key()

    wanted = codes(request)
    for info in store.list():
        if info.status == "done" and isinstance(info.request, CalibrateRequest) and codes(info.request) == wanted:
            return info.id
    return None
