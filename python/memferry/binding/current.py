"""The store that is open now. One that was switched away from is closed when its last reader has gone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from memferry.application import Store

__all__ = ["Current"]


class _Open:
    def __init__(self, store: Store, active: str) -> None:
        self.store = store
        self.active = active
        self.users = 0
        self.left = False


class Current:
    """A store that is exchanged while it is in use.

    Args:
        changed: Guards it, and is told of changes.
    """

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self._open: _Open | None = None

    @property
    def active(self) -> str | None:
        """The MemoryBackend whose store is open."""
        return self._open.active if self._open else None

    def exchange(self, store: Store | None, active: str = "") -> Callable[[], None]:
        """Uses another store from now on; gives what closes the one before, where nobody uses it."""
        with self._changed:
            before, self._open = self._open, _Open(store, active) if store is not None else None
            self._changed.notify_all()
            if before is not None:
                before.left = True
                if before.users == 0:
                    return before.store.close
        return lambda: None

    @contextmanager
    def used(self) -> Iterator[Store | None]:
        """The store of this moment, kept open for the length of the block."""
        with self._changed:
            here = self._open
            if here is not None:
                here.users += 1
        try:
            yield here.store if here is not None else None
        finally:
            if here is not None:
                with self._changed:
                    here.users -= 1
                    last = here.left and here.users == 0
                if last:
                    here.store.close()
