"""Times: section 3 of `docs/record.md`."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from reference.json_values import Value

# The instants that have a canonical text, and those that can be read at all.
FIRST: Final = -62_167_219_200_000_000
LAST: Final = 253_402_207_200_000_000
_READ_FIRST: Final = -377_705_023_201_000_000
_READ_LAST: Final = 253_402_207_200_999_999

_DATE: Final = r"(?P<year>[0-9]{4}|[+-][0-9]{6})(?P<dash>-?)(?P<month>[0-9]{2})(?P=dash)(?P<day>[0-9]{2})"
_CLOCK: Final = (
    r"(?P<hour>[0-9]{2})(?:(?P<colon>:?)(?P<minute>[0-9]{2})"
    r"(?:(?P=colon)(?P<second>[0-9]{2})(?:[.,](?P<fraction>[0-9]{1,9}))?)?)?"
)
_OFFSET: Final = (
    r"(?P<zulu>[Zz])|(?P<sign>[+-])(?P<oh>[0-9]{2})(?:(?P<oc>:?)(?P<om>[0-9]{2})(?:(?P=oc)(?P<os>[0-9]{2}))?)?"
)
_NAME: Final = r"[_.A-Za-z][_.+\-0-9A-Za-z]*"
_ZONE: Final = rf"\[!?(?:{_NAME}(?:/{_NAME})*|[+-](?:[01][0-9]|2[0-5])(?::?[0-5][0-9])?)\]"
_TAG: Final = r"\[[_a-z][_\-0-9a-z]*=[0-9A-Za-z]+(?:-[0-9A-Za-z]+)*\]"
_TIME: Final = re.compile(rf"{_DATE}(?:[ Tt]{_CLOCK}(?:{_OFFSET})?)?(?:{_ZONE})?(?:{_TAG})*", re.ASCII)
_MONTHS: Final = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class Time(NamedTuple):
    """Microseconds since 1970, and the text where it says more."""

    micros: int | None
    text: str | None


def _leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def _days(year: int, month: int, day: int) -> int | None:
    """Days since 1970-01-01 in the proleptic Gregorian calendar, None for a day that does not exist."""
    if not 1 <= month <= 12:
        return None
    lengths = [n + (i == 1 and _leap(year)) for i, n in enumerate(_MONTHS)]
    if not 1 <= day <= lengths[month - 1]:
        return None
    before = year - 1
    whole_years = 365 * before + before // 4 - before // 100 + before // 400
    return whole_years + sum(lengths[: month - 1]) + day - 1 - 719_162


def parse(text: str) -> int | None:
    """Microseconds of a time text, rounded down; None for a text that is no time."""
    found = _TIME.fullmatch(text)
    if not found:
        return None

    def number(name: str) -> int:
        return int(found[name] or 0)

    days = _days(number("year"), number("month"), number("day"))
    hour, minute, second = number("hour"), number("minute"), number("second")
    offset = 3600 * number("oh") + 60 * number("om") + number("os")
    bad_offset = number("oh") > 25 or number("om") > 59 or number("os") > 59
    if days is None or hour > 23 or minute > 59 or second > 60 or bad_offset or found["year"] == "-000000":
        return None
    if not -9999 <= number("year") <= 9999:
        return None
    seconds = days * 86_400 + hour * 3600 + minute * 60 + min(second, 59)
    seconds -= -offset if found["sign"] == "-" else offset
    micros = seconds * 1_000_000 + int((found["fraction"] or "").ljust(6, "0")[:6])
    return micros if _READ_FIRST <= micros <= _READ_LAST else None


def canonical(micros: int) -> str | None:
    """`2024-06-15T10:30:00.000000Z`, None before the year 0 and after the last instant that can be read."""
    if not FIRST <= micros <= LAST:
        return None
    seconds, fraction = divmod(micros, 1_000_000)
    days, clock = divmod(seconds, 86_400)
    year = 1969 + min(days // 365, days // 366)
    while (following := _days(year + 1, 1, 1)) is not None and following <= days:
        year += 1
    month = 12
    while (start := _days(year, month, 1)) is None or start > days:
        month -= 1
    hour, rest = divmod(clock, 3600)
    return f"{year:04}-{month:02}-{days - start + 1:02}T{hour:02}:{rest // 60:02}:{rest % 60:02}.{fraction:06}Z"


def decode(value: Value) -> Time | None:
    """Reads a time of a native document; None when it is none."""
    match value:
        case str():
            micros = parse(value)
            same = micros is not None and canonical(micros) == value
            return Time(micros, None if same else value)
        case bool():
            return None
        case int():
            is_time = -(2**63) <= value < 2**63 and canonical(value) is None
            return Time(value, None) if is_time else None
        case dict():
            return _pair(value)
        case _:
            return None


def _pair(pair: dict[str, Value]) -> Time | None:
    """A pair is for times that have no shorter form."""
    if set(pair) != {"micros", "text"}:
        return None
    micros, text = pair["micros"], pair["text"]
    if not isinstance(micros, int) or isinstance(micros, bool) or not -(2**63) <= micros < 2**63:
        if micros is not None:
            return None
        micros = None
    if not isinstance(text, str):
        return None
    if parse(text) == micros and (micros is None or canonical(micros) != text):
        return None
    return Time(micros, text)
