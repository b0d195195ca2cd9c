"""`evaluate`: perplexity, KL from the original, agreement and zero-shot tasks of a model, its rounding to nearest, or a run."""

import argparse
import dataclasses
import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salq.cli import options
from salq.cli.display import Display
from salq.cli.follow import open_store
from salq.cli.report import emit, facts, note, number, percent, result_facts, say, with_stable_keys
from salq.core.errors import ConfigError
from salq.core.files import last_part
from salq.runs.limits import Limits
from salq.runs.requests import CalibrateRequest, Evaluation

if TYPE_CHECKING:
    from salq.calibration.recipe import Recipe
    from salq.calibration.store import Block
    from salq.models.llama import Llama

ORIGINAL_BITS = 16
TASKS = ("piqa", "arc_easy", "arc_challenge", "hellaswag", "winogrande")
"""The tasks of the papers; any other task of lm-evaluation-harness has its name there."""


def add(commands: options.Commands) -> None:
    """Add the command."""
    parser = options.command(commands, "evaluate", run, "Measure perplexity and the KL divergence from the original.")
    options.add_model(parser, required=True)
    parser.add_argument("--run", dest="run_id", metavar="ID", help="evaluate what this run has calibrated")
    parser.add_argument("--recipe", choices=["rtn"], help="evaluate the model rounded to nearest (other recipes: calibrate, then --run)")
    options.add_grid(parser)
    options.add_executor(parser, "reference")
    options.add_head(parser)
    options.add_evaluation(parser, text="--text")
    parser.add_argument(
        "--noise-floor", action="store_true", help="also measure the original against itself in another precision, and keep it for `compare`"
    )
    parser.add_argument(
        "--tasks", type=options.many(str), default=[], metavar="T,T", help=f"also zero-shot tasks of lm-evaluation-harness, such as {','.join(TASKS)}"
    )
    parser.add_argument("--task-file", type=Path, metavar="FILE", help="also a task of your own: a YAML file as lm-evaluation-harness reads it")
    parser.add_argument("--limit", type=int, metavar="N", help="questions of each task (default: all)")
    parser.add_argument(
        "--generations",
        type=int,
        default=0,
        metavar="N",
        help="also let the model answer N prompts, and judge the answers by the original (at most 20)",
    )


def run(args: argparse.Namespace) -> int:
    """Do it."""
    if args.run_id is not None and (args.model is not None or args.recipe is not None):
        raise ConfigError("--run names the model and the recipe already; leave --model and --recipe out.")
    if args.run_id is None and args.model is None:
        raise ConfigError("There is nothing to evaluate; give --run ID or --model NAME.")
    limits = Limits.here()
    evaluation = _evaluation(args)
    limits.check_evaluation(evaluation.windows, evaluation.window)
    limits.check_text(evaluation.text, "evaluation")
    _check_tasks(args)
    title, values = _of_run(args, evaluation) if args.run_id is not None else _of_model(args, evaluation)
    if args.json:
        emit(with_stable_keys(values))
    else:
        say(title)
        say(result_facts(values))
        for extra in (_generation_facts(values), _task_facts(values)):
            if extra:
                say(extra)
    return 0


def _evaluation(args: argparse.Namespace) -> Evaluation:
    try:
        return Evaluation(text=options.placed(args.eval_text), windows=args.windows, window=args.window)
    except ValueError as error:
        raise ConfigError(
            f"{args.windows} windows of {args.window} tokens cannot be evaluated; use at least 1 window of at least 8 tokens."
        ) from error


def _of_run(args: argparse.Namespace, evaluation: Evaluation) -> tuple[str, dict[str, Any]]:
    store = open_store()
    run_id = store.resolve(args.run_id)
    request = store.request(run_id)
    if not isinstance(request, CalibrateRequest) or not store.finished_blocks(run_id):
        raise ConfigError(f"Run {run_id} has no finished block to evaluate; choose a run of calibrate, or resume it first.")
    from salq.models.llama import load_model

    model = load_model(request.model, device=args.device)
    blocks = store.result(run_id)
    frozen = {index: blocks.load(index) for index in blocks.indices()}
    values = _measured(model, frozen, request.recipe, args, evaluation, [request.text]) | _generations(model, frozen, args.generations)
    return f"{request.shown_title}   (run {run_id})", {"run": run_id, **values}


def _of_model(args: argparse.Namespace, evaluation: Evaluation) -> tuple[str, dict[str, Any]]:
    from salq import recipes
    from salq.kernels.assemble import rtn_blocks
    from salq.models.llama import load_model

    Limits.here().check_model(args.model)
    spec = options.check_spec(args.bits, args.group_size, symmetric=args.symmetric)
    model = load_model(options.placed_model(args.model), device=args.device)
    name = last_part(args.model)
    if args.recipe is None:
        return f"{name}, {model.reference_label}", _measured(model, {}, None, args, evaluation) | _generations(model, {}, args.generations)
    rounding = recipes.get("rtn", bits=args.bits, group_size=args.group_size, symmetric=args.symmetric)
    frozen = rtn_blocks(model, spec)
    values = _measured(model, frozen, rounding, args, evaluation) | _generations(model, frozen, args.generations)
    return f"rtn {spec.tag} {name}", {"recipe": "rtn", "tag": spec.tag, **values}


