"""Flags of OpenFeature over HTTP: OFREP, and flagd's API by Connect as its provider for pages speaks it."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from decider.flagd.v2 import evaluation_pb2 as v2
from decider.log.open import open_reader
from decider.server import worker
from decider.server.listeners import WEB
from decider.server.roles import OFREP, WEB_PATHS, Role
from decider.server.tokens import new_token
from decider.v1 import experiment_pb2
from simulator.verify import verify
from tests.rpc_clients import PATIENCE, code_of, experiment, reason_of, status_of
from tests.test_flags import HOME, OFF, OVER, Place
from tests.test_web import Answer, send

SHOP = "https://shop.example"

NOTHING: Mapping[str, Any] = {}

Guarded = tuple[Place, Mapping[str, str]]
"""A server that asks for tokens, and the tokens by name."""


def ask(place: Place, path: str, body: Any, **headers: str) -> Answer:
    """One request; the body as JSON, unless it is bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return send(address(place), path, content, **{"content_type": "application/json", **headers})


def address(place: Place) -> str:
    """Of the web port."""
    return place.client.server.grpc_addresses[WEB]


def flag(place: Place, key: str, context: Mapping[str, Any] = NOTHING, **headers: str) -> Answer:
    """One flag of a person."""
    return ask(place, f"{OFREP}/{key}", {"context": {"targetingKey": "ann", **context}}, **headers)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One server for all that needs no tokens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "LOOK_INTERVAL", 0.05)
        made = Place(tmp_path_factory.mktemp("ofrep"), web="127.0.0.1:0", web_origin=(SHOP,), max_request_bytes=100_000)
        yield made
        made.client.close()


def test_a_string_flag_is_an_action(place: Place) -> None:
    """All that the protocol asks for; nothing on the way may keep it."""
    answer = flag(place, HOME, {"device": "phone", "cart": {"items": 2}, "likes": ["red"]})
    assert answer.status == 200
    assert answer.headers["cache-control"] == "no-store"
    assert "etag" not in answer.headers
    told = answer.json
    metadata = told.pop("metadata")
    assert told == {"key": HOME, "value": told["variant"], "variant": told["variant"], "reason": "SPLIT"}
    assert set(metadata) == {"decisionId", "contextId", "version", "propensity", "expires", "flagSetId"}
    assert (metadata["contextId"], metadata["version"], metadata["propensity"]) == ("ann", "1", 0.5)
    with closing(open_reader(place.client.db)) as log:
        logged = log.find(metadata["decisionId"])
    assert logged is not None
    assert logged.decision.context.features == {"cart.items": 2.0, "likes.red": True}


def test_an_object_flag_has_a_key_of_its_own(place: Place) -> None:
    """Keys have no types here, so the key says it; both are one decision where an id says so."""
    for key in (f"{HOME}:object", f"{HOME}%3Aobject"):
        told = flag(place, key, {"decision_id": "both"}).json
        assert told["key"] == f"{HOME}:object"
        assert told["value"] == {
            "action": told["variant"],
            "payload": {"title": told["variant"].upper(), "size": 2, "tags": ["a"]},
            "decision_id": "both",
            "propensity": 0.5,
            "reason": told["value"]["reason"],
        }
        assert flag(place, HOME, {"decision_id": "both"}).json["variant"] == told["variant"]


