"""What is computed of a context once: visitors who are alike come with the same context. Called by the `with_*`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from decider.types import Context

T = TypeVar("T")

MOST = 100_000
"""Contexts that are kept; then it starts anew."""


class ContextCache(Generic[T]):
    """A function of a context whose values are kept by the context's identity.

    >>> lengths = ContextCache(len)
    >>> context = Context("vip")
    >>> lengths(context), lengths(context)
    (6, 6)
    """

    def __init__(self, function: Callable[[Context], T]) -> None:
        self._function = function
        self._kept: dict[int, tuple[Context, T]] = {}

    def __call__(self, context: Context) -> T:
        kept = self._kept.get(id(context))
        if kept is None:
            if len(self._kept) >= MOST:
                self._kept.clear()
            kept = self._kept[id(context)] = (context, self._function(context))
        return kept[1]
