"""What `simulator plan` prints: one sentence to act on, one short table, what was taken for granted. Called by its
command."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from decider.text import count, percent, printable, rough, signed_percent
from simulator.lift.plan import PlanResult, PlanRow
from simulator.report.table import Cell, Column, Table, in_terminal

WEEK = 7.0

LONGEST = 3_650.0
"""Days that anybody would wait."""


def plan_parts(plan: PlanResult) -> Iterator[RenderableType]:
    """Everything in the order in which it should be read."""
    yield Text(conclusion(plan), "bold")
    yield in_terminal(table(plan))
    yield from map(Text, map(printable, sentences(plan)))


def conclusion(plan: PlanResult) -> str:
    """What to do, in one sentence or two."""
    question = plan.question
    if plan.best is None:
        return _no_row(plan)
    row = plan.rows[plan.best]
    share, chance = percent(row.share), percent(question.power)
    if question.lift is None:
        return (
            f"A holdout of {share} finds a lift of {_lift(row)} or more within {days(row.days)}, "
            f"with a probability of {chance} or more."
        )
    found = f"it finds a lift of {_lift(row)} within {days(row.days)}, with a probability of {chance}"
    if plan.in_time or len(plan.rows) == 1:
        return f"Hold out {share} of the units: {found}."
    return (
        f"No holdout answers within {days(question.days)}: there is too little traffic for so small a lift. "
        f"The fastest is {share}: {found}."
    )


def _no_row(plan: PlanResult) -> str:
    question = plan.question
    if all(row.lift is None for row in plan.rows):
        return f"No lift can be found within {days(question.days)} with this traffic: take more days."
    return (
        f"The smallest lift that each holdout finds within {days(question.days)}. A larger holdout finds a smaller "
        "lift and costs more: name the lift worth finding (--lift) to have one recommended."
    )


def table(plan: PlanResult) -> Table[PlanRow]:
    """A row for each share."""
    lifts = plan.question.lift is None
    columns: list[Column[PlanRow]] = [
        Column("Holdout", lambda row: Cell(percent(row.share), tone="fine" if _is_best(plan, row) else ""), "name"),
        Column("Smallest lift", lambda row: _lift(row) if row.lift is not None else "-", "number"),
        Column("Days", lambda row: _days(row.days), "number"),
        Column("One look", lambda row: _days(row.fixed_days), "number", unit="days"),
        Column("Cost", lambda row: _cost(row.cost), "number", unit="until then"),
        Column("Then", lambda row: _cost(row.per_week), "number", unit="per week"),
    ]
    return Table(
        title="How large a holdout, and how long",
        columns=columns if lifts else [one for one in columns if one.heading != "Smallest lift"],
        rows=plan.rows,
        note=f"power {percent(plan.question.power)}, level {percent(plan.question.level)}",
    )


def _is_best(plan: PlanResult, row: PlanRow) -> bool:
    return plan.best is not None and plan.rows[plan.best] is row


def _cost(rewards: float | None) -> str:
    return "-" if rewards is None else rough(rewards)


def _lift(row: PlanRow) -> str:
    lift = rough(row.lift or 0.0, digits=3)
    return lift if row.relative is None else f"{lift} ({signed_percent(float(f'{row.relative:.3g}'))})"


def _days(number: float | None) -> str:
    if number is None:
        return "-"
    return count(math.ceil(number - 1e-9)) if number <= LONGEST else f"over {count(int(LONGEST))}"


def days(number: float) -> str:
    """Whole days, rounded up.

    >>> days(0.2), days(11.3), days(1e9)
    ('1 day', '12 days', 'over 3,650 days')
    """
    written = _days(number)
    return f"{written} day{'' if written == '1' else 's'}"


def sentences(plan: PlanResult) -> Iterator[str]:
    """What was taken for granted, and what the columns mean."""
    question = plan.question
    rewards = question.rewards
    told = f"{count(round(question.traffic))} decisions a day"
    if rewards.visits > 1:
        told += f", {rough(rewards.visits)} of a unit"
    earned = f"mean reward {rough(rewards.mean, digits=3)} without the policy"
    deviation = "" if rewards.is_rate else f" (standard deviation {rough(rewards.deviation, digits=3)})"
    yield f"Taken for granted: {told}, {earned}{deviation}{question.source and f', from {question.source}'}."
    yield (
        "Days: until the interval of simulator lift and of decider_lift has excluded 0, if somebody looks always; who "
        "looks once a day finds it about a day later. One look: a test that nobody may look at before."
    )
    yield "The cost is what the units in the holdout do not earn, if the lift is that large: share x lift x decisions."
    best = plan.rows[plan.best] if plan.best is not None else None
    if best is not None and best.days < WEEK:
        yield f"Let it run for a week all the same: {days(best.days)} do not hold every day of the week."
    if rewards.visits > 1 and not rewards.correlation and not question.source:
        yield "Visits of a unit are taken as independent: --correlation says otherwise, --log measures it."
    yield "The lift is there from the first day here: a policy that has to learn first needs that time, too."
