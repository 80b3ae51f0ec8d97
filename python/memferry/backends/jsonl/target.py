"""Writing a JSONL file: a synced part a range, joined and renamed into place at the end.

Beside `memory.jsonl` lies the folder `memory.jsonl.memferry` with the ledger, the parts of an unfinished run and the
file as it was before the first run.
"""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from memferry._native import Batch, EmbeddedStore, JsonlIndex, JsonlPart, JsonlReader, jsonl_concatenate
from memferry.backends.api import Source
from memferry.backends.documents import StoreDocuments
from memferry.backends.jsonl.source import JsonlSource
from memferry.backends.state import State
from memferry.errors import RefusedError
from memferry.model import Quarantined, Range, VectorSpec
from memferry.profiles import load_mapper

__all__ = ["JsonlTarget", "ledger_folder"]

COMPARED: Final = "compared"
"""Document with the stamp of the file that a run compares with."""
MIXED: Final = "mixed"
"""Document of a migration between whose runs others changed the file."""


def ledger_folder(path: Path) -> Path:
    """Where the ledger and the parts of `path` lie: beside the file, wherever links to it are."""
    place = path.resolve()
    return place.with_name(place.name + ".memferry")


def identity_of(path: Path) -> str:
    """A file is where it lies."""
    return f"jsonl:{path.resolve()}"


