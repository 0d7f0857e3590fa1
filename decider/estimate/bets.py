"""Betting on the value of a log: one gambler bets that it is above m, the other that it is below.

Called by the confidence sequence. At each decision a bet multiplies its capital by 1 + slope (term - m) + tilt
(weight - 1). That is fair if the value is m, however the log came about. A gambler splits the capital among bets for
several horizons: the bet for horizon h grows fastest on the past decisions if the value is the one that h decisions
like them just exclude (`likelihood.extremes` finds both). Bets are renewed whenever the log has doubled.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from decider.estimate.likelihood import balance, extremes
from decider.estimate.nodes import gather
from decider.estimate.possible import Pairs, Range, UnitSizes, corners, weights_of
from decider.estimate.sample import Floats, Longs, Sample

HORIZONS = np.array([1e2, 1e3, 1e4, 1e5, 1e6])
SHARES = np.array([0.1, 0.1, 0.6, 0.1, 0.1])
"""Shares of the capital, by horizon. The largest is for the horizon at which the sequence is to be narrowest."""

FIRST_RENEWAL = 32
"""Units until bets are first renewed."""

MAX_LOSS = 0.95
"""The share of a bet's capital that one unit can cost at most."""

BEFORE = 0.25
"""Weight of each extreme pair among the past decisions: before the first decision there is nothing else to bet on."""

TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, slots=True)
class BetLog:
    """A log to bet on. total, weight, size: (units,). limits: of the value; extreme: of a decision.

    extreme: pairs of (4, 1), or of (4, units) where it differs by unit, in the order of `corners`.
    """

    total: Floats
    weight: Floats
    size: Floats
    limits: Range
    extreme: Pairs

    @classmethod
    def of(cls, sample: Sample, limits: Range, max_weights: Floats | None = None) -> BetLog:
        """max_weights: (units,), the largest weight that a decision of each unit could have; see the path."""
        most = corners(sample, limits)
        weight, term = most.weight[:, None], most.term[:, None]
        if max_weights is not None and sample.max_weight > 1:
            part = (max_weights - sample.min_weight) / (sample.max_weight - sample.min_weight)
            weight, term = (
                np.concatenate([np.broadcast_to(x[:2], (2, len(part))), x[:2] + (x[2:] - x[:2]) * part])
                for x in (weight, term)
            )
        return cls(sample.total, weights_of(sample), sample.size, limits, Pairs(weight, term))

    def extreme_before(self, unit: int) -> Pairs:
        """The pairs that were possible at the unit and at those before it."""
        column = int(np.argmax(self.extreme.weight[2, : unit + 1]))
        return Pairs(self.extreme.weight[:, column], self.extreme.term[:, column])


@dataclass(frozen=True, slots=True)
class Bets:
    """slope, tilt: (2 x horizons,), first of the gambler on a value above m, then of the other one."""

    slope: Floats
    tilt: Floats


def bet_schedule(log: BetLog, level: float) -> Iterator[tuple[slice, Bets]]:
    """Slices of units with their bets, which depend only on earlier units (and on the units' sizes).

    >>> ones = np.ones(100)
    >>> log = BetLog.of(Sample(ones, ones, ones, low=0.0, high=1.0, max_weight=1.0), (0.0, 1.0))
    >>> [(rows.start, rows.stop, round(float(bets.slope[0]), 2)) for rows, bets in bet_schedule(log, 0.95)]
    [(0, 32, 0.76), (32, 64, 0.94), (64, 100, 0.99)]
    """
    units = len(log.total)
    doublings = max(0, math.ceil(math.log2(units / FIRST_RENEWAL))) if units else -1
    shape = UnitSizes.of(log.size)
    seen: list[_PastUnits] = []
    start = 0
    # Bets are chosen before their units are seen: else the capital would not be a martingale, and Ville's inequality
    # would not hold.
    for end in np.minimum(FIRST_RENEWAL * 2 ** np.arange(doublings + 1), units).tolist():
        past = _PastUnits.join(seen)
        value = past.value(log.limits)
        pairs = shape.as_decisions(total=past.total, weight=past.weight, size=past.size, value=value)
        bets = _fastest(pairs, past.count, shape.enlarge(log.extreme_before(start), value), level)
        yield slice(start, end), Bets(bets.slope / shape.mean, bets.tilt / shape.mean)
        seen.append(_PastUnits.of(log, slice(start, end)))
        start = end


@dataclass(frozen=True, slots=True)
class _PastUnits:
    """Past units as nodes, (nodes,) each: the sums of a unit, and the number of such units."""

    total: Floats
    weight: Floats
    size: Floats
    count: Floats

    @classmethod
    def of(cls, log: BetLog, rows: slice) -> _PastUnits:
        """The units of some rows."""
        units = rows.stop - rows.start
        sums = np.stack([log.total[rows], log.weight[rows], log.size[rows]], axis=1)
        varied = 3 if (log.size[rows] != 1).any() else 2
        nodes = gather(sums[:, :varied], stops=np.array([units]), cells=2048)
        size = nodes.place[:, 2] if varied == 3 else np.ones(len(nodes.place))
        return cls(nodes.place[:, 0], nodes.place[:, 1], size, nodes.count[0])

    @classmethod
    def join(cls, parts: list[_PastUnits]) -> _PastUnits:
        """All parts as one."""
        none = np.zeros(0)
        columns = [(none, none, none, none), *[(part.total, part.weight, part.size, part.count) for part in parts]]
        return cls(*[np.concatenate(column) for column in zip(*columns, strict=True)])

    def value(self, limits: Range) -> float:
        """The mean term of a decision, within the limits; without units the middle of the limits."""
        decisions = float(self.count @ self.size)
        return float(np.clip(self.count @ self.total / decisions, *limits)) if decisions else sum(limits) / 2


