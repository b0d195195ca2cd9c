"""A folder that `python -m salq export` wrote: a quantized model that stands alone, loaded straight into executors."""

import hashlib
from functools import partial
from pathlib import Path

from salq.core.device import DeviceChoice, choose_device, out_of_memory_as_error, release_memory
from salq.core.errors import FormatError
from salq.kernels.assemble import Source, fill
from salq.kernels.executors import AUTO
from salq.models.folder import SINGLE
from salq.models.llama import LINEARS, Llama
from salq.models.skeleton import assemble, packed_config, with_tokenizer
from salq.models.source import ModelSource
from salq.packing.files import PackedFile
from salq.quant.frozen import FrozenLinear


def load_packed(folder: str | Path, *, device: str | DeviceChoice = "auto", executor: str = AUTO, whole: bool = False) -> Llama:
    """The model in an exported folder, ready to run from its codes; `execution` of it says on what. `whole` as in `load_quantized`.

    Every tensor is checked against its hash before anything runs. Raises FormatError (damaged, altered, newer), ModelError (config, tokenizer),
    ConfigError (device, executor), ResourceError (memory).
    """
    folder = Path(folder).expanduser().resolve()
    choice = choose_device(device) if isinstance(device, str) else device
    file = PackedFile(folder / SINGLE)
    config = packed_config(folder)
    names = {f"model.layers.{block}.{name}" for block in range(int(config.num_hidden_layers)) for name in LINEARS}
    if strangers := sorted(set(file.manifest.matrices) - names):
        raise FormatError(f"{file.path.name} holds {strangers[0]}, which the model in config.json does not have.")
    weights = {f"{name}.weight" for name in file.manifest.matrices}
    note = f"quantized by salq from {file.manifest.origin.model or 'a model without a name'}"
    digest = hashlib.sha256(file.manifest.model_dump_json().encode()).hexdigest()
    with out_of_memory_as_error(f"Loading {folder.name}"):
        model = assemble(config, file.rest(), weights, choice.device, choice.dtype)
        llama = with_tokenizer(str(folder), ModelSource(folder.name, folder, "folder", note, digest), model)
        fill(llama, _sources(file, llama.n_blocks), executor, whole=whole)
    release_memory()
    return llama


def _sources(file: PackedFile, n_blocks: int) -> dict[int, Source]:
    blocks = {index: [name for name in LINEARS if f"model.layers.{index}.{name}" in file.manifest.matrices] for index in range(n_blocks)}
    return {index: partial(_block, file, index, names) for index, names in blocks.items() if names}


def _block(file: PackedFile, index: int, names: list[str]) -> dict[str, FrozenLinear]:
    return {name: file.matrix(f"model.layers.{index}.{name}") for name in names}
