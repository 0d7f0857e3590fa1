"""The parent of a leader and its workers: starts them, starts again what ends, and drains all of them. Called by
`decider serve --workers N`.

It has imported everything, opens neither the log nor a port of gRPC, and has one thread: so a child is a fork, which
takes milliseconds, and the death of any child touches nobody else. Which process leads is said by the log's lease
alone. Each child has a pipe to the parent, its lifeline: it reads what to do there, and where the pipe ends, the parent
is gone, however it ended, and the child drains.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import NamedTuple, NoReturn

from decider.errors import AddressInUse, DeciderError
from decider.log.open import LogUrl
from decider.server.board import LEADER, Board, make_board, remove_board, worker_name
from decider.server.host_leader import HostLeader
from decider.server.http.listen import Listening
from decider.server.listeners import LISTEN, OPERATE_LISTEN
from decider.server.serve import SHORTEST_STOP, LeaderServer, WorkerServer
from decider.server.settings import Settings, join_address, split_address

logger = logging.getLogger(__name__)

STEADY = 10.0
"""Seconds after which a process that ends is started again at once, however often it has ended before."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds before the second restart of a process that ends again and again, then twice as many each time."""

WORKERS_SHARE = 0.7
"""Of the grace period, for the workers; then the leader learns and stores what they have written."""

LAST_SECOND = 1.0
"""Seconds after the grace period in which processes end by themselves."""

PRELOADED = ("decider.policy.thompson.thompson", "decider.policy.vw.workspace")
"""Imported once, before the first fork: else each child would do so with its first model, which takes longer than all
the rest of its start."""

READY = b"r"

FORMAT = "%(asctime)s %(levelname)s {}: %(message)s"


class Role(NamedTuple):
    """A process that there has to be. make: called in it."""

    name: str
    make: Callable[[], LeaderServer | WorkerServer]


@dataclass(slots=True)
class _Child:
    """A running process. lifeline: is written; said: is read. ready: whether it leads, or serves."""

    pid: int
    lifeline: int
    said: int
    started: float
    ready: bool = False


class Supervisor:
    """See above. roles: the leader's first. on_serving: called once all serve."""

    def __init__(self, roles: Sequence[Role], *, grace: float, on_serving: Callable[[], None]) -> None:
        self._roles = {role.name: role for role in roles}
        self._grace = grace
        self._on_serving = on_serving
        self._children: dict[str, _Child] = {}
        self._due = {roles[0].name: 0.0}
        self._ended: dict[str, int] = {}
        self._stopping = self._serving = False
        self._woken, self._wake = os.pipe()
        for end in (self._woken, self._wake):
            os.set_blocking(end, False)

    def run(self) -> int:
        """Until SIGTERM, Ctrl-C, or a failure before all serve. Returns the exit code."""
        _speak_as("parent")
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._request_stop())
        signal.signal(signal.SIGHUP, lambda *_: self._tell(LEADER, "look"))
        signal.signal(signal.SIGCHLD, lambda *_: None)  # it wakes `select`
        while not self._stopping:
            self._start_due()
            self._wait(min([0.5, *[max(0.0, due - time.monotonic()) for due in self._due.values()]]))
            for name, status in self._reap():
                if not self._serving and not self._stopping:  # it has said why
                    self._drain()
                    return 1
                self._start_again(name, status)
        logger.info("draining")
        self._drain()
        return 0

    def _request_stop(self) -> None:
        self._stopping = True

    def _tell(self, name: str, text: str) -> None:
        child = self._children.get(name)
        if child is not None:
            try:
                os.write(child.lifeline, f"{text}\n".encode())
            except OSError:  # it has just ended
                logger.debug("%s is not told to %s", name, text)

    def _start_due(self) -> None:
        for name in [name for name, due in self._due.items() if due <= time.monotonic()]:
            del self._due[name]
            self._start(self._roles[name])

    def _start(self, role: Role) -> None:
        lifeline, ours = os.pipe()
        said, theirs = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            for one in self._children.values():  # who keeps another's lifeline open keeps it from seeing the end
                os.close(one.lifeline)
                os.close(one.said)
            for end in (ours, said, self._woken, self._wake):
                os.close(end)
            _live(role, lifeline, theirs, self._grace)
        os.close(lifeline)
        os.close(theirs)
        os.set_blocking(said, False)
        self._children[role.name] = _Child(pid, ours, said, time.monotonic())

    def _wait(self, seconds: float) -> None:
        """For a signal, or until a child is ready, at most so long."""
        said = {child.said: child for child in self._children.values() if not child.ready}
        readable, _, _ = select.select([self._woken, *said], [], [], seconds)
        if self._woken in readable:
            os.read(self._woken, 4096)
        for end in readable:
            if end in said:
                said[end].ready = os.read(end, 1) == READY
        if self._children.get(LEADER, _NOBODY).ready:  # workers serve only what the leader has learned
            for name in self._roles.keys() - self._children.keys() - self._due.keys() - self._ended.keys():
                self._due[name] = 0.0
        if not self._serving and all(self._children.get(name, _NOBODY).ready for name in self._roles):
            self._serving = True
            self._on_serving()

    def _reap(self) -> list[tuple[str, int]]:
        """The children that have ended, with their statuses."""
        ended: list[tuple[str, int]] = []
        for name, child in [*self._children.items()]:
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                os.close(child.lifeline)
                os.close(child.said)
                ended.append((name, status))
                steady = child.ready and time.monotonic() - child.started >= STEADY
                self._ended[name] = 1 if steady else self._ended.get(name, 0) + 1
                del self._children[name]
        return ended

    def _start_again(self, name: str, status: int) -> None:
        again = self._ended[name] - 1
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(again, 10)) if again else 0.0
        when = f"in {pause:g} s" if pause else "at once"
        logger.error("%s ended (%s); it is started again %s", name, _how(status), when)
        self._due[name] = time.monotonic() + pause

    def _drain(self) -> None:
        """Workers first: what they have answered is learned by the leader before it stores its models."""
        end = time.monotonic() + self._grace
        workers = [name for name in self._children if name != LEADER]
        for name in workers:
            self._tell(name, f"stop {WORKERS_SHARE * self._grace}")
        self._wait_for(workers, time.monotonic() + max(WORKERS_SHARE * self._grace, SHORTEST_STOP) + LAST_SECOND)
        self._tell(LEADER, f"stop {max(0.0, end - time.monotonic())}")
        self._wait_for([LEADER], max(end, time.monotonic() + SHORTEST_STOP) + LAST_SECOND)
        for child in self._children.values():
            os.kill(child.pid, signal.SIGKILL)
        self._wait_for([*self._children], time.monotonic() + LAST_SECOND)

    def _wait_for(self, names: Sequence[str], end: float) -> None:
        while any(name in self._children for name in names) and time.monotonic() < end:
            self._reap()
            time.sleep(0.01)


