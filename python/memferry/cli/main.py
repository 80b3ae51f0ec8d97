"""`memferry`: verbs that mirror the library."""

from __future__ import annotations

from memferry.cli import moves, stores
from memferry.cli.common import app

__all__ = ["app", "moves", "run", "stores"]


def run() -> None:
    """Entry point."""
    app()
