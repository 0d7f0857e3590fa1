"""What `simulator run` found, as plain data: its JSON, its table and its page are made of it.

SCHEMA grows by one whenever a name's meaning changes or a name goes. `to_json` of the evaluation writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from simulator.run.task import Run, Task, share_of_lift

SCHEMA = 1
LEVEL = 0.95
LEARNS = "deployed learning curve in a simulated world"
KNOWN = "fixed policy in a simulated world"
SINGLE = "best single action"
REFERENCES = ("uniform", SINGLE, "best")
"""Always shown: a uniform choice, the best single action, and the best action of every visit."""
LAST = 0.8
"""Where the last fifth begins."""

ROUNDING = 1e-9
"""By which a figure may be beyond its limit."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Band:
    """A mean over seeds with its 95 % band (Student t), which holds nothing that cannot be. One seed gives no band: low
    and high are None."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """Of some rounds. reward: mean per visit. regret: mean shortfall per visit against the best action; total_regret:
    the sum over visits. share: of the lift from a uniform choice to the best action; None where there is no lift.
    right: how often a best action was chosen; None where it was not counted.
    """

    visits: int
    reward: Band
    regret: Band
    total_regret: Band
    share: Band | None
    right: Band | None


@dataclass(frozen=True, slots=True)
class Line:
    """One figure at each of the curve's points: its mean over seeds and its band, point by point."""

    mean: tuple[float, ...]
    low: tuple[float, ...] | None
    high: tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """rounds: the points. reward (per visit), total_regret, share: up to the point. right: since the point before."""

    rounds: tuple[int, ...]
    reward: Line
    total_regret: Line
    share: Line
    right: Line | None


@dataclass(frozen=True, slots=True)
class PolicyRuns:
    """One policy over all seeds. reference: shown for comparison.

    beats_single_after: decisions, from which on the mean reward so far (over all seeds) stays above that of the best
    single action; None where it does not at the end. last_fifth: the same figures once much has been learned.
    """

    name: str
    estimand: str
    reference: bool
    whole: Figures
    last_fifth: Figures
    beats_single_after: int | None
    curve: LearningCurve


@dataclass(frozen=True, slots=True)
class WorldRuns:
    """Everything. rounds: visits of each seed. seconds: of the whole command. fitted: the log, where there is one."""

    world: str
    line: str
    fitted: str
    rounds: int
    seeds: tuple[int, ...]
    delayed: bool
    policies: tuple[PolicyRuns, ...]
    seconds: float
    schema: int = field(default=SCHEMA)


@dataclass(frozen=True, slots=True)
class _Sums:
    """Of one policy, from 0 rounds on; each but rounds is (seeds, points)."""

    rounds: NDArray[np.int64]
    earned: Floats
    right: Floats | None
    best: Floats
    uniform: Floats
    fixed: Floats


def tasks_of(world: str, policies: Sequence[str], *, seeds: Sequence[int], rounds: int, delayed: bool) -> list[Task]:
    """Every policy on every seed; those with the same visits next to each other.

    >>> [(task.seed, task.policy) for task in tasks_of("w", ["a", "b"], seeds=[1, 2], rounds=9, delayed=True)]
    [(1, 'a'), (1, 'b'), (2, 'a'), (2, 'b')]
    """
    return [Task(world, policy, seed, rounds, delayed) for seed in seeds for policy in policies]


def summarize(name: str, runs: Sequence[Run], *, learns: bool) -> PolicyRuns:
    """The figures of a policy over its runs, one per seed.

    >>> from simulator.run.task import run
    >>> runs = [run(task) for task in tasks_of("storefront", ["best"], seeds=[1, 2], rounds=50, delayed=True)]
    >>> summarize("best", runs, learns=False).whole.share
    Band(mean=1.0, low=1.0, high=1.0)
    """
    estimand = LEARNS if learns else KNOWN
    return _of_sums(name, estimand, _sums(runs, "earned", right=_array(runs, "right")), reference=False)


def summarize_reference(name: str, runs: Sequence[Run]) -> PolicyRuns:
    """The figures of one of REFERENCES, from the runs of any policy, one per seed.

    >>> from simulator.run.task import run
    >>> runs = [run(task) for task in tasks_of("storefront", ["uniform"], seeds=[1], rounds=50, delayed=True)]
    >>> summarize_reference("best", runs).whole.share
    Band(mean=1.0, low=None, high=None)
    """
    of = {"uniform": "uniform", SINGLE: "fixed", "best": "best"}[name]
    rounds = np.array([0, *runs[0].rounds])
    right = np.tile(rounds, (len(runs), 1)) if of == "best" else None
    return _of_sums(name, KNOWN, _sums(runs, of, right=right), reference=True)


