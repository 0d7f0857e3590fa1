"""Does the reward model agree with the weights? One finding a candidate. Called by `checks/candidate.py`.

DR less IPS is the mean of what the model expects of the candidate, less what it predicts for the draws, weighted. With
right propensities and a context that was known before the draw that is 0 on average, however bad the model is. If it is
not, the model knows something that it must not (a field made after the draw), or the propensities are wrong.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from decider.estimate.sample import Floats
from decider.estimate.sample_ratio import freedman
from decider.text import figure
from simulator.evaluate.checks.overlap import Overlap
from simulator.evaluate.result import Finding
from simulator.evaluate.verdicts import ALARM, alarm

NAME = "reward model against weights"

ROUNDING = 1e-6
"""Of the largest reward: so little is an error of pmfs that are stored in 32 bits, not of a model."""

WRONG = 1e-4
"""Chance of "do not use" for a right log: each of its candidates is asked."""

HALF_WIDTHS = 0.5
"""Disagreement of more than half of DR's half-width: the interval cannot be relied on."""

Z_95 = 1.96


def dr_against_ips(overlap: Overlap) -> Finding | None:
    """The paired test, of what the log could draw. None where there is no model."""
    columns, weight = overlap.columns, overlap.weight
    if np.isnan(overlap.expected).any() or not len(weight):
        return None
    middle = float(columns.reward.mean())  # so that nothing depends on where the rewards have their 0
    expected = overlap.expected - overlap.guess + overlap.missing * middle
    apart = columns.units.sums((expected - middle) - weight * (overlap.predicted - middle))
    terms = columns.units.sums(expected + weight * (columns.reward - overlap.predicted))
    difference = float(apart.sum()) / len(weight)
    rounding = ROUNDING * max(map(abs, columns.reward_range))
    chance = _chance(apart) if abs(difference) > rounding else 1.0
    value = float(terms.sum()) / len(weight)
    half = Z_95 * sqrt(float(((terms - value * columns.units.size) ** 2).sum())) / len(weight)
    harmful = chance < WRONG and abs(difference) > HALF_WIDTHS * half
    verdict = alarm(significant=chance < ALARM, material=harmful)
    if verdict == "fine":
        return Finding(NAME, verdict, f"DR less IPS is {figure(difference)}: by chance.", difference)
    return Finding(
        NAME,
        verdict,
        f"DR is {figure(abs(difference))} {'above' if difference > 0 else 'below'} IPS (by chance: {figure(chance)} at "
        "most): the reward model knows what it must not, a field made after the draw, or the propensities are wrong.",
        difference,
        f"Leave out fields that were not known before the draw: --column ignore=NAME (of {', '.join(columns.fields)}).",
    )


def _chance(apart: Floats) -> float:
    """Bound on the probability of so large a sum by chance."""
    variance, largest = np.array([float(apart @ apart)]), np.array([float(np.abs(apart).max())])
    return float(freedman(np.array([float(apart.sum())]), variance=variance, largest=largest)[0])
