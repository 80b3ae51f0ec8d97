"""An OpenAI-compatible `/v1/embeddings` endpoint on loopback, over `testbed.minilm`."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import numpy as np

from testbed.minilm import DIMENSIONS, MODEL, Floats, embed

__all__ = ["EmbeddingsServer", "embed"]


class EmbeddingsServer:
    """Serves embeddings from a thread of this process; any API key will do.

    Attributes:
        port: Its loopback port.
    """

    def __init__(self) -> None:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="testbed-embeddings", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """What OpenAI clients call the base URL."""
        return f"http://127.0.0.1:{self.port}/v1"

    def close(self) -> None:
        """Stop serving; open connections are closed."""
        self._server.shutdown()
        self._thread.join()
        self._server.close_connections()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that server_close waits for every handler
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self.compute = threading.Lock()  # one computation at a time: it uses every core already
        self._connections: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        """Wake the handlers that wait for another request of a client that keeps its connection."""
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _BadRequestError(Exception):
    """Said to the client in OpenAI's form."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.path != "/v1/embeddings":
            self._answer(HTTPStatus.NOT_FOUND, _error(f"no such path: {self.path}"))
            return
        try:
            texts, encoding = _parsed(body)
        except _BadRequestError as error:
            self._answer(HTTPStatus.BAD_REQUEST, _error(str(error)))
            return
        with self.server.compute:
            vectors = embed(texts)
        data = [
            {"object": "embedding", "index": index, "embedding": _encoded(vector, encoding)}
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": 0, "total_tokens": 0}
        self._answer(HTTPStatus.OK, {"object": "list", "model": MODEL, "data": data, "usage": usage})

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "testbed"}
            self._answer(HTTPStatus.OK, {"object": "list", "data": [model]})
        else:
            self._answer(HTTPStatus.NOT_FOUND, _error(f"no such path: {self.path}"))

    def log_message(self, *_: Any) -> None:
        """Nothing: a test's output is its own."""

    def _answer(self, status: HTTPStatus, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _parsed(body: bytes) -> tuple[list[str], str]:
    """Texts and encoding of a request."""
    try:
        request = json.loads(body)
    except ValueError:
        raise _BadRequestError("the body is not JSON") from None
    texts = [request.get("input")] if isinstance(request.get("input"), str) else request.get("input")
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise _BadRequestError("`input` must be a text or a list of texts")
    if request.get("dimensions", DIMENSIONS) != DIMENSIONS:
        raise _BadRequestError(f"`dimensions` must be {DIMENSIONS}, got {request['dimensions']}")
    encoding = request.get("encoding_format", "float")
    if encoding not in {"float", "base64"}:
        raise _BadRequestError(f"`encoding_format` must be float or base64, got {encoding}")
    return texts, encoding


def _encoded(vector: Floats, encoding: str) -> str | list[float]:
    if encoding == "base64":
        return base64.b64encode(vector.astype(np.dtype("<f4")).tobytes()).decode()
    return [float(value) for value in vector]


def _error(message: str) -> dict[str, object]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}
