"""Lift: the mean reward of the units that the policy serves, less that of the holdout; valid at every look.

Called by the metrics with the log's totals, and by `simulator lift` with its columns: the same sums, the same figures.

What is added up. A unit belongs to one of `BUCKETS` buckets for good (`experiment/strata.py`). In each stratum (a time
in which the share of the holdout stays the same), group and bucket: the number of decisions and the sum of their
rewards. Nothing grows with the number of units, and sums of two parts of a log are added. Buckets are unions of units,
so those of one group are independent of each other, however often their units come back.

The estimate is the mean over all decisions so far of what the policy has brought (its running mean, since a policy that
learns has no fixed one): the difference of the two groups' means within each stratum, weighted with the stratum's share
of the decisions. Pooling strata instead could give it any sign (Simpson's paradox).

The interval is an asymptotic confidence sequence with a normal mixture: Waudby-Smith, Arbour, Sinha, Kennedy and
Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences", 2021 (theorem 2.2, and theorem 2.5 for
running means). It is the usual one with a wider factor, and misses at any time with probability 1 - level, about. The
clock is the effective number of units. Rewards of one unit at several visits are positively correlated, so the process
crosses the boundary less often than Brownian motion in the same clock (Slepian's inequality). Where a unit is rewarded
once at most they are negatively correlated: that is not covered by the argument, only by `make lift`, which simulates
it. Asymptotics need some data: until the rewards of each group are spread over START clusters nothing is claimed.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from decider.estimate.mean import Interval
from decider.estimate.sample import Floats, Longs

POLICY, HOLDOUT = 0, 1
"""The groups, as indexes. Every unit that is not in the holdout is the policy's, whatever it got: so it was drawn."""

LEVEL = 0.95

START = 15.0
"""Effective clusters that each group needs: with fewer, some heavy rewards may have everything to say."""

STRATUM_START = 15.0
"""Effective units that each group needs in a stratum: with fewer, its variance cannot be told."""

SCALE = 100.0
"""Of the mixture, in effective units. Compared with that of one look the interval is narrowest with ten times as many:
1.5 times as wide; with a million of them it is 2.0 times as wide."""

BORROWED = 0.8
"""Of the other group's variance: the rest is how far two estimates of one variance may lie apart."""

ROUNDING = 1e-9
"""Of a residual, relative to what it is the difference of: a smaller one is none."""

CARRIERS = 2 * START
"""Buckets with a reward: with so many it is not that rewards are few."""

UNEQUAL = 4.0
"""Buckets with a reward for each effective cluster: with more, some units have nearly all of it."""

LARGEST = 1e150
"""Of a sum of rewards: the squares of larger ones are no floats."""

NumberT = TypeVar("NumberT")

Answer = Literal["yes", "no", "not yet", "too little"]
"""Does the policy earn more? `no`: it earns less. `too little`: there is no interval yet."""

UNKNOWN = Interval(math.nan, -math.inf, math.inf)


class GroupSums(NamedTuple):
    """Of one stratum. (2, buckets) each, by POLICY and HOLDOUT: decisions, and the sums of their rewards."""

    decisions: Floats
    rewards: Floats

    @classmethod
    def of(cls, decisions: Sequence[float], rewards: Sequence[float]) -> GroupSums:
        """From those of the policy's buckets, then of the holdout's."""
        return cls(np.array(decisions, np.float64).reshape(2, -1), np.array(rewards, np.float64).reshape(2, -1))

    def plus(self, more: GroupSums) -> GroupSums:
        """Of both parts of a log."""
        return GroupSums(self.decisions + more.decisions, self.rewards + more.rewards)


@dataclass(frozen=True, slots=True)
class Lift:
    """interval: of the lift in units of the reward; relative: the same as a share of the holdout's mean.

    Both unbounded as long as too little is known; the relative one also where the holdout's mean cannot be told from 0.
    policy, holdout: means of the groups, weighted as the lift is. decisions, units: of (policy, holdout), in the strata
    that count; units are effective ones. clusters: that carry the variance, of the poorer group. outweighed: some units
    have so much of the reward that all others say nothing beside them, see `outweighed`.
    """

    interval: Interval
    relative: Interval
    policy: float
    holdout: float
    decisions: tuple[int, int]
    units: tuple[float, float]
    clusters: float
    outweighed: bool = False

    @property
    def is_known(self) -> bool:
        """Whether there is enough for an interval."""
        return math.isfinite(self.interval.low)

    @property
    def answer(self) -> Answer:
        """Whether the policy earns more than the holdout.

        >>> LiftSums(512).lift().answer
        'too little'
        """
        if not self.is_known:
            return "too little"
        if self.interval.low > 0:
            return "yes"
        return "no" if self.interval.high < 0 else "not yet"

    @property
    def cost(self) -> float:
        """Of the holdout: what a decision loses on average because some units are in it; nan where nothing is known."""
        return self.cost_interval.value

    @property
    def cost_interval(self) -> Interval:
        """Of the cost. It holds whenever that of the lift does: the share of the decisions is known."""
        if not self.is_known:
            return UNKNOWN
        share = self.decisions[HOLDOUT] / sum(self.decisions)
        return Interval(*[share * one for one in (self.interval.value, self.interval.low, self.interval.high)])


