"""A store and how it is reached, as a resource. What is described here is what `docs/manifest.md` says."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

from pydantic import Field
from pydantic.alias_generators import to_snake

from memferry.manifest import words
from memferry.manifest.parts import KeyReference, Part, Reference, Rule, immutable
from memferry.manifest.words import EnvName, FilePath, ObjectName

__all__ = ["Authority", "Backend", "Caps", "Credential", "RunAs", "Tls"]


def _one_of(*fields: str) -> tuple[Rule, Rule]:
    """Rules for alternatives: some of them, and of the last two not both."""

    def given(part: Any) -> list[str]:
        return [field for field in fields if getattr(part, to_snake(field)) is not None]

    left, right = fields[-2:] if fields[0] == "secretRef" else fields[:2]
    some = " || ".join(f"has(self.{field})" for field in fields)
    return (
        Rule(some, f"one of {', '.join(fields)} is needed", holds=lambda part: bool(given(part))),
        Rule(
            f"!(has(self.{left}) && has(self.{right}))",
            f"{left} or {right}, not both",
            left,
            holds=lambda part: not {left, right} <= set(given(part)),
        ),
    )


class Credential(Part):
    """Where a secret is; never the secret itself."""

    RULES = _one_of("secretRef", "env", "file")

    secret_ref: KeyReference | None = None
    """In a cluster: a key of a Secret."""
    env: EnvName | None = None
    """On a laptop: the name of an environment variable."""
    file: FilePath | None = None
    """On a laptop: a file with nothing else in it, relative to the manifest."""


class Authority(Part):
    """The authority that signed the server's certificate."""

    RULES = _one_of("configMapRef", "secretRef", "file")

    config_map_ref: KeyReference | None = None
    """In a cluster: a key of a ConfigMap with PEM text."""
    secret_ref: KeyReference | None = None
    """In a cluster: a key of a Secret with PEM text."""
    file: FilePath | None = None
    """On a laptop: a PEM file, relative to the manifest."""


class Tls(Part):
    """Transport security of a server."""

    enabled: bool = True
    """Whether TLS is spoken."""
    ca: Authority | None = None
    """Authority to trust instead of the system's."""


class RunAs(Part):
    """The user that a claim's files belong to."""

    uid: Annotated[int, Field(ge=1, le=2_147_483_647)]
    """Number of the user."""
    gid: Annotated[int, Field(ge=1, le=2_147_483_647)]
    """Number of the group."""


