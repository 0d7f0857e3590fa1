"""Foreign pmfs as our whole millionths, and why an action was drawn, as far as they tell. Called by `import_log.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from decider.decide.slots import SLOTS, Slots
from decider.types import Reason
from simulator.logs.columns import Columns


def whole_slots(block: Columns) -> list[Slots]:
    """Each decision's pmf in the nearest millionths that sum to one; only the drawn action's where no more is known.

    >>> from dataclasses import replace
    >>> from simulator.logs.example import example
    >>> whole_slots(example()), whole_slots(replace(example(), pmf=None))
    ([(500000, 500000), (750000, 250000)], [(0, 500000), (750000, 0)])
    """
    places = _places(block)
    if block.pmf is None:
        drawn = np.maximum(1, np.rint(block.propensity * SLOTS)).astype(np.int64).tolist()
        sizes = [len(block.sets[code]) for code in block.eligible.tolist()]
        return [_single_slot(*one) for one in zip(places, drawn, sizes, strict=True)]
    exact = block.pmf.astype(np.float64) * SLOTS
    slots = np.rint(exact).astype(np.int64)
    starts, ends = block.starts[:-1], block.starts[1:]
    right = (np.add.reduceat(slots, starts) == SLOTS) & (slots[starts + places] > 0)
    return [
        tuple(slots[start:end].tolist()) if fits else _round(exact[start:end], place)
        for start, end, fits, place in zip(starts.tolist(), ends.tolist(), right.tolist(), places, strict=True)
    ]


def _places(block: Columns) -> list[int]:
    """Where the drawn action is in its set."""
    pairs = zip(block.eligible.tolist(), block.action.tolist(), strict=True)
    return [block.sets[code].index(action) for code, action in pairs]


def _single_slot(place: int, slots: int, size: int) -> Slots:
    return (0,) * place + (slots,) + (0,) * (size - place - 1)


def _round(exact: Any, drawn: int) -> Slots:
    """By largest remainders; at least one for the drawn action."""
    exact = exact * (SLOTS / exact.sum())  # a printed pmf may be off by a thousandth
    slots = np.rint(exact).astype(np.int64)
    slots[drawn] = max(1, slots[drawn])
    missing = SLOTS - int(slots.sum())
    least = np.zeros(len(slots), np.int64)
    least[drawn] = 1
    order = np.argsort((slots - exact) * np.sign(missing), kind="stable")
    movable = order[(slots > least)[order] | (missing > 0)]
    slots[movable[: abs(missing)]] += np.sign(missing)
    return tuple(slots.tolist())


def reasons_of(block: Columns, slots: Sequence[Slots]) -> list[Reason]:
    """As logged by us; otherwise what the pmf says.

    >>> from simulator.logs.example import example
    >>> reasons_of(example(), whole_slots(example()))
    [<Reason.EXPLORE: 'EXPLORE'>, <Reason.EXPLOIT: 'EXPLOIT'>]
    """
    known = block.reason
    if known is not None and set(known.values) <= set(Reason) and bool((known.codes >= 0).all()):
        return [Reason(known.values[code]) for code in known.codes.tolist()]
    return [_reason(one, place) for one, place in zip(slots, _places(block), strict=True)]


def _reason(slots: Slots, drawn: int) -> Reason:
    """A flat pmf, or one that is not known, has no most probable action."""
    if len(slots) == 1:
        return Reason.ONLY_ELIGIBLE
    if slots[drawn] == SLOTS:
        return Reason.NO_EXPLORATION
    most = max(slots)
    exploits = sum(slots) == SLOTS and slots[drawn] == most and most > min(slots) + 1
    return Reason.EXPLOIT if exploits else Reason.EXPLORE
