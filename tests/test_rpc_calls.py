"""The same behaviour through the servicer objects, a server in this process, over gRPC and over Connect, and `decider
serve` in one of its own.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

import pytest
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from tests.rpc_clients import EVERY_WAY, RpcClient, code_of, experiment, fields_of, outcome_name, reason_of, status_of

T = TypeVar("T")


@pytest.fixture(scope="module", params=EVERY_WAY)
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RpcClient]:
    """One service for all tests of a way to call it: each test has an experiment of its own."""
    with closing(EVERY_WAY[request.param](tmp_path_factory.mktemp(request.param) / "log.db")) as opened:
        yield opened


SHORT = 0.3
"""A window, in seconds, that a test can wait for."""


def at_once(call: Callable[[], T], *, times: int = 8) -> list[T]:
    """The results of calling from that many threads."""
    with ThreadPoolExecutor(times) as pool:
        return [future.result() for future in [pool.submit(call) for _ in range(times)]]


def features(**values: float | str | bool) -> Struct:
    """A map of features as a message."""
    struct = Struct()
    struct.update(values)
    return struct


def test_pmf_sums_to_one_and_propensity_is_its_entry(client: RpcClient, mine: str) -> None:
    """The logged propensity must be exactly the probability of the draw, or every estimate from the log is wrong."""
    client.apply(experiment(mine))
    for unit in range(20):
        reply = client.decide(mine, f"unit-{unit}", with_ranking=True)
        pmf = {ranked.action: ranked.propensity for ranked in reply.ranking}
        assert set(pmf) == {"a", "b", "c"}
        assert sum(round(p * 1e6) for p in pmf.values()) == 1_000_000
        assert reply.propensity == pmf[reply.action.id] > 0
        assert list(pmf.values()) == sorted(pmf.values(), reverse=True)


def test_ranking_is_sent_only_when_asked_for(client: RpcClient, mine: str) -> None:
    """With a thousand actions a ranking is most of the reply, and few callers read it."""
    client.apply(experiment(mine))
    assert not client.decide(mine).ranking


def test_decision_id_is_made_when_none_is_given(client: RpcClient, mine: str) -> None:
    """Callers that do not retry need no idempotency key, but rewards need an id."""
    client.apply(experiment(mine))
    ids = {client.decide(mine).decision_id for _ in range(10)}
    assert len(ids) == 10
    assert all(client.rows("select 1 from decisions where decision_id = ?", id_) for id_ in ids)


def test_action_comes_with_kind_and_payload(client: RpcClient, mine: str) -> None:
    """The payload is what a frontend shows; it must come back as it was defined."""
    message = experiment(mine, "only")
    message.actions[0].kind = "offer"
    message.actions[0].payload.update({"title": "20 % off", "nested": {"list": [1, "zwei", None, True]}})
    client.apply(message)
    action = client.decide(mine).action
    assert (action.id, action.kind, action.payload) == ("only", "offer", message.actions[0].payload)


def test_same_decision_id_returns_the_stored_decision(client: RpcClient, mine: str) -> None:
    """A caller that retries after a lost reply must show what was logged, not something new."""
    client.apply(experiment(mine))
    id_ = f"{mine}-1"
    first = client.decide(mine, "unit", decision_id=id_, with_ranking=True, context=pb.Context(segment="vip"))
    again = client.decide(mine, "unit", decision_id=id_, with_ranking=True, context=pb.Context(segment="other"))
    assert again == first
    assert client.rows("select segment from decisions where decision_id = ?", id_) == [("vip",)]


def test_same_decision_id_at_once_is_one_decision(client: RpcClient, mine: str) -> None:
    """Retries overlap with the call they repeat; the log's unique key decides, not a look before the write."""
    client.apply(experiment(mine))
    id_ = f"{mine}-1"
    replies = at_once(lambda: client.decide(mine, decision_id=id_, with_ranking=True))
    assert all(reply == replies[0] for reply in replies)
    assert client.rows("select count(*) from decisions where decision_id = ?", id_) == [(1,)]


