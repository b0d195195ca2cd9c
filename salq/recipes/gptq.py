"""GPTQ: rounding whose errors the columns not yet rounded make up for. Codes in one pass, nothing is learned.

Quantizer min-max x compensated rounding x no stages x text.
"""

from salq.calibration.recipe import CalibrationData, Recipe
from salq.quant.clipping import MinMax
from salq.recipes.method import Method, Paper

GPTQ_PAPER = Paper(
    "2210.17323",
    "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers",
    "Frantar, Ashkboos, Hoefler, Alistarh (ICLR 2023)",
)

METHOD = Method(
    title="GPTQ (compensated rounding)",
    summary="Round column by column, and let the columns not yet rounded make up for each error. One pass over some text; nothing is trained.",
    published=Recipe(name="gptq", quantizer=MinMax(), rounding="compensated", data=CalibrationData(n_samples=128, seq_len=2048)),
    presets={"quick": {"data.n_samples": 64, "data.seq_len": 256}, "base": {"data.n_samples": 256, "data.seq_len": 512}},
    cites=(GPTQ_PAPER,),
    deviations=(
        "The grid of every group is that of the original weights; GPTQ takes it from the weights as they stand when their group's turn has come.",
        "Columns go from the strongest input to the weakest, which the released code has as an option (act-order).",
        "Inputs are summed in float32, and the inverse is taken in float64.",
    ),
)
