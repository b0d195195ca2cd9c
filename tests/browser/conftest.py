"""The real page in a real Chromium: a served page over a tiny LLaMA and an empty home, and pages that fail on any console error.

    def test_something(visit):
        page = visit("?tab=explore")              # visit(path, width=390, theme="dark")
        expect(page.locator("#explore-grid")).to_be_visible()

Test files set `pytestmark = pytest.mark.browser`: without a Chromium they are skipped, and under CI=true that is a failure.
A failed test leaves a screenshot and the page's document in test-results/; with SALQ_TRACE=1 in the environment also a trace
(`playwright show-trace`), whose snapshots make every test slower.
"""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, expect, sync_playwright

from salq.core import settings
from salq.models.tiny import save_tiny
from salq.runs.store import RunStore
from tests.plugins.no_skips import find_browser

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
START_SECONDS = 120
PATIENCE_MS = 30_000
"""How long `expect` waits: the page promises far less, but other tests share the cores."""

SERVE = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()  # ends with the tests, even when those are killed
from salq.ui.page import launch
launch(default_model=sys.argv[1], server_port=int(sys.argv[2]))
"""
RESULTS = settings.ROOT / "test-results"
TRACES = os.environ.get("SALQ_TRACE") == "1"
CUT_STREAM = re.compile("AbortError|Connection errored out|Unexpected error 404: Not Found|ERR_INCOMPLETE_CHUNKED_ENCODING|TypeError: network error")
LEAVING: set[Page] = set()  # the pages that `reload` reloads just now

TWO_FRAMES = """() => {
    const asked = performance.now();
    return new Promise((found) => requestAnimationFrame(() => requestAnimationFrame(() => found(performance.now() - asked))));
}"""
BEHIND_MS = 1_500

expect.set_options(timeout=PATIENCE_MS)


@dataclass(frozen=True)
class Served:
    """A running page: its address, the home it works in, the model that it shows first, and what it printed."""

    url: str
    home: Path
    model: Path
    log: Path

    @property
    def store(self) -> RunStore:
        """The run store that the page shows."""
        return RunStore(self.home / "runs")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved LLaMA of 3 blocks, as the page's default model."""
    return save_tiny(tmp_path_factory.mktemp("browser-models") / "tiny-llama", "smollm2-135m", seed=0, n_blocks=3)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Served]:
    """The page in a process of its own, one per test file, over an empty home. A traceback in its log fails the file's last test."""
    with serving(tmp_path_factory.mktemp("page"), tiny_model) as page:
        yield page


@contextmanager
def serving(folder: Path, model: Path, *, threads: int = 1) -> Iterator[Served]:
    """Serve the page with `model` as its default from `folder`, whose `home` may already hold models."""
    home, log, port = folder / "home", folder / "page.log", free_port()
    environment = os.environ | {
        "SALQ_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads), "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": str(folder / "gradio"), "PYTHONUNBUFFERED": "1",
    }  # fmt: skip
    for name in ("SPACE_ID", "SALQ_PUBLIC"):
        environment.pop(name, None)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(model), str(port)], cwd=settings.ROOT, env=environment, stdin=subprocess.PIPE,
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        page = Served(f"http://127.0.0.1:{port}/", home, model, log)
        wait_until_up(page.url, process, log)
        yield page
    finally:
        for info in page.store.list():
            if info.is_active:
                page.store.cancel(info.id)
        process.terminate()  # at once; how a page ends on Ctrl+C is looked at in tests/e2e/test_app.py
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdin.close()  # type: ignore[union-attr] - it is a pipe
    printed = without_cut_streams(log.read_text(errors="replace"))
    assert "Traceback" not in printed, printed[-4000:]


def without_cut_streams(printed: str) -> str:
    """A page's log without what Gradio prints when a visitor reloads or leaves while one of their event streams is being opened."""
    first, *reports = printed.split("Exception in ASGI application\n")
    cut = [
        report.partition("response already started.\n")[2] if "in sse_stream" in report and "HTTPException: 404: Not Found" in report else report
        for report in reports
    ]
    return "".join([first, *cut])


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for the session."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=find_browser(), args=FLAGS)
        yield chromium
        chromium.close()


Visit = Callable[..., Page]


@pytest.fixture(scope="module")
def usual(browser: Browser) -> Iterator[list[BrowserContext]]:
    """At most one context, for the first visit of every test of a file: its cache holds the page's scripts, and its storage is emptied in between."""
    kept: list[BrowserContext] = []
    yield kept
    for context in kept:
        context.close()


