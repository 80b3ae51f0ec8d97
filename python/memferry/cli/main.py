"""`memferry`: verbs that mirror the library."""

from __future__ import annotations

import ctypes
import sys
from typing import Final, cast

import typer
from stamina.instrumentation import set_on_retry_hooks

from memferry.cli import bindings, doctor, manifests, moves, stores, worker
from memferry.cli.common import app
from memferry.cli.console import failure, print_json, tell_retry
from memferry.errors import RefusedError

__all__ = ["app", "bindings", "doctor", "manifests", "moves", "run", "stores", "worker"]

_UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__base__)
"""What typer raises for any command line that cannot be read; only this subclass of it has a public name."""
_M_ARENA_MAX: Final = -8
"""Of glibc's `mallopt`."""


def _share_one_arena() -> None:
    """Keeps memory flat: glibc gives each thread an arena of its own, and each keeps the pages that its thread freed.

    At 200,000 records that is 60 of 170 MiB, and it grows with the records; pages are few, so nobody waits for another.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_ARENA_MAX, 1)


def run() -> None:
    """Entry point."""
    _share_one_arena()
    set_on_retry_hooks([tell_retry])
    try:
        code = app(standalone_mode=False)
    except _UsageError as error:
        # Told as typer does, with the usage of the verb; and with the final object, where one is waited for.
        error.show()
        if "--json" in sys.argv:
            print_json(failure(RefusedError("invalid", error.format_message())))
        code = error.exit_code
    sys.exit(code or 0)
