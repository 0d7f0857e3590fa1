"""The policy that never learns: uniform. (`fixed` needs no policy: it is a rule, see `decide/decide.py`.)"""

from __future__ import annotations

from collections.abc import Sequence

from decider.policy.protocol import Choice
from decider.types import Context


class Uniform:
    """Every action with the same probability.

    >>> Uniform().pmf(Context(), ["|A id=a", "|A id=b"])
    [0.5, 0.5]
    """

    def pmf(self, context: Context, actions: Sequence[Choice]) -> Sequence[float]:  # noqa: ARG002 - the protocol's
        """1/n for each of n actions."""
        return [1 / len(actions)] * len(actions)

    def learn(
        self, context: Context, actions: Sequence[Choice], *, drawn: int, propensity: float, reward: float
    ) -> None:
        """Nothing to learn."""

    def save(self) -> bytes:
        """Nothing learned."""
        return b""
