"""What several meanings of a decision come to together, through the service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from decider.log.open import open_reader
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from simulator.verify import verify
from tests.rpc_clients import InProcessClient, experiment


@pytest.fixture
def client(tmp_path: Path) -> Iterator[InProcessClient]:
    """Calls a service on a log of its own, whose decisions replay in the end."""
    made = InProcessClient(tmp_path / "log.db")
    yield made
    made.close()
    with closing(open_reader(tmp_path / "log.db")) as log:
        found = verify(log)
        assert found.equal == found.decisions > 0


def stores(name: str) -> experiment_pb2.Experiment:
    """Rewards may name a unit; the last open decision gets them."""
    made = experiment(name)
    made.reward.attribution = experiment_pb2.ATTRIBUTION_LAST
    return made


def call(client: InProcessClient, method: str, request: Message) -> Any:
    """Of the DeciderService."""
    return client.call("DeciderService", method, request)


def outcome(reply: pb.RewardResponse) -> str:
    """By name."""
    return str(pb.RewardOutcome.Name(reply.outcome)).removeprefix("REWARD_OUTCOME_")


def in_force(client: InProcessClient, decision: str) -> list[float | None]:
    """Of the rewards of a decision, what counts."""
    with closing(open_reader(client.db)) as log:
        return [one.in_force for one in log.rewards_between(decision, decision + "\0")]


def test_a_retraction_without_a_name_may_overtake_its_reward(client: InProcessClient) -> None:
    """Queues reorder, and the name is that of the reward: a returned purchase must not be learned as earned."""
    made = experiment("e")
    made.reward.weights.update({"purchase": 1.0, "click": 0.1})
    client.apply(made)
    call(client, "Decide", pb.DecideRequest(experiment="e", unit_id="u", decision_id="d"))
    retract = pb.RewardRequest(decision_id="d", reward_id="order", retract=True)
    assert outcome(call(client, "Reward", retract)) == "RETRACTED"
    bought = pb.RewardRequest(decision_id="d", reward_id="order", name="purchase", value=80.0)
    assert outcome(call(client, "Reward", bought)) == "DUPLICATE"
    assert in_force(client, "d") == [None]


def test_a_unit_takes_back_its_own_reward_whoever_it_was_linked_with(client: InProcessClient) -> None:
    """Both may have used the same id before anybody knew that they are one person."""
    client.apply(stores("e"))
    for unit in ("a", "b"):
        call(client, "Decide", pb.DecideRequest(experiment="e", unit_id=unit, decision_id=f"of-{unit}"))
        call(client, "Reward", pb.RewardRequest(unit_id=unit, reward_id="order", value=1.0))
    call(client, "LinkUnits", pb.LinkUnitsRequest(unit_id="a", same_as="b"))
    reply = call(client, "Reward", pb.RewardRequest(unit_id="a", reward_id="order", retract=True))
    assert (outcome(reply), list(reply.decision_ids)) == ("RETRACTED", ["of-a"])
    assert in_force(client, "of-b") == [1.0]


def test_a_reward_id_of_the_page_is_not_credited_again_by_the_till(client: InProcessClient) -> None:
    """A customer with two open decisions is the normal case."""
    client.apply(stores("e"))
    for number in range(2):
        call(client, "Decide", pb.DecideRequest(experiment="e", unit_id="u", decision_id=f"d{number}"))
    assert outcome(call(client, "Reward", pb.RewardRequest(decision_id="d0", reward_id="order", value=1.0))) == "JOINED"
    assert outcome(call(client, "Reward", pb.RewardRequest(unit_id="u", reward_id="order", value=1.0))) == "DUPLICATE"
    assert in_force(client, "d1") == []


def test_a_sticky_unit_of_an_apprentice_keeps_what_has_used_up_its_cap(client: InProcessClient) -> None:
    """A repeat is no new draw."""
    made = experiment("e", learning=experiment_pb2.LEARNING_APPRENTICE, baseline_action="a")
    made.sticky.FromSeconds(3_600)
    made.caps.add(action="b", most=1).per.FromSeconds(3_600)
    client.apply(made)
    asked = pb.DecideRequest(experiment="e", unit_id="u", default_action="b")
    replies = [call(client, "Decide", asked) for _ in range(3)]
    assert [one.action.id for one in replies] == ["b", "b", "b"]
    assert [one.reason for one in replies] == [pb.REASON_APPRENTICE, pb.REASON_STICKY, pb.REASON_STICKY]
