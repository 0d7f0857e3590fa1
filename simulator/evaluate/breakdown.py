"""A breakdown of an estimate: weights, shares of actions, segments of the context. Called by `run.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from decider.estimate.sample import Units
from decider.text import figure
from simulator.evaluate.result import ActionShare, Histogram
from simulator.evaluate.scores import Scores
from simulator.logs.columns import Category, Columns, Flags, Floats, Longs, Number

BINS = 30
MOST_VALUES = 8
"""Segments of a field at most: its most frequent values."""

POINTS = 40
"""At which the cumulative estimate is computed."""

FIRST = 30
"""Decisions before its first point."""


def weight_histogram(weight: Floats) -> Histogram | None:
    """Weights in bins that grow by a factor; the first bin begins at 0. None where there are none.

    >>> weight_histogram(np.array([0.0, 1.0, 1.0])).counts[0]
    1
    """
    if not len(weight) or np.isnan(weight).any():
        return None
    positive = weight[weight > 0]
    if not len(positive):
        return Histogram((0.0, 1.0), (len(weight),))
    low, high = float(positive.min()), float(positive.max())
    edges = np.unique(np.geomspace(low, max(high, low * 1.01), BINS + 1))
    inner = np.bincount(np.clip(np.searchsorted(edges, positive, side="right") - 1, 0, BINS - 1), minlength=BINS)
    zeros = len(weight) - len(positive)
    return Histogram((0.0, *edges.tolist()), (zeros, *inner.tolist()))


def action_shares(scores: Scores) -> tuple[ActionShare, ...]:
    """Mean probability of every action, logged and of the candidate; the logged share counts draws without pmfs."""
    known = np.nan_to_num(scores.shares)
    rows = zip(scores.columns.actions, scores.logged_shares.tolist(), known.tolist(), strict=True)
    return tuple(ActionShare(action, logged, candidate) for action, logged, candidate in rows)


def checkpoints(decisions: int) -> tuple[int, ...]:
    """Numbers of decisions at which the cumulative estimate is computed: dense at first, the last one is all.

    >>> checkpoints(100)[-1], checkpoints(10)
    (100, (10,))
    """
    if decisions <= FIRST:
        return (decisions,) if decisions else ()
    spaced = np.unique(np.geomspace(FIRST, decisions, POINTS).round().astype(int))
    return tuple(spaced.tolist())


class SegmentRows(NamedTuple):
    """The decisions with one value of a field: their indexes, rising, and which of them are of the same unit."""

    field: str
    value: str
    rows: Longs
    units: Units


def split_by_field(columns: Columns) -> Iterator[SegmentRows]:
    """The frequent values of each field of texts, thirds of each field of numbers."""
    for name, field in columns.fields.items():
        for value, flags in _values(field):
            rows = np.flatnonzero(flags)
            if len(rows):
                yield SegmentRows(name, value, rows, columns.units.part(rows))


def _values(field: Category | Number) -> Iterator[tuple[str, Flags]]:
    if isinstance(field, Category):
        counts = np.bincount(field.codes[field.codes >= 0], minlength=len(field.values))
        for code in np.argsort(-counts, kind="stable")[:MOST_VALUES].tolist():
            yield field.values[code], field.codes == code
        return
    known = field.values[~np.isnan(field.values)]
    if len(known):
        first, second = np.quantile(known, [1 / 3, 2 / 3])
        yield f"up to {figure(first)}", field.values <= first
        yield f"up to {figure(second)}", (field.values > first) & (field.values <= second)
        yield f"above {figure(second)}", field.values > second