def test_stored_decision_keeps_its_version_after_a_change(client: RpcClient, mine: str) -> None:
    """A retry across a new version must name the version that decided, with that version's payload."""
    client.apply(experiment(mine, "a", "b"))
    first = client.decide(mine, decision_id=f"{mine}-1", with_ranking=True)
    changed = experiment(mine, "a", "b", "c")
    changed.actions[0].payload.update({"new": True})
    changed.actions[1].payload.update({"new": True})
    client.apply(changed)
    assert client.decide(mine, decision_id=f"{mine}-1", with_ranking=True) == first


def test_decision_id_of_another_unit_is_refused(client: RpcClient, mine: str) -> None:
    """Handing out another unit's decision would mix up two visitors for ever."""
    client.apply(experiment(mine))
    client.decide(mine, "one", decision_id=f"{mine}-1")
    status = status_of(lambda: client.decide(mine, "other", decision_id=f"{mine}-1"))
    assert (code_of(status), reason_of(status)) == ("ALREADY_EXISTS", "DECISION_ID_REUSED")


def test_decision_id_of_another_experiment_is_refused(client: RpcClient, mine: str) -> None:
    """One id names one decision in the whole log."""
    client.apply(experiment(f"{mine}-x"))
    client.apply(experiment(f"{mine}-y"))
    client.decide(f"{mine}-x", decision_id=f"{mine}-1")
    assert reason_of(status_of(lambda: client.decide(f"{mine}-y", decision_id=f"{mine}-1"))) == "DECISION_ID_REUSED"


def test_same_reward_id_counts_once(client: RpcClient, mine: str) -> None:
    """Pixels fire twice; a click that counts twice teaches the policy something false."""
    client.apply(experiment(mine))
    id_ = client.decide(mine).decision_id
    outcomes = [client.reward(id_, name="click", reward_id="r-1") for _ in range(3)]
    assert outcomes == ["joined", "duplicate", "duplicate"]
    assert reward_count(client, id_) == 1


def test_same_reward_id_at_once_counts_once(client: RpcClient, mine: str) -> None:
    """Duplicates arrive at the same moment, so only a unique key can tell them apart."""
    client.apply(experiment(mine))
    id_ = client.decide(mine).decision_id
    outcomes = at_once(lambda: client.reward(id_, reward_id="r-1"))
    assert Counter(outcomes) == {"joined": 1, "duplicate": 7}
    assert reward_count(client, id_) == 1


def test_an_amount_above_the_range_is_clipped_and_said(client: RpcClient, mine: str) -> None:
    """The best customer must not count as one who did not buy."""
    message = experiment(mine)
    message.reward.range.maximum = 200
    client.apply(message)
    ids = [client.decide(mine).decision_id for _ in range(2)]
    assert [client.reward(id_, name="purchase", value=259.9) for id_ in ids] == ["clipped"] * 2
    assert client.reward(ids[0], name="click") == "joined"
    sql = "select value, in_force, outcome from joined_rewards where decision_id = ?"
    assert client.rows(sql, ids[1]) == [(259.9, 259.9, "clipped")]


def test_an_experiment_may_refuse_amounts_out_of_the_range(client: RpcClient, mine: str) -> None:
    """As it was before; now the refused ones are counted."""
    message = experiment(mine)
    message.reward.out_of_range = experiment_pb2.OUT_OF_RANGE_REFUSE
    client.apply(message)
    id_ = client.decide(mine).decision_id
    status = status_of(lambda: client.reward(id_, name=mine[:40], value=1.5))
    assert (code_of(status), fields_of(status)) == ("INVALID_ARGUMENT", ["value"])
    counted = client.rows("select outcome, count from refused_rewards where name = ?", mine[:40])
    assert counted == [("out_of_range", 1)]


def test_a_name_that_is_not_declared_is_refused_and_counted(client: RpcClient, mine: str) -> None:
    """Its caller gets an error, which nobody reads: whoever looks at the log must find out which name it was."""
    message = experiment(mine)
    message.reward.weights["purchase"] = 1.0
    message.reward.attribution = experiment_pb2.ATTRIBUTION_LAST
    client.apply(message)
    id_, wrong = client.decide(mine, mine).decision_id, mine[:40]
    for refused in (
        lambda: client.reward(id_, name=wrong),
        lambda: client.reward(unit_id=mine, decision_id="", experiment=mine, name=wrong),
        lambda: client.reward(unit_id=mine, decision_id="", name=wrong),
        lambda: client.reward(id_, name=wrong, reward_id="none", value=1.0, correct=True),
    ):
        status = status_of(refused)
        assert (code_of(status), fields_of(status)) == ("INVALID_ARGUMENT", ["name"])
    mixed = client.reward_batch([pb.RewardRequest(decision_id=id_, name=name) for name in (wrong, "purchase", wrong)])
    assert [one.HasField("error") for one in mixed] == [True, False, True]
    counted = client.rows("select outcome, count from refused_rewards where name = ?", wrong)
    assert counted == [("undeclared", 6)]


