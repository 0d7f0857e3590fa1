"""Tells whether rewards have stopped coming, from one decision to the next. Pure; called by the guard of learning.

A sequential test (CUSUM; Page, Biometrika 1954) between two shares of rewarded decisions: at least FLOOR of the usual
one, however the season is, and next to none. Its exponential is an e-detector (Shin, Ramdas, Rinaldo, Electronic
Journal of Statistics 2023): where the share is above the floor, an alarm comes after 1 / ALPHA decisions on average at
the earliest, however often one looks. It takes about ln(1 / ALPHA) / (FLOOR x usual share) decisions to tell: 460 where
one in ten is rewarded.

The usual share follows slowly (half of it is forgotten after HALF rewarded decisions), so that a season or a policy
that learns moves it, and an outage does not before it is found. The holdout is a control: where its rewards go on
coming while the others stop, the policy earns nothing, which is to be learned and is no outage.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

FLOOR = 0.3
"""Of the usual share: a lower one is never taken for a season."""

NEXT_TO_NONE = 0.02
"""Of the usual share: what comes although rewards have stopped."""

ALPHA = 1e-6
"""See above."""

BACK = 1e-3
"""Rewards are back once that is as many times as likely as that they are not: 1 / BACK."""

HALF = 500
"""Rewarded decisions."""

ENOUGH = 200
"""Rewarded decisions that must be known before anything is told."""


@dataclass(slots=True)
class UsualShare:
    """The share of rewarded decisions, of late. decisions, rewarded: all that were counted."""

    decisions: float = 0.0
    rewarded: float = 0.0
    value: float = 0.0

    @classmethod
    def known(cls, decisions: int, rewarded: int) -> UsualShare:
        """From counts of the past."""
        return cls(decisions, rewarded, rewarded / decisions if decisions else 0.0)

    def add(self, rewarded: bool) -> None:
        """One more decision."""
        self.decisions += 1
        self.rewarded += rewarded
        forgets = 1 - 0.5 ** (self.value / HALF)
        self.value += (rewarded - self.value) * max(forgets, 1 / self.decisions)

    def add_many(self, decisions: int, rewarded: int) -> None:
        """More decisions at once: at least one."""
        self.decisions += decisions
        self.rewarded += rewarded
        forgets = 1 - 0.5 ** (self.value * decisions / HALF)
        self.value += (rewarded / decisions - self.value) * max(forgets, decisions / self.decisions)

    @property
    def is_known(self) -> bool:
        """Whether it can be relied on. Where all decisions are rewarded nothing can be told from that."""
        return self.rewarded >= ENOUGH and self.value > 0


def evidence(share: float, *, rewarded: bool) -> float:
    """How much more likely a decision is during an outage, as a logarithm. share: the usual one, in (0, 1].

    >>> round(evidence(0.1, rewarded=False), 4), round(evidence(0.1, rewarded=True), 2)
    (0.0285, -2.71)
    """
    usual, outage = FLOOR * share, NEXT_TO_NONE * share
    return math.log(outage / usual) if rewarded else math.log((1 - outage) / (1 - usual))


@dataclass(slots=True)
class OutageTest:
    """Fed with sealed decisions in their order. missing: whether rewards are missing, beyond doubt.

    >>> test = OutageTest(UsualShare.known(10_000, 1_000))
    >>> [since for time in range(600) if (since := test.add(time, rewarded=False, holdout=False)) is not None]
    [0]
    >>> test.missing
    True
    """

    share: UsualShare = field(default_factory=UsualShare)
    missing: bool = False
    _since: int = 0
    _last: int = 0
    _evidence: float = 0.0
    _control: float = 0.0

    def add(self, time: int, *, rewarded: bool, holdout: bool) -> int | None:
        """One more decision, sealed at that time, 0 or later. Where `missing` changes by it: the time of the last
        decision from before the change, as far as can be told."""
        since = None
        if self.share.is_known:
            more = evidence(self.share.value, rewarded=rewarded)
            since = self._look_for_end(more, holdout) if self.missing else self._look_for_outage(more, holdout)
        if not self.missing:
            self.share.add(rewarded)
        self._last = time
        return since

    def _look_for_outage(self, more: float, holdout: bool) -> int | None:
        self._begin_anew_where(self._evidence <= 0)
        self._evidence += more
        self._control += more * holdout
        return self._turn(self._evidence >= -math.log(ALPHA) and self._control >= 0)

    def _look_for_end(self, more: float, holdout: bool) -> int | None:
        self._begin_anew_where(self._evidence >= 0)
        self._evidence += more
        self._control = min(
            0.0, self._control + more * holdout
        )  # a run of its own: the holdout earns, the others do not
        return self._turn(min(self._evidence, self._control) <= math.log(BACK))

    def _begin_anew_where(self, nothing: bool) -> None:
        """What was seen up to now speaks for no change."""
        if nothing:
            self._since, self._evidence = self._last, 0.0
            self._control = self._control if self.missing else 0.0

    def _turn(self, turned: bool) -> int | None:
        if not turned:
            return None
        self.missing = not self.missing
        self._evidence = self._control = 0.0
        return self._since
