"""A process that forwards TCP connections, and delays, holds, cuts or forgets them when it is told to.

It stands on the host of whoever connects, so what is behind it is as far away as for that host. Where what is behind it
does not answer, it gives up as libpq's settings of a log do (see `decider/log/postgres/connection.py`), and says so by
a reset. Commands come as JSON lines on stdin. Started by `stage.py`; netem does the same where the kernel has it.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

FLOW, DELAY, STALL, CUT, FORGET = "flow", "delay", "stall", "cut", "forget"
"""forget: connections that are open carry nothing any more and are not closed, as if the other side had lost power;
new ones are as ever. With `flow` they are reset."""

CUT_SHARE = 0.1
"""Of the pieces of data: one that is cut is forwarded up to its middle, then its connection is reset."""

PIECE = 65_536
CONNECT_SECONDS = 5.0
_RESET = struct.pack("ii", 1, 0)
_GIVE_UP = (
    (socket.SO_KEEPALIVE, socket.SOL_SOCKET, 1),
    (socket.TCP_KEEPIDLE, socket.IPPROTO_TCP, 5),
    (socket.TCP_KEEPINTVL, socket.IPPROTO_TCP, 2),
    (socket.TCP_KEEPCNT, socket.IPPROTO_TCP, 5),
    (socket.TCP_USER_TIMEOUT, socket.IPPROTO_TCP, 10_000),
    (socket.TCP_NODELAY, socket.IPPROTO_TCP, 1),
)


@dataclass(slots=True, eq=False)
class Connection:
    """Both ends. silent: forgotten."""

    ends: tuple[StreamWriter, StreamWriter]
    silent: bool = False

    def reset(self) -> None:
        """Both sides are told at once, and nothing that waits is sent."""
        for end in self.ends:
            found = end.get_extra_info("socket")
            with suppress(OSError):
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.transport.abort()


@dataclass(slots=True)
class Link:
    """To one place. delay: seconds for each piece. cut: share of the pieces."""

    to: tuple[str, int]
    random: Random
    delay: float = 0.0
    cut: float = 0.0
    flows: asyncio.Event = field(default_factory=asyncio.Event)
    connections: set[Connection] = field(default_factory=set)

    def do(self, what: str, seconds: float) -> None:
        """seconds: of a delay."""
        self.delay, self.cut = 0.0, 0.0
        if what == STALL:
            self.flows.clear()
            return
        self.flows.set()
        if what == DELAY:
            self.delay = seconds
        elif what == CUT:
            self.cut = CUT_SHARE
        elif what == FORGET:
            for one in self.connections:
                one.silent = True
        else:
            for one in [one for one in self.connections if one.silent]:
                one.reset()

    async def accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Forward a connection until either side closes it."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                their_reader, their_writer = await asyncio.open_connection(*self.to)
        except OSError:  # also TimeoutError
            Connection((writer, writer)).reset()
            return
        for name, level, value in _GIVE_UP:
            their_writer.get_extra_info("socket").setsockopt(level, name, value)
        connection = Connection((writer, their_writer))
        self.connections.add(connection)
        try:
            await asyncio.gather(
                self._forward(connection, reader, their_writer), self._forward(connection, their_reader, writer)
            )
        except OSError:
            connection.reset()
        finally:
            self.connections.discard(connection)
            for end in connection.ends:
                end.close()

    async def _forward(self, connection: Connection, reader: StreamReader, writer: StreamWriter) -> None:
        while data := await reader.read(PIECE):
            if self.delay:
                await asyncio.sleep(self.delay)
            await self.flows.wait()
            if connection.silent:
                continue
            if self.cut and self.random.random() < self.cut:
                writer.write(data[: len(data) // 2])
                await asyncio.sleep(0.005)  # so that it is on its way
                connection.reset()
                return
            writer.write(data)
            await writer.drain()
        if not connection.silent:
            with suppress(OSError, RuntimeError):
                writer.write_eof()


async def serve(links: dict[str, dict[str, Any]], seed: int, read_line: Callable[[], str]) -> None:
    """links: by name, `port` here, and `to`. Until stdin ends."""
    made: dict[str, Link] = {}
    for name, link in links.items():
        made[name] = Link((link["to"][0], link["to"][1]), Random(f"{seed} {name}"))
        made[name].flows.set()
        await asyncio.start_server(made[name].accept, "127.0.0.1", link["port"])
    print("ready", flush=True)
    while line := await asyncio.to_thread(read_line):
        said = json.loads(line)
        made[said["link"]].do(said["do"], said.get("seconds", 0.0))


if __name__ == "__main__":
    asyncio.run(serve(json.loads(sys.argv[1]), int(sys.argv[2]), sys.stdin.readline))
