"""A verdict is about a log and a question, not about how rewards are written: laws over logs of known worlds."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decider.estimate.sample import Floats
from simulator.evaluate.parse import parse
from simulator.evaluate.result import Finding, Verdict
from simulator.evaluate.run import evaluate
from simulator.logs.columns import Codes, Columns
from tests.logged_worlds import logged_world

CANDIDATES = ("uniform", "fixed:gift", "fixed:sale", "logged")


class Kind(NamedTuple):
    """What rewards a world has. share: of the decisions with the larger one; amounts: it varies."""

    name: str
    share: float
    low: float = 0.0
    high: float = 1.0
    amounts: bool = False


KINDS = (
    Kind("clicks of 1 %", 0.01),
    Kind("clicks of 40 %", 0.4),
    Kind("successes of 99.5 %", 0.995),
    Kind("plus and minus one", 0.5, low=-1.0),
    Kind("nothing ever", 0.0),
    Kind("always", 1.0),
    Kind("amounts", 0.2, high=500.0, amounts=True),
)


def world_of(kind: Kind, *, seed: int, decisions: int, with_pmf: bool) -> Columns:
    """A log with rewards of this kind; one action in a segment gets more."""
    columns = logged_world(seed=seed, decisions=decisions, with_pmf=with_pmf).columns
    rng = np.random.default_rng(seed)
    share = np.where(columns.action == 4, min(1.0, 1.5 * kind.share), kind.share)
    more = rng.random(decisions) < share
    high = np.minimum(rng.lognormal(3.0, 1.0, decisions), kind.high) if kind.amounts else np.full(decisions, kind.high)
    return replace(columns, reward=np.where(more, high, kind.low), reward_range=(kind.low, kind.high))


def transformed(columns: Columns, *, factor: float, shift: float) -> Columns:
    """The same log with its rewards and their range on another scale."""
    low, high = sorted(factor * np.array(columns.reward_range) + shift)
    reward: Floats = np.clip(factor * columns.reward + shift, low, high)
    return replace(columns, reward=reward, reward_range=(float(low), float(high)))


def verdicts(columns: Columns) -> dict[str, dict[str, Verdict]]:
    """By policy and check; of the log under ''."""
    found = evaluate(columns, [parse(name, columns) for name in CANDIDATES], breakdown=False)
    return {"": _by_check(found.log.findings)} | {
        one.name: _by_check(one.diagnostics.findings) for one in found.policies
    }


def _by_check(findings: tuple[Finding, ...]) -> dict[str, Verdict]:
    return {one.name: one.verdict for one in findings}


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 1_000),
    decisions=st.sampled_from([40, 300, 2_000]),
    with_pmf=st.booleans(),
    factor=st.sampled_from([-100.0, -2.0, -1.0, 0.25, 1.0, 1_000.0]),
    shift=st.sampled_from([-50.0, -1.0, 0.0, 0.5, 1.0]),
)
def test_a_verdict_does_not_depend_on_how_rewards_are_written(
    kind: Kind, seed: int, decisions: int, with_pmf: bool, factor: float, shift: float
) -> None:
    """Clicks as -1 and 0, costs in place of gains, cents in place of euros: the log knows as much as before."""
    columns = world_of(kind, seed=seed, decisions=decisions, with_pmf=with_pmf)
    assert verdicts(columns) == verdicts(transformed(columns, factor=factor, shift=shift))


# What is answered, and why something is not


def one_action(*, rate: float, seed: int, decisions: int = 400, low: float = 0.0) -> Columns:
    """Ten actions, uniform: `k0` succeeds at this rate, the others in half of the cases; a failure earns `low`."""
    rng = np.random.default_rng(seed)
    action = rng.integers(0, 10, decisions).astype(np.int32)
    success = rng.random(decisions) < np.where(action == 0, rate, 0.5)
    return uniform_log(action, 10, np.where(success, 1.0, low), low=low)


def uniform_log(action: Codes, actions: int, reward: Floats, *, low: float = 0.0, propensity: float = 0.0) -> Columns:
    """Without pmfs and without context. propensity: that of all draws, 1/actions unless it is said."""
    decisions, time = len(action), np.arange(len(action), dtype=np.int64) * 1_000_000
    return Columns(
        name="uniform",
        actions=tuple(f"k{number}" for number in range(actions)),
        action=action,
        propensity=np.full(decisions, propensity or 1 / actions),
        reward=reward,
        reward_range=(low, 1.0),
        time=time,
        known=time,
        unit=np.arange(decisions),
        fields={},
        sets=(tuple(range(actions)),),
        eligible=np.zeros(decisions, np.int32),
    )


@pytest.mark.parametrize("low", [0.0, -1.0])
@pytest.mark.parametrize("rate", [0.0, 0.005, 0.995, 1.0])
def test_whoever_always_earns_the_same_is_answered_and_rightly(rate: float, low: float) -> None:
    """All of an action's rewards the usual one: its interval is the narrowest of all, and it used to be refused."""
    for seed in range(30):
        columns = one_action(rate=rate, seed=seed, low=low)
        found = evaluate(columns, [parse("fixed:k0", columns)], breakdown=False).policies[0]
        assert not found.refused
        one, truth = found.estimates["dr"], rate + (1 - rate) * low
        assert one.low <= truth <= one.high
        assert one.high - one.low < 0.3 * (1 - low)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.99, 1.0])
