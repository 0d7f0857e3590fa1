"""The table of a drive with the Open Bandit Dataset: click rates. Called by `simulator drive open-bandit`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from decider.estimate.binomial import Proportion, part_less_whole, proportion_interval
from decider.estimate.mean import Interval
from decider.text import count, percent, signed_percent
from simulator.drive.open_bandit import WINDOW, DriveSummary, Pass
from simulator.report.table import Cell, Column, Table, estimate


class Rate(NamedTuple):
    """A policy's clicks. difference: of its click rate to that of the uniform choice; None in the latter's own row."""

    policy: str
    clicks: Proportion
    difference: Interval | None


def rates_table(driven: DriveSummary) -> Table[Rate]:
    """Click rates: of the learning policy on the rows it matched, of the uniform choice on all rows."""
    columns: Sequence[Column[Rate]] = (
        Column("Policy", lambda row: row.policy, "name"),
        Column("Rows", lambda row: count(row.clicks.trials), "number"),
        Column("Clicks", lambda row: count(row.clicks.successes), "number"),
        Column("Click rate", _rate, "number", "95 % interval"),
        Column("Difference to uniform choice", _difference, "number", "95 % interval"),
    )
    uniform = Rate("uniform choice, on all rows", _all(driven.passes[0]), None)
    return Table(f"{driven.experiment}: click rates", columns, [*_learning(driven), uniform], note=caption(driven))


def _learning(driven: DriveSummary) -> list[Rate]:
    return [
        Rate(
            "learning, on the rows it matched" + (f", pass {number}" if len(driven.passes) > 1 else ""),
            _matched(counted),
            part_less_whole(_matched(counted), _all(counted)),
        )
        for number, counted in enumerate(driven.passes, start=1)
    ]


def _matched(counted: Pass) -> Proportion:
    return Proportion(counted.matched_clicks, counted.matched)


def _all(counted: Pass) -> Proportion:
    return Proportion(counted.clicks, counted.rows)


def _rate(row: Rate) -> Cell:
    if not row.clicks.trials:
        return Cell("-")
    found = proportion_interval(row.clicks)
    return estimate(found.value, found.low, found.high, written=percent)


def _difference(row: Rate) -> Cell:
    if row.difference is None:
        return Cell("-")
    return estimate(row.difference.value, row.difference.low, row.difference.high, written=signed_percent)


def caption(driven: DriveSummary) -> str:
    """What the table's figures mean and how far they reach."""
    lines = [
        "learning: a progressive learner, on the rows where it chose the logged item.",
        "uniform choice: the policy that logged the rows; each row is a sample of it.",
        "So few clicks on so few matched rows leave a wide interval:",
        "only a very large difference could show.",
    ]
    if len(driven.passes) > 1:
        lines += ["From pass 2 on the policy has seen these very rows:", "its click rate there is no forecast."]
    if driven.had_learned:
        lines += ["The server had learned this experiment before, perhaps from these", "very rows: use a fresh log."]
    late = sum(counted.late for counted in driven.passes)
    if late:
        lines += [f"{late} answers may have missed the window of {WINDOW} s: such rows", "are learned with reward 0."]
    return "\n".join(lines)
