"""Evidence that rewards of one name have stopped, from one look at the counts to the next. Pure; called by the metrics.

The test of the guard (`outage.py`), in steps of many decisions: whether the share of rewarded decisions is at least
FLOOR of the usual one, or next to nothing. A look takes all that has been sealed since the one before. So the evidence
does not depend on how often somebody looks but for its smallest step, and begins anew only between looks, which makes
false alarms rarer. At the usual share it stays at 0: only a share that falls to half for weeks, or below a third, can
raise it by chance.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from decider.estimate.outage import FLOOR, UsualShare, evidence

ALARM = 6.9
"""ln 1000: from here on the usual share is not changed by what comes."""

MOST = 30.0
"""The evidence does not grow further, so that a dozen rewards are enough to end the alarm."""


@dataclass(slots=True)
class MissingRewards:
    """Of one name and group.

    >>> test = MissingRewards(UsualShare.known(10_000, 1_000))
    >>> for _ in range(20): test.add(decisions=20, rewarded=2)
    >>> before = test.value
    >>> for _ in range(20): test.add(decisions=20, rewarded=0)
    >>> before, test.value > ALARM
    (0.0, True)
    """

    share: UsualShare = field(default_factory=UsualShare)
    value: float = 0.0

    def add(self, *, decisions: int, rewarded: int) -> None:
        """Sealed decisions since the last look, and how many of them have such a reward."""
        if not decisions:
            return
        if self.share.is_known:
            hits, misses = (evidence(self.share.value, rewarded=one) for one in (True, False))
            self.value = min(MOST, max(0.0, self.value + hits * rewarded + misses * (decisions - rewarded)))
        if self.value < ALARM:
            self.share.add_many(decisions, rewarded)

    def get_used_to(self, recent: UsualShare) -> None:
        """Take the share of the last days for the usual one, where they have become what made the alarm: rewards that
        somebody does not send any more must not ring for ever."""
        if self.value >= ALARM and recent.value < FLOOR * self.share.value:
            self.share, self.value = recent, 0.0