def _fastest(past: Pairs, seen: Floats, extreme: Pairs, level: float) -> Bets:
    weight, term = np.concatenate([extreme.weight, past.weight]), np.concatenate([extreme.term, past.term])
    there = np.concatenate([np.full(4, BEFORE), seen])
    used = there > 0
    _, count = balance(weight[used], there[None, used])
    growth = np.log(2 / (1 - level) / SHARES) / HORIZONS
    upward = np.repeat([-1.0, 1.0], len(HORIZONS))
    found = extremes(
        weight[used],
        term[used],
        np.repeat(count, len(upward), axis=0),
        upward=upward,
        drop=count.sum() * np.tile(growth, 2),
    )
    return Bets(found.slope, found.tilt)


@dataclass(frozen=True, slots=True)
class Gambler:
    """A gambler's bets as nodes: all of one horizon, then those of the next. gain, stake: (nodes,).

    A node multiplies the capital by 1 + gain - stake (slope m + tilt). count: (stops, nodes), how often until each
    stop. starts: the first node of each horizon.
    """

    gain: Floats
    stake: Floats
    slope: Floats
    tilt: Floats
    count: Floats
    starts: Longs

    def log_capital(self, m: float, stop: int) -> float:
        """The logarithm of the capital after the units until a stop, if the value is m; it starts at 0."""
        factor = 1 + self.gain - self.stake * (self.slope * m + self.tilt)
        grown = np.add.reduceat(self.count[stop] * np.log(np.maximum(factor, TINY)), self.starts)
        return float(np.logaddexp.reduce(grown + np.log(SHARES)))


def play(log: BetLog, stops: Longs, level: float) -> tuple[Gambler, Gambler]:
    """The gambler on a value above m and the one below, after the first `stops` units; the last stop is all of them.

    >>> ones = np.ones(100)
    >>> log = BetLog.of(Sample(ones, ones, ones, low=0.0, high=1.0, max_weight=1.0), (0.0, 1.0))
    >>> above, below = play(log, np.array([50, 100]), 0.95)
    >>> above.log_capital(0.5, 0) < above.log_capital(0.5, 1), below.log_capital(0.5, 1) < 0
    (True, True)
    """
    met: list[list[_BetNodes]] = [[] for _ in range(2 * len(HORIZONS))]
    for rows, bets in bet_schedule(log, level):
        until = np.clip(stops, rows.start, rows.stop) - rows.start
        for index, one in enumerate(met):
            one.append(_bet_nodes(log, rows, until, slope=float(bets.slope[index]), tilt=float(bets.tilt[index])))
    half = len(HORIZONS)
    return _gambler(met[:half]), _gambler(met[half:])


@dataclass(frozen=True, slots=True)
class _BetNodes:
    """One bet on some units, as nodes. gain, stake: (nodes,); count: (stops, nodes)."""

    gain: Floats
    stake: Floats
    slope: float
    tilt: float
    count: Floats


def _bet_nodes(log: BetLog, rows: slice, until: Longs, *, slope: float, tilt: float) -> _BetNodes:
    """One bet on some units. It is reduced so far that no unit and no m can cost more than MAX_LOSS of its capital."""
    extreme = log.extreme
    columns = rows if extreme.weight.shape[1] > 1 else slice(None)
    farthest = log.limits[1] if slope > 0 else log.limits[0]
    change = slope * (extreme.term[:, columns] - farthest) + tilt * (extreme.weight[:, columns] - 1)
    loss = np.maximum(-change.min(axis=0), TINY)
    size = log.size[rows] if (log.size[rows] != 1).any() else np.ones(1)
    cut = np.minimum(1, MAX_LOSS / (loss * size))
    stake = cut * size
    gain = slope * log.total[rows]
    gain += tilt * log.weight[rows]
    gain *= cut
    if (stake == stake[0]).all():
        nodes = gather(gain[:, None], stops=until, cells=256)
        return _BetNodes(
            nodes.place[:, 0], np.full(len(nodes.place), stake[0]), slope, tilt, nodes.count.cumsum(axis=0)
        )
    nodes = gather(np.stack([gain, stake], axis=1), stops=until, cells=4096)
    return _BetNodes(nodes.place[:, 0], nodes.place[:, 1], slope, tilt, nodes.count.cumsum(axis=0))


def _gambler(bets: list[list[_BetNodes]]) -> Gambler:
    met = [one for bet in bets for one in bet]
    nodes = [len(one.gain) for one in met]
    starts = np.cumsum([0, *[sum(len(one.gain) for one in bet) for bet in bets[:-1]]])
    return Gambler(
        gain=np.concatenate([one.gain for one in met]),
        stake=np.concatenate([one.stake for one in met]),
        slope=np.repeat([one.slope for one in met], nodes),
        tilt=np.repeat([one.tilt for one in met], nodes),
        count=np.concatenate([one.count for one in met], axis=1),
        starts=starts,
    )
