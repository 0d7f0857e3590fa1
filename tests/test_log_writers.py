"""Several writers of one log, and the file under them: nothing is answered that is not in the log."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from decider.errors import LogError, LogLocked
from decider.log.memory import MemoryLog
from decider.log.open import check_unused, open_log, open_reader
from decider.log.protocol import (
    Entry,
    EventLog,
    LogReader,
    Mark,
    ModelName,
    NewActivation,
    NewReward,
    NewVersion,
    Orphan,
    Tick,
)
from decider.log.sqlite.reader import SqliteReader
from decider.log.sqlite.writer import SqliteLog
from decider.policy.saved import SavedModel
from decider.types import DecisionId, ExperimentId, Position
from tests.conftest import Clock, sample_experiment
from tests.rpc_clients import rows
from tests.two_writers import decision, write

COUNT = 1500
"""Decisions of each writer; with rewards twice as many entries, less what the other had written."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A log with one experiment."""
    path = tmp_path / "log.db"
    with closing(SqliteLog(path)) as log:
        log.append([NewVersion(sample_experiment(), 1)])
    return path


Answers = list[tuple[str, Mark | None]]


def check_answers(log: LogReader, of_each: list[Answers]) -> None:
    """Gapless positions, time never back, nothing lost, nothing twice, nothing answered that is not in the log."""
    head = log.head()
    times = [log.time_at(Position(position)) for position in range(1, head.position + 1)]
    assert times == sorted(times)
    assert 0 not in times, "a position is missing"
    written = [(id_, Mark(*mark)) for answers in of_each for id_, mark in answers if mark]
    assert sorted(mark.position for _, mark in written) == list(range(2, head.position + 1))
    assert all(times[mark.position - 1] == mark.time for _, mark in written)
    assert len({id_ for id_, _ in written}) == len(written), "both were told that they had written it"
    assert {id_ for id_, _ in written} == {id_ for answers in of_each for id_, _ in answers}, "something is lost"
    decisions = {logged.decision.decision_id: logged.position for logged in log.decisions(Position(1))}
    assert decisions == {id_: mark.position for id_, mark in written if not id_.startswith("reward of ")}
    rewarded = [reward.decision_id for reward in log.rewards_between("", "~")]
    assert sorted(rewarded) == sorted(decisions)
    assert log.check(lambda _: None) == []


