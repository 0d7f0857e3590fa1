"""The e-process on logged propensities: silent on right logs however often one looks, and quick to find skewed ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, chi2

from decider.estimate.sample import Floats, Longs
from decider.estimate.sample_ratio import SampleRatio, freedman, weight_evidence

ALPHA = 0.001
SURE = 1e-5
"""Chance that a right implementation fails one of these tests, were the seeds not fixed."""

TWO_CONTEXTS = np.array([[0.6, 0.3, 0.1], [0.1, 0.3, 0.6]])


def draw(pmf: Floats, rng: np.random.Generator) -> Longs:
    """(n,) actions from (n, actions) probabilities."""
    below = pmf.cumsum(axis=1) < rng.random((len(pmf), 1))
    drawn: Longs = np.minimum(below.sum(axis=1), pmf.shape[1] - 1)
    return drawn


def skewed(pmf: Floats, *, action: int, by: float) -> Floats:
    """An action drawn more often than the log says, at the others' cost."""
    changed = pmf.copy()
    changed[:, action] *= 1 + by
    changed[:, np.arange(pmf.shape[1]) != action] *= (1 - changed[:, [action]]) / (
        1 - pmf[:, [action]]
    )  # the rest keeps its proportions
    return changed


def highest(logged: Floats, actions: Longs, *, every: int = 100) -> float:
    """The evidence at its highest, looked at after every so many decisions."""
    ratio = SampleRatio(logged.shape[1])
    for start in range(0, len(logged), every):
        rows = slice(start, start + every)
        ratio.add_many(logged[rows], np.bincount(actions[rows], minlength=logged.shape[1]))
    return ratio.highest


def most(trials: int, level: float) -> int:
    """More alarms than this refute a false alarm rate of `level`."""
    return int(binom.ppf(1 - SURE, trials, level))


def test_a_right_log_raises_no_alarm_however_often_it_is_looked_at() -> None:
    """Looking every 100 decisions, 300 logs: false alarms at most at the nominal rate, at 0.1 % and at 5 %."""
    rng = np.random.default_rng(1)
    reached = np.empty(300)
    for log in range(len(reached)):
        pmf = TWO_CONTEXTS[rng.integers(0, 2, 4_000)]
        reached[log] = highest(pmf, draw(pmf, rng))
    for level in (ALPHA, 0.05):
        assert np.count_nonzero(reached >= 1 / level) <= most(len(reached), level)


def test_a_chi_square_test_looked_at_as_often_raises_many_more() -> None:
    """Why there is an e-process: a fixed-horizon test at 0.1 %, peeked at, is wrong about ten times as many logs."""
    rng = np.random.default_rng(2)
    share = 0.5
    drawn = (rng.random((2_000, 10_000)) < share).reshape(2_000, 100, 100).sum(axis=2).cumsum(axis=1)
    seen = 100 * np.arange(1, 101)
    statistic = (drawn - share * seen) ** 2 / (share * (1 - share) * seen)
    alarms = np.count_nonzero((chi2.sf(statistic, 1) < ALPHA).any(axis=1))
    assert alarms > most(2_000, ALPHA)


def test_a_policy_that_learns_from_its_own_draws_raises_no_alarm() -> None:
    """Logs of learners are adaptive: the next pmf depends on all draws before; the bet is fair all the same."""
    rng = np.random.default_rng(3)
    alarms = 0
    for _ in range(200):
        ratio, counts = SampleRatio(3), np.zeros(3, np.int64)
        for _ in range(30):
            leader = 0.1 + 0.7 * (np.arange(3) == counts.argmax())
            pmf = np.tile(leader / leader.sum(), (50, 1))
            hits = np.bincount(draw(pmf, rng), minlength=3)
            ratio.add_many(pmf, hits)
            counts += hits
        alarms += ratio.highest >= 20
    assert alarms <= most(200, 0.05)


@pytest.mark.parametrize(("by", "least"), [(0.1, 0.45), (-0.1, 0.45), (0.3, 0.95)])
def test_a_skew_is_found_where_propensities_depend_on_the_context(by: float, least: float) -> None:
    """A skew of 10 % in 4,000 decisions is found at 0.1 % in at least 45 % of logs, a larger one nearly always."""
    rng = np.random.default_rng(4)
    found = 0
    for _ in range(100):
        logged = TWO_CONTEXTS[rng.integers(0, 2, 4_000)]
        found += highest(logged, draw(skewed(logged, action=0, by=by), rng), every=500) >= 1 / ALPHA
    assert found >= binom.ppf(SURE, 100, least)


