"""What a log cannot show, in the intervals: actions that it could not draw, rewards that it did not see."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from decider.estimate.sample import Floats
from simulator.compare.on_decisions import family
from simulator.compare.on_log import sums_of
from simulator.evaluate.checks.log import log_findings
from simulator.evaluate.estimates import Estimator
from simulator.evaluate.parse import parse
from simulator.evaluate.result import PolicyResult
from simulator.evaluate.reward_bounds import possible_rewards
from simulator.evaluate.run import cumulative_estimate, evaluate
from simulator.evaluate.scores import score
from simulator.evaluate.support import undrawn_cells
from simulator.logs.columns import Category, Columns
from simulator.logs.options import reward_range
from tests.logged_worlds import logged_world

ACTIONS = ("a", "b", "c", "d")
FIXED = "fixed:d"
WEIGHTED = ("ips", "snips", "cressie_read", "clipped_ips", "dr", "sndr", "switch_dr", "dr_shrinkage", "replay")

SEEDS = 60
LEAST = int(binom.ppf(1e-3, SEEDS, 0.95))


class Log(NamedTuple):
    """A log and the true mean rewards, (n, actions)."""

    columns: Columns
    means: Floats

    @property
    def truth(self) -> float:
        """Of FIXED."""
        return float(self.means[:, 3].mean())


def log_without(
    share: float, *, seed: int, with_pmf: bool, decisions: int = 2_000, better: float = 0.9, low: float = 0.0
) -> Log:
    """`d` is drawn one time in four, but never in the segment `rare`, which a share of the decisions has; there it
    would earn most. Rewards are `low` or 1 more.
    """
    rng = np.random.default_rng(seed)
    rare = rng.random(decisions) < share
    pmf = np.where(rare[:, None], [0.5, 0.3, 0.2, 0.0], [0.25, 0.25, 0.25, 0.25])
    means = np.tile([0.1, 0.2, 0.3, 0.25], (decisions, 1))
    means[rare, 3] = better
    drawn = (pmf.cumsum(axis=1) <= rng.random((decisions, 1))).sum(axis=1).astype(np.int32)
    rows, time = np.arange(decisions), np.arange(decisions, dtype=np.int64) * 1_000_000
    columns = Columns(
        name="without",
        actions=ACTIONS,
        action=drawn,
        propensity=pmf[rows, drawn],
        reward=(rng.random(decisions) < means[rows, drawn]) + low,
        reward_range=(low, low + 1),
        time=time,
        known=time,
        unit=rows,
        fields={"segment": Category(rare.astype(np.int32), ("often", "rare"))},
        sets=((0, 1, 2, 3),),
        eligible=np.zeros(decisions, np.int32),
        pmf=pmf.astype(np.float32).ravel() if with_pmf else None,
    )
    return Log(columns, means + low)


def forced(columns: Columns, name: str, *, breakdown: bool = False) -> PolicyResult:
    """The result of one candidate, whatever the verdict."""
    return evaluate(columns, [parse(name, columns)], force=True, breakdown=breakdown).policies[0]


# Actions that could not be drawn


@pytest.mark.parametrize("with_pmf", [True, False])
def test_intervals_hold_the_truth_where_some_contexts_lack_an_action(with_pmf: bool) -> None:
    """Without the bounds none of them does: what is missing earns three times as much as what was seen."""
    hits = dict.fromkeys((*WEIGHTED, "difference"), 0)
    for seed in range(SEEDS):
        log = log_without(0.05, seed=seed, with_pmf=with_pmf)
        found = forced(log.columns, FIXED)
        assert found.difference is not None
        logged = float((log.means * log_pmf(log.columns)).sum(axis=1).mean())
        hits["difference"] += found.difference.low <= log.truth - logged <= found.difference.high
        for name in WEIGHTED:
            hits[name] += found.estimates[name].low <= log.truth <= found.estimates[name].high
    assert min(hits.values()) >= LEAST, hits


def log_pmf(columns: Columns) -> Floats:
    """(n, actions): what `log_without` drew from."""
    field = columns.fields["segment"]
    assert isinstance(field, Category)
    return np.where(field.codes[:, None] == 1, [0.5, 0.3, 0.2, 0.0], [0.25, 0.25, 0.25, 0.25])


@pytest.mark.parametrize("low", [0.0, 5.0, -3.0])
def test_what_is_missing_widens_the_interval_by_its_mass_times_the_range(low: float) -> None:
    """On a log so long that nothing else is uncertain: the bounds are those of Manski, whatever rewards begin at."""
    log = log_without(0.2, seed=1, with_pmf=True, decisions=200_000, low=low)
    mass = float((log_pmf(log.columns)[:, 3] == 0).mean())
    seen = (1 - mass) * 0.25
    for name in ("ips", "dr"):
        one = forced(log.columns, FIXED).estimates[name]
        assert (one.low - low, one.high - low) == pytest.approx((seen, seen + mass), abs=0.03)


def test_segments_the_curve_and_comparisons_include_it_too() -> None:
    """Everywhere where a number stands, what is unknown is unknown."""
    log = log_without(0.2, seed=2, with_pmf=True)
    found = forced(log.columns, FIXED, breakdown=True)
    assert found.curve is not None
    assert found.curve.high[-1] - found.curve.low[-1] > 0.2
    candidates = [parse(name, log.columns) for name in (FIXED, "uniform")]
    scored = zip(candidates, score(log.columns, candidates), strict=True)
    sums = {one.name: sums_of(one, scores, log.columns) for one, scores in scored}
    (comparison,) = family(sums, (0.0, 1.0), reference="uniform").comparisons
    assert comparison.high - comparison.low > 0.2 * 1.25  # of `fixed:d` all, of `uniform` a quarter
    assert comparison.low <= log.truth - float(log.means.mean()) <= comparison.high


def test_the_segment_that_lacks_it_has_no_estimate_and_the_other_no_bounds() -> None:
    """A bound of the whole range where the action never came, and an ordinary interval elsewhere."""
    columns = log_without(0.2, seed=3, with_pmf=True).columns
    estimator = Estimator(score(columns, [parse(FIXED, columns)])[0])
    rows = np.flatnonzero(log_pmf(columns)[:, 3] > 0)
    ess, estimate = estimator.estimate_segment(rows, columns.units.part(rows))
    assert ess > 300
    assert estimate is not None
    assert estimate.high - estimate.low < 0.15


@pytest.mark.parametrize(("share", "verdict"), [(0.03, "caution"), (0.9, "do not use")])
def test_missing_support_is_a_caution_until_it_makes_the_answer_useless(share: float, verdict: str) -> None:
    """The interval says it; where that is all that is possible, there is nothing to be told."""
    found = forced(log_without(share, seed=4, with_pmf=True).columns, FIXED).diagnostics
    support = next(one for one in found.findings if one.name == "support")
    assert (found.verdict, support.verdict) == (verdict, "caution")
    assert f"{100 * found.missing_mass:.3g} % of all its draws" in support.text


def test_the_weights_still_add_up_where_something_is_missing() -> None:
    """They and what is missing have a mean of 1: no alarm about propensities that are right."""
    for seed in range(20):
        found = forced(log_without(0.5, seed=seed, with_pmf=False).columns, FIXED).diagnostics
        assert next(one for one in found.findings if one.name == "mean weight").verdict != "do not use"
        assert found.missing_mass == pytest.approx(0.5, abs=0.05)


def test_right_logs_without_pmfs_lack_nothing() -> None:
    """An absence that chance explains is none: 200 logs of a policy that depends on the context, with few decisions."""
    for seed in range(200):
        assert undrawn_cells(logged_world(seed=seed, decisions=300, with_pmf=False).columns).cells == ()


def test_an_action_that_one_set_does_not_hold_is_not_missed_there() -> None:
    """Where it was not eligible it was not absent."""
    columns = log_without(0.3, seed=5, with_pmf=False).columns
    field = columns.fields["segment"]
    assert isinstance(field, Category)
    assert undrawn_cells(columns).cells
    assert not undrawn_cells(replace(columns, sets=((0, 1, 2, 3), (0, 1, 2)), eligible=field.codes)).cells


# Rewards that were not seen


def purchases(seed: int, *, large: float, decisions: int = 2_000, declared: bool = False) -> Log:
    """Of four actions, each drawn one time in four; `d` brings 100 twice as often as the others."""
    rng = np.random.default_rng([seed, 1])
    log = log_without(0.0, seed=seed, with_pmf=False, decisions=decisions)
    chance = large * np.array([1.0, 1.0, 1.0, 2.0])
    reward = np.where(rng.random(decisions) < chance[log.columns.action], 100.0, rng.random(decisions))
    columns = replace(
        log.columns,
        reward=reward,
        reward_range=(0.0, 100.0) if declared else reward_range(reward, None),
        range_declared=declared,
    )
    return Log(columns, np.tile(100 * chance + 0.5 * (1 - chance), (decisions, 1)))


@pytest.mark.parametrize("large", [0.0005, 0.001, 0.003])
def test_rare_large_rewards_are_covered_once_one_was_seen_and_never_silent(large: float) -> None:
    """Without a declared range nothing in the log says that 100 is the largest reward."""
    hits = seen = 0
    for seed in range(SEEDS):
        log = purchases(seed, large=large)
        found = forced(log.columns, FIXED)
        one = found.estimates["dr"]
        assert "--reward-range" in " ".join(finding.needed for finding in found.diagnostics.findings)
        assert found.diagnostics.verdict != "fine"
        seen += bool(log.columns.reward.max() == 100)
        hits += bool(log.columns.reward.max() == 100) and one.low <= log.truth <= one.high
    assert hits >= binom.ppf(1e-3, seen, 0.95), (hits, seen)


@pytest.mark.parametrize("spread", [1.0, 1.5])
def test_ordinary_purchases_without_a_range_are_covered_and_answered(spread: float) -> None:
    """Most shops have never written down what the largest order can be."""
    hits = 0
    for seed in range(SEEDS):
        rng = np.random.default_rng([seed, 1])
        log = log_without(0.0, seed=seed, with_pmf=False)
        bought = rng.random(2_000) < np.where(log.columns.action == 3, 0.3, 0.2)
        reward = np.where(bought, rng.lognormal(3.0, spread, 2_000), 0.0)
        columns = replace(log.columns, reward=reward, reward_range=reward_range(reward, None), range_declared=False)
        found = evaluate(columns, [parse(FIXED, columns)], breakdown=False).policies[0]
        assert not found.refused
        one = found.estimates["dr"]
        hits += one.low <= 0.3 * np.exp(3.0 + spread**2 / 2) <= one.high
    assert hits >= LEAST


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ([0.0, 1.0], (0.0, 1.0)),
        ([0.0] * 30 + [1.0], (0.0, 1.0)),
        ([-1.0, 1.0] * 20, (-1.0, 1.0)),
        ([0.0] * 30 + [5.0] * 30, (0.0, 5.0)),
        ([0.0] * 30 + [5.0], (0.0, 10.0)),
        ([1.0, 2.0, 3.0, 4.0, 5.0] * 30, (0.0, 5.0)),
        ([-4.0, 0.0, 3.0], (-11.0, 10.0)),
        ([7.0] * 3, (0.0, 14.0)),
    ],
)
def test_an_end_of_the_range_that_few_decisions_have_is_none(
    rewards: list[float], expected: tuple[float, float]
) -> None:
    """Clicks and two prices have a range by nature; the largest order so far is not the largest possible one."""
    reward = np.array(rewards)
    columns = logged_world(seed=1, decisions=len(reward)).columns
    columns = replace(columns, reward=reward, reward_range=reward_range(reward, None))
    assert possible_rewards(replace(columns, range_declared=False)) == expected
    assert possible_rewards(columns) == columns.reward_range


def test_equal_rewards_say_that_nothing_can_be_told_from_them() -> None:
    """All visitors paid 7: is that the price, or was the column not what it seemed?"""
    columns = replace(logged_world(seed=1).columns, reward=np.full(2_000, 7.0), reward_range=(0.0, 7.0))
    columns = replace(columns, range_declared=False)
    found = next(one for one in log_findings(columns) if one.name == "reward range")
    assert found.verdict == "do not use"
    assert "All rewards are 7" in found.text
    assert "--reward-range" in found.needed
    reasons = " ".join(forced(columns, "uniform").diagnostics.reasons)
    assert "cannot tell one policy from another" in reasons


# Never outside what can be


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1_000),
    decisions=st.sampled_from([20, 200, 1_000]),
    rate=st.sampled_from([0.0, 0.01, 0.5, 0.99, 1.0]),
    low=st.sampled_from([-1.0, 0.0, 5.0]),
    share=st.sampled_from([0.0, 0.3]),
    with_pmf=st.booleans(),
)
def test_no_interval_leaves_the_range_of_what_can_be(
    seed: int, decisions: int, rate: float, low: float, share: float, with_pmf: bool
) -> None:
    """A click rate of 1.005 or a mean of +-1 rewards of -1.001 ends the trust in all other figures."""
    columns = log_without(share, seed=seed, with_pmf=with_pmf, decisions=decisions, low=low).columns
    clicked = np.random.default_rng([seed, 1]).random(decisions) < rate
    columns = replace(columns, reward=clicked.astype(np.float64) + low)
    found = forced(columns, FIXED, breakdown=True)
    rounding = 1e-12
    for name, one in found.estimates.items():
        if name != "dm":
            assert low - rounding <= one.low <= one.high <= low + 1 + rounding, name
        if name not in ("ips", "dm") and not np.isnan(one.value):  # replay may have accepted no decision
            assert one.low - rounding <= one.value <= one.high + rounding, name
    assert found.difference is not None
    assert -1 - rounding <= found.difference.low <= found.difference.high <= 1 + rounding
    assert found.curve is not None
    for below, above in zip(found.curve.low, found.curve.high, strict=True):
        assert low - rounding <= below <= above <= low + 1 + rounding
    for segment in found.segments:
        if segment.estimate:
            assert low - rounding <= segment.estimate.low <= segment.estimate.high <= low + 1 + rounding


def test_an_ips_outside_the_range_says_that_it_is_chance() -> None:
    """It is unbiased because it is allowed to be; the interval is not."""
    columns = replace(log_without(0.0, seed=12, with_pmf=True, decisions=200).columns, reward=np.ones(200))
    weight = float((columns.action == 3).mean()) * 4
    assert weight > 1
    one = forced(columns, FIXED).estimates["ips"]
    assert one.value == pytest.approx(weight)
    assert one.high == 1
    assert "by chance" in one.note


def test_cumulative_bounds_meet_the_plain_ones_where_nothing_is_missing() -> None:
    """One sequence, not two: the value is the running mean."""
    columns = logged_world(seed=3, decisions=500).columns
    (scores,) = score(columns, [parse("uniform", columns)])
    estimator = Estimator(scores)
    samples = estimator.samples(estimator.terms)
    assert samples.lowest is samples.highest is samples.own
    assert cumulative_estimate(estimator).value[-1] == pytest.approx(samples.own.value)