class LiftSums:
    """Sums by stratum, of any number of decisions in any order. Mergeable with `+`.

    >>> rng = np.random.default_rng(1)
    >>> holdout = np.arange(20_000) % 10 == 0
    >>> reward = rng.random(20_000) < np.where(holdout, 0.1, 0.2)
    >>> sums = LiftSums(buckets=512)
    >>> sums.add_many(bucket=rng.integers(0, 512, 20_000), holdout=holdout, reward=reward.astype(float))
    >>> found = sums.lift()
    >>> [round(x, 3) for x in (found.interval.value, found.interval.low, found.interval.high, found.relative.low)]
    [0.103, 0.081, 0.126, 0.68]
    """

    def __init__(self, buckets: int) -> None:
        self.buckets = buckets
        self._strata: dict[Hashable, GroupSums] = {}

    def add(self, stratum: Hashable, sums: GroupSums) -> None:
        """More of a stratum, added up elsewhere."""
        known = self._strata.get(stratum)
        self._strata[stratum] = sums if known is None else known.plus(sums)

    def add_many(
        self,
        *,
        bucket: Longs,
        holdout: NDArray[np.bool_],
        reward: Floats,
        stratum: Longs | None = None,
    ) -> None:
        """(n,) each: n more decisions. stratum: None where there is one only, which is 0 then."""
        place = np.where(holdout, HOLDOUT, POLICY) * self.buckets + bucket
        strata = np.zeros(len(bucket), np.int64) if stratum is None else stratum
        for one in np.unique(strata):
            mine = strata == one
            self.add(int(one), GroupSums(self._by_place(place[mine]), self._by_place(place[mine], reward[mine])))

    def _by_place(self, place: Longs, weights: Floats | None = None) -> Floats:
        sums = np.bincount(place, weights=weights, minlength=2 * self.buckets)
        return sums.astype(np.float64).reshape(2, self.buckets)

    def __add__(self, other: LiftSums) -> LiftSums:
        """As if the decisions of the other had been added here."""
        both = LiftSums(self.buckets)
        for stratum, sums in (*self._strata.items(), *other._strata.items()):
            both.add(stratum, sums)
        return both

    @property
    def strata(self) -> Mapping[Hashable, GroupSums]:
        """By name."""
        return self._strata

    def lift(self, level: float = LEVEL) -> Lift:
        """The lift so far. level: that the interval covers it at every look; nearer to 1 where there are many rows."""
        return lift(self._strata, level)


@dataclass(frozen=True, slots=True)
class Compared:
    """Of both groups, over strata; (2,) each, by POLICY and HOLDOUT.

    mean: weighted as the lift is; variance: of it, with what only the other group has seen; clusters: that carry it;
    units: effective ones; decisions: in the strata that count. clocks: of how many units in one stratum a mean would
    have that variance; clock: of both groups, effective units. difference: variance of the lift where somebody in a
    bucket may be in both groups.
    """

    mean: Floats
    variance: Floats
    clusters: Floats
    units: Floats
    decisions: tuple[int, int]
    clocks: Floats
    difference: float

    @property
    def clock(self) -> float:
        """Of the difference."""
        return 1.0 / float((1.0 / self.clocks).sum())


