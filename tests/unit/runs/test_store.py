"""The run store: create, list, status from files and lock, cancel, delete; nothing outside its root."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from salq.core import events as ev
from salq.core import settings
from salq.core.errors import ResourceError, StoreError, UnknownNameError
from salq.quant.spec import QuantSpec
from salq.runs import states
from salq.runs.requests import CalibrateRequest, ExploreRequest
from salq.runs.store import RunStore

RECIPE = {"name": "rtn", "spec": {"bits": 2, "group_size": 64, "symmetric": False}}


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


@pytest.fixture
def request_() -> CalibrateRequest:
    return CalibrateRequest(model="smollm2-135m", recipe=RECIPE)


def test_an_empty_store_lists_nothing(store: RunStore) -> None:
    assert store.list() == []


def test_created_run(store: RunStore, request_: CalibrateRequest) -> None:
    run_id = store.create(request_)
    info = store.get(run_id)
    assert (info.status, info.title, info.kind, info.can_resume, info.is_active) == ("created", "rtn w2g64 smollm2-135m", "calibrate", True, False)
    assert info.request == request_
    assert [item.id for item in store.list()] == [run_id]


def test_a_run_that_ends_while_it_is_looked_at_is_not_interrupted(
    store: RunStore, request_: CalibrateRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = store.create(request_)
    store.append(run_id, ev.RunStarted(run_id))
    assert store.get(run_id).status == "interrupted"

    def ends_now(_: Path) -> bool:
        """Its worker writes the last event and gives the lock back, after the log and before the lock were looked at."""
        store.append(run_id, ev.RunDone(1.0))
        return False

    monkeypatch.setattr(states, "is_alive", ends_now)
    assert store.get(run_id).status == "done"


def test_the_users_title_is_shown_and_never_a_path(store: RunStore) -> None:
    run_id = store.create(CalibrateRequest(model="m", recipe=RECIPE, title="../../etc\n\x1b[31m" + "x" * 200))
    assert store.get(run_id).title.startswith("../../etc [31mxxx")
    assert len(store.get(run_id).title) == 60
    assert store.folder(run_id).parent == store.root


@pytest.mark.parametrize("run_id", ["", "..", "../x", "20260101-000000-abcd/..", "20260101-000000-ABCD", "20260101-000000-abcd\n", ".queue"])
def test_ids_that_are_not_ids(store: RunStore, run_id: str) -> None:
    store.root.mkdir()
    with pytest.raises(UnknownNameError):
        store.folder(run_id)


def test_status_follows_the_events(store: RunStore, request_: CalibrateRequest) -> None:
    run_id = store.create(request_)
    store.append(run_id, ev.RunStarted(run_id))
    assert store.get(run_id).status == "interrupted"
    store.append(run_id, ev.RunFailed("The disk is full.", "ResourceError"))
    assert (store.get(run_id).status, store.get(run_id).problem) == ("failed", "The disk is full.")
    store.append(run_id, ev.RunStarted(run_id, resumed=True))
    store.append(run_id, ev.RunDone(2.0))
    assert store.get(run_id).status == "done"


def test_a_held_run_is_running_and_cannot_be_taken_or_deleted(store: RunStore, request_: CalibrateRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("salq.runs.alive.TAKE_SECONDS", 0.1)
    run_id = store.create(request_)
    alive = store.take(run_id, "foreground")
    store.queue.enter(run_id, "cpu")
    assert store.get(run_id).status == "running"
    with pytest.raises(StoreError, match="already being worked on"):
        store.take(run_id, "worker")
    with pytest.raises(StoreError, match="still running"):
        store.delete(run_id)
    alive.release()
    assert store.get(run_id).status == "created"
    store.delete(run_id)
    assert store.list() == []
    assert list(store.root.glob(".deleted*")) == []


def test_a_killed_process_leaves_an_interrupted_run(store: RunStore, request_: CalibrateRequest) -> None:
    run_id = store.create(request_)
    script = f"""
        from pathlib import Path
        from salq.core.events import RunStarted
        from salq.runs.store import RunStore
        import sys
        store = RunStore(Path({str(store.root)!r}))
        alive = store.take({run_id!r}, "worker")
        store.queue.enter({run_id!r}, "cpu")
        store.append({run_id!r}, RunStarted({run_id!r}))
        sys.stdout.write("ready\\n"); sys.stdout.flush()
        sys.stdin.read()
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], cwd=settings.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert store.get(run_id).status == "running"
        process.kill()
    assert store.get(run_id).status == "interrupted"
    other = store.create(request_)
    alive = store.take(other, "foreground")
    store.queue.enter(other, "cpu")
    assert store.queue.ahead(other) == []
    alive.release()


