"""Slates: several slots of a page in one call. No action twice, all or nothing, and each slot is a decision as any."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.rpc import error_details_pb2
from hypothesis import given
from hypothesis import strategies as st

from decider.decide.decide import decide
from decider.decide.named_actions import fit_actions, inactive_actions
from decider.decide.slate import decide_slate, slot_id
from decider.decide.slots import SLOTS
from decider.errors import FailedPrecondition
from decider.experiment.definition import Action, Experiment, ExperimentVersion
from decider.experiment.limits import Cap, Counts
from decider.log.open import open_reader
from decider.log.protocol import EventLog, NewSlate, NewVersion, units_of
from decider.policy.make import make_policy
from decider.policy.protocol import Model
from decider.replay.past import request_of
from decider.types import ActionId, CalledAction, Context, DecisionRequest, ExperimentId, Position, Time
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from simulator.evaluate.candidates import UniformPolicy
from simulator.evaluate.run import evaluate
from simulator.logs.decider_log import load
from simulator.verify import verify
from tests.conftest import sample_experiment, spec
from tests.rpc_clients import (
    InProcessClient,
    RpcClient,
    ServerProcess,
    code_of,
    detail,
    experiment,
    fields_of,
    reason_of,
    status_of,
)


@pytest.fixture
def mine(mine: str, client: RpcClient) -> str:
    """The test's own experiment, with three actions."""
    client.apply(experiment(mine))
    return mine


def slate(client: RpcClient, mine: str, *slots: pb.Slot, **fields: Any) -> pb.DecideSlateResponse:
    """DecideSlate, for one unit unless another is named."""
    named = {"unit_id": "unit", **fields}
    request = pb.DecideSlateRequest(experiment=mine, slots=slots, **named)
    reply: pb.DecideSlateResponse = client.call("DeciderService", "DecideSlate", request)
    return reply


def actions(reply: pb.DecideSlateResponse) -> list[str]:
    """What each slot got."""
    return [decision.action.id for decision in reply.decisions]


def test_no_action_is_on_the_page_twice(client: RpcClient, mine: str) -> None:
    """Three calls would each show the best offer."""
    for number in range(20):
        assert sorted(actions(slate(client, mine, *[pb.Slot()] * 3, slate_id=f"{mine}-{number}"))) == ["a", "b", "c"]


def test_a_propensity_is_that_given_the_slots_before(client: RpcClient, mine: str) -> None:
    """The product is the probability of the whole page; the ranking shows what was left."""
    reply = slate(client, mine, pb.Slot(), pb.Slot(), pb.Slot(), with_ranking=True)
    for place, decision in enumerate(reply.decisions):
        assert decision.decision_id == f"{reply.slate_id}/{place}"
        ranking = {one.action: one.propensity for one in decision.ranking}
        assert set(ranking) == {"a", "b", "c"} - set(actions(reply)[:place])
        assert decision.propensity == ranking[decision.action.id]
    assert reply.decisions[2].propensity == 1
    assert reply.decisions[2].reason == pb.REASON_ONLY_ELIGIBLE


def test_each_slot_has_its_own_actions_and_features(client: RpcClient, mine: str) -> None:
    """A place at the top is worth more than one at the bottom: the policy may know which it is."""
    top, bottom = pb.Slot(eligible_actions=["a", "b"]), pb.Slot(excluded_actions=["c"])
    top.features.update({"place": "top"})
    reply = slate(client, mine, top, bottom, slate_id=f"{mine}-1", context=pb.Context(device="mobile"))
    assert set(actions(reply)) == {"a", "b"}
    rows = client.rows(
        "select device, features from decisions where decision_id like ? order by position", f"{mine}-1/%"
    )
    assert rows == [("mobile", '{"place":"top"}'), ("mobile", None)]


def test_the_same_slate_id_returns_the_stored_slate(client: RpcClient, mine: str) -> None:
    """A page that is loaded again after a timeout must not draw anew."""
    first = slate(client, mine, pb.Slot(), pb.Slot(), slate_id=f"{mine}-1")
    again = slate(client, mine, pb.Slot(), pb.Slot(), slate_id=f"{mine}-1", context=pb.Context(device="tv"))
    assert again == first
    assert client.rows("select count(*) from decisions where decision_id like ?", f"{mine}-1/%") == [(2,)]


