"""Features as models see them: what differs for a model differs as a key, and what is the same is the same key."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
from collections.abc import Mapping
from random import Random

import numpy as np
import pytest
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from hypothesis import example, given
from hypothesis import strategies as st

from decider.experiment.features import read_features
from decider.log.tables import json_text
from decider.policy.features import fields_vector, vector_of
from decider.policy.make import load_model, make_policy, save_model
from decider.policy.protocol import Choice
from decider.policy.thompson.arrays import json_from_array
from decider.policy.thompson.views import FeaturePairs
from decider.types import ActionId, Context, Features, FeatureValue
from tests.conftest import feature_maps, plain_choices, sample_version, spec
from tests.test_encode import as_read

ALIKE = (True, 1.0, 1, "true", "1.0", False, 0.0, -0.0, 0, "false", 1e-7, -1e-7, "")
"""Equal for Python, or for its printing, where they are not for a model; and the other way round."""

alike_maps: st.SearchStrategy[Mapping[str, str | float | bool]] = st.dictionaries(
    st.sampled_from(("a", "b", "a=true", "a:")), st.sampled_from(ALIKE), max_size=3
)
maps = alike_maps | feature_maps


def meaning(features: Features) -> dict[str, tuple[type, str | float]]:
    """What a model reads, told apart by its kind: as the encoder's tests state it, not as it is written."""
    return {name: (type(value), value) for name, value in as_read(features).items()}


@given(maps, maps)
@example({"vip": True}, {"vip": 1.0})
@example({"x": -0.0}, {"x": 0.0})
@example({"x": 1}, {"x": 1.0})
def test_maps_are_the_same_key_if_and_only_if_models_read_them_alike(one: Features, other: Features) -> None:
    """Python holds True, 1 and 1.0 for the same key: a cache that believed it would serve one for the other."""
    same = meaning(one) == meaning(other)
    assert (vector_of(one) == vector_of(other)) == same
    first, second = Choice(ActionId("a"), "offer", one), Choice(ActionId("a"), "offer", other)
    assert (first == second) == same
    assert (first in {second: 0}) == same


@given(maps, st.randoms(use_true_random=False))
def test_the_order_of_a_map_makes_no_other_key(features: Features, random: Random) -> None:
    """Or a cache would hold the same thing a hundred times."""
    shuffled = list(features.items())
    random.shuffle(shuffled)
    other = Choice(ActionId("a"), features=dict(shuffled))
    assert Choice(ActionId("a"), features=features) == other
    assert hash(Choice(ActionId("a"), features=features)) == hash(other)


def test_choices_of_other_ids_or_kinds_differ() -> None:
    """And a choice is no tuple of its parts."""
    one = Choice(ActionId("a"), "offer")
    assert one != Choice(ActionId("b"), "offer")
    assert one != Choice(ActionId("a"), "cta")
    assert one != ("a", "offer", ())


@given(maps)
def test_no_vector_holds_a_negative_zero(features: Features) -> None:
    """0.0 == -0.0, so a cache could not tell them apart; nor can a model."""
    assert all(str(value) != "-0.0" for _, value in vector_of(features))


@pytest.mark.parametrize("algorithm", ["thompson", "squarecb"])
@given(asked=st.lists(st.tuples(alike_maps, alike_maps), min_size=2, max_size=6))
@example([({"a": value}, {"a": value}) for value in ALIKE])
@example([({"a": value}, {"a": value}) for value in reversed(ALIKE)])
def test_what_was_asked_before_never_changes_an_answer(algorithm: str, asked: list[tuple[Features, Features]]) -> None:
    """Caches only: a policy that has been asked a lot says what one says that is asked for the first time."""
    of = spec(algorithm)
    policy, random = make_policy(of), Random(1)
    for number in range(40):
        features = {"a": ALIKE[number % 4], "b": ALIKE[number % 6]}
        actions = [Choice(ActionId(id_), features={"a": ALIKE[random.randrange(4)]}) for id_ in "xyz"]
        policy.learn(Context(features=features), actions, drawn=number % 3, propensity=0.5, reward=random.random())
    saved = save_model(of, policy)
    for context, own in asked:
        actions = [Choice(ActionId("x"), features=own), Choice(ActionId("y"))]
        fresh = load_model(of, saved)
        assert policy.pmf(Context(features=context), actions) == fresh.pmf(Context(features=context), actions)


SAME = """
import pickle, sys
from decider.policy.protocol import Choice
print(pickle.load(sys.stdin.buffer) in {Choice("sale", "offer", {"price": 9.5, "colour": "red"}): 0})
"""


