"""A TCP proxy on loopback that breaks connections on demand.

One thread runs an event loop that owns every socket: closing a socket with a zero linger time then sends RST at
once, which it does not while another thread still waits in `recv` on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import struct
import threading
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

from testbed import wait
from testbed.errors import TestbedError
from testbed.ports import release_port, reserve_port

__all__ = ["Direction", "FaultyProxy", "Trigger"]

T = TypeVar("T")

_CHUNK = 64 * 1024
_CALL_DEADLINE_SECS = 60.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Direction(enum.Enum):
    """Which way bytes go."""

    TO_SERVER = "to server"
    TO_CLIENT = "to client"


class Trigger:
    """A fault that is armed and happens once; made by `FaultyProxy.reset_after` and `reset_after_each`."""

    def __init__(self, *, left: int) -> None:
        self._left = left
        self._fired = threading.Event()

    @property
    def fired(self) -> bool:
        """Whether it has happened. A test that arms a fault asserts this in the end."""
        return self._fired.is_set()

    def wait(self, *, deadline_secs: float) -> None:
        """Wait until it has happened."""
        if not self._fired.wait(deadline_secs):
            raise TestbedError(f"the armed fault did not happen in {deadline_secs:g} s, bytes left: {self._left}")

    def fire(self) -> None:
        """Note that it has happened; the proxy's own call."""
        self._fired.set()

    def take(self, size: int) -> int | None:
        """How many of `size` bytes still pass before the fault, None if all do; the proxy's own call."""
        if self._left > size:
            self._left -= size
            return None
        passed, self._left = self._left, 0
        return passed


@dataclass
class _Faults:
    """What is wrong at the moment; touched by the loop's thread only."""

    delay_secs: float = 0.0
    bytes_per_sec: float | None = None
    stalled: bool = False
    armed: dict[Direction, deque[Trigger]] = field(default_factory=dict)


