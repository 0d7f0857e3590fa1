"""Do the draws follow the outcome more than the propensities allow? Called by `checks/draw.py` and `checks/leaks.py`.

An action that does well in a context is drawn there as often as its propensities say, and not more often where a field
has those values that go with high rewards. If it is, the field was made after the outcome; if it is so whatever the
field, the log prefers good actions more than it says. One test a field, in the direction of what would do harm: it sees
leaks that no single cell of `checks/balance.py` shows, since actions that do well in different contexts cancel there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from decider.estimate.sample import Floats, Longs
from decider.estimate.sample_ratio import freedman
from decider.types import CONTEXT_FIELDS
from simulator.evaluate.checks.balance import some_decisions
from simulator.evaluate.reward_model import FOLDS, fold_of, levels_of, ridge_of
from simulator.logs.columns import Columns

MOST_LEVELS = 20

MOST_CELLS = 250_000
"""Decisions x actions at most: of longer logs some decisions are enough for these tests."""

ANY_FIELD = ""
"""The test whether good actions are drawn too often, whatever the fields."""


@dataclass(frozen=True, slots=True)
class Preference:
    """How far the draws go along with the outcome. chance: the p-value; gain: mean reward of a decision that the log
    has for it, in the reward's unit; share: of the reward's variance that the field explains."""

    chance: float
    gain: float
    share: float


@dataclass(frozen=True, slots=True)
class Tie:
    """How a field goes with the reward. codes: (n,) levels; mean: (n,) mean reward of the level less that of all, from
    the decisions of other units; share: of the reward's variance that the levels explain.
    """

    field: str
    codes: Longs
    count: int
    mean: Floats
    share: float


def preferences(columns: Columns) -> dict[str, Preference]:
    """Of each field, and of ANY_FIELD. What does well is learned from the fields that are less tied to the reward.

    >>> from simulator.logs.example import example
    >>> sorted(preferences(example()))
    ['', 'age', 'device', 'segment']
    """
    columns = some_decisions(columns, MOST_CELLS)
    effects, fields = _Effects(columns), ties(columns)
    for tie in fields:
        effects.leave_out_undrawn(tie)
    found = {}
    for tie in sorted(fields, key=lambda tie: (tie.field not in CONTEXT_FIELDS, tie.share)):
        found[tie.field] = effects.preference(tie.mean, tie.share)
        effects.add(tie)
    found[ANY_FIELD] = effects.preference(np.ones(len(columns)), 1.0)
    return found


def ties(columns: Columns) -> list[Tie]:
    """Of every field, in their order.

    >>> from simulator.logs.example import example
    >>> [tie.field for tie in ties(example())]
    ['segment', 'device', 'age']
    """
    fold = fold_of(columns, FOLDS)
    return [_tie(name, columns, fold) for name in columns.fields]


def _tie(name: str, columns: Columns, fold: Longs) -> Tie:
    field = columns.fields[name]
    levels = levels_of(name, field, MOST_LEVELS)
    codes, apart = levels.codes(field), columns.reward - columns.reward.mean()
    size, at = FOLDS * levels.count, fold * levels.count + codes
    counts = np.bincount(at, minlength=size).reshape(FOLDS, -1).astype(np.float64)
    sums = np.bincount(at, weights=apart, minlength=size).reshape(FOLDS, -1)
    others = (sums.sum(axis=0) - sums) / np.maximum(counts.sum(axis=0) - counts, 1.0)
    explained = float((sums.sum(axis=0) ** 2 / np.maximum(counts.sum(axis=0), 1.0)).sum())
    whole = float(apart @ apart)
    return Tie(name, codes, levels.count, others[fold, codes], explained / whole if whole else 0.0)


class _Effects:
    """(n, actions): how much better each action does than the mean one, as other units tell; grows field by field.

    Besides, without pmfs, the logarithm of a guess at the pmf: naive Bayes over the fields so far. A bad guess costs
    power, and nothing else (see `_weights`).
    """

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._fold = fold_of(columns, FOLDS)
        self._member = columns.member[columns.eligible]
        self._pmf = None if columns.pmf is None else columns.dense_pmf()
        self._apart = columns.reward - columns.reward.mean()
        whole = Tie("", np.zeros(len(columns), np.int64), 1, np.zeros(0), 0.0)
        self._main = np.zeros((FOLDS, 1, len(columns.actions)))
        self._main = self._cells(whole)
        self._effects = self._main[self._fold, 0]
        self._shares = self._drawn(whole)
        self._log_guess = np.log(self._shares)[whole.codes]

    def add(self, tie: Tie) -> None:
        """What an action does at a level beyond what it does everywhere."""
        self._effects += self._cells(tie)[self._fold, tie.codes]
        if self._pmf is None:
            self._log_guess += np.log(self._drawn(tie) / self._shares)[tie.codes]

    def leave_out_undrawn(self, tie: Tie) -> None:
        """Without pmfs an action that never came at a level may not have been eligible there."""
        if self._pmf is None:
            at = tie.codes * len(self._columns.actions) + self._columns.action
            counts = np.bincount(at, minlength=tie.count * len(self._columns.actions)).reshape(tie.count, -1)
            self._member &= (counts > 0)[tie.codes]

    def _drawn(self, tie: Tie) -> Floats:
        """(levels, actions): the share of each action's draws, with one more draw of each."""
        actions = len(self._columns.actions)
        at = tie.codes * actions + self._columns.action
        counts = np.bincount(at, minlength=tie.count * actions).reshape(tie.count, actions) + 1.0
        return np.asarray(counts / counts.sum(axis=1, keepdims=True))

    def _cells(self, tie: Tie) -> Floats:
        """(folds, levels, actions): shrunk means of what the action and the level leave of the rewards."""
        actions = len(self._columns.actions)
        size = FOLDS * tie.count * actions
        at = (self._fold * tie.count + tie.codes) * actions + self._columns.action
        shape = (FOLDS, tie.count, actions)
        counts = np.bincount(at, minlength=size).reshape(shape).astype(np.float64)
        sums = np.bincount(at, weights=self._apart, minlength=size).reshape(shape)
        counts, sums = counts.sum(axis=0) - counts, sums.sum(axis=0) - sums
        level = sums.sum(axis=2, keepdims=True) / np.maximum(counts.sum(axis=2, keepdims=True), 1.0)
        left = sums - counts * (level + self._main)
        noise = float(self._apart @ self._apart) / max(1, len(self._apart))
        ridge = np.array([ridge_of(one, count, noise) for one, count in zip(left, counts, strict=True)])
        return np.asarray(left / (counts + ridge[:, None, None]))

    def preference(self, direction: Floats, share: float) -> Preference:
        """How far the draws go along with effects x direction, (n,), beyond what the propensities say."""
        drawn = np.arange(len(direction)), self._columns.action
        terms = self._weights()[drawn] / self._columns.propensity * direction
        variance, largest = np.array([float(terms @ terms)]), np.array([float(np.abs(terms).max(initial=0.0))])
        excess = np.array([float(terms.sum())])
        return Preference(
            float(freedman(excess, variance=variance, largest=largest)[0]),
            float(excess[0]) / max(1, len(terms)),
            share,
        )

    def _weights(self) -> Floats:
        """(n, actions): pmf x (effect - its mean). Each row sums to 0, so that its value at the drawn action, divided
        by the propensity, is 0 on average whatever the effects and, without pmfs, the guess were.
        """
        pmf = self._guess() if self._pmf is None else self._pmf
        mean = (self._effects * pmf).sum(axis=1, keepdims=True)
        return np.asarray(pmf * (self._effects - mean))

    def _guess(self) -> Floats:
        pmf = np.where(self._member, np.exp(self._log_guess - self._log_guess.max(axis=1, keepdims=True)), 0.0)
        return np.asarray(pmf / pmf.sum(axis=1, keepdims=True))
