"""`calibrate`: quantize a model with a recipe and measure the result."""

import argparse
from dataclasses import asdict

from salq.cli import options
from salq.cli.follow import carry_out_and_report, open_store
from salq.cli.report import duration, emit, facts, number, say
from salq.quant.spec import BITS, SIGN_BITS
from salq.runs.requests import CalibrateRequest


def add(commands: options.Commands) -> None:
    """Add the command."""
    parser = options.command(
        commands, "calibrate", run, "Calibrate a model with a recipe and measure the result.",
        "Ctrl-C stops and keeps finished blocks; `python -m salq runs resume ID` goes on from there.",
    )  # fmt: skip
    options.add_model(parser)
    parser.add_argument("--recipe", default="apiq", help="rtn, apiq, sapr, salq or salq-full; `python -m salq recipes` lists them (default apiq)")
    options.add_grid(parser, widths=(SIGN_BITS, *BITS))
    options.add_recipe_settings(parser)
    options.add_text(parser)
    options.add_evaluation(parser)
    parser.add_argument("--run", dest="name", default="", metavar="NAME", help="title of the run")
    parser.add_argument("--estimate", action="store_true", help="only say what it would take")
    parser.add_argument("--background", action="store_true", help="hand the run to a worker process and return")


def run(args: argparse.Namespace) -> int:
    """Do it."""
    from salq import recipes

    options.check_spec(args.bits, args.group_size, symmetric=args.symmetric)
    recipe = recipes.get(
        args.recipe, preset=args.preset, bits=args.bits, group_size=args.group_size, symmetric=args.symmetric, overrides=options.overrides(args)
    )  # fmt: skip
    request = options.calibrate_request(args, recipe, title=args.name)
    return _estimate(request, as_json=args.json) if args.estimate else _start(request, args)


def _start(request: CalibrateRequest, args: argparse.Namespace) -> int:
    from salq.runs.plan import check_room, plan

    store = open_store()
    check_room(plan(request), request.model, store.root)  # what cannot work is refused before there is a run
    return carry_out_and_report(store, store.create(request), as_json=args.json, background=args.background)


def _estimate(request: CalibrateRequest, *, as_json: bool) -> int:
    from salq.runs.plan import plan

    planned = plan(request)
    expected = planned.estimate
    if as_json:
        about = {"seconds": expected.total_seconds, "peak_memory_gb": expected.memory_gb, "perplexity": None, "kl": None}
        emit(
            {
                **asdict(expected),
                **asdict(planned.size),
                **about,
                "estimate": True,
                "device": str(planned.choice.device),
                "why": planned.choice.reason,
            }
        )
        return 0
    phases = {
        "saliency": expected.saliency_seconds,
        "calibration": expected.seconds,
        "distillation": expected.distillation_seconds,
        "evaluation": expected.evaluation_seconds,
    }
    parts = ", ".join(f"{phase} {duration(seconds)}" for phase, seconds in phases.items() if seconds)
    say(f"{request.shown_title}: an estimate")
    say(
        facts([
            ("time", f"about {duration(expected.total_seconds)}   ({parts})"),
            ("memory", f"about {number(expected.memory_gb, 3)} GB"),
            ("disk", f"about {number(expected.disk_gb, 3)} GB"),
            ("size", f"{number(planned.size.size_mb)} MB quantized matrices, whole model {number(planned.size.model_size_mb)} MB"),
            ("device", planned.choice.reason),
            ("basis", expected.basis),
        ])
    )  # fmt: skip
    return 0