def test_a_returned_purchase_is_retracted_once(client: RpcClient, mine: str) -> None:
    """A frontend that sends the return twice must hear that nothing has changed."""
    client.apply(experiment(mine))
    id_ = client.decide(mine).decision_id
    assert client.reward(id_, name="purchase", value=0.5, reward_id="o-1") == "joined"
    assert client.reward(id_, name="purchase", value=0.25, reward_id="o-1", correct=True) == "corrected"
    assert [client.reward(id_, reward_id="o-1", retract=True) for _ in range(2)] == ["retracted", "duplicate"]
    assert client.reward(id_, name="purchase", value=0.5, reward_id="o-1") == "duplicate"
    steps = client.rows("select outcome, value, name from reward_history where decision_id = ? order by position", id_)
    assert steps == [("joined", 0.5, "purchase"), ("corrected", 0.25, "purchase"), ("retracted", None, "purchase")]
    assert client.rows("select * from named_rewards where decision_id = ?", id_) == []


def test_the_same_retraction_at_once_is_one(client: RpcClient, mine: str) -> None:
    """Queues send at the same moment, and the reward itself may be among them: the log decides."""
    client.apply(experiment(mine))
    id_ = client.decide(mine).decision_id
    outcomes = at_once(lambda: client.reward(id_, name="buy", reward_id="o-1", retract=True))
    assert Counter(outcomes) == {"retracted": 1, "duplicate": 7}
    assert client.reward(id_, name="buy", reward_id="o-1") == "duplicate"
    assert client.rows("select in_force from joined_rewards where decision_id = ?", id_) == [(None,)]


def test_a_purchase_and_its_return_may_come_in_one_batch(client: RpcClient, mine: str) -> None:
    """A queue that was held up sends both together; one bad change fails no other."""
    client.apply(experiment(mine))
    id_ = client.decide(mine).decision_id
    results = client.reward_batch(
        [
            pb.RewardRequest(decision_id=id_, name="buy", value=0.5, reward_id="o-1"),
            pb.RewardRequest(decision_id=id_, reward_id="o-1", name="buy", retract=True),
            pb.RewardRequest(decision_id=id_, retract=True),
            pb.RewardRequest(decision_id=f"{mine}-unknown", reward_id="o-1", retract=True),
        ]
    )
    assert [outcome_name(one.response.outcome) for one in results[:2]] == ["joined", "retracted"]
    assert [fields_of(results[2].error), reason_of(results[3].error)] == [["reward_id"], "DECISION_NOT_FOUND"]


def test_a_change_after_the_window_is_late(client: RpcClient, mine: str) -> None:
    """It is kept for people; what was learned stays as it was."""
    client.apply(experiment(mine, window=SHORT))
    id_ = client.decide(mine).decision_id
    client.reward(id_, value=0.5, reward_id="o-1")
    time.sleep(SHORT)
    assert client.reward(id_, reward_id="o-1", retract=True) == "late"
    assert client.rows("select in_force from joined_rewards where decision_id = ?", id_) == [(0.5,)]


def test_rewards_without_an_id_all_count(client: RpcClient, mine: str) -> None:
    """Without a key nothing says that two rewards are the same."""
    client.apply(experiment(mine))
    id_ = client.decide(mine).decision_id
    assert [client.reward(id_, value=0.25) for _ in range(3)] == ["joined"] * 3
    assert reward_count(client, id_) == 3


def test_same_reward_id_counts_for_each_decision(client: RpcClient, mine: str) -> None:
    """A caller may number the rewards of every decision from 1."""
    client.apply(experiment(mine))
    ids = [client.decide(mine).decision_id for _ in range(2)]
    assert [client.reward(id_, reward_id="1") for id_ in ids] == ["joined", "joined"]


