"""A small model hub on this machine: enough of the hub's own protocol for the hub client to list, check and download models."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Handler(BaseHTTPRequestHandler):
    root: Path
    gated: frozenset[str]
    asked: list[str]

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, *arguments: Any) -> None:
        pass

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.split("?")[0].strip("/")
        self.asked.append(path)
        parts = path.removeprefix("api/models/").split("/")
        repo, rest = "/".join(parts[:2]), parts[2:]
        folder = self.root / repo
        if not folder.is_dir():
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, with_body=with_body)
        elif path.startswith("api/models/") and rest[:1] == ["tree"]:
            self._send(200, json.dumps(self._tree(folder)).encode(), {"Content-Type": "application/json"}, with_body=with_body)
        elif path.startswith("api/models/"):
            self._send(200, json.dumps(self._info(repo, folder)).encode(), {"Content-Type": "application/json"}, with_body=with_body)
        elif repo in self.gated:
            self._send(403, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"}, with_body=with_body)
        elif rest[:1] == ["resolve"] and (folder / "/".join(rest[2:])).is_file():
            content = (folder / "/".join(rest[2:])).read_bytes()
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
            self._send(200, content, headers, with_body=with_body)
        else:
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, with_body=with_body)

    def _files(self, folder: Path) -> list[tuple[str, int, str]]:
        return [(path.name, path.stat().st_size, hashlib.sha1(path.read_bytes()).hexdigest()) for path in sorted(folder.iterdir())]

    def _tree(self, folder: Path) -> list[dict[str, Any]]:
        return [{"type": "file", "path": name, "size": size, "oid": oid} for name, size, oid in self._files(folder)]

    def _info(self, repo: str, folder: Path) -> dict[str, Any]:
        siblings = [{"rfilename": name, "size": size, "blobId": oid} for name, size, oid in self._files(folder)]
        return {"id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False, "downloads": 0, "likes": 0}

    def _send(self, status: int, body: bytes, headers: dict[str, str], *, with_body: bool) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)


@contextmanager
def hub(root: Path, gated: frozenset[str] = frozenset()) -> Iterator[tuple[str, list[str]]]:
    """Serve the folders `root/owner/name` as models; gives the address and the list of paths that were asked for."""
    asked: list[str] = []
    handler = type("Handler", (_Handler,), {"root": root, "gated": gated, "asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
