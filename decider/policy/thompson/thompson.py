"""Thompson sampling with propensities: each action's probability is how probable it is, as believed, to be the best.

The beliefs are normal (`regression.py`), so this probability is an integral, not the outcome of a draw: the one sampler
draws, from exactly this pmf. Two draws that have to agree waste fewer visits on what is improbable than one: the pmf is
then in proportion to the square.

Several regressions learn side by side: one that remembers everything, one that forgets, once there are numbers one in
which they count by ranges, and if wanted one in which pairs of features count; the one that has foretold the recent
rewards best is asked. Made by `algorithms.py`.

Agrawal and Goyal, ICML 2013; the choice: dynamic model selection with forgetting, Raftery, Karny and Ettler 2010.
"""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NoReturn

import numpy as np
from scipy.special import ndtr

from decider.policy.features import category, fields_vector, vector_of
from decider.policy.protocol import Choice, Policy, Vocabulary
from decider.policy.thompson.admission import LITTLE_WORK, WORK, Admission, Counted, FirstCome
from decider.policy.thompson.arrays import Floats, worded, words
from decider.policy.thompson.features import CONSTANT, OF_ACTION, Features
from decider.policy.thompson.posterior import Beliefs, Believer
from decider.policy.thompson.regression import Regression
from decider.policy.thompson.views import Pairs, Ranges, View, Viewed
from decider.types import Context

_LOG = logging.getLogger(__name__)

RECENT = 2_000
"""Decisions over which the regressions are compared, as the mean of an exponential decay."""

REMEMBERS = "remembers"
"""The name of the regression that knows all features as they come, and forgets nothing."""

RANGES = "ranges"
"""The name of the regression in which numbers count by ranges, too."""

KEPT = 10_000
"""Sets of actions, and of context fields, whose features are kept."""

NEVER = -math.inf
"""The evidence for a regression that was given up."""

CANDIDATES = 32
"""Of more actions than this, only the most promising can be the best one; the others have the experiment's floor."""

_Named = tuple[tuple[str, ...], tuple[Features, ...]]
"""What the regressions call each action, and its features apart from id and kind."""

_GRID = np.linspace(-3.5, 3.5, 16)
"""Where each belief is looked at, in its standard deviations."""

_TINY = 1e-300
"""So that nothing is divided by 0: 0 of the others' product is left there, too."""


class ThompsonPolicy:
    """width: how many standard deviations of belief count as one; smaller is greedier. memory: decisions that the
    regression that forgets remembers; 0 is none. draws: how many draws from the beliefs have to agree on an action; 1
    is plain Thompson sampling. pairs: whether products of two features of the context are looked at. admission: which
    features are known where there is no room for all; `FirstCome` makes it learning code 1. `saved` continues from
    `save()`.

    Every action is learned for itself: what is known of the context counts, and features of the action that change from
    call to call; nothing passes from one action to another.
    """

    def __init__(
        self,
        *,
        width: float,
        memory: float,
        draws: int,
        pairs: bool = False,
        reward_range: tuple[float, float] = (0.0, 1.0),
        admission: Callable[[int], Admission] = Counted,
        saved: bytes | None = None,
    ) -> None:
        self._agreement = _Agreement(width, draws)
        self._minimum, self._maximum = reward_range
        self._admission = admission
        self._warned = False
        self._regressions: dict[str, Regression | Viewed] = {REMEMBERS: Regression(admission(WORK))}
        if memory:
            self._regressions["forgets"] = Regression(admission(LITTLE_WORK), memory)
        self._evidence = dict.fromkeys(self._regressions, 0.0)
        self._waiting: dict[str, View] = {RANGES: Ranges()} | ({"pairs": Pairs()} if pairs else {})
        if saved is not None:
            self._restore(saved)

    def pmf(self, context: Context, actions: Sequence[Choice]) -> Sequence[float]:
        """How probable it is that all draws name this action as the best one, given that they name the same."""
        return self._agreement.pmf(self._trusted(), context, actions)

    def learn(
        self,
        context: Context,
        actions: Sequence[Choice],
        *,
        drawn: int,
        propensity: float,  # noqa: ARG002 - the protocol's
        reward: float,
    ) -> None:
        """Unweighted: the regression is of the reward given context and action, whoever chose the action."""
        (action,), (own,) = _named((actions[drawn],))
        features = _shared(context) + own
        for name in [name for name, view in self._waiting.items() if view.useful(features)]:
            self._begin(name)
        share = (reward - self._minimum) / (self._maximum - self._minimum)
        for name, regression in self._regressions.items():
            self._evidence[name] = self._evidence[name] * (1 - 1 / RECENT) + regression.learn(action, features, share)
        if RANGES in self._regressions and self._regressions[RANGES].full:
            self._give_up(RANGES)
        if not self._warned and self._regressions[REMEMBERS].crowded:
            self._warn()

    def vocabulary(self) -> Vocabulary:
        """Of the regression that is asked now: the features that it knows, and about how many others have come."""
        return self._trusted().vocabulary

    def snapshot(self) -> Policy:
        """What serves, as a copy that nobody teaches: the same pmfs as those of a policy that continues from `save()`,
        at a small part of the cost."""
        return ThompsonSnapshot(self._trusted().snapshot(), self._agreement, self.vocabulary())

    def _warn(self) -> None:
        """Once: later decisions would say the same."""
        self._warned = True
        _LOG.warning("a model has no room for all features of the contexts: those that it leaves out count for nothing")

    def save(self) -> bytes:
        """All arrays of all regressions, in NumPy's format."""
        arrays: dict[str, Any] = {"evidence": words(self._evidence)}
        for name, regression in self._regressions.items():
            arrays |= {f"{name}.{key}": array for key, array in regression.saved().items()}
        file = io.BytesIO()
        np.savez(file, **arrays)
        return file.getvalue()

    def _restore(self, saved: bytes) -> None:
        with np.load(io.BytesIO(saved), allow_pickle=False) as arrays:
            evidence = worded(arrays["evidence"])
            for name in [name for name in evidence if name not in self._regressions]:
                self._begin(name)
            for name in [name for name, value in evidence.items() if value == NEVER]:
                self._give_up(name)
            self._evidence = evidence
            for name, regression in self._regressions.items():
                keys = [key for key in arrays.files if key.startswith(f"{name}.")]
                regression.restore({key.removeprefix(f"{name}."): arrays[key] for key in keys})

    def _begin(self, name: str) -> None:
        """A further regression, as trusted as the one that it extends."""
        # Ranges are given up as soon as there is no room for all: nothing has to be counted.
        admission = FirstCome(WORK) if name == RANGES else self._admission(WORK)
        self._regressions[name] = Viewed(self._waiting.pop(name), admission)
        self._evidence[name] = self._evidence[REMEMBERS]

    def _give_up(self, name: str) -> None:
        """Of so many features it would know only those that came first."""
        del self._regressions[name]
        self._evidence[name] = NEVER

    def _trusted(self) -> Regression | Viewed:
        """The one that has foretold the recent rewards best; the first of equals."""
        return self._regressions[max(self._evidence, key=self._evidence.__getitem__)]


