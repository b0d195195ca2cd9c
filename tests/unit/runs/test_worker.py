"""Runs in a process of their own: started once, found by others, stopped, killed, resumed, queued."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from salq.core import events as ev
from salq.core import settings
from salq.core.errors import StoreError
from salq.runs import alive
from salq.runs.alive import holder
from salq.runs.execute import execute
from salq.runs.store import RunStore
from salq.runs.worker import last_line, start
from tests.unit.runs.conftest import ENDED, MakeRequest, spelled

SECONDS = 120.0


@pytest.fixture(autouse=True)
def no_worker_is_left(store: RunStore) -> Iterator[None]:
    yield
    for info in store.list():
        if (found := holder(store.folder(info.id))) is not None and found.pid != os.getpid():
            os.kill(found.pid, signal.SIGKILL)


def wait_for(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen")


def has_steps(store: RunStore, run_id: str) -> bool:
    return any(isinstance(event, ev.StepDone) for event in store.events(run_id))


def test_a_worker_finishes_a_run_and_starting_again_does_nothing(store: RunStore, make_request: MakeRequest) -> None:
    run_id = store.create(make_request("rtn"))
    assert start(store, run_id)
    wait_for(lambda: store.get(run_id).status == "done")
    assert not start(store, run_id)
    assert ENDED.fullmatch(spelled(store.events(run_id)))
    assert "RunDone" in (store.folder(run_id) / "worker.log").read_text()


def test_cancel_kill_and_resume_give_the_same_codes(store: RunStore, make_request: MakeRequest, codes: Callable[[str], list[bytes]]) -> None:
    request = make_request(changes={"epochs": 20})
    run_id, whole = store.create(request), store.create(request)
    start(store, run_id)
    assert not start(store, run_id)
    wait_for(lambda: has_steps(store, run_id))
    assert store.get(run_id).status == "running"
    with pytest.raises(StoreError, match="still running"):
        store.delete(run_id)
    worker = holder(store.folder(run_id))
    assert worker is not None
    process = psutil.Process(worker.pid)
    assert process.memory_info().rss > 50e6
    store.cancel(run_id)
    process.wait(60)  # its memory is back; benchmarks/results/reliability.json has the seconds of a quiet machine
    wait_for(lambda: not store.is_alive(run_id))
    assert store.get(run_id).status == "cancelled"

    start(store, run_id)
    wait_for(lambda: store.finished_blocks(run_id) == 1)
    found = holder(store.folder(run_id))
    assert found is not None
    os.kill(found.pid, signal.SIGKILL)
    wait_for(lambda: not store.is_alive(run_id))
    assert store.get(run_id).status == "interrupted"
    assert store.finished_blocks(run_id) >= 1

    list(execute(store, run_id))
    list(execute(store, whole))
    assert store.get(run_id).status == store.get(whole).status == "done"
    assert codes(run_id) == codes(whole)


def test_the_second_run_waits_its_turn_and_can_be_cancelled_there(store: RunStore, make_request: MakeRequest) -> None:
    first, second = (store.create(make_request(changes={"epochs": 400})) for _ in range(2))
    start(store, first)
    start(store, second)
    info = store.get(second)
    assert (info.status, info.position) == ("queued", 1)
    store.cancel(second)
    wait_for(lambda: not store.is_alive(second))
    assert store.get(second).status == "cancelled"
    assert spelled(store.events(second)) == "SC"
    store.cancel(first)
    wait_for(lambda: store.get(first).status == "cancelled")


def test_a_worker_that_hangs_beyond_its_own_reach_is_ended_by_cancel(
    store: RunStore, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alive, "KILL_SECONDS", 0.5)
    stuck, behind = store.create(make_request(changes={"epochs": 400})), store.create(make_request("rtn"))
    start(store, stuck)
    wait_for(lambda: has_steps(store, stuck))
    worker = holder(store.folder(stuck))
    assert worker is not None
    os.kill(worker.pid, signal.SIGSTOP)
    start(store, behind)
    assert store.get(behind).position == 1
    store.cancel(stuck)
    wait_for(lambda: store.get(stuck).status == "cancelled")
    assert store.get(stuck).problem == "Cancelled; 0 finished blocks are kept, resume goes on from there."  # it could not say so itself
    wait_for(lambda: store.get(behind).status == "done")


def test_a_damaged_request_is_refused_at_once(store: RunStore, make_request: MakeRequest) -> None:
    run_id = store.create(make_request("rtn"))
    for path in store.folder(run_id).glob("request*.json"):
        path.write_text("{")
    with pytest.raises(StoreError, match="cannot be read"):
        start(store, run_id)


def test_last_line(store: RunStore, make_request: MakeRequest) -> None:
    path = store.folder(store.create(make_request("rtn"))) / "worker.log"
    assert last_line(path) == ""
    path.write_bytes(b"first\nlast \xff words\n\n")
    assert last_line(path) == "last \ufffd words"


STUCK = """
import signal, sys, threading, time
from salq.runs import worker

worker.STOP_SECONDS = 0.5
import hashlib
signal.signal(signal.SIGTERM, lambda *_: None)  # the worker's own handler would end a process that has not yet begun its operation
worker._end_in_any_case()
print("ready", flush=True)
hashlib.pbkdf2_hmac("sha256", b"long", b"operation", 2_000_000_000)
"""


def test_a_worker_inside_one_long_operation_ends_too() -> None:
    """Handlers of Python's run between two of its operations only, and the product of two large matrices is one."""
    process = subprocess.Popen([sys.executable, "-c", STUCK], cwd=settings.ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    process.stdout.close()
