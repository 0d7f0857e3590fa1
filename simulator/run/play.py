"""A policy plays a world: every visit goes through the policy, the floor and the sampler that serve. Pure.

What a policy earns in a round is the mean reward that its own probabilities lead to there; so a figure has no noise of
single clicks in it, only that of what the policy happened to learn from. Called by `task.py`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import mul
from random import Random
from typing import NamedTuple

import numpy as np

from decider.decide.decide import slots_of
from decider.decide.slots import SLOTS, draw
from decider.experiment.definition import ExperimentVersion
from decider.experiment.unit_history import HistoryDefinition
from decider.policy.protocol import Choice, PlainPolicy
from decider.types import Context, Reason
from simulator.load_policy import end_if_bad
from simulator.run.unit_pasts import UnitPasts
from simulator.under_way import UnderWay
from simulator.worlds.world import Floats, Indexes, Visits, World


@dataclass(frozen=True, slots=True)
class Rounds:
    """Of every round: earned, the mean reward that the policy's probabilities lead to; right, the probability that it
    gave to the best actions; got, the reward that came. cases: which case each round was, on this policy's own way.
    """

    earned: Floats
    right: Floats
    got: Floats
    cases: Indexes


class _Menu(NamedTuple):
    """What a case offers: the indexes of the eligible actions, and what the policy sees of them."""

    actions: tuple[int, ...]
    choices: Sequence[Choice]


class _Decided(NamedTuple):
    """A round that is not learned yet; sealed: when it will be, in the world's seconds."""

    sealed: float
    context: Context
    menu: _Menu
    drawn: int
    propensity: float
    reward: float


def play(
    world: World,
    visits: Visits,
    policy: PlainPolicy,
    *,
    floor: float,
    random: Random,
    delayed: bool = True,
    history: HistoryDefinition | None = None,
) -> Rounds:
    """The policy decides every visit and learns from its own draws alone, in the order in which they are sealed.

    floor: minimum propensity. random gives each round one ticket: the same ones for the same seed.
    delayed: a decision is learned when its reward window ends, with what came by then, as the server does; otherwise
    at once, with its reward. history: what the policy gets to know of what units did before.
    """
    version = replace(world, experiment=replace(world.experiment, minimum_propensity=floor)).version
    menus = _menus(version, visits)
    means, best, rewards = visits.means.tolist(), visits.best.tolist(), visits.rewards.tolist()
    window = world.experiment.reward.window / 1e6 if delayed else 0.0
    late = visits.delays > window if delayed else np.zeros(len(visits), np.bool_)
    lost = late.tolist()
    way = Way(visits)
    units = UnitPasts(world, visits, history) if history is not None else None
    waiting: deque[_Decided] = deque()
    under_way = UnderWay(policy)
    earned, right, got, cases = [], [], [], []
    for number in range(len(visits)):
        now = world.arrives(number)
        while waiting and waiting[0].sealed <= now:
            _learn(policy, waiting.popleft())
            under_way.learned()
        case = way.case(number)
        context, menu = visits.contexts[case], menus[case]
        if units is not None:
            context = units.context(number, context)
        slots, reason = slots_of(version, policy, context, menu.choices, on_failure=end_if_bad)
        index = draw(slots, random.randrange(SLOTS))
        action = menu.actions[index]
        worth, good = means[case], best[case]
        earned.append(sum(map(mul, slots, [worth[a] for a in menu.actions])) / SLOTS)
        right.append(sum([s for s, a in zip(slots, menu.actions, strict=True) if good[a]]) / SLOTS)
        got.append(rewards[number][action])
        cases.append(case)
        if reason != Reason.FALLBACK:  # as in the server, the baseline's decisions teach nothing
            known = world.experiment.reward.default if lost[number] else got[-1]
            sealed = now + window if delayed else math.nextafter(now, math.inf)  # not within a batch
            waiting.append(_Decided(sealed, context, menu, index, slots[index] / SLOTS, known))
            under_way.decided()
        way.chose(number, action)
        if units is not None:
            units.chose(number, action, context)
    return Rounds(np.array(earned), np.array(right), np.array(got), np.array(cases))


def _menus(version: ExperimentVersion, visits: Visits) -> list[_Menu]:
    ids = version.all_active
    known: dict[tuple[int, ...], _Menu] = {}
    menus = []
    for row in visits.eligible:
        actions = tuple(np.flatnonzero(row).tolist())
        if actions not in known:
            known[actions] = _Menu(actions, version.choices_of(tuple([ids[a] for a in actions]), {}))
        menus.append(known[actions])
    return menus


def _learn(policy: PlainPolicy, decided: _Decided) -> None:
    policy.learn(
        decided.context,
        decided.menu.choices,
        drawn=decided.drawn,
        propensity=decided.propensity,
        reward=decided.reward,
    )


class Way:
    """Which case each round is, given what was chosen before: who has answered a question is known from then on."""

    def __init__(self, visits: Visits) -> None:
        self._seen = visits.seen.tolist()
        self._units = visits.units.tolist()
        self._answers = visits.answers
        self._known: set[int] = set()

    def case(self, number: int) -> int:
        """Of that round. Rounds must come in their order."""
        if self._answers and self._units[number] in self._known:
            return int(self._answers.seen[number])
        return int(self._seen[number])

    def chose(self, number: int, action: int) -> None:
        """What was chosen there."""
        answers = self._answers
        if answers and action == answers.action and answers.given[number]:
            self._known.add(self._units[number])


def play_reference(visits: Visits, pmfs: Floats, *, random: Random) -> Floats:
    """(rounds,): what a policy that knows the cases earns on its own way. pmfs: (cases, actions)."""
    worth = (pmfs * visits.means).sum(axis=1)
    if visits.answers is None:
        return np.asarray(worth[visits.seen])
    way, rows = Way(visits), pmfs.tolist()
    earned = []
    for number in range(len(visits)):
        case = way.case(number)
        earned.append(worth[case])
        way.chose(number, random.choices(range(pmfs.shape[1]), rows[case])[0])
    return np.array(earned)
