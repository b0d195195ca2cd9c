"""SAPR: ApiQ plus a penalty on moving the weights that matter, weighted by a diagonal Fisher saliency map.

ApiQ's composition x WeightPreservation(weighted by saliency). The published saliency run has one mixed stage of 20 epochs.
"""

from salq.calibration.objectives import OutputMSE
from salq.calibration.recipe import CalibrationData, Fit, Recipe, SaliencyData
from salq.calibration.regularizers import WeightPreservation
from salq.quant.adapter import LoRA
from salq.quant.clipping import LWC
from salq.recipes.apiq import APIQ_PAPER, BASE, DEVIATIONS, QUICK
from salq.recipes.method import Method, Paper

SAPR_PAPER = Paper(
    "2504.13932", "Enhancing Ultra-Low-Bit Quantization of Large Language Models Through Saliency-Aware Partial Retraining", "Cao, Aref (MDAI 2025)"
)

SAPR_DEVIATIONS = (
    *DEVIATIONS,
    "Saliency is accumulated in float32 and per sample; the released code accumulates in bfloat16 at batch size 1.",
    "The presets quick and base use the relative strength convention; published keeps raw sums and the published strength.",
)

RELATIVE = {"stages.*.regularizer.convention": "relative", "stages.*.regularizer.strength": 0.03}
"""Swept on held-out text (`salq experiment strengths-of-sapr`): at 2 bits, 0.03 is the best of 0.01, 0.03, 0.1 and 0.3; none is far from ApiQ."""

METHOD = Method(
    title="SAPR (saliency-regularized ApiQ)",
    summary="ApiQ, with a penalty on changing salient weights: sum of saliency x (quantized - original)^2, added to the block loss.",
    published=Recipe(
        name="sapr",
        quantizer=LWC(init_logit=4.0),
        adapter=LoRA(rank=64, alpha=16),
        stages=(
            Fit(
                name="mixed",
                epochs=20,
                objective=OutputMSE(augmented=True),
                regularizer=WeightPreservation(strength=1e-3, convention="published", weighted=True, where="before_lora"),
                lr_clipping=5e-3,
                lr_adapter=5e-4,
                weight_decay=0.1,
            ),
        ),
        data=CalibrationData(n_samples=128, seq_len=2048),
        saliency=SaliencyData(n_samples=100, seq_len=512),
    ),
    presets={
        "quick": {**QUICK, **RELATIVE, "saliency.n_samples": 24, "saliency.seq_len": 256},
        "base": {**BASE, **RELATIVE, "saliency.n_samples": 64, "saliency.seq_len": 256},
    },
    cites=(SAPR_PAPER, APIQ_PAPER),
    deviations=(
        *SAPR_DEVIATIONS,
        "The optional sliced Wasserstein term of the published script is not part of this recipe; sapr-sw has it.",
    ),
)
