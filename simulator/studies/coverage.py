"""`make coverage`: how often each interval holds the true value, and how wide it is, on logs of known truth.

The logs are simulated; every interval sees the same ones. The code is that of the evaluation (`decider/estimate/`).
The default interval was chosen with settings A, B and C in view, and fixed before the others were run.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import TextIO

import click
import numpy as np
from rich.console import Console

from decider.estimate.asymptotic import asymptotic
from decider.estimate.bootstrap import bootstrap
from decider.estimate.confidence_sequence import confidence_sequence
from decider.estimate.cressie_read import cressie_read
from decider.estimate.default_interval import NAME, default_interval
from decider.estimate.empirical_bernstein import empirical_bernstein
from decider.estimate.mean import Interval
from decider.estimate.possible import Range
from decider.estimate.sample import Floats, Sample, by_unit
from simulator.commands.options import FOLDER, bad_input, counted, on_option, workers_option
from simulator.run.sweep import sweep
from simulator.run.versions import code_version

LEVEL = 0.95
SIZES = (300, 1_000, 10_000)
CHUNK = 100
"""Logs of a task."""


@dataclass(frozen=True, slots=True)
class Situation:
    """One kind of context. share: of the decisions. propensity, pmf, mean: (actions,); mean: chance of a reward."""

    share: float
    propensity: Floats
    pmf: Floats
    mean: Floats


@dataclass(frozen=True, slots=True)
class Setting:
    """A log's world and the question that is asked of it.

    A rewarded decision earns one of `amounts`, each as likely, another one nothing, and `offset` is added to both.
    less: how much of the logged policy's value is subtracted from the candidate's. visits: the mean number of decisions
    of a unit, from 1 on; a unit is always in the same situation and has always the same luck with an action.
    """

    name: str
    text: str
    situations: tuple[Situation, ...]
    amounts: tuple[float, ...] = (1.0,)
    offset: float = 0.0
    less: float = 0.0
    visits: int = 1

    @property
    def rewards(self) -> Range:
        """Least and largest."""
        return self.offset, self.offset + max(self.amounts)

    @property
    def value_range(self) -> Range:
        """What the answer can be."""
        low, high = self.rewards
        return low - self.less * high, high - self.less * low

    @property
    def truth(self) -> float:
        """The candidate's mean reward, less what is subtracted."""
        amount = sum(self.amounts) / len(self.amounts)
        return sum(
            one.share * float((one.pmf - self.less * one.propensity) @ (self.offset + amount * one.mean))
            for one in self.situations
        )

    @property
    def max_weight(self) -> float:
        """The largest that is possible."""
        return max(float((one.pmf / one.propensity).max()) for one in self.situations)


def epsilon_greedy(agreement: float, rewards: tuple[float, float]) -> tuple[Situation, Situation]:
    """Ten actions: the log draws its favourite with .82 and any other with .02, the candidate its own with .91 and .01.

    In a share `agreement` of the contexts they have the same favourite. rewards: of the candidate's favourite, and of
    every other action.
    """
    best, other = rewards
    mean = np.array([best, *[other] * 9])
    pmf = np.array([0.91, *[0.01] * 9])
    same, apart = np.array([0.82, *[0.02] * 9]), np.array([0.02, 0.82, *[0.02] * 8])
    return Situation(agreement, same, pmf, mean), Situation(1 - agreement, apart, pmf, mean)


def concentrated(actions: int, rate: float, power: float = 0.0) -> tuple[Situation]:
    """A uniform log, and a candidate that draws the k-th action in proportion to 1 / k, much as Thompson sampling does.

    rate: mean chance of a reward under the log; an action's is in proportion to (1 / k) ** power.
    """
    harmonic = 1 / np.arange(1, actions + 1)
    chance = harmonic**power
    uniform = np.full(actions, 1 / actions)
    return (Situation(1.0, uniform, harmonic / harmonic.sum(), rate * chance / chance.mean()),)


