"""From the description of a participant to a model that can talk. Runs in the participant's own process."""

from pathlib import Path

from salq.calibration.store import Block, DirectoryBlocks
from salq.chat.participants import Participant
from salq.core.device import out_of_memory_as_error, release_memory
from salq.core.errors import ConfigError, StoreError
from salq.kernels.assemble import quantize_in_place, rtn_blocks
from salq.models.llama import Llama, load_model


def load_participant(participant: Participant, device: str = "auto") -> Llama:
    """The model of `participant` on `device`.

    The blocks that a run did not calibrate stay as they are. The original's weights that the codes replace are given back.
    Raises ModelError, ShapeError (group size), StoreError (the run's blocks are gone), ResourceError (memory).
    """
    llama = load_model(participant.model, device=device)
    if participant.kind == "original":
        return llama
    with out_of_memory_as_error(f"Loading {participant.title}"):
        blocks = _rtn(llama, participant) if participant.kind == "rtn" else stored_blocks(participant, llama.n_blocks)
        quantized = quantize_in_place(llama, blocks)
        for parameter in quantized.model.parameters():
            # What is left is a view of the whole weight file: a copy of it lets the mapping, and 300 MB of the default model, go.
            parameter.data = parameter.data.clone()
    release_memory()
    return quantized


def stored_blocks(participant: Participant, n_blocks: int) -> dict[int, Block]:
    """The frozen blocks that a run left. Raises StoreError when there is none."""
    store = DirectoryBlocks(Path(participant.blocks or ""))
    found = {block: store.load(block) for block in range(n_blocks) if store.has(block)}
    if not found:
        raise StoreError(f"Run {participant.run_id} has no finished block on disk; resume it in the Calibrate tab, or choose another run.")
    return found


def _rtn(llama: Llama, participant: Participant) -> dict[int, Block]:
    if participant.spec is None:
        raise ConfigError(f"{participant.title} names no bits; give bits and a group size.")
    return rtn_blocks(llama, participant.spec)
