"""An endpoint for embeddings that counts, drifts and fails as it is told."""

from __future__ import annotations

import contextlib
import hashlib
import json
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self

__all__ = ["PROBE", "Answer", "ScriptedEndpoint"]

PROBE: Final = "memferry asks which model answers here."
Answer = tuple[int, dict[str, str], Any]
"""Status, headers, body."""


@dataclass
class ScriptedEndpoint:
    """Numbers made of the text, a bit different in every answer, so that who asks twice does not get the same.

    Attributes:
        dimensions: Of what it gives.
        model: Changes all numbers.
        script: Answers to give before it works; None in it for a connection that is cut.
        refuses: Texts for which it says 400.
        delay_secs: How long an answer takes.
        texts: How often each text was asked for.
        requests: Bodies of all requests.
        headers: Headers of all requests.
        busiest: Most requests at a time.
    """

    dimensions: int = 4
    model: str = "one"
    script: list[Answer | None] = field(default_factory=list)
    refuses: frozenset[str] = frozenset()
    delay_secs: float = 0.0
    vector: Callable[[str], object] | None = None
    texts: Counter[str] = field(default_factory=Counter)
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    busiest: int = 0

    def __enter__(self) -> Self:
        self._lock, self._busy = threading.Lock(), 0
        handler = type("Handler", (_Handler,), {"endpoint": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def asked(self) -> Counter[str]:
        """How often each text of a record was asked for."""
        return Counter({text: n for text, n in self.texts.items() if text != PROBE})

    def answer(self, path: str, headers: dict[str, str], body: bytes) -> Answer | None:
        """What a request gets; None for a connection that is cut."""
        request = json.loads(body)
        with self._lock:
            self.requests.append(request)
            self.headers.append(headers)
            self._busy += 1
            self.busiest = max(self.busiest, self._busy)
            scripted = [self.script.pop(0)] if self.script else []
        try:
            if scripted:
                return scripted[0]
            time.sleep(self.delay_secs)
            if path != "/v1/embeddings":
                return 404, {}, {"error": {"message": f"no such path: {path}"}}
            texts = request["input"]
            if bad := self.refuses.intersection(texts):
                return 400, {}, {"error": {"message": f"{len(bad)} texts are too long for me"}}
            with self._lock:
                self.texts.update(texts)
                drift = len(self.requests) * 1e-6
            make = self.vector or (lambda text: self._numbers(text, drift))
            data = [{"index": i, "embedding": make(text)} for i, text in enumerate(texts)]
            return 200, {}, {"data": data[::-1]}  # Their order is said by the index.
        finally:
            with self._lock:
                self._busy -= 1

    def _numbers(self, text: str, drift: float) -> list[float]:
        digest = hashlib.shake_128(f"{self.model} {text}".encode()).digest(4 * self.dimensions)
        return [number / 2**32 - 0.5 + drift for number in struct.unpack(f"<{self.dimensions}I", digest)]


class _Handler(BaseHTTPRequestHandler):
    endpoint: ScriptedEndpoint

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        told = self.endpoint.answer(self.path, dict(self.headers), body)
        if told is None:
            self.close_connection = True
            return
        status, headers, content = told
        encoded = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(encoded)))
        with contextlib.suppress(ConnectionError):  # Who asked may be dead by now.
            self.end_headers()
            self.wfile.write(encoded)

    def log_message(self, *_: Any) -> None:
        """Nothing: a test's output is its own."""