def _stamp(path: Path) -> str | None:
    """Size and time of a file, to see whether someone changed it; both stay as they are when it is renamed."""
    if not path.exists():
        return None
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _sync(path: Path) -> None:
    """Waits until a file, or what a folder lists, is on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


class JsonlTarget:
    """A JSONL file that is made or rewritten."""

    backend = "jsonl"
    resume: Literal["page", "range"] = "range"
    ordered = False
    fences = True

    def __init__(
        self,
        path: Path,
        profile: str = "native",
        identity: str | None = None,
        accepted: tuple[str, ...] = (),
        scratch: Path | None = None,
    ) -> None:
        self._mapper = load_mapper(profile, "document", gathering=True)
        self._path = path
        # What is put into place takes the place of the file, not of a link to it.
        self._place = path.resolve()
        self._accepted = list(accepted)
        self._folder = scratch or ledger_folder(path)
        if not path.parent.is_dir():
            raise RefusedError("store-missing", f"no folder: {path.parent}")
        # The file may be for its owner only, and parts of it lie here.
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._parts: dict[int, JsonlPart] = {}
        self._index: JsonlIndex | None = None
        self._migration = ""
        self.profile = profile
        self.native = profile == "native"
        self.identity = identity or identity_of(path)
        self._ledger, self._lock, self.documents = self._keeper(scratch)

    def _keeper(self, scratch: Path | None) -> tuple[EmbeddedStore | State, threading.RLock, StoreDocuments]:  # noqa: ARG002
        """The store of the ledger, its lock, and its documents."""
        store, lock = EmbeddedStore.open_target(self._folder / "ledger.db"), threading.RLock()
        return store, lock, StoreDocuments(store, lock)

    def source(self) -> Source | None:
        """The file as it is, to be read."""
        return JsonlSource(self._path, self.profile, self.identity) if self._path.exists() else None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """The ledger's transaction; parts are synced before it is written."""
        with self._lock:
            self._ledger.begin()
            try:
                yield
                self._ledger.commit()
            finally:
                self._ledger.abort()

    def prepare(self, migration: str, vectors: tuple[VectorSpec, ...]) -> None:  # noqa: ARG002
        """Keeps the file as it was before the first run, for `rollback`, and looks into the one that is there."""
        self._migration = migration
        self._keep_previous(migration)
        if self.documents.get(migration, COMPARED) is None or self._changed_by_others(migration):
            # What was compared with another file is compared again.
            with self.transaction():
                for prefix in ("range/", "quarantine/", "conflict/", "rest"):
                    self.documents.delete(migration, prefix)
                self.documents.put(migration, COMPARED, str(_stamp(self._path)))
        if self._path.exists():
            self._index = JsonlIndex(self._path, self._mapper)

    def _keep_previous(self, migration: str) -> None:
        """Keeps the file as it was before anything was put into place; notes what others put between our own lines.

        What a rollback would put back is from before their lines, and would take them away.
        """
        base, now = self.documents.get(migration, COMPARED), str(_stamp(self._path))
        if self._noted(migration):
            if base != now and not self.is_as_left(migration):
                self.documents.put(migration, MIXED, "yes")
        elif base != now or self.documents.get(migration, "previous") is None:
            existed = self._path.exists()
            if existed:
                copy = self._beside(f"previous-{migration}.new")
                shutil.copy2(self._path, copy)
                _sync(copy)
                copy.replace(self._previous(migration))
                _sync(self._folder)
            self.documents.put(migration, "previous", "kept" if existed else "none")

    def _previous(self, migration: str) -> Path:
        return self._beside(f"previous-{migration}")

    def _part(self, number: int) -> Path:
        return self._beside(f"part-{self._migration}-{number:06d}")

    def _beside(self, name: str) -> Path:
        # The ending says how the parts are packed.
        return self._folder / f"{name}{self._path.suffix}"

    def begin_range(self, part: Range) -> None:
        """Starts the part over, in a new file: a late writer may still hold the old one."""
        self._part(part.number).unlink(missing_ok=True)
        self._parts[part.number] = JsonlPart(self._part(part.number), self._path)

    def end_range(self, part: Range) -> None:
        """Syncs the part."""
        self._parts.pop(part.number).finish()

    def image(self, records: Batch) -> Batch:
        """The native document gives back what it was given."""
        return records

    def gaps(self, records: Batch) -> list[tuple[str, int, str]]:
        """See `memferry.backends.api.Target`."""
        return self._mapper.gaps(records)

    def fetch(self, records: Batch) -> Batch:
        """See `memferry.backends.api.Target`."""
        if self._index is None:
            return records.filter(bytes(len(records)))
        return self._index.fetch(self._mapper, records.identities())

    def write(self, part: Range, records: Batch, migration: str, *, fresh: bool) -> list[Quarantined]:  # noqa: ARG002
        """See `memferry.backends.api.Target`."""
        raw, _, bad, _ = self._mapper.encode(records, accepted=self._accepted, marker=migration)
        self._parts[part.number].append(raw)
        return [Quarantined(*row) for row in bad]

    def delete(self, identities: list[tuple[str, str]]) -> int:
        """Rewrites the file without these records."""
        read = _stamp(self._path)
        index = JsonlIndex(self._path, self._mapper)
        index.replace(identities)
        whole = self._beside(f"whole-{self._migration}")
        self._write_rest(index, whole)
        if _stamp(self._path) != read:
            raise self._changed()
        self._put_into_place(whole, self._migration)
        return len(identities)

    def restore(self, records: Batch) -> None:
        """Not used: rollback restores the whole file."""
        raise RefusedError("not-native", f"records are not restored one by one in a file: {len(records)}")

    def finish(self, migration: str, ranges: list[Range]) -> None:
        """Joins the parts and the lines nobody replaced, and renames the result into place."""
        parts = [self._part(part.number) for part in ranges]
        if self.documents.get(migration, "joined") is not None:
            return
        rest = self._beside(f"rest-{migration}")
        if self.documents.get(migration, "rest") is None:
            if self._index is not None:
                for part in parts:
                    self._replace(self._index, part)
                self._write_rest(self._index, rest)
            else:
                JsonlPart(rest, self._path).finish()
            self.documents.put(migration, "rest", "written")
        whole = self._beside(f"whole-{migration}")
        jsonl_concatenate([*parts, rest], whole)
        # The last that is done before the rename: joining a large file takes its time.
        if self._changed_by_others(migration):
            raise self._changed()
        self._put_into_place(whole, migration)
        with self.transaction():
            self.documents.put(migration, "joined", "yes")
            self.documents.delete(migration, "rest")
        for path in [*parts, rest]:
            path.unlink(missing_ok=True)

    def _changed(self) -> RefusedError:
        return RefusedError(
            "existing",
            f"{self._path} was changed by someone while this migration was at work; nothing was put into place",
            hint="the same command looks at it again",
        )

    def _put_into_place(self, whole: Path, migration: str) -> None:
        """Renames a finished file over the one that is there, and notes first by what it will be known."""
        stamps = self._stamps(migration)
        now = _stamp(self._path)
        if now is not None and self._path.stat().st_mode != whole.stat().st_mode:
            shutil.copymode(self._path, whole)
        fresh = stamps.with_name(f"{stamps.name}.new")
        fresh.write_text(json.dumps([stamp for stamp in self._noted(migration) if stamp == now] + [_stamp(whole)]))
        _sync(fresh)
        fresh.replace(stamps)
        _sync(self._folder)
        whole.replace(self._place)
        _sync(self._place.parent)

    def _changed_by_others(self, migration: str) -> bool:
        """Whether the file is another one than the run has compared its records with."""
        if self.documents.get(migration, "joined") is not None:
            return False  # What happens to it from here on is for the proof to find.
        base = self.documents.get(migration, COMPARED)
        return base != str(_stamp(self._path)) and not self.is_as_left(migration)

    def _stamps(self, migration: str) -> Path:
        # Not in the ledger: it is written while a transaction of the ledger may still be taken back.
        return self._folder / f"stamps-{migration}.json"

    def _noted(self, migration: str) -> list[str | None]:
        stamps = self._stamps(migration)
        return list(json.loads(stamps.read_text())) if stamps.exists() else []

    def is_as_left(self, migration: str) -> bool:
        """Whether the file is as this migration last put it into place."""
        return _stamp(self._path) in self._noted(migration)

    def untouched(self, migration: str) -> bool:
        """Whether the file is as it was before the first run, never changed or put back."""
        if self.documents.get(migration, "previous") == "kept":
            previous = self._previous(migration)
            return previous.exists() and self._path.exists() and filecmp.cmp(previous, self._path, shallow=False)
        return not self._path.exists()

    def mixed(self, migration: str) -> Path | None:
        """Where the file lies as it was before the first run, if others changed it between runs of this migration."""
        return self._previous(migration) if self.documents.get(migration, MIXED) is not None else None

    def restore_previous(self, migration: str) -> bool:
        """Puts the file back as it was before the first run; whether there was one."""
        previous = self._previous(migration)
        if self.documents.get(migration, "previous") == "kept":
            if previous.exists():  # A rollback that was killed has put it back already.
                os.replace(previous, self._place)  # noqa: PTH105 - says that it replaces
            return True
        self._place.unlink(missing_ok=True)
        return False

    def _replace(self, index: JsonlIndex, part: Path) -> None:
        lines = JsonlReader(part)
        start: int | None = 0
        while start is not None:
            raw, _, start = lines.read_page(start, None, 4096, 8 << 20)
            index.replace(self._mapper.decode(raw)[0].identities())

    def _write_rest(self, index: JsonlIndex, path: Path) -> None:
        path.unlink(missing_ok=True)
        part = JsonlPart(path, self._path)
        start: int | None = 0
        while start is not None:
            raw, start = index.rest(start)
            part.append(raw)
        part.finish()

    def drop_created(self, migration: str) -> None:
        """Drops the parts of an unfinished run and the copy of the previous file."""
        for pattern in (
            f"part-{migration}-*",
            f"rest-{migration}*",
            f"whole-{migration}*",
            f"previous-{migration}*",
            f"stamps-{migration}*",
        ):
            for path in self._folder.glob(pattern):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """File handles end with their objects."""
