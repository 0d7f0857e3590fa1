"""Empirical likelihood: the lowest and highest mean that the points do not exclude. Called by the default interval and
for the bets of the confidence sequence.

Consider all distributions over the points under which the mean weight is 1, and whose likelihood is at least exp(-drop)
times the largest one. One of them has the lowest mean term. Owen, Empirical Likelihood, 2001, chapters 2 and 3; points
that are possible but were not seen belong to it (with a tiny count), as in Karampatziakis, Langford & Mineiro,
"Empirical Likelihood for Contextual Bandits", NeurIPS 2020.

In the dual, the lowest mean is the largest value of a concave function of two numbers. With
x_i = term_i + b weight_i + d, n the sum of counts and a drop K from the largest likelihood of all:

    lowest mean = max over (b, d) of  exp((sum_i count_i log x_i - K) / n) - b - d

All problems of a batch are solved at once: they share points and differ in counts, direction and drop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from decider.estimate.sample import Floats

STEPS = 200
HALVINGS = 60
SHORT = 0.99
"""Largest part of the way to x = 0 of some point that one step may go."""

PRECISION = 1e-9
"""Precision of a limit, relative to its distance from the mean."""

LOG_PRECISION = 1e-12
"""Precision of the logarithm of a likelihood."""

EPSILON = float(np.finfo(np.float64).eps)
TINY = float(np.finfo(np.float64).tiny)

PointMap = Callable[[Floats], Floats]
"""(batch, d) numbers -> (batch, points) x, linear in them; all x must be positive."""

Derivatives = tuple[Floats, Floats, Floats]
"""A concave function's values (batch,), gradients (batch, d) and Hessians (batch, d, d)."""


@dataclass(frozen=True, slots=True)
class Extreme:
    """mean: (batch,). slope, tilt: (batch,), 1 + slope (term_i - mean) + tilt (weight_i - 1) is positive everywhere.

    It is the ratio of point i's probability under the points' own distribution to that under the extreme one, and so
    the optimal bet at odds given by the extreme distribution.
    """

    mean: Floats
    slope: Floats
    tilt: Floats


def balance(weight: Floats, count: Floats) -> tuple[Floats, Floats]:
    """The likelihood that a mean weight of 1 costs, as log (batch,); and the (batch, points) counts that make it 1.

    weight: (points,), on both sides of 1, or 1 everywhere. The counts are proportional to the most likely distribution
    whose mean weight is 1.

    >>> cost, count = balance(np.array([0.0, 2.0]), np.array([[3.0, 1.0]]))
    >>> np.round(cost, 3).tolist(), np.round(count, 3).tolist()
    ([0.523], [[2.0, 2.0]])
    """
    away = weight - 1
    if not away.any():
        return np.zeros(len(count)), count

    def derivatives(_: Floats, x: Floats) -> Derivatives:
        pull = away / x
        first = count * pull
        return (count * np.log(x)).sum(axis=1), first.sum(axis=1)[:, None], -(first * pull).sum(axis=1)[:, None, None]

    at, cost = _climb(lambda at: 1 + at * away, derivatives, np.zeros((len(count), 1)), precision=LOG_PRECISION)
    return cost, count / (1 + at * away)


