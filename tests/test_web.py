"""The port for pages and HTTP: every protocol reaches the same handlers, and says errors in its own words."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import os
import re
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from decider.errors import Unauthenticated
from decider.log.group_commit import CommitExecutor
from decider.server.access import Access
from decider.server.methods import Stream, StreamMethod
from decider.server.roles import Role
from decider.server.settings import ANY_ORIGIN, Settings
from decider.server.web.exchange import Request
from decider.server.web.files import File
from decider.server.web.guard import Guard
from decider.server.web.port import WebPort
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from simulator.studies.certificates import authority, issue
from tests.rpc_clients import InProcessClient, ServerProcess, until

SERVICE = "/decider.v1.DeciderService"
SHOP = "https://shop.example"
PATIENCE = 30.0


class Answer(NamedTuple):
    """Of HTTP."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


def send(address: str, path: str, body: bytes = b"", *, method: str = "POST", **headers: str) -> Answer:
    """One request on a connection of its own; names of headers with _ for -."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def send_json(address: str, method: str, message: object, **headers: str) -> Answer:
    """A call of DeciderService by Connect."""
    headers = {"content_type": "application/json", **headers}
    return send(address, f"{SERVICE}/{method}", json.dumps(message).encode(), **headers)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessClient]:
    """A server with the experiment `home`."""
    client = InProcessClient(
        tmp_path_factory.mktemp("web") / "log.db", web="127.0.0.1:0", web_origin=(SHOP,), max_request_bytes=65_536
    )
    try:
        actions = [experiment_pb2.Action(id=one) for one in ("a", "b")]
        client.apply(experiment_pb2.Experiment(id="home", actions=actions))
        yield client
    finally:
        client.close()


@pytest.fixture(scope="module")
def web(served: InProcessClient) -> str:
    """HOST:PORT."""
    return served.server.grpc_addresses["--web"]


def test_a_visit_in_json(web: str, served: InProcessClient) -> None:
    """All that a page does: decide, say what was shown, reward; the log has it as from gRPC."""
    decided = send_json(web, "Decide", {"experiment": "home", "unitId": "u", "context": {"features": {"age": 31}}})
    assert decided.status == 200
    assert decided.headers["content-type"] == "application/json"
    id_ = decided.json["decisionId"]
    assert decided.json["propensity"] == 0.5
    assert send_json(web, "Activate", {"decisionId": id_}).status == 200
    rewarded = send_json(web, "Reward", {"decisionId": id_, "value": 1})
    assert rewarded.json == {"outcome": "REWARD_OUTCOME_JOINED"}
    over_grpc = served.call(
        "DeciderService", "Decide", pb.DecideRequest(experiment="home", unit_id="u", decision_id=id_)
    )
    assert over_grpc.action.id == decided.json["action"]["id"]
    (logged,) = served.server.log.locate_all([id_])
    assert logged is not None


def unframe(body: bytes) -> list[tuple[int, bytes]]:
    """(flags, content) of each frame."""
    found = []
    while body:
        flags, length = struct.unpack_from(">BI", body)
        found.append((flags, body[5 : 5 + length]))
        body = body[5 + length :]
    return found


def framed(content: bytes, flags: int = 0) -> bytes:
    """A frame."""
    return struct.pack(">BI", flags, len(content)) + content


def connect_json(web: str, method: str, request: Message, reply: Message) -> Message:
    """Over Connect, in JSON."""
    answer = send_json(web, method, json_format.MessageToDict(request))
    assert answer.status == 200
    return json_format.Parse(answer.body, reply)


def connect_proto(web: str, method: str, request: Message, reply: Message) -> Message:
    """Over Connect, in protobuf."""
    answer = send(web, f"{SERVICE}/{method}", request.SerializeToString(), content_type="application/proto")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/proto")
    reply.ParseFromString(answer.body)
    return reply


def grpc_web(web: str, method: str, request: Message, reply: Message) -> Message:
    """Over gRPC-Web."""
    body = framed(request.SerializeToString())
    answer = send(web, f"{SERVICE}/{method}", body, content_type="application/grpc-web+proto")
    (_, content), (flags, trailers) = unframe(answer.body)
    assert (flags, trailers) == (0x80, b"grpc-status: 0\r\n")
    reply.ParseFromString(content)
    return reply


def grpc_web_text(web: str, method: str, request: Message, reply: Message) -> Message:
    """Over gRPC-Web in base64, sent in two pieces that are padded each."""
    body = framed(request.SerializeToString())
    text = base64.b64encode(body[:4]) + base64.b64encode(body[4:])
    answer = send(web, f"{SERVICE}/{method}", text, content_type="application/grpc-web-text")
    (_, content), _ = unframe(base64.b64decode(answer.body))
    reply.ParseFromString(content)
    return reply


WAYS: list[Callable[[str, str, Message, Message], Message]] = [connect_json, connect_proto, grpc_web, grpc_web_text]


@pytest.mark.parametrize("way", WAYS)
def test_every_method_answers_in_every_protocol(way: Callable[..., Any], web: str) -> None:
    """A protocol that lacks one would send its users to another."""
    request = pb.DecideRequest(experiment="home", unit_id="v")
    request.context.features.update({"age": 31.0, "tags": "x", "new": True})
    decided = way(web, "Decide", request, pb.DecideResponse())
    id_ = decided.decision_id
    batch = way(web, "DecideBatch", pb.DecideBatchRequest(requests=[request]), pb.DecideBatchResponse())
    assert batch.results[0].response.action.id in ("a", "b")
    slate = pb.DecideSlateRequest(experiment="home", unit_id="v", slots=[pb.Slot(), pb.Slot()])
    assert len(way(web, "DecideSlate", slate, pb.DecideSlateResponse()).decisions) == 2
    way(web, "Activate", pb.ActivateRequest(decision_id=id_), pb.ActivateResponse())
    reward = pb.RewardRequest(decision_id=id_, value=1.0)
    assert way(web, "Reward", reward, pb.RewardResponse()).outcome == pb.REWARD_OUTCOME_JOINED
    rewards = pb.RewardBatchRequest(requests=[reward])
    assert len(way(web, "RewardBatch", rewards, pb.RewardBatchResponse()).results) == 1
    way(web, "LinkUnits", pb.LinkUnitsRequest(unit_id="v", same_as="w"), pb.LinkUnitsResponse())


def details(error: Any) -> dict[str, Any]:
    """reason of ErrorInfo, and field -> description of BadRequest."""
    found: dict[str, Any] = {}
    for one in error.get("details", ()):
        value = base64.b64decode(one["value"] + "==")
        kind = getattr(error_details_pb2, one["type"].removeprefix("google.rpc."))
        assert one["debug"] == json_format.MessageToDict(kind.FromString(value))  # whoever calls with curl reads this
        if one["type"] == "google.rpc.ErrorInfo":
            found["reason"] = error_details_pb2.ErrorInfo.FromString(value).reason
        else:
            bad = error_details_pb2.BadRequest.FromString(value)
            found |= {violation.field: violation.description for violation in bad.field_violations}
    return found


@pytest.mark.parametrize(
    ("message", "status", "code", "reason"),
    [
        ({"experiment": "nowhere", "unitId": "u"}, 404, "not_found", "EXPERIMENT_NOT_FOUND"),
        ({"experiment": "home"}, 400, "invalid_argument", "INVALID_ARGUMENT"),
        (
            {"experiment": "home", "unitId": "u", "eligibleActions": ["z"]},
            400,
            "failed_precondition",
            "NO_ELIGIBLE_ACTION",
        ),
    ],
)
def test_errors_have_a_code_and_the_details_of_grpc(
    message: object, status: int, code: str, reason: str, web: str
) -> None:
    """Programs decide by the code and the reason, people read the text."""
    answer = send_json(web, "Decide", message)
    assert (answer.status, answer.json["code"]) == (status, code)
    assert details(answer.json)["reason"] == reason
    assert answer.json["message"]


def test_grpc_web_says_errors_in_its_trailers(web: str) -> None:
    """With the whole google.rpc.Status, as gRPC does."""
    body = framed(pb.DecideRequest(experiment="nowhere", unit_id="u").SerializeToString())
    answer = send(web, f"{SERVICE}/Decide", body, content_type="application/grpc-web")
    assert answer.status == 200
    ((flags, content),) = unframe(answer.body)
    trailers = dict(line.split(": ", 1) for line in content.decode().splitlines())
    assert (flags, trailers["grpc-status"]) == (0x80, "5")
    status = status_pb2.Status.FromString(base64.b64decode(trailers["grpc-status-details-bin"] + "=="))
    assert status.message == trailers["grpc-message"]


@pytest.mark.parametrize(
    "origin", ["https://stranger.example", "http://shop.example", "null", f"{SHOP}.stranger.example"]
)
@pytest.mark.parametrize("method", ["POST", "GET", "OPTIONS"])
def test_pages_of_strangers_are_refused_before_anything_is_done(method: str, origin: str, web: str) -> None:
    """Also what needs no preflight: a page that may not read the answer could still change something."""
    answer = send(
        web, f"{SERVICE}/Decide", b'{"experiment": "home", "unitId": "u"}',
        method=method, origin=origin, content_type="text/plain",
    )  # fmt: skip
    assert answer.status == 403
    assert details(answer.json)["reason"] == "OTHER_ORIGIN"
    assert "access-control-allow-origin" not in answer.headers


def test_pages_that_are_named_may_call(web: str) -> None:
    """A preflight needs no token: browsers send none with it."""
    asked = send(
        web, f"{SERVICE}/Decide", method="OPTIONS", origin=SHOP,
        access_control_request_method="POST", access_control_request_headers="content-type",
    )  # fmt: skip
    assert (asked.status, asked.body) == (204, b"")
    assert asked.headers["access-control-allow-origin"] == SHOP
    assert asked.headers["access-control-allow-methods"] == "POST"
    assert "connect-timeout-ms" in asked.headers["access-control-allow-headers"]
    assert asked.headers["access-control-max-age"] == "7200"
    answer = send_json(web, "Decide", {"experiment": "home", "unitId": "u"}, origin=SHOP)
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == SHOP
    assert answer.headers["vary"] == "origin"
    assert "access-control-allow-credentials" not in answer.headers


def test_a_beacon_is_json_without_a_preflight(web: str) -> None:
    """navigator.sendBeacon sends a text as text/plain."""
    decided = send_json(web, "Decide", {"experiment": "home", "unitId": "u"}, content_type="text/plain;charset=UTF-8")
    assert decided.status == 200


def test_gzip_both_ways(web: str) -> None:
    """Requests of batches and replies with rankings are many times the same words."""
    requests = [{"experiment": "home", "unitId": f"u{number}"} for number in range(100)]
    packed = gzip.compress(json.dumps({"requests": requests}).encode())
    headers = {"content_type": "application/json", "content_encoding": "gzip", "accept_encoding": "gzip"}
    answer = send(web, f"{SERVICE}/DecideBatch", packed, **headers)
    assert answer.headers["content-encoding"] == "gzip"
    assert len(json.loads(gzip.decompress(answer.body))["results"]) == 100


@pytest.mark.parametrize(
    ("body", "encoding", "status", "code"),
    [
        (gzip.compress(b" " * 70_000), "gzip", 429, "resource_exhausted"),
        (gzip.compress(b" " * 70_000)[:50], "gzip", 400, "invalid_argument"),
        (b"{}", "gzip", 400, "invalid_argument"),
        (b"{}", "br", 501, "unimplemented"),
        (b" " * 70_000, "identity", 429, "resource_exhausted"),
    ],
    ids=["a bomb", "half of a file", "no gzip", "another encoding", "too large"],
)
def test_what_is_too_large_or_not_gzip_is_refused(body: bytes, encoding: str, status: int, code: str, web: str) -> None:
    """What unpacks to gigabytes is not unpacked."""
    answer = send(web, f"{SERVICE}/Decide", body, content_type="application/json", content_encoding=encoding)
    assert (answer.status, answer.json["code"]) == (status, code)


@pytest.mark.parametrize(
    ("text", "status"), [("0", 504), ("5000", 200), ("-1", 400), ("soon", 400), ("12345678901", 400)]
)
def test_a_deadline_holds(text: str, status: int, web: str) -> None:
    """Milliseconds, as Connect has them."""
    answer = send_json(web, "Decide", {"experiment": "home", "unitId": "u"}, connect_timeout_ms=text)
    assert answer.status == status


@pytest.mark.parametrize(
    ("method", "path", "content_type", "status"),
    [
        ("GET", f"{SERVICE}/Decide", "application/json", 405),
        ("POST", f"{SERVICE}/Decode", "application/json", 404),
        ("POST", "/decider.v1.ExperimentService/ListExperiments", "application/json", 404),
        ("GET", "/metrics", "", 404),
        ("POST", f"{SERVICE}/Decide", "application/x-www-form-urlencoded", 415),
        ("POST", f"{SERVICE}/Decide", "application/connect+json", 415),
    ],
)
def test_what_is_not_there_is_said(method: str, path: str, content_type: str, status: int, web: str) -> None:
    """Nothing but DeciderService: no experiments, no page, no metrics."""
    answer = send(web, path, b"{}", method=method, content_type=content_type)
    assert answer.status == status
    assert answer.body
    assert status != 404 or json.loads(answer.body)["code"] == "unimplemented"


class Ticker:
    """A method with many replies: says three numbers, or waits."""

    def __init__(self) -> None:
        self.open: list[Stream] = []
        self.ended = threading.Event()

    def answer(self, stream: Stream, request: bytes) -> None:
        """Three decisions with the unit's id, then NOT_FOUND; for the unit `wait`, nothing."""
        unit = pb.DecideRequest.FromString(request).unit_id
        self.open.append(stream)
        stream.on_end(self.ended.set)
        if unit == "wait":
            return
        left = [1, 2, 3]

        def go_on() -> None:
            if left:
                stream.send(pb.DecideResponse(decision_id=f"{unit}{left.pop(0)}").SerializeToString(), go_on)
            else:
                stream.end(grpc.StatusCode.NOT_FOUND, "no more")

        go_on()


