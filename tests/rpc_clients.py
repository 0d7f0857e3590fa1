"""Four ways to reach the service, so that one test can go through all of them.

`ServicerClient` calls the servicer objects, `InProcessClient` a whole server in this process over gRPC,
`SubprocessClient` the `decider serve` command as a process of its own, `ConnectClient` a server in this process over
Connect. All take and return messages. They raise what
the way itself raises, a DeciderError or a grpc.RpcError; `status_of` gives the google.rpc.Status for either.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as Any_
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from google.rpc.code_pb2 import Code
from grpc_status import rpc_status

from decider.errors import DeciderError
from decider.learn.leader import Leader, Pace
from decider.learn.versions import Versions
from decider.log.open import open_log
from decider.log.sqlite.writer import SqliteLog
from decider.server.experiments import ExperimentService
from decider.server.leading import FILES_INTERVAL
from decider.server.rpc import to_status
from decider.server.serve import Server
from decider.server.service import DeciderService
from decider.server.settings import Settings
from decider.serving.current import Current
from decider.serving.follower import Copies, Follower
from decider.types import now
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from decider.v1 import experiment_service_pb2 as experiments_pb
from decider.v1.decider_service_pb2_grpc import DeciderServiceStub
from decider.v1.experiment_service_pb2_grpc import ExperimentServiceStub

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds after which waiting for something that must happen is a failure. No test asserts how long it took."""

LEARN_INTERVAL = 0.05
ANY_PORT = "127.0.0.1:0"


def until(
    look: Callable[[], T | None],
    *,
    what: str,
    between: Callable[[], None] = lambda: time.sleep(0.02),
    patience: float = PATIENCE,
) -> T:
    """What `look` sees as soon as it is true; fails after a long while."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        seen = look()
        if seen:
            return seen
        between()
    raise AssertionError(f"waited {patience} s in vain until {what}")


def keep_changing(*files: Path) -> None:
    """Between looks, so that they are never taken to be whole: then SIGHUP alone has them applied."""
    for file in files:
        with file.open("a") as opened:
            opened.write("# more\n")
    time.sleep(0.02)


def rows(db: Path, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """What the log's file says, read by a connection of the test's own."""
    with closing(sqlite3.connect(f"{db.absolute().as_uri()}?mode=ro", uri=True, timeout=10)) as connection:
        return connection.execute(sql, parameters).fetchall()


def status_of(call: Callable[[], object]) -> status_pb2.Status:
    """The status that a call ends with; code 0 if it succeeds."""
    try:
        call()
    except DeciderError as error:
        return to_status(error)
    except grpc.RpcError as error:
        return status_of_rpc(error)
    return status_pb2.Status()


def status_of_rpc(error: grpc.RpcError) -> status_pb2.Status:
    """The status in a failed call's trailers; without one, the plain code and text."""
    with suppress(ValueError):  # the trailers say another code than the call: they were cut off on the way
        rich: status_pb2.Status | None = rpc_status.from_call(error)
        if rich is not None:
            return rich
    return status_pb2.Status(code=error.code().value[0], message=error.details() or "")


def code_of(status: status_pb2.Status) -> str:
    """The name of a status's code."""
    return str(next(code.name for code in grpc.StatusCode if code.value[0] == status.code))


def detail(status: status_pb2.Status, message: T) -> T | None:
    """The detail of this type, read into `message`; None if there is none."""
    for packed in status.details:
        if packed.Unpack(message):
            return message
    return None


def reason_of(status: status_pb2.Status) -> str:
    """ErrorInfo.reason; empty without one."""
    info = detail(status, error_details_pb2.ErrorInfo())
    return str(info.reason) if info else ""


def fields_of(status: status_pb2.Status) -> list[str]:
    """The fields that BadRequest names."""
    bad = detail(status, error_details_pb2.BadRequest())
    return [violation.field for violation in bad.field_violations] if bad else []


def experiment(
    id_: str,
    *actions: str,
    window: float = 600.0,
    **fields: Any,
) -> experiment_pb2.Experiment:
    """An experiment with these actions (default: a, b, c) and a window in seconds; any other field by name."""
    message = experiment_pb2.Experiment(
        id=id_, actions=[experiment_pb2.Action(id=action) for action in actions or ("a", "b", "c")], **fields
    )
    length = Duration()
    length.FromMicroseconds(round(window * 1e6))
    message.reward.window.CopyFrom(length)
    return message


