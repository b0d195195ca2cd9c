"""The student: a decoder block whose matrices are quantized on the fly while their clipping and adapters are learned."""

import copy
import dataclasses
from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from salq.core.errors import ConfigError
from salq.quant.adapter import Adapter, LoRA
from salq.quant.binary_mos import NO_WEIGHT, BinaryMoS, ScaleExperts
from salq.quant.clipping import LWC, Clipping, MinMax
from salq.quant.dual_binary import DualBinary, DualScales
from salq.quant.frozen import FrozenLinear
from salq.quant.spec import QuantSpec


class StudentLinear(nn.Module):
    """y = x @ (Q(W) + scaling * B @ A).T + bias, with Q's range and A, B learnable, and W where weights are trained.

    `forward` is the primitive. Both weights are computed once per step and shared by everybody who needs them (the forward pass and the
    regularizer); `new_step` forgets them. The adapter is added to the weight rather than to the output: its gradients then come from the
    weight's own, which the range needs anyway, and not from a dozen thin products and sums over all tokens.
    """

    original: Tensor
    weight: Tensor
    bias: Tensor | None

    def __init__(
        self, linear: nn.Linear, spec: QuantSpec, clipping: Clipping | DualScales, adapter: Adapter | None, *, learn_weight: bool = False
    ) -> None:
        """`original` is shared with `linear`, never copied or changed; `weight` is the same tensor until `start_weight`, or a copy that learns."""
        super().__init__()
        self.spec, self.clipping, self.adapter = spec, clipping, adapter
        self.register_buffer("original", linear.weight.detach())
        if learn_weight:
            self.weight = nn.Parameter(self.original.clone())
        else:
            self.register_buffer("weight", self.original)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())
        self.new_step()

    def new_step(self) -> None:
        """Forget the weights of the last step."""
        self._fake: Tensor | None = None
        self._effective: Tensor | None = None

    @torch.no_grad()
    def start_weight(self, weight: Float[Tensor, "out in"]) -> None:
        """Round, and learn where weights are trained, from this matrix; `original` stays."""
        if isinstance(self.weight, nn.Parameter):
            self.weight.copy_(weight)
        else:
            self.weight = weight
        self.new_step()

    def fake_weight(self) -> Float[Tensor, "out in"]:
        """Q(W) of this step."""
        if self._fake is None:
            self._fake = self.clipping.fake_quantize(self.weight)
        return self._fake

    def effective_weight(self) -> Float[Tensor, "out in"]:
        """Q(W) + scaling * B @ A."""
        if self.adapter is None:
            return self.fake_weight()
        if self._effective is None:
            self._effective = self.adapter.added_to(self.fake_weight())
        return self._effective

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """The quantized linear on `x`."""
        return nn.functional.linear(x, self.effective_weight(), self.bias)

    def freeze(self) -> FrozenLinear:
        """Codes, grid and adapter as they will be stored."""
        return _with_adapter(self.clipping.freeze(self.weight), self.adapter)


