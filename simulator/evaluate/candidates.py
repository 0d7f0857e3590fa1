"""Policies to evaluate: each gives the pmfs of a block of decisions. Made by `parse.py`, called by `scores.py`.

Fixed distributions are computed in NumPy. Policies that learn, stored models and policies written in Python run
through `decide`, the code that serves, decision by decision. Blocks come once each, in the order of the log; a policy
learns a reward no earlier than the log had it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import NamedTuple, Protocol

import numpy as np

from decider.policy.protocol import Choice
from decider.types import Context
from simulator.evaluate.replay_decisions import DoesNotFit, Menu, ReplayedPolicy
from simulator.logs.columns import Category, Columns, Flags, Floats
from simulator.logs.contexts import Contexts
from simulator.under_way import UnderWay

_ABSENT = " (with nothing after the equals sign, for decisions without the field)"

FIXED = "fixed policy"
LEARNER = "progressive learner"
DEPLOYED = "deployed curve"


class Candidate(Protocol):
    """A policy to evaluate."""

    @property
    def name(self) -> str:
        """As given on the command line."""

    @property
    def estimand(self) -> str:
        """FIXED, LEARNER or DEPLOYED."""

    def pmf(self, block: Columns) -> Floats:
        """(n, actions) of the block: each action's probability, 0 where it was not eligible.

        A row may sum to less than 1: the rest goes to actions that the log does not know.
        """

    def rows(self, columns: Columns) -> Flags | None:
        """Which decisions it can be evaluated on; None for all."""


@dataclass(frozen=True, slots=True)
class UniformPolicy:
    """Every eligible action with the same probability.

    >>> from simulator.logs.example import example
    >>> UniformPolicy().pmf(example()).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """

    name: str = "uniform"
    estimand: str = FIXED

    def pmf(self, block: Columns) -> Floats:
        """1/n for each of n eligible actions."""
        member = block.member.astype(np.float64)
        return np.asarray((member / member.sum(axis=1, keepdims=True))[block.eligible])

    def rows(self, columns: Columns) -> None:
        """All."""


@dataclass(frozen=True, slots=True)
class FixedAction:
    """One action always; where it is not eligible, uniform over the eligible ones, as `baseline` is served."""

    name: str
    action: int
    estimand: str = FIXED

    def pmf(self, block: Columns) -> Floats:
        """1 to the action.

        >>> from simulator.logs.example import example
        >>> FixedAction("fixed:b", 1).pmf(example()).tolist()
        [[0.0, 1.0], [0.0, 1.0]]
        """
        weights = np.zeros(len(block.actions))
        weights[self.action] = 1.0
        return _renormalise(np.tile(weights, (len(block.sets), 1)), block.member)[block.eligible]

    def rows(self, columns: Columns) -> None:
        """All."""


@dataclass(frozen=True, slots=True)
class LoggedPolicies:
    """The policies that made the log. Without logged pmfs only the drawn action's probability is known, else nan."""

    estimand: str
    name: str = "logged"

    def pmf(self, block: Columns) -> Floats:
        """As logged; at the drawn action exactly the propensity.

        >>> from simulator.logs.example import example
        >>> LoggedPolicies(FIXED).pmf(example()).tolist()
        [[0.5, 0.5], [0.75, 0.25]]
        """
        dense = np.full((len(block), len(block.actions)), np.nan) if block.pmf is None else block.dense_pmf()
        dense[np.arange(len(block)), block.action] = block.propensity
        return dense

    def rows(self, columns: Columns) -> None:
        """All."""


@dataclass(frozen=True, slots=True)
class TablePolicy:
    """A fixed distribution for each value of one context field; "" is a field that was not given.

    pmfs: (values, actions), each row sums to 1.
    """

    name: str
    field: str
    values: tuple[str, ...]
    pmfs: Floats
    estimand: str = FIXED

    def pmf(self, block: Columns) -> Floats:
        """The value's distribution, over the eligible actions. Raises DoesNotFit for a value that has none."""
        if self.field not in block.fields:
            raise DoesNotFit(
                f"{self.name}: {self.field} is not used as context: {block.set_aside.get(self.field, 'unknown')}; "
                f"if it was known before the draw, say --column context={self.field}"
            )
        column = block.fields[self.field]
        assert isinstance(column, Category)
        index = np.array([self._row(value) for value in (*column.values, "")])[column.codes]
        if (index < 0).any():
            missing = column.codes[int(np.argmax(index < 0))]
            value = column.values[missing] if missing >= 0 else _ABSENT
            raise DoesNotFit(f"{self.name}: has no column {self.field}={value}, which the log has; add one")
        return _renormalise(self.pmfs[index], block.member[block.eligible])

    def _row(self, value: str) -> int:
        return self.values.index(value) if value in self.values else -1

    def rows(self, columns: Columns) -> None:
        """All."""


