"""The mean weight of a candidate is 1, with what the log could not draw. Called by `candidate.py`.

Where it is not, either chance did it, or the propensities are wrong, or the log does not know all actions that it could
draw. The last is told from the propensities: the mean of 1/propensity is the number of actions.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import poisson

from decider.estimate.sample_ratio import freedman
from decider.estimate.weights import MeanWeight, mean_weight
from decider.text import count, figure
from simulator.evaluate.checks.overlap import Overlap
from simulator.evaluate.result import Finding
from simulator.evaluate.verdicts import ALARM, MATERIAL, MORE_LIKE_IT, Z_ALARM, alarm
from simulator.logs.columns import Columns

FEW_HEAVY = 1e-4
"""Chance of an alarm for a mean below 1. At 1e-3 the skew of weights gave 2 false ones in 900 right logs."""

MOST_Z = 100.0
"""Standard errors beyond which their number says nothing: weights without spread have none."""


def mean_of_weights(overlap: Overlap) -> Finding:
    """The mean weight should be 1, less what the log could not draw."""
    missing = float(overlap.missing.mean())
    expected = 1.0 - missing
    mean = mean_weight(overlap.weight + overlap.missing, overlap.columns.cluster)
    value = mean.value - missing
    if abs(mean.value - 1) <= MATERIAL:
        text = f"The mean weight is {figure(value)}; {figure(expected)} is right."
        return Finding("mean weight", "fine", text, value)
    z = mean.z(1.0)
    text = f"The mean weight is {figure(value)} where {figure(expected)} is right"
    text += f" (z = {figure(z)})" if abs(z) < MOST_Z else ""
    verdict = alarm(significant=abs(z) > Z_ALARM and not _chance(overlap, mean), material=True)
    if verdict == "fine":
        return Finding("mean weight", verdict, f"{text}: chance can explain it.", value)
    if mean.value > 1:
        return _too_heavy(overlap, text, value)
    text += ": what the candidate prefers was hardly drawn, or the logged propensities are too large."
    return Finding("mean weight", verdict, text, value, f"{MORE_LIKE_IT}.")


def _chance(overlap: Overlap, mean: MeanWeight) -> bool:
    """Whether draws explain the mean: of the heaviest possible weight one above 1, of none of those one below 1.

    One below 1 comes with few heavy weights, so the error that they show is too small by about its root.
    """
    decisions = len(overlap.weight)
    excess, variance = np.array((mean.value - 1) * decisions), np.array((mean.error * decisions) ** 2)
    if mean.value < 1:
        return bool(freedman(excess, variance=variance / max(mean.value, 1e-9), largest=np.ones(())) > FEW_HEAVY)
    if not math.isfinite(overlap.possible_weight):
        return False
    heaviest = np.array(max(overlap.possible_weight, float(overlap.weight.max())))
    return bool(freedman(excess, variance=variance, largest=heaviest) > ALARM)


def _too_heavy(overlap: Overlap, text: str, value: float) -> Finding:
    columns = overlap.columns
    known, could = len(columns.actions), number_of_actions(columns)
    if columns.pmf is None and len(columns.sets) == 1 and could > known and _may_be_unseen(columns, could - known):
        text += (
            f": the propensities say that about {count(could)} actions could be drawn, and only {count(known)} are "
            f"known. {count(len(columns))} decisions are too few to have drawn them all."
        )
        return Finding("mean weight", "do not use", text, value, _way_to_name(columns, could))
    text += ": actions were drawn more often than their propensities say."
    needed = "The probabilities with which the actions were drawn."
    return Finding("mean weight", "do not use", text, value, needed)


def _way_to_name(columns: Columns, number: int) -> str:
    """The others: only a log that does not say itself what could be drawn is read with --actions."""
    if not columns.eligible_logged:
        return f"Name the others: --actions @FILE (one a line), or say how many there are: --actions {number}."
    if columns.reason is not None:
        return f"If the log was imported, import it again with --actions {number}, or --actions @FILE with their names."
    return "A log whose lists of eligible actions (`_multi` in dsjson) hold all actions that could be drawn."


def number_of_actions(columns: Columns) -> int:
    """That could be drawn: the mean of 1/propensity is their number, on average over decisions.

    >>> from simulator.logs.example import example
    >>> number_of_actions(example())
    2
    """
    return round(float((1.0 / columns.propensity).mean()))


def _may_be_unseen(columns: Columns, unseen: int) -> bool:
    """Whether so many actions can have stayed undrawn: a draw stands for 1/p actions as probable as its own."""
    p, draws = columns.propensity, len(columns)
    expected = float(((1.0 - p) ** draws / p).mean())
    return bool(poisson.sf(unseen - 1, expected) > ALARM)
