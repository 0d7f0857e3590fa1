"""The lines that Vowpal Wabbit reads: whatever callers send, a feature stays one feature of its own namespace."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from random import Random
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from decider.experiment.definition import Action
from decider.policy.features import vector_of
from decider.policy.protocol import Choice
from decider.policy.vw import encode
from decider.policy.vw.encode import action_line
from decider.policy.vw.workspace import VwPolicy
from decider.types import CONTEXT_FIELDS, ActionId, Context, Features
from tests.conftest import ODD, contexts, feature_maps, names, sample_version, spec, texts

Parsed = Mapping[str, str | float]


def context_line(context: Context) -> str:
    """The line of a context."""
    return encode.context_line(context[:5], vector_of(context.features))


def parse(line: str, *head: str) -> Parsed:
    """Read a line back as VW would split it: tokens at spaces, a number after `:`, else a category after `=`."""
    assert not re.search(r"[\x00-\x1f\x7f]", line)
    assert len(line.splitlines()) == 1
    assert line.count("|") == 1
    tokens = line.split(" ")
    assert tuple(tokens[: len(head)]) == head
    parsed: dict[str, str | float] = {}
    for token in tokens[len(head) :]:
        assert token.count("=") + token.count(":") == 1, token
        assert not re.search(r"\s", token), token
        name, sign, value = re.split("([=:])", token)
        parsed[unquote(name)] = unquote(value) if sign == "=" else float(value)
    assert len(parsed) == len(tokens) - len(head), "two features became one"
    return parsed


def as_read(features: Features) -> Parsed:
    """Features as the line holds them: flags are categories, numbers are tamed."""
    return {name: str(value).lower() if isinstance(value, bool) else tamed(value) for name, value in features.items()}


def tamed(value: str | float) -> str | float:
    """Tiny numbers are 0, large ones grow with the logarithm; a whole number is no kind of its own."""
    if isinstance(value, str):
        return value
    if 1e-6 <= abs(value) <= 1000:
        return float(value)
    if abs(value) < 1e-6:
        return 0.0
    return math.copysign(1000 * (1 + math.log(abs(value) / 1000)), value)


@given(st.floats(-1e12, 1e12), st.floats(-1e12, 1e12))
def test_larger_numbers_stay_larger_and_none_is_extreme(one: float, other: float) -> None:
    """Taming keeps the order of two numbers, and float32 holds the square of the product of four."""
    line = context_line(Context(features={"x": one, "y": other}))
    low, high = (float(value) for value in re.findall(r":(\S+)", line))
    assert (low <= high) if one <= other else (low >= high)
    assert max(abs(low), abs(high)) ** 8 < 3e38


@given(contexts)
@example(Context(segment="a |A id=sale", features={"x:1 y": "b=c", "z\nshared |C": 2.0}))
@example(Context(segment="%7C", device="|", features={"%3D": "=", "=": "%3D"}))
def test_a_context_reads_back_as_itself(context: Context) -> None:
    """No input can become another feature, namespace or line, and no two contexts become the same line."""
    fields = {name: getattr(context, name) for name in CONTEXT_FIELDS if getattr(context, name)}
    assert parse(context_line(context), "shared", "|C") == {**fields, **as_read(context.features)}


@given(names, texts, feature_maps, feature_maps)
def test_an_action_reads_back_as_itself(id_: str, kind: str, features: Features, extra: Features) -> None:
    """As for the context; features given at the call win over the action's own."""
    version = sample_version(actions=(Action(ActionId(id_), kind, features),), baseline=None)
    (action,) = version.choices_of(version.all_active, {ActionId(id_): extra})
    line = action_line(action)
    assert parse(line, "|A") == {"id": id_, "kind": kind, **as_read({**features, **extra})}


@given(contexts, st.randoms(use_true_random=False))
def test_the_order_of_features_does_not_matter(context: Context, random: Random) -> None:
    """Callers and languages order maps differently; the same context must be the same line."""
    shuffled = list(context.features.items())
    random.shuffle(shuffled)
    other = context._replace(features=dict(shuffled))
    assert context_line(context) == context_line(other)
    one, two = (Choice(ActionId("a"), "b", features) for features in (context.features, other.features))
    assert action_line(one) == action_line(two)


