"""Intervals: against their papers' formulas and other software, and the laws that each must obey."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from decider.estimate import likelihood
from decider.estimate.asymptotic import asymptotic
from decider.estimate.binomial import Proportion, proportion_interval
from decider.estimate.confidence_sequence import confidence_sequence, confidence_sequence_path
from decider.estimate.cressie_read import cressie_read
from decider.estimate.default_interval import EXTREME_COUNT, TRACE, default_interval
from decider.estimate.empirical_bernstein import empirical_bernstein
from decider.estimate.mean import Interval, Mean
from decider.estimate.nodes import gather
from decider.estimate.possible import Range
from decider.estimate.sample import Floats, Sample, by_unit

IntervalOf = Callable[..., Interval]
FIXED: tuple[IntervalOf, ...] = (asymptotic, empirical_bernstein, cressie_read, default_interval)
ALL: tuple[IntervalOf, ...] = (*FIXED, confidence_sequence)


def name_of(interval: IntervalOf) -> str:
    """For pytest."""
    return interval.__name__


def ips(weight: Floats, reward: Floats, *, max_weight: float, rewards: Range = (0.0, 1.0), repeats: int = 1) -> Sample:
    """The sample of the IPS estimate; units come `repeats` times each."""
    low, high = (min(0.0, max_weight * rewards[0]), max(0.0, max_weight * rewards[1]))
    units = np.arange(len(weight)) // repeats
    sample = by_unit(weight * reward, weight, units, low=low, high=high, max_weight=max_weight)
    return replace(sample, idle=(0.0, 0.0))


def ends(interval: Interval) -> Range:
    """Without the value."""
    return interval.low, interval.high


def pattern(decisions: int, scale: float) -> tuple[Floats, Floats]:
    """Weights and rewards that are the same everywhere."""
    index = np.arange(decisions)
    return scale * np.array([0.0, 0.5, 1.25, 4.0, 0.25])[index % 5], ((index * index) % 7 < 2).astype(np.float64)


def simulated(seed: int, decisions: int) -> tuple[Floats, Floats]:
    """Weights 0.5 and 5.5 with mean 1, and rewards of 0 or 1."""
    random = np.random.default_rng(seed)
    return np.where(random.random(decisions) < 0.1, 5.5, 0.5), (random.random(decisions) < 0.3).astype(np.float64)


# --- each against its source


@pytest.mark.parametrize(
    ("decisions", "scale", "max_weight", "low", "high"),
    [
        (40, 1.0, 8.0, 0.10224101747222547, 0.7112503279266593),
        (200, 0.7, 50.0, 0.24562361206968691, 0.6441644545170047),
        (1000, 0.9, 4.5, 0.37642514896029977, 0.48086475202516943),
    ],
)
def test_cressie_read_is_that_of_vw_estimators(
    decisions: int, scale: float, max_weight: float, low: float, high: float
) -> None:
    """The figures are what vw-estimators 0.2.2 (estimators.bandits.cressieread.Interval) gives for these logs."""
    weight, reward = pattern(decisions, scale)
    interval = cressie_read(ips(weight, reward, max_weight=max_weight), value_range=(0.0, 1.0))
    assert ends(interval) == pytest.approx((low, high), abs=1e-8)


def test_cressie_read_is_that_of_vw_estimators_for_other_rewards_and_levels() -> None:
    """Rewards from -2 to 3, 90 %."""
    weight, reward = pattern(200, 0.7)
    sample = ips(weight, 3 * reward - 2, max_weight=50.0, rewards=(-2.0, 3.0))
    interval = cressie_read(sample, value_range=(-2.0, 3.0), level=0.9)
    assert interval.low == pytest.approx(-1.210572205565618, abs=1e-8)
    assert interval.high == pytest.approx(0.39823995473277823, abs=1e-8)


@given(st.integers(0, 60), st.integers(0, 60), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_the_exact_interval_ends_where_the_binomial_tails_are_half_of_what_is_left(
    successes: int, failures: int, level: float
) -> None:
    """Clopper and Pearson's definition: what was seen, or more, has probability (1 - level) / 2 at the lower end."""
    trials = successes + failures
    found = proportion_interval(Proportion(successes, trials), level, method="exact")
    if not trials:
        assert math.isnan(found.value)
    tail = (1 - level) / 2
    at_least, at_most = stats.binom.sf(successes - 1, trials, found.low), stats.binom.cdf(successes, trials, found.high)
    assert (found.low == 0) if not successes else at_least == pytest.approx(tail, rel=1e-9)
    assert (found.high == 1) if not failures else at_most == pytest.approx(tail, rel=1e-9)


