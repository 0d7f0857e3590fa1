"""SIGKILL at random moments: what was acknowledged is there, once, and what is learned is what the log says."""

from __future__ import annotations

import os
import threading
import time
from contextlib import closing
from pathlib import Path
from random import Random

import grpc
import pytest

from decider.learn.trainer import Trainer
from decider.log.open import open_reader
from decider.policy.make import load_model
from decider.types import Context, ExperimentId
from decider.v1 import decider_service_pb2 as pb
from simulator.verify import verify
from tests.rpc_clients import GrpcClient, ServerProcess, experiment, outcome_name, rows, until

ROUNDS = int(os.environ.get("KILLS", "5"))
CLIENTS = 4
WINDOW = 0.4
ID = "crash"
ACTIONS = ("a", "b", "c", "d")
SEGMENTS = ("new", "regular", "vip", "bargain", "")
OPTIONS = ("--learn-interval", "0.05")


class Visitor:
    """Decides and rewards as fast as it can until the server dies; goes on with the same ids after a restart.

    decided, rewarded: what was acknowledged. What was sent without an answer is sent again.
    """

    def __init__(self, number: int, seed: int) -> None:
        self._random = Random(seed * 100 + number)
        self._number = number
        self._count = 0
        self._pending: list[pb.DecideRequest | pb.RewardRequest] = []
        self.decided: dict[str, pb.DecideResponse] = {}
        self.rewarded: dict[tuple[str, str], list[str]] = {}

    def visit(self, target: str, *, pause: float = 0.0, over: threading.Event | None = None) -> None:
        """Until the server dies, or `over` is set."""
        client = self.connect(target)
        try:
            while over is None or not over.is_set():
                self._send(client, self._pending[0] if self._pending else self._request())
                time.sleep(pause)
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                raise
        finally:
            client.close()

    def connect(self, target: str) -> GrpcClient:
        """To the server."""
        return GrpcClient(Path(), target, "")

    def settle(self, client: GrpcClient) -> None:
        """Send again what was never answered."""
        while self._pending:
            self._send(client, self._pending[0])

    def _request(self) -> pb.DecideRequest:
        self._count += 1
        return pb.DecideRequest(
            experiment=ID,
            unit_id=f"unit-{self._number}-{self._count}",
            decision_id=f"decision-{self._number}-{self._count}",
            context=pb.Context(
                segment=self._random.choice(SEGMENTS), device=self._random.choice(("mobile", "desktop"))
            ),
        )

    def _send(self, client: GrpcClient, request: pb.DecideRequest | pb.RewardRequest) -> None:
        if not self._pending:
            self._pending.append(request)
        if isinstance(request, pb.DecideRequest):
            reply = client.send(request)
            self.decided[request.decision_id] = reply
            self._pending[:] = self._clicks(reply)
        else:
            answer = client.call("DeciderService", "Reward", request)
            self.rewarded.setdefault((request.decision_id, request.reward_id), []).append(outcome_name(answer.outcome))
            self._pending.pop(0)

    def _clicks(self, reply: pb.DecideResponse) -> list[pb.DecideRequest | pb.RewardRequest]:
        """None, one, or one that is sent twice; `a` is clicked most."""
        if self._random.random() > (0.7 if reply.action.id == "a" else 0.2):
            return []
        click = pb.RewardRequest(decision_id=reply.decision_id, reward_id="click-1", name="click")
        return [click, click] if self._random.random() < 0.2 else [click]


def storm(target: str, visitors: list[Visitor], server: ServerProcess, *, seconds: float) -> None:
    """All visitors at once; the server is killed in their midst."""
    threads = [threading.Thread(target=visitor.visit, args=(target,)) for visitor in visitors]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    server.kill()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("seed", [20_261_121])
def test_killed_server_loses_nothing_and_counts_nothing_twice(tmp_path: Path, seed: int) -> None:
    """An acknowledgement is a promise, and a model that learned something else than the log cannot be replayed."""
    print(f"seed {seed}")
    random, db = Random(seed), tmp_path / "log.db"
    visitors = [Visitor(number, seed) for number in range(CLIENTS)]
    for round_ in range(ROUNDS):
        server = ServerProcess(db, *OPTIONS)
        if round_ == 0:
            client = server.client()
            client.apply(experiment(ID, *ACTIONS, window=WINDOW))
            client.close()
        storm(server.target, visitors, server, seconds=random.uniform(0.1, 1.5))
        assert "Traceback" not in server.output
    finish(db, visitors)
    check_acknowledged(db, visitors)
    check_replay(db)


def finish(db: Path, visitors: list[Visitor]) -> None:
    """Start once more, send what was never answered, wait until all is sealed and learned, end in order."""
    server = ServerProcess(db, *OPTIONS)
    client = server.client()
    for visitor in visitors:
        visitor.settle(client)
    until(
        lambda: (
            client.rows("select (select count(*) from decisions) = (select count(*) from sealed_decisions)") == [(1,)]
        ),
        what="every decision is sealed",
    )
    client.close()
    assert server.terminate() == 0
    assert "Traceback" not in server.output


def check_acknowledged(db: Path, visitors: list[Visitor]) -> None:
    """Each acknowledged decision and reward is in the log once, as it was answered; and nothing else is."""
    decided = {id_: reply for visitor in visitors for id_, reply in visitor.decided.items()}
    logged = rows(db, "select decision_id, action, propensity, model from decisions")
    assert len(decided) > 100
    assert {row[0]: row[1:] for row in logged} == {
        id_: (reply.action.id, reply.propensity, reply.model) for id_, reply in decided.items()
    }
    assert len(logged) == len(decided)
    rewarded = {key: outcomes for visitor in visitors for key, outcomes in visitor.rewarded.items()}
    sql = "select d.decision_id, r.reward_id from rewards r join decisions d on d.position = r.decision"
    assert sorted(rows(db, sql)) == sorted(rewarded)
    assert len(rewarded) > 20
    for outcomes in rewarded.values():  # a retry of what was written before the kill is a duplicate, so 0 or 1
        assert sum(outcome != "duplicate" for outcome in outcomes) <= 1
        assert outcomes.index("duplicate") <= 1 if "duplicate" in outcomes else len(outcomes) == 1
    positions = rows(db, "select position from entries order by position")
    assert positions == [(position,) for position in range(1, len(positions) + 1)]
    assert rows(db, "pragma integrity_check") == [("ok",)]
    with closing(open_reader(db)) as log:
        assert not log.check(lambda _: None)


def check_replay(db: Path) -> None:
    """What was served can be recomputed; a trainer that reads the whole log at once has learned the same."""
    log = open_reader(db)
    verification = verify(log)
    assert verification.first is None
    assert verification.equal == verification.decisions == log.count_decisions()
    version = log.versions()[-1]
    spec = version.experiment.policy
    stored = log.models.newest(ExperimentId(ID), spec.signature)
    assert stored is not None
    served = load_model(spec, stored[1])
    fresh = Trainer(log, ExperimentId(ID), spec)
    learned = fresh.learn_up_to(log.head().mark)
    assert learned == log.count_decisions()
    actions = version.choices_of(version.all_active, {})
    again = fresh.model().policy
    random = Random(1)
    pmfs = set()
    for unit in range(300):
        context = Context(
            segment=random.choice(SEGMENTS),
            device=random.choice(("mobile", "desktop", "new")),
            location=f"l{unit % 30}",
        )
        pmf = tuple(served.pmf(context, actions))
        assert pmf == tuple(again.pmf(context, actions))
        pmfs.add(pmf)
    assert len(pmfs) > 1  # it has learned something
    log.close()
