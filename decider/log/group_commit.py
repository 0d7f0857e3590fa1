"""Group commit: threads share commits in `GroupCommit`, the calls of one thread in `CommitExecutor`.

grpcio's server is fastest with one or two threads, but a thread that waits for its commit serves no other call: few
threads alone make small, expensive commits. So every call runs in a greenlet. Where it appends to the log it yields,
its thread starts the next call, and when no call is left (or enough wait) one commit serves them all; so do looked up
decisions. Handlers stay
plain blocking code. Called by the logs that write files, and by `worker.py`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from greenlet import getcurrent, greenlet

from decider.experiment.attribution import MOST_CREDITED
from decider.log.protocol import (
    MOST_ROWS,
    Append,
    Awaited,
    Entry,
    Mark,
    NewDecision,
    NewSlate,
    NewUnitReward,
    NewUnitRewardChange,
    NewVersion,
    Serves,
)
from decider.types import Decision, Position

logger = logging.getLogger(__name__)

_BY_UNIT = (NewUnitReward, NewUnitRewardChange)

MOST_WAITING = 32
"""Most calls of one thread that share a commit; with more, all would only wait longer."""

E = TypeVar("E")
R = TypeVar("R")


class _Request(Generic[E, R]):
    __slots__ = ("entries", "error", "results")

    def __init__(self, entries: Sequence[E]) -> None:
        self.entries = entries
        self.results: list[R] | None = None
        self.error: BaseException | None = None


def _copy_error(error: BaseException) -> BaseException:
    """A copy for each thread: one object raised in several threads would collect all their tracebacks."""
    other = copy(error)
    other.__cause__ = error
    return other


class GroupCommit(Generic[E, R]):
    """`write` commits many entries together and returns a result for each; only one thread at a time is in it.

    >>> commit = GroupCommit(lambda entries: [entry * 2 for entry in entries])
    >>> commit([1, 2])
    [2, 4]
    """

    def __init__(self, write: Callable[[list[E]], list[R]]) -> None:
        self._write = write
        self._queue: deque[_Request[E, R]] = deque()
        self.lock = threading.Lock()

    def __call__(self, entries: Sequence[E]) -> list[R]:
        """The results, after the commit. Raises what `write` raised; then no entry of the group is written."""
        # Queue first, then the lock: whoever gets the lock commits everything that was queued while it waited, so the
        # others find their results there once they get it.
        mine: _Request[E, R] = _Request(entries)  # _Request[E, R](...) takes 5 us longer
        self._queue.append(mine)
        with self.lock:
            if mine.results is None and mine.error is None:
                self._commit_all()
        if mine.error is not None:
            raise _copy_error(mine.error)
        assert mine.results is not None
        return mine.results

    def alone(self, entries: Sequence[E]) -> list[R]:
        """In a commit of their own: where it fails, nobody else's does."""
        with self.lock:
            return self._write([*entries])

    def _commit_all(self) -> None:
        group: list[_Request[E, R]] = []
        while self._queue:
            group.append(self._queue.popleft())
        try:
            results = self._write([entry for waiting in group for entry in waiting.entries])
        except BaseException as error:
            for waiting in group:
                waiting.error = error
            return
        first = 0
        for waiting in group:
            waiting.results = results[first : first + len(waiting.entries)]
            first += len(waiting.entries)


def write_wanted(
    entries: Sequence[Entry],
    write: Callable[[list[Entry]], list[Mark | None]],
    *,
    is_overtaken: Callable[[Position], bool],
) -> list[Mark | None]:
    """Write all but the decisions whose callers have given up, or whose version serves no more; None for those, which
    the others do not notice. is_overtaken: whether another version has taken the place of the one at that position."""
    awaited = [entry for entry in entries if type(entry) is Awaited]
    if not awaited:
        return write(list(entries))
    # Each caller once: half of a batch must not be written because its deadline passed between two looks.
    now = time.monotonic()
    gone = {one for one in {entry.caller for entry in awaited} if now >= one.deadline or not one.is_there()}
    old = {one for one in {_version_of(entry.decision) for entry in awaited} if is_overtaken(one)}
    if len(awaited) == len(entries) and not (gone or old):
        return write([entry.decision for entry in awaited])
    # A pause in the same commit comes behind what was decided before anybody could know of it.
    ahead = [place for place, entry in enumerate(entries) if not isinstance(entry, (NewVersion, Serves))]
    order = [*ahead, *sorted({*range(len(entries))}.difference(ahead))]
    unwanted = {
        place for place in order
        if type(entry := entries[place]) is Awaited and (entry.caller in gone or _version_of(entry.decision) in old)
    }  # fmt: skip
    wanted = [place for place in order if place not in unwanted]
    marks = write([entry.decision if type(entry := entries[place]) is Awaited else entry for place in wanted])
    known = dict(zip(wanted, marks, strict=True))
    return [known.get(place) for place in range(len(entries))]


