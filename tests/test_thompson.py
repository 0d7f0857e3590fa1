"""Thompson sampling with propensities: its regressions against their closed form, its pmf against known ones."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from random import Random
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from decider.errors import InvalidExperiment
from decider.experiment.schema import from_message
from decider.policy.features import Vector
from decider.policy.make import make_policy, save_model
from decider.policy.protocol import Choice, Policy
from decider.policy.thompson.admission import CELLS, MostFrequent
from decider.policy.thompson.arrays import Floats, json_from_array
from decider.policy.thompson.pmf import CANDIDATES, best_of
from decider.policy.thompson.regression import Regression, inverse
from decider.policy.thompson.rules import CODES
from decider.policy.thompson.thompson import ThompsonPolicy
from decider.policy.thompson.views import BIN_AFTER, BINS, MAX_NUMBERS, NumberBins, edges
from decider.types import ActionId, Context
from decider.v1 import experiment_pb2 as pb
from tests.conftest import plain_choices, posterior_of, spec

ACTIONS = plain_choices(3)
SEGMENTS = ("new", "regular", "vip")


def solved_at(regression: Regression) -> int:
    """How many lessons its last solution is of."""
    return int(regression.to_arrays()["counts"][1])


def learned(seed: int, count: int) -> tuple[Regression, list[tuple[Vector, float]]]:
    """One action's regression and what it was taught: at least `count` lessons, until it has just been solved anew."""
    random, regression = Random(seed), Regression(MostFrequent(), CODES[2])
    lessons: list[tuple[Vector, float]] = []
    while len(lessons) < count or solved_at(regression) < len(lessons):
        segment, age = random.choice(SEGMENTS), random.gauss(40, 10)
        features = (("constant", 1.0), (f"segment={segment}", 1.0), ("age:", age))
        reward = 0.2 + 0.3 * (segment == "vip") + 0.005 * age + random.gauss(0, 0.1)
        regression.learn("a", features, reward)
        lessons.append((features, reward))
    return regression, lessons


def closed_form(lessons: Sequence[tuple[Vector, float]], asked: Vector) -> tuple[float, float]:
    """Mean and variance (in units of the noise) by a linear algebra library, over features in the same order."""
    names = list(dict.fromkeys(name for features, _ in lessons for name, _ in features))
    design = np.array([[dict(features).get(name, 0.0) for name in names] for features, _ in lessons])
    rewards = np.array([reward for _, reward in lessons])
    penalty = np.array([design[:, i].var() if name.endswith(":") else 1.0 for i, name in enumerate(names)])
    covariance = np.linalg.inv(design.T @ design + np.diag(penalty))
    weights = covariance @ (design.T @ (rewards - rewards.mean()))
    x = np.array([dict(asked).get(name, 0.0) for name in names])
    return float(rewards.mean() + x @ weights), float(x @ covariance @ x)


@pytest.mark.parametrize("count", [2, 25, 200, 700])
def test_a_regression_is_the_ridge_regression_of_what_it_learned(count: int) -> None:
    """Everything rests on it."""
    regression, lessons = learned(count, count)
    asked = (("constant", 1.0), ("segment=vip", 1.0), ("age:", 33.0)) if count > 20 else lessons[0][0]
    beliefs = posterior_of(regression, ("a",), asked, ((),))
    mean, variance = closed_form(lessons, asked)
    assert beliefs.mean[0] == pytest.approx(mean, rel=1e-7)
    assert beliefs.variance[0] == pytest.approx(variance * regression.noise, rel=1e-7)


def test_between_two_solutions_every_reward_counts_at_once() -> None:
    """A reward that waited for the next solution would not be learned within a second."""
    regression, _ = learned(1, 400)
    solved = solved_at(regression)
    asked = (("constant", 1.0), ("segment=new", 1.0), ("age:", 40.0))
    before = posterior_of(regression, ("a",), asked, ((),))
    regression.learn("a", asked, 5.0)
    after = posterior_of(regression, ("a",), asked, ((),))
    assert after.mean[0] > before.mean[0]
    assert solved_at(regression) == solved


def test_nothing_is_known_of_a_new_action_but_the_mean_of_all() -> None:
    """It is hoped to be like the others, and it is uncertain."""
    regression, lessons = learned(3, 200)
    asked = lessons[-1][0]
    beliefs = posterior_of(regression, ("a", "new"), asked, ((), ()))
    assert beliefs.mean[1] == pytest.approx(np.mean([reward for _, reward in lessons]))
    assert beliefs.variance[1] > 100 * beliefs.variance[0]