def test_the_same_slate_at_once_is_one_slate(client: RpcClient, mine: str) -> None:
    """Each call draws the same tickets, but its model may be another: what is answered must be what is in the log."""
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(slate, client, mine, pb.Slot(), pb.Slot(), slate_id=f"{mine}-1") for _ in range(8)]
        assert len({tuple(actions(call.result())) for call in calls}) == 1
    assert client.rows("select count(*) from decisions where decision_id like ?", f"{mine}-1/%") == [(2,)]


@pytest.mark.parametrize("slots", [1, 3])
def test_a_slate_id_with_another_number_of_slots_is_refused(client: RpcClient, mine: str, slots: int) -> None:
    """Half of the stored page and half of a new one would show an action twice."""
    slate(client, mine, pb.Slot(), pb.Slot(), slate_id=f"{mine}-{slots}")
    status = status_of(lambda: slate(client, mine, *[pb.Slot()] * slots, slate_id=f"{mine}-{slots}"))
    assert (code_of(status), reason_of(status)) == ("ALREADY_EXISTS", "DECISION_ID_REUSED")


def test_a_slate_does_not_take_the_id_of_a_decision(client: RpcClient, mine: str) -> None:
    """A reward for the page would be one for that decision."""
    client.decide(mine, "visitor", decision_id=f"{mine}-1")
    status = status_of(lambda: slate(client, mine, pb.Slot(), slate_id=f"{mine}-1"))
    assert (code_of(status), reason_of(status)) == ("ALREADY_EXISTS", "DECISION_ID_REUSED")


def test_a_slate_does_not_take_decisions_that_are_there_for_its_slots(client: RpcClient, mine: str) -> None:
    """A reward for the page would be one for them, too."""
    client.decide(mine, "visitor", decision_id=f"{mine}-1/7")
    status = status_of(lambda: slate(client, mine, pb.Slot(), slate_id=f"{mine}-1"))
    assert (code_of(status), reason_of(status)) == ("ALREADY_EXISTS", "DECISION_ID_REUSED")


def test_a_slate_is_answered_again_although_a_decision_has_its_id_now(client: RpcClient, mine: str) -> None:
    """A retry must not fail by what came later."""
    first = slate(client, mine, pb.Slot(), pb.Slot(), slate_id=f"{mine}-1")
    client.decide(mine, "visitor", decision_id=f"{mine}-1")
    assert slate(client, mine, pb.Slot(), pb.Slot(), slate_id=f"{mine}-1") == first


def test_a_slate_with_more_slots_than_actions_is_refused_and_nothing_is_logged(client: RpcClient, mine: str) -> None:
    """The message names the slot, and the slots before it are not left behind in the log."""
    status = status_of(lambda: slate(client, mine, *[pb.Slot()] * 4, slate_id=f"{mine}-1"))
    assert (code_of(status), reason_of(status)) == ("FAILED_PRECONDITION", "NO_ELIGIBLE_ACTION")
    assert "slots[3]" in status.message
    assert client.rows("select count(*) from decisions where decision_id like ?", f"{mine}-1/%") == [(0,)]


@pytest.mark.parametrize(
    ("fields", "slots", "field"),
    [
        ({"unit_id": ""}, [pb.Slot()], "unit_id"),
        ({"slate_id": "x" * 121}, [pb.Slot()], "slate_id"),
        ({}, [], "slots"),
        ({}, [pb.Slot()] * 21, "slots"),
    ],
)
def test_wrong_fields_are_named(
    client: RpcClient, mine: str, fields: dict[str, str], slots: list[pb.Slot], field: str
) -> None:
    """Each error says where it is and what is possible."""
    status = status_of(lambda: slate(client, mine, *slots, **fields))
    request = detail(status, error_details_pb2.BadRequest())
    assert request is not None
    assert [violation.field for violation in request.field_violations] == [field]


def test_a_feature_of_the_context_is_not_hidden_by_a_slot(client: RpcClient, mine: str) -> None:
    """Which of two values was scored could not be told from the log."""
    context, slot = pb.Context(), pb.Slot()
    context.features.update({"place": "home"})
    slot.features.update({"place": "top"})
    status = status_of(lambda: slate(client, mine, slot, context=context))
    request = detail(status, error_details_pb2.BadRequest())
    assert request is not None
    assert request.field_violations[0].field == "slots[0].features[place]"


