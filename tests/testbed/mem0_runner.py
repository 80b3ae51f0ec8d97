"""Runs inside the environment of `mem0ai`: one JSON command a line on stdin, one JSON answer a line on stdout.

A command is `{"call": NAME, "arguments": {...}}`, an answer `{"value": ...}` or `{"error": {"type", "message"}}`. The
first command is `open`; every other name is a method of `mem0.Memory`.
"""

import json
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

from mem0 import Memory  # type: ignore[import-not-found]
from qdrant_client import QdrantClient

logger = logging.getLogger("mem0_runner")

CALLS = ("add", "delete", "delete_all", "get", "get_all", "history", "search", "update")


def open_store(
    *,
    host: str,
    port: int,
    tls: bool,
    api_key: str | None,
    collection: str,
    embeddings_url: str,
    dimensions: int,
    history_path: str,
) -> Any:
    """A `mem0.Memory` over a Qdrant collection, with its client passed in."""
    client = QdrantClient(
        host=host, grpc_port=port, prefer_grpc=True, https=tls, api_key=api_key, check_compatibility=False
    )
    openai = {"api_key": "not-a-key", "openai_base_url": embeddings_url}
    return Memory.from_config(
        {
            "vector_store": {
                "provider": "qdrant",
                "config": {
                    "client": client,
                    "collection_name": collection,
                    "embedding_model_dims": dimensions,
                    # not used, but without an address the configuration is refused
                    "host": host,
                    "port": port,
                },
            },
            "embedder": {"provider": "openai", "config": {**openai, "embedding_dims": dimensions}},
            "llm": {"provider": "openai", "config": openai},  # never called: every add is verbatim
            "history_db_path": history_path,
        }
    )


def main() -> None:
    """Serve commands until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints goes to the log
    memory: Any = None
    for line in sys.stdin:
        command = json.loads(line)
        try:
            if command["call"] == "open":
                memory = open_store(**command["arguments"])
                answer: dict[str, Any] = {"value": None}
            elif command["call"] in CALLS:
                method: Callable[..., Any] = getattr(memory, command["call"])
                answer = {"value": method(**command["arguments"])}
            else:
                answer = {"error": {"type": "ValueError", "message": f"no such call: {command['call']}"}}
        except Exception as error:
            logger.exception("%s failed", command["call"])
            answer = {"error": {"type": type(error).__name__, "message": str(error)}}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
