"""A box on this machine: namespaces and cgroups of its own, for what would otherwise change the machine.

Its process 1 (`box_init.py`) starts the programs; when it ends, by whatever way, the kernel ends everything in it and
its mounts and interfaces are gone. Only empty cgroups are left by a crash; the next box removes them.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from testbed import wait
from testbed.errors import TestbedError
from testbed.kubernetes.box_init import CONTROLLERS
from testbed.ports import release_port, reserve_port
from testbed.process import ManagedProcess, log_tail, run_tool

__all__ = ["ADDRESS", "Box", "BoxProcess"]

ADDRESS = "10.200.0.1"

_HERE = Path(__file__).parent
_PREFIX = "memferry-box-"
_END_DEADLINE_SECS = 30.0
_PROCESSES = 10
_numbers = itertools.count(1)


class Box:
    """One box, made but not started. Needs root and the cgroup v1 hierarchies.

    Args:
        folder: For its logs; `state` below it is in memory, and seen in the box only.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self._groups: list[Path] = []
        self._guard = threading.Lock()
        self._forwards: list[tuple[ManagedProcess, int]] = []
        self._init: ManagedProcess | None = None
        self._pid = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Of its process 1, as seen from the machine."""
        if not self._pid:
            raise TestbedError("this box was never started")
        return self._pid

    def start(self) -> None:
        """Make it, with mounts and an interface, and nothing else in it."""
        _require()
        self.state.mkdir(parents=True, exist_ok=True)
        parents = _parent_groups()
        _sweep(parents.values())
        name = f"{_PREFIX}{os.getpid()}-{next(_numbers)}"
        self._groups = [parent / name for parent in parents.values()]
        for controller, parent in parents.items():
            _make_group(controller, parent, parent / name)
        python: list[str | Path] = [sys.executable, "-I", "-S"]
        namespaces = ["-m", "-p", "-n", "-u", "-i", "-C", "-f", "--kill-child", "--propagation", "private"]
        self._init = ManagedProcess(
            "box",
            [
                *[*python, _HERE / "box_enter.py", *self._groups, "--"],
                *["unshare", *namespaces],
                *[*python, _HERE / "box_init.py", self.state, ADDRESS],
            ],
            log_path=self.folder / "logs" / "box.log",
            piped=True,
        )
        try:
            self._init.start()
            self._pid = _pid_of_first(self._init)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End everything in it and remove what it left."""
        for forward, port in self._forwards:
            forward.kill9()
            release_port(port)
        self._forwards.clear()
        if self._init is not None:
            self._init.kill9()
        wait.until(lambda: _removed(self._groups), what="the end of the box", deadline_secs=_END_DEADLINE_SECS)

    def process(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str | None] | None = None,
        ready: Callable[[], bool] | None = None,
        ready_deadline_secs: float = 60.0,
    ) -> BoxProcess:
        """A program of the box, made but not started."""
        return BoxProcess(self, name, argv, env=env, ready=ready, ready_deadline_secs=ready_deadline_secs)

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        what: str,
        env: Mapping[str, str | None] | None = None,
        deadline_secs: float = 120.0,
    ) -> str:
        """Run a short-lived tool in the box; what it says."""
        enter = ["nsenter", "-t", str(self.pid), "-m", "-n", "-p", "-u", "-i", "--", *argv]
        return run_tool(enter, what=what, env=env, deadline_secs=deadline_secs)

    def forward_out(self, target: str) -> int:
        """A loopback port of the machine that leads to HOST:PORT in the box."""
        port = reserve_port()
        self._forward("out", port, target)
        return port

    def forward_in(self, machine_port: int) -> str:
        """An address that leads, from everywhere in the box, to a loopback port of the machine."""
        self._forward("in", machine_port, f"127.0.0.1:{machine_port}")
        return f"{ADDRESS}:{machine_port}"

    def say(self, **command: Any) -> dict[str, Any]:
        """Tell process 1 something."""
        if self._init is None:
            raise TestbedError("this box was never started")
        with self._guard:
            self._init.stdin.write(json.dumps(command) + "\n")
            self._init.stdin.flush()
            line = self._init.stdout.readline()
        if not line:
            raise self._init.failure("the box has ended")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise TestbedError(answer["error"])
        return answer

    def _forward(self, direction: str, port: int, target: str) -> None:
        name = f"forward-{direction}-{port}"
        process = ManagedProcess(
            name,
            [sys.executable, "-I", "-S", _HERE / "box_forward.py", str(self.pid), direction, str(port), target],
            log_path=self.folder / "logs" / f"{name}.log",
            ready=lambda: "ready" in process.log_since_start(),
        )
        process.start()
        self._forwards.append((process, port if direction == "out" else 0))


