"""What a policy is: (context, eligible actions) -> pmf, and learning from sealed decisions.

Implementations: `vw.py` (everything that learns) and `static.py` (uniform, fixed). A policy never draws; `sampler.py`
does. It cannot tell whether it runs in the server or in the simulator. Whoever owns one policy is its only learner;
what serves is a loaded copy that nobody teaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from decider.types import START, Context, Position

Choice = str
"""An action as a policy sees it: its encoded line (`encode.action_line`), made once for each experiment version."""


class UnusablePmf(ValueError):
    """Not a probability distribution over the eligible actions."""


class Vocabulary(NamedTuple):
    """How many features a policy knows, and how many distinct ones it has left out for want of room, about."""

    known: int
    left_out: int


class Policy(Protocol):
    """Turns (context, eligible actions) into a pmf; learns from sealed decisions."""

    def pmf(self, context: Context, actions: Sequence[Choice]) -> Sequence[float]:
        """Probability of every action, in their order; sums to 1 within float32 rounding."""

    def learn(
        self, context: Context, actions: Sequence[Choice], *, drawn: int, propensity: float, reward: float
    ) -> None:
        """Learn from one sealed decision: `drawn` indexes `actions`; propensity in (0, 1]; reward in the
        experiment's unit, higher is better."""

    def save(self) -> bytes:
        """Everything it has learned."""


@dataclass(frozen=True, slots=True)
class Model:
    """A policy, named by the position it has learned up to."""

    policy: Policy
    position: Position = START
