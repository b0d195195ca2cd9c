"""A run store, a text and a tiny calibration that takes a second."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from salq import recipes
from salq.core import events as ev
from salq.runs.requests import CalibrateRequest
from salq.runs.store import RunStore

MakeRequest = Callable[..., CalibrateRequest]
SMALL = {"rank": 2, "epochs": 2, "batch_size": 1, "data.n_samples": 4, "data.seq_len": 24}
LETTERS = {
    ev.RunStarted: "S", ev.PhaseStarted: "P", ev.PhaseStep: "s", ev.BlockStarted: "B", ev.StepDone: "t", ev.BlockDone: "b",
    ev.MetricReported: "m", ev.PhaseDone: "p", ev.RunDone: "D", ev.RunFailed: "F", ev.RunCancelled: "C",
}  # fmt: skip
START = r"S(P(s|Bt*b|m)*p)*"
ENDED = re.compile(rf"({START}(P(s|Bt*b|m)*(Bt*)?)?[FC]|{START}D)")


def spelled(events: Iterable[ev.Event]) -> str:
    """One letter per event, for the grammar."""
    return "".join(LETTERS[type(event)] for event in events)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("The grid of a group is a scale and a zero point; a code is what is left of a weight. " * 40)
    return path


@pytest.fixture
def make_request(tiny_folder: Path, text_file: Path) -> MakeRequest:
    """A request for the tiny model: `make_request(recipe, changes, **fields)`."""

    def make(recipe: str = "apiq", changes: dict[str, Any] | None = None, **fields: Any) -> CalibrateRequest:
        settings = {} if recipe == "rtn" else {**SMALL, **(changes or {})}
        if recipe == "sapr":
            settings = {"saliency.n_samples": 2, "saliency.seq_len": 24, **settings}
            settings["data.n_samples"] = settings.pop("data.n_samples")
        if recipe.startswith("salq"):
            settings = {**settings, "distillation.steps": 4, "distillation.n_samples": 4, "distillation.seq_len": 24}
        values = {"model": str(tiny_folder), "text": str(text_file), "device": "cpu", **fields}
        evaluation = {"text": str(text_file), "windows": 2, "window": 32}
        return CalibrateRequest(
            recipe=recipes.get(recipe, bits=1 if recipe == "binary-mos" else 2, group_size=32, overrides=settings), evaluation=evaluation, **values
        )

    return make


@pytest.fixture
def codes(store: RunStore) -> Callable[[str], list[bytes]]:
    """Codes, scales and adapters of a run, block by block, as bytes."""

    def read(run_id: str) -> list[bytes]:
        blocks = store.blocks(run_id)
        found = []
        for index in blocks.indices():
            block = blocks.load(index)
            found.append(b"".join(tensor.numpy().tobytes() for name in sorted(block) for tensor in block[name].tensors().values()))
        return found

    return read
