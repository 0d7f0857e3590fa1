"""Totals of the lift: exact sums by group and bucket of units, in each stratum. Called by `totals.py` and by every log.

They are exact, so that they depend neither on the order of adding nor on where counting was interrupted: what a check
counts anew has to be what is stored. Bounded: no unit is kept, and only the newest strata and some names are.
"""

from __future__ import annotations

import json
import zlib
from array import array
from base64 import b85decode, b85encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from decider.experiment.guardrails import MOST_NAMES
from decider.experiment.strata import BUCKETS, Stratum
from decider.log.exact_sum import DIGITS, ZERO, ExactSum, digits_of
from decider.types import START, Position

PLACES = 2 * BUCKETS
"""Of the policy's buckets, then the holdout's."""

LEARNED = "(learned)"
"""Beside the names of rewards: the final reward, from which the policy learns."""

MOST_STRATA = 8
"""Of an experiment. The newest strata stay, and the MOST_NAMES names that come first in the alphabet: what stays once
more is known does not depend on the order in which it came."""


def place_of(bucket: int, *, holdout: bool) -> int:
    """Of a group's bucket.

    >>> place_of(3, holdout=False), place_of(3, holdout=True)
    (3, 515)
    """
    return BUCKETS * holdout + bucket


def _numbers() -> array[int]:
    return array("q", bytes(8 * PLACES))


@dataclass(slots=True)
class PlaceSums:
    """An exact sum of floats for each place. digits: as in `digits_of`; odd: sums of floats that those cannot hold."""

    digits: tuple[array[int], ...] = field(default_factory=lambda: tuple(_numbers() for _ in DIGITS))
    odd: dict[int, ExactSum] = field(default_factory=dict)

    def add(self, place: int, digits: Iterable[int]) -> None:
        """Sums of digits of more floats."""
        for numbers, more in zip(self.digits, digits, strict=True):
            numbers[place] += more

    def add_odd(self, place: int, value: float, count: int = 1) -> None:
        """A float that has no digits, so many times."""
        self.odd[place] = self.odd.get(place, ZERO) + ExactSum.of(value, count)

    def add_float(self, place: int, value: float) -> None:
        """Any float."""
        digits = digits_of(value)
        if digits is None:
            self.add_odd(place, value)
        else:
            self.add(place, digits)

    def add_all(self, more: PlaceSums) -> None:
        """The sums of other decisions."""
        for numbers, others in zip(self.digits, more.digits, strict=True):
            _add(numbers, others)
        for place, odd in more.odd.items():
            self.odd[place] = self.odd.get(place, ZERO) + odd

    def floats(self) -> list[float]:
        """The nearest float of each sum."""
        upper, lower, rest = self.digits
        found = [((a << 66) + (b << 34) + c) / (1 << 65) for a, b, c in zip(upper, lower, rest, strict=True)]
        for place, odd in self.odd.items():
            exact = sum((ExactSum.of_scaled(n[place], e).units for n, e in zip(self.digits, DIGITS, strict=True)))
            found[place] = float(ExactSum(odd.units + exact))
        return found

    def by_group(self) -> PlaceSums:
        """All buckets of a group in its first one."""
        return PlaceSums(tuple(map(_by_group, self.digits)), _odd_by_group(self.odd))

    def to_json(self) -> list[Any]:
        """As short as it can be: most digits are 0."""
        return [*map(packed, self.digits), [[place, *odd.pair()] for place, odd in sorted(self.odd.items())]]

    @classmethod
    def from_json(cls, content: list[Any]) -> Self:
        """The opposite of `to_json`. Raises ValueError or TypeError."""
        *digits, odd = content
        return cls(tuple(map(unpacked, digits)), {place: ExactSum.from_pair((a, b)) for place, a, b in odd})


