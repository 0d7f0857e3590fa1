"""Totals of a log between two marks: plain numbers by (experiment version, ...), to be added up.

Every log counts them itself (in SQL where there is a database); `metrics/` adds them up and gives names and labels.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from decider.types import ActionId, Position, Reason

DELAY_BUCKETS = (1, 5, 15, 60, 300, 900, 3600, 14400, 86400, 604800)
"""Seconds from decision to reward; one more bucket holds what is later."""


@dataclass(frozen=True, slots=True)
class SealedTotals:
    """Of decisions whose window ended. reward, squared: sums of their final rewards and of the squares."""

    count: int = 0
    defaulted: int = 0
    overridden: int = 0
    reward: float = 0.0
    squared: float = 0.0


@dataclass(frozen=True, slots=True)
class RewardTotals:
    """Of rewards of one name and outcome. value, squared: sums of the values as sent, and of the squares."""

    count: int = 0
    value: float = 0.0
    squared: float = 0.0


@dataclass(slots=True)
class Totals:
    """`version` is the position of an experiment version everywhere. Entries come with those of their own position;
    seals by the time of the deadline."""

    decisions: Counter[tuple[Position, ActionId, Reason]] = field(default_factory=Counter)
    inverse_propensity: defaultdict[tuple[Position, ActionId], float] = field(
        default_factory=lambda: defaultdict(float)
    )
    """Sum of 1/propensity of draws from a policy's pmf (reasons EXPLOIT and EXPLORE)."""
    possible: Counter[tuple[Position, ActionId]] = field(default_factory=Counter)
    """Draws from a policy's pmf in which the action had a slot."""
    rewards: dict[tuple[Position, str, bool], RewardTotals] = field(default_factory=dict)
    """By (version, name, in time), in the order in which the names first came."""
    delays: Counter[tuple[Position, int]] = field(default_factory=Counter)
    """Rewards by (version, index into DELAY_BUCKETS)."""
    delay_seconds: defaultdict[Position, float] = field(default_factory=lambda: defaultdict(float))
    sealed: dict[Position, SealedTotals] = field(default_factory=dict)

    def versions(self) -> set[Position]:
        """Every version that something was counted of."""
        counted = (self.decisions, self.inverse_propensity, self.possible, self.rewards, self.delays)
        return {key[0] for counts in counted for key in counts} | {*self.delay_seconds} | {*self.sealed}
