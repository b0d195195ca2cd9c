"""Chat through real processes: answers, stop, queue, crash, death of the parent, errors in one sentence."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from salq.calibration.store import DirectoryBlocks
from salq.chat.lockstep import Side, lockstep
from salq.chat.participants import Participant
from salq.chat.pool import ChatPool
from salq.chat.process import ChatProcess
from salq.chat.sampling import Sampling
from salq.core import settings
from salq.kernels.assemble import rtn_blocks
from salq.models.llama import Llama
from salq.quant.spec import QuantSpec

HELLO = [{"role": "user", "content": "Hello there"}]
LONG = Sampling(max_new_tokens=1024)
"""Greedy, the tiny model soon repeats itself and never ends by itself: seconds of writing unless it is stopped."""


@pytest.fixture(scope="module")
def pool() -> Iterator[ChatPool]:
    """One pool for the module: starting a process takes seconds."""
    pool = ChatPool(limit=3)
    yield pool
    pool.close()
    assert pool.processes() == []


@pytest.fixture
def original(tiny_folder: Path) -> Participant:
    return Participant.original(str(tiny_folder))


def last(sides: Iterator[tuple[Side, ...]]) -> tuple[Side, ...]:
    for state in sides:
        result = state
    return result


def wait_for(condition, seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


def test_original_rtn_and_run_answer_side_by_side(pool: ChatPool, original: Participant, tiny: Llama, tmp_path: Path) -> None:
    blocks = DirectoryBlocks(tmp_path / "blocks")
    blocks.save(0, rtn_blocks(tiny, QuantSpec(bits=4))[0])  # a run that calibrated the first block only
    others = [Participant.rtn(original.model, QuantSpec(bits=8, group_size=32)), Participant.run("r1", original.model, blocks.folder, "half a run")]
    sides = last(lockstep(pool, [original, *others], [HELLO] * 3, Sampling(max_new_tokens=12), threading.Event()))
    assert [side.state for side in sides] == ["done"] * 3
    assert all(0 < side.count <= 12 and side.first_token_seconds and side.memory_gb for side in sides)
    assert sides[0].reference == "full precision"
    assert len({process.pid for process in pool.processes()}) == 3
    again = last(lockstep(pool, [original], [HELLO], Sampling(max_new_tokens=12), threading.Event()))
    assert again[0].text == sides[0].text


def test_memory_is_that_of_the_process(pool: ChatPool, original: Participant) -> None:
    last(lockstep(pool, [original], [HELLO], Sampling(max_new_tokens=2), threading.Event()))
    process = next(process for process in pool.processes() if process.participant == original)
    truth = psutil.Process(process.pid).memory_full_info()
    assert process.memory_gb == pytest.approx(getattr(truth, "pss", truth.rss) / 1e9, rel=0.2)


def test_stop_ends_the_answer_within_tokens(pool: ChatPool, original: Participant) -> None:
    stop = threading.Event()
    stopped_at = None
    for sides in lockstep(pool, [original], [HELLO], LONG, stop):
        if sides[0].count >= 5 and not stop.is_set():
            stop.set()
            stopped_at = time.monotonic()
    assert sides[0].state == "stopped"
    assert sides[0].text
    assert stopped_at is not None
    assert time.monotonic() - stopped_at < 5


def test_leaving_the_page_stops_the_model(pool: ChatPool, original: Participant) -> None:
    sides = lockstep(pool, [original], [HELLO], LONG, threading.Event())
    while next(sides)[0].count < 2:
        pass
    sides.close()
    answer = last(lockstep(pool, [original], [HELLO], Sampling(max_new_tokens=3), threading.Event()))
    assert answer[0].state == "done"


def test_the_second_visitor_waits_and_is_told(pool: ChatPool, original: Participant) -> None:
    first_stop = threading.Event()
    first = lockstep(pool, [original], [HELLO], LONG, first_stop)
    while next(first)[0].count < 2:
        pass
    second = lockstep(pool, [original], [HELLO], Sampling(max_new_tokens=3), threading.Event())
    waiting = next(second)[0]
    assert waiting.state == "waiting"
    assert "another visitor" in waiting.message
    first_stop.set()
    last(first)
    assert last(second)[0].state == "done"


def test_a_waiting_visitor_can_stop_waiting(pool: ChatPool, original: Participant) -> None:
    first = lockstep(pool, [original], [HELLO], LONG, threading.Event())
    while next(first)[0].count < 2:
        pass
    stop = threading.Event()
    second = lockstep(pool, [original], [HELLO], LONG, stop)
    assert next(second)[0].state == "waiting"
    stop.set()
    assert last(second)[0].state == "stopped"
    first.close()


def test_a_crash_is_told_and_the_next_message_starts_a_new_process(pool: ChatPool, original: Participant) -> None:
    sides = lockstep(pool, [original], [HELLO], LONG, threading.Event())
    while next(sides)[0].count < 2:
        pass
    process = next(process for process in pool.processes() if process.participant == original)
    old = process.pid
    os.kill(old, signal.SIGKILL)
    crashed = last(sides)[0]
    assert crashed.state == "failed"
    assert "killed" in crashed.message
    answer = last(lockstep(pool, [original], [HELLO], Sampling(max_new_tokens=3), threading.Event()))[0]
    assert answer.state == "done"
    assert process.pid not in {None, old}


@pytest.mark.parametrize(
    ("participant", "sentence"),
    [
        (lambda folder: Participant.rtn(str(folder), QuantSpec(bits=3, group_size=100)), "group size 100"),
        (lambda folder: Participant.run("gone", str(folder), folder / "no-blocks"), "gone has no finished block"),
        (lambda folder: Participant.original("no-such-model"), "no-such-model"),
    ],
)
def test_a_loading_error_is_one_sentence(tiny_folder: Path, participant, sentence: str) -> None:
    process = ChatProcess(participant(tiny_folder))
    events = list(process.stream(HELLO, Sampling(), threading.Event()))
    assert events[-1]["event"] == "error"
    assert sentence in events[-1]["message"]
    assert "Traceback" not in events[-1]["message"]
    assert process.pid is None


def test_a_bad_conversation_is_an_error_and_the_process_lives(pool: ChatPool, original: Participant) -> None:
    side = last(lockstep(pool, [original], [[{"role": "user", "content": ""}]], Sampling(), threading.Event()))[0]
    assert side.state == "failed"
    assert "not empty" in side.message
    assert last(lockstep(pool, [original], [HELLO], Sampling(max_new_tokens=2), threading.Event()))[0].state == "done"


def test_the_least_recently_used_process_is_closed(tiny_folder: Path, original: Participant) -> None:
    small = ChatPool(limit=1)
    last(lockstep(small, [original], [HELLO], Sampling(max_new_tokens=2), threading.Event()))
    first = small.processes()[0]
    pid = first.pid
    other = Participant.rtn(original.model, QuantSpec(bits=4))
    assert last(lockstep(small, [other], [HELLO], Sampling(max_new_tokens=2), threading.Event()))[0].state == "done"
    assert [process.participant for process in small.processes()] == [other]
    assert not psutil.pid_exists(pid)
    small.close()


PARENT = """
import sys, threading
from salq.chat.participants import Participant
from salq.chat.process import ChatProcess
from salq.chat.sampling import Sampling
process = ChatProcess(Participant.original(sys.argv[1]))
for event in process.stream([{"role": "user", "content": "hi"}], Sampling(max_new_tokens=1024), threading.Event()):
    if event["event"] == "token":
        print(process.pid, flush=True)
        break_here = sys.stdin.readline()
"""


def test_the_process_dies_with_its_parent(tiny_folder: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tiny_folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=settings.ROOT
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 15)


def test_a_process_that_cannot_load_ends_in_order_while_somebody_may_still_write_to_it() -> None:
    pipe, around = subprocess.PIPE, {**os.environ, "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen([sys.executable, "-m", "salq.chat.serve"], stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=around) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdin.write('{"op": "load", "participant": {"kind": "nothing"}}\n')
        child.stdin.flush()
        assert "not a participant" in child.stdout.readline()
        assert child.wait(60) == 0
        assert child.stderr.read() == ""
