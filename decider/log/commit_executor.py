"""Calls that wait for a commit wait together, in few threads: the executor that runs gRPC handlers.

grpcio's server is fastest with one or two threads, but a thread that waits for its commit serves nobody, so with few
threads commits are small and dear. Here every call runs in a greenlet: where it appends to the log it steps aside, its
thread starts the next call, and when none is left (or enough wait) one commit serves them all. Handlers stay plain
blocking code. Called by `serve.py`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from queue import Empty, SimpleQueue
from typing import Any

from greenlet import getcurrent, greenlet

from decider.log.protocol import Append, Entry, Mark

logger = logging.getLogger(__name__)

MOST_WAITING = 32
"""Calls of one thread that wait for the same commit; more would only wait longer."""

_Waiting = tuple[greenlet, Sequence[Entry]]


class Call:
    """A call to run once, and who wants to know that it has ended."""

    __slots__ = ("_args", "_callbacks", "_ended", "_fn", "_kwargs")

    def __init__(self, fn: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._fn, self._args, self._kwargs = fn, args, kwargs
        self._callbacks: list[Callable[[Call], object]] = []
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
        self._idle = threading.Condition()
        self._running = 0
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
        call = Call(fn, args, kwargs)
        with self._idle:
            self._running += 1
        call.add_done_callback(self._ended)
        self._calls.put(call)
        return call

    def _ended(self, _: Call) -> None:
        with self._idle:
            self._running -= 1
            if not self._running:
                self._idle.notify_all()

    def wait_until_idle(self, seconds: float) -> None:
        """Until every call has ended, or that long."""
        with self._idle:
            self._idle.wait_for(lambda: self._running == 0, timeout=seconds)

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
            return [again for call, _ in waiting for again in _still_waiting(call, call.throw(error))]
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