def test_a_choice_is_still_a_key_in_another_process() -> None:
    """A kept hash would be that of the process that wrote it: another one hashes texts otherwise."""
    choice = pickle.dumps(Choice(ActionId("sale"), "offer", {"colour": "red", "price": 9.5}))
    done = subprocess.run([sys.executable, "-c", SAME], input=choice, capture_output=True, check=True)
    assert done.stdout.strip() == b"True"


def test_fields_come_first_and_free_features_by_name() -> None:
    """The order in which features first come is the order of a model's columns, and so of its sums."""
    context = Context(intent_stage="buy", segment="new", features={"b": True, "a": 2, "Z": "z"})
    assert fields_vector(context[:5]) == (("segment=new", 1.0), ("intent_stage=buy", 1.0))
    assert vector_of(context.features) == (("Z=z", 1.0), ("a:", 2.0), ("b=true", 1.0))


def test_models_of_thompson_keep_the_names_that_old_ones_have() -> None:
    """A stored model is read by its names: with others it would know nothing."""
    policy = make_policy(spec("thompson", "CA", "CCA"))
    context = Context(device="mobile", features={"age": 31, "vip": True})
    choice = Choice(ActionId("sale"), "offer", {"price": 9.5, "colour": "red|blue"})
    policy.learn(context, [choice], drawn=0, propensity=1.0, reward=1.0)
    with np.load(io.BytesIO(policy.save())) as arrays:
        known = json_from_array(arrays["remembers.words"])
        pairs = json_from_array(arrays["pairs.words"])
    plain = ["constant", "device=mobile", "age:", "vip=true", "A colour=red%7Cblue", "A price:"]
    assert known == {"places": plain, "rows": ["id=sale"]}
    assert pairs["places"] == [*plain, "CC device=mobile age:", "CC device=mobile vip=true", "CC vip=true age:"]


def test_all_active_actions_are_always_the_same_tuple() -> None:
    """Caches find the same object without looking into it."""
    version = sample_version()
    assert version.choices_of(version.all_active, {}) is version.choices_of(version.all_active, {})
    assert version.choices_of((*version.all_active,), {}) == version.choices_of(version.all_active, {})


def test_features_of_the_call_win_over_those_of_the_action() -> None:
    """And those of other actions stay as they are."""
    version, sale = sample_version(), ActionId("sale")
    one, other = version.choices_of((sale, ActionId("outfit")), {sale: {"discount": 0.5, "stock": 3}})
    assert one.features == {"discount": 0.5, "colour": "red", "stock": 3}
    assert other is version.choices[ActionId("outfit")]
    assert plain_choices(1)[0].features == {}


@given(feature_maps)
def test_one_walk_over_a_message_gives_features_in_order_and_one_text(features: Features) -> None:
    """Every call is checked, scored and logged from one reading: it must hold all that was sent, as it was sent."""
    message = Struct()
    message.update(dict(sorted(features.items(), reverse=True)))
    read, violations = read_features(message)
    assert not violations
    assert list(read) == sorted(features)
    assert json_text(read) == json.dumps(
        {name: read[name] for name in sorted(features)}, separators=(",", ":"), ensure_ascii=False
    )
    assert {name: (type(value), value) for name, value in read.items()} == {
        name: (type(value), value) for name, value in json_format.MessageToDict(message).items()
    }


def test_features_that_come_with_a_call_fill_no_cache() -> None:
    """They hardly ever come twice: to keep each costs more than to compute it, and pushes out what does recur."""
    policy = make_policy(spec("thompson")).snapshot()
    for turn in range(50):
        choices = [Choice(ActionId(id_), features={"price": turn / 7 + index}) for index, id_ in enumerate("ab")]
        policy.pmf(Context(features={"basket": turn / 3}), choices)
    predictor = policy._served.predictor  # type: ignore[attr-defined]
    assert not predictor._cache
    assert not predictor._stacks
    pairs = FeaturePairs()
    assert pairs.of((("A price:", 0.5), ("A new=true", 1.0))) == (("A price:", 0.5), ("A new=true", 1.0))
    assert not pairs._cache


@pytest.mark.parametrize("value", [0.0, -0.0, "", False])
def test_a_value_that_is_its_kinds_default_is_read_as_it_was_sent(value: FeatureValue) -> None:
    """The kind of most values is told by their not being the default; the others must not get lost or change kind."""
    message = Struct()
    message.update({"x": value})
    read, violations = read_features(message)
    assert not violations
    assert (type(read["x"]), str(read["x"])) == (type(value), str(value))
