"""The connections that the listeners of gRPC have in this process: strangers who say nothing keep new clients out, and
no call is refused that would be counted. And how a process stops to listen while it serves those who are there. Called
by `worker.py` and `web/port.py`.

gRPC says and does neither, so the system is asked (Linux; elsewhere nothing is known).
"""

from __future__ import annotations

import ctypes
import os
import re
import socket
import struct
import time
from asyncio.trsock import TransportSocket
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
"""Every connection of the machine, or of the container (proc_pid_net(5)): local address in the second column, state in
the fourth, inode in the tenth."""

FILES = "/proc/self/fd"

ESTABLISHED, CONNECTS, LISTENS = "01", "03", "0A"

SO_ATTACH_FILTER = 26
"""socket(7); Python has no name for it."""

NO_FIRST_PACKET = struct.pack("HBBI" * 4, 0x30, 0, 0, 13, 0x45, 0, 1, 0x02, 0x06, 0, 0, 0, 0x06, 0, 0, 0xFFFFFFFF)
"""A program of the classic packet filter: load byte 13 of TCP's header; with SYN take nothing, else everything."""

WAITING_AT = 24
"""Bytes before that number in what TCP_INFO says of a socket that listens (tcpi_unacked in linux/tcp.h)."""

PAUSE = 0.001
"""Seconds between two looks whether all callers were taken in."""

NEARLY = 0.9
"""Of the connections that are possible: from here on it is said."""


class _Socket(NamedTuple):
    """Of the machine."""

    port: int
    state: str
    inode: str


def open_connections(ports: Collection[int]) -> Mapping[int, int]:
    """Of this process, by local port. Empty where the system does not tell."""
    counts = dict.fromkeys(ports, 0)
    try:
        found = _own_sockets(ports, ESTABLISHED)
    except OSError:
        return {}
    for port in found.values():
        counts[port] += 1
    return counts


def stop_listening(ports: Collection[int], *, patient_until: float) -> None:
    """No new connection comes to this process any more; those that are there stay, and so do other processes' sockets
    of the same port. Nothing happens where the system does not tell which sockets they are. See take_all_in."""
    with suppress(OSError):
        for fd, port in _own_sockets(ports, LISTENS).items():
            with socket.socket(fileno=os.dup(fd)) as one:  # the same socket, which stays gRPC's to close
                take_all_in(one, port, patient_until=patient_until)
                one.shutdown(socket.SHUT_RD)


def take_all_in(listening: socket.socket | TransportSocket, port: int, *, patient_until: float) -> None:
    """Wait until whoever connects to this socket has been accepted, or the monotonic clock reads `patient_until`: the
    system resets the others when it closes. Nobody begins to connect meanwhile: the system leaves out first packets,
    which come again a second later, to another process then. Without files to spare, or on a system without filters or
    tables, nobody is waited for."""
    with suppress(OSError):
        attach_filter(listening, NO_FIRST_PACKET)
        # In this order: whose handshake ends between the two looks is seen by the second.
        while (_handshakes(port) or _not_accepted(listening)) and time.monotonic() < patient_until:
            time.sleep(PAUSE)


def attach_filter(one: socket.socket | TransportSocket, program: bytes) -> None:
    """What comes for this socket is taken as the program of the classic packet filter says. Raises OSError."""
    kept = ctypes.create_string_buffer(program)
    fprog = struct.pack("HP", len(program) // 8, ctypes.addressof(kept))
    one.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, fprog)


def _not_accepted(listening: socket.socket | TransportSocket) -> int:
    """Callers that have connected, and wait. Linux."""
    (waiting,) = struct.unpack_from("I", listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28), WAITING_AT)
    return int(waiting)


def _handshakes(port: int) -> bool:
    """Whether somebody is about to connect, to this process or to another one."""
    connects = re.compile(rf":{port:04X} \S+ {CONNECTS} ")
    return any(map(connects.search, _tables()))


def _own_sockets(ports: Collection[int], state: str) -> Mapping[int, int]:
    """The ports of sockets in that state, by the numbers of their files. Raises OSError where the system does not
    tell."""
    tables = _tables()
    known = {
        f"socket:[{one.inode}]": one.port
        for table in tables
        for one in _sockets(table)
        if one.port in ports and one.state == state
    }
    found: dict[int, int] = {}
    for file in os.scandir(FILES) if known else ():
        with suppress(OSError):  # it has just been closed
            port = known.get(os.readlink(file.path))  # noqa: PTH115 - of thousands, each second
            if port is not None:
                found[int(file.name)] = port
    if not tables:
        raise FileNotFoundError(TABLES[0])
    return found


def _tables() -> Sequence[str]:
    """Those that there are. Raises OSError."""
    return [table.read_text("ascii") for table in TABLES if table.exists()]


def _sockets(table: str) -> Iterator[_Socket]:
    """All of a table.

    >>> list(_sockets("sl local rem st\\n0: 0100007F:C383 0100007F:A2B4 01 0:0 0:0 0 1000 0 77 1\\n"))
    [_Socket(port=50051, state='01', inode='77')]
    """
    for line in table.splitlines()[1:]:
        fields = line.split(maxsplit=10)
        yield _Socket(int(fields[1].rpartition(":")[2], 16), fields[3], fields[9])


class Port(Protocol):
    """What listens."""

    port: int
    most_connections: int


class Connections:
    """ports: by the option that names their address."""

    def __init__(self, ports: Mapping[str, Port]) -> None:
        self._ports = ports

    @property
    def limits(self) -> Mapping[str, int]:
        """The most at once, by option."""
        return {option: port.most_connections for option, port in self._ports.items()}

    def count(self) -> Mapping[str, int]:
        """Now, by option; empty where the system does not tell."""
        counts = open_connections([port.port for port in self._ports.values()])
        return {option: counts[port.port] for option, port in self._ports.items() if port.port in counts}

    @property
    def warnings(self) -> list[str]:
        """For /readyz."""
        limits = self.limits
        return [
            f"{count} of {limits[option]} connections to {option} are open: above, new clients are not let in; "
            "bound connections by address in front of the port"
            for option, count in self.count().items()
            if count >= NEARLY * limits[option]
        ]
