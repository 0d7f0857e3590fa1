"""`make lift`: how often the lift's interval claims something where nothing is, on logs without any difference.

Somebody looks 30 times, or after every decision; units come back; rewards are rare, or heavy amounts; the season turns.
The code is that of the service (`decider/estimate/lift.py`), but for looks after every decision, which `paths` computes
for all of them at once; `tests/test_lift.py` holds the two against each other. Results: RESULTS.md.
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from decider.estimate.lift import (
    LEVEL,
    SCALE,
    START,
    STRATUM_START,
    Lift,
    LiftSums,
    effective_clusters,
    with_unseen,
)
from decider.estimate.sample import Floats, Longs
from decider.experiment.strata import BUCKETS
from simulator.commands.options import counted
from simulator.studies.results import write_results

MARKERS = ("<!-- lift -->\n", "<!-- /lift -->")

DECISIONS, LONG, LOOKS, SEGMENTS, PAUSES, STRATA_LOOKS, CHUNK = 20_000, 200_000, 30, 12, 100, 200, 25
WALD = 1.959964
"""Standard errors of an interval that holds at one look."""

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Scene:
    """One kind of log. visits: of a unit, on average. rate: share of rewarded visits. spread: of the logarithm of an
    amount; 0: every reward is 1. apart: how much units differ (of the logarithm of their rate). season: how much the
    rate goes up and down. once: a unit is rewarded once at most. shares: of the holdout, each for as long. gain: what
    the policy has learned at the end, as a share of the rate; it is learned as the log goes on. harm: what it adds at
    once, as a share of the rate, from the part `since` of the log on."""

    name: str
    visits: int = 1
    rate: float = 0.1
    spread: float = 0.0
    apart: float = 0.0
    season: float = 0.0
    once: bool = False
    shares: tuple[float, ...] = (0.1,)
    gain: float = 0.0
    harm: float = 0.0
    since: float = 0.0
    decisions: int = DECISIONS


NULL = (
    Scene("1 visit, 30 %", rate=0.3),
    Scene("1 visit, 10 %"),
    Scene("1 visit, 0.3 %, long", rate=0.003, decisions=LONG),
    Scene("8 visits, 10 %", visits=8, apart=1.0),
    Scene("50 visits, 10 %, long", visits=50, apart=1.0, decisions=LONG),
    Scene("50 visits, 0.3 %, long", visits=50, rate=0.003, apart=1.0, decisions=LONG),
    Scene("8 visits, buys once", visits=8, once=True),
    Scene("1 visit, amounts", rate=0.03, spread=1.2),
    Scene("8 visits, amounts", visits=8, spread=1.2, apart=0.5),
    Scene("1 visit, heavy amounts", spread=1.6),
    Scene("1 visit, amounts, long", rate=0.03, spread=1.2, decisions=LONG),
    Scene("8 visits, amounts, long", visits=8, spread=1.2, apart=0.5, decisions=LONG),
    Scene("1 visit, heavy amounts, long", spread=1.6, decisions=LONG),
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


def simulate(scene: Scene, seed: int) -> Log:
    """One log of the scene."""
    rng = np.random.default_rng(seed)
    unit = _visits(rng, scene.visits, scene.decisions)
    n, units = len(unit), int(unit.max()) + 1
    time = np.arange(n) / n
    stratum = np.minimum((time * len(scene.shares)).astype(np.int64), len(scene.shares) - 1)
    holdout = rng.random(units)[unit] < np.array(scene.shares)[stratum]
    luck = np.exp(scene.apart * rng.standard_normal(units) - scene.apart**2 / 2)[unit]
    base = np.minimum(scene.rate * luck * (1 + scene.season * np.sin(time * 6 * np.pi)), 0.45)
    learned = base * (scene.gain * (1 - np.exp(-4 * time)) + scene.harm * (time >= scene.since))
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

    Only whether there is enough to claim something is asked at PAUSES times, and always of the buckets.
    """
    policy, holdout = group_paths(log, cluster, buckets=buckets)
    units = np.minimum(policy.units, holdout.units)
    mean, variance, clocks = (np.stack(both) for both in zip(policy, holdout, strict=True))
    known = (units >= STRATUM_START) & (cluster_paths(log).min(axis=0) >= START)
    clock = 1 / (1 / np.maximum(policy.units, 1e-9) + 1 / np.maximum(holdout.units, 1e-9)) / SCALE
    factor = np.sqrt((1 + 1 / clock) * np.log((1 + clock) / (1 - level) ** 2))
    error = np.sqrt(with_unseen(mean, variance, np.maximum(clocks, 1e-9)).sum(axis=0))
    return LiftPath(policy.mean - holdout.mean, error, np.where(known, factor * error, math.inf))


