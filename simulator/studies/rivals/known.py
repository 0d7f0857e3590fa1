"""A log with known truth: ten actions, eight features, logged 0.2-greedily by a policy that is not the best.

A visit has five categories (those of `worlds/logistic.py`) and three numbers; the log-odds of a reward are linear in
them, with coefficients of their own for each action. The logging policy is greedy by a regression on few visits, with
a fifth of its draws uniform; the candidate is greedy by the same regression on many other visits, and never learns.
So its true value on the log's contexts is known exactly. Called by `side_by_side.py` and `bench_evaluate.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from decider.policy.algorithms import ALGORITHMS
from decider.policy.features import vector_of
from decider.policy.protocol import Choice
from decider.policy.spec import PolicySpec
from decider.policy.vw.encode import action_line, context_line
from decider.types import ActionId
from simulator.logs.columns import Category, Codes, Columns, Floats, Number
from simulator.logs.contexts import Contexts
from simulator.studies.rivals.exchange import Arrays
from simulator.worlds.logistic import FIELDS

NUMBERS = ("recency", "frequency", "money")
"""Numbers of a visit, each uniform in [-1, 1]."""

ACTIONS = tuple(f"action-{number}" for number in range(10))
KIND = "content"
LINES = tuple(action_line(Choice(ActionId(id_), KIND)) for id_ in ACTIONS)
LEARNER = PolicySpec("squarecb", ALGORITHMS["squarecb"].defaults)
"""The policy of ours that learns from the log: one of Vowpal Wabbit's, so that its own loop can run the same."""

EPSILON = 0.2
POOR = 2_000
"""Visits that the logging policy was fitted on."""

RARE = -2.8
"""Log-odds of a reward before anything is known."""

SECOND = 1_000_000
RIDGE = 1.0


@dataclass(frozen=True, slots=True)
class Visits:
    """n visits. codes: (n, 5), the value of each category; numbers: (n, 3); means: (n, actions), true mean rewards."""

    codes: Codes
    numbers: Floats
    means: Floats

    @property
    def matrix(self) -> Floats:
        """(n, 26): a constant, every value of every category as 0 or 1, the numbers."""
        return _matrix(self.codes, self.numbers)


@dataclass(frozen=True, slots=True)
class Feedback:
    """Visits with what was drawn and earned. action, reward: (n,); pmf: (n, actions), with which it was drawn."""

    visits: Visits
    action: Codes
    reward: Floats
    pmf: Floats

    @property
    def propensity(self) -> Floats:
        """(n,) of the drawn actions."""
        return self.pmf[np.arange(len(self.action)), self.action]


@dataclass(frozen=True, slots=True)
class KnownLog:
    """The log, the candidate's pmf on it (n, actions), and the independent sample that the candidate was fitted on."""

    log: Feedback
    candidate: Floats
    sample: Feedback

    @property
    def truth(self) -> float:
        """What the candidate earns at the log's contexts: mean over them of sum_a pmf(a) mean(a). Exact."""
        return float((self.candidate * self.log.visits.means).sum(axis=1).mean())


def known_log(*, seed: int, rounds: int) -> KnownLog:
    """The same for the same arguments; the candidate's sample has as many visits as the log.

    >>> known = known_log(seed=3, rounds=1_000)
    >>> known.candidate.sum(axis=1).tolist() == [1.0] * 1_000, round(float(known.log.pmf.min()), 3)
    (True, 0.02)
    """
    world, few, many, logged = (np.random.default_rng([seed, stream]) for stream in range(4))
    coefficients = _coefficients(world)
    earlier = _fitted(_uniformly(few, coefficients, POOR))
    sample = _uniformly(many, coefficients, rounds)
    visits = _visits(logged, coefficients, rounds)
    epsilon_greedy = EPSILON / len(ACTIONS) + (1 - EPSILON) * _greedy(earlier, visits)
    return KnownLog(
        log=_served(logged, visits, epsilon_greedy), candidate=_greedy(_fitted(sample), visits), sample=sample
    )


def columns(known: KnownLog) -> Columns:
    """The log as our tools read it: one visit a second, every visitor once, rewards at once.

    >>> one = columns(known_log(seed=3, rounds=100))
    >>> len(one), sorted(one.fields), one.reward_range
    (100, ['channel', 'device', 'frequency', 'intent_stage', 'location', 'money', 'recency', 'segment'], (0.0, 1.0))
    """
    log = known.log
    rounds = len(log.action)
    categories = {
        name: Category(np.ascontiguousarray(log.visits.codes[:, row]), value_names(name))
        for row, name in enumerate(FIELDS)
    }
    numbers = {name: Number(np.ascontiguousarray(log.visits.numbers[:, row])) for row, name in enumerate(NUMBERS)}
    time = np.arange(rounds, dtype=np.int64) * SECOND
    return Columns(
        name="known",
        actions=ACTIONS,
        action=log.action,
        propensity=log.propensity,
        reward=log.reward,
        reward_range=(0.0, 1.0),
        time=time,
        known=time,
        unit=np.arange(rounds, dtype=np.int64),
        fields={**categories, **numbers},
        sets=(tuple(range(len(ACTIONS))),),
        eligible=np.zeros(rounds, np.int32),
        pmf=log.pmf.astype(np.float32).reshape(-1),
    )


