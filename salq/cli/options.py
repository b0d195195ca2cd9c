"""Arguments that several commands share, and what they mean as values."""

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from salq.core.errors import ConfigError
from salq.core.files import path_of
from salq.data.names import is_path
from salq.models.catalogue import CATALOGUE, DEFAULT_MODEL
from salq.quant.spec import BITS, QuantSpec
from salq.runs.limits import Limits
from salq.runs.requests import CalibrateRequest, ExploreRequest, parse

if TYPE_CHECKING:
    from salq.calibration.recipe import Recipe

Commands = Any  # argparse's own class of subparsers is private
Value = TypeVar("Value")
MAX_COMBINATIONS = 256
EXECUTORS = ("auto", "reference", "onnxruntime", "torch-int4", "triton")
"""What can run quantized linears (salq/kernels/executors.py, which would import torch for the help)."""
HEADS = ("float", "8bit")


def command(commands: Commands, name: str, handler: Callable[[argparse.Namespace], int], summary: str, detail: str = "") -> argparse.ArgumentParser:
    """Add a command that reports: it has `--json`, and `handler` does it."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=f"{summary} {detail}".strip())
    parser.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print the report as one JSON object, the last line of the output"
    )
    parser.set_defaults(handler=handler)
    return parser


def add_model(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """`--model` and `--device`."""
    parser.add_argument(
        "--model", default=None if required else DEFAULT_MODEL, help=f"catalogue name, hub id or local folder (default {DEFAULT_MODEL})"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N (default auto)")


def add_grid(parser: argparse.ArgumentParser, *, bits: int | None = 3, widths: Sequence[int] = BITS) -> None:
    """`--bits`, `--group-size`, `--symmetric`: one grid."""
    parser.add_argument("--bits", type=int, choices=widths, default=bits, help="bits per code (default 3)")
    parser.add_argument(
        "--group-size", type=group_size, default=64, metavar="N", help="inputs that share a scale; row or -1: a whole row (default 64)"
    )
    parser.add_argument("--symmetric", action="store_true", help="no zero point: the grid is centred on 0")


def add_executor(parser: argparse.ArgumentParser, default: str) -> None:
    """`--executor`: what runs the quantized linears."""
    parser.add_argument(
        "--executor", choices=EXECUTORS, default=default, help=f"what runs the quantized matrices; auto: the fastest (default {default})"
    )


def add_head(parser: argparse.ArgumentParser) -> None:
    """`--head`: how the head of a quantized model runs."""
    parser.add_argument(
        "--head", choices=HEADS, default="float", help="8bit: the head of quantized models in 8 bits, on a CPU (default float: as it is)"
    )


def add_grids(parser: argparse.ArgumentParser, *, bits: str, group_sizes: str = "64") -> None:
    """`--bits` and `--group-size` as comma lists, and `--symmetric`."""
    parser.add_argument("--bits", type=many(whole_in(BITS)), default=bits, metavar="N,N", help=f"comma list of bits (default {bits})")
    parser.add_argument(
        "--group-size", type=many(group_size), default=group_sizes, metavar="N,N", help=f"comma list; row: a whole row (default {group_sizes})"
    )
    parser.add_argument("--symmetric", action="store_true", help="no zero point: the grid is centred on 0")


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """`--samples`, `--seq-len`, `--text`, `--seed`: what saliency and errors are computed on."""
    parser.add_argument("--samples", type=int, default=24, metavar="N", help="text windows (default 24)")
    parser.add_argument("--seq-len", type=int, default=256, metavar="L", help="tokens per window (default 256)")
    add_text(parser)


def add_text(parser: argparse.ArgumentParser) -> None:
    """`--text` for calibration, and `--seed`."""
    parser.add_argument(
        "--text", default="auto", metavar="SOURCE", help="auto, bundled, wikitext2, c4, self:N, chats:N or a UTF-8 file (default auto)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of everything random (default 0)")


def add_evaluation(parser: argparse.ArgumentParser, *, text: str = "--eval-text") -> None:
    """`--windows`, `--window` and the evaluation text."""
    parser.add_argument(text, dest="eval_text", default="auto", metavar="SOURCE", help="evaluation text: auto, bundled, wikitext2, c4 or a file")
    parser.add_argument("--windows", type=int, default=8, metavar="N", help="evaluation windows (default %(default)s)")
    parser.add_argument("--window", type=int, default=512, metavar="L", help="tokens per evaluation window (default %(default)s)")


def add_recipe_settings(parser: argparse.ArgumentParser) -> None:
    """What changes a recipe besides its grid, and how much of the model it is applied to."""
    parser.add_argument("--preset", default="quick", help="quick, base or published (default quick)")
    parser.add_argument("--rank", type=int, metavar="R", help="rank of the adapters (0: none)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="set a field of the recipe, such as epochs=4 or strength=0.05"
    )
    parser.add_argument("--blocks", type=int, metavar="N", help="calibrate only the first N blocks")


def group_size(text: str) -> int | None:
    """A group size; `row`, `none` and -1 mean a whole row."""
    if text.lower() in {"row", "none", "-1"}:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a group size; use a whole number such as 64, or row") from error


def whole_in(allowed: Sequence[int]) -> Callable[[str], int]:
    """A parser of whole numbers that only takes `allowed`."""

    def read(text: str) -> int:
        if text.isdecimal() and int(text) in allowed:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(map(str, allowed))}")

    return read


def many(read: Callable[[str], Value]) -> Callable[[str], list[Value]]:
    """A parser of comma lists; repeated values count once."""

    def read_all(text: str) -> list[Value]:
        values = [read(part.strip()) for part in text.split(",") if part.strip()]
        if not values:
            raise argparse.ArgumentTypeError("the list is empty")
        return list(dict.fromkeys(values))

    return read_all


def overrides(args: argparse.Namespace) -> dict[str, Any]:
    """`--set` and `--rank` as {field: value}. Raises ConfigError for what is not key=value."""
    found: dict[str, Any] = {}
    for pair in args.set:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {pair!r} is not key=value; write for example --set epochs=4.")
        found[key.strip()] = value
    if args.rank is not None:
        found["rank"] = args.rank
    return found


def check_spec(bits: int, size: int | None, *, symmetric: bool) -> QuantSpec:
    """The grid as a value. Raises ConfigError for a group size that no grid can have."""
    try:
        return QuantSpec(bits=bits, group_size=size, symmetric=symmetric)  # type: ignore[arg-type]
    except ValueError as error:
        raise ConfigError(f"Group size {size} is not possible; use a divisor of the matrices' inputs such as 32, 64 or 128, or row.") from error


def calibrate_request(args: argparse.Namespace, recipe: "Recipe", *, title: str = "") -> CalibrateRequest:
    """The request that the arguments describe. Raises ConfigError for a value outside its bounds."""
    evaluation = {"text": placed(args.eval_text), "windows": args.windows, "window": args.window}
    values = {
        "kind": "calibrate", "model": placed_model(args.model), "recipe": recipe, "n_blocks": args.blocks, "seed": args.seed, "device": args.device,
        "text": placed(args.text), "evaluation": evaluation, "title": title,
    }  # fmt: skip
    request = parse(values)
    assert isinstance(request, CalibrateRequest)
    return request


def check_texts(args: argparse.Namespace) -> None:
    """Raise TextError for a calibration or evaluation text that cannot be opened here."""
    limits = Limits.here()
    limits.check_text(placed(args.text))
    limits.check_text(placed(args.eval_text), "evaluation")


def explore_request(args: argparse.Namespace, specs: Sequence[QuantSpec], *, saliency: bool) -> ExploreRequest:
    """The exploration that the arguments describe. Raises ConfigError for a value outside its bounds."""
    values = {
        "kind": "explore", "model": placed_model(args.model), "specs": tuple(specs), "n_samples": args.samples, "seq_len": args.seq_len,
        "seed": args.seed, "device": args.device, "text": placed(args.text), "saliency": saliency,
    }  # fmt: skip
    request = parse(values)
    assert isinstance(request, ExploreRequest)
    return request


def placed_model(name: str) -> str:
    """A local folder as an absolute path, so that a worker in another folder finds it; other names as they are."""
    return name if name in CATALOGUE else placed(name)


def placed(name: str) -> str:
    """A path that exists as an absolute one; other names, and the words for texts, even where a file has that name, as they are."""
    if not is_path(name):
        return name
    path = path_of(name)
    return str(path.resolve()) if path.exists() else name
