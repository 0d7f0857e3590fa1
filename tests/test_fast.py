"""gRPC by h2corn (`--rpc h2corn`): tests of other files, run over it, and what only it has.

Whole files run over it with `DECIDER_RPC=h2corn pytest tests/test_errors.py`.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

pytest.importorskip("h2corn", reason="h2corn is not installed: pip install 'decider[fast]'")

from decider.server import arrivals
from decider.server.fast.messages import Headers, is_grpc
from decider.server.rpc_port import RpcNotInstalled, port_class
from decider.v1 import decider_service_pb2 as pb
from simulator.studies.load import DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, control, opening
from tests import test_errors, test_intake, test_listeners, test_standard_grpc
from tests.rpc_clients import InProcessClient, until

DECIDE = "/decider.v1.DeciderService/Decide"

ALSO_OVER_H2CORN = (
    *(getattr(test_standard_grpc, name) for name in dir(test_standard_grpc) if name.startswith("test_")),
    test_errors.test_call_is_refused_with_reason_and_fields,
    test_errors.test_error_reaches_the_caller_however_large_the_input,
    test_errors.test_too_large_request_is_resource_exhausted,
    test_errors.test_call_whose_deadline_passed_while_it_waited_is_not_done,
    test_errors.test_more_calls_at_once_than_allowed_are_refused,
    test_intake.test_calls_whose_requests_do_not_come_keep_nobody_waiting,
    test_intake.test_a_burst_of_calls_as_large_as_a_caller_may_make_is_answered,
    test_intake.test_bytes_that_are_no_request_are_the_callers_fault,
    test_intake.test_a_thousand_watches_use_up_no_calls_and_all_hear_of_the_end,
    test_intake.test_one_caller_leaves_calls_to_the_others,
    test_listeners.test_an_address_that_is_taken_is_told_with_its_option,
)
globals().update({one.__name__: one for one in ALSO_OVER_H2CORN})


@pytest.fixture(scope="module", autouse=True)
def over_h2corn() -> Iterator[None]:
    """Every server that these tests start, in this process or as one of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DECIDER_RPC", "h2corn")
        yield


client = test_errors.client


def send(client: InProcessClient, *frames: bytes) -> socket.socket:
    """On a connection of its own."""
    opened = socket.create_connection(("127.0.0.1", client.server.port), timeout=20)
    opened.sendall(opening() + b"".join(frames))
    return opened


def headers(stream: int, path: str = DECIDE, **more: str) -> bytes:
    """Of a call, in a frame."""
    fixed = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x", "te": "trailers"}
    found = {**fixed, "content-type": "application/grpc", **{name.replace("_", "-"): more[name] for name in more}}
    block = b"".join(b"\0" + bytes([len(n)]) + n.encode() + bytes([len(v)]) + v.encode() for n, v in found.items())
    return control(HEADERS, END_HEADERS, block, stream)


def data(stream: int, content: bytes, flags: int = END_STREAM) -> bytes:
    """Of a call, in a frame."""
    return control(DATA, flags, content, stream)


def message(content: bytes, packed: int = 0) -> bytes:
    """With gRPC's head."""
    return bytes([packed]) + len(content).to_bytes(4) + content


def ends(opened: socket.socket) -> Iterator[tuple[int, bytes]]:
    """(kind, content) of each frame that ends a stream, or the connection."""
    with opened, opened.makefile("rb") as reader:
        while head := reader.read(9):
            content = reader.read(int.from_bytes(head[:3]))
            if head[3] in (RST_STREAM, GOAWAY) or (head[3] == HEADERS and head[4] & END_STREAM):
                yield head[3], content


