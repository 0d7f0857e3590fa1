"""pmf + key -> action. The only place in the code base that draws, and integer arithmetic only.

A pmf becomes whole slots, SLOTS of them; a key becomes a ticket in [0, SLOTS); the ticket's slot names the action. So
the propensity that is logged, slots / SLOTS, is exactly the share of tickets that draw the action. Float buckets would
leave some keys without an action (see test_every_ticket_has_an_action). Called by `decide`; pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from decider.policy.protocol import UnusablePmf

SLOTS = 1_000_000
"""Probabilities are whole millionths: exact in SQL and CSV, and readable by people."""

Slots = tuple[int, ...]

MANY = 150
"""From so many actions on arrays are faster than loops."""


def check_pmf(pmf: Sequence[float], count: int) -> None:
    """Raises UnusablePmf unless it is a distribution over `count` actions, with a sum of 1 within 0.001.

    >>> check_pmf([0.5, 0.5], 3)
    Traceback (most recent call last):
    decider.policy.protocol.UnusablePmf: no pmf of 3 actions: [0.5, 0.5]
    """
    # `not >=` and `not <=` refuse NaN, too; 0.0 refuses what cannot be added to a float.
    if not 0 < len(pmf) == count or not min(pmf) >= 0 or not abs(sum(pmf, 0.0) - 1) <= 1e-3:
        raise UnusablePmf(f"no pmf of {count} actions: {list(pmf)[:5]}")


def to_slots(pmf: Sequence[float], *, minimum: float = 0.0) -> Slots:
    """Whole slots for a pmf that `check_pmf` took, each action with at least `minimum` (in [0, 1]), SLOTS in all.

    Every action gets the floor; the rest is shared in proportion to what each has above it. A floor larger than
    1/len(pmf) becomes that. Rounding moves an action by less than one slot.

    >>> to_slots([0.5, 0.25, 0.25])
    (500000, 250000, 250000)
    >>> to_slots([1.0, 0.0], minimum=0.01)
    (990000, 10000)
    """
    count = len(pmf)
    if count >= MANY:
        return tuple(to_slots_many(np.array([pmf]), minimum=minimum)[0].tolist())
    floor = _floor(minimum, count)
    threshold = floor / SLOTS
    cumulative = list(accumulate([p - threshold if p > threshold else 0.0 for p in pmf]))
    rest = SLOTS - floor * count
    if not cumulative[-1] > 0:
        return tuple([floor + share for share in uniform_slots(count, total=rest)])
    scale = rest / cumulative[-1]
    edges = [int(edge * scale + 0.5) for edge in cumulative]  # the last one is `rest`, to the slot
    return tuple([edge - before + floor for edge, before in zip(edges, [0, *edges], strict=False)])


def to_slots_many(pmfs: NDArray[np.float64], *, minimum: float = 0.0) -> NDArray[np.int64]:
    """`to_slots` of every row of (n, actions), for replay: the same arithmetic, so the same slots (a law tests it).

    >>> to_slots_many(np.array([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]]), minimum=0.01).tolist()
    [[500000, 250000, 250000], [980000, 10000, 10000]]
    """
    count = pmfs.shape[1]
    floor = _floor(minimum, count)
    threshold = floor / SLOTS
    cumulative = np.cumsum(np.where(pmfs > threshold, pmfs - threshold, 0.0), axis=1)
    total = cumulative[:, -1:]
    scale = (SLOTS - floor * count) / np.where(total > 0, total, 1.0)
    slots: NDArray[np.int64] = (cumulative * scale + 0.5).astype(np.int64)
    slots[:, 1:] -= slots[:, :-1].copy()
    slots += floor
    flat = ~(total[:, 0] > 0)
    if flat.any():
        slots[flat] = np.array(uniform_slots(count, total=SLOTS - floor * count)) + floor
    return slots


@lru_cache
def _floor(minimum: float, count: int) -> int:
    """The floor in whole slots, at least `minimum`, but no more than all of `count` actions can have."""
    return min(math.ceil(minimum * SLOTS - 1e-6), SLOTS // count)


def uniform_slots(count: int, *, total: int = SLOTS) -> Slots:
    """`total` slots shared as evenly as whole numbers allow.

    >>> uniform_slots(3)
    (333334, 333333, 333333)
    """
    share, extra = divmod(total, count)
    return (share + 1,) * extra + (share,) * (count - extra)


def bounded_slots(slots: Slots, shares: Sequence[tuple[float, float]], *, minimum: float = 0.0) -> Slots:
    """The slots with each action's part of them in its share (smallest, largest), SLOTS in all.

    Between their bounds the actions keep their proportions. Where the largest shares leave something over, all are
    raised in proportion. minimum: of every action.

    >>> bounded_slots((900_000, 60_000, 40_000), [(0, 0.5), (0, 1), (0.3, 1)])
    (500000, 200000, 300000)
    >>> bounded_slots((900_000, 100_000), [(0, 0.2), (0, 0.2)])
    (500000, 500000)
    """
    low, high = _bounds(shares, _floor(minimum, len(slots)))
    rest, weights = SLOTS, dict(enumerate(slots))
    made = [0] * len(slots)
    # In each round those that break the bound that is broken more get it for good. What the others get moves away from
    # it, so no bound that was given is wrong afterwards, and there are as many rounds as actions at most.
    while weights:
        wanted = _in_proportion(weights, rest)
        under = {i: low[i] for i in weights if wanted[i] < low[i]}
        over = {i: high[i] for i in weights if wanted[i] > high[i]}
        lack, excess = sum([low[i] - wanted[i] for i in under]), sum([wanted[i] - high[i] for i in over])
        settled = wanted if not (under or over) else under if lack >= excess else over
        for index, share in settled.items():
            made[index] = share
            del weights[index]
        rest -= sum(settled.values())
    return tuple(made)


def _bounds(shares: Sequence[tuple[float, float]], floor: int) -> tuple[list[int], list[int]]:
    """In whole slots; there are slots between them."""
    low = [max(floor, math.ceil(least * SLOTS - 1e-6)) for least, _ in shares]
    if sum(low) > SLOTS:  # by rounding
        low = [slots * SLOTS // sum(low) for slots in low]
    high = [max(least, math.floor(most * SLOTS + 1e-6)) for least, (_, most) in zip(low, shares, strict=True)]
    if sum(high) < SLOTS:
        high = [-(-slots * SLOTS // sum(high)) for slots in high]
    return low, high


def _in_proportion(weights: dict[int, int], total: int) -> dict[int, int]:
    """`total` slots in proportion to weights, evenly where they are all 0."""
    edges = list(accumulate(weights.values() if any(weights.values()) else [1] * len(weights)))
    ends = [edge * total // edges[-1] for edge in edges]
    return dict(zip(weights, [end - before for end, before in zip(ends, [0, *ends], strict=False)], strict=True))


def one_slot(index: int, count: int) -> Slots:
    """All slots to one action: probability 1.

    >>> one_slot(1, 3)
    (0, 1000000, 0)
    """
    return (0,) * index + (SLOTS,) + (0,) * (count - index - 1)


def hash_ticket(*key: str) -> int:
    """A ticket in [0, SLOTS) from a key; the same on every machine. Uniform to within 1e-13.

    >>> hash_ticket("home", "", "draw", "0198c0de")
    861790
    """
    return int.from_bytes(blake2b("\x00".join(key).encode(), digest_size=8).digest()) % SLOTS


def draw(slots: Slots, ticket: int) -> int:
    """The index whose slots hold the ticket.

    >>> [draw((2, 0, 3), ticket) for ticket in range(5)]
    [0, 0, 2, 2, 2]
    """
    for index, share in enumerate(slots):
        ticket -= share
        if ticket < 0:
            return index
    raise ValueError(f"ticket beyond the {sum(slots)} slots")