@pytest.fixture(scope="module")
def ticking() -> Iterator[tuple[str, Ticker]]:
    """A port with a method that streams, by itself."""
    ticker = Ticker()
    method = StreamMethod("test.Ticker", "Tick", Role.READ, pb.DecideRequest, pb.DecideResponse, ticker.answer)
    calls = CommitExecutor(lambda _: [], threads=1)
    settings = Settings(web="127.0.0.1:0")
    port = WebPort(settings, [method], calls=calls, access=Access(settings))
    port.start()
    yield port.address, ticker
    port.stop()
    calls.shutdown()


def test_a_stream_over_connect(ticking: tuple[str, Ticker]) -> None:
    """Each message is sent when it is there; the last frame says how it ended."""
    address, _ = ticking
    body = framed(b'{"unitId": "u"}')
    answer = send(address, "/test.Ticker/Tick", body, content_type="application/connect+json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/connect+json")
    *messages, (flags, end) = unframe(answer.body)
    assert [json.loads(content)["decisionId"] for _, content in messages] == ["u1", "u2", "u3"]
    assert (flags, json.loads(end)) == (2, {"error": {"code": "not_found", "message": "no more"}})


def test_a_stream_over_grpc_web(ticking: tuple[str, Ticker]) -> None:
    """The same, with trailers at its end."""
    address, _ = ticking
    body = framed(pb.DecideRequest(unit_id="u").SerializeToString())
    answer = send(address, "/test.Ticker/Tick", body, content_type="application/grpc-web+proto")
    *messages, (flags, end) = unframe(answer.body)
    assert [pb.DecideResponse.FromString(content).decision_id for _, content in messages] == ["u1", "u2", "u3"]
    assert (flags, end) == (0x80, b"grpc-status: 5\r\ngrpc-message: no more\r\n")


