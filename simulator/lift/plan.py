"""What is known before a holdout begins -> how large it should be, how long it takes, what it costs. Called by
`simulator plan`.

The lift is taken to be there from the first day. A policy that has to learn first needs that time, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from decider.estimate.lift import LEVEL
from simulator.lift.power import POWER, Design, Rewards, decisions_needed, smallest_lift

SCHEMA = 1

SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)

DAYS = 28.0
"""In which the answer is wanted, unless somebody says otherwise."""

WEEK = 7.0


@dataclass(frozen=True, slots=True)
class Question:
    """lift: the smallest one worth finding, in units of the reward; None: which one can be found in `days`?

    traffic: decisions a day, of both groups. days: in which an answer is wanted. source: where the figures are from.
    """

    rewards: Rewards
    traffic: float
    lift: float | None
    days: float = DAYS
    shares: tuple[float, ...] = SHARES
    power: float = POWER
    level: float = LEVEL
    source: str = ""


@dataclass(frozen=True, slots=True)
class PlanRow:
    """Of one share. lift: that is found; None: none can be, in that time. days: until the interval excludes 0 with the
    power that is asked for, valid at every look; fixed_days: of a test that is looked at once. cost: of the holdout
    until then, in rewards; per_week: afterwards."""

    share: float
    lift: float | None
    relative: float | None
    days: float
    fixed_days: float | None
    cost: float | None
    per_week: float | None


@dataclass(frozen=True, slots=True)
class PlanResult:
    """best: index of the row to take: the smallest holdout that answers in time, or the fastest one. Where no lift was
    named only a single row is one to take, if it has an answer. in_time: whether `best` answers in time."""

    question: Question
    rows: tuple[PlanRow, ...]
    best: int | None
    in_time: bool
    schema: int = field(default=SCHEMA)


def find_plan(question: Question) -> PlanResult:
    """A row for every share, and which to take."""
    if question.lift is None:
        rows = tuple([_lift_row(question, share) for share in question.shares])
        best = 0 if len(rows) == 1 and rows[0].lift is not None else None
        return PlanResult(question, rows, best, in_time=best is not None)
    rows = tuple([_row(question, share, question.lift, None) for share in question.shares])
    in_time = [index for index, row in enumerate(rows) if row.days <= question.days]
    fastest = min(range(len(rows)), key=lambda index: rows[index].days)
    best = min(in_time, key=lambda index: rows[index].share, default=fastest)
    return PlanResult(question, rows, best, in_time=bool(in_time))


def _lift_row(question: Question, share: float) -> PlanRow:
    decisions = question.days * question.traffic
    lift = smallest_lift(question.rewards, share, decisions, level=question.level, power=question.power)
    if lift is None:
        return PlanRow(share, None, None, question.days, None, None, None)
    return _row(question, share, lift, question.days)


def _row(question: Question, share: float, lift: float, days: float | None) -> PlanRow:
    design = Design(question.rewards, share, lift, question.level)
    took = decisions_needed(design, question.power) / question.traffic if days is None else days
    a_day = share * lift * question.traffic
    mean = question.rewards.mean
    return PlanRow(
        share=share,
        lift=lift,
        relative=lift / mean if mean > 0 else None,
        days=took,
        fixed_days=design.fixed(question.power) / question.traffic,
        cost=a_day * took,
        per_week=a_day * WEEK,
    )


def shares_of(given: Sequence[float]) -> tuple[float, ...]:
    """Those that were given, or the usual ones."""
    return tuple(sorted(set(given))) or SHARES
