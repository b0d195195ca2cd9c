"""From the description of a participant to a model that can talk. Runs in the participant's own process."""

from functools import partial
from pathlib import Path

from salq.calibration.store import DirectoryBlocks
from salq.chat.participants import Participant
from salq.core.device import out_of_memory_as_error, release_memory
from salq.core.errors import ConfigError, StoreError
from salq.kernels.assemble import Source, load_quantized, round_head, rtn_sources
from salq.kernels.packed import load_packed
from salq.models.llama import Llama, load_model, read_config
from salq.models.source import resolve


def load_participant(participant: Participant, device: str = "auto") -> Llama:
    """The model of `participant` on `device`.

    The blocks that a run did not calibrate stay as they are. The original's weights that the codes replace are never read whole.
    Raises ModelError, ShapeError (group size), StoreError (the run's blocks are gone), FormatError (an exported folder is damaged), ResourceError
    (memory), ConfigError (executor, head).
    """
    if participant.kind == "original":
        return load_model(participant.model, device=device)
    with out_of_memory_as_error(f"Loading {participant.title}"):
        if participant.kind == "packed":
            quantized = load_packed(participant.model, device=device, executor=participant.executor, whole=True)
        else:
            n_blocks = int(read_config(resolve(participant.model)).num_hidden_layers)
            quantized = load_quantized(participant.model, sources(participant, n_blocks), device, participant.executor, whole=True)
        if participant.head == "8bit":
            quantized = round_head(quantized)
    release_memory()
    return quantized


def stored_blocks(participant: Participant, n_blocks: int) -> dict[int, Source]:
    """What reads the frozen blocks that a run left. Raises StoreError when there is none."""
    store = DirectoryBlocks(Path(participant.blocks or ""))
    found: dict[int, Source] = {block: partial(store.load, block) for block in range(n_blocks) if store.has(block)}
    if not found:
        raise StoreError(f"Run {participant.run_id} has no finished block on disk; resume it in the Calibrate tab, or choose another run.")
    return found


def sources(participant: Participant, n_blocks: int) -> dict[int, Source]:
    """What reads or makes the frozen blocks of a quantized participant. Raises StoreError, ShapeError, ConfigError."""
    if participant.kind == "run":
        return stored_blocks(participant, n_blocks)
    if participant.spec is None:
        raise ConfigError(f"{participant.title} names no bits; give bits and a group size.")
    return rtn_sources(participant.model, participant.spec, n_blocks)
