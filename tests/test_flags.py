"""Flags of OpenFeature over flagd's API: what an evaluation is, what it costs, what is refused, and what is told."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct

from decider.channel import Credentials, open_channel
from decider.errors import InvalidArgument, TargetingKeyMissing
from decider.flagd.v1 import evaluation_pb2 as v1
from decider.flagd.v1.evaluation_pb2_grpc import ServiceStub as StubV1
from decider.flagd.v2 import evaluation_pb2 as v2
from decider.flagd.v2.evaluation_pb2_grpc import ServiceStub as StubV2
from decider.log.open import open_reader
from decider.server import worker
from decider.server.flags.contexts import MOST_DEPTH, MOST_VIOLATIONS, plain, read_context
from decider.server.flags.evaluations import bulk_bytes, evaluated, reason_of
from decider.server.flags.events import FlagEvents
from decider.server.flags.flagd import Flagd
from decider.server.flags.flags import Flags
from decider.server.roles import ALL
from decider.server.service import PATIENT
from decider.serving.current import Current
from decider.types import Time
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from decider.v1.decider_service_pb2_grpc import DeciderServiceStub
from decider.v1.experiment_service_pb2_grpc import ExperimentServiceStub
from tests.rpc_clients import (
    PATIENCE,
    InProcessClient,
    code_of,
    experiment,
    fields_of,
    status_of,
)
from tests.rpc_clients import reason_of as error_reason

HOME, OFF, OVER = "home", "off", "over"
"""Experiments: one that serves, one that is paused, one that has ended."""


TYPES = ("Boolean", "String", "Float", "Int", "Object")


class Place:
    """A server with those experiments, and a stub of each version. token: that calls are made with."""

    def __init__(self, folder: Path, token: str = "", **settings: Any) -> None:
        self.client = client = InProcessClient(folder / "log.db", **settings)
        if token:
            client.channel = open_channel(client.target, Credentials(token=token))
            client._stubs = {
                "DeciderService": DeciderServiceStub(client.channel),  # type: ignore[no-untyped-call]
                "ExperimentService": ExperimentServiceStub(client.channel),  # type: ignore[no-untyped-call]
            }
        home = experiment(HOME, "sale", "outfit", window=3600.0)
        home.reward.attribution = experiment_pb2.ATTRIBUTION_LAST
        for action in home.actions:
            action.payload.update({"title": action.id.upper(), "size": 2, "tags": ["a"]})
        client.apply(home)
        client.apply(experiment(OFF))
        client.pause(OFF)
        client.apply(experiment(OVER))
        client.apply(experiment(OVER, state=experiment_pb2.EXPERIMENT_STATE_ENDED))
        self.stubs: Mapping[str, Any] = {
            "v1": StubV1(client.channel),  # type: ignore[no-untyped-call]
            "v2": StubV2(client.channel),  # type: ignore[no-untyped-call]
        }

    def resolve(self, version: str, type_: str, key: str, context: Mapping[str, Any] | None = None) -> Any:
        """The reply; the context is that of a person unless given."""
        messages: ModuleType = {"v1": v1, "v2": v2}[version]
        request = getattr(messages, f"Resolve{type_}Request")(flag_key=key)
        request.context.update({"targetingKey": "ann"} if context is None else context)
        return getattr(self.stubs[version], f"Resolve{type_}")(request, timeout=PATIENCE)

    def refused(self, type_: str, key: str, context: Mapping[str, Any] | None = None) -> Any:
        """How that ends."""
        return status_of(lambda: self.resolve("v2", type_, key, context))

    def resolve_all(self, context: Mapping[str, Any]) -> Any:
        """The reply."""
        request = v1.ResolveAllRequest()
        request.context.update(context)
        return self.stubs["v1"].ResolveAll(request, timeout=PATIENCE)

    @property
    def decisions(self) -> int:
        """How many there are in the log."""
        ((count,),) = self.client.rows("select count(*) from decisions")
        return int(count)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One server for all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "LOOK_INTERVAL", 0.05)
        made = Place(tmp_path_factory.mktemp("flags"))
        yield made
        made.client.close()


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_string_flag_is_the_action_of_a_decision(place: Place, version: str) -> None:
    """What a provider hands to an application: value, variant, reason, and by what its reward is sent."""
    reply = place.resolve(version, "String", HOME, {"targetingKey": "ann", "device": "phone", "cart": {"items": 2}})
    assert reply.value == reply.variant
    assert (reply.value in ("sale", "outfit"), reply.reason) == (True, "SPLIT")
    metadata = MessageToDict(reply.metadata)
    ends = datetime.fromisoformat(metadata.pop("expires")) - datetime.now(UTC)
    assert timedelta(seconds=3500) < ends <= timedelta(seconds=3600)
    id_ = metadata.pop("decisionId")
    assert metadata == {"contextId": "ann", "version": "1", "propensity": 0.5, "flagSetId": "decider"}
    with closing(open_reader(place.client.db)) as log:
        logged = log.find(id_)
    assert logged is not None
    decision = logged.decision
    assert (decision.action, decision.unit_id, decision.context.device) == (reply.value, "ann", "phone")
    assert decision.context.features == {"cart.items": 2.0}


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("key", [HOME, f"{HOME}:object"])
def test_an_object_flag_has_all_that_a_page_needs(place: Place, version: str, key: str) -> None:
    """Some clients drop the metadata, so the decision id is in the value."""
    reply = place.resolve(version, "Object", key)
    value = MessageToDict(reply.value)
    assert value == {
        "action": reply.variant,
        "payload": {"title": reply.variant.upper(), "size": 2, "tags": ["a"]},
        "decision_id": reply.metadata["decisionId"],
        "propensity": 0.5,
        "reason": value["reason"],
    }
    assert value["reason"] in ("EXPLOIT", "EXPLORE")


@pytest.mark.parametrize("reason", pb.Reason.values())
def test_a_reason_is_never_one_that_clients_cache(reason: int) -> None:
    """They keep a STATIC value by its key alone, for everybody."""
    drawn = {"EXPLOIT", "EXPLORE", "HOLDOUT", "HOLDOUT_UNAVAILABLE", "STICKY"}
    told = reason_of(pb.DecideResponse(reason=reason))  # type: ignore[arg-type]
    assert told == ("SPLIT" if pb.Reason.Name(reason).removeprefix("REASON_") in drawn else "DEFAULT")


@pytest.mark.parametrize("key", [OFF, OVER])
@pytest.mark.parametrize("type_", ["String", "Object"])
def test_what_is_paused_or_has_ended_is_off(place: Place, key: str, type_: str) -> None:
    """Without a value and a variant a client shows its code's default, and says why."""
    first, second = place.resolve("v1", type_, key), place.resolve("v2", type_, key)
    assert (first.reason, first.variant, second.reason) == ("DISABLED", "", "DISABLED")
    assert not first.value
    assert [field.name for field, _ in second.ListFields()] == ["reason", "metadata"]


