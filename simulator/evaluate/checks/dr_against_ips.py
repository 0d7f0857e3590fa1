"""Does the reward model agree with the weights? One finding a candidate. Called by `checks/candidate.py`.

DR less IPS is the mean of what the model expects of the candidate, less what it predicts for the draws, weighted. With
right propensities and a context that was known before the draw that is 0 on average, however bad the model is. If it is
not, the model knows something that it must not (a field made after the draw), or the propensities are wrong.
"""

from __future__ import annotations

from math import sqrt
from typing import Protocol

import numpy as np

from decider.estimate.sample import Floats
from decider.estimate.sample_ratio import freedman
from simulator.evaluate.result import Finding
from simulator.evaluate.verdicts import ALARM, NEGLIGIBLE, alarm
from simulator.logs.columns import Columns
from simulator.text import figure

NAME = "reward model against weights"

HALF_WIDTHS = 0.5
"""Disagreement of more than half of DR's half-width: the interval cannot be relied on."""

Z_95 = 1.96


class Modelled(Protocol):
    """A candidate's scores; `Scores` is one. All arrays (n,)."""

    @property
    def columns(self) -> Columns:
        """The decisions."""

    @property
    def weight(self) -> Floats:
        """The candidate's probability of the drawn action / propensity."""

    @property
    def missing(self) -> Floats:
        """Its probability of actions that the log could not draw."""

    @property
    def predicted(self) -> Floats:
        """The reward model at the drawn action; nan where it says nothing."""

    @property
    def expected(self) -> Floats:
        """Its mean under the candidate."""


def dr_against_ips(scores: Modelled) -> Finding | None:
    """The paired test. None where the two need not agree: no model, or actions that the log could not draw."""
    columns, weight = scores.columns, scores.weight
    if np.isnan(scores.expected).any() or float(scores.missing.max(initial=0.0)) > NEGLIGIBLE or not len(weight):
        return None
    middle = float(columns.reward.mean())  # so that nothing depends on where the rewards have their 0
    apart = columns.units.sums((scores.expected - middle) - weight * (scores.predicted - middle))
    terms = columns.units.sums(scores.expected + weight * (columns.reward - scores.predicted))
    chance = _chance(apart)
    difference = float(apart.sum()) / len(weight)
    value = float(terms.sum()) / len(weight)
    half = Z_95 * sqrt(float(((terms - value * columns.units.size) ** 2).sum())) / len(weight)
    verdict = alarm(significant=chance < ALARM, material=abs(difference) > HALF_WIDTHS * half)
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
