"""Two runs at once, holders that die, clocks that jump, and databases that somebody else holds."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from faults.conftest import MakeEnds
from faults.ends import Ends
from faults.running import final, run, running
from support.checker import touched, tree

TARGETS = ["embedded", "jsonl", "jsonl.gz", "qdrant", "neo4j"]


# -- two runs of one migration


@pytest.mark.parametrize("backend", TARGETS)
def test_the_second_of_two_runs_is_refused_and_the_first_unharmed(backend: str, make_ends: MakeEnds) -> None:
    ends = make_ends(backend)
    with running(*ends.migrate, pause="committed:4", **ends.secrets) as first:
        first.paused()
        told = final(run(*ends.migrate, **ends.secrets), "refused", 2)
        assert told["error"]["code"] == "busy"
        assert f"process {first.pid} on " in told["error"]["message"]
        first.go()
        ends.arrived(first.ended())


@pytest.mark.parametrize("backend", TARGETS)
def test_after_a_kill_of_the_holder_the_next_takes_over(backend: str, make_ends: MakeEnds) -> None:
    ends = make_ends(backend)
    with running(*ends.migrate, pause="committed:4", **ends.secrets) as first:
        first.paused()
        assert first.kill().code == -signal.SIGKILL
    assert ends.finish()["resumed"] is True


@pytest.mark.parametrize("backend", ["embedded", "qdrant"])
def test_a_run_in_another_container_of_the_same_name_is_respected(backend: str, make_ends: MakeEnds) -> None:
    """With the host's network, pods have the host's name; each has its own process ids."""
    ends = make_ends(backend)
    with running(*ends.migrate, pause="committed:4", **ends.secrets) as first:
        first.paused()
        other = run(
            *ends.migrate, before=["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"], **ends.secrets
        )
        assert final(other, "refused", 2)["error"]["code"] == "busy"
        first.go()
        ends.arrived(first.ended())


# -- clocks

CLOCK = Path(__file__).with_name("clock.c")
"""Shifts the wall clock of a process by as many seconds as a file says."""


@pytest.fixture(scope="session")
def clock_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("clock") / "clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, CLOCK], check=True)
    return library


@pytest.mark.parametrize("jump_secs", [-86_400, 400_000_000])
@pytest.mark.parametrize("backend", ["embedded", "qdrant"])
def test_the_clock_jumps_in_the_middle(
    backend: str, jump_secs: int, make_ends: MakeEnds, clock_library: Path, tmp_path: Path
) -> None:
    """Nothing is lost by it, and while the run lives nobody on its host takes it over, whatever the clock says."""
    ends, shift = make_ends(backend), tmp_path / "shift"
    shift.write_text("0")
    clock = {"LD_PRELOAD": str(clock_library), "CLOCK_SHIFT": str(shift), "TEST_LEASE_SECS": "1"}
    with running(*ends.migrate, pause="committed:4", **clock, **ends.secrets) as one:
        one.paused()
        shift.write_text(str(jump_secs))
        other = run(*ends.migrate, **ends.secrets)
        assert final(other, "refused", 2)["error"]["code"] == "busy"
        one.go()
        ended = one.ended()
    ends.arrived(ended)
    assert ended.final()["elapsed_secs"] < ended.secs


def test_the_clock_is_really_shifted(clock_library: Path, tmp_path: Path) -> None:
    shift = tmp_path / "shift"
    shift.write_text("1000000000")
    code = "import time; print(int(time.time() - time.clock_gettime(time.CLOCK_TAI) > 900_000_000))"
    environment = {"LD_PRELOAD": str(clock_library), "MEMFERRY_CLOCK_SHIFT": str(shift)}
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout == "1\n"


# -- a source that somebody else holds

_HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA locking_mode = EXCLUSIVE")
connection.execute("PRAGMA journal_mode = " + sys.argv[2])
connection.execute("BEGIN EXCLUSIVE")
connection.execute("UPDATE memferry_meta SET value = value")
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held(path: Path, journal: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds a database so that nobody can read it."""
    command = [sys.executable, "-I", "-c", _HOLD, str(path), journal]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


@pytest.fixture
def stored(make_ends: MakeEnds, tmp_path: Path) -> Ends:
    """An embedded source, and an embedded target."""
    ends = make_ends("embedded")
    store = tmp_path / "store"
    store.mkdir()
    assert run("migrate", ends.source, store / "agents.db", "--json").code == 0
    return ends.through(source=str(store / "agents.db"))


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_locked_source_is_waited_for(journal: str, stored: Ends) -> None:
    with held(Path(stored.source), journal) as holder, running(*stored.migrate) as one:
        with pytest.raises(AssertionError, match="not over"):
            one.ended(1.0)
        holder.kill()
        holder.wait()
        stored.arrived(one.ended())


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_who_locks_a_source_is_told(journal: str, stored: Ends) -> None:
    with held(Path(stored.source), journal) as holder:
        told = final(run(*stored.migrate, TEST_RETRY_SECS="1"), "failed", 3)
        assert told["error"]["code"] == "store-locked"
        assert f"process {holder.pid}" in told["error"]["message"]
    assert not Path(stored.target).exists()
    stored.finish()