def writer(file: Path, name: str, count: int = COUNT) -> subprocess.Popen[str]:
    """A process that has opened the log and waits for the word to begin."""
    command = [sys.executable, "-m", "tests.two_writers", str(file), name, str(count)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_two_processes_write_one_log(file: Path) -> None:
    """The order is the log's, whoever writes: that is what lets a second worker serve."""
    processes = [writer(file, name) for name in ("left", "right")]
    with ThreadPoolExecutor() as pool:
        outputs = list(pool.map(lambda process: process.communicate("go\n")[0], processes))
    answers: list[Answers] = [json.loads(output) for output in outputs]
    with closing(SqliteReader(file)) as log:
        check_answers(log, answers)
        assert all(sum(mark is not None for _, mark in of_one) >= 2000 for of_one in answers)
        assert any(mark is None for _, mark in answers[0] + answers[1]), "no id was used by both"


@contextmanager
def two_logs(kind: str, file: Path) -> Iterator[tuple[EventLog, EventLog]]:
    """Two writers of one log in this process."""
    if kind == "memory":
        log = MemoryLog()
        log.append([NewVersion(sample_experiment(), 1)])
        yield log, log
        return
    with closing(SqliteLog(file)) as first, closing(SqliteLog(file)) as second:
        yield first, second


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_two_threads_write_one_log(kind: str, file: Path) -> None:
    """The same within a process: two logs opened on one file are two writers, and one that is shared is one."""
    with two_logs(kind, file) as logs:
        with ThreadPoolExecutor() as pool:
            answers = list(pool.map(write, logs, ("left", "right"), (400, 400)))
        check_answers(logs[0], answers)


# --- the lock belongs to the file (a link, a deleted lock file: once two servers wrote past each other)


def test_another_process_leads_until_it_ends(file: Path) -> None:
    """However it ends: the operating system gives the lease back."""
    code = (
        "import sys; from pathlib import Path; from decider.log.open import open_log\n"
        f"log = open_log(Path({str(file)!r})); lease = log.lease(); print('leads', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "leads\n"
    with closing(SqliteLog(file)) as log:
        with pytest.raises(LogLocked, match="another server writes this log"):
            log.lease()
        other.kill()
        other.communicate()
        assert log.lease().held


def test_a_link_is_the_same_log(file: Path, tmp_path: Path) -> None:
    """Two names, one order, one leader."""
    link = tmp_path / "link.db"
    link.symlink_to(file)
    with closing(SqliteLog(file)) as log, closing(SqliteLog(link)) as linked:
        log.lease()
        with pytest.raises(LogLocked):
            linked.lease()
        marks = [one.append([Tick()])[0] for one in (log, linked)]
        assert [mark and mark.position for mark in marks] == [2, 3]
    process = writer(link, "linked", 100)
    with closing(SqliteLog(file)) as log:
        mine = write(log, "mine", 100)
        theirs: Answers = json.loads(process.communicate("go\n")[0])
        assert log.check(lambda _: None) == []
        assert log.head().position == 3 + sum(mark is not None for _, mark in mine + theirs)


def test_a_second_name_is_refused(file: Path, tmp_path: Path) -> None:
    """SQLite's write-ahead log belongs to a name: under two names half of the entries would be lost."""
    other = tmp_path / "other.db"
    os.link(file, other)
    for path in (file, other):
        with pytest.raises(LogError, match="second name"):
            SqliteLog(path)
    other.unlink()
    SqliteLog(file).close()


def test_no_lock_file_is_left_to_delete(file: Path) -> None:
    """A lock beside the log was deleted by whoever cleaned up the folder, and two servers wrote."""
    with closing(SqliteLog(file)) as log:
        log.lease()
        assert sorted(path.name for path in file.parent.iterdir()) == [
            "log.db",
            "log.db-last",
            "log.db-shm",
            "log.db-wal",
        ]


def test_a_log_in_use_is_not_replaced(file: Path) -> None:
    """An import that puts its result in the place of a served log would lose both."""
    check_unused(file)
    check_unused(file.with_name("none.db"))
    with closing(SqliteReader(file)):
        check_unused(file)
    with closing(SqliteLog(file)), pytest.raises(LogLocked):
        check_unused(file)
    process = writer(file, "other", 1)
    with pytest.raises(LogLocked):
        check_unused(file)
    process.communicate("go\n")
    check_unused(file)


def write_ahead_log_is_there(file: Path) -> bool:
    """While anybody has the log open, by SQLite's own account."""
    return file.with_name(file.name + "-wal").exists()


def test_closing_one_reader_does_not_take_the_lock_from_the_others(file: Path) -> None:
    """POSIX drops all of a process's locks on a file when any descriptor of it is closed. Without its lock this reader
    does not count as one, and the last writer deletes the write-ahead log under it."""
    with closing(SqliteReader(file)) as stays:
        assert stays.head().position == 1
        with closing(SqliteLog(file)) as log:
            log.append([Tick()])
        SqliteReader(file).close()
        check_unused(file)
        process = writer(file, "other", 50)
        process.communicate("go\n")
        assert write_ahead_log_is_there(file), "another process took itself for the last one"
        assert stays.head().position > 2
    assert process.returncode == 0


# --- a file that is gone acknowledges nothing


def move(path: Path) -> None:
    """To another folder, with what belongs to it or not."""
    target = path.parent / "moved"
    target.mkdir()
    path.rename(target / path.name)


def replace(path: Path) -> None:
    """By a copy: the same content, another file."""
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    copy.rename(path)


@pytest.mark.parametrize("part", ["log.db", "log.db-wal", "log.db-shm"])
@pytest.mark.parametrize("take", [Path.unlink, move, replace])
def test_nothing_is_acknowledged_into_a_file_that_is_gone(
    file: Path, part: str, take: Callable[[Path], object]
) -> None:
    """`rm`, `mv`, a restored copy, under the server: what would not be there after a restart is not answered."""
    with closing(SqliteLog(file)) as log:
        log.append([Tick()])
        assert log.trouble is None
        take(file.with_name(part))
        with pytest.raises(LogError, match="moved, deleted or replaced"):
            log.append([Tick()])
        with pytest.raises(LogError, match="moved, deleted or replaced"):
            log.append([decision(log.versions()[0], "gone", "unit")])
        assert "moved, deleted or replaced" in str(log.trouble)


def test_a_file_that_is_gone_is_noticed_when_its_folder_has_been_quiet(file: Path) -> None:
    """Then only the folder is looked at, and that must be enough."""
    with closing(SqliteLog(file)) as log:
        os.utime(file.parent, (1_000_000_000, 1_000_000_000))
        assert log.append([Tick()]) != [None]
        assert log.append([Tick()]) != [None]
        file.unlink()
        with pytest.raises(LogError, match="moved, deleted or replaced"):
            log.append([Tick()])


def test_a_folder_that_has_just_changed_is_not_trusted(file: Path) -> None:
    """File systems count the time of a change in ticks: two changes within one look like one."""
    with closing(SqliteLog(file)) as log:
        log.append([Tick()])
        just_now = time.time_ns()
        os.utime(file.parent, ns=(just_now, just_now))
        log.append([Tick()])
        file.unlink()
        os.utime(file.parent, ns=(just_now, just_now))
        with pytest.raises(LogError, match="moved, deleted or replaced"):
            log.append([Tick()])


def test_a_file_that_is_moved_back_is_written_again(file: Path) -> None:
    """Nobody has to restart anything; a retry finds what was written without being acknowledged."""
    elsewhere = file.with_name("elsewhere.db")
    with closing(SqliteLog(file)) as log:
        (version,) = log.versions()
        file.rename(elsewhere)
        with pytest.raises(LogError):
            log.append([decision(version, "a", "unit")])
        elsewhere.rename(file)
        assert log.trouble is None
        marks = log.append([decision(version, "a", "unit"), Tick()])
        assert marks[0] is None
        assert marks[1] is not None
        assert log.find(DecisionId("a")) is not None
        assert log.check(lambda _: None) == []


def test_housekeeping_while_a_file_is_away_costs_nothing(file: Path) -> None:
    """A database made anew at the old place would make SQLite throw away the write-ahead log that lies beside it, and
    with it everything acknowledged that was not written back yet."""
    with closing(SqliteLog(file)) as log:
        log.append([NewVersion(sample_experiment(), 1)])
        away = file.rename(file.with_name("away"))
        log.maintain()
        assert not file.exists()
        away.rename(file)
        with closing(sqlite3.connect(file)) as other:
            assert other.execute("select count(*) from experiments").fetchone() == (1,)


def test_a_link_that_leads_elsewhere_is_noticed(file: Path, tmp_path: Path) -> None:
    """A server that is opened again would open the other file."""
    link, other = tmp_path / "link.db", tmp_path / "other.db"
    SqliteLog(other).close()
    link.symlink_to(file)
    with closing(SqliteLog(link)) as log:
        log.append([Tick()])
        link.unlink()
        link.symlink_to(other)
        with pytest.raises(LogError, match="moved, deleted or replaced"):
            log.append([Tick()])


# --- named conflicts


def insert(file: Path, sql: str) -> None:
    """What a person does with a tool, past all rules."""
    with closing(sqlite3.connect(file)) as tool:
        tool.execute(sql)
        tool.commit()


def test_a_foreign_row_at_the_next_position_is_an_error(file: Path) -> None:
    """`insert or ignore` also swallowed this clash, and a decision was answered that is not in the log."""
    with closing(SqliteLog(file)) as log:
        (version,) = log.versions()
        insert(
            file,
            "insert into decisions (position, time, version, decision_id, unit_id, pmf, action, propensity, reason,"
            " model) values (2, 1, 1, 'foreign', 'unit', '[]', 'sale', 1, 'EXPLORE', 0)",
        )
        together: list[Entry] = [decision(version, "b", "unit"), Tick()]
        for entries in ([decision(version, "a", "unit")], together):
            with pytest.raises(LogError, match=r"decisions\.position"):
                log.append(entries)
            assert log.trouble is not None
        assert log.find(DecisionId("a")) is None
        assert [damage.first for damage in log.check(lambda _: None)] == [2]


@pytest.mark.parametrize("table", ["rewards", "ticks", "activations"])
def test_a_foreign_row_in_the_way_of_another_kind_is_an_error(file: Path, table: str) -> None:
    """Only the key that says "written before" may refuse a row in silence."""
    rows = {
        "rewards": "(position, time, decision, name, value, weight) values (2, 1, 1, 'x', 1, 1)",
        "ticks": "(position, time) values (2, 1)",
        "activations": "(position, time, decision) values (2, 1, 77)",
    }
    with closing(SqliteLog(file)) as log:
        insert(file, f"insert into {table} {rows[table]}")
        entries: dict[str, Entry] = {
            "rewards": NewReward(Position(1), "click", 1.0, reward_id="r"),
            "ticks": Tick(),
            "activations": NewActivation(Position(1)),
        }
        with pytest.raises(LogError, match=rf"{table}\.position"):
            log.append([entries[table]])
        assert log.head().position == 1


def test_a_value_that_may_not_be_missing_is_an_error(file: Path) -> None:
    """Not a number is null for SQLite, and null is refused by `not null`, in silence if one lets it."""
    with closing(SqliteLog(file)) as log:
        with pytest.raises(LogError, match=r"rewards\.value"):
            log.append([NewReward(Position(1), "click", float("nan"), reward_id="r")])
        assert log.head().position == 1
        assert log.append([Orphan("click")]) == [None]


def test_a_head_that_another_writer_has_moved_is_read_anew(file: Path) -> None:
    """The head that a writer knows is only a hint."""
    with closing(SqliteLog(file)) as one, closing(SqliteLog(file)) as other:
        (version,) = one.versions()
        for number in range(10):
            for log in (one, other):
                (mark,) = log.append([decision(version, f"{number} {id(log)}", "unit")])
                assert mark is not None
        assert one.head().position == 21
        assert one.check(lambda _: None) == []


def test_each_caller_gets_an_error_of_its_own(file: Path) -> None:
    """One exception that is raised in several threads mixes their tracebacks."""
    with closing(SqliteLog(file)) as log:
        insert(file, "insert into ticks (position, time) values (2, 1)")
        log._group.lock.acquire()
        with ThreadPoolExecutor(4) as pool:
            calls = [pool.submit(log.append, [Tick()]) for _ in range(4)]
            while len(log._group._queue) < 4:
                pass
            log._group.lock.release()
            errors = [call.exception() for call in calls]
        assert len({id(error) for error in errors}) == 4
        assert {(type(error), str(error)) for error in errors} == {(LogError, str(errors[0]))}


# --- stored models


def big_model(position: int, size: int) -> tuple[ModelName, SavedModel]:
    """A model that takes several pieces."""
    data = os.urandom(size)
    name = ModelName(ExperimentId("home"), Position(position), "signature")
    return name, SavedModel("signature", hashlib.sha256(data).hexdigest(), data)


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 5000])
def test_a_model_in_pieces_is_the_same(file: Path, size: int) -> None:
    """Whatever its size, to the byte."""
    name, saved = big_model(1, size)
    with closing(SqliteLog(file, piece_bytes=1000)) as log:
        log.models.store(name, saved, keep_bytes=10**6)
        assert log.models.load(name) == saved
        assert log.models.newest(name.experiment, name.signature) == (1, saved)


