"""Group commit: whoever holds the lock commits for all who wait. Called by `sqlite.py`."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

E = TypeVar("E")
R = TypeVar("R")


class _Waiting(Generic[E, R]):
    __slots__ = ("entries", "error", "results")

    def __init__(self, entries: Sequence[E]) -> None:
        self.entries = entries
        self.results: list[R] | None = None
        self.error: BaseException | None = None


class GroupCommit(Generic[E, R]):
    """`write` takes many entries, commits them together and gives a result for each; it is never called twice at once.

    >>> commit = GroupCommit(lambda entries: [entry * 2 for entry in entries])
    >>> commit([1, 2])
    [2, 4]
    """

    def __init__(self, write: Callable[[list[E]], list[R]]) -> None:
        self._write = write
        self._queue: deque[_Waiting[E, R]] = deque()
        self.lock = threading.Lock()

    def __call__(self, entries: Sequence[E]) -> list[R]:
        """The results, after the commit. Raises what `write` raised: then none of the group is written."""
        mine: _Waiting[E, R] = _Waiting(entries)  # _Waiting[E, R](...) takes 5 us longer
        self._queue.append(mine)
        with self.lock:
            if mine.results is None and mine.error is None:
                self._commit_all()
        if mine.error is not None:
            raise mine.error
        assert mine.results is not None
        return mine.results

    def _commit_all(self) -> None:
        group: list[_Waiting[E, R]] = []
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