def _sums(runs: Sequence[Run], earned: str, *, right: Floats | None) -> _Sums:
    return _Sums(
        np.array([0, *runs[0].rounds]),
        _array(runs, earned),
        right,
        *[_array(runs, name) for name in ("best", "uniform", "fixed")],
    )


def _array(runs: Sequence[Run], name: str) -> Floats:
    return np.array([[0.0, *getattr(run, name)] for run in runs])


def _of_sums(name: str, estimand: str, sums: _Sums, *, reference: bool) -> PolicyRuns:
    started = int(np.searchsorted(sums.rounds, LAST * sums.rounds[-1], side="right")) - 1
    return PolicyRuns(
        name=name,
        estimand=estimand,
        reference=reference,
        whole=_figures(sums, 0),
        last_fifth=_figures(sums, started),
        beats_single_after=_beats(sums),
        curve=_curve(sums),
    )


def _figures(sums: _Sums, start: int) -> Figures:
    """From the point `start` to the end."""

    def over(one: Floats) -> Floats:
        return np.asarray(one[:, -1] - one[:, start])

    visits = int(sums.rounds[-1] - sums.rounds[start])
    earned, regret = over(sums.earned), over(sums.best) - over(sums.earned)
    share = share_of_lift(earned, best=over(sums.best), uniform=over(sums.uniform))
    return Figures(
        visits=visits,
        reward=band(earned / visits),
        regret=band(regret / visits, lowest=0.0),
        total_regret=band(regret, lowest=0.0),
        share=None if np.isnan(share).any() else band(share, highest=1.0),
        right=None if sums.right is None else band(over(sums.right) / visits, lowest=0.0, highest=1.0),
    )


def band(values: Floats, *, lowest: float = -np.inf, highest: float = np.inf) -> Band:
    """(seeds,) -> mean and 95 % band of Student's t. lowest, highest: between which the true mean is for sure.

    >>> round(band(np.array([0.2, 0.4])).high, 3), band(np.array([0.2, 0.4]), highest=1.0).high
    (1.571, 1.0)
    >>> band(np.array([0.5]))
    Band(mean=0.5, low=None, high=None)
    """
    line = _line(values[:, None], lowest=lowest, highest=highest)
    return Band(line.mean[0], line.low[0] if line.low else None, line.high[0] if line.high else None)


def _line(values: Floats, *, lowest: float = -np.inf, highest: float = np.inf) -> Line:
    """(seeds, points); nan where a seed has no value there."""
    if (values < lowest - ROUNDING).any() or (values > highest + ROUNDING).any():
        lowest, highest = -np.inf, np.inf  # in a world where asking pays later, a policy can earn more than `best`
    seeds = len(values)
    mean = values.mean(axis=0)
    if seeds < 2:
        return Line(tuple(mean.tolist()), None, None)
    half = stdtrit(seeds - 1, (1 + LEVEL) / 2) * values.std(axis=0, ddof=1) / np.sqrt(seeds)
    low, high = np.maximum(mean - half, np.minimum(lowest, mean)), np.minimum(mean + half, np.maximum(highest, mean))
    return Line(tuple(mean.tolist()), tuple(low.tolist()), tuple(high.tolist()))


def _beats(sums: _Sums) -> int | None:
    above = sums.earned.mean(axis=0) > sums.fixed.mean(axis=0)
    below = np.flatnonzero(~above)
    first = int(below[-1]) + 1
    return int(sums.rounds[first]) if first < len(above) else None


def _curve(sums: _Sums) -> LearningCurve:
    rounds = sums.rounds[1:]
    earned, best, uniform = sums.earned[:, 1:], sums.best[:, 1:], sums.uniform[:, 1:]
    steps = np.diff(sums.rounds)
    return LearningCurve(
        rounds=tuple(rounds.tolist()),
        reward=_line(earned / rounds),
        total_regret=_line(best - earned, lowest=0.0),
        share=_line(share_of_lift(earned, best=best, uniform=uniform), highest=1.0),
        right=None if sums.right is None else _line(np.diff(sums.right, axis=1) / steps, lowest=0.0, highest=1.0),
    )