class ThompsonSnapshot:
    """What serves of a `ThompsonPolicy`: it answers with the same pmfs for ever."""

    def __init__(self, believer: Believer, agreement: _Agreement, vocabulary: Vocabulary) -> None:
        self._believer, self._agreement, self._vocabulary = believer, agreement, vocabulary

    def pmf(self, context: Context, actions: Sequence[Choice]) -> Sequence[float]:
        """As the policy's, when the snapshot was taken."""
        return self._agreement.pmf(self._believer, context, actions)

    def learn(self, *_: object, **__: object) -> NoReturn:
        """Raises TypeError: whoever calls this has the wrong policy in hand."""
        raise TypeError("a snapshot serves; teach the policy that it was taken of")

    def snapshot(self) -> Policy:
        """Itself: it never changes."""
        return self

    def vocabulary(self) -> Vocabulary:
        """As the policy's, when the snapshot was taken."""
        return self._vocabulary

    def save(self) -> NoReturn:
        """Raises TypeError: the sums that learning goes on from are not here."""
        raise TypeError("a snapshot cannot be gone on from; save the policy that it was taken of")


class _Agreement:
    """How beliefs become a pmf; see `ThompsonPolicy`."""

    def __init__(self, width: float, draws: int) -> None:
        self._width, self._draws = width, draws
        self._last: tuple[tuple[Choice, ...] | None, _Named] = (None, ((), ()))

    def pmf(self, believer: Believer, context: Context, actions: Sequence[Choice]) -> list[float]:
        """How probable it is that all draws name this action as the best one, given that they name the same."""
        ids, own = self._names_of(tuple(actions))
        return self.agreed(believer.believe(ids, _shared(context), own))

    def _names_of(self, actions: tuple[Choice, ...]) -> _Named:
        """Mostly they are the same object as before: then nothing has to be hashed."""
        last, named = self._last
        if last is not actions:
            named = _named(actions)
            self._last = (actions, named)
        return named

    def agreed(self, beliefs: Beliefs) -> list[float]:
        """Sums to 1."""
        deviation = self._width * np.sqrt(beliefs.variance) + 1e-9
        best = best_of(beliefs.mean, deviation) if len(deviation) <= CANDIDATES else _of_many(beliefs.mean, deviation)
        agreed = best
        for _ in range(self._draws - 1):
            agreed = agreed * best
        pmf: list[float] = (agreed / agreed.sum()).tolist()
        return pmf


def best_of(mean: Floats, deviation: Floats) -> Floats:
    """(n,): P(each of n independent normals is the largest), within 0.005: the integral of P(all others are smaller)
    over its own distribution, by trapezoids between the grids of all, so that a narrow one is met by as many points as
    a wide one.

    >>> best_of(np.array([0.0, 0.0]), np.array([1.0, 2.0])).round(3).tolist()
    [0.5, 0.5]
    """
    grid = (mean[:, None] + deviation[:, None] * _GRID).ravel()
    grid.sort()
    below = ndtr((grid - mean[:, None]) / deviation[:, None])
    others = below.prod(axis=0) / (below + _TINY)
    return np.asarray(((below[:, 1:] - below[:, :-1]) * (others[:, 1:] + others[:, :-1])).sum(axis=1) / 2)


def _of_many(mean: Floats, deviation: Floats) -> Floats:
    """The same, where only the most promising can be the largest."""
    promising = np.argsort(-(mean + 2 * deviation), kind="stable")[:CANDIDATES]
    pmf = np.zeros(len(mean))
    pmf[promising] = best_of(mean[promising], deviation[promising])
    return pmf


@lru_cache(maxsize=KEPT)
def _named(actions: tuple[Choice, ...]) -> _Named:
    ids = tuple([category("id", one.id)[0] for one in actions])
    return ids, tuple([tuple([(f"{OF_ACTION}{name}", value) for name, value in one.vector]) for one in actions])


def _shared(context: Context) -> Features:
    """The features of a context; the first is the constant.

    >>> _shared(Context(device="mobile", features={"age": 31}))
    (('constant', 1.0), ('device=mobile', 1.0), ('age:', 31.0))
    """
    fields = _with_constant(context[:5])
    return fields + vector_of(context.features) if context.features else fields


@lru_cache(maxsize=KEPT)
def _with_constant(fields: tuple[str, ...]) -> Features:
    return ((CONSTANT, 1.0), *fields_vector(fields))
