"""A full disk, a lock, a damaged file: nothing is acknowledged that is not written, and the server recovers."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from decider.errors import LogCorrupt, LogFull
from decider.log.disk import DiskWatch
from decider.log.memory import MemoryLog
from decider.log.protocol import LogSizes, NewBuild, Tick
from decider.log.sqlite import write_ahead
from decider.log.sqlite.reader import SqliteReader
from decider.log.sqlite.writer import SqliteLog
from decider.v1 import decider_service_pb2 as pb
from tests.rpc_clients import (
    LEARN_INTERVAL,
    GrpcClient,
    InProcessClient,
    ServerProcess,
    code_of,
    experiment,
    reason_of,
    refused,
    rows,
    status_of,
    until,
)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[InProcessClient]:
    """A server with an experiment `e` whose windows stay open for the whole test."""
    opened = InProcessClient(tmp_path / "log.db")
    opened.apply(experiment("e"))
    opened.writer.execute("pragma busy_timeout = 50")
    yield opened
    opened.close()


@contextmanager
def full(client: InProcessClient) -> Iterator[None]:
    """The log's file may not grow any more: SQLite's own "database or disk is full"."""
    writer = client.writer
    (before,) = writer.execute("pragma max_page_count").fetchone()
    writer.execute("pragma max_page_count = 1")  # at least what there is
    yield
    writer.execute(f"pragma max_page_count = {before}")


def fill(client: GrpcClient, *, limit: int = 5000) -> int:
    """Decide until the log is full; how many decisions were acknowledged."""
    for count in range(limit):
        status = status_of(lambda count=count: decide_large(client, count))  # type: ignore[misc]
        if status.code:
            assert (code_of(status), reason_of(status)) == ("RESOURCE_EXHAUSTED", "LOG_FULL"), status.message
            assert "no space left to write the log; free some, the server goes on by itself" in status.message
            return count
    raise AssertionError(f"{limit} decisions fit into a log that is full")


def fill_up(client: InProcessClient) -> int:
    """Fill the log until not even a tick fits."""
    acknowledged = fill(client)
    ticks = 0
    while ticks < 5000:
        try:
            client.server.log.append([Tick()])
        except LogFull:
            return acknowledged
        ticks += 1
    raise AssertionError(f"{ticks} ticks fit into a log that is full")


def decide_large(client: GrpcClient, number: int) -> pb.DecideResponse:
    """A decision of some hundred bytes."""
    return client.decide("e", decision_id=f"fill-{number}", context=pb.Context(segment="s" * 250, device="d" * 250))


def test_full_log_acknowledges_nothing_and_recovers(client: InProcessClient) -> None:
    """A disk fills up on a Sunday: callers are told, and when there is space again nobody has to restart anything."""
    with full(client):
        acknowledged = fill_up(client)
        assert client.rows("select count(*) from decisions") == [(acknowledged,)]
        code, text = client.fetch("/readyz")
        assert code == 503
        assert "no space left" in text
        assert client.fetch("/healthz") == (200, "ok\n")
        assert client.fetch("/metrics")[0] == 200
    assert decide_large(client, acknowledged).decision_id == f"fill-{acknowledged}"
    assert client.fetch("/readyz") == (200, "ok\n")
    assert client.rows("select count(*) from decisions") == [(acknowledged + 1,)]


def test_full_log_refuses_rewards_and_batches_too(client: InProcessClient) -> None:
    """Every way to write says the same."""
    client.decide("e", decision_id="rewarded")
    request = pb.DecideRequest(experiment="e", unit_id="unit", context=pb.Context(segment="s" * 250))
    with full(client):
        fill_up(client)
        before = client.rows("select count(*) from entries")
        calls = {
            "DecideBatch": lambda: client.decide_batch([request] * 100),
            "RewardBatch": lambda: client.reward_batch([pb.RewardRequest(decision_id="rewarded")] * 1000),
            "ApplyExperiment": lambda: client.apply(experiment("new", description="d" * 10_000)),
        }
        assert {name: reason_of(status_of(call)) for name, call in calls.items()} == dict.fromkeys(calls, "LOG_FULL")
        assert client.rows("select count(*) from entries") == before
    assert reason_of(status_of(lambda: client.get("new"))) == "EXPERIMENT_NOT_FOUND"
    assert client.apply(experiment("new")).changed


def test_server_is_ready_again_without_a_call(client: InProcessClient, caplog: pytest.LogCaptureFixture) -> None:
    """Who is not ready gets no calls: if only a call can end the trouble, it never ends. Each round fails meanwhile;
    whoever reads the output at night should find more in it than that."""
    with full(client):
        fill_up(client)
        assert client.fetch("/readyz")[0] == 503
        until(lambda: "no space left" in caplog.text, what="a round has failed")
        time.sleep(10 * LEARN_INTERVAL)
        told = [record.getMessage() for record in caplog.records if record.name == "decider.server.serve"]
        assert len(told) == len({*told}), "more than once within a minute"
    until(lambda: client.fetch("/readyz")[0] == 200, what="the server is ready again")


def test_positions_have_no_gaps_after_a_failure(client: InProcessClient) -> None:
    """A failed commit must leave no trace in the log's order."""
    with full(client):
        count = fill(client)
    decide_large(client, count)
    positions = client.rows("select position from entries order by position")
    assert positions == [(position,) for position in range(1, len(positions) + 1)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mount does not work here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_really_full_disk_acknowledges_nothing_and_recovers(small_disk: Path, tmp_path: Path) -> None:
    """The same with a disk that is really full, by something else, under a server process of its own."""
    link = tmp_path / "log.db"  # its output stays on the large disk
    server = ServerProcess(link, "--db", str(small_disk / "log.db"), "--learn-interval", "0.05")
    client = GrpcClient(small_disk / "log.db", server.target, server.http)
    try:
        client.apply(experiment("e"))
        until(lambda: "--disk-reserve asks for 1.0 GB" in client.fetch("/readyz")[1], what="the small disk is told of")
        assert client.fetch("/readyz")[0] == 200
        assert server.output.count("free on its disk") == 1
        acknowledged = fill(client)
        assert rows(client.db, "select count(*) from decisions") == [(acknowledged,)]
        assert client.fetch("/readyz")[0] == 503
        status, metrics = client.fetch("/metrics")
        assert (status, "decider_disk_free_bytes" in metrics) == (200, True)
        subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
        assert until(lambda: status_of(lambda: decide_large(client, acknowledged)).code == 0, what="it decides again")
        assert client.fetch("/readyz")[0] == 200
        assert rows(client.db, "select count(*) from decisions") == [(acknowledged + 1,)]
        assert server.terminate() == 0
    finally:
        client.close()
        server.kill()


class SomeLog(MemoryLog):
    """Its sizes are what the test says."""

    used, free = 0, 0

    def sizes(self) -> LogSizes:
        """See LogReader."""
        return LogSizes(self.used, 0, 0, self.free)


def test_a_disk_that_is_nearly_full_is_told_of_once_and_its_end_too(caplog: pytest.LogCaptureFixture) -> None:
    """A line each second would hide all others; no line would be noticed when writing fails."""
    log = SomeLog()
    log.free = 1_000
    watch = DiskWatch(log, reserve=500, clock=lambda: 0.0)
    for free, lines in ((1_000, 0), (499, 1), (400, 1), (520, 1), (560, 2), (499, 3)):
        log.free = free
        watch.look()
        assert (len(caplog.messages), bool(watch.warnings)) == (lines, lines % 2 == 1)
    assert "only 0.0 MB free on its disk, and --disk-reserve asks for 0.0 MB" in caplog.messages[0]
    assert "enough again" in caplog.messages[1]


def test_a_disk_with_less_room_than_a_day_takes_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """A reserve that is much for one log is an hour for another."""
    log, time = SomeLog(), [0.0]
    log.free = 50_000_000
    watch = DiskWatch(log, reserve=1_000, clock=lambda: time[0])
    for hour in range(48):
        time[0] = hour * 3600.0
        log.used += 1_000_000 if hour < 24 else 3_000_000
        watch.look()
        assert bool(watch.warnings) == (hour >= 37), "the last 24 hours took 14 times 3 MB and 10 times 1 MB"
    assert "the log has grown by 52.0 MB in the last 24 hours" in caplog.text
    assert len(caplog.messages) == 1


def test_a_reader_that_holds_back_the_write_ahead_log_is_told_of_and_it_shrinks_afterwards(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forgotten transaction of a dashboard lets a file grow beside the log until the disk is full."""
    monkeypatch.setattr(write_ahead, "HELD_AFTER", 0.1)
    small_write_ahead_log(monkeypatch)
    db, wal = tmp_path / "log.db", tmp_path / "log.db-wal"
    with closing(SqliteLog(db)) as log, closing(sqlite3.connect(f"file:{db}?mode=ro", uri=True)) as other:
        log.append([Tick()])
        other.execute("begin")
        other.execute("select * from head").fetchall()
        while log.sizes().wal < 3 * write_ahead.LARGE_BYTES:
            log.append([NewBuild({"padding": "x" * 500_000})])
            log.maintain()
        time.sleep(2 * write_ahead.HELD_AFTER)
        log.maintain()
        log.maintain()
        assert len(caplog.messages) == 1
        assert re.search(rf"{wal} has 1[23] MB and grows: since 20", log.warnings[0])
        other.close()
        log.maintain()
        assert wal.stat().st_size < write_ahead.LARGE_BYTES
        assert not log.warnings
        assert "is written back again, after" in caplog.messages[1]
        assert log.check(lambda _: None) == []


def small_write_ahead_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is large with 4 MB, so that a test need not write more."""
    monkeypatch.setattr(write_ahead, "LARGE_PAGES", 1_000)
    monkeypatch.setattr(write_ahead, "LARGE_BYTES", 4_096_000)


def test_readers_that_come_and_go_are_not_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scrapes and learning read all the time; only who stays must be found."""
    small_write_ahead_log(monkeypatch)
    with closing(SqliteLog(tmp_path / "log.db")) as log:
        readers: list[sqlite3.Connection] = []
        for number in range(60):
            log.append([NewBuild({"padding": "x" * 500_000})])
            readers.append(sqlite3.connect(tmp_path / "log.db", isolation_level=None))
            readers[-1].execute("begin")
            readers[-1].execute("select * from head").fetchall()
            if number > 2:
                readers.pop(0).close()
            log.maintain()
        for one in readers:
            one.close()
        log.maintain()
        assert (tmp_path / "log.db-wal").stat().st_size < write_ahead.LARGE_BYTES
        assert caplog.messages == []


def test_who_stayed_is_forgotten_once_others_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy server somebody always reads: the file must begin anew once the one who stayed has left."""
    monkeypatch.setattr(write_ahead, "HELD_AFTER", 0.05)
    small_write_ahead_log(monkeypatch)
    with closing(SqliteLog(tmp_path / "log.db")) as log:
        stays = reading(tmp_path / "log.db")
        for _ in range(20):
            log.append([NewBuild({"padding": "x" * 500_000})])
            log.maintain()
        time.sleep(0.1)
        log.maintain()
        assert log.warnings
        other = reading(tmp_path / "log.db")
        stays.close()
        for _ in range(20):
            log.append([NewBuild({"padding": "x" * 500_000})])
            log.maintain()
            other.close()
            other = reading(tmp_path / "log.db")
        assert not log.warnings
        other.close()
        log.maintain()
        assert (tmp_path / "log.db-wal").stat().st_size < write_ahead.LARGE_BYTES


def reading(db: Path) -> sqlite3.Connection:
    """A connection with an open transaction, which reads the log as it is now."""
    connection = sqlite3.connect(db, isolation_level=None)
    connection.execute("begin")
    connection.execute("select * from head").fetchall()
    return connection


def test_a_server_tells_of_a_reader_and_goes_on(client: InProcessClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ready, since it decides as ever; but whoever looks is told."""
    monkeypatch.setattr(write_ahead, "HELD_AFTER", 0.1)
    monkeypatch.setattr(write_ahead, "LARGE_PAGES", 10)
    with closing(sqlite3.connect(client.db, isolation_level=None)) as other:
        other.execute("begin")
        other.execute("select * from head").fetchall()
        for number in range(50):
            decide_large(client, number)
        status, text = until(lambda: told_ready(client), what="/readyz tells of the reader")
        assert status == 200
        assert "reads the log in a transaction that does not end" in text
    until(lambda: client.fetch("/readyz") == (200, "ok\n"), what="the write-ahead log is written back")


def told_ready(client: InProcessClient) -> tuple[int, str] | None:
    """What /readyz says, if it says more than ok."""
    status, text = client.fetch("/readyz")
    return (status, text) if text != "ok\n" else None


def test_locked_log_is_unavailable_and_recovers(client: InProcessClient) -> None:
    """Somebody's forgotten transaction: callers may try elsewhere, and later here again."""
    client.decide("e", decision_id="rewarded")
    with closing(sqlite3.connect(client.db, isolation_level=None)) as other:
        other.execute("begin immediate")
        calls = [
            status_of(lambda: client.decide("e", decision_id="locked")),
            status_of(lambda: client.reward("rewarded")),
            status_of(lambda: client.activate("rewarded")),
            status_of(lambda: client.pause("e")),
        ]
        assert [(code_of(status), reason_of(status)) for status in calls] == [("UNAVAILABLE", "LOG_LOCKED")] * 4
        assert "another process keeps the log locked" in calls[0].message
        code, text = client.fetch("/readyz")
        assert (code, "locked" in text) == (503, True)
        other.execute("rollback")
    assert client.rows("select kind, count(*) from entries group by kind order by kind") == [
        ("build", 1),
        ("decision", 1),
        ("experiment", 1),
        ("version_note", 1),
    ]
    assert client.decide("e", decision_id="locked").decision_id == "locked"
    assert client.fetch("/readyz") == (200, "ok\n")


def test_locked_log_still_answers_what_needs_no_writing(client: InProcessClient) -> None:
    """Reads and metrics go on: that is what write-ahead logging is for."""
    with closing(sqlite3.connect(client.db, isolation_level=None)) as other:
        other.execute("begin immediate")
        assert client.get("e").version == 1
        assert client.fetch("/metrics")[0] == 200
        other.execute("rollback")


def write_text(path: Path) -> None:
    """A file that is no database."""
    path.write_text("id = 'this is not a log'\n" * 500)


def write_other_database(path: Path) -> None:
    """An SQLite file of somebody else's, with a table that the log needs."""
    with closing(sqlite3.connect(path)) as other:
        other.execute("create table decisions (whatever text)")
        other.commit()


def write_damaged_log(path: Path) -> None:
    """A log whose pages after the first were overwritten."""
    log = SqliteLog(path)
    log.close()
    damage(path)


def damage(path: Path) -> None:
    """Overwrite everything after the first page."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))


@pytest.mark.parametrize("write", [write_text, write_other_database, write_damaged_log])
def test_file_that_is_no_log_is_refused_at_the_start(tmp_path: Path, write: object) -> None:
    """A wrong file must not be written into, and the text must say which file it is and what to do."""
    db = tmp_path / "log.db"
    write(db)  # type: ignore[operator]
    content = db.read_bytes()
    code, output = refused(db)
    assert code == 1
    assert output.startswith(f"Error: {db}: "), output
    assert "Traceback" not in output
    assert write is write_other_database or "damaged or not a log" in output
    assert write is not write_text or db.read_bytes() == content


def test_other_sqlite_file_stays_as_it_is(tmp_path: Path) -> None:
    """Refusing is not enough: somebody else's database must not have our tables afterwards."""
    db = tmp_path / "log.db"
    with closing(sqlite3.connect(db)) as other:
        other.execute("create table customers (name text)")
        other.commit()
    refused_or_not = status_of_start(db)
    tables = {name for (name,) in rows(db, "select name from sqlite_master where type = 'table'")}
    assert (refused_or_not, tables) == ("refused", {"customers"})


def status_of_start(db: Path) -> str:
    """Whether a log can be opened there."""
    try:
        SqliteLog(db).close()
    except LogCorrupt:
        return "refused"
    return "opened"


def test_reading_something_else_is_refused(tmp_path: Path) -> None:
    """The simulator's commands get the same words."""
    write_text(tmp_path / "log.db")
    with pytest.raises(LogCorrupt, match="damaged or not a log"):
        SqliteReader(tmp_path / "log.db")


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, GrpcClient]]:
    """A server whose log becomes damaged while it runs, as by a disk that breaks."""
    server = ServerProcess(tmp_path_factory.mktemp("damaged") / "log.db", "--learn-interval", "0.05")
    client = server.client()
    try:
        client.apply(experiment("e"))
        for _ in range(5):
            client.decide_batch(
                [pb.DecideRequest(experiment="e", unit_id="unit", context=pb.Context(segment="s" * 200))] * 1000
            )
        client.decide("e", decision_id="before")
        assert client.rows("pragma integrity_check") == [("ok",)]
        checkpoint(client.db)
        damage(client.db)
        yield server, client
    finally:
        client.close()
        server.kill()


def test_damaged_log_is_unavailable(damaged: tuple[ServerProcess, GrpcClient]) -> None:
    """Callers get an error with a reason, never made-up data."""
    _, client = damaged
    assert until(lambda: failing(client), what="the damage is seen") == ("UNAVAILABLE", "LOG_CORRUPT")
    assert client.fetch("/healthz")[0] == 200


def test_damaged_log_is_not_ready(damaged: tuple[ServerProcess, GrpcClient]) -> None:
    """A server that fails every reward must not be sent more of them, even where its writes still go through."""
    _, client = damaged
    until(lambda: failing(client), what="the damage is seen")
    assert client.fetch("/readyz")[0] == 503


def test_metrics_of_a_damaged_log_answer_with_an_error(damaged: tuple[ServerProcess, GrpcClient]) -> None:
    """Prometheus must see a failed scrape with a reason, not a connection that breaks off; stderr no traceback."""
    server, client = damaged
    until(lambda: failing(client), what="the damage is seen")
    status, text = client.fetch("/metrics")
    assert (status >= 500, "damaged" in text) == (True, True)
    assert "Traceback" not in server.output


def checkpoint(db: Path) -> None:
    """Everything from the write-ahead log into the file."""
    with closing(sqlite3.connect(db)) as other:
        other.execute("pragma wal_checkpoint(truncate)").fetchall()


def failing(client: GrpcClient) -> tuple[str, str] | None:
    """Code and reason of the first call that fails; several thousand pages do not fit into SQLite's cache."""
    for number in range(200):
        for call in (
            lambda number=number: client.reward("before", reward_id=str(number)),
            lambda number=number: client.decide("e", decision_id=f"{number * 7919 % 1000:04d}-after"),
        ):
            status = status_of(call)
            if status.code:
                return code_of(status), reason_of(status)
    return None
