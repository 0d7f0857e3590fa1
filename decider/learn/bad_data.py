"""What a person does about data that nobody should learn: leave a stretch out, go back to an older model, take it back.

Each is one entry of the log (`leave_out.py`); the leader follows it. Called by `decider leave-out` and `decider
rollback`, in any process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from decider.errors import FailedPrecondition, InvalidArgument, LogError, NotFound, Violation
from decider.experiment.definition import Experiment
from decider.learn.leave_out import not_taken_back
from decider.learn.versions import learner, newest_version
from decider.log.protocol import EventLog, LeaveOut, LogReader, NewLeaveOut
from decider.types import START, ExperimentId, Position, Time

LOOK_EVERY = 0.1
"""Seconds between two looks whether a model is published."""

LONGEST_TEXT = 500
"""Characters of an author or a reason."""


@dataclass(frozen=True, slots=True)
class Note:
    """Who does it, and why. Raises InvalidArgument where that is too long."""

    author: str = ""
    reason: str = ""

    def __post_init__(self) -> None:
        for name, text in (("author", self.author), ("reason", self.reason)):
            if len(text) > LONGEST_TEXT:
                problem = f"has {len(text)} characters; {LONGEST_TEXT} are kept, so make it shorter"
                raise InvalidArgument([Violation(name, problem)])


def in_force(log: LogReader, id_: ExperimentId) -> list[LeaveOut]:
    """What is left out now: neither taken back nor empty."""
    return [one for one in not_taken_back(log.leave_outs(id_)) if one.entry.until != one.entry.after]


def leave_out(log: EventLog, id_: ExperimentId, *, begin: Time, end: Time | None, note: Note) -> LeaveOut:
    """Learn from no decision whose reward window touches [begin, end]. end: None until somebody closes it.

    Raises NotFound, FailedPrecondition where the experiment learns nothing, or where older decisions than the log has
    would have to be learned again and their archive is not there, InvalidArgument where end is not behind begin.
    """
    _learner(log, id_)
    if end is not None and end <= begin:
        raise InvalidArgument([Violation("until", "is not later than the beginning; name a later time")])
    until = None if end is None else Time(end + _longest_window(log, id_))
    log.check_archive(id_, after=begin)
    return _append(log, NewLeaveOut(id_, begin, until, None, note.author, note.reason))


def close(log: EventLog, id_: ExperimentId, *, end: Time, note: Note) -> LeaveOut:
    """End what is left out and not over: decisions that are made from then on are learned.

    Raises NotFound where nothing is open, InvalidArgument where it would end before it begins.
    """
    opened = [one for one in in_force(log, id_) if one.entry.until is None]
    if not opened:
        raise NotFound(f"experiment {id_!r} leaves out nothing that is not over", reason="NOTHING_LEFT_OUT")
    newest = opened[-1]
    until = Time(end + _longest_window(log, id_))
    if end <= newest.entry.after:
        raise InvalidArgument([Violation("until", "is before the beginning; name a later time, or take it back")])
    return _append(log, NewLeaveOut(id_, newest.entry.after, until, newest.position, note.author, note.reason))


def take_back(log: EventLog, id_: ExperimentId, position: Position, *, note: Note) -> LeaveOut:
    """Learn from what an entry leaves out, as if it had never been left out. Raises NotFound."""
    known = {one.position: one for one in in_force(log, id_)}
    if position not in known:
        left = ", ".join(map(str, known)) or "none"
        raise NotFound(
            f"no entry at {position} leaves something out of {id_!r}; there are: {left}", reason="NOT_LEFT_OUT"
        )
    after = known[position].entry.after
    return _append(log, NewLeaveOut(id_, after, after, position, note.author, note.reason))


def roll_back(log: EventLog, id_: ExperimentId, to: Position, *, note: Note) -> LeaveOut:
    """Serve the model that had learned up to a position: leave out all that was sealed since, up to now.

    Raises as `leave_out`, and InvalidArgument for a position that the log does not have.
    """
    _learner(log, id_)
    head = log.head()
    if not START <= to < head.position:
        raise InvalidArgument([Violation("to", f"is not in the log, which has positions up to {head.position}")])
    after = log.time_at(to) if to > START else Time(0)
    log.check_archive(id_, after=after)
    return _append(log, NewLeaveOut(id_, after, head.time, None, note.author, note.reason))


def wait_until_followed(
    log: LogReader, made: LeaveOut, *, is_led: Callable[[], bool], say: Callable[[str], None]
) -> Position:
    """Until a model that follows an entry is published; its position. is_led: whether a server learns.

    Raises LogError where nobody learns any more.
    """
    id_ = made.entry.experiment
    signature = _learner(log, id_).policy.signature
    while (named := log.models.last_published_position(id_, signature)) < made.position:
        if not is_led():
            raise LogError(f"{log.name}: the server has ended; the next one that starts goes on")
        say(f"experiment {id_} learns again")
        time.sleep(LOOK_EVERY)
    return named


def _append(log: EventLog, entry: NewLeaveOut) -> LeaveOut:
    (mark,) = log.append([entry])
    if mark is None:
        raise FailedPrecondition(
            f"somebody else has changed what the entry at {entry.replaces} leaves out; look again", reason="CHANGED"
        )
    return LeaveOut(*mark, entry)


def _learner(log: LogReader, id_: ExperimentId) -> Experiment:
    """The newest version, which has a model. Raises NotFound, FailedPrecondition."""
    newest = newest_version(log, id_)
    return learner(id_, newest.experiment if newest else None)


def _longest_window(log: LogReader, id_: ExperimentId) -> int:
    """Microseconds: a decision of any version that was made by then is sealed by then and so much."""
    return max(one.experiment.reward.window for one in log.versions() if one.experiment.id == id_)