def reward_count(client: RpcClient, decision_id: str) -> int:
    """Rewards of a decision in the log."""
    sql = "select count(*) from rewards r join decisions d on d.position = r.decision where d.decision_id = ?"
    return int(client.rows(sql, decision_id)[0][0])


def test_reward_in_the_window_joins_and_after_it_is_late(client: RpcClient, mine: str) -> None:
    """The window is the contract of what is learned; late rewards are kept for people, not learned."""
    client.apply(experiment(mine, window=SHORT))
    id_ = client.decide(mine).decision_id
    early = client.reward(id_, name="early")
    time.sleep(SHORT)
    assert client.reward(id_, name="later") == "late"
    outcomes = dict(client.rows("select name, outcome from joined_rewards where decision_id = ?", id_))
    assert outcomes == {"early": early, "later": "late"}
    # on a machine that stood still for the whole window, the first is late as well: what must hold is the rule
    at = "select r.time - d.time from rewards r join decisions d on d.position = r.decision where d.decision_id = ?"
    delays = [delay for (delay,) in client.rows(f"{at} order by r.position", id_)]
    assert ["joined" if delay < SHORT * 1e6 else "late" for delay in delays] == [early, "late"]


def test_reward_keeps_value_and_time_as_sent(client: RpcClient, mine: str) -> None:
    """Researchers read what the caller said, not what the learner made of it."""
    message = experiment(mine)
    message.reward.weights["purchase"] = 0.5
    message.reward.range.maximum = 10
    client.apply(message)
    id_ = client.decide(mine).decision_id
    client.reward(id_, name="purchase", value=2.5, occurred_at=Timestamp(seconds=1_600_000_000, nanos=1000))
    sql = "select r.name, r.value, r.weight, r.occurred_at from rewards r join decisions d on d.position = r.decision"
    assert client.rows(f"{sql} where d.decision_id = ?", id_) == [("purchase", 2.5, 0.5, 1_600_000_000_000_001)]


def test_reward_of_an_unknown_decision_is_counted_but_not_written(client: RpcClient, mine: str) -> None:
    """Orphans tell growth teams that ids get lost on the way; they must not enter the log's order."""
    before = client.rows("select count(*) from rewards"), orphans(client, mine)
    status = status_of(lambda: client.reward("no-such-decision", name=mine))
    assert (code_of(status), reason_of(status)) == ("NOT_FOUND", "DECISION_NOT_FOUND")
    assert (client.rows("select count(*) from rewards"), orphans(client, mine)) == (before[0], before[1] + 1)


def orphans(client: RpcClient, name: str) -> int:
    """Counted orphans of a reward's name."""
    sql = "select coalesce(sum(count), 0) from refused_rewards where outcome = 'orphan' and name = ?"
    return int(client.rows(sql, name)[0][0])


def test_decide_batch_keeps_order_and_each_its_own_status(client: RpcClient, mine: str) -> None:
    """One bad request in a thousand must not cost the other 999, and callers match results by place."""
    client.apply(experiment(mine))
    good = [pb.DecideRequest(experiment=mine, unit_id=f"unit-{i}", decision_id=f"{mine}-{i}") for i in range(3)]
    bad = pb.DecideRequest(experiment=mine)
    unknown = pb.DecideRequest(experiment="no-such-experiment", unit_id="unit")
    results = client.decide_batch([good[0], bad, good[1], unknown, good[0], good[2]])
    kinds = [result.WhichOneof("result") for result in results]
    assert kinds == ["response", "error", "response", "error", "response", "response"]
    assert [results[i].response.decision_id for i in (0, 2, 5)] == [request.decision_id for request in good]
    assert results[4].response == results[0].response
    assert fields_of(results[1].error) == ["unit_id"]
    assert reason_of(results[3].error) == "EXPERIMENT_NOT_FOUND"
    assert client.rows("select count(*) from decisions where decision_id like ?", f"{mine}-%") == [(3,)]


