"""What standard tools expect of a gRPC server: health for each service, reflection, and /healthz and /readyz."""

from __future__ import annotations

import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from decider.server.listeners import FLAGS
from decider.server.serve import Server
from decider.server.settings import Settings
from decider.v1 import decider_service_pb2 as pb
from tests.rpc_clients import ANY_PORT, PATIENCE, InProcessClient, ServerProcess, code_of, experiment, fetch, status_of

SERVICES = ("decider.v1.DeciderService", "decider.v1.ExperimentService", *FLAGS)

RESOLVES = [f"Resolve{type_}" for type_ in ("Boolean", "String", "Float", "Int", "Object")]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessClient]:
    """A server that has an experiment `e`."""
    opened = InProcessClient(tmp_path_factory.mktemp("standard") / "log.db")
    opened.apply(experiment("e"))
    yield opened
    opened.close()


@pytest.mark.parametrize("service", ["", *SERVICES])
def test_health_is_serving(client: InProcessClient, service: str) -> None:
    """Load balancers ask for a service by name or, with an empty name, for the server."""
    stub = health_pb2_grpc.HealthStub(client.channel)
    reply = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
    assert reply.status == health_pb2.HealthCheckResponse.SERVING


def test_health_of_an_unknown_service_is_not_found(client: InProcessClient) -> None:
    """A misspelt probe must fail, not say that all is well."""
    stub = health_pb2_grpc.HealthStub(client.channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="decider.v1.Typo"), timeout=10)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_reflection_lists_every_service(client: InProcessClient) -> None:
    """grpcurl and its like find their way without our proto files."""
    found = ProtoReflectionDescriptorDatabase(client.channel).get_services()
    assert set(found) == {*SERVICES, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


def test_reflection_describes_every_method(client: InProcessClient) -> None:
    """A tool must be able to build a request from what reflection says alone."""
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(client.channel))
    methods = {service: [method.name for method in pool.FindServiceByName(service).methods] for service in SERVICES}
    assert methods == {
        SERVICES[0]: ["Decide", "DecideBatch", "DecideSlate", "Activate", "Reward", "RewardBatch", "LinkUnits"],
        SERVICES[1]: [
            f"{verb}Experiment{'s' * (verb == 'List')}" for verb in ("Apply", "Get", "List", "Pause", "Resume")
        ],
        FLAGS[0]: ["ResolveAll", *RESOLVES, "EventStream"],
        FLAGS[1]: [*RESOLVES, "EventStream"],
    }
    fields = pool.FindMessageTypeByName("decider.v1.DecideRequest").fields_by_name
    assert list(fields) == list(pb.DecideRequest.DESCRIPTOR.fields_by_name)


def test_a_packed_request_is_measured_unpacked(client: InProcessClient) -> None:
    """Some kilobytes may be gigabytes: the limit holds for what would take memory."""
    stub = client.channel.unary_unary("/decider.v1.DeciderService/Decide")
    bomb = b"\0" * 20_000_000
    status = status_of(lambda: stub(bomb, timeout=PATIENCE, compression=grpc.Compression.Gzip))
    assert code_of(status) == "RESOURCE_EXHAUSTED"
    assert "larger than max" in status.message


def test_open_reflection_streams_do_not_keep_decisions_waiting(tmp_path: Path) -> None:
    """A developer's tool that stays open (grpcui, an editor) must not take the server's few threads away."""
    opened = InProcessClient(tmp_path / "log.db", threads=2)
    opened.apply(experiment("e"))
    done = threading.Event()

    def questions() -> Iterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        done.wait()

    stub = reflection_pb2_grpc.ServerReflectionStub(opened.channel)
    streams = [stub.ServerReflectionInfo(questions()) for _ in range(2)]
    try:
        for stream in streams:
            next(stream)
        request = pb.DecideRequest(experiment="e", unit_id="unit")
        status = status_of(lambda: opened.call("DeciderService", "Decide", request, timeout=5))
        assert code_of(status) == "OK"
    finally:
        done.set()
        for stream in streams:
            stream.cancel()
        opened.close()


def test_open_health_watches_do_not_keep_decisions_waiting(tmp_path: Path) -> None:
    """Clients with health checking keep a watch open for as long as they live."""
    opened = InProcessClient(tmp_path / "log.db", threads=2)
    opened.apply(experiment("e"))
    stub = health_pb2_grpc.HealthStub(opened.channel)
    watches = [stub.Watch(health_pb2.HealthCheckRequest(service="")) for _ in range(4)]
    try:
        assert [next(watch).status for watch in watches] == [health_pb2.HealthCheckResponse.SERVING] * 4
        assert opened.decide("e").action.id
    finally:
        for watch in watches:
            watch.cancel()
        opened.close()


def test_watches_of_unknown_services_leave_nothing_behind(tmp_path: Path) -> None:
    """A name may be as long as a request: whoever watches a new one each time must not fill the server's memory."""
    server = ServerProcess(tmp_path / "log.db")
    client = server.client()
    stub = health_pb2_grpc.HealthStub(client.channel)
    try:
        watch_unknown(stub, "first", watches=20)
        before = resident_megabytes(server)
        watch_unknown(stub, "second", watches=200)
        assert resident_megabytes(server) < before + 60  # the names took 200
    finally:
        client.close()
        server.terminate()


def watch_unknown(stub: health_pb2_grpc.HealthStub, prefix: str, *, watches: int) -> None:
    """Watches one after the other, each of another name of 1 MB."""
    for number in range(watches):
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=f"{prefix}-{number}-" + "x" * 1_000_000))
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        watch.cancel()


def resident_megabytes(server: ServerProcess) -> float:
    """Memory that the server's process takes."""
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def test_healthz_and_readyz_are_ok_while_serving(client: InProcessClient) -> None:
    """Kubernetes asks both: whether to restart it and whether to send it calls."""
    assert client.fetch("/healthz") == (200, "ok\n")
    assert client.fetch("/readyz") == (200, "ok\n")
    assert client.fetch("/readyz?verbose=1") == (200, "ok\n")


def test_other_paths_are_not_found(client: InProcessClient) -> None:
    """A misspelt probe must fail; the answer says what there is."""
    status, text = client.fetch("/health")
    assert status == 404
    assert all(path in text for path in ("/metrics", "/healthz", "/readyz"))


def test_stopped_server_answers_nothing(tmp_path: Path) -> None:
    """After the end both ports are free for the next one, and the log is."""
    opened = InProcessClient(tmp_path / "log.db")
    opened.close()
    with pytest.raises(OSError, match="refused"):
        fetch(f"http://{opened.http}/healthz")
    again = InProcessClient(tmp_path / "log.db", listen=opened.target, http=opened.http)
    assert again.fetch("/readyz")[0] == 200
    again.close()


def test_server_that_was_never_started_can_be_stopped(tmp_path: Path) -> None:
    """Whatever goes wrong between building and starting, ending must not hang."""
    server = Server(Settings(db=tmp_path / "log.db", listen=ANY_PORT, http=ANY_PORT))
    stopping = threading.Thread(target=server.stop, daemon=True)
    stopping.start()
    stopping.join(5)
    assert not stopping.is_alive()
