"""Values of a record as Python has them: to and from JSON with the reserved keys of `docs/record.md`, section 2."""

from __future__ import annotations

import base64
import math
import re
import struct
from collections.abc import Mapping
from typing import Any

from memferry.errors import RefusedError

__all__ = ["NumberText", "Reserved", "from_json", "invalid", "to_json"]


class Reserved(str):
    """A key of memferry's own among those of the data, as `$position`. Equal only to itself, never to a plain key.

    >>> {"$position": "of the data", Reserved("$position"): 3}["$position"]
    'of the data'
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reserved) and str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((Reserved, str(self)))

    def __str__(self) -> str:
        return str.__str__(self)

    def __repr__(self) -> str:
        return f"Reserved({str.__repr__(self)})"


class NumberText(str):
    """A number that neither an integer nor a double holds, by its digits: `NumberText("1e400")`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"NumberText({str.__repr__(self)})"


def invalid(message: str, hint: str | None = None) -> RefusedError:
    """What a value that cannot be held is refused with."""
    return RefusedError("invalid", message, hint=hint)


def to_json(value: Any) -> Any:
    """A value with the reserved keys of `docs/record.md`, section 2."""
    if isinstance(value, NumberText):
        return {"$number": str(value)}
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$f64": struct.pack(">d", value).hex()}
    if isinstance(value, bytes | bytearray | memoryview):
        return {"$bytes": base64.b64encode(bytes(value)).decode("ascii")}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, Mapping):
        return {_key(key): to_json(item) for key, item in value.items()}
    raise invalid(
        f"a record cannot hold a {type(value).__name__}",
        hint="None, bool, int, float, str, bytes, lists and dicts can be held; write a time as its text",
    )


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise invalid(f"a key is a text, got {type(key).__name__}")
    plain = str.__str__(key)
    return f"${plain}" if plain.startswith("$") and not isinstance(key, Reserved) else plain


def from_json(value: Any, *, whole: bool = False) -> Any:
    """The value behind the reserved keys; `whole`: an object that cannot be one of them."""
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and not whole:
        ((key, inner),) = value.items()
        if key == "$f64":
            return struct.unpack(">d", bytes.fromhex(inner))[0]
        if key == "$bytes":
            return base64.b64decode(inner)
        if key == "$number":
            return int(inner) if re.fullmatch(r"-?[0-9]+", inner) else NumberText(inner)
    return {_unkey(key): from_json(item) for key, item in value.items()}


def _unkey(key: str) -> str:
    if key.startswith("$$"):
        return key[1:]
    return Reserved(key) if key.startswith("$") else key
