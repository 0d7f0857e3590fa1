"""How long a decision takes at most, estimated from the numbers of its features alone, before anything is computed.

Features count as if nothing of them were in a cache: each published model begins with empty ones, and large
experiments do not fit. The dearer one of deciding and learning counts, since Vowpal Wabbit holds the interpreter lock
for a whole call: nobody else is answered meanwhile. Thompson sampling's learning does not count: NumPy lets go of the
lock. Pure; read from `algorithms.py`, through `spec.py`, by what applies experiments and by `decide`.

The costs were fitted to the processor time of some 60 shapes (x86-64, vowpal-wabbit-next 0.7.0, NumPy 2). Dear calls of
Vowpal Wabbit take 0.8 to 1.3 times the estimate. Thompson sampling's take less where a model knows few of the features.
A replay has to estimate what the server did: whatever changes an estimate needs another ESTIMATE.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import comb
from typing import NamedTuple

ESTIMATE = 1
"""Version of all that is below; builds of a log name it beside their budget."""

BASE, NANOSECOND = 3e-5, 1e-9
"""Seconds of a call without features; what the costs below are counted in."""

VW_ACTION, NEW_ACTION, NEW_FEATURE = 3_000, 7_000, 1_200
"""An action; to parse one or look up its features; each feature of it or of the context."""

THOMPSON_CALL, THOMPSON_ACTION, THOMPSON_CELL = 80_000, 4_000, 6
"""A call; an action's part of the integral; a cell of a covariance that is read."""

THOMPSON_CELLS = 250_000
"""Most cells that are read: the regression has no room for more (`thompson/admission.py`) once its actions have data.
Before, it may read more for some decisions, without the lock."""

STATIC_ACTION = 100


class Budget(NamedTuple):
    """What a decision may cost. seconds: by the estimate of that version."""

    seconds: float
    estimate: int = ESTIMATE


class Shape(NamedTuple):
    """What an estimate looks at. context: number of its features. actions: how many have how many features, without id
    and kind."""

    context: int
    actions: Mapping[int, int]

    @property
    def made_anew(self) -> int:
        """Nanoseconds for what is in no cache."""
        own = sum([features * actions for features, actions in self.actions.items()])
        return NEW_ACTION * sum(self.actions.values()) + NEW_FEATURE * (self.context + own)


Estimate = Callable[[Mapping[str, float], tuple[str, ...], Shape], float]
"""(an algorithm's parameters, interactions, shape) -> seconds. More features or actions never cost less."""


def interaction_features(term: str, *, context: int, action: int) -> int:
    """How many features Vowpal Wabbit makes for an action from a term: combinations with repetition of those of the
    context, times those of the action's.

    >>> interaction_features("CCA", context=3, action=2)
    12
    """
    return _repeated(context, term.count("C")) * _repeated(action, term.count("A"))


def _repeated(features: int, times: int) -> int:
    return comb(features + times - 1, times) if times else 1


def vw_estimate(short: int, long: int) -> Estimate:
    """short, long: nanoseconds of a feature made by a term of up to three letters, and of four, for each of the
    parameter `size`."""

    def estimate(parameters: Mapping[str, float], interactions: tuple[str, ...], shape: Shape) -> float:
        terms = {"".join(sorted(term)) for term in interactions}  # VW drops those that differ in order alone
        models = parameters.get("size", 1)
        cost: float = shape.made_anew
        for own, actions in shape.actions.items():
            action = own + 2  # id and kind
            features: dict[bool, int] = {False: shape.context + action + 1, True: 0}
            for term in terms:
                features[len(term) > 3] += interaction_features(term, context=shape.context, action=action)
            cost += actions * (VW_ACTION + models * (short * features[False] + long * features[True]))
        return BASE + NANOSECOND * cost

    return estimate


def thompson_estimate(_: Mapping[str, float], interactions: tuple[str, ...], shape: Shape) -> float:
    """For each action a covariance is read: features x features."""
    pairs = comb(shape.context, 2) if any("CC" in term for term in interactions) else 0
    actions = sum(shape.actions.values())
    features = 1 + shape.context + pairs + max(shape.actions, default=0)
    cells = min(actions * features**2, THOMPSON_CELLS)
    cost = THOMPSON_CALL + THOMPSON_ACTION * actions + NEW_FEATURE * pairs + THOMPSON_CELL * cells
    return BASE + NANOSECOND * (shape.made_anew + cost)


def static_estimate(_: Mapping[str, float], __: tuple[str, ...], shape: Shape) -> float:
    """Of the policies that look at no feature."""
    return BASE + NANOSECOND * STATIC_ACTION * sum(shape.actions.values())
