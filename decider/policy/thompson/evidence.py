"""How well each of several regressions has foretold the rewards. Called by `thompson.py`.

The evidence is a discounted sum of log predictive likelihoods: Raftery, Karny and Ettler, Technometrics 2010. The best
regression serves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

EVIDENCE_MEMORY = 2_000
"""Mean age, in decisions, of the predictive likelihoods by which the regressions are compared."""

NO_EVIDENCE = -math.inf
"""Of a regression that was dropped."""


class Foretold(NamedTuple):
    """What a regression foretold of a decision before it learned it: the reward less its prediction, the variance of
    that in units of the noise's, and the noise by which it is judged. row: of the action."""

    row: int
    residual: float
    scale: float
    noise: float


class Evidence:
    """of: by name, the discounted sum of log predictive likelihoods, but for a constant."""

    def __init__(self, names: Iterable[str]) -> None:
        self.of = dict.fromkeys(names, 0.0)

    def add(self, foretold: Mapping[str, Foretold]) -> None:
        """Of one decision, of all that there are."""
        for name, one in foretold.items():
            self.of[name] = self.of[name] * (1 - 1 / EVIDENCE_MEMORY) + _log_likelihood(one)


def _log_likelihood(one: Foretold) -> float:
    variance = one.scale * one.noise
    return -0.5 * (one.residual * one.residual / variance + math.log(variance))
