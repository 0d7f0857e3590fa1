"""The guard of learning: while rewards are missing beyond doubt, the stretch is left out. Called by the leader.

It watches sealed decisions as the trainers read them, and writes what `decider leave-out` writes. One that a final
reward has closed counts when its declared window is over, beside those without a reward: else the share of rewarded
ones would be near 1 at first, and then seem to break down. A replay knows nothing of the guard: the entries say what
was learned. Where a person takes its entry back, it holds nothing until rewards
have come again.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from operator import itemgetter
from typing import NamedTuple

from decider.estimate.outage import Lows, OutageTest, UsualShare
from decider.experiment.definition import ExperimentVersion
from decider.experiment.origin import FROM_SERVER, Origin
from decider.experiment.strata import bucket_of
from decider.learn.leave_out import not_taken_back
from decider.learn.usual_shares import UsualShares
from decider.learn.versions import learns_alike
from decider.log.protocol import EventLog, LeaveOut, NewLeaveOut, SealedDecision
from decider.types import START, ExperimentId, Position, Reason, Time

logger = logging.getLogger(__name__)

AUTHOR, SOURCE = "guard", FROM_SERVER
"""Of its entries."""

MOST_WAITING = 1_000
"""Decisions of an experiment that are looked at together."""


class _Seen(NamedTuple):
    """A decision, in the order of their ends: of sealing, or of the declared window of one that was closed before."""

    end: Time
    position: Position
    rewarded: bool
    holdout: bool
    bucket: int
    version: ExperimentVersion


@dataclass(slots=True)
class _Watch:
    """One experiment. version: that of the last decision tested. begun: the log's time when its watch began. at: the
    place of the last one seen; waiting: those to be tested. closed_until: up to which end of windows those that were
    closed before are tested, by version. held: its entry that is not over. turned: what is to be written: whether
    rewards are missing, and since when."""

    test: OutageTest
    version: ExperimentVersion
    begun: Time
    at: tuple[Time, Position]
    held: LeaveOut | None = None
    waiting: list[_Seen] = field(default_factory=list)
    closed_until: dict[Position, Time] = field(default_factory=dict)
    turned: list[tuple[bool, Time]] = field(default_factory=list)


class Guard:
    """See above. From the leader's thread; `held` from any."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._shares = UsualShares(log)
        self._watches: dict[ExperimentId, _Watch] = {}
        self.held: dict[ExperimentId, LeaveOut] = {}
        """What it leaves out now, by experiment."""

    def watch(self, sealed: SealedDecision, version: ExperimentVersion) -> None:
        """A sealed decision, in its order; one that comes again, or is from before its watch began, is known."""
        place = (sealed.deadline, sealed.position)
        watch = self.begin(version)
        if place > watch.at and _counts(sealed, version):
            holdout = sealed.decision.reason is Reason.HOLDOUT
            watch.at = place
            bucket = bucket_of(sealed.decision.unit_id)
            watch.waiting.append(_Seen(*place, bool(sealed.rewards), holdout, bucket, version))
            if len(watch.waiting) >= MOST_WAITING:
                self._test(watch)

    def _test(self, watch: _Watch) -> None:
        """Those that wait, and with them those whose declared window was over meanwhile."""
        closed = self._log.seals([one.position for one in watch.waiting])
        versions = {one.version.position: one for one in watch.waiting}  # the last one of each
        over = [one for last in versions.values() for one in self._over(watch, last)]
        tested = [*[one for one in watch.waiting if one.position not in closed], *over]
        watch.waiting.clear()
        watch.closed_until.update({version: last.end for version, last in versions.items()})
        for one in sorted(tested, key=itemgetter(0, 1)):
            _add(watch, one)

    def _over(self, watch: _Watch, last: _Seen) -> list[_Seen]:
        """Those closed before, of a version, up to the end of the last one seen."""
        version = last.version.position
        after = watch.closed_until.get(version, watch.begun)
        return [
            _Seen(
                one.window_end,
                one.position,
                one.rewarded,
                one.reason is Reason.HOLDOUT,
                bucket_of(one.unit_id),
                last.version,
            )
            for one in self._log.closed_decisions(version, after=after, until=last.end)
        ]

    def begin(self, version: ExperimentVersion) -> _Watch:
        """Watch an experiment. Go on from what the log says: an outage may have begun before the start."""
        id_ = version.experiment.id
        known = self._watches.get(id_)
        if known is not None:
            return known
        held = next(iter(self._open(id_)), None)
        if held is not None:
            self.held[id_] = held
        share, lows = self._shares.of(version, held_since=held.entry.after if held else None)
        test = OutageTest(share, missing=held is not None, lows=lows)
        begun = self._log.head().time
        watch = self._watches[id_] = _Watch(test, version, begun, (begun, START), held)
        return watch

    def end(self, id_: ExperimentId) -> None:
        """Another process learns an experiment now, and its guard goes on from what the log says."""
        self._watches.pop(id_, None)
        self.held.pop(id_, None)

    def _open(self, id_: ExperimentId) -> list[LeaveOut]:
        """Its entries that are not over, and that nobody has taken back."""
        in_force = not_taken_back(self._log.leave_outs(id_))
        return [one for one in in_force if _is_ours(one) and not one.entry.is_over]

    def follow(self, id_: ExperimentId) -> None:
        """Somebody has left something out, or taken it back: if that was the guard's entry, it is over."""
        watch = self._watches.get(id_)
        if watch is not None and watch.held is not None and watch.held not in self._open(id_):
            self._release(id_, watch)

    def _release(self, id_: ExperimentId, watch: _Watch) -> None:
        watch.held = None
        self.held.pop(id_, None)

    def act(self) -> None:
        """Write what was found since the last call. Raises LogError; the next call tries again."""
        for id_, watch in self._watches.items():
            if watch.waiting:
                self._test(watch)
            while watch.turned:
                missing, since = watch.turned[0]
                if missing:
                    self._hold(id_, watch, since)
                elif watch.held is not None:
                    self._go_on(id_, watch, watch.held, since)
                watch.turned.pop(0)

    def _hold(self, id_: ExperimentId, watch: _Watch, since: Time) -> None:
        usual = f"usually {watch.test.share.value:.3g} of the decisions have a reward, now next to none has"
        entry = NewLeaveOut(id_, since, None, origin=Origin(AUTHOR, SOURCE, usual))
        (mark,) = self._log.append([entry])
        assert mark is not None, "it takes nothing back"
        watch.held = self.held[id_] = LeaveOut(*mark, entry)
        logger.warning("%s", describe(watch.held))

    def _go_on(self, id_: ExperimentId, watch: _Watch, held: LeaveOut, since: Time) -> None:
        origin = Origin(AUTHOR, SOURCE, "rewards are back")
        self._log.append([NewLeaveOut(id_, held.entry.after, since, held.position, origin=origin)])
        self._release(id_, watch)
        logger.warning(
            "experiment %s: rewards are back, learning goes on; what came meanwhile is left out (`decider leave-out %s "
            "--db %s --list`)", id_, id_, self._log.name,
        )  # fmt: skip


def describe(held: LeaveOut) -> str:
    """For people, one line."""
    return f"experiment {held.entry.experiment}: rewards are missing, so nothing is learned: {held.entry.origin.note}"


def _is_ours(one: LeaveOut) -> bool:
    return one.entry.origin[:2] == (AUTHOR, SOURCE)


def _counts(sealed: SealedDecision, version: ExperimentVersion) -> bool:
    """Whether a decision may be rewarded: where activation is required, only one that was shown."""
    return sealed.activated or not version.experiment.needs_activation


def _add(watch: _Watch, one: _Seen) -> None:
    if one.version is not watch.version:
        _follow_version(watch, one.version)
    since = watch.test.add(one.end, rewarded=one.rewarded, holdout=one.holdout, bucket=one.bucket)
    if since is not None:
        watch.turned.append((watch.test.missing, Time(since)))


def _follow_version(watch: _Watch, version: ExperimentVersion) -> None:
    if not learns_alike(watch.version.experiment.reward, version.experiment.reward):
        watch.test.share, watch.test.lows = UsualShare(), Lows()  # other rewards have another share
    watch.version = version
