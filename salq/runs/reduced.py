"""Maps of matrices, reduced once and read from disk afterwards: SALQ_HOME/views/<model>/<what quantized it>/<pooling>/<block>.<matrix>.npz.

An exploration reduces every matrix of its first grid; any other view is reduced when it is opened first. They are a cache: deleting the
folder loses nothing.
"""

import hashlib
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from salq.core import settings
from salq.core.events import Event, PhaseDone, PhaseStarted, PhaseStep
from salq.runs.kept import MatrixMaps, read_maps, write_maps

if TYPE_CHECKING:
    from torch import Tensor

    from salq.models.llama import Llama
    from salq.quant.frozen import FrozenLinear
    from salq.quant.spec import QuantSpec
    from salq.saliency.maps import SaliencyMap

PHASE = "maps"


@dataclass(frozen=True)
class View:
    """Which picture of which matrix. fingerprint: of the model; maker: a grid's tag or a run's id; key: of the saliency map, "" without one."""

    fingerprint: str
    maker: str
    key: str
    how: str
    block: int
    matrix: str

    @property
    def path(self) -> Path:
        """Its file."""
        name = hashlib.sha256(f"{self.maker} {self.key}".encode()).hexdigest()[:16]
        return settings.home() / "views" / self.fingerprint[:16] / name / self.how / f"{self.block:03d}.{Path(self.matrix).name}.npz"


def find_view(view: View) -> MatrixMaps | None:
    """The view that was reduced before; None when there is none, or one of other content under its name."""
    found = read_maps(view.path)
    return found if found is not None and (found.block, found.matrix, found.how) == (view.block, view.matrix, view.how) else None


def reduce_matrix(
    view: View, weight: "Tensor", spec: "QuantSpec", saliency: "SaliencyMap | None", quantized: "FrozenLinear | None" = None
) -> MatrixMaps:
    """Reduce one matrix and keep the view. A disk that refuses costs only the next opening's time. Raises ShapeError for a misfit."""
    from salq.core.errors import ResourceError
    from salq.evaluation.matrix_view import matrix_view

    fisher = None
    if saliency is not None and saliency.meta.fingerprint == view.fingerprint and view.block < saliency.n_blocks:
        fisher = saliency.matrix(view.block, view.matrix)
    seen = matrix_view(f"{view.block}.{view.matrix}", weight, spec, fisher, quantized=quantized, how=view.how)  # type: ignore[arg-type]  # checked
    maps = MatrixMaps.of(seen, view.block, view.matrix)
    try:
        write_maps(view.path, maps)
    except (OSError, ResourceError):
        pass  # a full disk must not hide a picture that is there
    return maps


def reduce_matrices(model: "Llama", spec: "QuantSpec", saliency: "SaliencyMap | None") -> Generator[Event, None, None]:
    """The phase "maps": every matrix of the model rounded to `spec`, pooled by its maximum; one PhaseStep per block."""
    from salq.models.llama import LINEARS, read_weight

    started = time.monotonic()
    yield PhaseStarted(PHASE, of=model.n_blocks, unit="blocks")
    for block in range(model.n_blocks):
        for name in LINEARS:
            view = View(model.source.fingerprint, spec.tag, "" if saliency is None else saliency.folder.name, "max", block, name)
            reduce_matrix(view, read_weight(model.source, block, name), spec, saliency)
        yield PhaseStep(PHASE, block + 1)
    yield PhaseDone(PHASE, time.monotonic() - started)
