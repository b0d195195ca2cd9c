"""A model on the GPU: speed of decoding, prompts and calibration at a 7B's shapes with random weights, and checks of a tiny model against the CPU.

python benchmarks/gpu_model.py checks --json FILE        saliency, calibration, end-to-end pass, logits and decoding of a tiny model; out of memory
python benchmarks/gpu_model.py decode --json FILE        one token: the engine on the original in 16 bits and on packed models with adapters
python benchmarks/gpu_model.py prefill --json FILE       a prompt of 2048 tokens, the same contenders
python benchmarks/gpu_model.py calibrate --json FILE     ApiQ's published setting on two blocks: time and peak memory; 32 blocks are extrapolated
python benchmarks/gpu_model.py count --device cpu       bytes of tensors that it holds at once, over two samples: a quarter of an hour on one core

Every part also runs with --device cpu --shape tiny, which says nothing about speed. Weights are random: speed and memory are those of a real model.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.live_bytes import LiveBytes  # noqa: E402 - the checkout is put on the path first
from salq import recipes  # noqa: E402
from salq.calibration.distillation import distill  # noqa: E402
from salq.calibration.engine import calibrate  # noqa: E402
from salq.calibration.store import MemoryBlocks  # noqa: E402
from salq.core.device import GB, DeviceChoice, PeakMemory, choose_device, out_of_memory_as_error  # noqa: E402
from salq.core.drain import drain  # noqa: E402
from salq.core.errors import ResourceError  # noqa: E402
from salq.core.events import BlockDone, MetricReported  # noqa: E402
from salq.core.files import write_json  # noqa: E402
from salq.data.sources import load_text  # noqa: E402
from salq.kernels.assemble import decodable_copy, execution, quantized_copy, rtn_blocks  # noqa: E402
from salq.kernels.engine import decoder_for  # noqa: E402
from salq.kernels.measure import Timing, decode_times, prefill_times, with_random_adapter  # noqa: E402
from salq.models.catalogue import entry_of  # noqa: E402
from salq.models.llama import Llama, load_model  # noqa: E402
from salq.models.skeleton import assemble  # noqa: E402
from salq.models.source import ModelSource  # noqa: E402
from salq.models.tiny import byte_tokenizer, save_tiny, tiny_config  # noqa: E402
from salq.quant.spec import QuantSpec  # noqa: E402
from salq.runs.environment import environment  # noqa: E402
from salq.saliency.maps import compute_saliency  # noqa: E402

GROUP_SIZE, RANK = 64, 64
STREAMS_GB = 2.0
"""Of the device for the streams' activations, which are 17 GB in the published setting: they live in the host's memory, as on a card of 12 GB."""
COUNTED_SAMPLES = 2
CHECKED_TOKENS = 300
"""Of a text that is decoded as a check: more than one bucket of the cache, so more than one CUDA graph."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure or check; exit code 1 when a check fails."""
    options = parse(arguments)
    choice = choose_device(options.device)
    found = PARTS[options.part](options, choice)
    value = {
        "command": " ".join(["python", "benchmarks/gpu_model.py", *(sys.argv[1:] if arguments is None else arguments)]),
        "part": options.part, **found, "environment": environment(choice),
    }  # fmt: skip
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.json, value)
    print(json.dumps(value, indent=1))
    return 1 if any(row.get("wrong") for row in found.get("checks", [])) else 0


def decode(options: argparse.Namespace, choice: DeviceChoice) -> dict[str, Any]:
    """Seconds per token."""
    with random_llama(options, choice) as model:
        return spoken(options, decode_times(model, specs(options), options.rank, tokens=options.tokens or 64, rounds=options.rounds))


def prefill(options: argparse.Namespace, choice: DeviceChoice) -> dict[str, Any]:
    """Seconds per prompt."""
    with random_llama(options, choice) as model:
        return spoken(options, prefill_times(model, specs(options), options.rank, options.tokens or 2048, options.rounds))


def spoken(options: argparse.Namespace, times: Sequence[Timing]) -> dict[str, Any]:
    """The rows, each with how many times faster it is than the same engine on the original in 16 bits."""
    original = next(one for one in times if one.name == "engine, original")
    rows = [{**one.to_json(), "times_original": original.seconds / one.seconds} for one in times]
    return {"shape": options.shape, "weights": "random", "group_size": GROUP_SIZE, "rank": options.rank, "rows": rows}


