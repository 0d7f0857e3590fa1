r"""A log in parts from end to end: divide, evaluate each part, put together. Called by its command.

log --> divide (by unit) --> check_part (the first)
                        \--> evaluate_part --> sums of all --> spread_of_part --> count_of_part --> estimates
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from hashlib import blake2b
from operator import add
from pathlib import Path
from typing import Protocol, TypeVar

from decider.estimate.default_interval import NAME as DEFAULT
from decider.estimate.divided import SampleSums, Spread, divided_interval
from decider.estimate.mean import Interval
from decider.estimate.possible import Range
from decider.estimate.sample import Floats
from simulator.compare.on_log import Reading
from simulator.evaluate.result import Difference, Estimate, PolicyResult
from simulator.evaluate.support import wide_enough
from simulator.large.part import (
    DIFFERENCE,
    KINDS,
    CountsOfPart,
    MeanOfPart,
    PartChecks,
    PartSums,
    PartTask,
    Placing,
    PlacingTask,
    SpreadsOfPart,
    check_part,
    count_of_part,
    evaluate_part,
    spread_of_part,
    unpack,
)
from simulator.large.result import LargeEvaluation, LargePolicy
from simulator.logs.divide import DividedRows, DivideTask, divide, part_folder, plan_division
from simulator.logs.errors import BadLog
from simulator.run.versions import code_version, state, version_of_policy

T = TypeVar("T", bound=Hashable)
R = TypeVar("R")

LOGGED, SNIPS = "logged", "snips"


class Mapper(Protocol):
    """A sweep with its engine and folder; what: for people."""

    def __call__(
        self, tasks: Sequence[T], function: Callable[[T], R], *, result: type[R], version: Callable[[T], str], what: str
    ) -> list[R]:
        """As `sweep` does."""


@dataclass(frozen=True, slots=True)
class _Mean:
    """One mean over all parts. sums: of each kind; files: of each part."""

    sums: tuple[SampleSums, ...]
    files: tuple[str, ...]

    @classmethod
    def of(cls, parts: Sequence[MeanOfPart]) -> _Mean:
        """Where some part misses actions, all have three kinds."""
        kinds = max(len(one.sums) for one in parts)
        sums = [reduce(add, [one.sums[min(kind, len(one.sums) - 1)] for one in parts]) for kind in range(kinds)]
        return cls(tuple(sums), tuple([one.file for one in parts]))

    def placings(self, part: int) -> list[Placing]:
        """Of one part, one for each kind."""
        return [Placing(self.files[part], kind, one) for kind, one in enumerate(self.sums)]


Means = dict[tuple[int, str], _Mean]
"""By the policy's place and the estimator's name."""
Intervals = dict[tuple[int, str], Interval]


def evaluate_in_parts(
    reading: Reading, policies: Sequence[str], *, parts: int | None, folder: Path, force: bool, run: Mapper
) -> LargeEvaluation:
    """Estimates of what each policy would have earned. reading.reward_range must be declared. Raises DeciderError.

    folder: gets a copy of the log, divided, and files for each policy; all workers must see it under this path.
    """
    started = time.perf_counter()
    assert reading.reward_range
    place = folder / _name(reading, parts)
    division = plan_division(Path(reading.log), reading.options, parts=parts, folder=place)
    rows = f"dividing {division.rows:,} rows into {division.parts} parts"
    divided = run(division.tasks, divide, result=DividedRows, version=_version_of_division, what=rows)
    told = reading if division.says_eligible else replace(reading, actions=_actions(reading, divided))
    names = tuple(dict.fromkeys([LOGGED, *policies]))
    tasks = [
        PartTask(replace(told, log=str(part_folder(place, part))), names)
        for part, rows_of_part in enumerate(zip(*[one.by_part for one in divided], strict=True))
        if any(rows_of_part)
    ]
    (checks,) = run(tasks[:1], check_part, result=PartChecks, version=_version, what="checking the first part")
    found = run(tasks, evaluate_part, result=PartSums, version=_version, what=f"evaluating {len(tasks)} parts")
    intervals = _intervals(_means(found), reading.reward_range, run)
    return LargeEvaluation(
        log=reading.log,
        decisions=sum(one.decisions for one in found),
        units=sum(one.units for one in found),
        parts=len(found),
        checked=checks.log.decisions,
        reward_range=reading.reward_range,
        left_out=dict(sum((Counter(one.left_out) for one in found), Counter())),
        policies=tuple(
            [
                _policy(number, checked, found, intervals, reading.reward_range, force=force)
                for number, checked in enumerate(checks.policies)
            ]
        ),
        seconds=time.perf_counter() - started,
    )


def _name(reading: Reading, parts: int | None) -> str:
    """A folder for each log and way to divide it: another one must not leave its files in it."""
    what = (state(reading.log), reading.columns, state(str(reading.mapping or "")), parts)
    return f"divided-{blake2b(repr(what).encode(), digest_size=6).hexdigest()}"


def _actions(reading: Reading, divided: Sequence[DividedRows]) -> tuple[str, ...]:
    """Of the whole log: a part need not have all. Raises BadLog."""
    if isinstance(reading.actions, int):
        raise BadLog(f"--actions {reading.actions}: in a log in parts name the actions, not how many there are")
    return tuple(sorted({*(reading.actions or ()), *[action for one in divided for action in one.actions]}))


def _version_of_division(task: DivideTask) -> str:
    return f"{code_version()}, {state(task.file)}"


def _version(task: PartTask) -> str:
    """Without the state of the part: its folder's name tells that of the log."""
    return ", ".join([state(str(task.reading.mapping or "")), *map(version_of_policy, task.policies)])


