"""What memferry keeps beside a foreign target: ledger and journal in the state directory, see `docs/state.md`."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Final

from memferry._native import Batch, EmbeddedStore, blake3_hex
from memferry.backends.api import Source
from memferry.backends.documents import StoreDocuments
from memferry.backends.seen import SeenSource
from memferry.errors import RefusedError, StoreError
from memferry.model import Page, Range

__all__ = ["MarkedSource", "State", "state_directory", "state_folder"]

RELEASED: Final = ""
"""Whose a record is that a rollback put back: nobody's."""


def state_directory() -> Path:
    """Where everything lies that cannot lie in a target.

    `MEMFERRY_STATE_DIR`, else `memferry` in `XDG_STATE_HOME`, else `~/.local/state/memferry`.

    Raises:
        RefusedError: `invalid`, where `MEMFERRY_STATE_DIR` is relative.
    """
    chosen = os.environ.get("MEMFERRY_STATE_DIR")
    if chosen:
        if not Path(chosen).is_absolute():
            # A rollback from another folder would find nothing there.
            raise RefusedError(
                "invalid", f"MEMFERRY_STATE_DIR is `{chosen}`", hint="name it from the root on, it starts with `/`"
            )
        return Path(chosen)
    # The standard has relative paths ignored.
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "state") / "memferry"


def state_folder(identity: str) -> Path:
    """The folder of one target."""
    return state_directory() / blake3_hex(identity.encode())[:32]


class State:
    """Ledger and journal of one foreign target.

    Attributes:
        folder: Where they lie; also the place for parts and spills.
        documents: The ledger's documents.
    """

    def __init__(self, identity: str, scratch: Path | None = None) -> None:
        self.folder = scratch or state_folder(identity)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            whose = self.folder / "target.json"
            if not whose.exists():
                whose.write_text(json.dumps({"identity": identity}) + "\n", "utf-8")
        except OSError as error:
            raise StoreError("io", f"the state directory cannot be written: {error}") from error
        self._store = EmbeddedStore.open_target(self.folder / "state.db")
        self._store.journal_open()
        self.lock = threading.RLock()
        self.documents = StoreDocuments(self._store, self.lock)

    @staticmethod
    def exists(identity: str) -> bool:
        """Whether there is a state of this target."""
        return (state_folder(identity) / "state.db").exists()

    def begin(self) -> None:
        """Starts a transaction; the caller holds `lock`."""
        self._store.begin()

    def commit(self) -> None:
        """Ends it and keeps what was written."""
        self._store.commit()

    def abort(self) -> None:
        """Ends it and drops what was written; harmless where there is none."""
        self._store.abort()

    def intend(self, images: Batch, migration: str) -> None:
        """Says that `migration` is about to write records that the target will give back as `images`."""
        with self.lock:
            self._store.journal_intend(images, migration)

    def confirm(self, images: Batch, migration: str) -> None:
        """Says that they are in the target."""
        with self.lock:
            self._store.journal_confirm(images, migration)

    def confirm_all(self, migration: str) -> None:
        """Says that everything that was intended is in the target."""
        with self.lock:
            self._store.journal_confirm_all(migration)

    def release(self, images: Batch) -> None:
        """Says that records are about to be put back as they were before any migration."""
        self.intend(images, RELEASED)

    def mark(self, records: Batch) -> Batch:
        """Records of the target with the markers that the target has no place for."""
        with self.lock:
            return self._store.journal_mark(records)

    def forget(self, identities: list[tuple[str, str]]) -> None:
        """Drops what is known of records that are gone."""
        with self.lock:
            self._store.journal_forget(identities)

    def drop(self, migration: str) -> None:
        """Drops what is known of a migration that was rolled back, and what it wrote over and was put back."""
        with self.lock:
            self.begin()
            try:
                # Together: without the journal nobody could tell which of them were changed since.
                self.documents.delete(migration, "saved/")
                self._store.journal_drop(migration)
                self._store.journal_drop(RELEASED)
                self.commit()
            finally:
                self.abort()


class MarkedSource(SeenSource):
    """A foreign target, read with its markers."""

    def __init__(self, source: Source, state: State) -> None:
        super().__init__(source)
        self._state = state

    def see(self, part: Range, cursor: str | None, page: Page) -> Page:  # noqa: ARG002 - what a source sees
        """The page with its markers."""
        return replace(page, records=self._state.mark(page.records))
