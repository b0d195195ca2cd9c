"""How fast executors and the decode engine are: every contender in one process, one after the other in every round, checked before it is timed.

Medians of single calls. Weights of a product rotate through more memory than caches hold, as the weights of a model do.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from salq.core.device import out_of_memory_as_error
from salq.core.errors import ConfigError
from salq.kernels.assemble import decodable_copy, execution, round_head, rtn_blocks
from salq.kernels.engine import Decoder, decoder_for
from salq.kernels.executors import EXECUTORS, Executors
from salq.kernels.linear import QuantLinear
from salq.models.llama import Llama
from salq.quant.frozen import FrozenLinear, rtn
from salq.quant.size import matrix_bits
from salq.quant.spec import QuantSpec

COLD_BYTES = 64_000_000
MOST_COPIES = 12
WARM_UP = 3
EXACT, ROUNDED = 1e-3, 3e-2
"""Largest relative error of a contender that keeps activations, and of one that rounds them to 8 bits or bfloat16 (as a model on a GPU does)."""

Call = Callable[[], Any]


@dataclass(frozen=True)
class Timing:
    """One contender. seconds: median of a call; bytes: weights that a call reads; error: relative, see the functions below."""

    name: str
    seconds: float
    fastest: float
    calls: int
    bytes: int
    error: float
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def kernel_times(shape: tuple[int, int], specs: list[QuantSpec], rows: int = 1, calls: int = 60, device: str = "cpu") -> list[Timing]:
    """One product x @ W.T with W [out, in] of random weights and x [rows, in]: float weights, and every executor that accepts each grid.

    The error is relative to float64.
    Raises ConfigError when a contender is wrong, before anything is timed.
    """
    place = torch.device(device)
    generator = torch.Generator().manual_seed(0)
    dtype = torch.float32 if place.type == "cpu" else torch.float16
    x = torch.randn(rows, shape[1], generator=generator).to(place, dtype)
    weights = [torch.randn(*shape, generator=generator) * shape[1] ** -0.5 for _ in range(_copies(4 * shape[0] * shape[1]))]
    floats = [weight.to(place, dtype) for weight in weights]
    contenders: dict[str, tuple[list[Call], int, float, str]] = {}
    name = f"torch {str(dtype).removeprefix('torch.')}"
    error = _relative(x @ floats[0].T, x.double() @ weights[0].to(place).double().T)
    contenders[name] = ([_product(x, weight) for weight in floats], floats[0].nbytes, error, "")
    for spec in specs:
        frozen = rtn(weights[0], spec).to(place)
        want = x.double() @ frozen.dequantize().double().T
        size = sum(matrix_bits(spec, *shape).values()) // 8
        for executor in EXECUTORS:
            if executor.refusal(frozen, place, dtype) is not None:
                continue
            # the same codes again and again, in memory of their own
            modules = [executor.build([frozen], [None]) for _ in range(_copies(size))]
            error = _relative(modules[0](x), want)
            contenders[f"{executor.name} {spec.tag}"] = ([_call(module, x) for module in modules], size, error, executor.describe(spec))
    for name, (_, _, error, _) in contenders.items():
        _check(name, error, EXACT if name.startswith(("torch float", "reference")) else ROUNDED)
    with torch.no_grad():
        times = _rounds({name: contender[0] for name, contender in contenders.items()}, calls, place)
    return [_timing(name, times[name], size, error, note) for name, (_, size, error, note) in contenders.items()]


def decode_times(
    model: Llama, specs: list[QuantSpec], rank: int = 0, prompt_tokens: int = 32, tokens: int = 32, rounds: int = 3, *, head: bool = False
) -> list[Timing]:
    """Seconds per token of greedy decoding: transformers' generate and the engine on the original, the engine on rounded models.

    rank: also with random adapters of this rank, which cost what real ones do. head: also with the head in 8 bits. A round lets every
    contender write `tokens` tokens.
    Raises ConfigError when a contender is wrong, before anything is timed.
    """
    ids = _prompt(model, prompt_tokens)
    contenders, errors = _models(model, specs, rank, ids)
    if head:
        rounded = {f"{name}, 8-bit head": name for name, one in contenders.items() if one is not model}
        contenders |= {name: round_head(contenders[plain]) for name, plain in rounded.items()}
        errors |= {name: errors[plain] for name, plain in rounded.items()}
    decoders = {name: decoder_for(one) for name, one in contenders.items()}
    times: dict[str, list[float]] = {"transformers, original": [], **{name: [] for name in decoders}}
    for _ in range(rounds + 1):
        times["transformers, original"].append(statistics.median(_generate_times(model, ids, tokens)))
        for name, decoder in decoders.items():
            times[name].append(statistics.median(_decode(decoder, ids, tokens)))
    times = {name: seconds[1:] for name, seconds in times.items()}  # the first round warms up
    sizes = {name: _bytes(one) for name, one in contenders.items()}
    baseline = _timing("transformers, original", times.pop("transformers, original"), sizes["engine, original"], 0.0, "generate, " + execution(model))
    return [baseline, *(_timing(name, times[name], sizes[name], errors[name], execution(one)) for name, one in contenders.items())]


def prefill_times(model: Llama, specs: list[QuantSpec], rank: int = 0, tokens: int = 256, rounds: int = 3) -> list[Timing]:
    """Seconds for a prompt of `tokens` tokens, in one forward pass: transformers on the original, the engine on the original and rounded models."""
    ids = _prompt(model, tokens)
    contenders, errors = _models(model, specs, rank, ids)
    calls: dict[str, list[Call]] = {"transformers, original": [lambda: _transformers_logits(model, ids)]}
    for name, one in contenders.items():
        calls[name] = [_prefill(decoder_for(one), ids)]
    times = _rounds(calls, rounds, model.device)
    notes = {name: execution(one) for name, one in contenders.items()} | {"transformers, original": execution(model)}
    sizes = {name: _bytes(contenders.get(name, model)) for name in calls}
    return [_timing(name, times[name], sizes[name], errors.get(name, 0.0), notes[name]) for name in calls]


def with_random_adapter(frozen: FrozenLinear, rank: int, seed: int = 0) -> FrozenLinear:
    """The same codes with an adapter of that rank and small random values: for speed only."""
    generator = torch.Generator().manual_seed(seed)
    out_features, in_features = frozen.codes.shape
    lora_A, lora_B = (torch.randn(*size, generator=generator).mul_(1e-3).half() for size in ((rank, in_features), (out_features, rank)))
    return FrozenLinear(frozen.spec, frozen.codes, frozen.scale, frozen.zero_point, lora_A, lora_B, 1.0)


def _models(model: Llama, specs: list[QuantSpec], rank: int, ids: list[int]) -> tuple[dict[str, Llama], dict[str, float]]:
    """The original and its rounded forms on the fastest executor, by contender, and the error of each.

    The engine's logits of the original must be those of transformers, every matrix of a rounded block that of the reference. Logits of rounded
    models say less: at 2 bits rounding to nearest leaves a model that answers to the last bit of an activation.
    """
    found, errors = {"engine, original": model}, {"engine, original": _logits_error(model, ids)}
    with out_of_memory_as_error("The benchmark"):
        for spec in specs:
            blocks = rtn_blocks(model, spec)
            adapted = (
                {index: {name: with_random_adapter(one, rank) for name, one in block.items()} for index, block in blocks.items()} if rank else {}
            )
            for name, frozen in ((f"engine, {spec.tag}", blocks), (f"engine, {spec.tag} adapters r{rank}", adapted)):
                if frozen:
                    found[name] = decodable_copy(model, frozen)
                    errors[name] = _block_error(model, frozen[0])
    for name, error in errors.items():
        _check(name, error, EXACT if name == "engine, original" and model.dtype == torch.float32 else ROUNDED)
    return found, errors


@torch.no_grad()
def _block_error(model: Llama, frozen: Mapping[str, FrozenLinear]) -> float:
    """Largest relative error of the first block's matrices against the reference."""
    errors = []
    for linear in frozen.values():
        placed = linear.to(model.device)
        x = torch.randn(1, placed.codes.shape[1], generator=torch.Generator().manual_seed(0)).to(model.device, model.dtype)
        (built,) = Executors().build([placed], [None], model.dtype)
        errors.append(_relative(built.module(x), QuantLinear(placed)(x)))
    return max(errors)


