"""Who can take part in a chat: an original model, its rounding to nearest (RTN), the result of a run, or an exported folder. Descriptions only.

A participant is a small value that travels to the process that loads it (`loading.load_participant`); this module is light, so
that the page can describe one without torch.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from salq.core.errors import ConfigError
from salq.core.files import last_part, path_of
from salq.models.folder import SINGLE
from salq.quant.spec import QuantSpec

Kind = Literal["original", "rtn", "run", "packed"]


@dataclass(frozen=True)
class Participant:
    """One side of a chat. Equal participants share one process.

    `model` is a catalogue name, a hub id or an absolute folder, of a packed side the exported one; `spec` is the grid of RTN; `run_id` and
    `blocks` (the folder of the run's frozen blocks) name a run's result; `title` is what people read. `executor` and `head` say what runs a
    quantized model (salq/kernels/executors.py; "8bit" rounds the head to 8 bits).
    """

    kind: Kind
    model: str
    title: str
    spec: QuantSpec | None = None
    run_id: str | None = None
    blocks: str | None = None
    executor: str = "auto"
    head: Literal["float", "8bit"] = "float"

    @classmethod
    def original(cls, model: str) -> "Participant":
        """The model as it is."""
        return cls("original", _placed(model), f"{last_part(model)} original")

    @classmethod
    def rtn(cls, model: str, spec: QuantSpec) -> "Participant":
        """Every matrix rounded to the nearest level of `spec`: needs no data and no run."""
        return cls("rtn", _placed(model), f"{last_part(model)} RTN {spec.tag}", spec=spec)

    @classmethod
    def run(cls, run_id: str, model: str, blocks: Path, title: str = "") -> "Participant":
        """What a run left: its frozen blocks in place of the model's."""
        return cls("run", _placed(model), title or f"{last_part(model)} run {run_id}", run_id=run_id, blocks=str(blocks))

    @classmethod
    def packed(cls, folder: Path) -> "Participant":
        """A folder that `python -m salq export` wrote: it needs no original. Raises ConfigError for a folder that holds no model."""
        placed = folder.expanduser().resolve()
        if not (placed / SINGLE).is_file():
            raise ConfigError(f"{folder} holds no {SINGLE}; name a folder that `python -m salq export` wrote.")
        return cls("packed", str(placed), f"{placed.name}, packed")

    def to_json(self) -> dict[str, Any]:
        """JSON values; `from_json` is the inverse."""
        return {**asdict(self), "spec": None if self.spec is None else self.spec.model_dump()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Participant":
        """Inverse of `to_json`. Raises ConfigError for what is not a participant."""
        spec = value.get("spec")
        try:
            return cls(**{**value, "spec": None if spec is None else QuantSpec(**spec)})
        except (TypeError, ValueError) as error:
            raise ConfigError(f"This is not a participant of a chat: {error}.") from error


def _placed(model: str) -> str:
    """A local folder by its absolute path: the process that loads it may work in another folder."""
    folder = path_of(model)
    return str(folder.resolve()) if folder.is_dir() else model
