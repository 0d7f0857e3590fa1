"""What models leave out: stretches of sealed decisions from which nobody learns. Pure; called by `trainer.py`.

An entry of the log says so, for everything that is learned from then on: a model up to a position follows the entries
up to there. So a replay finds the same models, and a model that has learned from a stretch which is left out later has
to go back to the time before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from decider.log.protocol import LeaveOut
from decider.types import Position, Time

NEVER = Time(2**63 - 1)
"""The end of a stretch that is not over."""


class Stretch(NamedTuple):
    """Decisions that are sealed in (after, until] and were made by made_until."""

    after: Time
    until: Time
    made_until: Time = NEVER

    @property
    def end(self) -> Time:
        """What is sealed up to there is left out; what is sealed later may have been made before."""
        return min(self.until, self.made_until)

    def holds(self, *, made: Time, deadline: Time) -> bool:
        """Whether a decision whose window ends there is left out."""
        return self.after < deadline <= self.until and made <= self.made_until


def stretches(entries: Iterable[LeaveOut], until: Position) -> list[Stretch]:
    """What is left out after the entries up to a position."""
    return [_stretch(one) for one in not_taken_back([one for one in entries if one.position <= until])]


def not_taken_back(entries: Sequence[LeaveOut]) -> list[LeaveOut]:
    """Those of an experiment's entries that no later one takes back."""
    replaced = {one.entry.replaces for one in entries}
    return [one for one in entries if one.position not in replaced]


def first_change(entries: Sequence[LeaveOut], *, after: Position, until: Position) -> Time:
    """Up to this log time the entries behind a position, up to another, change nothing: whoever has learned up to there
    need not go back. NEVER: they change nothing at all."""
    by_position = {one.position: one for one in entries}
    new = [one for one in entries if after < one.position <= until]
    return min(
        [_first_difference(one, by_position.get(one.entry.replaces or Position(0))) for one in new], default=NEVER
    )


def _stretch(one: LeaveOut) -> Stretch:
    entry = one.entry
    return Stretch(
        entry.after,
        NEVER if entry.until is None else entry.until,
        NEVER if entry.made_until is None else entry.made_until,
    )


def _first_difference(new: LeaveOut, old: LeaveOut | None) -> Time:
    """Where an entry begins to make a difference. old: the one that it takes back."""
    here = _stretch(new)
    if old is None:
        return here.after
    before = _stretch(old)
    return min(here.after, before.after) if here.after != before.after else min(here.end, before.end)
