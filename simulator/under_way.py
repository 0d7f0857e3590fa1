"""Tells a policy that plays or learns without a log how many of its decisions are under way, as a trainer would."""

from __future__ import annotations

from decider.policy.protocol import CountsUnderWay, PlainPolicy


class UnderWay:
    """Of one policy; nothing to do for one that does not want to know."""

    def __init__(self, policy: PlainPolicy) -> None:
        self._policy = policy if isinstance(policy, CountsUnderWay) else None

    def decided(self) -> None:
        """A decision was made that will be learned."""
        if self._policy is not None:
            self._policy.count_under_way(decided=1, sealed=0)

    def learned(self) -> None:
        """One of them was learned."""
        if self._policy is not None:
            self._policy.count_under_way(decided=0, sealed=1)
