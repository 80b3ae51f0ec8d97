"""Property values of Neo4j as values of the record specification (docs/record.md, section 2), and back."""

from __future__ import annotations

import base64
import binascii
import contextlib
import datetime as dt
import math
import re
import struct
from collections.abc import Callable
from functools import cache
from typing import Any, Final

__all__ = [
    "PROPERTIES",
    "PROPERTIES_AS_TEXT",
    "Tagged",
    "UnheldError",
    "UnknownValueError",
    "canonical",
    "double",
    "escaped",
    "native",
    "number_bits",
    "tagged",
    "unescaped",
]

PROPERTIES: Final = "properties(n)"
"""Quicker than `PROPERTIES_AS_TEXT`, which tells apart what the driver does not."""

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


_INT64: Final = 1 << 63
_OFFSET: Final = re.compile(r"(?:Z|([+-])(\d\d):(\d\d)(?::(\d\d))?)$")
_ODD_OFFSET: Final = re.compile(r"[+-]\d\d:\d\d:\d\d$")


class Tagged(dict[str, Any]):
    """A value that has its reserved key already."""


_AS_THEY_ARE: Final = frozenset({str, int, bool, type(None), Tagged})


class UnknownValueError(Exception):
    """The driver has no type for a value, or one for two.

    A year beyond 9999, a time zone that this machine does not know; offset Z and zone UTC, which are one to it.
    """


class UnheldError(Exception):
    """No property gives a value back as it is: nested or mixed ones, null, integers beyond i64, years beyond 9999."""


_UNREADABLE: Final = (
    ValueError,
    TypeError,
    KeyError,
    OverflowError,
    struct.error,
    binascii.Error,
    UnknownValueError,
)
"""What texts raise that are no values, or none of the driver's."""


class _Utc(dt.tzinfo):
    """The zone UTC. It is written as a zone, and is not the driver's own, which stands for the offset Z as well."""

    key = "UTC"

    def utcoffset(self, _: dt.datetime | None) -> dt.timedelta:
        return dt.timedelta(0)

    def dst(self, _: dt.datetime | None) -> dt.timedelta:
        return dt.timedelta(0)

    def tzname(self, _: dt.datetime | None) -> str:
        return self.key


_UTC: Final = _Utc()


def tagged(named: list[list[Any]]) -> dict[str, Any]:
    """Properties out of `PROPERTIES_AS_TEXT`."""
    return {name: _of_text(kind, value) for name, kind, value in named}


def _of_text(kind: str, value: Any) -> Any:
    tag = _TEMPORAL.get(kind.removeprefix("LIST<").partition(" NOT NULL")[0])
    if tag is None:
        return value
    return [_said(tag, item) for item in value] if kind.startswith("LIST<") else _said(tag, value)


def _said(tag: str, text: str) -> Tagged:
    """A temporal value out of the server's text, as `canonical` has it of one that the driver read, where it can."""
    # The driver does not see the seconds of an offset.
    if tag != "$time" or not _ODD_OFFSET.search(text):
        with contextlib.suppress(*_UNREADABLE):
            return Tagged(canonical(_natives()[tag](text)))
    return Tagged({tag: text})


def escaped(key: str) -> str:
    """A key of the data as it stands in a body."""
    return f"${key}" if key.startswith("$") else key


def unescaped(key: str) -> str:
    """A key of a body as it stands in the data."""
    return key[1:] if key.startswith("$$") else key


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
    if zone == "UTC" and value.tzinfo is not _UTC:
        raise UnknownValueError(type(value).__name__)  # The driver's own stands for the offset Z as well.
    minutes = int(value.utcoffset().total_seconds()) // 60
    # The driver's text has -04:30 for -03:30.
    offset = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
    return {"$datetime": value.iso_format()[:-6] + offset + (f"[{zone}]" if zone else "")}


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


def native(value: Any) -> Any:
    """A value with reserved keys as a property value that is read back as the same: the reverse of `canonical`.

    Raises:
        UnheldError: Where there is none.
    """
    kind = type(value)
    if kind is str or kind is bool or (kind is int and -_INT64 <= value < _INT64):
        return value
    if kind is float and math.isfinite(value):
        return value
    if kind is list:
        items = [native(item) for item in value]
        kinds = {type(item) for item in items}
        if len(kinds) > 1 or kinds & {list, bytes}:
            raise UnheldError
        return items
    if kind is not dict or len(value) != 1:
        raise UnheldError
    [(tag, text)] = value.items()
    make = _natives().get(tag)
    try:
        readable = make is not None and isinstance(text, dict if tag == "$point" else str)
        found = make(text) if make is not None and readable else None
        same = found is not None and canonical(found) == value
    except _UNREADABLE:
        same = False
    if not same:
        raise UnheldError
    return found


def _zoned(text: str) -> Any:
    from neo4j.time import DateTime  # noqa: PLC0415 - an optional package
    from pytz import FixedOffset, timezone, utc  # type: ignore[import-untyped]  # noqa: PLC0415 - the driver's zones

    told, _, zone = text.removesuffix("]").partition("[")
    offset = _OFFSET.search(told)
    if offset is None:
        raise ValueError(text)
    sign, hours, minutes, seconds = offset.groups()
    east = dt.timedelta(hours=int(hours or 0), minutes=int(minutes or 0), seconds=int(seconds or 0))
    east = -east if sign == "-" else east
    local = DateTime.from_iso_format(told[: offset.start()])
    universal = (local - east).replace(tzinfo=utc)  # As it is sent: at the ends of time there is none.
    if zone == "UTC":
        return local.replace(tzinfo=_UTC)
    if zone:
        return universal.as_timezone(timezone(zone))
    if seconds:
        raise ValueError(text)
    # An offset of nought is the zone UTC to pytz, and would be written as it.
    return local.replace(tzinfo=FixedOffset(int(east.total_seconds()) // 60) if east else dt.UTC)


def _point(said: dict[str, Any]) -> Any:
    from neo4j.spatial import Point  # noqa: PLC0415 - an optional package

    found = Point([float(double(x)) for x in said["coordinates"]])
    found.srid = int(said["srid"])
    return found


@cache
def _natives() -> dict[str, Callable[[Any], Any]]:
    from neo4j import time  # noqa: PLC0415 - an optional package

    return {
        "$f64": lambda text: double({"$f64": text}),
        "$bytes": lambda text: base64.b64decode(text, validate=True),
        "$date": time.Date.from_iso_format,
        "$time": time.Time.from_iso_format,
        "$localtime": time.Time.from_iso_format,
        "$datetime": _zoned,
        "$localdatetime": time.DateTime.from_iso_format,
        "$duration": time.Duration.from_iso_format,
        "$point": _point,
    }
