"""One pass over a log: what each candidate would have done with every decision, as columns. Called by `run.py`.

A few numbers per decision are kept (the candidate's probability of the drawn action, the reward model's predictions,
the unsupported probability); pmfs over all actions live for one block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from simulator.evaluate.candidates import Candidate
from simulator.evaluate.reward_model import RewardModel
from simulator.evaluate.support import undrawn_cells
from simulator.logs.columns import Columns, Flags, Floats, Longs

MANY_ACTIONS = 20
"""From so many on, MIPS is computed, over a trait that groups the actions."""

ROUNDING = 1e-9
"""Probability below which an action counts as impossible: pmfs of other tools are rounded."""


@dataclass(frozen=True, slots=True)
class Grouping:
    """A trait of the actions for MIPS. group: (actions,) codes."""

    trait: str
    group: Longs

    @property
    def groups(self) -> Floats:
        """(actions, groups): 1 where the action is in the group."""
        return np.eye(int(self.group.max()) + 1)[self.group]


@dataclass(frozen=True, slots=True)
class GroupProbabilities:
    """Probabilities of the drawn action's group, (n,): the candidate's and the logged one. trait: what groups them."""

    trait: str
    pmf: Floats
    propensity: Floats


@dataclass(frozen=True, slots=True)
class Scores:
    """What one candidate would have done. All arrays (n,) unless said otherwise; nan where the log cannot say.

    weight: pmf / propensity. predicted, expected: the reward model at the drawn action, and its mean under the
    candidate. missing: probability of actions that the log could not draw; guess: the part of `expected` that stands
    for them. shares, logged_shares, missing_by_action: (actions,), means. example: (actions,), the first decision in
    which the action was missing, -1 for none. possible_weight: the largest weight that any action could have had.
    predictions: the least and the largest of the reward model, for any action in any decision. grouped: for MIPS; None
    where actions are few. possible_weights: the same as possible_weight for each decision; only of logs with pages.
    """

    columns: Columns
    pmf: Floats
    weight: Floats
    predicted: Floats
    expected: Floats
    missing: Floats
    guess: Floats
    shares: Floats
    logged_shares: Floats
    missing_by_action: Floats
    example: Longs
    possible_weight: float
    predictions: tuple[float, float]
    grouped: GroupProbabilities | None = None
    possible_weights: Floats | None = None

    def part(self, rows: Flags) -> Scores:
        """Some of the decisions; what is known of actions stays that of all."""
        return replace(
            self,
            columns=self.columns.take(rows),
            pmf=self.pmf[rows],
            weight=self.weight[rows],
            predicted=self.predicted[rows],
            expected=self.expected[rows],
            missing=self.missing[rows],
            guess=self.guess[rows],
            grouped=None,
            possible_weights=None if self.possible_weights is None else self.possible_weights[rows],
        )


def score(
    columns: Columns, candidates: Sequence[Candidate], *, on_rows: Callable[[int], None] = lambda _: None
) -> list[Scores]:
    """Every candidate's scores, in their order, from one pass; `on_rows` gets the number of decisions done."""
    scoring = Scoring(columns, candidates)
    for done in scoring.steps():
        on_rows(done)
    return scoring.finish()


class Scoring:
    """One pass over a log for all candidates, a block at a time: whoever runs it may stop early.

    done: the number of decisions that all candidates have.
    """

    def __init__(self, columns: Columns, candidates: Sequence[Candidate]) -> None:
        self.done = 0
        self._columns = columns
        self._model = RewardModel(columns)
        self._undrawn = undrawn_cells(columns)
        grouping = group_actions(columns)
        self._pairs = [(one, _Collector(columns, one.rows(columns), grouping)) for one in candidates]

    def steps(self, most: int | None = None) -> Iterator[int]:
        """Score block by block, of `most` decisions each; gives the number of decisions that all candidates have."""
        for rows, block in self._columns.blocks(most):
            predictions = self._model.predict(block)
            logged = None if block.pmf is None else _LoggedPmfs.of(block)
            impossible = self._undrawn.at(block) if logged is None else logged.impossible
            for candidate, collector in self._pairs:
                collector.add(rows, block, candidate.pmf(block), logged, impossible, predictions)
            self.done = rows.stop
            yield self.done

    def finish(self) -> list[Scores]:
        """What each candidate would have done, in their order, in the decisions that all of them have."""
        return [collector.finish(self.done) for _, collector in self._pairs]


