"""Runs the work of calls in other threads and brings the results back to the event loop, many with one wake. Called by
`app.py`.

As `web/calls.py`, for callers that say themselves that they have gone: h2corn cancels the task of a call then, and no
call needs a timer or a watch, which would cost as much as the rest.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from google.protobuf.message import Message

from decider.log.group_commit import Call
from decider.server.intake import Run


class Work(NamedTuple):
    """future: gets the reply, or the error. answer: makes the reply of these arguments. late: called once the work has
    ended, where nobody waits for the future any more."""

    future: asyncio.Future[bytes]
    answer: Callable[..., Message]
    arguments: tuple[Any, ...]
    late: Callable[[], object]


class Returns:
    """Of one event loop, in which all but `_do` runs."""

    def __init__(self) -> None:
        self._ended: deque[tuple[Work, bytes, Exception | None]] = deque()
        self._woken = False

    def start(self, work: Work, run: Run) -> None:
        """Let `run` do it."""
        run(Call(self._do, (work,)))

    def _do(self, work: Work) -> None:
        try:
            self._ended.append((work, work.answer(*work.arguments).SerializeToString(), None))
        except Exception as error:
            self._ended.append((work, b"", error))
        # Append before the look at `_woken`: the loop clears it before it empties the queue.
        if not self._woken:
            self._woken = True
            with suppress(RuntimeError):  # the loop has ended, and with it everybody who waits
                work.future.get_loop().call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self._woken = False
        while self._ended:
            work, reply, error = self._ended.popleft()
            if work.future.done():
                work.late()
            elif error is None:
                work.future.set_result(reply)
            else:
                work.future.set_exception(error)