def test_a_decision_id_gives_the_same_decision_again(place: Place) -> None:
    """Whoever wants both views of one decision, or sends a call again, names it."""
    context = {"targetingKey": "bob", "decision_id": "mine-1"}
    string = place.resolve("v2", "String", HOME, context)
    before = place.decisions
    again = place.resolve("v1", "Object", HOME, {"targetingKey": "bob", "decisionId": "mine-1"})
    assert (again.value["decision_id"], again.variant) == ("mine-1", string.variant)
    assert again.metadata == string.metadata
    assert place.decisions == before
    status = place.refused("String", HOME, context | {"targetingKey": "eve"})
    assert (code_of(status), error_reason(status)) == ("ALREADY_EXISTS", "DECISION_ID_REUSED")


@pytest.mark.parametrize("type_", ["Boolean", "Int", "Float"])
def test_an_experiment_is_no_boolean_and_no_number(place: Place, type_: str) -> None:
    """INVALID_ARGUMENT is what clients take for another type; nothing is decided that nobody would see."""
    before = place.decisions
    assert code_of(place.refused(type_, HOME)) == "INVALID_ARGUMENT"
    assert code_of(place.refused(type_, "nothing")) == "NOT_FOUND"
    assert code_of(place.refused("String", f"{HOME}:object")) == "INVALID_ARGUMENT"
    assert place.decisions == before


