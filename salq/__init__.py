"""salq: see what quantization does to a LLaMA, repair it by calibration, and talk to the result beside the original.

>>> import salq                                                              # doctest: +SKIP
>>> model = salq.load_model("smollm2-135m")
>>> run = salq.calibrate(model, salq.recipes.get("sapr", preset="quick", bits=3, group_size=64))
>>> scores = salq.evaluate(model, run.quantized)
>>> f"{scores.perplexity:.1f} perplexity, {scores.kl:.3f} nats/token, {run.size.bits_per_weight:.2f} bits/weight"

Importing salq is light: torch comes with the first name that is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from salq import recipes
    from salq.evaluation.scores import evaluate
    from salq.kernels.packed import load_packed
    from salq.models.llama import load_model
    from salq.runs.api import calibrate
    from salq.saliency.maps import saliency_map

__version__ = "0.1.0"
__all__ = ["__version__", "calibrate", "evaluate", "load_model", "load_packed", "recipes", "saliency_map"]

_HOMES = {
    "load_model": "salq.models.llama",
    "load_packed": "salq.kernels.packed",
    "saliency_map": "salq.saliency.maps",
    "calibrate": "salq.runs.api",
    "evaluate": "salq.evaluation.scores",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its room when it is first used."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name == "recipes":
        return import_module("salq.recipes")
    raise AttributeError(f"module 'salq' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
