"""What is in a store, read without memferry, and how two stores differ.

An embedded store is copied with its WAL first: a second SQLite library on the file itself would, on closing, drop the
locks of the first one and move the WAL.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import reference
from reference.document import KINDS, SCOPES, SCORES, TEXTS, TIMES

__all__ = [
    "Contents",
    "differences",
    "last_json",
    "read_embedded",
    "read_jsonl",
    "snapshot",
    "touched",
    "tree",
    "unpacked",
]

Key = tuple[str, str]
Fields = dict[str, Any]
Marker = tuple[str | None, str | None]

_TEXT_COLUMNS = [*(f"scope_{name}" for name in SCOPES), *TEXTS, "provenance"]
_SHOWN = 10


@dataclass
class Contents:
    """Everything in a store, in one form for all backends.

    Attributes:
        records: Columns by kind and id; numbers as their canonical text, vectors as bytes.
        markers: Migration and hex digest, where a record has them.
        problems: What no sound store has: repeated ids, vectors without an owner, a stale index.
        others: Lines that are no records.
    """

    records: dict[Key, Fields] = field(default_factory=dict)
    markers: dict[Key, Marker] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    others: list[bytes] = field(default_factory=list)

    def marked(self, migration: str) -> set[Key]:
        """Keys of the records that `migration` wrote."""
        return {key for key, marker in self.markers.items() if marker[0] == migration}

    def without(self, keys: set[Key]) -> Contents:
        """The same without some records."""
        left = {key: fields for key, fields in self.records.items() if key not in keys}
        marks = {key: marker for key, marker in self.markers.items() if key not in keys}
        return Contents(left, marks, self.problems, self.others)


@contextmanager
def snapshot(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a copy of a SQLite file and its WAL."""
    with tempfile.TemporaryDirectory(prefix="checker-") as folder:
        copy = Path(folder) / "copy.db"
        shutil.copyfile(path, copy)
        wal = path.with_name(path.name + "-wal")
        if wal.exists():
            shutil.copyfile(wal, copy.with_name("copy.db-wal"))
        connection = sqlite3.connect(copy)
        try:
            yield connection
        finally:
            connection.close()


def read_embedded(path: Path) -> Contents:
    """Reads every table of an embedded store."""
    contents = Contents()
    if not path.exists():
        return contents
    with snapshot(path) as connection:
        connection.row_factory = sqlite3.Row
        sound = connection.execute("PRAGMA integrity_check").fetchone()[0]
        if sound != "ok":
            contents.problems.append(f"integrity_check: {sound}")
        if connection.execute("SELECT 1 FROM memferry_meta WHERE key = 'text_index'").fetchone():
            contents.problems.append("the full-text index is stale")
        for kind in KINDS:
            _read_kind(connection, kind, contents)
    return contents


def _read_kind(connection: sqlite3.Connection, kind: str, contents: Contents) -> None:
    vectors: dict[int, list[tuple[Any, ...]]] = {}
    for row in connection.execute(f"SELECT * FROM {kind}_vector ORDER BY vector_id"):
        values = dict(row)
        number = values.pop("vector_id") // 256
        vectors.setdefault(number, []).append(tuple(values.values()))
    for row in connection.execute(f"SELECT * FROM {kind}"):
        fields = dict(row)
        key = (kind, fields.pop("id"))
        marker = fields.pop("marker_migration"), fields.pop("marker_digest")
        if marker != (None, None):
            contents.markers[key] = (marker[0], None if marker[1] is None else marker[1].hex())
        # The order among names means nothing, that among equal names does.
        fields["vectors"] = sorted(vectors.pop(fields.pop("seq"), []), key=lambda one: str(one[0]).encode())
        contents.records[key] = fields
    if vectors:
        contents.problems.append(f"{kind}: vectors of rows that are not there: {sorted(vectors)[:_SHOWN]}")
    try:
        connection.execute(f"INSERT INTO {kind}_fts ({kind}_fts, rank) VALUES ('integrity-check', 1)")
    except sqlite3.DatabaseError as error:
        contents.problems.append(f"{kind}_fts: {error}")