@pytest.mark.parametrize("key", ["nothing", "", "home:string", "x" * 100_000, "home:object:object"])
def test_a_flag_that_is_not_there_is_not_found(place: Place, key: str) -> None:
    """Clients fall back to the code's default, and say so."""
    status = place.refused("String", key)
    assert (code_of(status), error_reason(status)) == ("NOT_FOUND", "FLAG_NOT_FOUND")


@pytest.mark.parametrize("context", [{}, {"targetingKey": ""}, {"targetingKey": None}])
def test_who_the_flag_is_for_has_to_be_said(place: Place, context: dict[str, Any]) -> None:
    """A decision is a unit's."""
    status = place.refused("String", HOME, context)
    assert (code_of(status), error_reason(status)) == ("INVALID_ARGUMENT", "TARGETING_KEY_MISSING")
    assert fields_of(status) == ["context[targetingKey]"]


DEEP: dict[str, Any] = {"x": 1}
for _ in range(MOST_DEPTH):
    DEEP = {"x": DEEP}


@pytest.mark.parametrize(
    ("attributes", "fields"),
    [
        ({"a": {"b": 1}, "a.b": 2}, ["context[a.b]"]),
        ({"intentStage": "buy", "intent_stage": "browse"}, ["context[intent_stage]"]),
        ({"device": 5}, ["context[device]"]),
        ({"segment": "x" * 257}, ["context[segment]"]),
        ({"sizes": [1, 2]}, ["context[sizes]"]),
        ({"mixed": ["a", {"b": 1}]}, ["context[mixed]"]),
        ({"likes": ["x" * 70]}, ["context[likes." + "x" * 59 + "]"]),
        ({"n" * 100: 1}, ["context[" + "n" * 65 + "]"]),
        ({"": 1}, ["context"]),
        ({"agent": "x" * 257}, ["context[agent]"]),
        ({"age": 1e300, "weight": float("nan")}, ["context[age]", "context[weight]"]),
        ({"deep": DEEP}, ["context[deep" + ".x" * MOST_DEPTH + "]"]),
        ({f"f{number}": 1 for number in range(10_000)}, ["context"]),
        ({"list": [str(number) for number in range(10_000)]}, ["context"]),
        ({"nested": {f"f{number}": {"a": 1, "b": 2} for number in range(100)}}, ["context"]),
    ],
)
def test_a_context_that_is_no_context_is_refused_by_name(
    place: Place, attributes: dict[str, Any], fields: list[str]
) -> None:
    """Whatever is sent: it is found in an application's own words, or there are too many."""
    before = place.decisions
    status = place.refused("String", HOME, {"targetingKey": "ann", **attributes})
    assert (code_of(status), fields_of(status)) == ("INVALID_ARGUMENT", fields)
    assert place.decisions == before


@pytest.mark.parametrize(
    "context",
    [
        {"a": 10**400},
        {"a": "\ud800"},
        {"\ud800": 1},
        {"targetingKey": "\ud800"},
        {"targetingKey": 5},
        {"targetingKey": ["ann"]},
        {"a": [["b"]]},
        {f"{'x' * 70}{number}": number for number in range(10_000)},
        {"x" * 10_000_000: {str(number): 1 for number in range(1_000)}},
    ],
)
def test_json_that_no_message_can_be_is_refused_as_well(context: dict[str, Any]) -> None:
    """OFREP brings JSON, which has more in it than messages; no error is longer than its readers allow."""
    with pytest.raises(InvalidArgument) as caught:
        read_context({"targetingKey": "ann"} | context)
    assert len(caught.value.violations) <= MOST_VIOLATIONS
    assert all(len(one.field) < 600 and one.field.encode() for one in caught.value.violations)


def test_what_a_context_says_is_what_is_learned_from() -> None:
    """A list has no order, a struct is flat, what is null was not said, and a text stays one."""
    message = Struct()
    message.update(
        {
            "targetingKey": "ann",
            "intentStage": "buy",
            "cart": {"items": 2, "ids": ["p1", "p2", "p1"], "coupon": None},
            "vip": True,
            "code": "7",
            "empty": [],
        }
    )
    read = read_context(plain(message))
    assert (read.unit_id, read.decision_id, read.context.intent_stage) == ("ann", "", "buy")
    assert MessageToDict(read.context.features) == {
        "cart.items": 2,
        "cart.ids.p1": True,
        "cart.ids.p2": True,
        "vip": True,
        "code": "7",
    }