class RpcClient(ABC):
    """A way to call the service, open until `close`. `db`: the log's file, which every way has."""

    db: Path

    @abstractmethod
    def call(self, service: str, method: str, request: Message) -> Any:
        """The reply; raises DeciderError or grpc.RpcError."""

    @abstractmethod
    def close(self) -> None:
        """End the service."""

    def breathe(self) -> None:
        """Give the learner time for a round."""
        time.sleep(LEARN_INTERVAL)

    def until(self, look: Callable[[], T | None], *, what: str, patience: float = PATIENCE) -> T:
        """See `until`; the learner goes on meanwhile."""
        return until(look, what=what, between=self.breathe, patience=patience)

    def rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """See `rows`."""
        return rows(self.db, sql, *parameters)

    def decide(self, experiment_id: str, unit_id: str = "unit", **fields: Any) -> pb.DecideResponse:
        """Decide; more fields of the request by name."""
        return self.send(pb.DecideRequest(experiment=experiment_id, unit_id=unit_id, **fields))

    def send(self, request: pb.DecideRequest) -> pb.DecideResponse:
        """Decide."""
        reply: pb.DecideResponse = self.call("DeciderService", "Decide", request)
        return reply

    def decide_batch(self, requests: Sequence[pb.DecideRequest]) -> Sequence[pb.DecideResult]:
        """DecideBatch."""
        reply: pb.DecideBatchResponse = self.call(
            "DeciderService", "DecideBatch", pb.DecideBatchRequest(requests=requests)
        )
        return list(reply.results)

    def activate(self, decision_id: str, action: str = "") -> bool:
        """Activate; whether it was the first time."""
        reply = self.call("DeciderService", "Activate", pb.ActivateRequest(decision_id=decision_id, action=action))
        return bool(reply.first)

    def activation(self, decision_id: str, action: str = "") -> str:
        """Activate; the outcome's short name."""
        reply = self.call("DeciderService", "Activate", pb.ActivateRequest(decision_id=decision_id, action=action))
        return str(pb.ActivationOutcome.Name(reply.outcome)).removeprefix("ACTIVATION_OUTCOME_").lower()

    def reward(self, decision_id: str, **fields: Any) -> str:
        """Reward; the outcome's short name."""
        request = pb.RewardRequest(decision_id=decision_id, **fields)
        return outcome_name(self.call("DeciderService", "Reward", request).outcome)

    def reward_batch(self, requests: Sequence[pb.RewardRequest]) -> Sequence[pb.RewardResult]:
        """RewardBatch."""
        reply: pb.RewardBatchResponse = self.call(
            "DeciderService", "RewardBatch", pb.RewardBatchRequest(requests=requests)
        )
        return list(reply.results)

    def apply(
        self, message: experiment_pb2.Experiment, *, validate_only: bool = False
    ) -> experiments_pb.ApplyExperimentResponse:
        """ApplyExperiment."""
        request = experiments_pb.ApplyExperimentRequest(experiment=message, validate_only=validate_only)
        reply: experiments_pb.ApplyExperimentResponse = self.call("ExperimentService", "ApplyExperiment", request)
        return reply

    def get(self, id_: str) -> experiments_pb.VersionedExperiment:
        """GetExperiment."""
        reply = self.call("ExperimentService", "GetExperiment", experiments_pb.GetExperimentRequest(id=id_))
        found: experiments_pb.VersionedExperiment = reply.experiment
        return found

    def page(self, page_size: int = 0, page_token: str = "") -> experiments_pb.ListExperimentsResponse:
        """ListExperiments."""
        request = experiments_pb.ListExperimentsRequest(page_size=page_size, page_token=page_token)
        reply: experiments_pb.ListExperimentsResponse = self.call("ExperimentService", "ListExperiments", request)
        return reply

    def pause(self, id_: str) -> experiments_pb.VersionedExperiment:
        """PauseExperiment."""
        reply = self.call("ExperimentService", "PauseExperiment", experiments_pb.PauseExperimentRequest(id=id_))
        paused: experiments_pb.VersionedExperiment = reply.experiment
        return paused

    def resume(self, id_: str) -> experiments_pb.VersionedExperiment:
        """ResumeExperiment."""
        reply = self.call("ExperimentService", "ResumeExperiment", experiments_pb.ResumeExperimentRequest(id=id_))
        resumed: experiments_pb.VersionedExperiment = reply.experiment
        return resumed


def outcome_name(outcome: int) -> str:
    """REWARD_OUTCOME_JOINED -> joined."""
    return str(pb.RewardOutcome.Name(outcome)).removeprefix("REWARD_OUTCOME_").lower()


