"""What processes of one log tell each other beside it: models, reports, and counts that never fall."""

from __future__ import annotations

import itertools
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from decider.learn.leader import Progress
from decider.log.open import LogUrl
from decider.log.protocol import ModelName
from decider.metrics.merged import Snapshot, counted, families, merge, snapshot
from decider.policy.make import load_model, make_policy, save_model
from decider.policy.protocol import Model
from decider.server.board import Board, LeaderState, Renewal, Report, Reporter, boards, make_board, worker_name
from decider.server.command import main
from decider.server.crew import SILENT, Workers
from decider.server.http.probes import Readiness
from decider.serving.model_files import LeaderFiles, ModelFiles
from decider.types import Context, ExperimentId, Position
from tests.conftest import plain_choices, spec

HOME = ExperimentId("home")


@pytest.fixture
def board(tmp_path: Path) -> Board:
    """Empty."""
    return Board(make_board(tmp_path / "log.db"))


class Counts:
    """A process's metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.calls = Counter("calls", "Calls.", ("experiment",), registry=self.registry)
        self.seconds = Histogram("seconds", "Seconds.", buckets=(1.0,), registry=self.registry)
        self.memory = Gauge("process_resident_memory_bytes", "Bytes.", registry=self.registry)
        self.ready = Gauge("ready", "Ready.", registry=self.registry)


def value(of: Snapshot, name: str, **labels: str) -> float | None:
    """Of one sample."""
    found = [s.value for family in families(of) for s in family.samples if (s.name, s.labels) == (name, labels)]
    return found[0] if found else None


def test_counts_of_processes_are_added_up_and_gauges_are_the_first_ones() -> None:
    """One target: whoever scrapes it must not need to know how many processes there are."""
    leader, worker = Counts(), Counts()
    for number, one in enumerate((leader, worker), 1):
        one.calls.labels("home").inc(number)
        one.seconds.observe(0.5)
        one.memory.set(100 * number)
        one.ready.set(number)
    worker.calls.labels("mail").inc(5)
    both = merge([snapshot(leader.registry), snapshot(worker.registry)])
    assert value(both, "calls_total", experiment="home") == 3
    assert value(both, "calls_total", experiment="mail") == 5
    assert value(both, "seconds_bucket", le="1.0") == value(both, "seconds_count") == 2
    assert value(both, "process_resident_memory_bytes") == 300
    assert value(both, "ready") == 1


def test_a_successor_counts_on(board: Board) -> None:
    """A counter that falls looks like a restart of everything: rates would be wrong. Its gauges are its own."""
    for starts in (1, 2, 3):
        process = Counts()
        reporter = Reporter(board, worker_name(1), process.registry)
        process.calls.labels("home").inc(2)
        process.memory.set(100)
        reporter.report("")
        report = board.read(worker_name(1))
        assert report is not None
        assert report.starts == starts
        assert value(report.metrics, "calls_total", experiment="home") == 2 * starts
        assert value(report.metrics, "process_resident_memory_bytes") == 100
    reporter.forget([HOME])
    assert value(reporter.counts(), "calls_total", experiment="home") == 2, "what it has counted itself"
    assert counted(reporter.counts(), without=[HOME])[0][3] == []


def test_the_leader_tells_what_the_log_does_not_have(board: Board) -> None:
    """How far a model is that a version waits for, and which models nobody may serve yet."""
    assert board.leader_state() == LeaderState([], {}, [])
    state = LeaderState(
        [Progress(HOME, 2, Position(5), Position(9))], {(HOME, "squarecb"): "a part is missing"}, [ExperimentId("old")]
    )
    board.lead(state)
    assert board.leader_state() == state


@pytest.mark.parametrize(
    ("report", "problem"),
    [
        (None, "worker 2 has not started yet"),
        (lambda: Report(os.getpid(), time.monotonic() - 2 * SILENT, "", 1, []), "worker 2 is down since 6 s"),
        (lambda: Report(2**22 + 1, time.monotonic(), "", 1, []), "worker 2 is down since 0 s"),
        (lambda: Report(os.getpid(), time.monotonic(), "does not follow the log", 1, []), "worker 2 does not follow"),
    ],
)
def test_a_worker_that_should_get_no_calls_is_named(
    board: Board, report: Callable[[], Report] | None, problem: str
) -> None:
    """The whole is ready as long as anybody serves, also while a new leader starts."""
    crew = Workers(board, 2)
    if report is not None:
        board.report(worker_name(2), report())
    none = crew.judge(Readiness(True, "ok"))
    assert not none.ready
    assert problem in none.text
    board.report(worker_name(1), Report(os.getpid(), time.monotonic(), "", 1, []))
    one = crew.judge(Readiness(True, "ok"))
    assert one.ready
    assert one.text.startswith("ok\nworker 2")
    starting = crew.judge(Readiness(False, "learning"))
    assert starting.ready
    assert "the leader does not lead yet: learning" in starting.text


def test_a_worker_loads_what_the_leader_has_published(board: Board) -> None:
    """To the last bit, without the log; and only the newest ones are kept."""
    leader, worker = LeaderFiles(board.folder), ModelFiles(board.folder)
    made_by = spec("thompson")
    policy, actions = make_policy(made_by), plain_choices(3)
    names = [ModelName(HOME, Position(number), made_by.signature) for number in range(1, 6)]
    for number, name in enumerate(names):
        policy.learn(Context(segment="vip"), actions, drawn=number % 3, propensity=0.5, reward=1.0)
        leader.put(name, Model(policy.snapshot(), name.position), lambda: save_model(made_by, policy))
        saved = worker.load(name)
        assert saved is not None
        assert load_model(made_by, saved).pmf(Context(), actions) == policy.snapshot().pmf(Context(), actions)
    assert worker.load(names[0]) is None
    assert len([*board.folder.iterdir()]) == 2
    leader.drop((HOME, made_by.signature))
    assert not [*board.folder.iterdir()]


def test_what_a_kill_has_left_is_removed_and_nothing_else(board: Board, tmp_path: Path) -> None:
    """A folder of somebody's that only has such a name is not ours."""
    left, other = make_board(tmp_path / "log.db"), tmp_path / "log.db-workers-notes"
    (left / "leader.json").write_text("{}")
    other.mkdir()
    (other / "read.me").write_text("mine")
    board.remove_others(tmp_path / "log.db")
    assert sorted(tmp_path.iterdir()) == sorted([board.folder, other])
    assert (other / "read.me").read_text() == "mine"


