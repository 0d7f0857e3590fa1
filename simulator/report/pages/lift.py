"""The page of `simulator lift --report`. Called by the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simulator.lift.result import LiftResult
from simulator.report import lift
from simulator.report.pages.glossary import Term
from simulator.report.pages.html import write_page
from simulator.report.plots.lift import lift_by_value

TERMS = (
    Term("Holdout", "Units drawn into a control group, which always gets the baseline action."),
    Term("Lift", "Mean reward of the units that the policy served, less that of the holdout."),
    Term(
        "As learned", "The final reward of a decision, from which the policy learns: weighted and cut off at its range."
    ),
    Term(
        "Valid at every look",
        "With a probability of 95 % the interval holds the truth at all looks. An ordinary one does so at one look "
        "only: who looks every day finds a false lift in more than a quarter of the cases.",
    ),
    Term(
        "By unit",
        "Means are of decisions, so a unit with ten visits counts ten times. Intervals are of units: its visits are "
        "not independent of each other, so they do not make an interval narrower.",
    ),
    Term("In per cent", "Of the holdout's mean. Missing where that mean cannot be told from 0."),
    Term(
        "Per week",
        "The lift times the policy's decisions of a week, at the mean traffic of what was read. The server's page "
        "takes the last seven days instead.",
    ),
    Term("Too little data", "A few heavy rewards would have everything to say."),
)


def write_lift_report(found: LiftResult, folder: Path) -> Path:
    """Write `index.html` and the plot into the folder; the page's path. Raises OSError."""
    return write_page(
        folder,
        "lift.html.j2",
        [lift_by_value(found)] if any(row.answer != "too little" for row in found.by) else [],
        title="Does it pay?",
        subject=found.experiment,
        span=f"{_day(found.begin)} to {_day(found.end)}" if found.strata else "no decisions yet",
        found=found,
        glossary=TERMS,
        tables=lift,
    )


def _day(time: int) -> str:
    return str(np.datetime_as_string(np.datetime64(time, "us"), unit="D"))
