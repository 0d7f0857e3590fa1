"""Hosts of one machine: a network namespace each, on a bridge that has a namespace of its own. Called by `stage.py`.

Nothing of it can be seen from the machine's own network, so addresses cannot clash. Needs root. A run that was killed
leaves namespaces; the next run removes those of processes that are gone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from simulator.drive.own_postgres import as_user

PREFIX = "decider-faults"
NETWORK = "10.77.0"
BRIDGE, WIRE = "bridge0", "wire0"
"""The bridge in its namespace, and each host's end of its wire."""


class NoHosts(Exception):
    """Namespaces cannot be made here; says why."""


def _ip(*arguments: str) -> str:
    """Raises NoHosts with what `ip` said."""
    try:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise NoHosts("the program `ip` is missing: install iproute2") from error
    if done.returncode:
        raise NoHosts(f"`ip {' '.join(arguments)}` failed: {done.stderr.strip()}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class Host:
    """name: what people call it. space: the name of its namespace. address: on the bridge."""

    name: str
    space: str
    address: str

    def start(
        self, command: Sequence[str], output: Path, *, user: str | None = None, stdin: int = subprocess.DEVNULL
    ) -> subprocess.Popen[str]:
        """A process on this host, in a session of its own: Ctrl-C reaches only whoever started it. Its output goes to
        the end of a file."""
        whole = [*_inside(self.space), *as_user(user), *command]
        with output.open("a", encoding="utf-8") as file:
            return subprocess.Popen(
                whole, stdin=stdin, stdout=file, stderr=file, text=True, start_new_session=True, cwd=output.parent
            )

    def run(self, command: Sequence[str], *, user: str | None = None) -> subprocess.CompletedProcess[str]:
        """A command on this host, until it has ended."""
        whole = [*_inside(self.space), *as_user(user), *command]
        return subprocess.run(whole, capture_output=True, text=True, check=False, cwd="/")

    def cut_off(self) -> None:
        """Pull its wire: nothing that is sent arrives, and nobody is told."""
        _ip("-n", self.space, "link", "set", WIRE, "down")

    def join_again(self) -> None:
        """Put the wire in again. The neighbours are asked anew: an address that was not found is not taken for lost."""
        _ip("-n", self.space, "link", "set", WIRE, "up")


def _inside(space: str) -> list[str]:
    return ["ip", "netns", "exec", space]


def check_root() -> None:
    """Raises NoHosts."""
    if os.getuid() != 0:
        raise NoHosts("network namespaces and mounts need root: run it as root (sudo make faults)")


@contextmanager
def hosts(*names: str) -> Iterator[list[Host]]:
    """Hosts on one bridge, gone at the end with all processes that still run on them. Raises NoHosts."""
    check_root()
    _remove_left()
    switch = f"{PREFIX}-{os.getpid()}-switch"
    made = [Host(name, f"{PREFIX}-{os.getpid()}-{name}", f"{NETWORK}.{number}") for number, name in enumerate(names, 1)]
    try:
        _add(switch)
        _ip("-n", switch, "link", "add", BRIDGE, "type", "bridge", "forward_delay", "0")
        _ip("-n", switch, "link", "set", BRIDGE, "up")
        for host in made:
            _connect(host, switch)
        yield made
    finally:
        for space in [*(host.space for host in made), switch]:
            _remove(space)


def _add(space: str) -> None:
    _ip("netns", "add", space)
    _ip("-n", space, "link", "set", "lo", "up")


def _connect(host: Host, switch: str) -> None:
    _add(host.space)
    port = f"to-{host.name}"[:15]
    _ip("-n", switch, "link", "add", port, "type", "veth", "peer", "name", WIRE, "netns", host.space)
    _ip("-n", switch, "link", "set", port, "master", BRIDGE, "up")
    _ip("-n", host.space, "address", "add", f"{host.address}/24", "dev", WIRE)
    _ip("-n", host.space, "link", "set", WIRE, "up")


def _remove(space: str) -> None:
    """With the processes in it."""
    found = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True, check=False)
    for pid in found.stdout.split():
        try:
            os.kill(int(pid), 9)
        except ProcessLookupError:
            continue
    subprocess.run(["ip", "netns", "delete", space], capture_output=True, check=False)


def _remove_left() -> None:
    """Of runs that were killed: their namespaces, and what is in memory."""
    for line in _ip("netns", "list").splitlines():
        space = line.split()[0]
        if space.startswith(f"{PREFIX}-") and not _lives(space):
            _remove(space)
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}-*-*"):
        if not _lives(folder.name):
            for disk in folder.iterdir():
                subprocess.run(["umount", "--lazy", str(disk)], check=False, capture_output=True)
            shutil.rmtree(folder, ignore_errors=True)


def _lives(name: str) -> bool:
    """Whether the process is there that a name of ours names."""
    return Path(f"/proc/{name.removeprefix(f'{PREFIX}-').partition('-')[0]}").exists()


@contextmanager
def private_folder() -> Iterator[Path]:
    """For what is gone at the end. Other users may go through it: PostgreSQL runs as one."""
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}-{os.getpid()}-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
