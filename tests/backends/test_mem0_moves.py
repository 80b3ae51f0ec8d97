"""A store written by the Mem0 library goes to embedded and on to a second collection, which Mem0 then reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from memferry.phases.migrate import migrate
from memferry.phases.plan import Options
from memferry.urls import parse_url
from testbed.mem0 import Mem0
from testbed.qdrant import QdrantServer

TOPICS = ("tea", "chess", "sailing", "the night shift", "old maps", "Lisbon", "a slow build", "the cat", "jazz", "rain")
VERBS = ("prefers", "asked about", "was reminded of", "dislikes", "wrote a note on")


def test_mem0_to_embedded_and_on_to_mem0(
    mem0: Callable[[str], Mem0], qdrant_server: QdrantServer, qdrant_prefix: str, tmp_path: Path
) -> None:
    first, second = f"{qdrant_prefix}first", f"{qdrant_prefix}second"
    base = f"qdrant://{qdrant_server.host}:{qdrant_server.port}"
    with mem0(first) as store:
        for number, (topic, verb) in enumerate((t, v) for t in TOPICS for v in VERBS):
            store.add(
                f"the user {verb} {topic}",
                user_id=f"user-{number % 3}",
                agent_id="helper" if number % 2 else None,
                metadata={
                    "weight": number / 3,
                    "n": number,
                    "nested": {"a": [1, None, "x"]},
                    "created_at": _time(number),
                },
            )
        scopes = [{"user_id": f"user-{i}"} for i in range(3)]
        before = [store.get_all(filters=scope, top_k=100) for scope in scopes]
        found = [store.search("What does the user think of tea?", filters=scope) for scope in scopes]

    to_embedded = migrate(parse_url(f"{base}/{first}?profile=mem0"), parse_url(str(tmp_path / "m.db")), Options())
    assert (to_embedded.outcome, to_embedded.lossless, to_embedded.books.total("written")) == ("proven", True, 50)
    onward = migrate(parse_url(str(tmp_path / "m.db")), parse_url(f"{base}/{second}?profile=mem0"), Options())
    assert onward.outcome == "proven", onward.to_json()

    with mem0(second) as store:
        for scope, memories in zip(scopes, before, strict=True):
            again = store.get_all(filters=scope, top_k=100)
            assert _by_id(memories) == _by_id(again)
            for memory in memories:
                assert _near(memory) == _near(store.get(memory["id"]) or {})
        after = [store.search("What does the user think of tea?", filters=scope) for scope in scopes]
        assert [[hit["id"] for hit in hits] for hits in found] == [[hit["id"] for hit in hits] for hits in after]


def _time(number: int) -> str:
    return f"2025-01-02T03:{number:02d}:05+00:00"


def _near(memory: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in memory.items() if key != "score"}


def _by_id(memories: list[dict[str, object]]) -> dict[object, dict[str, object]]:
    return {memory["id"]: _near(memory) for memory in memories}
