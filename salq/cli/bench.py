"""`bench`: how fast executors and the decode engine are on this machine, against what people would use otherwise."""

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salq.cli import options
from salq.cli.report import emit, say, table
from salq.core.errors import ConfigError
from salq.core.files import write_json

if TYPE_CHECKING:
    from salq.kernels.measure import Timing
    from salq.models.llama import Llama
    from salq.quant.spec import QuantSpec


def add(commands: options.Commands) -> None:
    """Add the command with its three measurements."""
    parser = commands.add_parser("bench", help="Measure the speed of executors and of decoding.", description="Measure speed on this machine.")
    actions = parser.add_subparsers(metavar="WHAT", parser_class=type(parser), required=True)
    kernels = _common(options.command(actions, "kernels", run_kernels, "One product with a quantized matrix, against torch and every executor."))
    kernels.add_argument("--shape", type=shape, default=(4096, 4096), metavar="OUTxIN", help="outputs x inputs of the matrix (default 4096x4096)")
    kernels.add_argument("--rows", type=int, default=1, metavar="M", help="rows of the input (default 1, a single token)")
    kernels.add_argument("--calls", type=int, default=60, metavar="N", help="timed calls per contender (default 60)")
    kernels.add_argument("--device", default="auto", help="auto, cpu or cuda:N (default auto)")
    decode = _with_model(options.command(actions, "decode", run_decode, "Greedy decoding: transformers' generate and salq's engine."))
    decode.add_argument("--tokens", type=int, default=32, metavar="N", help="tokens per round (default 32)")
    decode.add_argument("--head", choices=["float", "8bit"], default="float", help="8bit: also with the head in 8 bits (default float)")
    prefill = _with_model(options.command(actions, "prefill", run_prefill, "Reading a prompt: transformers' forward pass and salq's engine."))
    prefill.add_argument("--tokens", type=int, default=256, metavar="N", help="tokens of the prompt (default 256)")
    calibrate = options.command(actions, "calibrate", run_calibrate, "Calibration: a textbook torch loop, salq's, and the machine's matrix product.")
    options.add_model(calibrate)
    calibrate.add_argument("--blocks", type=int, default=2, metavar="N", help="blocks to calibrate (default 2)")
    calibrate.add_argument("--rounds", type=int, default=8, metavar="N", help="rounds of four optimizer steps of either loop (default 8)")
    calibrate.add_argument("--compile", action="store_true", help="with salq's steps by torch.compile, which takes half a minute first")
    _common(calibrate, bits="3")


def run_kernels(args: argparse.Namespace) -> int:
    """Measure single products."""
    from salq.core.device import choose_device
    from salq.kernels.measure import kernel_times

    _positive(rows=args.rows, calls=args.calls)
    choice = choose_device(args.device)
    found = kernel_times(args.shape, _specs(args, args.shape[1]), args.rows, args.calls, str(choice.device))
    return _report(args, choice, found, {"shape": list(args.shape), "rows": args.rows, "weights": "random"}, unit=1e6, name="microseconds")


def run_decode(args: argparse.Namespace) -> int:
    """Measure decoding."""
    from salq.kernels.measure import decode_times

    model = _model(args)
    found = decode_times(model, _specs(args), args.rank, tokens=args.tokens, rounds=args.rounds, head=args.head == "8bit")
    about = {"model": args.model, "rank": args.rank, "tokens": args.tokens, "head": str(model.dtype).removeprefix("torch.")}
    return _report(args, _choice(model), found, about, unit=1e3, name="ms per token")


def run_prefill(args: argparse.Namespace) -> int:
    """Measure prompts."""
    from salq.kernels.measure import prefill_times

    model = _model(args)
    found = prefill_times(model, _specs(args), args.rank, args.tokens, args.rounds)
    return _report(
        args, _choice(model), found, {"model": args.model, "rank": args.rank, "tokens": args.tokens}, unit=1e3, name=f"ms for {args.tokens} tokens"
    )


