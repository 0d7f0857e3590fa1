"""What code 3 of thompson adds beside its regressions: a level of each action, and noises that fade."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decider.policy.make import make_policy
from decider.policy.thompson.evidence import Foretold
from decider.policy.thompson.levels import PENALTY, STEPS, Levels, weight_of
from decider.policy.thompson.noise import FadingNoise, LastingNoise
from decider.policy.thompson.posterior import GUESS, Posterior
from decider.policy.thompson.rules import CODES, DISCOUNTED_MARGIN, LEVELS_MARGIN, NEWEST, Rules
from decider.policy.thompson.thompson import ThompsonPolicy
from decider.types import Context
from tests.conftest import plain_choices, spec
from tests.test_thompson import evidence

ACTIONS = plain_choices(3)
SHOP = Context(device="mobile")


def thompson(saved: bytes | None = None, **changed: float) -> ThompsonPolicy:
    """Of the newest code, with the defaults but for what is changed."""
    policy = make_policy(spec("thompson", **changed), saved)
    assert isinstance(policy, ThompsonPolicy)
    return policy


def teach(policy: ThompsonPolicy, random: Random, count: int, rates: tuple[float, ...]) -> None:
    """So many decisions, drawn evenly; each action's rate of rewards."""
    for _ in range(count):
        drawn = random.randrange(len(rates))
        paid = float(random.random() < rates[drawn])
        policy.learn(SHOP, ACTIONS[: len(rates)], drawn=drawn, propensity=1 / len(rates), reward=paid)


def serve(policy: ThompsonPolicy, random: Random, count: int, rates: tuple[float, ...]) -> None:
    """So many decisions, drawn as a server draws."""
    for _ in range(count):
        pmf = [0.98 * p + 0.02 / len(rates) for p in policy.pmf(SHOP, ACTIONS)]
        (drawn,) = random.choices(range(len(rates)), pmf)
        paid = float(random.random() < rates[drawn])
        policy.learn(SHOP, ACTIONS, drawn=drawn, propensity=pmf[drawn], reward=paid)


@pytest.mark.parametrize("seed", range(3))
def test_an_action_that_wears_out_is_seen_within_200_decisions(seed: int) -> None:
    """Everybody has seen the banner. A regression that remembers 3,000 decisions would show it for hundreds more."""
    chosen = {}
    for memory in (0.0, 1000.0):
        policy, random = thompson(memory=memory), Random(seed)
        teach(policy, random, 3_000, (0.5, 0.3, 0.1))
        assert policy.pmf(SHOP, ACTIONS)[0] > 0.9
        serve(policy, random, 200, (0.1, 0.3, 0.1))
        chosen[memory] = policy.pmf(SHOP, ACTIONS)[0]
    assert chosen[0.0] > 0.9
    assert chosen[1000.0] < 0.5


def test_without_a_memory_there_are_no_levels() -> None:
    """`memory = 0` is for those whose world stands still."""
    policy = thompson(memory=0.0)
    teach(policy, Random(1), 100, (0.3, 0.1, 0.1))
    assert set(evidence(policy)) == {"remembers"}
    assert "levels" in evidence(thompson())


def surprises(levels: Levels, count: int, *, seed: int = 1) -> None:
    """Action 1 earns 0.2 less than foretold, action 2 what was foretold."""
    random = Random(seed)
    for _ in range(count):
        row = random.choice((1, 2))
        levels.learn(Foretold(row, random.gauss(-0.2 if row == 1 else 0.0, 0.1), 1.01, 0.01), 5.0)


KNOWN = Posterior(np.array([[0.5, 0.5, 0.5]]), np.array([[0.001, 0.001, 0.001]]))
ROWS = np.array([0, 1, 2])


def test_a_level_is_what_an_action_was_lately_off_by() -> None:
    """Of an action without data (row 0) it is 0, within what the prior allows: 1 / penalty of the noise's variance."""
    levels = Levels(memory=500.0)
    surprises(levels, 400)
    mean, variance = levels.known().posterior(KNOWN, ROWS, 0.01)
    assert mean[0] == pytest.approx([0.5, 0.32, 0.5], abs=0.03)
    noise = levels.to_arrays()["noise"]
    value = (noise[0] + GUESS) / (noise[1] + 1)
    assert variance[0, 0] == pytest.approx((0.001 / 0.01 + 1 / (PENALTY * 5.0)) * value)
    assert variance[0, 1] < variance[0, 0] / 1.2


def test_levels_forget() -> None:
    """What was off in spring says nothing in summer."""
    levels = Levels(memory=100.0)
    surprises(levels, 400)
    for _ in range(400):
        levels.learn(Foretold(2, 0.0, 1.01, 0.01), 5.0)
    assert levels.known().posterior(KNOWN, ROWS, 0.01).mean[0] == pytest.approx([0.5, 0.5, 0.5], abs=0.02)


