"""A LLaMA in memory, its blocks and linears as data. Every other room sees models through this class only."""

from dataclasses import dataclass
from functools import cached_property

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from salq.core.device import DeviceChoice, available_memory_gb, choose_device, out_of_memory_as_error
from salq.core.errors import ModelError, ResourceError
from salq.models.catalogue import CATALOGUE, DEFAULT_MODEL, parameters_of
from salq.models.folder import file_of
from salq.models.quiet import quiet
from salq.models.source import ModelSource, resolve

LINEARS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
"""The linears of a block, in the order of every grid and table; a `module_name` is one of these."""
SHARED_INPUTS = {
    "self_attn.q_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.o_proj": ("self_attn.o_proj",),
    "mlp.gate_proj": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down_proj": ("mlp.down_proj",),
}
"""Which linears of a block read the same input, by the one that is observed for all of them, in forward order."""


@dataclass(frozen=True)
class Llama:
    """A loaded model: eval mode, no gradients. `model` may hold quantized linears; `source` is then still where it came from."""

    name: str
    source: ModelSource
    model: LlamaForCausalLM
    tokenizer: PreTrainedTokenizerBase

    @property
    def config(self) -> LlamaConfig:
        """The model's own config."""
        return self.model.config

    @property
    def blocks(self) -> list[nn.Module]:
        """The decoder layers, in order."""
        return list(self.model.model.layers)

    @property
    def n_blocks(self) -> int:
        """How many decoder layers there are."""
        return len(self.model.model.layers)

    @property
    def device(self) -> torch.device:
        """Where the embeddings (and so everything else) live."""
        return self.model.model.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of activations."""
        return self.model.model.norm.weight.dtype

    @cached_property
    def parameters(self) -> int:
        """Number of weights of the unquantized model, tied matrices counted once."""
        return parameters_of(self.config.to_dict())

    @property
    def is_chat(self) -> bool:
        """True when the tokenizer has a chat template; else the model completes plain text."""
        return self.tokenizer.chat_template is not None

    @property
    def reference_label(self) -> str:
        """What to write wherever the unquantized model is shown."""
        return f"reference {self.source.note.split(' (')[0]}" if self.source.note else "full precision"

    def linears(self, block: int) -> dict[str, nn.Module]:
        """module_name -> linear of that block, in the order of LINEARS: `nn.Linear`, or what replaced it."""
        layer = self.model.model.layers[block]
        return {name: layer.get_submodule(name) for name in LINEARS}


def load_model(name: str = DEFAULT_MODEL, *, device: str | DeviceChoice = "auto", dtype: torch.dtype | None = None) -> Llama:
    """Load a LLaMA by catalogue key, hub id or local folder, ready for inference.

    `device`: auto, cpu, cuda, cuda:N. `dtype`: float32 on a CPU and bfloat16 on a GPU unless given.
    Raises UnknownNameError, ModelError (not a LLaMA, gated, damaged, no network), ConfigError (device), ResourceError (memory).
    """
    choice = choose_device(device) if isinstance(device, str) else device
    dtype = dtype or choice.dtype
    if name in CATALOGUE:  # say it before gigabytes are fetched in vain
        _check_memory(name, CATALOGUE[name].parameters, choice.device, dtype)
    source = resolve(name)
    _check_memory(name, parameters_of(read_config(source).to_dict()), choice.device, dtype)
    with out_of_memory_as_error(f"Loading {name}"):
        model = _read_model(source, dtype).to(choice.device)
    return Llama(name, source, model.eval().requires_grad_(False), read_tokenizer(source))


def read_config(source: ModelSource) -> LlamaConfig:
    """The config alone, without weights. Raises ModelError when transformers refuses it."""
    try:
        with quiet():
            return LlamaConfig.from_pretrained(source.folder, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError, StrictDataclassError) as error:
        raise ModelError(f"The config.json of {source.name} is not a usable LLaMA config ({_reason(error)}).") from error


def read_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase:
    """The tokenizer of the folder; no remote code. Raises ModelError when it is missing or damaged."""
    try:
        with quiet():
            return AutoTokenizer.from_pretrained(source.folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises bare Exception for a damaged tokenizer.json
        raise ModelError(f"The tokenizer of {source.name} cannot be read ({_reason(error)}); fetch the model again.") from error


def read_weight(source: ModelSource, block: int, module_name: str) -> Tensor:
    """One linear's weight `[out, in]` as float32, read alone from the memory-mapped file. Raises ModelError when it is not there."""
    tensor = f"model.layers.{block}.{module_name}.weight"
    path = file_of(source.folder, tensor)
    try:
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(tensor).float()
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} holds no readable tensor {tensor}; fetch the model again.") from error


def read_rows(source: ModelSource, block: int, module_name: str, first: int, last: int) -> Tensor:
    """Rows first to last - 1 of one linear's weight `[rows, in]` as float32; the rest of the file is not touched.

    Rows that do not exist are left out. Raises ModelError when the tensor is not there.
    """
    tensor = f"model.layers.{block}.{module_name}.weight"
    path = file_of(source.folder, tensor)
    try:
        with safe_open(path, framework="pt") as file:
            part = file.get_slice(tensor)
            rows: Tensor = part[max(first, 0) : min(last, part.get_shape()[0])]
            return rows.float()
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} holds no readable tensor {tensor}; fetch the model again.") from error


def _read_model(source: ModelSource, dtype: torch.dtype) -> LlamaForCausalLM:
    try:
        with quiet():
            model, report = LlamaForCausalLM.from_pretrained(
                source.folder, dtype=dtype, use_safetensors=True, local_files_only=True, attn_implementation="sdpa", output_loading_info=True
            )
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise ModelError(f"The weights of {source.name} do not fit its config or are damaged ({_reason(error)}).") from error
    # transformers would go on with random numbers in place of missing weights
    if missing := sorted(report["missing_keys"]):
        raise ModelError(f"{source.name} lacks {len(missing)} weights (first: {missing[0]}); fetch the model again.")
    return model


def _check_memory(name: str, parameters: int, device: torch.device, dtype: torch.dtype) -> None:
    needed, free = parameters * dtype.itemsize / 1e9, available_memory_gb(device)
    if needed > free:
        precision = str(dtype).removeprefix("torch.")
        raise ResourceError(
            f"{name} needs {needed:.1f} GB for its weights in {precision} and only {free:.1f} GB are free on {device}; "
            "choose a smaller model or another device."
        )


def _reason(error: Exception) -> str:
    """What a library said, on one line of readable length."""
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