@pytest.mark.parametrize("key", [OFF, OVER, f"{OFF}:object"])
def test_what_is_off_has_no_value(place: Place, key: str) -> None:
    """The code's default is shown; the Python client wants a variant even then."""
    answer = flag(place, key)
    assert answer.status == 200
    metadata = {"contextId": "ann", "flagSetId": "decider"}
    assert answer.json == {"key": key, "reason": "DISABLED", "variant": "", "metadata": metadata}


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        (b"{", "PARSE_ERROR", "JSON"),
        (b"[" * 50_000, "PARSE_ERROR", "JSON"),
        (b"\xff\xfe\xfd", "PARSE_ERROR", "JSON"),
        (b'{"context": {"a": ' + b"9" * 5_000 + b"}}", "PARSE_ERROR", "JSON"),
        (b"[]", "INVALID_CONTEXT", "context"),
        (b'{"context": "ann"}', "INVALID_CONTEXT", "context"),
        (b"", "TARGETING_KEY_MISSING", "targetingKey"),
        (b"{}", "TARGETING_KEY_MISSING", "targetingKey"),
        (b'{"context": null}', "TARGETING_KEY_MISSING", "targetingKey"),
        (b'{"context": {"targetingKey": "ann", "age": NaN}}', "INVALID_CONTEXT", "context[age]"),
        (b'{"context": {"targetingKey": "ann", "a": "\\ud800"}}', "INVALID_CONTEXT", "context[a]"),
        (b'{"context": {"targetingKey": "ann", "\\ud800": 1}}', "INVALID_CONTEXT", "context["),
        (b'{"context": {"targetingKey": "ann", "a": [1]}}', "INVALID_CONTEXT", "context[a]"),
        (b'{"context": {"targetingKey": 5}}', "INVALID_CONTEXT", "context[targetingKey]"),
    ],
)
@pytest.mark.parametrize("path", [OFREP, f"{OFREP}/{HOME}"])
def test_what_is_wrong_is_said_as_clients_read_it(place: Place, path: str, body: bytes, code: str, said: str) -> None:
    """Python looks `errorDetails` up, Node takes an error without a `key` for no answer at all."""
    before = place.decisions
    answer = ask(place, path, body)
    assert (answer.status, answer.json["errorCode"]) == (400, code)
    assert said in answer.json["errorDetails"]
    assert answer.json.get("key") == (HOME if path != OFREP else None)
    assert place.decisions == before


@pytest.mark.parametrize("key", ["nothing", "home:object:object", "%00", "%F0%9F%98%80", "a%2Fb", "x" * 5_000])
def test_a_flag_that_is_not_there_is_not_found(place: Place, key: str) -> None:
    """In the words of the protocol, whatever the key."""
    answer = flag(place, key)
    assert answer.status == 404
    if "%2F" not in key:
        assert set(answer.json) == {"key", "errorCode", "errorDetails"}
        assert answer.json["errorCode"] == "FLAG_NOT_FOUND"


def test_an_id_of_somebody_else_is_an_error_that_clients_know(place: Place) -> None:
    """409 would be no answer at all for Node's client."""
    assert flag(place, HOME, {"decisionId": "anns"}).status == 200
    answer = flag(place, HOME, {"decisionId": "anns", "targetingKey": "eve"})
    assert (answer.status, answer.json["errorCode"]) == (400, "GENERAL")


def test_a_body_that_is_too_large_is_refused(place: Place) -> None:
    """Before it is read."""
    answer = flag(place, HOME, {"a": "x" * 200_000})
    assert answer.status == 429
    assert "max-request-bytes" in answer.json["errorDetails"]


def test_all_flags_at_once_are_one_decision_each(place: Place) -> None:
    """Both views have it; what is paused is there and off, what has ended is not; no ETag, whatever a client has."""
    before = place.decisions
    body = {"context": {"targetingKey": "ann"}}
    answer = ask(place, f"{OFREP}?flagConfigEtag=old", body, if_none_match='"old"', accept_encoding="gzip")
    assert place.decisions == before + 1
    answer = ask(place, OFREP, body)
    assert answer.status == 200
    assert answer.json["metadata"] == {"flagSetId": "decider"}
    told = {one["key"]: one for one in answer.json["flags"]}
    assert set(told) == {HOME, f"{HOME}:object", OFF, f"{OFF}:object"}
    assert told[HOME]["metadata"] == told[f"{HOME}:object"]["metadata"]
    assert told[f"{HOME}:object"]["value"]["decision_id"] == told[HOME]["metadata"]["decisionId"]
    assert told[OFF]["reason"] == told[f"{OFF}:object"]["reason"] == "DISABLED"
    assert not {"etag", "content-encoding"} & answer.headers.keys()


def test_one_experiment_that_cannot_decide_leaves_the_others_alone(place: Place) -> None:
    """One that needs actions in calls, which a flag has no place for, is an error by its key."""
    policy = experiment_pb2.Policy(uniform=experiment_pb2.Uniform())
    calls = experiment_pb2.Experiment(id="calls", actions_in_calls=experiment_pb2.ActionsInCalls(), policy=policy)
    place.client.apply(calls)
    single = flag(place, "calls")
    assert (single.status, single.json["errorCode"]) == (400, "GENERAL")
    told = {one["key"]: one for one in ask(place, OFREP, {"context": {"targetingKey": "ann"}}).json["flags"]}
    assert told[HOME]["reason"] == "SPLIT"
    for key in ("calls", "calls:object"):
        assert told[key]["errorCode"] == "GENERAL"
        assert "actions" in told[key]["errorDetails"]
    calls.state = experiment_pb2.EXPERIMENT_STATE_ENDED
    place.client.apply(calls)


