"""Progress on a terminal is one line that is redrawn; elsewhere it is plain lines."""

import io

import pytest

from salq.cli.display import Display
from salq.core import events as ev
from tests.unit.core.test_events import a_run


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines() -> None:
    stream = io.StringIO()
    progress = Display(stream).show(a_run())
    lines = stream.getvalue().splitlines()
    assert progress.outcome == "done"
    assert lines[0] == "load: 1 model"
    assert any(line.startswith("calibration: block 2/3 in 5.0 s, output error 10.0 %") for line in lines)
    assert lines[-1] == "evaluation: done in 4.0 s"
    assert "\r" not in stream.getvalue()


def test_a_terminal_gets_one_line() -> None:
    stream = Terminal()
    display = Display(stream)
    for event in a_run()[:-1]:
        display.add(event)
    shown = stream.getvalue()
    assert "\n" not in shown
    assert "block 1/3" in shown
    assert "left" in shown
    display.waiting(2)
    assert "2 runs are ahead on this device\x1b" in stream.getvalue()
    display.waiting(1, 90.0)
    assert "1 run is ahead on this device, starts in about 1 min 30 s" in stream.getvalue()
    display.close()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_the_result_of_a_generator_comes_through() -> None:
    def work() -> "ev.Any":
        yield ev.PhaseStarted("evaluation", 2, "windows")
        yield ev.PhaseStep("evaluation", 2)
        return 42

    stream = io.StringIO()
    assert Display(stream).watch(work()) == 42
    assert "evaluation: 2/2 windows" in stream.getvalue()


def test_an_error_leaves_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> "ev.Any":
        yield ev.PhaseStarted("evaluation", 2, "windows")
        raise ValueError("broken")

    stream = Terminal()
    with pytest.raises(ValueError, match="broken"):
        Display(stream).watch(work())
    assert stream.getvalue().endswith("\r\x1b[K")
