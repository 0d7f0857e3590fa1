"""`make lift`: how often the lift's interval claims something where nothing is, on logs without any difference.

Somebody looks 30 times, or after every decision; units come back; rewards are rare, or heavy amounts; the season turns.
The code is that of the service (`decider/estimate/lift.py`), but for looks after every decision, which `paths` computes
for all of them at once; `tests/test_lift.py` holds the two against each other. Results: RESULTS.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from decider.estimate.lift import LEVEL, SCALE, START, STRATUM_START
from decider.estimate.sample import Floats, Longs
from decider.experiment.strata import BUCKETS

DECISIONS, LOOKS, SEGMENTS, PAUSE = 20_000, 30, 12, 200
WALD = 1.959964

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Scene:
    """One kind of log. visits: of a unit, on average. rate: share of rewarded visits. spread: of the logarithm of an
    amount; 0: every reward is 1. apart: how much units differ (of the logarithm of their rate). season: how much the
    rate goes up and down. once: a unit is rewarded once at most. shares: of the holdout, each for as long. gain: what
    the policy has learned at the end, as a share of the rate; it is learned as the log goes on."""

    name: str
    visits: int = 1
    rate: float = 0.1
    spread: float = 0.0
    apart: float = 0.0
    season: float = 0.0
    once: bool = False
    shares: tuple[float, ...] = (0.1,)
    gain: float = 0.0


NULL = (
    Scene("1 visit, 30 %", rate=0.3),
    Scene("1 visit, 10 %"),
    Scene("1 visit, 0.3 %", rate=0.003),
    Scene("8 visits, 10 %", visits=8, apart=1.0),
    Scene("50 visits, 10 %", visits=50, apart=1.0),
    Scene("50 visits, 0.3 %", visits=50, rate=0.003, apart=1.0),
    Scene("8 visits, buys once", visits=8, once=True),
    Scene("1 visit, amounts", rate=0.03, spread=1.2),
    Scene("8 visits, amounts", visits=8, spread=1.2, apart=0.5),
    Scene("1 visit, heavy amounts", spread=1.6),
    Scene("8 visits, season", visits=8, apart=0.5, season=0.8),
    Scene("holdout 2 %", shares=(0.02,)),
    Scene("holdout 50 %, amounts", rate=0.03, spread=1.2, shares=(0.5,)),
)
RAMPED = (
    Scene("ramp 50, 20, 5 %, season", visits=8, apart=0.5, season=0.8, shares=(0.5, 0.2, 0.05)),
    Scene("ramp 1, 10, 50 %, amounts", rate=0.1, spread=1.2, season=0.8, shares=(0.01, 0.1, 0.5)),
)
REAL = (
    Scene("learns +100 %, 1 visit", gain=1.0),
    Scene("learns +100 %, 8 visits", visits=8, apart=0.5, gain=1.0),
    Scene("learns +50 %, amounts", rate=0.05, spread=1.2, gain=0.5),
    Scene("learns +100 %, season", visits=8, apart=0.5, season=0.8, gain=1.0),
)


class Log(NamedTuple):
    """(n,) each, in the order of the log. more: what the policy brings at each decision, on average."""

    unit: Longs
    bucket: Longs
    stratum: Longs
    holdout: Flags
    reward: Floats
    more: Floats


class LiftPath(NamedTuple):
    """After every decision. error: the standard error; half: of the interval's width, infinite without a claim."""

    value: Floats
    error: Floats
    half: Floats

    def misses(self, truth: Floats) -> Flags:
        """Where the interval does not hold the truth."""
        return np.abs(self.value - truth) > self.half


def simulate(scene: Scene, seed: int, decisions: int = DECISIONS) -> Log:
    """One log of the scene."""
    rng = np.random.default_rng(seed)
    unit = _visits(rng, scene.visits, decisions)
    n, units = len(unit), int(unit.max()) + 1
    time = np.arange(n) / n
    stratum = np.minimum((time * len(scene.shares)).astype(np.int64), len(scene.shares) - 1)
    holdout = rng.random(units)[unit] < np.array(scene.shares)[stratum]
    luck = np.exp(scene.apart * rng.standard_normal(units) - scene.apart**2 / 2)[unit]
    base = np.minimum(scene.rate * luck * (1 + scene.season * np.sin(time * 6 * np.pi)), 0.45)
    learned = base * scene.gain * (1 - np.exp(-4 * time))
    reward = (rng.random(n) < base + np.where(holdout, 0.0, learned)).astype(np.float64)
    if scene.once:
        reward[before(unit, reward)[0] > 0] = 0.0
    if scene.spread:
        reward *= np.exp(scene.spread * rng.standard_normal(n))
    bucket = rng.integers(0, BUCKETS, units)[unit]
    return Log(unit, bucket, stratum, holdout, reward, learned * math.exp(scene.spread**2 / 2))


