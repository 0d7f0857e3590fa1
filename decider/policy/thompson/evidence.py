"""How well each of several regressions has foretold the rewards. Called by `thompson.py`.

The evidence is a discounted sum of log predictive likelihoods: Raftery, Karny and Ettler, Technometrics 2010. The best
regression serves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from decider.policy.thompson.arrays import Arrays, json_from_array, json_to_array
from decider.policy.thompson.noise import FadingNoise

EVIDENCE_MEMORY = 2_000
"""Mean age, in decisions, of the predictive likelihoods by which the regressions are compared."""

NO_EVIDENCE = -math.inf
"""Of a regression that was dropped."""


class Foretold(NamedTuple):
    """What a regression foretold of a decision before it learned it: the reward less its prediction, the variance of
    that in units of the noise's, and its noise. row: of the action."""

    row: int
    residual: float
    scale: float
    noise: float


class OwnEvidence:
    """Learning codes 1 and 2: each regression's likelihood is that of its own noise. of: by name."""

    def __init__(self) -> None:
        self.of: dict[str, float] = {}

    def add(self, foretold: Mapping[str, Foretold]) -> None:
        """Of one decision, of all that there are."""
        for name, one in foretold.items():
            self.of[name] = self.of[name] * (1 - 1 / EVIDENCE_MEMORY) + self._likelihood(one)
        self._see(foretold)

    def _likelihood(self, one: Foretold) -> float:
        """Its logarithm, but for a constant."""
        variance = one.scale * one.noise
        return -0.5 * (one.residual * one.residual / variance + math.log(variance))

    def _see(self, foretold: Mapping[str, Foretold]) -> None:
        """All of one decision."""

    def to_arrays(self) -> Arrays:
        """The whole state."""
        return {"evidence": json_to_array(self.of)}

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Go on from `to_arrays()`."""
        self.of = json_from_array(saved["evidence"])


class CommonEvidence(OwnEvidence):
    """Learning code 3: all are judged with one noise, that of lately around the first of them. Else one that forgets is
    ahead wherever the rewards' own variance moves, as it does while a policy learns, and not since it foretells better.
    """

    def __init__(self) -> None:
        super().__init__()
        self._noise = FadingNoise()

    def _likelihood(self, one: Foretold) -> float:
        return super()._likelihood(one._replace(noise=self._noise.value))

    def _see(self, foretold: Mapping[str, Foretold]) -> None:
        first = next(iter(foretold.values()))
        self._noise.discount(1 - 1 / EVIDENCE_MEMORY)
        self._noise.add(first.residual, first.scale)

    def to_arrays(self) -> Arrays:
        """See `OwnEvidence`."""
        return super().to_arrays() | {"evidence_noise": np.array(self._noise.to_list())}

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """See `OwnEvidence`."""
        super().restore(saved)
        self._noise.restore(saved["evidence_noise"].tolist(), 0)
