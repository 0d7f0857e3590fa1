"""Blocking work for many callers at once: in one thread, shared. Called by the endpoints that read the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from starlette.exceptions import HTTPException

T = TypeVar("T")

MOST_WAITING = 32
"""Callers who wait; more get 503."""


class Turns:
    """Runs one piece of work at a time. Whoever asks for the same work while it runs shares its *next* run: no answer
    is older than the question, and many callers cost as much as two. most_waiting: callers; one more is refused."""

    def __init__(self, most_waiting: float = MOST_WAITING) -> None:
        self._most_waiting = most_waiting
        self._turn = asyncio.Lock()
        self._next: dict[Callable[[], Any], asyncio.Task[Any]] = {}
        self._waiting = 0

    async def run(self, work: Callable[[], T]) -> T:
        """What the work returns or raises. Raises HTTPException where too many wait."""
        if self._waiting >= self._most_waiting:
            raise HTTPException(503, "too many ask at once; try again later", {"Retry-After": "1"})
        self._waiting += 1
        try:
            task: asyncio.Task[T] = self._next.get(work) or self._begin(work)
            return await asyncio.shield(task)  # others may wait for it
        finally:
            self._waiting -= 1

    def _begin(self, work: Callable[[], T]) -> asyncio.Task[T]:
        task = self._next[work] = asyncio.create_task(self._run(work))
        return task

    async def _run(self, work: Callable[[], T]) -> T:
        async with self._turn:
            del self._next[work]
            # A limit of its own, so that it waits for no other work's thread.
            return await anyio.to_thread.run_sync(work, limiter=anyio.CapacityLimiter(1))