class TokenAdaptiveLinear(nn.Module):
    """y = s_out(x) * (sign(W) (s_in(x) * x)) + scaling * (x @ A.T) @ B.T + bias: no weight is shared by all tokens (BinaryMoS)."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear, spec: QuantSpec, experts: ScaleExperts, adapter: Adapter | None) -> None:
        """The weight is shared with `linear`, never copied or changed."""
        super().__init__()
        self.spec, self.clipping, self.adapter = spec, experts, adapter
        self.register_buffer("weight", linear.weight.detach())
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    @property
    def original(self) -> Float[Tensor, "out in"]:
        """The weight: it is never trained."""
        return self.weight

    def new_step(self) -> None:
        """Nothing is kept from step to step."""

    def fake_weight(self) -> Float[Tensor, "out in"]:
        """Raises ConfigError: there is none."""
        raise ConfigError(NO_WEIGHT)

    def effective_weight(self) -> Float[Tensor, "out in"]:
        """Raises ConfigError: there is none."""
        raise ConfigError(NO_WEIGHT)

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """The quantized linear on `x`."""
        output = self.clipping.product(x)
        if self.adapter is not None:
            output = output + self.adapter(x)
        return output if self.bias is None else output + self.bias

    def freeze(self) -> FrozenLinear:
        """Signs, experts, router and adapter as they will be stored."""
        return _with_adapter(self.clipping.freeze(self.weight), self.adapter)


def _with_adapter(frozen: FrozenLinear, adapter: Adapter | None) -> FrozenLinear:
    if adapter is None:
        return frozen
    half = torch.float16
    return dataclasses.replace(frozen, lora_A=adapter.lora_A.detach().to(half), lora_B=adapter.lora_B.detach().to(half), scaling=adapter.scaling)


class SideBySide(nn.Module):
    """Linears that read the same input; their outputs are concatenated."""

    def __init__(self, linears: Iterable[nn.Module]) -> None:
        """The linears are shared, not copied."""
        super().__init__()
        self.linears = nn.ModuleList(linears)

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """All of them on `x`."""
        return torch.cat([linear(x) for linear in self.linears], dim=-1)


class Student:
    """A copy of a decoder block with every quantized matrix replaced by one that learns; norms and biases are the block's own."""

    def __init__(
        self,
        block: nn.Module,
        module_names: Iterable[str],
        spec: QuantSpec | Mapping[str, QuantSpec],
        clipping: LWC | MinMax | DualBinary | BinaryMoS,
        adapter: LoRA | None,
        generator: torch.Generator,
        *,
        learn_weight: bool = False,
    ) -> None:
        """`block` is float32 on its device and stays untouched; `spec` is one grid or {module_name: grid}; learn_weight: weights are trained.

        Raises ShapeError naming the matrix when rank or group size do not fit.
        """
        memo = {id(parameter): parameter for parameter in block.parameters()}  # share the weights, copy only the modules
        self.block = copy.deepcopy(block, memo)
        self.linears: dict[str, StudentLinear | TokenAdaptiveLinear] = {}
        for name in module_names:
            linear = block.get_submodule(name)
            assert isinstance(linear, nn.Linear)
            out_features, in_features = linear.weight.shape
            own = spec if isinstance(spec, QuantSpec) else spec[name]
            quantizer = clipping.build(linear.weight.detach(), own)
            low_rank = None if adapter is None else adapter.build(out_features, in_features, generator, linear.weight.device)
            built: StudentLinear | TokenAdaptiveLinear
            if isinstance(quantizer, ScaleExperts):
                built = TokenAdaptiveLinear(linear, own, quantizer, low_rank)
            else:
                built = StudentLinear(linear, own, quantizer, low_rank, learn_weight=learn_weight)
            self.block.set_submodule(name, built)
            self.linears[name] = built

    def part(self, module_names: Iterable[str]) -> "Student":
        """The student of some linears that read the same input: its `block` maps that input to their concatenated outputs."""
        part = copy.copy(self)
        part.linears = {name: self.linears[name] for name in module_names}
        part.block = SideBySide(part.linears.values())
        return part

    def new_step(self) -> None:
        """To be called before every forward pass that follows a change of parameters."""
        for linear in self.linears.values():
            linear.new_step()

    def parameters(self, group: str) -> list[nn.Parameter]:
        """Learnable parameters of a group: 'clipping', 'adapter' or 'weight' (empty when the recipe has none)."""
        if group == "weight":
            return [linear.weight for linear in self.linears.values() if isinstance(linear.weight, nn.Parameter)]
        chosen: list[nn.Parameter] = []
        for linear in self.linears.values():
            module = linear.clipping if group == "clipping" else linear.adapter
            chosen += [] if module is None else list(module.parameters())
        return chosen

    def freeze(self) -> dict[str, FrozenLinear]:
        """Every matrix as it will be stored."""
        return {name: linear.freeze() for name, linear in self.linears.items()}
