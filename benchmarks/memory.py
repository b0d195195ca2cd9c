"""Memory of a running packed model: a random model of a catalogue entry's shape, loaded and decoded in a fresh process.

python benchmarks/memory.py --model tinyllama-1.1b --bits 2 [--blocks N] [--head 8bit] [--out FILE]

Weights are random, so its text means nothing; sizes and speed are those of a real model of that shape. Growth is the proportional set size of the
process after some tokens less that before loading (libraries are imported by then), and is compared with the bytes of the packed file.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import onnxruntime  # noqa: E402, F401 - imported before the first reading, as every library
import torch  # noqa: E402 - the checkout is put on the path first
from torch import Tensor  # noqa: E402

from benchmarks.output import tell  # noqa: E402
from salq.core.device import process_memory_gb, release_memory  # noqa: E402
from salq.core.files import write_json  # noqa: E402
from salq.kernels.assemble import execution, round_head  # noqa: E402
from salq.kernels.engine import decoder_for  # noqa: E402
from salq.kernels.packed import load_packed  # noqa: E402
from salq.models.catalogue import entry_of  # noqa: E402
from salq.models.shapes import linear_shapes  # noqa: E402
from salq.models.tiny import byte_tokenizer  # noqa: E402
from salq.packing.files import write_packed  # noqa: E402
from salq.quant.frozen import FrozenLinear  # noqa: E402
from salq.quant.spec import QuantSpec  # noqa: E402
from salq.runs.environment import environment  # noqa: E402

TOKENS = 8


def random_linear(shape: tuple[int, int], spec: QuantSpec, rank: int) -> FrozenLinear:
    groups = spec.groups(shape[1])
    codes = torch.randint(0, 2**spec.bits, shape, dtype=torch.uint8)
    zero_point = torch.full((shape[0], groups), 2 ** (spec.bits - 1), dtype=torch.uint8)
    scale = torch.full((shape[0], groups), shape[1] ** -0.5 / 2 ** (spec.bits - 1), dtype=torch.float16)
    adapter = (torch.randn(rank, shape[1]).mul_(0.01).half(), torch.zeros(shape[0], rank).half()) if rank else (None, None)
    return FrozenLinear(spec, codes, scale, zero_point, *adapter)


def write_random(folder: Path, config: dict, spec: QuantSpec, rank: int) -> None:
    """A packed folder of that shape."""
    width, vocab = config["hidden_size"], config["vocab_size"]
    linears = ((f"model.layers.{name}", random_linear(shape, spec, rank)) for name, shape in linear_shapes(config).items())
    rest: dict[str, Tensor] = {
        "model.embed_tokens.weight": torch.randn(vocab, width).mul_(0.02).half(),
        "model.norm.weight": torch.ones(width).half(),
    }
    if not config.get("tie_word_embeddings"):
        rest["lm_head.weight"] = torch.randn(vocab, width).mul_(0.02).half()
    for block in range(config["num_hidden_layers"]):
        for norm in ("input_layernorm", "post_attention_layernorm"):
            rest[f"model.layers.{block}.{norm}.weight"] = torch.ones(width).half()
    write_packed(folder / "model.safetensors", linears, rest=rest.items())
    write_json(folder / "config.json", {**config, "model_type": "llama"})
    byte_tokenizer().save_pretrained(folder)


def measure(folder: Path, head: str) -> dict:
    """In a fresh process: load, decode, and say what was held."""
    release_memory()
    before = process_memory_gb()
    model = load_packed(folder, device="cpu")
    model = round_head(model) if head == "8bit" else model
    decoder = decoder_for(model)
    decoder.advance(list(range(16)))
    for token in range(TOKENS):
        decoder.advance([token])
    release_memory()
    return {"growth_gb": process_memory_gb() - before, "execution": execution(model), "environment": environment_of(model)}


def environment_of(model) -> dict:
    from salq.core.device import DeviceChoice

    return environment(DeviceChoice(model.device, model.dtype, "chosen"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tinyllama-1.1b")
    parser.add_argument("--bits", type=int, default=2)
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--blocks", type=int)
    parser.add_argument("--head", choices=["float", "8bit"], default="8bit")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.folder is not None:
        print(json.dumps(measure(args.folder, args.head)))
        return
    config = dict(entry_of(args.model).config)
    config["num_hidden_layers"] = args.blocks or config["num_hidden_layers"]
    with tempfile.TemporaryDirectory() as name:
        write_random(Path(name), config, QuantSpec(bits=args.bits), args.rank)
        size = (Path(name) / "model.safetensors").stat().st_size / 1e9
        command = [sys.executable, __file__, "--folder", name, "--head", args.head]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    value = {
        "bench": "memory", "model": args.model, "weights": "random", "blocks": config["num_hidden_layers"], "bits": args.bits, "rank": args.rank,
        "head": args.head, "file_gb": size, **found, "ratio": found["growth_gb"] / size,
    }  # fmt: skip
    tell(value, args.out)


if __name__ == "__main__":
    main()