@given(feature_maps, feature_maps)
def test_distinct_features_give_distinct_lines(one: Features, other: Features) -> None:
    """Two contexts that mean different things must not be learned as one."""
    same = as_read(one) == as_read(other)
    assert (context_line(Context(features=one)) == context_line(Context(features=other))) == same


def test_a_category_and_a_number_of_the_same_name_differ() -> None:
    """A caller who sends "31" where 31 is meant must not disturb the weight of the number."""
    assert context_line(Context(features={"age": "31.0"})) == "shared |C age=31.0"
    assert context_line(Context(features={"age": 31.0})) == "shared |C age:31.0"


def test_a_numpy_number_is_encoded_as_a_number() -> None:
    """numpy's float64 is a float to every type check; its repr is not, and worlds of the simulator are numpy."""
    number = np.float64(31.5)
    assert context_line(Context(features={"age": number})) == "shared |C age:31.5"
    assert action_line(Choice(ActionId("a"), "b", {"price": number})) == "|A id=a kind=b price:31.5"


@pytest.mark.parametrize("odd", [*ODD, "\ufeff", "\u202e", "e\u0301", "\U0010ffff", "a" * 256, "'tag", "shared", "1.0"])
def test_vw_takes_every_odd_text(odd: str) -> None:
    """Odd text must neither raise in VW nor make a pmf that differs from one workspace to the next."""
    context = Context(segment=odd, features={odd + "1": odd, odd + "2": 2.0, odd + "3": True})
    actions = [Choice(ActionId(id_), odd, {odd: odd}) for id_ in ("a", "b", odd)]
    pmfs = []
    for _ in range(2):
        policy = VwPolicy(spec("squarecb").made_by)
        for drawn in (0, 1, 2) * 5:
            policy.learn(context, actions, drawn=drawn, propensity=0.5, reward=float(drawn == 2))
        pmfs.append(list(policy.pmf(context, actions)))
    assert pmfs[0] == pmfs[1]
    assert pmfs[0][2] > 0.4
    assert abs(sum(pmfs[0]) - 1) < 1e-3


@given(context=contexts)
def test_vw_takes_every_context(context: Context) -> None:
    """Whatever the service accepts must give a pmf: an exception here would be an outage for that visitor."""
    policy = VwPolicy(spec("squarecb").made_by)
    actions = [Choice(ActionId(id_), "content", context.features) for id_ in ("a", "b", "c")]
    policy.learn(context, actions, drawn=1, propensity=0.5, reward=0.0)
    pmf = policy.pmf(context, actions)
    assert min(pmf) >= 0
    assert abs(sum(pmf) - 1) < 1e-3


@pytest.mark.parametrize(
    "number", [0.0, -0.0, 1e12, -1e12, 1e-12, 5e-324, 1e-300, 1 / 3, 123456789.123456789, 1e-45, 1e-150, 2.4e-200]
)
def test_vw_takes_every_number(number: float) -> None:
    """Python writes floats with exponents and 17 digits; VW must read them as the number, not as NaN or text."""
    actions = [Choice(ActionId(id_), "content", {}) for id_ in ("a", "b")]
    policy = VwPolicy(spec("squarecb").made_by)
    context = Context(features={"x": number})
    policy.learn(context, actions, drawn=1, propensity=0.5, reward=0.0)
    pmf = policy.pmf(context, actions)
    assert abs(sum(pmf) - 1) < 1e-3
    assert pmf[0] > pmf[1]


@pytest.mark.parametrize("number", [1e-120, 1e-150, 2.4e-200])
def test_one_tiny_number_does_not_end_the_model(number: float) -> None:
    """A single caller must not turn the pmf of everybody who sends `x` into NaN (FALLBACK from then on)."""
    actions = [Choice(ActionId(id_), "content", {}) for id_ in ("a", "b")]
    policy = VwPolicy(spec("squarecb").made_by)
    policy.learn(Context(features={"x": number}), actions, drawn=0, propensity=0.5, reward=0.0)
    assert abs(sum(policy.pmf(Context(features={"x": 30.0}), actions)) - 1) < 1e-3
