"""Merges sorted streams and starts each as late as possible. Called by `reader.py`, with a stream for each version."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import heapify, heappop, heapreplace
from typing import Any, TypeVar

T = TypeVar("T")


def merge(streams: Iterable[tuple[Any, Iterator[T]]], *, key: Callable[[T], Any]) -> Iterator[T]:
    """All items in the order of their keys.

    streams: (bound, stream) each, the bound not above the stream's first key; the stream is not started before the
    merge reaches its bound.

    >>> def stream(*items):
    ...     print("begun:", items)
    ...     yield from items
    >>> for item in merge([(6, stream(6, 7)), (1, stream(1, 2)), (2, stream(3))], key=int):
    ...     print(item)
    begun: (1, 2)
    1
    2
    begun: (3,)
    3
    begun: (6, 7)
    6
    7
    """
    heap: list[tuple[Any, int, Iterator[T], T | None]] = [
        (bound, number, stream, None) for number, (bound, stream) in enumerate(streams)
    ]
    heapify(heap)
    while heap:
        _, number, stream, item = heap[0]
        if item is not None:
            yield item
        if len(heap) == 1:
            yield from stream
            return
        following = next(stream, None)
        if following is None:
            heappop(heap)
        else:
            heapreplace(heap, (key(following), number, stream, following))
