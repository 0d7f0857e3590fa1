"""Tells whether rewards have stopped coming, from one decision to the next. Pure; called by the guard of learning.

A sequential test (CUSUM; Page, Biometrika 1954) between two shares of rewarded decisions: at least FLOOR of the usual
one, however the season is, and next to none. Its exponential is an e-detector (Shin, Ramdas, Rinaldo, Electronic
Journal of Statistics 2023): where the share is above the floor, an alarm comes after 1 / ALPHA decisions on average at
the earliest, however often one looks. It takes about ln(1 / ALPHA) / (FLOOR x usual share) decisions to tell: 460 where
one in ten is rewarded.

The usual share follows slowly (half of it is forgotten after HALF rewarded decisions), so that a season or a policy
that learns moves it, and an outage does not before it is found. What was there before and passed is no outage either:
quiet nights, and the share from before a campaign (see `Lows`). The holdout is a control: where its rewards go on
coming while the others stop, the policy earns nothing, which is to be learned and is no outage.

What one unit adds is bounded, since a crawler may make nearly all calls: units are counted in buckets, and the evidence
of a bucket counts up to 1 / LEAST_UNITS of what an alarm needs. That is less than the whole, so alarms keep their rate;
where units are many, none comes near it, and nothing is found later.
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

LEAST_UNITS = 8
"""So many buckets of units must lack their rewards, at least."""

BACK = 1e-3
"""Rewards are back once that is as many times as likely as that they are not: 1 / BACK."""

HALF = 500
"""Rewarded decisions."""

ENOUGH = 200
"""Rewarded decisions that must be known before anything is told."""


RUN = 12
"""Rewarded decisions of a run, whose share is known well enough to be remembered."""

LEAST = 0.1
"""Of the usual share: a lower one is not remembered, however long it was and whatever came behind."""

PASSED = 0.5
"""Of the usual share: where that is reached again, what was lower has passed."""

TWICE = 2.0
"""A share counts as usual up to so many times the lowest one that has passed, so that FLOOR of it is below that."""

DAY, DAYS = 86_400_000_000, 15
"""Microseconds; so many days are remembered."""


@dataclass(slots=True)
class Lows:
    """The lowest shares of the last days, in runs of RUN rewarded decisions each: an outage ends no run."""

    by_day: dict[int, float] = field(default_factory=dict)
    lowest: float = math.inf
    _waits: float = math.inf
    _decisions: int = 0
    _rewarded: int = 0

    def begin_run(self) -> None:
        """Forget the run under way."""
        self._decisions = self._rewarded = 0

    def add(self, time: int, *, rewarded: bool, usual: float) -> None:
        """One more decision. usual: the share of late."""
        self._decisions += 1
        if rewarded:
            self._rewarded += 1
            if self._rewarded >= RUN:
                self.add_run(time, self._rewarded / self._decisions, usual=usual)
                self.begin_run()

    def add_run(self, time: int, share: float, *, usual: float) -> None:
        """The share of a run, or of a longer time."""
        if share >= LEAST * usual:
            self._waits = min(self._waits, share)
        if share >= PASSED * usual and self._waits < math.inf:
            day = time // DAY
            self.by_day[day] = min(self._waits, self.by_day.get(day, math.inf))
            for old in [one for one in self.by_day if one <= day - DAYS]:
                del self.by_day[old]
            self.lowest, self._waits = min(self.by_day.values()), math.inf


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
class _OfUnits:
    """Evidence by bucket of units. value: its sum, in which each bucket counts up to MOST_OF_A_UNIT."""

    value: float = 0.0
    _by_bucket: dict[int, float] = field(default_factory=dict)

    def add(self, more: float, bucket: int | None) -> None:
        """Of one decision. bucket: None where its unit comes once."""
        if bucket is None:
            self.value += more
            return
        before = self._by_bucket.get(bucket, 0.0)
        self._by_bucket[bucket] = before + more
        self.value += min(before + more, MOST_OF_A_UNIT) - min(before, MOST_OF_A_UNIT)


MOST_OF_A_UNIT = -math.log(ALPHA) / LEAST_UNITS


@dataclass(slots=True)
class OutageTest:
    """Fed with sealed decisions in their order. missing: whether rewards are missing, beyond doubt.

    >>> test = OutageTest(UsualShare.known(10_000, 1_000))
    >>> found = [test.add(time, rewarded=False, holdout=False, bucket=time % 100) for time in range(600)]
    >>> [since for since in found if since is not None]
    [0]
    >>> test.missing
    True
    """

    share: UsualShare = field(default_factory=UsualShare)
    missing: bool = False
    lows: Lows = field(default_factory=Lows)
    _since: int = 0
    _last: int = 0
    _evidence: float = 0.0
    _control: float = 0.0
    _of_units: _OfUnits = field(default_factory=_OfUnits)

    def add(self, time: int, *, rewarded: bool, holdout: bool, bucket: int | None = None) -> int | None:
        """One more decision, sealed at that time, 0 or later. bucket: of its unit; None: the unit comes once. Where
        `missing` changes by it: the time of the last decision from before the change, as far as can be told."""
        since = None
        if self.share.is_known:
            more = evidence(min(self.share.value, TWICE * self.lows.lowest), rewarded=rewarded)
            since = self._look_for_end(more, holdout) if self.missing else self._look_for_outage(more, holdout, bucket)
            self.lows.add(time, rewarded=rewarded, usual=self.share.value)
        if not (self.missing and self.share.is_known):
            self.share.add(rewarded)
        self._last = time
        return since

    def _look_for_outage(self, more: float, holdout: bool, bucket: int | None) -> int | None:
        self._begin_anew_where(self._of_units.value <= 0)
        self._of_units.add(more, bucket)
        self._control += more * holdout
        return self._turn(self._of_units.value >= -math.log(ALPHA) and self._control >= 0)

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
            self._since, self._evidence, self._of_units = self._last, 0.0, _OfUnits()
            self._control = self._control if self.missing else 0.0

    def _turn(self, turned: bool) -> int | None:
        if not turned:
            return None
        self.missing = not self.missing
        self.lows.begin_run()
        self._evidence, self._control, self._of_units = 0.0, 0.0, _OfUnits()
        return self._since
