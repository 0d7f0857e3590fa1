"""Every RPC by every stranger, over gRPC as clients speak it. Called by `attacker.py`.

The RPCs are those of the served descriptors; the role that each needs is read from `roles.py`, where the server has it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from decider.flagd.v1 import evaluation_pb2 as flagd_v1
from decider.flagd.v2 import evaluation_pb2 as flagd_v2
from decider.server.roles import METHODS, Role
from decider.v1 import decider_service_pb2, experiment_service_pb2
from decider.v1.decider_service_pb2 import DecideRequest
from simulator.studies.attack.findings import Finding
from simulator.studies.attack.names import OWN, Aim, Identity, leaks
from simulator.studies.attack.requests import request_of

SERVED = (decider_service_pb2, experiment_service_pb2, flagd_v1, flagd_v2, health_pb2, reflection_pb2)

OF_ALL = ("ResolveAll", "EventStream")
"""RPCs that tell of every experiment that their caller may use, and name none."""

PATIENCE = 10.0
"""Seconds for a call."""

NO_PATIENCE = 3.0
"""For one whose handshake is to fail."""

WRITES = {Role.DECIDE, Role.REWARD, Role.OPERATE}

NOT_SERVED = ("decider.v1.DeciderService/Nothing", "grpc.channelz.v1.Channelz/GetServers", "/", "decider.v1/")


@dataclass(frozen=True, slots=True)
class Method:
    """An RPC. name: "package.Service/Method". role: see `roles.METHODS`."""

    name: str
    request: type[Message]
    role: Role | None
    streams: bool


def served_methods() -> Sequence[Method]:
    """Every RPC that the server has. Raises KeyError for one without a role, with which it would not start."""
    return [
        Method(
            name=f"{service.full_name}/{method.name}",
            request=method.input_type._concrete_class,
            role=METHODS[f"{service.full_name}/{method.name}"],
            streams=method.client_streaming or method.server_streaming,
        )
        for module in SERVED
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]


def decked(cards: Sequence[Any], random: Random) -> Iterator[Any]:
    """All of them in another order, again and again."""
    while True:
        yield from random.sample(cards, len(cards))


class Calls:
    """Takes the next (stranger, RPC) with each step."""

    name = "calls"

    def __init__(self, aim: Aim, random: Random) -> None:
        self._aim, self._ca = aim, Path(aim.ca).read_bytes()
        methods = [*served_methods(), *[Method(name, DecideRequest, None, streams=False) for name in NOT_SERVED]]
        self._cards = [(one, method) for one in aim.identities for method in methods]
        self._deck = decked(self._cards, random)
        self._channels: dict[str, Any] = {}
        self._lock = threading.Lock()

    def cards(self) -> Sequence[tuple[str, str]]:
        """(stranger, RPC), all of them."""
        return [(identity.name, method.name) for identity, method in self._cards]

    def step(self, random: Random) -> Finding:
        """One call."""
        with self._lock:
            identity, method = next(self._deck)
        own = identity.experiments == (OWN,) and identity.may(method.role) and method.role in WRITES
        request = request_of(method.request, random, own=own and method.role is not Role.OPERATE)
        if identity.joins:
            return self._judged(identity, method, request, self._channel(identity), random, PATIENCE)
        with self._open(identity) as channel:  # each time anew: the handshake is what is attacked
            return self._judged(identity, method, request, channel, random, NO_PATIENCE)

    def drop(self) -> None:
        """Close all connections."""
        with self._lock:
            channels, self._channels = [*self._channels.values()], {}
        for channel in channels:
            channel.close()

    def _channel(self, identity: Identity) -> Any:
        with self._lock:
            if identity.name not in self._channels:
                self._channels[identity.name] = self._open(identity)
            return self._channels[identity.name]

    def _open(self, identity: Identity) -> Any:
        own = (Path(identity.key).read_bytes(), Path(identity.cert).read_bytes()) if identity.cert else (None, None)
        credentials = grpc.ssl_channel_credentials(self._ca, *own)
        return grpc.secure_channel(self._aim.target, credentials, options=[("grpc.use_local_subchannel_pool", 1)])

    def _judged(
        self, identity: Identity, method: Method, request: Message, channel: Any, random: Random, patience: float
    ) -> Finding:
        metadata = [("authorization", random.choice(identity.authorizations))] if identity.authorizations else []
        status, reply, rest = _called(channel, method, request, metadata, patience)
        breach = ""
        if leaks(self._aim.secret, [reply, *rest]) and not (identity.reads_all and method.role is Role.READ):
            breach = "holds what is the victim's"
        elif status == "OK" and not identity.may(method.role):
            breach = f"it has not the role {method.role}"
        elif status == "OK" and not identity.may_use(method.role) and method.role in WRITES:
            breach = _foreign(method, request, reply)
        return Finding(self.name, identity.name, method.name, status, breach)


def _called(
    channel: Any, method: Method, request: Message, metadata: Sequence[tuple[str, str]], patience: float
) -> tuple[str, bytes, Sequence[bytes | str]]:
    """Status, reply, and everything else that came back."""
    path = method.name if method.name.startswith("/") else f"/{method.name}"
    if method.streams:
        call = channel.stream_stream(path)(iter([request.SerializeToString()]), metadata=metadata, timeout=patience)
    else:
        call = channel.unary_stream(path)(request.SerializeToString(), metadata=metadata, timeout=patience)
    try:
        reply = next(iter(call), b"")
        if not method.streams:
            for _ in call:
                pass  # to the status
        else:
            call.cancel()
        return "OK", reply, _texts(call.initial_metadata())
    except grpc.RpcError as error:
        return error.code().name, b"", [*_texts(call.trailing_metadata()), error.details() or ""]


def _texts(metadata: Any) -> list[bytes | str]:
    return [part for pair in metadata or () for part in pair]


def _foreign(method: Method, request: Any, reply: bytes) -> str:
    """Why an OK to who has the role for another experiment must not be; of a batch, for the requests in it."""
    if hasattr(request, "requests"):
        (output,) = [
            one.output_type._concrete_class
            for module in SERVED
            for service in module.DESCRIPTOR.services_by_name.values()
            for one in service.methods
            if f"{service.full_name}/{one.name}" == method.name
        ]
        results = output.FromString(reply).results
        pairs = zip(request.requests, results, strict=True)
        return (
            "of another experiment" if any(_is_foreign(one) for one, done in pairs if done.HasField("response")) else ""
        )
    if method.name.endswith(OF_ALL):
        return ""
    return "of another experiment" if _is_foreign(request) else ""


def _is_foreign(request: Any) -> bool:
    """Whether nothing in it but the stranger's own experiment could have answered."""
    named = getattr(request, "experiment", "") or getattr(request, "flag_key", "")
    return named != OWN
