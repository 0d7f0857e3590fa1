"""A log in PostgreSQL whose connections are cut, whose server dies, or whose leader was replaced.

What was acknowledged is there once.
"""

from __future__ import annotations

import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from random import Random
from types import ModuleType

import pytest

from decider.errors import LogError, LogFull, LogLocked, LogUnreachable
from decider.log.postgres import hosts, writer
from decider.log.postgres.connection import Connection
from decider.log.postgres.lease import check_epoch
from decider.log.postgres.reader import PostgresReader
from decider.log.postgres.writer import PostgresLog
from decider.log.protocol import (
    Awaited,
    Caller,
    Entry,
    EventLog,
    Mark,
    ModelName,
    NewModel,
    NewReward,
    NewVersion,
    Tick,
    TotalsCheckpoint,
)
from decider.policy.saved import SavedModel
from decider.types import DecisionId, ExperimentId, Position, Time
from tests.conftest import sample_experiment
from tests.postgres import PostgresServer, administer, damages, postgres_server
from tests.rpc_clients import PATIENCE, until
from tests.two_writers import decision


@pytest.fixture(scope="module")
def mortal() -> Iterator[PostgresServer]:
    """A server that may be killed, and loses nothing then."""
    with postgres_server(()) as server:
        yield server


@pytest.fixture
def url(postgres_url: str) -> str:
    """Of a log that is not there yet."""
    return postgres_url


def apply(log: EventLog) -> None:
    """The version that `decision` is of."""
    log.append([NewVersion(sample_experiment(), 1)])


def append_some(log: EventLog, name: str, count: int) -> list[Mark | None]:
    """So many decisions, each in a commit."""
    (version,) = log.versions()
    return [mark for number in range(count) for mark in log.append([decision(version, f"{name}-{number}")])]


# --- lost connections


