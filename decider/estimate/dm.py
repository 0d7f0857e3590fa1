"""Direct method: what the reward model says the candidate earns. Called by the evaluation, which marks it as that."""

from __future__ import annotations

from decider.estimate.checks import finite, finite_columns
from decider.estimate.sample import Floats
from decider.estimate.terms import MeanOfTerms


class DirectMethod(MeanOfTerms):
    """DM: (1/n) sum of expected, the candidate's mean of the reward model, sum_a pmf(a) q(a). As biased as the model.

    Dudik, Langford & Li, ICML 2011, section 2.1. No reward is looked at: its interval says how the model's figure
    varies between decisions, not how wrong the model is. Raises BadArgument where expected is not finite.

    >>> import numpy as np
    >>> direct = DirectMethod()
    >>> direct.add(expected=0.5)
    >>> direct.add_many(expected=np.array([1.0]))
    >>> direct.value, direct.count
    (0.75, 2)
    """

    __slots__ = ()

    def add(self, *, expected: float) -> None:
        """One more decision."""
        finite(expected=expected)
        self.mean.add(expected)

    def add_many(self, *, expected: Floats) -> None:
        """Many more, (n,)."""
        self.mean.add_many(self.terms(expected=expected))

    @staticmethod
    def terms(*, expected: Floats) -> Floats:
        """(n,): the column itself, once it is known to be finite; its mean is the estimate."""
        finite_columns(expected.size, expected=expected)
        return expected