def _renormalise(pmfs: Floats, member: Flags) -> Floats:
    """Distributions renormalised over the eligible actions; uniform where nothing is left."""
    if member.all():
        return pmfs
    inside = np.where(member, pmfs, 0.0)
    left = inside.sum(axis=1, keepdims=True)
    even = member / member.sum(axis=1, keepdims=True)
    return np.where(left > 0, inside / np.where(left > 0, left, 1.0), even)


class ServedPolicy:
    """A policy that does not learn here, behind the rules and the sampler that serve, without its holdout.

    after: only decisions whose rewards were final later are evaluated; it has learned from the others.
    """

    def __init__(self, policy: ReplayedPolicy, *, after: int | None = None) -> None:
        self.name = policy.name
        self.estimand = FIXED
        self._policy = policy
        self._contexts = Contexts()
        self._after = after

    def pmf(self, block: Columns) -> Floats:
        """Computed once for every distinct decision of the block."""
        fields = [one.codes if isinstance(one, Category) else one.values for one in block.fields.values()]
        extra = [block.action_features.codes] if block.action_features else []
        facts = np.column_stack([block.eligible, *fields, *extra])
        _, first, inverse = np.unique(facts, axis=0, return_index=True, return_inverse=True)
        distinct = np.zeros(len(block), np.bool_)
        distinct[first] = True
        few = block.take(distinct)
        menus = self._policy.menus(few)
        pmfs = [self._policy.pmf(*one) for one in zip(self._contexts.of(few), menus, strict=True)]
        rank = np.cumsum(distinct) - 1
        result: Floats = self._policy.served(menus, pmfs)[rank[first][inverse.reshape(-1)]]
        return result

    def rows(self, columns: Columns) -> Flags | None:
        """Those that it has not learned from."""
        if self._after is None:
            return None
        later: Flags = columns.known > self._after
        return later


class _Lesson(NamedTuple):
    """What will be learned from a decision. They sort by the time when the reward is final, then by log order."""

    final: int
    number: int
    context: Context
    actions: Sequence[Choice]
    drawn: int
    propensity: float
    reward: float


class ProgressiveLearner:
    """A policy that scores every decision before it learns from it, in the order in which rewards became final.

    delayed: a reward is learned when the log knew it; otherwise at once, before the next decision.
    """

    def __init__(self, policy: ReplayedPolicy, *, delayed: bool = True) -> None:
        self.name = policy.name
        self.estimand = LEARNER
        self._policy = policy
        self._contexts = Contexts()
        self._delayed = delayed
        self._waiting: list[_Lesson] = []
        self._under_way = UnderWay(policy.policy)
        self._number = 0

    def pmf(self, block: Columns) -> Floats:
        """Learn what has become final, score, remember: decision by decision."""
        menus, contexts = self._policy.menus(block), self._contexts.of(block)
        pmfs = []
        for time, menu, lesson in zip(block.time.tolist(), menus, self._lessons(block, menus, contexts), strict=True):
            while self._waiting and self._waiting[0].final <= time:
                self._learn(heappop(self._waiting))
            pmfs.append(self._policy.pmf(lesson.context, menu))
            if lesson.drawn >= 0:
                heappush(self._waiting, lesson)
                self._under_way.decided()
        return self._policy.served(menus, pmfs)

    def _learn(self, lesson: _Lesson) -> None:
        self._policy.policy.learn(
            lesson.context, lesson.actions, drawn=lesson.drawn, propensity=lesson.propensity, reward=lesson.reward
        )
        self._under_way.learned()

    def _lessons(self, block: Columns, menus: Sequence[Menu], contexts: Sequence[Context]) -> list[_Lesson]:
        """One for each decision; drawn is -1 where the policy does not have the drawn action."""
        facts = (block.known if self._delayed else block.time, block.action, block.propensity, block.reward)
        number = range(self._number, self._number + len(block))
        self._number += len(block)
        return [
            _Lesson(final, order, context, menu.taught, menu.drawn[action], propensity, reward)
            for order, context, menu, final, action, propensity, reward in zip(
                number, contexts, menus, *[fact.tolist() for fact in facts], strict=True
            )
        ]

    def rows(self, columns: Columns) -> None:
        """All."""
