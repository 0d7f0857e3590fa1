"""More features than a regression has room for: the frequent ones have it, and nothing grows without bound."""

from __future__ import annotations

import io
import logging
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decider.policy.features import Vector
from decider.policy.make import make_policy
from decider.policy.protocol import Choice
from decider.policy.thompson import admission, counts
from decider.policy.thompson.admission import CELLS, CHECK_AFTER, HALVE_AFTER, FirstCome, MostFrequent
from decider.policy.thompson.arrays import json_from_array, pack, unpack
from decider.policy.thompson.counts import BYTES, HASHES, DistinctCount, HeavyHitters
from decider.policy.thompson.regression import Regression
from decider.policy.thompson.rules import CODES
from decider.policy.thompson.thompson import ThompsonPolicy
from decider.types import ActionId, Context
from simulator.studies.wide import CONTEXTS, lessons, lift
from tests.conftest import plain_choices, spec
from tests.test_thompson import arrays, regressions, thompson

DATA = Path(__file__).parent / "data"


class Lesson(NamedTuple):
    """A sealed decision."""

    context: Context
    actions: tuple[Choice, ...]
    drawn: int
    reward: float


def visits(seed: int, count: int, *, cities: int, numbers: int = 1) -> list[Lesson]:
    """Some of the values are frequent, others come once; three actions with a price each."""
    random, found = Random(seed), []
    for number in range(count):
        features: dict[str, float | str] = {f"n{i}": random.random() for i in range(numbers)}
        if random.random() < 0.3:
            features["session"] = f"s{number}"
        city = int(random.random() ** 3 * cities)
        context = Context(segment=random.choice(("new", "vip")), location=f"c{city}", features=features)
        actions = tuple(Choice(ActionId(f"a{i}"), "offer", {"price": float(random.randrange(9))}) for i in range(3))
        drawn = random.randrange(3)
        found.append(Lesson(context, actions, drawn, float(random.random() < (0.6 if city % 3 == drawn else 0.2))))
    return found


def teach(policy: ThompsonPolicy, lessons: Sequence[Lesson]) -> None:
    """In their order."""
    for one in lessons:
        policy.learn(one.context, one.actions, drawn=one.drawn, propensity=1 / 3, reward=one.reward)


def pmfs(policy: ThompsonPolicy, lessons: Sequence[Lesson]) -> list[Sequence[float]]:
    """To all these visits, without learning."""
    return [policy.pmf(one.context, one.actions) for one in lessons]