class GroupPath(NamedTuple):
    """(n,) each, of one group after every decision. variance: of the mean; units: effective ones."""

    mean: Floats
    variance: Floats
    units: Floats


def group_paths(log: Log, cluster: Longs, *, buckets: int | None = None) -> tuple[GroupPath, GroupPath]:
    """Of the policy and of the holdout."""
    s, n = (before(cluster * 2 + log.holdout, x) for x in (log.reward, np.ones(len(cluster))))
    policy, holdout = (_group(log.reward, s, n, log.holdout == one, buckets) for one in (False, True))
    return policy, holdout


def _group(
    reward: Floats, s: tuple[Floats, Floats], n: tuple[Floats, Floats], mine: Flags, buckets: int | None
) -> GroupPath:
    """Of one group, after every decision: sums over clusters of S^i N^j, kept up to date by what each decision adds."""

    def moment(i: int, j: int) -> Floats:
        return np.cumsum(np.where(mine, s[1] ** i * n[1] ** j - s[0] ** i * n[0] ** j, 0.0))

    size, filled = np.maximum(np.cumsum(mine), 1), np.cumsum(mine & (n[0] == 0))
    mean, sizes = np.cumsum(np.where(mine, reward, 0.0)) / size, moment(0, 2)
    squares = np.maximum(moment(2, 0) - 2 * mean * moment(1, 1) + mean**2 * sizes, 0.0)
    spread = sizes - (size**2 / buckets if buckets else 0.0)
    units = np.minimum(np.cumsum(mine), size**2 / np.maximum(spread, 1e-9))
    return GroupPath(mean, squares / size**2 * filled / np.maximum(filled - 1, 1), units)