def group_actions(columns: Columns) -> Grouping | None:
    """The finest trait that puts at least two actions into a group on average, where actions are many."""
    if len(columns.actions) < MANY_ACTIONS or columns.pmf is None:
        return None
    distinct = {trait: len(set(values)) for trait, values in columns.traits.items()}
    usable = {trait: count for trait, count in distinct.items() if 2 <= count <= len(columns.actions) / 2}
    if not usable:
        return None
    trait = max(usable, key=lambda name: usable[name])
    return Grouping(trait, np.unique(columns.traits[trait], return_inverse=True)[1].astype(np.int64))


@dataclass(frozen=True, slots=True)
class _LoggedPmfs:
    """The logged pmfs of a block, (n, actions) each. inverse: 1 / pmf, 0 where the action was not possible.

    impossible: where the action could not be drawn; None where every action could, in every decision.
    """

    pmf: Floats
    inverse: Floats
    impossible: Flags | None

    @classmethod
    def of(cls, block: Columns) -> _LoggedPmfs:
        """Computed once for all candidates."""
        pmf = block.dense_pmf()
        possible = pmf > ROUNDING
        inverse = np.divide(1.0, pmf, out=np.zeros_like(pmf), where=possible)
        return cls(pmf, inverse, None if possible.all() else ~possible)


