"""Without a server: reading, copying, memory, keys, Python's share."""

from __future__ import annotations

import sys
from pathlib import Path

from measure import Row, example, median, migrate, plain, removed, run, store_of

PLAIN_ROWS = 50_000
KEYS = 10_000_000


def read(folder: Path, records: int) -> list[Row]:
    """Reading with digest and key, beside a bare cursor and plain Python."""
    store = store_of(folder, records)
    seen = example("bare_cursor", str(store))
    (bare, bare_cpu), (ours, ours_cpu) = seen["bare"], seen["memferry"]
    slow = median(lambda: float(plain("read_store", str(store), str(PLAIN_ROWS)).output))
    return [
        Row(
            "embedded, read, decode, digest, dedup key, one core",
            "a bare Rust cursor over every column",
            ">= 0.25",
            f"{ours_cpu / bare_cpu:.2f}",
            f"rows a CPU second {ours_cpu:,.0f} and {bare_cpu:,.0f}; rows a second {ours:,.0f} and {bare:,.0f}",
        ),
        Row(
            "the same",
            "plain Python (sqlite3, json, hashlib)",
            ">= 15 x",
            f"{ours_cpu / slow:.1f} x",
            f"rows a CPU second {ours_cpu:,.0f} and {slow:,.0f}; the bare cursor has {bare_cpu / slow:.1f} x",
        ),
    ]


def copy(folder: Path, records: int) -> list[Row]:
    """Embedded to embedded, ledger included; plan and proof apart."""
    store = store_of(folder, records)

    def ours() -> tuple[float, float, float, float]:
        with removed(folder / "copy.db") as target:
            times = migrate(str(store), target)
        phase = times["phases"]["copy"]
        return phase["wall"], phase["cpu"], times["python_cpu"] / times["cpu"], times["cpu"]

    def theirs() -> tuple[float, float]:
        with removed(folder / "attach.db") as target:
            child = plain("attach", str(store), target)
        return child.wall_secs, child.cpu_secs

    (wall, cpu, share, whole), (attach_wall, attach_cpu) = (
        min(ours() for _ in range(2)),
        min(theirs() for _ in range(2)),
    )
    return [
        Row(
            "embedded -> embedded, two ranges at a time",
            "the same rows by ATTACH + INSERT ... SELECT",
            ">= 0.5",
            f"{attach_wall / wall:.2f}",
            f"{records / wall:,.0f} and {records / attach_wall:,.0f} records a second; "
            f"CPU {cpu:.2f} and {attach_cpu:.2f} s",
        ),
        Row(
            "Python's share of CPU, embedded -> embedded",
            "the whole run: plan, copy, proof",
            "<= 5 %",
            f"{share * 100:.1f} %",
            f"of {whole:.2f} CPU s",
        ),
    ]


def memory(folder: Path, records: int) -> list[Row]:
    """Peak memory of a whole migration, of all records and of a tenth."""
    peaks = {}
    for count in (records // 10, records):
        store = store_of(folder, count)
        with removed(folder / "memory.jsonl") as target:
            command = [sys.executable, "-m", "memferry", "migrate", str(store), target, "--quiet", "--json"]
            peaks[count] = run(command).rss_bytes
    keys = 16 * (records - records // 10)
    small, large = peaks[records // 10], peaks[records]
    return [
        Row(
            f"peak memory at {records:,} records, embedded -> JSONL",
            f"at {records // 10:,}",
            "<= 1.1 x, keys apart",
            f"{(large - keys) / small:.2f} x",
            f"{large >> 20} and {small >> 20} MiB; 16 bytes a record are keys of the plan, {keys >> 20} MiB",
        )
    ]


def keys(folder: Path, records: int) -> list[Row]:  # noqa: ARG001 - as many keys as the figure is about
    """Ten million dedup keys beside a set of digests."""
    count = min(KEYS, records * 10)
    held, rate = example("many_keys", str(count))["keys"]
    their_held, their_rate = map(float, plain("digest_set", str(count)).output.split())
    return [
        Row(
            f"dedup keys, {count:,}, memory",
            "Python set of sha256 digests",
            "<= 24 bytes a key",
            f"{held:.1f} bytes",
            f"the set: {their_held:.0f} bytes a key",
        ),
        Row(
            "dedup keys, made, held, searched for repeats",
            "the same",
            ">= 15 x",
            f"{rate / their_rate:.1f} x",
            f"keys a CPU second {rate:,.0f} and {their_rate:,.0f}",
        ),
    ]
