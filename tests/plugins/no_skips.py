"""What a machine lacks is said aloud; and where CI=true promises a full machine, a skipped test of these kinds is a failure.

Tests say what they need by a marker. Here it is looked up once, so that a test body never asks:
    browser    -> the `chromium` on this machine (SALQ_CHROMIUM names another)
    gpu        -> a CUDA GPU (never promised by CI: a missing one is a printed skip everywhere)
    interpret  -> triton
"""

import importlib.util
import os
import shutil
from collections.abc import Callable, Generator, Iterable

import pytest

PROMISED = ("browser", "real_model", "interpret")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
GET_A_BROWSER = "install one (Debian and Ubuntu: apt-get install chromium) or let SALQ_CHROMIUM name its executable"


def find_browser() -> str | None:
    """The browser that the tests drive, or None."""
    return os.environ.get("SALQ_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)


def why_no_browser() -> str | None:
    """None when a browser is there; else what to do."""
    return None if find_browser() else f"no Chromium here; {GET_A_BROWSER}"


def why_no_gpu() -> str | None:
    """None when a CUDA GPU answers. Imports torch: called only when a test asks for a GPU."""
    import torch

    return None if torch.cuda.is_available() else "no CUDA GPU here"


def why_no_interpreter() -> str | None:
    """None when triton is installed."""
    return None if importlib.util.find_spec("triton") else "triton is not installed here (it exists for Linux)"


NEEDS: dict[str, Callable[[], str | None]] = {"browser": why_no_browser, "gpu": why_no_gpu, "interpret": why_no_interpreter}


def on_full_machine() -> bool:
    """True where CI=true promises a browser, the default model and triton."""
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}


def promised_kinds(markers: Iterable[str]) -> list[str]:
    """Which of a test's markers may not be skipped on a full machine."""
    names = set(markers)
    return [kind for kind in PROMISED if kind in names]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine cannot do, with the reason."""
    for kind, why_not in NEEDS.items():
        if item.get_closest_marker(kind) and (reason := why_not()):
            pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under CI a skipped test of a promised kind fails."""
    report = yield
    kinds = promised_kinds(marker.name for marker in item.iter_markers())
    if report.skipped and not hasattr(report, "wasxfail") and kinds and on_full_machine():
        report.outcome, report.longrepr = "failed", f"CI=true and this {kinds[0]} test was skipped: {_reason(report.longrepr)}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Under CI a test file that skips itself as a whole fails: it may hold any kind."""
    report = yield
    if report.outcome == "skipped" and on_full_machine():
        report.outcome, report.longrepr = "failed", f"CI=true and all of {collector.nodeid} was skipped: {_reason(report.longrepr)}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line on how to get the browser, when tests had to do without."""
    skipped = terminalreporter.stats.get("skipped", [])
    without = sum("no Chromium here" in str(report.longrepr) for report in skipped)
    if without:
        terminalreporter.write_line(f"{without} browser tests were skipped: {GET_A_BROWSER}, then run `make test` again.", yellow=True)


def _reason(longrepr: object) -> str:
    return str(longrepr[2]) if isinstance(longrepr, tuple) else str(longrepr)
