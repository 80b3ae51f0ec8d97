"""Instants and durations as the resources write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def instant(text: str | None) -> datetime | None:
    """Reads an RFC 3339 instant."""
    return datetime.fromisoformat(text) if text else None


def text(at: datetime) -> str:
    """Writes an instant with milliseconds, which orders as text."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def duration(written: str) -> timedelta:
    """Reads `90s`, `5m`, `1h30m`."""
    return timedelta(seconds=sum(int(n) * _UNITS[unit] for n, unit in re.findall(r"(\d+)(ms|s|m|h)", written)))
