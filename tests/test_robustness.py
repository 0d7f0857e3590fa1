"""Half-way failures, and what waits for what: found by attacking a running server, kept from coming back."""

from __future__ import annotations

import sqlite3
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from decider.decide.decide import decide
from decider.errors import LogError, LogFull
from decider.experiment.definition import ExperimentVersion
from decider.learn.learner import Learner
from decider.learn.trainer import Trainer
from decider.log.memory import MemoryLog
from decider.log.protocol import NewReward, PublishedModel, SealedDecision
from decider.log.sqlite.log import SqliteLog, SqliteReader
from decider.metrics.totals import LogTotals
from decider.policy.make import make_policy, save_model
from decider.policy.saved import SavedModel
from decider.serving.current import Current
from decider.types import Context, Decision, DecisionId, DecisionRequest, ExperimentId, Position, Time
from simulator.verify import verify
from tests.conftest import Clock, sample_experiment, spec
from tests.doors import InProcessDoor, ServerProcess, experiment, status_of

HOME = ExperimentId("home")


class FailingLog(MemoryLog):
    """Fails once, half way through what was asked for: in reading sealed decisions, or in publishing."""

    fail_reading_after: int | None = None
    fail_publishing = False

    def sealed(self, version: ExperimentVersion, *, after: Time, until: Time) -> Iterator[SealedDecision]:
        for count, one in enumerate(super().sealed(version, after=after, until=until)):
            if count == self.fail_reading_after:
                self.fail_reading_after = None
                raise LogError("the disk had a hiccup")
            yield one

    def publish(self, model: PublishedModel, saved: SavedModel, *, learned: int, keep: int) -> None:
        if self.fail_publishing:
            self.fail_publishing = False
            raise LogFull("no space left")
        super().publish(model, saved, learned=learned, keep=keep)


def decided(log: MemoryLog, running: Current, count: int, *, prefix: str = "d") -> list[Decision]:
    """Decisions with rewards, in the log."""
    made = []
    for index in range(count):
        request = DecisionRequest(DecisionId(f"{prefix}-{index}"), f"u-{index}", Context(segment="vip"))
        made.append(decide(request, *running[HOME]))
        (mark,) = log.append([made[-1]])
        assert mark is not None
        log.append([NewReward(mark.position, "click", 1.0 if made[-1].action == made[-1].eligible[0] else 0.0)])
    return made


@pytest.mark.parametrize("failure", ["reading", "publishing"])
def test_a_round_of_learning_that_fails_half_way_teaches_nothing_twice(clock: Clock, failure: str) -> None:
    """Otherwise what serves is a policy that no replay can find again."""
    log, running = FailingLog(clock=clock), Current()
    failed: list[ExperimentId] = []
    learner = Learner(log, running, clock=clock, on_failed=failed.append)
    learner.apply(sample_experiment(holdout=0.0))
    decided(log, running, 40)
    clock.advance(3600)
    if failure == "reading":
        log.fail_reading_after = 20
    else:
        log.fail_publishing = True
    learner.step()
    assert failed == [HOME]
    assert running[HOME].model.position == 0
    learner.step()
    assert running[HOME].model.position > 0
    decided(log, running, 40, prefix="later")
    result = verify(log)
    assert (result.first, result.equal) == (None, 80)


def test_a_trainer_that_failed_half_way_learns_everything_again(clock: Clock) -> None:
    """Whoever holds it need not know about that."""
    log, running = FailingLog(clock=clock), Current()
    Learner(log, running, clock=clock).apply(sample_experiment(holdout=0.0))
    decided(log, running, 30)
    clock.advance(3600)
    log.append([NewReward(Position(2), "click", 0.0)])
    trainer = Trainer(log, HOME, running[HOME].version.experiment.policy)
    log.fail_reading_after = 10
    with pytest.raises(LogError):
        trainer.learn_up_to(log.end())
    assert trainer.learn_up_to(log.end()) == 30


