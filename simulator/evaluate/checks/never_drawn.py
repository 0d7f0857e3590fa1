"""Actions that were eligible and never drawn: whether chance explains it. Called by `checks/log.py`.

An action with a propensity of 0.005 stays undrawn in 400 decisions, and nothing is wrong. One that never came although
it should have come a hundred times had no propensity at all, and one of a millionth can never be evaluated.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import poisson

from decider.text import figure
from simulator.evaluate.result import Finding
from simulator.evaluate.support import usual_propensities
from simulator.evaluate.verdicts import ALARM
from simulator.logs.columns import Columns, Floats, Longs

SMALL = 0.05
"""Share of an even chance below which a propensity is the reason: more decisions like these would help too little."""


def never_drawn(columns: Columns) -> Finding:
    """Actions that were eligible and have no outcome in the log."""
    eligible = np.bincount(columns.eligible, minlength=len(columns.sets)) @ columns.member.astype(np.int64)
    drawn = np.bincount(columns.action, minlength=len(columns.actions))
    never = np.flatnonzero((eligible > 0) & (drawn == 0))
    if not len(never):
        return Finding("actions never drawn", "fine", "Every eligible action was drawn at least once.", 0.0)
    names = ", ".join(repr(columns.actions[index]) for index in never[:3]) + (", ..." if len(never) > 3 else "")
    text = f"{len(never):,} actions were eligible and never drawn ({names}): the log does not know what they earn."
    p = _propensities(columns, eligible)
    if _is_chance(columns, p, eligible, never):
        mean = figure(float(p[never].mean()))
        text += f" Chance explains it: {len(columns):,} decisions are few for a propensity of about {mean}."
        return Finding("actions never drawn", "fine", text, float(len(never)))
    return Finding("actions never drawn", "caution", text, float(len(never)), "Give them a minimum propensity.")


def _propensities(columns: Columns, eligible: Longs) -> Floats:
    """(actions,): the mean one where the action was eligible; a usual one where the log has no pmfs."""
    if columns.pmf is None:
        return usual_propensities(columns)
    total = np.zeros(len(columns.actions))
    for _, block in columns.blocks():
        total += block.dense_pmf().sum(axis=0)
    mean: Floats = total / np.maximum(eligible, 1)
    return mean


def _is_chance(columns: Columns, p: Floats, eligible: Longs, never: Longs) -> bool:
    """Whether each of them, and so many of them, can have stayed undrawn with propensities that are not small."""
    could = np.flatnonzero(eligible)
    even = len(columns) / eligible.sum()
    if not columns.has_propensities or not (p[never] >= SMALL * even).all():
        return False
    draws = columns.unit_count / len(columns)  # a unit may keep its action: then it is one draw
    undrawn = np.exp(np.log1p(-np.minimum(p, 1 - 1e-12)) * eligible * draws)
    so_many = float(poisson.sf(len(never) - 1, undrawn[could].sum()))
    return bool((undrawn[never] > ALARM / len(never)).all()) and so_many > ALARM
