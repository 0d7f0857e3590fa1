"""Gives work to the threads of calls and brings its result back to the event loop. Called by what answers in `web/`.

Handlers are plain blocking code that shares commits (`log/group_commit.py`), so they run where those of gRPC run. The
results of one commit come back together: one wake of the loop for all of them.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from decider.errors import DeadlineExceeded
from decider.log.group_commit import Call, CommitExecutor
from decider.log.protocol import Caller
from decider.server.limits import Limit
from decider.server.rpc import Refused, to_status
from decider.server.web.exchange import Request

T = TypeVar("T")


class _Waiting(NamedTuple):
    """Who waits for a result, and who is told that the work has ended."""

    future: asyncio.Future[Any]
    ended: Callable[[], object]


_Ended = tuple[_Waiting, Any, BaseException | None]
"""With a result, or an error."""


class Calls:
    """For one event loop. executor: whose threads do the work. limit: of calls at once."""

    def __init__(self, executor: CommitExecutor, limit: Limit) -> None:
        self._executor, self._limit = executor, limit
        self._ended: deque[_Ended] = deque()
        self._woken = False

    def enter(self, request: Request, name: str) -> Callable[[], object]:
        """One more call of this caller. It counts until its work has ended, which the caller of this says by what is
        returned, and its reply has left: one that is not read stays in memory. Raises LimitReached."""
        self._limit.enter(name)
        both = [None]

        def leave() -> None:
            if both:
                both.pop()
            else:
                self._limit.leave(name)

        request.after(leave)
        return leave

    async def run(self, work: Callable[[], T], caller: Caller, ended: Callable[[], object]) -> T:
        """What the work returns or raises, done in a thread of calls. ended: called in the loop when it has. Raises
        Refused where the caller's deadline passes first, whatever becomes of the work."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._executor.run(Call(self._do, (loop, _Waiting(future, ended), work)))
        late = loop.call_later(max(0.0, caller.deadline - time.monotonic()), _give_up, future)
        try:
            return await future
        finally:
            late.cancel()

    def _do(self, loop: asyncio.AbstractEventLoop, waiting: _Waiting, work: Callable[[], Any]) -> None:
        """In a thread of calls."""
        try:
            self._ended.append((waiting, work(), None))
        except Exception as error:
            self._ended.append((waiting, None, error))
        # Append before the look at `_woken`: the loop clears it before it empties the queue.
        if not self._woken:
            self._woken = True
            with suppress(RuntimeError):  # the loop has ended, and with it everybody who waits
                loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        """In the loop."""
        self._woken = False
        while self._ended:
            (future, ended), result, error = self._ended.popleft()
            ended()
            if future.done():  # nobody waits any more
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)


def _give_up(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(Refused(to_status(DeadlineExceeded("the deadline passed before the answer was there"))))
