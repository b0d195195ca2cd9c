"""ApiQ, block-wise: clipping and low-rank adapters are learned so that each block's output stays what it was.

Quantizer LWC x trainables {clipping, adapter} x output MSE, augmented x no regularizer x text.
"""

from salq.calibration.objectives import OutputMSE
from salq.calibration.recipe import CalibrationData, Fit, Recipe
from salq.quant.adapter import LoRA
from salq.quant.clipping import LWC
from salq.recipes.method import Method, Paper

APIQ_PAPER = Paper("2402.05147", "ApiQ: Finetuning of 2-Bit Quantized Large Language Model", "Liao, Herold, Khadivi, Monz (EMNLP 2024)")

QUICK = {
    "adapter.rank": 8,
    "data.n_samples": 32,
    "data.seq_len": 256,
    "stages.*.epochs": 6,
    "stages.*.batch_size": 4,
    "stages.*.lr_clipping": 0.16,
    "stages.*.lr_adapter": 8e-3,
    "stages.*.schedule": "cosine",
    "stages.*.objective.normalize": "token",
}
"""For two CPU cores and minutes: fewer tokens, a loss that the massive activations of small models do not own, and much larger steps.

From the sweep `salq experiment rates-of-blocks`, on held-out calibration text: with 48 steps a logit that starts at 4 gets to where 2 bits
want it (about 0.6) only at a rate like this one; the published rate takes thousands of steps."""

BASE = {
    **QUICK,
    "adapter.rank": 16,
    "data.n_samples": 64,
    "data.seq_len": 512,
    "stages.*.epochs": 10,
    "stages.*.lr_clipping": 0.08,
    "stages.*.lr_adapter": 4e-3,
}
"""Ten epochs over four times the text, at half of quick's rates, which were not swept for it."""

DEVIATIONS = (
    "The range of a group is widened to hold 0, so the zero point always lies in the code range; the released code clamps it to +-1e4 only.",
    "Scales and adapters are rounded to float16, as stored, before the next block is calibrated.",
    "Everything is computed in float32, on a GPU with TF32 products in the optimizer's steps; the released code trains under float16 autocast with a "
    "gradient scaler.",
    "The presets quick and base divide each token's error by that token's energy and use larger learning rates; published does not.",
)

METHOD = Method(
    title="ApiQ (block-wise)",
    summary="Learn each group's clipping range and a low-rank adapter so that every block's output is preserved.",
    published=Recipe(
        name="apiq",
        quantizer=LWC(init_logit=4.0),
        adapter=LoRA(rank=64, alpha=16),
        stages=(Fit(name="output", epochs=20, objective=OutputMSE(augmented=True), lr_clipping=5e-3, lr_adapter=5e-4, weight_decay=0.1),),
        data=CalibrationData(n_samples=128, seq_len=2048),
    ),
    presets={"quick": QUICK, "base": BASE},
    cites=(APIQ_PAPER,),
    deviations=DEVIATIONS,
)
