"""How our own records lie in a graph: names of labels and properties, and rows to properties and back.

Nothing of the data becomes part of a statement: labels and relationship types here are constants, properties travel as
parameters, and what is made of the data beyond that (labels for record types, names of vector properties) goes through
`type_label` and `vector_property`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import math
import re
import sys
from array import array
from importlib.resources import files
from typing import Any, Final

from memferry import profiles
from memferry.backends.neo4j.values import UnheldError, canonical, double, escaped, native, unescaped

__all__ = [
    "FORMAT",
    "INDEXED",
    "LABELS",
    "LEDGER",
    "LINK",
    "MAX_DIMENSIONS",
    "RELATION",
    "STORE",
    "from_properties",
    "quoted",
    "slug",
    "store_key",
    "to_properties",
    "type_label",
    "vector_property",
]

FORMAT: Final = 1
LABELS: Final = {"entity": "MemferryEntity", "memory": "MemferryMemory", "observation": "MemferryObservation"}
RELATION: Final = "MEMFERRY_RELATION"
LINK: Final = "MEMFERRY_ABOUT"
LEDGER: Final = "MemferryLedger"
STORE: Final = "MemferryStore"

MAX_DIMENSIONS: Final = 4096
"""What a vector index takes."""

INDEXED: Final = frozenset({"name", "type", "scope_user", "owner_id"})
"""Properties with a range index; Neo4j refuses a write of more than 8 kB into one."""

_MAX_INDEXED_BYTES: Final = 4000
_MAX_KEY_BYTES: Final = 2000
_MAX_NAME: Final = 1000
_INT64: Final = 1 << 63
_UINT32: Final = 1 << 32
_DENSE, _SPARSE, _MULTI = 0, 1, 2

Vector = tuple[str, str | None, int, bool | None, int, bytes | None, bytes]
Properties = dict[str, Any]


def _fields() -> dict[str, str]:
    table = json.loads(files(profiles).joinpath("native-node.json").read_text("utf-8"))
    paths = {row["path"] for kind in table["kinds"] for row in kind["fields"]} | {"$extra"}
    return {path: path.removeprefix("$") for path in sorted(paths)}


FIELDS: Final = _fields()
"""Properties by the path of their field in a body."""

_PATHS: Final = {name: path for path, name in FIELDS.items()}
_OURS: Final = frozenset({*_PATHS, "id", "full_id", "other", "vectors", "_memferry"})
_UNREADABLE: Final = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""What a text that someone wrote over one of ours may raise."""


def quoted(name: str) -> str:
    """A name as Cypher takes it."""
    return "`" + name.replace("`", "``") + "`"


def store_key(identity: str) -> str:
    """What a record is filed under: its id, or a hash where no index could hold that."""
    if len(identity) * 4 > _MAX_KEY_BYTES or identity.startswith("sha256:"):
        data = identity.encode()
        if len(data) > _MAX_KEY_BYTES or identity.startswith("sha256:"):
            return f"sha256:{hashlib.sha256(data).hexdigest()}"
    return identity


def type_label(type_name: Any) -> list[str]:
    """The label made of a record's type; none where it is no plain name or could be taken for one of ours."""
    plain = isinstance(type_name, str) and 0 < len(type_name) <= 64 and type_name.isprintable()
    return [type_name] if plain and not type_name.lower().startswith("memferry") else []


def slug(name: str) -> str:
    """A name that is safe in the name of a property or an index; another one for every name."""
    if re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name):
        return name
    return f"sha256-{hashlib.sha256(name.encode()).hexdigest()[:24]}"


def vector_property(name: str, dim: int) -> str:
    """Where a dense vector lies. The dimension is in the name because an index has only one."""
    return f"vector_{dim}_{slug(name)}" if name else f"vector_{dim}"


def _fits(name: str, value: Any) -> bool:
    """Whether a property gives the value back exactly and no index stumbles over it."""
    kind = type(value)
    if kind is str:
        long = name in INDEXED and len(value) * 4 > _MAX_INDEXED_BYTES
        return not long or len(value.encode()) <= _MAX_INDEXED_BYTES
    if kind is int:
        return bool(-_INT64 <= value < _INT64)
    if kind is list:
        return name not in INDEXED and all(type(item) is str for item in value)
    return kind is bool or kind is float


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def to_properties(
    key: str,
    body: bytes,
    vectors: list[Vector],
    *,
    lists: bool,
    spread: bool = False,
) -> tuple[Properties, list[tuple[str, list[float]]]]:
    """A raw row as properties, and the vectors that become lists of numbers.

    Args:
        key: Id of the record.
        body: What the mapper made of it.
        vectors: Its vectors.
        lists: Whether the row becomes a node; relationships cannot be found by vector and keep them as text.
        spread: Whether fields that nobody mapped become properties, as they are where others add them.
    """
    filed = store_key(key)
    properties: Properties = {"id": filed}
    if filed != key:
        properties["full_id"] = key
    numbers: list[tuple[str, list[float]]] = []
    if vectors:
        properties["vectors"] = _text([_vector_out(vector, numbers, lists=lists) for vector in vectors])
    other: Properties = {}
    for path, held in json.loads(body).items():
        name = FIELDS.get(path)
        if name is not None and _fits(name, value := double(held)):
            properties[name] = value
        elif path == "$memferry":
            properties["_memferry"] = f"{held['migration']} {held['digest']}"
        elif path != "$kind":
            other[path] = held
    if spread:
        _spread(other, properties, {name for name, _ in numbers})
    if other:
        properties["other"] = _text(other)
    return properties, numbers