def test_the_targeting_key_is_the_last_thing_that_is_missed() -> None:
    """A client tells its developer TARGETING_KEY_MISSING: nothing else may be wrong then."""
    with pytest.raises(TargetingKeyMissing):
        read_context({})
    with pytest.raises(InvalidArgument) as caught:
        read_context({"device": 1})
    assert caught.value.reason == "INVALID_ARGUMENT"


def test_all_flags_at_once_are_one_decision_each(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """Two views of it, one entry in the log; what is off is left out; the log says once what that costs."""
    before = place.decisions
    with caplog.at_level(logging.WARNING):
        replies = [place.resolve_all({"targetingKey": "ann", "device": "phone"}) for _ in range(2)]
    assert place.decisions == before + 2
    for reply in replies:
        assert set(reply.flags) == {HOME, f"{HOME}:object"}
        string, of_object = reply.flags[HOME], reply.flags[f"{HOME}:object"]
        assert string.string_value == string.variant == of_object.variant == of_object.object_value["action"]
        assert string.metadata == of_object.metadata
        assert of_object.object_value["decision_id"] == string.metadata["decisionId"]
        assert reply.metadata["flagSetId"] == "decider"
    warnings = [one.message for one in caplog.records if "all flags at once" in one.message]
    assert len(warnings) == 1
    assert f"experiment {HOME}" in warnings[0]


@pytest.mark.parametrize(
    ("context", "field"),
    [({"targetingKey": "ann", "decision_id": "one"}, "context[decision_id]"), ({}, "context[targetingKey]")],
)
def test_a_context_that_all_flags_cannot_have_is_refused(place: Place, context: dict[str, Any], field: str) -> None:
    """One id for many decisions would be none of them."""
    status = status_of(lambda: place.resolve_all(context))
    assert (code_of(status), fields_of(status)) == ("INVALID_ARGUMENT", [field])


def test_what_is_asked_for_at_once_is_not_counted_before_it_is_seen(place: Place) -> None:
    """With `activation = "required"`, what no page shows is no example, and nobody is warned."""
    needs = experiment("seen", "a", "b", activation=experiment_pb2.ACTIVATION_REQUIRED)
    place.client.apply(needs)
    reply = place.resolve_all({"targetingKey": "ann"})
    id_ = reply.flags["seen"].metadata["decisionId"]
    assert place.client.reward(id_) == "joined"
    assert place.client.activate(id_)
    place.client.apply(experiment("seen", "a", "b", state=experiment_pb2.EXPERIMENT_STATE_ENDED))


def test_a_reward_by_unit_reaches_what_a_flag_has_decided(place: Place) -> None:
    """Where the decision id got lost on the way to the purchase."""
    flag = place.resolve("v2", "String", HOME, {"targetingKey": "carl"})
    reply = place.client.call(
        "DeciderService", "Reward", pb.RewardRequest(unit_id="carl", experiment=HOME, value=2, reward_id="order-1")
    )
    assert list(reply.decision_ids) == [flag.metadata["decisionId"]]


def test_no_flags_are_larger_than_was_reckoned() -> None:
    """What is refused before it is decided must be all that a client cannot receive."""
    unit, id_ = "\U0001f600" * 256, "\U0001f600" * 128
    batch = pb.DecideBatchResponse()
    for number in range(20):
        response = batch.results.add().response
        response.decision_id, response.propensity = id_, 1 / 3
        response.action.id = f"{number:064}"
        response.reason = pb.REASON_HOLDOUT_UNAVAILABLE
        response.experiment_version = 2**31 - 1
    flags = FixedFlags([evaluated(f"{n:064}", one.response, unit, Time(0)) for n, one in enumerate(batch.results)])
    told = Flagd(v1, flags, FlagEvents(Current())).ResolveAll(v1.ResolveAllRequest(), PATIENT, ALL)
    assert len(told.flags) == 40
    assert told.ByteSize() <= bulk_bytes(batch, unit)


class FixedFlags(Flags):
    """What it evaluates is given."""

    def __init__(self, evaluations: Any) -> None:
        self._evaluations = evaluations

    def evaluate_all(self, *_: Any) -> Any:
        """See Flags."""
        return self._evaluations


STREAM = {"v1": v1.EventStreamRequest, "v2": v2.EventStreamRequest}


def open_events(place: Place, version: str = "v2") -> Any:
    """A stream, ready."""
    stream = place.stubs[version].EventStream(STREAM[version](), timeout=PATIENCE)
    assert next(stream).type == "provider_ready"
    return stream


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_stream_tells_which_flags_have_changed(place: Place, version: str) -> None:
    """Clients drop what they have kept of these; a model that has learned is no change."""
    stream, id_ = open_events(place, version), f"new-{version}"

    def changed() -> bool:
        """Whether the next event that names it names both of its flags."""
        events = (event for event in stream if event.type == "configuration_change")
        return next(
            {f"{id_}:object"} <= keys for keys in (set(one.data["flags"].keys()) for one in events) if id_ in keys
        )

    try:
        place.client.apply(experiment(id_))
        assert changed()
        place.client.pause(id_)
        assert changed()
        place.client.apply(experiment(id_, state=experiment_pb2.EXPERIMENT_STATE_ENDED))
        assert changed()
    finally:
        stream.cancel()


def test_a_kept_decision_is_told_with_its_own_end(place: Place) -> None:
    """Its window began with the first answer: later rewards are late, whenever a page asked again."""
    sticky = experiment("kept", "a", "b")
    sticky.sticky.FromSeconds(3600)
    place.client.apply(sticky)
    first, again = [place.resolve("v2", "String", "kept") for _ in range(2)]
    assert (again.reason, again.metadata) == ("SPLIT", first.metadata)
    place.client.apply(experiment("kept", state=experiment_pb2.EXPERIMENT_STATE_ENDED))


def test_a_context_that_an_experiment_refuses_is_named(place: Place) -> None:
    """In the words of who sent it; alone it fails, and the others do not."""
    strict = experiment("strict", "a", "b")
    strict.schema.on_problem = experiment_pb2.ON_FEATURE_PROBLEM_REFUSE
    strict.schema.features["device"].required = True
    place.client.apply(strict)
    status = place.refused("String", "strict", {"targetingKey": "ann", "colour": "red"})
    assert code_of(status) == "INVALID_ARGUMENT"
    assert set(fields_of(status)) == {"context[colour]", "context[device]"}
    assert f"{HOME}:object" in place.resolve_all({"targetingKey": "ann", "colour": "red"}).flags
    place.client.apply(experiment("strict", state=experiment_pb2.EXPERIMENT_STATE_ENDED))


FIELDS = {
    **{f"Resolve{type_}Request": {"flag_key": 1, "context": 2} for type_ in TYPES},
    **{f"Resolve{type_}Response": {"value": 1, "reason": 2, "variant": 3, "metadata": 4} for type_ in TYPES},
    "AnyFlag": {
        **{"reason": 1, "variant": 2, "metadata": 7},
        **{"bool_value": 3, "string_value": 4, "double_value": 5, "object_value": 6},
    },
    "EventStreamRequest": {},
    "EventStreamResponse": {"type": 1, "data": 2},
}
OF_V1 = {"ResolveAllRequest": {"context": 1}, "ResolveAllResponse": {"flags": 1, "metadata": 2}}


@pytest.mark.parametrize(("messages", "fields"), [(v1, FIELDS | OF_V1), (v2, FIELDS)])
def test_the_wire_format_is_flagds(messages: ModuleType, fields: dict[str, dict[str, int]]) -> None:
    """As open-feature/flagd-schemas has it: every client was generated from that."""
    found = messages.DESCRIPTOR.message_types_by_name
    assert {name: {one.name: one.number for one in kind.fields} for name, kind in found.items()} == fields
    types = [found[f"Resolve{type_}Response"].fields_by_name["value"].type for type_ in TYPES]
    assert types == [FieldDescriptor.TYPE_BOOL, FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_DOUBLE,
                     FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_MESSAGE]  # fmt: skip
    assert messages.DESCRIPTOR.package == f"flagd.evaluation.{'v1' if messages is v1 else 'v2'}"