def extremes(weight: Floats, term: Floats, count: Floats, *, upward: Floats, drop: Floats) -> Extreme:
    """The lowest mean terms, or the highest where `upward` is 1 and not -1.

    weight, term: (points,); count: (batch, points); upward, drop: (batch,), the drop in log likelihood from the
    largest there is, whatever its mean weight: add the cost that `balance` gives.

    >>> one = np.ones(1)
    >>> count = np.array([[30.0, 70.0]])  # of 100 decisions 30 were rewarded
    >>> term, drop = np.array([1.0, 0.0]), 1.92 * one
    >>> low = extremes(np.ones(2), term, count, upward=-one, drop=drop)
    >>> high = extremes(np.ones(2), term, count, upward=one, drop=drop)
    >>> round(float(low.mean[0]), 3), round(float(high.mean[0]), 3)
    (0.216, 0.394)
    """
    share = count / count.sum(axis=1, keepdims=True)
    depth = drop / count.sum(axis=1)
    down = -upward[:, None] * term

    def places(at: Floats) -> Floats:
        return down + at[:, :1] * weight + at[:, 1:]

    def derivatives(at: Floats, x: Floats) -> Derivatives:
        mean = np.exp((share * np.log(x)).sum(axis=1) - depth)
        first = share / x
        second = first / x
        weighed = second @ weight
        gradient = np.stack([first @ weight, first.sum(axis=1)], axis=1)
        hessian = gradient[:, :, None] * gradient[:, None, :]
        hessian[:, 0, 0] -= second @ (weight * weight)
        hessian[:, 0, 1] -= weighed
        hessian[:, 1, 0] -= weighed
        hessian[:, 1, 1] -= second.sum(axis=1)
        return mean - at.sum(axis=1), mean[:, None] * gradient - 1, mean[:, None, None] * hessian

    start, error = _start(weight, down, share, depth)
    at, mean = _climb(places, derivatives, start, precision=PRECISION * error + EPSILON * np.abs(term).max())
    slope = np.exp(depth - (share * np.log(places(at))).sum(axis=1))
    return Extreme(-upward * mean, -upward * slope, slope * at[:, 0])


def _start(weight: Floats, down: Floats, share: Floats, depth: Floats) -> tuple[Floats, Floats]:
    """(batch, 2): where the maximum would be if the logarithm were quadratic, moved to where all x are positive; and
    (batch,): how far the limit would then be from the mean."""
    mean_weight, mean = share @ weight, (share * down).sum(axis=1)
    spread = share @ (weight * weight) - mean_weight**2
    both = (share * down) @ weight - mean * mean_weight
    b = -np.divide(both, spread, out=np.zeros_like(both), where=spread > 0)
    error = np.sqrt(np.maximum((share * down**2).sum(axis=1) - mean**2 + b * both, 0))
    d = error / np.sqrt(2 * depth) - b - mean
    least = (down + b[:, None] * weight).min(axis=1)
    room = 0.1 * error + 1e-3 * (np.abs(least) + np.abs(d)) + TINY
    return np.stack([b, np.maximum(d, room - least)], axis=1), error * np.sqrt(2 * depth)


def _climb(
    places: PointMap, derivatives: Callable[[Floats, Floats], Derivatives], at: Floats, *, precision: float | Floats
) -> tuple[Floats, Floats]:
    """The maxima of concave functions and where they are, by damped Newton steps that keep all x positive."""
    x = places(at)
    value, gradient, hessian = derivatives(at, x)
    for _ in range(STEPS):
        step, gain = _newton(gradient, hessian)
        change = places(at + step) - x
        length = np.where(gain > precision, np.minimum(1, SHORT / np.maximum((-change / x).max(axis=1), SHORT)), 0.0)
        if not length.any():
            break
        rounding = 8 * EPSILON * (np.abs(value) + np.abs(at).sum(axis=1))
        for _ in range(HALVINGS):
            trial = at + length[:, None] * step
            x = places(trial)
            found = derivatives(trial, np.where(x > 0, x, 1.0))
            # Armijo's rule: halve the step until it gains a tenth of what the gradient promises, but for rounding.
            far = (x <= 0).any(axis=1) | (found[0] < value + 0.1 * length * gain - rounding)
            if not far.any():
                break
            length = np.where(far, length / 2, length)
        else:
            break
        at, (value, gradient, hessian) = trial, found
    return at, value


def _newton(gradient: Floats, hessian: Floats) -> tuple[Floats, Floats]:
    """The Newton step, and the gain that the gradient promises for it."""
    # The ridge keeps the matrix regular where a direction has no effect, as `b` where all weights are 1.
    size = gradient.shape[1]
    ridge = 1e-12 * np.abs(np.trace(hessian, axis1=1, axis2=2)) + TINY
    step = np.linalg.solve(ridge[:, None, None] * np.eye(size) - hessian, gradient[:, :, None])[:, :, 0]
    return step, (step * gradient).sum(axis=1)