def test_a_model_with_a_piece_missing_is_not_stored(file: Path) -> None:
    """A process that is killed while it stores leaves the first pieces; the next one removes them."""
    with closing(SqliteLog(file, piece_bytes=1000)) as log:
        whole, cut = big_model(1, 2500), big_model(2, 2500)
        for made in (whole, cut):
            log.models.store(*made, keep_bytes=10**6)
        insert(file, "delete from models where position = 2 and part = 2")
        assert log.models.load(cut[0]) is None
        assert log.models.stored_positions(*_of(cut)) == [1]
        assert log.models.newest(*_of(cut)) == (1, whole[1])
        insert(file, "update models set data = zeroblob(1000) where position = 1 and part = 0")
        assert log.models.load(whole[0]) is None
        log.models.store(*big_model(3, 10), keep_bytes=10**6)
        assert rows(file, "select count(*) from models where position = 2") == [(0,)]


def _of(made: tuple[ModelName, SavedModel]) -> tuple[ExperimentId, str]:
    return made[0].experiment, made[0].signature


def test_commits_go_on_while_a_model_is_stored(file: Path) -> None:
    """A model of some megabytes held up every decision while it was written; now a commit waits for one piece."""
    with closing(SqliteLog(file)) as log, ThreadPoolExecutor(1) as pool:
        storing = pool.submit(log.models.store, *big_model(1, 20_000_000), keep_bytes=10**9)
        commits = 0
        while not storing.done():
            log.append([Tick()])
            commits += 1
        storing.result()
        assert commits > 40, "of 77 pieces"
        assert log.models.stored_positions(ExperimentId("home"), "signature") == [1]


