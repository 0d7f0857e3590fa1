"""Evidence that one segment's rewards have collapsed beside those of the others, from one look at the counts to the
next. Pure; called by the metrics.

The others are the control: of the rewarded decisions of a look, a share is the segment's. It follows from its decisions
and from how many times as often as the others' they are usually rewarded. So a season, an outage of everything or a
policy that learns for everybody move nothing. Tested is, as in `missing_rewards.py` (CUSUM), whether that ratio is at
least FLOOR of the usual one, or COLLAPSE of it. At the usual ratio the evidence stays at 0: only one that falls below
a half can raise it by chance. So a policy may learn to earn twice as much of all the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from decider.estimate.missing_rewards import ALARM, MOST
from decider.estimate.outage import FLOOR

COLLAPSE = 0.05
"""Of the usual ratio: what is left of it. So that nine of ten lost rewards are found as well as all."""

ENOUGH = 100
"""Rewarded decisions of the segment and of the others: the usual ratio is known to a tenth or so, and FLOOR is far."""


class SegmentCounts(NamedTuple):
    """Sealed decisions and those with a reward: of a segment, and of all others."""

    decisions: int = 0
    rewarded: int = 0
    other_decisions: int = 0
    other_rewarded: int = 0

    @property
    def are_enough(self) -> bool:
        """Whether their ratio can be relied on."""
        return min(self.rewarded, self.other_rewarded) >= ENOUGH

    @property
    def ratio(self) -> float:
        """How many times as often as the others' the segment's decisions are rewarded; nan without any others."""
        below = self.decisions * self.other_rewarded
        return self.rewarded * self.other_decisions / below if below else math.nan

    def share_at(self, ratio: float) -> float:
        """Of the rewarded decisions, that are the segment's."""
        weight = self.decisions * ratio
        return weight / (weight + self.other_decisions)


@dataclass(slots=True)
class SegmentRewards:
    """Of one segment. usual: its ratio; nan while it is not known.

    >>> usual = SegmentCounts(10_000, 1_000, 10_000, 1_000)
    >>> test = SegmentRewards()
    >>> for _ in range(20): test.add(SegmentCounts(20, 2, 20, 2), usual)
    >>> before = test.value
    >>> for _ in range(20): test.add(SegmentCounts(20, 0, 20, 2), usual)
    >>> before, test.value > ALARM
    (0.0, True)
    """

    usual: float = math.nan
    value: float = 0.0

    def add(self, counts: SegmentCounts, recent: SegmentCounts) -> None:
        """What was sealed since the last look. recent: all of the last days."""
        self._get_used_to(recent)
        if not math.isnan(self.usual) and counts.decisions and counts.other_decisions:
            self.value = min(MOST, max(0.0, self.value + self._evidence(counts)))

    def _get_used_to(self, recent: SegmentCounts) -> None:
        """The last days are what is usual, while nothing speaks for a collapse. What made the alarm is not before it
        makes up most of them: who is not rewarded any more must not ring for ever."""
        if self.value >= ALARM and recent.ratio < FLOOR * self.usual:
            self.value = 0.0
        if not self.value:
            self.usual = recent.ratio if recent.are_enough else math.nan

    def _evidence(self, counts: SegmentCounts) -> float:
        usual, collapsed = counts.share_at(FLOOR * self.usual), counts.share_at(COLLAPSE * self.usual)
        others = math.log((1 - collapsed) / (1 - usual))
        return counts.rewarded * math.log(collapsed / usual) + counts.other_rewarded * others
