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
from testbed.forked import Forked

__all__ = ["Running", "final", "run", "running"]

COMMAND: Final = Path(__file__).with_name("command.py")
_DEADLINE_SECS: Final = 100.0
_OURS: Final = ("MEMFERRY_TEST_", "MEMFERRY_FAILPOINT", "MEMFERRY_SOURCE_", "MEMFERRY_TARGET_")


class Running:
    """A run that has been started.

    Args:
        arguments: Of the interpreter.
        environment: Added to this process's environment, which is rid of what is meant for memferry.
        before: A command that starts the interpreter.
    """

    def __init__(
        self, arguments: Sequence[str | Path], environment: Mapping[str, str], before: Sequence[str | Path] = ()
    ) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        self._err = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._out = b""
        stdin, self._stdin = os.pipe2(os.O_CLOEXEC)
        self._stdout, stdout = os.pipe2(os.O_CLOEXEC)
        self._began = time.monotonic()
        whole = {**kept, **environment}
        self._process: Forked | subprocess.Popen[bytes]
        if before or "LD_PRELOAD" in environment:  # An interpreter that has to be started so.
            argv = [*before, sys.executable, *arguments]
            self._process = subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=self._err, env=whole)
        else:
            self._process = Forked(arguments, environment=whole, stdin=stdin, stdout=stdout, stderr=self._err)
        os.close(stdin)
        os.close(stdout)

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
        os.write(self._stdin, b"\n")

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
        os.close(self._stdin)
        os.close(self._stdout)
        self._err.close()

    def _read(self, until: bytes | None, deadline_secs: float = _DEADLINE_SECS) -> None:
        """Reads stdout up to a text or to its end."""
        ends_at = time.monotonic() + deadline_secs
        while until is None or until not in self._out:
            ready, _, _ = select.select([self._stdout], [], [], max(0.0, ends_at - time.monotonic()))
            assert ready, f"not over after {deadline_secs:g} s\n{self.story()}"
            chunk = os.read(self._stdout, 1 << 16)
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
    run = Running([COMMAND, *arguments], variables, before)
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
