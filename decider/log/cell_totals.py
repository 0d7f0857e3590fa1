"""Totals by segment and action, from which the page estimates what an action would earn in a segment. Called by
`totals.py` and by every log.

Of draws from a policy's pmf alone, since of them it is known how probable they were, and of those alone in which the
action was not too improbable: else a few with enormous weights would have everything to say. Sums do not round, by
bucket of units and bounded: so many segments and actions of an experiment have cells, and which ones does not depend on
the order of counting.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from decider.log.exact_sum import ZERO, ExactSum
from decider.log.lift_totals import packed, unpacked
from decider.types import ActionId, Position

CELL_BUCKETS = 128
"""Of units; each is made of several of those of the lift."""

MOST_SEGMENTS, MOST_ACTIONS = 12, 12
"""With cells: those that come first in the alphabet. Of the others nothing is estimated."""

MOST_CELLS = MOST_SEGMENTS * MOST_ACTIONS

PRUNE_AT = 4_000
"""Each time that so many more cells are counted, those of too many segments and actions go: any text may be a
segment, and memory has to be bounded."""

LEAST_SLOTS, LEAST = 50_000, 0.05
"""Probability of an action that a draw needs to count for its cell: whole slots, and as a float."""

INVERSE_UNIT = 1e-6
"""Of 1 / probability: whole numbers, so that sums do not round."""

_COLUMNS = 4
"""For each bucket: draws, their weights, and the upper and lower halves of their weighted rewards."""

_HALF, _LARGEST = 32, 2.0**32
"""Bits of the lower half, in units of 2**-31; the rest of a value goes. Values from _LARGEST on are kept apart."""


def inverse_of(slots: int) -> int:
    """1 / probability of an action with so many slots.

    >>> inverse_of(250_000), inverse_of(300_000)
    (4000000, 3333333)
    """
    return 1_000_000_000_000 // slots


class Weighted(NamedTuple):
    """A sum of weighted rewards, in halves; odd: each of them, where it is too large."""

    upper: int
    lower: int
    odd: float | None = None

    @classmethod
    def of(cls, value: float) -> Self:
        """One.

        >>> Weighted.of(2.5), Weighted.of(1e12).odd
        (Weighted(upper=1, lower=1073741824, odd=None), 1000000000000.0)
        """
        if abs(value) >= _LARGEST:
            return cls(0, 0, value)
        whole = int(value * 2.0**31)
        return cls(whole >> _HALF, whole & (2**_HALF - 1))


def weighted_columns(value: str) -> str:
    """The same in SQL: the columns `Weighted` has; group by `weighted_odd`, too. value: of a float or null."""
    whole = f"cast({value} * {2.0**31} as integer)"
    fits = f"abs({value}) < {_LARGEST}"
    return (
        f"sum(case when {fits} then {whole} >> {_HALF} end) as weighted_upper, "
        f"sum(case when {fits} then {whole} & {2**_HALF - 1} end) as weighted_lower, "
        f"case when not {fits} then {value} end as weighted_odd"
    )


class Cell(NamedTuple):
    """measure: the first version since which a reward means the same (`measures_of_all`). segment: "": not given."""

    measure: Position
    segment: str
    action: ActionId


def _numbers() -> array[int]:
    return array("q", bytes(8 * _COLUMNS * CELL_BUCKETS))


@dataclass(slots=True)
class CellSums:
    """eligible: draws in which the action could come; probable: those in which that had LEAST; inverse: the sum of 1 /
    its probability over the latter. The rest is of such ones that are sealed, and in which it came: numbers by column
    and bucket; odd: by bucket, sums of what is too large for them."""

    eligible: int = 0
    probable: int = 0
    inverse: int = 0
    numbers: array[int] = field(default_factory=_numbers)
    odd: dict[int, ExactSum] = field(default_factory=dict)

    def add_eligible(self, count: int, probable: int, inverse: int) -> None:
        """More draws in which the action could come."""
        self.eligible += count
        self.probable += probable
        self.inverse += inverse

    def add_pmf(self, slots: int) -> None:
        """One, in which the action had so many slots."""
        is_probable = slots >= LEAST_SLOTS
        self.add_eligible(1, int(is_probable), inverse_of(slots) if is_probable else 0)

    def add_draws(self, bucket: int, count: int, weight: int, weighted: Weighted) -> None:
        """So many draws of units of one of the lift's buckets. weight: the sum of `inverse_of` their slots."""
        place = bucket % CELL_BUCKETS
        for column, number in enumerate((count, weight, weighted.upper, weighted.lower)):
            self.numbers[column * CELL_BUCKETS + place] += number
        if weighted.odd is not None:
            self.odd[place] = self.odd.get(place, ZERO) + ExactSum.of(weighted.odd, count)

    def add_draw(self, bucket: int, propensity: float, reward: float) -> None:
        """One, of a probability of LEAST or more."""
        self.add_draws(bucket, 1, inverse_of(round(propensity * 1e6)), Weighted.of(reward / propensity))

    def add(self, more: CellSums) -> None:
        """Other decisions."""
        self.add_eligible(more.eligible, more.probable, more.inverse)
        for place, number in enumerate(more.numbers):
            if number:
                self.numbers[place] += number
        for place, odd in more.odd.items():
            self.odd[place] = self.odd.get(place, ZERO) + odd

    @property
    def draws(self) -> int:
        """All of them."""
        return sum(self._column(0))

    def weights(self) -> list[float]:
        """By bucket."""
        return [INVERSE_UNIT * number for number in self._column(1)]

    def rewards(self) -> list[float]:
        """By bucket, weighted."""
        halves = zip(self._column(2), self._column(3), strict=True)
        found = [((upper << _HALF) + lower) / (1 << 31) for upper, lower in halves]
        for place, odd in self.odd.items():
            found[place] += float(odd)
        return found

    def _column(self, number: int) -> array[int]:
        return self.numbers[number * CELL_BUCKETS : (number + 1) * CELL_BUCKETS]

    def to_json(self) -> list[Any]:
        """As short as it can be."""
        odd = [[place, *sums.pair()] for place, sums in sorted(self.odd.items())]
        return [self.eligible, self.probable, self.inverse, packed(self.numbers), odd]

    @classmethod
    def from_json(cls, content: Iterable[Any]) -> Self:
        """The opposite of `to_json`. Raises ValueError or TypeError."""
        eligible, probable, inverse, numbers, odd = content
        sums = {place: ExactSum.from_pair((a, b)) for place, a, b in odd}
        return cls(eligible, probable, inverse, unpacked(numbers, _COLUMNS * CELL_BUCKETS), sums)