def test_a_reward_for_the_page_is_one_for_each_slot(client: RpcClient, mine: str) -> None:
    """A purchase on a page cannot be given to one banner: each slot's policy learns what the page has earned."""
    reply = slate(client, mine, pb.Slot(), pb.Slot(), slate_id=f"{mine}-1")
    assert client.reward(reply.slate_id, name="click", reward_id="once") == "joined"
    assert client.reward(reply.slate_id, name="click", reward_id="once") == "duplicate"
    (first, second) = [decision.decision_id for decision in reply.decisions]
    assert client.reward(second, name="click", reward_id="own") == "joined"
    sql = "select decision_id, count(*) from joined_rewards where decision_id like ? group by 1 order by 1"
    assert client.rows(sql, f"{mine}-1/%") == [(first, 1), (second, 2)]
    retracted = pb.RewardRequest(decision_id=reply.slate_id, reward_id="once", retract=True)
    outcome = client.call("DeciderService", "Reward", retracted).outcome
    assert outcome == pb.REWARD_OUTCOME_RETRACTED
    sql = "select decision_id, sum(reward) from decision_rewards where decision_id like ? group by 1 order by 1"
    assert client.rows(sql, f"{mine}-1/%") == [(first, None), (second, 1.0)]


def test_a_batch_of_rewards_tells_pages_from_decisions(client: RpcClient, mine: str) -> None:
    """Each answer is that of its request, however many entries it made."""
    reply = slate(client, mine, pb.Slot(), pb.Slot(), pb.Slot(), slate_id=f"{mine}-1")
    single = client.decide(mine, "other")
    ids = [reply.slate_id, "nobody", single.decision_id, reply.decisions[1].decision_id]
    results = client.reward_batch([pb.RewardRequest(decision_id=id_, name="click") for id_ in ids])
    assert [result.WhichOneof("result") for result in results] == ["response", "error", "response", "response"]
    sql = "select decision_id, count(*) from joined_rewards where decision_id like ? group by 1 order by 1"
    assert [count for _, count in client.rows(sql, f"{mine}-1/%")] == [1, 2, 1]


def test_a_page_is_activated_as_a_whole_or_slot_by_slot(client: RpcClient, mine: str) -> None:
    """A slot below the fold may never be seen; another action in a slot is that slot's."""
    reply = slate(client, mine, pb.Slot(), pb.Slot(), slate_id=f"{mine}-1")
    first, _ = [decision.decision_id for decision in reply.decisions]
    assert client.activate(first)
    assert client.activate(reply.slate_id), "the second slot"
    assert not client.activate(reply.slate_id)
    status = status_of(lambda: client.activate(reply.slate_id, "c"))
    assert code_of(status) == "INVALID_ARGUMENT"
    assert f"{mine}-1/0" in status.message
    sql = "select count(*) from activations a join decisions d on d.position = a.decision where d.decision_id like ?"
    assert client.rows(sql, f"{mine}-1/%") == [(2,)]


def test_slates_replay_and_their_rewards_are_learned(tmp_path: Path) -> None:
    """Replay, rewards and learning know nothing of slates: each slot is a decision."""
    with closing(InProcessClient(tmp_path / "log.db")) as client:
        client.apply(experiment("home", window=3.0))
        for number in range(60):
            reply = slate(client, "home", pb.Slot(), pb.Slot(), unit_id=f"u{number}")
            for decision in reply.decisions:
                if decision.action.id == "b":
                    assert client.reward(decision.decision_id, name="click") == "joined"
        client.until(
            lambda: client.rows("select count(*) from sealed_decisions")[0][0] == 120, what="all windows are over"
        )
        client.until(lambda: client.rows("select count(*) from published")[0][0] > 0, what="a model is published")
        slate(client, "home", pb.Slot(), pb.Slot())

    with closing(open_reader(tmp_path / "log.db")) as log:
        found = verify(log)
    assert found.equal == found.decisions == 122


# Laws.


def made_slate(version: ExperimentVersion, id_: str, slots: int = 2) -> NewSlate:
    """Drawn by the version's policy before it has learned anything."""
    requests = [DecisionRequest(slot_id(id_, place), "unit", Context()) for place in range(slots)]
    filled = decide_slate(requests, version, Model(make_policy(version.experiment.policy)))
    return NewSlate(tuple([slot.decision for slot in filled]))


def test_a_slate_is_written_whole_or_not_at_all(log: EventLog) -> None:
    """Two calls with the same id and different pages: the second one must leave nothing."""

    log.append([NewVersion(sample_experiment(), 1)])
    version = log.versions()[-1]
    first, longer, other = made_slate(version, "page"), made_slate(version, "page", 3), made_slate(version, "other")
    marks = log.append([first, longer, other, *made_slate(version, "alone", 1).decisions])
    assert [mark and mark.position for mark in marks] == [2, None, 4, 6]
    assert log.find(slot_id("page", 2)) is None
    for one in [*units_of(first), *units_of(other)]:
        logged = log.find(one.decision.decision_id)
        assert logged is not None
        assert logged.decision == one.decision
    assert log.append([made_slate(version, "page")]) == [None]
    assert log.head().position == 6


