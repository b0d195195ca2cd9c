"""Laws of the run store: a log cut at any byte still lists and follows, and folding a prefix and then the rest equals folding all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salq.core import events as ev
from salq.core.progress import Progress, fold
from salq.runs import log
from salq.runs.requests import CalibrateRequest
from salq.runs.store import RunStore
from tests.unit.core.test_events import a_run

REQUEST = CalibrateRequest(model="smollm2-135m", recipe={"name": "rtn", "spec": {"bits": 2}}, title="ünïcödé")

TEXT = st.text(max_size=8)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
LOSS = st.dictionaries(TEXT, NUMBER, max_size=2)
EVENT = st.one_of(
    st.builds(ev.RunStarted, TEXT, st.booleans(), at=NUMBER),
    st.builds(ev.PhaseStarted, TEXT, st.integers(0, 50), TEXT, st.floats(0, 1e6), at=NUMBER),
    st.builds(ev.PhaseStep, TEXT, st.integers(0, 60), at=NUMBER),
    st.builds(ev.BlockStarted, st.integers(0, 5), st.integers(1, 5), at=NUMBER),
    st.builds(ev.StepDone, st.integers(0, 5), TEXT, st.integers(1, 9), st.integers(1, 9), LOSS, at=NUMBER),
    st.builds(ev.BlockDone, st.integers(0, 5), st.none() | NUMBER, LOSS, NUMBER, at=NUMBER),
    st.builds(ev.MetricReported, TEXT, st.none() | NUMBER | TEXT | st.lists(NUMBER, max_size=2), at=NUMBER),
    st.builds(ev.PhaseDone, TEXT, NUMBER, at=NUMBER),
    st.builds(ev.RunDone, NUMBER, at=NUMBER),
    st.builds(ev.RunFailed, TEXT, TEXT, st.booleans(), at=NUMBER),
    st.builds(ev.RunCancelled, st.integers(0, 5), at=NUMBER),
)
EVENTS = st.lists(EVENT, max_size=12)
ON_DISK = settings(deadline=None, max_examples=60)
"""Every event is forced to the disk, which is slow on some."""


@contextmanager
def stored_run(events: list[ev.Event]) -> Iterator[tuple[RunStore, str, Path]]:
    with tempfile.TemporaryDirectory() as folder:
        store = RunStore(Path(folder) / "runs")
        run_id = store.create(REQUEST)
        for event in events:
            store.append(run_id, event)
        yield store, run_id, store.folder(run_id) / "events.jsonl"


@settings(deadline=None)
@given(EVENTS, st.integers(0, 12))
def test_folding_a_prefix_and_then_the_rest_equals_folding_all(events: list[ev.Event], cut: int) -> None:
    progress = fold(events[:cut])
    for event in events[cut:]:
        progress.add(event)
    assert progress == fold(events)


@settings(deadline=None)
@given(EVENTS)
def test_the_fraction_never_falls_within_a_start(events: list[ev.Event]) -> None:
    progress, before = Progress(), 0.0
    for event in events:
        progress.add(event)
        assert 0.0 <= progress.fraction <= 1.0
        if not isinstance(event, ev.RunStarted):
            assert progress.fraction >= before
        before = progress.fraction


@ON_DISK
@given(EVENTS)
def test_what_is_appended_is_read(events: list[ev.Event]) -> None:
    with stored_run(events) as (store, run_id, _):
        assert store.events(run_id) == events
        assert store.events(run_id, since=3) == events[3:]


@ON_DISK
@given(EVENTS, st.floats(0, 1))
def test_a_log_cut_anywhere_lists_follows_and_can_be_written_on(events: list[ev.Event], where: float) -> None:
    with stored_run(events) as (store, run_id, path):
        data = path.read_bytes() if events else b""
        cut = int(where * len(data))
        path.write_bytes(data[:cut])
        whole = data[:cut].count(b"\n")
        assert [info.id for info in store.list()] == [run_id]
        kept = store.events(run_id)
        assert kept in (events[:whole], events[: whole + 1])  # the last may lack only its newline
        follower = store.follow(run_id)
        assert follower.update() == kept
        store.append(run_id, ev.RunDone(1.0, at=1.0))
        assert store.events(run_id) == [*kept, ev.RunDone(1.0, at=1.0)]
        assert [type(event) for event in follower.update()] == [ev.RunDone]
        assert follower.progress == fold(store.events(run_id))
        assert store.get(run_id).status == "done"


@ON_DISK
@given(EVENTS, st.data())
def test_following_in_any_pieces_equals_reading_at_once(events: list[ev.Event], data: st.DataObject) -> None:
    with stored_run(events) as (_, _, path):
        content = path.read_bytes() if events else b""
        cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=5)))
        growing = path.with_name("growing.jsonl")
        follower, seen = log.Follower(growing), []
        for cut in [*cuts, len(content)]:
            growing.write_bytes(content[:cut])
            seen += follower.update()
        assert seen == events
        assert follower.progress == fold(events)


WRONG = [
    b'{"kind": "StepDone", "block": "x", "stage": 1, "step": [], "of": null, "loss": 3}',
    b'{"kind": "MetricReported", "name": "plan", "value": 7}',
    b'{"kind": "BlockDone", "block": {}, "output_error": "x", "errors": 1, "seconds": "y"}',
    b'{"kind": "PhaseStep", "phase": [], "done": "many"}',
    b'{"kind": "RunStarted", "run": 1, "at": "yesterday"}',
]


@pytest.mark.parametrize("line", WRONG)
def test_a_line_of_the_right_kind_with_wrong_values_is_passed_over(tmp_path: Path, line: bytes) -> None:
    store = RunStore(tmp_path / "runs")
    run_id = store.create(REQUEST)
    (store.folder(run_id) / "events.jsonl").write_bytes(line + b"\n")
    store.append(run_id, ev.RunDone(1.0))
    assert [info.status for info in store.list()] == ["done"]
    follower = store.follow(run_id)
    follower.update()
    assert follower.progress.outcome == "done"


@pytest.mark.parametrize("name", ["events.jsonl", "request.json", "metrics.json"])
def test_any_file_of_a_run_may_be_cut_at_every_byte(tmp_path: Path, name: str) -> None:
    store = RunStore(tmp_path / "runs")
    run_id = store.create(REQUEST)
    for event in a_run(blocks=1, steps=2):
        store.append(run_id, event)
    store.write_metrics(run_id, {"perplexity": 12.5, "kl": 0.1})
    path = store.folder(run_id) / name
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        (info,) = RunStore(store.root).list()
        assert info.id == run_id
        assert info.status in {"done", "interrupted", "created", "unreadable"}
    shutil.rmtree(store.root)
