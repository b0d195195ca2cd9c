"""The Runs tab without a browser: points, table and sweeps."""

import json
from pathlib import Path

import pytest

from salq import recipes
from salq.core.errors import ConfigError
from salq.core.events import RunDone, RunStarted
from salq.runs.limits import LOCAL
from salq.runs.requests import CalibrateRequest
from salq.runs.store import RunStore
from salq.ui.context import WHOLE_ROW, Choices
from salq.ui.runs_actions import HEADER, MAX_SWEEP, picked, runs_view, start_sweep, sweep_requests

METRICS = {
    "recipe": "rtn", "tag": "w3g64", "perplexity": 75.6, "perplexity_original": 22.6, "kl": 1.2, "model_size_mb": 100.4, "bits_per_weight": 3.3,
    "seconds": 12.0, "n_blocks": 2, "of_blocks": 2, "perplexity_se": 2.0, "peak_memory_gb": 1.5,
}  # fmt: skip


@pytest.fixture
def store(salq_home: Path) -> RunStore:
    return RunStore(salq_home / "runs")


def finished(store: RunStore, model: str, **changed: float) -> str:
    run_id = store.create(CalibrateRequest(model=model, recipe=recipes.get("rtn")))
    store.append(run_id, RunStarted(run_id))
    store.append(run_id, RunDone(12.0))
    store.write_metrics(run_id, METRICS | changed)
    return run_id


def test_an_empty_store_is_an_empty_table(store: RunStore) -> None:
    view = runs_view(store, "some-model", "perplexity")
    assert (view.table, view.choices, view.reading, view.any_active) == ([], [], "", False)
    assert HEADER[0] == "run"


def test_runs_of_the_model_are_points_and_all_runs_are_rows(store: RunStore) -> None:
    mine, other = finished(store, "mine"), finished(store, "other")
    view = runs_view(store, "mine", "perplexity")
    assert {run_id for _, run_id in view.choices} == {mine, other}
    assert len(view.table) == 2
    points = [trace for trace in json.loads(view.figure)["data"] if trace["name"] == "rtn"]
    assert [point[0] for point in points[0]["customdata"]] == [mine]
    assert points[0]["customdata"][0][1].endswith("calibrated in 12 s, 1.50 GB at most")
    assert points[0]["error_y"]["array"] == [pytest.approx(1.96 * 2.0)]
    assert dict(zip(HEADER, view.table[0], strict=True))["memory, GB"] == "1.50"
    assert "75.6" in view.reading


def test_a_run_of_the_first_blocks_or_without_a_finite_number_is_no_point(store: RunStore) -> None:
    finished(store, "mine", n_blocks=1)
    finished(store, "mine", perplexity=float("nan"))
    assert runs_view(store, "mine", "perplexity").reading == ""
    assert len(runs_view(store, "mine", "perplexity").table) == 2


def test_kl_has_no_line_of_the_original(store: RunStore) -> None:
    finished(store, "mine")
    assert "original" not in runs_view(store, "mine", "kl").reading
    with pytest.raises(ConfigError):
        runs_view(store, "mine", "accuracy")


def test_a_sweep_is_checked_as_a_whole_before_anything_is_stored(store: RunStore, tiny_folder: Path) -> None:
    choices = Choices(str(tiny_folder), 3, 64, False, "cpu", "bundled")
    requests = sweep_requests(choices, ["rtn", "apiq"], [2, 3], [64, WHOLE_ROW], "quick", LOCAL)
    assert sorted({request.spec.tag for request in requests}) == ["w2g64", "w2row", "w3g64", "w3row"]
    assert len(requests) == 8
    for bad in (([], [2], [64]), (["rtn"], [2, 3, 4, 8], [16] * MAX_SWEEP)):
        with pytest.raises(ConfigError):
            sweep_requests(choices, *bad, "quick", LOCAL)
    assert store.ids() == []


def test_a_sweep_does_not_repeat_what_is_done(store: RunStore, tiny_folder: Path) -> None:
    choices = Choices(str(tiny_folder), 3, 64, False, "cpu", "bundled")
    (request,) = sweep_requests(choices, ["rtn"], [3], [64], "quick", LOCAL)
    run_id = store.create(request)
    store.append(run_id, RunStarted(run_id))
    store.append(run_id, RunDone(1.0))
    assert start_sweep(store, [request]) == []


def test_the_chosen_run_says_what_its_pin_means_here(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = finished(store, "mine")
    monkeypatch.delenv("SALQ_QUOTA_GB", raising=False)
    one = picked(store, run_id)
    assert one is not None
    assert not one.pinned
    assert one.told.startswith("rtn w3g64 mine: done. It is not pinned. No quota of disk is set here")
    store.pin(run_id, pinned=True)
    monkeypatch.setenv("SALQ_QUOTA_GB", "20")
    one = picked(store, run_id)
    assert one is not None
    assert one.told.startswith("rtn w3g64 mine: done. It is pinned: it stays")
    assert "quota of 20 GB" in one.told
    assert [row[1] for row in runs_view(store, "mine", "perplexity").table] == ["done, pinned"]
    assert [picked(store, gone) for gone in (None, "20200101-000000-dead", "../..", 7)] == [None] * 4


def test_runs_that_were_measured_on_another_text_are_no_points_beside_the_others(store: RunStore) -> None:
    same = {"text": "one text", "windows": 8, "window": 512}
    shown = [finished(store, "mine", **same), finished(store, "mine", **same, perplexity=50.0)]  # type: ignore[arg-type]
    finished(store, "mine", **same | {"window": 64}, perplexity=4.0, perplexity_original=3.0)  # type: ignore[arg-type]
    view = runs_view(store, "mine", "perplexity")
    points = [trace for trace in json.loads(view.figure)["data"] if trace["name"] == "rtn"]
    assert {point[0] for point in points[0]["customdata"]} == set(shown)
    assert "the original is at 22.6" in view.reading
    assert view.reading.endswith("Measured on one text: 8 windows of 512 tokens. 1 run that was measured otherwise is in the table only.")
    assert len(view.table) == 3