# --- a log of an older release

OLD = Path(__file__).parent / "data" / "log-0.1.0.db"


def test_an_old_log_is_upgraded_with_everything_in_it(tmp_path: Path) -> None:
    """Builds and models were beside the order and are entries now; the chain says from where on it was kept."""
    path = tmp_path / "log.db"
    shutil.copy(OLD, path)
    with closing(SqliteLog(path)) as log:
        assert log.check(lambda _: None) == []
        chained = log.chain_start()
        assert chained is not None
        assert chained.position == 499
        assert log.head().position == 499 + 3 + 3
        assert [build["from"] for build in log.builds().values()] == [1, 166, 336]
        assert [build["decider"] for build in log.builds().values()] == ["0.1.0"] * 3
        (signature,) = log.models.signatures(ExperimentId("storefront"))
        assert signature.endswith("encoder=1 code=1")
        assert log.models.published_positions(ExperimentId("storefront"), signature) == [164, 335, 498]
        assert log.models.stored_positions(ExperimentId("storefront"), signature) == [164, 335, 498]
        assert log.refused_rewards() == {("click", "duplicate"): 3}
        assert log.append([Tick()])[0] is not None
        assert log.count_decisions() == 450
    with closing(SqliteReader(path)) as reader:
        assert reader.check(lambda _: None) == []