SETTINGS = (
    Setting("A", "epsilon-greedy log, 55 % agreement", epsilon_greedy(0.55, (0.3, 0.1))),
    Setting("B", "epsilon-greedy log, 5 % agreement", epsilon_greedy(0.05, (0.3, 0.1))),
    Setting("C", "uniform log over 80 actions, CTR 0.34 %, concentrated candidate", concentrated(80, 0.0034)),
    Setting("D", "the difference to the logged policy in A", epsilon_greedy(0.55, (0.3, 0.1)), less=1.0),
    Setting("E", "A with units that come 3 times on average", epsilon_greedy(0.55, (0.3, 0.1)), visits=3),
    Setting(
        "F",
        "A with purchases of 10 to 200 by 9 % or 3 %",
        epsilon_greedy(0.55, (0.09, 0.03)),
        amounts=(10.0, 20.0, 30.0, 50.0, 80.0, 200.0),
    ),
    Setting("G", "A with rewards -1 and 0, 90 % agreement", epsilon_greedy(0.9, (0.7, 0.4)), offset=-1.0),
    Setting("H", "C where the candidate's favourites earn more", concentrated(80, 0.0034, power=0.5)),
    Setting(
        "I",
        "a log that draws the candidate's only action with 1 %",
        (Situation(1.0, np.array([0.01, 0.99]), np.array([1.0, 0.0]), np.array([0.1, 0.2])),),
    ),
)
"""A: where this setting comes from, the agreement of the favourites is not given. At 55 % the Cressie-Read interval is
about as wide as it is there."""


def draw(setting: Setting, decisions: int, random: np.random.Generator) -> Sample:
    """A log and the candidate's terms, by unit."""
    units = decisions // setting.visits
    size = random.integers(1, 2 * setting.visits, units) if setting.visits > 1 else np.ones(units, np.int64)
    unit = np.repeat(np.arange(units), size)
    situation = random.choice(len(setting.situations), p=[one.share for one in setting.situations], size=units)[unit]
    weight, chance = np.empty(len(unit)), np.empty(len(unit))
    for index, one in enumerate(setting.situations):
        rows = situation == index
        action = random.choice(len(one.pmf), p=one.propensity, size=int(rows.sum()))
        weight[rows], chance[rows] = (one.pmf / one.propensity)[action], one.mean[action]
    amount = random.choice(setting.amounts, size=units)[unit] if len(setting.amounts) > 1 else setting.amounts[0]
    reward = setting.offset + amount * (random.random(units)[unit] < chance)
    low, high = setting.rewards
    most = setting.max_weight
    full = ((most - setting.less) * low, (most - setting.less) * high)
    idle = (-setting.less * high, -setting.less * low)
    ends = {"low": min(*full, *idle), "high": max(*full, *idle)}
    sample = by_unit((weight - setting.less) * reward, weight, unit, **ends, max_weight=most)
    return replace(sample, idle=idle)


@dataclass(frozen=True, slots=True)
class Method:
    """An interval of the table. of: sample, what the value can be, and a seed -> interval. every: it is slow, so only
    each so many logs."""

    of: Callable[[Sample, Range, int], Interval]
    every: int = 1


METHODS = {
    "asymptotic": Method(lambda sample, within, _: asymptotic(sample, value_range=within)),
    "bootstrap": Method(lambda sample, _, seed: bootstrap(sample, seed=seed), every=20),
    "empirical Bernstein": Method(lambda sample, within, _: empirical_bernstein(sample, value_range=within)),
    "Cressie-Read": Method(lambda sample, within, _: cressie_read(sample, value_range=within)),
    "confidence sequence": Method(lambda sample, within, _: confidence_sequence(sample, value_range=within), every=20),
    f"{NAME} (default)": Method(lambda sample, within, _: default_interval(sample, value_range=within)),
}
"""In the order of the table. Bootstrap: 1,000 resamples."""


