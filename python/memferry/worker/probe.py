"""The probe of a MemoryBackend: whether its store can be reached, what it is, and what its journals say."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

from memferry.application import open_parsed
from memferry.backends.access import Capabilities
from memferry.backends.neo4j.connection import Connection
from memferry.errors import MemferryError, RefusedError
from memferry.manifest import MemoryBackend
from memferry.model import Stream
from memferry.phases.journal import read_journal
from memferry.resources import store
from memferry.stores import open_source
from memferry.urls import StoreUrl
from memferry.worker.pod import InPod, Pod

__all__ = ["probe"]


def probe(pod: Pod) -> dict[str, Any]:
    """Looks at one MemoryBackend: the only one of the manifest, or the one that the others are halves of.

    What cannot be reached is a result, too, and is said at once: the operator tries again.
    """
    manifest = pod.manifest()
    backends = [d.resource for d in manifest.documents if isinstance(d.resource, MemoryBackend)]
    halves = {ref.name for one in backends for ref in (one.spec.graph_ref, one.spec.vectors_ref) if ref is not None}
    looked_at = [one for one in backends if one.metadata.name not in halves]
    if len(looked_at) != 1:
        raise RefusedError("manifest", f"{manifest.file}: {len(looked_at)} MemoryBackends to look at, needed: 1")
    [backend] = looked_at
    told: dict[str, Any] = {"probe": pod.probe, "backend": backend.spec.backend, "profile": backend.spec.profile}
    asked = _asked(pod.journals)
    try:
        url = store(manifest, None, backend, "SOURCE", InPod(pod))
    except MemferryError as error:
        return {**told, "reachable": False, "identity": None, **_failed(error), "journals": _unread(asked, error)}
    try:
        found = _look(url)
    except MemferryError as error:
        # A store that is to be made is missing, and well; a journal of it there is none.
        missing = error.code == "store-missing"
        read = {name: {"since": since, "journal": None} for name, since in asked.items()}
        journals = read if missing else _unread(asked, error)
        return {**told, "reachable": missing, "identity": None, **_failed(error), "journals": journals}
    return {**told, **found, "journals": _journals(url, asked)}


def _asked(text: str) -> dict[str, str]:
    """Bindings whose journal is asked for, with what an answer has to repeat."""
    try:
        return {str(name): str(since) for name, since in json.loads(text).items()}
    except (ValueError, AttributeError) as error:
        raise RefusedError("invalid", f"MEMFERRY_JOURNALS is {text[:80]!r}, allowed: a JSON object") from error


def _failed(error: MemferryError) -> dict[str, Any]:
    return {"error": {"code": error.code, "message": str(error), "hint": error.hint}}


def _unread(asked: dict[str, str], error: MemferryError) -> dict[str, Any]:
    return {name: {"since": since, **_failed(error)} for name, since in asked.items()}


def _look(url: StoreUrl) -> dict[str, Any]:
    with closing(open_source(url)) as source:
        streams, identity = source.streams(), source.identity
    return {
        "reachable": True,
        "identity": identity,
        "version": _version(url),
        **_counted(streams),
        # No backend tells what changed since: see docs/adr/0007-changes-by-scan.md.
        "changes": "scan",
        "capabilities": _capabilities(url),
    }


def _counted(streams: list[Stream]) -> dict[str, Any]:
    """What the store itself says; by kind only where each stream is of one kind."""
    rows = [stream.rows for stream in streams]
    counts: dict[str, int] = {}
    for stream in streams:
        if len(stream.kinds) == 1 and stream.rows is not None:
            counts[stream.kinds[0]] = counts.get(stream.kinds[0], 0) + stream.rows
    whole = all(len(stream.kinds) == 1 for stream in streams) and None not in rows
    return {"records": None if None in rows else sum(row or 0 for row in rows), "counts": counts if whole else None}


def _version(url: StoreUrl) -> str | None:
    """What a server says of itself."""
    graph = url.graph or url
    if graph.backend != "neo4j":
        return None
    with closing(Connection(graph)) as connection:
        [(version,)] = connection.read(
            "CALL dbms.components() YIELD name, versions WHERE name = 'Neo4j Kernel' RETURN versions[0]"
        )
    return str(version)


def _capabilities(url: StoreUrl) -> list[str]:
    """As `memferry.open(...).capabilities()` has them; none for what cannot be opened so."""
    try:
        with open_parsed(url, read_only=True) as opened:
            can: Capabilities = opened.capabilities()
    except RefusedError:
        return []
    ours = url.profile == "native" and url.backend != "jsonl"
    found = {
        # Opened to be read it cannot be written; a probe opens nothing to write it.
        "write": ours,
        "atomic": ours and url.backend in {"embedded", "neo4j"},
        "text-search": bool(can.text_kinds),
        "vector-search": bool(can.vector_kinds),
        "exact-vectors": can.exact_vectors,
    }
    return [name for name, holds in found.items() if holds]


def _journals(url: StoreUrl, asked: dict[str, str]) -> dict[str, Any]:
    """What the store knows of each binding: the last change of side or mode that was written into it."""
    told: dict[str, Any] = {}
    for name, since in asked.items():
        try:
            entry = read_journal(url, name)
        except MemferryError as error:
            told[name] = {"since": since, **_failed(error)}
        else:
            told[name] = {"since": since, "journal": None if entry is None else entry.to_json()}
    return told