def calibrated(options: argparse.Namespace, choice: DeviceChoice) -> dict[str, Any]:
    """Seconds and peak memory of blocks with the published setting; the model's weights stay in the host's memory."""
    host = DeviceChoice(torch.device("cpu"), torch.bfloat16, "the model waits in the host's memory")
    options.blocks = options.blocks or 2
    small = {"data.n_samples": 4, "data.seq_len": 32, "epochs": 1, "rank": 4} if options.shape == "tiny" else {}
    overrides = {"data.streams_gb": STREAMS_GB} | small | ({"compile": "block"} if options.compile else {})
    recipe = recipes.get("apiq", preset="published", bits=options.bits[0], group_size=GROUP_SIZE, overrides=overrides)
    assert recipe.data is not None
    with random_llama(options, host) as model:
        tokens = torch.randint(0, model.config.vocab_size, (recipe.data.n_samples, recipe.data.seq_len), generator=torch.Generator().manual_seed(0))
        peak, seconds, streams = PeakMemory(choice.device), [], {}
        for event in calibrate(model, tokens, recipe, MemoryBlocks(), device=choice.device):
            if isinstance(event, BlockDone):
                seconds.append(event.seconds)
            elif isinstance(event, MetricReported) and event.name == "streams":
                streams = event.value
        of = entry_of(options.shape).config["num_hidden_layers"] if options.shape != "tiny" else 2
    return {
        "shape": options.shape, "weights": "random", "recipe": "apiq, published", "compile": options.compile, "bits": options.bits[0],
        "group_size": GROUP_SIZE, "rank": recipe.rank, "samples": recipe.data.n_samples, "seq_len": recipe.data.seq_len, "streams": streams,
        "block_seconds": seconds, "peak_gb": peak.gb(),
        "extrapolated_minutes": {"blocks": of, "minutes": statistics.median(seconds[1:]) * of / 60, "from": "the blocks after the first"},
    }  # fmt: skip


def counted(options: argparse.Namespace, choice: DeviceChoice) -> dict[str, Any]:
    """Bytes of tensors that calibrating two blocks holds at once in the published setting, over few samples; any device will do."""
    small = {"data.seq_len": 32, "rank": 4} if options.shape == "tiny" else {}
    overrides = {"data.n_samples": COUNTED_SAMPLES, "epochs": 1} | small
    recipe = recipes.get("apiq", preset="published", bits=options.bits[0], group_size=GROUP_SIZE, overrides=overrides)
    assert recipe.data is not None
    options.blocks = 2  # in the second one, what is left of the first is there too
    with random_llama(options, DeviceChoice(choice.device, torch.bfloat16, "as on a GPU")) as model:
        tokens = torch.randint(0, model.config.vocab_size, (COUNTED_SAMPLES, recipe.data.seq_len), generator=torch.Generator().manual_seed(0))
        with LiveBytes() as live:
            drain(calibrate(model, tokens, recipe, MemoryBlocks()))
    return {
        "shape": options.shape, "weights": "random", "recipe": "apiq, published, but for samples and epochs", "bits": options.bits[0],
        "group_size": GROUP_SIZE, "rank": recipe.rank, "samples": COUNTED_SAMPLES, "seq_len": recipe.data.seq_len, "peak_tensors_gb": live.peak / GB,
        "not_counted": "the model, the allocator's rounding, an operation's own scratch; of the published setting's streams what stays on the device",
    }  # fmt: skip


