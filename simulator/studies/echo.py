"""A bare grpcio server: a fixed reply of the size of ours, to the same request, with as many threads as ours.

No service on grpcio can be faster. Started by `bench.py` and `bench_access.py` as
`python -m simulator.studies.echo PORT [CERT KEY [CLIENT_CA]]`; with files it takes TLS only.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from decider.v1 import decider_service_pb2 as pb

THREADS = 2
DECISION = pb.DecideResponse(
    decision_id="01a1ffaa-9644-717d-b719-88b84227a447",
    action=pb.DecidedAction(id="action-1", kind="content", payload={"title": "Title 1"}),
    propensity=0.9,
    reason=pb.REASON_EXPLOIT,
    model=123_456,
    experiment_version=1,
)
REWARD = pb.RewardResponse(outcome=pb.REWARD_OUTCOME_JOINED)


def echo(port: int, files: Sequence[Path] = ()) -> grpc.Server:
    """Such a server, started. files: PEM: of the certificate, its key, and the authority of clients."""
    server = grpc.server(ThreadPoolExecutor(THREADS))
    handlers = {
        "Decide": _handler(pb.DecideRequest, DECISION),
        "Reward": _handler(pb.RewardRequest, REWARD),
    }
    server.add_registered_method_handlers("decider.v1.DeciderService", handlers)
    if files:
        server.add_secure_port(f"127.0.0.1:{port}", _credentials(*[file.read_bytes() for file in files]))
    else:
        server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server


def _credentials(cert: bytes, key: bytes, client_ca: bytes | None = None) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials([(key, cert)], client_ca, require_client_auth=client_ca is not None)


def _handler(request: type, reply: pb.DecideResponse | pb.RewardResponse) -> grpc.RpcMethodHandler:
    return grpc.unary_unary_rpc_method_handler(
        lambda _, __: reply,
        request_deserializer=request.FromString,  # type: ignore[attr-defined]
        response_serializer=type(reply).SerializeToString,
    )


if __name__ == "__main__":
    echo(int(sys.argv[1]), [Path(file) for file in sys.argv[2:]]).wait_for_termination()
