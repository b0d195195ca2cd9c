"""The chip tells the run that matters, and a long run is looked at less often than a young one."""

import time
from pathlib import Path

import pytest

from salq import recipes
from salq.core import events as ev
from salq.runs.requests import CalibrateRequest
from salq.runs.store import RunStore
from salq.ui.status import LIVELY_SECONDS, STEADY_SECONDS, YOUNG_SECONDS, chip, seconds_to_next_look, state


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


def started(store: RunStore, title: str, seconds_ago: float) -> str:
    run_id = store.create(CalibrateRequest(model="smollm2-135m", recipe=recipes.get("apiq"), title=title))
    store.append(run_id, ev.RunStarted(run_id, at=time.time() - seconds_ago))
    return run_id


def test_nothing_and_what_is_gone_are_quiet(store: RunStore) -> None:
    assert "No run yet" in chip(store)
    assert "No run yet" in chip(store, "", "20200101-000000-dead")
    assert seconds_to_next_look(store, "") == LIVELY_SECONDS


def test_the_active_run_is_told_and_every_event_makes_another_chip(store: RunStore) -> None:
    old, new = started(store, "old", 5.0), started(store, "new", 1.0)
    alive = store.take(old, "foreground")
    try:
        first = chip(store, old, new)
        assert "old" in first
        store.append(old, ev.PhaseStarted("load", of=1))
        assert chip(store, old, new) != first
    finally:
        alive.release()


@pytest.mark.parametrize(("seconds_ago", "wanted"), [(1.0, LIVELY_SECONDS), (YOUNG_SECONDS + 5.0, STEADY_SECONDS)])
def test_a_long_run_is_looked_at_less_often(store: RunStore, seconds_ago: float, wanted: float) -> None:
    run_id = started(store, "run", seconds_ago)
    alive = store.take(run_id, "foreground")
    try:
        assert seconds_to_next_look(store, run_id) == wanted
    finally:
        alive.release()
    assert seconds_to_next_look(store, run_id) == LIVELY_SECONDS


def test_a_waiting_run_says_how_many_are_before_it_and_when_it_starts(store: RunStore) -> None:
    requests = [CalibrateRequest(model="smollm2-135m", recipe=recipes.get("apiq"), title=title) for title in ("first", "second", "third")]
    ids = [store.create(request) for request in requests]
    store.expect(ids[0], 120.0)
    alive = []
    try:
        for run_id in ids:
            alive.append(store.take(run_id, "foreground"))
            store.queue.enter(run_id, "cpu")
        assert state(store.get(ids[1])) == "waiting for 1 other run, starts in about 2 min"
        assert "second: waiting for 1 other run, starts in about 2 min" in chip(store, ids[1])
        assert state(store.get(ids[2])) == "waiting for 2 other runs"  # the second says nothing of how long it takes
    finally:
        for one in alive:
            one.release()
