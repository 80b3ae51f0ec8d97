"""Carries connections between this machine and the box: `python box_forward.py BOX_PID DIRECTION PORT HOST:PORT`.

`out` listens on loopback of the machine and connects in the box; `in` listens on every address of the box and
connects on the machine. Needs root. Standard library only: it runs by itself.
"""

import asyncio
import ctypes
import os
import socket
import sys

CLONE_NEWNET = 0x40000000
CHUNK_BYTES = 65536


def main() -> None:
    """Listen on one side, connect on the other."""
    pid, direction, port, target = sys.argv[1:]
    here, box = os.open("/proc/self/ns/net", os.O_RDONLY), os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    enter(box if direction == "in" else here)
    # With its protocol: asyncio turns Nagle's algorithm off (40 ms an answer) only for what says that it is TCP.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("0.0.0.0" if direction == "in" else "127.0.0.1", int(port)))  # noqa: S104 - inside the box only
    listening.listen(128)
    enter(here if direction == "in" else box)
    host, _, target_port = target.rpartition(":")
    asyncio.run(serve(listening, host, int(target_port)))


def enter(namespace: int) -> None:
    """Make new sockets in this network namespace."""
    if ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNET) != 0:
        sys.exit(f"setns failed: {os.strerror(ctypes.get_errno())}")


async def serve(listening: socket.socket, host: str, port: int) -> None:
    """Until the end."""
    alive = set()  # the loop itself holds a task whose ends are half closed only weakly

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        alive.add(task)
        try:
            far_reader, far_writer = await asyncio.open_connection(host, port)
            await asyncio.gather(carry(reader, far_writer), carry(far_reader, writer))
            far_writer.close()
        except OSError:
            pass
        finally:
            writer.close()
            alive.discard(task)

    server = await asyncio.start_server(connected, sock=listening)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await server.serve_forever()


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction of one connection; its end is passed on, the other direction goes on."""
    try:
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.close()


if __name__ == "__main__":
    main()