@dataclass(frozen=True, slots=True)
class CoverageTask:
    """Some logs of one setting and size. setting: index into SETTINGS; first: the number of the first log."""

    setting: int
    decisions: int
    first: int
    logs: int
    seed: int


@dataclass(frozen=True, slots=True)
class CoverageResult:
    """One method on logs of one setting and size. above, below: intervals that lie there, seen from the truth.

    width: of all intervals together, as multiples of the truth.
    """

    setting: str
    decisions: int
    method: str
    logs: int
    above: int
    below: int
    width: float

    @property
    def coverage(self) -> float:
        """The share of intervals that hold the truth."""
        return 1 - (self.above + self.below) / self.logs

    @property
    def mean_width(self) -> float:
        """As a multiple of the truth."""
        return self.width / self.logs

    def __add__(self, other: CoverageResult) -> CoverageResult:
        """Of the logs of both."""
        sums = (self.logs + other.logs, self.above + other.above, self.below + other.below, self.width + other.width)
        return CoverageResult(self.setting, self.decisions, self.method, *sums)


def run(task: CoverageTask) -> list[CoverageResult]:
    """Pure: equal tasks have equal results, in every process. Methods that see none of the logs are left out."""
    setting = SETTINGS[task.setting]
    found: dict[str, list[Interval]] = {name: [] for name in METHODS}
    for number in range(task.first, task.first + task.logs):
        sample = draw(setting, task.decisions, np.random.default_rng((task.seed, task.setting, task.decisions, number)))
        for name, method in METHODS.items():
            if number % method.every == 0:
                found[name].append(method.of(sample, setting.value_range, number))
    return [_result(name, setting, task.decisions, intervals) for name, intervals in found.items() if intervals]


def _result(name: str, setting: Setting, decisions: int, intervals: Sequence[Interval]) -> CoverageResult:
    above = sum(interval.low > setting.truth for interval in intervals)
    below = sum(interval.high < setting.truth for interval in intervals)
    width = sum(interval.high - interval.low for interval in intervals) / abs(setting.truth)
    return CoverageResult(setting.name, decisions, name, len(intervals), above, below, width)


def version_of(_: CoverageTask) -> str:
    """Packages and code behind a result, with this file."""
    return f"{code_version()}, {blake2b(Path(__file__).read_bytes(), digest_size=6).hexdigest()}"


def run_all(
    tasks: Sequence[CoverageTask], *, console: Console, on: str, workers: int | None, keep: Path | None
) -> list[CoverageResult]:
    """The results of all tasks, added up by setting, size and method, with a progress bar."""
    found: dict[tuple[str, int, str], CoverageResult] = {}
    with counted(console, len(tasks), f"{len(tasks)} tasks of {CHUNK} logs") as done:
        kind = list[CoverageResult]
        parts = sweep(tasks, run, result=kind, folder=keep, on=on, workers=workers, version=version_of, on_done=done)
    for one in chain.from_iterable(parts):
        key = (one.setting, one.decisions, one.method)
        found[key] = found[key] + one if key in found else one
    return list(found.values())


def tasks_for(settings: Sequence[int], *, repetitions: int, seed: int) -> list[CoverageTask]:
    """In chunks; the large logs first, since they take longest.

    >>> tasks_for([0], repetitions=150, seed=1)[1]
    CoverageTask(setting=0, decisions=10000, first=100, logs=50, seed=1)
    """
    return [
        CoverageTask(setting, decisions, first, min(CHUNK, repetitions - first), seed)
        for decisions in sorted(SIZES, reverse=True)
        for setting in settings
        for first in range(0, repetitions, CHUNK)
    ]


