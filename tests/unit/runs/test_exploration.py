"""What is known before calibration: read back as it was kept, newest first, and never a traceback for a damaged file."""

import json
from pathlib import Path

import pytest

from salq.core import settings
from salq.core.errors import StoreError
from salq.core.events import MetricReported, RunDone, RunStarted
from salq.core.files import write_json
from salq.models.catalogue import DEFAULT_MODEL
from salq.quant.spec import QuantSpec
from salq.runs.exploration import (
    ErrorCells,
    Exploration,
    SaliencyGrid,
    explorations,
    first_with,
    kept,
    kept_folder,
    of_run,
    saliency_key_of,
    spec_of,
    tags,
)
from salq.runs.kept import keep_exploration
from salq.runs.requests import ExploreRequest
from salq.runs.store import RunStore

LINEARS = ["self_attn.q_proj", "mlp.down_proj"]
SPEC = QuantSpec(bits=3, group_size=64)
KEY = "0" * 32


def example(origin: str = "kept") -> Exploration:
    cells = [[0.1, 0.2], [0.3, None]]
    return Exploration(
        model=DEFAULT_MODEL, linears=LINEARS, errors={SPEC.tag: ErrorCells(SPEC.model_dump(), cells, None)},
        saliency=SaliencyGrid([[1e-3, 2e-3], [3e-3, 4e-3]], "bundled", 24, 256, 0), text="bundled", n_samples=24, seq_len=256, origin=origin,
    )  # fmt: skip


@pytest.fixture
def assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(settings, "ASSETS", tmp_path / "assets")
    return tmp_path / "assets"


def finished_run(store: RunStore, model: str = DEFAULT_MODEL, *, with_errors: bool = True, with_map: bool = True) -> str:
    """An explore run as the worker leaves it, without the work."""
    run_id = store.create(ExploreRequest(model=model, specs=(SPEC,)))
    store.append(run_id, RunStarted(run_id))
    if with_map:
        meta = {"mean": [[1.0, 2.0]], "linears": LINEARS, "text": "bundled", "n_samples": 16, "seq_len": 256, "seed": 0}
        write_json(settings.saliency_dir() / KEY / "meta.json", meta)
        store.append(run_id, MetricReported("saliency", {"key": KEY}))
    if with_errors:
        grid = {"tag": SPEC.tag, "spec": SPEC.model_dump(), "linears": LINEARS, "weight_error": [[0.5, 0.6]], "output_error": [[0.7, 0.8]]}
        store.append(run_id, MetricReported("errors", [grid]))
    store.append(run_id, RunDone(1.0))
    return run_id


def test_json_round_trip_and_cells() -> None:
    one = example()
    again = Exploration.from_json(json.loads(json.dumps(one.to_json())))
    assert again == one
    assert again.n_blocks == 2
    assert again.cells("saliency", "anything") == [[1e-3, 2e-3], [3e-3, 4e-3]]
    assert again.cells("output_error", SPEC.tag) is None
    assert again.cells("weight_error", "w8g64") is None
    assert spec_of(again, SPEC.tag) == SPEC


def test_nothing_kept_is_none_and_a_damaged_file_says_what_to_do(assets: Path) -> None:
    assert kept(DEFAULT_MODEL) is None
    path = assets / "results" / DEFAULT_MODEL / "explore.json"
    path.parent.mkdir(parents=True)
    for damage in ("{", "[]", '{"format": 99}', json.dumps(example().to_json() | {"linears": ["only one"]})):
        path.write_text(damage)
        with pytest.raises(StoreError, match="make assets"):
            kept(DEFAULT_MODEL)


def test_a_visitors_model_name_is_never_part_of_a_path(assets: Path) -> None:
    for name in ("../../etc", "/tmp", "owner/name"):
        assert kept_folder(name) == assets / "results" / "none"


def test_a_finished_run_becomes_an_exploration_and_other_runs_do_not(salq_home: Path) -> None:
    store = RunStore(salq_home / "runs")
    found = of_run(store.get(finished_run(store)))
    assert found is not None
    assert found.cells("output_error", SPEC.tag) == [[0.7, 0.8]]
    assert found.cells("saliency", "") == [[1.0, 2.0]]
    assert of_run(store.get(store.create(ExploreRequest(model=DEFAULT_MODEL)))) is None


def test_own_runs_come_before_what_is_kept_and_fill_each_others_gaps(assets: Path, salq_home: Path) -> None:
    keep_exploration(DEFAULT_MODEL, example())
    store = RunStore(salq_home / "runs")
    finished_run(store, "some/other-model")
    own = finished_run(store, with_errors=False)
    known = explorations(store, DEFAULT_MODEL)
    assert [one.origin for one in known] == [own, "kept"]
    assert first_with(known, "saliency", SPEC.tag) is known[0]
    assert first_with(known, "weight_error", SPEC.tag) is known[1]
    assert first_with(known, "weight_error", "w2g64") is None
    assert tags(known) == [SPEC.tag]
    assert saliency_key_of(known) == KEY


def test_a_map_that_was_deleted_is_no_map(salq_home: Path) -> None:
    store = RunStore(salq_home / "runs")
    run_id = finished_run(store)
    (settings.saliency_dir() / KEY / "meta.json").unlink()
    found = of_run(store.get(run_id))
    assert found is not None
    assert found.saliency is None
    assert saliency_key_of([found]) == ""


def test_specs_are_ordered_by_width() -> None:
    cells = ErrorCells({}, [[0.1]], None)
    one = Exploration("m", ["a"], dict.fromkeys(("w8g64", "w2row-sym", "w3g64", "w4g32"), cells), None, "t", 1, 8)
    assert tags([one]) == ["w2row-sym", "w3g64", "w4g32", "w8g64"]
