"""A small model hub on this machine: enough of the hub's own protocol for the hub client and `datasets` to list, check and download."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True)
class Asked:
    """A request taken apart: which repository, whether its API or its files, and what of it."""

    is_api: bool
    repo: str
    rest: list[str]

    @classmethod
    def of(cls, path: str) -> "Asked":
        parts = path.split("?")[0].strip("/").split("/")
        is_api = parts[0] == "api"
        parts = parts[1:] if is_api else parts
        if parts[0] == "datasets":
            return cls(is_api, "/".join(parts[:3]), parts[3:])
        parts = parts[1:] if is_api else parts
        return cls(is_api, "/".join(parts[:2]), parts[2:])


class _Handler(BaseHTTPRequestHandler):
    root: Path
    gated: frozenset[str]
    log: list[str]

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(with_body=True)

    def log_message(self, *arguments: Any) -> None:
        pass

    def _answer(self, *, with_body: bool) -> None:
        self.log.append(self.path)
        asked = Asked.of(self.path)
        folder = self.root / asked.repo
        if not asked.repo or not folder.is_dir():
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, with_body=with_body)
        elif asked.is_api:
            is_recursive = "recursive=true" in self.path.lower()
            is_tree = asked.rest[:1] == ["tree"]
            value = _tree(folder, "/".join(asked.rest[2:]), is_recursive=is_recursive) if is_tree else _info(asked.repo, folder)
            self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"}, with_body=with_body)
        elif asked.repo in self.gated:
            self._send(403, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"}, with_body=with_body)
        elif asked.rest[:1] == ["resolve"] and (folder / "/".join(asked.rest[2:])).is_file():
            content = (folder / "/".join(asked.rest[2:])).read_bytes()
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
            self._send(200, content, headers, with_body=with_body)
        else:
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, with_body=with_body)

    def _send(self, status: int, body: bytes, headers: dict[str, str], *, with_body: bool) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)


def _files(folder: Path) -> list[tuple[str, int, str]]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.relative_to(folder).as_posix(), path.stat().st_size, hashlib.sha1(path.read_bytes()).hexdigest()) for path in paths]


def _tree(folder: Path, under: str, *, is_recursive: bool) -> list[dict[str, Any]]:
    """Files below `under`; without recursion only what lies directly in it, folders as such."""
    entries: dict[str, dict[str, Any]] = {}
    for name, size, oid in _files(folder):
        inside = name.removeprefix(f"{under}/") if under else name
        if under and inside == name:
            continue
        if "/" in inside and not is_recursive:
            directory = name[: len(name) - len(inside)] + inside.split("/")[0]
            entries[directory] = {"type": "directory", "path": directory, "oid": oid}
        else:
            entries[name] = {"type": "file", "path": name, "size": size, "oid": oid}
    return list(entries.values())


def _info(repo: str, folder: Path) -> dict[str, Any]:
    siblings = [{"rfilename": name, "size": size, "blobId": oid} for name, size, oid in _files(folder)]
    name = repo.removeprefix("datasets/")
    return {"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False, "downloads": 0, "likes": 0}


@contextmanager
def hub(root: Path, gated: frozenset[str] = frozenset()) -> Iterator[tuple[str, list[str]]]:
    """Serve the folders `root/owner/name` as models and `root/datasets/owner/name` as data sets.

    Gives the address and the list of paths that were asked for.
    """
    log: list[str] = []
    handler = type("Handler", (_Handler,), {"root": root, "gated": gated, "log": log})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", log
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
