"""The client for asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from memferry import Record, RefusedError
from memferry.binding import BoundStore, FrozenError
from memferry.binding.aio import AsyncBoundStore, connect
from support.bound import LEASE_SECS, World

CHOSEN = {"pod": "pod", "lease_secs": LEASE_SECS}


def note(identity: str) -> Record:
    return Record("memory", identity, content=f"note {identity}")


async def frozen(world: World) -> None:
    world.say("a", 2, "Frozen")
    await asyncio.to_thread(world.until_said, "pod", 2, "Frozen", "a")


def test_it_is_a_store_like_any_other(world: World) -> None:
    async def work() -> None:
        async with connect("memory", kubeconfig=world.kubeconfig, **CHOSEN) as memory:
            assert await memory.put([note("1"), note("2")]) == 2
            assert await memory.get("memory", "1") == note("1")
            assert await memory.get_many([("memory", "2")]) == [note("2")]
            assert [hit.record.id for hit in await memory.search("note 2")] == ["2"]
            assert [record.id async for record in memory.list(kind="memory")] == ["1", "2"]
            assert await memory.delete("memory", "1")
            assert await memory.delete_many([("memory", "2")]) == 1
            assert (await memory.capabilities()).backend == "embedded"
            assert await memory.wait_indexed()
            assert memory.standing().writable
        with pytest.raises(RefusedError, match="closed"):
            await memory.put(note("3"))

    asyncio.run(work())


def test_writes_that_wait_hold_no_thread(world: World) -> None:
    async def waiting(memory: AsyncBoundStore) -> None:
        await frozen(world)
        writes = [asyncio.create_task(memory.put(note(str(n)))) for n in range(200)]
        await asyncio.sleep(0)
        assert await asyncio.wait_for(memory.get("memory", "1"), 10) is None, "reads go on beside them"
        assert not any(write.done() for write in writes)
        writes[0].cancel()
        world.say("a", 3)
        done = await asyncio.gather(*writes, return_exceptions=True)
        assert isinstance(done[0], asyncio.CancelledError)
        assert done[1:] == [1] * 199

    async def work() -> None:
        async with connect("memory", kubeconfig=world.kubeconfig, freeze_wait_secs=30, **CHOSEN) as memory:
            await waiting(memory)

    asyncio.run(work())
    assert world.ids("a") == {str(n) for n in range(1, 200)}, "the one that was cancelled was not begun"


def test_a_freeze_that_takes_too_long_raises(world: World) -> None:
    async def work() -> None:
        async with connect("memory", kubeconfig=world.kubeconfig, freeze_wait_secs=0.1, **CHOSEN) as memory:
            await frozen(world)
            with pytest.raises(FrozenError):
                await memory.put(note("1"))

    asyncio.run(work())


def test_a_write_that_waits_for_a_thread_when_its_loop_ends_is_not_begun(
    world: World, client: Callable[..., BoundStore]
) -> None:
    bound, free = client(), threading.Event()

    async def work() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        loop.run_in_executor(None, free.wait)
        write = asyncio.ensure_future(AsyncBoundStore(bound).put(note("1")))
        await asyncio.sleep(0.2)
        assert (bound.standing().in_flight, write.done()) == (1, False)
        threading.Timer(0.5, free.set).start()  # The loop cancels what is left, then waits for its threads.

    asyncio.run(work())
    assert bound.standing().in_flight == 0
    world.say("a", 2, "Frozen")
    world.until_said("pod", 2, "Frozen", "a")
    assert world.ids("a") == set()
