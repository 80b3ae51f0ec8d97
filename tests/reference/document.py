"""The record and its native document: sections 1 and 4 of `docs/record.md`."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from reference import times
from reference.json_values import NATIVE_DEPTH, RefusedError, Value, canonical, parse_canonical
from reference.times import Time

KINDS: Final = ("entity", "memory", "observation", "relation")
SCOPES: Final = ("user", "agent", "session", "namespace", "tenant")
TEXTS: Final = ("content", "name", "type", "from_id", "to_id", "owner_id", "supersedes")
TIMES: Final = ("created_at", "updated_at", "valid_from", "valid_to", "observed_at")
SCORES: Final = ("confidence", "strength", "importance")
VECTOR_KINDS: Final = ("dense", "sparse", "multi")
_VECTOR_MEMBERS: Final = {"name", "model", "dim", "normalized", "kind", "indices", "data"}


class Vector(NamedTuple):
    """One embedding."""

    name: str
    model: str | None
    dim: int
    normalized: bool | None
    kind: int
    indices: bytes | None
    data: bytes


class Marker(NamedTuple):
    """Who wrote the document; no part of the record."""

    migration: str
    digest: str


@dataclass
class Record:
    """One record; lists are in the order of the encoding, None where there is no value."""

    kind: int
    id: str
    texts: list[str | None]
    times: list[Time | None]
    scores: list[float | None]
    version: int | None
    tags: list[str] | None
    extra: dict[str, Value]
    vectors: list[Vector]
    marker: Marker | None = field(default=None, compare=False)


def decode(text: bytes | str) -> Record:
    """Reads a native document.

    Raises:
        RefusedError: It is none; `reason` is that of the quarantine entry.
    """
    body = parse_canonical(text, NATIVE_DEPTH)
    if not isinstance(body, dict):
        raise RefusedError("not-an-object", "a record is an object")
    kind, identifier = body.get("kind"), body.get("id")
    if kind not in KINDS:
        raise RefusedError("unclaimed", "no such kind")
    if not isinstance(identifier, str):
        raise RefusedError("bad-id" if "id" in body else "no-id", "a record has a text as id")
    rest = {key: item for key, item in body.items() if key not in {"kind", "id"}}
    marker = _marker(rest)
    vectors = _vectors(rest.pop("vectors", []))
    fields = _texts(rest)
    instants = [_time(rest, name) for name in TIMES]
    scores = [_score(rest, name) for name in SCORES]
    version = _version(rest)
    tags = _tags(rest)
    extra = _extra(rest)
    return Record(KINDS.index(str(kind)), identifier, fields, instants, scores, version, tags, extra, vectors, marker)


def _marker(rest: dict[str, Value]) -> Marker | None:
    match rest.get("_memferry"):
        case {"migration": str(migration), "digest": str(digest), **others} if not others:
            if re.fullmatch("[0-9a-fA-F]{32}", digest):
                del rest["_memferry"]
                return Marker(migration, digest.lower())
    return None


def _texts(rest: dict[str, Value]) -> list[str | None]:
    found: list[str | None] = []
    scope = rest.get("scope")
    if isinstance(scope, dict):
        left = dict(scope)
        for name in SCOPES:
            value = scope.get(name)
            found.append(value if isinstance(value, str) else None)
            if isinstance(value, str):
                del left[name]
        if left or not scope:
            rest["scope"] = left
        else:
            del rest["scope"]
    else:
        found += [None] * len(SCOPES)
    for name in TEXTS:
        value = rest.get(name)
        found.append(value if isinstance(value, str) else None)
        if isinstance(value, str):
            del rest[name]
    provenance = rest.get("provenance")
    if isinstance(provenance, str | list | dict):
        del rest["provenance"]
        return [*found, canonical(provenance)]
    return [*found, None]


def _time(rest: dict[str, Value], name: str) -> Time | None:
    time = times.decode(rest.get(name))
    if time is not None:
        del rest[name]
    return time


def _score(rest: dict[str, Value], name: str) -> float | None:
    value = rest.get(name)
    if not isinstance(value, float):
        return None
    del rest[name]
    return value


def _version(rest: dict[str, Value]) -> int | None:
    value = rest.get("version")
    if not isinstance(value, int) or isinstance(value, bool) or value >= 2**63:
        return None
    del rest["version"]
    return value


def _tags(rest: dict[str, Value]) -> list[str] | None:
    value = rest.get("tags")
    if not isinstance(value, list):
        return None
    tags = [tag for tag in value if isinstance(tag, str)]
    if len(tags) < len(value):
        return None
    del rest["tags"]
    return tags


def _extra(rest: dict[str, Value]) -> dict[str, Value]:
    extra = rest.get("extra")
    if not isinstance(extra, dict):
        extra = {}
    else:
        del rest["extra"]
    if "$top" in extra:
        raise RefusedError("bad-extra", "$top is made by the reader")
    return {**extra, "$top": rest} if rest else extra


def _vectors(value: Value) -> list[Vector]:
    if not isinstance(value, list):
        raise RefusedError("bad-vector", "vectors are a list")
    return [_vector(item) for item in value]


def _vector(item: Value) -> Vector:
    bad = RefusedError("bad-vector", f"no vector: {item!r}")
    if not isinstance(item, dict) or not set(item) <= _VECTOR_MEMBERS:
        raise bad
    match item.get("name", ""), item.get("model", ""), item.get("normalized", False):
        case str(name), str(model), bool(normalized):
            pass
        case _:
            raise bad
    dim, kind = item.get("dim"), item.get("kind")
    if not isinstance(dim, int) or isinstance(dim, bool) or not 0 <= dim < 2**32 or kind not in VECTOR_KINDS:
        raise bad
    try:
        data = _base64(item["data"])
        indices = _base64(item["indices"]) if "indices" in item else None
    except (KeyError, ValueError, TypeError):
        raise bad from None
    numbers, odd = divmod(len(data), 4)
    fits = {
        "dense": numbers == dim and indices is None,
        "multi": dim > 0 and numbers % (dim or 1) == 0 and indices is None,
        "sparse": dim == 0 and indices is not None and len(indices) == len(data),
    }
    if odd or not fits[str(kind)]:
        raise bad
    pairs = [] if indices is None else [indices[at : at + 4] for at in range(0, len(indices), 4)]
    if len(set(pairs)) < len(pairs):
        raise bad
    return Vector(
        name,
        model if "model" in item else None,
        dim,
        normalized if "normalized" in item else None,
        VECTOR_KINDS.index(str(kind)),
        indices,
        data,
    )


def _base64(value: Value) -> bytes:
    if not isinstance(value, str):
        raise TypeError
    data = base64.b64decode(value, validate=True)
    if base64.b64encode(data).decode() != value:
        raise binascii.Error
    return data
