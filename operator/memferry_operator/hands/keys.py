"""What is looked at."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Key"]


class Key(NamedTuple):
    """A resource, or what belongs to it."""

    kind: str
    namespace: str
    name: str