def test_decide_batch_is_one_commit(client: RpcClient, mine: str) -> None:
    """The point of a batch is one commit: its entries carry one time."""
    client.apply(experiment(mine))
    client.decide_batch(
        [pb.DecideRequest(experiment=mine, unit_id="unit", decision_id=f"{mine}-{i}") for i in range(1000)]
    )
    sql = "select count(*), count(distinct time), max(position) - min(position) from decisions where decision_id like ?"
    assert client.rows(sql, f"{mine}-%") == [(1000, 1, 999)]


def test_batch_with_a_reused_id_refuses_only_that_one(client: RpcClient, mine: str) -> None:
    """An id that was taken before shows only at the commit; the rest of the batch must stand."""
    client.apply(experiment(mine))
    client.decide(mine, "first", decision_id=f"{mine}-taken")
    results = client.decide_batch(
        [
            pb.DecideRequest(experiment=mine, unit_id="second", decision_id=f"{mine}-taken"),
            pb.DecideRequest(experiment=mine, unit_id="second", decision_id=f"{mine}-new"),
        ]
    )
    assert reason_of(results[0].error) == "DECISION_ID_REUSED"
    assert results[1].response.decision_id == f"{mine}-new"


def test_reward_batch_keeps_order_and_each_its_own_status(client: RpcClient, mine: str) -> None:
    """As for decisions; a duplicate within the batch counts once as well."""
    client.apply(experiment(mine))
    id_ = client.decide(mine).decision_id
    results = client.reward_batch(
        [
            pb.RewardRequest(decision_id=id_, reward_id="1"),
            pb.RewardRequest(decision_id="no-such-decision"),
            pb.RewardRequest(decision_id=id_, reward_id="1"),
            pb.RewardRequest(decision_id=id_, value=float("nan")),
            pb.RewardRequest(decision_id=id_, reward_id="2", value=0.5),
        ]
    )
    kinds = [result.WhichOneof("result") for result in results]
    assert kinds == ["response", "error", "response", "error", "response"]
    assert [outcome_name(results[i].response.outcome) for i in (0, 2, 4)] == ["joined", "duplicate", "joined"]
    assert (reason_of(results[1].error), fields_of(results[3].error)) == ("DECISION_NOT_FOUND", ["value"])
    assert reward_count(client, id_) == 2


def test_without_exploration_the_propensity_is_one(client: RpcClient, mine: str) -> None:
    """Such a decision is no draw; its propensity must say so."""
    client.apply(experiment(mine))
    reply = client.decide(mine, explore=False, with_ranking=True)
    assert (reply.propensity, reply.reason) == (1.0, pb.REASON_NO_EXPLORATION)
    assert [ranked.propensity for ranked in reply.ranking] == [1.0, 0.0, 0.0]


def test_whole_holdout_gets_the_baseline(client: RpcClient, mine: str) -> None:
    """The control group is what personalisation is compared with: nobody in it may get anything else."""
    fixed = experiment_pb2.Policy(fixed=experiment_pb2.Fixed())  # any other one is refused beside a holdout of 1
    client.apply(experiment(mine, holdout=1.0, baseline_action="b", policy=fixed))
    for unit in range(20):
        reply = client.decide(mine, f"unit-{unit}")
        assert (reply.action.id, reply.propensity, reply.reason) == ("b", 1.0, pb.REASON_HOLDOUT)


def test_units_stay_in_their_group(client: RpcClient, mine: str) -> None:
    """A unit that changes groups spoils both: the group must follow from the unit alone."""
    client.apply(experiment(mine, holdout=0.5, baseline_action="b"))
    groups = [[client.decide(mine, f"unit-{unit}").reason == pb.REASON_HOLDOUT for unit in range(40)] for _ in range(2)]
    assert groups[0] == groups[1]
    assert 0 < sum(groups[0]) < 40


def test_fixed_policy_serves_the_baseline(client: RpcClient, mine: str) -> None:
    """The plain alternative to learning, under the same roof and in the same log."""
    client.apply(experiment(mine, baseline_action="c", policy=experiment_pb2.Policy(fixed=experiment_pb2.Fixed())))
    reply = client.decide(mine, "unit")
    assert (reply.action.id, reply.propensity, reply.reason, reply.model) == ("c", 1.0, pb.REASON_BASELINE, 0)