names = st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=7, unique=True)


@given(eligible=st.lists(names, min_size=1, max_size=4), id_=st.text(min_size=1, max_size=8))
def test_a_slate_is_a_draw_without_replacement(eligible: list[list[str]], id_: str) -> None:
    """Whatever the slots allow: each gets one of its own actions that no slot before it has and that those behind it
    can spare, with a pmf of these; or there are no such pages, and the slate is refused."""
    pages = pages_of(eligible)
    requests = slots_with(eligible, id_)
    if not pages:
        with pytest.raises(FailedPrecondition, match=r"slots\[\d\].*together they have"):
            decide_slate(requests, HOME, UNIFORM)
        return
    decisions = [slot.decision for slot in decide_slate(requests, HOME, UNIFORM)]
    taken: tuple[str, ...] = ()
    for place, decision in enumerate(decisions):
        assert list(decision.eligible) == sorted({page[place] for page in pages if page[:place] == taken})
        assert sum(decision.pmf) == SLOTS
        assert decision.propensity == decision.pmf[decision.eligible.index(decision.action)] / SLOTS
        taken = (*taken, decision.action)
    assert taken in pages


HOME = ExperimentVersion(
    Experiment(ExperimentId("home"), tuple([Action(ActionId(name)) for name in "abcdefg"]), policy=spec("uniform")),
    number=1,
    position=Position(1),
    time=Time(0),
)
UNIFORM = Model(make_policy(HOME.experiment.policy))


def pages_of(eligible: list[list[str]]) -> set[tuple[str, ...]]:
    """All that could be shown, by trying."""
    return {page for page in itertools.product(*eligible) if len(set(page)) == len(page)}


def slots_with(eligible: list[list[str]], id_: str) -> list[DecisionRequest]:
    """Slots that allow these actions."""
    return [
        DecisionRequest(slot_id(id_, place), "unit", eligible=tuple(map(ActionId, allowed)))
        for place, allowed in enumerate(eligible)
    ]


@pytest.mark.parametrize(
    "eligible",
    [["ab", "a"], ["abc", "ab", "a"], ["abcd", "bc", "bc"], ["abc", "abc", "abc"], ["abcdefg", "ab", "abc", "g"]],
)
def test_pages_of_slots_that_compete_weigh_one_on_average(eligible: list[str]) -> None:
    """No page is lost to what was drawn, so importance weights are right: each page that another uniform draw over all
    pages could show comes as often as its propensity says."""
    lists = [list(names) for names in eligible]
    pages = pages_of(lists)
    weights = []
    for number in range(3_000):
        page = [slot.decision for slot in decide_slate(slots_with(lists, f"page-{number}"), HOME, UNIFORM)]
        weights.append(1 / len(pages) / math.prod([one.propensity for one in page]))
    error = statistics.stdev(weights) / len(weights) ** 0.5
    assert abs(statistics.fmean(weights) - 1) <= 4 * error + 1e-5


def test_a_slot_leaves_the_only_action_of_another_one(client: RpcClient, mine: str) -> None:
    """Else the page fails or not by what was drawn, and the log has only those that did not."""
    for number in range(20):
        reply = slate(
            client, mine, pb.Slot(eligible_actions=["a", "b"]), pb.Slot(eligible_actions=["a"]),
            slate_id=f"{mine}-{number}",
        )  # fmt: skip
        assert actions(reply) == ["b", "a"]
        assert [one.propensity for one in reply.decisions] == [1, 1]


def test_a_slate_that_is_impossible_names_the_slots_that_compete(client: RpcClient, mine: str) -> None:
    """Whoever reads it must not look for a fault in the slot that came last."""
    a = pb.Slot(eligible_actions=["a"])
    status = status_of(lambda: slate(client, mine, a, pb.Slot(), a, slate_id=f"{mine}-1"))
    assert (code_of(status), reason_of(status)) == ("FAILED_PRECONDITION", "NO_ELIGIBLE_ACTION")
    assert status.message.startswith("slots[0], slots[2]: there are 2 of them, and together they have no other")