class _Connection:
    """A client's socket and its pair to the server."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self._ends = {Direction.TO_SERVER: (client, server), Direction.TO_CLIENT: (server, client)}
        self._directions_open = len(self._ends)
        for end in (client, server):
            end.settimeout(0)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ends(self, direction: Direction) -> tuple[socket.socket, socket.socket]:
        """Where bytes of that direction come from and go to."""
        return self._ends[direction]

    def half_close(self, direction: Direction) -> bool:
        """Pass an end of stream on; true if it was the second one."""
        with contextlib.suppress(OSError):
            self._ends[direction][1].shutdown(socket.SHUT_WR)
        self._directions_open -= 1
        return self._directions_open == 0

    def close(self, *, reset: bool) -> None:
        """Close both sockets."""
        for end in self._ends[Direction.TO_SERVER]:
            if reset:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            end.close()


class FaultyProxy:
    """Forwards a reserved loopback port to `target_port` on loopback, faithfully until told otherwise.

    Every method may be called from any thread while connections are open. `resume` takes all faults back.

    Args:
        target_port: Where the real server listens.
    """

    def __init__(self, target_port: int) -> None:
        self._target = ("127.0.0.1", target_port)
        self.port = reserve_port()
        self._faults = _Faults()
        self._changed = asyncio.Event()
        self._listener: socket.socket | None = None
        self._connections: dict[_Connection, list[asyncio.Task[None]]] = {}
        self._accepted = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"testbed-proxy-{self.port}", daemon=True)
        self._thread.start()
        self._call(self._listen())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def address(self) -> str:
        """`host:port` for clients."""
        return f"127.0.0.1:{self.port}"

    @property
    def accepted(self) -> int:
        """How many connections were taken so far."""
        return self._accepted

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        return self._call(self._count_open())

    def cut(self, *, reset: bool = True) -> int:
        """Break every open connection now; new ones are still taken.

        Args:
            reset: Send RST; otherwise close in good order in the middle of whatever was said.

        Returns:
            How many connections were broken.
        """
        return self._call(self._cut(reset=reset))

    def reset_after(self, count: int, *, direction: Direction) -> Trigger:
        """Reset the connection that carries the last of `count` more bytes in a direction, over all connections.

        Args:
            count: Bytes that still pass, at least one.
            direction: Which way they are counted.
        """
        return self.reset_after_each([count], direction=direction)[0]

    def reset_after_each(self, counts: Sequence[int], *, direction: Direction) -> list[Trigger]:
        """Reset a connection again and again: what passes after one reset counts for the next.

        Args:
            counts: Bytes that still pass before each, at least one.
            direction: Which way they are counted.
        """
        if any(count < 1 for count in counts):
            raise TestbedError(f"faults after {list(counts)} bytes cannot be armed: at least 1 each")
        triggers = [Trigger(left=count) for count in counts]
        self._call(self._arm(direction, triggers))
        return triggers

    def delay(self, secs: float) -> None:
        """Hold every chunk (64 KiB at most) back for `secs`, both ways."""
        self._call(self._change(delay_secs=secs))

    def throttle(self, bytes_per_sec: float) -> None:
        """Let at most this rate through, per connection and direction."""
        self._call(self._change(bytes_per_sec=bytes_per_sec))

    def stall(self) -> None:
        """Stop forwarding and keep every connection open, as a dead network does."""
        self._call(self._change(stalled=True))

    def refuse(self, *, cut: bool = False) -> None:
        """Refuse new connections as a closed port does.

        Args:
            cut: Break the open ones too.
        """
        self._call(self._stop_listening())
        if cut:
            self.cut()

    def resume(self) -> None:
        """Forward faithfully again and take new connections; faults that are armed but did not happen are dropped."""
        self._call(self._reset_faults())
        self._call(self._listen())

    def close(self) -> None:
        """Break what is open and give the port back."""
        if self._loop.is_closed():
            return
        self._call(self._stop_listening())
        self._call(self._cut(reset=True))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CALL_DEADLINE_SECS)
        self._loop.close()
        release_port(self.port)

    def wait_for_connections(self, count: int, *, deadline_secs: float = 10.0) -> None:
        """Wait until at least `count` connections are open."""
        wait.until(
            lambda: self.open_connections >= count,
            what=f"{count} connections through the proxy",
            deadline_secs=deadline_secs,
        )

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_CALL_DEADLINE_SECS)

    async def _count_open(self) -> int:
        return len(self._connections)

    async def _arm(self, direction: Direction, triggers: Sequence[Trigger]) -> None:
        self._faults.armed[direction] = deque(triggers)

    async def _change(
        self, *, delay_secs: float | None = None, bytes_per_sec: float | None = None, stalled: bool | None = None
    ) -> None:
        if delay_secs is not None:
            self._faults.delay_secs = delay_secs
        if bytes_per_sec is not None:
            self._faults.bytes_per_sec = bytes_per_sec
        if stalled is not None:
            self._faults.stalled = stalled
        self._wake_pumps()

    async def _reset_faults(self) -> None:
        self._faults = _Faults()
        self._wake_pumps()

    def _wake_pumps(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _listen(self) -> None:
        if self._listener is not None:
            return
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(128)
        listener.settimeout(0)
        self._listener = listener
        self._loop.add_reader(listener, self._accept, listener)

    async def _stop_listening(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError:  # the client is gone again
            return
        self._accepted += 1
        connection = _Connection(client, socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        self._connections[connection] = [self._loop.create_task(self._connect(connection))]

    async def _connect(self, connection: _Connection) -> None:
        _, server = connection.ends(Direction.TO_SERVER)
        try:
            await self._loop.sock_connect(server, self._target)
        except OSError:
            await self._drop(connection, reset=True)
            return
        pumps = [self._loop.create_task(self._pump(connection, direction)) for direction in Direction]
        self._connections[connection] = pumps

    async def _pump(self, connection: _Connection, direction: Direction) -> None:
        source, sink = connection.ends(direction)
        try:
            while chunk := await self._loop.sock_recv(source, self._chunk_size()):
                await self._hold_back(len(chunk))
                armed = self._faults.armed.get(direction)
                passed = armed[0].take(len(chunk)) if armed else None
                if not armed or passed is None:
                    await self._loop.sock_sendall(sink, chunk)
                    continue
                trigger = armed.popleft()
                await self._loop.sock_sendall(sink, chunk[:passed])
                await self._drop(connection, reset=True)
                trigger.fire()
                return
        except OSError:
            await self._drop(connection, reset=True)
            return
        if connection.half_close(direction):
            await self._drop(connection, reset=False)

    def _chunk_size(self) -> int:
        """At most a twentieth of a second's bytes, so that a slow line trickles and does not gush."""
        rate = self._faults.bytes_per_sec
        return _CHUNK if rate is None else max(1, min(_CHUNK, int(rate / 20)))

    async def _hold_back(self, size: int) -> None:
        """Wait as the present faults demand; a change of the faults is seen at once."""
        started = self._loop.time()
        while True:
            faults = self._faults
            due = started + faults.delay_secs + (size / faults.bytes_per_sec if faults.bytes_per_sec else 0.0)
            left = due - self._loop.time()
            if left <= 0 and not faults.stalled:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), None if faults.stalled else left)

    async def _cut(self, *, reset: bool) -> int:
        connections = list(self._connections)
        for connection in connections:
            await self._drop(connection, reset=reset)
        return len(connections)

    async def _drop(self, connection: _Connection, *, reset: bool) -> None:
        """End a connection's tasks, then close its sockets; only the first of several calls does it."""
        tasks = self._connections.pop(connection, None)
        if tasks is None:
            return
        others = [task for task in tasks if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        connection.close(reset=reset)