def test_only_eligible_action_needs_no_policy(client: RpcClient, mine: str) -> None:
    """Where there is nothing to choose, the reason must not say that a policy chose."""
    client.apply(experiment(mine))
    reply = client.decide(mine, eligible_actions=["b"])
    assert (reply.action.id, reply.propensity, reply.reason) == ("b", 1.0, pb.REASON_ONLY_ELIGIBLE)


def test_excluded_actions_are_never_served(client: RpcClient, mine: str) -> None:
    """An offer that is sold out must not be shown, and its probability must be zero before the draw, not after."""
    client.apply(experiment(mine))
    replies = [client.decide(mine, f"unit-{i}", excluded_actions=["b"], with_ranking=True) for i in range(40)]
    assert {reply.action.id for reply in replies} == {"a", "c"}
    assert all({ranked.action for ranked in reply.ranking} == {"a", "c"} for reply in replies)


def test_eligible_actions_are_the_only_ones_served(client: RpcClient, mine: str) -> None:
    """The caller's list narrows the experiment's, in the experiment's order, and an excluded one leaves it."""
    client.apply(experiment(mine))
    ids = [
        client.decide(mine, f"unit-{i}", eligible_actions=["c", "b", "a"], excluded_actions=["a"]).decision_id
        for i in range(10)
    ]
    served = {client.rows("select eligible from decisions where decision_id = ?", id_)[0][0] for id_ in ids}
    assert served == {'["b","c"]'}


def test_retired_actions_are_no_longer_served(client: RpcClient, mine: str) -> None:
    """Retiring keeps the history of an action and ends its showing."""
    client.apply(experiment(mine))
    message = experiment(mine)
    message.actions[0].state = experiment_pb2.ACTION_STATE_RETIRED
    client.apply(message)
    assert {client.decide(mine, f"unit-{i}").action.id for i in range(30)} == {"b", "c"}


def test_action_features_of_a_call_are_accepted_and_logged(client: RpcClient, mine: str) -> None:
    """Price and stock are known only now; what was scored must be what is logged."""
    client.apply(experiment(mine))
    reply = client.decide(
        mine, action_features={"a": features(price=9.5, colour="red|blue"), "b": features(in_stock=True)}
    )
    (logged,) = client.rows("select action_features from decisions where decision_id = ?", reply.decision_id)
    assert logged == ('{"a":{"colour":"red|blue","price":9.5},"b":{"in_stock":true}}',)


def test_context_is_logged_as_it_was_scored(client: RpcClient, mine: str) -> None:
    """Offline evaluation needs the whole context, with the characters that Vowpal Wabbit would trip over."""
    client.apply(experiment(mine))
    context = pb.Context(
        segment="new visitor", device="a|b:c", channel="é=ü", features=features(age=31, vip=False, note="line\nline")
    )
    id_ = client.decide(mine, context=context).decision_id
    sql = "select segment, device, channel, location, intent_stage, features from decisions where decision_id = ?"
    assert client.rows(sql, id_) == [
        ("new visitor", "a|b:c", "é=ü", None, None, '{"age":31.0,"note":"line\\nline","vip":false}')
    ]


def test_paused_experiment_refuses_decisions_until_resumed(client: RpcClient, mine: str) -> None:
    """A pause is the emergency brake; rewards of what was shown before must still arrive."""
    client.apply(experiment(mine))
    id_ = client.decide(mine).decision_id
    paused = client.pause(mine)
    assert (paused.version, paused.experiment.state) == (2, experiment_pb2.EXPERIMENT_STATE_PAUSED)
    assert reason_of(status_of(lambda: client.decide(mine))) == "EXPERIMENT_PAUSED"
    assert client.reward(id_) == "joined"
    resumed = client.resume(mine)
    assert (resumed.version, resumed.experiment.state) == (3, experiment_pb2.EXPERIMENT_STATE_ACTIVE)
    assert client.decide(mine).experiment_version == 3