def markdown(results: Sequence[CoverageResult]) -> str:
    """Coverage and mean width by method (rows), setting and size (columns).

    >>> print(markdown([CoverageResult("A", 300, "asymptotic", logs=100, above=1, below=9, width=28.0)]))
    | interval | A, 300 |
    |---|--:|
    | asymptotic | 90.0 % · 0.28 |
    """
    columns = sorted({(one.setting, one.decisions) for one in results})
    found = {(one.setting, one.decisions, one.method): one for one in results}
    lines = [["interval", *[f"{setting}, {decisions:,}" for setting, decisions in columns]]]
    for method in METHODS:
        row = [found.get((*column, method)) for column in columns]
        if any(row):
            lines.append([method, *[f"{one.coverage:.1%} · {one.mean_width:.3g}" if one else "" for one in row]])
    first, *others = ["| " + " | ".join(line).replace("%", " %") + " |" for line in lines]
    return "\n".join([first, "|---" + "|--:" * len(columns) + "|", *others])


def report(results: Sequence[CoverageResult], settings: Sequence[int], *, repetitions: int, seed: int) -> str:
    """The table, and what it shows."""
    slow = ", ".join(
        f"{name}: {math.ceil(repetitions / one.every):,}" for name, one in METHODS.items() if one.every > 1
    )
    error = math.sqrt(LEVEL * (1 - LEVEL) / repetitions)
    described = "\n".join(
        f"- {SETTINGS[index].name}: {SETTINGS[index].text}; the truth is {SETTINGS[index].truth:.4g}"
        for index in settings
    )
    return (
        f"Share of nominal {LEVEL:.0%} intervals that hold the truth · mean width as a multiple of the truth, by\n"
        f"setting and decisions; {repetitions:,} logs from seed {seed} ({slow});\n"
        f"a share of {LEVEL:.0%} has a standard error of {error:.1%}.\n\n{described}\n\n{markdown(results)}\n"
    )


def _matching(_: click.Context, __: click.Parameter, pattern: str) -> list[int]:
    try:
        found = [index for index, setting in enumerate(SETTINGS) if re.fullmatch(pattern, setting.name)]
    except re.error as error:
        raise click.BadParameter(f"{pattern!r} is not a regular expression: {error}") from error
    if not found:
        raise click.BadParameter(f"{pattern!r} matches none of: {'; '.join(one.name for one in SETTINGS)}")
    return found


_EXAMPLE = """\b
Examples:
  python -m simulator.studies.coverage --repetitions 400
  python -m simulator.studies.coverage --settings '[D-I]' --json coverage.json > coverage.md
  python -m simulator.studies.coverage --settings '[A-I]' --keep cells --on ray://head-node:10001"""


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120}, epilog=_EXAMPLE)
@click.option("--repetitions", type=click.IntRange(min=1), default=5_000, show_default=True, help="Logs for each cell.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Other logs.")
@click.option(
    "--settings", callback=_matching, default="[ABC]", show_default=True, metavar="REGEX", help="Which worlds."
)
@workers_option
@on_option
@click.option("--keep", type=FOLDER, metavar="DIR", help="Keep every task there: the same again runs what is missing.")
@click.option(
    "--json", "file", type=click.File("w", lazy=False), metavar="FILE", help="Write every cell's counts, too."
)
def main(
    repetitions: int,
    seed: int,
    settings: list[int],
    workers: int | None,
    on: str,
    keep: Path | None,
    file: TextIO | None,
) -> None:
    """How often intervals hold the true value of a candidate, and how wide they are; a Markdown table."""
    tasks = tasks_for(settings, repetitions=repetitions, seed=seed)
    with bad_input():
        results = run_all(tasks, console=Console(stderr=True), on=on, workers=workers, keep=keep)
    click.echo(report(results, settings, repetitions=repetitions, seed=seed), nl=False)
    if file is not None:
        json.dump(
            [{**asdict(one), "coverage": one.coverage, "mean_width": one.mean_width} for one in results], file, indent=1
        )


if __name__ == "__main__":
    from simulator.studies.coverage import main as command  # so that workers find tasks by this module's name

    command()
