"""Starts the command line as a process of its own and kills it, at a time or at a place."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from support.checker import last_json
from testbed.forked import Forked, written

__all__ = ["FILE_RUNS", "SERVER_RUNS", "Ended", "run_cli"]

_RUNS: Final = int(os.environ.get("MEMFERRY_CRASH_RUNS", "200"))
SERVER_RUNS: Final = _RUNS * 12 // 25
"""Seeded crash runs over the pairs with a server in them."""
FILE_RUNS: Final = _RUNS - SERVER_RUNS
"""And over the pairs of files."""

_RUNNER: Final = Path(__file__).with_name("runner.py")
_DEADLINE_SECS: Final = 60.0


@dataclass
class Ended:
    """How a process ended.

    Attributes:
        code: Exit code, negative for a signal.
        secs: From its start of work to its end.
        out: Its stdout.
        err: Its stderr.
    """

    code: int
    secs: float
    out: str
    err: str

    @property
    def killed(self) -> bool:
        """Whether a SIGKILL struck."""
        return self.code == -signal.SIGKILL

    def final(self) -> Any:
        """The object on its last line."""
        return last_json(self.out)


def run_cli(
    *arguments: str | Path, failpoint: str | None = None, kill_after_secs: float | None = None, cwd: Path | None = None
) -> Ended:
    """Runs `memferry` in small pages and ranges.

    Args:
        *arguments: Verb, stores, options.
        failpoint: Where it kills itself, as in `booked:3`.
        kill_after_secs: When it is killed, from its start of work.
        cwd: Its working folder.
    """
    environment = {name: value for name, value in os.environ.items() if name != "MEMFERRY_FAILPOINT"}
    if failpoint:
        environment["MEMFERRY_FAILPOINT"] = failpoint
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = Forked([_RUNNER, *arguments], environment=environment, folder=cwd, stdout=out, stderr=err)
        began = time.monotonic()
        try:
            if kill_after_secs is not None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(kill_after_secs)
                process.kill()
            code = process.wait(_DEADLINE_SECS)
        finally:
            process.kill()
        secs = time.monotonic() - began
        return Ended(code, secs, written(out), written(err))
