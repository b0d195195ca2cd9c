"""ApiQ, layer-wise (ApiQ-lw): one linear after the other learns to give its own output, on inputs that come through what is frozen already.

ApiQ's composition with granularity "linear": q, k and v share their input, then o, then gate and up, then down.
"""

from salq.calibration.recipe import Recipe
from salq.recipes import apiq
from salq.recipes.method import Method

METHOD = Method(
    title="ApiQ (layer-wise)",
    summary="As ApiQ, but each linear preserves its own output instead of each block: less memory, no view of what comes after the linear.",
    published=Recipe.model_validate({**apiq.METHOD.published.model_dump(), "name": "apiq-lw", "granularity": "linear"}),
    presets=apiq.METHOD.presets,
    cites=(apiq.APIQ_PAPER,),
    deviations=(
        *apiq.DEVIATIONS,
        "The released code holds the block-wise form only; learning rates and epochs of published are those of its block-wise script.",
        "The target on quantized inputs (augmented) is added as in the block-wise form; the paper's layer-wise objective has the first target alone.",
        "Linears that read the same input are fitted together: they share no parameter, so the optimum is that of each alone.",
    ),
)
