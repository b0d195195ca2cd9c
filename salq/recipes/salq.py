"""Our own recipe under the paper's constraint: weights frozen; clipping, scales and adapters learn, first block by block, then all together.

ApiQ's blocks with a loss that massive activations do not own, then a short end-to-end pass against the original's predictions.
"""

from salq.calibration.distillation import Distillation
from salq.calibration.objectives import OutputMSE
from salq.calibration.recipe import CalibrationData, Fit, Recipe
from salq.quant.adapter import LoRA
from salq.quant.clipping import LWC
from salq.recipes.apiq import APIQ_PAPER, BASE, QUICK
from salq.recipes.method import Method, Paper

EFFICIENT_QAT = Paper("2407.11062", "EfficientQAT: Efficient Quantization-Aware Training for Large Language Models", "Chen et al. (ACL 2025)")
LLM_QAT = Paper("2305.17888", "LLM-QAT: Data-Free Quantization Aware Training for Large Language Models", "Liu et al. (ACL Findings 2024)")

BLOCKS = {**QUICK, "stages.*.epochs": 2, "stages.*.lr_clipping": 4e-2, "stages.*.lr_adapter": 4e-3}
"""A third of ApiQ's quick stage: the end-to-end pass does the rest."""

SHORT_PASS = {
    "distillation.steps": 70,
    "distillation.batch_size": 2,
    "distillation.n_samples": 256,
    "distillation.seq_len": 256,
    "distillation.lr_scale": 2e-3,
    "distillation.lr_adapter": 2e-3,
}
"""Small batches and large steps: with minutes to spend, more steps are worth more than smoother ones."""


def composition(name: str, *, lr_weight: float) -> Recipe:
    """The settings that we would use for a 7B model on a GPU; with `lr_weight` the weights are trained too."""
    return Recipe(
        name=name,
        quantizer=LWC(init_logit=4.0),
        adapter=LoRA(rank=64, alpha=16),
        stages=(Fit(name="output", epochs=10, objective=OutputMSE(augmented=True, normalize="token"), batch_size=4, schedule="cosine"),),
        data=CalibrationData(n_samples=128, seq_len=2048),
        distillation=Distillation(steps=1000, batch_size=4, n_samples=1024, seq_len=512, lr_weight=lr_weight),
    )


METHOD = Method(
    title="salq (weights frozen)",
    summary="ApiQ's blocks with a token-normalised loss, then scales and adapters of the whole model learn the original's predictions.",
    published=composition("salq", lr_weight=0.0),
    presets={
        "quick": {**BLOCKS, **SHORT_PASS},
        "base": {**BASE, **SHORT_PASS, "distillation.steps": 600, "distillation.n_samples": 1024},
    },
    cites=(APIQ_PAPER, EFFICIENT_QAT, LLM_QAT),
    deviations=(
        "Not a published method. The end-to-end pass is EfficientQAT's second phase with two changes: the target is the original's prediction, and "
        "adapters learn along.",
        "`published` stands for the settings that we would use for a 7B model on a GPU; nobody has published them.",
    ),
)