def cluster_paths(log: Log) -> Floats:
    """(2, n) effective clusters of each group, as they were at the last pause."""
    pause = -(-len(log.bucket) // PAUSES)
    place = np.arange(len(log.bucket)) // pause * 2 * BUCKETS + log.holdout * BUCKETS + log.bucket
    rewards, sizes = (
        np.cumsum(np.bincount(place, weights=w, minlength=PAUSES * 2 * BUCKETS).reshape(PAUSES, 2, BUCKETS), axis=0)
        for w in (log.reward, np.ones(len(place)))
    )
    mean = rewards.sum(axis=2, keepdims=True) / np.maximum(sizes.sum(axis=2, keepdims=True), 1.0)
    found = np.array([effective_clusters(residual) for residual in rewards - mean * sizes])
    return np.repeat(np.c_[np.zeros(2), found.T], pause, axis=1)[:, : len(place)]


def looks(log: Log, times: int, level: float = LEVEL) -> tuple[Longs, list[Lift]]:
    """The lift as the service has it, at so many times; these."""
    ends = np.linspace(0, len(log.unit), times + 1).astype(np.int64)
    sums, found = LiftSums(BUCKETS), []
    for first, last in itertools.pairwise(ends):
        part = slice(first, last)
        sums.add_many(
            bucket=log.bucket[part], holdout=log.holdout[part], reward=log.reward[part], stratum=log.stratum[part]
        )
        found.append(sums.lift(level))
    return ends[1:] - 1, found


# What is counted of each log.


def null_log(scene: Scene, seed: int) -> dict[str, float]:
    """A log without a difference: whether something was claimed at any look, and the width at the end."""
    log = simulate(scene, seed)
    by_unit, by_bucket = path(log, log.unit), path(log, log.bucket, buckets=BUCKETS)
    days = np.linspace(len(log.unit) / LOOKS, len(log.unit) - 1, LOOKS).astype(np.int64)
    return {
        "every": by_bucket.misses(np.zeros(1)).any(),
        "units": by_unit.misses(np.zeros(1)).any(),
        "daily": by_bucket.misses(np.zeros(1))[days].any(),
        "wald": (np.abs(by_unit.value) > WALD * by_unit.error)[days].any(),
        "decisions": _apart_by_decision(log),
        "width": by_bucket.half[-1] / (WALD * by_unit.error[-1]),
    }


def _apart_by_decision(log: Log) -> bool:
    """Whether one look at the end sees a lift that takes every decision for a unit."""
    groups = [log.reward[log.holdout == one] for one in (False, True)]
    error = math.sqrt(sum(float(group.var()) / len(group) for group in groups))
    return bool(abs(groups[0].mean() - groups[1].mean()) > WALD * error)


def real_log(scene: Scene, seed: int) -> dict[str, float]:
    """A log of a policy that learns: whether the interval missed the mean lift so far at any look."""
    log = simulate(scene, seed)
    truth = np.cumsum(log.more) / np.arange(1, len(log.more) + 1)
    found = path(log, log.bucket, buckets=BUCKETS)
    claimed = found.value > found.half
    return {
        "every": found.misses(truth).any(),
        "width": found.half[-1] / (WALD * path(log, log.unit).error[-1]),
        "found": claimed.any(),
        "after": float(claimed.argmax()) if claimed.any() else math.nan,
    }


def ramped_log(scene: Scene, seed: int) -> dict[str, float]:
    """A log whose holdout changes: the service's own figures at many looks, and those of all strata in one."""
    log = simulate(scene, seed)
    claims = [one.interval.low > 0 or one.interval.high < 0 for one in looks(log, STRATA_LOOKS)[1]]
    pooled = looks(log._replace(stratum=np.zeros_like(log.stratum)), STRATA_LOOKS)[1]
    return {
        "every": any(claims),
        "pooled": any(one.interval.low > 0 or one.interval.high < 0 for one in pooled),
    }


def segmented_log(scene: Scene, seed: int) -> dict[str, float]:
    """Twelve segments without a difference: whether any of them has one, at any decision."""
    log = simulate(replace(scene, decisions=scene.decisions * 2), seed)
    segment = np.random.default_rng(seed).integers(0, SEGMENTS, int(log.unit.max()) + 1)[log.unit]
    parts = [Log(*[column[segment == one] for column in log]) for one in range(SEGMENTS)]
    paths = [path(part, part.bucket, buckets=BUCKETS, level=1 - (1 - LEVEL) / SEGMENTS) for part in parts]
    return {
        "every": any(one.misses(np.zeros(1)).any() for one in paths),
        "wald": any(abs(one.value[-1]) > WALD * one.error[-1] for one in paths),
    }


KINDS: dict[str, tuple[Callable[[Scene, int], dict[str, float]], tuple[Scene, ...]]] = {
    "null": (null_log, NULL),
    "ramp": (ramped_log, RAMPED),
    "segments": (segmented_log, (Scene("12 segments, 1 visit"), Scene("12 segments, 8 visits", visits=8, apart=0.5))),
    "real": (real_log, REAL),
}


class Task(NamedTuple):
    """Some logs of a scene."""

    kind: str
    scene: Scene
    first: int
    logs: int


def run(task: Task) -> tuple[str, str, list[dict[str, float]]]:
    """Kind, scene, and what was counted of each log."""
    judge, _ = KINDS[task.kind]
    seeds = range(task.first, task.first + task.logs)
    return task.kind, task.scene.name, [judge(task.scene, seed) for seed in seeds]


# Tables.


Found = dict[tuple[str, str], list[dict[str, float]]]
"""Of each log, by kind and scene."""


def report(found: Found, logs: int) -> str:
    """Three tables in Markdown."""
    heads = {
        "null": "| no lift | every decision | every decision, exact units | 30 looks | Wald, 30 looks | Wald by "
        "decision, one look | width | known |\n|---|--:|--:|--:|--:|--:|--:|--:|",
        "other": "| no lift | every look | instead |\n|---|--:|---|",
        "real": "| a policy that learns | truth missed at any decision | width | lift found | after decisions |\n"
        "|---|--:|--:|--:|--:|",
    }
    lines = {kind: [head] for kind, head in heads.items()}
    for (kind, name), rows in found.items():
        if kind == "null":
            cells = [*[_share(rows, key) for key in ("every", "units", "daily", "wald", "decisions")]]
            lines["null"].append(_line(name, *cells, _width(rows), _known(rows)))
        elif kind == "real":
            lines["real"].append(_line(name, _share(rows, "every"), _width(rows), _share(rows, "found"), _after(rows)))
        else:
            key, what = ("pooled", "pooled") if kind == "ramp" else ("wald", "Wald, one look at each")
            lines["other"].append(_line(name, _share(rows, "every"), f"{what}: {_share(rows, key)}"))
    tables = "\n\n".join("\n".join(lines[kind]) for kind in heads)
    return f"{logs} logs of each kind; a fifth as many of the long ones.\n\n{tables}\n"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _share(rows: Sequence[dict[str, float]], key: str) -> str:
    """In per cent, with its standard error.

    >>> _share([{"every": 1.0}, {"every": 0.0}], "every")
    '50.0 ± 35.4 %'
    """
    share = float(np.mean([row[key] for row in rows]))
    return f"{100 * share:.1f} ± {100 * math.sqrt(share * (1 - share) / len(rows)):.1f} %"


def _width(rows: Sequence[dict[str, float]]) -> str:
    widths = [row["width"] for row in rows if math.isfinite(row["width"])]
    return f"{np.mean(widths):.2f}" if widths else "-"


def _after(rows: Sequence[dict[str, float]]) -> str:
    found = [row["after"] for row in rows if row["found"]]
    return f"{np.median(found):,.0f}" if found else "-"


def _known(rows: Sequence[dict[str, float]]) -> str:
    return f"{100 * np.mean([math.isfinite(row['width']) for row in rows]):.0f} %"


def tasks_for(logs: int) -> list[Task]:
    """In chunks; logs that are ten times as long are a fifth as many."""
    return [
        Task(kind, scene, first, min(CHUNK, number - first))
        for kind, (_, scenes) in KINDS.items()
        for scene in scenes
        for number in [max(1, logs * DECISIONS // max(DECISIONS, scene.decisions // 2))]
        for first in range(0, number, CHUNK)
    ]


def run_all(tasks: Sequence[Task], *, workers: int) -> Found:
    """With a progress bar."""
    found: Found = {}
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers) as pool, counted(Console(stderr=True), len(tasks), "logs") as progress:
        for kind, name, rows in pool.imap(run, tasks):
            found.setdefault((kind, name), []).extend(rows)
            progress()
    return found


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--logs", type=click.IntRange(min=1), default=1_000, show_default=True, help="Of each kind.")
@click.option("--workers", type=click.IntRange(min=1), default=os.cpu_count, help="Processes.  [default: one per core]")
@click.option("--publish", is_flag=True, help="Write the tables into simulator/studies/RESULTS.md.")
def main(logs: int, workers: int, publish: bool) -> None:
    """How often the lift claims something where nothing is, how often it misses a real one, and how wide it is."""
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    text = report(run_all(tasks_for(logs), workers=workers), logs)
    click.echo(text, nl=False)
    if publish:
        write_results(text, MARKERS)


if __name__ == "__main__":
    main()