def checked(options: argparse.Namespace, choice: DeviceChoice) -> dict[str, Any]:
    """A tiny model on the device against itself on the CPU in float32; every check is tried, whatever became of the others."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = str(save_tiny(Path(name) / "tiny", n_blocks=2))
        for check in (saliency_is_the_cpus, *calibrations(), *executors_agree(), decoding_is_transformers, memory_that_lacks_is_one_sentence):
            title = getattr(check, "title", check.__name__.replace("_", " "))
            try:
                error, limit = check(folder, choice)
                rows.append({"check": title, "error": error, "limit": limit, "wrong": not error <= limit})
            except Exception as failure:  # noqa: BLE001 - the list is to be finished
                rows.append({"check": title, "failed": f"{type(failure).__name__}: {failure}"[:500], "wrong": True})
            print(json.dumps(rows[-1]), flush=True)
    return {"checks": rows}


Check = Callable[[str, DeviceChoice], tuple[float, float]]
"""(folder of a tiny model, device) -> how far it is off, and how far it may be."""


def saliency_is_the_cpus(folder: str, choice: DeviceChoice) -> tuple[float, float]:
    """Both in float32, so that only the order of sums differs."""
    found = []
    for device in ("cpu", str(choice.device)):
        model = load_model(folder, device=device, dtype=torch.float32)
        saliency = drain(compute_saliency(model, load_text("bundled", "calibration", model), 4, 64, 0))
        found.append(saliency.matrix(1, "mlp.down_proj").cpu())
    return relative(found[1], found[0]), 1e-3


def calibrations() -> Iterator[Check]:
    """Output errors of the last block, blocks and end-to-end pass of several recipes, in the device's own dtype."""
    for name in ("apiq", "gptq", "salq", "salq-full"):

        def check(folder: str, choice: DeviceChoice, name: str = name) -> tuple[float, float]:
            ends = [output_error(load_model(folder, device=device), name) for device in ("cpu", str(choice.device))]
            return abs(ends[1] - ends[0]) / ends[0], 0.1  # other roundings, other codes: about as good is what can be asked

        check.title = f"{name} is as good as on the CPU"  # type: ignore[attr-defined]
        yield check


def output_error(model: Llama, name: str) -> float:
    """Relative error of the last block's output after the blocks; the end-to-end pass runs, too."""
    short: dict[str, Any] = {"data.n_samples": 16, "data.seq_len": 64}
    recipe = recipes.get(name, bits=2, group_size=GROUP_SIZE, overrides=short | ({} if name == "gptq" else {"rank": 4}))
    tokens = torch.randint(0, 256, (16, 64), generator=torch.Generator().manual_seed(0))
    blocks, errors = MemoryBlocks(), []
    known = drain(calibrate(model, tokens, recipe, blocks), lambda event: errors.append(event.output_error) if isinstance(event, BlockDone) else None)
    if recipe.distillation is not None:
        config = recipe.distillation.model_copy(update={"steps": 4, "n_samples": 16, "seq_len": 64})
        drain(distill(model, {index: blocks.load(index) for index in range(model.n_blocks)}, tokens, config, known=known))
    last = errors[-1]
    assert last is not None
    return float(last)


def executors_agree() -> Iterator[Check]:
    """Logits of packed models with adapters on the executor that is chosen, against the reference."""
    for bits in (2, 3, 4, 8):

        def check(folder: str, choice: DeviceChoice, bits: int = bits) -> tuple[float, float]:
            model = load_model(folder, device=str(choice.device))
            frozen = adapted(model, bits)
            ids = torch.arange(40, device=model.device)[None]
            with torch.no_grad():
                want, chosen = (quantized_copy(model, frozen, executor) for executor in ("reference", "auto"))
                error = relative(chosen.model(ids).logits.float(), want.model(ids).logits.float())
            assert choice.device.type == "cpu" or execution(chosen).startswith("triton"), execution(chosen)
            return error, limit_of(choice, model.dtype)

        check.title = f"logits at {bits} bits are the reference's"  # type: ignore[attr-defined]
        yield check


def decoding_is_transformers(folder: str, choice: DeviceChoice) -> tuple[float, float]:
    """Token by token (CUDA graphs), in float32, over more than one bucket of the cache: the logits of transformers' pass over the whole text.

    Of the original and of a packed model, against the reference's codes.
    """
    model = load_model(folder, device=str(choice.device), dtype=torch.float32)
    frozen = adapted(model, 4)
    ids = torch.randint(0, 256, (CHECKED_TOKENS,), generator=torch.Generator().manual_seed(0)).tolist()
    errors = []
    for plain, runs in ((model, model), (quantized_copy(model, frozen), decodable_copy(model, frozen))):
        decoder = decoder_for(runs)
        got = [decoder.advance(ids[:20]), *(decoder.advance([token]) for token in ids[20:])]
        with torch.no_grad():
            want = plain.model(torch.tensor([ids], device=model.device)).logits[0, 19:].float()
        errors.append(relative(torch.stack(got).to(want.device), want))
    return max(errors), limit_of(choice, model.dtype)


