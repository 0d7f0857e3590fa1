"""Slots that are known by context are those that the policy would give: a cache must not change a single decision."""

from __future__ import annotations

import pickle
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decider.decide.decide import SlotsCache, decide
from decider.experiment.definition import Action
from decider.policy.make import make_policy
from decider.policy.protocol import Choice, Model
from decider.policy.static import Uniform
from decider.serving.current import Current
from decider.types import ActionId, Context, DecisionId, DecisionRequest, ExperimentId, Reason
from tests.conftest import LEARNING, sample_version, spec

LONG = "\N{DRESS}" * 250
IDS = tuple(map(ActionId, ("sale", "outfit", "none")))
CONTEXTS = st.builds(
    Context,
    segment=st.sampled_from(["", "vip", "app"]),
    device=st.sampled_from(["", "app"]),
    features=st.sampled_from(
        [{}, {}, {"age": 1.5}, {"sku": "p1"}, {"vip": True}, {"vip": 1.0}, {"vip": "true"}, {"sku": "p1", "vip": False}]
    ),
)
REQUESTS = st.builds(
    DecisionRequest,
    decision_id=st.integers(0, 10**6).map(lambda number: DecisionId(f"d{number}")),
    unit_id=st.sampled_from(["u", "v", "w"]),
    context=CONTEXTS,
    eligible=st.sampled_from([(), (), IDS, IDS[:2], IDS[1::-1]]),
    excluded=st.sampled_from([(), (), IDS[2:]]),
    action_features=st.sampled_from([{}, {}, {IDS[0]: {"price": 2.0}}]),
    explore=st.booleans(),
)


def taught(algorithm: str) -> Model:
    """A model that prefers one action to others, differently by context."""
    policy = make_policy(spec(algorithm))
    choices = tuple(Choice(id_) for id_ in IDS)
    for turn in range(60):
        context = Context(segment=("vip", "app")[turn % 2])
        policy.learn(context, choices, drawn=turn % 3, propensity=1 / 3, reward=float(turn % 6 == 0))
    return Model(policy)


MODELS = {algorithm: taught(algorithm) for algorithm in LEARNING}


@pytest.mark.parametrize("algorithm", LEARNING)
@given(requests=st.lists(REQUESTS, min_size=1, max_size=30), holdout=st.sampled_from([0.0, 0.5]))
def test_a_cache_changes_no_decision(algorithm: str, requests: list[DecisionRequest], holdout: float) -> None:
    """`verify` recomputes without a cache: one other bit, and a served decision counts as forged."""
    version, cache = sample_version(policy=spec(algorithm), holdout=holdout), SlotsCache()
    for request in requests * 2:
        asked = decide(request, version, MODELS[algorithm])
        assert decide(request, version, MODELS[algorithm], cache) == asked


class Counting(Uniform):
    """Counts how often it is asked; fails while it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.fails = False

    def pmf(self, context: Context, actions: Sequence[Choice]) -> Sequence[float]:
        """Even."""
        self.asked += 1
        if self.fails:
            raise KeyError("age")
        return super().pmf(context, actions)


def request(segment: str = "vip", **fields: object) -> DecisionRequest:
    """Of a context."""
    return DecisionRequest(DecisionId("d"), "u", Context(segment, **fields))  # type: ignore[arg-type]


def test_a_context_is_asked_once_while_a_model_serves() -> None:
    """The policy takes most of a decision's time."""
    current, policy, version = Current(), Counting(), sample_version()
    current.put(version, Model(policy))
    for _ in range(3):
        decide(request(), *current[ExperimentId("home")])
    assert policy.asked == 1
    current.put(version, Model(policy))
    decide(request(), *current[ExperimentId("home")])
    assert policy.asked == 2, "another model serves, and it has learned something"


def test_a_fallback_is_not_remembered() -> None:
    """A policy that failed once may answer the next visitor."""
    policy, version, cache = Counting(), sample_version(), SlotsCache()
    policy.fails = True
    assert decide(request(), version, Model(policy), cache).reason is Reason.FALLBACK
    policy.fails = False
    assert decide(request(), version, Model(policy), cache).reason is not Reason.FALLBACK


def test_what_is_remembered_is_bounded() -> None:
    """Contexts come from strangers: a new one with every call must not fill the memory."""
    policy, cache = Counting(), SlotsCache(most_bytes=20_000)
    version = sample_version(
        actions=tuple(Action(ActionId(f"a{index}")) for index in range(3)), baseline=ActionId("a0")
    )
    for turn in range(60):
        decide(request(f"s{turn}"), version, Model(policy), cache)
    assert policy.asked == 60
    decide(request("s59"), version, Model(policy), cache)
    assert policy.asked == 60, "the last ones are known"
    decide(request("s0"), version, Model(policy), cache)
    assert policy.asked == 61, "the first ones have made room"
    for turn in range(40):
        decide(request("s", features={"n": turn / 7}), version, Model(policy), cache)
    decide(request("s59"), version, Model(policy), cache)
    assert policy.asked == 101, "contexts with features of their own take no room"


@pytest.mark.parametrize("eligible", [IDS[:1], IDS[:2], IDS])
def test_long_contexts_take_no_more_memory_than_stated(eligible: tuple[ActionId, ...]) -> None:
    """A bound on the number of entries would let strangers choose their size."""
    version, cache = sample_version(), SlotsCache(most_bytes=1_000_000)
    asked = [
        DecisionRequest(DecisionId("d"), "u", Context(f"a{n}{LONG}", f"b{n}{LONG}", f"c{n}{LONG}"), eligible)
        for n in range(1_000)
    ]
    before = len(pickle.dumps(cache))
    for one in asked:
        decide(one, version, Model(Counting()), cache)
    assert len(pickle.dumps(cache)) - before <= 1_000_000


def test_contexts_with_categories_are_asked_once_and_those_with_numbers_each_time() -> None:
    """Categories come again, numbers hardly ever: to keep those would push out what does come again."""
    policy, version, cache = Counting(), sample_version(), SlotsCache()
    for features in ({"vip": True, "os": "ios"}, {"vip": 1.0, "os": "ios"}, {"vip": "true", "os": "ios"}):
        for _ in range(2):
            decide(request(features=features), version, Model(policy), cache)
    assert policy.asked == 1 + 2 + 1


def test_long_categories_take_no_more_memory_than_stated() -> None:
    """Callers choose the names and the number of the features, too."""
    version, cache = sample_version(), SlotsCache(most_bytes=1_000_000)
    asked = [
        request(
            features={f"{number} {LONG[:50]} {turn}": LONG for number in range(20)} if turn % 2 else {"f": f"{turn}"}
        )
        for turn in range(2_000)
    ]
    before = len(pickle.dumps(cache))
    for one in asked:
        decide(one, version, Model(Counting()), cache)
    assert len(pickle.dumps(cache)) - before <= 1_000_000
