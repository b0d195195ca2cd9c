"""SAPR as in its published script, with the sliced Wasserstein term: SAPR's composition x SlicedWasserstein(weight 0.02, 1024 directions)."""

from salq.calibration.recipe import Recipe
from salq.calibration.sliced_wasserstein import SlicedWasserstein
from salq.recipes import sapr
from salq.recipes.apiq import APIQ_PAPER
from salq.recipes.method import Method, Paper

SW_PAPER = Paper(
    "2601.07878",
    "Sliced-Wasserstein Distribution Alignment Loss Improves the Ultra-Low-Bit Quantization of Large Language Models",
    "Cao, Yin, Aref (ICAART 2026)",
)


def _published() -> Recipe:
    (stage,) = sapr.METHOD.published.stages
    term = SlicedWasserstein(weight=0.02, projections=1024, scaled=True)
    return sapr.METHOD.published.model_copy(update={"name": "sapr-sw", "stages": (stage.model_copy(update={"sliced_wasserstein": term}),)})


METHOD = Method(
    title="SAPR with sliced Wasserstein",
    summary="SAPR, with a share of the output loss that compares the distribution of output vectors along random directions.",
    published=_published(),
    presets={name: {**changes, "projections": 128} for name, changes in sapr.METHOD.presets.items()},
    cites=(sapr.SAPR_PAPER, SW_PAPER, APIQ_PAPER),
    deviations=(
        *sapr.SAPR_DEVIATIONS,
        "The presets quick and base draw 128 directions per step; published draws 1024.",
    ),
)
