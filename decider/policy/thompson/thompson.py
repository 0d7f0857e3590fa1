"""Thompson sampling with propensities: the pmf is each action's posterior probability of being the best one.

The posterior is normal (`regression.py`), so this probability is an integral, not the outcome of a draw: `decide/`
draws from exactly this pmf. The pmf is proportional to P(best)^draws; 1 is plain Thompson sampling, 2 explores less
where an action is hardly ever the best.

Several regressions learn side by side: a stationary one, a discounted one, one with bins once there are numbers, and if
asked for one with products of features. The regression with the best recent predictive likelihood serves. Made by
`algorithms.py`.

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

from decider.policy.features import CACHED_CHARACTERS, Vector, category, fields_vector, vector_of
from decider.policy.protocol import Choice, Policy, Scores, Vocabulary
from decider.policy.thompson.admission import LITTLE_WORK, WORK, Admission, FirstCome, MostFrequent
from decider.policy.thompson.arrays import FEATURE, Cache, Floats, floats_of, json_from_array, json_to_array
from decider.policy.thompson.features import CONSTANT, OF_ACTION
from decider.policy.thompson.posterior import Predictor
from decider.policy.thompson.recurring import Recurring
from decider.policy.thompson.regression import Regression
from decider.policy.thompson.views import FeaturePairs, NumberBins, View, ViewRegression
from decider.types import ActionId, Context

_LOG = logging.getLogger(__name__)

EVIDENCE_MEMORY = 2_000
"""Mean age, in decisions, of the predictive likelihoods by which the regressions are compared."""

# The regressions by the names that they have in stored models.
STATIONARY, DISCOUNTED, BINNED, PAIRS = "remembers", "forgets", "ranges", "pairs"

NAME_CACHE = 10_000
"""Most sets of context fields whose features are cached."""

NO_EVIDENCE = -math.inf
"""The evidence for a regression that was dropped."""

CANDIDATES = 32
"""Where there are more actions, only this many of the most promising ones get probability; the others get the floor."""

_ActionNames = tuple[tuple[str, ...], tuple[Vector, ...]]
"""The ids of actions as the regressions name them, and each action's features."""

_GRID = np.linspace(-3.5, 3.5, 16)
"""Points of the integral for each action, in standard deviations from its mean."""

_TINY = 1e-300
"""Added to a divisor that may be 0; the numerator is 0 there, too."""


