"""A small API server in this process: objects with versions, compare-and-swap, watches. And a kubeconfig for it."""

from __future__ import annotations

import base64
import copy
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import yaml

__all__ = ["FakeApi", "binding_status", "kubeconfig", "projection"]

Object = dict[str, Any]
_BINDINGS = "/apis/memferry.dev/v1alpha1/namespaces/default/memorybindings"
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
_SECRETS = "/api/v1/namespaces/default/secrets"


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Connections that end are what is tested."""


class FakeApi:
    """What a client sees of a cluster. Everything is kept by its path."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.changed = threading.Condition()
        self.requests: list[tuple[str, str]] = []
        self._version = 0
        self._closed = False
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                fake.get(self)

            def do_POST(self) -> None:
                fake.create(self)

            def do_PUT(self) -> None:
                fake.replace(self)

            def log_message(self, *_: object) -> None:
                """Is not told."""

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self.changed:
            self._closed = True
            self.changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    # --- by the test

    def put(self, path: str, body: Object) -> Object:
        """Writes an object, whatever is there."""
        with self.changed:
            self._version += 1
            body = copy.deepcopy(body)
            body["metadata"] = {**body.get("metadata", {}), "name": path.rpartition("/")[2]}
            body["metadata"]["resourceVersion"] = str(self._version)
            self.objects[path] = body
            self.changed.notify_all()
            return body

    def binding(self, name: str, **status: Any) -> None:
        """Writes the status of a binding."""
        self.put(f"{_BINDINGS}/{name}", {"kind": "MemoryBinding", "spec": {}, "status": status})

    def secret(self, name: str, **data: str) -> None:
        """Writes a Secret."""
        encoded = {key.replace("_", "-"): base64.b64encode(value.encode()).decode() for key, value in data.items()}
        self.put(f"{_SECRETS}/{name}", {"kind": "Secret", "data": encoded})

    def lease(self, name: str) -> Object | None:
        """A Lease as it is now."""
        with self.changed:
            return copy.deepcopy(self.objects.get(f"{_LEASES}/{name}"))

    def said(self, name: str) -> tuple[int, str, str]:
        """What a client's Lease acknowledges."""
        annotations = ((self.lease(name) or {}).get("metadata") or {}).get("annotations") or {}
        get = annotations.get
        return int(get("memferry.dev/revision", 0)), get("memferry.dev/mode", ""), get("memferry.dev/active", "")

    # --- by a client

    def get(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        self.requests.append(("WATCH" if "watch" in query else "GET", parts.path))
        if "watch" in query:
            self._watch(handler, parts.path, query)
            return
        with self.changed:
            found = copy.deepcopy(self.objects.get(parts.path))
            if found is None and parts.path.count("/") in {5, 6} and "labelSelector" in query:
                wanted = dict(pair.split("=") for pair in query["labelSelector"].split(",") if pair)
                items = [o for p, o in self.objects.items() if p.startswith(f"{parts.path}/")]
                found = {"items": [o for o in items if wanted.items() <= o["metadata"].get("labels", {}).items()]}
        self._answer(handler, 200 if found else 404, found or {"message": f"{parts.path} not found"})

    def create(self, handler: BaseHTTPRequestHandler) -> None:
        body = self._body(handler)
        path = f"{handler.path}/{body['metadata']['name']}"
        self.requests.append(("POST", path))
        with self.changed:
            there = path in self.objects
            made = None if there else self.put(path, body)
        self._answer(handler, 409 if there else 201, made or {"message": "already exists"})

    def replace(self, handler: BaseHTTPRequestHandler) -> None:
        body, path = self._body(handler), handler.path.removesuffix("/status")
        self.requests.append(("PUT", handler.path))
        with self.changed:
            there = self.objects.get(path)
            asked = body["metadata"].get("resourceVersion")
            if there is None:
                answer = 404, {"message": "not found"}
            elif asked is not None and asked != there["metadata"]["resourceVersion"]:
                answer = 409, {"message": "the object has been modified"}
            else:
                answer = 200, self.put(path, body)
        self._answer(handler, *answer)

    def _watch(self, handler: BaseHTTPRequestHandler, path: str, query: dict[str, str]) -> None:
        name = query["fieldSelector"].removeprefix("metadata.name=")
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.close_connection = True
        last = ""
        try:
            while True:
                with self.changed:
                    self.changed.wait_for(lambda last=last: self._closed or self._at(path, name) != last, timeout=5)  # type: ignore[misc]
                    if self._closed:
                        return
                    found = copy.deepcopy(self.objects.get(f"{path}/{name}"))
                    last = self._at(path, name)
                line = json.dumps({"type": "MODIFIED", "object": found}).encode() + b"\n" if found else b"\n"
                handler.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
                handler.wfile.flush()
        except OSError:
            return

    def _at(self, path: str, name: str) -> str:
        found = self.objects.get(f"{path}/{name}")
        return str(found["metadata"]["resourceVersion"]) if found else ""

    @staticmethod
    def _body(handler: BaseHTTPRequestHandler) -> Object:
        return dict(json.loads(handler.rfile.read(int(handler.headers["Content-Length"]))))

    @staticmethod
    def _answer(handler: BaseHTTPRequestHandler, status: int, body: Object) -> None:
        data = json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)


def kubeconfig(folder: Path, port: int) -> Path:
    """A kubeconfig for an API server on a loopback port."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "fake",
        "clusters": [{"name": "fake", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "fake", "user": {}}],
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake", "namespace": "default"}}],
    }
    file = folder / f"kubeconfig-{port}.yaml"
    file.write_text(yaml.safe_dump(config), "utf-8")
    return file


def binding_status(active: str, revision: int, mode: str = "Serving", **more: Any) -> Object:
    """The status of a binding."""
    return {"active": active, "revision": revision, "mode": mode, "statusVersion": 1, **more}


def projection(active: str, path: Path, revision: int = 1) -> dict[str, str]:
    """The Secret of a binding to an embedded store."""
    told = {"type": "embedded", "provider": "memferry", "uri": f"embedded:{path}"}
    return {**told, "active": active, "revision": str(revision), "mode": "Serving"}
