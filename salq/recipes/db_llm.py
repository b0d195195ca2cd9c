"""DB-LLM's dual binarization in SAPR's partial training: two binaries per weight, whose scales and an adapter are learned; weights stay frozen.

SAPR's negative result: quantization-aware training's quantizers do not beat ApiQ with little data and frozen weights.
Quantizer DualBinary x trainables {both scales, adapter} x output MSE, augmented x no regularizer x text. 2 bits only.
"""

from salq.calibration.objectives import OutputMSE
from salq.calibration.recipe import CalibrationData, Fit, Recipe
from salq.quant.adapter import LoRA
from salq.quant.dual_binary import DualBinary
from salq.quant.spec import QuantSpec
from salq.recipes.apiq import APIQ_PAPER, BASE, DEVIATIONS, QUICK
from salq.recipes.method import Method, Paper
from salq.recipes.sapr import SAPR_PAPER

DB_LLM_PAPER = Paper("2402.11960", "DB-LLM: Accurate Dual-Binarization for Efficient LLMs", "Chen et al. (Findings of ACL 2024)")
SCALES = {"stages.*.lr_clipping": 5e-3, "stages.*.lr_adapter": 2e-3}
"""The scales are in units of the weights (0.1), where logits are in units of 1. Chosen on the default model's first block, 24 x 256 tokens,
6 epochs: an output error of 0.33, 0.32, 0.30, 0.31 at 0.0005, 0.002, 0.005, 0.02.
"""

METHOD = Method(
    title="DB-LLM (dual binarization)",
    summary="Each weight is the sum of two binaries with a learnable scale per group: four levels that need not be evenly spaced. 2 bits only.",
    published=Recipe(
        name="db-llm",
        spec=QuantSpec(bits=2),
        quantizer=DualBinary(),
        adapter=LoRA(rank=64, alpha=16),
        stages=(Fit(name="output", epochs=1, objective=OutputMSE(augmented=True), lr_clipping=1e-5, lr_adapter=5e-4, weight_decay=0.1),),
        data=CalibrationData(n_samples=128, seq_len=2048),
    ),
    presets={"quick": {**QUICK, **SCALES}, "base": {**BASE, **SCALES}},
    cites=(DB_LLM_PAPER, SAPR_PAPER, APIQ_PAPER),
    deviations=(
        *DEVIATIONS[1:],
        "As in SAPR's experiments, only the scales and an adapter are learned; DB-LLM itself trains by distillation on text of the teacher.",
        "One epoch at a learning rate of 1e-5 for the scales is what the comments of SAPR's released code name; the paper's table does not say.",
        "The two scales of a group are stored as float16 and count in bits per weight; there is no zero point.",
    ),
)
