"""Run as a script: an interpreter that has imported what it is told, and becomes a new process for each job.

Importing is most of what a short command costs, and the suites start more than a thousand of them. A fork is a process
as any other: it has files, threads, a lock and a death of its own, and ends as the interpreter does, short of taking
its modules apart. What it does not show, that a command starts from nothing and comes to the interpreter's own end, is
shown by the tests that use `sys.executable`.

A job comes as JSON over the socket that is named by number, with four files: stdin, stdout, stderr, and a pipe that is
told the process id and at its end the exit code, four bytes each. The end of the socket ends everything.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import sys
import threading
from pathlib import Path
from typing import Any, Final, NoReturn

from memferry import failpoints
from memferry.cli.main import app

_MOST_BYTES: Final = 1 << 18
_PR_SET_PDEATHSIG: Final = 1


def serve(jobs: socket.socket) -> dict[str, Any]:
    """Forks until the socket ends; returns only in a new process, with its job."""
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "a process with threads cannot be forked safely"
    children: dict[int, int] = {}
    awake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the test run; its end is ours.
    while True:
        ready, _, _ = select.select([jobs.fileno(), awake], [], [])
        if awake in ready:
            os.read(awake, 4096)
            _reap(children)
        if jobs.fileno() not in ready:
            continue
        message, files, _, _ = socket.recv_fds(jobs, _MOST_BYTES, 4)
        if not message:
            sys.exit()
        pid = os.fork()
        if pid == 0:
            _become(files[:3])
            return dict(json.loads(message))
        for file in files[:3]:
            os.close(file)
        with contextlib.suppress(OSError):  # It may be over already.
            os.setpgid(pid, pid)
        children[pid] = files[3]
        _tell(files[3], pid)


def _reap(children: dict[int, int]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        teller = children.pop(pid)
        _tell(teller, os.waitstatus_to_exitcode(status))
        os.close(teller)


def _tell(teller: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody waits for this one any more
        os.write(teller, struct.pack("i", number))


def _become(files: list[int]) -> None:
    """Makes a child what a new interpreter would be."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))


def work(job: dict[str, Any]) -> None:
    """Does what `python ARGUMENTS` would do."""
    os.environ.clear()
    os.environ.update(job["environment"])
    os.chdir(job["folder"])
    failpoints.arm(os.environ.get("MEMFERRY_FAILPOINT", ""))
    first, *rest = job["arguments"]
    try:
        _run(first, rest)
        code = 0
    except SystemExit as ended:
        if ended.code is not None and not isinstance(ended.code, int):
            raise
        code = ended.code or 0
    _end(code)


def _end(code: int) -> NoReturn:
    """Ends as the interpreter does, but for its last step: to take its modules apart copies the pages of its parent."""
    threading._shutdown()  # type: ignore[attr-defined] # as `multiprocessing` ends what it has forked
    atexit._run_exitfuncs()
    gc.collect()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code & 0xFF)


def _run(first: str, rest: list[str]) -> None:
    if first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102 - as the interpreter does
    else:
        sys.argv = [first, *rest]
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    for module in sys.argv[2:]:
        importlib.import_module(module)
    app(["--help"], standalone_mode=False)  # What reads a command line is imported by the first that is read.
    gc.freeze()  # What was imported is garbage to no child; looking through it would copy its pages.
    work(serve(socket.socket(fileno=int(sys.argv[1]))))
