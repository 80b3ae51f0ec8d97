"""The installed `mem0ai` library 2.2.1, in an environment of its own, driven over pipes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from testbed import packages
from testbed.errors import TestbedError
from testbed.minilm import DIMENSIONS
from testbed.process import ManagedProcess

__all__ = ["Mem0", "Mem0Error", "installed"]

_RUNNER = Path(__file__).with_name("mem0_runner.py")


class Mem0Error(TestbedError):
    """What the library raised, with the name of its exception.

    Attributes:
        kind: Name of the exception's class.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"mem0: {kind}: {message}")
        self.kind = kind


def installed() -> Path:
    """The Python of the environment that has `mem0ai`, made on first use (140 MB)."""
    return packages.environment("mem0")


class Mem0:
    """A Mem0 store on a Qdrant collection, opened in a process of its own.

    Telemetry is off, the LLM is never called, and the history database lies below `folder`. A collection that does not
    exist is made by the library.

    Args:
        host: Where Qdrant serves gRPC.
        port: Its gRPC port.
        collection: The collection; the library would name it `mem0`.
        embeddings_url: Base URL of an OpenAI-compatible endpoint, see `testbed.embeddings`.
        folder: For history and log.
        tls: Whether Qdrant speaks TLS, with a certificate that the system trusts.
        api_key: Of the Qdrant server.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        collection: str,
        embeddings_url: str,
        folder: Path,
        tls: bool = False,
        api_key: str | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.history_path = folder / "history.db"
        self._open = {
            "host": host,
            "port": port,
            "tls": tls,
            "api_key": api_key,
            "collection": collection,
            "embeddings_url": embeddings_url,
            "dimensions": DIMENSIONS,
            "history_path": str(self.history_path),
        }
        self._process = ManagedProcess(
            f"mem0 on {collection}",
            [installed(), "-I", _RUNNER],  # isolated, or `import mem0` would find this very file
            log_path=folder / "mem0.log",
            piped=True,
            env={
                "MEM0_TELEMETRY": "False",
                "MEM0_DIR": str(folder / "mem0-home"),
                "OPENAI_API_KEY": "not-a-key",
                "OPENAI_API_BASE": None,
                "OPENAI_BASE_URL": None,
                "OPENROUTER_API_KEY": None,
            },
        )

    def __enter__(self) -> Self:
        self._process.start()
        try:
            self._call("open", **self._open)
        except BaseException:
            self._process.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.stop()

    def add(
        self,
        messages: str | Sequence[Mapping[str, str]],
        *,
        metadata: Mapping[str, object] | None = None,
        **scope: str | None,
    ) -> list[dict[str, Any]]:
        """Store messages verbatim (`infer=False`), one memory each.

        Args:
            messages: A text, or messages with `role` and `content`.
            metadata: Custom keys; `created_at` among them is honoured.
            **scope: `user_id`, `agent_id`, `run_id`, `expiration_date`.

        Returns:
            What was added: `id`, `memory`, `event`, `actor_id`, `role`.
        """
        given = messages if isinstance(messages, str) else [dict(message) for message in messages]
        added = self._call("add", messages=given, metadata=metadata and dict(metadata), infer=False, **scope)
        results: list[dict[str, Any]] = added["results"]
        return results

    def get_all(self, *, filters: Mapping[str, object], top_k: int, show_expired: bool = False) -> list[dict[str, Any]]:
        """Every memory of a scope, up to `top_k`; the library has no paging."""
        found = self._call("get_all", filters=dict(filters), top_k=top_k, show_expired=show_expired)
        results: list[dict[str, Any]] = found["results"]
        return results

    def search(
        self, query: str, *, filters: Mapping[str, object], top_k: int = 20, **options: object
    ) -> list[dict[str, Any]]:
        """Memories near to a text, best first, with `score`."""
        found = self._call("search", query=query, filters=dict(filters), top_k=top_k, **options)
        results: list[dict[str, Any]] = found["results"]
        return results

    def get(self, memory_id: str) -> dict[str, Any] | None:
        """One memory, None if it does not exist."""
        found: dict[str, Any] | None = self._call("get", memory_id=memory_id)
        return found

    def update(self, memory_id: str, *, text: str | None = None, metadata: Mapping[str, object] | None = None) -> None:
        """Change text or custom keys of a memory."""
        self._call("update", memory_id=memory_id, text=text, metadata=metadata and dict(metadata))

    def delete(self, memory_id: str) -> None:
        """Delete a memory."""
        self._call("delete", memory_id=memory_id)

    def history(self, memory_id: str) -> list[dict[str, Any]]:
        """What happened to a memory."""
        events: list[dict[str, Any]] = self._call("history", memory_id=memory_id)
        return events

    def _call(self, name: str, **arguments: object) -> Any:
        process = self._process
        try:
            process.stdin.write(json.dumps({"call": name, "arguments": arguments}) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise process.failure(f"{process.name} ended during `{name}`")
        answer = json.loads(line)
        if "error" in answer:
            raise Mem0Error(answer["error"]["type"], answer["error"]["message"])
        return answer["value"]
