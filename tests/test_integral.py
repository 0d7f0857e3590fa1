"""The leaner integral: close to the truth for normals of all kinds, and the same bits in a batch as alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from decider.policy.thompson import pmf, posterior
from decider.policy.thompson.arrays import Floats
from decider.policy.thompson.pmf import CANDIDATES, best_of_rows, leaner_best_of

ERROR = 0.01
"""What `leaner_best_of` promises of each probability."""

Normals = list[tuple[float, float]]
"""Mean and deviation of each."""

WIDTHS = st.one_of(
    st.floats(-6, 0).map(lambda power: float(10**power)),
    st.sampled_from([1e-6, 1e-3, 0.1, 1.0]),
)
MEANS = st.one_of(st.floats(-1, 1), st.floats(-4, 4), st.sampled_from([0.0, 0.5]), st.floats(-1e-5, 1e-5))
NORMAL = st.tuples(MEANS, WIDTHS)
NORMALS = st.one_of(
    st.lists(NORMAL, min_size=1, max_size=CANDIDATES),
    # A few beside many equal ones: where the points lie is decided by the many.
    st.builds(
        lambda some, same, count: some + [same] * (count - len(some)),
        st.lists(NORMAL, min_size=1, max_size=6),
        NORMAL,
        st.integers(6, CANDIDATES),
    ),
)


def arrays(normals: Normals) -> tuple[Floats, Floats]:
    """(1, n) each: means and deviations."""
    mean, deviation = np.array(normals).T
    return mean[None], deviation[None]


def shares(best: Floats) -> Floats:
    """Each row divided by its sum."""
    return np.asarray(best / best.sum(axis=1, keepdims=True))


def reference(mean: Floats, deviation: Floats) -> Floats:
    """(n,): P(each is the largest) by the rule that bounds its own error: between two points lies
    (b - a) x the product of the others, whose least and largest values are known; there are 400 points for each."""
    points = np.unique(mean[:, None] + deviation[:, None] * np.linspace(-7, 7, 400))
    points = points[points >= (mean - 7 * deviation).max()]
    below = ndtr((points - mean[:, None]) / deviation[:, None])
    found = []
    for one in range(len(mean)):
        others = np.delete(below, one, axis=0).prod(axis=0)
        growth = np.diff(below[one])
        low, high = (growth * others[:-1]).sum(), (growth * others[1:]).sum()
        assert high - low < 0.04
        found.append((low + high) / 2)
    return np.array(found)


@given(NORMALS)
@settings(max_examples=150, deadline=None)
@example([(-0.512, 0.232)] + [(-2.0, 1.0)] * 20)
@example([(0.0, 1e-6), (1e-6, 1e-6)] + [(-1.0, 1.0)] * 30)
@example([(2.0, 1.0)] + [(0.0, 1.0)] * 14)
@example([(0.3, 1.0)])
@example([(0.4, 0.2), (0.1, 0.16)] + [(0.0, 0.01)] * 30)
@example([(0.3, 0.1), (0.1, 0.1)] + [(0.0, 0.01)] * 30)
@example([(0.3, 0.1), (0.1, 0.1)] + [(0.0, 0.01)] * 8)
@example([(0.0, float(10**power)) for power in np.linspace(-6, 0, 32)])
def test_every_probability_is_within_the_stated_error(normals: Normals) -> None:
    """Narrow ones beside wide ones, ties, all of them far apart; a few that are hardly known above many that are."""
    mean, deviation = arrays(normals)
    found = shares(leaner_best_of(mean, deviation))[0]
    assert found == pytest.approx(reference(mean[0], deviation[0]), abs=ERROR)


@given(st.integers(1, CANDIDATES), MEANS, WIDTHS)
@settings(max_examples=30)
def test_equal_ones_are_the_largest_equally_often(count: int, mean: float, deviation: float) -> None:
    """Exactly, whatever their number: at the start of an experiment all actions are equal."""
    found = shares(leaner_best_of(*arrays([(mean, deviation)] * count)))[0]
    assert found == pytest.approx([1 / count] * count, rel=1e-12)


def test_means_that_no_deviation_can_resolve_give_a_distribution() -> None:
    """A regression of large numbers may be certain of large rewards; nothing is divided by 0."""
    for size in (1.0, 1e3, 1e6):
        mean = size * np.array([[0.1, 0.7, 0.7, -0.3]])
        found = shares(best_of_rows(mean, np.full((1, 4), 1e-9)))[0]
        assert found == pytest.approx([0, 0.5, 0.5, 0], abs=1e-9)


def test_of_many_actions_the_most_promising_ones_share_all() -> None:
    """The others get the floor of their experiment."""
    rng = np.random.default_rng(4)
    mean, deviation = rng.normal(size=(5, 90)), rng.uniform(0.1, 0.3, (5, 90))
    found = best_of_rows(mean, deviation)
    assert ((found > 0).sum(axis=1) <= CANDIDATES).all()
    for row, wanted in zip(shares(found), map(reference, mean, deviation), strict=True):
        assert row == pytest.approx(wanted, abs=ERROR)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 8, 9, 10, 16, 31, 32, 33, 50])
def test_a_row_has_the_same_bits_whatever_stands_beside_it(count: int) -> None:
    """A decision that was served in a batch is recomputed alone."""
    rng = np.random.default_rng(count)
    mean, deviation = rng.normal(size=(45, count)), 10 ** rng.uniform(-6, 0, (45, count))
    alone = [best_of_rows(mean[row : row + 1], deviation[row : row + 1]).tobytes() for row in range(45)]
    for rows in range(1, 46):
        found = best_of_rows(mean[:rows], deviation[:rows])
        assert [one.tobytes() for one in found] == alone[:rows]


def test_arrays_stay_small_however_many_rows_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Larger ones get new memory from the system each time, and 1,000 contexts of 32 actions would take 12 MB each."""
    sizes = []

    def noted(values: Floats) -> Floats:
        sizes.append(values.size)
        return np.asarray(ndtr(values))

    monkeypatch.setattr(pmf, "ndtr", noted)
    best_of_rows(np.zeros((1_000, 32)), np.ones((1_000, 32)))
    assert max(sizes) <= posterior.AT_ONCE
