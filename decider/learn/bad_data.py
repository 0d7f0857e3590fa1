"""What a person does about data that nobody should learn: leave a stretch out, go back to an older model, take it back.

Each is one entry of the log (`leave_out.py`), which says who made it (`Origin`); the leader follows it. Called by
`decider leave-out` and `decider rollback`, in any process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from decider.errors import FailedPrecondition, InvalidArgument, LogError, NotFound, Violation
from decider.experiment.definition import Experiment, ExperimentVersion
from decider.experiment.origin import Origin
from decider.learn.leave_out import not_taken_back
from decider.learn.versions import learner, newest_version
from decider.log.protocol import EventLog, LeaveOut, LogReader, NewLeaveOut
from decider.text import time_text
from decider.types import START, ExperimentId, Position, Time

LOOK_EVERY = 0.1
"""Seconds between two looks whether a model is published."""

EARLIEST, LATEST = Time(0), Time(221_845_392_000_000_000)
"""1970 and 9000: times that a person names lie between."""

MOST_VERSIONS = 10_000
"""Of an experiment, the newest ones, among which the one is looked for that a rollback goes back to."""


def in_force(log: LogReader, id_: ExperimentId) -> list[LeaveOut]:
    """What is left out now: neither taken back nor empty. Raises NotFound where there is no such experiment."""
    if newest_version(log, id_) is None:
        raise NotFound(f"there is no experiment {id_!r}", reason="EXPERIMENT_NOT_FOUND")
    return [one for one in not_taken_back(log.leave_outs(id_)) if one.entry.until != one.entry.after]


def leave_out(log: EventLog, id_: ExperimentId, *, begin: Time, end: Time | None, origin: Origin) -> LeaveOut:
    """Learn from no decision whose reward window touches [begin, end]. end: None until somebody closes it.

    Raises NotFound, FailedPrecondition where the experiment learns nothing, or where older decisions than the log has
    would have to be learned again and their archive is not there, InvalidArgument where end is not behind begin, or
    one of them is no time that a log could have.
    """
    _learner(log, id_)
    _check_times(("from", begin), ("until", end))
    if end is not None and end <= begin:
        raise InvalidArgument([Violation("until", "is not later than the beginning; name a later time")])
    log.check_archive(id_, after=begin)
    return _append(log, NewLeaveOut(id_, begin, None, origin=origin, made_until=end))


def close(log: EventLog, id_: ExperimentId, *, end: Time, origin: Origin) -> LeaveOut:
    """End what is left out and not over: decisions that are made from then on are learned.

    Raises NotFound where nothing is open, ArchiveMissing or ArchiveDamaged where what is learned then is archived and
    is not there, InvalidArgument where it would end before it begins, or at no time that a log could have.
    """
    _check_times(("until", end))
    opened = [one for one in in_force(log, id_) if not one.entry.is_over]
    if not opened:
        raise NotFound(f"experiment {id_!r} leaves out nothing that is not over", reason="NOTHING_LEFT_OUT")
    newest = opened[-1]
    if end <= newest.entry.after:
        raise InvalidArgument([Violation("until", "is before the beginning; name a later time, or take it back")])
    log.check_archive(id_, after=end)
    return _append(log, NewLeaveOut(id_, newest.entry.after, None, newest.position, origin, made_until=end))


def take_back(log: EventLog, id_: ExperimentId, position: Position, *, origin: Origin) -> LeaveOut:
    """Learn from what an entry leaves out, as if it had never been left out. Raises NotFound, and ArchiveMissing or
    ArchiveDamaged where that is archived and is not there."""
    known = {one.position: one for one in in_force(log, id_)}
    if position not in known:
        left = ", ".join(map(str, known)) or "none"
        raise NotFound(
            f"no entry at {position} leaves something out of {id_!r}; there are: {left}", reason="NOT_LEFT_OUT"
        )
    after = known[position].entry.after
    log.check_archive(id_, after=after)
    return _append(log, NewLeaveOut(id_, after, after, position, origin=origin))


def roll_back(log: EventLog, id_: ExperimentId, to: Position, *, origin: Origin) -> LeaveOut:
    """Serve the model that had learned up to a position: leave out all that was sealed since, up to now.

    Raises as `leave_out`, InvalidArgument for a position that the log does not have, and FailedPrecondition where
    another policy's model served then.
    """
    _check_policy(log, _newest_learner(log, id_), to)
    head = log.head()
    if not START <= to < head.position:
        raise InvalidArgument([Violation("to", f"is not in the log, which has positions up to {head.position}")])
    after = log.time_at(to) if to > START else Time(0)
    log.check_archive(id_, after=after)
    return _append(log, NewLeaveOut(id_, after, head.time, origin=origin))


def _check_times(*times: tuple[str, Time | None]) -> None:
    """Of options and their values."""
    wrong = [name for name, at in times if at is not None and not EARLIEST <= at < LATEST]
    if wrong:
        raise InvalidArgument(
            [Violation(name, "lies before 1970 or after 8999; name a time between") for name in wrong]
        )


def wait_until_followed(
    log: LogReader, made: LeaveOut, *, is_led: Callable[[], bool], say: Callable[[str], None]
) -> Position:
    """Until a model that follows an entry is published; its position. is_led: whether a server learns.

    Raises LogError where nobody learns any more, FailedPrecondition where the experiment does not learn now.
    """
    id_ = made.entry.experiment
    experiment = _learner(log, id_)
    if not experiment.learns:
        raise FailedPrecondition(
            f"the entry at position {made.position} is written; experiment {id_!r} does not learn now, and follows it "
            "when it learns again: do not wait for that"
        )
    while (named := log.models.last_published_position(id_, experiment.policy.signature)) < made.position:
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
    """The newest version's content, which has a model. Raises NotFound, FailedPrecondition."""
    return _newest_learner(log, id_).experiment


def _newest_learner(log: LogReader, id_: ExperimentId) -> ExperimentVersion:
    newest = newest_version(log, id_)
    learner(id_, newest.experiment if newest else None)
    assert newest is not None, "else it has raised"
    return newest


def _check_policy(log: LogReader, newest: ExperimentVersion, to: Position) -> None:
    """A model is of one policy; one that has learned anew is the same. Every policy begins with nothing."""
    id_ = newest.experiment.id
    at = next((one for one in log.newest_versions(id_, most=MOST_VERSIONS) if one <= to), None)
    if at is None:
        return
    then, now = log.version_at(at), newest.experiment.policy
    if replace(then.experiment.policy, relearned=None) != replace(now, relearned=None):
        raise FailedPrecondition(
            f"the model that had learned up to position {to} is another policy's: version {then.number} had "
            f"{then.experiment.policy.algorithm}, version {newest.number} has {now.algorithm} or other parameters. To "
            f"have that policy again, apply version {then.number} once more; to let the present one forget what came "
            f"since: decider leave-out {id_} --db {log.name} --from {time_text(log.time_at(to))} --until 0s",
            reason="ANOTHER_POLICY",
        )
