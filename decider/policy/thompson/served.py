"""What a decision asks: a regression, or several posteriors whose pmfs are averaged. Called by `pmf.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from decider.policy.features import Vector
from decider.policy.thompson.arrays import Floats
from decider.policy.thompson.posterior import Posterior, Predictor


class Part(NamedTuple):
    """A posterior, and the part that its pmf has in the pmf."""

    weight: float
    posterior: Posterior


class Served:
    """What a decision asks: a regression."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def parts(self, actions: tuple[str, ...], shared: Sequence[Vector], own: tuple[Vector, ...]) -> list[Part]:
        """See `Predictor.posteriors`; the weights sum to 1."""
        return [Part(1.0, self.predictor.posteriors(actions, shared, own))]

    def snapshot(self) -> Served:
        """A copy that does not change."""
        return Served(self.predictor.snapshot())


def weighted(parts: Sequence[tuple[float, Floats]]) -> Floats:
    """The sum of arrays, each with its weight; of one alone, itself."""
    (first, total), *others = parts
    if not others:
        return total
    total = first * total
    for weight, values in others:
        total = total + weight * values
    return total