ASK = pb.DecideRequest(experiment="e", unit_id="unit").SerializeToString()


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_packed_requests_are_read(client: InProcessClient, compression: grpc.Compression) -> None:
    """What grpcio's clients send when they are told to."""
    stub = client.channel.unary_unary(DECIDE, response_deserializer=pb.DecideResponse.FromString)
    assert stub(ASK, compression=compression, timeout=10).action.id


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (message(zlib.compress(ASK), packed=1), "br", b"12"),
        (message(ASK, packed=1), "gzip", b"3"),
        (message(ASK)[:-1], "identity", b"3"),
        (b"", "identity", b"3"),
        (b"\0\xff\xff\xff\xff", "identity", b"8"),
        (b"\7\0\0\0\0", "identity", b"3"),
    ],
)
def test_what_is_no_message_is_refused_by_its_status(
    client: InProcessClient, body: bytes, encoding: str, status: bytes
) -> None:
    """An unknown compression, one that is none, a cut message, nothing, 4 GB, an unknown flag."""
    kind, block = next(ends(send(client, headers(1, grpc_encoding=encoding), data(1, body))))
    assert kind == HEADERS
    assert bytes([len(status)]) + status in block


def test_what_is_no_grpc_gets_a_text(client: InProcessClient) -> None:
    """A browser's page or curl at this port is told what speaks here; what a simple request of a page may send is no
    call."""
    assert is_grpc({b"content-type": b"Application/gRPC; charset=x"})
    others: list[Headers] = [{}, {b"content-type": b"application/grpc-web"}, {b"content-type": b"text/plain"}]
    assert not any(is_grpc(one) for one in others)
    with send(client, headers(1, content_type="application/json"), data(1, b"{}")) as opened:
        time.sleep(0.2)
        assert b"this port speaks gRPC" in opened.recv(65_536)


def test_clients_that_are_asked_to_connect_anew_lose_no_call(client: InProcessClient) -> None:
    """As with `--workers`, and when certificates change: a new generation takes the place of the one before."""
    port: Any = client.server.grpc_port
    answered = []

    def keep_calling() -> None:
        while not done.is_set():
            answered.append(client.decide("e").action.id)

    done = threading.Event()
    callers = [threading.Thread(target=keep_calling) for _ in range(4)]
    for caller in callers:
        caller.start()
    for _ in range(5):
        port._renew.set()
        port._tell()
        time.sleep(0.2)
    done.set()
    for caller in callers:
        caller.join()
    assert len(answered) > 20
    assert all(answered)


def test_calls_that_are_reset_at_once_leave_nothing_behind(client: InProcessClient) -> None:
    """Rapid resets (CVE-2023-44487) end their connection; what had begun is forgotten, and others are served."""
    port: Any = client.server.grpc_port
    reset = control(RST_STREAM, 0, (8).to_bytes(4))
    frames = [
        headers(n, "/decider.v1.DeciderService/Decide") + data(n, message(ASK)) + reset[:5] + n.to_bytes(4) + reset[9:]
        for n in range(1, 4_001, 2)
    ]
    assert next(ends(send(client, *frames)))[0] == GOAWAY
    until(lambda: port._intake.is_quiet(), what="all are forgotten")
    assert client.decide("e").action.id


def test_of_calls_whose_requests_do_not_come_few_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As over grpcio; which ones came first is h2corn's to say."""
    monkeypatch.setattr(arrivals, "SLOW", 0.1)
    with (
        test_intake.serving(tmp_path, max_caller_rpcs=50) as client,
        test_intake.own_channel(client) as other,
        test_intake.without_request(other, 80) as calls,
    ):
        until(lambda: sum(call.done() for call in calls) == 80 - arrivals.MOST_SLOW, what="all but a few are refused")
        assert {call.code() for call in calls if call.done()} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert client.decide("e").action.id


def test_a_request_in_many_small_pieces_is_read(client: InProcessClient) -> None:
    """A slow line may break it anywhere."""
    body = message(ASK)
    pieces = [data(1, body[at : at + 1], END_STREAM if at == len(body) - 1 else 0) for at in range(len(body))]
    kind, block = next(ends(send(client, headers(1), *pieces)))
    assert kind == HEADERS
    assert b"\x010" in block


def test_without_the_extra_a_start_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--rpc h2corn` needs two more packages."""
    for name in ("h2corn", "decider.server.fast.port"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RpcNotInstalled, match=r"pip install 'decider\[fast\]'"):
        port_class("h2corn")
