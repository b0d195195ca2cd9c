"""SAPR in stages: first the weights are preserved, then both, then the output, each as long as one likes; one AdamW through all of them.

The released code's `wpt`, `mixedt` and `opt`. Published is the README's example of 15 epochs of weight and 5 of output preservation.
"""

from salq.calibration.objectives import OutputMSE
from salq.calibration.recipe import CalibrationData, Fit, Recipe, SaliencyData
from salq.calibration.regularizers import WeightPreservation
from salq.quant.adapter import LoRA
from salq.quant.clipping import LWC
from salq.recipes.apiq import APIQ_PAPER, BASE, QUICK
from salq.recipes.method import Method
from salq.recipes.sapr import RELATIVE, SAPR_DEVIATIONS, SAPR_PAPER

_PENALTY = WeightPreservation(strength=0.1, convention="published", weighted=True, where="before_lora")
_OUTPUT = OutputMSE(augmented=True)
_LENGTHS = {"stages.0.epochs": 2, "stages.1.epochs": 2, "stages.2.epochs": 2}

METHOD = Method(
    title="SAPR in stages",
    summary="Stages of weight preservation, both, and output preservation; 0 epochs leave one out. The optimizer's moments are kept between them.",
    published=Recipe(
        name="sapr-staged",
        quantizer=LWC(init_logit=4.0),
        adapter=LoRA(rank=64, alpha=16),
        stages=(
            Fit(name="weight", epochs=15, objective=None, regularizer=_PENALTY, lr_clipping=5e-3, lr_adapter=5e-4, weight_decay=0.1),
            Fit(name="mixed", epochs=0, objective=_OUTPUT, regularizer=_PENALTY, lr_clipping=5e-3, lr_adapter=5e-4, weight_decay=0.1),
            Fit(name="output", epochs=5, objective=_OUTPUT, lr_clipping=5e-3, lr_adapter=5e-4, weight_decay=0.1),
        ),
        data=CalibrationData(n_samples=128, seq_len=2048),
        saliency=SaliencyData(n_samples=100, seq_len=512),
        optimizer_state="kept",
    ),
    presets={
        "quick": {**QUICK, **_LENGTHS, **RELATIVE, "saliency.n_samples": 24, "saliency.seq_len": 256},
        "base": {**BASE, **_LENGTHS, **RELATIVE, "stages.2.epochs": 6, "saliency.n_samples": 64, "saliency.seq_len": 256},
    },
    cites=(SAPR_PAPER, APIQ_PAPER),
    deviations=(
        *SAPR_DEVIATIONS,
        "The order of the stages is fixed here; a recipe of one's own (Python) may have any stages in any order.",
        "A cosine schedule runs over each stage; the released one counts the output stage's epochs only.",
    ),
)
