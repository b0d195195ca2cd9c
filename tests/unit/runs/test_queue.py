"""First come, first served, per device; the dead do not count."""

from pathlib import Path

import pytest

from salq.runs.alive import Alive
from salq.runs.queue import Queue

IDS = [f"20260101-00000{number}-abcd" for number in range(4)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for run_id in IDS:
        (tmp_path / run_id).mkdir()
    return tmp_path


def enter(root: Path, run_id: str, device: str = "cpu") -> Alive:
    alive = Alive(root / run_id, "foreground")
    Queue(root).enter(run_id, device)
    return alive


def test_order_and_positions(root: Path) -> None:
    held = [enter(root, run_id) for run_id in IDS[:3]]
    queue = Queue(root)
    assert [queue.ahead(run_id) for run_id in IDS[:3]] == [[], IDS[:1], IDS[:2]]
    queue.leave(IDS[0])
    held[0].release()
    assert [queue.ahead(run_id) for run_id in IDS[1:3]] == [[], IDS[1:2]]
    assert queue.ahead(IDS[3]) is None
    for alive in held[1:]:
        alive.release()


def test_the_dead_do_not_block(root: Path) -> None:
    first, second = enter(root, IDS[0]), enter(root, IDS[1])
    first.release()  # as a killed process would, without leaving the queue
    assert Queue(root).ahead(IDS[1]) == []
    third = enter(root, IDS[2])
    again = enter(root, IDS[0])
    assert Queue(root).ahead(IDS[0]) == [IDS[1], IDS[2]]
    for alive in (second, third, again):
        alive.release()


def test_devices_do_not_wait_for_each_other_but_auto_does(root: Path) -> None:
    held = [enter(root, IDS[0], "cpu"), enter(root, IDS[1], "cuda"), enter(root, IDS[2], "cuda:0"), enter(root, IDS[3], "auto")]
    queue = Queue(root)
    assert queue.ahead(IDS[1]) == []
    assert queue.ahead(IDS[2]) == [IDS[1]]
    assert queue.ahead(IDS[3]) == IDS[:3]
    for alive in held:
        alive.release()


def test_several_jobs_at_a_time_when_the_setting_says_so(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALQ_JOBS", "2")
    held = [enter(root, run_id) for run_id in IDS]
    queue = Queue(root)
    assert [queue.ahead(run_id) for run_id in IDS] == [[], [], IDS[1:2], IDS[1:3]]
    queue.leave(IDS[0])
    held[0].release()
    assert queue.ahead(IDS[2]) == []
    for value in ("0", "-3", "many", "", "²"):
        monkeypatch.setenv("SALQ_JOBS", value)
        assert queue.ahead(IDS[2]) == [IDS[1]]
    for alive in held[1:]:
        alive.release()
