"""Rejection replay: keep the logged decisions that the candidate would have made too. For comparison only.

Called by the evaluation's table of estimators. It discards most of the log; weighted estimates use all of it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from decider.estimate.checks import BadArgument, finite, finite_columns, same, weight, weights
from decider.estimate.mean import Mean
from decider.estimate.sample import Floats

ROUNDING = 1e-9
"""How far above max_weight a weight may be, as a share of it."""


class RejectionReplay:
    """Mean reward of the accepted decisions; one is accepted with probability w / max_weight, w = pmf / propensity.

    Li, Chu, Langford & Wang, WSDM 2011, algorithm 2, which is this for a uniform log and a deterministic candidate
    (w is 0 or the number of actions, max_weight the number of actions); with rejection sampling for others, as they
    propose. ticket in [0, 1) decides: uniform, and of its own, never the ticket that drew the logged action nor an
    action drawn anew with it, which agree too often. See `tickets`. max_weight: the largest that can occur; a larger
    one is a BadArgument. Other arguments and errors as of Ips. value is None before the first accepted decision.

    >>> replay = RejectionReplay(max_weight=4.0)
    >>> replay.add(propensity=0.25, reward=1.0, pmf=1.0, ticket=0.99)
    >>> replay.add(propensity=0.5, reward=0.0, pmf=0.5, ticket=0.5)
    >>> replay.value, replay.accepted.count, replay.count
    (1.0, 1, 2)
    """

    __slots__ = ("accepted", "count", "max_weight")

    def __init__(self, max_weight: float) -> None:
        if not 1 <= max_weight < np.inf:
            raise BadArgument("max_weight", f"is {max_weight}, which is not in [1, inf)")
        self.max_weight = max_weight
        self.count = 0
        self.accepted = Mean()

    @property
    def value(self) -> float | None:
        """The estimate, in the reward's unit."""
        return self.accepted.value if self.accepted.count else None

    def add(self, *, propensity: float, reward: float, pmf: float, ticket: float) -> None:
        """One more decision."""
        w = weight(propensity=propensity, pmf=pmf)
        finite(reward=reward)
        if w > self.max_weight * (1 + ROUNDING):
            raise BadArgument("max_weight", f"is {self.max_weight}, but a weight is {w}")
        if not 0 <= ticket < 1:
            raise BadArgument("ticket", f"is {ticket}, which is not in [0, 1)")
        self.count += 1
        if ticket * self.max_weight < w:
            self.accepted.add(reward)

    def add_many(self, *, propensity: Floats, reward: Floats, pmf: Floats, ticket: Floats) -> None:
        """Many more, (n,) each."""
        accepts = self.accepts(propensity=propensity, pmf=pmf, ticket=ticket)
        finite_columns(len(accepts), reward=reward)
        self.count += len(accepts)
        self.accepted.add_many(reward[accepts])

    def accepts(self, *, propensity: Floats, pmf: Floats, ticket: Floats) -> NDArray[np.bool_]:
        """(n,): whether each decision is accepted; the mean of the rewards of those is the estimate.

        >>> half = np.array([0.5, 0.5])
        >>> RejectionReplay(2.0).accepts(propensity=half, pmf=half, ticket=np.array([0.4, 0.6])).tolist()
        [True, False]
        """
        w = weights(propensity=propensity, pmf=pmf)
        finite_columns(len(w), ticket=ticket)
        above = w > self.max_weight * (1 + ROUNDING)
        if above.any():
            row = int(above.argmax())
            raise BadArgument("max_weight", f"is {self.max_weight}, but the weight of row {row} is {w[row]}", row)
        outside = (ticket < 0) | (ticket >= 1)
        if outside.any():
            row = int(outside.argmax())
            raise BadArgument("ticket", f"is {ticket[row]}, which is not in [0, 1)", row)
        return ticket * self.max_weight < w

    def __add__(self, other: RejectionReplay) -> RejectionReplay:
        """As if one had seen the decisions of both."""
        same("max_weight", self.max_weight, other.max_weight)
        both = RejectionReplay(self.max_weight)
        both.count = self.count + other.count
        both.accepted = self.accepted + other.accepted
        return both


def tickets(count: int, *, seed: int, start: int = 0) -> Floats:
    """(count,) numbers in [0, 1) that depend on nothing but `seed` and the decision's place in the log, from `start`.

    >>> bool((tickets(5, seed=7)[2:] == tickets(3, seed=7, start=2)).all())
    True
    """
    bits = np.random.Philox(key=seed).advance(start // 4)  # one step of it makes four numbers
    return np.random.Generator(bits).random(start % 4 + count)[start % 4 :]
