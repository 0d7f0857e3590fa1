"""Differences of policies on the same decisions of a log -> simultaneous intervals. Called by `simulator compare`.

Each interval is the evaluation's default one (empirical likelihood, by unit), at the level at which all of a family
hold at once: the largest of their |z| has the quantile that maxT gives (see `paired.py`), with the correlation of the
differences over units. That one is known well, since there are thousands of units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
from scipy.special import ndtr

from decider.estimate.default_interval import NAME
from decider.estimate.mean import Interval
from simulator.compare.on_log import (
    LOGGED,
    LogResult,
    Sums,
    difference,
    note_other_decisions,
    on_same_decisions,
    standing,
)
from simulator.compare.paired import Comparison, Floats, Largest
from simulator.compare.result import LEVEL, ComparisonResult, Family, Standing, Value, rank
from simulator.evaluate.checks.log import log_findings
from simulator.evaluate.reward_bounds import possible_rewards
from simulator.evaluate.verdicts import by_severity
from simulator.logs.columns import Columns

REWARD = "reward/decision"
GROUPS = 10_000
"""Of units, for correlations: their error is 1 %."""

FAR, STEPS = 8.0, 10
"""Standard errors beyond which p is 0 for people, and halvings on the way to it."""


def compare(
    columns: Columns,
    results: Mapping[str, LogResult],
    parameters: Mapping[str, Mapping[str, Value]],
    *,
    reference: str,
    every_pair: bool,
    on_done: Callable[[float], None] = lambda _: None,
) -> ComparisonResult:
    """What the tasks found on one log, and which differences are real. parameters: of each policy, by name."""
    sums = on_same_decisions(results, reference)
    standings = [standing(name, one, parameters[name]) for name, one in results.items()]
    families = [
        family(sums, possible_rewards(columns), reference=reference, every_pair=every, on_done=on_done)
        for every in ([False, True] if every_pair else [False])
    ]
    return ComparisonResult(
        subject=columns.name,
        line="",
        figure=REWARD,
        conditions=_conditions(columns, standings),
        reference=reference,
        standings=rank(note_other_decisions(standings, sums, reference)),
        families=tuple([one for one in families if one.comparisons]),
        notes=tuple(_notes(columns, results, reference if not sums else "")),
    )


def _conditions(columns: Columns, standings: Sequence[Standing]) -> str:
    estimands = {one.estimand for one in standings if one.estimand}
    said = f"Estimand: {estimands.pop()}; " if len(estimands) == 1 else ""
    return f"{said}{len(columns):,} decisions."


def _notes(columns: Columns, results: Mapping[str, LogResult], missing: str) -> Iterator[str]:
    """missing: the reference where it cannot be compared with."""
    for finding in by_severity(log_findings(columns)):
        if finding.verdict != "fine":
            yield f"The log, {finding.verdict}: {finding.text} Needed: {finding.needed}"
    for name, one in results.items():
        if one.result and not one.result.refused and one.result.diagnostics.verdict != "fine" and name != LOGGED:
            yield f"{name}, {one.result.diagnostics.verdict}: {' '.join(one.result.diagnostics.reasons)}"
    if missing:
        yield f"{missing} cannot be compared with on this log; name another one: --against logged"


def family(
    sums: Mapping[str, Sums],
    value_range: tuple[float, float],
    *,
    reference: str,
    every_pair: bool = False,
    level: float = LEVEL,
    on_done: Callable[[float], None] = lambda _: None,
) -> Family:
    """Each policy less the reference, or every pair. sums: on the same decisions. on_done: gets the share done."""
    pairs = [(name, reference) for name in sums if name != reference]
    how = f"on the same decisions, by unit, {NAME}; simultaneous {100 * level:g} % confidence intervals"
    if every_pair:
        pairs, how = list(combinations(sums, 2)), f"every pair, {how}"
    if not pairs:
        return Family(REWARD, how, ())
    largest = Largest.normal(_correlation(sums, pairs))
    found = []
    for number, (one, other) in enumerate(pairs, 1):
        found.append(_compared(one, other, sums, value_range, largest, level))
        on_done(number / len(pairs))
    return Family(REWARD, how, tuple(found))


def _compared(
    name: str, against: str, sums: Mapping[str, Sums], value_range: tuple[float, float], largest: Largest, level: float
) -> Comparison:
    if sums[name].possible_weight <= 1:  # the log's own policy: the other's weights say more
        turned = _difference_interval(sums[against], sums[name], value_range)
        return _comparison(name, against, lambda z: _negative(turned(z)), largest, level)
    return _comparison(name, against, _difference_interval(sums[name], sums[against], value_range), largest, level)


def _comparison(
    name: str, against: str, interval: Callable[[float], Interval], largest: Largest, level: float
) -> Comparison:
    critical = largest.critical(level)
    found = interval(critical)
    real = found.low > 0 or found.high < 0
    p = largest.p_value(_reach(interval, critical if real else 0.0, FAR if real else critical))
    return Comparison(name, against, found.value, found.low, found.high, p, real)


def _difference_interval(one: Sums, other: Sums, value_range: tuple[float, float]) -> Callable[[float], Interval]:
    """The interval of the difference, as wide as z standard errors where decisions are many."""
    samples = difference(one, other)
    wide = value_range[1] - value_range[0]
    same = not samples.own.total.any() and one.possible_weight <= 1

    def interval(z: float) -> Interval:
        if same:
            return Interval(0.0, 0.0, 0.0)
        return samples.interval((-wide, wide), level=float(1 - 2 * ndtr(-z)))  # as `simulator evaluate` has it

    return interval


def _negative(one: Interval) -> Interval:
    return Interval(-one.value, -one.high, -one.low)


def _reach(interval: Callable[[float], Interval], low: float, high: float) -> float:
    """The z at which the interval begins to hold 0; it is between the two, or at least `high`."""
    for _ in range(STEPS):
        middle = (low + high) / 2
        found = interval(middle)
        low, high = (middle, high) if found.low > 0 or found.high < 0 else (low, middle)
    return low


def _correlation(sums: Mapping[str, Sums], pairs: Sequence[tuple[str, str]]) -> Floats:
    """(pairs, pairs): of the differences' errors."""
    errors = {name: _errors(one) for name, one in sums.items()}
    apart = np.array([errors[one] - errors[other] for one, other in pairs]).reshape(len(pairs), -1)
    lengths = np.linalg.norm(apart, axis=1, keepdims=True)
    standard = apart / np.where(lengths > 0, lengths, 1.0)
    found = standard @ standard.T
    np.fill_diagonal(found, 1.0)
    return np.asarray(found)


def _errors(one: Sums) -> Floats:
    """What each group of units adds to the error of the mean term, in any unit."""
    total, _, size = one.arrays
    errors = total - total.sum() / size.sum() * size
    groups = min(len(errors), GROUPS)
    return np.bincount(np.arange(len(errors)) % groups, weights=errors, minlength=groups).astype(np.float64)
