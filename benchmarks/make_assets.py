"""Compute what the first screen shows, on the real default model, and keep it in assets/results/ (`make assets`).

    python benchmarks/make_assets.py            what is asked for and not kept: about 8 minutes a calibration on two cores
    python benchmarks/make_assets.py --all      everything anew: more than an hour

Everything is an ordinary run in the run store, with the bundled texts, so that anybody can repeat it; this script only chooses the runs and
copies their results. An interrupted one goes on where it stopped. `made.json` records the hash of every request: what is kept under the same
hash is not computed again, and a test compares all of them with what the recipes of this checkout resolve to.
"""

import argparse
import hashlib
import json
import shlex
import subprocess
import sys
from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from salq import recipes  # noqa: E402 - the checkout is put on the path first
from salq.cli import chat  # noqa: E402
from salq.cli.follow import open_store  # noqa: E402
from salq.core.errors import SalqError  # noqa: E402
from salq.core.files import read_json, write_json  # noqa: E402
from salq.models.catalogue import DEFAULT_MODEL  # noqa: E402
from salq.quant.spec import QuantSpec  # noqa: E402
from salq.runs.exploration import Exploration, kept, kept_folder, of_run  # noqa: E402
from salq.runs.kept import KeptRun, MatrixMaps, WeightGroup, keep_exploration, keep_group, keep_maps, keep_runs, kept_group, kept_runs, short  # noqa: E402
from salq.runs.requests import CalibrateRequest, Evaluation, ExploreRequest  # noqa: E402
from salq.runs.store import RunInfo, RunStore  # noqa: E402

TEXT = "bundled"
CALIBRATIONS = (
    *(("rtn", bits, group) for group in (64, 32) for bits in (8, 4, 3, 2)),
    *((name, bits, 64) for bits in (3, 2) for name in ("apiq", "sapr")),
    ("gptq", 3, 64),
    *(("salq", bits, 64) for bits in (4, 3, 2)),
    ("salq-full", 2, 64),
)
"""(recipe, bits, group size) of the trade-off chart, most telling first."""
SPECS = tuple(QuantSpec(bits=bits, group_size=group) for bits in (2, 3, 4, 8) for group in (32, 64))
MATRIX = (17, "mlp.down_proj")
CHAT_SIDE, CHAT_PROMPT = ("apiq", 3, 64), "What is the capital of France, and what is it known for?"
"""Who answers beside the original in the kept conversation, and the first example prompt of the page."""
TILE = (8, 64)
"""Rows and inputs around the group that are kept with it."""
GROUP_ROW, GROUP_START = 100, 640
"""One group of 64 real weights for the number line of Learn; any would do, this one is not special."""


def calibration_requests() -> list[CalibrateRequest]:
    """The runs of the trade-off chart."""
    evaluation = Evaluation(text=TEXT, windows=8, window=512)
    return [
        CalibrateRequest(
            model=DEFAULT_MODEL, recipe=recipes.get(name, preset="quick", bits=bits, group_size=group), text=TEXT, device="cpu", evaluation=evaluation
        )
        for name, bits, group in CALIBRATIONS
    ]


def explore_request() -> ExploreRequest:
    """The grids of Explore."""
    return ExploreRequest(model=DEFAULT_MODEL, specs=SPECS, text=TEXT, n_samples=24, seq_len=256, device="cpu")


PLACES = [list(MATRIX), GROUP_ROW, GROUP_START, list(CHAT_SIDE), CHAT_PROMPT]
"""What is taken out of the calibrations beside their numbers: when it changes, every one of them is needed again."""


def kept_before() -> dict[str, KeptRun]:
    """{key of the request: what is kept of it} of the calibrations that need no second time."""
    made = read_json(kept_folder(DEFAULT_MODEL) / "made.json")
    if made.get("places") != PLACES or made.get("exploration") != explore_request().key():
        return {}
    asked, keys = {request.key() for request in calibration_requests()}, made.get("requests", {})
    return {keys[run.command]: run for run in kept_runs(DEFAULT_MODEL) if keys.get(run.command) in asked}


def fingerprint() -> str:
    """Hash of everything that is asked for: changes when a recipe, a preset or this list changes."""
    keys = [request.key() for request in [explore_request(), *calibration_requests()]]
    return hashlib.sha256(json.dumps([*keys, *PLACES]).encode()).hexdigest()


