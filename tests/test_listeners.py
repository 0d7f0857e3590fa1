"""A listener of its own for operators: which service each of two answers; what protects one protects both."""

from __future__ import annotations

import re
import socket
import sqlite3
import ssl
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from decider.channel import Credentials, open_channel
from decider.server.access import exposures
from decider.server.command import main
from decider.server.listeners import DECISIONS, EXPERIMENTS, FLAGS, SERVICES
from decider.server.roles import METHODS, Role
from decider.server.settings import Settings
from decider.server.tokens import new_token
from decider.v1 import decider_service_pb2 as pb
from simulator.studies.certificates import Pair, authority, issue
from tests.rpc_clients import (
    ANY_PORT,
    InProcessClient,
    ServerProcess,
    code_of,
    reason_of,
    refused,
    rows,
    status_of,
    until,
)
from tests.test_access import COUNTS, OWN, REQUESTS, bearer, fetch, unary

OTHERS = ("grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection")
ALONE = ("--operate-listen", ANY_PORT)


def operate_address(server: ServerProcess) -> str:
    """Of the operators' listener, as the server says it."""
    (found,) = re.findall(r"^ExperimentService on (\S+)$", server.output, re.MULTILINE)
    return str(found)


class Place:
    """A server process with two listeners, TLS and tokens, and an experiment with a decision."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tokens, self.db = folder, folder / "tokens.toml", folder / "log.db"
        self.ca = authority(folder, "authority")
        self.pair = issue(folder, "server", self.ca)
        self.token, self.lines = new_token("root", [*Role], [], None)
        self.tokens.write_text(self.lines)
        tls = ("--tls-cert", str(self.pair.cert), "--tls-key", str(self.pair.key))
        self.server = ServerProcess(self.db, *ALONE, "--tokens", str(self.tokens), *tls)
        self.addresses = {DECISIONS: self.server.target, EXPERIMENTS: operate_address(self.server)}
        self.call("ExperimentService/ApplyExperiment", REQUESTS["ExperimentService/ApplyExperiment"](OWN, ""))
        decide = "DeciderService/Decide"
        self.decision = self.call(decide, REQUESTS[decide](OWN, "")).decision_id

    def channel(self, service: str, token: str | None = None, ca: Path | None = None) -> Any:
        """A connection of its own to the listener of this service."""
        credentials = Credentials(token=self.token if token is None else token, ca=ca or self.ca.cert)
        return open_channel(self.addresses[service], credentials, [("grpc.use_local_subchannel_pool", 1)])

    def call(self, method: str, request: Any, *, at: str = "", token: str | None = None) -> Any:
        """The reply; at: of the listener of this service, in place of the method's own."""
        with self.channel(at or f"decider.v1.{method.partition('/')[0]}", token) as channel:
            return unary(channel, method)(request, timeout=20)

    @property
    def metadata(self) -> list[tuple[str, str]]:
        """The token, for streams."""
        return [("authorization", f"Bearer {self.token}")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One server for all."""
    made = Place(tmp_path_factory.mktemp("listeners"))
    try:
        yield made
    finally:
        made.server.terminate()


@pytest.mark.parametrize("method", REQUESTS)
def test_each_service_is_answered_at_one_listener(place: Place, method: str) -> None:
    """What a firewall opens is one service, whatever tokens there are; the error says which option has the address."""
    service = f"decider.v1.{method.partition('/')[0]}"
    other, option = (DECISIONS, "--operate-listen") if service == EXPERIMENTS else (EXPERIMENTS, "--listen")
    request, before = REQUESTS[method](OWN, place.decision), rows(place.db, COUNTS)
    for token in ("", "wrong", place.token):
        status = status_of(partial(place.call, method, request, at=other, token=token))
        assert (code_of(status), reason_of(status)) == ("UNIMPLEMENTED", "OTHER_LISTENER")
        assert status.message == f"{service} is not answered at this address, but at that of {option}"
    assert rows(place.db, COUNTS) == before
    assert code_of(status_of(partial(place.call, method, request, token=""))) == "UNAUTHENTICATED"
    assert code_of(status_of(partial(place.call, method, request))) == "OK"
    if method.endswith("PauseExperiment"):
        resume = "ExperimentService/ResumeExperiment"
        place.call(resume, REQUESTS[resume](OWN, ""))


def test_only_operators_use_what_the_operators_listener_answers() -> None:
    """Reading and operating there, deciding and rewarding here: a token of a shop has nothing to look for there."""
    of_service = {service: {METHODS[one] for one in METHODS if one.startswith(f"{service}/")} for service in SERVICES}
    assert of_service == {DECISIONS: {Role.DECIDE, Role.REWARD}, EXPERIMENTS: {Role.READ, Role.OPERATE}}


@pytest.mark.parametrize("service", FLAGS)
def test_flags_are_not_answered_where_operators_listen(place: Place, service: str) -> None:
    """They are decisions."""
    with place.channel(EXPERIMENTS) as channel:
        for name in ("ResolveString", "EventStream"):
            status = status_of(partial(next, channel.unary_stream(f"/{service}/{name}")(b"", timeout=20)))
            assert (code_of(status), reason_of(status)) == ("UNIMPLEMENTED", "OTHER_LISTENER")


@pytest.mark.parametrize("service", [DECISIONS, EXPERIMENTS])
def test_health_and_reflection_tell_of_what_the_listener_answers(place: Place, service: str) -> None:
    """A balancer that watches a service where it is not answered would send calls there."""
    (other,) = {DECISIONS, EXPERIMENTS} - {service}
    answered = {service, *(FLAGS if service == DECISIONS else ())}
    with place.channel(service, token="") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", service):
            assert health.Check(health_pb2.HealthCheckRequest(service=name), timeout=20).status == 1
        missing = status_of(lambda: health.Check(health_pb2.HealthCheckRequest(service=other), timeout=20))
        assert code_of(missing) == "NOT_FOUND"
        assert set(health.List(health_pb2.HealthListRequest(), timeout=20).statuses) == {"", *answered}
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        reply = next(stub.ServerReflectionInfo(iter([question]), metadata=place.metadata, timeout=20))
        assert {one.name for one in reply.list_services_response.service} == {*answered, *OTHERS}


def test_what_is_refused_at_the_wrong_listener_is_counted(place: Place) -> None:
    """A client that was not told of the new address is seen where errors are seen."""
    method = "ExperimentService/ListExperiments"
    status_of(partial(place.call, method, REQUESTS[method]("", ""), at=DECISIONS))
    context = ssl.create_default_context(cafile=str(place.ca.cert))
    _, text = fetch(f"https://{place.server.http}/metrics", context, headers=bearer(place.token))
    assert re.search(r'handled_total\{grpc_code="Unimplemented",grpc_method="ListExperiments".*\} [1-9]', text)


def test_commands_work_at_the_operators_listener(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And say which address is meant where it is the other one."""
    monkeypatch.setenv("DECIDER_TOKEN", place.token)
    monkeypatch.setenv("DECIDER_CA", str(place.ca.cert))

    def run(*arguments: str, target: str = place.addresses[EXPERIMENTS]) -> Any:
        return CliRunner().invoke(main, [*arguments, "--target", target])

    file = tmp_path / "own.toml"
    got = run("get", OWN)
    file.write_text(got.output)
    for arguments in (["list"], ["get", OWN], ["apply", str(file)], ["pause", OWN], ["resume", OWN]):
        done, wrong = run(*arguments), run(*arguments, target=place.server.target)
        assert (done.exit_code, wrong.exit_code) == (0, 1), done.output
        assert "UNIMPLEMENTED" in wrong.output
        assert "--operate-listen" in wrong.output


def test_tokens_and_certificates_change_at_both_while_serving(place: Place) -> None:
    """One listener must not take the news away from the other one."""
    token, lines = new_token("short", [*Role], [], None)
    calls = {DECISIONS: "DeciderService/Decide", EXPERIMENTS: "ExperimentService/GetExperiment"}

    def statuses(token: str) -> set[str]:
        return {
            code_of(status_of(partial(place.call, one, REQUESTS[one](OWN, ""), token=token))) for one in calls.values()
        }

    place.tokens.write_text(place.lines + lines)
    until(lambda: statuses(token) == {"OK"}, what="both know the new token")
    place.tokens.write_text(place.lines)
    until(lambda: statuses(token) == {"UNAUTHENTICATED"}, what="both have forgotten it")

    other = authority(place.folder / "other", "other")
    made, before = issue(place.folder / "new", "server", other), place.pair
    old = Pair(*[one.rename(one.with_suffix(f"{one.suffix}.old")) for one in (before.cert, before.key)])

    def takes(service: str, ca: Path) -> bool:
        with place.channel(service, ca=ca) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            return code_of(status_of(lambda: stub.Check(health_pb2.HealthCheckRequest(), timeout=5))) == "OK"

    for pair, ca in ((made, other.cert), (old, place.ca.cert)):
        before.cert.write_bytes(pair.cert.read_bytes())
        before.key.write_bytes(pair.key.read_bytes())
        for service in calls:
            until(partial(takes, service, ca), what="it shows the new certificate")


def test_a_crowd_at_one_listener_keeps_nobody_out_of_the_other(tmp_path: Path) -> None:
    """Whoever has to pause an experiment gets in while callers take all calls that are allowed at once."""
    client = InProcessClient(tmp_path / "log.db", operate_listen=ANY_PORT, max_concurrent_rpcs=2)
    address = client.server.grpc_addresses["--operate-listen"]
    try:
        with grpc.insecure_channel(address) as operators:
            ask = partial(unary, operators)
            apply, get = "ExperimentService/ApplyExperiment", "ExperimentService/GetExperiment"
            ask(apply)(REQUESTS[apply](OWN, ""), timeout=20)
            decide = pb.DecideRequest(experiment=OWN, unit_id="unit")
            with closing(sqlite3.connect(client.db, isolation_level=None)) as other:
                other.execute("begin immediate")
                waiting = [client.future("Decide", decide) for _ in range(2)]
                until(lambda: client.server.grpc_port._intake._calls.count == 2, what="both wait")
                assert code_of(status_of(lambda: client.decide(OWN))) == "RESOURCE_EXHAUSTED"
                assert ask(get)(REQUESTS[get](OWN, ""), timeout=20).experiment.version == 1
                other.execute("rollback")
            assert all(call.result().decision_id for call in waiting)
    finally:
        client.close()


def test_sigterm_drains_both_and_a_given_socket_stays_that_of_http(tmp_path: Path) -> None:
    """Watches at both hear of the end, and the process ends within its grace."""
    with socket.create_server(("127.0.0.1", 0)) as given:
        server = ServerProcess(tmp_path / "log.db", *ALONE, "--grace", "20", listening=given)
        assert server.http == f"127.0.0.1:{given.getsockname()[1]}"
    channels = [grpc.insecure_channel(one) for one in (server.target, operate_address(server))]
    watches = [health_pb2_grpc.HealthStub(one).Watch(health_pb2.HealthCheckRequest()) for one in channels]
    assert [next(watch).status for watch in watches] == [1, 1]
    assert server.terminate() == 0
    assert [next(watch).status for watch in watches] == [2, 2]
    for channel in channels:
        channel.close()


def test_an_address_that_is_taken_is_told_with_its_option(tmp_path: Path) -> None:
    """Of two listeners the operator wants to know which."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, output = refused(tmp_path / "log.db", "--operate-listen", address)
    assert code == 1
    assert f"cannot listen on {address} for gRPC (--operate-listen)" in output
    assert refused(tmp_path / "log.db", "--operate-listen", "nowhere")[0] == 2


def test_each_listener_that_others_reach_says_what_stands_open(tmp_path: Path) -> None:
    """A public port for decisions beside a private one for operators is the usual case."""
    public = Settings(listen="0.0.0.0:1", operate_listen="127.0.0.1:2")
    (warning,) = exposures(public)
    assert warning.startswith("anybody who reaches 0.0.0.0:1 (--listen) may decide and send rewards: ")
    (warning,) = exposures(Settings(listen="127.0.0.1:1", operate_listen="0.0.0.0:2"))
    assert warning.startswith("anybody who reaches 0.0.0.0:2 (--operate-listen) may read and change every experiment: ")
    (warning,) = exposures(Settings(listen="0.0.0.0:1"))
    assert "may decide, send rewards, read and change every experiment: " in warning
    pages = exposures(Settings(http="0.0.0.0:3", page_writes=("http://shop",)))
    assert "0.0.0.0:3 (--http) may read every decision, and change experiments: " in pages[0]
    everything = Settings(listen="0.0.0.0:0", operate_listen="0.0.0.0:0", http="0.0.0.0:0", tokens=tmp_path)
    assert [re.findall(r"\((--\S+)\) without encryption", one) for one in exposures(everything)] == [
        ["--listen"],
        ["--operate-listen"],
        ["--http"],
    ]
    client = InProcessClient(tmp_path / "log.db", listen="0.0.0.0:0", operate_listen=ANY_PORT)
    try:
        text = client.fetch("/readyz")[1]
        assert "(--listen) may decide and send rewards" in text
        assert "--operate-listen" not in text
    finally:
        client.close()