def compare(strata: Mapping[Hashable, GroupSums]) -> Compared | None:
    """The groups in the strata in which both have STRATUM_START effective units; None: there is none."""
    used = [sums for sums in strata.values() if effective_units(sums.decisions).min() >= STRATUM_START]
    if not used or max(np.abs(sums.rewards).max() for sums in used) > LARGEST:
        return None
    units = np.array([effective_units(sums.decisions) for sums in used])
    sizes = np.array([sums.decisions.sum(axis=1) for sums in used])
    weights = sizes.sum(axis=1) / sizes.sum()
    mean, residual = _weighted(used, weights)
    # The two groups of a bucket have no unit in common, so each has a square of its own.
    filled = np.count_nonzero(sum(sums.decisions for sums in used), axis=1)
    unbiased = filled / np.maximum(filled - 1, 1)
    clocks = 1.0 / (weights[:, None] ** 2 / units).sum(axis=0)
    return Compared(
        mean=mean,
        variance=with_unseen(mean, (residual**2).sum(axis=1) * unbiased, clocks),
        clusters=effective_clusters(residual),
        units=units.sum(axis=0),
        decisions=_pair(sizes.sum(axis=0).astype(int).tolist()),
        clocks=clocks,
        difference=float(((residual[POLICY] - residual[HOLDOUT]) ** 2).sum() * unbiased.max()),
    )


def lift(strata: Mapping[Hashable, GroupSums], level: float = LEVEL) -> Lift:
    """The lift over strata of the same reward."""
    compared = compare(strata)
    if compared is None:
        return _nothing(strata)
    mean, variance = compared.mean, compared.variance
    clusters = float(compared.clusters.min())
    known = clusters >= START
    factor = boundary(compared.clock, level) if known else math.inf
    value = float(mean[POLICY] - mean[HOLDOUT])
    half = factor * math.sqrt(float(variance.sum())) if known else math.inf
    return Lift(
        interval=Interval(value, value - half, value + half),
        relative=_relative(mean, variance, factor) if known else UNKNOWN,
        policy=float(mean[POLICY]),
        holdout=float(mean[HOLDOUT]),
        decisions=compared.decisions,
        units=_pair(compared.units.tolist()),
        clusters=clusters,
        outweighed=not known and outweighed(strata),
    )


def interval_by_person(strata: Mapping[Hashable, GroupSums], level: float = LEVEL) -> Interval | None:
    """Of the lift, where buckets are unions of persons: units that are linked, in one group or in both. None: too
    little is known. `lift` is for units, which the groups are drawn by; it is too narrow where one purchase counts for
    several units of a person."""
    compared = compare(strata)
    if compared is None or compared.clusters.min() < START:
        return None
    value = float(compared.mean[POLICY] - compared.mean[HOLDOUT])
    half = boundary(compared.clock, level) * math.sqrt(compared.difference)
    return Interval(value, value - half, value + half)


def outweighed(strata: Mapping[Hashable, GroupSums]) -> bool:
    """Whether nothing can be told although enough units have a reward, since some have nearly all of it: as where one
    value was sent in another unit. It may take very long until the usual rewards outweigh that.

    >>> usual = GroupSums.of([10.0] * 200, [1.0] * 200)
    >>> odd = usual._replace(rewards=usual.rewards + np.eye(2, 100) * [[1e6], [0.0]])
    >>> outweighed({1: usual}), outweighed({1: odd})
    (False, True)
    """
    used = [sums for sums in strata.values() if effective_units(sums.decisions).min() >= STRATUM_START]
    if not used:
        return False
    if max(np.abs(sums.rewards).max() for sums in used) > LARGEST:
        return True
    made = sum(sums.decisions.sum(axis=1, keepdims=True) for sums in used)
    weights = np.array([sums.decisions.sum() for sums in used]) / float(made.sum())
    residual = _weighted(used, weights)[1] * made  # in units of the reward, so that the groups can be put together
    carriers = np.count_nonzero(sum(np.abs(sums.rewards) for sums in used))
    (clusters,) = effective_clusters(residual.reshape(1, -1))
    return bool(carriers >= CARRIERS and residual.any() and clusters < min(START, carriers / UNEQUAL))


def _weighted(used: Sequence[GroupSums], weights: Floats) -> tuple[Floats, Floats]:
    """(2,) means of the groups, and (2, buckets) what each bucket adds to their errors."""
    mean, residual = np.zeros(2), np.zeros_like(used[0].rewards)
    for weight, sums in zip(weights, used, strict=True):
        size = sums.decisions.sum(axis=1, keepdims=True)
        own = sums.rewards.sum(axis=1, keepdims=True) / size
        mean += weight * own[:, 0]
        residual += weight * residuals(sums.rewards, own * sums.decisions) / size
    return mean, residual


def with_unseen(mean: Floats, variance: Floats, clocks: Floats) -> Floats:
    """(2, ...) variances of the means, each at least what the other group's is by unit, as far as it earns as much.

    A small holdout has not seen the largest of heavy amounts yet: its mean and its variance are too low together, and
    the lift looks sure. Amounts of the policy's many units say how large they get. Where the policy earns twice as much
    because twice as many units buy, its variance by unit is twice as large, too: then nothing is added.
    """
    means = np.abs(mean)
    share = np.minimum(1.0, means / np.maximum(means[::-1], 1e-300))
    return np.maximum(variance, BORROWED * share * (variance * clocks)[::-1] / clocks)


