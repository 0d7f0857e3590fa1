"""The parent of a leader and its workers: starts them, starts again what ends, and drains all of them. Called by
`decider serve --workers N`.

It has imported everything, opens neither the log nor a port of gRPC, and has one thread: so a child is a fork, which
takes milliseconds, and the death of any child touches nobody else. Which process leads is said by the log's lease
alone. What a child does is in `child.py`. A worker's successor serves before the worker leaves the port; that happens
where all are renewed (SIGUSR2, `decider reload`), and where a worker gets SIGTERM.
"""

from __future__ import annotations

import logging
import math
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import NamedTuple

from decider.errors import AddressInUse
from decider.log.open import LogUrl
from decider.page.page import read_files
from decider.server.allocator import keep_what_is_there
from decider.server.board import LEADER, Board, Renewal, make_board, remove_board, worker_name
from decider.server.child import ENDS, LEAVE, LEAVES, LOOK, READY, STARTS, STOP, ChildServer, Say, live, speak_as
from decider.server.host_leader import HostLeader
from decider.server.http.listen import Listening
from decider.server.listeners import LISTEN, OPERATE_LISTEN, WEB
from decider.server.serve import SHORTEST_STOP, LeaderServer, WorkerServer
from decider.server.settings import Settings, join_address, split_address
from decider.server.signs import Silence

logger = logging.getLogger(__name__)

STEADY = 2.0
"""Seconds after which a process that ends is started again at once, however often it has ended before."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds before the second restart of a process that ends again and again, then twice as many each time."""

WORKERS_SHARE = 0.7
"""Of the grace period, for the workers; then the leader learns and stores what they have written."""

LAST_SECOND = 1.0
"""Seconds after the grace period in which processes end by themselves."""

PRELOADED = ("decider.policy.thompson.thompson", "decider.policy.vw.workspace")
"""Imported once, before the first fork: else each child would do so with its first model, which takes longer than all
the rest of its start. Nothing of ours is read from the disk after it: so children that are made later are of one
release, whatever has been put there."""

LONGEST_LOOK = 1.0
"""Seconds that one look at the children counts at most: while the parent itself was held up, nobody hung."""

LAST_WORDS = 1.0
"""Seconds that a process which hangs gets to say where."""

MORE_THAN_AGE = 1.1
"""gRPC lets a connection live up to a tenth longer than it is told."""

LAST_CONNECTION = 2.0
"""Seconds after that until a worker that leaves has no connection."""


class Role(NamedTuple):
    """A process that there has to be. make: called in it, with whether it takes the place of one that still serves, and
    with what tells the parent."""

    name: str
    make: Callable[[bool, Say], ChildServer]


@dataclass(slots=True)
class _Child:
    """A running process. lifeline: is written; said: is read. ready: whether it leads, or serves. starts: whether
    it stood by and learns what it needs to lead. asked: to end.
    until: when it has to have ended, of the monotonic clock."""

    name: str
    pid: int
    lifeline: int
    said: int
    started: float
    silence: Silence
    ready: bool = False
    starts: bool = False
    asked: bool = False
    until: float = math.inf


