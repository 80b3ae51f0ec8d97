"""The journal of a binding: which store is active and whether writes are frozen, in the ledgers of both stores.

It is written before the cluster is told, so that a cluster whose resources were restored or made anew can be told what
is true. An entry has a revision; a lower one never replaces a higher one.
"""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from memferry.backends.api import Documents
from memferry.backends.state import State
from memferry.errors import MemferryError, RefusedError
from memferry.ledger import BINDINGS, parsed
from memferry.retry import retrying
from memferry.stores import open_source, open_target, read_ledger
from memferry.urls import StoreUrl

__all__ = ["Entry", "Kept", "newest", "read_journal", "write_journal"]

_KEY: Final = "revision"
_NOT_WRITABLE: Final = frozenset({"refused", "io", "unauthorized"})

Kept = Literal["store", "state"]
"""Where a journal is: in the store, or in the state directory beside one that nothing of ours goes into."""


@dataclass(frozen=True)
class Entry:
    """One entry.

    Attributes:
        revision: Raised by every change of mode or side.
        mode: `Frozen` or `Serving`.
        active: Name of the backend that is active.
        frozen_until: When a freeze ends by itself.
        locked_by: The migration.
    """

    revision: int
    mode: Literal["Frozen", "Serving"]
    active: str
    frozen_until: str | None = None
    locked_by: str | None = None

    @classmethod
    def of(cls, value: Any) -> Entry:
        """Reads what `to_json` wrote, or a command.

        Raises:
            ValueError: It is not what it should be.
        """
        revision, mode = value["revision"], value["mode"]
        if isinstance(revision, bool) or not isinstance(revision, int) or mode not in {"Frozen", "Serving"}:
            raise ValueError(f"no entry: {value!r}"[:200])
        texts = [value.get(name) for name in ("frozenUntil", "lockedBy")]
        if not isinstance(value["active"], str) or not all(one is None or isinstance(one, str) for one in texts):
            raise ValueError(f"no entry: {value!r}"[:200])
        return cls(revision, mode, value["active"], *texts)

    def to_json(self) -> dict[str, Any]:
        """As commands and answers have it."""
        named = {"frozen_until": "frozenUntil", "locked_by": "lockedBy"}
        return {named.get(name, name): value for name, value in asdict(self).items()}


def _named(binding: str) -> str:
    return f"{BINDINGS}{binding}"


def _read(documents: Documents, binding: str) -> Entry | None:
    text = documents.get(_named(binding), _KEY)
    return None if text is None else parsed("the journal", text, Entry.of)


def _beside(url: StoreUrl) -> str:
    """Names the state that keeps the journal of a store into which nothing of ours goes."""
    source = retrying(lambda: open_source(url))
    try:
        return f"{source.identity} journal"
    finally:
        source.close()


def write_journal(url: StoreUrl, binding: str, entry: Entry) -> Kept:
    """Writes an entry; the same again changes nothing.

    Args:
        url: The store.
        binding: Name of the binding.
        entry: What is true from now on.

    Raises:
        RefusedError: `journal`, an entry of the same or a higher revision says something else.
    """
    if url.profile == "native":
        try:
            retrying(lambda: _write_into(url, binding, entry))
        except MemferryError as error:
            if error.code not in _NOT_WRITABLE:
                raise
        else:
            return "store"
    state = State(_beside(url))
    _put(state.documents, binding, entry)
    return "state"


def _write_into(url: StoreUrl, binding: str, entry: Entry) -> None:
    with closing(open_target(url)) as target, target.transaction():
        _put(target.documents, binding, entry)


def _put(documents: Documents, binding: str, entry: Entry) -> None:
    there = _read(documents, binding)
    if there is not None and there.revision >= entry.revision and there != entry:
        raise RefusedError(
            "journal",
            f"the journal has revision {there.revision} ({there.mode}, {there.active} active), not below "
            f"{entry.revision}",
            hint="read it again: somebody else has gone on",
        )
    if there != entry:
        documents.put(_named(binding), _KEY, json.dumps(entry.to_json()))


def read_journal(url: StoreUrl, binding: str) -> Entry | None:
    """The entry of one store, wherever it is kept."""
    found: list[Entry | None] = []
    try:
        beside = _beside(url)
    except MemferryError as error:
        if error.code != "store-missing":
            raise
        # No records yet, as before the plan: a ledger may be there all the same.
    else:
        found += [_read(State(beside).documents, binding)] if State.exists(beside) else []
    if url.profile == "native":
        with read_ledger(url) as documents:
            if documents is not None:
                found.append(_read(documents, binding))
    return newest(found)


def newest(entries: list[Entry | None]) -> Entry | None:
    """The one with the highest revision."""
    there = [entry for entry in entries if entry is not None]
    return max(there, key=lambda entry: entry.revision, default=None)
