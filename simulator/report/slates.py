"""What policies would have earned a whole page, in words and tables. Called by `evaluation.py` and by the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from decider.text import between, count, figure
from simulator.evaluate.answer import LOGGED, conclude
from simulator.evaluate.result import Estimate, PageResults, PageReward, PolicyResult
from simulator.report.table import Cell, Column, Table, difference, estimate

INTERVAL = "95 % interval"

Row = PageResults | PolicyResult
"""The pages as logged, or a policy."""

REWARDS: Mapping[PageReward, str] = {
    "sum": "A page earns the sum of what its slots earn.",
    "page": "The reward is that of the page: every slot has it, so it counts once.",
}

NOTE = (
    "ips needs no assumption. rips varies less, and is right where a slot's reward does not depend on the slots behind "
    "it. The tables above are of single slots, each behind what was logged before it."
)

TITLES: Mapping[str, str] = {
    "ips": "ips, whole pages",
    "snips": "snips, whole pages",
    "rips": "rips, slots and those before",
    "snrips": "self-normalised rips",
    "iips": "iips, each slot alone",
}


def pages_text(slates: PageResults) -> str:
    """How many pages there are, and what one of them earns.

    >>> logged = Estimate(0.5, 0.4, 0.6, "")
    >>> pages_text(PageResults(900, 2, 1_800, 2, "page", logged, (0.0, 1.0), ()))
    'Slates: 900 pages with 2 slots. The reward is that of the page: every slot has it, so it counts once. 2 pages are \
left out, since a slot of them is.'
    """
    most = slates.most_slots
    slots = f"{most}" if slates.pages * most == slates.slots else f"up to {most}"
    left_out = f" {count(slates.incomplete)} pages are left out, since a slot of them is." if slates.incomplete else ""
    return f"Slates: {count(slates.pages)} pages with {slots} slots. {REWARDS[slates.reward]}{left_out}"


def pages_table(slates: PageResults) -> Table[Row]:
    """What was logged, then each policy: what it would have earned a page."""
    columns: Sequence[Column[Row]] = (
        Column("Policy", lambda one: LOGGED if isinstance(one, PageResults) else one.name, "name"),
        Column("Reward/page", _value, "number", INTERVAL),
        Column("Difference", _difference, "number", INTERVAL),
        Column("ESS", _evidence, "number"),
        Column("Verdict", _verdict, "verdict"),
    )
    look = {True: "logged", False: ""}
    return Table(
        "Whole pages", columns, (slates, *slates.policies), NOTE, lambda one: look[isinstance(one, PageResults)]
    )


def _value(one: Row) -> Cell:
    if isinstance(one, PageResults):
        return estimate(one.mean_reward.value, one.mean_reward.low, one.mean_reward.high)
    if one.refused:
        return Cell("refused", note="this log cannot answer it", tone="do not use")
    found = one.estimates[one.headline]
    return estimate(found.value, found.low, found.high, note=f"by {one.headline}")


def _difference(one: Row) -> Cell:
    if isinstance(one, PageResults) or one.difference is None:
        return Cell("-")
    return difference(one.difference.value, one.difference.low, one.difference.high, note=conclude(one))


def _evidence(one: Row) -> str:
    return count(one.pages) if isinstance(one, PageResults) else figure(one.diagnostics.ess)


def _verdict(one: Row) -> Cell:
    if isinstance(one, PageResults):
        return Cell("-")
    return Cell(one.diagnostics.verdict, tone=one.diagnostics.verdict)


def page_estimates_table(result: PolicyResult) -> Table[tuple[str, Estimate]]:
    """Every estimate of one policy's pages, and where it is biased."""
    columns: Sequence[Column[tuple[str, Estimate]]] = (
        Column("Estimator", lambda row: TITLES[row[0]], "name"),
        Column("Reward/page", lambda row: figure(row[1].value), "number"),
        Column(INTERVAL, lambda row: between(row[1].low, row[1].high), "number"),
        Column("Bias", lambda row: row[1].note or "-", "prose"),
    )
    rows = list(result.estimates.items())
    look = {result.headline: "headline"}
    return Table(
        f"{result.name}: {count(result.decisions)} pages", columns, rows, look=lambda row: look.get(row[0], "")
    )