@pytest.mark.parametrize("trials", [1, 7, 30])
def test_the_exact_interval_covers_whatever_the_truth_is(trials: int) -> None:
    """Not by simulation: the probabilities of all outcomes add up."""
    intervals = [proportion_interval(Proportion(successes, trials), method="exact") for successes in range(trials + 1)]
    for truth in np.linspace(0.001, 0.999, 333):
        chances = stats.binom.pmf(np.arange(trials + 1), trials, truth)
        held = [interval.low <= truth <= interval.high for interval in intervals]
        assert chances[held].sum() >= 0.95


def test_asymptotic_is_that_of_the_mean_where_units_come_once() -> None:
    """Two ways to the same figure."""
    weight, reward = simulated(1, 200)
    mean = Mean()
    mean.add_many(weight * reward)
    found, expected = asymptotic(ips(weight, reward, max_weight=5.5)), mean.interval()
    assert found.value == pytest.approx(expected.value)
    assert ends(found) == pytest.approx(ends(expected))


def test_empirical_bernstein_is_maurer_and_pontils() -> None:
    """Their Theorem 4 for a mean in [0, 1], both sides at half the risk."""
    weight, reward = simulated(2, 5_000)
    terms = weight * reward / 5.5
    log = math.log(2 / 0.025)
    apart = math.sqrt(2 * terms.var(ddof=1) * log / 5_000) + 7 * log / (3 * 4_999)
    found = empirical_bernstein(ips(weight, reward, max_weight=5.5))
    assert found.high - found.value == pytest.approx(5.5 * apart)
    assert found.value - found.low == pytest.approx(5.5 * apart)


