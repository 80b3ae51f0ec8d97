"""What every benchmark uses: rows of the table, stores to read, children whose time and memory are known."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DIM = 384
ROUNDS = 3


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: What was measured.
        against: What it was held against, in the same run.
        reach: What the project set itself.
        measured: The ratio, or the value.
        detail: Rates and CPU seconds behind it.
    """

    what: str
    against: str
    reach: str
    measured: str
    detail: str

    def __str__(self) -> str:
        return f"| {self.what} | {self.against} | {self.reach} | {self.measured} | {self.detail} |"


@dataclass(frozen=True)
class Child:
    """A process that has ended."""

    output: str
    wall_secs: float
    cpu_secs: float
    rss_bytes: int


def run(command: list[str]) -> Child:
    """Runs a program to its end; an error where it fails."""
    began = time.perf_counter()
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, output)
    wall = time.perf_counter() - began
    return Child(output, wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def example(name: str, *arguments: str) -> dict[str, tuple[float, float]]:
    """Runs an anchor in Rust; medians of its lines `name number number`."""
    command = ["cargo", "build", "--quiet", "--release", "--locked", "-p", "memferry-core", "--example", name]
    subprocess.run(command, check=True, cwd=ROOT)
    lines = run([str(ROOT / "target/release/examples" / name), *arguments]).output.split("\n")
    seen: dict[str, list[tuple[float, float]]] = {}
    for line in filter(None, lines):
        word, first, second = line.split()
        seen.setdefault(word, []).append((float(first), float(second)))
    return {
        word: (statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs))
        for word, pairs in seen.items()
    }


def migrate(source: str, target: str) -> dict[str, Any]:
    """A whole migration in a process of its own: wall and CPU seconds by phase, Python's share, peak memory."""
    child = run([sys.executable, str(Path(__file__).parent / "phase_times.py"), source, target])
    result: dict[str, Any] = json.loads(child.output)
    result["rss_bytes"] = child.rss_bytes
    return result


def plain(program: str, *arguments: str) -> Child:
    """Runs plain Python."""
    return run([sys.executable, str(Path(__file__).parent / "anchors" / f"{program}.py"), *arguments])


def median(measure: Callable[[], float], rounds: int = ROUNDS) -> float:
    """Median of a few rounds."""
    return statistics.median(measure() for _ in range(rounds))


def cpu_of(pid: int) -> float:
    """CPU seconds of a process that runs, a server."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def removed(path: Path) -> Iterator[str]:
    """A path for a store that is removed with everything beside it, before and after."""

    def remove() -> None:
        for leftover in path.parent.glob(f"{path.name}*"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()

    remove()
    try:
        yield str(path)
    finally:
        remove()


def _document(number: int, vector: bytes) -> dict[str, Any]:
    return {
        "kind": "memory",
        "id": f"{number:032x}",
        "content": f"memory {number} ".ljust(200, "x"),
        "scope": {"user": f"user-{number % 100}"},
        "tags": ["a", "b"],
        "created_at": "2024-06-15T10:30:00.000000Z",
        "extra": {"turn": number, "channel": "chat"},
        "vectors": [{"data": base64.b64encode(vector).decode(), "dim": DIM, "kind": "dense", "model": "m"}],
    }


def store_of(folder: Path, records: int) -> Path:
    """The store of that many memories, made by a process of its own: a child's peak memory counts its parent's."""
    path = folder / f"store-{records}.db"
    if not path.exists():
        run([sys.executable, __file__, str(path), str(records)])
    return path


def make_store(path: Path, records: int) -> None:
    """`records` memories of about 1.8 kB: 384 numbers at length one, 200 characters and a little metadata."""
    import numpy as np  # noqa: PLC0415 - readers of a store do without it

    random = np.random.default_rng(1)

    def documents(base: int, count: int) -> list[dict[str, Any]]:
        numbers = random.standard_normal((count, DIM), dtype=np.float32)
        numbers /= np.linalg.norm(numbers, axis=1, keepdims=True)
        return [_document(base + i, numbers[i].tobytes()) for i in range(count)]

    write_documents(path, documents, records)


def write_documents(path: Path, documents: Callable[[int, int], list[dict[str, Any]]], records: int) -> None:
    """Writes native documents, made by the page, into an embedded store."""
    from memferry._native import Batch, EmbeddedStore  # noqa: PLC0415 - measured without it elsewhere
    from memferry.profiles import load_mapper  # noqa: PLC0415

    mapper, store = load_mapper("native", "document"), EmbeddedStore.open_target(path)
    for base in range(0, records, 5000):
        page = documents(base, min(5000, records - base))
        raw: list[tuple[str, bytes, list[Any]]] = [(d["id"], json.dumps(d).encode(), []) for d in page]
        batch, bad, _ = mapper.decode(Batch.from_rows(raw))
        assert not bad, bad[0]
        store.begin()
        store.write(batch, fresh=True)
        store.commit()


if __name__ == "__main__":
    make_store(Path(sys.argv[1]), int(sys.argv[2]))