def test_the_event_that_was_skewed_is_named() -> None:
    """An alarm that does not say which action is of little use."""
    rng = np.random.default_rng(5)
    logged = TWO_CONTEXTS[rng.integers(0, 2, 50_000)]
    ratio = SampleRatio(3)
    ratio.add_many(logged, np.bincount(draw(skewed(logged, action=1, by=0.3), rng), minlength=3))
    assert ratio.value > 1 / ALPHA
    assert ratio.skew.event == 1
    assert ratio.skew.ratio == pytest.approx(1.3, abs=0.05)


@given(st.lists(st.tuples(st.floats(0.01, 0.99), st.booleans()), min_size=1, max_size=40), st.integers(0, 40))
def test_two_parts_added_are_one_pass_over_both(draws: list[tuple[float, bool]], cut: int) -> None:
    """Logs are read in parts, by several processes."""
    pmf = np.array([[p, 1 - p] for p, _ in draws])
    happened = np.array([[first, not first] for _, first in draws])
    both, one, other = SampleRatio(2), SampleRatio(2), SampleRatio(2)
    both.add_many(pmf, happened.sum(axis=0))
    one.add_many(pmf[:cut], happened[:cut].sum(axis=0))
    other.add_many(pmf[cut:], happened[cut:].sum(axis=0))
    assert (one + other).log_value == pytest.approx(both.log_value, abs=1e-9)
    assert (one + other).highest >= (one + other).value * (1 - 1e-12)


@given(st.floats(0.01, 0.99), st.integers(0, 5))
def test_the_bet_is_fair(p: float, more: int) -> None:
    """The mean of the wealth over what can happen next is the wealth now: without it nothing above holds."""
    pmf = np.array([[p, 1 - p]])
    before = SampleRatio(2)
    before.add_many(np.tile(pmf, (more, 1)), np.array([more, 0]))
    after = []
    for happened in ([1, 0], [0, 1]):
        ratio = before + SampleRatio(2)
        ratio.add_many(pmf, np.array(happened))
        after.append(ratio.value)
    assert p * after[0] + (1 - p) * after[1] == pytest.approx(before.value, rel=1e-9)


def test_nothing_and_certainty_say_nothing() -> None:
    """No decisions, no events, actions that cannot and that must be drawn: the wealth stays what it was."""
    ratio = SampleRatio(2)
    ratio.add_many(np.zeros((0, 2)), np.zeros(2, np.int64))
    ratio.add_many(np.array([[0.0, 1.0]] * 600), np.array([0, 600]))
    assert ratio.value == pytest.approx(1.0, rel=1e-9)


def test_a_long_log_does_not_overflow() -> None:
    """Products of two million factors near 0.3 or 2 must be taken by parts; the value is capped, not infinite."""
    ratio = SampleRatio(2)
    ratio.add_many(np.full((1_000_000, 2), 0.5), np.array([900_000, 100_000]))
    assert ratio.log_value > 100_000
    assert np.isfinite(ratio.value)


def test_weights_of_a_right_log_are_no_evidence() -> None:
    """Without pmfs: one-sided bets on 1{a}/propensity with skewed weights, 2,000 logs at 5 % and 0.1 %."""
    rng = np.random.default_rng(6)
    evidence = np.empty(2_000)
    for log in range(len(evidence)):
        p = rng.choice([0.5, 0.05, 0.005], 1_000)
        drawn = p[rng.random(1_000) < p]
        evidence[log] = weight_evidence(1 / drawn, np.zeros(len(drawn), np.int64), np.array([1_000]))[0]
    for level in (ALPHA, 0.05):
        assert np.count_nonzero(evidence >= 1 / level) <= most(len(evidence), level)


def test_weights_that_are_too_large_are_evidence() -> None:
    """Propensities half of what they should be are found in a few hundred decisions."""
    rng = np.random.default_rng(7)
    drawn = np.full(np.count_nonzero(rng.random(2_000) < 0.2), 0.1)
    evidence = weight_evidence(1 / drawn, np.zeros(len(drawn), np.int64), np.array([2_000]))
    assert evidence[0] > 1 / ALPHA


def test_the_bound_on_rare_events_holds_where_the_normal_approximation_does_not() -> None:
    """Two draws expected, thousands of times: the bound alarms at most at its level, the normal test far above it."""
    rng = np.random.default_rng(8)
    expected = np.full(20_000, 2.0)
    excess = rng.binomial(2_000, 0.001, len(expected)) - expected
    variance = expected * 0.999
    alarms = np.count_nonzero(freedman(excess, variance=variance, largest=np.ones(len(expected))) < ALPHA)
    assert alarms <= most(len(expected), ALPHA)
    assert np.count_nonzero(chi2.sf(excess**2 / variance, 1) < ALPHA) > most(len(expected), ALPHA)
