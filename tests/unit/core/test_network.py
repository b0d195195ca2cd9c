"""Whether the hub answers is found out in two seconds, remembered for ten minutes, and never asked when the user forbade it."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from salq.core import network
from salq.core.network import REMEMBER_SECONDS, hub_answers


@pytest.fixture(autouse=True)
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A hub that answers every request with one status; gives the list of requests."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(self.path)
            self.send_response(request.param)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}/")
    yield asked
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("server", [200], indirect=True)
def test_an_answer_is_remembered(server: list[str], salq_home: Path) -> None:
    assert hub_answers()
    assert hub_answers()
    assert len(server) == 1
    note = json.loads((salq_home / "hub.json").read_text())
    (salq_home / "hub.json").write_text(json.dumps(note | {"at": time.time() - REMEMBER_SECONDS - 1}))
    assert hub_answers()
    assert len(server) == 2


@pytest.mark.parametrize("server", [404, 500, 429], indirect=True)
def test_a_refusal_is_no_hub(server: list[str]) -> None:
    assert not hub_answers()
    assert not hub_answers()
    assert len(server) == 1


@pytest.mark.parametrize("content", ["", "{", "[]", '{"endpoint": 3}'])
@pytest.mark.parametrize("server", [200], indirect=True)
def test_a_damaged_note_is_asked_anew(server: list[str], salq_home: Path, content: str) -> None:
    salq_home.mkdir()
    (salq_home / "hub.json").write_text(content)
    assert hub_answers()


@pytest.mark.parametrize("server", [200], indirect=True)
def test_another_address_is_asked_anew(server: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub_answers()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert not hub_answers()


def test_a_silent_hub_is_given_up_and_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(network, "PROBE_SECONDS", 0.2)  # long enough for nobody to answer in
        assert not hub_answers()
        assert not hub_answers()
        silent.settimeout(0.3)  # a second question would be waiting already
        silent.accept()[0].close()
        with pytest.raises(TimeoutError):
            silent.accept()


@pytest.mark.parametrize("server", [200], indirect=True)
def test_an_offline_user_is_never_asked_for(server: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert not hub_answers()
    assert server == []


@pytest.mark.parametrize("endpoint", ["", "not an address", "ftp://127.0.0.1", "http://"])
def test_an_address_that_is_none(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    assert not hub_answers()
