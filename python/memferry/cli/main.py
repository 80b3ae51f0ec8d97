"""`memferry`: verbs that mirror the library."""

from __future__ import annotations

from stamina.instrumentation import set_on_retry_hooks

from memferry.cli import doctor, manifests, moves, stores
from memferry.cli.common import app
from memferry.cli.console import tell_retry

__all__ = ["app", "doctor", "manifests", "moves", "run", "stores"]


def run() -> None:
    """Entry point."""
    set_on_retry_hooks([tell_retry])
    app()