Cells = dict[Cell, CellSums]


def cell_of(cells: Cells, cell: Cell) -> CellSums:
    """To be added to, among those of a piece of a log."""
    known = cells.get(cell)
    if known is not None:
        return known
    if len(cells) % PRUNE_AT == PRUNE_AT - 1:
        bound_cells(cells)
    sums = cells[cell] = CellSums()
    return sums


def add_cells(known: dict[str, Cells], counted: Cells, experiments: Mapping[Position, str]) -> None:
    """What was counted between two marks. An experiment has cells of its newest measure alone."""
    changed = set()
    for cell, more in counted.items():
        experiment = experiments[cell.measure]
        changed.add(experiment)
        known.setdefault(experiment, {}).setdefault(cell, CellSums()).add(more)
    for experiment in changed:
        cells = known[experiment]
        newest = max(cell.measure for cell in cells)
        for old in [cell for cell in cells if cell.measure < newest]:
            del cells[old]
        bound_cells(cells)


def bound_cells(cells: Cells) -> None:
    """Keep the first segments and actions of each measure. More of what has gone goes again, so the order in which they
    come does not matter."""
    names: dict[Position, tuple[set[str], set[str]]] = {}
    for cell in cells:
        segments, actions = names.setdefault(cell.measure, (set(), set()))
        segments.add(cell.segment)
        actions.add(cell.action)
    kept = {
        measure: (set(sorted(segments)[:MOST_SEGMENTS]), set(sorted(actions)[:MOST_ACTIONS]))
        for measure, (segments, actions) in names.items()
    }
    for cell in [*cells]:
        segments, actions = kept[cell.measure]
        if cell.segment not in segments or cell.action not in actions:
            del cells[cell]


def began_later(some: Mapping[str, Cells], all_: Mapping[str, Cells]) -> bool:
    """Whether the first can be what was counted since a build that knew no cells; of less than all."""
    pairs = [(sums, all_.get(id_, {}).get(cell)) for id_, cells in some.items() for cell, sums in cells.items()]
    known = sum([sums.eligible for cells in all_.values() for sums in cells.values()])
    return known > sum([sums.eligible for sums, _ in pairs]) and all(
        whole is not None and sums.eligible <= whole.eligible for sums, whole in pairs
    )


def to_rows(known: Mapping[str, Cells]) -> list[Any]:
    """As JSON."""
    return [[id_, [[*cell, *sums.to_json()] for cell, sums in cells.items()]] for id_, cells in known.items()]


def from_rows(rows: Iterable[Any]) -> dict[str, Cells]:
    """The opposite of `to_rows`. Raises ValueError or TypeError where it cannot be."""
    return {
        id_: {Cell(measure, segment, action): CellSums.from_json(sums) for measure, segment, action, *sums in cells}
        for id_, cells in rows
    }