class Cuts:
    """A socket before the server that loses answers: the server writes, and nobody hears of it."""

    def __init__(self, server: Path, folder: Path) -> None:
        self._folders = (str(server), str(folder))
        self._server = str(server / ".s.PGSQL.5432")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / ".s.PGSQL.5432"))
        self._listener.listen()
        self.cut_next = False
        self.count = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._server)
                threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
                threading.Thread(target=self._answer, args=(server, client), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                server.sendall(data)
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if self.cut_next:
                    self.cut_next = False
                    self.count += 1
                    break
                client.sendall(data)
        for one in (client, server):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def through(self, url: str) -> str:
        """The same log by way of this socket."""
        return url.replace(*self._folders)

    def close(self) -> None:
        """No more connections."""
        self._listener.close()


@pytest.fixture
def cuts(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cuts]:
    """Before the server of all tests."""
    folder = tmp_path_factory.mktemp("s")
    with closing(Cuts(postgres.folder, folder)) as between:
        yield between


@pytest.mark.parametrize("size", [1, 5, 40])
def test_a_commit_whose_answer_was_lost_counts_once(url: str, cuts: Cuts, size: int) -> None:
    """Also of rewards without an id, which no key would know: the server's own retry is no second reward."""
    random = Random(size)
    with closing(PostgresLog(url)) as other, closing(PostgresLog(cuts.through(url))) as log:
        apply(other)
        version = other.versions()[0]
        acknowledged = sent = 0
        for group in range(12):
            cuts.cut_next = random.random() < 0.7
            marks = log.append([decision(version, f"{group}-{number}") for number in range(size)])
            (first, *_) = [mark for mark in marks if mark]
            assert all(marks)
            cuts.cut_next = random.random() < 0.7
            rewards: list[Entry] = [NewReward(first.position, "click", 1.0) for _ in range(size)]
            if group % 2:
                rewards.append(Tick())  # so that it is a transaction, not one statement
            marks = log.append(rewards)
            assert all(marks)
            sent += size
            acknowledged += len(marks) + size
            assert [other.time_at(mark.position) == mark.time for mark in marks if mark] == [True] * len(marks)
        assert cuts.count > 8
        assert other.count_decisions() == sent
        assert other.head().position == 1 + acknowledged
        assert len(list(other.rewards_between("", "a"))) == sent
        assert damages(other) == []


def test_a_writer_whose_connections_are_ended_goes_on(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """As after a failover, or by an administrator: at any moment, in every thread."""
    caplog.set_level(logging.CRITICAL, "decider.log.postgres.writer")
    end = """select pg_terminate_backend(pid) from pg_stat_activity
        where application_name = 'decider' and query like '%decisions%' and pid <> pg_backend_pid()"""
    with closing(PostgresLog(url)) as log:
        apply(log)
        stop = threading.Event()

        def end_connections() -> None:
            while not stop.wait(0.02):
                administer(url, end)

        with ThreadPoolExecutor(3) as threads:
            killer = threads.submit(end_connections)
            appended = [threads.submit(append_some, log, str(name), 60) for name in range(2)]
            marks = [mark for one in appended for mark in one.result()]
            stop.set()
            killer.result()
        assert len({mark.position for mark in marks if mark}) == 120 == log.count_decisions()
        assert damages(log) == []


def test_a_writer_whose_row_is_gone_goes_on(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """As behind a failover to a server that had not heard of it yet."""
    caplog.set_level(logging.CRITICAL, "decider.log.postgres.writer")
    with closing(PostgresLog(url)) as log:
        apply(log)
        for entry in (decision(log.versions()[0], "d"), Tick()):  # in one statement, and in a transaction
            administer(url, "delete from writers")
            assert log.append([entry]) != [None]
        assert log.head().position == 3
        assert damages(log) == []


def test_a_server_that_is_killed_and_started_again_has_what_was_acknowledged(mortal: PostgresServer) -> None:
    """PostgreSQL itself dies: the writer waits for it, and nothing is lost or doubled."""
    with closing(PostgresLog(url := mortal.new_schema(), patience=60)) as log:
        apply(log)
        version = log.versions()[0]
        acknowledged: list[str] = []
        stop = threading.Event()

        def append() -> None:
            while not stop.is_set():
                (mark,) = log.append([decision(version, id_ := f"d{len(acknowledged)}")])
                assert mark is not None
                acknowledged.append(id_)

        with ThreadPoolExecutor(1) as threads:
            running = threads.submit(append)
            stop.wait(0.3)
            mortal.kill()
            mortal.restart()
            stop.wait(0.3)
            stop.set()
            running.result()
        with closing(PostgresReader(url)) as reader:
            assert reader.count_decisions() == len(acknowledged) > 3
            assert all(reader.locate_all([DecisionId(id_) for id_ in acknowledged]))
        assert damages(log) == []


def test_a_server_that_stays_away_is_an_error_with_a_reason(mortal: PostgresServer) -> None:
    """Nobody waits for ever; and the log is written again once it is back."""
    with closing(PostgresLog(mortal.new_schema(), patience=0.2)) as log:
        apply(log)
        mortal.kill()
        try:
            with pytest.raises(LogError, match="PostgreSQL cannot be reached"):
                log.append([Tick()])
            assert log.trouble is not None
        finally:
            mortal.restart()
        assert _until_written(log, Tick()) is not None  # a call does not wait for a connection that is being made
        assert log.trouble is None


def test_a_server_that_stands_still_is_noticed(mortal: PostgresServer) -> None:
    """Its machine answers for it, so no timeout of TCP helps; what was under way counts once."""
    with closing(PostgresLog(mortal.new_schema(), patience=0.5)) as log:
        apply(log)
        version = log.versions()[0]
        log._writer.most_seconds = 0.3  # WRITE_SECONDS is longer
        mortal.signal_all(signal.SIGSTOP)
        try:
            with pytest.raises(LogUnreachable, match=r"no answer for 0\.3 s|timeout"):
                log.append([decision(version, "d")])
        finally:
            mortal.signal_all(signal.SIGCONT)
        again = _until_written(log, decision(version, "e"))
        assert again is not None
        assert log.count_decisions() in (1, 2), "the first one may be there"
        assert damages(log) == []


def test_a_process_tells_that_it_waits_for_a_server_that_stands_still(mortal: PostgresServer) -> None:
    """Else its parent would take it for one that hangs: on all hosts at once."""
    with closing(PostgresLog(mortal.new_schema())) as log, ThreadPoolExecutor(1) as pool:
        log.head()
        assert not log.hosts.waits()
        mortal.signal_all(signal.SIGSTOP)
        try:
            head = pool.submit(log.head)
            until(log.hosts.waits, what="it waits")
        finally:
            mortal.signal_all(signal.SIGCONT)
        assert head.result().position == 0
        assert not log.hosts.waits()


def _until_written(log: PostgresLog, entry: Entry) -> Mark | None:
    def write() -> list[Mark | None]:
        with suppress(LogUnreachable):
            return log.append([entry])
        return []

    return until(write, what="it is written")[0]


def test_a_caller_is_answered_before_it_gives_up(mortal: PostgresServer) -> None:
    """It is told why, where it would only see its own deadline; and the next ones need not wait as long."""
    with closing(PostgresLog(mortal.new_schema(), patience=10_000)) as log:
        apply(log)
        version = log.versions()[0]
        mortal.kill()
        try:
            with pytest.raises(LogUnreachable, match="cannot be reached"):
                log.append([Awaited(decision(version, "d"), Caller(time.monotonic() + 0.5, lambda: True))])
            with pytest.raises(LogUnreachable, match="cannot be reached"):
                log.append([NewReward(Position(1), "click", 1.0)])  # has no deadline
            with pytest.raises(LogUnreachable, match="cannot be reached"):
                log.head()
        finally:
            mortal.restart()
        assert _until_written(log, decision(version, "d")) is not None


ENDS_OTHERS = "select pg_terminate_backend(pid) from pg_stat_activity where usename = '{}'"


@pytest.mark.parametrize(
    ("fault", "cure", "said"),
    [
        ("alter role {} connection limit 0", "alter role {} connection limit -1", "takes no more connections"),
        (
            "alter role {} set default_transaction_read_only = on",
            "alter role {} reset default_transaction_read_only",
            "takes no writes, it is a standby",
        ),
        ("alter role {} nologin", "alter role {} login", "not permitted to log in|cannot be reached"),
    ],
)
def test_what_keeps_a_writer_out_is_said_and_ends(
    mortal: PostgresServer, fault: str, cure: str, said: str, request: pytest.FixtureRequest
) -> None:
    """Nothing has to be started anew when it is over."""
    role = f"writer_{abs(hash(request.node.name)) % 10**8}"
    url = mortal.new_schema()
    schema = url.rpartition("%3D")[2]
    administer(url, f"create role {role} login; grant all on schema {schema} to {role}")
    with closing(PostgresLog(url.replace("user=postgres", f"user={role}"), patience=0.2)) as log:
        apply(log)
        administer(url, fault.format(role))  # by itself: it has to be committed before the writer connects again
        administer(url, ENDS_OTHERS.format(role))
        with pytest.raises(LogUnreachable, match=said):
            log.append([Tick()])
        assert log.trouble is not None
        administer(url, cure.format(role))
        assert _until_written(log, Tick()) is not None
        assert damages(log) == []


def test_a_full_disk_is_said_and_ends(url: str) -> None:
    """The call fails, and nothing of it is there; whoever frees room need not start anything anew."""
    full = """create function full_disk() returns trigger language plpgsql as
        $$ begin raise 'no room' using errcode = '53100'; end $$"""
    with closing(PostgresLog(url)) as log:
        apply(log)
        version = log.versions()[0]
        administer(url, f"{full}; create trigger full_disk before insert on decisions execute function full_disk()")
        for count in (1, 40):
            with pytest.raises(LogFull, match="no space left"):
                log.append([decision(version, f"d{number}") for number in range(count)])
        administer(url, "drop trigger full_disk on decisions")
        assert log.append([decision(version, "d0")]) != [None]
        assert (log.count_decisions(), log.head().position, damages(log)) == (1, 2, [])


# --- one leader


def test_a_leader_that_lost_its_connection_goes_on_where_nobody_has_led(url: str) -> None:
    """To begin anew would cost what it had learned; and it publishes again."""
    with two_logs(url) as (log, other):
        apply(log)
        lease = log.lease()
        epoch = lease.epoch
        assert lease.held
        administer(url, END_LEADER)
        until(lambda: lease.epoch > epoch, what="it leads again")
        assert lease.held
        assert not lease.replaced
        assert log.append([NEW_MODEL]) != [None]
        with pytest.raises(LogLocked):
            other.lease()


def test_a_leader_that_was_replaced_knows_it(url: str) -> None:
    """It has to begin anew, although nobody leads any more."""
    with two_logs(url) as (log, other):
        apply(log)
        lease = log.lease()
        assert lease.held
        administer(url, "update lease set epoch = epoch + 1")
        administer(url, END_LEADER)
        until(lambda: lease.replaced, what="it has found out")
        assert not lease.held
        with pytest.raises(LogLocked, match="since this one has lost its connection"):
            log.append([Tick()])
        assert other.lease().held


@pytest.mark.parametrize(
    ("module", "work"),
    [
        (hosts, lambda log: log.hosts.say("here", "{}")),
        (writer, lambda log: log.store_totals(TotalsCheckpoint(Mark(Position(1), Time(1)), b"", "{}"))),
    ],
    ids=["news", "totals"],
)
def test_a_leader_that_stands_still_in_a_transaction_keeps_nobody_from_leading(
    url: str, module: ModuleType, work: Callable[[PostgresLog], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has locked the row that its successor writes."""
    stands, goes_on = threading.Event(), threading.Event()

    def stand_still(connection: Connection, epoch: int, name: str) -> None:
        check_epoch(connection, epoch, name)
        stands.set()
        goes_on.wait()

    with two_logs(url) as (log, other):
        lease = log.lease()
        monkeypatch.setattr(module, "check_epoch", stand_still)
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(work, log)
            try:
                assert stands.wait(PATIENCE)
                lease.release()

                def leads() -> bool:
                    with suppress(LogError):
                        return other.lease().held
                    return False

                until(leads, what="another one leads")
            finally:
                goes_on.set()
            with pytest.raises(LogError):
                done.result()


def test_models_that_are_shared_are_few_and_count_as_stored(url: str) -> None:
    """Another host serves them, and a successor goes on from them; only if they were published."""
    signature, saved = "signature", [SavedModel("signature", f"{number}", bytes([number])) for number in range(5)]
    with two_logs(url) as (log, other):
        apply(log)
        lease, share = log.lease(), log.share()
        assert share.own([ExperimentId("home")]) == {ExperimentId("home")}
        for number in range(1, 5):
            log.hosts.share_model(ModelName(ExperimentId("home"), Position(number), signature), saved[number])
        assert other.models.newest(ExperimentId("home"), signature) is None, "none is published"
        log.append([NewModel(ModelName(ExperimentId("home"), Position(3), signature), 1)])
        assert other.models.newest(ExperimentId("home"), signature) == (3, saved[3])
        assert other.models.load(ModelName(ExperimentId("home"), Position(4), signature)) == saved[4]
        assert other.models.load(ModelName(ExperimentId("home"), Position(2), signature)) is None
        assert other.models.stored_positions(ExperimentId("home"), signature) == []
        administer(url, "update learners set epoch = epoch + 1")
        with pytest.raises(LogLocked):
            log.hosts.share_model(ModelName(ExperimentId("home"), Position(9), signature), saved[0])
        with pytest.raises(LogError, match="at most 32 MB"):
            log.hosts.share_model(
                ModelName(ExperimentId("home"), Position(9), signature), SavedModel(signature, "", bytes(33_000_000))
            )
        share.release()
        lease.release()


def test_a_learner_whose_row_is_gone_publishes_nothing(url: str) -> None:
    """A server that took over may have lost it with the last commits: another one may have taken the experiment."""
    with closing(PostgresLog(url)) as log:
        apply(log)
        share = log.share()
        assert share.own([ExperimentId("home")])
        administer(url, "delete from learners")
        with pytest.raises(LogLocked, match="another process learns experiment home"):
            log.append([NEW_MODEL])


@contextmanager
def two_logs(url: str) -> Iterator[tuple[PostgresLog, PostgresLog]]:
    """Of two processes."""
    with closing(PostgresLog(url)) as one, closing(PostgresLog(url)) as other:
        yield one, other


NEW_MODEL = NewModel(ModelName(ExperimentId("home"), Position(1), "signature"), 1)

END_LEADER = """
select pg_terminate_backend(pid) from pg_stat_activity where query like '%as alive%' and pid <> pg_backend_pid()
"""


def test_a_leader_that_lost_its_connection_publishes_nothing(url: str) -> None:
    """It may not know it yet: two leaders would publish past each other."""
    with two_logs(url) as (old, new):
        apply(old)
        lease = old.lease()
        with pytest.raises(LogLocked, match="another server writes this log"):
            new.lease()
        assert old.append([NEW_MODEL]) != [None]
        assert lease.held
        administer(url, END_LEADER)
        assert not lease.held
        with closing(PostgresReader(url)) as reader:
            end = reader.head()
        assert new.lease().held
        with pytest.raises(LogLocked, match="another server writes this log since"):
            old.append([Tick()])
        assert old.head() == end, "nothing of it is written"
        assert old.append([decision(old.versions()[0], "d")]) != [None], "it serves on"
        assert new.append([Tick()]) != [None]
