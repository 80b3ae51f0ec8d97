"""Values, numbers and canonical text: section 2 of `docs/record.md`."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import struct
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final, NoReturn, TypeAlias, cast

MAX_DEPTH: Final = 200
NATIVE_DEPTH: Final = 190
FOREIGN_DEPTH: Final = 180
MAX_INTEGER_DIGITS: Final = 4300
_SHORT_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}
_ESCAPED: Final = re.compile(r'["\\\x00-\x1f]')
_BITS: Final = re.compile("[0-9a-f]{16}")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII)


class RefusedError(ValueError):
    """The document goes into quarantine.

    Attributes:
        reason: Slug of the quarantine entry.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Number:
    """A number that neither integer nor double holds exactly."""

    text: str


Value: TypeAlias = "bool | int | float | str | bytes | Number | list[Value] | dict[str, Value] | None"


def _refuse(message: str) -> NoReturn:
    raise RefusedError("not-json", message)


def classify(text: str) -> int | float | Number:
    """Sorts a JSON number: integer, double, or its own text."""
    integer = text.lstrip("-").split(".")[0].split("e")[0].split("E")[0]
    if len(integer) > MAX_INTEGER_DIGITS:
        _refuse("integer part too long")
    if not set(text) & set(".eE"):
        if text == "-0":
            return -0.0
        whole = int(text)
        return whole if -(2**63) <= whole < 2**64 else Number(text)
    double = float(text)
    if not set(re.split("[eE]", text)[0]) & set("123456789"):
        return double
    if math.isinf(double):
        return Number(text)
    try:
        exact = Decimal(text) == Decimal(repr(double))
    except InvalidOperation:  # an exponent beyond what `decimal` holds
        return Number(text)
    return double if exact else Number(text)


def shortest(double: float) -> str:
    """Text of a finite double: section 2.3."""
    sign = "-" if math.copysign(1.0, double) < 0 else ""
    if double == 0:
        return sign + "0.0"
    parts = Decimal(repr(abs(double))).normalize().as_tuple()
    digits = "".join(map(str, parts.digits))
    last = cast("int", parts.exponent)
    point = len(digits) + last
    if last >= 0 and point <= 16:
        body = digits + "0" * last + ".0"
    elif 0 < point <= 16:
        body = f"{digits[:point]}.{digits[point:]}"
    elif -5 < point <= 0:
        body = "0." + "0" * -point + digits
    else:
        body = digits[0] + ("." + digits[1:] if digits[1:] else "") + f"e{point - 1}"
    return sign + body


def quote(text: str) -> str:
    """A JSON string with the fewest escapes."""
    return '"' + _ESCAPED.sub(lambda c: _SHORT_ESCAPES.get(c[0]) or f"\\u{ord(c[0]):04x}", text) + '"'


def _reserved_object(key: str, text: str) -> str:
    return f'{{"{key}":"{text}"}}'


def canonical(value: Value) -> str:
    """The canonical text of a value."""
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, dict):
        members = sorted(value.items(), key=lambda member: member[0].encode())
        return "{" + ",".join(f"{quote(key)}:{canonical(item)}" for key, item in members) + "}"
    if isinstance(value, str):
        return quote(value)
    if value is None or isinstance(value, bool | int):
        return json.dumps(value)
    return _canonical_special(value)


def _canonical_special(value: float | bytes | Number) -> str:
    if isinstance(value, bytes):
        return _reserved_object("$bytes", base64.b64encode(value).decode())
    if isinstance(value, Number):
        return _reserved_object("$number", value.text)
    return shortest(value) if math.isfinite(value) else _reserved_object("$f64", struct.pack(">d", value).hex())


def parse_canonical(text: bytes | str, depth: int = MAX_DEPTH) -> Value:
    """Reads canonical text, or any JSON text in which reserved keys mean what section 2.4 says."""
    return _parse(text, depth, reserved=True)


def parse_json(text: bytes | str) -> Value:
    """Reads a document of someone else: every key is data."""
    return _parse(text, FOREIGN_DEPTH, reserved=False)


def _parse(text: bytes | str, depth: int, *, reserved: bool) -> Value:
    def members(pairs: list[tuple[str, Value]]) -> Value:
        found = {key if reserved or not key.startswith("$") else "$" + key: item for key, item in pairs}
        if len(found) < len(pairs):
            _refuse("a key given twice")
        return _reserved(found) if reserved else found

    def constant(word: str) -> NoReturn:
        _refuse(f"{word} is not JSON")

    try:
        decoded = text if isinstance(text, str) else text.decode("utf-8")
        _check_depth(decoded, depth)
        value = cast(
            "Value",
            json.loads(
                decoded,
                object_pairs_hook=members,
                parse_int=classify,
                parse_float=classify,
                parse_constant=constant,
            ),
        )
        _check_text(value)
    except RefusedError:
        raise
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are both
        raise RefusedError("not-json", str(error)) from error
    return value


def _check_depth(text: str, most: int) -> None:
    """Refuses text nested too deep; brackets within strings do not count."""
    depth, within = 0, False
    for token in re.finditer(r'\\.|["\[\]{}]|[^\s,:\\"\[\]{}]+', text, re.DOTALL):
        part = token[0]
        if part == '"':
            within = not within
            if within and depth > most:
                _refuse(f"nested deeper than {most}")
        elif within:
            continue
        elif part in "]}":
            depth -= 1
        elif depth > most:
            _refuse(f"nested deeper than {most}")
        elif part in "[{":
            depth += 1


def _reserved(found: dict[str, Value]) -> Value:
    if len(found) != 1:
        return found
    [(key, text)] = found.items()
    if key not in {"$f64", "$number", "$bytes"} or not isinstance(text, str):
        return found
    if key == "$f64":
        double = cast("float", struct.unpack(">d", bytes.fromhex(text))[0]) if _BITS.fullmatch(text) else 0.0
        if math.isfinite(double):
            _refuse("$f64 takes 16 hex digits of a double that is not finite")
        return double
    if key == "$number":
        if not _NUMBER.fullmatch(text) or not isinstance(classify(text), Number):
            _refuse("$number takes a number that is neither integer nor double")
        return Number(text)
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        data = b""
    if base64.b64encode(data).decode() != text:
        _refuse("$bytes takes base64 with padding")
    return data


def _check_text(value: Value) -> None:
    match value:
        case str():
            value.encode()
        case list():
            for item in value:
                _check_text(item)
        case dict():
            for key, item in value.items():
                key.encode()
                _check_text(item)
        case _:
            pass