@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_the_sweep_gives_the_inverse(size: int, seed: int) -> None:
    """Against LAPACK's."""
    rng = np.random.default_rng(seed)
    half: Floats = rng.normal(size=(3, size, size))
    matrices = half @ half.transpose(0, 2, 1) + np.eye(size)
    assert np.allclose(inverse(matrices), np.linalg.inv(matrices), rtol=1e-7, atol=1e-9)


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(0.001, 1), st.floats(0.001, 1))
def test_the_better_of_two_has_its_known_probability(one: float, other: float, narrow: float, wide: float) -> None:
    """P(X > Y) for normals is known; the integral comes close, however unlike the widths."""
    pmf = best_of(np.array([one, other]), np.array([narrow, wide]))
    known = NormalDist().cdf((one - other) / (narrow**2 + wide**2) ** 0.5)
    assert pmf[0] / pmf.sum() == pytest.approx(known, abs=0.005)


def test_the_best_of_many_has_the_share_of_draws_that_it_wins() -> None:
    """Against two million draws; 5 standard errors are 0.002."""
    rng = np.random.default_rng(3)
    mean, deviation = rng.uniform(0, 1, 8), rng.uniform(0.2, 0.5, 8)
    draws = rng.normal(mean, deviation, (400_000, 8)).argmax(axis=1)
    wins = np.bincount(draws, minlength=8) / len(draws)
    pmf = best_of(mean, deviation)
    assert pmf.sum() == pytest.approx(1.0, abs=0.002)
    assert np.abs(pmf - wins).max() < 0.005


def teach(policy: ThompsonPolicy, seed: int, count: int, *, flipped: bool = False) -> None:
    """`a0` pays for those in front of a desktop, `a1` for the others; the other way round if flipped."""
    random = Random(seed)
    for _ in range(count):
        context = Context(device=random.choice(("mobile", "desktop")))
        drawn = random.randrange(3)
        pays = {"desktop": 0, "mobile": 1}[context.device]
        likely = 0.3 if drawn == (1 - pays if flipped else pays) else 0.1
        policy.learn(context, ACTIONS, drawn=drawn, propensity=1 / 3, reward=float(random.random() < likely))


def thompson(code: int = 2, saved: bytes | None = None, *, pairs: bool = False, **changed: float) -> ThompsonPolicy:
    """With the defaults but for what is changed."""
    policy = make_policy(spec("thompson", *(("CA", "CCA") if pairs else ("CA",)), **changed), saved, code)
    assert isinstance(policy, ThompsonPolicy)
    return policy


def arrays(policy: ThompsonPolicy) -> dict[str, NDArray[Any]]:
    """What is stored."""
    with np.load(io.BytesIO(policy.save())) as stored:
        return dict(stored)


def evidence(policy: ThompsonPolicy) -> dict[str, float]:
    """Of each of its regressions; the one with the most serves, and one that was dropped has none at all."""
    found: dict[str, float] = json_from_array(arrays(policy)["evidence"])
    return found


def serving(policy: ThompsonPolicy) -> str:
    """The name of the regression that serves."""
    found = evidence(policy)
    return max(found, key=found.__getitem__)


def regressions(policy: ThompsonPolicy) -> set[str]:
    """The names of those that learn."""
    return {name.partition(".")[0] for name in arrays(policy)} - {"evidence"}


def test_what_turns_is_forgotten_by_the_second_regression() -> None:
    """A season turns: with all of the past in mind, the action of last season is still chosen."""
    chosen = {}
    for memory in (0.0, 1000.0):
        policy = thompson(memory=memory)
        teach(policy, 1, 6_000)
        teach(policy, 2, 2_500, flipped=True)
        chosen[memory] = policy.pmf(Context(device="desktop"), ACTIONS)
    assert chosen[0.0][0] > 0.5
    assert chosen[1000.0][1] > 0.5


def test_while_nothing_turns_the_one_that_remembers_is_asked() -> None:
    """Forgetting costs."""
    policy = thompson(memory=500.0)
    teach(policy, 3, 6_000)
    assert serving(policy) == "remembers"


def at_noon(policy: ThompsonPolicy, count: int) -> None:
    """`a0` pays from 11 to 14, `a1` at all other hours: nothing that is linear in the hour can tell."""
    random = Random(8)
    for _ in range(count):
        hour = float(random.randrange(7, 23))
        drawn = random.randrange(2)
        reward = float(random.random() < (0.6 if (drawn == 0) == (11 <= hour < 14) else 0.2))
        policy.learn(Context(features={"hour": hour}), ACTIONS[:2], drawn=drawn, propensity=0.5, reward=reward)


def test_a_number_may_matter_by_ranges() -> None:
    """Lunch at noon."""
    policy = thompson()
    at_noon(policy, 2_000)
    chosen = [policy.pmf(Context(features={"hour": hour}), ACTIONS[:2])[0] > 0.5 for hour in (8.0, 12.0, 18.0)]
    assert chosen == [False, True, False]
    assert serving(policy) == "ranges"


