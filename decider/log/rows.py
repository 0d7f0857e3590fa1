"""Rows with named columns, and the decisions and experiment versions in them: the same in every database.

Called by the readers of `sqlite/` and `postgres/` and by `archive/`. Where there are many rows they are named tuples:
one is made in 0.3 us, and reading a column costs less than with `sqlite3.Row`.
"""

from __future__ import annotations

import json
import struct
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from decider.errors import InvalidExperiment, LogCorrupt
from decider.experiment.definition import ExperimentVersion
from decider.experiment.origin import Origin
from decider.experiment.schema import from_message, read_json
from decider.log.protocol import DecisionRef, Head, LeaveOut, LoggedDecision, NewLeaveOut
from decider.log.tables import MADE
from decider.types import START, ActionId, Context, Decision, DecisionId, Position, Reason, Time

Parameters = Sequence[Any] | Mapping[str, Any]

UNREADABLE = (
    ArithmeticError,  # OverflowError, too
    AssertionError,
    AttributeError,
    LookupError,  # KeyError and IndexError
    MemoryError,  # a text times a large number
    RuntimeError,  # RecursionError of a deep text, and StopIteration in a generator
    TypeError,
    ValueError,
    struct.error,
    InvalidExperiment,
    LogCorrupt,
)
"""What code raises that reads damaged rows: SQLite stores anything in any column, and a flipped bit makes it so."""

VERSION = "position, time, number, definition"
"""The columns that `experiment_version` wants, of `experiments`."""


class RowType(NamedTuple):
    """Rows of certain columns. columns: as in a `select`. make: a named tuple from values in that order."""

    columns: str
    make: Callable[[Iterable[Any]], Any]


def row_type(columns: str) -> RowType:
    """From column names with commas between them.

    >>> row_type("position, time").make((7, 1800))
    Row(position=7, time=1800)
    """
    made: Any = namedtuple("Row", columns.split(", "))  # type: ignore[misc]  # mypy wants them written out
    return RowType(columns, made._make)


DECISION = row_type(
    "position, time, version, decision_id, unit_id, segment, device, channel, location, intent_stage, features, "
    "eligible, action_features, pmf, action, propensity, reason, model, build"
)
SEALED_DECISION = row_type(f"{DECISION.columns}, deadline, overridden, activated, shown, reward")
"""Of `decision_rewards`: several rows of a decision with several rewards."""

PLACE = row_type(", ".join(("decision_id", *DecisionRef._fields)))
"""A decision id, then the columns of a DecisionRef."""


@contextmanager
def damage_as_log_corrupt(what: str) -> Iterator[None]:
    """For a block that does nothing but read rows: what damaged ones make it raise, as LogCorrupt. what: was read."""
    try:
        yield
    except LogCorrupt:
        raise
    except UNREADABLE as error:
        raise LogCorrupt(
            f"{what} cannot be read ({type(error).__name__}: {error}): the log is damaged; `decider check` says where"
        ) from error


def whole_number(value: Any, what: str) -> int:
    """A position, time or count of the log's, none of which is below 0. Raises LogCorrupt if it is none."""
    if not isinstance(value, int) or value < 0:
        raise LogCorrupt(f"{what} is damaged: {value!r:.40} is no whole number from 0 on")
    return value


def head_in(row: Sequence[Any]) -> Head:
    """The end of a log, or of a part of it, in position, time and chain. Raises LogCorrupt if it cannot be one."""
    position, time, chain = row
    if not isinstance(chain, bytes):
        raise LogCorrupt(f"the chain at position {position!r:.40} is damaged: {chain!r:.40}")
    return Head(
        Position(whole_number(position, "the position of the log's end")),
        Time(whole_number(time, "the time of the log's end")),
        chain,
    )


def logged_decision(row: Any, all_active: tuple[ActionId, ...]) -> LoggedDecision:
    """The decision in a row with the columns of DECISION, with its place. Raises LogCorrupt if it cannot be one."""
    return LoggedDecision(row.position, row.time, decision(row, all_active), row.build or START)


def decision(row: Any, all_active: tuple[ActionId, ...]) -> Decision:
    """The decision in a row with the columns of DECISION. all_active: of its version, to share one tuple.

    Raises LogCorrupt if it cannot be one.
    """
    try:
        return _decision(row, all_active)
    except UNREADABLE as error:
        raise LogCorrupt(f"the decision at position {row.position} is damaged: {error}") from error


def _decision(row: Any, all_active: tuple[ActionId, ...]) -> Decision:
    return Decision(
        decision_id=DecisionId(row.decision_id),
        version=Position(row.version),
        unit_id=row.unit_id,
        context=Context(
            segment=row.segment or "",
            device=row.device or "",
            channel=row.channel or "",
            location=row.location or "",
            intent_stage=row.intent_stage or "",
            features=_object_in(row.features) if row.features else {},
        ),
        eligible=tuple(json.loads(row.eligible)) if row.eligible else all_active,
        action_features=_object_in(row.action_features) if row.action_features else {},
        pmf=tuple(json.loads(row.pmf)),
        action=ActionId(row.action),
        propensity=row.propensity,
        reason=Reason(row.reason),
        model=Position(row.model),
    )


def _object_in(text: str) -> Any:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise TypeError(f"{text!r:.40} is no JSON object")
    return found


def experiment_version(row: Any) -> ExperimentVersion:
    """The experiment version in a row of `experiments`. Raises LogCorrupt if it cannot be one."""
    try:
        experiment = from_message(read_json(row["definition"]))
    except InvalidExperiment as error:
        raise LogCorrupt(
            f"the definition of the experiment at position {row['position']} is damaged: {error}"
        ) from error
    return ExperimentVersion(
        experiment,
        number=row["number"],
        position=Position(row["position"]),
        time=Time(row["time"]),
    )


def leave_out(row: Any) -> LeaveOut:
    """What a row of `leave_outs` leaves out, beside who made it. Raises LogCorrupt if it cannot be one."""
    numbers, texts = (row["sealed_after"], row["sealed_until"], row["replaces"]), row[6:]
    wrong = [one for one in numbers[:1] if one is None] + [one for one in numbers if not isinstance(one, int | None)]
    wrong += [one for one in texts if not isinstance(one, str)]
    if wrong:
        raise LogCorrupt(f"what the entry at position {row['position']} leaves out is damaged: {wrong[0]!r}")
    after, end, replaces = numbers
    of_made = end is not None and end < -MADE // 2
    entry = NewLeaveOut(
        row["experiment"],
        after,
        None if of_made else end,
        replaces,
        Origin(*texts),
        Time(end + MADE) if of_made else None,
    )
    return LeaveOut(row["position"], row["time"], entry)