def _version_of(new: NewDecision) -> Position:
    """Of all decisions of a slate, too, which one version has made."""
    while not isinstance(new, Decision):
        new = new.decisions[0] if isinstance(new, NewSlate) else new.decision
    return new.version


_Work = Callable[[Sequence[Any]], Sequence[Any]]
"""Gives a result for each item; costs less for many items at once."""

_Waiting = tuple[greenlet, tuple[_Work, Sequence[Any]]]
"""A call, and the work that it waits for, with its items."""


class Call:
    """A call to run once, with callbacks for its end. Of a Future, which takes 5 us, it has what gRPC needs."""

    __slots__ = ("_args", "_callbacks", "_ended", "_fn")

    def __init__(self, fn: Callable[..., object], args: tuple[Any, ...]) -> None:
        self._fn, self._args = fn, args
        self._callbacks: list[Callable[[Call], object]] = []
        self._ended = False

    def __call__(self) -> None:
        try:
            self._fn(*self._args)
        except BaseException:
            logger.exception("a call failed outside its handler")
        finally:
            self.skip()

    @property
    def has_ended(self) -> bool:
        """Whether it has, or never begins."""
        return self._ended

    def skip(self) -> None:
        """The call has ended, or never begins."""
        self._ended = True
        self._run_callbacks()

    def add_done_callback(self, callback: Callable[[Call], object]) -> None:
        """Called when the call ends; immediately if it already has."""
        # Append before the look at `_ended`: whichever way the two threads interleave, one of them sees the callback.
        self._callbacks.append(callback)
        if self._ended:
            self._run_callbacks()

    def _run_callbacks(self) -> None:
        # Without a lock: `pop` is atomic, so each callback is run by exactly one thread.
        while self._callbacks:
            try:
                callback = self._callbacks.pop()
            except IndexError:
                return
            callback(self)


class Shared(Generic[E, R]):
    """Work that calls share; see `CommitExecutor.share`. is_alone: whether the call that asks has nobody to share with,
    and may as well do without."""

    def __init__(self, work: Callable[[Sequence[E]], list[R]], is_alone: Callable[[], bool]) -> None:
        self._work, self.is_alone = work, is_alone

    def __call__(self, items: Sequence[E]) -> list[R]:
        """A result for each item."""
        return self._work(items)


