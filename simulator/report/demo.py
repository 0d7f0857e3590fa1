"""The demo's table: what was learned, by segment. Called by `simulator demo`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from decider.estimate.mean import Interval
from decider.text import count, figure, signed
from simulator.drive.demo import Group, GroupRewards, Sent
from simulator.drive.returning import VISITS, Place
from simulator.report.table import Cell, Column, Table

NamedGroup = tuple[str, Group]
"""A group of visitors by its name."""


def sent_line(sent: Sent) -> str:
    """What came of the visits."""
    return f"{sent.decisions} decisions, {sent.clicks} clicks: {sent.lost} lost on the way; rewards: " + ", ".join(
        f"{count} {name}" for name, count in sorted(sent.outcomes.items())
    )


def rewards_table(found: GroupRewards) -> Table[NamedGroup]:
    """Rewards of the learning policy, and what the same visits were worth to others."""
    columns: Sequence[Column[NamedGroup]] = (
        Column("Segment", lambda row: row[0], "name"),
        Column("Visits", lambda row: count(row[1].learned.count), "number"),
        Column("Learning policy", lambda row: _estimate(row[1].learned.interval()), "number"),
        Column("Uniform choice", lambda row: figure(row[1].uniform.value), "number"),
        Column("Best single action", lambda row: figure(row[1].fixed.value), "number"),
        Column("Difference to uniform choice", lambda row: _difference(row[1].above_uniform.interval()), "number"),
        Column("Difference to best single action", lambda row: _difference(row[1].above_fixed.interval()), "number"),
    )
    return Table(
        "Clicks/visit, with 95 % intervals",
        columns,
        list(found.groups.items()),
        note=f"Best single action: {found.best}. Uniform choice and best single action: the same visits' known means "
        "in this world",
        look=lambda row: "foot" if row[0].startswith("all") else "",
    )


def _estimate(found: Interval) -> Cell:
    return Cell(figure(found.value), _half(found))


def _difference(found: Interval) -> Cell:
    return Cell(signed(found.value), _half(found))


def _half(found: Interval) -> str:
    """Of the interval, which is as wide on both sides."""
    return f"±{figure(found.high - found.value)}" if math.isfinite(found.high) else ""


def returning_table(places: Sequence[Place]) -> Table[Place]:
    """What visitors saw who came back."""
    columns: Sequence[Column[Place]] = (
        Column("Experiment", lambda row: row.experiment, "name"),
        Column("Calls", lambda row: count(row.calls), "number"),
        Column("New draws", lambda row: count(row.drawn), "number"),
        Column("Same answer again", lambda row: count(row.calls - row.drawn), "number"),
        Column("Visitors whose answer changed", lambda row: count(row.changed), "number"),
        Column("`none` shown", lambda row: count(row.none), "number"),
        Column("Most offers to one visitor", lambda row: count(row.most_offers), "number"),
    )
    return Table(
        f"Visitors who come {VISITS} times",
        columns,
        places,
        note="checkout is sticky for an hour; exit-offer has a cap: one offer a visitor and week, then `none`",
    )
