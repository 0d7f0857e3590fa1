"""How many connections the listeners of gRPC have: strangers who say nothing keep new clients out, and no call is
refused that would be counted. Called by `worker.py`.

gRPC does not say it, so the system is asked (Linux; elsewhere nothing is known).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from decider.server.grpc_port import GrpcPort

TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
"""Every connection of the machine, or of the container (proc_pid_net(5)): local address in the second column, state in
the fourth."""

ESTABLISHED = "01"

NEARLY = 0.9
"""Of the connections that are possible: from here on it is said."""


def open_connections(ports: Collection[int]) -> Mapping[int, int]:
    """By local port; those of another process that listens at another address with the same port are among them. Empty
    where the system does not tell."""
    counts = dict.fromkeys(ports, 0)
    known = False
    for table in TABLES:
        with suppress(OSError):
            for port in _established(table.read_text("ascii")):
                if port in counts:
                    counts[port] += 1
            known = True
    return counts if known else {}


def _established(table: str) -> Iterator[int]:
    """The local ports.

    >>> list(_established("sl local rem st\\n0: 0100007F:C383 0100007F:A2B4 01 x\\n1: 0100007F:C383 0:0 0A x\\n"))
    [50051]
    """
    for line in table.splitlines()[1:]:
        _, local, _, state, *_ = line.split(maxsplit=4)
        if state == ESTABLISHED:
            yield int(local.rpartition(":")[2], 16)


class Connections:
    """ports: by the option that names their address."""

    def __init__(self, ports: Mapping[str, GrpcPort]) -> None:
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
