"""A queue of keys: a key stands in it once, is worked on by one at a time, and comes again when it is due."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import time
from typing import Generic, TypeVar

__all__ = ["Queue"]

K = TypeVar("K")


class Queue(Generic[K]):
    """Keys with the time from which they are due.

    Args:
        base_secs: Wait after a first failure; doubled with each, up to `cap_secs`.
    """

    def __init__(self, *, base_secs: float = 1.0, cap_secs: float = 60.0) -> None:
        self._base, self._cap = base_secs, cap_secs
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._order = itertools.count()
        self._busy: set[K] = set()
        self._failures: dict[K, int] = {}
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._due)

    def ready(self) -> int:
        """Keys that are due and wait for someone."""
        now = time.monotonic()
        return sum(due <= now for due in self._due.values())

    def add(self, key: K, after_secs: float = 0.0) -> None:
        """Asks for a look at a key; the earlier of two times holds."""
        due = time.monotonic() + after_secs
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        heapq.heappush(self._heap, (due, next(self._order), key))
        self._changed.set()

    async def get(self) -> K:
        """The next key that is due and not worked on; `done` or `failed` has to follow."""
        while True:
            held: list[tuple[float, int, K]] = []
            found: K | None = None
            now = time.monotonic()
            while self._heap and self._heap[0][0] <= now:
                entry = heapq.heappop(self._heap)
                if self._due.get(entry[2]) != entry[0]:
                    continue
                if entry[2] in self._busy:
                    held.append(entry)
                    continue
                found = entry[2]
                break
            for entry in held:
                heapq.heappush(self._heap, entry)
            if found is not None:
                del self._due[found]
                self._busy.add(found)
                return found
            self._changed.clear()
            upcoming = [due for due, _, key in self._heap if key not in self._busy]
            wait = max(0.0, min(upcoming) - now) if upcoming else None
            # Not wait_for: kopf, when it ends, cancels every task that it does not know.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()

    def done(self, key: K) -> None:
        """A key was looked at."""
        self._failures.pop(key, None)
        self._busy.discard(key)
        self._changed.set()

    def failed(self, key: K) -> float:
        """A look failed; it is repeated after a while, which is returned."""
        count = self._failures[key] = self._failures.get(key, 0) + 1
        self._busy.discard(key)
        wait = min(self._cap, self._base * 2.0 ** (count - 1))
        self.add(key, wait)
        self._changed.set()
        return wait

    def forget(self, key: K) -> None:
        """A key is gone for good."""
        self._due.pop(key, None)
        self._failures.pop(key, None)
