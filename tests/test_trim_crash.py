"""SIGKILL of archive runs, and of the server beside them: nothing acknowledged is lost or there twice."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random

import pytest

from decider.learn.trainer import Trainer
from decider.log.log_totals import LogTotals
from decider.log.open import open_reader
from decider.log.protocol import LogReader
from decider.types import Context, DecisionId, ExperimentId
from decider.v1 import decider_service_pb2 as pb
from simulator.studies.ledger import ID, SEGMENTS, Visitor
from simulator.verify import verify
from tests.rpc_clients import GrpcClient, ServerProcess, experiment, rows, until

KILLS = int(os.environ.get("DECIDER_TEST_KILLS", "24")) // 2
"""On each side of the server's own death; DECIDER_TEST_KILLS=100 is for a night."""

OPTIONS = ("--learn-interval", "0.05", "--store-interval", "1")
BEFORE = ("--before", "2s", "--remember", "3s")


class Crowd:
    """Visitors who go on through the server's deaths."""

    def __init__(self, seed: int) -> None:
        self.visitors = [Visitor(number, seed) for number in range(2)]
        self._target = ""
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._visit, args=(visitor,), daemon=True) for visitor in self.visitors
        ]

    def _visit(self, visitor: Visitor) -> None:
        while not self._over.is_set():
            if self._target:
                visitor.visit(self._target, pause=0.005, over=self._over)
            time.sleep(0.1)

    @contextmanager
    def visiting(self) -> Iterator[None]:
        """Visits until the end of the block."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join()

    def go_to(self, server: ServerProcess) -> None:
        """From now on to this server."""
        self._target = server.target


def late_visitor(server: ServerProcess, client: GrpcClient, seed: int) -> Visitor:
    """One who comes for a moment, after everything else."""
    visitor, over = Visitor(9, seed), threading.Event()
    timer = threading.Timer(0.5, over.set)
    timer.start()
    visitor.visit(server.target, pause=0.01, over=over)
    timer.join()
    visitor.settle(client.target)
    return visitor


def run(db: Path, folder: Path, *options: str) -> subprocess.Popen[str]:
    """An archive run as a process of its own."""
    command = [sys.executable, "-m", "decider.cli", "archive", "--db", str(db), *options, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finished(process: subprocess.Popen[str]) -> str:
    """Its output, once it has ended well."""
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


def kill_runs(db: Path, folder: Path, random: Random, *, seconds: float) -> int:
    """Start runs and kill them at a random moment. Returns how many were quicker than that."""
    ended = killed = 0
    while killed < KILLS:
        process = run(db, folder, *BEFORE)
        try:
            output, _ = process.communicate(timeout=random.uniform(0.3, 1.1) * seconds)
            assert process.returncode == 0, output
            ended += 1
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            killed += 1
    return ended


@pytest.mark.parametrize("seed", [20_261_129])
def test_killed_archive_runs_lose_nothing(tmp_path: Path, seed: int) -> None:
    """What was acknowledged is in the log or in a part that counts, once; and nobody learns or counts otherwise."""
    print(f"seed {seed}")
    random, db, folder = Random(seed), tmp_path / "log.db", tmp_path / "archive"
    crowd = Crowd(seed)
    server = ServerProcess(db, *OPTIONS)
    try:
        with closing(server.client()) as client:
            client.apply(experiment(ID, "a", "b", "c", window=0.4))
        crowd.go_to(server)
        with crowd.visiting():
            time.sleep(4)
            started = time.monotonic()
            finished(run(db, folder, *BEFORE))
            seconds = time.monotonic() - started
            kill_runs(db, folder, random, seconds=seconds)
            beside = run(db, folder, *BEFORE)
            time.sleep(random.uniform(0.5, 1.0) * seconds)
            server.kill()
            beside.communicate()
            server = ServerProcess(db, *OPTIONS)
            crowd.go_to(server)
            kill_runs(db, folder, random, seconds=seconds)
        with closing(server.client()) as client:
            time.sleep(11)  # until a model has served for 10 s, learning would begin with nothing
            first, known = crowd.visitors[0], len(crowd.visitors[0].decided)
            until(
                lambda: len(first.decided) > known,
                what="there is something that the runs before have not archived",
                between=lambda: first.visit(client.target, burst=0.1),
            )
            for visitor in crowd.visitors:
                visitor.settle(client.target)
            until(lambda: client.rows("select (select count(*) from decisions) <= (select count(*) from "
                                      "sealed_decisions)") == [(1,)], what="every decision is sealed")  # fmt: skip
            before = counters(client)
            until(lambda: "archived" in finished(run(db, folder, "--before", "0.5s")), what="the last one is archived")
            assert counters(client) == before
            crowd.visitors.append(late_visitor(server, client, seed))
        assert server.terminate() == 0
        assert "Traceback" not in server.output
    finally:
        server.kill()
    with closing(open_reader(db)) as log, closing(open_reader(db, archive=[folder])) as whole:
        check_once(whole, crowd.visitors)
        assert rows(db, "select count(*) from decisions where position <= (select position from cut)") == [(0,)]
        assert not list(folder.glob(".unfinished-*"))
        check_recomputed(log, whole)
        check_same_model(log, whole)


def counters(client: GrpcClient) -> list[str]:
    """The metrics that are counted from the log, but for rewards that were refused meanwhile."""
    names = ("decider_decisions_total", "decider_rewards_total", "decider_sealed", "decider_possible_total",
             "decider_inverse_propensity_total", "decider_reward_")  # fmt: skip
    return [line for line in client.fetch("/metrics")[1].splitlines() if line.startswith(names)]


def check_once(whole: LogReader, visitors: Sequence[Visitor]) -> None:
    """Each acknowledged decision and reward is there, as it was answered, once; and no other decision is."""
    decided = {id_: reply for visitor in visitors for id_, reply in visitor.decided.items()}
    assert len(decided) > 300
    assert whole.count_decisions() == len(decided)
    for id_, reply in decided.items():
        logged = whole.find(DecisionId(id_))
        assert logged is not None
        assert logged.decision.action == reply.action.id
        assert (logged.decision.propensity, logged.decision.model) == (reply.propensity, reply.model)
    rewarded = {
        id_
        for visitor in visitors
        for (id_, _), outcomes in visitor.rewarded.items()
        if pb.REWARD_OUTCOME_JOINED in outcomes
    }
    there = [reward.decision_id for reward in whole.rewards_between("", "z")]
    assert len(there) == len(set(there))
    assert rewarded <= set(there)
    assert len(rewarded) > 50


def check_recomputed(log: LogReader, whole: LogReader) -> None:
    """N of N, of the log and of log and archive; and the totals of both are the same."""
    counted = []
    for one in (log, whole):
        assert one.check(lambda _: None) == []
        result = verify(one)
        assert result.first is None
        assert result.equal == result.decisions == one.count_decisions()
        counted.append(LogTotals(one))
        counted[-1].catch_up()
    assert 0 < log.count_decisions() < whole.count_decisions()
    assert counted[0].totals == counted[1].totals


def check_same_model(log: LogReader, whole: LogReader) -> None:
    """Learning from the base gives what learning from the first decision gives."""
    version = log.versions()[-1]
    trainers = [Trainer(one, ExperimentId(ID), version.experiment.policy) for one in (log, whole)]
    assert trainers[0].position > trainers[1].position == 0
    for trainer in trainers:
        trainer.learn_up_to(log.head().mark)
    choices = version.choices_of(version.all_active, {})
    pmfs = [
        [tuple(trainer.model().policy.pmf(Context(segment=segment, device=device), choices)) for trainer in trainers]
        for segment in SEGMENTS
        for device in ("mobile", "desktop", "new")
    ]
    assert all(cut == untouched for cut, untouched in pmfs)
    assert len({cut for cut, _ in pmfs}) > 1
