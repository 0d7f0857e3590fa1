"""Who waits for a commit waits together: threads in `GroupCommit`, the calls of one thread in `CommitExecutor`.

grpcio's server is fastest with one or two threads, but a thread that waits for its commit serves nobody, so with few
threads commits are small and dear. Here every call runs in a greenlet: where it appends to the log it steps aside, its
thread starts the next call, and when none is left (or enough wait) one commit serves them all. Handlers stay plain
blocking code. Called by the logs that write files, and by `serve.py`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from copy import copy
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from greenlet import getcurrent, greenlet

from decider.log.protocol import Append, Entry, Mark

logger = logging.getLogger(__name__)

MOST_WAITING = 32
"""Calls of one thread that wait for the same commit; more would only wait longer."""

LOOK_AGAIN = 0.01
"""Seconds between two looks at whether calls are still running."""

E = TypeVar("E")
R = TypeVar("R")


class _Request(Generic[E, R]):
    __slots__ = ("entries", "error", "results")

    def __init__(self, entries: Sequence[E]) -> None:
        self.entries = entries
        self.results: list[R] | None = None
        self.error: BaseException | None = None


def _one_more(error: BaseException) -> BaseException:
    """The same error as an object of its own: one that is raised in several threads collects all their tracebacks."""
    other = copy(error)
    other.__cause__ = error
    return other


class GroupCommit(Generic[E, R]):
    """`write` takes many entries, commits them together and gives a result for each; it is never called twice at once.

    >>> commit = GroupCommit(lambda entries: [entry * 2 for entry in entries])
    >>> commit([1, 2])
    [2, 4]
    """

    def __init__(self, write: Callable[[list[E]], list[R]]) -> None:
        self._write = write
        self._queue: deque[_Request[E, R]] = deque()
        self.lock = threading.Lock()

    def __call__(self, entries: Sequence[E]) -> list[R]:
        """The results, after the commit. Raises what `write` raised: then none of the group is written."""
        mine: _Request[E, R] = _Request(entries)  # _Request[E, R](...) takes 5 us longer
        self._queue.append(mine)
        with self.lock:
            if mine.results is None and mine.error is None:
                self._commit_all()
        if mine.error is not None:
            raise _one_more(mine.error)
        assert mine.results is not None
        return mine.results

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


_Waiting = tuple[greenlet, Sequence[Entry]]


class Call:
    """A call to run once, and who wants to know that it has ended."""

    __slots__ = ("_args", "_callbacks", "_ended", "_fn", "_kwargs")

    def __init__(
        self, fn: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any], ended: Callable[[Call], object]
    ) -> None:
        self._fn, self._args, self._kwargs = fn, args, kwargs
        self._callbacks = [ended]
        self._ended = False

    def __call__(self) -> None:
        try:
            self._fn(*self._args, **self._kwargs)
        except BaseException:
            logger.exception("a call failed outside its handler")
        finally:
            self._ended = True
            self._tell()

    def add_done_callback(self, callback: Callable[[Call], object]) -> None:
        """Told once the call has ended, at once if it has."""
        self._callbacks.append(callback)
        if self._ended:
            self._tell()

    def _tell(self) -> None:
        while self._callbacks:
            try:
                callback = self._callbacks.pop()  # whichever thread pops it tells it
            except IndexError:
                return
            callback(self)


class CommitExecutor(Executor):
    """Runs calls in `threads` threads; `append` lets those of a thread share commits."""

    def __init__(self, append: Append, *, threads: int) -> None:
        self._append = append
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self._running = 0
        self._counting = threading.Lock()
        self._threads = [
            threading.Thread(target=self._serve, name=f"calls-{index}", daemon=True) for index in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def append(self, entries: Sequence[Entry]) -> list[Mark | None]:
        """As `EventLog.append`; a call run by this executor lets others run until the commit."""
        hub = getcurrent().parent
        if hub is None:
            return self._append(entries)
        marks: list[Mark | None] = hub.switch(entries)
        return marks

    def submit(self, fn: Callable[..., object], /, *args: Any, **kwargs: Any) -> Call:  # type: ignore[override]
        """As Executor's, but of the future there is only what gRPC asks of it: a Future takes 5 us."""
        call = Call(fn, args, kwargs, self._ended)
        with self._counting:
            self._running += 1
        self._calls.put(call)
        return call

    def _ended(self, _: Call) -> None:
        with self._counting:
            self._running -= 1

    def wait_until_idle(self, seconds: float) -> None:
        """Until every call has ended, or that long."""
        end = time.monotonic() + seconds
        while (
            self._running and time.monotonic() < end
        ):  # asked once, at the end; a Condition would cost every call 5 us
            time.sleep(LOOK_AGAIN)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        """See Executor; calls that wait in the queue are still run."""
        for _ in self._threads:
            self._calls.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def _serve(self) -> None:
        """A thread's work: start calls until none is left, then commit for all that wait."""
        while (call := self._calls.get()) is not None:
            waiting = _started(call)
            while len(waiting) < MOST_WAITING and (call := self._next()) is not None:
                waiting += _started(call)
            while waiting:
                waiting = self._commit(waiting)

    def _next(self) -> Call | None:
        """The next call; None if there is none now, or none any more."""
        try:
            call = self._calls.get_nowait()
        except Empty:
            return None
        if call is None:
            self._calls.put(None)  # the end is for `_serve`, once nobody waits
        return call

    def _commit(self, waiting: list[_Waiting]) -> list[_Waiting]:
        """One commit for all; the calls that then wait for another."""
        try:
            marks = self._append([entry for _, entries in waiting for entry in entries])
        except Exception as error:
            return [again for call, _ in waiting for again in _still_waiting(call, call.throw(_one_more(error)))]
        again: list[_Waiting] = []
        first = 0
        for call, entries in waiting:
            again += _still_waiting(call, call.switch(marks[first : first + len(entries)]))
            first += len(entries)
        return again


def _still_waiting(call: greenlet, entries: Sequence[Entry]) -> list[_Waiting]:
    """A call that stepped aside waits for a commit of these entries; one that ended waits for nothing."""
    return [] if call.dead else [(call, entries)]


def _started(call: Call) -> list[_Waiting]:
    runner = greenlet(call)
    return _still_waiting(runner, runner.switch())