def test_an_ended_experiment_refuses_decisions_and_accepts_rewards(client: RpcClient, mine: str) -> None:
    """Its last visitors still buy; its history stays; and it can begin again, with the next version."""
    client.apply(experiment(mine))
    id_ = client.decide(mine).decision_id
    ended = client.apply(experiment(mine, state=experiment_pb2.EXPERIMENT_STATE_ENDED))
    assert (ended.changed, ended.applied.version) == (True, 2)
    assert reason_of(status_of(lambda: client.decide(mine, decision_id="new"))) == "EXPERIMENT_ENDED"
    assert client.reward(id_) == "joined"
    assert client.decide(mine, "unit", decision_id=id_).decision_id == id_
    got = client.get(mine)
    assert (got.version, got.experiment.state) == (2, experiment_pb2.EXPERIMENT_STATE_ENDED)
    assert [action.id for action in got.experiment.actions] == ["a", "b", "c"]
    assert mine not in [one.experiment.id for one in client.page(1000).experiments]
    assert reason_of(status_of(lambda: client.pause(mine))) == "EXPERIMENT_ENDED"
    assert reason_of(status_of(lambda: client.resume(mine))) == "EXPERIMENT_ENDED"
    assert not client.apply(experiment(mine)).changed, "a definition without a state keeps it ended"
    client.apply(experiment(mine, state=experiment_pb2.EXPERIMENT_STATE_ACTIVE))
    assert client.decide(mine).experiment_version == 3


def test_retry_is_answered_while_the_experiment_is_paused(client: RpcClient, mine: str) -> None:
    """The decision was made and logged before: whoever asks again for its answer asks for no new one."""
    client.apply(experiment(mine))
    first = client.decide(mine, decision_id=f"{mine}-1")
    client.pause(mine)
    assert client.decide(mine, decision_id=f"{mine}-1") == first


def test_retry_is_answered_after_its_action_was_retired(client: RpcClient, mine: str) -> None:
    """The same request with the same id has one answer, whatever became of the experiment meanwhile."""
    client.apply(experiment(mine))
    first = client.decide(mine, decision_id=f"{mine}-1", eligible_actions=["a"])
    message = experiment(mine)
    message.actions[0].state = experiment_pb2.ACTION_STATE_RETIRED
    client.apply(message)
    assert client.decide(mine, decision_id=f"{mine}-1", eligible_actions=["a"]) == first


def test_pausing_twice_is_one_version(client: RpcClient, mine: str) -> None:
    """Whoever pulls the brake twice has pulled it once."""
    client.apply(experiment(mine))
    assert [client.pause(mine).version, client.pause(mine).version] == [2, 2]


def test_new_definition_without_a_state_keeps_the_pause(client: RpcClient, mine: str) -> None:
    """A deployment of an experiment file must not release the brake that somebody pulled."""
    client.apply(experiment(mine))
    client.pause(mine)
    applied = client.apply(experiment(mine, description="changed")).applied
    assert applied.experiment.state == experiment_pb2.EXPERIMENT_STATE_PAUSED


def test_same_content_makes_no_new_version(client: RpcClient, mine: str) -> None:
    """Deployments apply every file every time; versions count changes."""
    first = client.apply(experiment(mine))
    again = client.apply(experiment(mine))
    assert (first.changed, first.applied.version) == (True, 1)
    assert (again.changed, again.applied) == (False, first.applied)


def test_stored_definition_applied_again_is_the_same_content(client: RpcClient, mine: str) -> None:
    """What Get returns is complete: with every default written out it is still the same experiment."""
    client.apply(experiment(mine))
    assert client.apply(client.get(mine).experiment).changed is False


def test_validate_only_changes_nothing(client: RpcClient, mine: str) -> None:
    """A pull request's check must be able to ask without doing."""
    asked = client.apply(experiment(mine), validate_only=True)
    assert (asked.changed, asked.applied.version) == (True, 1)
    assert reason_of(status_of(lambda: client.get(mine))) == "EXPERIMENT_NOT_FOUND"
    client.apply(experiment(mine))
    asked = client.apply(experiment(mine, "a"), validate_only=True)
    assert (asked.changed, asked.applied.version) == (True, 2)
    assert not client.apply(experiment(mine), validate_only=True).changed
    assert (client.get(mine).version, len(client.get(mine).experiment.actions)) == (1, 3)
    assert client.rows("select count(*) from experiments where experiment = ?", mine) == [(1,)]


