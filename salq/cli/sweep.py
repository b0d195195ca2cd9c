"""`sweep`: every combination of recipes, bits and group sizes, for the trade-off chart. What is finished is not done again."""

import argparse
import itertools
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from salq.cli import options
from salq.cli.follow import STOPPED, carry_out, open_store, run_json
from salq.cli.report import duration, emit, note, number, say, table
from salq.core.errors import ConfigError, SalqError, UnknownNameError
from salq.runs.requests import CalibrateRequest
from salq.runs.store import RunInfo, RunStore

if TYPE_CHECKING:
    from salq.calibration.recipe import Recipe

FAILED = 2


@dataclass(frozen=True)
class Outcome:
    """What became of one combination."""

    label: str
    info: RunInfo | None = None
    problem: str = ""
    is_reused: bool = False


def add(commands: options.Commands) -> None:
    """Add the command."""
    parser = options.command(
        commands, "sweep", run, "Calibrate every combination of recipes, bits and group sizes.",
        "Combinations that are finished are skipped, unfinished ones are resumed, and one that fails does not stop the others.",
    )  # fmt: skip
    options.add_model(parser)
    parser.add_argument("--recipe", type=options.many(str), default="rtn,apiq", metavar="NAME,NAME", help="comma list of recipes (default rtn,apiq)")
    options.add_grids(parser, bits="2,3,4,8")
    options.add_recipe_settings(parser)
    options.add_text(parser)
    options.add_evaluation(parser)


def run(args: argparse.Namespace) -> int:
    """Do it."""
    wanted = list(itertools.product(args.recipe, args.bits, args.group_size))
    if len(wanted) > options.MAX_COMBINATIONS:
        raise ConfigError(f"This sweep has {len(wanted)} combinations; use at most {options.MAX_COMBINATIONS} at a time.")
    changes = _changes(args)
    options.check_texts(args)  # all combinations read them
    store, outcomes = open_store(), []
    for number_, (name, bits, size) in enumerate(wanted, start=1):
        label = f"{name} {options.check_spec(bits, size, symmetric=args.symmetric).tag}"
        note(f"[{number_}/{len(wanted)}] {label}")
        outcomes.append(_one(store, args, label, (name, bits, size, changes[name])))
        if (info := outcomes[-1].info) is not None and info.status not in {"done", "failed"}:
            note(f"salq: stopped after {number_ - 1} of {len(wanted)} combinations; the same command goes on from there.")
            _report(outcomes, as_json=args.json)
            return STOPPED
    _report(outcomes, as_json=args.json)
    return FAILED if any(outcome.problem for outcome in outcomes) else 0


def _one(store: RunStore, args: argparse.Namespace, label: str, combination: tuple[str, int, int | None, dict[str, Any]]) -> Outcome:
    try:
        name, bits, size, changes = combination
        request = options.calibrate_request(args, _recipe(args, name, bits, size, changes))
        earlier = _earlier(store, request)
        if earlier is not None and earlier.status == "done":
            note("  already finished")
            return Outcome(label, earlier, is_reused=True)
        info = carry_out(store, _run_id(store, request, earlier))
        return Outcome(label, info, info.progress.message if info.status == "failed" else "")
    except SalqError as error:
        note(f"  {error}")
        return Outcome(label, problem=str(error))
    except Exception as error:  # noqa: BLE001 - a bug in one combination must not lose the others; it is shown in full
        traceback.print_exc()
        return Outcome(label, problem=f"A bug in salq stopped this combination: {type(error).__name__}: {error}")


def _run_id(store: RunStore, request: CalibrateRequest, earlier: RunInfo | None) -> str:
    from salq.runs.plan import check_room, plan

    check_room(plan(request), request.model, store.root)
    if earlier is None:
        return store.create(request)
    store.clear_cancel(earlier.id)
    return earlier.id


def _recipe(args: argparse.Namespace, name: str, bits: int, size: int | None, changes: dict[str, Any]) -> "Recipe":
    from salq import recipes

    return recipes.get(name, preset=args.preset, bits=bits, group_size=size, symmetric=args.symmetric, overrides=changes)


def _changes(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """{recipe: the settings that it has}. A setting that no recipe of the sweep has is an error; so is a recipe that does not exist."""
    from salq import recipes

    wanted = options.overrides(args)
    found: dict[str, dict[str, Any]] = {name: {} for name in args.recipe}
    for name in args.recipe:
        recipes.get(name, preset=args.preset)
    for key, value in wanted.items():
        refusals = []
        for name in args.recipe:
            try:
                recipes.get(name, preset=args.preset, overrides={key: value})
                found[name][key] = value
            except UnknownNameError as error:
                refusals.append(error)
        if len(refusals) == len(args.recipe):
            raise refusals[0]
    return found


def _earlier(store: RunStore, request: CalibrateRequest) -> RunInfo | None:
    """The run with the same request: a finished one if there is one, else one that can be resumed."""
    same = [info for info in store.list() if isinstance(info.request, CalibrateRequest) and info.request.key() == request.key()]
    finished = [info for info in same if info.status == "done"]
    return next(iter(finished or [info for info in same if info.can_resume]), None)


def _report(outcomes: list[Outcome], *, as_json: bool) -> None:
    if as_json:
        emit({"runs": [_json(outcome) for outcome in outcomes]})
        return
    rows = []
    for outcome in outcomes:
        info = outcome.info
        metrics = info.metrics if info is not None else {}
        status = "finished before" if outcome.is_reused else (info.status if info is not None else "refused")
        rows.append([
            outcome.label, number(metrics.get("bits_per_weight"), 3), number(metrics.get("size_mb")), number(metrics.get("perplexity")),
            number(metrics.get("kl")), duration(metrics.get("seconds")), status, info.id if info is not None else "-",
        ])  # fmt: skip
    say(table(["recipe", "bits/weight", "MB", "perplexity", "KL (nats/token)", "time", "status", "run"], rows))
    for outcome in outcomes:
        if outcome.problem:
            say(f"{outcome.label}: {outcome.problem}")


def _json(outcome: Outcome) -> dict[str, Any]:
    about = {"label": outcome.label, "reused": outcome.is_reused, "error": outcome.problem or None}
    return about | (run_json(outcome.info) if outcome.info is not None else {"run": None, "status": "refused"})
