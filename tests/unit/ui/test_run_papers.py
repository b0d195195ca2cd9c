"""What a run's page says of how to repeat it, and of why it failed."""

from pathlib import Path

import pytest

from salq.core import events as ev
from salq.core.files import write_json
from salq.runs.requests import CalibrateRequest
from salq.runs.store import RunStore
from salq.ui.run_papers import papers_html

RECIPE = {"name": "rtn", "spec": {"bits": 2, "group_size": 64, "symmetric": False}}


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


def test_what_is_needed_to_repeat_it(store: RunStore) -> None:
    run_id = store.create(CalibrateRequest(model="some/folder/<b>mine</b>", recipe=RECIPE, seed=5))
    write_json(store.folder(run_id) / "environment.json", {"salq": "0.1.0", "torch": "2.13.0", "threads": 2, "cpu": "a processor", "device": "cpu"})
    write_json(store.folder(run_id) / "inputs.json", {"model": "f00d", "calibration": "beef", "calibration_name": "bundled"})
    shown = papers_html(store, run_id, status="done", public=False)
    for part in (f"runs rerun {run_id}", "torch 2.13.0", "a processor", "2 threads", "f00d", "beef", "bundled", "<code>5</code>", "some/folder"):
        assert part in shown
    assert "<b>" not in shown
    assert "some/folder" not in papers_html(store, run_id, status="done", public=True)


def test_a_failed_run_shows_its_last_words_without_secrets_and_not_to_strangers(store: RunStore) -> None:
    run_id = store.create(CalibrateRequest(model="m", recipe=RECIPE))
    store.append(run_id, ev.RunFailed("no"))
    lines = [f"line {number}" for number in range(100)]
    (store.folder(run_id) / "worker.log").write_text("\n".join([*lines, "token hf_AbCdEf1234567890 <script>", ""]))
    shown = papers_html(store, run_id, status="failed", public=False)
    assert "line 99" in shown
    assert "line 50" not in shown
    assert "hf_AbC" not in shown
    assert "&lt;script&gt;" in shown
    assert "line 99" not in papers_html(store, run_id, status="done", public=False)
    assert "line 99" not in papers_html(store, run_id, status="failed", public=True)


def test_a_run_that_cannot_be_read_says_so(store: RunStore) -> None:
    run_id = store.create(CalibrateRequest(model="m", recipe=RECIPE))
    for path in store.folder(run_id).glob("request*"):
        path.write_text("{")
    assert "cannot be read" in papers_html(store, run_id, status="unreadable", public=False)