def run_calibrate(args: argparse.Namespace) -> int:
    """Measure calibration with ApiQ's quick preset."""
    from salq import recipes
    from salq.calibration.speed import calibration_speed
    from salq.models.llama import load_model

    _positive(blocks=args.blocks, rounds=args.rounds)
    model = load_model(options.placed_model(args.model), device=args.device)
    overrides = {"compile": "block"} if args.compile else {}
    speeds = []
    for spec in _specs(args):
        recipe = recipes.get("apiq", bits=spec.bits, group_size=spec.group_size, symmetric=spec.symmetric, overrides=overrides)
        speed = calibration_speed(model, recipe, blocks=args.blocks, rounds=args.rounds)
        speeds.append({"spec": spec.tag, **dataclasses.asdict(speed), "ratio": speed.ratio, "matmul_share": speed.matmul_share})
    about = {"model": args.model, "recipe": "apiq", "preset": "quick", "compile": args.compile, "blocks": args.blocks}
    header = ["grid", "ms per step", "times textbook", "s per block", "GFLOP per block", "share of matmul rate"]
    cells = [
        [
            row["spec"], f"{row['step'] * 1e3:.0f}", f"{row['ratio']:.2f}", f"{row['block_seconds']:.1f}", f"{row['block_flops'] / 1e9:.0f}",
            f"{row['matmul_share']:.0%} of {row['matmul_rate'] / 1e9:.0f} GFLOP/s",
        ]
        for row in speeds
    ]  # fmt: skip
    return _tell(args, {"bench": "calibrate", **about, "speeds": speeds}, _choice(model), table(header, cells))


def shape(text: str) -> tuple[int, int]:
    """4096x11008 as (4096, 11008)."""
    out_features, cross, in_features = text.lower().partition("x")
    if cross and out_features.isdigit() and in_features.isdigit() and int(out_features) and int(in_features):
        return int(out_features), int(in_features)
    raise argparse.ArgumentTypeError(f"{text!r} is not a shape; write outputs x inputs, such as 4096x11008")


def _common(parser: argparse.ArgumentParser, *, bits: str = "4,3,2") -> argparse.ArgumentParser:
    options.add_grids(parser, bits=bits)
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the report into this JSON file (benchmarks/results/ keeps some)")
    return parser


def _with_model(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    options.add_model(parser)
    parser.add_argument("--rank", type=int, default=0, metavar="R", help="also with random adapters of this rank (default 0: without)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds per contender (default 5)")
    return _common(parser)


def _specs(args: argparse.Namespace, in_features: int | None = None) -> "list[QuantSpec]":
    from salq.quant.spec import check_group_size

    specs = [options.check_spec(bits, size, symmetric=args.symmetric) for bits in args.bits for size in args.group_size]
    if in_features is not None:
        for spec in specs:
            check_group_size(spec, {"the matrix": (1, in_features)})
    return specs


def _model(args: argparse.Namespace) -> "Llama":
    from salq.models.llama import load_model

    _positive(tokens=args.tokens, rounds=args.rounds)
    return load_model(options.placed_model(args.model), device=args.device)


def _positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ConfigError(f"--{name} {value} is too small; use at least 1.")


def _choice(model: "Llama") -> Any:
    from salq.core.device import DeviceChoice

    return DeviceChoice(model.device, model.dtype, "chosen")


def _report(args: argparse.Namespace, choice: Any, found: "list[Timing]", about: dict[str, Any], *, unit: float, name: str) -> int:
    baseline = found[0].seconds
    rows = [{**dataclasses.asdict(timing), "speedup": baseline / timing.seconds} for timing in found]
    cells = [
        [row["name"], f"{row['seconds'] * unit:.4g}", f"{row['speedup']:.2f}", f"{row['bytes'] / 1e6:.1f}", f"{row['error']:.1e}"] for row in rows
    ]
    shown = table(["contender", name, f"times {found[0].name}", "MB of weights", "relative error"], cells)
    return _tell(args, {"bench": args.handler.__name__.removeprefix("run_"), **about, "timings": rows}, choice, shown)


def _tell(args: argparse.Namespace, value: dict[str, Any], choice: Any, shown: str) -> int:
    """Write and print a measurement, with the machine that it was taken on."""
    from salq.runs.environment import environment

    value = {**value, "environment": environment(choice)}
    if args.out is not None:
        write_json(args.out, value)
    if args.json:
        emit(value)
        return 0
    say(shown)
    threads, cpu = value["environment"]["threads"], value["environment"].get("gpu") or value["environment"]["cpu"]
    say(f"\nMedians; {threads} threads; {cpu}.")
    return 0
