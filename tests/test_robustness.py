"""Half-way failures, and what waits for what: found by attacking a running server, kept from coming back."""

from __future__ import annotations

import sqlite3
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path

import pytest

from decider.decide.decide import decide
from decider.errors import LogError, LogFull
from decider.learn.trainer import Trainer
from decider.log.log_totals import LogTotals
from decider.log.memory import MemoryLog
from decider.log.open import open_log
from decider.log.protocol import Entry, EventLog, Mark, ModelName, NewModel, NewReward, SealedDecision
from decider.log.sqlite.writer import SqliteLog
from decider.policy.make import make_policy, save_model
from decider.serving.current import Current
from decider.types import Context, Decision, DecisionId, DecisionRequest, ExperimentId, Position, Time
from simulator.verify import verify
from tests.conftest import Clock, sample_experiment, spec
from tests.processes import Process
from tests.rpc_clients import InProcessClient, ServerProcess, experiment, status_of

HOME = ExperimentId("home")


class FailingLog(MemoryLog):
    """Fails once, half way through what was asked for: in reading sealed decisions, or in publishing."""

    fail_reading_after: int | None = None
    fail_publishing = False

    def sealed_decisions(self, experiment: ExperimentId, *, after: Time, until: Time) -> Iterator[SealedDecision]:
        for count, one in enumerate(super().sealed_decisions(experiment, after=after, until=until)):
            if count == self.fail_reading_after:
                self.fail_reading_after = None
                raise LogError("the disk had a hiccup")
            yield one

    def append(self, entries: Sequence[Entry]) -> list[Mark | None]:
        if self.fail_publishing and any(isinstance(entry, NewModel) for entry in entries):
            self.fail_publishing = False
            raise LogFull("no space left")
        return super().append(entries)


def decided(
    log: EventLog, current: Current, count: int, *, prefix: str = "d", id_: ExperimentId = HOME
) -> list[Decision]:
    """Decisions with rewards, in the log."""
    made = []
    for index in range(count):
        request = DecisionRequest(DecisionId(f"{prefix}-{index}"), f"u-{index}", Context(segment="vip"))
        made.append(decide(request, *current[id_]))
        (mark,) = log.append([made[-1]])
        assert mark is not None
        log.append([NewReward(mark.position, "click", 1.0 if made[-1].action == made[-1].eligible[0] else 0.0)])
    return made


@pytest.mark.parametrize("failure", ["reading", "publishing"])
def test_a_round_of_learning_that_fails_half_way_teaches_nothing_twice(clock: Clock, failure: str) -> None:
    """Otherwise what serves is a policy that no replay can find again."""
    log = FailingLog(clock=clock)
    process = Process(log, clock)
    process.apply(sample_experiment(holdout=0.0))
    decided(log, process.current, 40)
    clock.advance(3600)
    if failure == "reading":
        log.fail_reading_after = 20
    else:
        log.fail_publishing = True
    while not process.failed:  # a round ends after a slice
        process.leader.step()
    process.follower.follow()
    assert process.failed == [HOME]
    assert process.current[HOME].model.position == 0
    process.step()
    assert process.current[HOME].model.position > 0
    decided(log, process.current, 40, prefix="later")
    result = verify(log)
    assert (result.first, result.equal) == (None, 80)


def test_a_trainer_that_failed_half_way_learns_everything_again(clock: Clock) -> None:
    """Whoever holds it need not know about that."""
    log = FailingLog(clock=clock)
    process = Process(log, clock)
    process.apply(sample_experiment(holdout=0.0))
    decided(log, process.current, 30)
    clock.advance(3600)
    log.append([NewReward(Position(3), "click", 0.0)])
    trainer = Trainer(log, HOME, process.current[HOME].version.experiment.policy)
    log.fail_reading_after = 10
    with pytest.raises(LogError):
        trainer.learn_up_to(log.head().mark)
    assert trainer.learn_up_to(log.head().mark) == 30


class Hiccup(MemoryLog):
    """Cannot be counted the first time, half way through."""

    broken = True

    def refused_rewards(self) -> Mapping[tuple[str, str], int]:
        if self.broken:
            self.broken = False
            raise LogError("the disk had a hiccup")
        return super().refused_rewards()


def test_totals_that_failed_half_way_count_nothing_twice(clock: Clock) -> None:
    """A scrape during a hiccup must not double every counter until the next restart."""
    log = Hiccup(clock=clock)
    process = Process(log, clock)
    process.apply(sample_experiment(holdout=0.0))
    decided(log, process.current, 1)
    totals = LogTotals(log)
    with pytest.raises(LogError):
        totals.catch_up()
    totals.catch_up()
    assert sum(totals.totals.decisions.values()) == 1


def test_keeping_no_bytes_keeps_the_newest_model_of_each_signature(tmp_path: Path, clock: Clock) -> None:
    """A change of policy that was never applied must not cost a frozen experiment its model."""
    with closing(open_log(tmp_path / "log.db", clock=clock)) as log:
        saved = {name: save_model(spec(name), make_policy(spec(name))) for name in ("squarecb", "softmax")}
        for position, name in ((5, "squarecb"), (6, "squarecb"), (9, "softmax")):
            place = ModelName(HOME, Position(position), saved[name].signature)
            log.append([NewModel(place, 1)])
            log.models.store(place, saved[name], keep_bytes=0, keep=[model.signature for model in saved.values()])
        kept = {name: log.models.stored_positions(HOME, model.signature) for name, model in saved.items()}
        assert kept == {"squarecb": [6], "softmax": [9]}


def test_a_value_that_no_sum_can_hold_is_refused_whatever_its_weight(tmp_path: Path) -> None:
    """Weight 0 takes it out of the reward's range, not out of the metrics' sums."""
    client = InProcessClient(tmp_path / "log.db")
    try:
        message = experiment("e")
        message.reward.weights["seen"] = 0.0
        message.reward.weights["click"] = 1.0
        client.apply(message)
        id_ = client.decide("e").decision_id
        status = status_of(lambda: client.reward(id_, name="seen", value=1e308))
        assert "is not a finite number within" in status.message
    finally:
        client.close()


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
        sql = "select max(model) from published where experiment = 'e' and signature = 1"
        plan = db.execute(f"explain query plan {sql}").fetchall()
    assert any("(experiment=? AND signature=?)" in row[3] for row in plan), plan