def test_a_stream_ends_with_its_caller_and_by_its_deadline(ticking: tuple[str, Ticker]) -> None:
    """Else strangers would leave streams open for ever."""
    address, ticker = ticking
    ticker.ended.clear()
    host, _, port = address.rpartition(":")
    caller = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
    body = framed(b'{"unitId": "wait"}')
    caller.request("POST", "/test.Ticker/Tick", body, {"content-type": "application/connect+json"})
    until(lambda: any(ticker.open), what="the stream is open")
    caller.close()
    assert ticker.ended.wait(PATIENCE)
    headers = {"content_type": "application/connect+json", "connect_timeout_ms": "50"}
    (ended,) = unframe(send(address, "/test.Ticker/Tick", body, **headers).body)
    assert json.loads(ended[1])["error"]["code"] == "deadline_exceeded"


@pytest.mark.parametrize("body", [b"", b"\0\0\0", framed(b"{}") + b"more", framed(b"{}", 2), framed(b"\xff")])
def test_a_request_that_is_no_frame_is_refused(body: bytes, ticking: tuple[str, Ticker]) -> None:
    """In the words of the protocol."""
    address, _ = ticking
    ((flags, end),) = unframe(send(address, "/test.Ticker/Tick", body, content_type="application/connect+json").body)
    assert (flags, json.loads(end)["error"]["code"]) == (2, "invalid_argument")


