"""What is wrong with rows that follow from entries: the same in every database. Called by the checks of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from decider.errors import InvalidExperiment
from decider.experiment.limits import LONGEST_DAY
from decider.experiment.schema import from_message, read_json
from decider.log.exposures import Exposure
from decider.log.protocol import Damage
from decider.log.tables import EXPERIMENTS, version_row
from decider.types import START, Time

NOWHERE = (START, START)
"""The positions of damage that is not in an entry."""

_DayOf = tuple[str, int, int, str]
"""Experiment, end and begin of a day, action."""


def wrong_definitions(rows: Iterable[Sequence[Any]], kept: Mapping[tuple[str, str], str]) -> Iterator[Damage]:
    """Whether the columns that views read agree with the definition, which the trainer reads, and so the kinds of
    actions by which a new version is checked. rows: of all versions, as the chain has them, with position and time.
    kept: kinds by experiment and action."""
    kinds: dict[tuple[str, str], str] = {}
    for position, _, *row in rows:
        written = dict(zip(EXPERIMENTS.columns, row, strict=True))
        try:
            experiment = from_message(read_json(written["definition"]))
            expected = version_row(experiment, written["number"], waits=bool(written["waits"]))
        except (InvalidExperiment, TypeError, ValueError) as error:
            yield Damage(position, position, f"the definition of an experiment cannot be read: {error}")
            continue
        kinds |= {(experiment.id, action.id): action.kind for action in experiment.actions}
        for name, value in zip(EXPERIMENTS.columns, expected, strict=True):
            if name != "definition" and written[name] != value:
                yield Damage(position, position, f"column {name} is {written[name]!r}, the definition says {value!r}")
    for id_, action in [key for key in kinds.keys() | kept.keys() if kept.get(key) != kinds.get(key)]:
        yield Damage(*NOWHERE, f"the kind of action {action!r} of experiment {id_!r} is not the one that it had")


def wrong_assignments(
    rows: Iterable[Sequence[Any]], version_row_at: Callable[[int | None], tuple[str, str] | None]
) -> Iterator[Damage]:
    """That each names a decision of its unit and ends when its version says. One of a decision that the log no longer
    has counts for nothing. rows: experiment, unit, until, decision of the assignment; unit, time, version of the
    decision. version_row_at: experiment and definition."""

    @lru_cache
    def keep(version: int | None) -> tuple[str | None, int]:
        row = version_row_at(version)
        try:
            return (row[0], from_message(read_json(row[1])).sticky) if row else (None, 0)
        except InvalidExperiment:  # `wrong_definitions` tells of it
            return row[0] if row else None, 0

    for experiment, unit, until, decision, kept_by, time, version in rows:
        if (experiment, unit, until) != (keep(version)[0], kept_by, (time or 0) + keep(version)[1]):
            yield Damage(*NOWHERE, f"the assignment of a unit to the decision at position {decision} is not as written")


@dataclass(frozen=True, slots=True)
class KeptExposures:
    """Tables `exposures` (rows by decision, columns in the order of the table) and `daily_counts`, as they are.

    forgotten: decisions of which the kind of the action may be gone. since: days from then on are there as a whole.
    """

    rows: Mapping[int, Sequence[Any]]
    forgotten: Collection[int]
    days: Mapping[_DayOf, int]
    since: Time = Time(0)


def wrong_exposures(counted: Iterable[Exposure], kept: KeptExposures, now: Time) -> Iterator[Damage]:
    """That what counts for caps and budgets follows from the decisions and activations that the log has. counted: what
    follows from them. now: log time."""
    spent: Counter[_DayOf] = Counter()
    left = dict(kept.rows)
    for one in counted:
        row = left.pop(one.decision, None)
        ended = one.reserved_until is not None and one.reserved_until <= now
        if one.day is not None and not (ended and row is None):
            spent[one.experiment, one.day.end, one.day.begin, one.action] += 1
        over = row is None and (ended or one.until <= now)
        expected = (*one[:-1], *(one.day or (None, None)))
        if (None if row is None else tuple(row)) != expected and not over and one.decision not in kept.forgotten:
            yield Damage(*NOWHERE, f"what counts for limits of the decision at position {one.decision} was changed")
    for decision in left.keys() - set(kept.forgotten):
        yield Damage(*NOWHERE, f"what counts for limits of the decision at position {decision} was added")
    yield from _wrong_days(spent, kept, now)


def _wrong_days(spent: Mapping[_DayOf, int], kept: KeptExposures, now: Time) -> Iterator[Damage]:
    """Of whole days; those that are over may be gone."""
    for day in kept.days.keys() | spent.keys():
        _, end, begin, _ = day
        # What becomes of a decision of a day that nobody asks for any more may be counted without those that are gone.
        gone = end <= now if day not in kept.days else end <= now - LONGEST_DAY
        if begin >= kept.since and not gone and kept.days.get(day, 0) != spent.get(day, 0):
            yield Damage(*NOWHERE, f"the count of a day's decisions of {day[0]} with {day[3]!r} was changed")


def wrong_model(experiment: str, position: int, *, is_published: bool, is_intact: bool) -> Iterator[Damage]:
    """Of a stored model: its data has the checksum, and an entry publishes it."""
    if not is_published:
        yield Damage(*NOWHERE, f"a model of {experiment} up to position {position} is stored but was never published")
    if not is_intact:
        yield Damage(*NOWHERE, f"the stored model of {experiment} up to position {position} is damaged")
