"""Our own recipe with the weights trained: as salq, but the codes make up for each other's errors (GPTQ), and blocks train the weights too."""

from salq.recipes import salq
from salq.recipes.gptq import GPTQ_PAPER
from salq.recipes.method import Method

TRAINED = {"stages.*.lr_clipping": 1e-2, "stages.*.lr_weight": 1e-3}
"""Smaller steps of the clipping than salq's: the codes, which it moves, are worth more. The weights' rate is the best of
salq's sweep; the clipping's was chosen by hand and not swept beside them."""

METHOD = Method(
    title="salq-full (weights trained)",
    summary="As salq, with codes that make up for each other's errors and weights that learn along in the blocks.",
    published=salq.composition("salq-full", rounding="compensated", lr_weight=2e-5),
    presets={name: {**changes, **TRAINED} for name, changes in salq.METHOD.presets.items()},
    cites=(GPTQ_PAPER, *salq.METHOD.cites),
    deviations=(
        *salq.METHOD.deviations,
        "The blocks are EfficientQAT's first phase with adapters that learn along, and start from GPTQ's codes instead of the nearest ones.",
    ),
)