def _version_of_code(_: PlacingTask) -> str:
    return code_version()


def _means(found: Sequence[PartSums]) -> Means:
    """Those that every part has: without weights other than 1 a part has no reward model for a policy."""
    means: Means = {}
    for place in range(len(found[0].policies)):
        of_parts = [one.policies[place].means for one in found]
        for name in of_parts[0]:
            if all(name in one for one in of_parts):
                means[place, name] = _Mean.of([one[name] for one in of_parts])
    return means


def _intervals(means: Means, value_range: Range, run: Mapper) -> Intervals:
    """Of every mean: two more passes over the terms of all parts."""
    parts = len(next(iter(means.values())).files)
    tasks = [
        PlacingTask(tuple([placing for mean in means.values() for placing in mean.placings(part)]))
        for part in range(parts)
    ]
    spreads = run(tasks, spread_of_part, result=SpreadsOfPart, version=_version_of_code, what="placing their terms")
    spread = [reduce(add, of_parts) for of_parts in zip(*[one.spreads for one in spreads], strict=True)]
    placed = [
        PlacingTask(tuple([replace(one, spread=on) for one, on in zip(task.placings, spread, strict=True)]))
        for task in tasks
    ]
    counted = run(placed, count_of_part, result=CountsOfPart, version=_version_of_code, what="counting their terms")
    count = [reduce(add, map(unpack, of_parts)) for of_parts in zip(*[one.counts for one in counted], strict=True)]
    kinds = iter(zip(tasks[0].placings, spread, count, strict=True))
    return {
        key: _interval([next(kinds) for _ in mean.sums], _range_of(key[1], value_range)) for key, mean in means.items()
    }


def _range_of(name: str, value_range: Range) -> Range:
    width = value_range[1] - value_range[0]
    return (-width, width) if name == DIFFERENCE else value_range


def _interval(kinds: Sequence[tuple[Placing, Spread, Floats]], value_range: Range) -> Interval:
    """From the low end of the lowest to the high end of the highest, as `Samples.interval` has it."""
    found = [
        wide_enough(divided_interval(one.sums, spread, count, value_range=value_range), one.sums.value, value_range)
        for one, spread, count in kinds
    ]
    own, lowest, highest = found if len(found) == len(KINDS) else found * len(KINDS)
    return Interval(own.value, lowest.low, highest.high)


def _policy(
    number: int,
    checked: PolicyResult,
    found: Sequence[PartSums],
    intervals: Intervals,
    value_range: Range,
    *,
    force: bool,
) -> LargePolicy:
    of_parts = [one.policies[number] for one in found]
    decisions = sum(one.decisions for one in found)
    weights, squares = sum(one.weights for one in of_parts), sum(one.squares for one in of_parts)
    refused = checked.refused and not force
    estimates = {name: _estimate(one) for (place, name), one in intervals.items() if place == number}
    difference = estimates.pop(DIFFERENCE)
    if weights:
        estimates[SNIPS] = _snips(
            sum(one.weighted_rewards for one in of_parts) / weights, estimates["ips"], value_range
        )
    headline = "dr" if "dr" in estimates else "ips"
    return LargePolicy(
        name=checked.name,
        estimand=checked.estimand,
        refused=refused,
        headline=headline,
        ess=weights**2 / squares if squares else 0.0,
        max_weight=max(one.max_weight for one in of_parts),
        missing_mass=sum(one.missing for one in of_parts) / decisions,
        diagnostics=checked.diagnostics,
        estimates={} if refused else estimates,
        difference=None
        if refused or checked.name == LOGGED
        else Difference(LOGGED, headline, difference.value, difference.low, difference.high, difference.interval),
    )


def _estimate(found: Interval) -> Estimate:
    return Estimate(found.value, found.low, found.high, DEFAULT)


def _snips(value: float, ips: Estimate, value_range: Range) -> Estimate:
    """The same mean as IPS estimates: its interval, widened to hold this value."""
    held = min(max(value, value_range[0]), value_range[1])
    return replace(ips, value=held, low=min(ips.low, held), high=max(ips.high, held))
