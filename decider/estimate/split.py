"""Tests whether each unit is in the holdout with the declared share: evidence that holds at every look.

Called by the metrics with the log's totals. What is added up is that of the lift (`lift.py`): decisions by group and
bucket of units in each stratum, so that no unit has to be kept. By unit all the same: a unit that comes a hundred times
was drawn once, and moves a bucket by a hundred.

Where the split is right, a bucket's decisions in the holdout less the declared share of its decisions has mean 0, and
the sum over buckets has variance sum over units of visits^2 x share x (1 - share). The sum of squared visits is told
from how unevenly all decisions lie in the buckets, which does not depend on the groups: it is there also where the
whole holdout is lost. Strata of one salt draw the same units: who is in the smaller holdout is in the larger one too,
so their sums are correlated, and a ramp is no alarm. The evidence is the normal mixture of the lift's interval
(Robbins 1970; Waudby-Smith and others 2021): above x with probability about 1 / x at most, however often one looks.

It counts decisions. So it also rises where the units of one group come back more often than those of the other: then no
decision was lost, but a lift per decision compares other units than the draw made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from decider.estimate.lift import HOLDOUT, POLICY
from decider.estimate.sample import Floats

START = 15.0
"""Effective units that each group has to have where the split is right: with fewer, the sum is not normal."""

SCALE = 25.0
"""Variance of the sum at which the evidence grows fastest, compared with that of one look; it matters little."""


class StratumSplit(NamedTuple):
    """share: of the holdout, as declared; salt: of its draw. decisions: (2, buckets), by POLICY and HOLDOUT, those
    included that a lift leaves out because nothing was shown: whether it is shown may depend on the action."""

    share: float
    salt: str
    decisions: Floats


def split_log_evalue(strata: Sequence[StratumSplit]) -> float:
    """Natural logarithm of the evidence against the declared shares; nan with too few units.

    >>> rng = np.random.default_rng(1)
    >>> def visits(units): return np.bincount(rng.integers(0, 512, units), minlength=512)
    >>> fine = StratumSplit(0.1, "", np.array([visits(9_000), visits(1_000)]))
    >>> half_lost = StratumSplit(0.1, "", np.array([visits(9_000), visits(500)]))
    >>> split_log_evalue([fine]) < 0 < math.log(1_000) < split_log_evalue([half_lost])
    True
    """
    if not strata:
        return math.nan
    shares = np.array([one.share for one in strata])
    everything = np.array([one.decisions.sum(axis=0) for one in strata])
    held_out = np.array([one.decisions[HOLDOUT].sum() for one in strata])
    squares = _squared_visits(everything)
    if not _are_enough(shares, everything.sum(axis=1), np.diag(squares)):
        return math.nan
    excess = float((held_out - shares * everything.sum(axis=1)).sum())
    variance = float((_covariance(shares, [one.salt for one in strata]) * squares).sum())
    return normal_mixture(excess, variance, scale=SCALE)


def normal_mixture(excess: float, variance: float, *, scale: float) -> float:
    """Logarithm of the mixture of exp(t x excess - t^2 x variance / 2) over normal t with variance 1 / scale.

    >>> round(normal_mixture(30.0, 75.0, scale=25.0), 3)
    3.807
    """
    return (excess**2 / (variance + scale) - math.log1p(variance / scale)) / 2.0


def _squared_visits(everything: Floats) -> Floats:
    """(strata, strata): sums over units of the product of their visits, from (strata, buckets) decisions.

    Units fall into buckets by chance, so a bucket's decisions vary as much as the squared visits say.
    """
    apart = everything - everything.mean(axis=1, keepdims=True)
    found: Floats = np.maximum(apart @ apart.T, 0.0)
    np.fill_diagonal(found, np.maximum(np.diag(found), everything.sum(axis=1)))  # nobody comes less than once
    return found


def _covariance(shares: Floats, salts: Sequence[str]) -> Floats:
    """(strata, strata): of a unit's being in the holdout. With another salt it is drawn anew."""
    alike = np.array([[one == other for other in salts] for one in salts])
    return np.asarray(np.where(alike, np.minimum.outer(shares, shares) - np.multiply.outer(shares, shares), 0.0))


def _are_enough(shares: Floats, sizes: Floats, squares: Floats) -> bool:
    """Whether both groups should have START effective units: the sum of all visits squared, by that of the squares."""
    units = float((sizes**2 / np.maximum(squares, 1.0)).sum())
    share = float((shares * sizes).sum() / max(1.0, float(sizes.sum())))
    return units * min(share, 1.0 - share) >= START


def with_left_out(decisions: Sequence[int], left_out: Sequence[int]) -> Floats:
    """(2, buckets) of both, from those of the policy's buckets, then of the holdout's.

    >>> with_left_out([1, 2, 3, 4], [0, 0, 5, 0]).tolist()
    [[1.0, 2.0], [8.0, 4.0]]
    """
    assert (POLICY, HOLDOUT) == (0, 1), "the order of the places"
    return (np.array(decisions, np.float64) + np.array(left_out, np.float64)).reshape(2, -1)