@given(
    kinds=st.lists(st.sampled_from(["offer", "article"]), min_size=6, max_size=6),
    eligible=st.lists(names, min_size=1, max_size=5),
    most=st.integers(1, 3),
    shown=st.integers(0, 3),
    id_=st.text(min_size=1, max_size=8),
)
def test_with_caps_a_page_that_could_be_filled_without_is_never_refused(
    kinds: list[str], eligible: list[list[str]], most: int, shown: int, id_: str
) -> None:
    """What earlier slots use up ends in the baseline, not in an error that depends on what was drawn."""
    made = [Action(ActionId(name), kind) for name, kind in zip("abcdef", kinds, strict=True)]
    home = replace(
        HOME.experiment,
        actions=(*made, Action(ActionId("g"), "none")),
        baseline=ActionId("g"),
        caps=(Cap(most, 3_600_000_000, kind="offer"),),
    )
    version = ExperimentVersion(home, number=1, position=Position(1), time=Time(0))
    counts = Counts((min(shown, most),), ())
    try:
        filled = decide_slate(slots_with(eligible, id_), version, UNIFORM, counts=counts)
    except FailedPrecondition:
        assert not pages_of(eligible)
        return
    shown_actions = [one.decision.action for one in filled if one.decision.action != "g"]
    assert len(set(shown_actions)) == len(shown_actions)
    assert sum(version.kind_of(id_, {}) == "offer" for id_ in shown_actions) <= max(most - shown, 0)


def test_pages_come_as_often_as_the_product_of_their_propensities() -> None:
    """Estimates of whole pages weigh by this product."""
    home = Experiment(ExperimentId("home"), tuple([Action(ActionId(name)) for name in "abc"]), policy=spec("uniform"))
    version = ExperimentVersion(home, number=1, position=Position(1), time=Time(0))
    model = Model(make_policy(home.policy))
    drawn = Counter[tuple[str, ...]]()
    for number in range(6_000):
        requests = [DecisionRequest(slot_id(f"page-{number}", place), "unit") for place in range(2)]
        drawn[tuple(slot.decision.action for slot in decide_slate(requests, version, model))] += 1
    for page in itertools.permutations("abc", 2):
        assert abs(drawn[page] - 1_000) < 4 * (6_000 * (1 / 6) * (5 / 6)) ** 0.5


# Actions that the call brings.


def article(id_: str, kind: str = "article", **features: Any) -> pb.CalledAction:
    """An action of a call."""
    made = pb.CalledAction(id=id_, kind=kind)
    made.features.update(features)
    made.payload.update({"url": f"/{id_}"})
    return made


def news(id_: str, most: int = 6, **fields: Any) -> experiment_pb2.Experiment:
    """An experiment with `none` and `sale` of its own, and others from the calls."""
    message = experiment(id_, "none", "sale", baseline_action="none", **fields)
    message.policy.squarecb.SetInParent()
    message.actions_in_calls.most = most
    return message


@pytest.fixture
def called(mine: str, client: RpcClient) -> str:
    """The test's own experiment that takes actions from calls."""
    client.apply(news(f"{mine[:59]}-news"))
    return f"{mine[:59]}-news"


def scored(client: RpcClient, slate_id: str) -> list[tuple[str | None, str | None]]:
    """Of each slot, what could be chosen (None: all active ones) and what was known about it."""
    sql = "select eligible, action_features from decisions where decision_id like ? order by position"
    return [(eligible, features) for eligible, features in client.rows(sql, f"{slate_id}/%")]


def test_an_action_of_the_call_takes_one_slot_at_most(client: RpcClient, called: str) -> None:
    """Today's articles are in no file, and none may be on the page twice. What is shown has its kind and payload."""
    brought = [article("z-late", topic="sport"), article("early", topic="politics", words=800)]
    seen = Counter[str]()
    for number in range(30):
        reply = slate(client, called, *[pb.Slot()] * 4, unit_id=f"u{number}", actions=brought, with_ranking=True)
        assert sorted(actions(reply)) == ["early", "none", "sale", "z-late"]
        for place, decision in enumerate(reply.decisions):
            left = {"early", "none", "sale", "z-late"} - set(actions(reply)[:place])
            assert {one.action for one in decision.ranking} == left
            if decision.action.id in ("early", "z-late"):
                seen[f"{decision.action.id}-{place}"] += 1
                assert decision.action.kind == "article"
                assert decision.action.payload["url"] == f"/{decision.action.id}"
    assert len(seen) > 4, "they are drawn for several slots"


