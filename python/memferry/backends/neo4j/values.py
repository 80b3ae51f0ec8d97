"""Property values of Neo4j as values of the record specification (docs/record.md, section 2), and back."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable
from functools import cache
from typing import Any, Final

__all__ = [
    "PROPERTIES_AS_TEXT",
    "Tagged",
    "UnknownValueError",
    "canonical",
    "double",
    "escaped",
    "number_bits",
    "tagged",
]

PROPERTIES_AS_TEXT: Final = (
    "[key IN keys(n) | [key, valueType(n[key]), CASE "
    "WHEN NOT valueType(n[key]) =~ '.*(DATE|TIME|DURATION).*' THEN n[key] "
    "WHEN valueType(n[key]) STARTS WITH 'LIST<' THEN toStringList(n[key]) ELSE toString(n[key]) END]]"
)
"""Names, types and values of all properties of `n`, temporal values as texts: for `tagged`."""

_TEMPORAL: Final = {
    "DATE": "$date",
    "LOCAL TIME": "$localtime",
    "ZONED TIME": "$time",
    "LOCAL DATETIME": "$localdatetime",
    "ZONED DATETIME": "$datetime",
    "DURATION": "$duration",
}


class Tagged(dict[str, Any]):
    """A value that has its reserved key already."""


_AS_THEY_ARE: Final = frozenset({str, int, bool, type(None), Tagged})


class UnknownValueError(Exception):
    """The driver has no type for a value: a year beyond 9999, a time zone that this machine does not know."""


def tagged(named: list[list[Any]]) -> dict[str, Any]:
    """Properties out of `PROPERTIES_AS_TEXT`."""
    return {name: _of_text(kind, value) for name, kind, value in named}


def _of_text(kind: str, value: Any) -> Any:
    tag = _TEMPORAL.get(kind.removeprefix("LIST<").partition(" NOT NULL")[0])
    if tag is None:
        return value
    return [Tagged({tag: item}) for item in value] if kind.startswith("LIST<") else Tagged({tag: value})


def escaped(key: str) -> str:
    """A key of the data as it stands in a body."""
    return f"${key}" if key.startswith("$") else key


def number_bits(value: float) -> dict[str, str]:
    """A double as its bits, for those that JSON has no number for."""
    return {"$f64": struct.pack(">d", value).hex()}


def double(value: Any) -> Any:
    """The double behind `number_bits`; anything else as it is."""
    if isinstance(value, dict) and len(value) == 1 and "$f64" in value:
        return struct.unpack(">d", bytes.fromhex(value["$f64"]))[0]
    return value


def canonical(value: Any) -> Any:
    """A property value as JSON with reserved keys, keeping its type.

    Temporal and spatial values become an object with one reserved key: `{"$date": "2024-05-01"}`.

    Raises:
        UnknownValueError: For what the driver could not read.
    """
    kind = type(value)
    if kind in _AS_THEY_ARE or (kind is float and math.isfinite(value)):
        return value
    if kind is float:
        return number_bits(value)
    if kind is list:
        return [canonical(item) for item in value]
    return _tag(value)


def _tag(value: Any) -> Any:
    for kind, tag in _tags().items():
        if isinstance(value, kind):
            return tag(value)
    raise UnknownValueError(type(value).__name__)


def _bytes(value: bytes) -> dict[str, str]:
    return {"$bytes": base64.b64encode(value).decode("ascii")}


def _datetime(value: Any) -> dict[str, str]:
    if value.tzinfo is None:
        return {"$localdatetime": value.iso_format()}
    zone = getattr(value.tzinfo, "zone", None) or getattr(value.tzinfo, "key", None)
    return {"$datetime": value.iso_format() + (f"[{zone}]" if zone else "")}


def _time(value: Any) -> dict[str, str]:
    return {"$localtime" if value.tzinfo is None else "$time": value.iso_format()}


def _vector(value: Any) -> dict[str, Any]:
    return {"$vector": {"type": str(value.dtype), "data": base64.b64encode(value.raw()).decode("ascii")}}


@cache
def _tags() -> dict[type[Any], Callable[[Any], Any]]:
    from neo4j import spatial, time  # noqa: PLC0415 - an optional package
    from neo4j.vector import Vector  # noqa: PLC0415

    return {
        bytes: _bytes,
        bytearray: _bytes,
        time.DateTime: _datetime,
        time.Date: lambda value: {"$date": value.iso_format()},
        time.Time: _time,
        time.Duration: lambda value: {"$duration": value.iso_format()},
        spatial.Point: lambda value: {"$point": {"srid": value.srid, "coordinates": [canonical(x) for x in value]}},
        Vector: _vector,
    }
