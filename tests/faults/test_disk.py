"""A disk that fills up: the run stops cleanly, says so, and goes on once there is room."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults.conftest import MakeEnds
from faults.ends import RECORDS, Ends
from faults.running import final, run
from support.documents import lines, memory
from testbed import wait
from testbed.process import ManagedProcess


class SmallDisk:
    """A file system of its own in memory, seen only by the processes that are started `inside`.

    It lies over a folder in a mount namespace that ends with one process, so that nothing is left of it.
    """

    def __init__(self, folder: Path, size_kib: int) -> None:
        folder.mkdir()
        self.path = folder
        mount = f'mount -t tmpfs -o size={size_kib}k none "{folder}" && echo mounted && exec sleep infinity'
        self._holder = ManagedProcess(
            "small disk",
            ["unshare", "--mount", "--map-root-user", "sh", "-c", mount],
            log_path=folder.with_name(f"{folder.name}.log"),
            ready=lambda: "mounted" in self._holder.log_since_start(),
        )
        self._holder.start()

    @property
    def inside(self) -> list[str]:
        """What starts a process that sees it."""
        return ["nsenter", "--target", str(self._holder.pid), "--user", "--preserve-credentials", "--mount"]

    @property
    def seen(self) -> Path:
        """Where this process sees it."""
        return Path(f"/proc/{self._holder.pid}/root{self.path}")

    def free_bytes(self) -> int:
        """What is left on it."""
        status = os.statvfs(self.seen)
        return status.f_bavail * status.f_frsize

    def close(self) -> None:
        """Ends it."""
        self._holder.kill9()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], SmallDisk]]:
    made: list[SmallDisk] = []

    def make(size_kib: int) -> SmallDisk:
        made.append(SmallDisk(tmp_path / "disk", size_kib))
        return made[-1]

    yield make
    for one in made:
        one.close()


def fill(disk: SmallDisk, left_bytes: int) -> Path:
    """Takes all room but some."""
    ballast = disk.seen / "ballast"
    ballast.write_bytes(bytes(max(0, disk.free_bytes() - left_bytes)))
    return ballast


@pytest.mark.parametrize("left_kib", [0, 200, 700])
@pytest.mark.parametrize("backend", ["embedded", "jsonl", "jsonl.gz"])
def test_a_full_disk_stops_the_run_and_room_lets_it_go_on(
    backend: str, left_kib: int, make_ends: MakeEnds, small_disk: Callable[[int], SmallDisk]
) -> None:
    ends, disk = make_ends(backend), small_disk(24 << 10)
    inner = Path(ends.target).name
    there = ends.through(target=str(disk.path / inner))
    ballast = fill(disk, left_kib << 10)
    ended = run(*there.migrate, before=disk.inside)
    if ended.code != 0:
        told = final(ended, "failed", 3)
        assert told["error"]["code"] == "disk-full", ended.err
        assert "Traceback" not in ended.err
    else:
        assert left_kib > 200
    ballast.unlink()
    final(run(*there.migrate, before=disk.inside), "proven", 0)
    arrived(ends, disk)


@pytest.mark.parametrize("backend", ["embedded", "jsonl"])
def test_the_disk_fills_up_in_a_sync_and_what_was_there_stays(
    backend: str, make_ends: MakeEnds, small_disk: Callable[[int], SmallDisk]
) -> None:
    ends, disk = make_ends(backend), small_disk(24 << 10)
    there = ends.through(target=str(disk.path / Path(ends.target).name))
    final(run(*there.migrate, before=disk.inside), "proven", 0)
    arrived(ends, disk)
    ballast = fill(disk, 100 << 10)
    more = [memory(f"more {number}", content="x" * 2000) for number in range(RECORDS)]
    with Path(ends.source).open("ab") as source:
        source.write(lines(more))
    told = final(run(*there.migrate, before=disk.inside), "failed", 3)
    assert told["error"]["code"] == "disk-full"
    before = ends.through(target=copied(ends, disk)).read()
    assert {("memory", "m00000"), ("entity", "e00002")} <= set(before.records)
    ballast.unlink()
    ends.records.extend(more)
    final(run(*there.migrate, before=disk.inside), "proven", 0)
    arrived(ends, disk)


def copied(ends: Ends, disk: SmallDisk) -> str:
    """The store, where this process can open it."""
    name = Path(ends.target).name
    for path in disk.seen.glob(f"{name}*"):
        if path.is_file():
            shutil.copy(path, ends.folder / path.name)
    return str(ends.folder / name)


def arrived(ends: Ends, disk: SmallDisk) -> None:
    for old in ends.folder.glob(f"{Path(ends.target).name}*"):
        old.unlink()
    ends.through(target=copied(ends, disk)).check()


def test_the_scratch_folder_is_full(make_ends: MakeEnds, small_disk: Callable[[int], SmallDisk]) -> None:
    """Where a plan is made for a target that is not there yet."""
    ends, disk = make_ends("embedded"), small_disk(64)
    fill(disk, 8 << 10)
    told = final(run(*ends.migrate, before=[*disk.inside, "env", f"TMPDIR={disk.path}"]), "failed", 3)
    assert told["error"]["code"] == "disk-full"
    assert not Path(ends.target).exists()
    ends.finish()


def test_the_disk_is_really_full(small_disk: Callable[[int], SmallDisk]) -> None:
    disk = small_disk(1 << 10)
    fill(disk, 0)
    wait.until(lambda: disk.free_bytes() == 0, what="a full disk", deadline_secs=1.0)
    with pytest.raises(OSError, match="No space left"):
        (disk.seen / "more").write_bytes(bytes(8192))