def test_the_log_has_of_each_slot_the_called_actions_that_were_left(client: RpcClient, called: str) -> None:
    """An action that is known and not declared could be chosen, to a replay. So a taken one leaves nothing behind."""
    brought = [article("x", words=9), article("y")]
    only = pb.Slot(eligible_actions=["x"])
    slate(client, called, only, pb.Slot(), slate_id=f"{called}-1", actions=brought)
    x, y = '"x":{"kind":"article","words":9.0}', '"y":{"kind":"article"}'
    assert scored(client, f"{called}-1") == [('["x"]', f"{{{x}}}"), ('["none","sale","y"]', f"{{{y}}}")]
    slate(client, called, only, pb.Slot(), slate_id=f"{called}-2", actions=brought[:1])
    assert scored(client, f"{called}-2") == [('["x"]', f"{{{x}}}"), (None, None)], "all of its own"
    slate(client, called, only, pb.Slot(eligible_actions=["sale"]), slate_id=f"{called}-3", actions=brought)
    assert scored(client, f"{called}-3") == [('["x"]', f"{{{x}}}"), ('["sale"]', None)]


def test_slots_name_actions_of_the_call_as_any_other(client: RpcClient, called: str) -> None:
    """One list of names for both kinds, in each slot its own; unknown names are told for the slot that has them."""
    named = pb.Slot(eligible_actions=["x", "sale", "gone"], excluded_actions=["sale"])
    reply = slate(client, called, named, pb.Slot(excluded_actions=["y"]), actions=[article("x"), article("y")])
    assert actions(reply)[0] == "x"
    assert actions(reply)[1] in ("none", "sale")
    assert [[*one.ignored_actions] for one in reply.decisions] == [["gone"], []]
    status = status_of(lambda: slate(client, called, *[pb.Slot(eligible_actions=["x"])] * 2, actions=[article("x")]))
    assert (code_of(status), reason_of(status)) == ("FAILED_PRECONDITION", "NO_ELIGIBLE_ACTION")
    assert "slots[1]" in status.message
    status = status_of(lambda: slate(client, called, pb.Slot(), pb.Slot(eligible_actions=["gone"])))
    assert status.message.startswith("slots[1]: eligible_actions names no active action")


def test_a_retry_of_a_slate_with_actions_is_answered_as_the_first_time(client: RpcClient, called: str) -> None:
    """Kinds come from the log, payloads and what was ignored from the call."""
    fields: dict[str, Any] = {"slate_id": f"{called}-1", "actions": [article("x"), article("y"), article("z")]}
    slots = [pb.Slot(eligible_actions=["x", "y", "gone"]), pb.Slot(eligible_actions=["x", "y", "z"])]
    first = slate(client, called, *slots, **fields)
    assert [one.action.payload["url"] for one in first.decisions] == [f"/{id_}" for id_ in actions(first)]
    assert slate(client, called, *slots, **fields) == first
    bare = slate(client, called, pb.Slot(), pb.Slot(), slate_id=f"{called}-1")
    assert [(one.action.id, one.action.kind) for one in bare.decisions] == [(id_, "article") for id_ in actions(first)]


def test_features_of_unknown_actions_are_named_again_in_a_retry(client: RpcClient, mine: str) -> None:
    """Equal to the bit: a page must not be told of stale names the first time alone."""
    request = pb.DecideSlateRequest(experiment=mine, unit_id="unit", slate_id=f"{mine}-1", slots=[pb.Slot()])
    request.action_features["gone"].update({"price": 5})
    first = client.call("DeciderService", "DecideSlate", request)
    assert [*first.decisions[0].ignored_actions] == ["gone"]
    assert client.call("DeciderService", "DecideSlate", request) == first


@pytest.mark.parametrize(
    ("brought", "field", "text"),
    [
        ([article(f"x{i}") for i in range(5)], "actions", "would make 7 with the 2 active ones"),
        ([article("x"), article("two words")], "actions[1].id", "is not 1 to 64 letters"),
        ([article("x", kind="?")], "actions[0].kind", "is not 1 to 64 letters"),
        ([article("sale", kind="offer")], "actions[0].kind", "is of kind 'content'"),
        ([article("x"), article("x")], "actions[1].id", "is there twice"),
        ([article("x", id=3)], "actions[0].features[id]", "is reserved"),
        ([article("x", words=float("nan"))], "actions[0].features[words]", "is not a finite number"),
        ([pb.CalledAction(id=f"x{i}") for i in range(1001)], "actions", "at most 1000 are possible"),
    ],
)
def test_what_a_slate_may_not_bring_is_refused(
    client: RpcClient, called: str, brought: list[pb.CalledAction], field: str, text: str
) -> None:
    """The same bounds as of Decide: whatever reaches Vowpal Wabbit and the log has been checked."""
    status = status_of(lambda: slate(client, called, pb.Slot(), pb.Slot(), slate_id=f"{called}-1", actions=brought))
    assert (code_of(status), fields_of(status)) == ("INVALID_ARGUMENT", [field])
    assert text in status.message
    assert scored(client, f"{called}-1") == []


