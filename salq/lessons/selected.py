"""The lessons' material for the matrix that somebody has selected: read from disk, one matrix at a time; what needs a model stays away."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from salq.core.errors import ShapeError
from salq.lessons.material import Learned, Material
from salq.lessons.matrix import GROUP, ROW_WEIGHTS, learned_of, patch_of, row_of, spectrum_of
from salq.models.llama import read_weight
from salq.models.source import resolve
from salq.quant.frozen import FrozenLinear
from salq.saliency.maps import SaliencyMap

LARGEST = 512
"""Rows and inputs that the singular values are taken of: a whole matrix of a 7B model would take minutes."""


@dataclass(frozen=True)
class Selected:
    """A matrix of a model on this machine and a group of GROUP of its weights; what lies beyond the matrix is clipped to it."""

    model: str
    block: int
    matrix: str
    row: int = 0
    group: int = 0


def selected_material(
    chosen: Selected, saliency: SaliencyMap | None, learned: Callable[[int], tuple[str, FrozenLinear] | None] = lambda _: None
) -> Material:  # fmt: skip
    """Group, row, patch and singular values of one matrix. Raises ModelError, and ShapeError for a matrix that is too small.

    learned: for a row, (name, that row of a calibration).
    """
    model, block, matrix = chosen.model, chosen.block, chosen.matrix
    weight = read_weight(resolve(model), block, matrix)
    if min(weight.shape) < 2 or weight.shape[1] < GROUP:
        raise ShapeError(f"{block}.{matrix} is {weight.shape[0]} x {weight.shape[1]}: too small for groups of {GROUP}; choose another matrix.")
    columns = min(LARGEST, weight.shape[1] // GROUP * GROUP)
    fisher = None if saliency is None else saliency.matrix(block, matrix)
    row, group = min(max(chosen.row, 0), weight.shape[0] - 1), min(max(chosen.group, 0), weight.shape[1] // GROUP - 1)
    start = group * GROUP // ROW_WEIGHTS * ROW_WEIGHTS
    short = model.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    patch = patch_of(matrix, weight, fisher if fisher is not None and fisher.shape == weight.shape else None)
    return Material(
        model=short, title=short, block=block, matrix=matrix, group=row_of(weight, row, group * GROUP, GROUP), row=row_of(weight, row, start),
        patch=patch, spectrum=spectrum_of(weight[:LARGEST, :columns].contiguous()),
        learned=_learned(weight[row, group * GROUP : (group + 1) * GROUP], learned(row), group),
    )  # fmt: skip


def _learned(weights: Tensor, found: tuple[str, FrozenLinear] | None, group: int) -> tuple[Learned, ...]:
    """Only of a calibration whose groups are those of the lessons."""
    if found is None or found[1].spec.group_size != GROUP:
        return ()
    name, row = found
    return (learned_of(weights, row, group, name),)
