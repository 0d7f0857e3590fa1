"""Thompson sampling with propensities: the pmf is each action's posterior probability of being the best one.

The posterior is normal (`regression.py`), so this probability is an integral, not the outcome of a draw: `decide/`
draws from exactly this pmf. The pmf is proportional to P(best)^draws; 1 is plain Thompson sampling, 2 explores less
where an action is hardly ever the best.

Several regressions learn side by side: a stationary one, a discounted one, one with bins once there are numbers, one of
all actions where many have features, and if asked for one with products of features. The regression with the best
recent predictive likelihood serves; of the stationary one two pmfs are averaged, with the lately moved levels of its
actions and without. Made by `algorithms.py`.

Agrawal and Goyal, ICML 2013; the choice: dynamic model selection with forgetting, Raftery, Karny and Ettler 2010.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decider.policy.protocol import Choice, Policy, Scores, Vocabulary
from decider.policy.thompson.admission import LITTLE_WORK, WORK, FirstCome
from decider.policy.thompson.arrays import json_from_array, json_to_array
from decider.policy.thompson.evidence import NO_EVIDENCE, Evidence
from decider.policy.thompson.levels import Levels, weight_of
from decider.policy.thompson.pmf import Served, ServedWithLevels, ThompsonSnapshot
from decider.policy.thompson.posterior import action_names, context_features
from decider.policy.thompson.regression import Regression
from decider.policy.thompson.rules import CODES, LEVELS_MARGIN, NEWEST, Rules
from decider.policy.thompson.shared import LEAST_ACTIONS, SHARED_WORK, SharedRegression
from decider.policy.thompson.views import FeaturePairs, NumberBins, View, ViewRegression
from decider.types import Context

_LOG = logging.getLogger(__name__)

# The regressions by the names that they have in stored models.
STATIONARY, DISCOUNTED, BINNED, PAIRS, SHARED = "remembers", "forgets", "ranges", "pairs", "shares"

LEVELS = "levels"
"""The levels of the stationary regression's actions, among the evidence and in stored models."""

LEVELS_MEMORY = 0.5
"""Of levels, in memories of the discounted regression."""