class ServicerClient(RpcClient):
    """The servicer objects, called directly; leader and follower step whenever the test breathes."""

    def __init__(self, db: Path) -> None:
        self.db = db
        self._log = open_log(db)
        current, copies = Current(), Copies()
        self._follower = Follower(self._log, current, copies)
        self._leader = Leader(self._log, self._log.lease(), copies, clock=now, pace=Pace(interval=0.0))
        assert self._leader.catch_up()
        self._follower.follow()
        versions = Versions(self._log)
        self._services = {
            "DeciderService": DeciderService(current, self._log, append=self._log.append),
            "ExperimentService": ExperimentService(
                self._log, current, self._follower, versions, progress=self._leader.progress
            ),
        }

    def call(self, service: str, method: str, request: Message) -> Any:
        """See RpcClient."""
        return getattr(self._services[service], method)(request)

    def breathe(self) -> None:
        """See RpcClient."""
        time.sleep(LEARN_INTERVAL)
        while self._leader.step():
            pass
        self._follower.follow()

    def close(self) -> None:
        """See RpcClient."""
        self._leader.finish()
        self._log.close()


class GrpcClient(RpcClient):
    """A server that listens at `target`, over gRPC; `http` is its other address. options: of the channel."""

    def __init__(self, db: Path, target: str, http: str, *, options: Sequence[tuple[str, int]] = ()) -> None:
        self.db = db
        self.target = target
        self.http = http
        self.channel = grpc.insecure_channel(target, options=options)
        self._stubs = {
            "DeciderService": DeciderServiceStub(self.channel),  # type: ignore[no-untyped-call]
            "ExperimentService": ExperimentServiceStub(self.channel),  # type: ignore[no-untyped-call]
        }

    def call(self, service: str, method: str, request: Message, *, timeout: float = PATIENCE) -> Any:
        """See RpcClient."""
        return getattr(self._stubs[service], method)(request, timeout=timeout)

    def future(self, method: str, request: Message, *, timeout: float = PATIENCE) -> Any:
        """A call of DeciderService that is not waited for."""
        return getattr(self._stubs["DeciderService"], method).future(request, timeout=timeout)

    def fetch(self, path: str) -> tuple[int, str]:
        """Status and body of an HTTP GET."""
        return fetch(f"http://{self.http}{path}")

    def close(self) -> None:
        """See RpcClient."""
        self.channel.close()


def fetch(url: str) -> tuple[int, str]:
    """Status and body of an HTTP GET, whatever the status."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


class InProcessClient(GrpcClient):
    """A whole server in this process, on free ports."""

    @property
    def writer(self) -> sqlite3.Connection:
        """The connection that writes the log, for tests that make it fail."""
        assert isinstance(self.server.log, SqliteLog)
        return self.server.log._writer

    def __init__(self, db: Path, *, files_interval: float = FILES_INTERVAL, **settings: Any) -> None:
        given = {"learn_interval": LEARN_INTERVAL, "listen": ANY_PORT, "http": ANY_PORT, **settings}
        self.server = Server(Settings(db=db, **given), files_interval=files_interval)
        self.server.start()
        super().__init__(db, f"127.0.0.1:{self.server.port}", f"127.0.0.1:{self.server.http_port}")

    def wait_until_idle(self) -> None:
        """A call counts for the limits until its reply has left; its caller may have read it a moment before."""
        until(lambda: not self.server.grpc_port._intake._calls.count, what="no call counts")

    def close(self) -> None:
        """See RpcClient."""
        super().close()
        stopping = threading.Thread(target=self.server.stop, daemon=True)  # so that a stop that hangs is one failure
        stopping.start()
        stopping.join(PATIENCE)
        assert not stopping.is_alive(), "the server does not stop"


class ConnectClient(InProcessClient):
    """A whole server in this process, whose DeciderService is called by Connect in JSON. What fails is raised as gRPC
    raises it."""

    def __init__(self, db: Path) -> None:
        super().__init__(db, web=ANY_PORT)
        host, _, port = self.server.grpc_addresses["--web"].rpartition(":")
        self._web = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
        self._lock = threading.Lock()

    def call(self, service: str, method: str, request: Message, *, timeout: float = PATIENCE) -> Any:
        """See RpcClient."""
        if service != "DeciderService":
            return super().call(service, method, request, timeout=timeout)
        head = {"content-type": "application/json", "connect-timeout-ms": str(round(1000 * timeout))}
        body = json_format.MessageToJson(request).encode()
        with self._lock:
            self._web.request("POST", f"/decider.v1.{service}/{method}", body, head)
            answer = self._web.getresponse()
            content = answer.read()
        if answer.status != HTTPStatus.OK:
            raise ConnectError(json.loads(content))
        return json_format.Parse(content, getattr(pb, f"{method}Response")())

    def close(self) -> None:
        """See RpcClient."""
        self._web.close()
        super().close()


class ConnectError(grpc.RpcError):  # type: ignore[misc]
    """As gRPC has it. found: of Connect."""

    def __init__(self, found: Mapping[str, Any]) -> None:
        super().__init__(found["message"])
        name = {"canceled": "CANCELLED"}.get(found["code"], found["code"].upper())
        details = [
            Any_(type_url=f"type.googleapis.com/{one['type']}", value=b64decode(one["value"] + "=="))
            for one in found.get("details", ())
        ]
        status = status_pb2.Status(code=Code.Value(name), message=found["message"], details=details)
        self._rich = rpc_status.to_status(status)

    def code(self) -> grpc.StatusCode:
        """As of a grpc.Call."""
        return self._rich.code

    def details(self) -> str:
        """As of a grpc.Call."""
        return str(self._rich.details)

    def trailing_metadata(self) -> Any:
        """As of a grpc.Call."""
        return self._rich.trailing_metadata


_READY = re.compile(r"^gRPC on (\S+), metrics on https?://(\S+)/metrics$", re.MULTILINE)


COMMAND = ("-m", "decider.cli")

GIVE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.execve(sys.executable, sys.argv[2:], os.environ | {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())})
"""
"""Becomes a command that has a socket given to it."""


