"""A LLaMA without the weights of some linears, for models whose linears come from codes: what is not needed is never read.

A 2-bit model of a billion weights takes half a gigabyte; reading its original first would take four.
"""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from salq.core.device import DeviceChoice, choose_device
from salq.core.errors import ModelError
from salq.models.folder import check_config, read_folder_config, weight_files
from salq.models.llama import LINEARS, Llama, read_config, read_tokenizer
from salq.models.quiet import quiet
from salq.models.source import ModelSource, resolve

EMBEDDING = "model.embed_tokens.weight"


def linear_weights(blocks: Iterable[int]) -> set[str]:
    """Names of the weights of all linears of these blocks, as checkpoints call them."""
    return {f"model.layers.{block}.{name}.weight" for block in blocks for name in LINEARS}


def load_skeleton(name: str, without: Collection[str], device: str | DeviceChoice = "auto") -> Llama:
    """The model `name` with all weights but those named in `without`, which stay without memory until something takes their place.

    Raises what `load_model` raises.
    """
    choice = choose_device(device) if isinstance(device, str) else device
    source = resolve(name)
    model = assemble(read_config(source), stored_tensors(source, without), without, choice.device, choice.dtype)
    return with_tokenizer(name, source, model)


def with_tokenizer(name: str, source: ModelSource, model: LlamaForCausalLM) -> Llama:
    """`model` with the tokenizer and the generation config that lie in the source's folder."""
    if (source.folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(source.folder, local_files_only=True)
    return Llama(name, source, model, read_tokenizer(source))


def assemble(
    config: LlamaConfig, tensors: Iterable[tuple[str, Tensor]], without: Collection[str], device: torch.device, dtype: torch.dtype
) -> LlamaForCausalLM:
    """A model from named tensors, in `dtype` on `device`, in eval mode without gradients; weights in `without` have no memory.

    Raises ModelError when another weight is missing or has the wrong shape.
    """
    with torch.device("meta"), quiet():
        model = LlamaForCausalLM(config)
    # computed, not stored: what the meta device made has no values
    model.model.rotary_emb = LlamaRotaryEmbedding(config).to(device)
    known = {name: parameter.shape for name, parameter in model.named_parameters(remove_duplicate=False)}
    for name, tensor in tensors:
        if name not in known:
            continue
        if tensor.shape != known[name]:
            raise ModelError(f"{name} has shape {tuple(tensor.shape)} where the config says {tuple(known[name])}; fetch the model again.")
        parent, _, attribute = name.rpartition(".")
        if name == EMBEDDING and tensor.dtype.itemsize < dtype.itemsize and not config.tie_word_embeddings:
            model.model.embed_tokens = NarrowEmbedding(tensor.to(device), dtype)
            continue
        value = tensor.to(device, dtype, copy=True)  # a copy, so that no file stays mapped for the sake of one tensor
        setattr(model.get_submodule(parent), attribute, nn.Parameter(value, requires_grad=False))
    model.tie_weights()
    missing = sorted(name for name, parameter in model.named_parameters() if parameter.is_meta and name not in without)
    if missing:
        raise ModelError(f"The model lacks {len(missing)} weights (first: {missing[0]}); fetch it again.")
    return model.eval().requires_grad_(False)


class NarrowEmbedding(nn.Module):
    """An embedding table as it is stored, whose rows are widened when they are looked up: the same numbers in half the memory.

    On a CPU the table stays a view of its file, of which only the rows that were looked up are in memory.
    """

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        """`weight` [vocab, width] in 16 bits; rows come in `dtype`."""
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self._dtype = dtype

    def forward(self, ids: Tensor) -> Tensor:
        """Rows of the table."""
        return nn.functional.embedding(ids, self.weight).to(self._dtype)


def stored_tensors(source: ModelSource, without: Collection[str]) -> Iterator[tuple[str, Tensor]]:
    """The wanted tensors of the folder, one by one."""
    for path in weight_files(source.folder):
        for name in _names(path):
            if name not in without:
                yield name, _read(path, name)


def packed_config(folder: Path) -> LlamaConfig:
    """The config of a folder that salq exported: as the original's, without the note that its weights are codes. Raises ModelError."""
    values = {name: value for name, value in read_folder_config(folder).items() if name != "quantization_config"}
    check_config(values, str(folder))
    try:
        return LlamaConfig(**values)
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise ModelError(f"{folder / 'config.json'} is not a usable LLaMA config ({error}).") from error


def _names(path: Path) -> list[str]:
    try:
        with safe_open(path, framework="pt") as file:
            return sorted(file.keys())
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged or cut short ({error}); fetch the model again.") from error


def _read(path: Path, name: str) -> Tensor:
    try:
        with safe_open(path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
            return tensor
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} holds no readable tensor {name}; fetch the model again.") from error