def measure_request(run_id: str) -> ExploreRequest:
    """The grids of a calibration, on the text and the saliency map of `explore_request`."""
    asked = explore_request()
    return ExploreRequest(model=asked.model, text=asked.text, n_samples=asked.n_samples, seq_len=asked.seq_len, device=asked.device, run=run_id)


def command(name: str, bits: int, group: int) -> str:
    """What a person types for one of the runs."""
    return (
        f"python -m salq calibrate --model {DEFAULT_MODEL} --recipe {name} --bits {bits} --group-size {group} --preset quick "
        f"--text {TEXT} --eval-text {TEXT} --windows 8 --window 512 --device cpu"
    )


def finished(store: RunStore, request: CalibrateRequest | ExploreRequest) -> RunInfo:
    """The run of a request: found when it was done before, else carried out, in a process of its own, whose peak memory is then the run's.

    Raises SalqError when it fails.
    """
    same = [info for info in store.list() if info.request is not None and info.request.key() == request.key()]
    done = next((info for info in same if info.status == "done" and (info.kind != "explore" or "depth" in info.metrics)), None)
    if done is not None:
        return done
    run_id = next((info.id for info in same if info.can_resume), None) or store.create(request)
    subprocess.run([sys.executable, "-m", "salq", "runs", "resume", run_id], cwd=ROOT, check=False)
    info = store.get(run_id)
    if info.status != "done":
        raise SalqError(f"{info.title} ended as {info.status}: {info.progress.message}")
    return info


def explored(store: RunStore, names: Collection[str]) -> Exploration:
    """The exploration, and with it the grids of the calibrations that are finished. names: those whose grids are kept and are not measured again."""
    found = kept(DEFAULT_MODEL) if names else of_run(finished(store, explore_request()))
    assert found is not None, "an explore run that is done has results"
    depth = {name: cells for name, cells in found.depth.items() if name in found.errors or name in names}
    runs = {name: cells for name, cells in found.runs.items() if name in names}
    for name, run_id in calibrated(store).items():
        one = of_run(finished(store, measure_request(run_id)))
        assert one is not None, "so has one that measured a calibration"
        runs[name], depth[name] = one.runs[run_id], one.depth[run_id]
    return replace(found, runs=runs, depth=depth)


def calibrated(store: RunStore) -> dict[str, str]:
    """{name: run id} of the finished calibrations that learned something, such as `apiq w3g64`."""
    keys = {request.key(): f"{request.method} {request.tag}" for request in calibration_requests() if request.method != "rtn"}
    done = {info.request.key(): info.id for info in store.list() if info.status == "done" and info.kind == "calibrate" and info.request is not None}
    return {name: done[key] for key, name in keys.items() if key in done}