def test_a_full_disk_holds_up_nobody(board: Board) -> None:
    """Workers serve on with the models that they have, and the leader leads."""
    board.folder.rmdir()
    board.report(worker_name(1), Report(1, 0.0, "", 1, []))
    made_by = spec("squarecb")
    policy = make_policy(made_by)
    name = ModelName(HOME, Position(1), made_by.signature)
    LeaderFiles(board.folder).put(name, Model(policy), lambda: save_model(made_by, policy))
    assert ModelFiles(board.folder).load(name) is None
    assert board.read(worker_name(1)) is None


def test_counts_do_not_fall_where_a_successor_serves_beside(board: Board) -> None:
    """Both report meanwhile, so the one that leaves reports as one of those before, and is counted once."""
    name, crew = worker_name(1), Workers(board, 1)
    both = crew.gather(CollectorRegistry())

    def calls() -> float:
        return sum(s.value for family in both.collect() for s in family.samples if s.name == "calls_total")

    old, new = Counts(), Counts()
    leaving = Reporter(board, name, old.registry)
    old.calls.labels("home").inc(5)
    leaving.report("")
    coming = Reporter(board, name, new.registry, beside=True)
    new.calls.labels("home").inc(2)
    assert not coming.is_free()
    assert calls() == 5
    leaving.leave()
    assert coming.is_free()
    assert calls() == 5, "it is under both names"
    report = board.read(name)
    assert report is not None
    board.report(name, report._replace(pid=os.getppid(), starts=2, metrics=coming.counts()))
    assert calls() == 7
    old.calls.labels("home").inc()
    leaving.report("")
    assert calls() == 8
    third = Reporter(board, name, Counts().registry, beside=True)
    assert third.counts()[0][3] == []
    again = Reporter(board, name, Counts().registry)
    again.leave()
    before = board.read_all(name)[-1]
    assert value(before.metrics, "calls_total", experiment="home") == 8, "a second renewal adds to the first"
    board.report(f"{name} before", before._replace(pid=2**22 + 1))
    crew.forget(HOME)
    assert calls() == 2, "what is gone and forgotten is named no longer"


def test_a_warning_of_a_worker_says_whose_it_is(board: Board) -> None:
    """Each has limits of its own: one may be full while another is not."""
    board.report(worker_name(1), Report(os.getpid(), time.monotonic(), "", 1, [], ["9 of 10 connections are open"]))
    assert Workers(board, 1).judge(Readiness(True, "ok")).text == "ok\nworker 1: 9 of 10 connections are open"


def test_whoever_asks_for_a_renewal_finds_the_parent(board: Board) -> None:
    """Its process id, while it is there, and how far it is."""
    assert board.read_renewal() is None
    board.tell_renewal(Renewal(2, ["worker 1"], ""))
    assert board.read_renewal() == (os.getpid(), Renewal(2, ["worker 1"], ""))


def test_logs_of_one_database_have_boards_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reload of one must not be one of the other. How the address names the user's password is the same to it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    toys = LogUrl("postgresql://ann:secret@db/shop?options=-csearch_path%3Dtoys")
    board = make_board(toys)
    assert [one.folder for one in boards(LogUrl(toys.replace(":secret", "")))] == [board]
    assert boards(LogUrl(toys.replace("toys", "shoes"))) == []


def test_a_reload_is_for_all_of_this_machine(tmp_path: Path) -> None:
    """Several hosts of one log may be on one."""
    both = [Board(make_board(tmp_path / "log.db")) for _ in range(2)]
    asked = itertools.count(1)

    def renew(*_: object) -> None:
        now = next(asked)
        for board in both:
            board.tell_renewal(Renewal(now))

    for board in both:
        board.tell_renewal(Renewal())
    before = signal.signal(signal.SIGUSR2, renew)
    try:
        ran = CliRunner().invoke(main, ["reload", "--db", str(tmp_path / "log.db")])
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert ran.exit_code == 0, ran.output
    assert ran.output.count("all processes are new") == next(asked) - 1 == len(both)
