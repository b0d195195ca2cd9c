"""Every endpoint of the page called raw, as anybody can: refused in one sentence or answered, never with a traceback, never a file outside."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from benchmarks.endpoints import EVENTS, HOSTILE
from salq.core import events as ev
from salq.core import settings
from salq.models.catalogue import DEFAULT_MODEL
from salq.runs import worker
from salq.runs.requests import CalibrateRequest
from salq.runs.store import RunStore
from salq.ui.gate import MAX_BODY
from tests.e2e.test_app import get, served

pytestmark = pytest.mark.slow
BROKEN = (
    b"", b"{", b"[" * 5000, b"null", b'{"data": 7}', b'{"data": [], "fn_index": 99999}', b'{"data": [], "fn_index": -1, "session_hash": "x"}',
)  # fmt: skip
RECIPE = {"name": "rtn", "spec": {"bits": 2, "group_size": 64, "symmetric": False}}


@pytest.fixture
def store(salq_home: Path) -> RunStore:
    return RunStore(salq_home / "runs")


@pytest.fixture
def others(store: RunStore) -> tuple[str, str]:
    """Runs that somebody else made: one that is over, one that was interrupted."""
    done, stopped = (store.create(CalibrateRequest(model=DEFAULT_MODEL, recipe=RECIPE)) for _ in range(2))
    for event in (ev.RunStarted(done), ev.RunDone(1.0)):
        store.append(done, event)
    store.append(stopped, ev.RunStarted(stopped))
    return done, stopped


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs that a call started; no process comes up for them."""
    found: list[str] = []

    def start(store: RunStore, run_id: str) -> bool:
        store.clear_cancel(run_id)
        found.append(run_id)
        return True

    monkeypatch.setattr(worker, "start", start)
    return found


@pytest.fixture
def canary(tmp_path: Path, tiny_folder: Path) -> Path:
    """A folder with a model and a text that no visitor of a public host may have opened."""
    folder = tmp_path / "canary"
    folder.mkdir()
    for path in tiny_folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "text.txt").write_text("secret words " * 200)
    return folder


def test_private_endpoints_on_a_public_host(store: RunStore, others: tuple[str, str], canary: Path, salq_home: Path) -> None:
    before = {path: path.read_bytes() for path in store.root.rglob("*.json*")}
    around = {**os.environ, "SPACE_ID": "someone/salq", "SALQ_HOME": str(salq_home), "GRADIO_ANALYTICS_ENABLED": "False"}
    command = [sys.executable, "-m", "tests.e2e.raw_calls", str(canary), *others]
    done = subprocess.run(command, cwd=settings.ROOT, env=around, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Traceback" not in done.stderr, done.stderr[-4000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert len(found["told"]) >= found["endpoints"]
    assert not [words for words in found["told"] if "\n" in words or "Traceback" in words]
    assert not found["opened"]
    assert set(found["started"]).isdisjoint(others)
    assert {path: path.read_bytes() for path in before} == before
    assert store.get(others[1]).status == "interrupted"
    assert not store.is_cancel_requested(others[1])


def post(url: str, body: bytes) -> tuple[int, str]:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


def test_over_http_nothing_is_printed_but_lines(store: RunStore, salq_home: Path, tmp_path: Path) -> None:
    """Every value is hostile, so that no call starts anything. That no traceback is printed is checked where the page is served."""
    run_id = store.create(CalibrateRequest(model=DEFAULT_MODEL, recipe=RECIPE))
    generator = np.random.default_rng(5)
    with served(tmp_path / "app", SALQ_HOME=str(salq_home)) as (url, _):
        known = [one for one in json.loads(get(f"{url}config") or "")["dependencies"] if one["backend_fn"] and one["inputs"]]
        for one in known[::4]:
            data = [HOSTILE[int(generator.integers(len(HOSTILE)))] for _ in one["inputs"]]
            body = json.dumps({"data": data, "fn_index": one["id"], "session_hash": "x", "event_data": EVENTS[int(generator.integers(len(EVENTS)))]})
            assert "Traceback" not in post(f"{url}gradio_api/api/x", body.encode())[1]
        for bad in BROKEN:
            for path in ("gradio_api/api/x", "gradio_api/queue/join", "gradio_api/call/nothing"):
                assert "Traceback" not in post(url + path, bad)[1]
        assert post(url + "gradio_api/queue/join", b'{"data": ["' + b"a" * MAX_BODY + b'"]}')[0] in {400, 413}
        for name in ("/etc/passwd", "../../../etc/passwd", str(store.folder(run_id) / "request.json")):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(f"{url}gradio_api/file={name}", timeout=60)
            assert refused.value.code in {403, 404}
            refused.value.close()


def test_a_password_closes_the_page(tmp_path: Path) -> None:
    with served(tmp_path / "app", SALQ_PASSWORD="open sesame") as (url, _):
        assert post(f"{url}gradio_api/api/x", b'{"data": [], "fn_index": 0}')[0] == 401
        form = b"username=anybody&password="
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(f"{url}login", form + b"guess"), timeout=60)
        assert refused.value.code == 400
        refused.value.close()
        with urllib.request.urlopen(urllib.request.Request(f"{url}login", form + b"open+sesame"), timeout=60) as response:
            assert response.status == 200


def test_only_its_visitor_may_stop_or_resume_a_run(
    store: RunStore, others: tuple[str, str], started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from salq.core.errors import ConfigError
    from salq.ui import visitors

    class From:
        def __init__(self, username: str) -> None:
            self.username = username

    shared = visitors.SharedStore(store.root)
    visitors.visiting(From("ann"))
    own = shared.create(CalibrateRequest(model=DEFAULT_MODEL, recipe=RECIPE))
    worker.start(shared, own)
    assert shared.may_change(own)
    visitors.visiting(From("ben"))
    assert not shared.may_change(own)
    for refused in (shared.cancel, shared.clear_cancel, shared.delete):
        with pytest.raises(ConfigError, match="public host"):
            refused(own)
        with pytest.raises(ConfigError, match="public host"):
            refused(others[1])
    visitors.visiting(None)
    with pytest.raises(ConfigError):
        shared.cancel(own)
    visitors.visiting(From("ann"))
    shared.cancel(own)

    held = []
    for _ in range(visitors.OWN_RUNS):
        run_id = shared.create(CalibrateRequest(model=DEFAULT_MODEL, recipe=RECIPE))
        held.append(shared.take(run_id, "foreground"))
        shared.queue.enter(run_id, "cpu")
    with pytest.raises(ConfigError, match="is the limit"):
        shared.create(CalibrateRequest(model=DEFAULT_MODEL, recipe=RECIPE))
    visitors.visiting(From("ben"))
    shared.create(CalibrateRequest(model=DEFAULT_MODEL, recipe=RECIPE))
    for alive in held:
        alive.release()


def test_the_hostile_values_are_hostile() -> None:
    assert len(HOSTILE) > 60
    assert len(EVENTS) > 10