def keep_matrix(store: RunStore, names: Collection[str]) -> None:
    """The maps of one matrix and one group of its weights, as calibrations see it, too. names: those whose view is kept already."""
    from salq.data.sources import load_text
    from salq.evaluation.group_view import grid_of
    from salq.evaluation.matrix_view import matrix_view
    from salq.models.llama import read_weight
    from salq.models.source import resolve
    from salq.quant.frozen import rtn
    from salq.saliency.maps import find, saliency_key

    asked, (block, matrix) = explore_request(), MATRIX
    source = resolve(DEFAULT_MODEL)
    weight = read_weight(source, block, matrix)
    text = load_text(TEXT, "calibration")
    found = find(
        saliency_key(fingerprint=source.fingerprint, text_sha256=text.sha256, n_samples=asked.n_samples, seq_len=asked.seq_len, seed=asked.seed)
    )
    assert found is not None, "the explore run has just computed this map"
    spec = QuantSpec(bits=3, group_size=64)
    keep_maps(DEFAULT_MODEL, MatrixMaps.of(matrix_view(f"{block}.{matrix}", weight, spec, found.matrix(block, matrix)), block, matrix))
    grids = {}
    for bits in (2, 3, 4, 8):
        frozen = rtn(weight[GROUP_ROW : GROUP_ROW + 1, GROUP_START : GROUP_START + 64], QuantSpec(bits=bits, group_size=64))
        grids[str(bits)] = {"scale": float(frozen.scale), "zero_point": float(frozen.zero_point)}
    weights = [round(value, 7) for value in weight[GROUP_ROW, GROUP_START : GROUP_START + 64].tolist()]
    line, before = weight[GROUP_ROW, GROUP_START : GROUP_START + 64], kept_group(DEFAULT_MODEL)
    learned = {} if before is None else {name: grid for name, grid in before.learned.items() if name in names}
    for name, run_id in calibrated(store).items():
        row = store.result(run_id).open(block).row(matrix, GROUP_ROW)
        learned[name] = short(asdict(grid_of(line, row, GROUP_START // 64, name)))
    top, left = GROUP_ROW - TILE[0], GROUP_START - TILE[1]
    around = weight[top : GROUP_ROW + TILE[0] + 1, left : GROUP_START + 64 + TILE[1]]
    tile = {"row": top, "column": left, "weights": short(around.tolist())}
    keep_group(DEFAULT_MODEL, WeightGroup(block, matrix, GROUP_ROW, GROUP_START, weights, grids, learned, tile))


def keep_chat(run_id: str) -> None:
    """One conversation of the original and a run, greedy, as `salq chat --json` prints it, with the command."""
    words = ["--run", run_id, "--prompt", CHAT_PROMPT, "--max-new-tokens", "96", "--device", "cpu"]
    parser = argparse.ArgumentParser()
    chat.add_arguments(parser)
    said = chat.run(argparse.Namespace(**vars(parser.parse_args(words)), json=True))
    for side in said["sides"]:
        side["run"] = None  # an id of this machine's store means nothing elsewhere
    shown = shlex.join(["python", "-m", "salq", "chat", "--run", "ID", *words[2:]])
    write_json(kept_folder(DEFAULT_MODEL) / "chat.json", {**said, "command": f"{shown}   (ID: the run of `{command(*CHAT_SIDE)}`)"})


def keep_noise() -> None:
    """The noise floor of the model on the windows of the kept runs, for every number that is measured on them."""
    from salq.core.drain import drain
    from salq.data.sources import load_text
    from salq.data.windows import evaluation_windows
    from salq.evaluation.noise import how, noise_floor
    from salq.models.llama import load_model
    from salq.runs.noise import floor_of, keep_floor

    model, text = load_model(DEFAULT_MODEL, device="cpu"), load_text(TEXT, "evaluation")
    scores = drain(noise_floor(model, evaluation_windows(text, model.tokenizer, 8, 512), text=text.name))
    keep_floor(floor_of(DEFAULT_MODEL, how(model), scores.metrics()), kept_folder(DEFAULT_MODEL))


def main() -> int:
    """Run everything that is missing and keep the results; what was finished when a later run fails is kept all the same."""
    parser = argparse.ArgumentParser(description="Compute what the first screen shows, and keep it in assets/results/.")
    parser.add_argument("--all", action="store_true", help="also what is kept already")
    before = {} if parser.parse_args().all else kept_before()
    names = {f"{run.metrics['recipe']} {run.metrics['tag']}" for run in before.values()}
    store = open_store()
    if not before:
        keep_exploration(DEFAULT_MODEL, explored(store, names))
        keep_noise()
    runs: list[KeptRun] = []
    for request, (name, bits, group) in zip(calibration_requests(), CALIBRATIONS, strict=True):
        if (run := before.get(request.key())) is None:
            info = finished(store, request)
            run = KeptRun(info.title, command(name, bits, group), {key: value for key, value in info.metrics.items() if key != "per_window"})
            if (name, bits, group) == CHAT_SIDE:
                keep_chat(info.id)
        runs.append(run)
        keep_runs(DEFAULT_MODEL, [*runs, *(one for one in before.values() if one not in runs)])
    keep_exploration(DEFAULT_MODEL, explored(store, names))  # again, now that the calibrations can be measured
    keep_matrix(store, names)
    keys = {command(*one): request.key() for one, request in zip(CALIBRATIONS, calibration_requests(), strict=True)}
    made = {"fingerprint": fingerprint(), "command": "make assets", "exploration": explore_request().key(), "places": PLACES, "requests": keys}
    write_json(kept_folder(DEFAULT_MODEL) / "made.json", made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
