"""The real Mem0 library writes and reads a store on our Qdrant with our embeddings."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from contextlib import closing

import numpy as np
import pytest

from testbed.embeddings import embed
from testbed.mem0 import Mem0, Mem0Error
from testbed.qdrant import QdrantServer

_TEXTS = ("Alice prefers tea over coffee", "Bob lives in Lisbon", "The deployment runs on Fridays")


def test_every_verb(mem0: Callable[[str], Mem0], qdrant_server: QdrantServer, qdrant_prefix: str) -> None:
    collection = f"{qdrant_prefix}mem0"
    scope = {"user_id": "alice"}
    with mem0(collection) as store:
        ids = []
        for text in _TEXTS:
            (added,) = store.add(text, metadata={"topic": "test", "weight": 0.1}, user_id="alice")
            ids.append(added["id"])
        created = "2025-01-02T03:04:05+00:00"
        (other,) = store.add(
            [{"role": "user", "content": "Carol plays chess"}],
            metadata={"created_at": created},
            user_id="carol",
            agent_id="helper",
        )

        memories = {memory["id"]: memory for memory in store.get_all(filters=scope, top_k=100)}
        assert {one["memory"] for one in memories.values()} == set(_TEXTS)
        assert set(memories) == set(ids)
        assert memories[ids[0]]["metadata"] == {"topic": "test", "weight": 0.1}
        assert store.get(ids[0]) == {**memories[ids[0]], "score": None}
        carols = store.get(other["id"])
        assert carols is not None
        assert carols["created_at"] == carols["updated_at"] == created
        assert carols["agent_id"] == "helper"

        best = store.search("Where does Bob live?", filters=scope)[0]
        assert best["id"] == ids[1]
        expected = float(embed(["Where does Bob live?"])[0] @ embed([_TEXTS[1]])[0])
        assert best["score"] == pytest.approx(expected, abs=1e-5)

        store.update(ids[1], text="Bob lives in Porto", metadata={"topic": "moved"})
        moved = store.get(ids[1])
        assert moved is not None
        assert (moved["memory"], moved["metadata"]) == ("Bob lives in Porto", {"topic": "moved", "weight": 0.1})
        store.delete(ids[2])
        assert store.get(ids[2]) is None
        assert [event["event"] for event in store.history(ids[1])] == ["ADD", "UPDATE"]
        assert len(store.get_all(filters=scope, top_k=100)) == 2
        with pytest.raises(Mem0Error, match="ValueError") as raised:
            store.delete(ids[2])
        assert raised.value.kind == "ValueError"

    with closing(sqlite3.connect(store.history_path)) as history:
        assert history.execute("SELECT count(*) FROM history").fetchone() == (6,)
    with qdrant_server.client() as client:
        (point,) = client.retrieve(collection, [ids[1]], with_vectors=True)
        assert point.payload is not None
        assert point.payload["data"] == "Bob lives in Porto"
        assert point.payload["hash"] == hashlib.md5(b"Bob lives in Porto", usedforsecurity=False).hexdigest()
        np.testing.assert_allclose(np.asarray(point.vector), embed(["Bob lives in Porto"])[0], atol=1e-6)
        config = client.get_collection(collection).config.params
        assert set(config.sparse_vectors or {}) == {"bm25"}


def test_a_store_is_found_again(mem0: Callable[[str], Mem0], qdrant_prefix: str) -> None:
    collection = f"{qdrant_prefix}mem0"
    with mem0(collection) as store:
        store.add(_TEXTS[0], user_id="alice")
    with mem0(collection) as store:
        assert [memory["memory"] for memory in store.get_all(filters={"user_id": "alice"}, top_k=10)] == [_TEXTS[0]]