@pytest.fixture
def visit(served: Served, browser: Browser, usual: list[BrowserContext], request: pytest.FixtureRequest) -> Iterator[Visit]:
    """`visit(path="", width=1440, theme="light")` opens the page as a visitor of its own and waits until it can be used.

    Any console error or uncaught exception on any of the test's pages fails the test, except for what `reload` explains.
    """
    pages: list[Page] = []
    problems: list[str] = []

    def listen(page: Page) -> None:
        page.on("pageerror", lambda error: problems.append(f"uncaught: {error}"))
        page.on("console", lambda message: problems.extend(one for one in as_problem(message) if not (page in LEAVING and CUT_STREAM.search(one))))

    def open_page(path: str = "", *, width: int = 1440, theme: str = "light") -> Page:
        if pages or not usual:
            context = new_context(browser)
            if not pages:
                usual.append(context)
        else:
            context = usual[0]
        page = context.new_page()
        pages.append(page)
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
        listen(page)
        mark = "&" if "?" in path else "?"
        page.goto(f"{served.url}{path}{mark}__theme={theme}")
        expect(page.locator("#tab-learn-button")).to_be_visible()
        expect(page.locator("#device-note")).to_contain_text("float")  # the last thing that opening the page fills in
        bring_to_front(page)
        return page

    yield open_page
    failed = getattr(request.node, "has_failed", False)
    if failed:
        keep_evidence(pages, request.node.name)
    leave(pages, usual, keep=not failed)
    assert not problems, "\n".join(problems)


def bring_to_front(page: Page) -> None:
    """Return once the page draws frames: tabs of one visitor share a window, and one behind draws a frame a second; a click waits for two."""
    for _ in range(5):
        page.bring_to_front()
        if page.evaluate(TWO_FRAMES) < BEHIND_MS:
            return


def reload(page: Page) -> None:
    """Reload the page, and take no notice of what its old document says of event streams until the new one is there.

    Gradio closes a document's stream on `beforeunload`. A timer that ticks between that and the new document opens another, and the
    server, which forgets a session when its stream is cut, answers it with 404 in mid-stream.
    """
    LEAVING.add(page)
    try:
        page.reload()
    finally:
        LEAVING.discard(page)


def new_context(browser: Browser) -> BrowserContext:
    """A visitor whom nobody knows yet."""
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_MS)
    if TRACES:
        context.tracing.start(snapshots=True)
    return context


def leave(pages: list[Page], usual: list[BrowserContext], *, keep: bool) -> None:
    """Close a test's pages; what the usual visitor's browser remembers of this one is forgotten, or the visitor with it after a failure."""
    for page in pages:
        is_usual = page.context in usual
        if is_usual and keep:
            page.evaluate("localStorage.clear()")
            page.context.clear_cookies()
            page.context.clear_permissions()
            page.close()
            continue
        if is_usual:
            usual.clear()
        page.context.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Tell `visit` whether the test failed."""
    report = yield
    if report.when == "call" and report.failed:
        item.has_failed = True  # type: ignore[attr-defined]
    return report


def as_problem(message: ConsoleMessage) -> list[str]:
    """The console message as a problem, when it is one."""
    return [f"console: {message.text} ({message.location.get('url', '')})"] if message.type == "error" else []


def keep_evidence(pages: list[Page], name: str) -> None:
    """After a failure: what the pages looked like, their document and, where traces are kept, everything that they did."""
    RESULTS.mkdir(exist_ok=True)
    for number, page in enumerate(pages):
        path = RESULTS / re.sub(r"[^\w.-]+", "-", f"{name}-{number}")
        page.screenshot(path=path.with_suffix(".png"), full_page=True)
        path.with_suffix(".html").write_text(page.content(), encoding="utf-8")
        if TRACES:
            page.context.tracing.stop(path=path.with_suffix(".zip"))


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_up(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return once the page answers; fail with its log when it does not."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text(errors="replace")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    raise AssertionError(f"no page after {START_SECONDS} s:\n{log.read_text(errors='replace')}")


def choose(page: Page, picker: str, name: str | re.Pattern[str]) -> None:
    """Pick an option of the picker with that elem_id. A list that opened while the page above it grew stays where it was, maybe out of sight."""
    option, box = page.get_by_role("option", name=name).first, page.locator(f"#{picker} input")
    for patience in (3_000, 3_000, 10_000, PATIENCE_MS):
        box.evaluate("(one) => { one.blur(); one.scrollIntoView({ block: 'center' }); }")  # a list opens when its field gets the focus
        page.wait_for_timeout(300)
        box.click()
        try:
            expect(option).to_be_in_viewport(timeout=patience)
        except AssertionError:
            continue
        option.click()
        expect(page.get_by_role("option")).to_have_count(0)
        return
    raise AssertionError(f"no option {name!r} of #{picker} came into view")


def enter(field: Locator, value: str) -> None:
    """Type into a field until it stays: one whose fold has just opened takes its old value once more."""
    for _ in range(20):
        field.fill(value)
        field.press("Tab")
        field.page.wait_for_timeout(250)
        if field.input_value() == value:
            return
    expect(field).to_have_value(value)


def drawn(page: Page, plot: str) -> dict[str, Any]:
    """What plotly has drawn in the plot with that elem_id: traces (type, name, size of z or x) and axis titles. Waits until it is there."""
    page.locator(f"#{plot} .js-plotly-plot .main-svg").first.wait_for()
    return page.evaluate(
        """(id) => {
            const plot = document.querySelector(`#${id} .js-plotly-plot`), layout = plot._fullLayout;
            const size = (trace) => (trace.z ? [trace.z.length, trace.z[0].length] : [trace.x ? trace.x.length : 0]);
            const traces = plot._fullData.map((trace) => ({ type: trace.type, name: trace.name, size: size(trace) }));
            return { traces, x: layout.xaxis.title.text, y: layout.yaxis.title.text };
        }""",
        plot,
    )
