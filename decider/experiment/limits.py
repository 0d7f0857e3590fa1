"""How often actions may be shown: caps for a unit and a period, budgets for a calendar day. Pure.

What counts is an exposure: an action that a decision has shown, as far as the log knows. Called by `decide` for what is
withheld, by the logs, which count, and by `simulator verify`, which counts again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import NamedTuple
from zoneinfo import ZoneInfo

from decider.types import NOTHING_REACHED, ActionId, Reached, Time

MICROSECONDS = 1_000_000
UTC_NAME = "UTC"

LONGEST_DAY = (24 + 26) * 3_600 * MICROSECONDS
"""Of any zone: clocks tell UTC-12 to UTC+14, and one day Antarctica/Vostok went from +7 to 0. For so long a day that is
over may overlap today's in another zone, which a new version may have."""

CAPS, DAILY_BUDGET, ELIGIBLE_IF = "caps", "daily_budget", "eligible_if"
"""Names of rules that withhold actions: fields of the definition."""

_OF_THE_MACHINE = ("localtime", "posixrules", "Factory")
"""Files of the database that are no zones, or another one on each machine."""


def zone_of(name: str) -> tzinfo:
    """The time zone with a name of the IANA database. Raises ValueError where there is none.

    >>> zone_of("Europe/Berlin").key, zone_of("UTC")
    ('Europe/Berlin', datetime.timezone.utc)
    """
    if name == UTC_NAME:
        return UTC  # on a machine without the database, too
    if name in _OF_THE_MACHINE or name.startswith(("posix/", "right/")):
        raise ValueError(name)
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError) as error:  # not there; a folder; a path that leads elsewhere
        raise ValueError(name) from error


class Day(NamedTuple):
    """A calendar day: times in [begin, end)."""

    begin: Time
    end: Time


def day_at(at: Time, zone: tzinfo) -> Day:
    """The calendar day of a time. Where clocks are changed it has 23 or 25 hours, or others: 22 and 26 in
    Antarctica/Troll.

    >>> spring = day_at(Time(1_774_742_400_000_000), zone_of("Europe/Berlin"))  # 2026-03-29
    >>> (spring.end - spring.begin) / 3_600_000_000
    23.0
    """
    today = datetime.fromtimestamp(at / MICROSECONDS, zone).date()
    if _midnight(today + timedelta(days=1), zone) <= at:  # clocks that go back over midnight: it has begun once already
        today += timedelta(days=1)
    return Day(_midnight(today, zone), _midnight(today + timedelta(days=1), zone))


def _midnight(day: date, zone: tzinfo) -> Time:
    """When a day begins: the first of two midnights; where clocks leave it out, the moment when they do."""
    return Time(round(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()) * MICROSECONDS)


@dataclass(frozen=True, slots=True)
class Cap:
    """At most `most` times in `per` microseconds a unit is shown the action, or one of the kind; the other is None."""

    most: int
    per: int
    action: ActionId | None = None
    kind: str | None = None

    def covers(self, action: ActionId, kind: str) -> bool:
        """Whether an action counts for it."""
        return action == self.action if self.kind is None else kind == self.kind


class Counts(NamedTuple):
    """What counts at a time for the limits of a version: for each cap and for each budget, in their order. Of a cap it
    is counted no further than its `most`: so a decision costs the same, however often its unit was shown something."""

    caps: tuple[int, ...]
    budgets: tuple[int, ...]


class Limits:
    """The caps and budgets of a version. budgets: of a day, by action."""

    __slots__ = ("_day", "_zone", "budgets", "caps", "longest")

    def __init__(self, caps: Sequence[Cap], budgets: Mapping[ActionId, int], time_zone: str) -> None:
        self.caps = tuple(caps)
        self.budgets = dict(budgets)
        self.longest = max([cap.per for cap in caps], default=0)
        self._zone = zone_of(time_zone)
        self._day = Day(Time(0), Time(0))

    def covers(self, action: ActionId, kind: str) -> bool:
        """Whether a cap or a budget counts an action."""
        return action in self.budgets or any(cap.covers(action, kind) for cap in self.caps)

    def period(self, action: ActionId, kind: str) -> int:
        """The longest one of the caps that count an action."""
        return max([cap.per for cap in self.caps if cap.covers(action, kind)], default=0)

    def day(self, at: Time) -> Day:
        """The calendar day of a time."""
        day = self._day  # of the call before: one read, since threads share it
        if not day.begin <= at < day.end:
            day = self._day = day_at(at, self._zone)
        return day

    def counts(self, shown: Sequence[int], spent: Mapping[ActionId, int]) -> Counts:
        """shown: to the unit, of each cap. spent: of the day, by action."""
        return Counts(tuple(shown), tuple([spent.get(id_, 0) for id_ in self.budgets]))

    def with_one(self, counts: Counts, action: ActionId, kind: str) -> Counts:
        """The counts after one more decision at the same time."""
        caps = [n + cap.covers(action, kind) for n, cap in zip(counts.caps, self.caps, strict=True)]
        return Counts(
            tuple(caps), tuple([n + (id_ == action) for n, id_ in zip(counts.budgets, self.budgets, strict=True)])
        )

    def reached(self, counts: Counts) -> Reached:
        """The caps and budgets that are used up."""
        caps = tuple([i for i, (n, cap) in enumerate(zip(counts.caps, self.caps, strict=True)) if n >= cap.most])
        left = zip(counts.budgets, self.budgets.items(), strict=True)
        budgets = tuple([action for n, (action, most) in left if n >= most])
        return Reached(caps, budgets) if caps or budgets else NOTHING_REACHED

    def rule(self, action: ActionId, kind: str, reached: Reached) -> str | None:
        """The name of the rule that withholds an action; None: it may be shown.

        >>> limits = Limits([Cap(2, 1_000_000, kind="offer")], {}, "UTC")
        >>> limits.rule(ActionId("sale"), "offer", Reached(caps=(0,)))
        'caps[0]'
        """
        for index in reached.caps:
            if self.caps[index].covers(action, kind):
                return f"{CAPS}[{index}]"
        return DAILY_BUDGET if action in reached.budgets else None


def is_limit(rule: str) -> bool:
    """Whether a rule with that name is a cap or a budget."""
    return rule == DAILY_BUDGET or rule.startswith(f"{CAPS}[")
