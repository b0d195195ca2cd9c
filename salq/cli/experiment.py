"""`experiment`: recipes against each other with the same seeds, data order and texts, and an answer with its interval. Finished sides are kept."""

import argparse
from pathlib import Path
from typing import Any

from salq.cli import options
from salq.cli.display import Display
from salq.cli.follow import STOPPED, carry_out, open_store
from salq.cli.report import emit, note, say
from salq.core import settings
from salq.core.errors import ConfigError, SalqError
from salq.core.files import atomic_path, path_of, write_json
from salq.runs.experiment import EXPERIMENTS, Experiment, Side, get, keep_side, load_side, same_codes, sides
from salq.runs.log import finite
from salq.runs.store import RunStore
from salq.runs.subjects import original_of, subject_of


def add(commands: options.Commands) -> None:
    """Add the command."""
    parser = options.command(
        commands, "experiment", run, "Compare recipes as a controlled experiment, with paired intervals.",
        "Every finished side is a small JSON file under --out and is not run again, also not in another checkout.",
    )  # fmt: skip
    parser.add_argument("name", help=f"one of {', '.join(EXPERIMENTS)}")
    options.add_model(parser)
    parser.add_argument("--bits", type=options.many(options.whole_in((2, 3, 4, 8))), default="2,3", metavar="N,N", help="comma list (default 2,3)")
    parser.add_argument("--group-size", type=options.group_size, default=64, metavar="N", help="inputs that share a scale (default 64)")
    parser.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="seeds 0 to N-1: text windows, their order and the adapters' start (default 3)"
    )
    parser.add_argument("--preset", default="quick", help="quick, base or published (default quick)")
    parser.add_argument("--text", default="auto", metavar="SOURCE", help="calibration text (default auto)")
    options.add_evaluation(parser)
    parser.set_defaults(windows=48, window=1024)
    parser.add_argument(
        "--out", default=str(settings.ROOT / "benchmarks" / "results"), metavar="FOLDER", help="where results are kept and found again"
    )
    parser.add_argument("--blocks", type=int, metavar="N", help="calibrate only the first N blocks: for sweeps over settings")
    parser.add_argument("--only", default="", metavar="RECIPE,BITS,SEED", help="run this side alone, such as sapr,2,0")
    parser.add_argument("--report", action="store_true", help="run nothing: the table of the sides that are there")


def run(args: argparse.Namespace) -> int:
    """Do it."""
    experiment = get(args.name)
    if experiment.chooses and args.eval_text == "auto":
        if not path_of(args.text).is_file():
            raise ConfigError(f"{experiment.name} chooses settings on held-out text; give --text FILE, whose last 20 % are held out.")
        args.eval_text = args.text
    wanted = _sides(args, experiment)
    folder = Path(args.out) / experiment.name
    store, kept = open_store(), []
    for number, side in enumerate(wanted, start=1):
        found = load_side(folder, side)
        if found is None and not args.report and _is_asked(args.only, side):
            options.check_texts(args)
            note(f"[{number}/{len(wanted)}] {side.label} {side.request.spec.tag} seed {side.seed}")
            found = _carry_out(store, folder, side)
            if found is None:
                note("salq: stopped; the same command goes on from there.")
                return STOPPED
        if found is not None:
            kept.append(found)
    if not kept:
        raise ConfigError(f"There is no finished side of {experiment.name} in {folder}; run it without --report.")
    return _report(args, experiment, folder, kept, of=len(wanted))


def _sides(args: argparse.Namespace, experiment: Experiment) -> list[Side]:
    if not 1 <= args.seeds <= 100:  # noqa: PLR2004 - a bound against typing errors
        raise ConfigError(f"--seeds is {args.seeds}; use 1 to 100.")
    from salq import recipes

    args.seed = 0
    template = options.calibrate_request(args, recipes.get("rtn", preset=args.preset, group_size=args.group_size))
    wanted = sides(experiment, template, args.bits, args.seeds)
    if args.only and not any(_is_asked(args.only, side) for side in wanted):
        labels = ", ".join(sorted({side.label for side in wanted}))
        raise ConfigError(f"--only {args.only!r} is no side of this experiment; write RECIPE,BITS,SEED with a recipe of {labels}.")
    return wanted


def _is_asked(only: str, side: Side) -> bool:
    return not only or only.replace(" ", "") == f"{side.label},{side.bits},{side.seed}"


def _carry_out(store: RunStore, folder: Path, side: Side) -> dict[str, Any] | None:
    """Run a side, find its run, or measure one with the same codes on this text; None when it was stopped. Raises SalqError when it failed."""
    same = [info for info in store.list() if info.request is not None and info.request.key() == side.request.key()]
    done = next((info.id for info in same if info.status == "done"), None)
    if done is None and (other := same_codes(store, side.request)) is not None:
        return _measure_again(store, folder, side, other)
    if done is None:
        from salq.runs.plan import check_room, plan

        check_room(plan(side.request), side.request.model, store.root)
        run_id = next((info.id for info in same if info.can_resume), None) or store.create(side.request)
        store.clear_cancel(run_id)
        info = carry_out(store, run_id)
        if info.status == "failed":
            raise SalqError(f"{side.label} {side.request.spec.tag} seed {side.seed}: {info.progress.message}")
        done = run_id if info.status == "done" else None
    return None if done is None else keep_side(folder, side, subject_of(store, done))


def _measure_again(store: RunStore, folder: Path, side: Side, run_id: str) -> dict[str, Any] | None:
    from salq.runs.remeasure import remeasured

    note(f"Run {run_id} has these codes; only this text is new.")
    subject = subject_of(store, run_id)
    try:
        measured, _ = Display().watch(remeasured(store, (subject, original_of(subject)), side.request.evaluation, side.request.device))
    except KeyboardInterrupt:
        return None
    return keep_side(folder, side, measured)


def _report(args: argparse.Namespace, experiment: Experiment, folder: Path, kept: list[dict[str, Any]], *, of: int) -> int:
    from salq.runs.experiment_table import markdown, rows  # numpy comes with it

    table, first = rows(experiment, kept), kept[0]
    conditions = (
        f"{first['model']} ({first['reference']}), preset {first['preset']}, calibrated on {first['calibration_text']}; measured on {first['text']}, "
        f"{first['windows']} windows of {first['window']} tokens, original perplexity {first['perplexity_original']:.4g}. "
        f"{len(kept)} of {of} sides are finished. Differences are paired over windows, averaged over seeds, 10,000 resamples."
    )
    text = markdown(experiment, table, conditions)
    write_json(folder.with_suffix(".json"), finite({"experiment": experiment.name, "conditions": conditions, "rows": table}))
    with atomic_path(folder.with_suffix(".md")) as temporary:
        temporary.write_text(text, encoding="utf-8")
    if args.json:
        emit({"experiment": experiment.name, "rows": table, "folder": str(folder)})
    else:
        say(text)
    return 0
