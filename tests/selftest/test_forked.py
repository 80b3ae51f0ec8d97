"""Forked processes are as those that are started from nothing, and end as those do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Final

import pytest

from testbed import wait
from testbed.forked import Forked, of_python, run
from testbed.process import ManagedProcess, is_alive

_TESTS_FOLDER: Final = Path(__file__).parents[1]
_SLEEPS: Final = "import signal; print('up', flush=True); signal.pause()"
_HAS_A_CHILD: Final = f"""
import subprocess, sys
print("child", subprocess.Popen(["sleep", "60"]).pid, flush=True)
{_SLEEPS}
"""


@pytest.mark.parametrize(
    "code",
    [
        "print('said')",
        "import sys; sys.exit(7)",
        "import sys; sys.exit('text')",
        "import sys; sys.exit(None)",
        "import sys; sys.exit(-1)",
        "1 / 0",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "import atexit, sys; atexit.register(print, 'at exit'); sys.stdout.write('no newline')",
        "import threading, time; threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()",
        "from concurrent.futures import ThreadPoolExecutor; ThreadPoolExecutor().submit(print, 'pool')",
        "import os, sys; print(sys.argv, os.getcwd(), sorted(os.environ), sys.stdin.read())",
    ],
)
def test_code_and_outputs_are_those_of_the_interpreter(code: str, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "LC_CTYPE": "C.UTF-8"}
    arguments = ["-c", code, "an argument"]
    forked = run(*arguments, environment=environment, folder=tmp_path, text="from stdin")
    anew = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=tmp_path,
        input="from stdin",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (forked.returncode, forked.stdout) == (anew.returncode, anew.stdout)
    assert forked.stderr.splitlines()[-1:] == anew.stderr.splitlines()[-1:]


def test_several_threads_may_wait_for_one() -> None:
    process = Forked(["-c", _SLEEPS])
    codes: list[int] = []
    threads = [threading.Thread(target=lambda: codes.append(process.wait())) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert process.poll() is None
    process.kill()
    for thread in threads:
        thread.join()
    assert codes == [-signal.SIGKILL] * 4
    assert process.poll() == -signal.SIGKILL


def test_its_group_dies_with_it(tmp_path: Path) -> None:
    process = ManagedProcess(
        "parent",
        [sys.executable, "-c", _HAS_A_CHILD],
        log_path=tmp_path / "log",
        ready=lambda: "up" in process.log_since_start(),
        forked=True,
    )
    with process:
        child = int(process.log_since_start().split()[1])
        assert is_alive(child)
        process.kill9()
    wait.until(lambda: not is_alive(child), what="the end of its child")


def test_it_dies_with_the_process_that_asked_for_it() -> None:
    script = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(_TESTS_FOLDER)!r})
        from testbed.forked import Forked
        print(Forked(["-c", {_SLEEPS!r}]).pid, flush=True)
        sys.stdin.readline()
    """)
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        held = int(owner.stdout.readline())
        assert is_alive(held)
        owner.kill()
    wait.until(lambda: not is_alive(held), what="the end of what it held")


def test_only_what_this_interpreter_runs_is_forked(tmp_path: Path) -> None:
    path = f"{tmp_path}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ours = str(Path(sys.executable).parent / "memferry")
    assert of_python([sys.executable, "x.py", "a"], path) == ["x.py", "a"]
    assert of_python(["memferry", "plan"], path) == [ours, "plan"]
    assert of_python(["sh", "-c", "true"], path) is None
    assert of_python(["no-such-program-at-all"], path) is None
    (tmp_path / "memferry").write_text("#!/bin/sh\n")
    (tmp_path / "memferry").chmod(0o755)
    assert of_python(["memferry", "plan"], path) is None