def memory_that_lacks_is_one_sentence(folder: str, choice: DeviceChoice) -> tuple[float, float]:
    """A real out-of-memory becomes a ResourceError, and the device works afterwards."""
    if choice.device.type == "cpu":
        return 0.0, 0.0  # the host's memory is not to be filled
    try:
        with out_of_memory_as_error("This check"):
            torch.empty(1 << 44, dtype=torch.uint8, device=choice.device)
    except ResourceError:
        model = load_model(folder, device=str(choice.device))
        with torch.no_grad():
            logits = model.model(torch.arange(8, device=model.device)[None]).logits
        return float(not bool(logits.isfinite().all())), 0.0
    raise AssertionError("16 TiB were given")


def adapted(model: Llama, bits: int) -> dict[int, dict[str, Any]]:
    """Rounded blocks with small random adapters."""
    rounded = rtn_blocks(model, QuantSpec(bits=bits, group_size=GROUP_SIZE))
    return {index: {name: with_random_adapter(one, 4) for name, one in block.items()} for index, block in rounded.items()}


def limit_of(choice: DeviceChoice, dtype: torch.dtype) -> float:
    """Of a relative error of logits: a CPU's executors round activations to 8 bits, a GPU's compute in the model's own dtype."""
    if choice.device.type == "cpu":
        return 6e-2
    return 5e-3 if dtype == torch.float32 else 3e-2


def relative(got: Tensor, want: Tensor) -> float:
    """Relative Frobenius error; infinite where it is not a number."""
    error = float((got.double() - want.to(got.device).double()).norm() / want.double().norm())
    return error if math.isfinite(error) else math.inf


@contextmanager
def random_llama(options: argparse.Namespace, choice: DeviceChoice) -> Iterator[Llama]:
    """A model of that shape with random weights, made where it lives."""
    config = LlamaConfig(**entry_of("smollm2-135m" if options.shape == "tiny" else options.shape).config)
    config = tiny_config(config) if options.shape == "tiny" else config
    config.num_hidden_layers = options.blocks or config.num_hidden_layers
    generator = torch.Generator(choice.device).manual_seed(0)

    def weights() -> Iterator[tuple[str, Tensor]]:
        with torch.device("meta"):
            shapes = {name: parameter.shape for name, parameter in LlamaForCausalLM(config).named_parameters()}
        for name, shape in shapes.items():
            plain = name.endswith("norm.weight")
            made = torch.ones if plain else torch.randn
            value = made(shape, device=choice.device, dtype=choice.dtype, **({} if plain else {"generator": generator}))
            yield name, value if plain else value.mul_(0.02)

    model = assemble(config, weights(), (), choice.device, choice.dtype)
    with tempfile.TemporaryDirectory() as folder:
        yield Llama(options.shape, ModelSource(options.shape, Path(folder), "folder", "random weights", "random"), model, byte_tokenizer())


def specs(options: argparse.Namespace) -> list[QuantSpec]:
    """The grids of the packed contenders."""
    return [QuantSpec(bits=bits, group_size=GROUP_SIZE) for bits in options.bits]


PARTS: dict[str, Callable[[argparse.Namespace, DeviceChoice], dict[str, Any]]] = {
    "checks": checked,
    "decode": decode,
    "prefill": prefill,
    "calibrate": calibrated,
    "count": counted,
}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu (default cuda)")
    parser.add_argument("--shape", default="llama-2-7b", help="a model of the catalogue, or tiny (default llama-2-7b)")
    parser.add_argument("--blocks", type=int, help="only so many blocks (default: the model's; calibrate: 2)")
    parser.add_argument("--bits", type=int, nargs="+", default=[2, 3, 4], help="widths (default 2 3 4; calibrate takes the first)")
    parser.add_argument("--rank", type=int, default=RANK, help=f"of the adapters (default {RANK})")
    parser.add_argument("--tokens", type=int, help="tokens per round (default: decode 64, prefill 2048)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="calibrate: blocks by torch.compile")
    parser.add_argument("--json", type=Path, help="file to write the result to")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
