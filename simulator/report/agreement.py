"""What `simulator agreement` prints: shares, then rewards. Called by its command."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console

from decider.estimate.mean import Interval
from decider.text import between, count, figure, percent
from simulator.agreement import AgreementReport, Earned, Shares
from simulator.report.table import Column, Table, in_terminal

NEWEST = 1_000
"""Decisions that show how far the policy is now."""

MOST_ACTIONS = 20

UNSEEN = (
    "Where the policy would do something else nobody has seen what that earns. The bounds hold whatever it is, and "
    "nothing in this log can narrow them: a default action is the only one that its context has. What the policy earns "
    'is measured once it decides: learning = "online", with a holdout, then simulator evaluate.'
)


def print_agreement(report: AgreementReport, console: Console) -> None:
    """The whole answer."""
    console.print(in_terminal(_shares_table(report)))
    for line in [*_counts("Not compared", report.left_out), *_counts("Without a reward", report.unrewarded)]:
        console.print(line, soft_wrap=True)
    earned = report.earned()
    if earned is None:
        console.print("No reward is known yet: no window is over, or nothing was activated.")
        return
    console.print(in_terminal(_rewards_table(earned)))
    console.print(_loss(earned), soft_wrap=True)
    console.print(UNSEEN, soft_wrap=True)


def _shares_table(report: AgreementReport) -> Table[tuple[str, Shares]]:
    actions = report.actions()
    rows = [("all", report.shares()), (f"last {count(NEWEST)}", report.shares(last=NEWEST))]
    rows += [(f"served: {action}", report.shares(action=action)) for action in actions[:MOST_ACTIONS]]
    more = len(actions) - MOST_ACTIONS
    return Table(
        title=f"{report.experiment}: does the policy agree?",
        columns=[
            Column("Decisions", lambda row: row[0], "name"),
            Column("Number", lambda row: count(row[1].decisions), "number"),
            Column("It would draw the same", lambda row: percent(row[1].expected), "number"),
            Column("It likes the same best", lambda row: percent(row[1].best), "number"),
        ],
        rows=rows,
        note=f"and {count(more)} more actions" if more > 0 else "",
    )


def _rewards_table(earned: Earned) -> Table[tuple[str, str, str]]:
    rows = [
        ("served", figure(earned.served.value), _within(earned.served)),
        ("served, where the policy agrees", figure(earned.agreeing), ""),
        ("the policy, at least", figure(earned.least.value), f"from {figure(earned.least.low)} on"),
        ("the policy, at most", figure(earned.most.value), f"up to {figure(earned.most.high)}"),
    ]
    return Table(
        title=f"Reward/decision, of {count(earned.decisions)} decisions",
        columns=[
            Column("", lambda row: row[0], "name"),
            Column("Reward", lambda row: row[1], "number"),
            Column("95 % interval", lambda row: row[2]),
        ],
        rows=rows,
    )


def _within(interval: Interval) -> str:
    return between(interval.low, interval.high)


def _loss(earned: Earned) -> str:
    loss = earned.served.value - earned.least.value
    text = f"At worst the policy would earn {figure(loss)} less for each decision than what was served."
    if earned.kept == earned.kept:  # not nan
        text += f" {percent(earned.kept)} of the reward served came where it agrees."
    return text


def _counts(what: str, counts: Mapping[str, int]) -> list[str]:
    found = [f"{count(number)} {kind}" for kind, number in counts.items() if number]
    return [f"{what}: {', '.join(found)}."] if found else []