def _measured(
    model: "Llama",
    frozen: "dict[int, Block]",
    recipe: "Recipe | None",
    args: argparse.Namespace,
    evaluation: Evaluation,
    calibrated_on: Collection[str] = (),
) -> dict[str, Any]:
    """Scores and size; without a recipe, of the original against itself. `args` say what runs the matrices and the head."""
    from salq.calibration.engine import matrix_shapes
    from salq.core.device import PeakMemory
    from salq.data.sources import load_text
    from salq.data.windows import evaluation_windows
    from salq.evaluation.scores import score
    from salq.kernels.assemble import execution, quantized_copy, round_head

    started, peak = time.monotonic(), PeakMemory(model.device)
    text = load_text(evaluation.text, "evaluation", calibrated_on=calibrated_on)
    windows = evaluation_windows(text, model.tokenizer, evaluation.windows, evaluation.window)
    quantized = quantized_copy(model, frozen, args.executor) if frozen else model
    quantized = round_head(quantized) if args.head == "8bit" else quantized
    scores = Display().watch(score(model, quantized, windows, text=text.name))
    if recipe is None:
        size: dict[str, Any] = _original_size(model)
    else:
        shapes = {name: shape for name, shape in matrix_shapes(model).items() if int(name.split(".")[0]) in frozen}
        size = dataclasses.asdict(recipe.size(shapes, model.parameters))
    about = {"reference": model.reference_label, "reference_note": model.source.note, "device": str(model.device), "execution": execution(quantized)}
    measured = {**scores.metrics(), **size, "seconds": time.monotonic() - started, "peak_memory_gb": peak.gb(), **about}
    return measured | _noise(model, windows, measured, args) | _tasks(model, quantized, args)


def _noise(model: "Llama", windows: Any, measured: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """The noise floor of these windows: measured now when it is asked for, else as it was kept; None when nobody measured it."""
    from salq.runs.noise import floor_of, keep_floor, known_floor

    name = last_part(model.name)
    floor = known_floor(name, measured)
    if args.noise_floor:
        from salq.evaluation.noise import how, noise_floor

        scores = Display().watch(noise_floor(model, windows, text=str(measured["text"])))
        floor = floor_of(name, how(model), scores.metrics())
        keep_floor(floor)
    return {"noise_floor": None if floor is None else floor.to_json()}


def _check_tasks(args: argparse.Namespace) -> None:
    """Before any work: the harness is there, and the numbers make sense. Raises ConfigError."""
    if args.limit is not None and args.limit < 1:
        raise ConfigError(f"--limit is {args.limit}; use at least 1 question of each task.")
    if args.tasks or args.task_file is not None:
        from salq.evaluation.tasks import check_harness

        check_harness(args.task_file)


def _tasks(model: "Llama", quantized: "Llama", args: argparse.Namespace) -> dict[str, Any]:
    """Zero-shot tasks of the quantized model and of the original."""
    if not args.tasks and args.task_file is None:
        return {}
    from salq.evaluation.tasks import zero_shot

    def scored(who: "Llama") -> dict[str, Any]:
        return zero_shot(who, args.tasks, args.task_file, limit=args.limit)

    own = scored(model)
    return {"tasks": {"quantized": own if quantized is model else scored(quantized), "original": own}}


def _task_facts(values: dict[str, Any]) -> str:
    found = values.get("tasks")
    if not found:
        return ""
    rows = []
    for name, result in found["quantized"].items():
        own = found["original"][name]
        for metric in result["metrics"]:
            shown = " against ".join(_with_error(one["metrics"][metric]) for one in (result, own))
            rows.append((name, f"{metric} {shown} of the original   ({result['questions']} questions, zero-shot)"))
    return facts(rows)


def _with_error(metric: dict[str, Any]) -> str:
    error = metric["standard_error"]
    return percent(metric["value"]) + (f" ± {percent(error)}" if error is not None else "")


def _generations(model: "Llama", frozen: "dict[int, Block]", count: int) -> dict[str, Any]:
    """Answers of the quantized model and of the original to the same prompts, both judged by the original."""
    if count == 0:
        return {}
    from salq.chat.judge import Judged, judge
    from salq.kernels.assemble import quantized_copy

    def verdict(answering: "Llama", who: str) -> "Judged":
        for judged in judge(model, answering, n_prompts=count):
            note(f"{who}: {judged.prompts} of {count} answers")
        return judged

    own = verdict(model, "original")
    quantized = verdict(quantized_copy(model, frozen), "quantized") if frozen else own
    return {"generations": {"quantized": quantized.to_json(), "original": own.to_json(), "nll_ratio": quantized.nll / own.nll if own.nll else None}}


def _generation_facts(values: dict[str, Any]) -> str:
    found = values.get("generations")
    if not found:
        return ""
    quantized, own = found["quantized"], found["original"]
    ratio = f"{number(found['nll_ratio'])} x its own answers' {number(own['nll'])}"
    return facts([
        ("answers", f"{quantized['prompts']} greedy answers, {quantized['tokens']} tokens; the original's: {own['tokens']} tokens"),
        ("likelihood", f"{number(quantized['nll'])} nats/token under the original, {ratio}"),
        ("repetition", f"{percent(quantized['repeated'])} of 4-grams repeat (the original's {percent(own['repeated'])})"),
    ])  # fmt: skip


def _original_size(model: "Llama") -> dict[str, float]:
    from salq.calibration.engine import matrix_shapes

    weights = sum(rows * columns for rows, columns in matrix_shapes(model).values())
    bits, mb = float(ORIGINAL_BITS), ORIGINAL_BITS / 8 / 1e6
    return {"bits_per_weight": bits, "size_mb": weights * mb, "model_bits_per_weight": bits, "model_size_mb": model.parameters * mb}