class ThompsonPolicy:
    """width: factor on the posterior's standard deviations; smaller is greedier. memory: of the discounted regression,
    in decisions, and half of it of the levels; 0: there are neither. draws: pmf is proportional to P(best)^draws; 1 is
    P(best) itself. pairs: whether one regression has products of two features of the context. rules: of a version of
    the learning code. `saved` continues from `save()`.

    Every action has regressions of its own, on features of the context and of the action. Nothing is shared between
    actions but where many have features: then one regression of them all learns beside these (`shared.py`).
    """

    def __init__(
        self,
        *,
        width: float,
        memory: float,
        draws: int,
        pairs: bool = False,
        reward_range: tuple[float, float] = (0.0, 1.0),
        rules: Rules = CODES[NEWEST],
        saved: bytes | None = None,
    ) -> None:
        self._rules = rules
        self._to_pmf = rules.to_pmf(width, draws, reward_range)
        self._minimum, self._maximum = reward_range
        self._warned = False
        self._regressions: dict[str, Regression] = {STATIONARY: Regression(rules.admission(WORK), rules)}
        if memory:
            self._regressions[DISCOUNTED] = Regression(rules.admission(LITTLE_WORK), rules, memory)
        self._levels = Levels(LEVELS_MEMORY * memory) if memory and rules.levels else None
        self._evidence = Evidence([*self._regressions, *([LEVELS] if self._levels else [])])
        self._waiting: dict[str, View] = {BINNED: NumberBins()} | ({PAIRS: FeaturePairs()} if pairs else {})
        if saved is not None:
            self._restore(saved)

    @property
    def size(self) -> int:
        """See `Policy`."""
        return sum([regression.size for regression in self._regressions.values()])

    def pmf(self, context: Context, actions: Sequence[Choice]) -> Sequence[float]:
        """P(best)^draws of each action, normalised."""
        return self._to_pmf(self._served(), context, actions)

    def pmfs(self, contexts: Sequence[Context], actions: Sequence[Choice]) -> Sequence[Sequence[float]]:
        """See `Policy`."""
        return self._to_pmf.several(self._served(), contexts, actions)

    def learn(
        self,
        context: Context,
        actions: Sequence[Choice],
        *,
        drawn: int,
        propensity: float,  # noqa: ARG002 - the protocol's
        reward: float,
    ) -> None:
        """Without importance weights: a reward given context and action does not depend on the propensity."""
        (action,), (own,) = action_names((actions[drawn],))
        features = context_features(context) + own
        for name in [name for name, view in self._waiting.items() if view.useful(features)]:
            self._begin(name)
        if own and self._has_to_share(len(actions)):
            self._begin(SHARED)
        share = self._share(reward)
        foretold = {name: one.learn(action, features, share) for name, one in self._regressions.items()}
        if self._levels is not None:
            penalty = self._regressions[STATIONARY].prior_penalty
            foretold[LEVELS] = self._levels.learn(foretold[STATIONARY], penalty)
        self._evidence.add(foretold)
        if BINNED in self._regressions and self._regressions[BINNED].full:
            self._drop(BINNED)
        if not self._warned and self._regressions[STATIONARY].crowded:
            self._warn()

    def _has_to_share(self, actions: int) -> bool:
        """Whether the regression of all actions is to begin. actions: of one decision, which may be some of many."""
        many = max(actions, self._regressions[STATIONARY].actions) >= LEAST_ACTIONS
        return many and self._rules.shares and SHARED not in self._evidence.of

    def _share(self, reward: float) -> float:
        """A reward as the regressions see it: where it lies in the range."""
        return (reward - self._minimum) / (self._maximum - self._minimum)

    def count_under_way(self, *, decided: int, sealed: int) -> None:
        """See `Policy`."""
        self._to_pmf.count_under_way(decided=decided, sealed=sealed)

    def shrink(self) -> None:
        """Empty the caches."""
        for regression in self._regressions.values():
            regression.shrink()

    def vocabulary(self) -> Vocabulary:
        """Numbers of features that the serving regression knows and has left out."""
        return self._best_predictor().vocabulary

    def scores(self, contexts: Sequence[Context], actions: Sequence[Choice]) -> Sequence[Scores]:
        """See `Policy`."""
        return [self._to_pmf.scores(self._served(), context, actions) for context in contexts]

    def snapshot(self) -> Policy:
        """A copy that serves: the same pmfs as a policy that continues from `save()`, at a small part of the cost."""
        return ThompsonSnapshot(self._served().snapshot(), copy(self._to_pmf), self.vocabulary())

    def _warn(self) -> None:
        """Once for each policy, not for each decision."""
        self._warned = True
        _LOG.warning("a model has no room for all features of the contexts: those that it leaves out count for nothing")

    def save(self) -> bytes:
        """All arrays of all regressions, in NumPy's format."""
        arrays: dict[str, Any] = {"evidence": json_to_array(self._evidence.of), **self._to_pmf.to_arrays()}
        for name, regression in self._regressions.items():
            arrays |= {f"{name}.{key}": array for key, array in regression.to_arrays().items()}
        if self._levels is not None:
            arrays |= {f"{LEVELS}.{key}": array for key, array in self._levels.to_arrays().items()}
        file = io.BytesIO()
        np.savez(file, **arrays)
        return file.getvalue()

    def _restore(self, saved: bytes) -> None:
        with np.load(io.BytesIO(saved), allow_pickle=False) as arrays:
            self._to_pmf.restore(arrays)
            evidence = json_from_array(arrays["evidence"])
            for name in [name for name in evidence if name not in (*self._regressions, LEVELS)]:
                self._begin(name)
            for name in [name for name, value in evidence.items() if value == NO_EVIDENCE]:
                self._drop(name)
            self._evidence.of = evidence
            for name, regression in self._regressions.items():
                regression.restore(_of(name, arrays))
            if self._levels is not None:
                self._levels.restore(_of(LEVELS, arrays))

    def _begin(self, name: str) -> None:
        """Add a regression. It begins with the evidence of the stationary one, which it extends."""
        if name == SHARED:
            self._regressions[name] = SharedRegression(self._rules.admission(SHARED_WORK), self._rules)
        else:
            self._regressions[name] = self._view_regression(name)
        self._evidence.of[name] = self._evidence.of[STATIONARY]

    def _view_regression(self, name: str) -> Regression:
        # The binned regression is dropped as soon as there is no room for all features: it need not count them.
        admission = FirstCome(WORK) if name == BINNED else self._rules.admission(WORK)
        return ViewRegression(self._waiting.pop(name), admission, self._rules)

    def _drop(self, name: str) -> None:
        """Remove a regression that would use only the features that came first."""
        del self._regressions[name]
        self._evidence.of[name] = NO_EVIDENCE

    def _best(self) -> str:
        """The name of what has the best recent predictive likelihood, less its margin; the first of equals."""
        margins = {DISCOUNTED: self._rules.margin, LEVELS: LEVELS_MARGIN}
        return max(self._evidence.of, key=lambda name: self._evidence.of[name] - margins.get(name, 0.0))

    def _best_predictor(self) -> Regression:
        """The regression that serves."""
        best = self._best()
        return self._regressions[STATIONARY if best == LEVELS else best]

    def _served(self) -> Served:
        """What a decision asks: the best regression; with levels, too, where they have weight."""
        predictor = self._best_predictor()
        if self._levels is None or predictor is not self._regressions[STATIONARY]:
            return Served(predictor)
        weight = weight_of(self._evidence.of[LEVELS] - LEVELS_MARGIN - self._evidence.of[STATIONARY])
        return ServedWithLevels(predictor, self._levels.known(), weight) if weight > 0 else Served(predictor)


def _of(name: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Those of one part, as it named them."""
    start = f"{name}."
    return {key.removeprefix(start): arrays[key] for key in arrays if key.startswith(start)}
