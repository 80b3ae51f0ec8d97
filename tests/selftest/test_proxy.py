"""The proxy forwards faithfully, and every fault does what it says."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from testbed import wait
from testbed.errors import TestbedError
from testbed.proxy import Direction, FaultyProxy


class _Echo:
    """Sends everything back; notes how each connection ended."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.received = 0
        self.endings: list[str] = []
        self._threads: list[threading.Thread] = []
        self._accepter = threading.Thread(target=self._accept)
        self._accepter.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepter.join()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def wait_for_ending(self) -> str:
        wait.until(lambda: self.endings, what="an ended connection")
        return self.endings[-1]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while chunk := connection.recv(65536):
                    self.received += len(chunk)
                    connection.sendall(chunk)
            except ConnectionResetError:
                self.endings.append("reset")
            except BrokenPipeError:
                self.endings.append("pipe")
            else:
                self.endings.append("end")


@pytest.fixture
def echo() -> Iterator[_Echo]:
    """An echo server."""
    server = _Echo()
    yield server
    server.close()


@pytest.fixture
def line(echo: _Echo) -> Iterator[FaultyProxy]:
    """A proxy before the echo server."""
    with FaultyProxy(echo.port) as proxy:
        yield proxy


def _connect(line: FaultyProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", line.port), timeout=10)


def _exactly(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = client.recv(size - len(data))
        if not chunk:
            break
        data += chunk
    return data


def _talk(client: socket.socket, size: int) -> None:
    """Send in small pieces and take every echo."""
    for _ in range(size // 1000):
        client.sendall(b"z" * 1000)
        if len(_exactly(client, 1000)) < 1000:
            return


def test_bytes_pass_unchanged(line: FaultyProxy) -> None:
    payload = bytes(range(256)) * 8192
    with _connect(line) as client:
        sender = threading.Thread(target=client.sendall, args=(payload,))
        sender.start()
        assert payload == _exactly(client, len(payload))
        sender.join()


def test_end_of_stream_passes_both_ways(echo: _Echo, line: FaultyProxy) -> None:
    with _connect(line) as client:
        client.sendall(b"last words")
        client.shutdown(socket.SHUT_WR)
        assert _exactly(client, 100) == b"last words"
    assert echo.wait_for_ending() == "end"
    wait.until(lambda: line.open_connections == 0, what="no connection left")


def test_cut_resets_both_ends_and_new_connections_work(echo: _Echo, line: FaultyProxy) -> None:
    with _connect(line) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        assert line.cut() == 1
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert echo.wait_for_ending() == "reset"
    with _connect(line) as client:
        client.sendall(b"y")
        assert client.recv(1) == b"y"
    assert line.accepted == 2


def test_cut_in_good_order_is_an_end_of_stream(line: FaultyProxy) -> None:
    with _connect(line) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        line.cut(reset=False)
        assert client.recv(1) == b""


def test_reset_after_lets_exactly_that_many_bytes_reach_the_server(echo: _Echo, line: FaultyProxy) -> None:
    armed = line.reset_after(100_000, direction=Direction.TO_SERVER)
    assert not armed.fired
    with _connect(line) as client, pytest.raises((ConnectionResetError, BrokenPipeError)):
        _talk(client, 1_000_000)
    armed.wait(deadline_secs=60)
    assert echo.wait_for_ending() in {"reset", "pipe"}
    assert echo.received <= 100_000
    with _connect(line) as client:  # it happens once
        client.sendall(b"z" * 200_000)
        assert len(_exactly(client, 200_000)) == 200_000


def test_reset_after_counts_the_way_back(line: FaultyProxy) -> None:
    armed = line.reset_after(5, direction=Direction.TO_CLIENT)
    with _connect(line) as client:
        client.sendall(b"0123456789")
        with pytest.raises(ConnectionResetError):
            assert _exactly(client, 10) == b""
        armed.wait(deadline_secs=60)


def test_reset_after_each_happens_as_often_as_it_was_armed(line: FaultyProxy) -> None:
    first, second = line.reset_after_each([5, 3], direction=Direction.TO_CLIENT)
    for armed in (first, second):
        with _connect(line) as client:
            client.sendall(b"0123456789")
            with pytest.raises(ConnectionResetError):
                assert _exactly(client, 10) == b""
            armed.wait(deadline_secs=60)
    with _connect(line) as client:
        client.sendall(b"0123456789")
        assert _exactly(client, 10) == b"0123456789"


def test_a_fault_that_does_not_happen_is_named(line: FaultyProxy) -> None:
    armed = line.reset_after(10, direction=Direction.TO_SERVER)
    with pytest.raises(TestbedError, match="bytes left: 10"):
        armed.wait(deadline_secs=0.01)


def test_refuse_and_resume(line: FaultyProxy) -> None:
    with _connect(line) as kept:
        line.wait_for_connections(1)
        line.refuse()
        with pytest.raises(ConnectionRefusedError):
            _connect(line)
        kept.sendall(b"still here")
        assert _exactly(kept, 10) == b"still here"
        line.resume()
        with _connect(line) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
        line.refuse(cut=True)
        with pytest.raises(ConnectionResetError):
            kept.recv(1)


def test_stall_holds_bytes_until_resume(line: FaultyProxy) -> None:
    with _connect(line) as client:
        line.stall()
        client.sendall(b"x")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(10)
        line.resume()
        assert client.recv(1) == b"x"


def test_delay_and_throttle_slow_down(line: FaultyProxy) -> None:
    with _connect(line) as client:
        line.delay(0.1)
        started = time.monotonic()
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        assert time.monotonic() - started >= 0.2
        line.resume()
        line.throttle(100_000)
        started = time.monotonic()
        client.sendall(b"x" * 40_000)
        assert len(_exactly(client, 40_000)) == 40_000
        assert time.monotonic() - started >= 0.4


def test_a_dead_server_is_a_reset(echo: _Echo, line: FaultyProxy) -> None:
    echo.close()
    with pytest.raises(ConnectionResetError), _connect(line) as client:
        client.recv(1)