def test_validate_only_finds_what_is_wrong(client: RpcClient, mine: str) -> None:
    """Asking must find what doing would refuse."""
    status = status_of(lambda: client.apply(experiment(mine, "a", "a"), validate_only=True))
    assert fields_of(status) == ["actions[1].id"]


def test_experiments_are_listed_in_pages(client: RpcClient, mine: str) -> None:
    """All experiments, each once, by id, whatever the page size."""
    for letter in "edcba":
        client.apply(experiment(f"{mine}-{letter}"))
    listed: list[str] = []
    token, pages = "", 0
    while pages == 0 or token:
        page = client.page(page_size=2, page_token=token)
        assert 0 < len(page.experiments) <= 2
        listed += [found.experiment.id for found in page.experiments]
        token, pages = page.next_page_token, pages + 1
    assert listed == sorted(set(listed))
    assert [id_ for id_ in listed if id_.startswith(mine)] == [f"{mine}-{letter}" for letter in "abcde"]
    everything = client.page(page_size=1000)
    assert ([found.experiment.id for found in everything.experiments], everything.next_page_token) == (listed, "")


def test_first_activation_counts(client: RpcClient, mine: str) -> None:
    """Frontends report a display more than once; the first word is the one that is kept."""
    client.apply(experiment(mine))
    id_ = client.decide(mine).decision_id
    assert [client.activate(id_), client.activate(id_), client.activate(id_, "a")] == [True, False, False]
    sql = "select a.action from activations a join decisions d on d.position = a.decision where d.decision_id = ?"
    assert client.rows(sql, id_) == [(None,)]


def test_override_is_logged_and_not_learned(client: RpcClient, mine: str) -> None:
    """The reward of what an editor put in place says nothing about the drawn action."""
    client.apply(experiment(mine, "a", "b", window=1.5))
    reply = client.decide(mine)
    other = "b" if reply.action.id == "a" else "a"
    assert client.activate(reply.decision_id, other)
    client.reward(reply.decision_id)
    sql = "select overridden, reward from sealed_decisions where decision_id = ?"
    sealed = client.until(lambda: client.rows(sql, reply.decision_id), what="the decision is sealed")
    assert sealed == [(1, 1.0)]
    learned = client.decide(mine, decision_id=f"{mine}-2").decision_id
    client.until(lambda: client.rows(sql, learned), what="the next decision is sealed")
    model = client.until(lambda: client.get(mine).model, what="a model serves")
    assert client.rows("select learned from published where experiment = ? and model = ?", mine, model) == [(1,)]


def test_override_with_the_drawn_action_is_no_override(client: RpcClient, mine: str) -> None:
    """Naming what was drawn says that it was shown."""
    client.apply(experiment(mine))
    reply = client.decide(mine)
    client.activate(reply.decision_id, reply.action.id)
    sql = "select a.action from activations a join decisions d on d.position = a.decision where d.decision_id = ?"
    assert client.rows(sql, reply.decision_id) == [(None,)]


def test_paying_action_becomes_the_most_probable(client: RpcClient, mine: str) -> None:
    """What the whole service is for: rewards change what is served, within seconds and without a restart."""
    client.apply(experiment(mine, "a", "b", "pays", window=SHORT))
    assert client.get(mine).model == 0

    def visitors() -> None:
        requests = [pb.DecideRequest(experiment=mine, unit_id=f"unit-{unit}") for unit in range(100)]
        replies = [result.response for result in client.decide_batch(requests)]
        clicks = [pb.RewardRequest(decision_id=r.decision_id) for r in replies if r.action.id == "pays"]
        if clicks:
            assert {result.response.outcome for result in client.reward_batch(clicks)} <= {
                pb.REWARD_OUTCOME_JOINED,
                pb.REWARD_OUTCOME_LATE,
            }
        client.breathe()

    def favourite() -> bool:
        visitors()
        reply = client.decide(mine, with_ranking=True)
        return reply.model > 0 and reply.ranking[0].action == "pays" and reply.ranking[0].propensity > 0.8

    client.until(favourite, what="the paying action is the most probable one")
    best = client.decide(mine, explore=False)
    assert best.action.id == "pays"
    assert best.model == client.rows("select model from decisions where decision_id = ?", best.decision_id)[0][0]
    assert client.get(mine).model > 0
