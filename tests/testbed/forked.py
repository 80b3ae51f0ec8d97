"""Processes of Python, forked from an interpreter that has imported memferry (`prefork.py`): a tenth of the cost."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final

__all__ = ["Done", "Forked", "of_python", "run", "written"]

Done = subprocess.CompletedProcess[str]

_PREFORK: Final = Path(__file__).with_name("prefork.py")
_IMPORTED: Final = {
    "memferry": ("memferry.cli.apply", "memferry.cli.pods", "memferry.phases.quarantine", "httpx", "neo4j"),
    "memferry-operator": ("memferry_operator.main",),
}
"""What programs import while they work; any other is forked as `memferry` is."""
_MOST_BYTES: Final = 4096
_lock = threading.Lock()


@functools.cache
def _jobs(_pid: int, program: str) -> socket.socket:
    """The socket of the interpreter that this process forks `program` from; it ends with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        subprocess.Popen(
            [sys.executable, "-P", _PREFORK, str(theirs.fileno()), *_IMPORTED[program]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "COLUMNS": "80", "OPENBLAS_NUM_THREADS": "1"},  # its threads start when it is imported
            pass_fds=[theirs.fileno()],
        ).returncode = 0  # Nobody waits for it, and nobody has to be warned of that.
    atexit.register(ours.close)
    return ours


class Forked:
    """`python ARGUMENTS` as a process and a group of its own, with what of `subprocess.Popen` the tests need.

    Args:
        arguments: `-m MODULE ...`, `-c CODE ...`, or a script and its arguments.
        environment: Its whole environment; that of this process if not given.
        folder: Its working folder; that of this process if not given.
        stdin: A file; nothing comes from it if not given.
        stdout: A file; what is written is lost if not given.
        stderr: A file; that of this process if not given.
    """

    def __init__(
        self,
        arguments: Sequence[str | Path],
        *,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        stdin: IO[bytes] | int | None = None,
        stdout: IO[bytes] | int | None = None,
        stderr: IO[bytes] | int | None = None,
    ) -> None:
        job = {
            "arguments": [os.fspath(argument) for argument in arguments],
            "environment": dict(os.environ if environment is None else environment),
            "folder": os.fspath(folder or Path.cwd()),
        }
        self.returncode: int | None = None
        """Once `poll` or `wait` has seen its end."""
        self._told, teller = os.pipe2(os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._told)
        self._ending = threading.Lock()
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            files = [_number(stdin, nothing), _number(stdout, nothing), _number(stderr, 2), teller]
            program = Path(arguments[0]).name
            with _lock:
                jobs = _jobs(os.getpid(), program if program in _IMPORTED else "memferry")
                socket.send_fds(jobs, [json.dumps(job).encode()], files)
        finally:
            os.close(nothing)
            os.close(teller)
        self.pid = self._next()

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for its end; its exit code, negative for a signal.

        Raises:
            subprocess.TimeoutExpired: It still runs.
        """
        if self.returncode is None:
            if timeout is not None and not select.select([self._told], [], [], max(0.0, timeout))[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            with self._ending:  # Another thread may wait for it as well.
                if self.returncode is None:
                    self.returncode = self._next()
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Sends it a signal, if it still runs."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # reaped by its parent, which has not told us yet
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kills it, if it still runs."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Asks it to end, if it still runs."""
        self.send_signal(signal.SIGTERM)

    def _next(self) -> int:
        told = os.read(self._told, 4)
        assert len(told) == 4, "the interpreter that processes are forked from is gone"
        return int(struct.unpack("i", told)[0])


def of_python(argv: Sequence[str], path: str) -> list[str] | None:
    """What of a command is for `python`; None where this interpreter does not run it.

    Args:
        argv: The command.
        path: Where its program is looked for, as PATH.
    """
    if argv[0] == sys.executable:
        return list(argv[1:])
    found = shutil.which(argv[0], path=path)
    if found is None:
        return None
    with Path(found).open("rb") as program:
        first = program.readline(_MOST_BYTES)
    return [found, *argv[1:]] if first.rstrip() == b"#!" + os.fsencode(sys.executable) else None


def _number(file: IO[bytes] | int | None, otherwise: int) -> int:
    if file is None:
        return otherwise
    return file if isinstance(file, int) else file.fileno()


def run(
    *arguments: str | Path,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    text: str = "",
    deadline_secs: float = 120.0,
) -> Done:
    """Runs `python ARGUMENTS` to its end.

    Args:
        *arguments: As of `Forked`.
        environment: As of `Forked`.
        folder: As of `Forked`.
        text: What comes from stdin.
        deadline_secs: Killed after that time.

    Raises:
        subprocess.TimeoutExpired: It took too long.
    """
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        stdin.write(text.encode())
        stdin.seek(0)
        process = Forked(arguments, environment=environment, folder=folder, stdin=stdin, stdout=stdout, stderr=stderr)
        try:
            code = process.wait(deadline_secs)
        except BaseException:
            process.kill()
            process.wait()
            raise
        return Done([*map(str, arguments)], code, written(stdout), written(stderr))


def written(file: IO[bytes]) -> str:
    """What a process wrote to a file."""
    file.seek(0)
    return file.read().decode("utf-8", "replace")
