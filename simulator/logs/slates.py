"""Which decisions of a log are the slots of one page (`DecideSlate`). Called by `decider_log.py`.

The slots of a slate are entries one after the other, written in one commit, for one unit, with the ids SLATE/0, SLATE/1
and so on. The log says no more, and no less is asked: an id of a caller's own that looks like a slot's is none.
Decisions of a batch that have all of this are a page as well: whatever is estimated of slates holds for them, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from simulator.logs.columns import Category, Longs, Pages


class _Slot(NamedTuple):
    """A decision that may be one of a slate's. row: among the decisions; together: what all slots have in common."""

    row: int
    place: int
    together: tuple[str, int, int, int]


def pages_of(slot: Category, *, unit: Longs, time: Longs, version: Longs) -> Pages | None:
    """The pages of n decisions in the order of the log; None where no page has two slots. slot: ids, see
    `LogReader.arrow`; unit, time, version: (n,).

    >>> one = np.zeros(5, np.int64)
    >>> found = pages_of(Category.of(["p/0", "p/1", "q/0", "x/3", ""]), unit=one, time=one, version=one)
    >>> found.page.tolist(), found.slots.tolist()
    ([0, 0, 1, -1, -1], [2, 2, 1, 1, 1])
    """
    found = list(_runs(_slots(slot, unit, time, version)))
    if all(len(rows) < 2 for rows in found):
        return None
    page, slots = np.full(len(unit), -1, np.int64), np.ones(len(unit), np.int64)
    for number, rows in enumerate(found):
        page[rows], slots[rows] = number, len(rows)
    return Pages(page, slots)


def _slots(slot: Category, unit: Longs, time: Longs, version: Longs) -> Iterator[_Slot]:
    for row in np.flatnonzero(slot.codes >= 0).tolist():
        slate, _, place = slot.values[slot.codes[row]].rpartition("/")
        yield _Slot(row, int(place), (slate, int(unit[row]), int(time[row]), int(version[row])))


def _runs(slots: Iterator[_Slot]) -> Iterator[Sequence[int]]:
    """The rows of every page: place 0, and what follows it without a gap."""
    last: _Slot | None = None
    rows: list[int] = []
    for one in slots:
        if one.place == 0:
            if rows:
                yield rows
            rows = [one.row]
        elif last and rows and one == (last.row + 1, last.place + 1, last.together):
            rows.append(one.row)
        else:  # it belongs to no page, and nothing behind it to the page before
            if rows:
                yield rows
            rows = []
        last = one
    if rows:
        yield rows
