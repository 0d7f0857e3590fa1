"""SIGKILL at random moments: what was acknowledged is there, once, and what is learned is what the log says."""

from __future__ import annotations

import os
import threading
import time
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from decider.log.open import open_reader
from simulator.studies.ledger import ACTIONS, DUPLICATE, ID, Visitor
from simulator.studies.same_models import compare_models
from simulator.verify import verify
from tests.rpc_clients import ServerProcess, experiment, rows, until

ROUNDS = int(os.environ.get("KILLS", "5"))
CLIENTS = 4
WINDOW = 0.4
OPTIONS = ("--learn-interval", "0.05")


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
        visitor.settle(client.target)
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
        assert sum(outcome != DUPLICATE for outcome in outcomes) <= 1
        assert outcomes.index(DUPLICATE) <= 1 if DUPLICATE in outcomes else len(outcomes) == 1
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
    models = compare_models(log, ID)
    assert models.equal == models.stored > 0
    assert models.learned == log.count_decisions()
    assert models.different > 1, "it has learned something"
    log.close()
