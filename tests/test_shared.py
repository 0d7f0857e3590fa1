"""One regression of many actions: its posterior against dense matrices, when it begins, what it is for, its memory."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from decider.policy.features import Vector, vector_of
from decider.policy.make import make_policy
from decider.policy.protocol import Choice
from decider.policy.thompson.features import CONSTANT, is_number
from decider.policy.thompson.rules import CODES
from decider.policy.thompson.shared import LEAST_ACTIONS, MOST_FEATURES, SHARED_WORK, SharedRegression, with_products
from decider.policy.thompson.thompson import ThompsonPolicy
from decider.types import ActionId, Context, FeatureValue
from tests.conftest import posterior_of, spec
from tests.test_thompson import regressions, serving

NEWEST = max(CODES)


def regression() -> SharedRegression:
    """One that has learned nothing."""
    return SharedRegression(CODES[NEWEST].admission(SHARED_WORK), CODES[NEWEST])


def told(number: int) -> Vector:
    """Features of an action: some have fewer."""
    features: dict[str, FeatureValue] = {"brand": str(number % 7), "price": float(number % 5)}
    if number % 4:
        features["hue"] = str(number % 3)
    return tuple([(f"A {name}", value) for name, value in vector_of(features)])


def context(random: Random) -> Vector:
    """Two categories and a number."""
    fields: dict[str, FeatureValue] = {"device": str(random.randrange(3)), "age": random.random(), "vip": True}
    return ((CONSTANT, 1.0), *vector_of(fields))


def dense(one: SharedRegression, action: str, shared: Vector, own: Vector) -> tuple[float, float]:
    """Mean and variance of an action, term by term; the variance without what all actions have in common."""
    size, names = one._weights.shape[1], dict(with_products(action, shared + own))
    x, differs = np.zeros(size), np.zeros(size)
    unknown = 0.0
    for name, value in names.items():
        common = name in dict(shared)
        if name in one._places:
            x[one._places[name]] = value
            differs[one._places[name]] = 0.0 if common else value
        elif not common and not is_number(name) and not one._wide:
            unknown += one._prior.variance_of(name)
    return float(x @ one._weights[0]), float(differs @ one._covariance[0] @ differs + unknown) * one.noise


@pytest.mark.parametrize("lessons", [0, 12, 150, 600])
def test_the_posterior_is_that_of_dense_matrices(lessons: int) -> None:
    """It is computed feature by feature, since 200 actions share a few dozen; unknown features have their prior's."""
    random, one = Random(lessons), regression()
    ids, own = tuple([f"id={number}" for number in range(60)]), tuple([told(number) for number in range(60)])
    for _ in range(lessons):
        drawn = random.randrange(40)
        one.learn(ids[drawn], context(random) + own[drawn], float(random.random() < 0.3))
    for _ in range(3):
        shared = context(random)
        found = posterior_of(one, ids, shared, own)
        expected = [dense(one, id_, shared, features) for id_, features in zip(ids, own, strict=True)]
        assert found.mean == pytest.approx([mean for mean, _ in expected], abs=1e-9)
        assert found.variance == pytest.approx([variance for _, variance in expected], abs=1e-9)


def test_actions_without_features_have_their_ids() -> None:
    """A call may leave out the features of some, or of all."""
    random, one = Random(1), regression()
    for number in range(50):
        one.learn(f"id={number % 5}", context(random), float(number % 5 == 0))
    mean = posterior_of(one, ("id=0", "id=1", "id=9"), context(random), ((), (), ())).mean
    assert mean[0] > mean[2] > mean[1]


CHOICES = [
    Choice(ActionId(f"item {number}"), "item", {"brand": f"b{number % 8}", "style": f"s{number % 5}"})
    for number in range(60)
]


def teach(policy: ThompsonPolicy, choices: list[Choice], *, seed: int, count: int) -> None:
    """Who is mobile wants brand b1, others want b2."""
    random = Random(seed)
    for _ in range(count):
        seen = Context(device=random.choice(("mobile", "desktop")))
        drawn = random.randrange(len(choices))
        wanted = {"mobile": "b1", "desktop": "b2"}[seen.device] == choices[drawn].features.get("brand")
        likely = 0.6 if wanted else 0.05
        policy.learn(seen, choices, drawn=drawn, propensity=0.1, reward=float(random.random() < likely))


def thompson(code: int = NEWEST, saved: bytes | None = None) -> ThompsonPolicy:
    """With the defaults."""
    policy = make_policy(spec("thompson"), saved, code)
    assert isinstance(policy, ThompsonPolicy)
    return policy


def test_what_is_learned_of_one_action_helps_to_choose_another() -> None:
    """The 200th product is like those that were shown before."""
    policy = thompson()
    teach(policy, CHOICES[:50], seed=1, count=800)
    assert serving(policy) == "shares"
    for device, brand in (("mobile", "b1"), ("desktop", "b2")):
        pmf = policy.pmf(Context(device=device), CHOICES[50:])
        assert sum([p for p, one in zip(pmf, CHOICES[50:], strict=True) if one.features["brand"] == brand]) > 0.9


@pytest.mark.parametrize(
    ("code", "choices", "begins"),
    [
        (NEWEST, CHOICES[:LEAST_ACTIONS], True),
        (NEWEST, CHOICES[: LEAST_ACTIONS - 1], False),
        (NEWEST, [Choice(one.id) for one in CHOICES], False),
        (2, CHOICES, False),
    ],
)
def test_it_begins_where_many_actions_have_features(code: int, choices: list[Choice], begins: bool) -> None:
    """It costs its share of learning; few actions are learned as well one by one."""
    policy = thompson(code)
    teach(policy, choices, seed=2, count=3)
    assert ("shares" in regressions(policy)) == begins


def test_calls_that_offer_a_few_of_many_actions_count_together() -> None:
    """A segment may be offered ten of 200."""
    policy = thompson()
    for start in range(0, 60, 10):
        for drawn in range(10):
            policy.learn(Context(), CHOICES[start : start + 10], drawn=drawn, propensity=0.1, reward=0.5)
    assert "shares" in regressions(policy)


@pytest.mark.parametrize("count", [40, 700])
def test_saved_and_copied_it_is_the_same_to_the_last_bit(count: int) -> None:
    """A server that is started again goes on as if it had not been."""
    policy = thompson()
    teach(policy, CHOICES, seed=3, count=count)
    loaded, served, seen = thompson(saved=policy.save()), policy.snapshot(), Context(device="mobile")
    assert "shares" in regressions(loaded)
    before = list(policy.pmf(seen, CHOICES))
    assert list(loaded.pmf(seen, CHOICES)) == list(served.pmf(seen, CHOICES)) == before
    assert before in [list(pmf) for pmf in served.pmfs([Context(device="desktop"), seen], CHOICES)]
    for one in (policy, loaded):
        teach(one, CHOICES, seed=4, count=80)
    assert policy.save() == loaded.save()
    assert list(served.pmf(seen, CHOICES)) == before


def test_ever_new_features_of_actions_do_not_fill_the_memory() -> None:
    """Titles as features, in every call others."""
    one, random = regression(), Random(5)
    for number in range(400):
        own: Vector = ((f"A title={number}", 1.0), ("A brand=a", 1.0))
        one.learn(f"id={number}", context(random) + own, float(number % 2))
    known, left_out = one.vocabulary
    assert known <= MOST_FEATURES
    assert left_out > 1_000
    mean = posterior_of(one, ("id=1", "id=x"), context(random), ((("A brand=a", 1.0),), (("A title=x", 1.0),))).mean
    assert np.isfinite(mean).all()
