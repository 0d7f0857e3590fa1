"""Worlds whose truth is exact, and the logs that are drawn from them. Used by the modules with the kinds.

A world has a few cells: kinds of visits that come with a known share, where every action has a known mean reward. So
the value of a policy is a sum over cells and actions, and needs no simulation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from simulator.evaluate.candidates import Candidate, FixedAction, TablePolicy, UniformPolicy
from simulator.logs.columns import Category, Codes, Columns, Field, Flags, Floats, Longs

Random = np.random.Generator
Must = Literal["alarm", "cover", "silence"]
"""alarm: a finding that names the cause; cover: answers whose intervals hold; silence: that, and no false alarm."""

SEGMENTS = ("new", "regular", "vip")
ACTIONS = ("sale", "outfit", "shipping", "gift")
PERSONAL = 0.85
"""Probability that the candidate `segment` gives to the best action of a segment; the others share the rest."""


@dataclass(frozen=True)
class World:
    """share: (cells,) sums to 1. pmf, mean, eligible: (cells, actions): how the log draws, what is earned on average,
    what can be drawn. segment: (cells,) the value of the context field `segment`."""

    segment: tuple[str, ...]
    actions: tuple[str, ...]
    share: Floats
    pmf: Floats
    mean: Floats
    eligible: Flags

    def value(self, pmf: Floats) -> float:
        """The true mean reward of a policy with these probabilities, (cells, actions)."""
        return float(self.share @ (pmf * self.mean).sum(axis=1))

    @property
    def marginal(self) -> Floats:
        """(actions,): the overall share of each in the log."""
        return np.asarray(self.share @ self.pmf)


def world_of(
    pmf: Floats,
    mean: Floats,
    *,
    segment: tuple[str, ...] = SEGMENTS,
    share: Floats | None = None,
    actions: tuple[str, ...] = ACTIONS,
    eligible: Flags | None = None,
) -> World:
    """All actions are eligible and all cells as frequent unless said otherwise; the log's pmfs are normalised."""
    able = np.ones(mean.shape, np.bool_) if eligible is None else eligible
    inside = np.where(able, pmf, 0.0)
    shares = np.full(len(segment), 1 / len(segment)) if share is None else share
    return World(segment, actions, shares, inside / inside.sum(axis=1, keepdims=True), mean, able)


SHARE = np.array([0.5, 0.3, 0.2])
PMF = np.array([[0.55, 0.15, 0.15, 0.15], [0.15, 0.55, 0.15, 0.15], [0.55, 0.15, 0.15, 0.15]])
MEAN = np.array([[0.35, 0.1, 0.1, 0.1], [0.15, 0.1, 0.4, 0.1], [0.1, 0.1, 0.1, 0.4]])
SHOP = world_of(PMF, MEAN, share=SHARE)
"""Most kinds play here: three segments, each with another best action, and a log that knows one of them."""


@dataclass(frozen=True)
class Draws:
    """n decisions of a world. cell, action: (n,). reward: (n,), 0 or 1 with the world's means unless changed."""

    world: World
    cell: Longs
    action: Codes
    reward: Floats

    def __len__(self) -> int:
        return len(self.cell)

    @property
    def pmf(self) -> Floats:
        """(n, actions): as the actions were really drawn."""
        return self.world.pmf[self.cell]

    def drawn(self, of: Floats) -> Floats:
        """(n,): what stands in (n, actions) at the drawn action."""
        return np.asarray(of[np.arange(len(self)), self.action])


def draw(world: World, decisions: int, random: Random, *, cell: Longs | None = None) -> Draws:
    """A log of the world. cell: (n,) where it does not come by chance."""
    cells = random.choice(len(world.share), decisions, p=world.share) if cell is None else cell
    action = pick(world.pmf[cells], random)
    return Draws(world, cells, action, bernoulli(world.mean[cells, action], random))


def pick(pmf: Floats, random: Random) -> Codes:
    """(n,): an action of each row's distribution."""
    tickets = random.random((len(pmf), 1)) * pmf.sum(axis=1, keepdims=True)
    return np.asarray((pmf.cumsum(axis=1) <= tickets).sum(axis=1), np.int32)


def bernoulli(chance: Floats, random: Random) -> Floats:
    """1 with this chance, else 0."""
    return np.asarray(random.random(len(chance)) < chance, np.float64)


def category(codes: Any, values: tuple[str, ...]) -> Category:
    """A field of texts."""
    return Category(np.asarray(codes, np.int32), values)


def segment_field(draws: Draws) -> Category:
    """The segment of each decision."""
    values = tuple(dict.fromkeys(draws.world.segment))
    return category(np.array([values.index(one) for one in draws.world.segment])[draws.cell], values)


