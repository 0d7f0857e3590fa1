"""Replaces many points by few nodes with counts. Called by the intervals that solve equations over points.

An empirical likelihood is evaluated some fifty times, which is slow for a million decisions. Each point is split among
the corners of its grid cell, so that its mean does not change. The logarithm of a linear function of the point can only
become smaller by that (Jensen's inequality), so an interval becomes slightly wider and never narrower.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np

from decider.estimate.sample import Floats, Longs

CELLS = 16_384
"""About the largest number of nodes. Up to an eighth as many distinct points need no grid."""


@dataclass(frozen=True, slots=True)
class Nodes:
    """place: (nodes, dimensions). count: (blocks, nodes), the points of each block at each node."""

    place: Floats
    count: Floats


def gather(points: Floats, *, stops: Longs, cells: int = CELLS) -> Nodes:
    """Nodes for (n, dimensions) points in blocks: block i ends before row stops[i], where block i + 1 begins.

    >>> points = np.array([[1.0, 2.0], [0.0, 0.0], [1.0, 2.0]])
    >>> nodes = gather(points, stops=np.array([1, 3]))
    >>> nodes.place.tolist(), nodes.count.tolist()
    ([[0.0, 0.0], [1.0, 2.0]], [[0.0, 1.0], [1.0, 1.0]])
    """
    block = np.repeat(np.arange(len(stops)), np.diff(stops, prepend=0))
    exact = _distinct(points, block, len(stops), few=cells // 8) if len(points) <= 2 * cells else None
    return exact or _share_out(points, block, len(stops), cells)


def _distinct(points: Floats, block: Longs, blocks: int, *, few: int) -> Nodes | None:
    """Every distinct point; None where there are more than `few`."""
    order = np.lexsort(points.T[::-1])
    ranked = points[order]
    new = np.ones(len(points), np.bool_)
    new[1:] = (ranked[1:] != ranked[:-1]).any(axis=1)
    place = ranked[new]
    if len(place) > few:
        return None
    code = np.empty(len(points), np.int64)
    code[order] = np.cumsum(new) - 1
    count = np.bincount(block * len(place) + code, minlength=blocks * len(place))
    return Nodes(place, count.reshape(blocks, len(place)).astype(np.float64))


def _share_out(points: Floats, block: Longs, blocks: int, cells: int) -> Nodes:
    grid = Grid.of(points.min(axis=0), points.max(axis=0), cells=cells)
    return grid.nodes(grid.count(points, block, blocks))


@dataclass(frozen=True, slots=True)
class Grid:
    """The places of nodes for points within some bounds. Counts of several sets of points on one grid add up."""

    axes: tuple[_Axis, ...]

    @classmethod
    def of(cls, least: Floats, most: Floats, *, cells: int = CELLS) -> Grid:
        """About so many nodes; least, most: (dimensions,), of all points."""
        nodes = round(cells ** (1 / len(least)))
        return cls(tuple(_Axis.of(low, high, nodes) for low, high in zip(least.tolist(), most.tolist(), strict=True)))

    def count(self, points: Floats, block: Longs | None = None, blocks: int = 1) -> Floats:
        """(blocks, nodes): how many of the (n, dimensions) points each node stands for. block: (n,), where they are.

        >>> grid = Grid.of(np.zeros(1), np.ones(1), cells=2)
        >>> both = np.array([[0.0], [1.0]])
        >>> (grid.count(both[:1]) + grid.count(both[1:]) == grid.count(both)).all()
        np.True_
        """
        shape = [len(axis.place) for axis in self.axes]
        strides = np.cumprod([1, *shape[:0:-1]])[::-1].tolist()
        size = math.prod(shape)
        found = [axis.find(column) for axis, column in zip(self.axes, points.T, strict=True)]
        code = np.zeros(len(points), np.int64) if block is None else block * size
        code = code + sum(below * stride for (below, _), stride in zip(found, strides, strict=True))
        flat = np.zeros(blocks * size)
        for corner in product((0, 1), repeat=len(self.axes)):
            share = math.prod([above if up else 1 - above for (_, above), up in zip(found, corner, strict=True)])
            offset = sum(up * stride for up, stride in zip(corner, strides, strict=True))
            flat += np.bincount(code + offset, weights=share, minlength=len(flat))
        return flat.reshape(blocks, size)

    def nodes(self, count: Floats) -> Nodes:
        """Those that stand for a point. count: (blocks, nodes)."""
        used = count.any(axis=0)
        mesh = np.meshgrid(*[axis.place for axis in self.axes], indexing="ij")
        place = np.stack([one.reshape(-1) for one in mesh], axis=1)
        return Nodes(place[used], count[:, used])


@dataclass(frozen=True, slots=True)
class _Axis:
    """Nodes of one dimension. place: (nodes,), dense around 0, where most weights are: from there (or from the end that
    is nearest to it), the k-th of `steps` at (k / steps)^2 of the way to an end. down, up: how far the ends are.
    """

    place: Floats
    centre: float
    down: float
    up: float
    steps: int

    @classmethod
    def of(cls, least: float, most: float, nodes: int) -> _Axis:
        """About so many nodes for numbers in that range."""
        centre = min(max(0.0, least), most)
        down, up = centre - least, most - centre
        steps = max(2, nodes // 2 if down and up else nodes)
        squares = (np.arange(steps + 1) / steps) ** 2
        lower = (centre - down * squares)[:0:-1] if down else np.zeros(0)
        return cls(np.concatenate([lower, centre + (up or 1.0) * squares]), centre, down, up, steps)

    def find(self, column: Floats) -> tuple[Longs, Floats]:
        """(n,) each: the node at or below each number, never the last one; and the share of the next one."""
        steps, down, up = self.steps, self.down, self.up
        lower = steps if down else 0
        away = column - self.centre
        scale = steps**2 / (np.where(away < 0, -down, up or 1.0) if down else up or 1.0)
        square = np.minimum(away * scale, steps**2)
        k = np.minimum(np.sqrt(square).astype(np.int64), steps - 1)
        part = (square - k * k) / (2 * k + 1)
        below: Longs = lower + k
        if down:
            np.subtract(lower - 1, k, out=below, where=away < 0)
            np.subtract(1, part, out=part, where=away < 0)
        return below, part