def test_levels_that_are_restored_or_copied_are_the_same_to_the_last_bit() -> None:
    """A decision names a position; a restart must not change what serves there."""
    levels, restored = Levels(memory=500.0), Levels(memory=500.0)
    surprises(levels, 150)
    copy = levels.known().frozen()
    restored.restore({name: array.copy() for name, array in levels.to_arrays().items()})
    before = levels.known().posterior(KNOWN, ROWS, 0.01)
    for one in (levels, restored):
        surprises(one, 150, seed=2)
    assert np.array_equal(copy.posterior(KNOWN, ROWS, 0.01), before)
    after, others = levels.known().posterior(KNOWN, ROWS, 0.01), restored.known().posterior(KNOWN, ROWS, 0.01)
    assert np.array_equal(after, others)
    assert not np.array_equal(after, before)


def test_a_policy_whose_levels_serve_goes_on_after_a_restart_as_if_nothing_had_happened() -> None:
    """Snapshot, stored model and policy, bit for bit, while two pmfs are averaged."""
    policy, random = thompson(), Random(5)
    teach(policy, random, 1_500, (0.3, 0.15, 0.1))
    teach(policy, random, 120, (0.0, 0.15, 0.1))
    found = evidence(policy)
    assert 0 < weight_of(found["levels"] - LEVELS_MARGIN - found["remembers"]) < 1
    loaded, copy, before = thompson(policy.save()), policy.snapshot(), list(policy.pmf(SHOP, ACTIONS))
    assert list(loaded.pmf(SHOP, ACTIONS)) == list(copy.pmf(SHOP, ACTIONS)) == before
    for one in (policy, loaded):
        teach(one, Random(6), 90, (0.0, 0.15, 0.1))
    assert policy.save() == loaded.save()
    assert list(loaded.pmf(SHOP, ACTIONS)) == list(policy.pmf(SHOP, ACTIONS)) != before
    assert list(copy.pmf(SHOP, ACTIONS)) == before


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_a_weight_is_a_whole_number_of_steps(one: float, other: float) -> None:
    """The last bits of `exp` differ between C libraries; a step is far larger than they are."""
    assert (weight_of(one) * STEPS).is_integer()
    assert 0 <= weight_of(one) <= 1
    assert one >= other or weight_of(one) <= weight_of(other)


class JudgedByFading(FadingNoise):
    """What learning code 3 does not do."""

    @property
    def judged(self) -> float:
        """The noise of lately."""
        return self.value


def most_ahead(rules: Rules, *, seed: int = 1) -> float:
    """How far the regression that forgets was ever ahead where only the rewards' variance moves."""
    policy = ThompsonPolicy(width=0.45, memory=1000.0, draws=2, rules=rules)
    random, most = Random(seed), 0.0
    for step in range(4_000):
        drawn, wide = random.randrange(2), 0.45 if step // 1_000 % 2 == 0 else 0.02
        paid = 0.5 + random.uniform(-wide, wide)
        policy.learn(SHOP, ACTIONS[:2], drawn=drawn, propensity=0.5, reward=paid)
        if step % 100 == 99:
            found = policy._evidence.of
            most = max(most, found["forgets"] - found["remembers"])
    return most


def test_who_forgets_is_not_trusted_since_the_variance_of_rewards_moved() -> None:
    """It moves while a policy learns to choose. Judged by a noise that fades, that one is ahead by far more than its
    margin, though it foretells no reward better."""
    rules = CODES[NEWEST]
    assert most_ahead(rules._replace(noise=JudgedByFading)) > 3 * rules.margin
    assert most_ahead(rules) < DISCOUNTED_MARGIN == rules.margin


def test_older_codes_trust_who_forgets_at_once_and_forget_no_noise() -> None:
    """Their logs replay."""
    for code in (1, 2):
        rules = CODES[code]
        assert (rules.noise, rules.margin, rules.levels, rules.shares) == (LastingNoise, 0.0, False, False)


def test_a_noise_that_fades_follows_the_rewards() -> None:
    """Rewards that have grown calm; a restart changes nothing. It is judged by all of them."""
    fading, lasting, restored = FadingNoise(), LastingNoise(), FadingNoise()
    for residual in (0.5, 0.05):
        for _ in range(500):
            for noise in (fading, lasting):
                noise.add(residual, 1.0)
                noise.discount(1 - 1 / 100)
    assert fading.value < 0.01 < 0.1 < lasting.value == lasting.judged == fading.judged
    restored.restore(fading.to_list(), 1_000)
    assert (restored.value, restored.judged) == (fading.value, fading.judged)


@pytest.mark.parametrize("memory", [0.1, 1.0, 1.5])
def test_the_shortest_memory_is_that_of_one_decision(memory: float) -> None:
    """An experiment may say so; a share below 0 of what was would grow without end."""
    policy, random = thompson(memory=memory), Random(2)
    for _ in range(100):
        teach(policy, random, 4, (0.3, 0.1, 0.6))
        assert sum(policy.snapshot().pmf(SHOP, ACTIONS)) == pytest.approx(1.0)


def test_evidence_that_is_no_number_has_no_weight() -> None:
    """A model that has learned nonsense must not end the learner."""
    assert weight_of(float("nan")) == 0.0
    assert weight_of(float("-inf")) == 0.0
    assert weight_of(float("inf")) == 1.0
