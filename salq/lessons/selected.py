"""The lessons' material for the matrix that somebody has selected: read from disk, one matrix at a time; what needs a model stays away."""

from salq.core.errors import ShapeError
from salq.lessons.material import Material
from salq.lessons.matrix import GROUP, patch_of, row_of, spectrum_of
from salq.models.llama import read_weight
from salq.models.source import resolve
from salq.saliency.maps import SaliencyMap

LARGEST = 512
"""Rows and inputs that the singular values are taken of: a whole matrix of a 7B model would take minutes."""


def selected_material(model: str, block: int, matrix: str, saliency: SaliencyMap | None) -> Material:
    """Row, patch and singular values of one matrix of a model on this machine. Raises ModelError, and ShapeError for one too small."""
    weight = read_weight(resolve(model), block, matrix)
    if min(weight.shape) < 2 or weight.shape[1] < GROUP:
        raise ShapeError(f"{block}.{matrix} is {weight.shape[0]} x {weight.shape[1]}: too small for groups of {GROUP}; choose another matrix.")
    columns = min(LARGEST, weight.shape[1] // GROUP * GROUP)
    fisher = None if saliency is None else saliency.matrix(block, matrix)
    short = model.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    patch = patch_of(matrix, weight, fisher if fisher is not None and fisher.shape == weight.shape else None)
    return Material(
        model=short, title=short, block=block, matrix=matrix, group=row_of(weight, 0, 0, GROUP), row=row_of(weight, 0, 0), patch=patch,
        spectrum=spectrum_of(weight[:LARGEST, :columns].contiguous()),
    )  # fmt: skip