def columns_of(
    draws: Draws,
    *,
    pmf: Floats | None = None,
    propensity: Floats | None = None,
    fields: Mapping[str, Field] | None = None,
    more: Mapping[str, Field] | None = None,
    **changes: Any,
) -> Columns:
    """The log as a reader gives it. pmf: (n, actions), None for a log with only the drawn action's propensity, which is
    the true one unless given. fields: instead of the segment; more: beside it. changes: of `Columns`."""
    count, world = len(draws), draws.world
    time = np.arange(count, dtype=np.int64) * 60_000_000 + 1_700_000_000_000_000
    sets, eligible = _sets(world)
    row = eligible[draws.cell]
    columns = Columns(
        name="log",
        actions=world.actions,
        action=draws.action,
        propensity=draws.drawn(draws.pmf) if propensity is None else propensity,
        reward=draws.reward,
        reward_range=(0.0, 1.0),
        time=time,
        known=time + 3_600_000_000,
        unit=np.arange(count, dtype=np.int64),
        fields={**({"segment": segment_field(draws)} if fields is None else fields), **(more or {})},
        sets=sets,
        eligible=row,
        pmf=None if pmf is None else pmf[world.eligible[draws.cell]].astype(np.float32),
    )
    return replace(columns, **changes)


def _sets(world: World) -> tuple[tuple[tuple[int, ...], ...], Codes]:
    """The distinct sets of eligible actions, and (cells,) which one each cell has."""
    rows = [tuple(np.flatnonzero(row).tolist()) for row in world.eligible]
    sets = tuple(dict.fromkeys(rows))
    return sets, np.array([sets.index(row) for row in rows], np.int32)


@dataclass(frozen=True, slots=True)
class Question:
    """A candidate and its true value. candidate: made for the columns that were read, whose actions may be fewer."""

    name: str
    truth: float
    candidate: Callable[[Columns], Candidate]


def uniform(world: World) -> Question:
    """Every eligible action alike."""
    even = world.eligible / world.eligible.sum(axis=1, keepdims=True)
    return Question("uniform", world.value(even), lambda _: UniformPolicy())


def fixed(world: World, action: str) -> Question:
    """One action; evenly over the eligible ones where it is not among them."""
    name, index = f"fixed:{action}", world.actions.index(action)
    even = world.eligible / world.eligible.sum(axis=1, keepdims=True)
    one = np.eye(len(world.actions))[[index]]
    pmf = np.where(world.eligible[:, [index]], one, even)
    return Question(name, world.value(pmf), lambda columns: FixedAction(name, columns.actions.index(action)))


def by_segment(world: World) -> Question:
    """Most of the probability to the best action of each segment, over the eligible ones."""
    values = tuple(dict.fromkeys(world.segment))
    rows = np.array([values.index(one) for one in world.segment])
    rest = (1 - PERSONAL) / (len(world.actions) - 1)
    pmfs = np.full((len(values), len(world.actions)), rest)
    for row in range(len(values)):
        mine = rows == row
        pmfs[row, int((world.share[mine] @ world.mean[mine]).argmax())] = PERSONAL
    cells = np.where(world.eligible, pmfs[rows], 0.0)
    truth = world.value(cells / cells.sum(axis=1, keepdims=True))
    return Question("segment", truth, lambda columns: _table(columns, world, values, pmfs))


def _table(columns: Columns, world: World, values: tuple[str, ...], pmfs: Floats) -> TablePolicy:
    order = [world.actions.index(one) for one in columns.actions]
    return TablePolicy("segment", "segment", values, pmfs[:, order])


def shop_questions(world: World = SHOP) -> tuple[Question, ...]:
    """The three candidates of most kinds."""
    return uniform(world), fixed(world, world.actions[-1]), by_segment(world)


@dataclass(frozen=True, slots=True)
class Case:
    """A log of a kind, and what is asked of it. columns: None where it could not be read: `error` says why.

    logged: the true mean reward of the policy that drew.
    """

    columns: Columns | None
    questions: tuple[Question, ...]
    logged: float
    error: str = ""


def case(columns: Columns, world: World, questions: tuple[Question, ...] = ()) -> Case:
    """A log that needs no file; the three candidates unless others are given."""
    return Case(columns, questions or shop_questions(world), world.value(world.pmf))


@dataclass(frozen=True, slots=True)
class Kind:
    """Logs of one kind. make: one of them, by chance. must: what has to happen; cause: a regular expression that finds
    the cause in the name or text of a finding."""

    name: str
    make: Callable[[Random], Case]
    must: Must
    cause: str = field(default="")
