"""Writing a JSONL file: a synced part a range, joined and renamed into place at the end.

Beside `memory.jsonl` lies the folder `memory.jsonl.memferry` with the ledger, the parts of an unfinished run and the
file as it was before the first run.
"""

from __future__ import annotations

import filecmp
import json
import os
import secrets
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
from memferry.errors import RefusedError, StoreError
from memferry.failpoints import failpoint
from memferry.model import Quarantined, Range, VectorSpec
from memferry.profiles import load_mapper

__all__ = ["JsonlTarget", "ledger_folder"]

COMPARED: Final = "compared"
"""Document with the stamp of the file that a run compares with."""
MIXED: Final = "mixed"
"""Document of a migration between whose runs others changed the file."""
PREVIOUS: Final = "previous"
"""Document of what was there before the first run: `kept` or `none`, and `back` once a rollback is done."""
NAMED: Final = "previous/named"
"""Document with what tells the files of a ledger beside the target from those of another; forgotten with `PREVIOUS`."""


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
        # The file, not a link to it: it is the file that is replaced, and what names of it end with may differ.
        self._path = path.resolve()
        self._accepted = list(accepted)
        self._folder = scratch or ledger_folder(path)
        try:
            if not self._path.parent.is_dir():
                raise RefusedError("store-missing", f"no folder: {self._path.parent}")
            # The file may be for its owner only, and parts of it lie here.
            self._folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StoreError("io", f"the folder beside the file cannot be made: {error}") from error
        self._parts: dict[int, JsonlPart] = {}
        self._index: JsonlIndex | None = None
        self._migration = ""
        self.profile = profile
        self.native = profile == "native"
        self.identity = identity or identity_of(path)
        self._ledger, self._lock, self.documents = self._keeper(scratch)
        self._in_transaction = False

    def _keeper(self, scratch: Path | None) -> tuple[EmbeddedStore | State, threading.RLock, StoreDocuments]:  # noqa: ARG002
        """The store of the ledger, its lock, and its documents."""
        store, lock = EmbeddedStore.open_target(self._folder / "ledger.db"), threading.RLock()
        return store, lock, StoreDocuments(store, lock)

    def source(self) -> Source | None:
        """The file as it is, to be read."""
        return JsonlSource(self._path, self.profile, self.identity) if self._path.exists() else None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """The ledger's transaction, or the one that is at work; parts are synced before it is written.

        All migrations into a file have one ledger: while one of them looks at the file and replaces it, no other does.
        """
        with self._lock:
            if self._in_transaction:
                yield
                return
            self._ledger.begin()
            self._in_transaction = True
            try:
                yield
                self._ledger.commit()
            finally:
                self._in_transaction = False
                self._ledger.abort()

    def prepare(self, migration: str, vectors: tuple[VectorSpec, ...]) -> None:  # noqa: ARG002
        """Keeps the file as it was before the first run, for `rollback`, and looks into the one that is there."""
        self._migration = migration
        if self.documents.get(migration, NAMED) is None or self._forgotten(migration):
            self.documents.put(migration, NAMED, secrets.token_hex(4))
        now = str(_stamp(self._path))
        self._keep_previous(migration, now)
        if self.documents.get(migration, COMPARED) is None or self._changed_by_others(migration):
            # What was compared with another file is compared again.
            with self.transaction():
                for prefix in ("range/", "quarantine/", "conflict/", "rest"):
                    self.documents.delete(migration, prefix)
                self.documents.put(migration, COMPARED, now)
        if self._path.exists():
            self._index = JsonlIndex(self._path, self._mapper)

    def _keep_previous(self, migration: str, now: str) -> None:
        """Keeps the file as it was before anything was put into place; notes what others put between our own lines.

        What a rollback would put back is from before their lines, and would take them away.
        """
        base = self.documents.get(migration, COMPARED)
        if self._noted(migration):
            if base != now and not self.is_as_left(migration):
                self.documents.put(migration, MIXED, "yes")
        elif base != now or self.documents.get(migration, PREVIOUS) is None:
            existed = self._path.exists()
            if existed:
                copy = self._beside(f"previous-{self._named(migration)}.new")
                shutil.copy2(self._path, copy)
                if str(_stamp(self._path)) != now:
                    raise self._changed()  # The copy may lack lines of others that the comparison would see.
                _sync(copy)
                copy.replace(self._previous(migration))
                _sync(self._folder)
            self.documents.put(migration, PREVIOUS, "kept" if existed else "none")

    def _named(self, migration: str) -> str:
        """What its files here are called, and none of a ledger that was lost: their originals are not ours to drop."""
        return f"{migration}-{self.documents.get(migration, NAMED)}"

    def _forgotten(self, migration: str) -> bool:
        """Whether the ledger has lost what it knew: a run came further than it says."""
        return self.documents.get(migration, PREVIOUS) is None and bool(self._noted(migration))

    def _previous(self, migration: str) -> Path:
        return self._beside(f"previous-{self._named(migration)}")

    def _undone(self, migration: str) -> Path:
        return self._beside(f"undone-{self._named(migration)}")

    def _part(self, number: int) -> Path:
        return self._beside(f"part-{self._named(self._migration)}-{number:06d}")

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
        whole = self._beside(f"whole-{self._named(self._migration)}")
        self._write_rest(index, whole)
        with self.transaction():
            # Lines that others wrote since our own were put into place have to be noted first, by the next `prepare`.
            known = self.is_as_left(self._migration) or self.documents.get(self._migration, MIXED) is not None
            if _stamp(self._path) != read or not known:
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
        rest = self._beside(f"rest-{self._named(migration)}")
        if self.documents.get(migration, "rest") is None:
            if self._index is not None:
                for part in parts:
                    self._replace(self._index, part)
                self._write_rest(self._index, rest)
            else:
                JsonlPart(rest, self._path).finish()
            self.documents.put(migration, "rest", "written")
        whole = self._beside(f"whole-{self._named(migration)}")
        jsonl_concatenate([*parts, rest], whole)
        with self.transaction():
            # The last that is done before the rename: joining a large file takes its time.
            if self._changed_by_others(migration):
                raise self._changed()
            self._put_into_place(whole, migration)
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
        whole.replace(self._path)
        _sync(self._path.parent)

    def _changed_by_others(self, migration: str) -> bool:
        """Whether the file is another one than the run has compared its records with."""
        if self.documents.get(migration, "joined") is not None:
            return False  # What happens to it from here on is for the proof to find.
        base = self.documents.get(migration, COMPARED)
        return base != str(_stamp(self._path)) and not self.is_as_left(migration)

    def _stamps(self, migration: str) -> Path:
        # Not in the ledger: it is written while a transaction of the ledger may still be taken back.
        return self._folder / f"stamps-{self._named(migration)}.json"

    def _noted(self, migration: str) -> list[str | None]:
        stamps = self._stamps(migration)
        return list(json.loads(stamps.read_text())) if stamps.exists() else []

    def is_as_left(self, migration: str) -> bool:
        """Whether the file is as this migration last put it into place."""
        return _stamp(self._path) in self._noted(migration)

    def untouched(self, migration: str) -> bool:
        """Whether the file is as it was before the first run, never changed or put back."""
        kept = self.documents.get(migration, PREVIOUS)
        if kept == "kept":
            previous = self._previous(migration)
            return previous.exists() and self._path.exists() and filecmp.cmp(previous, self._path, shallow=False)
        if kept is None:  # No run came as far as looking at the file.
            return not self._forgotten(migration)
        return not self._path.exists()

    def check_as_left(self, migration: str) -> None:
        """Refuses a rollback that would take away what others wrote, or that has nothing to put back.

        Raises:
            RefusedError: `existing`.
        """
        previous, kept = self._previous(migration), self.documents.get(migration, PREVIOUS)
        was = "there was no file before" if kept == "none" else f"{previous} is the file as it was before"
        if not self.is_as_left(migration):
            raise RefusedError(
                "existing",
                "the file has been changed since this migration wrote it",
                hint=f"put the changes elsewhere first; {was}",
            )
        if kept != "none" and not (kept == "kept" and previous.exists()):
            raise RefusedError("existing", f"the file as it was before is gone: {previous}; nothing was put back")
        if self.documents.get(migration, MIXED) is not None:
            raise RefusedError(
                "existing",
                "others changed the file between two runs of this migration; putting it back would take their lines "
                "away",
                hint=f"{was}: save their lines, put it back by hand, and call this again",
            )

    def put_back(self, migration: str) -> bool:
        """Whether a rollback that has begun came as far as putting the file back, whatever became of it since."""
        kept = self.documents.get(migration, PREVIOUS)
        moved = self._undone(migration).exists() if kept == "none" else not self._previous(migration).exists()
        return kept == "back" or (moved and not self.is_as_left(migration))

    def restore_previous(self, migration: str) -> bool:
        """Puts the file back as it was before the first run; whether there was one.

        Raises:
            RefusedError: `existing`, where somebody has changed the file meanwhile.
        """
        with self.transaction():
            self.check_as_left(migration)
            had_one = self.documents.get(migration, PREVIOUS) == "kept"
            # Moves, so that after a kill it can be told whether it was done; the file may be another by then.
            if had_one:
                self._previous(migration).replace(self._path)
            else:
                self._path.replace(self._undone(migration))
            failpoint("put-back")
            _sync(self._path.parent)
            _sync(self._folder)
            self.documents.put(migration, PREVIOUS, "back")
        return had_one

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
        """Drops the parts of an unfinished run, the copy of the previous file and what a rollback took away."""
        for what in ("part", "rest", "whole", "previous", "stamps", "undone"):
            for path in self._folder.glob(f"{what}-{self._named(migration)}*"):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """File handles end with their objects."""
