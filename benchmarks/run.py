"""Benchmarks: ratios of two things done side by side in one run. `make bench`, or with a number of records."""

from __future__ import annotations

import base64
import json
import os
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PLAIN_ROWS = 50_000
ROUNDS = 3


def make_store(path: Path, records: int) -> None:
    """`records` memories with 384 numbers, 200 characters and a little metadata."""
    from memferry._native import Batch, EmbeddedStore  # noqa: PLC0415 - the plain reader is measured without it
    from memferry.profiles import load_mapper  # noqa: PLC0415

    mapper, store = load_mapper("native", "document"), EmbeddedStore.open_target(path)
    for base in range(0, records, 5000):
        rows: list[tuple[str, bytes, list[Any]]] = []
        for number in range(base, min(records, base + 5000)):
            vector = {"data": base64.b64encode(os.urandom(1536)).decode(), "dim": 384, "kind": "dense", "model": "m"}
            document = {
                "kind": "memory",
                "id": f"{number:032x}",
                "content": f"memory {number} ".ljust(200, "x"),
                "scope": {"user": f"user-{number % 100}"},
                "tags": ["a", "b"],
                "created_at": "2024-06-15T10:30:00.000000Z",
                "extra": {"turn": number, "channel": "chat"},
                "vectors": [vector],
            }
            rows.append((str(number), json.dumps(document).encode(), []))
        records_batch, _, _ = mapper.decode(Batch.from_rows(rows))
        store.begin()
        store.write(records_batch, fresh=True)
        store.commit()


def plain_python(path: Path) -> float:
    """Rows per second of sqlite3, json and hashlib over the same rows."""
    code = (
        "import hashlib, json, sqlite3, sys, time\n"
        "began, rows = time.perf_counter(), 0\n"
        "conn = sqlite3.connect(f'file:{sys.argv[1]}?mode=ro', uri=True)\n"
        "query = 'SELECT m.id, content, scope_user, tags, created_at, extra, data FROM memory m '\n"
        "query += 'JOIN memory_vector ON vector_id = seq * 256 LIMIT ?'\n"
        "for id, content, user, tags, created, extra, data in conn.execute(query, (int(sys.argv[2]),)):\n"
        "    record = {'id': id, 'content': content, 'user': user, 'tags': json.loads(tags), 'created': created}\n"
        "    record['extra'] = json.loads(extra)\n"
        "    text = json.dumps(record, sort_keys=True).encode()\n"
        "    hashlib.sha256(text + data).digest(); hashlib.sha256(content.strip().encode()).digest()\n"
        "    rows += 1\n"
        "print(rows / (time.perf_counter() - began))"
    )
    command = [sys.executable, "-c", code, str(path), str(PLAIN_ROWS)]
    return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def attach(path: Path, folder: Path) -> float:
    """Seconds of `ATTACH` and `INSERT ... SELECT` into the same tables and indexes."""
    target = folder / "attach.db"
    target.unlink(missing_ok=True)
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as source:
        schema = [row[0] for row in source.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")]
    began = time.perf_counter()
    conn = sqlite3.connect(target)
    conn.execute("PRAGMA page_size = 8192")
    conn.execute("PRAGMA journal_mode = wal")
    conn.execute("PRAGMA synchronous = normal")
    for table in ("memory", "memory_vector"):
        conn.execute(next(sql for sql in schema if sql.startswith(f"CREATE TABLE {table} (")))
    conn.execute("ATTACH ? AS source", (str(path),))
    with conn:
        for table in ("memory", "memory_vector"):
            conn.execute(f"INSERT INTO {table} SELECT * FROM source.{table}")  # noqa: S608 - two names of our own
    conn.close()
    return time.perf_counter() - began


def copy(path: Path, folder: Path) -> float:
    """Seconds of memferry's copy phase into a new store, ledger included; plan and proof apart."""
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from memferry.phases import copy, migrate, plan\n"
        "from memferry.urls import parse_url\n"
        "spent = []\n"
        "inner = migrate.run_copy\n"
        "def timed(*a, **k):\n"
        "    began = time.perf_counter(); inner(*a, **k); spent.append(time.perf_counter() - began)\n"
        "migrate.run_copy = timed\n"
        "r = migrate.migrate(parse_url(sys.argv[1]), parse_url(sys.argv[2]), plan.Options())\n"
        "assert r.outcome == 'proven'\n"
        "print(spent[0], r.elapsed_secs)"
    )
    target = folder / "copy.db"
    for leftover in folder.glob("copy.db*"):
        leftover.unlink()
    output = subprocess.run(
        [sys.executable, "-c", code, str(path), str(target)], capture_output=True, check=True, text=True
    ).stdout
    return float(output.split()[0])


def rss(path: Path, folder: Path) -> int:
    """Peak RSS in KiB of a whole migration to JSONL."""
    target = folder / "rss.jsonl"
    command = [sys.executable, "-m", "memferry", "migrate", str(path), str(target), "--quiet", "--json"]
    code = (
        "import resource, subprocess, sys\n"
        f"subprocess.run({command!r}, check=True, capture_output=True)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    peak = int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)
    for leftover in folder.glob("rss.jsonl*"):
        subprocess.run(["rm", "-r", str(leftover)], check=True)
    return peak


def median(measure: Callable[[], float]) -> float:
    """Median of a few rounds."""
    return statistics.median(measure() for _ in range(ROUNDS))


def main() -> None:
    """Prints the table."""
    records = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory(prefix="memferry-bench-") as name:
        folder = Path(name)
        store, tenth = folder / "store.db", folder / "tenth.db"
        make_store(store, records)
        make_store(tenth, records // 10)
        command = ["cargo", "run", "--quiet", "--release", "--locked", "--example", "bare_cursor", "--", str(store)]
        lines = subprocess.run(command, capture_output=True, check=True, text=True, cwd=ROOT).stdout.split()
        rates = {n: statistics.median(map(float, lines[i + 1 :: 4])) for i, n in ((0, "bare"), (2, "memferry"))}
        plain = median(lambda: plain_python(store))
        print(f"records {records}, one core where not said otherwise; medians of {ROUNDS}")
        print(
            f"read + digest: {rates['memferry']:,.0f}/s; bare cursor {rates['bare']:,.0f}/s; "
            f"ratio {rates['memferry'] / rates['bare']:.2f} (reach 0.25)"
        )
        print(f"the same in plain Python: {plain:,.0f}/s; {rates['memferry'] / plain:.1f} x (reach 15)")
        ours, theirs = median(lambda: copy(store, folder)), median(lambda: attach(store, folder))
        print(
            f"embedded -> embedded, two ranges at a time: {records / ours:,.0f}/s; ATTACH {records / theirs:,.0f}/s; "
            f"ratio {theirs / ours:.2f} (reach 0.5)"
        )
        small, large = rss(tenth, folder), rss(store, folder)
        print(
            f"peak RSS {large // 1024} MiB at {records}, {small // 1024} MiB at {records // 10}; "
            f"ratio {large / small:.2f} (reach 1.1, keys of {16 * records >> 20} MiB apart)"
        )
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(f"CPU of everything: {usage.ru_utime + usage.ru_stime:.0f} s")


if __name__ == "__main__":
    main()
