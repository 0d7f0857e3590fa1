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

from decider.log.group_commit import Call
from decider.server.intake import Run


class Returns:
    """Of one event loop, in which all but `_do` runs."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ended: deque[tuple[asyncio.Future[bytes], bytes, Exception | None, Callable[[], object]]] = deque()
        self._woken = False

    def start(
        self, future: asyncio.Future[bytes], work: Callable[[], bytes], run: Run, late: Callable[[], object]
    ) -> None:
        """Let `run` do the work; the future gets its result, or its error. late: called once the work has ended, where
        nobody waits for the future any more."""
        run(Call(self._do, (future, work, late)))

    def _do(self, future: asyncio.Future[bytes], work: Callable[[], bytes], late: Callable[[], object]) -> None:
        try:
            self._ended.append((future, work(), None, late))
        except Exception as error:
            self._ended.append((future, b"", error, late))
        # Append before the look at `_woken`: the loop clears it before it empties the queue.
        if not self._woken:
            self._woken = True
            with suppress(RuntimeError):  # the loop has ended, and with it everybody who waits
                self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self._woken = False
        while self._ended:
            future, result, error, late = self._ended.popleft()
            if future.done():
                late()
            elif error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