def test_a_log_of_nearly_equal_rewards_is_answered_with_a_caution(share: float) -> None:
    """Few clicks and few failures are the same thing: an interval, and how much more would be needed."""
    reward = (np.arange(4_000) % 100 < 100 * share).astype(np.float64)
    columns = uniform_log(np.random.default_rng(5).integers(0, 4, 4_000).astype(np.int32), 4, reward)
    found = evaluate(columns, [parse("fixed:k1", columns)], breakdown=False).policies[0]
    assert not found.refused
    assert next(one for one in found.diagnostics.findings if one.name == "interval").verdict == "caution"


@pytest.mark.parametrize("reward", [0.0, 1.0, 5.0, -2.5])
def test_equal_rewards_without_a_range_answer_nothing_and_with_one_they_do(reward: float) -> None:
    """4,000 zeros said "rewards have two values" and were answered with [0, .0015]: nobody knows what one can be."""
    action = np.random.default_rng(5).integers(0, 4, 4_000).astype(np.int32)
    declared = uniform_log(action, 4, np.full(4_000, reward))
    declared = replace(declared, reward_range=(min(0.0, reward), max(1.0, reward)))
    unknown = replace(declared, range_declared=False)
    found = evaluate(unknown, [parse("fixed:k1", unknown)], breakdown=False)
    (finding,) = [one for one in found.policies[0].diagnostics.findings if one.name == "reward range"]
    assert finding.verdict == found.log.verdict == "do not use"
    assert found.policies[0].refused
    assert "two values" not in finding.text
    assert "--reward-range" in finding.needed
    answered = evaluate(declared, [parse("fixed:k1", declared)], breakdown=False).policies[0]
    assert not answered.refused


def test_an_interval_as_wide_as_what_can_be_is_refused() -> None:
    """Ten effective draws, but their rewards are spread beyond what the log has seen: nothing is known."""
    action = np.r_[np.zeros(40), np.ones(3_960)].astype(np.int32)
    columns = uniform_log(action, 2, np.random.default_rng(1).random(4_000))
    columns = replace(columns, propensity=np.where(action == 0, 0.01, 0.99), reward_range=(0.0, 1_000.0))
    found = evaluate(columns, [parse("fixed:k0", columns)], breakdown=False).policies[0]
    assert found.diagnostics.ess == pytest.approx(40)
    assert found.refused
    (finding,) = [one for one in found.diagnostics.findings if one.verdict == "do not use"]
    assert finding.name == "interval"
    assert "more decisions like these" in finding.needed


# Many actions, some of them never drawn


@pytest.mark.parametrize(("actions", "decisions"), [(200, 400), (1_000, 2_000)])
def test_uniform_over_actions_that_never_came_says_how_many_are_missing_and_how_to_name_them(
    actions: int, decisions: int
) -> None:
    """The true reason, and a way out that works: with all of them known the answer is the log's mean."""
    rng = np.random.default_rng(7)
    drawn = rng.integers(0, actions, decisions).astype(np.int32)
    reward = (rng.random(decisions) < 0.2).astype(np.float64)
    known, code = np.unique(drawn, return_inverse=True)
    short = uniform_log(code.astype(np.int32), len(known), reward, propensity=1 / actions)
    refused = evaluate(short, [parse("uniform", short)], breakdown=False).policies[0]
    assert refused.refused
    (reason,) = refused.diagnostics.reasons
    assert f"about {actions:,} actions could be drawn, and only {len(known):,} are known" in reason
    assert "z =" not in reason
    assert f"--actions {actions}" in " ".join(one.needed for one in refused.diagnostics.findings)
    whole = uniform_log(drawn, actions, reward)
    answered = evaluate(whole, [parse("uniform", whole)], breakdown=False).policies[0]
    assert not answered.refused
    assert answered.estimates[answered.headline].value == reward.mean()


def test_propensities_that_are_too_small_are_the_reason_where_chance_cannot_have_hidden_so_many() -> None:
    """20,000 draws would have shown each of 235 actions: there are 200, and their propensities are wrong."""
    drawn = np.random.default_rng(8).integers(0, 200, 20_000).astype(np.int32)
    columns = uniform_log(drawn, 200, np.zeros(20_000), propensity=0.85 / 200)
    (reason,) = evaluate(columns, [parse("uniform", columns)], breakdown=False).policies[0].diagnostics.reasons
    assert "more often than their propensities say" in reason
    assert "z =" not in reason