@pytest.mark.parametrize("count", [BIN_AFTER // 2, BIN_AFTER + 50], ids=["before it knows its ranges", "after"])
def test_ranges_are_kept(count: int) -> None:
    """A server that is started again goes on with the same ranges, also where it was still gathering values."""
    policy = thompson()
    at_noon(policy, count)
    again = thompson(saved=policy.save())
    for one in (policy, again):
        at_noon(one, BIN_AFTER)
    asked = Context(features={"hour": 12.0})
    assert again.pmf(asked, ACTIONS[:2]) == policy.pmf(asked, ACTIONS[:2])
    assert again.save() == policy.save()


def test_ranges_are_given_up_where_there_is_no_room_for_all() -> None:
    """Of many numbers only the first would have them."""
    policy, random = thompson(), Random(2)
    names = [f"pixel{number}" for number in range(40)]
    for _ in range(BIN_AFTER + 60):
        context = Context(features={name: random.random() for name in names})
        policy.learn(context, ACTIONS, drawn=random.randrange(3), propensity=1 / 3, reward=random.random())
    assert "ranges" not in regressions(policy)
    again = thompson(saved=policy.save())
    for one in (policy, again):
        teach(one, 3, 100)
    assert "ranges" not in regressions(again)
    assert again.save() == policy.save()


@given(st.integers(1, 10), st.integers(0, 2**16))
def test_draws_that_have_to_agree_raise_the_pmf_to_their_number(draws: int, seed: int) -> None:
    """One is plain Thompson sampling: P(best). Two: P(both are i) / P(both are the same), and so on."""
    plain, agreeing = thompson(draws=1), thompson(draws=draws)
    for one in (plain, agreeing):
        teach(one, seed, 20)
    best = np.array(plain.pmf(Context(device="mobile"), ACTIONS))
    expected = best**draws / (best**draws).sum()
    assert agreeing.pmf(Context(device="mobile"), ACTIONS) == pytest.approx(expected.tolist(), rel=1e-9)


def test_without_numbers_there_are_no_ranges() -> None:
    """They would cost their share and say nothing."""
    policy = thompson()
    teach(policy, 1, 50)
    assert "ranges" not in regressions(policy)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=BIN_AFTER))
def test_no_range_is_empty(values: list[float]) -> None:
    """Of the values that the ranges were made from, also where most are the largest."""
    values += [max(values)] * (BIN_AFTER - len(values))
    found = edges(values)
    assert len(found) < BINS
    assert found == sorted(set(found))
    counts = np.bincount(np.searchsorted(found, values), minlength=len(found) + 1)
    assert counts.min() > 0


def alike(policy: Policy, count: int) -> float:
    """Who pays is decided by segment and device together: `a0` where they are alike, else `a1`; each alone says
    nothing. The least that the right one gets."""
    random = Random(4)
    for _ in range(count):
        context = Context(segment=random.choice("xy"), device=random.choice("xy"))
        drawn = random.randrange(3)
        reward = float(drawn == (context.segment != context.device))
        policy.learn(context, ACTIONS, drawn=drawn, propensity=1 / 3, reward=reward)
    asked = [Context(segment=segment, device=device) for segment, device in product("xy", repeat=2)]
    return min(policy.pmf(one, ACTIONS)[int(one.segment != one.device)] for one in asked)


def test_pairs_of_features_are_learned_if_asked_for() -> None:
    """They cost time and memory: their number grows with the square."""
    assert alike(make_policy(spec("thompson", "CA", "CCA")), 1_000) > 0.99
    assert alike(make_policy(spec("thompson")), 1_000) < 0.5


def test_pairs_that_say_nothing_are_not_asked() -> None:
    """They would only need more decisions."""
    policy, random = thompson(pairs=True), Random(9)
    for _ in range(800):
        context = Context(segment=random.choice("xyz"), device=random.choice("xyz"), location=random.choice("xyz"))
        drawn = random.randrange(3)
        reward = float(random.random() < (0.6 if ACTIONS[drawn].id[1] == str("xyz".index(context.device)) else 0.2))
        policy.learn(context, ACTIONS, drawn=drawn, propensity=1 / 3, reward=reward)
    assert "pairs" in regressions(policy)
    assert serving(policy) != "pairs"


def test_terms_that_it_does_not_know_are_refused() -> None:
    """A setting that is ignored is worse than one that is refused."""
    message = pb.Experiment(id="x", actions=[pb.Action(id="a")], policy=pb.Policy(interactions=["CA", "AAC"]))
    message.policy.thompson.SetInParent()
    with pytest.raises(InvalidExperiment, match='knows "CA" and "CCA" only'):
        from_message(message)