class ThompsonPolicy:
    """width: factor on the posterior's standard deviations; smaller is greedier. memory: of the discounted regression,
    in decisions; 0: there is none. draws: pmf is proportional to P(best)^draws; 1 is plain Thompson sampling. pairs:
    whether one regression has products of two features of the context. admission: which features are used where there
    is no room for all; `FirstCome` makes it learning code 1. `saved` continues from `save()`.

    Every action has regressions of its own, on features of the context and features of the action that come with the
    call; nothing is shared between actions.
    """

    def __init__(
        self,
        *,
        width: float,
        memory: float,
        draws: int,
        pairs: bool = False,
        reward_range: tuple[float, float] = (0.0, 1.0),
        admission: Callable[[int], Admission] = MostFrequent,
        saved: bytes | None = None,
    ) -> None:
        self._to_pmf = _PmfFromPosterior(width, draws, reward_range)
        self._minimum, self._maximum = reward_range
        self._admission = admission
        self._warned = False
        self._regressions: dict[str, Regression] = {STATIONARY: Regression(admission(WORK))}
        if memory:
            self._regressions[DISCOUNTED] = Regression(admission(LITTLE_WORK), memory)
        self._evidence = dict.fromkeys(self._regressions, 0.0)
        self._waiting: dict[str, View] = {BINNED: NumberBins()} | ({PAIRS: FeaturePairs()} if pairs else {})
        if saved is not None:
            self._restore(saved)

    @property
    def size(self) -> int:
        """See `Policy`."""
        return sum([regression.size for regression in self._regressions.values()])

    def pmf(self, context: Context, actions: Sequence[Choice]) -> Sequence[float]:
        """P(best)^draws of each action, normalised."""
        return self._to_pmf(self._best_predictor(), context, actions)

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
        (action,), (own,) = _action_names((actions[drawn],))
        features = _context_features(context) + own
        for name in [name for name, view in self._waiting.items() if view.useful(features)]:
            self._begin(name)
        share = (reward - self._minimum) / (self._maximum - self._minimum)
        # The evidence is a discounted sum of log predictive likelihoods (Raftery et al. 2010). The best regression is
        # chosen, not an average over all: then a snapshot holds one regression and a decision asks one.
        for name, regression in self._regressions.items():
            likelihood = regression.learn(action, features, share)
            self._evidence[name] = self._evidence[name] * (1 - 1 / EVIDENCE_MEMORY) + likelihood
        if BINNED in self._regressions and self._regressions[BINNED].full:
            self._drop(BINNED)
        if not self._warned and self._regressions[STATIONARY].crowded:
            self._warn()

    def shrink(self) -> None:
        """Empty the caches."""
        for regression in self._regressions.values():
            regression.shrink()

    def vocabulary(self) -> Vocabulary:
        """Numbers of features that the serving regression knows and has left out."""
        return self._best_predictor().vocabulary

    def scores(self, contexts: Sequence[Context], actions: Sequence[Choice]) -> Sequence[Scores]:
        """See `Policy`."""
        return [self._to_pmf.scores(self._best_predictor(), context, actions) for context in contexts]

    def snapshot(self) -> Policy:
        """A copy that serves: the same pmfs as a policy that continues from `save()`, at a small part of the cost."""
        return ThompsonSnapshot(self._best_predictor().snapshot(), self._to_pmf, self.vocabulary())

    def _warn(self) -> None:
        """Once for each policy, not for each decision."""
        self._warned = True
        _LOG.warning("a model has no room for all features of the contexts: those that it leaves out count for nothing")

    def save(self) -> bytes:
        """All arrays of all regressions, in NumPy's format."""
        arrays: dict[str, Any] = {"evidence": json_to_array(self._evidence)}
        for name, regression in self._regressions.items():
            arrays |= {f"{name}.{key}": array for key, array in regression.to_arrays().items()}
        file = io.BytesIO()
        np.savez(file, **arrays)
        return file.getvalue()

    def _restore(self, saved: bytes) -> None:
        with np.load(io.BytesIO(saved), allow_pickle=False) as arrays:
            evidence = json_from_array(arrays["evidence"])
            for name in [name for name in evidence if name not in self._regressions]:
                self._begin(name)
            for name in [name for name, value in evidence.items() if value == NO_EVIDENCE]:
                self._drop(name)
            self._evidence = evidence
            for name, regression in self._regressions.items():
                keys = [key for key in arrays.files if key.startswith(f"{name}.")]
                regression.restore({key.removeprefix(f"{name}."): arrays[key] for key in keys})

    def _begin(self, name: str) -> None:
        """Add a regression. It begins with the evidence of the stationary one, which it extends."""
        # The binned regression is dropped as soon as there is no room for all features: it need not count them.
        admission = FirstCome(WORK) if name == BINNED else self._admission(WORK)
        self._regressions[name] = ViewRegression(self._waiting.pop(name), admission)
        self._evidence[name] = self._evidence[STATIONARY]

    def _drop(self, name: str) -> None:
        """Remove a regression that would use only the features that came first."""
        del self._regressions[name]
        self._evidence[name] = NO_EVIDENCE

    def _best_predictor(self) -> Regression:
        """The regression with the best recent predictive likelihood; the first of equals."""
        return self._regressions[max(self._evidence, key=self._evidence.__getitem__)]


class ThompsonSnapshot:
    """A copy of a `ThompsonPolicy` that serves and never changes."""

    def __init__(self, predictor: Predictor, to_pmf: _PmfFromPosterior, vocabulary: Vocabulary) -> None:
        self._predictor, self._to_pmf, self._vocabulary = predictor, to_pmf, vocabulary

    @property
    def size(self) -> int:
        """See `Policy`."""
        return self._predictor.size

    def pmf(self, context: Context, actions: Sequence[Choice]) -> Sequence[float]:
        """The policy's pmf when the snapshot was taken."""
        return self._to_pmf(self._predictor, context, actions)

    def learn(self, *_: object, **__: object) -> NoReturn:
        """Raises TypeError."""
        raise TypeError("a snapshot does not learn; the policy that it was taken from does")

    def snapshot(self) -> Policy:
        """Itself: it never changes."""
        return self

    def shrink(self) -> None:
        """Empty the caches."""
        self._predictor.shrink()

    def vocabulary(self) -> Vocabulary:
        """The policy's vocabulary when the snapshot was taken."""
        return self._vocabulary

    def scores(self, contexts: Sequence[Context], actions: Sequence[Choice]) -> Sequence[Scores]:
        """See `Policy`."""
        return [self._to_pmf.scores(self._predictor, context, actions) for context in contexts]

    def save(self) -> NoReturn:
        """Raises TypeError: it does not have the sums that learning needs."""
        raise TypeError("a snapshot cannot be saved; save the policy that it was taken from")