def test_the_default_is_the_empirical_likelihood_that_its_docstring_says() -> None:
    """At each limit, -2 log of Owen's likelihood ratio is the chi-square quantile.

    Here the ratio is computed for a given value, by another optimiser; the code finds the limits without it.
    """
    weight, reward = np.array([0.0, 0.5, 0.5, 1.0, 1.5, 2.5]), np.array([0.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    count = np.array([3.0, 4.0, 3.0, 3.0, 2.0, 2.0])
    rows = np.repeat(np.arange(6), count.astype(int))
    found = default_interval(ips(weight[rows], reward[rows], max_weight=4.0), value_range=(0.0, 1.0))
    w, t = np.concatenate([weight, [0, 0, 4, 4]]), np.concatenate([weight * reward, [0, 0, 0, 4]])
    counts = [np.concatenate([count, TRACE + EXTREME_COUNT * np.eye(4)[corner]]) for corner in range(4)]
    low = [_owen(w, t, counts[corner], found.low) for corner in (0, 2)]
    high = [_owen(w, t, counts[corner], found.high) for corner in (1, 3)]
    assert min(low) == pytest.approx(stats.chi2.ppf(0.95, 1), abs=1e-4)
    assert min(high) == pytest.approx(stats.chi2.ppf(0.95, 1), abs=1e-4)


def _owen(weight: Floats, term: Floats, count: Floats, value: float) -> float:
    """-2 log of the empirical likelihood ratio of a value, given that the mean weight is 1 (Owen 2001, section 3.5)."""

    def least(*moments: Floats) -> float:
        columns = np.stack(moments, axis=1)

        def dual(multipliers: Floats) -> float:
            factor = 1 + columns @ multipliers
            return math.inf if factor.min() <= 0 else -float(count @ np.log(factor))

        start = np.zeros(len(moments))
        tight = {"xatol": 1e-10, "fatol": 1e-12, "maxiter": 10_000, "maxfev": 10_000}
        return float(optimize.minimize(dual, start, method="Nelder-Mead", options=tight).fun)

    return 2 * (least(weight - 1) - least(weight - 1, term - value))


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_of_no_success_the_default_says_what_the_binomial_says(level: float) -> None:
    """Why a third of a decision is added: with none rewarded the limit is the exact one (-log 0.05 is 3.0).

    It may fail with the whole risk, as the lower limit cannot fail.
    """
    decisions = 10_000
    interval = default_interval(ips(np.ones(decisions), np.zeros(decisions), max_weight=1.0), level=level)
    assert interval.low == 0
    assert interval.high * decisions == pytest.approx(-math.log(1 - level), rel=0.025)


def test_of_rare_successes_the_default_covers_as_its_docstring_says() -> None:
    """All rewards at the largest weight: it covers 93.9 % or more, but 91.7 % where just about three are expected.

    Not by simulation: the binomial probabilities of all outcomes add up. Of 20 thousand decisions, 0.01 to 20 rewarded.
    """
    decisions, outcomes = 20_000, np.arange(60)
    rewards = [np.where(np.arange(decisions) < successes, 1.0, 0.0) for successes in outcomes]
    intervals = [default_interval(ips(np.ones(decisions), one, max_weight=1.0)) for one in rewards]
    low, high = np.array([ends(interval) for interval in intervals]).T
    expected = np.linspace(0.01, 20, 2_000)
    rate = expected[:, None] / decisions
    coverage = (stats.binom.pmf(outcomes, decisions, rate) * ((low <= rate) & (rate <= high))).sum(axis=1)
    assert coverage.min() > 0.9165
    assert coverage.mean() > 0.95
    assert expected[coverage < 0.939].min() > 2.98
    assert expected[coverage < 0.939].max() < 3.03


# --- laws


@pytest.mark.parametrize("interval", ALL, ids=name_of)
def test_an_interval_is_where_the_value_can_be(interval: IntervalOf) -> None:
    """No click rate of -3 %, and none above 100 %."""
    weight, reward = simulated(3, 30)
    sample = ips(weight, reward, max_weight=50.0)
    found = interval(sample, value_range=(0.0, 0.4))
    assert 0 <= found.low < found.high <= 0.4


@pytest.mark.parametrize("interval", ALL, ids=name_of)
def test_of_no_decisions_everything_is_possible(interval: IntervalOf) -> None:
    """A segment without decisions, a policy that never was."""
    none = np.zeros(0)
    found = interval(Sample(none, none, none, low=0.0, high=9.0, max_weight=9.0), value_range=(0.0, 1.0))
    assert math.isnan(found.value)
    assert ends(found) == (0.0, 1.0)


@pytest.mark.parametrize("interval", ALL, ids=name_of)
def test_of_unbounded_decisions_no_interval_breaks(interval: IntervalOf) -> None:
    """A propensity of 0 for what the candidate does: only the asymptotic interval does not care."""
    weight, reward = simulated(4, 50)
    sample = replace(ips(weight, reward, max_weight=50.0), high=math.inf, max_weight=math.inf)
    found = interval(sample, value_range=(0.0, 1.0))
    assert interval is asymptotic or ends(found) == (0.0, 1.0)


@pytest.mark.parametrize("interval", ALL, ids=name_of)
def test_more_certainty_is_wider(interval: IntervalOf) -> None:
    """99 % holds 95 % holds 80 %."""
    weight, reward = simulated(5, 3_000)
    sample = ips(weight, reward, max_weight=8.0)
    widest, wide, narrow = (interval(sample, value_range=(0.0, 1.0), level=level) for level in (0.99, 0.95, 0.8))
    assert widest.low < wide.low < narrow.low < narrow.high < wide.high < widest.high


@pytest.mark.parametrize("interval", ALL, ids=name_of)
def test_the_unit_of_the_reward_does_not_matter(interval: IntervalOf) -> None:
    """Cents or euros; and lost is gained with the other sign."""
    weight, reward = simulated(6, 300)
    one = interval(ips(weight, reward, max_weight=8.0), value_range=(0.0, 1.0))
    cents = interval(ips(weight, 100 * reward, max_weight=8.0, rewards=(0.0, 100.0)), value_range=(0.0, 100.0))
    lost = interval(ips(weight, -reward, max_weight=8.0, rewards=(-1.0, 0.0)), value_range=(-1.0, 0.0))
    assert ends(cents) == pytest.approx((100 * one.low, 100 * one.high), rel=1e-6)
    assert ends(lost) == pytest.approx((-one.high, -one.low), rel=1e-6)


@pytest.mark.parametrize("interval", [cressie_read, default_interval, confidence_sequence], ids=name_of)
def test_the_zero_of_the_reward_does_not_matter_where_the_mean_weight_is_used(interval: IntervalOf) -> None:
    """Rewards of {-1, 0} instead of {0, 1}, at a low click rate, make plain IPS intervals many times wider."""
    weight, reward = simulated(7, 300)
    one = interval(ips(weight, reward, max_weight=8.0), value_range=(0.0, 1.0))
    less = interval(ips(weight, reward - 1, max_weight=8.0, rewards=(-1.0, 0.0)), value_range=(-1.0, 0.0))
    assert (less.low + 1, less.high + 1) == pytest.approx(ends(one), rel=1e-6)
    plain, shifted = (
        asymptotic(ips(weight, rewards, max_weight=8.0, rewards=limits))
        for rewards, limits in ((reward, (0.0, 1.0)), (reward - 1, (-1.0, 0.0)))
    )
    assert shifted.high - shifted.low > 1.3 * (plain.high - plain.low)


@pytest.mark.parametrize("interval", FIXED, ids=name_of)
def test_copies_of_a_units_decisions_teach_nothing(interval: IntervalOf) -> None:
    """Who counts every page view of a visitor as a new visitor has intervals that are too narrow."""
    weight, reward = simulated(8, 400)
    once = interval(ips(weight, reward, max_weight=8.0), value_range=(0.0, 1.0))
    copies = ips(weight.repeat(4), reward.repeat(4), max_weight=8.0, repeats=4)
    assert ends(interval(copies, value_range=(0.0, 1.0))) == pytest.approx(ends(once), rel=1e-6)


@pytest.mark.parametrize("interval", FIXED, ids=name_of)
def test_the_order_of_units_does_not_matter(interval: IntervalOf) -> None:
    """Only the confidence sequence looks at it."""
    weight, reward = simulated(9, 300)
    order = np.random.default_rng(9).permutation(300)
    one = interval(ips(weight, reward, max_weight=8.0), value_range=(0.0, 1.0))
    other = interval(ips(weight[order], reward[order], max_weight=8.0), value_range=(0.0, 1.0))
    assert ends(other) == pytest.approx(ends(one), rel=1e-6)


@pytest.mark.parametrize("interval", [default_interval, confidence_sequence], ids=name_of)
def test_weights_that_cannot_have_mean_1_give_no_interval(interval: IntervalOf) -> None:
    """Propensities that are not those of the log: others return an interval from 1 to 0, or one of no width."""
    random = np.random.default_rng(10)
    weight = np.minimum(4.6 * random.exponential(size=1_000), 50)
    found = interval(ips(weight, random.random(1_000), max_weight=50.0), value_range=(0.0, 1.0))
    assert ends(found) == (0.0, 1.0)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    decisions=st.integers(1, 300),
    largest=st.floats(1.5, 5_000),
    rate=st.sampled_from([0.001, 0.03, 0.5, 1.0]),
    rare=st.booleans(),
)
def test_the_default_is_sound_on_odd_logs(seed: int, decisions: int, largest: float, rate: float, rare: bool) -> None:
    """Few decisions, huge weights, hardly a reward: it holds its own value and grows with the level."""
    random = np.random.default_rng(seed)
    weight = np.minimum(random.exponential(size=decisions) ** 2 / 2, largest)
    if rare:
        weight = np.where(random.random(decisions) < 1 / largest, largest, 0.0)
    sample = ips(weight, (random.random(decisions) < rate).astype(np.float64), max_weight=largest)
    wide, narrow = (default_interval(sample, value_range=(0.0, 1.0), level=level) for level in (0.95, 0.8))
    room = 1e-7
    assert 0 <= wide.low <= narrow.low + room <= narrow.value + 2 * room
    assert narrow.value - 2 * room <= narrow.high - room <= wide.high <= 1


# --- many rows


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.booleans())
def test_nodes_keep_means_and_never_add_likelihood(seed: int, dimensions: int, signed: bool) -> None:
    """So that an interval from nodes is never narrower than that from the points."""
    random = np.random.default_rng(seed)
    points = random.exponential(size=(40_000, dimensions)) ** 2 - 3 * signed
    stops = np.array([0, 100, 25_000, 40_000])
    nodes = gather(points, stops=stops)
    assert nodes.count.sum(axis=1) == pytest.approx(np.diff(stops, prepend=0))
    assert nodes.count[2] @ nodes.place == pytest.approx(points[100:25_000].sum(axis=0))
    exact = np.log(20 + points.sum(axis=1)).sum()
    shared = nodes.count.sum(axis=0) @ np.log(20 + nodes.place.sum(axis=1))
    assert exact - 1e-3 * abs(exact) <= shared <= exact + 1e-9 * abs(exact)
    assert nodes.count.min() >= -1e-9