def residuals(rewards: Floats, expected: Floats) -> Floats:
    """What is left of equal rewards is rounding, and no variance."""
    left = rewards - expected
    left[np.abs(left) < ROUNDING * (np.abs(rewards) + np.abs(expected))] = 0.0
    return left


def _nothing(strata: Mapping[Hashable, GroupSums]) -> Lift:
    decisions = sum((sums.decisions.sum(axis=1) for sums in strata.values()), np.zeros(2))
    units = sum((effective_units(sums.decisions) for sums in strata.values()), np.zeros(2))
    counts = _pair(decisions.astype(int).tolist()), _pair(units.tolist())
    return Lift(UNKNOWN, UNKNOWN, math.nan, math.nan, *counts, clusters=0.0, outweighed=outweighed(strata))


def _pair(values: Sequence[NumberT]) -> tuple[NumberT, NumberT]:
    return values[POLICY], values[HOLDOUT]


def level_of_each(rows: int, level: float = LEVEL) -> float:
    """Of each of so many intervals that hold together with `level` (Bonferroni).

    >>> level_of_each(1), round(level_of_each(5), 6)
    (0.95, 0.99)
    """
    return 1.0 - (1.0 - level) / rows if rows > 1 else level


def boundary(units: float, level: float = LEVEL) -> float:
    """Standard errors on each side, for an interval that holds at every look. units: effective ones so far.

    Of a Wiener process at time k, mixed over drifts: Robbins, Annals of Mathematical Statistics 1970, formula 17.

    >>> [round(boundary(units), 2) for units in (10, 100, 1_000, 10_000, 1_000_000)]
    [8.18, 3.66, 3.04, 3.27, 3.9]
    """
    k = units / SCALE
    return math.sqrt((1.0 + 1.0 / k) * math.log((1.0 + k) / (1.0 - level) ** 2))


def effective_units(decisions: Floats) -> Floats:
    """(2,) by group: the units with one visit each that would spread over the buckets as unevenly as these do.

    It is the number of units where each came once, and (sum v)^2 / sum v^2 for v visits each; about.

    >>> effective_units(np.array([[2.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])).tolist()
    [4.0, 0.0]
    """
    size = decisions.sum(axis=1)
    spread = ((decisions - decisions.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    return np.asarray(np.minimum(size, size**2 / np.maximum(spread, 1e-9)))


def effective_clusters(residual: Floats) -> Floats:
    """(2,) by group: how many clusters with an equal reward, among many without, would vary as these do; 0 where
    nothing varies.

    residual: (2, clusters), rewards less what their decisions earn on average; the sum of each row is 0. It looks at
    how rewards vary alone: neither their sign nor a default that everybody gets matters. Of two measures the larger
    one: fourth moments are too strict for heavy tails, first moments for light ones.

    >>> rewards = np.zeros((2, 100)); rewards[0, :10] = 5.0; rewards[1, 0] = 3.0
    >>> effective_clusters(rewards - rewards.mean(axis=1, keepdims=True)).round(2).tolist()
    [12.33, 1.02]
    """
    largest = np.abs(residual).max(axis=1, keepdims=True)
    share = np.abs(residual) / np.where(largest > 0, largest, 1.0)  # so that nothing overflows
    first, second, fourth = (np.maximum((share**power).sum(axis=1), 1e-9) for power in (1, 2, 4))
    return np.asarray(np.where(largest[:, 0] > 0, np.maximum(second**2 / fourth, first**2 / second / 8.0), 0.0))


def _relative(mean: Floats, variance: Floats, factor: float) -> Interval:
    """Fieller's set: each ratio of the means that the same sequence does not exclude.

    Fieller, Journal of the Royal Statistical Society B 1954. Unbounded where the holdout's mean could be 0.
    """
    (policy, holdout), (spread, base) = mean.tolist(), (factor**2 * variance).tolist()
    a = holdout**2 - base
    if holdout <= 0 or a <= 0:
        return UNKNOWN
    root = math.sqrt(max(0.0, base * policy**2 + spread * holdout**2 - base * spread))
    low, high = ((policy * holdout - root) / a, (policy * holdout + root) / a)
    return Interval(policy / holdout - 1.0, low - 1.0, high - 1.0)