def test_pages_of_the_shop_may_ask_and_others_may_not(place: Place) -> None:
    """Browsers ask first whether they may."""
    headers = {"access_control_request_method": "POST", "access_control_request_headers": "content-type,if-none-match"}
    asked = send(address(place), OFREP, b"", method="OPTIONS", origin=SHOP, **headers)
    assert asked.status == 204
    assert "if-none-match" in asked.headers["access-control-allow-headers"]
    assert flag(place, HOME, origin=SHOP).headers["access-control-allow-origin"] == SHOP
    before = place.decisions
    assert flag(place, HOME, origin="https://evil.example").status == 403
    assert place.decisions == before


FLAGD = "/flagd.evaluation.v1.Service"


def test_flagd_for_pages_asks_for_all_flags_by_connect(place: Place) -> None:
    """As its provider does: JSON, and a stream that says when to ask."""
    answer = ask(place, f"{FLAGD}/ResolveAll", {"context": {"targetingKey": "ann"}}, connect_protocol_version="1")
    told = answer.json["flags"]
    assert set(told) == {HOME, f"{HOME}:object"}
    assert told[HOME]["stringValue"] == told[HOME]["variant"] == told[f"{HOME}:object"]["objectValue"]["action"]
    missing = ask(place, f"{FLAGD}/ResolveString", {"flagKey": "nothing", "context": {"targetingKey": "ann"}})
    assert (missing.status, missing.json["code"]) == (404, "not_found")


def events(response: HTTPResponse) -> Iterator[tuple[int, Any]]:
    """The frames of a stream over Connect: flags and content."""
    while head := response.read(5):
        flags, length = struct.unpack(">BI", head)
        yield flags, json.loads(response.read(length))


def open_events(place: Place, **headers: str) -> tuple[HTTPConnection, Iterator[tuple[int, Any]]]:
    """As the browser's client opens it."""
    host, _, port = address(place).rpartition(":")
    connection = HTTPConnection(host, int(port), timeout=PATIENCE)
    body = struct.pack(">BI", 0, 2) + b"{}"
    connection.request("POST", f"{FLAGD}/EventStream", body, {"Content-Type": "application/connect+json", **headers})
    return connection, events(connection.getresponse())


def test_a_page_is_told_which_flags_have_changed(place: Place) -> None:
    """The stream is open for as long as the page is."""
    connection, told = open_events(place, Origin=SHOP)
    with closing(connection):
        assert next(told) == (0, {"type": "provider_ready"})
        place.client.apply(experiment("fresh"))
        flags, event = next(
            one for one in told if "fresh" in one[1].get("data", {}).get("flags", {})
        )  # others may come first
        assert (flags, event["type"]) == (0, "configuration_change")
        assert "fresh:object" in event["data"]["flags"]
    place.client.apply(experiment("fresh", state=experiment_pb2.EXPERIMENT_STATE_ENDED))