def unpacked(path: Path) -> bytes:
    """The text of a JSONL file, by the ending of its name."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(data)
    if path.suffix == ".zst":
        import zstandard  # noqa: PLC0415 - only the suites with .zst need the package

        return zstandard.ZstdDecompressor().decompressobj(read_across_frames=True).decompress(data)
    return data


def read_jsonl(path: Path) -> Contents:
    """Reads every line of a native JSONL file."""
    contents = Contents()
    if not path.exists():
        return contents
    for line in unpacked(path).split(b"\n"):
        if not line.strip():
            continue
        try:
            key, fields, marker = _read_line(line)
        except reference.RefusedError:
            contents.others.append(line)
            continue
        if key in contents.records:
            contents.problems.append(f"twice: {key}")
        contents.records[key] = fields
        if marker is not None:
            contents.markers[key] = marker
    return contents


@lru_cache(maxsize=10_000)  # Crash runs read the same lines hundreds of times.
def _read_line(line: bytes) -> tuple[Key, Fields, Marker | None]:
    record = reference.decode(line)
    return (KINDS[record.kind], record.id), _fields(record), record.marker


def _fields(record: reference.Record) -> Fields:
    """A record in the columns of an embedded store."""
    fields: Fields = dict(zip(_TEXT_COLUMNS, record.texts, strict=True))
    for name, time in zip(TIMES, record.times, strict=True):
        fields[name] = None if time is None else time.micros
        fields[f"{name}_text"] = None if time is None else time.text
    for name, score in zip(SCORES, record.scores, strict=True):
        fields[name] = None if score is None else reference.canonical(score)
    fields["version"] = record.version
    fields["tags"] = None if record.tags is None else reference.canonical([*record.tags])
    fields["extra"] = reference.canonical(record.extra) if record.extra else None
    fields["vectors"] = [
        (v.name, v.model, v.dim, None if v.normalized is None else int(v.normalized), v.kind, v.indices, v.data)
        for v in sorted(record.vectors, key=lambda one: one.name.encode())
    ]
    return fields


def differences(expected: Contents, found: Contents, *, markers: bool = False) -> list[str]:
    """What is missing, extra, different or unsound, a line each; empty when the two are equal.

    Args:
        expected: What should be there.
        found: What is there.
        markers: Compare who wrote what, too.
    """
    told = [f"unsound: {problem}" for problem in found.problems]
    told += [f"missing: {key}" for key in sorted(expected.records.keys() - found.records.keys())]
    told += [f"extra: {key}" for key in sorted(found.records.keys() - expected.records.keys())]
    for key in sorted(expected.records.keys() & found.records.keys()):
        left, right = expected.records[key], found.records[key]
        told += [
            f"different: {key} {name}: {left.get(name)!r:.120} became {right.get(name)!r:.120}"
            for name in sorted(left.keys() | right.keys())
            if left.get(name) != right.get(name)
        ]
    if markers:
        told += [
            f"marker: {key}: {expected.markers.get(key)} became {found.markers.get(key)}"
            for key in sorted(expected.markers.keys() | found.markers.keys())
            if expected.markers.get(key) != found.markers.get(key)
        ]
    if expected.others != found.others:
        told.append(f"other lines: {len(expected.others)} became {len(found.others)}")
    return told


def tree(folder: Path) -> dict[str, str]:
    """Time of change and hash of every file below a folder, to see that nothing was touched.

    Left out is what every reader of a SQLite file in WAL mode must make beside it: the shared memory and an empty WAL.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.name.endswith("-shm") or (path.name.endswith("-wal") and path.stat().st_size == 0):
            continue
        name, content = str(path.relative_to(folder)), "folder"
        if path.is_file():
            content = f"{hashlib.sha256(path.read_bytes()).hexdigest()[:16]} at {path.stat().st_mtime_ns}"
        found[name] = content
    return found


def touched(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Names of files that were made, changed or removed between two calls of `tree`."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def last_json(text: str) -> Any:
    """The object on the last line of an output."""
    return json.loads(text.strip().splitlines()[-1])
