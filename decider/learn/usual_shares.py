"""The usual share of rewarded decisions of each experiment, from the totals by day, which are read once for all.

Called by the guard of learning when it begins to watch an experiment.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from decider.estimate.outage import DAY, ENOUGH, RUN, Lows, UsualShare
from decider.experiment.definition import ExperimentVersion
from decider.learn.versions import learns_alike
from decider.log.log_totals import LogTotals
from decider.log.protocol import LogReader
from decider.log.totals import ALL, BEFORE, LabelTotals
from decider.types import Time

MOST_VERSIONS = 20
"""Of an experiment, the newest ones: so many are looked at for one that rewarded something else."""


BEGINNING = Time(0)
"""Of log time."""


class Counted(NamedTuple):
    """Sealed decisions of a day. rewarded: of them, by the name of a reward that most of them have."""

    decisions: int
    rewarded: int


FRESH = 60.0
"""Seconds for which what was read is good for other experiments, too."""


class UsualShares:
    """As the stored totals have them; counted to the end of the log once, for whoever asks for that at about the same
    time: at a start, or where another process has gone whose experiments are to be watched."""

    def __init__(self, log: LogReader) -> None:
        self._log = log
        self._read_at = -math.inf
        self._stored: Mapping[str, Mapping[str, Counted]] | None = None
        self._whole: Mapping[str, Mapping[str, Counted]] | None = None

    def of(self, version: ExperimentVersion, *, held_since: Time | None) -> tuple[UsualShare, Lows]:
        """Of late, under rewards like those of this version. held_since: what came later does not count."""
        id_ = version.experiment.id
        until = None if held_since is None else held_since // DAY
        counted = self._by_day(to_end=held_since is not None).get(id_, {})
        return known(counted, since=self._rewards_begin(version), until=until)

    def _by_day(self, *, to_end: bool) -> Mapping[str, Mapping[str, Counted]]:
        if time.monotonic() - self._read_at >= FRESH:
            self._read_at = time.monotonic()
            self._stored = self._whole = None
        if self._stored is None:
            self._stored = by_day(LogTotals(self._log).totals)
        if to_end and self._whole is None:
            counted = LogTotals(self._log)
            counted.catch_up()
            self._whole = by_day(counted.totals)
        return self._stored if self._whole is None else self._whole

    def _rewards_begin(self, version: ExperimentVersion) -> Time:
        """The time of the version that made the rewards what they are; 0: they have always been so."""
        newer = version
        for position in self._log.newest_versions(version.experiment.id, most=MOST_VERSIONS):
            older = self._log.version_at(position)
            if not learns_alike(older.experiment.reward, version.experiment.reward):
                return newer.time
            newer = older
        return BEGINNING


def by_day(totals: LabelTotals) -> Mapping[str, Mapping[str, Counted]]:
    """By experiment, and day or BEFORE."""
    decisions: Counter[tuple[str, str]] = Counter()
    named: Counter[tuple[str, str, str]] = Counter()
    for (id_, name, _, day), count in totals.rewarded.items():
        if name == ALL:
            decisions[id_, day] += count
        else:
            named[id_, day, name] += count
    rewarded: dict[tuple[str, str], int] = {}
    for (id_, day, _), count in named.items():
        rewarded[id_, day] = max(count, rewarded.get((id_, day), 0))
    found: dict[str, dict[str, Counted]] = {}
    for (id_, day), count in decisions.items():
        found.setdefault(id_, {})[day] = Counted(count, rewarded.get((id_, day), 0))
    return found


def known(
    counted: Mapping[str, Counted], *, since: Time = BEGINNING, until: int | None = None
) -> tuple[UsualShare, Lows]:
    """The share of the newest days, as many as are enough, and the lowest of a day. since: only days that began later,
    where it is not 0. until: the last day that counts.

    >>> counted = {"": Counted(9000, 900), "20001": Counted(1000, 30), "20002": Counted(3000, 300)}
    >>> share, lows = known(counted)
    >>> share.value, lows.lowest
    (0.1, 0.03)
    >>> known(counted, since=Time(20_001 * DAY))[0].decisions, known(counted, until=20_001)[0].decisions
    (3000, 10000)
    """
    days = sorted([int(day) for day in counted if day != BEFORE])
    of_days = [day for day in days if (not since or day > since // DAY) and (until is None or day <= until)]
    newest = [(day, counted[str(day)]) for day in of_days[::-1]]
    before = [counted[BEFORE]] if BEFORE in counted and not since else []
    share = _enough([*[one for _, one in newest], *before])
    lows = Lows()
    for day, one in newest[::-1]:
        if one.rewarded >= RUN:
            lows.add_run(day * DAY, one.rewarded / one.decisions, usual=share.value)
    return share, lows


def _enough(newest_first: Iterable[Counted]) -> UsualShare:
    decisions = rewarded = 0
    for one in newest_first:
        if rewarded >= ENOUGH:
            break
        decisions, rewarded = decisions + one.decisions, rewarded + one.rewarded
    return UsualShare.known(decisions, rewarded)