@dataclass(slots=True)
class StratumTotals:
    """Of sealed decisions of one stratum. decisions: by place; rewards: by name, values without the name's weight, and
    LEARNED. left_out: by place, decisions that had to be activated and were not; they are in none of the others."""

    decisions: array[int] = field(default_factory=_numbers)
    left_out: array[int] = field(default_factory=_numbers)
    rewards: dict[str, PlaceSums] = field(default_factory=lambda: {LEARNED: PlaceSums()})

    def of(self, name: str) -> PlaceSums:
        """To be added to."""
        return self.rewards.setdefault(name, PlaceSums())

    @property
    def is_empty(self) -> bool:
        """Whether no decision counts."""
        return not any(self.decisions)

    def add(self, more: StratumTotals) -> None:
        """Other decisions."""
        _add(self.decisions, more.decisions)
        _add(self.left_out, more.left_out)
        for name, sums in more.rewards.items():
            self.of(name).add_all(sums)
        for name in sorted(self.rewards.keys() - {LEARNED})[MOST_NAMES:]:
            del self.rewards[name]

    def by_group(self) -> StratumTotals:
        """All buckets of a group in its first one."""
        rewards = {name: sums.by_group() for name, sums in self.rewards.items()}
        return StratumTotals(_by_group(self.decisions), _by_group(self.left_out), rewards)


StrataTotals = dict[Stratum, StratumTotals]


def add_stratum(strata: StrataTotals, stratum: Stratum, more: StratumTotals) -> None:
    """More of a stratum of an experiment; older ones go where another reward or too many others have come. One whose
    decisions are all left out takes the place of none with another reward."""
    strata.setdefault(stratum, StratumTotals()).add(more)
    newest = sorted(strata, reverse=True)
    measure = max((one.measure for one in newest if not strata[one].is_empty), default=START)
    for old in newest[MOST_STRATA:] + [one for one in newest[:MOST_STRATA] if one.measure < measure]:
        del strata[old]


def to_rows(lift: Mapping[str, StrataTotals]) -> list[Any]:
    """As JSON: experiment, stratum, decisions, those left out, and the sums by name."""
    return [
        [
            *(experiment, *stratum, packed(one.decisions), packed(one.left_out)),
            {name: sums.to_json() for name, sums in one.rewards.items()},
        ]
        for experiment, strata in lift.items()
        for stratum, one in strata.items()
    ]


def from_rows(rows: Iterable[Any]) -> dict[str, StrataTotals]:
    """The opposite of `to_rows`. Raises ValueError, TypeError or KeyError where it cannot be."""
    found: dict[str, StrataTotals] = {}
    for experiment, measure, first, decisions, left_out, rewards in rows:
        stratum = Stratum(Position(measure), Position(first))
        try:
            sums = {name: PlaceSums.from_json(content) for name, content in rewards.items()}
            found.setdefault(experiment, {})[stratum] = StratumTotals(unpacked(decisions), unpacked(left_out), sums)
        except ValueError as error:
            raise ValueError(f"damaged sums of {experiment}: {error}") from error
    return found


def _add(numbers: array[int], more: array[int]) -> None:
    for place, number in enumerate(more):
        if number:
            numbers[place] += number


def _by_group(numbers: array[int]) -> array[int]:
    found = _numbers()
    found[0], found[BUCKETS] = sum(numbers[:BUCKETS]), sum(numbers[BUCKETS:])
    return found


def _odd_by_group(odd: Mapping[int, ExactSum]) -> dict[int, ExactSum]:
    found: dict[int, ExactSum] = {}
    for place, sums in odd.items():
        first = place // BUCKETS * BUCKETS
        found[first] = found.get(first, ZERO) + sums
    return found


def packed(numbers: array[int]) -> str:
    """As text; nothing, where all are 0."""
    if not any(numbers):
        return ""
    return b85encode(zlib.compress(json.dumps(numbers.tolist(), separators=(",", ":")).encode())).decode()


def unpacked(text: str, places: int = PLACES) -> array[int]:
    """The opposite of `packed`, of so many numbers. Raises ValueError where it cannot be."""
    if not text:
        return array("q", bytes(8 * places))
    try:
        found = array("q", json.loads(zlib.decompress(b85decode(text))))
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(found) != places:
        raise ValueError(f"{len(found)} sums in place of {places}")
    return found
