"""What models leave out, for those who ask often: which entries are not over, and up to when a model knows anything.

Called by the server, the metrics, the page and explanations; `leave_out.py` says what an entry means for a trainer.
"""

from __future__ import annotations

from collections.abc import Sequence

from decider.learn.leave_out import not_taken_back, stretches
from decider.log.protocol import LeaveOut, LogReader, ServingChanges
from decider.types import ExperimentId, Position, Time


class LeaveOuts:
    """The entries of each experiment, kept in memory: a scrape asks for those of all. `tell` is called by the follower
    with what is new; the others from any thread. They raise LogError where new ones cannot be read."""

    def __init__(self, log: LogReader) -> None:
        self._log = log
        self._newest: dict[ExperimentId, Position] = {}
        self._entries: dict[ExperimentId, Sequence[LeaveOut]] = {}

    def tell(self, news: ServingChanges) -> None:
        """Where new ones are."""
        for position, id_ in news.leave_outs:
            self._newest[id_] = position

    def of(self, id_: ExperimentId) -> Sequence[LeaveOut]:
        """All of one experiment, in order of position; also what was taken back."""
        known = self._entries.get(id_, ())
        if id_ in self._newest and (not known or known[-1].position < self._newest[id_]):
            known = self._entries[id_] = self._log.leave_outs(id_)
        return known

    def open(self) -> Sequence[LeaveOut]:
        """Those that are not over, of all experiments: nothing is learned there."""
        return [one for id_ in sorted(self._newest.copy()) for one in not_over(self.of(id_))]


def not_over(entries: Sequence[LeaveOut]) -> Sequence[LeaveOut]:
    """Of an experiment's entries those whose end nobody knows, and that nobody has taken back."""
    return [one for one in not_taken_back(entries) if not one.entry.is_over]


def in_force_at(entries: Sequence[LeaveOut], position: Position) -> Sequence[LeaveOut]:
    """What a model at a position leaves out."""
    before = [one for one in entries if one.position <= position]
    return [one for one in not_taken_back(before) if one.entry.until != one.entry.after]


def open_in_words(one: LeaveOut, log: str) -> str:
    """One that is not over, for people, in one line. log: its name."""
    id_ = one.entry.experiment
    return (
        f"experiment {id_} learns nothing: it {one.entry}; said at position {one.position} {one.entry.origin}. To end "
        f"that: `decider leave-out {id_} --db {log} --until 0s`"
    )


def knows_until(log: LogReader, id_: ExperimentId, position: Position, entries: Sequence[LeaveOut]) -> Time:
    """Up to when the model at a position knows what was earned; 0: nothing. entries: of its experiment.

    After a rollback the model has a new position and knows nothing new, until something is sealed and learned again.
    """
    time = log.time_at(position)
    found = stretches(in_force_at(entries, position), position)
    for stretch in sorted(found, key=lambda one: one.end, reverse=True):
        if stretch.after < time and not _is_sealed(log, id_, after=stretch.end, until=time):
            time = stretch.after
    return time


def _is_sealed(log: LogReader, id_: ExperimentId, *, after: Time, until: Time) -> bool:
    """Whether a window has ended in (after, until]."""
    if after >= until:
        return False
    first = log.next_deadline(after=after, experiment=id_)
    return first is not None and first <= until