def _spread(other: Properties, properties: Properties, taken: set[str]) -> None:
    """Moves out of `other` what a property holds exactly and is read from as the same field."""
    for path in list(other):
        name = FIELDS.get(path) or _added(path)
        if name is None or name in taken:
            continue
        try:
            value = native(other[path])
        except UnheldError:
            continue
        # A long one may be one that no index took.
        if name not in INDEXED or type(value) not in {str, bytes, list}:
            properties[name] = value
            del other[path]


def _added(path: str) -> str | None:
    """The property behind a field that nobody mapped, None where that is no name or one of ours."""
    name = unescaped(path)
    plain = 0 < len(name) <= _MAX_NAME and "\0" not in name
    return name if plain and escaped(name) == path and name not in _OURS else None


def _vector_out(vector: Vector, numbers: list[tuple[str, list[float]]], *, lists: bool) -> dict[str, Any]:
    name, model, dim, normalized, kind, indices, data = vector
    said = {"name": name, "model": model, "dim": dim, "normalized": normalized, "kind": kind}
    if lists and kind == _DENSE and 0 < dim <= MAX_DIMENSIONS:
        property_name = vector_property(name, dim)
        values = _floats(data)
        # Doubles hold the sum of so many single ones: it is finite when all of them are.
        if math.isfinite(sum(values)) and all(property_name != taken for taken, _ in numbers):
            numbers.append((property_name, values))
            return {**said, "property": property_name}
    if indices is not None:
        said["indices"] = base64.b64encode(indices).decode("ascii")
    return {**said, "data": base64.b64encode(data).decode("ascii")}


def _floats(data: bytes) -> list[float]:
    values = array("f", data)
    if sys.byteorder == "big":
        values.byteswap()
    return values.tolist()


def _bytes(values: list[float]) -> bytes:
    packed = array("f", values)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def from_properties(kind: str, properties: Properties, **ends: str | None) -> tuple[str, bytes, list[Vector]]:
    """Properties as a raw row: what we wrote, and what others added as fields nobody mapped.

    Args:
        kind: Kind of the record.
        properties: All properties of the node or relationship; changed here. `vectors` stays where it says none.
        ends: `from_id` and `to_id` of a relationship.

    Raises:
        UnknownValueError: For a value that the driver could not read.
    """
    key: str = properties.pop("id")
    body: Properties = {"$kind": kind}
    vectors: list[Vector] = []
    # What someone wrote over them is kept as any other property.
    if "other" in properties:
        with contextlib.suppress(*_UNREADABLE):
            body = {**_object(properties["other"]), **body}
            del properties["other"]
    if "vectors" in properties:
        with contextlib.suppress(*_UNREADABLE):
            vectors = _vectors_in(properties["vectors"], properties)
            del properties["vectors"]
    for name, value in properties.items():
        path = _PATHS.get(name)
        if path is not None:
            body[path] = canonical(value)
        elif name == "full_id":
            body["$id"] = canonical(value)
        elif name == "_memferry":
            migration, _, digest = str(value).rpartition(" ")
            body["$memferry"] = {"migration": migration, "digest": digest}
        else:
            _keep(body, name, value)
    for name, end in ends.items():
        if end is not None:
            body[_PATHS[name]] = canonical(end)
    return key, _text(body).encode(), vectors


def _object(text: str) -> Properties:
    """Members of an object's text."""
    found: Properties = json.loads(text)
    _check(type(found) is dict)
    _text(found).encode()  # Without lone surrogates.
    return found


def _keep(body: Properties, name: str, value: Any) -> None:
    """Puts a property that is not ours among the data, beside whatever is there."""
    key = escaped(name)
    # No native document has vectors that are none.
    while key in body or key == "vectors":
        key += "'"
    body[key] = canonical(value)


def _vectors_in(text: str, properties: Properties) -> list[Vector]:
    """Vectors out of the property that tells of them; takes the lists of their numbers out of the others."""
    said = json.loads(text)
    _check(type(said) is list)
    vectors: list[Vector] = []
    taken: list[str] = []
    for one in said:
        dim, indices = one["dim"], one.get("indices")
        if "property" in one:
            values = properties.get(one["property"])
            if values is None:
                continue  # Someone took it out; the record is another one now.
            _check(type(values) is list and type(values[0] if values else 0.0) in {float, int})
            _check(one["property"] not in taken)
            data, dim = _bytes(values), len(values)
            taken.append(one["property"])
        else:
            data = base64.b64decode(one["data"])
        indices = None if indices is None else base64.b64decode(indices)
        vectors.append((one["name"], one["model"], dim, one["normalized"], one["kind"], indices, data))
        _check_vector(*vectors[-1])
    for name in taken:
        del properties[name]
    return vectors


def _check_vector(
    name: Any, model: Any, dim: Any, normalized: Any, kind: Any, indices: bytes | None, data: bytes
) -> None:
    _check(type(name) is str and (model is None or type(model) is str))
    f"{name}{model}".encode()  # Without lone surrogates.
    _check(normalized is None or type(normalized) is bool)
    _check(type(kind) is int and type(dim) is int and 0 <= dim < _UINT32)
    if kind == _SPARSE:
        _check(dim == 0 and indices is not None and len(indices) == len(data))
    else:
        fits = len(data) == 4 * dim if kind == _DENSE else kind == _MULTI and dim > 0 and len(data) % (4 * dim) == 0
        _check(fits and indices is None)


def _check(said: bool) -> None:  # noqa: FBT001
    if not said:
        raise ValueError