def _prompt(model: Llama, tokens: int) -> list[int]:
    return torch.randint(model.config.vocab_size, (tokens,), generator=torch.Generator().manual_seed(0)).tolist()


def _logits_error(model: Llama, ids: list[int]) -> float:
    """Of the engine against transformers' forward pass on the same modules: relative, over the last token's logits."""
    decoder = decoder_for(model)
    decoder.advance(ids[:-1])
    return _relative(decoder.advance(ids[-1:]), _transformers_logits(model, ids))


@torch.no_grad()
def _transformers_logits(model: Llama, ids: list[int]) -> Tensor:
    logits: Tensor = model.model(torch.tensor([ids], device=model.device), logits_to_keep=1).logits[0, -1].float().cpu()
    return logits


class _Clock:
    """What transformers calls a streamer: told of every token, here only to note the time."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: Tensor) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


def _generate_times(model: Llama, ids: list[int], tokens: int) -> list[float]:
    """Seconds between the tokens that transformers' generate writes; the prompt and the first token are left out."""
    clock = _Clock()
    prompt = torch.tensor([ids], device=model.device)
    length = {"max_new_tokens": tokens + 1, "min_new_tokens": tokens + 1}
    model.model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, streamer=clock, pad_token_id=0, **length)
    return [later - earlier for earlier, later in zip(clock.times[1:], clock.times[2:], strict=False)]