def arrays(known: KnownLog) -> Arrays:
    """The log as the rivals get it.

    >>> known = known_log(seed=3, rounds=100)
    >>> arrays(known).truth == known.truth
    True
    """
    log, sample = known.log, known.sample
    return Arrays(
        matrix=log.visits.matrix,
        codes=log.visits.codes,
        numbers=log.visits.numbers,
        action=log.action,
        propensity=log.propensity,
        reward=log.reward,
        means=log.visits.means,
        candidate=known.candidate,
        sample_matrix=sample.visits.matrix,
        sample_action=sample.action,
        sample_reward=sample.reward,
    )


def vw_lines(known: KnownLog) -> Iterator[str]:
    """The log in VW's text format, one decision at a time: our own lines, with cost = -reward as Personalizer logs it.

    >>> next(vw_lines(known_log(seed=3, rounds=100))).splitlines()[-2]
    '|A id=action-9 kind=content'
    """
    log = known.log
    facts = zip(
        Contexts().of(columns(known)), log.action.tolist(), log.propensity.tolist(), log.reward.tolist(), strict=True
    )
    for context, action, propensity, reward in facts:
        labels = [""] * len(ACTIONS)
        labels[action] = f"0:{0 - reward:g}:{propensity:.6g} "
        actions = [label + line for label, line in zip(labels, LINES, strict=True)]
        yield "\n".join([context_line(context[:5], vector_of(context.features)), *actions, "", ""])


def experiment() -> str:
    """The learning candidate as an experiment's TOML: squarecb over the log's actions."""
    actions = [f'[[actions]]\nid = "{id_}"\nkind = "{KIND}"\n' for id_ in ACTIONS]
    return "\n".join(['id = "known"\n', *actions, f"[policy]\n{LEARNER.algorithm} = {{}}\n"])


def value_names(field: str) -> tuple[str, ...]:
    """The values of a category.

    >>> value_names("device")
    ('device-0', 'device-1', 'device-2')
    """
    return tuple(f"{field}-{value}" for value in range(FIELDS[field]))


def _coefficients(rng: np.random.Generator) -> Floats:
    """(26, actions): common to all actions, and each action's own."""
    size = len(_widths())
    common = rng.normal(0, 0.2, (size, 1))
    own = rng.normal(0, 0.5, (size, len(ACTIONS)))
    coefficients = common + own
    coefficients[0] = RARE + rng.normal(0, 0.3, len(ACTIONS))
    return np.asarray(coefficients)


def _widths() -> list[str]:
    """What each column of a matrix is."""
    return ["constant", *[name for name, size in FIELDS.items() for _ in range(size)], *NUMBERS]


def _visits(rng: np.random.Generator, coefficients: Floats, rounds: int) -> Visits:
    codes = np.stack([rng.integers(size, size=rounds, dtype=np.int32) for size in FIELDS.values()], axis=1)
    numbers = rng.uniform(-1, 1, (rounds, len(NUMBERS)))
    return Visits(codes, numbers, 1 / (1 + np.exp(-_matrix(codes, numbers) @ coefficients)))


def _matrix(codes: Codes, numbers: Floats) -> Floats:
    categories = [np.eye(size)[codes[:, row]] for row, size in enumerate(FIELDS.values())]
    return np.concatenate([np.ones((len(codes), 1)), *categories, numbers], axis=1)


def _uniformly(rng: np.random.Generator, coefficients: Floats, rounds: int) -> Feedback:
    pmf = np.full((rounds, len(ACTIONS)), 1 / len(ACTIONS))
    return _served(rng, _visits(rng, coefficients, rounds), pmf)


def _served(rng: np.random.Generator, visits: Visits, pmf: Floats) -> Feedback:
    """One draw per visit by the pmf, and its reward."""
    ticket = rng.random((len(pmf), 1))
    action = (pmf.cumsum(axis=1)[:, :-1] < ticket).sum(axis=1).astype(np.int32)
    mean = visits.means[np.arange(len(pmf)), action]
    return Feedback(visits, action, (rng.random(len(pmf)) < mean).astype(np.float64), pmf)


def _fitted(feedback: Feedback) -> Floats:
    """(26, actions): a ridge regression of the reward for each action."""
    matrix = feedback.visits.matrix
    weights = []
    for action in range(len(ACTIONS)):
        rows = matrix[feedback.action == action]
        reward = feedback.reward[feedback.action == action]
        weights.append(np.linalg.solve(rows.T @ rows + RIDGE * np.eye(rows.shape[1]), rows.T @ reward))
    return np.stack(weights, axis=1)


def _greedy(weights: Floats, visits: Visits) -> Floats:
    """1 to the action with the highest score."""
    return np.asarray(np.eye(len(ACTIONS))[(visits.matrix @ weights).argmax(axis=1)])
