"""Backends by name, and how a URL becomes a store."""

from __future__ import annotations

from pathlib import Path

from memferry._native import gap_names
from memferry.backends.api import Source, Target
from memferry.backends.embedded import EmbeddedSource, EmbeddedTarget
from memferry.backends.jsonl import ForeignJsonlTarget, JsonlSource, JsonlTarget
from memferry.backends.jsonl.target import identity_of as identity_of_jsonl
from memferry.backends.jsonl.target import ledger_folder
from memferry.backends.neo4j import Neo4jPlainTarget, Neo4jSource, Neo4jTarget
from memferry.backends.neo4j.plain_target import has_state
from memferry.backends.neo4j.target import has_documents
from memferry.backends.qdrant import QdrantSource, QdrantTarget
from memferry.backends.qdrant.documents import ledger_name
from memferry.backends.qdrant.source import connect as connect_qdrant
from memferry.backends.qdrant.source import identity_of as identity_of_qdrant
from memferry.backends.state import State, state_directory
from memferry.errors import RefusedError
from memferry.urls import StoreUrl

__all__ = [
    "BACKENDS",
    "Source",
    "Target",
    "collections_of",
    "gap_names",
    "has_ledger",
    "ledger_hint",
    "open_source",
    "open_target",
]

BACKENDS = {
    "embedded": "one SQLite file; profiles: native",
    "jsonl": "one JSON document a line, plain, .gz or .zst; profiles: native, server-memory",
    "qdrant": "a collection over gRPC, port 6334; profiles: native, plain, mem0",
    "neo4j": "a database over Bolt, port 7687, 5.26 and newer; profiles: native, plain",
}
"""What there is, for `memferry backends`."""


def _only_native(url: StoreUrl) -> None:
    if url.profile != "native":
        raise RefusedError("profile", f"no profile `{url.profile}` for {url.backend} stores, allowed: native")


def _no_folder(url: StoreUrl) -> None:
    if url.path is not None and url.path.is_dir():
        raise RefusedError("store-missing", f"no file: {url.path} is a folder")


def open_source(url: StoreUrl) -> Source:
    """Opens the store behind `url` to read it."""
    _no_folder(url)
    if url.backend == "embedded" and url.path:
        _only_native(url)
        return EmbeddedSource(url.path, url.identity)
    if url.backend == "jsonl" and url.path:
        return JsonlSource(url.path, url.profile, url.identity)
    if url.backend == "qdrant":
        return QdrantSource(url)
    if url.backend == "neo4j":
        return Neo4jSource(url)
    raise RefusedError("url", f"backend `{url.backend}` is not built in, allowed: {', '.join(BACKENDS)}")


def collections_of(url: StoreUrl) -> list[str]:
    """Names of all collections of a Qdrant server, without those that memferry keeps ledgers in."""
    names = connect_qdrant(url).collections()
    return sorted(set(names) - {ledger_name(name) for name in names})


def has_ledger(url: StoreUrl) -> bool:
    """Whether there is a place for a ledger at `url` already; where not, a plan is made before one is."""
    if url.backend == "qdrant":
        if url.profile != "native":
            return State.exists(identity_of_qdrant(url))
        return connect_qdrant(url).exists(ledger_name(url.name))
    if url.backend == "neo4j":
        return has_state(url) if url.profile == "plain" else has_documents(url)
    if url.path is None:
        return True
    if url.backend == "jsonl" and url.profile != "native":
        return State.exists(url.identity or identity_of_jsonl(url.path))
    return (url.path if url.backend == "embedded" else ledger_folder(url.path)).exists()


def ledger_hint(url: StoreUrl) -> str | None:
    """What may be wrong where there is no ledger of a foreign target."""
    if url.profile == "native":
        return None
    return (
        f"the ledger of a foreign store lies in the state directory, {state_directory()}; without it nothing is known "
        "of what was written. MEMFERRY_STATE_DIR names another one"
    )


def open_target(url: StoreUrl, accepted: tuple[str, ...] = (), scratch: Path | None = None) -> Target:
    """Opens the store behind `url` to write it.

    Args:
        url: The store.
        accepted: Gaps that may be dropped.
        scratch: A folder to make what is not there yet, so that a plan leaves no trace.
    """
    _no_folder(url)
    if url.backend == "embedded" and url.path:
        _only_native(url)
        if not url.path.parent.is_dir():
            raise RefusedError("store-missing", f"no folder: {url.path.parent}")
        return EmbeddedTarget(scratch / "store.db" if scratch else url.path, url.identity)
    if url.backend == "jsonl" and url.path:
        made = JsonlTarget if url.profile == "native" else ForeignJsonlTarget
        return made(url.path, url.profile, url.identity, accepted, scratch)
    if url.backend == "qdrant":
        return QdrantTarget(url, accepted, scratch)
    if url.backend == "neo4j" and url.profile == "plain":
        return Neo4jPlainTarget(url, accepted, scratch)
    if url.backend == "neo4j":
        return Neo4jTarget(url, accepted)
    raise RefusedError("url", f"backend `{url.backend}` is not built in, allowed: {', '.join(BACKENDS)}")