def test_an_experiment_says_whether_slates_bring_actions(client: RpcClient, mine: str) -> None:
    """Else any caller could add what it likes to a shop's page."""
    status = status_of(lambda: slate(client, mine, pb.Slot(), actions=[article("x")]))
    assert (code_of(status), fields_of(status)) == ("INVALID_ARGUMENT", ["actions"])
    assert "takes no actions from calls" in status.message


def test_a_wrong_default_action_names_its_slot(client: RpcClient, mine: str) -> None:
    """A page has several: `default_action` alone does not say which."""
    message = experiment(f"{mine}-apprentice", baseline_action="a")
    message.learning = experiment_pb2.LEARNING_APPRENTICE
    client.apply(message)
    wrong = pb.Slot(default_action="b", excluded_actions=["b"])
    status = status_of(lambda: slate(client, f"{mine}-apprentice", pb.Slot(default_action="a"), wrong))
    assert fields_of(status) == ["slots[1].default_action"]


def test_the_default_action_of_a_slot_may_come_with_the_call(tmp_path: Path) -> None:
    """What the page would show by itself is today's article, and what is second is another one."""
    with closing(InProcessClient(tmp_path / "log.db")) as client:
        client.apply(news("front", learning=experiment_pb2.LEARNING_APPRENTICE))
        brought = [article("x"), article("y")]
        slots = [pb.Slot(default_action="y"), pb.Slot(default_action="y"), pb.Slot(default_action="x")]
        reply = slate(client, "front", *slots, actions=brought)
        assert actions(reply) == ["y", "none", "x"], "the baseline action in place of what is taken"
        assert {one.propensity for one in reply.decisions} == {1.0}
    with closing(open_reader(tmp_path / "log.db")) as log:
        found = verify(log)
    assert found.equal == found.decisions == 3


def test_caps_on_a_kind_count_actions_of_calls_slot_by_slot(tmp_path: Path) -> None:
    """Two articles of one page are two. What a cap takes out is in the log with its kind, and replays."""
    with closing(InProcessClient(tmp_path / "log.db")) as client:
        message = news("front")
        cap = message.caps.add(kind="article", most=1)
        cap.per.FromSeconds(3600)
        client.apply(message)
        for number in range(20):
            brought = [article("x", words=number), article("y")]
            only = pb.Slot(eligible_actions=["x", "y"])
            reply = slate(client, "front", only, pb.Slot(), only, unit_id=f"u{number}", actions=brought)
            first, second, third = actions(reply)
            assert first in ("x", "y")
            assert second in ("none", "sale")
            assert (third, reply.decisions[2].reason) == ("none", pb.REASON_WITHHELD)
    with closing(open_reader(tmp_path / "log.db")) as log:
        assert log.check(lambda _: None) == []
        found = verify(log)
    assert found.equal == found.decisions == 60


