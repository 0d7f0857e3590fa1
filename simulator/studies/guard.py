"""`make guard`: how often the guard of learning holds where nothing is wrong, and how soon where rewards are missing.

Half a year of decisions for each log, one after the other through the test that serves (`decider/estimate/outage.py`).
Results: RESULTS.md. It goes on where it was interrupted, since a row takes minutes. The functions of one log are
called by `tests/test_guard.py`, too.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

from decider.estimate.outage import OutageTest
from decider.estimate.sample import Floats
from simulator.studies.results import write_results

MARKERS = ("<!-- guard -->\n", "<!-- /guard -->")

DAYS = 182
HOUR, WEEK = 24, 168
MINUTE = 60_000_000
"""Microseconds of log time."""

Shares = Callable[[Floats, np.random.Generator], Floats]
"""(hours since the beginning, source of chance) -> factor of the share of rewarded decisions in each of these hours."""


def seasons(hours: Floats, source: np.random.Generator) -> Floats:
    """By night half as much as on average, by day half as much more, and on two days of the week 30 % less."""
    day = 1 + 0.5 * np.sin(2 * np.pi * (hours + 24 * source.random()) / HOUR)
    return day * np.where(hours % WEEK >= 5 * HOUR, 0.7, 1.0)


def quiet_nights(hours: Floats, source: np.random.Generator, share: float = 0.2, length: int = 8) -> Floats:
    """So many hours in which hardly anybody buys: that much of the share of the day."""
    return np.where((hours + source.integers(HOUR)) % HOUR < length, share, 1.0)


def learning(hours: Floats, source: np.random.Generator) -> Floats:
    """A policy that doubles the share within weeks, with the seasons."""
    factor: Floats = seasons(hours, source) * (2 - np.exp(-hours / (14 * HOUR)))
    return factor


def changes(hours: Floats, source: np.random.Generator) -> Floats:
    """Every four weeks another policy, which begins at half the share and learns; with the seasons."""
    return seasons(hours, source) * (1 - 0.5 * np.exp(-(hours % (4 * WEEK)) / (3 * HOUR)))


def campaigns(hours: Floats, source: np.random.Generator, factor: float = 5.0) -> Floats:
    """Every three weeks two days of a campaign with so many times the share, which ends at once; with the seasons."""
    begin = source.integers(3 * WEEK)
    return seasons(hours, source) * np.where((hours + begin) % (3 * WEEK) < 48, factor, 1.0)


class Scene(NamedTuple):
    """What may happen where nothing is wrong. share: of rewarded decisions, at first. a_day: decisions."""

    name: str
    share: float
    a_day: int
    factor: Shares


SCENES = (
    Scene("seasons of day and week", 0.1, 2_000, seasons),
    Scene("a policy that learns, from 2 to 4 %", 0.02, 5_000, learning),
    Scene("low: 0.3 %", 0.003, 10_000, seasons),
    Scene("busy", 0.1, 10_000, seasons),
    Scene("nights at a fifth of the day's share", 0.05, 10_000, quiet_nights),
    Scene("nights at a tenth", 0.1, 5_000, partial(quiet_nights, share=0.1)),
    Scene("an hour a day at a twentieth (a mailing)", 0.1, 5_000, partial(quiet_nights, share=0.05, length=1)),
    Scene("another policy every 4 weeks", 0.1, 2_000, changes),
    Scene("campaigns, 5 times the share, 2 days", 0.05, 2_000, campaigns),
    Scene("campaigns, 10 times the share, 2 days", 0.03, 2_000, partial(campaigns, factor=10.0)),
)


class Visits(NamedTuple):
    """Sealed decisions, in their order."""

    time: Sequence[int]
    rewarded: Sequence[bool]
    holdout: Sequence[bool]


def visits(scene: Scene, seed: int, *, days: int = DAYS, holdout: float = 0.1) -> Visits:
    """Twice as many decisions by day as by night."""
    source = np.random.default_rng(seed)
    hours = np.arange(days * HOUR, dtype=np.float64)
    share = np.minimum(0.9, scene.share * scene.factor(hours, source))
    traffic = source.poisson(scene.a_day / HOUR * (1 + np.sin(2 * np.pi * hours / HOUR) / 3))
    rewarded = source.random(traffic.sum()) < np.repeat(share, traffic)
    times = np.repeat(hours * 60 * MINUTE, traffic) + np.arange(len(rewarded))
    return Visits(times.astype(np.int64).tolist(), rewarded.tolist(), (source.random(len(rewarded)) < holdout).tolist())


def false_holds(scene: Scene, seed: int, *, days: int = DAYS) -> int:
    """How often the guard begins to hold in so many days."""
    test, holds = OutageTest(), 0
    for at, rewarded, holdout in zip(*visits(scene, seed, days=days), strict=True):
        holds += test.add(at, rewarded=rewarded, holdout=holdout) is not None and test.missing
    return holds


def _holds(scene: Scene, seed: int) -> Sequence[float]:
    return [false_holds(scene, seed)]


class Fault(NamedTuple):
    """Rewards that get lost. share: of rewarded decisions before. lost: of them. holdout: share of the units."""

    name: str
    share: float
    lost: float
    holdout: float = 0.0


FAULTS = (
    Fault("all lost, share 0.3 %", 0.003, 1.0),
    Fault("all lost, share 2 %", 0.02, 1.0),
    Fault("all lost, share 10 %", 0.1, 1.0),
    Fault("all lost, share 10 %, holdout of 10 %", 0.1, 1.0, 0.1),
    Fault("all lost, share 40 %", 0.4, 1.0),
    Fault("95 % lost, share 10 %", 0.1, 0.95),
    Fault("90 % lost, share 10 %", 0.1, 0.9),
    Fault("90 % lost, share 10 %, holdout of 10 %", 0.1, 0.9, 0.1),
    Fault("80 % lost, share 10 %", 0.1, 0.8),
    Fault("half lost, share 10 %", 0.1, 0.5),
)

A_DAY, BEFORE, LONGEST = 100, 14, 10
"""Rewarded decisions of a day; days before the fault; days that it lasts at most, and that are waited for its end."""


class Found(NamedTuple):
    """In decisions. after: from the fault to the hold; infinite: never. back: from its end to the end of the hold."""

    after: float
    back: float


def found(fault: Fault, seed: int) -> Found:
    """How soon a fault is found, and its end, in the seasons of days and weeks. One that is not found has no end."""
    scene = Scene("", fault.share, round(A_DAY / fault.share), seasons)
    coming = zip(*visits(scene, seed, days=BEFORE + 2 * LONGEST + 1, holdout=fault.holdout), strict=True)
    source = np.random.default_rng([seed, 1])
    test, begin = OutageTest(), round((BEFORE + source.random()) * scene.a_day)
    for at, rewarded, holdout in islice(coming, begin):
        test.add(at, rewarded=rewarded, holdout=holdout)
    kept = (source.random(LONGEST * scene.a_day) >= fault.lost).tolist()
    wrong = ((at, rewarded and keep, holdout) for keep, (at, rewarded, holdout) in zip(kept, coming, strict=False))
    after = _first_turn(test, wrong)
    return Found(after, _first_turn(test, islice(coming, LONGEST * scene.a_day)) if after < math.inf else 0.0)


def _first_turn(test: OutageTest, coming: Iterable[tuple[int, bool, bool]]) -> float:
    missing = test.missing
    for number, (at, rewarded, holdout) in enumerate(coming, 1):
        test.add(at, rewarded=rewarded, holdout=holdout)
        if test.missing != missing:
            return float(number)
    return math.inf


def line(scene: Scene, holds: Sequence[float]) -> str:
    """A row of the first table."""
    any_ = [float(one > 0) for one in holds]
    return f"| {scene.name} | {scene.a_day:,} | {len(holds)} | {sum(holds):.0f} | {_share(any_)} |"


def _share(rang: Sequence[float]) -> str:
    """In per cent with its standard error, or with an upper bound where there was none (the rule of three)."""
    share, logs = sum(rang) / len(rang), len(rang)
    if share == 0:
        return f"0 (at most {300 / logs:.1f} %)"
    return f"{100 * share:.0f} ± {100 * math.sqrt(share * (1 - share) / logs):.0f} %"


def fault_line(fault: Fault, outcomes: Sequence[Found]) -> str:
    """A row of the second table."""
    known = [one.after for one in outcomes]
    times = [
        f"{one:,.0f}" if one < math.inf else "not found" for one in np.quantile(known, [0.5, 0.9], method="higher")
    ]
    back = [one.back for one in outcomes if one.after < math.inf]
    later = f"{np.quantile(back, 0.5, method='higher'):,.0f}" if back else "-"
    share = sum(one < math.inf for one in known) / len(known)
    return f"| {fault.name} | {100 * share:.0f} % | {' | '.join(times)} | {later} |"


class Store:
    """Results by row and seed, in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.known: dict[str, list[list[float]]] = json.loads(path.read_text()) if path.exists() else {}

    def fill(self, name: str, logs: int, run: Callable[[int], Sequence[float]], *, deadline: float) -> None:
        """Run the seeds that are missing, until the monotonic clock reads `deadline`."""
        rows = self.known.setdefault(name, [])
        if len(rows) >= logs:
            return
        while len(rows) < logs and time.monotonic() < deadline:
            rows.append([*run(len(rows))])
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self.known))


