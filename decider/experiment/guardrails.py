"""Guardrails of an experiment as frozen types, and what must hold for them. Read by the definition and `checks.py`.

A guardrail is judged by the lift of one reward (`estimate/guardrail.py`, `learn/guardrails.py`). Once crossed it may
send every unit to the baseline action: then it says since when, and `decide` obeys.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from decider.errors import Violation
from decider.experiment.schema_checks import enum_violation
from decider.types import Time
from decider.v1 import experiment_pb2 as pb

MAX_GUARDRAILS = 10

MOST_NAMES = 50
"""Rewards of an experiment whose lift is counted: those whose names come first in the alphabet."""

LARGEST_MARGIN = 1e12

SHORTEST_PAUSE, LONGEST_PAUSE = 1_000_000, 366 * 86_400_000_000
"""Microseconds."""

ONLY_SERVER = "is set by the server alone"


@dataclass(frozen=True, slots=True)
class Guardrail:
    """at_most, at_least: bounds of the lift, one of the two. falls_back: to the baseline action, once crossed.
    again_after: microseconds, 0: only a person ends that. crossed_at: since when everybody gets the baseline."""

    reward: str
    at_most: float | None = None
    at_least: float | None = None
    falls_back: bool = False
    again_after: int = 0
    crossed_at: Time | None = None

    @property
    def margin(self) -> float:
        """The bound."""
        return self.at_most if self.at_most is not None else self.at_least or 0.0

    @property
    def bound(self) -> str:
        """In words.

        >>> Guardrail("unsubscribe", at_most=0.002).bound
        'at most 0.002'
        """
        return f"{'at least' if self.at_most is None else 'at most'} {self.margin:g}"


def guardrail_violations(message: pb.Experiment) -> Iterator[Violation]:
    """What is wrong with the guardrails of an experiment."""
    if not message.guardrails:
        return
    if len(message.guardrails) > MAX_GUARDRAILS:
        yield Violation(
            "guardrails", f"has {len(message.guardrails)} guardrails; at most {MAX_GUARDRAILS} are possible"
        )
    if not 0 < message.holdout < 1:
        yield Violation(
            "holdout",
            f"{message.holdout:g} leaves guardrails nothing to compare the policy with: take a share above 0 and below "
            "1, like 0.1, or leave out guardrails",
        )
    for index, guardrail in enumerate(message.guardrails):
        yield from _violations(f"guardrails[{index}]", guardrail)
        yield from _reward_violations(f"guardrails[{index}].reward", guardrail.reward, message, index)


def _violations(path: str, guardrail: pb.Guardrail) -> Iterator[Violation]:
    both = guardrail.HasField("at_most"), guardrail.HasField("at_least")
    if both[0] == both[1]:
        yield Violation(path, "needs at_most or at_least, one of the two")
    for name in ("at_most", "at_least"):
        margin = getattr(guardrail, name)
        if not (math.isfinite(margin) and abs(margin) <= LARGEST_MARGIN):
            yield Violation(f"{path}.{name}", f"{margin} is not a number within +-{LARGEST_MARGIN:g}")
    yield from enum_violation(f"{path}.on_crossing", guardrail.on_crossing, pb.OnCrossing)
    falls_back, again = guardrail.on_crossing == pb.ON_CROSSING_BASELINE, guardrail.again_after.ToMicroseconds()
    if again and not SHORTEST_PAUSE <= again <= LONGEST_PAUSE:
        yield Violation(f"{path}.again_after", f'{again / 1e6:g} s is not in [1 s, 366 days]; give it like "7d"')
    for name in ("again_after", "crossed_at"):
        if guardrail.HasField(name) and not falls_back:
            yield Violation(f"{path}.{name}", 'needs on_crossing = "baseline": an alarm alone changes nothing')


def _reward_violations(path: str, name: str, message: pb.Experiment, index: int) -> Iterator[Violation]:
    weights = message.reward.weights
    if name not in weights:
        yield Violation(
            path,
            f"{name[:64]!r} is not one of reward.weights: add it there, with the weight 0 if the policy shall not "
            "learn from it, beside every other name that is sent",
        )
    elif name not in sorted(weights)[:MOST_NAMES]:
        yield Violation(
            path,
            f"{name!r} is not among the first {MOST_NAMES} names of reward.weights in the alphabet, which alone have "
            "a lift: declare fewer names, or give it another one",
        )
    if name in [other.reward for other in message.guardrails[:index]]:
        yield Violation(path, f"{name[:64]!r} has a guardrail already; give each reward one")
