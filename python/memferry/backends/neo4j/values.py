"""Property values of Neo4j as values of the record specification (docs/record.md, section 2), and back."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable
from functools import cache
from typing import Any

__all__ = ["canonical", "double", "escaped", "number_bits"]


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
    """
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return value
    if kind is float:
        return value if math.isfinite(value) else number_bits(value)
    if kind is list:
        return [canonical(item) for item in value]
    if isinstance(value, dict):
        return {escaped(key): canonical(item) for key, item in value.items()}
    if isinstance(value, bytes | bytearray):
        return {"$bytes": base64.b64encode(value).decode("ascii")}
    return _tag(value)


def _tag(value: Any) -> Any:
    for kind, tag in _tags().items():
        if isinstance(value, kind):
            return tag(value)
    return {"$unsupported": str(value)}


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
        time.DateTime: _datetime,
        time.Date: lambda value: {"$date": value.iso_format()},
        time.Time: _time,
        time.Duration: lambda value: {"$duration": value.iso_format()},
        spatial.Point: lambda value: {"$point": {"srid": value.srid, "coordinates": [canonical(x) for x in value]}},
        Vector: _vector,
    }