class Caps(Part):
    """What all migrations together may ask of a store."""

    concurrency: Annotated[int, Field(ge=1, le=256)] | None = None
    """Ranges at a time."""
    records_per_second: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Records a second."""


_FILES: Final = ("embedded", "jsonl")
_SERVERS: Final = ("qdrant", "neo4j")
_OWNERS: Final[dict[str, tuple[str, ...]]] = {
    "path": _FILES,
    "claimName": _FILES,
    "runAs": _FILES,
    "address": _SERVERS,
    "tls": _SERVERS,
    "collection": ("qdrant",),
    "distance": ("qdrant",),
    "apiKey": ("qdrant",),
    "database": ("neo4j",),
    "user": ("neo4j",),
    "password": ("neo4j",),
    "graphRef": ("hybrid",),
    "vectorsRef": ("hybrid",),
}
"""Fields that are not for every backend, and whose they are."""

_NEEDED: Final = ("path", "address", "collection", "graphRef", "vectorsRef")
"""Those that their owners cannot be without."""


def _only_for(field: str, owners: tuple[str, ...]) -> Callable[[Any], bool]:
    return lambda spec: spec.backend in owners or getattr(spec, to_snake(field)) is None


def _needed_by(field: str, owners: tuple[str, ...]) -> Callable[[Any], bool]:
    return lambda spec: spec.backend not in owners or getattr(spec, to_snake(field)) is not None


def _union() -> tuple[Rule, ...]:
    """Each backend has its own fields and no others."""
    rules = []
    for field, owners in _OWNERS.items():
        mine = f"self.backend in [{', '.join(repr(owner) for owner in owners)}]"
        only = f"{field} is for backend {' and '.join(owners)} only"
        rules.append(Rule(f"{mine} || !has(self.{field})", only, field, _only_for(field, owners)))
        if field in _NEEDED:
            needs = f"backend {' and '.join(owners)} needs {field}"
            rules.append(Rule(f"!({mine}) || has(self.{field})", needs, field, _needed_by(field, owners)))
    return tuple(rules)


_OTHER: Final = "it says which store this is; make another MemoryBackend"
_IN_CLAIM: Final = r"^/|(^|/)\.\.(/|$)"


class Backend(Part):
    """A store."""

    RULES = (
        *_union(),
        Rule(
            f"!has(self.claimName) || !has(self.path) || !self.path.matches(r'{_IN_CLAIM}')",
            "with claimName it is relative to the claim, without `..`",
            "path",
            holds=lambda spec: not (spec.claim_name and spec.path and re.search(_IN_CLAIM, spec.path)),
        ),
        Rule(
            "!has(self.graphRef) || !has(self.vectorsRef) || self.graphRef.name != self.vectorsRef.name",
            "graph and vectors are one MemoryBackend",
            "vectorsRef",
            holds=lambda spec: (
                not spec.graph_ref or not spec.vectors_ref or spec.graph_ref.name != spec.vectors_ref.name
            ),
        ),
        immutable("backend", _OTHER),
        immutable("profile", _OTHER),
        *(immutable(field, _OTHER, optional=True) for field in ("identity", "path", "claimName")),
        immutable(
            "address", f"{_OTHER}, or give it an identity from the start", optional=True, unless="has(self.identity)"
        ),
        *(immutable(field, _OTHER, optional=True) for field in ("collection", "database", "graphRef", "vectorsRef")),
    )

    backend: Literal["embedded", "jsonl", "qdrant", "neo4j", "hybrid"]
    """What it is."""
    profile: Annotated[str, Field(pattern=words.SLUG, max_length=64)] = "native"
    """How records lie in it."""
    identity: Annotated[str, Field(min_length=1, max_length=253, pattern=words.VISIBLE)] | None = None
    """Names the store where its address does not."""
    path: FilePath | None = None
    """embedded, jsonl: the file; on a laptop relative to the manifest, in a cluster to the claim."""
    claim_name: ObjectName | None = None
    """embedded, jsonl: the PersistentVolumeClaim the file lies on."""
    run_as: RunAs | None = None
    """embedded, jsonl: in a cluster, the user and group of the application that writes the file."""
    address: Annotated[str, Field(pattern=words.ADDRESS, max_length=262)] | None = None
    """qdrant, neo4j: host, and port where it is not the usual one (6334 for gRPC, 7687 for Bolt)."""
    collection: Annotated[str, Field(min_length=1, max_length=255, pattern=words.VISIBLE)] | None = None
    """qdrant: the collection."""
    database: Annotated[str, Field(pattern=words.DATABASE, max_length=63)] | None = None
    """neo4j: the database, the user's home database where it is missing."""
    user: Annotated[str, Field(min_length=1, max_length=128, pattern=words.VISIBLE)] | None = None
    """neo4j: the user, `neo4j` where it is missing."""
    distance: Literal["cosine", "dot", "euclid", "manhattan"] | None = None
    """qdrant: metric of a collection that is made, `cosine` where it is missing."""
    tls: Tls | None = None
    """qdrant, neo4j: transport security; none where it is missing."""
    api_key: Credential | None = None
    """qdrant: where the API key is."""
    password: Credential | None = None
    """neo4j: where the password is."""
    graph_ref: Reference | None = None
    """hybrid: the MemoryBackend that holds the graph."""
    vectors_ref: Reference | None = None
    """hybrid: the MemoryBackend that holds the vectors."""
    caps: Caps = Field(default_factory=Caps)
    """What all migrations together may ask of it."""