@contextmanager
def little_room(cells: int, size: int = BYTES, halved: int = HALVE_AFTER) -> Iterator[None]:
    """So that few visits do not fit, and are long ago."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(admission, "CELLS", cells)
        patch.setattr(admission, "HALVE_AFTER", halved)
        patch.setattr(counts, "BYTES", size)
        yield


KINDS = {"seed": st.integers(0, 2**32 - 1), "cities": st.integers(1, 40), "pairs": st.booleans()}


@given(**KINDS, memory=st.sampled_from([0.0, 30.0, 1000.0]), cells=st.sampled_from([400, 2_000, 8_000, CELLS]))
@settings(max_examples=25)
def test_while_all_features_fit_both_codes_are_the_same_to_the_last_bit(
    seed: int, cities: int, pairs: bool, memory: float, cells: int
) -> None:
    """A new version must not change what an experiment without wide contexts has learned."""
    with little_room(cells):
        first, counted = (thompson(code, pairs=pairs, memory=memory) for code in (1, 2))
        for one in visits(seed, 80, cities=cities):
            assert counted.pmf(one.context, one.actions) == first.pmf(one.context, one.actions)
            for policy in (first, counted):
                teach(policy, [one])
            if any(too_many(regression) for regression in counted._regressions.values()):
                return
        after = arrays(counted)
        for name, array in arrays(first).items():
            assert after[name].tobytes() == array.tobytes(), name


def too_many(regression: Any) -> bool:
    """Whether it has met more features than it has room for."""
    known = len(regression._places)
    return regression.vocabulary.left_out > 0 or len(regression._weights) * known * known > admission.CELLS


@given(**KINDS, memory=st.sampled_from([0.0, 60.0]), cut=st.integers(1, 399), size=st.sampled_from([1_000, BYTES]))
@settings(max_examples=15)
def test_where_features_are_left_out_a_loaded_policy_goes_on_as_if_nothing_had_happened(
    seed: int, cities: int, pairs: bool, memory: float, cut: int, size: int
) -> None:
    """What is counted and what waits for room is state, too: a server that is started again must replay."""
    taught = visits(seed, 400, cities=cities)
    with little_room(1_500, size, halved=150):
        policy = thompson(pairs=pairs, memory=memory)
        teach(policy, taught[:cut])
        loaded = thompson(2, policy.save(), pairs=pairs, memory=memory)
        assert loaded.vocabulary() == policy.vocabulary()
        assert pmfs(loaded, taught[:20]) == pmfs(policy, taught[:20]) == pmfs_of_snapshot(policy, taught[:20])
        for one in (policy, loaded):
            teach(one, taught[cut:])
        assert loaded.save() == policy.save()
        assert pmfs(loaded, taught[:20]) == pmfs(policy, taught[:20])
        assert cut < 200 or policy.vocabulary().left_out > 0


def pmfs_of_snapshot(policy: ThompsonPolicy, lessons: Sequence[Lesson]) -> list[Sequence[float]]:
    """The same question to what serves."""
    snapshot = policy.snapshot()
    return [snapshot.pmf(one.context, one.actions) for one in lessons]


def test_a_snapshot_cannot_be_taught_or_stored() -> None:
    """It has no sums to go on from: a model that was stored of it would be a wrong one."""
    policy, (one,) = thompson(), visits(1, 1, cities=3)
    snapshot = policy.snapshot()
    with pytest.raises(TypeError, match="a snapshot does not learn"):
        snapshot.learn(one.context, one.actions, drawn=0, propensity=0.3, reward=1.0)
    with pytest.raises(TypeError, match="save the policy"):
        snapshot.save()


def lesson_of(city: int | None, random: Random) -> Vector:
    """Of a regression."""
    place: Vector = () if city is None else ((f"location=c{city}", 1.0),)
    return (("constant", 1.0), ("n:", random.random()), *place)


def test_the_sums_of_features_that_stay_are_exact() -> None:
    """Others come and go; what is known of these must not suffer."""
    random, counted = Random(5), Regression(MostFrequent(), CODES[2])
    everything: list[Vector] = []
    for number in range(4_000):
        city = number // 2 % 8 if number < 16 or number % 2 else 100 + number
        everything.append(lesson_of(city, random))
        with little_room(800):
            counted.learn("a", everything[-1], random.random())
    stayed = ["constant", "n:", *[f"location=c{city}" for city in range(8)]]
    assert counted.vocabulary.left_out > 1_000
    names = known(counted)
    moments = unpack(counted.to_arrays()["moments"], len(names), np.zeros((len(names), len(names))))[1]
    places = [names.index(name) for name in stayed]
    design = np.array([[dict(one).get(name, 0.0) for name in stayed] for one in everything])
    assert moments[np.ix_(places, places)] == pytest.approx(design.T @ design, rel=1e-9)


def known(regression: Regression) -> list[str]:
    """The names of the features that it uses."""
    names: list[str] = json_from_array(regression.to_arrays()["words"])["places"]
    return names


def seated(regression: Regression) -> set[int]:
    """The cities that are known."""
    return {int(name.removeprefix("location=c")) for name in known(regression) if name.startswith("location=c")}


def test_the_frequent_features_get_the_room_whenever_they_come() -> None:
    """First come, first kept would know the first visitors' cities for ever."""
    random, counted, first = Random(6), Regression(MostFrequent(), CODES[2]), Regression(FirstCome(), CODES[1])
    with little_room(450, halved=1_000):  # 15 features
        for number in range(6_000):
            frequent = range(10) if number < 3_000 else range(10, 20)
            city = random.choice(frequent) if number > 100 and random.random() < 0.7 else random.randrange(20, 600)
            for regression in (counted, first):
                regression.learn("a", lesson_of(city, random), random.random())
            if number == 2_999:
                assert seated(counted) >= set(range(10))
    assert seated(counted) >= set(range(10, 20))
    assert not seated(first) & set(range(10))
    newcomers = json_from_array(counted.to_arrays()["admission"])["newcomers"]
    waiting = {city for city in range(10) if f"location=c{city}" in newcomers}
    assert waiting | seated(counted) >= set(range(10)), "who leaves does not begin at 0"
    assert len(known(counted)) <= 15


