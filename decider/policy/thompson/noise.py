"""The variance of a reward around its expectation, from the residuals of predictions. Called by `regression.py`.

The residual of a prediction has `scale` times the noise's variance: Brown, Durbin and Evans 1975.
"""

from __future__ import annotations

from collections.abc import Sequence

from decider.policy.thompson.posterior import GUESS


class LastingNoise:
    """Of all decisions: in learning codes 1 and 2, and of levels. value: a variance of rewards in [0, 1]."""

    @property
    def judged(self) -> float:
        """By which a regression's evidence is judged."""
        return self.value

    def __init__(self) -> None:
        self.squares = self.count = 0.0
        self.value = GUESS

    def add(self, residual: float, scale: float) -> None:
        """Of one prediction."""
        self.squares += residual * residual / scale
        self.count += 1
        self._update()

    def discount(self, factor: float) -> None:
        """Nothing: a regression that forgets its data does not forget its noise."""

    def to_list(self) -> list[float]:
        """Its state, but for the number of decisions."""
        return [self.squares]

    def restore(self, saved: Sequence[float], learned: int) -> None:
        """Go on from `to_list()`, after so many decisions."""
        (self.squares,), self.count = saved, float(learned)
        self._update()

    def _update(self) -> None:
        self.value = (self.squares + GUESS) / (self.count + 1)


class FadingNoise(LastingNoise):
    """Learning code 3: of the decisions that the regression remembers.

    It is judged by that of all decisions: else one that forgets is ahead wherever the rewards' own variance moves, as
    it does while a policy learns, and not since it foretells better.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lasting = LastingNoise()

    @property
    def judged(self) -> float:
        """See `LastingNoise`."""
        return self._lasting.value

    def add(self, residual: float, scale: float) -> None:
        """See `LastingNoise`."""
        super().add(residual, scale)
        self._lasting.add(residual, scale)

    def discount(self, factor: float) -> None:
        """What was added counts less from now on."""
        self.squares *= factor
        self.count *= factor
        self._update()

    def to_list(self) -> list[float]:
        """See `LastingNoise`."""
        return [self.squares, self.count, *self._lasting.to_list()]

    def restore(self, saved: Sequence[float], learned: int) -> None:
        """See `LastingNoise`."""
        self.squares, self.count, *lasting = saved
        self._lasting.restore(lasting, learned)
        self._update()
