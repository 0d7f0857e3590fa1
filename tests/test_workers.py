"""`decider serve --workers 2` as real processes: one port, one log, and each of them killed while all are called."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import grpc
import pytest

from decider.v1 import experiment_service_pb2 as experiment_pb
from simulator.studies.ledger import ACTIONS, ID, OWN_CONNECTION, Visitor, visiting
from tests.rpc_clients import COMMAND, GrpcClient, ServerProcess, experiment, fetch, keep_changing, refused, rows, until
from tests.test_crash import WINDOW, check_acknowledged, check_replay, finish
from tests.test_experiment_files import definition

VISITORS = 8
"""Each with a connection: that all of them lead to one worker happens once in a hundred times."""

CONNECTIONS = 'decider_connections{listener="--listen"}'

LATER = """
select count(*) from decisions d join experiments mine on mine.position = d.version where exists (
  select 1 from experiments newer where newer.experiment = mine.experiment and newer.number > mine.number
  and newer.waits = 0 and newer.position < d.position
)
"""
"""Decisions behind a version that had taken the place of theirs."""


class Crew(ServerProcess):
    """A parent with a leader and two workers."""

    def __init__(
        self,
        db: Path,
        *options: str,
        listening: socket.socket | None = None,
        program: Sequence[str] = COMMAND,
    ) -> None:
        given = ("--workers", "2", "--learn-interval", "0.05", *options)
        super().__init__(db, *given, listening=listening, program=program)

    def pid(self, name: str) -> int:
        """Of a child."""
        (board,) = self.db.parent.glob(f"{self.db.name}-workers-*")
        return int(json.loads((board / f"{name}.json").read_text())["pid"])

    def kill_child(self, name: str) -> int:
        """SIGKILL; the process that takes its place."""
        killed = self.pid(name)
        os.kill(killed, signal.SIGKILL)
        return until(lambda: self.pid(name) if self.pid(name) != killed else None, what=f"{name} is back")

    def metric(self, line: str) -> float:
        """The value of a series."""
        with_client = self.client()
        _, text = with_client.fetch("/metrics")
        with_client.close()
        found = [one for one in text.splitlines() if one.startswith(f"{line} ")]
        return float(found[0].rpartition(" ")[2]) if found else 0.0


class PatientVisitor(Visitor):
    """One who bears a pause. paused: answers that said so."""

    paused = 0

    def bears(self, refusal: grpc.StatusCode) -> bool:
        """See Visitor."""
        self.paused += refusal == grpc.StatusCode.FAILED_PRECONDITION
        return super().bears(refusal) or refusal == grpc.StatusCode.FAILED_PRECONDITION

    def settle(self, target: str) -> None:
        """See Visitor. A worker may hear of the end of a pause a moment later than another one."""
        until(lambda: self._settles(target), what="it is answered everywhere")

    def _settles(self, target: str) -> bool:
        try:
            super().settle(target)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.FAILED_PRECONDITION:
                raise
            return False
        return True


def version_at(client: GrpcClient, id_: str = "home") -> int:
    """The version that a worker serves; 0 where it has not seen it yet."""
    request = experiment_pb.GetExperimentRequest(id=id_)
    try:
        return int(client.call("ExperimentService", "GetExperiment", request).experiment.version)
    except grpc.RpcError:
        return 0


def own_client(target: str) -> GrpcClient:
    """Whose connection nobody else uses."""
    return GrpcClient(Path(), target, "", options=OWN_CONNECTION)


def grows(look: Callable[[], float], *, what: str) -> None:
    """Wait until it is more than now."""
    before = look()
    until(lambda: look() > before, what=what)


def models(db: Path) -> float:
    """How many were published."""
    return float(rows(db, "select count(*) from published")[0][0])


def test_each_process_is_killed_under_load_and_nothing_is_lost(tmp_path: Path) -> None:
    """A worker that dies takes nobody with it, a leader's successor goes on learning, and a pause that one worker is
    asked for holds for decisions of all. What was acknowledged is in the log, once; the log replays; its models are
    those that one process makes. SIGTERM drains."""
    db = tmp_path / "log.db"
    server = Crew(db)
    client = server.client()
    client.apply(experiment(ID, *ACTIONS, window=WINDOW))
    handled = 'grpc_server_handled_total{grpc_code="OK",grpc_method="Decide"'
    handled += ',grpc_service="decider.v1.DeciderService",grpc_type="unary"}'
    visitors = [PatientVisitor(number, seed=20_261_129) for number in range(VISITORS)]
    with visiting(server.target, visitors):
        until(lambda: len(rows(db, "select distinct build from decisions")) == 2, what="both workers serve")
        until(lambda: models(db) > 2, what="models are published")
        counted = until(lambda: server.metric(handled), what="calls are counted")
        server.kill_child("worker 1")
        until(lambda: len(rows(db, "select distinct build from decisions")) == 3, what="its successor serves")
        assert server.metric(handled) >= counted, "a counter never falls"
        assert server.metric('decider_worker_starts_total{worker="1"}') == 2
        server.kill_child("leader")
        grows(lambda: models(db), what="learning goes on")
        served = "select count(distinct build) from decisions where model = (select max(model) from published)"
        until(lambda: rows(db, served) == [(2,)], what="both workers serve its models")
        client.call("ExperimentService", "PauseExperiment", experiment_pb.PauseExperimentRequest(id=ID))
        until(lambda: all(visitor.paused for visitor in visitors), what="all of them hear of the pause")
        client.call("ExperimentService", "ResumeExperiment", experiment_pb.ResumeExperimentRequest(id=ID))
        grows(lambda: rows(db, "select count(*) from decisions")[0][0], what="they decide again")
    for visitor in visitors:
        visitor.settle(client.target)
    assert client.fetch("/readyz") == (200, "ok\n")
    assert client.fetch(f"/decisions/{next(iter(visitors[0].decided))}")[0] == 200
    client.close()
    assert server.terminate() == 0
    assert "Traceback" not in server.output
    assert server.output.count("ended (SIGKILL)") == 2
    assert not [*tmp_path.glob("log.db-w*")], "neither a write-ahead log nor a folder of the workers is left"
    assert rows(db, LATER) == [(0,)]
    finish(db, [*visitors])
    check_acknowledged(db, [*visitors])
    check_replay(db)


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    """One for the tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("crew")
    (folder / "experiments").mkdir()
    server = Crew(folder / "log.db", "--experiments", str(folder / "experiments"))
    yield server
    server.terminate()


