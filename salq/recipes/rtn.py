"""Rounding to nearest: each group's range is divided evenly and every weight goes to the nearest level. No data, seconds."""

from salq.calibration.recipe import Recipe
from salq.quant.clipping import MinMax
from salq.recipes.method import Method

METHOD = Method(
    title="Round to nearest (RTN)",
    summary="Divide each group's range evenly and round. Needs no text and no calibration: the baseline for everything else.",
    published=Recipe(name="rtn", quantizer=MinMax()),
)