def test_features_that_are_about_equally_frequent_do_not_take_turns() -> None:
    """Each change begins with no sums: what would be changed all the time would never be learned."""
    random, counted, seats = Random(7), Regression(MostFrequent(), CODES[2]), []
    with little_room(450):
        for number in range(12_000):
            counted.learn("a", lesson_of(random.randrange(40), random), random.random())
            if number % CHECK_AFTER == 0:
                seats.append(seated(counted))
    assert all(seats[i] == seats[3] for i in range(3, len(seats)))
    assert len(seats[-1]) == 13


def test_what_hardly_ever_comes_gets_no_room_although_some_is_left() -> None:
    """To try all actions for it would cost more than it can be worth, and every visit would pay for its column."""
    random, counted = Random(8), Regression(MostFrequent(), CODES[2])
    with little_room(450):
        for number in range(8_000):
            counted.learn("a", lesson_of(random.randrange(4) if number % 3 else 50 + number, random), random.random())
    assert seated(counted) == {0, 1, 2, 3}
    assert len(known(counted)) < 15
    assert counted.vocabulary.left_out == pytest.approx(8_000 / 3, rel=0.25)


def test_new_actions_take_room_from_rare_features() -> None:
    """Features that came while there were few actions would otherwise be kept for a thousand actions, without bound."""
    random, counted = Random(9), Regression(MostFrequent(), CODES[2])
    for number in range(2_000):
        action = "a" if number < 1_000 else f"a{number % 200}"
        counted.learn(action, lesson_of(random.randrange(300), random), random.random())
        assert counted._covariance.size <= 2.5 * CELLS
    assert len(counted.to_arrays()["weights"]) * len(known(counted)) ** 2 <= CELLS


@given(st.lists(st.text("abcdeé", min_size=1, max_size=3), max_size=300), st.integers(100, 1_000))
def test_counts_of_frequent_names_are_never_too_large_and_bounded(names: list[str], size: int) -> None:
    """Misra and Gries: too small at most by what was added in all / names that fit."""
    with little_room(CELLS, size):
        frequent = HeavyHitters()
        for name in names:
            frequent.add(name)
            assert frequent.bytes <= size
    true, longest = Counter(names), 64 + 6
    for name, count in true.items():
        assert 0 <= count - frequent.counts.get(name, 0) <= len(names) / (size // longest)
    assert frequent.bytes == HeavyHitters(frequent.counts).bytes


@given(st.lists(st.sampled_from("abcdefgh"), max_size=200), st.integers(1, 6))
def test_counts_are_those_of_the_algorithm_as_it_was_published(names: list[str], kept: int) -> None:
    """Step by step; with it go its proofs."""
    published: dict[str, int] = {}
    with little_room(CELLS, 65 * kept):
        frequent = HeavyHitters()
        for name in names:
            frequent.add(name)
            if name in published or len(published) < kept:
                published[name] = published.get(name, 0) + 1
            else:
                published = {other: count - 1 for other, count in published.items() if count > 1}
    assert frequent.counts == published


@pytest.mark.parametrize("count", [0, HASHES - 1, 3_000, 100_000])
def test_distinct_names_are_counted_about(count: int) -> None:
    """In two kilobytes; exactly while there are few. Four standard errors are 25 %."""
    distinct = DistinctCount()
    for _ in range(2):
        for number in range(count):
            distinct.add(f"q{number}")
    assert len(distinct) == (count if count < HASHES else pytest.approx(count, rel=0.25))
    assert len(distinct.hashes) <= HASHES


@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 3), st.booleans(), st.integers(0, 2**32 - 1))
def test_packed_matrices_come_back_to_the_last_bit(
    count: int, size: int, more: int, symmetric: bool, seed: int
) -> None:
    """Half of a symmetric one is enough; one that differs from its transpose in a sign of zero is stored whole."""
    rng = np.random.default_rng(seed)
    outside = np.eye(size + more)
    matrices = np.tile(outside, (count, 1, 1))
    inner = rng.normal(size=(count, size, size))
    matrices[:, :size, :size] = inner + inner.transpose(0, 2, 1) if symmetric else inner
    if size > 1 and symmetric:
        matrices[0, 0, 1], matrices[0, 1, 0] = rng.choice([0.0, -0.0], 2)
    found = pack(matrices, size)
    assert unpack(found, size, outside).tobytes() == matrices.tobytes()
    assert found.ndim == 3 or found.size == count * size * (size + 1) // 2