def test_every_worker_tells_of_a_version_that_waits(crew: Crew) -> None:
    """How far its model is knows the leader alone; whoever is asked says it."""
    clients = [own_client(crew.target) for _ in range(VISITORS)]
    clients[0].apply(experiment("home", window=0.05))
    for client in clients:
        assert until(partial(version_at, client), what="it is known") == 1
    until(lambda: crew.metric(CONNECTIONS) >= VISITORS, what="the connections of both workers are counted")
    for client in clients:
        client.close()


def test_the_leader_hears_of_sighup(crew: Crew) -> None:
    """An operator knows one process; a file that was written just now is applied at once."""
    with closing(own_client(crew.target)) as client:
        file = crew.db.parent / "experiments" / "shop.toml"
        file.write_text(definition())
        os.kill(crew.process.pid, signal.SIGHUP)
        until(lambda: version_at(client, "shop"), what="it serves", between=partial(keep_changing, file))


def test_readyz_names_a_worker_that_hangs(crew: Crew) -> None:
    """It takes connections and answers nobody; whoever watches the server must learn of it."""
    client = crew.client()
    stopped = crew.pid("worker 2")
    os.kill(stopped, signal.SIGSTOP)
    try:
        until(lambda: "worker 2 is down" in client.fetch("/readyz")[1], what="/readyz names it")
        assert client.fetch("/readyz")[0] == 200, "the other one serves"
        assert crew.metric('decider_worker_up{worker="2"}') == 0
    finally:
        os.kill(stopped, signal.SIGCONT)
    until(lambda: "worker 2" not in client.fetch("/readyz")[1], what="it serves again")
    client.close()


def test_a_worker_that_is_asked_to_end_is_started_again(crew: Crew) -> None:
    """SIGTERM to one after the other replaces all workers while others serve."""
    before = crew.pid("worker 1")
    os.kill(before, signal.SIGTERM)
    until(lambda: crew.pid("worker 1") != before, what="another one serves in its place")
    until(lambda: "worker 1 ended (exit code 0)" in crew.output, what="it ends")


def test_a_second_server_is_refused(crew: Crew) -> None:
    """The lease says who leads; the second one must not wait for it in silence."""
    code, output = refused(crew.db, "--workers", "2")
    assert code == 1
    assert "another server writes this log" in output


def test_a_taken_port_is_refused(crew: Crew, tmp_path: Path) -> None:
    """To share another server's port would send it half of the calls."""
    code, output = refused(tmp_path / "log.db", "--workers", "1", "--listen", crew.target)
    assert code == 1
    assert "cannot listen on" in output


def test_all_end_with_their_parent(tmp_path: Path) -> None:
    """However it ends: nobody would start them again, or take them down."""
    server = Crew(tmp_path / "log.db")
    pids = [server.pid(name) for name in ("leader", "worker 1", "worker 2")]
    server.kill()
    until(lambda: not any(map(lives, pids)), what="all have ended")
    with socket.create_server(("127.0.0.1", 0)) as given:  # as a service manager's, which outlives them
        again = Crew(tmp_path / "log.db", listening=given)
        assert len([*tmp_path.glob("log.db-workers-*")]) == 1, "what the killed ones left is gone"
        os.kill(again.pid("leader"), signal.SIGKILL)
        assert fetch(f"http://127.0.0.1:{given.getsockname()[1]}/healthz") == (200, "ok\n"), "callers wait for another"
        assert again.terminate() == 0


def lives(pid: int) -> bool:
    """Whether a process is there, and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
