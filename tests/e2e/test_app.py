"""`python app.py` in an empty home with almost no environment: on a person's machine, and as on a HF Space."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from salq.core import settings
from salq.ui import words

SECONDS = 120
"""Far above the promise of 10 s: other tests run beside this one. docs/promises.md has the figure of a quiet machine."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * SECONDS)]


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(url: str) -> str | None:
    """The body; None while nothing answers."""
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.read().decode()
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None


def hears_ctrl_c() -> None:
    """Undo what a shell does to a background job (`make test &`): its processes, and theirs, are started with Ctrl-C ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def served(home: Path, **environment: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """(address, process) of the app, once it answers; ended with Ctrl-C, as a person would."""
    port, log = free_port(), home / "app.log"
    home.mkdir()
    known = {"HOME": str(home), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "GRADIO_SERVER_PORT": str(port)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=settings.ROOT, env=known | environment, stdout=output, stderr=output, start_new_session=True,
            preexec_fn=hears_ctrl_c,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}/"
    try:
        deadline = time.monotonic() + SECONDS
        while get(url) is None:
            assert process.poll() is None, f"app.py ended with {process.returncode}:\n{log.read_text()}"
            assert time.monotonic() < deadline, f"no page after {SECONDS} s:\n{log.read_text()}"
            time.sleep(0.2)
        yield url, process
        assert process.poll() is None, log.read_text()
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=120)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The app as `make run` starts it."""
    with served(tmp_path_factory.mktemp("local") / "home") as app:
        yield app


def test_local_start(local: tuple[str, subprocess.Popen[bytes]]) -> None:
    url, _ = local
    assert words.TITLE in (get(url) or "")
    assert words.MODEL_INFO_LOCAL in (get(url + "config") or "")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")
def test_the_first_page_needs_no_torch(local: tuple[str, subprocess.Popen[bytes]]) -> None:
    url, process = local
    assert get(url)
    assert "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text()


def test_listens_to_this_machine_only(local: tuple[str, subprocess.Popen[bytes]]) -> None:
    _, process = local
    listening = [at.laddr.ip for at in psutil.Process(process.pid).net_connections(kind="inet") if at.status == psutil.CONN_LISTEN]
    assert set(listening) == {"127.0.0.1"}


def test_start_as_on_a_space(tmp_path: Path) -> None:
    """HF Spaces sets SPACE_ID and lets Gradio listen to the outside; the caps for a public host then apply.

    Not set here: SYSTEM=spaces, which also switches on Gradio's hot reload for a package that only HF's own images bring.
    """
    with served(tmp_path / "home", SPACE_ID="someone/salq", GRADIO_SERVER_NAME="0.0.0.0") as (url, _):
        config = get(url + "config") or ""
        assert words.MODEL_INFO_PUBLIC in config
        assert words.MODEL_INFO_LOCAL not in config
