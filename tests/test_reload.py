"""`decider reload`, and SIGTERM to a worker: new processes take the places of those that serve, and no call is refused.
And a process that hangs is ended."""

from __future__ import annotations

import importlib.metadata
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from decider.client import Client
from decider.log.open import LogUrl, open_reader
from decider.server import command
from decider.server.board import Board, Renewal, boards, make_board
from decider.server.process import build
from decider.v1.experiment_pb2 import Policy, SquareCb, Thompson
from simulator.studies.ledger import ACTIONS, ID, Visitor, count_decisions, count_rewards, visiting
from tests.rpc_clients import experiment, until
from tests.test_workers import Crew, grows, lives, models

PROCESSES = ("leader", "worker 1", "worker 2")
LONG = 60.0
"""Seconds: these visitors keep their connections as long as they may."""

HANDLED = (
    'grpc_server_handled_total{grpc_code="OK",grpc_method="Decide",grpc_service="decider.v1.DeciderService",'
    'grpc_type="unary"}'
)


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    """Whose connections live a second."""
    server = Crew(tmp_path_factory.mktemp("crew") / "log.db", "--max-age", "1", "--hung-after", "3")
    with closing(server.client()) as client:
        client.apply(experiment(ID, *ACTIONS, window=0.4))
    yield server
    assert server.terminate() == 0
    assert "Traceback" not in server.output


def pids(crew: Crew) -> Sequence[int]:
    """Of all children."""
    return [crew.pid(name) for name in PROCESSES]


@contextmanager
def shopping(target: str) -> Iterator[None]:
    """A page with our own client is shown again and again meanwhile, and never its fallback."""
    over = threading.Event()
    with closing(Client(target, timeout=LONG)) as client:

        def show() -> None:
            while not over.is_set():
                client.decide(ID, f"shop-{time.monotonic_ns()}", fallback="a")

        page = threading.Thread(target=show)
        page.start()
        try:
            yield
        finally:
            over.set()
            page.join()
        assert client.fallbacks.total() == 0, client.fallbacks


@contextmanager
def load(crew: Crew, seed: int) -> Iterator[list[Visitor]]:
    """Sixteen visitors with the standard client, half of them with long connections, and a page with ours. All are
    answered at once."""
    visitors = [Visitor(number, seed) for number in range(100 * seed, 100 * seed + 16)]
    with (
        shopping(crew.target),
        visiting(crew.target, visitors[:8], burst=LONG, pause=0.002),
        visiting(crew.target, visitors[8:], pause=0.002),
    ):
        until(lambda: all(len(visitor.decided) > 10 for visitor in visitors), what="all are served")
        yield visitors
    assert not sum(sum(visitor.refused.values()) for visitor in visitors), [one.refused for one in visitors]
    with closing(open_reader(crew.db)) as log:
        assert count_rewards(log, visitors).lost == 0
        assert count_decisions(log, visitors).lost == 0


def test_a_reload_refuses_no_call(crew: Crew) -> None:
    """Each process is another one afterwards, and no counter has fallen."""
    before = pids(crew)
    with load(crew, seed=1) as visitors:
        counted = until(lambda: crew.metric(HANDLED), what="calls are counted")
        done = CliRunner().invoke(command.main, ["reload", "--db", str(crew.db)])
        assert done.exit_code == 0, done.output
        assert done.output.splitlines()[-1] == "all processes are new"
        assert not {*before} & {*pids(crew)}
        assert crew.metric(HANDLED) >= counted
        grows(lambda: models(crew.db), what="learning goes on")
        grows(lambda: sum(len(visitor.decided) for visitor in visitors), what="they decide")
    print(sum(len(visitor.decided) for visitor in visitors), "decisions")


LISTENS = f"""
import os, sys
parent = os.getpid()
def hear(event, args):
    if event in ("import", "open") and os.getpid() != parent:
        name = str(args[0])
        if "egg-info" not in name and name.startswith(("decider.", {str(Path(command.__file__).parent.parent)!r})):
            sys.stderr.write("late: " + name + chr(10))
sys.addaudithook(hear)
from decider.cli import main
main()
"""
"""The command, whose children say what they import and open of ours; not what a library reads that lists the packages
of a checkout."""


def test_nothing_of_ours_is_read_from_the_disk_after_the_start(tmp_path: Path) -> None:
    """A new release may be put there while the server runs: processes that are started then are still of the old one,
    whole."""
    server = Crew(tmp_path / "log.db", program=("-c", LISTENS))
    with closing(server.client()) as client:
        for name, policy in (("a", Policy(thompson=Thompson())), ("b", Policy(squarecb=SquareCb()))):
            client.apply(experiment(name, window=0.05, policy=policy))
            client.reward(client.decide(name).decision_id, name="click")
        grows(lambda: models(server.db), what="models are published")
        shown = client.decide("a").decision_id
        for path in ("/", "/experiments/a", "/metrics", "/readyz", f"/decisions/{shown}"):
            assert client.fetch(path)[0] == 200
        assert client.fetch("/experiments/none")[0] == 404
        client.pause("b")
    assert server.terminate() == 0
    assert "late: " not in server.output, server.output


def test_a_new_process_names_the_release_of_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one may lie on the disk by then."""
    said = build()["decider"]
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "99")
    assert build()["decider"] == said


def test_sigterm_to_a_worker_refuses_no_call(crew: Crew) -> None:
    """A successor serves before it goes."""
    before = crew.pid("worker 1")
    with load(crew, seed=2):
        os.kill(before, signal.SIGTERM)
        until(lambda: crew.pid("worker 1") != before, what="its successor reports")
        until(lambda: not lives(before), what="it has ended")


@pytest.mark.parametrize("name", ["worker 2", "leader"])
def test_a_process_that_hangs_is_ended(crew: Crew, name: str) -> None:
    """It answers nobody, and would do so for ever."""
    hung = crew.pid(name)
    os.kill(hung, signal.SIGSTOP)
    until(lambda: crew.pid(name) != hung, what="another one is in its place")
    assert f"{name} hangs since" in crew.output
    with closing(crew.client()) as client:
        until(lambda: client.fetch("/readyz") == (200, "ok\n"), what="all is well")


NORTH, SOUTH = (LogUrl(f"postgresql://ann@db/shop?options=-csearch_path%3D{name}") for name in ("north", "south"))
"""Two logs of one database."""


def test_a_reload_is_of_every_server_of_the_log_on_this_machine_and_of_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two servers may write a log in PostgreSQL, and a third one another log of that database."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    north, south = [Board(make_board(NORTH)) for _ in range(2)], Board(make_board(SOUTH))
    for board in (*north, south):
        board.tell_renewal(Renewal())
    assert {board.folder for board in boards(NORTH)} == {board.folder for board in north}
    assert [board.folder for board in boards(SOUTH)] == [south.folder]
    asked: list[int] = []

    def hear(number: int, _: object) -> None:
        asked.append(number)
        for board in north:
            board.tell_renewal(Renewal(asked=len(asked)))

    before = signal.signal(signal.SIGUSR2, hear)
    try:
        done = CliRunner().invoke(command.main, ["reload", "--db", str.__str__(NORTH)])
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert (done.exit_code, done.output.count("all processes are new"), len(asked)) == (0, 2, 2), done.output
    assert f"server 2 of 2, process {os.getpid()}:" in done.output


def test_a_reload_without_a_server_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the log's name, by which it was looked for."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    done = CliRunner().invoke(command.main, ["reload", "--db", str.__str__(NORTH)])
    assert (done.exit_code, f"no `decider serve --workers N` runs on {NORTH} on this machine" in done.output) == (
        1,
        True,
    )
