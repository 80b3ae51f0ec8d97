"""`memferry`: verbs that mirror the library."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Final, cast

import typer
from stamina.instrumentation import set_on_retry_hooks

from memferry.cli import bindings, doctor, manifests, moves, stores, worker
from memferry.cli.common import app
from memferry.cli.console import failure, print_json, tell, tell_retry
from memferry.errors import RefusedError, StoreError

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


def _write_anything() -> None:
    """Keeps a report from failing at a letter that stdout or stderr has no place for."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            with suppress(OSError):  # The file below it is another one than it was opened for.
                stream.reconfigure(errors="backslashreplace")


def run() -> None:
    """Entry point."""
    _share_one_arena()
    _write_anything()
    set_on_retry_hooks([tell_retry])
    try:
        code = app(standalone_mode=False) or 0
    except _UsageError as error:
        # Told as typer does, with the usage of the verb; and with the final object, where one is waited for.
        error.show()
        if "--json" in sys.argv:
            with suppress(OSError):  # `_written` tells that.
                print_json(failure(RefusedError("invalid", error.format_message())))
        code = error.exit_code
    except OSError as error:  # of help and the like; what a verb writes is told by the verb
        code = tell(StoreError("io", str(error)))
    sys.exit(_written(code))


def _written(code: int) -> int:
    """Brings what is still held back to stdout; the exit code, another one where that fails."""
    try:
        sys.stdout.flush()
    except OSError as error:
        # Else the interpreter tries once more at its end.
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())
        return code or tell(StoreError("io", f"stdout: {error.strerror}"))
    return code