def test_a_large_log_has_the_interval_of_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes are there for speed alone: at most a hundredth wider, never narrower."""
    random = np.random.default_rng(11)
    weight = np.minimum(random.exponential(size=50_000) ** 2 / 2, 40.0)
    sample = ips(weight, random.random(50_000), max_weight=40.0)
    fast = default_interval(sample, value_range=(0.0, 1.0))
    monkeypatch.setattr("decider.estimate.nodes.CELLS", 10**6)
    monkeypatch.setattr(gather, "__kwdefaults__", {"cells": 10**6})
    slow = default_interval(sample, value_range=(0.0, 1.0))
    assert fast.low <= slow.low + 1e-9
    assert fast.high >= slow.high - 1e-9
    assert slow.high - slow.low < fast.high - fast.low < 1.01 * (slow.high - slow.low)


# --- the confidence sequence


def test_a_confidence_sequence_does_not_know_the_future() -> None:
    """What it says after 300 decisions must not change when more are logged, or looking twice would be cheating."""
    weight, reward = simulated(12, 1_000)
    whole = ips(weight, reward, max_weight=8.0)
    part = ips(weight[:300], reward[:300], max_weight=8.0)
    then, now = confidence_sequence_path(whole, [300, 1_000], value_range=(0.0, 1.0))
    early = confidence_sequence(part, value_range=(0.0, 1.0))
    assert (then.value, then.low, then.high) == pytest.approx((early.value, early.low, early.high), abs=1e-6)
    assert now.high - now.low < then.high - then.low


def test_a_path_is_in_the_order_that_was_asked_for() -> None:
    """Counts may repeat and may go back."""
    weight, reward = simulated(13, 200)
    sample = ips(weight, reward, max_weight=8.0)
    one, two, three = confidence_sequence_path(sample, [200, 50, 200], value_range=(0.0, 1.0))
    assert one == three
    assert one.high - one.low < two.high - two.low


def adaptive_log(seed: int, decisions: int) -> tuple[Floats, Floats, Floats]:
    """Three actions; a learner draws its favourite more and more. The candidate always takes action 2, which earns 0.4.

    Weights, rewards, and the largest weight that each decision could have had.
    """
    random = np.random.default_rng(seed)
    means = np.array([0.3, 0.5, 0.4])
    tried, earned = np.ones(3), np.full(3, 0.5)
    weight, reward, most = np.empty(decisions), np.empty(decisions), np.empty(decisions)
    for row in range(decisions):
        explore = max(0.1, 1 / math.sqrt(1 + row / 10))
        pmf = np.full(3, explore / 3)
        pmf[np.argmax(earned / tried)] += 1 - explore
        action = int(random.choice(3, p=pmf))
        reward[row] = random.random() < means[action]
        tried[action] += 1
        earned[action] += reward[row]
        most[row] = 1 / pmf[2]
        weight[row] = most[row] if action == 2 else 0.0
    return weight, reward, most


def test_a_confidence_sequence_holds_at_every_look_at_a_log_that_a_learner_made() -> None:
    """At 95 %, of 60 logs, each looked at 40 times, fewer than 12 may ever show a wrong interval (a chance of 1e-4).

    An ordinary interval is wrong at some look in more than that, so the test can tell.
    """
    counts = list(range(10, 401, 10))
    wrong = {"sequence": 0, "ordinary": 0}
    for seed in range(60):
        weight, reward, most = adaptive_log(seed, 400)
        sample = ips(weight, reward, max_weight=30.0)
        path = confidence_sequence_path(sample, counts, value_range=(0.0, 1.0), max_weights=most)
        wrong["sequence"] += any(not one.low <= 0.4 <= one.high for one in path)
        looks = [asymptotic(ips(weight[:c], reward[:c], max_weight=30.0)) for c in counts]
        wrong["ordinary"] += any(not one.low <= 0.4 <= one.high for one in looks)
    assert stats.binom.sf(11, 60, 0.05) < 1e-4
    assert wrong["sequence"] < 12 < wrong["ordinary"]


def test_knowing_how_large_each_weight_could_be_makes_a_sequence_narrower() -> None:
    """While the log explores much, larger bets are safe."""
    weight, reward, most = adaptive_log(1, 400)
    sample = ips(weight, reward, max_weight=1_000.0)
    known, unknown = (confidence_sequence(sample, value_range=(0.0, 1.0), max_weights=given) for given in (most, None))
    assert known.high - known.low < 0.9 * (unknown.high - unknown.low)


def test_no_unit_can_ruin_a_bet() -> None:
    """A unit of 300 decisions among units of one: the interval stays one, and holds the value."""
    weight, reward = simulated(14, 2_000)
    units = np.concatenate([np.arange(1_700), np.full(300, 1_700)])
    sample = by_unit(weight * reward, weight, units, low=0.0, high=8.0, max_weight=8.0)
    found = confidence_sequence(sample, value_range=(0.0, 1.0))
    assert 0 < found.low < 0.3 < found.high < 0.6


# --- the likelihood that both are made from


def test_a_batch_is_solved_as_its_problems_are() -> None:
    """Nothing leaks from one problem into the next."""
    random = np.random.default_rng(15)
    weight, term = random.exponential(size=40), random.normal(size=40)
    count = random.integers(1, 9, size=(3, 40)).astype(np.float64)
    upward, drop = np.array([1.0, -1.0, -1.0]), np.array([3.0, 5.0, 0.5])
    cost, _ = likelihood.balance(weight, count)
    whole = likelihood.extremes(weight, term, count, upward=upward, drop=drop + cost)
    for index in range(3):
        rows = slice(index, index + 1)
        one = likelihood.extremes(weight, term, count[rows], upward=upward[rows], drop=(drop + cost)[rows])
        assert one.mean[0] == pytest.approx(whole.mean[index], rel=1e-6)
        factor = 1 + one.slope * (term - one.mean) + one.tilt * (weight - 1)
        assert factor.min() > 0
        assert count[index] @ np.log(factor) == pytest.approx((drop + cost)[index], rel=1e-4)
