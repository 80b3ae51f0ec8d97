"""A managed process starts ready, fails with its log, and never outlives the tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from testbed import wait
from testbed.errors import TestbedError
from testbed.process import ManagedProcess, is_alive

_TESTS_FOLDER = Path(__file__).resolve().parents[1]
_SLEEPER = [sys.executable, "-c", "import signal; print('up', flush=True); signal.pause()"]
_STUBBORN = [
    sys.executable,
    "-c",
    "import signal; signal.signal(15, signal.SIG_IGN); print('up', flush=True)\nwhile True: signal.pause()",
]


def _sleeper(tmp_path: Path, argv: list[str] | None = None, stop_grace_secs: float = 15.0) -> ManagedProcess:
    log_path = tmp_path / "sleeper.log"
    process = ManagedProcess(
        "sleeper",
        argv or _SLEEPER,
        log_path=log_path,
        ready=lambda: "up" in process.log_since_start(),
        stop_grace_secs=stop_grace_secs,
    )
    return process


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_start_waits_until_ready_and_stop_ends(tmp_path: Path) -> None:
    process = _sleeper(tmp_path)
    with process:
        assert process.log_since_start() == "up\n"
        pid = process.pid
        assert os.getpgid(pid) == pid != os.getpgid(0)
    assert not is_alive(pid)
    assert not process.is_running
    process.stop()


def test_restart_is_another_process_with_the_same_log(tmp_path: Path) -> None:
    with _sleeper(tmp_path) as process:
        first = process.pid
        process.kill9()
        process.start()
        second = process.pid
        process.restart()
        assert len({first, second, process.pid}) == 3
        assert process.log_path.read_text() == "up\n" * 3
        assert process.log_since_start() == "up\n"


def test_what_ends_while_starting_is_reported_with_its_log(tmp_path: Path) -> None:
    process = _sleeper(tmp_path, [sys.executable, "-c", "import sys; sys.exit('no such luck')"])
    with pytest.raises(TestbedError, match=r"(?s)exit code 1.*sleeper\.log.*no such luck"):
        process.start()


def test_what_is_never_ready_is_killed_and_reported(tmp_path: Path) -> None:
    process = ManagedProcess(
        "mute", _SLEEPER, log_path=tmp_path / "mute.log", ready=lambda: False, ready_deadline_secs=0.3
    )
    with pytest.raises(TestbedError, match=r"mute ready: not there after 0\.3 s"):
        process.start()
    assert not process.is_running


def test_a_missing_program_is_reported(tmp_path: Path) -> None:
    process = _sleeper(tmp_path, ["no-such-program-at-all"])
    with pytest.raises(TestbedError, match="no-such-program-at-all"):
        process.start()


def test_stop_kills_what_ignores_sigterm(tmp_path: Path) -> None:
    process = _sleeper(tmp_path, _STUBBORN, stop_grace_secs=0.2)
    process.start()
    pid = process.pid
    process.stop()
    assert not is_alive(pid)


def test_stop_ends_what_is_frozen(tmp_path: Path) -> None:
    process = _sleeper(tmp_path)
    process.start()
    os.kill(process.pid, signal.SIGSTOP)
    process.stop()
    assert not process.is_running


def test_stop_cont_freezes_for_the_block(tmp_path: Path) -> None:
    with _sleeper(tmp_path) as process:
        with process.stop_cont():
            wait.until(lambda: _state(process.pid) == "T", what="a frozen process")
        wait.until(lambda: _state(process.pid) == "S", what="a thawed process")


def test_pipes_carry_text(tmp_path: Path) -> None:
    with ManagedProcess("cat", ["cat"], log_path=tmp_path / "cat.log", piped=True) as process:
        process.stdin.write("grüße\n")
        process.stdin.flush()
        assert process.stdout.readline() == "grüße\n"


def test_the_end_of_the_starting_thread_does_not_end_the_process(tmp_path: Path) -> None:
    process = _sleeper(tmp_path)
    thread = threading.Thread(target=process.start)
    thread.start()
    thread.join()
    with pytest.raises(TestbedError, match=r"did not end in 0\.3 s"):
        process.wait(deadline_secs=0.3)
    process.stop()


def _owner(tmp_path: Path) -> subprocess.Popen[str]:
    """A Python process that holds a managed process, then waits; it prints the held pid."""
    script = textwrap.dedent(f"""
        import signal, sys
        from pathlib import Path
        sys.path.insert(0, {str(_TESTS_FOLDER)!r})
        from testbed.process import ManagedProcess, is_alive
        held = ManagedProcess("held", {_STUBBORN!r}, log_path=Path({str(tmp_path / "held.log")!r}),
            ready=lambda: "up" in held.log_since_start())
        held.start()
        print(held.pid, flush=True)
        sys.stdin.readline()
    """)
    return subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("how", ["kill -9", "exit"])
def test_the_end_of_the_owner_ends_the_process(tmp_path: Path, how: str) -> None:
    with _owner(tmp_path) as owner:
        assert owner.stdout is not None
        assert owner.stdin is not None
        held = int(owner.stdout.readline())
        assert is_alive(held)
        if how == "kill -9":
            owner.kill()
        else:
            owner.stdin.write("\n")
            owner.stdin.flush()
        owner.wait(10)
    wait.until(lambda: not is_alive(held), what="the end of the held process")
