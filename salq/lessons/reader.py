"""Reads the lessons' material of a selected matrix in a process of its own: its singular values take a page's whole attention otherwise.

`Reader` is the page's side; `python -m salq.lessons.reader` is the process (`runs.aside`).
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from salq.lessons.material import Material
from salq.runs.aside import Aside, Json, serve

if TYPE_CHECKING:
    from salq.quant.frozen import FrozenLinear


class Asked(BaseModel):
    """A selected matrix, and the calibration that is shown beside it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: str = Field(description="Folder of the run store.")
    model: str = Field(description="Catalogue name, hub id or local folder; it is on this machine.")
    block: int = Field(ge=0, description="Block of the matrix, from 0.")
    matrix: str = Field(description="Path of the matrix inside its block.")
    row: int = Field(default=0, description="Output of the group.")
    group: int = Field(default=0, description="Number of the group in its row.")
    key: str = Field(default="", description="Key of the saliency map on this machine; empty without one.")
    run: str | None = Field(default=None, description="A finished calibration of the model; None without one.")
    title: str = Field(default="", description="Its name for people.")


class Reader(Aside):
    """The page's side of the process."""

    def __init__(self) -> None:
        """Nothing is started yet."""
        super().__init__("salq.lessons.reader")

    def material(self, asked: Asked) -> Material:
        """What the lessons draw of this matrix. Raises what `Aside.ask` raises."""
        return Material.model_validate(self.ask(asked.model_dump_json())["material"])


def read(asked: Asked) -> Material:
    """The material. Raises what `selected_material` raises, and StoreError for a calibration whose block is gone."""
    from salq.lessons.selected import Selected, selected_material
    from salq.runs.reducer import open_block
    from salq.runs.store import RunStore
    from salq.saliency.maps import find

    def learned(row: int) -> "tuple[str, FrozenLinear] | None":
        if asked.run is None:
            return None
        return asked.title, open_block(RunStore(Path(asked.root)), asked.run, asked.block).row(asked.matrix, row)

    place = Selected(asked.model, asked.block, asked.matrix, asked.row, asked.group)
    return selected_material(place, find(asked.key) if asked.key else None, learned)


def answer_to(line: str) -> Json:
    """What the process says to one line of its input."""
    return {"material": read(Asked.model_validate_json(line)).model_dump(mode="json")}


if __name__ == "__main__":
    sys.exit(serve(answer_to))
