"""Reduces the maps of one matrix after the other in a process of its own, for a page that never computes: it asks, waits, and reads the file.

`Reducer` is the page's side; `python -m salq.runs.reducer` is the process (`aside`), which also fetches a model that is not here yet.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from salq.core import settings
from salq.core.errors import FormatError, StoreError
from salq.quant.spec import QuantSpec
from salq.runs.aside import Aside, Json, serve
from salq.runs.reduced import View, find_view, reduce_matrix

if TYPE_CHECKING:
    from salq.packing.files import PackedFile
    from salq.runs.store import RunStore


class Wanted(BaseModel):
    """One picture of one matrix that was not reduced before."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: str = Field(description="Folder of the run store.")
    model: str = Field(description="Catalogue name, hub id or local folder.")
    spec: QuantSpec = Field(description="The grid of rounding to nearest; a run brings its own.")
    how: str = Field(description="Pooling: max, mean or p99.")
    block: int = Field(ge=0, description="Block of the matrix, from 0.")
    matrix: str = Field(description="Path of the matrix inside its block.")
    key: str = Field(default="", description="Key of the saliency map on this machine; empty without one.")
    run: str | None = Field(default=None, description="The finished calibration whose codes are looked at; None for rounding to nearest.")

    def view(self, fingerprint: str) -> View:
        """Its file, for the model with that fingerprint."""
        return View(fingerprint, self.run or self.spec.tag, self.key, self.how, self.block, self.matrix)


class Reducer(Aside):
    """The page's side of the process."""

    def __init__(self) -> None:
        """Nothing is started yet."""
        super().__init__("salq.runs.reducer")

    def reduce(self, wanted: Wanted) -> None:
        """Return once the view is on disk. Raises what `Aside.ask` raises."""
        self.ask(wanted.model_dump_json())


def carry_out(wanted: Wanted) -> None:
    """Reduce the matrix and keep the view, unless it is there by now.

    Raises StoreError for a calibration whose block is missing, the errors of `resolve`, and ShapeError for a group size that does not fit.
    """
    from salq.models.llama import read_weight
    from salq.models.source import resolve
    from salq.runs.store import RunStore
    from salq.saliency.maps import find

    source = resolve(wanted.model)
    view = wanted.view(source.fingerprint)
    if find_view(view) is not None:
        return
    frozen = None if wanted.run is None else open_block(RunStore(Path(wanted.root)), wanted.run, wanted.block).matrix(wanted.matrix)
    saliency = find(wanted.key) if wanted.key else None
    spec = wanted.spec if frozen is None else frozen.spec
    reduce_matrix(view, read_weight(source, wanted.block, wanted.matrix), spec, saliency, quantized=frozen)
    if find_view(view) is None:
        raise StoreError(f"The maps of this matrix could not be written under {settings.home()}; free some space there.")


def open_block(store: "RunStore", run_id: str, block: int) -> "PackedFile":
    """The packed file of a calibration's block. Raises StoreError when it is not there or does not read."""
    try:
        return store.result(run_id).open(block)
    except FormatError as error:
        raise StoreError(f"Block {block} of this run is not on this machine ({error}); run the calibration again, or choose another one.") from error


def answer_to(line: str) -> Json:
    """What the process says to one line of its input."""
    carry_out(Wanted.model_validate_json(line))
    return {"done": True}


if __name__ == "__main__":
    sys.exit(serve(answer_to))