def test_an_old_log_is_read_without_being_changed(tmp_path: Path) -> None:
    """An auditor has a copy that nobody may touch."""
    path = tmp_path / "log.db"
    shutil.copy(OLD, path)
    before = path.read_bytes()
    with closing(open_reader(path)) as log:
        assert (log.name, log.head().position) == (str(path), 505)
    assert path.read_bytes() == before
    with pytest.raises(LogError, match="older release"):
        SqliteReader(path)


def test_an_old_log_of_one_moment_is_upgraded(tmp_path: Path, clock: Clock) -> None:
    """All entries at one time: they are chained in pieces, since a commit is held in memory."""
    path = tmp_path / "log.db"
    shutil.copy(OLD, path)
    insert(path, "update decisions set time = 1795297875649929")
    insert(path, "update rewards set time = 1795297875649929")
    insert(path, "update ticks set time = 1795297875649929")
    insert(path, "insert into ticks select value + 1000, 1795297875649929 from json_each('[' || "
           "(select group_concat(position) from decisions) || ']')")  # fmt: skip
    with closing(open_log(path, clock=clock)) as log:
        assert [damage.text for damage in log.check(lambda _: None)] == ["a position is missing or taken twice"]


def test_an_upgraded_log_has_the_tables_of_a_new_one(tmp_path: Path, file: Path) -> None:
    """`schema.sql` says what every column holds, in every log."""
    path = tmp_path / "old.db"
    shutil.copy(OLD, path)
    SqliteLog(path).close()
    assert structure(path) == structure(file)


def structure(path: Path) -> dict[str, object]:
    """Tables with columns and indexes; views and triggers as text."""
    with closing(sqlite3.connect(path)) as db:
        found: dict[str, object] = {}
        for kind, name, sql in db.execute("select type, name, sql from sqlite_master where type != 'index'").fetchall():
            found[name] = sql if kind in ("view", "trigger") else (
                db.execute(f"pragma table_info({name})").fetchall(),
                sorted(row[1:] for row in db.execute(f"pragma index_list({name})")),
            )  # fmt: skip
        return found


def test_a_server_of_an_older_release_keeps_the_newer_one_out(tmp_path: Path) -> None:
    """It would go on writing without head and chain."""
    path = tmp_path / "log.db"
    shutil.copy(OLD, path)
    with Path(f"{path}.lock").open("wb") as old_lock:
        fcntl.flock(old_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(LogLocked, match="older release"):
            SqliteLog(path)
    SqliteLog(path).close()
