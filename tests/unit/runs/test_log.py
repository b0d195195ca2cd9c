"""The event log: what is written is read, torn lines are passed over, and readers can go on where they stopped."""

from pathlib import Path

import pytest

from salq.core import events as ev
from salq.core.progress import fold
from salq.runs import log


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def steps(n: int) -> list[ev.Event]:
    return [ev.StepDone(0, "output", step, n, {"output_mse": 1.0 / step}) for step in range(1, n + 1)]


def test_append_stamps_the_time_and_reads_back(path: Path) -> None:
    written = [log.append(path, event) for event in (ev.RunStarted("r"), ev.RunDone(1.0))]
    assert all(event.at is not None for event in written)
    assert log.read(path)[0] == written


def test_a_missing_log_has_no_events(path: Path) -> None:
    assert log.read(path) == ([], 0)


def test_nan_and_infinity_become_null(path: Path) -> None:
    log.append(path, ev.MetricReported("perplexity", {"a": [float("inf"), 1.0], "b": float("nan")}))
    assert log.read(path)[0][0].value == {"a": [None, 1.0], "b": None}


def test_a_torn_end_is_skipped_and_the_next_writer_goes_on_a_new_line(path: Path) -> None:
    log.append(path, ev.RunStarted("r"))
    with path.open("ab") as file:
        file.write(b'{"kind": "StepDone", "blo')
    assert len(log.read(path)[0]) == 1
    log.append(path, ev.RunDone(1.0))
    assert [type(event) for event in log.read(path)[0]] == [ev.RunStarted, ev.RunDone]


def test_a_whole_last_line_without_newline_counts_once(path: Path) -> None:
    log.append(path, ev.RunStarted("r"))
    log.append(path, ev.RunDone(1.0))
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    follower = log.Follower(path)
    assert len(follower.update()) == 2
    log.append(path, ev.RunStarted("r", resumed=True))
    assert [type(event) for event in follower.update()] == [ev.RunStarted]


def test_foreign_lines_are_passed_over(path: Path) -> None:
    path.write_bytes(b'\xff\xfe\n{"kind": "Unknown"}\n[1, 2]\nnull\n' + b"[" * 5000 + b"\n")
    log.append(path, ev.RunDone(1.0))
    assert [type(event) for event in log.read(path)[0]] == [ev.RunDone]


def test_following_equals_reading_all(path: Path) -> None:
    events: list[ev.Event] = [ev.RunStarted("r"), ev.PhaseStarted("calibration", 1), ev.BlockStarted(0, 1), *steps(20), ev.RunCancelled(0)]
    follower, seen = log.Follower(path), []
    for event in events:
        log.append(path, event)
        seen += follower.update()
    assert seen == log.read(path)[0]
    assert follower.progress == fold(seen)
    assert follower.update() == []


def test_a_cut_log_is_followed_from_its_beginning(path: Path) -> None:
    for event in (ev.RunStarted("r"), *steps(5)):
        log.append(path, event)
    follower = log.Follower(path)
    follower.update()
    first = path.read_bytes().splitlines(keepends=True)[0]
    path.write_bytes(first)
    follower.update()
    assert follower.progress == fold(log.read(path)[0])


def test_reading_without_steps_keeps_the_last_and_the_outcome(path: Path) -> None:
    for event in (ev.RunStarted("r"), ev.PhaseStarted("calibration", 2), ev.BlockStarted(0, 2), *steps(50)):
        log.append(path, event)
    light, full = log.read(path, steps=False)[0], log.read(path)[0]
    assert len(light) == 4
    assert fold(light).fraction == fold(full).fraction
    assert fold(light).eta == fold(full).eta