def test_slates_with_actions_of_calls_replay_after_a_kill_and_are_estimated(tmp_path: Path) -> None:
    """What was scored of them is in the log, slot by slot; and they are learned about by what they are."""
    server = ServerProcess(tmp_path / "log.db", "--learn-interval", "0.05")
    with closing(server.client()) as client:
        client.apply(news("front", window=0.3))
        for number in range(150):
            brought = [article(f"game-{number}", topic="sport"), article(f"poll-{number}", topic="politics")]
            reply = slate(client, "front", pb.Slot(), pb.Slot(), pb.Slot(), unit_id=f"u{number}", actions=brought)
            assert len(set(actions(reply))) == 3
            for decision in reply.decisions:
                if decision.action.id.startswith("game"):
                    client.reward(decision.decision_id, name="click")
        kept = slate(client, "front", pb.Slot(), pb.Slot(), slate_id="kept", actions=[article("x"), article("y")])
    server.kill()
    server = ServerProcess(tmp_path / "log.db", "--learn-interval", "0.05")
    with closing(server.client()) as client:
        again = slate(client, "front", pb.Slot(), pb.Slot(), slate_id="kept", actions=[article("x"), article("y")])
        assert again == kept
        sealed = "select count(*) from sealed_decisions"
        client.until(lambda: client.rows(sealed)[0][0] == 452, what="all windows are over")
        client.until(lambda: client.rows("select count(*) from published")[0][0] > 0, what="a model is published")
        new = [article("next-game", topic="sport"), article("next-poll", topic="politics")]
        slate(client, "front", pb.Slot(), pb.Slot(), actions=new)
    assert server.terminate() == 0
    with closing(open_reader(tmp_path / "log.db")) as log:
        assert log.check(lambda _: None) == []
        found = verify(log)
    assert found.equal == found.decisions == 454
    columns = load(tmp_path / "log.db")
    found_pages = evaluate(columns, [UniformPolicy()], force=True, breakdown=False).slates
    assert found_pages is not None
    assert found_pages.pages >= 151
    assert found_pages.pages + found_pages.incomplete == 152, "the window of the last page may be open"
    (uniform,) = found_pages.policies
    snips = uniform.estimates["snips"]  # a policy that has learned may leave one page that weighs as much as all others
    assert abs(snips.value - 0.75) < 0.25 or snips.low < 0.75 < snips.high, "3 of 4 actions are on the page"


def test_what_a_page_of_called_actions_earns_is_known_from_its_own_log(tmp_path: Path) -> None:
    """The policy that made the log, asked about its own pages, weighs each of them 1."""
    with closing(InProcessClient(tmp_path / "log.db")) as client:
        message = news("front", window=0.2)
        message.policy.uniform.SetInParent()
        client.apply(message)
        for number in range(100):
            brought = [article(f"game-{number}"), article(f"poll-{number}")]
            reply = slate(client, "front", pb.Slot(), pb.Slot(excluded_actions=["none"]), unit_id=f"u{number}",
                          actions=brought)  # fmt: skip
            if actions(reply)[1].startswith("game"):
                client.reward(reply.decisions[1].decision_id, name="click")
        client.until(lambda: client.rows("select count(*) from sealed_decisions")[0][0] == 200, what="all are sealed")
        client.decide("front", "later")
    found = evaluate(load(tmp_path / "log.db"), [UniformPolicy()], breakdown=False).slates
    assert found is not None
    (uniform,) = found.policies
    assert (found.pages, uniform.refused) == (100, False)
    for name in ("ips", "snips", "rips"):
        assert uniform.estimates[name].value == pytest.approx(found.mean_reward.value, rel=1e-4)


ids = st.lists(st.sampled_from("abcdef"), max_size=4, unique=True).map(lambda some: tuple(map(ActionId, some)))


@given(brought=ids, slots=st.lists(st.tuples(ids, ids), min_size=1, max_size=4), id_=st.text(min_size=1, max_size=8))
def test_what_a_slot_logs_is_what_it_was_drawn_from(
    brought: tuple[ActionId, ...], slots: list[tuple[tuple[ActionId, ...], tuple[ActionId, ...]]], id_: str
) -> None:
    """A replay has nothing but the log's row of a slot, whatever the call brought and the slots before it took."""
    home = Experiment(
        ExperimentId("home"), tuple([Action(ActionId(name)) for name in "abc"]), policy=spec("squarecb"), most_actions=6
    )
    version = ExperimentVersion(home, number=1, position=Position(1), time=Time(0))
    called = tuple([CalledAction(one, "article", {"topic": one}) for one in brought if one not in "abc"])
    model = Model(make_policy(home.policy))
    try:
        requests = []
        for place, (eligible, excluded) in enumerate(slots):
            asked = DecisionRequest(slot_id(id_, place), "unit", eligible=eligible, excluded=excluded, called=called)
            unknown = inactive_actions(version, (*eligible, *excluded), [one.id for one in called])
            requests.append(fit_actions(version, asked, unknown))
        filled = decide_slate(requests, version, model)
    except FailedPrecondition:
        return
    taken = tuple([one.decision.action for one in filled])
    assert len(set(taken)) == len(taken)
    known = {"a", "b", "c", *[action.id for action in called]}
    pages = pages_of([sorted(({*eligible} & known or known) - {*excluded}) for eligible, excluded in slots])
    for place, one in enumerate(filled):
        assert decide(request_of(one.decision, version, one.withheld), version, model) == one.decision
        assert {*one.decision.eligible} == {page[place] for page in pages if page[:place] == taken[:place]}
        assert one.decision.action_features.keys() == {*one.decision.eligible} - {"a", "b", "c"}