class _PmfFromPosterior:
    """Turns posteriors into pmfs; see `ThompsonPolicy`."""

    def __init__(self, width: float, draws: int, reward_range: tuple[float, float]) -> None:
        self._width, self._draws = width, draws
        self._minimum, self._maximum = reward_range
        self._last: tuple[tuple[Choice, ...] | None, _ActionNames] = (None, ((), ()))

    def __call__(self, predictor: Predictor, context: Context, actions: Sequence[Choice]) -> list[float]:
        mean, deviation = self._believed(predictor, context, actions)
        best = best_of(mean, deviation) if len(deviation) <= CANDIDATES else _best_of_many(mean, deviation)
        power = best
        for _ in range(self._draws - 1):  # multiplied, not `**`: its last bits depend on the C library
            power = power * best
        pmf: list[float] = (power / power.sum()).tolist()
        return pmf

    def scores(self, predictor: Predictor, context: Context, actions: Sequence[Choice]) -> Scores:
        """In the reward's unit, what the pmf is made from."""
        mean, deviation = self._believed(predictor, context, actions)
        size = self._maximum - self._minimum
        return Scores(tuple((self._minimum + size * mean).tolist()), tuple((size * deviation).tolist()))

    def _believed(self, predictor: Predictor, context: Context, actions: Sequence[Choice]) -> tuple[Floats, Floats]:
        """(actions,) each: mean and standard deviation of the normal distributions of which one is the largest."""
        ids, own = self._names_of(tuple(actions))
        mean, variance = predictor.posterior(ids, _context_features(context), own)
        return mean, self._width * np.sqrt(variance) + 1e-9

    def _names_of(self, actions: tuple[Choice, ...]) -> _ActionNames:
        # The same object as before in most calls: an `is` is cheaper than hashing all choices for the cache.
        last, names = self._last
        if last is not actions:
            names = _action_names(actions)
            self._last = (actions, names)
        return names


def best_of(mean: Floats, deviation: Floats) -> Floats:
    """(n,): P(each of n independent normals is the largest), within 0.005.

    The integral of P(all others are smaller) over each one's own distribution, by the trapezoidal rule.

    >>> best_of(np.array([0.0, 0.0]), np.array([1.0, 2.0])).round(3).tolist()
    [0.5, 0.5]
    """
    # One grid of all actions' points, so that a narrow normal has as many points as a wide one.
    grid = (mean[:, None] + deviation[:, None] * _GRID).ravel()
    grid.sort()
    below = ndtr((grid - mean[:, None]) / deviation[:, None])
    # The product over all others, as that over all divided by its own: n products instead of n^2.
    others = below.prod(axis=0) / (below + _TINY)
    return np.asarray(((below[:, 1:] - below[:, :-1]) * (others[:, 1:] + others[:, :-1])).sum(axis=1) / 2)


def _best_of_many(mean: Floats, deviation: Floats) -> Floats:
    """The same for many actions: all but the most promising ones get 0."""
    promising = np.argsort(-(mean + 2 * deviation), kind="stable")[:CANDIDATES]
    pmf = np.zeros(len(mean))
    pmf[promising] = best_of(mean[promising], deviation[promising])
    return pmf


_known_ids: Cache[tuple[ActionId, ...], tuple[str, ...]] = Cache()

_names_of_actions: Cache[tuple[Choice, ...], _ActionNames] = Cache()


def _action_names(actions: tuple[Choice, ...]) -> _ActionNames:
    if not _recurring(actions):
        return _make_action_names(actions)
    known = _names_of_actions.get(actions)
    if known is None:
        known = _make_action_names(actions)
        # Twice: the choices are kept as well, with the features that they were made from.
        size = 4 * FEATURE * len(known[1]) + 2 * sum(map(floats_of, known[1]))
        _names_of_actions.put(actions, known, floats=size)
    return known


def _make_action_names(actions: tuple[Choice, ...]) -> _ActionNames:
    own = [
        tuple([(f"{OF_ACTION}{name}", value) for name, value in one.vector]) if one.vector else () for one in actions
    ]
    return _ids_of(tuple([one.id for one in actions])), tuple(own)


def _ids_of(actions: tuple[ActionId, ...]) -> tuple[str, ...]:
    ids = _known_ids.get(actions)
    if ids is None:
        ids = tuple([category("id", id_)[0] for id_ in actions])
        _known_ids.put(actions, ids, floats=FEATURE * len(actions) + sum(map(len, actions)))
    return ids


def _context_features(context: Context) -> Vector:
    """The features of a context; the first is the constant.

    >>> _context_features(Context(device="mobile", features={"age": 31}))
    (('constant', 1.0), ('device=mobile', 1.0), ('age:', 31.0))
    """
    own = context[:5]
    # Long texts are not kept, so that a number of entries is a number of bytes.
    fields = _with_constant(own) if sum(map(len, own)) <= CACHED_CHARACTERS else _with_constant.__wrapped__(own)
    return fields + vector_of(context.features) if context.features else fields


_recurring = Recurring()


@lru_cache(maxsize=NAME_CACHE)
def _with_constant(fields: tuple[str, ...]) -> Vector:
    return ((CONSTANT, 1.0), *fields_vector(fields))
