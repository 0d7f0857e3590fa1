"""Sums over the draws of a log with pmfs, by action and by probability, in one pass. Called by `checks/draw.py`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from decider.estimate.sample import Floats, Longs
from decider.estimate.sample_ratio import SampleRatio
from simulator.evaluate.verdicts import MATERIAL
from simulator.logs.columns import Columns

BINS = 64
"""Of probabilities: two for every halving, down to 2 ** -31; bin 0 holds those that are 1."""


@dataclass(slots=True)
class Tally:
    """Sums over the draws. By action: chances (decisions that could draw it), weight (sum of 1{a}/p), spread
    (variance of that sum), heaviest (largest 1/p). bins: (3, BINS), expected counts, their variance, realised ones.
    disagreeing: decisions whose propensity is not that of their pmf, or whose pmf does not sum to 1.
    """

    chances: Longs
    weight: Floats
    spread: Floats
    heaviest: Floats
    bins: Floats
    ratio: SampleRatio
    disagreeing: int = 0

    @classmethod
    def empty(cls, actions: int) -> Tally:
        """Of no decisions."""
        weight, spread, heaviest = np.zeros((3, actions))
        chances, bins = np.zeros(actions, np.int64), np.zeros((3, BINS))
        return cls(chances, weight, spread, heaviest, bins, SampleRatio(actions + 1))

    @property
    def mean_weight(self) -> Floats:
        """(actions,): should be 1; nan where an action could never be drawn."""
        return divide(self.weight, self.chances)


def tally(columns: Columns) -> Tally:
    """One pass over a log with pmfs, in blocks.

    >>> from simulator.logs.example import example
    >>> tally(example()).mean_weight.round(2).tolist()
    [0.67, 1.0]
    """
    actions = len(columns.actions)
    totals = Tally.empty(actions)
    for _, block in columns.blocks():
        pmf, rows = block.dense_pmf(), np.arange(len(block))
        totals.disagreeing += _disagreeing(block, pmf)
        possible = pmf > 0
        inverse = np.divide(1.0, pmf, out=np.zeros_like(pmf), where=possible)
        drawn = np.bincount(block.action, minlength=actions)
        chances = possible.sum(axis=0)
        totals.chances += chances
        totals.weight += np.bincount(block.action, weights=inverse[rows, block.action], minlength=actions)
        totals.spread += inverse.sum(axis=0) - chances
        np.maximum(totals.heaviest, inverse.max(axis=0), out=totals.heaviest)
        totals.bins += _by_probability(pmf, pmf[rows, block.action])
        likeliest = pmf.argmax(axis=1)
        events = np.column_stack([pmf, pmf[rows, likeliest]])
        totals.ratio.add_many(events, np.append(drawn, np.count_nonzero(likeliest == block.action)))
    return totals


def _disagreeing(block: Columns, pmf: Floats) -> int:
    logged = pmf[np.arange(len(block)), block.action]
    wrong = np.abs(logged - block.propensity) > MATERIAL / 5 * block.propensity
    return int(np.count_nonzero(wrong | (np.abs(pmf @ np.ones(pmf.shape[1]) - 1.0) > MATERIAL / 5)))


def _by_probability(pmf: Floats, drawn: Floats) -> Floats:
    """(3, BINS): expected count, its variance (or more), realised count."""
    bins, flat = probability_bins(pmf).ravel(), pmf.ravel()
    expected = np.bincount(bins, weights=flat, minlength=BINS)
    squares = np.bincount(bins, weights=flat * flat, minlength=BINS)
    realised = np.bincount(probability_bins(drawn), minlength=BINS)
    return np.stack([expected, expected - squares, realised])


def probability_bins(pmf: Floats) -> NDArray[np.intp]:
    """The bin of each probability: 0 for 1, then [3/4, 1), [1/2, 3/4), [3/8, 1/2), [1/4, 3/8), ...

    >>> probability_bins(np.array([1.0, 0.75, 0.5, 0.4, 0.3, 0.2])).tolist()
    [0, 1, 2, 3, 4, 5]
    """
    fraction, exponent = np.frexp(pmf)
    return np.minimum(1 - 2 * exponent.astype(np.intp) + (fraction < 0.75), BINS - 1)


def bin_edges(one: int) -> tuple[float, float]:
    """From, and up to, which probability a bin goes.

    >>> bin_edges(1), bin_edges(4)
    ((0.75, 1.0), (0.25, 0.375))
    """
    top = 0.5 ** ((one - 1) // 2)
    return (0.75 * top, top) if one % 2 else (0.5 * top, 0.75 * top)


def divide(sums: Floats, counts: Longs) -> Floats:
    """Elementwise quotient; nan where the count is 0.

    >>> divide(np.array([1.0, 1.0]), np.array([2, 0])).tolist()
    [0.5, nan]
    """
    return np.asarray(np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0))
