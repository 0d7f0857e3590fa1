"""The table of an evaluation in parts, in the terminal. Called by `simulator evaluate-large`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from decider.text import figure, printable
from simulator.evaluate.result import Difference, Estimate
from simulator.large.result import LargeEvaluation, LargePolicy
from simulator.report.checks import candidate_panel
from simulator.report.table import Cell, Column, Table, difference, estimate, in_terminal

INTERVAL = "95 % interval"
Named = tuple[str, str, Estimate]
"""A policy, an estimator, and what it found."""

NOTE = "Each interval is for one policy alone. ESS is of all parts, the verdict of the first one."


def terminal_parts(found: LargeEvaluation) -> Iterator[RenderableType]:
    """What was read, what the checks say, and the estimates."""
    read = f"{found.decisions:,} decisions of {found.units:,} units in {found.parts} parts"
    yield Text(printable(f"{found.log}: {read}"), "bold")
    if found.left_out:
        lost = ", ".join(f"{kind} {number:,}" for kind, number in found.left_out.items())
        yield Text(printable(f"Left out: {lost}"), "yellow")
    yield Text(f"Checked: the first part, {found.checked:,} decisions; its units are a random sample.")
    for policy in found.policies[1:]:
        if policy.diagnostics.verdict != "fine":
            yield candidate_panel(policy.name, policy.diagnostics, found.checked)
    yield in_terminal(_table(found))
    yield in_terminal(_estimates(found.policies[1:]))
    yield Text(f"{found.seconds:.1f} s", "dim")


def _table(found: LargeEvaluation) -> Table[LargePolicy]:
    columns: Sequence[Column[LargePolicy]] = (
        Column("Policy", lambda one: one.name, "name"),
        Column("Reward/decision", _headline, "number", INTERVAL),
        Column("Difference", lambda one: _difference(one.difference), "number", INTERVAL),
        Column("ESS", lambda one: figure(one.ess), "number"),
        Column("Verdict", lambda one: "-" if one is found.policies[0] else _verdict(one), "verdict"),
    )
    return Table("The policies side by side", columns, found.policies, note=NOTE)


def _headline(policy: LargePolicy) -> Cell:
    if not policy.estimates:
        return Cell("refused", tone="do not use")
    return _cell(policy.estimates[policy.headline], note=f"by {policy.headline}")


def _estimates(policies: Sequence[LargePolicy]) -> Table[Named]:
    columns: Sequence[Column[Named]] = (
        Column("Policy", lambda one: one[0], "name"),
        Column("Estimator", lambda one: one[1]),
        Column("Value", lambda one: _cell(one[2]), "number", INTERVAL),
    )
    return Table("Every estimate", columns, [(one.name, *named) for one in policies for named in one.estimates.items()])


def _cell(found: Estimate, *, note: str = "") -> Cell:
    return estimate(found.value, found.low, found.high, note=note)


def _difference(found: Difference | None) -> Cell:
    return difference(found.value, found.low, found.high, note=f"by {found.estimator}") if found else Cell("-")


def _verdict(policy: LargePolicy) -> Cell:
    return Cell("refused" if policy.refused else policy.diagnostics.verdict, tone=policy.diagnostics.verdict)
