"""The policies that never learn: uniform, and a placeholder for the rule that always takes the baseline action."""

from __future__ import annotations

from collections.abc import Sequence

from decider.policy.protocol import Choice, UnusablePmf
from decider.types import Context


class Uniform:
    """Every action with the same probability.

    size: nothing is learned.

    >>> from decider.types import ActionId
    >>> Uniform().pmf(Context(), [Choice(ActionId("a")), Choice(ActionId("b"))])
    [0.5, 0.5]
    """

    size = 0

    def pmf(self, context: Context, actions: Sequence[Choice]) -> Sequence[float]:  # noqa: ARG002 - the protocol's
        """1/n for each of n actions."""
        return [1 / len(actions)] * len(actions)

    def pmfs(self, contexts: Sequence[Context], actions: Sequence[Choice]) -> Sequence[Sequence[float]]:
        """One by one."""
        return [self.pmf(context, actions) for context in contexts]

    def learn(
        self, context: Context, actions: Sequence[Choice], *, drawn: int, propensity: float, reward: float
    ) -> None:
        """Nothing to learn."""

    def save(self) -> bytes:
        """Nothing learned."""
        return b""

    def snapshot(self) -> Uniform:
        """Itself: nothing ever changes."""
        return self

    def shrink(self) -> None:
        """Nothing is kept."""

    def vocabulary(self) -> None:
        """It knows no features."""

    def scores(self, contexts: Sequence[Context], actions: Sequence[Choice]) -> None:
        """It expects nothing."""


class Fixed(Uniform):
    """The baseline action is taken by a rule of `decide/decide.py`, which knows it by this class."""

    def pmf(self, context: Context, actions: Sequence[Choice]) -> Sequence[float]:  # noqa: ARG002 - the protocol's
        """Raises UnusablePmf: it does not know which action is the baseline."""
        raise UnusablePmf("the fixed policy has no pmf: a rule gives everything to the baseline action")
