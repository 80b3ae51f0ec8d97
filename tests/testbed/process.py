"""A child process that is always ended: on exit, on a crash of the tests, and when they are killed with -9."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from testbed import wait
from testbed.errors import TestbedError
from testbed.forked import Forked, of_python

__all__ = ["ManagedProcess", "is_alive", "log_tail", "run_tool"]

_EXEC_WITH_PARENT = Path(__file__).with_name("exec_with_parent.py")
_TAIL_BYTES = 4000


@functools.cache
def _spawner(pid: int) -> ThreadPoolExecutor:
    """The thread of the process `pid` that starts all children; a forked child gets its own.

    The kernel sends the parent-death signal when the *thread* that started a child ends. So one thread that lives
    as long as this process starts them all; at a normal exit its end kills whatever was forgotten.
    """
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"testbed-spawner-{pid}")


class ManagedProcess:
    """A server or worker started by a test, with its log in a file.

    Args:
        name: What messages call it.
        argv: The command; never a secret in it.
        log_path: Gets stderr, and stdout unless `piped`; appended to by every start.
        ready: Called until it returns true; None if the process counts as ready at once.
        ready_deadline_secs: How long `start` waits for `ready`.
        stop_grace_secs: How long `stop` waits after SIGTERM before it kills.
        env: Added to this process's environment; None as a value removes the variable.
        cwd: Its working folder.
        piped: Give stdin and stdout as text pipes, `stdin` and `stdout`; never with `forked`.
        forked: Fork it from an interpreter that has imported memferry, if it is a program in Python.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        log_path: Path,
        ready: Callable[[], bool] | None = None,
        ready_deadline_secs: float = 30.0,
        stop_grace_secs: float = 15.0,
        env: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
        piped: bool = False,
        forked: bool = False,
    ) -> None:
        self.name = name
        self.log_path = log_path
        self._argv = [os.fspath(part) for part in argv]
        self._ready = ready
        self._ready_deadline_secs = ready_deadline_secs
        self._stop_grace_secs = stop_grace_secs
        self._env = _merged_environment(env)
        self._cwd = cwd
        self._piped = piped
        self._forked = forked
        self._popen: subprocess.Popen[str] | Forked | None = None
        self._log_start = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id, which is also that of its process group, or was."""
        return self._running_or_ended().pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._popen is not None and self._popen.poll() is None

    @property
    def stdin(self) -> IO[str]:
        """Its standard input, if `piped`."""
        pipe = self._pipes(self._running())[0]
        if pipe is None:
            raise TestbedError(f"{self.name} was not started with pipes")
        return pipe

    @property
    def stdout(self) -> IO[str]:
        """Its standard output, if `piped`."""
        pipe = self._pipes(self._running())[1]
        if pipe is None:
            raise TestbedError(f"{self.name} was not started with pipes")
        return pipe

    def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            TestbedError: It ended or was not ready in time; the log's path and tail are in the message.
        """
        if self.is_running:
            raise TestbedError(f"{self.name} is already running, pid {self.pid}")
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self._log_start = log.tell()
            self._popen = _spawner(os.getpid()).submit(self._spawn, log).result()
        try:
            wait.until(self._ready_or_dead, what=f"{self.name} ready", deadline_secs=self._ready_deadline_secs)
        except BaseException as error:
            self.kill9()
            if isinstance(error, TestbedError):
                raise self.failure(str(error)) from error
            raise

    def stop(self) -> None:
        """End it: SIGTERM, and SIGKILL to its whole group if that is not enough. Does nothing if it has ended."""
        popen = self._popen
        if popen is None:
            return
        if popen.poll() is None:
            popen.send_signal(signal.SIGCONT)
            popen.terminate()
            try:
                popen.wait(self._stop_grace_secs)
            except subprocess.TimeoutExpired:
                self.kill9()
        self._close_pipes(popen)

    def kill9(self) -> None:
        """SIGKILL to it and its group, and wait for its end. Does nothing if it has ended."""
        popen = self._popen
        if popen is None:
            return
        if popen.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(popen.pid, signal.SIGKILL)
            popen.wait()
        self._close_pipes(popen)

    def restart(self) -> None:
        """Stop it if it runs, then start the same command again."""
        self.stop()
        self.start()

    @contextlib.contextmanager
    def stop_cont(self) -> Iterator[None]:
        """Freeze it with SIGSTOP for the length of the block, then SIGCONT."""
        popen = self._running()
        popen.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            popen.send_signal(signal.SIGCONT)

    def wait(self, *, deadline_secs: float) -> int:
        """Wait for it to end by itself.

        Returns:
            Its exit code, negative for a signal.
        """
        try:
            return self._running_or_ended().wait(deadline_secs)
        except subprocess.TimeoutExpired:
            raise self.failure(f"{self.name} did not end in {deadline_secs:g} s") from None

    def log_since_start(self) -> str:
        """What it has logged since its last start."""
        with self.log_path.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def failure(self, what: str) -> TestbedError:
        """An error that says `what` went wrong and shows the end of the log."""
        return TestbedError(f"{what}\nlog: {self.log_path}\n{log_tail(self.log_since_start())}")

    def _spawn(self, log: IO[bytes]) -> subprocess.Popen[str] | Forked:
        python = of_python(self._argv, self._env.get("PATH", os.defpath)) if self._forked else None
        if python:
            return Forked(python, environment=self._env, folder=self._cwd, stdout=log, stderr=log)
        return subprocess.Popen(
            [sys.executable, "-I", "-S", os.fspath(_EXEC_WITH_PARENT), str(os.getpid()), *self._argv],
            stdin=subprocess.PIPE if self._piped else subprocess.DEVNULL,
            stdout=subprocess.PIPE if self._piped else log,
            stderr=log,
            env=self._env,
            cwd=self._cwd,
            start_new_session=True,
            encoding="utf-8",
        )

    def _ready_or_dead(self) -> bool:
        if self._ready is None:
            return True  # It may be over by now, as a short command is.
        exit_code = self._running_or_ended().poll()
        if exit_code is not None:
            raise TestbedError(f"{self.name} ended while starting, exit code {exit_code}")
        return self._ready()

    def _running(self) -> subprocess.Popen[str] | Forked:
        popen = self._running_or_ended()
        if popen.poll() is not None:
            raise self.failure(f"{self.name} has ended, exit code {popen.returncode}")
        return popen

    def _running_or_ended(self) -> subprocess.Popen[str] | Forked:
        if self._popen is None:
            raise TestbedError(f"{self.name} was never started")
        return self._popen

    @staticmethod
    def _pipes(popen: subprocess.Popen[str] | Forked) -> tuple[IO[str] | None, IO[str] | None]:
        return (None, None) if isinstance(popen, Forked) else (popen.stdin, popen.stdout)

    def _close_pipes(self, popen: subprocess.Popen[str] | Forked) -> None:
        for pipe in self._pipes(popen):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def run_tool(
    argv: Sequence[str | Path],
    *,
    what: str,
    deadline_secs: float = 600.0,
    cwd: Path | None = None,
    env: Mapping[str, str | None] | None = None,
) -> str:
    """Run a short-lived tool (a build, an installer) to its end.

    Args:
        argv: The command.
        what: What it does, for the error.
        deadline_secs: Killed after this time.
        cwd: Its working folder.
        env: Added to this process's environment; None as a value removes the variable.

    Returns:
        Its standard output.

    Raises:
        TestbedError: It is not installed, took too long, or failed; the end of its output is in the message.
    """
    command = [os.fspath(part) for part in argv]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=deadline_secs,
            cwd=cwd,
            env=_merged_environment(env),
            check=False,
        )
    except FileNotFoundError as error:
        raise TestbedError(f"{what}: `{command[0]}` is not installed\nhint: install it, the tests need it") from error
    except subprocess.TimeoutExpired as error:
        raise TestbedError(f"{what}: not done after {deadline_secs:g} s") from error
    if done.returncode != 0:
        raise TestbedError(f"{what}: exit code {done.returncode}\n{log_tail(done.stdout + done.stderr)}")
    return done.stdout


def is_alive(pid: int) -> bool:
    """Whether there is such a process and it has not ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def log_tail(text: str) -> str:
    """The last few thousand characters of a log, cut at a line."""
    if len(text) <= _TAIL_BYTES:
        return text
    tail = text[-_TAIL_BYTES:]
    return "[...]\n" + tail[tail.find("\n") + 1 :]


def _merged_environment(changes: Mapping[str, str | None] | None) -> dict[str, str]:
    merged = dict(os.environ)
    for name, value in (changes or {}).items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = value
    return merged