def test_features_of_actions_that_change_from_call_to_call_count() -> None:
    """A price known only now decides: cheap is bought."""
    policy, random = thompson(), Random(5)
    for _ in range(600):
        prices = [random.uniform(1, 9) for _ in range(2)]
        drawn = random.randrange(2)
        policy.learn(Context(), _priced(prices), drawn=drawn, propensity=0.5, reward=float(prices[drawn] < 4))
    assert policy.pmf(Context(), _priced([2.0, 8.0]))[0] > 0.95
    assert policy.pmf(Context(), _priced([8.0, 2.0]))[1] > 0.95


def _priced(prices: Sequence[float]) -> list[Choice]:
    return [Choice(ActionId(f"a{i}"), "offer", {"price": price}) for i, price in enumerate(prices)]


def test_the_unit_of_a_number_does_not_matter() -> None:
    """Euros or cents: the penalty goes with the number's variance."""
    answers = []
    for unit in (1.0, 7.0):
        policy, random = thompson(), Random(6)
        for _ in range(300):
            age = random.uniform(18, 80)
            drawn = random.randrange(3)
            reward = float(random.random() < (0.8 if (drawn == 0) == (age > 50) else 0.2))
            policy.learn(Context(features={"age": age * unit}), ACTIONS, drawn=drawn, propensity=1 / 3, reward=reward)
        answers.append(policy.pmf(Context(features={"age": 60.0 * unit}), ACTIONS))
    assert answers[0] == pytest.approx(answers[1], abs=1e-6)


def test_of_many_actions_the_most_promising_can_be_the_best() -> None:
    """Quadratic work is bounded; the one that pays is among them."""
    actions = plain_choices(3 * CANDIDATES)
    policy, random = thompson(), Random(7)
    for _ in range(4_000):
        drawn = random.randrange(len(actions))
        policy.learn(Context(), actions, drawn=drawn, propensity=1 / len(actions), reward=float(drawn == 70))
    pmf = policy.pmf(Context(), actions)
    assert len(pmf) == len(actions)
    assert pmf[70] > 0.9
    assert sum(p > 0 for p in pmf) <= CANDIDATES


def test_of_many_equal_actions_each_has_the_same_chance() -> None:
    """Else the first 32 of an experiment would be tried until their rewards come, and the others would not."""
    policy, choices = thompson(code=3), plain_choices(100)
    for drawn in range(10):
        policy.learn(Context(), choices, drawn=drawn, propensity=0.01, reward=float(drawn == 0))
    pmf = policy.pmf(Context(), choices)
    assert len(set(pmf[10:])) == 1
    assert pmf[0] > pmf[10] > pmf[1]
    assert sum(pmf) == pytest.approx(1.0)
    assert list(policy.pmf(Context(), choices[::-1])) == pytest.approx(pmf[::-1])
    seen = [Context(device=device) for device in ("mobile", "desktop", "")]
    assert [list(found) for found in policy.pmfs(seen, choices)] == [list(policy.pmf(one, choices)) for one in seen]


def test_ever_new_features_do_not_fill_the_memory() -> None:
    """A frontend that sends session ids as a feature must not stop the server."""
    policy = thompson(memory=0.0)
    for number in range(400):
        context = Context(segment="vip", features={"session": f"s{number}"})
        policy.learn(context, ACTIONS, drawn=number % 3, propensity=1 / 3, reward=float(number % 3 == 1))
    assert len(pickle.dumps(policy)) < 2 * 8 * 2 * CELLS
    assert policy.pmf(Context(segment="vip", features={"session": "new"}), ACTIONS)[1] > 0.9


def test_ever_new_numbers_do_not_fill_the_memory() -> None:
    """The same frontend, with a number under a new name every time."""
    ranges = NumberBins()
    for number in range(2 * MAX_NUMBERS):
        ranges.see(((f"session{number}:", 1.0),))
    assert len(json_from_array(ranges.to_arrays()["numbers"])["values"]) == MAX_NUMBERS


@pytest.mark.parametrize("threads", ["1", "2"])
def test_the_bits_do_not_depend_on_the_threads_of_a_library(threads: str) -> None:
    """A log that was written by a server on one core must replay on all of them."""
    code = "from tests.test_thompson import fingerprint; print(fingerprint())"
    environment = os.environ | dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), threads)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == fingerprint()


def fingerprint() -> str:
    """Of a model that has learned many features."""
    of = replace(spec("thompson"), interactions=("CA", "CCA"))
    policy, random = make_policy(of), Random(8)
    for _ in range(300):
        features = {f"f{i}": random.random() for i in range(8)}
        context = Context(segment=random.choice(SEGMENTS), features=features)
        policy.learn(context, ACTIONS, drawn=random.randrange(3), propensity=1 / 3, reward=random.random())
    return save_model(of, policy).checksum