def report(known: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """Both tables."""
    right = [line(one, [row[0] for row in known[one.name]]) for one in SCENES if known.get(one.name)]
    wrong = [fault_line(one, [Found(*row) for row in known[one.name]]) for one in FAULTS if known.get(one.name)]
    return "\n".join(
        [
            "| half a year of | decisions/day | logs | holds in all | logs with a hold |\n|---|--:|--:|--:|--:|",
            *right,
            "\nTimes in decisions: from the fault to the hold, and from its end to the end of the hold.\n",
            "| rewards | found | median until the hold | 90 % within | median until it ends |\n|---|--:|--:|--:|--:|",
            *wrong,
            "",
        ]
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--logs", type=click.IntRange(min=1), default=100, show_default=True, help="Of each kind.")
@click.option("--seconds", type=float, default=math.inf, help="End after so long; the next run goes on.")
@click.option("--results", type=click.Path(path_type=Path), default=Path(".cache/guard.json"), show_default=True,
              help="Where results are kept, to go on from.")  # fmt: skip
@click.option("--publish", is_flag=True, help="Write the tables into simulator/studies/RESULTS.md.")
def main(logs: int, seconds: float, results: Path, publish: bool) -> None:
    """How often the guard holds where nothing is wrong, and after how many decisions where rewards are missing."""
    store, deadline = Store(results), time.monotonic() + seconds
    for count in range(1, logs + 1):  # all rows alike, so that an interrupted run says something of each
        for fault in FAULTS:
            store.fill(fault.name, count, partial(found, fault), deadline=deadline)
        for scene in SCENES:
            store.fill(scene.name, count, partial(_holds, scene), deadline=deadline)
    text = report(store.known)
    click.echo(text, nl=False)
    if publish:
        write_results(text, MARKERS)


if __name__ == "__main__":
    main()
