"""The store of a MemoryBinding for asyncio: the same methods, awaited.

A write that waits for the end of a freeze holds no thread: a frozen binding does not keep the reads of the same program
from theirs. A write that is cancelled while it waits was not begun; one that has begun is waited for.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from memferry.aio import AsyncReads, in_thread
from memferry.application import Store
from memferry.backends.access import Capabilities
from memferry.binding.client import AT_ONCE, BoundStore, Standing
from memferry.binding.client import connect as connect_in_thread
from memferry.binding.state import Denied
from memferry.records import Record

__all__ = ["AsyncBoundStore", "connect"]

T = TypeVar("T")


class AsyncBoundStore(AsyncReads[BoundStore]):
    """A `memferry.binding.BoundStore`, awaited."""

    def standing(self) -> Standing:
        """See `BoundStore.standing`."""
        return self._store.standing()

    async def put(self, records: Record | Iterable[Record], *, replace: bool = True) -> int:
        """See `BoundStore.put`."""
        given = records if isinstance(records, Record) else list(records)
        return await self._write(lambda store: store.put(given, replace=replace))

    async def delete(self, kind: str, id: str) -> bool:  # noqa: A002 - the field's name
        """See `BoundStore.delete`."""
        return await self._write(lambda store: store.delete(kind, id))

    async def delete_many(self, identities: Iterable[tuple[str, str]]) -> int:
        """See `BoundStore.delete_many`."""
        given = list(identities)
        return await self._write(lambda store: store.delete_many(given))

    async def capabilities(self) -> Capabilities:
        """See `BoundStore.capabilities`."""
        return await in_thread(self._store.capabilities)

    async def _write(self, work: Callable[[Store], T]) -> T:
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
        deadline = loop.time() + self._store.freeze_wait_secs

        def tell() -> None:
            loop.call_soon_threadsafe(changed.set)

        unlisten = self._store.listen(tell)
        try:
            while isinstance(begun := self._store.try_begin(), Denied):
                left = deadline - loop.time()
                if begun.reason in AT_ONCE or left <= 0:
                    raise self._store.refused(begun.reason)
                with suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), left)
                changed.clear()
        finally:
            unlisten()

        taken = threading.Lock()

        def write() -> T:
            if not taken.acquire(blocking=False):
                raise asyncio.CancelledError
            with self._store.finishing(*begun) as store:
                return work(store)

        try:
            return await in_thread(write)
        finally:
            # An event loop that ends cancels what still waits for a thread.
            if taken.acquire(blocking=False):
                self._store.abandon(*begun)


@asynccontextmanager
async def connect(binding: str, **chosen: Any) -> AsyncIterator[AsyncBoundStore]:
    """`memferry.binding.connect`, to be entered by `async with`."""
    store = AsyncBoundStore(await in_thread(connect_in_thread, binding, **chosen))
    try:
        yield store
    finally:
        await store.close()