class _Collector:
    """Fills one candidate's columns, block by block; decisions that it is not evaluated on stay empty."""

    def __init__(self, columns: Columns, rows: Flags | None, grouping: Grouping | None) -> None:
        count, actions = len(columns), len(columns.actions)
        self._columns = columns
        self._rows = np.ones(count, np.bool_) if rows is None else rows
        self._grouping = grouping
        self._groups = grouping.groups if grouping else np.zeros((actions, 0))
        self._pmf, self._predicted, self._expected = (np.zeros(count) for _ in range(3))
        self._missing, self._guess = np.zeros(count), np.zeros(count)
        self._mean = float(columns.reward.mean()) if count else 0.0
        self._group_pmf, self._group_propensity = (np.ones(count if grouping else 0) for _ in range(2))
        self._shares, self._logged_shares = np.zeros(actions), np.zeros(actions)
        self._missing_by_action, self._example = np.zeros(actions), np.full(actions, -1, np.int64)
        self._possible = 0.0
        self._possible_weights = np.zeros(count) if columns.pages and columns.pmf is not None else None
        self._least, self._most = columns.reward_range[::-1]
        self._smallest = float(np.nanmin(columns.propensity, initial=1.0))

    def add(
        self,
        rows: slice,
        block: Columns,
        pmf: Floats,
        logged: _LoggedPmfs | None,
        impossible: Flags | None,
        predictions: Floats,
    ) -> None:
        """One block: pmf, impossible and predictions are (n, actions)."""
        at = (np.arange(len(block)), block.action)
        self._pmf[rows] = pmf[at]
        self._predicted[rows] = predictions[at]
        self._expected[rows] = np.einsum("ij,ij->i", pmf, predictions)
        wanted = self._rows[rows]
        if not wanted.any():
            return
        self._least = min(self._least, float(predictions.min()))
        self._most = max(self._most, float(predictions.max()))
        self._shares += pmf[wanted].sum(axis=0)
        if logged is None:
            self._logged_shares += np.bincount(block.action[wanted], minlength=len(block.actions))
            self._possible = max(self._possible, self._largest(block, pmf[wanted], wanted))
        else:
            self._support(rows, block, pmf, logged, wanted)
            if self._possible_weights is not None:
                self._possible_weights[rows] = (pmf * logged.inverse).max(axis=1)
        self._unknown(rows, pmf)
        if impossible is not None:
            self._unsupported(rows, np.where(impossible, np.nan_to_num(pmf), 0.0), predictions, wanted)

    def _largest(self, block: Columns, pmf: Floats, wanted: Flags) -> float:
        """Without logged pmfs any action may have had the smallest logged propensity. The logged policy itself (its pmf
        is nan but at the drawn action) has the weights that it has.
        """
        if np.isnan(pmf).any():
            return float((pmf[np.arange(len(pmf)), block.action[wanted]] / block.propensity[wanted]).max())
        return float(pmf.max()) / self._smallest

    def _support(self, rows: slice, block: Columns, pmf: Floats, logged: _LoggedPmfs, wanted: Flags) -> None:
        """What the logged pmfs say about the candidate's: largest weight, shares of actions and of groups."""
        kept = slice(None) if wanted.all() else wanted
        self._logged_shares += logged.pmf[kept].sum(axis=0)
        self._possible = max(self._possible, float((pmf * logged.inverse)[kept].max()))
        if self._grouping is not None:
            group = (np.arange(len(block)), self._grouping.group[block.action])
            self._group_pmf[rows] = np.minimum((pmf @ self._groups)[group], 1.0)
            self._group_propensity[rows] = np.minimum((logged.pmf @ self._groups)[group], 1.0)

    def _unknown(self, rows: slice, pmf: Floats) -> None:
        """Actions that the log does not know: their guess is its mean reward."""
        unknown = _unknown_actions(pmf)
        self._missing[rows] = unknown
        self._guess[rows] = unknown * self._mean
        self._expected[rows] += self._guess[rows]

    def _unsupported(self, rows: slice, mass: Floats, predictions: Floats, wanted: Flags) -> None:
        """mass: (n, actions), the candidate's where the log could not draw. The first decision of each is kept."""
        self._missing[rows] += mass.sum(axis=1)
        self._guess[rows] += np.einsum("ij,ij->i", mass, predictions)
        self._missing_by_action += mass[wanted].sum(axis=0)
        missing = (mass > ROUNDING)[wanted]
        new = missing.any(axis=0) & (self._example < 0)
        self._example[new] = np.count_nonzero(self._rows[: rows.start]) + np.argmax(missing[:, new], axis=0)

    def finish(self, done: int) -> Scores:
        """The candidate's decisions only, of the first `done`."""
        rows = self._rows & (np.arange(len(self._rows)) < done)
        count = max(1, int(rows.sum()))
        grouped = None
        if self._grouping is not None:
            grouped = GroupProbabilities(self._grouping.trait, self._group_pmf, self._group_propensity)
        weight = self._pmf / self._columns.propensity
        scores = Scores(
            columns=self._columns,
            pmf=self._pmf,
            weight=weight,
            predicted=self._predicted,
            expected=self._expected,
            missing=self._missing,
            guess=self._guess,
            shares=self._shares / count,
            logged_shares=self._logged_shares / count,
            missing_by_action=self._missing_by_action / count,
            example=self._example,
            # the logged policy's own pmf / propensity is 1, but its rounded pmfs give other largest weights
            possible_weight=1.0 if (weight == 1).all() else self._possible,
            predictions=(self._least, self._most),
            grouped=grouped,
            possible_weights=self._possible_weights,
        )
        return scores if rows.all() else scores.part(rows)


def _unknown_actions(pmf: Floats) -> Floats:
    """(n,): probability of actions that the log does not know; 0 where the pmf is not known (nan)."""
    rest: Floats = 1.0 - pmf.sum(axis=1)
    return np.where(rest > 1e-6, rest, 0.0)  # nan > x is false