class ServerProcess:
    """`decider serve` as a process of its own, ready to be called. `output` is everything it has said.

    url: of a log in PostgreSQL; then `db` only names the file of the output. Raises AssertionError if it ends instead;
    `refused` is for those that are meant to.
    """

    def __init__(
        self,
        db: Path,
        *options: str,
        listening: socket.socket | None = None,
        program: Sequence[str] = COMMAND,
        url: str | None = None,
    ) -> None:
        self.db = db
        self._output = db.with_name(f"{db.name}.output")
        self.process = start(url or db, self._output, *options, listening=listening, program=program)
        try:
            self.target, self.http = until(self._addresses, what="the server is ready")
        except BaseException:
            self.kill()
            raise

    def _addresses(self) -> tuple[str, str] | None:
        assert self.process.poll() is None, f"the server ended: {self.output}"
        ready = _READY.search(self.output)
        return (ready[1], ready[2]) if ready else None

    @property
    def output(self) -> str:
        """Both streams, of this process only."""
        return self._output.read_text()

    def client(self) -> GrpcClient:
        """A new client of it; closing that leaves the process alone."""
        return GrpcClient(self.db, self.target, self.http)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def terminate(self) -> int:
        """SIGTERM; the exit code."""
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGTERM)
        return self.process.wait(PATIENCE)


def start(
    db: Path | str,
    output: Path,
    *options: str,
    listening: socket.socket | None = None,
    program: Sequence[str] = COMMAND,
) -> subprocess.Popen[bytes]:
    """The command with both of its streams in a file. listening: given to it, as a service manager does. program: what
    Python runs."""
    command = [sys.executable, *program, "serve", "--db", str(db), "--listen", ANY_PORT, "--http", ANY_PORT]
    given = [] if listening is None else [listening.fileno()]
    if given:
        command = [sys.executable, "-c", GIVE, str(given[0]), *command]
    with output.open("wb") as both:
        return subprocess.Popen([*command, *options], stdout=both, stderr=both, pass_fds=given)


def refused(db: Path, *options: str, url: str | None = None) -> tuple[int, str]:
    """Exit code and output of a server that is meant to refuse to start. url: see ServerProcess."""
    output = db.with_name(f"{db.name}.refused")
    process = start(url or db, output, *options)
    try:
        return process.wait(PATIENCE), output.read_text()
    finally:
        process.kill()
        process.wait(PATIENCE)


class SubprocessClient(GrpcClient):
    """`decider serve` in a process of its own, on free ports."""

    def __init__(self, db: Path, *options: str) -> None:
        self.process = ServerProcess(db, "--learn-interval", str(LEARN_INTERVAL), *options)
        super().__init__(db, self.process.target, self.process.http)

    def close(self) -> None:
        """See RpcClient."""
        super().close()
        self.process.terminate()


CLIENTS: dict[str, Callable[[Path], RpcClient]] = {
    "servicer": ServicerClient,
    "in-process": InProcessClient,
    "subprocess": SubprocessClient,
}

EVERY_WAY: dict[str, Callable[[Path], RpcClient]] = {**CLIENTS, "connect": ConnectClient}
"""For tests of what calls mean; others would only take longer by one more way."""