class BoxProcess:
    """A program in a box; used as a `ManagedProcess` is."""

    def __init__(
        self,
        box: Box,
        name: str,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str | None] | None,
        ready: Callable[[], bool] | None,
        ready_deadline_secs: float,
    ) -> None:
        self.name = name
        self.log_path = box.folder / "logs" / f"{name}.log"
        self._box = box
        self._argv = [os.fspath(part) for part in argv]
        merged = dict(os.environ) | dict(env or {})
        self._env = {key: value for key, value in merged.items() if value is not None}
        self._ready = ready
        self._ready_deadline_secs = ready_deadline_secs

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        with contextlib.suppress(TestbedError):
            return self._exit_code() is None
        return False

    def start(self) -> None:
        """Start it and wait until it is ready."""
        self._box.say(do="start", name=self.name, argv=self._argv, env=self._env, log=str(self.log_path))
        wait.until(self._ready_or_dead, what=f"{self.name} ready", deadline_secs=self._ready_deadline_secs)

    def kill9(self) -> None:
        """SIGKILL, and wait for its end. Does nothing if it has ended."""
        self._signal(signal.SIGKILL)
        wait.until(lambda: not self.is_running, what=f"the end of {self.name}", deadline_secs=_END_DEADLINE_SECS)

    @contextlib.contextmanager
    def stop_cont(self) -> Iterator[None]:
        """Freeze it with SIGSTOP for the length of the block, then SIGCONT."""
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    def log(self) -> str:
        """Everything that it has logged."""
        return self.log_path.read_text(errors="replace")

    def _signal(self, number: signal.Signals) -> None:
        self._box.say(do="signal", name=self.name, number=int(number))

    def _exit_code(self) -> int | None:
        code: int | None = self._box.say(do="look", name=self.name)["exit_code"]
        return code

    def _ready_or_dead(self) -> bool:
        code = self._exit_code()
        if code is not None:
            log = f"log: {self.log_path}\n{log_tail(self.log())}"
            raise TestbedError(f"{self.name} ended while starting, exit code {code}\n{log}")
        return self._ready is None or self._ready()


def _pid_of_first(unshare: ManagedProcess) -> int:
    """The pid here of the box's process 1, as soon as that is ready."""
    if not unshare.stdout.readline():
        raise unshare.failure("the box could not be made")
    children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text().split()
    return int(children[0])


def _require() -> None:
    if os.geteuid() != 0:
        raise TestbedError("the node tier makes namespaces and cgroups\nhint: run the tests as root, or leave it out")
    missing = [name for name in CONTROLLERS if not Path(f"/sys/fs/cgroup/{name}/cgroup.procs").exists()]
    if missing:
        hint = "boot with systemd.unified_cgroup_hierarchy=0, or run it elsewhere"
        raise TestbedError(f"the node tier needs cgroup v1 hierarchies, missing: {', '.join(missing)}\nhint: {hint}")


def _parent_groups() -> dict[str, Path]:
    """The cgroup of this process in each hierarchy that the box needs."""
    own: dict[str, str] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            own[name.removeprefix("name=")] = path.lstrip("/")
    return {name: Path("/sys/fs/cgroup") / name / own.get(name, "") for name in (*CONTROLLERS, "systemd")}


def _make_group(controller: str, parent: Path, group: Path) -> None:
    group.mkdir()
    if controller == "cpu":  # one share for all of it, where each process of the machine has one, would starve it
        (group / "cpu.shares").write_text(str(_PROCESSES * 1024))
    if controller == "cpuset":  # a new one has none
        for name in ("cpuset.cpus", "cpuset.mems"):
            (group / name).write_text((parent / name).read_text())
        (group / "cgroup.clone_children").write_text("1")


def _sweep(parents: Any) -> None:
    """Remove what boxes of dead test processes left."""
    for parent in parents:
        for group in parent.glob(f"{_PREFIX}*"):
            owner = group.name.removeprefix(_PREFIX).partition("-")[0]
            if not Path(f"/proc/{owner}").exists():
                _removed([group])


def _removed(groups: Sequence[Path]) -> bool:
    """Remove cgroups, innermost first; False while something lives in one."""
    for group in groups:
        for path in sorted((one for one in group.rglob("*") if one.is_dir()), reverse=True):
            with contextlib.suppress(OSError):
                path.rmdir()
        with contextlib.suppress(OSError):
            group.rmdir()
    return not any(group.exists() for group in groups)
