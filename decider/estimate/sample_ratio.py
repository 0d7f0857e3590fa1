"""Tests whether the drawn actions follow the logged probabilities: an e-process, and tests for logs without pmfs.

A chi-square test of drawn counts (a sample-ratio test) must not be looked at twice, and does not know that
propensities change with the context and the model. An e-process does both: it is the wealth of somebody who bets
against the log, fairly at every decision, so that it reaches x with probability at most 1/x, however often one looks
(Ville 1939; Ramdas, Grunwald, Vovk and Shafer, Statistical Science 2023). Pure; called by the simulator's diagnostics.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from decider.estimate.sample import Floats, Longs

TILTS = np.array([-0.7, -0.3, -0.1, 0.1, 0.3, 1.0])
"""An event's odds are bet to be (1 + tilt) times the logged ones; 0.1 gains from skews of 5 % on."""

BETS = np.array([0.5, 0.125, 0.03, 0.008, 0.002])
"""Shares of the wealth that are bet on the next weight being above 1: large for small weights, small for large."""

_ROWS = 512
"""Factors multiplied before a logarithm is taken: between 0.3 ** 512 and 2 ** 512, floats hold the product."""


@dataclass(frozen=True, slots=True)
class Skew:
    """The event with the most evidence against the log: its index, and its count over the expected one."""

    event: int
    ratio: float


class SampleRatio:
    """Evidence that events do not happen with their logged probabilities. Mergeable with `+`.

    Events are what can happen at a decision: "action a is drawn", "the most probable action is drawn". Each is bet on
    with every tilt, the wealth shared evenly at the start: at a decision where it has probability p, a bet is
    multiplied by (1 + tilt) / (1 + tilt p) if it happens, and by 1 / (1 + tilt p) if not, which has mean 1.
    Valid for adaptive logs too: p may depend on all that was before.

    >>> ratio = SampleRatio(events=2)
    >>> ratio.add_many(np.full((1000, 2), 0.5), happened=np.array([500, 500])); ratio.value < 1
    True
    >>> ratio.add_many(np.full((1000, 2), 0.5), happened=np.array([700, 300])); ratio.value > 1e6
    True
    >>> ratio.skew
    Skew(event=1, ratio=0.8)
    """

    __slots__ = ("_expected", "_happened", "_log_wealth", "log_highest")

    def __init__(self, events: int) -> None:
        self._log_wealth = np.zeros((len(TILTS), events))
        self._expected = np.zeros(events)
        self._happened = np.zeros(events)
        self.log_highest = 0.0

    def add_many(self, probability: Floats, happened: Longs) -> None:
        """(n, events) probabilities in [0, 1] of n more decisions, and (events,) how often each event happened."""
        if not len(probability):
            return
        starts = np.arange(0, len(probability), _ROWS)
        for wealth, tilt in zip(self._log_wealth, TILTS, strict=True):
            stakes = np.multiply.reduceat(1.0 + tilt * probability, starts, axis=0)
            wealth += happened * np.log1p(tilt) - np.log(stakes).sum(axis=0)
        self._expected += probability.sum(axis=0)
        self._happened += happened
        self.log_highest = max(self.log_highest, self.log_value)

    def __add__(self, other: SampleRatio) -> SampleRatio:
        """As if the decisions of the other had followed, in one look."""
        both = SampleRatio(len(self._expected))
        both._log_wealth = self._log_wealth + other._log_wealth
        both._expected = self._expected + other._expected
        both._happened = self._happened + other._happened
        both.log_highest = max(self.log_highest, both.log_value)
        return both

    @property
    def log_value(self) -> float:
        """Natural logarithm of the wealth now; it began at 0."""
        return float(np.logaddexp.reduce(self._log_wealth, axis=None) - np.log(self._log_wealth.size))

    @property
    def value(self) -> float:
        """The wealth now, as far as a float can hold it."""
        return float(_exp(np.array(self.log_value)))

    @property
    def highest(self) -> float:
        """The highest wealth at any look: x or more with probability at most 1/x where the log is right."""
        return float(_exp(np.array(self.log_highest)))

    @property
    def skew(self) -> Skew:
        """The event whose bets won most."""
        event = int(self._log_wealth.max(axis=0).argmax())
        expected = float(self._expected[event])
        return Skew(event, float(self._happened[event]) / expected if expected else 1.0)


def weight_evidence(weights: Floats, groups: Longs, chances: Longs) -> Floats:
    """(groups,) evidence that numbers >= 0 that should have a mean of at most 1 have a larger one.

    weights: (n,) those that are not 0, groups: (n,) whose they are, chances: (groups,) how many numbers each group
    had, those that are 0 with them. For logs without pmfs: of 1{a}/propensity, one number for each decision, the mean
    is at most 1 whatever the pmfs were. A bet of share s multiplies by 1 + s (weight - 1): Waudby-Smith and Ramdas,
    JRSSB 2024. Only upwards: downwards needs to know how large a weight could have been.

    >>> evidence = weight_evidence(np.full(60, 4.0), np.array([0] * 25 + [1] * 35), chances=np.array([100, 100]))
    >>> evidence.round(3).tolist()
    [0.599, 3.408]
    """
    log_wealth = np.empty((len(BETS), len(chances)))
    blanks = chances - np.bincount(groups, minlength=len(chances))
    for row, bet in zip(log_wealth, BETS, strict=True):
        row[:] = np.bincount(groups, weights=np.log1p(bet * (weights - 1.0)), minlength=len(chances))
        row += blanks * np.log1p(-bet)
    return _exp(np.logaddexp.reduce(log_wealth, axis=0) - np.log(len(BETS)))


def freedman(excess: Floats, *, variance: Floats, largest: Floats) -> Floats:
    """Bound on the probability that a sum of fair increments is as far from 0 as `excess`, on either side. Elementwise.

    variance: of the sum, added up from the increments' own; largest: what one increment can be at most. It holds for
    rare events and adaptive logs, where the normal approximation does not. Freedman's inequality as in Tropp,
    Electronic Communications in Probability 2011, theorem 1.1, for both sides.

    >>> freedman(np.array([0.0, 30.0]), variance=np.array([25.0, 25.0]), largest=np.ones(2)).round(8).tolist()
    [1.0, 5.21e-06]
    """
    distance = np.abs(excess)
    scale = 2.0 * (variance + largest * distance / 3.0)
    exponent = np.divide(distance**2, scale, out=np.zeros_like(distance), where=scale > 0)
    return np.asarray(np.minimum(1.0, 2.0 * np.exp(-exponent)))


def _exp(logarithm: Floats) -> Floats:
    """As far as floats can hold it."""
    return np.asarray(np.exp(np.minimum(logarithm, 700.0)))
