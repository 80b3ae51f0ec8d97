"""How a URL becomes a store: one of a backend, or a hybrid of two. Phases and the command line open stores here."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from memferry import backends
from memferry._native import EmbeddedStore
from memferry.backends import ledger_hint
from memferry.backends.api import Documents, Source, Target
from memferry.backends.documents import StoreDocuments
from memferry.backends.neo4j import Neo4jSource, Neo4jTarget
from memferry.backends.qdrant import QdrantSource, QdrantTarget
from memferry.errors import RefusedError
from memferry.hybrid import Half, HybridSource, HybridTarget
from memferry.urls import StoreUrl

__all__ = ["BACKENDS", "has_ledger", "ledger_hint", "open_source", "open_target", "read_ledger"]

BACKENDS = {
    **backends.BACKENDS,
    "hybrid": "records in Neo4j, their vectors in Qdrant: --graph URL --vectors URL; profiles: native",
}
"""What there is, for `memferry backends`."""


def _halves(url: StoreUrl) -> tuple[StoreUrl, StoreUrl]:
    if url.graph is None or url.vectors is None:
        raise RefusedError(
            "url",
            f"store URL `{url.text}`: its halves are not named",
            hint="--graph neo4j://HOST --vectors qdrant://HOST/COLLECTION",
        )
    return url.graph, url.vectors


def open_source(url: StoreUrl) -> Source:
    """Opens the store behind `url` to read it."""
    if url.backend != "hybrid":
        return backends.open_source(url)
    graph_url, vectors_url = _halves(url)
    with ExitStack() as opened:
        graph = opened.enter_context(closing(Neo4jSource(graph_url)))
        vectors = opened.enter_context(closing(QdrantSource(vectors_url)))
        # Targets that nothing is written to: sources have no way to look records up.
        records = opened.enter_context(closing(Neo4jTarget(graph_url)))
        points = opened.enter_context(closing(QdrantTarget(vectors_url)))
        halves = Half(graph, records.fetch), Half(vectors, points.fetch_readable)
        opened.pop_all()
        return HybridSource(*halves, url.identity, strict=True, owned=(records, points))


def has_ledger(url: StoreUrl) -> bool:
    """Whether there is a place for a ledger at `url` already; where not, a plan is made before one is."""
    return backends.has_ledger(_halves(url)[0] if url.backend == "hybrid" else url)


@contextmanager
def read_ledger(url: StoreUrl) -> Iterator[Documents | None]:
    """The ledger at `url`, to be read; None where there is none. Nothing is made or changed."""
    if not has_ledger(url):
        yield None
        return
    if url.backend == "embedded" and url.path:
        yield StoreDocuments(EmbeddedStore.open_source(url.path), threading.RLock())
        return
    target = open_target(url)
    try:
        yield target.documents
    finally:
        target.close()


def open_target(url: StoreUrl, accepted: tuple[str, ...] = (), scratch: Path | None = None) -> Target:
    """Opens the store behind `url` to write it.

    Args:
        url: The store.
        accepted: Gaps that may be dropped.
        scratch: A folder to make what is not there yet, so that a plan leaves no trace.
    """
    if url.backend != "hybrid":
        return backends.open_target(url, accepted, scratch)
    graph_url, vectors_url = _halves(url)
    graph = Neo4jTarget(graph_url, accepted)
    with ExitStack() as unless_whole:
        unless_whole.callback(graph.close)
        # One ledger, in the graph: the collection gets no companion.
        vectors = QdrantTarget(vectors_url, accepted, documents=graph.documents)
        unless_whole.pop_all()
    return HybridTarget(graph, vectors, url.identity, vectors.fetch_readable)
