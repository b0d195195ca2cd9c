"""`saliency` and `errors`: what matters in a model, and what rounding does to it, before any calibration."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from salq.cli import options
from salq.cli.display import Display
from salq.cli.follow import carry_out, open_store, report, run_json
from salq.cli.report import duration, emit, number, percent, say, table, with_stable_keys
from salq.core.errors import ConfigError
from salq.runs.limits import check
from salq.runs.requests import CalibrateRequest, ExploreRequest
from salq.runs.store import RunInfo

Grid = Sequence[Sequence[float | None]]


def add(commands: options.Commands) -> None:
    """Add the commands."""
    parser = options.command(commands, "saliency", saliency, "Compute which weights matter: the diagonal Fisher of every matrix (cached).")
    options.add_model(parser)
    options.add_sampling(parser)
    parser = options.command(commands, "errors", errors, "Measure the relative weight and output error of every matrix, rounded to nearest.")
    options.add_model(parser)
    options.add_grids(parser, bits="2,3,4,8")
    options.add_sampling(parser)
    parser.add_argument("--run", dest="run_id", metavar="ID", help="measure the matrices that this run has calibrated instead")


def saliency(args: argparse.Namespace) -> int:
    """Compute a saliency map, or find it, and print its means."""
    request = options.explore_request(args, (), saliency=True)
    info = _explore(request)
    if info.status != "done":
        return report(info, as_json=args.json)
    from salq.saliency.maps import find  # torch comes with it

    found = find(info.metrics["saliency"]["key"])
    if found is None:
        raise ConfigError("The saliency map was removed while it was being shown; run the command again.")
    meta = found.meta
    if args.json:
        emit(run_json(info) | {"linears": list(meta.linears), "mean": meta.mean})
        return 0
    say(f"Mean saliency of {request.short_model} per weight, in nats^2/weight^2: the larger, the more a weight matters")
    sampling = f"{meta.n_samples} samples of {meta.seq_len} tokens of {meta.text}, seed {meta.seed}"
    say(f"{sampling}; computed in {duration(meta.seconds)}   (run {info.id})\n")
    say(_grid_table(meta.linears, meta.mean, number))
    return 0


def errors(args: argparse.Namespace) -> int:
    """Print the error of every matrix for one grid, and a summary per matrix name for several."""
    if args.run_id is not None:
        return _errors_of_run(args)
    specs = [options.check_spec(bits, size, symmetric=args.symmetric) for bits in args.bits for size in args.group_size]
    request = options.explore_request(args, specs, saliency=False)
    info = _explore(request)
    if info.status != "done":
        return report(info, as_json=args.json)
    grids = info.metrics["errors"]
    if args.json:
        emit(run_json(info) | {"errors": grids})
        return 0
    say(f"Relative errors of {request.short_model}, rounded to nearest; {request.n_samples} samples of {request.seq_len} tokens   (run {info.id})")
    _say_errors(grids)
    return 0


def _explore(request: ExploreRequest) -> RunInfo:
    check(request)
    store = open_store()
    return carry_out(store, store.create(request))


def _errors_of_run(args: argparse.Namespace) -> int:
    from salq.data.sources import load_text
    from salq.data.windows import sample_windows
    from salq.evaluation.errors import quantization_errors
    from salq.models.llama import load_model

    store = open_store()
    run_id = store.resolve(args.run_id)
    request = store.request(run_id)
    if not isinstance(request, CalibrateRequest) or not store.finished_blocks(run_id):
        raise ConfigError(f"Run {run_id} has no finished block to measure; choose a run of calibrate, or resume it first.")
    check(options.explore_request(args, (), saliency=False))
    model = load_model(request.model, device=args.device)
    tokens = sample_windows(load_text(options.placed(args.text), "calibration", model), model.tokenizer, args.samples, args.seq_len, args.seed)
    blocks = store.result(run_id)
    frozen = {index: blocks.load(index) for index in blocks.indices()}
    display = Display()
    grids = [grid.to_json() for grid in display.watch(quantization_errors(model, tokens, [], frozen))]
    if args.json:
        emit(with_stable_keys({**store.metrics(run_id), "run": run_id, "errors": grids}))
        return 0
    say(f"Relative errors of {store.get(run_id).title}, calibrated   (run {run_id})")
    _say_errors(grids)
    return 0


def _say_errors(grids: Sequence[Mapping[str, Any]]) -> None:
    if len(grids) == 1:
        for name, title in (("weight_error", "weight error |W - W_hat| / |W|"), ("output_error", "output error |(W - W_hat) X| / |W X|")):
            if grids[0][name] is not None:
                say(f"\n{grids[0]['tag']}: {title}")
                say(_grid_table(grids[0]["linears"], grids[0][name], percent))
        return
    linears = grids[0]["linears"]
    for name, title in (("weight_error", "Mean weight error by matrix"), ("output_error", "Mean output error by matrix")):
        rows = [
            [grid["tag"], *(percent(_mean([row[column] for row in grid[name]])) for column in range(len(linears)))] for grid in grids if grid[name]
        ]
        if rows:
            say(f"\n{title}\n{table(['grid', *_short(linears)], rows)}")


def _grid_table(linears: Sequence[str], grid: Grid, shown: Any) -> str:
    return table(["block", *_short(linears)], [[str(index), *(shown(value) for value in row)] for index, row in enumerate(grid)])


def _short(linears: Sequence[str]) -> list[str]:
    return [name.rsplit(".", 1)[-1] for name in linears]


def _mean(values: Sequence[float | None]) -> float | None:
    finite = [value for value in values if value is not None]
    return sum(finite) / len(finite) if finite else None