class Supervisor:
    """See above. roles: the leader's first. leave: seconds that a worker gets until its clients have gone to others.
    hung_after: seconds, see `signs.py`. on_serving: called once all serve. on_renewal: is told how it goes."""

    def __init__(
        self,
        roles: Sequence[Role],
        *,
        grace: float,
        leave: float,
        hung_after: float,
        on_serving: Callable[[], None],
        on_renewal: Callable[[Renewal], None],
    ) -> None:
        self._roles = {role.name: role for role in roles}
        self._grace = grace
        self._leave = leave
        self._hung_after = hung_after
        self._on_serving = on_serving
        self._on_renewal = on_renewal
        self._children: dict[str, _Child] = {}
        self._leaving: list[_Child] = []
        self._successor: _Child | None = None
        self._renewing: list[tuple[str, float]] = []
        self._renewal = Renewal()
        self._due = {roles[0].name: 0.0}
        self._ended: dict[str, int] = {}
        self._stopping = self._serving = False
        self._renewal_asked = 0
        self._looked_at = time.monotonic()
        self._woken, self._wake = os.pipe()
        for end in (self._woken, self._wake):
            os.set_blocking(end, False)

    def run(self) -> int:
        """Until SIGTERM, Ctrl-C, or a failure before all serve. Returns the exit code."""
        speak_as("parent")
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._request_stop())
        signal.signal(signal.SIGHUP, lambda *_: self._tell(self._children.get(LEADER), LOOK))
        signal.signal(signal.SIGUSR2, lambda *_: self._request_renewal())
        signal.signal(signal.SIGCHLD, lambda *_: None)  # it wakes `select`
        self._on_renewal(self._renewal)
        while not self._stopping:
            self._start_due()
            self._wait(min([0.5, *[max(0.0, due - time.monotonic()) for due in self._due.values()]]))
            for child, status in self._reap():
                if not self._serving and not self._stopping:  # it has said why
                    self._drain()
                    return 1
                self._follow_up(child, status)
            self._end_hung()
            self._renew()
        logger.info("draining")
        self._drain()
        return 0

    def _request_stop(self) -> None:
        self._stopping = True

    def _request_renewal(self) -> None:
        self._renewal_asked += 1

    @property
    def _all(self) -> list[_Child]:
        successor = [] if self._successor is None else [self._successor]
        return [*self._children.values(), *self._leaving, *successor]

    def _tell(self, child: _Child | None, text: str) -> None:
        if child is not None:
            try:
                os.write(child.lifeline, f"{text}\n".encode())
            except OSError:  # it has just ended
                logger.debug("%s is not told to %s", child.name, text)

    def _start_due(self) -> None:
        for name in [name for name, due in self._due.items() if due <= time.monotonic()]:
            del self._due[name]
            self._children[name] = self._start(name, beside=False)

    def _start(self, name: str, *, beside: bool) -> _Child:
        """A new process. beside: of one that still serves."""
        role = self._roles[name]
        lifeline, ours = os.pipe()
        said, theirs = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            for one in self._all:  # who keeps another's lifeline open keeps it from seeing the end
                os.close(one.lifeline)
                os.close(one.said)
            for end in (ours, said, self._woken, self._wake):
                os.close(end)
            live(name, partial(role.make, beside), lifeline, theirs, grace=self._grace, replaceable=name != LEADER)
        os.close(lifeline)
        os.close(theirs)
        for end in (ours, said):  # who does not listen holds up nobody
            os.set_blocking(end, False)
        return _Child(name, pid, ours, said, time.monotonic(), Silence(pid))

    def _wait(self, seconds: float) -> None:
        """For a signal, or until a child says something, at most so long."""
        said = {child.said: child for child in self._all}
        readable, _, _ = select.select([self._woken, *said], [], [], seconds)
        if self._woken in readable:
            os.read(self._woken, 4096)
        for end in readable:
            if end in said:
                self._hear(said[end], os.read(end, 4096))
        if self._is_ready(LEADER):  # workers serve only what the leader has learned
            for name in self._roles.keys() - self._children.keys() - self._due.keys() - self._ended.keys():
                self._due[name] = 0.0
        if not self._serving and all(map(self._is_ready, self._roles)):
            self._serving = True
            self._on_serving()

    def _is_ready(self, name: str) -> bool:
        return name in self._children and self._children[name].ready

    def _hear(self, child: _Child, what: bytes) -> None:
        if not what:
            time.sleep(0.001)  # it has ended, and is about to be reaped
            return
        child.silence.end()
        child.ready = child.ready or READY in what
        if STARTS in what or READY in what:  # maybe both at once, where this process was held up
            child.starts = what.rfind(STARTS) > what.rfind(READY)
        if ENDS in what:
            child.until = time.monotonic() + max(self._grace, SHORTEST_STOP) + LAST_SECOND
        if LEAVES in what and child is self._children.get(child.name) and not child.asked:
            self._renewing.append((child.name, time.monotonic()))

    def _reap(self) -> list[tuple[_Child, int]]:
        """The children that have ended, with their statuses."""
        ended: list[tuple[_Child, int]] = []
        for child in self._all:
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                os.close(child.lifeline)
                os.close(child.said)
                ended.append((child, status))
                if child in self._leaving:
                    self._leaving.remove(child)
                elif child is self._successor:
                    self._successor = None
                else:
                    del self._children[child.name]
                    steady = child.ready and time.monotonic() - child.started >= STEADY
                    self._ended[child.name] = 1 if steady or child.asked else self._ended.get(child.name, 0) + 1
        return ended

    def _follow_up(self, child: _Child, status: int) -> None:
        """What has to be done after the end of a child."""
        name = child.name
        if name in self._children:  # the end of one that was renewed; or of one that was to take its place
            if not child.ready:
                self._give_up_renewing(f"a new {name} ended ({_how(status)}); the one before serves on")
            else:
                logger.info("%s ended (%s); another one serves in its place", name, _how(status))
            return
        if self._successor is not None and self._successor.name == name:
            logger.error("%s ended (%s); its successor is on the way", name, _how(status))
            self._children[name], self._successor = self._successor, None
            return
        self._start_again(child, status)

    def _start_again(self, child: _Child, status: int) -> None:
        again = self._ended[child.name] - 1
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(again, 10)) if again else 0.0
        when = f"in {pause:g} s" if pause else "at once"
        level = logging.INFO if child.asked else logging.ERROR
        logger.log(level, "%s ended (%s); it is started again %s", child.name, _how(status), when)
        self._due[child.name] = time.monotonic() + pause

    def _end_hung(self) -> None:
        """End those that have said nothing for too long, once they have served. A start takes as long as it takes."""
        now = time.monotonic()
        passed, self._looked_at = min(now - self._looked_at, LONGEST_LOOK), now
        for child in self._all:
            if now > child.until:
                logger.error("%s does not end; it is killed", child.name)
                os.kill(child.pid, signal.SIGKILL)
            elif (
                child.ready
                and not child.starts
                and child.until == math.inf
                and child.silence.is_hung(passed, self._hung_after)
            ):
                logger.error("%s hangs since %.0f s; it is ended", child.name, child.silence.seconds)
                child.silence.end()
                _abort(child.pid)

    def _renew(self) -> None:
        """Go on with putting new processes into the places of those that serve: one after the other."""
        if self._renewal_asked > self._renewal.asked:
            now = time.monotonic()
            # In place of what is left of those asked for before, however often: these come after all of them.
            self._renewing = [(name, now) for name in [*[one for one in self._roles if one != LEADER], LEADER]]
            self._renewal = Renewal(self._renewal_asked, [name for name, _ in self._renewing])
            self._on_renewal(self._renewal)
            logger.info("all processes are renewed, one after the other")
        if self._successor is not None and self._successor.ready:
            self._take_over(self._successor)
        if self._renewing and self._successor is None:
            self._renew_next(*self._renewing[0])

    def _renew_next(self, name: str, since: float) -> None:
        child = self._children.get(name)
        if child is None or not child.ready or any(one.name == name for one in self._leaving):
            return  # once it serves, and nobody is on the way out
        if child.started >= since:
            self._renewing.pop(0)
            self._renewal = self._renewal._replace(left=[one for one, _ in self._renewing])
            self._on_renewal(self._renewal)
        elif name != LEADER:
            self._successor = self._start(name, beside=True)
        elif not child.asked:
            child.asked = True  # the log has one leader: the next one starts once it has let go
            self._tell(child, f"{STOP} {self._grace}")

    def _take_over(self, new: _Child) -> None:
        old = self._children[new.name]
        old.asked = True
        self._leaving.append(old)
        self._children[new.name], self._successor = new, None
        self._tell(old, f"{LEAVE} {self._leave}")
        logger.info("%s is new; the one before leaves", new.name)

    def _give_up_renewing(self, problem: str) -> None:
        logger.error("%s", problem)
        self._renewing.clear()
        self._renewal = self._renewal._replace(left=[], problem=problem)
        self._on_renewal(self._renewal)

    def _drain(self) -> None:
        """Workers first: what they have answered is learned by the leader before it stores its models."""
        end = time.monotonic() + self._grace
        workers = [child for child in self._all if child.name != LEADER]
        for child in workers:
            self._tell(child, f"{STOP} {WORKERS_SHARE * self._grace}")
        self._wait_for(workers, time.monotonic() + max(WORKERS_SHARE * self._grace, SHORTEST_STOP) + LAST_SECOND)
        self._tell(self._children.get(LEADER), f"{STOP} {max(0.0, end - time.monotonic())}")
        leader = [child for child in self._all if child.name == LEADER]
        self._wait_for(leader, max(end, time.monotonic() + SHORTEST_STOP) + LAST_SECOND)
        for child in self._all:
            os.kill(child.pid, signal.SIGKILL)
        self._wait_for(self._all, time.monotonic() + LAST_SECOND)

    def _wait_for(self, children: Sequence[_Child], end: float) -> None:
        while any(child in self._all for child in children) and time.monotonic() < end:
            self._reap()
            time.sleep(0.01)


