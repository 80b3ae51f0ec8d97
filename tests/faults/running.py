"""The command line as a process of its own, stopped at a place while a test breaks something."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from support.killing import Ended

__all__ = ["Running", "final", "run", "running"]

COMMAND: Final = Path(__file__).with_name("command.py")
_DEADLINE_SECS: Final = 100.0
_OURS: Final = ("MEMFERRY_TEST_", "MEMFERRY_FAILPOINT", "MEMFERRY_SOURCE_", "MEMFERRY_TARGET_")


class Running:
    """A run that has been started.

    Args:
        argv: The whole command.
        environment: Added to this process's environment, which is rid of what is meant for memferry.
    """

    def __init__(self, argv: Sequence[str | Path], environment: Mapping[str, str]) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        self._err = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._out = b""
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._err,
            env={**kept, **environment},
            bufsize=0,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def paused(self) -> None:
        """Waits until it stands at its place."""
        self._read(b"paused\n")
        assert b"paused\n" in self._out, self.story()
        self._out = self._out.replace(b"paused\n", b"", 1)

    def go(self) -> None:
        """Lets it go on."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        self._process.send_signal(number)

    def kill(self) -> Ended:
        """Kills it."""
        self._process.kill()
        return self.ended()

    def kill_after(self, secs: float) -> Ended:
        """Kills it after a time, unless it has ended by then."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(secs)
        return self.kill()

    def ended(self, deadline_secs: float = _DEADLINE_SECS) -> Ended:
        """Waits for its end."""
        self._read(None, deadline_secs)
        code = self._process.wait(deadline_secs)
        return Ended(code, time.monotonic() - self._began, self._out.decode(), self.told())

    def told(self) -> str:
        """Its stderr so far."""
        self._err.flush()
        return Path(f"/proc/self/fd/{self._err.fileno()}").read_text("utf-8", "replace")

    def story(self) -> str:
        """What it said, for a message."""
        return f"exit {self._process.poll()}\n{self._out.decode()}\n{self.told()[-4000:]}"

    def close(self) -> None:
        """Ends it if it still runs."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._err):
            assert pipe is not None
            pipe.close()

    def _read(self, until: bytes | None, deadline_secs: float = _DEADLINE_SECS) -> None:
        """Reads stdout up to a text or to its end."""
        assert self._process.stdout is not None
        ends_at = time.monotonic() + deadline_secs
        while until is None or until not in self._out:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, ends_at - time.monotonic()))
            assert ready, f"not over after {deadline_secs:g} s\n{self.story()}"
            chunk = os.read(self._process.stdout.fileno(), 1 << 16)
            if not chunk:
                return
            self._out += chunk


@contextmanager
def running(
    *arguments: str | Path, pause: str = "", before: Sequence[str | Path] = (), **environment: str
) -> Iterator[Running]:
    """Starts `memferry`.

    Args:
        *arguments: Verb, stores, options.
        pause: Where it stands still, as in `committed:3`.
        before: A command that starts it, as in `nsenter ...`.
        **environment: Variables without `MEMFERRY_`, as in `TEST_PAGE`.
    """
    variables = {name if name == "LD_PRELOAD" else f"MEMFERRY_{name}": value for name, value in environment.items()}
    if pause:
        variables["MEMFERRY_TEST_PAUSE"] = pause
    run = Running([*before, sys.executable, COMMAND, *arguments], variables)
    try:
        yield run
    finally:
        run.close()


def run(*arguments: str | Path, before: Sequence[str | Path] = (), **environment: str) -> Ended:
    """Runs `memferry` to its end."""
    with running(*arguments, before=before, **environment) as one:
        return one.ended()


def final(ended: Ended, outcome: str, code: int) -> dict[str, Any]:
    """The object a run ended with, which must have this outcome and exit code."""
    story = f"exit {ended.code}\n{ended.out}\n{ended.err[-4000:]}"
    assert ended.code == code, story
    told: dict[str, Any] = ended.final()
    assert told["outcome"] == outcome, story
    return told