def test_tls_by_the_certificates_of_all_ports(tmp_path: Path) -> None:
    """Pages of a site over https may call nothing else."""
    ours = authority(tmp_path / "ca", "ours")
    pair = issue(tmp_path / "ca", "server", ours)
    settings = Settings(web="127.0.0.1:0", tls_cert=pair.cert, tls_key=pair.key)
    calls = CommitExecutor(lambda _: [], threads=1)
    port = WebPort(
        settings, [], calls=calls, access=Access(settings), files=[File("/client.js", "text/javascript", b"1")]
    )
    port.start()
    try:
        trust = ssl.create_default_context(cafile=ours.cert)
        with closing(
            http.client.HTTPSConnection("127.0.0.1", port.port, timeout=PATIENCE, context=trust)
        ) as connection:
            connection.request("GET", "/client.js")
            assert connection.getresponse().read() == b"1"
    finally:
        port.stop()
        calls.shutdown()


def test_a_certificate_is_a_programs_and_no_pages(tmp_path: Path) -> None:
    """A browser shows its user's certificate to whatever page asks: with `--web-origin '*'` each one could use it."""
    ours = authority(tmp_path / "ca", "ours")
    pair = issue(tmp_path / "ca", "server", ours)
    access = Access(Settings(web="127.0.0.1:0", tls_cert=pair.cert, tls_key=pair.key, tls_client_ca=ours.cert))
    guard = Guard(access, [ANY_ORIGIN])

    def asked(*headers: tuple[bytes, bytes]) -> Request:
        scope = {"method": "POST", "path": "/", "headers": headers, "state": {"certificate": "ann"}}
        return Request(scope, lambda: None)

    assert guard.identify(asked(), Role.DECIDE)[0] == "token:ann"
    with pytest.raises(Unauthenticated):
        guard.identify(asked((b"origin", b"https://evil.example")), Role.DECIDE)