class CommitExecutor:
    """Runs calls in `threads` threads; the calls of a thread share commits through `append`, other work by `share`."""

    def __init__(self, append: Append, *, threads: int) -> None:
        self._append = append
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self._runners = _Runners()
        self._threads = [
            threading.Thread(target=self._serve, name=f"calls-{index}", daemon=True) for index in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def append(self, entries: Sequence[Entry]) -> list[Mark | None]:
        """As `EventLog.append`; while a call of this executor waits for the commit, others run."""
        return self._share(self._append, entries)

    def share(self, work: Callable[[Sequence[E]], list[R]]) -> Shared[E, R]:
        """The same work, which gives a result for each item, done at once for all calls of a thread that ask for it."""
        return Shared(partial(self._share, work), self.is_alone)

    def is_alone(self) -> bool:
        """Whether the call that asks has nobody to share work with: no other one waits in its thread, or for one."""
        return self._runners.busy <= 1 and self._calls.empty()

    def _share(self, work: Callable[[Sequence[E]], list[R]], items: Sequence[E]) -> list[R]:
        hub = getcurrent().parent
        if hub is None:
            return work(items)
        results: list[R] = hub.switch((work, items))
        return results

    def run(self, call: Call) -> None:
        """Run the call in one of the threads."""
        self._calls.put(call)

    def shutdown(self) -> None:
        """End the threads; queued calls still run."""
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        """The work of a thread: start calls until none is left, then do what they wait for, for all at once."""
        runners = self._runners
        while (call := self._calls.get()) is not None:
            waiting = self._start_more(runners.start(call), runners)
            del call  # while the thread waits for the next one, it must not keep this one's request
            while waiting:
                # Commits last: then those that look something up first are in the same commit.
                work = next((work for _, (work, _) in waiting if work != self._append), self._append)
                waiting = self._answer(work, waiting, runners)
                if waiting and work == self._append:  # others must not wait until the last piece of a batch is written
                    waiting = self._start_more(waiting, runners)

    def _start_more(self, waiting: list[_Waiting], runners: _Runners) -> list[_Waiting]:
        while len(waiting) < MOST_WAITING and (call := self._next()) is not None:
            waiting += runners.start(call)
        return waiting

    def _next(self) -> Call | None:
        """The next call; None if none is queued, or the executor ends."""
        try:
            call = self._calls.get_nowait()
        except Empty:
            return None
        if call is None:
            self._calls.put(None)  # back into the queue: `_serve` ends with it, once no call waits
        return call

    def _answer(self, work: _Work, waiting: list[_Waiting], runners: _Runners) -> list[_Waiting]:
        """Do one kind of work for all that wait for it. Returns those that wait afterwards."""
        these = [(runner, items) for runner, (kind, items) in waiting if kind == work]
        again = [one for one in waiting if one[1][0] != work]
        # Entries of one kind after each other: the log writes them with one statement. What writes much comes last, so
        # that only this waits where not all fit.
        these.sort(key=lambda one: _order(one[1]))
        if work == self._append:
            fit = _count_fitting([items for _, items in these])
            again += [(runner, (work, items)) for runner, items in these[fit:]]
            these = these[:fit]
        try:
            results = work([item for _, items in these for item in items])
        except Exception as error:
            for runner, _ in these:
                again += runners.still_waiting(runner, runner.throw(_copy_error(error)))
            return again
        first = 0
        for runner, items in these:
            again += runners.still_waiting(runner, runner.switch(results[first : first + len(items)]))
            first += len(items)
        return again


def _order(entries: Sequence[Any]) -> tuple[bool, str]:
    kind = type(entries[0]) if entries else object
    return kind in _BY_UNIT, kind.__name__


def _count_fitting(calls: Sequence[Sequence[Any]]) -> int:
    """How many of these calls, from the first on, share a commit: one more than writes less than MOST_ROWS entries."""
    rows = 0
    for count, entries in enumerate(calls):
        if rows >= MOST_ROWS:
            return count
        rows += sum([MOST_CREDITED if type(entry) in _BY_UNIT else 1 for entry in entries])
    return len(calls)


class _Runners(threading.local):
    """The greenlets of a thread: those that have no call wait for the next one. busy: how many have one."""

    def __init__(self) -> None:
        self._idle: list[greenlet] = []
        self.busy = 0

    def start(self, call: Call) -> list[_Waiting]:
        """Run the call until it waits for a commit, or ends."""
        runner = self._idle.pop() if self._idle else _new_runner()
        self.busy += 1
        return self.still_waiting(runner, runner.switch(call))

    def still_waiting(self, runner: greenlet, work: tuple[_Work, Sequence[Any]] | None) -> list[_Waiting]:
        """A call that yielded waits for that work; one that ended, None, waits for nothing."""
        if work is not None:
            return [(runner, work)]
        self.busy -= 1
        self._idle.append(runner)
        return []


def _new_runner() -> greenlet:
    """It waits for its first call; given with the first switch, it would be kept as long as the greenlet lives."""
    runner = greenlet(_run_calls)
    runner.switch()
    return runner


def _run_calls() -> None:
    """The life of a greenlet: it waits for a call and runs it, one after the other."""
    hub = getcurrent().parent
    assert hub is not None, "a thread's own greenlet runs none"
    while True:
        hub.switch(None)()  # without a name: while it waits, it must not keep the request of the last call