def test_totals_that_failed_half_way_count_nothing_twice(tmp_path: Path, clock: Clock) -> None:
    """A scrape during a hiccup must not double every counter until the next restart."""
    path = tmp_path / "log.db"
    with closing(SqliteLog(path, clock=clock)) as log:
        running = Current()
        Learner(log, running, clock=clock).apply(sample_experiment(holdout=0.0))
        log.append([decide(DecisionRequest(DecisionId("d"), "u"), *running[HOME])])

        class Hiccup(SqliteReader):
            broken = True

            def query(self, sql: str, parameters: object = ()) -> list[tuple[object, ...]]:
                if self.broken and "from rewards" in sql:
                    raise LogError("the disk had a hiccup")
                return super().query(sql, parameters)  # type: ignore[arg-type]

        with closing(Hiccup(path)) as reader:
            totals = LogTotals(reader)
            with pytest.raises(LogError):
                totals.catch_up()
            reader.broken = False
            totals.catch_up()
            assert sum(totals.totals.decisions.values()) == 1


def test_keeping_one_model_keeps_that_of_the_spec_that_serves(tmp_path: Path, clock: Clock) -> None:
    """A change of policy that was never applied must not cost a frozen experiment its model."""
    with closing(SqliteLog(tmp_path / "log.db", clock=clock)) as log:
        saved = {name: save_model(spec(name), make_policy(spec(name))) for name in ("squarecb", "softmax")}
        for position, name in ((5, "squarecb"), (6, "squarecb"), (9, "softmax")):
            place = PublishedModel(HOME, Position(position), saved[name].signature)
            log.publish(place, saved[name], learned=1, keep=1)
        kept = {name: log.newest_model(HOME, model.signature) for name, model in saved.items()}
        assert {name: found and found[0] for name, found in kept.items()} == {"squarecb": 6, "softmax": 9}
        assert log.load_model(PublishedModel(HOME, Position(5), saved["squarecb"].signature)) is None


def test_decisions_do_not_wait_for_experiments_to_be_applied(tmp_path: Path) -> None:
    """A new policy may have to learn a long log first; pages must not wait for that."""
    door = InProcessDoor(tmp_path / "log.db")
    try:
        door.apply(experiment("e"))
        with door.server.learner._lock:  # as while a long round of learning is under way
            waiting = [threading.Thread(target=lambda: door.apply(experiment("e", "x", "y"))) for _ in range(3)]
            for thread in waiting:
                thread.start()
            for index in range(20):
                assert door.decide("e", decision_id=f"d-{index}").decision_id
        for thread in waiting:
            thread.join()
    finally:
        door.close()


def test_a_value_that_no_sum_can_hold_is_refused_whatever_its_weight(tmp_path: Path) -> None:
    """Weight 0 takes it out of the reward's range, not out of the metrics' sums."""
    door = InProcessDoor(tmp_path / "log.db")
    try:
        message = experiment("e")
        message.reward.weights["seen"] = 0.0
        door.apply(message)
        id_ = door.decide("e").decision_id
        status = status_of(lambda: door.reward(id_, name="seen", value=1e308))
        assert "is not a finite number within" in status.message
    finally:
        door.close()


def test_server_ends_cleanly_while_it_is_scraped(tmp_path: Path) -> None:
    """Prometheus does not stop for our restarts: answers under way read the log that is being closed."""
    for _ in range(3):
        server = ServerProcess(tmp_path / "log.db")
        stop = threading.Event()

        def scrape(address: str = server.http, stop: threading.Event = stop) -> None:
            while not stop.is_set():
                with suppress(OSError), urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
                    answer.read()

        threads = [threading.Thread(target=scrape) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            assert server.terminate() == 0
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def test_the_table_of_models_is_read_by_an_index(tmp_path: Path, clock: Clock) -> None:
    """Every model ever published leaves a row; looking for the newest must not read them all."""
    with closing(SqliteLog(tmp_path / "log.db", clock=clock)):
        pass
    with closing(sqlite3.connect(tmp_path / "log.db")) as db:
        plan = db.execute(
            "explain query plan update models set data = null"
            " where experiment = 'e' and data is not null and position < 9"
        ).fetchall()
    assert any("models_with_data" in row[3] for row in plan), plan