@pytest.mark.parametrize("experiment", ["th-ca", "th-cca", "th-mem0"])
def test_models_that_were_stored_before_halves_were_still_load(experiment: str) -> None:
    """An old log's models are those of learning code 1, with all rows and columns."""
    with sqlite3.connect(f"file:{DATA / 'log-0.1.0-algorithms.db'}?mode=ro&immutable=1", uri=True) as log:
        (data,) = log.execute(
            "select data from models where experiment = ? and data is not null order by position desc", (experiment,)
        ).fetchone()
    policy = thompson(1, data, pairs=experiment == "th-cca", memory=0.0 if experiment == "th-mem0" else 1000.0)
    after = arrays(policy)
    with np.load(io.BytesIO(data)) as before:
        assert set(before) == set(after)
        for name in regressions(policy):
            targets, weights = after[f"{name}.targets"], after[f"{name}.weights"]
            size = weights.shape[1]
            assert np.array_equal(targets, before[f"{name}.targets"][:, :size])
            assert np.array_equal(weights, before[f"{name}.weights"][:, :size])
            for array, outside in (("moments", 0.0), ("spread", 1.0)):
                whole = before[f"{name}.{array}"]
                found = unpack(after[f"{name}.{array}"], size, outside * np.eye(whole.shape[1]))
                assert np.array_equal(found, whole)
    assert len(policy.save()) < 0.85 * len(data)


def test_that_features_are_left_out_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """Silence lets people believe that all of their fields count; a line a decision fills the disk."""
    policy, taught = thompson(), visits(3, 300, cities=100)
    with caplog.at_level(logging.WARNING), little_room(1_500):
        teach(policy, taught[:2])
        assert not caplog.records
        teach(policy, taught)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "no room for all features" in caplog.text


def test_ever_new_names_do_not_fill_the_memory() -> None:
    """Whatever strangers send: 20,000 decisions, in each a category and a number that never came before."""
    policy, random = thompson(), Random(10)
    actions = tuple(Choice(ActionId(f"a{i}")) for i in range(10))
    for number in range(20_000):
        features: dict[str, float | str] = {
            "session": f"{number} {'x' * random.randrange(200)}",
            f"n{number}": random.random(),
        }
        context = Context(segment=random.choice(("new", "vip")), features=features)
        policy.learn(context, actions, drawn=random.randrange(10), propensity=0.1, reward=random.random())
    assert len(policy.save()) < 1e6
    for regression in policy._regressions.values():
        assert isinstance(regression, Regression)
        held = regression._moments, regression._targets, regression._covariance, regression._weights
        assert sum(array.nbytes for array in held) < 2 * 8 * CELLS * 1.1
        assert isinstance(regression._admission, MostFrequent)
        assert regression._admission._newcomers.bytes <= BYTES
    assert policy.vocabulary().left_out == pytest.approx(40_000, rel=0.25)


@pytest.mark.parametrize("name", CONTEXTS)
def test_a_stored_model_stays_small(name: str) -> None:
    """It is stored again and again, and every worker loads it."""
    visitor, actions = CONTEXTS[name]
    policy = thompson()
    for one in lessons(visitor, actions=actions, count=2_500, seed=3):
        policy.learn(one.context, one.actions, drawn=one.drawn, propensity=1 / actions, reward=one.reward)
    assert len(policy.save()) < 5e6


def test_of_500_cities_the_30_that_matter_are_learned() -> None:
    """First come, first kept learned the cities of the first visitors; what is lost to the others must stay little."""
    told, counted, first = (
        lift("even", seed=4, rounds=6_000, code=code, all_known=all_known)
        for code, all_known in ((2, False), (2, True), (1, True))
    )
    assert counted > 0.8 * told
    assert counted > 1.1 * first


def test_a_model_that_was_stored_goes_on_to_the_same_bits_after_features_were_chosen() -> None:
    """A choice leaves arrays in another layout than loading does, and the order of a sum over rows depends on it."""
    actions, random = plain_choices(10), Random(0)
    policy = loaded = make_policy(spec("thompson"))
    for number in range(2_000):
        most = 300 if number < 900 else 20
        features = {f"w{field}": f"v{random.randrange(most)}" for field in range(2)}
        context, drawn = Context(device=random.choice("md"), features=features), random.randrange(10)
        paid = float(random.random() < 0.1 + 0.8 * (drawn % 2) * (number // 300 % 2))
        if number == 1_500:
            loaded = make_policy(spec("thompson"), policy.save())
        for one in {id(policy): policy, id(loaded): loaded}.values():
            one.learn(context, actions, drawn=drawn, propensity=0.1, reward=paid)
    assert loaded.save() == policy.save()
