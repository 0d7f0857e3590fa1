"""`decider reload`, and SIGTERM to a worker: new processes take the places of those that serve, and no call is refused.
And a process that hangs is ended."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import pytest
from click.testing import CliRunner

from decider.client import Client
from decider.log.open import open_reader
from decider.server.command import main
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

CONNECTIONS = 'decider_connections{listener="--listen"}'


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


class Shop:
    """Decides with our own client until `over` is set."""

    def __init__(self, target: str) -> None:
        self._over = threading.Event()
        self._target = target
        self.answers = 0
        self._thread = threading.Thread(target=self._call)

    def _call(self) -> None:
        with closing(Client(self._target, timeout=10.0)) as client:
            while not self._over.is_set():
                client.decide(ID, f"shop-{self.answers}", fallback="a")
                self.answers += 1


@contextmanager
def load(crew: Crew, seed: int) -> Iterator[list[Visitor]]:
    """Sixteen visitors with the standard client, half of them with long connections. All are answered at once."""
    visitors = [Visitor(number, seed) for number in range(100 * seed, 100 * seed + 16)]
    with (
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
        until(lambda: crew.metric(CONNECTIONS) >= len(visitors), what="the connections of both workers are counted")
        done = CliRunner().invoke(main, ["reload", "--db", str(crew.db)])
        assert done.exit_code == 0, done.output
        assert done.output.splitlines()[-1] == "all processes are new"
        assert not {*before} & {*pids(crew)}
        assert crew.metric(HANDLED) >= counted
        grows(lambda: models(crew.db), what="learning goes on")
        grows(lambda: sum(len(visitor.decided) for visitor in visitors), what="they decide")
    print(sum(len(visitor.decided) for visitor in visitors), "decisions")


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
