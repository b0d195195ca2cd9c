"""Our own recipe with the weights trained: salq's blocks, then weights, scales and adapters of the whole model learn the original's predictions.

The codes are decided anew at the end, from the trained weights.
"""

from salq.recipes import salq
from salq.recipes.method import Method

TRAINED = {"distillation.lr_weight": 2e-4}

METHOD = Method(
    title="salq-full (weights trained)",
    summary="salq's blocks, then weights, scales and adapters of the whole model learn the original's predictions through straight-through rounding.",
    published=salq.composition("salq-full", lr_weight=2e-5),
    presets={name: {**changes, **TRAINED} for name, changes in salq.METHOD.presets.items()},
    cites=salq.METHOD.cites,
    deviations=salq.METHOD.deviations,
)
