"""The library for asyncio: the same functions and the same store, awaited; the work is done by threads.

A task that is cancelled ends its run between two pages, waits for that, and only then raises `CancelledError`: nothing
goes on behind the caller's back, and the same call resumes. Progress is told on the thread of the event loop.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from memferry import library
from memferry.application import Found, Hits, Store, open_store
from memferry.backends.access import Capabilities
from memferry.listing import RecordPage
from memferry.phases.migrate import Result
from memferry.phases.plan import Plan, Progress, Stop
from memferry.phases.rollback import RolledBack
from memferry.records import Record

__all__ = ["AsyncReads", "AsyncStore", "in_thread", "migrate", "open", "plan", "rollback", "verify"]

T = TypeVar("T")
P = ParamSpec("P")


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Does work in a thread and waits for its end, also when it is cancelled."""
    return await _finished(asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs)), lambda: None)


async def _finished(task: asyncio.Future[T], on_cancel: Callable[[], None]) -> T:
    """Waits for a thread to its end, however often this is cancelled."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
            on_cancel()
    if cancelled is not None:
        task.exception()  # Looked at: what the thread raised after that is what being stopped looks like.
        raise cancelled
    return task.result()


async def _run(
    verb: Callable[..., T],
    *ends: library.Place,
    stop: Stop | None,
    progress: Progress | None = None,
    **chosen: Any,
) -> T:
    stop = stop or Stop()
    if progress is not None:
        loop, tell = asyncio.get_running_loop(), progress
        chosen["progress"] = lambda *said: loop.call_soon_threadsafe(tell, *said)
    task = asyncio.ensure_future(asyncio.to_thread(verb, *ends, stop=stop, **chosen))
    return await _finished(task, stop.set)


async def plan(
    source: library.Place,
    target: library.Place,
    *,
    progress: Progress | None = None,
    stop: Stop | None = None,
    **chosen: Any,
) -> Plan:
    """`memferry.plan`, awaited."""
    return await _run(library.plan, source, target, progress=progress, stop=stop, **chosen)


async def migrate(
    source: library.Place,
    target: library.Place,
    *,
    progress: Progress | None = None,
    stop: Stop | None = None,
    **chosen: Any,
) -> Result:
    """`memferry.migrate`, awaited; a cancelled one resumes when it is called again.

    >>> import asyncio, memferry, memferry.aio, tempfile, os
    >>> folder = tempfile.mkdtemp()
    >>> with memferry.open(os.path.join(folder, "a.db")) as store:
    ...     _ = store.put(memferry.Record("memory", "m1", content="Ann likes tea"))
    >>> asyncio.run(memferry.aio.migrate(os.path.join(folder, "a.db"), os.path.join(folder, "b.db"))).outcome
    'proven'
    """
    return await _run(library.migrate, source, target, progress=progress, stop=stop, **chosen)


async def verify(
    source: library.Place,
    target: library.Place,
    *,
    progress: Progress | None = None,
    stop: Stop | None = None,
    **chosen: Any,
) -> Result:
    """`memferry.verify`, awaited."""
    return await _run(library.verify, source, target, progress=progress, stop=stop, **chosen)


async def rollback(target: library.Place, *, stop: Stop | None = None, **chosen: Any) -> RolledBack:
    """`memferry.rollback`, awaited."""
    return await _run(library.rollback, target, stop=stop, **chosen)


class Reads(Protocol):
    """What a store reads, and its end: see `memferry.Store`."""

    def close(self) -> None:
        """Ends all connections."""
        ...

    @property
    def get(self) -> Callable[[str, str], Record | None]:
        """See `Store.get`."""
        ...

    @property
    def get_many(self) -> Callable[[Iterable[tuple[str, str]]], Found]:
        """See `Store.get_many`."""
        ...

    @property
    def search(self) -> Callable[..., Hits]:
        """See `Store.search`."""
        ...

    @property
    def pages(self) -> Callable[..., Generator[RecordPage, None, None]]:
        """See `Store.pages`."""
        ...

    @property
    def wait_indexed(self) -> Callable[[float], bool]:
        """See `Store.wait_indexed`."""
        ...


S = TypeVar("S", bound=Reads)


class AsyncReads(Generic[S]):
    """The methods of a store that read, awaited."""

    def __init__(self, store: S) -> None:
        self._store = store

    async def close(self) -> None:
        """Ends all connections."""
        await in_thread(self._store.close)

    async def get(self, kind: str, id: str) -> Record | None:  # noqa: A002 - the field's name
        """See `Store.get`."""
        return await in_thread(self._store.get, kind, id)

    async def get_many(self, identities: Iterable[tuple[str, str]]) -> Found:
        """See `Store.get_many`."""
        return await in_thread(self._store.get_many, identities)

    async def search(self, text: str | None = None, **wanted: Any) -> Hits:
        """See `Store.search`."""
        return await in_thread(self._store.search, text, **wanted)

    async def wait_indexed(self, deadline_secs: float = 600.0) -> bool:
        """See `Store.wait_indexed`."""
        return await in_thread(self._store.wait_indexed, deadline_secs)

    async def pages(self, **wanted: Any) -> AsyncIterator[RecordPage]:
        """See `Store.pages`."""
        pages = self._store.pages(**wanted)
        try:
            while (page := await in_thread(next, pages, None)) is not None:
                yield page
        finally:
            await in_thread(pages.close)

    async def list(self, **wanted: Any) -> AsyncIterator[Record]:
        """See `Store.list`."""
        async for page in self.pages(**wanted):
            for record in page.readable():
                yield record


class AsyncStore(AsyncReads[Store]):
    """A `memferry.Store`, awaited. A put that is cancelled has been done all the same, or refused."""

    def capabilities(self) -> Capabilities:
        """What this store can do."""
        return self._store.capabilities()

    async def put(self, records: Record | Iterable[Record], *, replace: bool = True) -> int:
        """See `Store.put`."""
        return await in_thread(self._store.put, records, replace=replace)

    async def delete(self, kind: str, id: str) -> bool:  # noqa: A002 - the field's name
        """See `Store.delete`."""
        return await in_thread(self._store.delete, kind, id)

    async def delete_many(self, identities: Iterable[tuple[str, str]]) -> int:
        """See `Store.delete_many`."""
        return await in_thread(self._store.delete_many, identities)


@asynccontextmanager
async def open(url: str | os.PathLike[str], **chosen: Any) -> AsyncIterator[AsyncStore]:  # noqa: A001 - memferry.aio.open
    """`memferry.open`, to be entered by `async with`."""
    store = AsyncStore(await in_thread(open_store, url, **chosen))
    try:
        yield store
    finally:
        await store.close()
