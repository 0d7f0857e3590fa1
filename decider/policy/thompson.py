"""Thompson sampling with propensities: each action's probability is how probable it is, as believed, to be the best.

The beliefs are normal (`regression.py`), so this probability is an integral, not the outcome of a draw: the one sampler
draws, from exactly this pmf. Up to three regressions learn side by side: one that remembers everything, one that
forgets and, once there are numbers, one in which they count by ranges; the one that has foretold the recent rewards
best is asked. Called through `make.py`.

Agrawal and Goyal, ICML 2013; the choice: dynamic model selection with forgetting, Raftery, Karny and Ettler 2010.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np
from scipy.special import ndtr

from decider.policy.bins import Binned
from decider.policy.encode import context_line
from decider.policy.protocol import Choice
from decider.policy.regression import Beliefs, Features, Floats, Regression, is_number
from decider.types import Context

RECENT = 2_000
"""Decisions over which the regressions are compared, as the mean of an exponential decay."""

LINES = 10_000
"""Encoded lines whose features are kept."""

CANDIDATES = 32
"""Of more actions than this, only the most promising can be the best one; the others have the experiment's floor."""

_GRID = np.linspace(-3.5, 3.5, 16)
"""Where each belief is looked at, in its standard deviations."""

_TINY = 1e-300
"""So that nothing is divided by 0: 0 of the others' product is left there, too."""


class ThompsonPolicy:
    """width: how many standard deviations of belief count as one; smaller is greedier. memory: decisions that the
    second regression remembers; 0 is none. pairs: whether products of two features of the context count, too. `saved`
    continues from `save()`.

    Every action is learned for itself: what is known of the context counts, and features of the action that change from
    call to call; nothing passes from one action to another.
    """

    def __init__(
        self,
        *,
        width: float,
        memory: float,
        pairs: bool = False,
        reward_range: tuple[float, float] = (0.0, 1.0),
        saved: bytes | None = None,
    ) -> None:
        self._width = width
        self._features = _with_pairs if pairs else _alone
        self._minimum, self._maximum = reward_range
        self._regressions: list[Regression | Binned] = [Regression(), Regression(memory)] if memory else [Regression()]
        self._binned = False
        self._evidence = np.zeros(len(self._regressions))
        if saved is not None:
            self._restore(saved)

    def pmf(self, context: Context, actions: Sequence[Choice]) -> Sequence[float]:
        """How probable each is to be the best, within 0.005."""
        ids, own = _parsed(tuple(actions))
        return self._best(self._trusted().believe(ids, self._features(context_line(context)), own))

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
        action, own = _own(actions[drawn])
        features = self._features(context_line(context)) + own
        if not self._binned and any(is_number(name) for name, _ in features):
            self._add_binned()
        share = (reward - self._minimum) / (self._maximum - self._minimum)
        foretold = [regression.learn(action, features, share) for regression in self._regressions]
        self._evidence = self._evidence * (1 - 1 / RECENT) + np.array(foretold)
        self._evidence -= self._evidence.max()

    def save(self) -> bytes:
        """All arrays of all regressions, in NumPy's format."""
        arrays: dict[str, Any] = {"evidence": self._evidence}
        for number, regression in enumerate(self._regressions):
            arrays |= {f"{number}.{name}": array for name, array in regression.saved().items()}
        file = io.BytesIO()
        np.savez(file, **arrays)
        return file.getvalue()

    def _restore(self, saved: bytes) -> None:
        with np.load(io.BytesIO(saved), allow_pickle=False) as arrays:
            if len(arrays["evidence"]) > len(self._regressions):
                self._add_binned()
            self._evidence = arrays["evidence"]
            for number, regression in enumerate(self._regressions):
                prefix = f"{number}."
                regression.restore({name[2:]: arrays[name] for name in arrays.files if name.startswith(prefix)})

    def _add_binned(self) -> None:
        """As trusted as the first one, from which it differs in numbers only."""
        self._binned = True
        self._regressions.append(Binned())
        self._evidence = np.append(self._evidence, self._evidence[0])

    def _trusted(self) -> Regression | Binned:
        """The one that has foretold the recent rewards best."""
        return self._regressions[int(np.argmax(self._evidence))]

    def _best(self, beliefs: Beliefs) -> list[float]:
        """How probable each is to be the best; sums to 1."""
        deviation = self._width * np.sqrt(beliefs.variance) + 1e-9
        pmf = best_of(beliefs.mean, deviation) if len(deviation) <= CANDIDATES else _of_many(beliefs.mean, deviation)
        best: list[float] = (pmf / pmf.sum()).tolist()
        return best


def best_of(mean: Floats, deviation: Floats) -> Floats:
    """(n,): P(each of n independent normals is the largest): the integral of P(all others are smaller) over its own
    distribution, by trapezoids between the grids of all, so that a narrow one is met by as many points as a wide one.

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


@lru_cache(maxsize=LINES)
def _parsed(actions: tuple[Choice, ...]) -> tuple[tuple[str, ...], tuple[Features, ...]]:
    """Each action's id, and its features apart from id and kind."""
    ids, own = zip(*map(_own, actions), strict=True)
    return ids, own


@lru_cache(maxsize=LINES)
def _alone(line: str) -> Features:
    """The features of a context line; the first is the constant.

    >>> _alone("shared |C device=mobile age:31.0")
    (('constant', 1.0), ('device=mobile', 1.0), ('age:', 31.0))
    """
    return (("constant", 1.0), *map(_feature, line.split(" ")[2:]))


@lru_cache(maxsize=LINES)
def _with_pairs(line: str) -> Features:
    """And all products of two of them; one with a number in it is a number."""
    alone = _alone(line)
    return alone + tuple([_product(*both) for both in combinations(alone[1:], 2)])


def _product(one: tuple[str, float], other: tuple[str, float]) -> tuple[str, float]:
    """Categories first, so that a number's colon stays at the end."""
    first, second = (other, one) if is_number(one[0]) else (one, other)
    return f"{first[0].removesuffix(':')} {second[0]}", first[1] * second[1]


@lru_cache(maxsize=LINES)
def _own(line: Choice) -> tuple[str, Features]:
    """The id of an action line, and its features apart from id and kind."""
    id_, _kind, *features = line.removeprefix("|A ").split(" ")
    return id_, tuple([(f"A {name}", value) for name, value in map(_feature, features)])


def _feature(token: str) -> tuple[str, float]:
    """`age:31.0` is a number, anything else a category; the encoder escapes what could be mistaken."""
    name, colon, value = token.partition(":")
    return (name + colon, float(value)) if colon else (token, 1.0)