def test_a_locked_target_is_waited_for_and_who_locks_it_is_told(stored: Ends) -> None:
    with running(*stored.migrate, pause="committed:3") as one:
        one.paused()
        assert one.kill().killed
    with held(Path(stored.target), "wal") as holder:
        told = final(run(*stored.migrate, TEST_RETRY_SECS="1"), "failed", 3)
        assert told["error"]["code"] == "store-locked"
        assert f"process {holder.pid}" in told["error"]["message"]
    assert stored.finish()["resumed"] is True


# -- a source that is odd

_WRITE = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA wal_autocheckpoint = 0")
connection.execute("INSERT INTO memory (id, content) VALUES ('late', 'only in the WAL')")
if sys.argv[2] == "dies":
    os.kill(os.getpid(), 9)
print("written", flush=True)
for number, _ in enumerate(sys.stdin):
    connection.execute("INSERT INTO memory (id, content) VALUES (?, 'meanwhile')", [f"later {number}"])
    print("written", flush=True)
"""


def test_a_wal_left_behind_by_a_killed_application_is_read_and_kept(stored: Ends) -> None:
    died = subprocess.run([sys.executable, "-I", "-c", _WRITE, stored.source, "dies"], check=False)
    assert died.returncode == -signal.SIGKILL
    folder = Path(stored.source).parent
    before = tree(folder)
    assert "agents.db-wal" in before
    stored.records.append({"kind": "memory", "id": "late", "content": "only in the WAL"})
    stored.finish()
    assert touched(before, tree(folder)) == []


@pytest.mark.parametrize("place", ["plan:3", "committed:4", "verify:3"])
def test_an_application_writes_while_its_memory_is_moved(place: str, stored: Ends) -> None:
    """What was there is there; what came meanwhile is never called proven without being there."""
    command = [sys.executable, "-I", "-c", _WRITE, stored.source, "lives"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        try:
            assert writer.stdout.readline() == "written\n"
            stored.records.append({"kind": "memory", "id": "late", "content": "only in the WAL"})
            with running(*stored.migrate, pause=place) as one:
                one.paused()
                for number in range(30):
                    writer.stdin.write("more\n")
                    writer.stdin.flush()
                    assert writer.stdout.readline() == "written\n"
                    stored.records.append({"kind": "memory", "id": f"later {number}", "content": "meanwhile"})
                one.go()
                told = one.ended().final()
            if told["outcome"] == "proven":
                stored.check()
            assert told["outcome"] in {"matched_live", "not_proven"} or place == "plan:3"
            stored.finish()
        finally:
            writer.kill()


def test_a_corrupt_page_is_never_half_moved(stored: Ends) -> None:
    source = Path(stored.source)
    whole = source.read_bytes()
    record = max((one for one in stored.records if one["kind"] == "memory"), key=lambda one: str(one["content"]))
    page = whole.index(str(record["content"]).encode()) // 8192 * 8192
    source.write_bytes(whole[:page] + bytes(8192) + whole[page + 8192 :])
    told = final(run(*stored.migrate), "failed", 3)
    assert told["error"]["code"] == "store-corrupt"
    assert not Path(stored.target).exists()
    source.write_bytes(whole)
    stored.finish()


def test_a_source_on_read_only_media(stored: Ends, tmp_path: Path) -> None:
    """A WAL on a medium where no shared memory can be made: a mount that refuses every write, root's too."""
    died = subprocess.run([sys.executable, "-I", "-c", _WRITE, stored.source, "dies"], check=False)
    assert died.returncode == -signal.SIGKILL
    folder = Path(stored.source).parent
    (folder / "agents.db-shm").unlink()
    stored.records.append({"kind": "memory", "id": "late", "content": "only in the WAL"})
    mount = f'mount --bind "{folder}" "{folder}" && mount -o remount,bind,ro "{folder}" && exec "$@"'
    ended = run(*stored.migrate, before=["unshare", "--mount", "--map-root-user", "sh", "-c", mount, "sh"])
    stored.arrived(ended)
    assert {path.name for path in folder.iterdir()} == {"agents.db", "agents.db-wal"}
    shutil.rmtree(folder)
