"""The ledger of a collection, seen by processes that opened it before it was there."""

from __future__ import annotations

import pytest

from memferry.backends import open_target
from memferry.errors import MemferryError
from memferry.ledger import Ledger
from memferry.urls import parse_url
from testbed.qdrant import QdrantServer


def test_a_lock_that_was_taken_after_the_store_was_opened_is_seen(
    qdrant_server: QdrantServer, qdrant_prefix: str
) -> None:
    url = parse_url(f"{qdrant_server.url}/{qdrant_prefix}locked?distance=dot")
    one, other = open_target(url), open_target(url)
    try:
        first, second = Ledger(one.documents, "m"), Ledger(other.documents, "m")
        assert second.run() is None
        first.acquire(one)
        with pytest.raises(MemferryError) as busy:
            second.acquire(other)
        assert busy.value.code == "busy"
        first.check()
        assert other.documents.migrations() == ["m"]
        first.release()
        second.acquire(other)
        second.release()
    finally:
        one.close()
        other.close()