_NOBODY = _Child(0, -1, -1, 0.0)


def _speak_as(name: str) -> None:
    """Lines of the output say whose they are."""
    for handler in logging.getLogger().handlers:
        handler.setFormatter(logging.Formatter(FORMAT.format(name)))


def _how(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def _live(role: Role, lifeline: int, said: int, grace: float) -> NoReturn:
    """The life of a child, from its fork to its end."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of them, and the parent says what to do
        _speak_as(role.name)
        server = role.make()
        if isinstance(server, LeaderServer):
            server.on_standby = lambda: os.write(said, READY)
        signal.signal(signal.SIGTERM, lambda *_: server.request_stop())
        signal.signal(signal.SIGHUP, lambda *_: server.request_look())
        left = [grace]
        threading.Thread(target=_obey, args=(lifeline, server, left), name="lifeline", daemon=True).start()
        if server.start():
            os.write(said, READY)
            while not server.wait(0.5):  # a signal that another thread receives does not wake an endless wait
                pass
        server.stop(left[0])
        code = 0
    except (DeciderError, OSError) as error:
        print(f"Error: {role.name}: {error}", file=sys.stderr)
    except BaseException:
        logger.exception("%s ends", role.name)
    finally:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _obey(lifeline: int, server: LeaderServer | WorkerServer, left: list[float]) -> None:
    """The thread that reads what the parent says. left: seconds for the drain."""
    with os.fdopen(lifeline) as lines:
        for line in lines:
            what, _, seconds = line.strip().partition(" ")
            if what == "look":
                server.request_look()
            elif what == "stop":
                left[0] = float(seconds)
                break
    server.request_stop()  # also where the parent is gone


def supervise(settings: Settings, listening: Listening, on_serving: Callable[[Mapping[str, str]], None]) -> int:
    """Run a leader and its workers until they are to end. Returns the exit code. on_serving: called with the addresses
    of gRPC, by option. Raises DeciderError."""
    for name in PRELOADED:
        import_module(name)
    asked = {LISTEN: settings.listen, OPERATE_LISTEN: settings.operate_listen}
    reserved = {option: _reserve(address) for option, address in asked.items() if address is not None}
    addresses = {
        option: join_address(split_address(asked[option] or "")[0], port.getsockname()[1])
        for option, port in reserved.items()
    }
    real = replace(settings, listen=addresses[LISTEN], operate_listen=addresses.get(OPERATE_LISTEN))
    board = Board(make_board(settings.db))

    def lead() -> LeaderServer:
        kind = HostLeader if isinstance(real.db, LogUrl) else LeaderServer
        return kind(real, listening=listening.socket, board=board)

    def work(number: int) -> WorkerServer:
        listening.socket.close()  # the leader's
        return WorkerServer(real, number=number, board=board)

    workers = [Role(worker_name(n), lambda n=n: work(n)) for n in range(1, settings.workers + 1)]  # type: ignore[misc]
    try:
        return Supervisor(
            [Role(LEADER, lead), *workers], grace=settings.grace, on_serving=lambda: on_serving(addresses)
        ).run()
    finally:
        remove_board(board.folder)


def _reserve(address: str) -> socket.socket:
    """A socket that keeps the port for the workers, and gets no connections itself. Raises AddressInUse."""
    host, port = split_address(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, where = min(found, key=lambda one: one[0] != socket.AF_INET)
        if port:
            with socket.socket(family) as probe:  # with SO_REUSEPORT another server's port would be shared in silence
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                _bind(probe, host, where)
        reserved = socket.socket(family)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _bind(reserved, host, where)
    except (OSError, UnicodeError, AttributeError) as error:
        raise AddressInUse(f"cannot listen on {address} for gRPC, by several processes: {error}") from error
    return reserved


def _bind(one: socket.socket, host: str, where: tuple[object, ...]) -> None:
    if one.family == socket.AF_INET6 and host == "::":
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    one.bind(where)
