"""BinaryMoS in SAPR's partial training: signs stay frozen; scale experts, the router that mixes them per token, and an adapter are learned.

SAPR's negative result: quantization-aware training's quantizers do not beat ApiQ with little data and frozen weights.
Quantizer BinaryMoS x trainables {experts, router, adapter} x output MSE, augmented x no regularizer x text. 1 bit only.
"""

from salq.calibration.objectives import OutputMSE
from salq.calibration.recipe import CalibrationData, Fit, Recipe
from salq.quant.adapter import LoRA
from salq.quant.binary_mos import BinaryMoS
from salq.quant.spec import SIGN_BITS, QuantSpec
from salq.recipes.apiq import APIQ_PAPER, BASE, DEVIATIONS, QUICK
from salq.recipes.method import Method, Paper
from salq.recipes.sapr import SAPR_PAPER

BINARY_MOS_PAPER = Paper(
    "2406.12311", "Mixture of Scales: Memory-Efficient Token-Adaptive Binarization for Large Language Models", "Jo, Kim, Kim, Kim (NeurIPS 2024)"
)
EXPERTS = {"quantizer.experts": 4}
"""The paper's number."""
QUICK_SCALES = {**EXPERTS, "stages.*.lr_clipping": 3e-2, "stages.*.lr_adapter": 2e-3}
BASE_SCALES = {**EXPERTS, "stages.*.lr_clipping": 1.5e-2, "stages.*.lr_adapter": 1e-3}
"""Chosen on the default model's first block, 24 x 256 tokens, 6 epochs: an output error of 0.45, 0.44, 0.51, 0.81 at 0.02, 0.04, 0.08, 0.16."""

METHOD = Method(
    title="BinaryMoS (binary, mixture of scales)",
    summary="Each weight is its sign, and every token mixes its own scales of rows and columns from a few experts. 1 bit only.",
    published=Recipe(
        name="binary-mos",
        spec=QuantSpec(bits=SIGN_BITS),
        quantizer=BinaryMoS(experts=8),
        adapter=LoRA(rank=64, alpha=16),
        stages=(Fit(name="output", epochs=20, objective=OutputMSE(augmented=True), lr_clipping=5e-4, lr_adapter=5e-4, weight_decay=0.1),),
        data=CalibrationData(n_samples=128, seq_len=2048),
    ),
    presets={"quick": {**QUICK, **QUICK_SCALES}, "base": {**BASE, **BASE_SCALES}},
    cites=(BINARY_MOS_PAPER, SAPR_PAPER, APIQ_PAPER),
    deviations=(
        *DEVIATIONS[1:],
        "As in SAPR's experiments, signs are frozen and an adapter is learned along; BinaryMoS trains the weights by distillation. The optional "
        "zero point of SAPR's code, the mean of a channel, is left out: it is not part of BinaryMoS.",
        "published has the 8 experts of SAPR's released code and ApiQ's epochs; SAPR names no learning rate for them, ours is 5e-4. The presets have "
        "the paper's 4 experts.",
        "A weight of 0 counts as +1, because one bit has no third value; the released code's sign is 0 there.",
        "Scales belong to whole rows and columns: the group size has no meaning here, and the grid is shown as w1.",
        "Experts and router are stored as float16 and count in bits per weight. Only the reference executor runs them.",
    ),
)
