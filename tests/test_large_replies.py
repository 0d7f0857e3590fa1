"""A reply that its caller could not receive is refused before anything is logged, and lists come in pages that fit."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from decider.learn.limits import largest_definition
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from tests.rpc_clients import InProcessClient, code_of, experiment, fields_of, reason_of, rows, status_of

MOST = 100_000
"""Bytes of the largest reply."""


def with_payload(id_: str, size: int, **fields: Any) -> experiment_pb2.Experiment:
    """An experiment with two actions, each with so many characters."""
    message = experiment(id_, "a", "b", **fields)
    for action in message.actions:
        action.payload.update({"html": "x" * size})
    return message


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessClient]:
    """A server with small replies; `shop` has large payloads, in `ask` calls bring actions."""
    client = InProcessClient(tmp_path_factory.mktemp("log") / "log.db", max_reply_bytes=MOST)
    client.apply(with_payload("shop", 30_000))
    called = experiment_pb2.ActionsInCalls(most=5)
    uniform = experiment_pb2.Policy(uniform=experiment_pb2.Uniform())
    client.apply(experiment("ask", "a", "b", actions_in_calls=called, policy=uniform))
    yield client
    client.close()


def visits(number: int, first: int = 0) -> list[pb.DecideRequest]:
    """Requests with ids."""
    return [pb.DecideRequest(experiment="shop", unit_id=f"u{i}", decision_id=f"d{i}") for i in range(first, number)]


def large_call() -> pb.DecideRequest:
    """Whatever is chosen, its payload is too large."""
    request = pb.DecideRequest(experiment="ask", unit_id="u", eligible_actions=["new"])
    request.actions.add(id="new").payload.update({"html": "x" * MOST})
    return request


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("DecideBatch", pb.DecideBatchRequest(requests=visits(4)), "requests"),
        ("DecideBatch", pb.DecideBatchRequest(requests=[large_call()]), "requests"),
        (
            "DecideSlate",
            pb.DecideSlateRequest(experiment="ask", unit_id="u", slots=[pb.Slot()], actions=large_call().actions),
            "slots",
        ),
        ("Decide", large_call(), "actions"),
    ],
)
def test_what_a_caller_could_not_receive_is_not_decided(
    client: InProcessClient, method: str, request_: Any, field: str
) -> None:
    """Else it is in the log, and nobody has seen it."""
    if method == "DecideSlate":
        request_.slots[0].excluded_actions.extend("ab")
    status = status_of(lambda: client.call("DeciderService", method, request_))
    assert (code_of(status), fields_of(status)) == ("INVALID_ARGUMENT", [field])
    assert f"and {MOST} are possible" in status.message
    assert not rows(client.db, "select 1 from decisions")


def test_a_batch_that_fits_is_answered_and_so_is_its_retry(client: InProcessClient) -> None:
    """One with an error keeps its place."""
    for _ in range(2):
        first, wrong, last = client.decide_batch([visits(11, 10)[0], pb.DecideRequest(), visits(12, 11)[0]])
        assert (first.response.decision_id, last.response.decision_id) == ("d10", "d11")
        assert wrong.error.code
    assert len(client.rows("select 1 from decisions where decision_id in ('d10', 'd11')")) == 2


def test_rewards_whose_reply_would_be_too_large_are_not_logged(client: InProcessClient) -> None:
    """Else the caller sends them again for ever, or believes them lost."""
    id_ = client.decide("shop", "rewarded").decision_id
    right = pb.RewardRequest(decision_id=id_, value=0.5)
    wrong = [pb.RewardRequest(decision_id=f"{number:0200d}") for number in range(999)]
    status = status_of(lambda: client.reward_batch([right, *wrong]))
    assert (code_of(status), fields_of(status)) == ("INVALID_ARGUMENT", ["requests"])
    assert f"and {MOST} are possible; send fewer requests a call" in status.message
    assert not client.rows("select 1 from rewards")
    assert "orphan" not in client.fetch("/metrics")[1]
    results = client.reward_batch([right, *wrong[:100]])
    assert results[0].response.outcome
    assert all(one.error.code for one in results[1:])
    assert len(client.reward_batch([right] * 1_000)) == 1_000


def test_a_definition_has_room_in_every_reply(client: InProcessClient) -> None:
    """One that is there already may shrink, and be paused."""
    for id_, size in (("large", MOST // 2), ("shop", MOST)):
        status = status_of(partial(client.apply, with_payload(id_, size)))
        assert (code_of(status), reason_of(status)) == ("RESOURCE_EXHAUSTED", "DEFINITION_TOO_LARGE")
        assert str(largest_definition(MOST)) in status.message
    assert client.pause("shop").version
    assert client.resume("shop").version


def test_lists_come_in_pages_that_fit(client: InProcessClient) -> None:
    """However many were asked for; one at least, so that it ends."""
    ids = [f"shop-{i}" for i in range(5)]
    for id_ in ids:
        client.apply(with_payload(id_, 14_000))
    seen, token = [], ""
    while True:
        page = client.page(100, token)
        assert page.ByteSize() < MOST
        seen += [one.experiment.id for one in page.experiments]
        token = page.next_page_token
        if not token:
            break
    assert seen == sorted(["ask", "shop", *ids])


def test_ids_that_make_a_reply_too_large_are_left_out(client: InProcessClient) -> None:
    """Which decisions got the rewards of a unit is known only once they are logged."""
    uniform = experiment_pb2.Policy(uniform=experiment_pb2.Uniform())
    message = experiment("till", "a", "b", policy=uniform, window=60)
    message.reward.attribution = experiment_pb2.ATTRIBUTION_ALL
    client.apply(message)
    decided = client.decide_batch(
        [pb.DecideRequest(experiment="till", unit_id="u", decision_id=f"{i:0120d}") for i in range(10)]
    )
    assert not any(one.error.code for one in decided)
    rewards = [pb.RewardRequest(unit_id="u", experiment="till", reward_id=f"r{i}", value=0.1) for i in range(120)]
    assert len(client.reward_batch(rewards[:1])[0].response.decision_ids) == 10
    results = client.reward_batch(rewards[1:])
    assert [len(one.response.decision_ids) for one in results] == [0] * 119
    assert all(one.response.outcome == pb.REWARD_OUTCOME_JOINED for one in results)