def _visits(rng: np.random.Generator, visits: int, decisions: int) -> Longs:
    """Units arrive one after the other, and come back within about a seventh of the log."""
    if visits == 1:
        return np.arange(decisions)
    count = rng.geometric(1 / visits, size=2 * decisions // visits)
    start = np.repeat(np.sort(rng.random(len(count))), count)
    unit = np.repeat(np.arange(len(count)), count)
    order = np.argsort(start + rng.exponential(0.15, len(start)))[:decisions]
    return np.asarray(np.unique(unit[order], return_inverse=True)[1])


def before(cluster: Longs, x: Floats) -> tuple[Floats, Floats]:
    """(n,) sums of a cluster's numbers before each decision, and with it."""
    order = np.argsort(cluster, kind="stable")
    sums = np.cumsum(x[order])
    ids = cluster[order]
    first = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]])
    base = np.repeat(np.r_[0.0, sums[first[1:] - 1]], np.diff(np.r_[first, len(ids)]))
    after = np.empty(len(x))
    after[order] = sums - base
    return after - x, after


def path(log: Log, cluster: Longs, *, buckets: int | None = None, level: float = LEVEL) -> LiftPath:
    """The lift after every decision of a log with one stratum. buckets: how many clusters there can be; None: any.

    Only whether there is enough to claim something is asked after every PAUSE decisions.
    """
    key = cluster * 2 + log.holdout
    s, n = before(key, log.reward), before(key, np.ones(len(key)))
    groups = [_group(log.reward, s, n, log.holdout == one, buckets) for one in (False, True)]
    units = np.minimum(groups[0].units, groups[1].units)
    known = (units >= STRATUM_START) & (_clusters(key, log.reward) >= START)
    clock = 1 / (1 / np.maximum(groups[0].units, 1e-9) + 1 / np.maximum(groups[1].units, 1e-9)) / SCALE
    factor = np.sqrt((1 + 1 / clock) * np.log((1 + clock) / (1 - level) ** 2))
    error = np.sqrt(groups[0].variance + groups[1].variance)
    return LiftPath(groups[0].mean - groups[1].mean, error, np.where(known, factor * error, math.inf))


class _Group(NamedTuple):
    mean: Floats
    variance: Floats
    units: Floats


def _group(
    reward: Floats, s: tuple[Floats, Floats], n: tuple[Floats, Floats], mine: Flags, buckets: int | None
) -> _Group:
    """Of one group, after every decision: sums over clusters of S^i N^j, kept up to date by what each decision adds."""

    def moment(i: int, j: int) -> Floats:
        return np.cumsum(np.where(mine, s[1] ** i * n[1] ** j - s[0] ** i * n[0] ** j, 0.0))

    size, filled = np.maximum(np.cumsum(mine), 1), np.cumsum(mine & (n[0] == 0))
    mean, sizes = np.cumsum(np.where(mine, reward, 0.0)) / size, moment(0, 2)
    squares = np.maximum(moment(2, 0) - 2 * mean * moment(1, 1) + mean**2 * sizes, 0.0)
    spread = sizes - (size**2 / buckets if buckets else 0.0)
    units = np.minimum(np.cumsum(mine), size**2 / np.maximum(spread, 1e-9))
    return _Group(mean, squares / size**2 * filled / np.maximum(filled - 1, 1), units)


def _clusters(key: Longs, reward: Floats) -> Floats:
    """(n,) effective clusters of the poorer group, as they were after the last PAUSE decisions."""
    steps = -(-len(key) // PAUSE)
    shape, place = (steps, int(key.max()) + 1), np.arange(len(key)) // PAUSE * (int(key.max()) + 1) + key
    sums, sizes = (
        np.cumsum(np.bincount(place, weights=w, minlength=shape[0] * shape[1]).reshape(shape), axis=0)
        for w in (reward, np.ones(len(key)))
    )
    found = []
    for group in (0, 1):
        s, n = sums[:, group::2], sizes[:, group::2]
        mean = s.sum(axis=1, keepdims=True) / np.maximum(n.sum(axis=1, keepdims=True), 1.0)
        residual = np.abs(s - mean * n)
        first, second, fourth = (np.maximum((residual**power).sum(axis=1), 1e-9) for power in (1, 2, 4))
        found.append(np.maximum(second**2 / fourth, first**2 / second / 8.0))
    return np.repeat(np.r_[0.0, np.minimum(*found)], PAUSE)[: len(key)]
