"""For how long an archive run keeps all commits out does not grow with what a log has stored. Counts, not times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from decider.decide.decide import decide
from decider.learn.archive import archive
from decider.learn.versions import Versions
from decider.log.open import open_reader
from decider.log.protocol import ModelName, NewModel, NewPart, NewReward, Tick
from decider.log.sqlite.cut import SqliteCuttableLog
from decider.log.sqlite.models import insert_pieces
from decider.log.sqlite.trim import PIECE, PIECE_REWARDS
from decider.log.sqlite.writer import SqliteLog
from decider.policy.make import make_policy, save_model
from decider.policy.protocol import Model
from decider.types import DecisionId, DecisionRequest, Position, Time, now
from simulator.verify import verify
from tests.long_logs import PastClock, shop
from tests.rpc_clients import rows

DAY = 86_400.0
REMEMBER = round(90 * DAY * 1e6)
"""Longer than the log: everything that is archived has to be kept."""

EVERY = 10
"""Steps of SQLite's machine between two counts."""


class HoldsCounted(SqliteCuttableLog):
    """Counts the steps on all connections while nobody else may commit, by hold."""

    def __init__(self, path: Path, clock: Callable[[], Time] = now) -> None:
        self.holds: list[int] = []
        self.of_cut: list[int] = []
        self.of_trim: list[int] = []
        super().__init__(path, clock=clock)

    def cut_off(self, part: NewPart) -> None:
        before = len(self.holds)
        super().cut_off(part)
        self.of_cut += self.holds[before:]

    def _trim(self) -> Position | None:
        before = len(self.holds)
        reached = super()._trim()
        self.of_trim += self.holds[before:]
        return reached

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with super()._exclusive():
            self.holds.append(0)
            self._count(self._step)
            try:
                yield
            finally:
                self._count(None)

    def _step(self) -> None:
        self.holds[-1] += EVERY

    def _count(self, step: Callable[[], None] | None) -> None:
        for connection in (*self._connections, self._writer):
            connection.set_progress_handler(step, EVERY)


def write_log(path: Path, *, decisions: int, models: int = 0, rewards: int = 1) -> None:
    """Decisions with so many rewards each, then so many models of them that are stored; all of a month ago."""
    clock = PastClock(60 * DAY)
    with closing(SqliteLog(path, clock=clock)) as log:
        version = Versions(log).apply(shop()).version
        model = Model(make_policy(version.experiment.policy))
        for first in range(0, decisions, PIECE):
            requests = [DecisionRequest(DecisionId(f"d{n}"), "u") for n in range(first, min(first + PIECE, decisions))]
            marks = log.append([decide(request, version, model) for request in requests])
            clock.advance(0.1)
            for number in range(rewards):
                log.append([NewReward(mark.position, "click", 1.0, reward_id=f"r{number}") for mark in marks if mark])
        store_models(log, models)
        clock.advance(10)
        log.append([Tick()])
        clock.advance(40 * DAY)
        log.append([Tick()])


def store_models(log: SqliteLog, count: int) -> None:
    """Untaught models, by the names of the first entries."""
    experiment = log.versions()[0].experiment
    saved = save_model(experiment.policy, make_policy(experiment.policy))
    names = [ModelName(experiment.id, Position(2 + n), saved.signature) for n in range(count)]
    log.append([NewModel(name, 1) for name in names])
    for name in names:
        insert_pieces(log._writer, (name.experiment, name.signature, name.position), 0, saved.checksum, saved.data)


def archived(path: Path, folder: Path, *, remember: int = 0) -> HoldsCounted:
    """The log after an archive run that takes all decisions; it is whole."""
    with closing(HoldsCounted(path)) as log:
        before = Time(log.head().time - round(30 * DAY * 1e6))
        assert archive(log, folder, before=before, remember=remember, say=lambda _: None) is not None
        assert log.check(lambda _: None) == []
        assert log.count_decisions() == 0
    with closing(open_reader(path, archive=[folder])) as whole:
        result = verify(whole)
        assert result.equal == result.decisions > 0
    return log


def test_a_cut_is_brief_whatever_models_are_stored(tmp_path: Path) -> None:
    """20,000 stored models kept every Decide waiting for a third of a second."""
    few, many = 200, 1_200
    holds = []
    for models in (few, many):
        write_log(tmp_path / f"{models}.db", decisions=PIECE, models=models)
        log = archived(tmp_path / f"{models}.db", tmp_path / f"archive-{models}")
        assert rows(log.path, "select count(*) >= ? from kept_models", models) == [(1,)]
        holds += log.of_cut
    assert (holds[1] - holds[0]) / (many - few) < 40


def test_models_that_stay_are_passed_once(tmp_path: Path) -> None:
    """Each piece walked past all of them to find what was left."""
    few, many = 200, 1_200
    holds = []
    for models in (few, many):
        write_log(tmp_path / f"{models}.db", decisions=6 * PIECE, models=models)
        log = archived(tmp_path / f"{models}.db", tmp_path / f"archive-{models}")
        holds.append(sum(log.of_trim))
    assert (holds[1] - holds[0]) / (many - few) < 40


def test_models_that_stayed_go_with_a_later_cut(tmp_path: Path) -> None:
    """Up to where nothing is left holds for one cut: the next one lets go of models."""
    path, clock = tmp_path / "log.db", PastClock(0)
    write_log(path, decisions=PIECE, models=100)
    with closing(HoldsCounted(path, clock)) as log:
        for stay in (100, 0):
            assert archive(log, tmp_path / "archive", before=log.head().time, remember=0, say=lambda _: None)
            assert rows(path, "select count(*) >= 100 from published") == [(stay >= 100,)]
            assert log.check(lambda _: None) == []
            log._writer.execute("delete from models")
            version = log.versions()[0]
            request = DecisionRequest(DecisionId("late"), "u")
            log.append([decide(request, version, Model(make_policy(version.experiment.policy)))])
            clock.advance(60)
            log.append([Tick()])


def test_a_piece_is_small_whatever_rewards_its_decisions_have(tmp_path: Path) -> None:
    """A hundred rewards of each decision made a piece take 143 ms, during which nothing was decided."""
    holds = []
    for rewards in (4, 50):
        write_log(tmp_path / f"{rewards}.db", decisions=2 * PIECE, rewards=rewards)
        log = archived(tmp_path / f"{rewards}.db", tmp_path / f"archive-{rewards}", remember=REMEMBER)
        holds.append(max(log.of_trim))
    assert holds[1] < 1.5 * holds[0]


def test_a_decision_with_more_rewards_than_a_piece_is_kept_with_all(tmp_path: Path) -> None:
    """A bound that no piece can keep would stop the trimming for ever."""
    rewards = PIECE_REWARDS + 1
    write_log(tmp_path / "log.db", decisions=3, rewards=rewards)
    archived(tmp_path / "log.db", tmp_path / "archive", remember=REMEMBER)
    kept = rows(tmp_path / "log.db", "select json_array_length(rewards) from archived_decisions")
    assert kept == [(rewards,)] * 3
