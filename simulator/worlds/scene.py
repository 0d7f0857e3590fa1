"""A scene as plain functions -> a world: who comes, what may happen then, how likely.

Each file of `scenes/` is one such world. Adding a world is adding one file with a `WORLD`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from traceback import extract_tb
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from decider.errors import DeciderError
from decider.experiment.definition import Action, Experiment, RewardDefinition
from decider.experiment.schema import from_message, to_message
from decider.experiment.unit_history import HistoryDefinition
from decider.types import ActionId, Context, ExperimentId
from simulator.worlds.world import Answers, Flags, Floats, Indexes, Visits, World


class BadScene(DeciderError):
    """The file of a world is wrong; the message says where."""

    reason = "BAD_SCENE"


def located(error: Exception, world: str) -> str:
    """An error with the line of the world's file that it comes from; with the world's name where that is not known.

    >>> located(NameError("name 'x' is not defined"), "home.py")
    "home.py: NameError: name 'x' is not defined"
    """
    frames = [frame for frame in extract_tb(error.__traceback__) if Path(frame.filename).parent.name == "scenes"]
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else world
    return f"{place}: {type(error).__name__}: {error}"


class Visitor(NamedTuple):
    """One visit. truth: what the visitor is really like, where the context does not say all of it.

    after_answer: the context once this unit has answered a question; answers: whether it would answer now.
    """

    context: Context
    unit: int = -1
    truth: Context | None = None
    after_answer: Context | None = None
    answers: bool = False


class Outcome(NamedTuple):
    """A reward that may follow: its name, value and probability. What is left of probability 1 is no reward."""

    name: str
    value: float
    probability: float


Outcomes = Sequence[Outcome]
_ROUNDING = 1e-9


def define(
    name: str,
    *,
    actions: Sequence[Action],
    baseline: str,
    window: float,
    weights: Mapping[str, float],
    reward_range: tuple[float, float] = (0.0, 1.0),
    history: HistoryDefinition | None = None,
) -> Experiment:
    """The experiment of a scene, with the policy and the floor that an experiment has by default.

    window: seconds. Raises InvalidExperiment.

    >>> actions = [Action(ActionId("sale")), Action(ActionId("none"), "none")]
    >>> define("home", actions=actions, baseline="none", window=600, weights={"click": 1.0}).baseline
    'none'
    """
    lowest, highest = reward_range
    reward = RewardDefinition(round(window * 1e6), weights=weights, minimum=lowest, maximum=highest)
    made = Experiment(ExperimentId(name), tuple(actions), baseline=ActionId(baseline), reward=reward, history=history)
    message = to_message(made)
    for left_out in ("policy", "minimum_propensity"):
        message.ClearField(left_out)
    return from_message(message)


def chance(base: float, effects: Mapping[str, float], context: Context) -> float:
    """A probability: its log-odds are `base` and the effects of every category that the context has.

    >>> chance(0.0, {"vip": 1.0}, Context(device="mobile"))
    0.5
    >>> round(chance(0.0, {"vip": 1.0}, Context(segment="vip", features={"visits": 3.0})), 3)
    0.731
    """
    values = (*context[:5], *context.features.values()) if context.features else context[:5]
    return 1 / (1 + math.exp(-base - sum([effects.get(one, 0.0) for one in values if type(one) is str])))


def mixture(parts: Iterable[tuple[float, Outcomes]]) -> list[Outcome]:
    """What may follow where one of these holds, each as likely as its weight; weights sum to 1.

    >>> mixture([(0.75, [Outcome("click", 1.0, 0.2)]), (0.25, [Outcome("click", 1.0, 0.4)])])
    [Outcome(name='click', value=1.0, probability=0.25)]
    """
    total: defaultdict[tuple[str, float], float] = defaultdict(float)
    for weight, outcomes in parts:
        for name, value, probability in outcomes:
            total[name, value] += weight * probability
    return [Outcome(name, value, probability) for (name, value), probability in total.items()]


def scene(
    *,
    name: str,
    line: str,
    experiment: Experiment,
    visitor: Callable[[Random, int], Visitor],
    outcomes: Callable[[Context, ActionId, int], Outcomes],
    delay: float,
    phase: Callable[[int], int] = lambda _number: 0,
    eligible: Callable[[Context, ActionId, int], bool] = lambda _context, _action, _phase: True,
    traffic: float = 2.0,
    batch: int = 1,
    asks: ActionId | None = None,
    hidden: bool = False,
) -> World:
    """The world of these functions.

    visitor(random, number): who comes in round `number`; without a unit, everybody comes once. phase(number): the time
    of the world, in whole steps. outcomes(context, action, phase): what may follow; probabilities sum to at most 1; for
    a context that does not say everything, the average over what visitors are really like.
    delay: mean seconds from decision to reward, exponential. asks: the action that asks back. hidden: policies are
    judged by what visitors are really like, although no context says it: the best action is that of somebody who knows.
    """
    actions = tuple(action.id for action in experiment.actions)
    names = tuple(experiment.reward.weights) or ("reward",)
    weights = [experiment.reward.weights.get(one, 1.0) for one in names]

    def drawn(seed: int, rounds: int) -> Visits:
        random = Random(seed)
        visitors = [visitor(random, number) for number in range(rounds)]
        phases = [phase(number) for number in range(rounds)]
        cases = _Cases()
        seen, truth, after_answer = (
            np.array([cases.number(context, at, like) for (context, like), at in zip(pairs, phases, strict=True)])
            for pairs in (
                [(one.context, one.truth if hidden else None) for one in visitors],
                [(one.context, one.truth) if hidden else (one.truth or one.context, None) for one in visitors],
                [(one.after_answer or one.context, one.truth if hidden else None) for one in visitors],
            )
        )
        table = [[outcomes(like or context, action, at) for action in actions] for context, at, like in cases.found]
        worth, chances, which = _arrays(table, names, weights)
        _check(worth, chances, experiment.reward)
        luck, delays = (np.random.default_rng([seed, stream]) for stream in (1, 2))
        rewards, happened = _happens(luck.random(rounds), truth, worth=worth, chances=chances, which=which)
        return Visits(
            contexts=tuple([context for context, _, _ in cases.found]),
            means=(worth * chances).sum(axis=2),
            eligible=np.array([[eligible(context, one, at) for one in actions] for context, at, _ in cases.found]),
            seen=seen,
            units=np.array([number if one.unit < 0 else one.unit for number, one in enumerate(visitors)]),
            delays=delays.exponential(delay, rounds),
            rewards=rewards,
            names=happened,
            answers=_answers(actions.index(asks), visitors, after_answer) if asks else None,
        )

    def draw(seed: int, rounds: int) -> Visits:
        try:
            return drawn(seed, rounds)
        except MemoryError:
            raise
        except Exception as error:  # of the scene's own functions
            raise BadScene(located(error, name)) from error

    return World(name, line, experiment, draw, names, traffic, batch)


@dataclass(slots=True)
class _Cases:
    """Distinct contexts at a time of the world, in the order in which they first came; where that is hidden, apart for
    what visitors are really like."""

    found: list[tuple[Context, int, Context | None]] = field(default_factory=list)
    _numbers: dict[Any, int] = field(default_factory=dict)

    def number(self, context: Context, phase: int, like: Context | None) -> int:
        """Its number, new if need be."""
        key = (_key(context), phase, like and _key(like))
        number = self._numbers.setdefault(key, len(self.found))
        if number == len(self.found):
            self.found.append((context, phase, like))
        return number


def _key(context: Context) -> Any:
    return context[:5], tuple(sorted(context.features.items())) if context.features else ()


def _arrays(
    table: list[list[Outcomes]], names: tuple[str, ...], weights: list[float]
) -> tuple[Floats, Floats, Indexes]:
    """(cases, actions, outcomes): the worth of each outcome, its probability, the index of its name; -1 for none."""
    most = max((len(one) for row in table for one in row), default=0)
    shape = (len(table), len(table[0]) if table else 0, most)
    worth, chances, which = np.zeros(shape), np.zeros(shape), np.full(shape, -1)
    for case, row in enumerate(table):
        for action, possible in enumerate(row):
            for place, outcome in enumerate(possible):
                if outcome.name not in names:
                    raise ValueError(f"an outcome is named {outcome.name!r}; rewards have the names {', '.join(names)}")
                index = names.index(outcome.name)
                worth[case, action, place] = outcome.value * weights[index]
                chances[case, action, place] = outcome.probability
                which[case, action, place] = index
    return worth, chances, which


def _check(worth: Floats, chances: Floats, reward: RewardDefinition) -> None:
    """Raises ValueError."""
    outside = worth[(worth < reward.minimum) | (worth > reward.maximum)]
    if len(outside):
        raise ValueError(f"an outcome is worth {outside[0]:g}; the range is {reward.minimum:g} to {reward.maximum:g}")
    sums = chances.sum(axis=2)
    if not ((chances >= 0).all() and (sums <= 1 + _ROUNDING).all()):
        raise ValueError(f"probabilities must be 0 at least and sum to 1 at most; they sum to {sums.max():g}")


def _happens(
    luck: Floats, truth: Indexes, *, worth: Floats, chances: Floats, which: Indexes
) -> tuple[Floats, NDArray[np.int8]]:
    """(rounds, actions): what each action earns there and under which name. One luck for all actions of a round."""
    edges = np.cumsum(chances, axis=2)[truth]
    place = (luck[:, None, None] >= edges).sum(axis=2)
    nothing = np.zeros((*worth.shape[:2], 1))
    padded, named = np.concatenate([worth, nothing], axis=2), np.concatenate([which, nothing - 1], axis=2)
    chosen = np.arange(worth.shape[1])
    rewards = padded[truth[:, None], chosen, place]
    return rewards, named[truth[:, None], chosen, place].astype(np.int8)


def _answers(action: int, visitors: Sequence[Visitor], after_answer: Indexes) -> Answers:
    given: Flags = np.array([one.answers for one in visitors])
    return Answers(action, given, after_answer)
