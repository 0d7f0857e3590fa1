"""Somebody's own policy, as `simulator run --policy tests.custom_policy:first` names it."""

from __future__ import annotations

from collections.abc import Sequence

from decider.policy.protocol import Choice
from decider.policy.static import Uniform
from decider.types import Context


class First(Uniform):
    """Always the first eligible action; it learns nothing."""

    def pmf(self, context: Context, actions: Sequence[Choice]) -> Sequence[float]:  # noqa: ARG002
        """All to the first."""
        return [1.0] + [0.0] * (len(actions) - 1)


def first() -> First:
    """A fresh one."""
    return First()