def test_what_flags_have_decided_is_recomputed(place: Place) -> None:
    """One way in more, and the same log: every decision of this file's tests is what the code says."""
    with closing(open_reader(place.client.db)) as log:
        verification = verify(log)
    assert verification.first is None
    assert verification.equal == verification.decisions > 5


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A server that asks for tokens; by name: `wide` sees all, `shop` one experiment, `reader` may not decide."""
    folder = tmp_path_factory.mktemp("guarded")
    made = {
        "root": new_token("root", [*Role], [], None),
        "wide": new_token("wide", [Role.DECIDE], [], None),
        "shop": new_token("shop", [Role.DECIDE], [HOME], None),
        "reader": new_token("reader", [Role.READ], [], None),
    }
    file = folder / "tokens.toml"
    file.write_text("".join(lines for _, lines in made.values()))
    place = Place(folder, made["root"][0], tokens=file, web="127.0.0.1:0")
    place.client.apply(experiment("secret"))
    yield place, {name: token for name, (token, _) in made.items()}
    place.client.close()


def bearer(token: str) -> dict[str, str]:
    """The header."""
    return {"authorization": f"Bearer {token}"} if token else {}


def test_who_may_not_ask_is_told_by_the_status(guarded: Guarded) -> None:
    """401 and 403: clients say so, and try nothing else."""
    place, tokens = guarded
    before = place.decisions
    for path in (OFREP, f"{OFREP}/{HOME}"):
        for token, status in (("", 401), ("wrong", 401), (tokens["reader"], 403)):
            answer = ask(place, path, {"context": {"targetingKey": "ann"}}, **bearer(token))
            assert (answer.status, answer.json["errorCode"]) == (status, "GENERAL")
    assert place.decisions == before


def test_the_flags_of_others_are_not_there(guarded: Guarded) -> None:
    """Word for word as one that does not exist, in each protocol."""
    place, tokens = guarded
    shop = bearer(tokens["shop"])
    assert flag(place, HOME, {}, **shop).status == 200
    hidden, missing = flag(place, "secret", {}, **shop), flag(place, "nothing", {}, **shop)
    assert hidden.status == missing.status == 404
    assert hidden.body.replace(b"secret", b"nothing") == missing.body
    body = {"context": {"targetingKey": "ann"}}
    keys = {one["key"] for one in ask(place, OFREP, body, **shop).json["flags"]}
    assert keys == {HOME, f"{HOME}:object"}
    assert set(ask(place, f"{FLAGD}/ResolveAll", body, **shop).json["flags"]) == keys
    wide = {one["key"] for one in ask(place, OFREP, body, **bearer(tokens["wide"])).json["flags"]}
    assert wide == {f"{id_}{view}" for id_ in (HOME, OFF, "secret") for view in ("", ":object")}


def test_every_path_has_a_role() -> None:
    """What has no row would be open."""
    assert {OFREP: Role.DECIDE, f"{OFREP}/{{key}}": Role.DECIDE} == WEB_PATHS


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Place]:
    """A server with small limits, that a test may stop."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "LOOK_INTERVAL", 0.05)
        made = Place(tmp_path, web="127.0.0.1:0", max_reply_bytes=20_000, max_caller_streams=1)
        yield made
        made.client.close()


def test_what_no_client_can_receive_is_not_decided(small: Place) -> None:
    """All flags at once are one reply; each of them alone is still there."""
    for id_ in ("large-1", "large-2", "large-3"):
        large = experiment(id_, "a", "b")
        for action in large.actions:
            action.payload.update({"text": "x" * 5_000})
        small.client.apply(large)
    before = small.decisions
    answer = ask(small, OFREP, {"context": {"targetingKey": "ann"}})
    assert (answer.status, answer.json["errorCode"]) == (400, "GENERAL")
    assert "20000 are possible" in answer.json["errorDetails"]
    status = status_of(lambda: small.resolve_all({"targetingKey": "ann"}))
    assert (code_of(status), reason_of(status)) == ("FAILED_PRECONDITION", "TOO_MANY_FLAGS")
    assert small.decisions == before
    assert flag(small, "large-1:object").status == 200


def test_a_server_that_stops_ends_its_streams(small: Place) -> None:
    """Their clients connect to another one, and do not wait for news that never come. One more is refused before."""
    stub = small.stubs["v2"]
    first = stub.EventStream(v2.EventStreamRequest(), timeout=PATIENCE)
    assert next(first).type == "provider_ready"
    assert code_of(status_of(lambda: next(stub.EventStream(v2.EventStreamRequest(), timeout=PATIENCE)))) == (
        "RESOURCE_EXHAUSTED"
    )
    connection, told = open_events(small)
    other, refused = open_events(small)
    with closing(connection), closing(other):
        assert next(told) == (0, {"type": "provider_ready"})
        assert next(refused)[1]["error"]["code"] == "resource_exhausted"
        stopping = threading.Thread(target=small.client.server.stop)
        stopping.start()
        # news, and a sign of life, may be told before the end
        assert code_of(status_of(lambda: [*first])) == "UNAVAILABLE"
        *_, (flags, end) = told
        assert (flags, end["error"]["code"]) == (2, "unavailable")
        stopping.join(PATIENCE)
    assert not stopping.is_alive()