def _abort(pid: int) -> None:
    """End a process that may be stopped, or not listen; where it can, it says first where its threads are."""
    os.kill(pid, signal.SIGABRT)
    end = time.monotonic() + LAST_WORDS
    while time.monotonic() < end:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)


def _how(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def supervise(settings: Settings, listening: Listening, on_serving: Callable[[Mapping[str, str]], None]) -> int:
    """Run a leader and its workers until they are to end. Returns the exit code. on_serving: called with the addresses
    of calls, by option. Raises DeciderError."""
    for name in PRELOADED:
        import_module(name)
    read_files()
    keep_what_is_there()  # also so that no child's collector writes into pages that all share
    asked = {LISTEN: settings.listen, OPERATE_LISTEN: settings.operate_listen, WEB: settings.web}
    reserved = {option: _reserve(address) for option, address in asked.items() if address is not None}
    addresses = {
        option: join_address(split_address(asked[option] or "")[0], port.getsockname()[1])
        for option, port in reserved.items()
    }
    real = replace(
        settings,
        listen=addresses[LISTEN],
        operate_listen=addresses.get(OPERATE_LISTEN),
        web=addresses.get(WEB),
    )
    board = Board(make_board(settings.db))

    def lead(_: bool, say: Say) -> LeaderServer:
        if isinstance(real.db, LogUrl):
            return HostLeader(real, listening=listening.socket, board=board, say=say)
        return LeaderServer(real, listening=listening.socket, board=board)

    def work(number: int, beside: bool, _: Say) -> WorkerServer:
        listening.socket.close()  # the leader's
        return WorkerServer(real, number=number, board=board, beside=beside)

    workers = [Role(worker_name(number), partial(work, number)) for number in range(1, settings.workers + 1)]
    try:
        return Supervisor(
            [Role(LEADER, lead), *workers],
            grace=settings.grace,
            leave=MORE_THAN_AGE * settings.max_age + LAST_CONNECTION,
            hung_after=settings.hung_after,
            on_serving=lambda: on_serving(addresses),
            on_renewal=board.tell_renewal,
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
        raise AddressInUse(f"cannot listen on {address}, by several processes: {error}") from error
    return reserved


def _bind(one: socket.socket, host: str, where: tuple[object, ...]) -> None:
    if one.family == socket.AF_INET6 and host == "::":
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    one.bind(where)
