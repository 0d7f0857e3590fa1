"""The plot of `simulator lift --report`: the lift by the values of fields. Called by the page."""

from __future__ import annotations

import math

from decider.text import between, percent, printable, signed
from simulator.lift.result import LiftResult, LiftRow
from simulator.logs.groups import LEARNED
from simulator.report.plots.canvas import Plot, finished, house_style
from simulator.report.plots.forest import AS_LOGGED, PLAIN, Mark, Row, forest

MOST_ROWS = 40


@house_style
def lift_by_value(found: LiftResult) -> Plot:
    """Each value's lift beside that of all decisions."""
    rows = [row for row in found.by if row.reward == LEARNED][:MOST_ROWS]
    whole = found.rows[0]
    line = None if whole.answer == "too little" else Mark(AS_LOGGED, whole.lift.value, math.nan, math.nan)
    drawing = forest(
        [_drawn(row) for row in rows],
        title="Lift over the holdout",
        subtitle=found.experiment,
        unit=f"reward per decision, {percent(found.level)} intervals, all together and valid at every look",
        line=line,
        key={},
        written=signed,
    )
    return finished(
        drawing,
        file="lift",
        caption="What the policy earns more than the holdout. Dashed: of all decisions.",
        alt="Lift with intervals. " + "; ".join([_told(row) for row in rows if row.answer != "too little"]),
    )


def _drawn(row: LiftRow) -> Row:
    label = f"{row.field} {row.value}"
    if row.answer == "too little":
        return Row(label, note="too little data")
    return Row(label, Mark(PLAIN, row.lift.value, row.lift.low, row.lift.high))


def _told(row: LiftRow) -> str:
    interval = between(row.lift.low, row.lift.high, written=signed)
    return printable(f"{row.field} {row.value} {signed(row.lift.value)} ({interval})")