def test_workers_share_the_port(tmp_path: Path) -> None:
    """As they share gRPC's; the address is told before calls are taken."""
    file = tmp_path / "home.toml"
    file.write_text('id = "home"\n[[actions]]\nid = "a"\n[[actions]]\nid = "b"\n')
    os.utime(file, (1, 1))
    options = ("--workers", "2", "--web", "127.0.0.1:0", "--experiments", str(file))
    server = ServerProcess(tmp_path / "log.db", *options)
    try:
        told = re.search(r"^Connect and JSON on http://(\S+)/$", server.output, re.MULTILINE)
        assert told
        for _ in range(4):
            assert send_json(told[1], "Decide", {"experiment": "home", "unitId": "u"}).status == 200
        assert server.terminate() == 0
    finally:
        server.kill()


def test_a_page_that_nobody_has_named_is_told_once_in_the_output(tmp_path: Path) -> None:
    """Its browser says no more than CORS, whatever the answer is: who has forgotten --web-origin finds it here."""
    server = ServerProcess(tmp_path / "log.db", "--web", "127.0.0.1:0")
    try:
        (web,) = re.findall(r"^Connect and JSON on http://(\S+)/$", server.output, re.MULTILINE)
        for origin in ("http://localhost:3000", "https://stranger.example"):
            assert send_json(web, "Decide", {"experiment": "home", "unitId": "u"}, origin=origin).status == 403
        assert server.terminate() == 0
        assert re.findall(r"pages of (\S+) have called and were refused: .* --web-origin", server.output) == [
            "'http://localhost:3000'"
        ]
    finally:
        server.kill()