def test_cancelling_what_nobody_works_on(store: RunStore, request_: CalibrateRequest) -> None:
    run_id = store.create(request_)
    store.append(run_id, ev.RunStarted(run_id))
    store.cancel(run_id)
    assert store.get(run_id).status == "cancelled"
    store.append(run_id, ev.RunStarted(run_id, resumed=True))
    store.append(run_id, ev.RunDone(1.0))
    store.cancel(run_id)
    assert store.get(run_id).status == "done"
    assert not store.is_cancel_requested(run_id)


def test_cancel_asks_the_process_that_works_on_it(store: RunStore, request_: CalibrateRequest) -> None:
    run_id = store.create(request_)
    alive = store.take(run_id, "foreground")
    store.cancel(run_id)
    assert store.is_cancel_requested(run_id)
    assert store.events(run_id) == []
    alive.release()


def test_resolving_what_people_type(store: RunStore) -> None:
    first = store.create(CalibrateRequest(model="m", recipe=RECIPE, title="mine"))
    second = store.create(CalibrateRequest(model="m", recipe=RECIPE, title="other"))
    assert store.resolve(first) == first
    assert store.resolve(first[-4:]) == first
    assert store.resolve("other") == second
    with pytest.raises(UnknownNameError, match="runs list"):
        store.resolve("nothing")
    with pytest.raises(UnknownNameError):
        store.resolve("")


@pytest.mark.parametrize("content", ["", "{", "null", "[]", "{}", '{"kind": "calibrate"}', '{"kind": "other"}', "\x00"])
def test_a_damaged_request_is_listed_as_unreadable(store: RunStore, request_: CalibrateRequest, content: str) -> None:
    run_id = store.create(request_)
    (store.folder(run_id) / "request.json").write_text(content)
    assert store.get(run_id).request == request_  # its copy is read
    (store.folder(run_id) / "request.copy.json").write_text(content)
    info = store.list()[0]
    assert (info.status, info.request, info.title) == ("unreadable", None, run_id)
    assert "cannot be read" in info.problem
    store.delete(run_id)


def test_metrics_never_hold_nan(store: RunStore, request_: CalibrateRequest) -> None:
    run_id = store.create(request_)
    assert store.metrics(run_id) == {}
    store.write_metrics(run_id, {"perplexity": float("inf"), "kl": 1.0})
    assert store.metrics(run_id) == {"perplexity": None, "kl": 1.0}
    (store.folder(run_id) / "metrics.json").write_text('{"perplexity"')
    assert store.metrics(run_id) == {}


def test_a_root_that_is_a_file(tmp_path: Path, request_: CalibrateRequest) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(ResourceError, match="SALQ_HOME"):
        RunStore(tmp_path / "runs").create(request_)


def test_same_request_same_key_under_any_title(request_: CalibrateRequest) -> None:
    assert request_.key() == request_.model_copy(update={"title": "x"}).key()
    assert request_.key() != request_.model_copy(update={"seed": 1}).key()
    explore = ExploreRequest(model="m", specs=(QuantSpec(bits=2),))
    assert explore.shown_title == "explore w2g64 m"


def test_a_waiting_run_says_when_it_starts(store: RunStore, request_: CalibrateRequest) -> None:
    first, second, third = (store.create(request_) for _ in range(3))
    held = [store.take(run_id, "foreground") for run_id in (first, second, third)]
    for run_id in (first, second, third):
        store.queue.enter(run_id, "cpu")
    assert (store.get(third).position, store.get(third).wait) == (2, None)  # nobody has estimated anything
    store.expect(second, 100.0)
    for event in (ev.RunStarted(first, at=1000.0), ev.PhaseStarted("x", of=4, at=1000.0), ev.PhaseStep("x", 1, at=1030.0)):
        store.append(first, event)
    assert store.get(second).wait == pytest.approx(90.0)
    assert store.get(third).wait == pytest.approx(190.0)
    quiet = time.time() - 1000
    os.utime(store.folder(first) / "events.jsonl", (quiet, quiet))
    assert store.get(second).wait is None  # the one ahead may never end
    for alive in held:
        alive.release()


def test_a_run_without_news_is_told_and_not_ended(store: RunStore, request_: CalibrateRequest) -> None:
    run_id = store.create(request_)
    alive = store.take(run_id, "foreground")
    store.queue.enter(run_id, "cpu")
    store.append(run_id, ev.RunStarted(run_id))
    assert (store.get(run_id).status, store.get(run_id).silence_words) == ("running", "")
    path, now = store.folder(run_id) / "events.jsonl", time.time()
    os.utime(path, (now - 1000, now - 1000))
    assert store.get(run_id).silence_words == "no news for 17 min"
    os.utime(path, (now + 1e6, now + 1e6))  # the clock was set back
    assert store.get(run_id).silence is None
    alive.release()
    os.utime(path, (now - 1000, now - 1000))
    assert (store.get(run_id).status, store.get(run_id).silence_words) == ("interrupted", "")