def _decode(decoder: Decoder, ids: list[int], tokens: int) -> list[float]:
    """Seconds of each of `tokens` greedy steps after the prompt."""
    decoder.reset()
    token = int(decoder.advance(ids).argmax())
    times = []
    for _ in range(tokens):
        started = time.perf_counter()
        token = int(decoder.advance([token]).argmax())
        times.append(time.perf_counter() - started)
    return times


def _prefill(decoder: Decoder, ids: list[int]) -> Call:
    def call() -> None:
        decoder.reset()
        decoder.advance(ids)

    return call


def _rounds(contenders: Mapping[str, list[Call]], calls: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of `calls` calls of each, its alternatives in turn. A contender runs several calls in a row, so that none pays for another's memory."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(3):
        for name, alternatives in contenders.items():
            for number in range(-WARM_UP, max(1, calls // 3)):
                started = time.perf_counter()
                alternatives[number % len(alternatives)]()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                if number >= 0:
                    times[name].append(time.perf_counter() - started)
    return times


def _timing(name: str, times: list[float], size: int, error: float, note: str) -> Timing:
    return Timing(name, statistics.median(times), min(times), len(times), size, error, note)


def _bytes(model: Llama) -> int:
    """Weights that a token reads: all of the blocks and the head."""
    return _linear_bytes(model.model.lm_head) + sum(
        _linear_bytes(linear) for index in range(model.n_blocks) for linear in model.linears(index).values()
    )


def _linear_bytes(linear: Any) -> int:
    if isinstance(linear, torch.nn.Linear):
        return linear.weight.nbytes
    lora_A = getattr(linear, "lora_A", None)
    rank = getattr(linear, "rank", 0 if lora_A is None else len(lora_A))
    return sum(matrix_bits(linear.spec, linear.out_features, linear.in_features, rank).values()) // 8


def _copies(size: int) -> int:
    return min(MOST_COPIES, 1 + COLD_BYTES // max(size, 1))


def _product(x: Tensor, weight: Tensor) -> Call:
    return lambda: torch.nn.functional.linear(x, weight)


def _call(module: torch.nn.Module, x: Tensor) -> Call:
    return lambda: module(x)


def _relative(got: Tensor, want: Tensor) -> float:
    want = want.double()
    return float((got.double() - want).norm() / want.norm())


def _check(name: str, error: float, limit: float) -> None:
    if not error < limit:
        raise ConfigError(f"Contender {name!r} is wrong (relative error {error:.2g}, at most {limit:.2g} allowed); nothing was timed.")
