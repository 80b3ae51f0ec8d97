"""Starts the command line as a process of its own and kills it, at a time or at a place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from support.checker import last_json

__all__ = ["Ended", "run_cli"]

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
    command = [sys.executable, _RUNNER, *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=cwd
    ) as process:
        assert process.stdout is not None
        ready = process.stdout.readline()
        began = time.monotonic()
        if ready == "started\n" and kill_after_secs is not None:
            try:
                process.wait(kill_after_secs)
            except subprocess.TimeoutExpired:
                process.kill()
        try:
            out, err = process.communicate(timeout=_DEADLINE_SECS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return Ended(process.returncode, time.monotonic() - began, ready + out, err)
