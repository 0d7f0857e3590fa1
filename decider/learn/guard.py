"""The guard of learning: while rewards are missing beyond doubt, the stretch is left out. Called by the leader.

It watches sealed decisions as the trainers read them, and writes what `decider leave-out` writes. So a replay knows
nothing of it: the entries say what was learned. Where a person takes its entry back, it holds nothing until rewards
have come again.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from decider.estimate.outage import Lows, OutageTest, UsualShare
from decider.experiment.definition import ExperimentVersion
from decider.experiment.origin import Origin
from decider.learn.leave_out import not_taken_back
from decider.learn.usual_shares import UsualShares
from decider.learn.versions import learns_alike
from decider.log.protocol import EventLog, LeaveOut, NewLeaveOut, SealedDecision
from decider.types import START, ExperimentId, Position, Reason, Time

logger = logging.getLogger(__name__)

AUTHOR, SOURCE = "guard", "server"
"""Of its entries. A person may have any name, but does not come from there."""

Place = tuple[Time, Position]
"""Of a decision in the order of sealing."""


@dataclass(slots=True)
class _Watch:
    """One experiment. version: that of the last decision seen, at its place. held: its entry that is not over. turned:
    what is to be written: whether rewards are missing, and since when."""

    test: OutageTest
    version: ExperimentVersion
    at: Place
    held: LeaveOut | None = None
    turned: list[tuple[bool, Time]] = field(default_factory=list)


class Guard:
    """See above. From the leader's thread; `held` from any."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._shares = UsualShares(log)
        self._watches: dict[ExperimentId, _Watch] = {}
        self._begun: Place = (log.head().time, START)
        self.held: dict[ExperimentId, LeaveOut] = {}
        """What it leaves out now, by experiment."""

    def watch(self, sealed: SealedDecision, version: ExperimentVersion) -> None:
        """A sealed decision, in its order; one that comes again, or is from before the start, is known."""
        place = (sealed.deadline, sealed.position)
        if place <= self._begun:
            return
        watch = self.begin(version)
        if place <= watch.at or not _counts(sealed, version):
            return
        if version is not watch.version:
            _follow_version(watch, version)
        watch.at = place
        holdout = sealed.decision.reason is Reason.HOLDOUT
        since = watch.test.add(sealed.deadline, rewarded=bool(sealed.rewards), holdout=holdout)
        if since is not None:
            watch.turned.append((watch.test.missing, Time(since)))

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
        watch = self._watches[id_] = _Watch(test, version, self._begun, held)
        return watch

    def _open(self, id_: ExperimentId) -> list[LeaveOut]:
        """Its entries that are not over, and that nobody has taken back."""
        in_force = not_taken_back(self._log.leave_outs(id_))
        return [one for one in in_force if _is_ours(one) and one.entry.until is None]

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
            while watch.turned:
                missing, since = watch.turned[0]
                if missing:
                    self._hold(id_, watch, since)
                elif watch.held is not None:
                    self._go_on(id_, watch, watch.held, since)
                watch.turned.pop(0)

    def _hold(self, id_: ExperimentId, watch: _Watch, since: Time) -> None:
        usual = f"usually {watch.test.share.value:.3g} of the decisions have a reward, now next to none has"
        entry = NewLeaveOut(id_, since, None, None, Origin(AUTHOR, SOURCE, usual))
        (mark,) = self._log.append([entry])
        assert mark is not None, "it takes nothing back"
        watch.held = self.held[id_] = LeaveOut(*mark, entry)
        logger.warning("%s", describe(watch.held))

    def _go_on(self, id_: ExperimentId, watch: _Watch, held: LeaveOut, since: Time) -> None:
        origin = Origin(AUTHOR, SOURCE, "rewards are back")
        self._log.append([NewLeaveOut(id_, held.entry.after, since, held.position, origin)])
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


def _follow_version(watch: _Watch, version: ExperimentVersion) -> None:
    if not learns_alike(watch.version.experiment.reward, version.experiment.reward):
        watch.test.share, watch.test.lows = UsualShare(), Lows()  # other rewards have another share
    watch.version = version
