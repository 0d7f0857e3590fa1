"""`decider serve --workers 1 --db postgresql://...` on two hosts (here: on two sets of ports), as real processes.

One of them leads, and each process and PostgreSQL itself are stopped or killed while both are called.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import grpc
import psycopg
import pytest

from decider.log.open import LogUrl, open_log, open_reader
from simulator.studies.ledger import ACTIONS, ID, count_decisions, count_rewards
from simulator.verify import verify
from tests.hosts import Host
from tests.postgres import PostgresServer, administer, postgres_server
from tests.rpc_clients import experiment, until
from tests.test_crash import WINDOW
from tests.test_workers import PatientVisitor, own_client

VISITORS = 3
"""Of each host."""


@pytest.fixture(scope="module")
def mortal() -> Iterator[PostgresServer]:
    """A server that may be killed, and loses nothing then."""
    with postgres_server(()) as server:
        yield server


@contextmanager
def visiting(hosts: list[Host], seed: int) -> Iterator[list[PatientVisitor]]:
    """Visitors of all hosts who call as fast as they can meanwhile."""
    over = threading.Event()
    visitors = [PatientVisitor(number, seed) for number in range(VISITORS * len(hosts))]
    threads = [
        threading.Thread(target=visitor.visit_on, args=(hosts[number % len(hosts)].target, over))
        for number, visitor in enumerate(visitors)
    ]
    for thread in threads:
        thread.start()
    try:
        yield visitors
    finally:
        over.set()
        for thread in threads:
            thread.join()


def newest_model(url: str) -> int:
    """The newest published one."""
    with closing(open_reader(LogUrl(url))) as log:
        return max([position for version in log.versions() for position in log.models.published_positions(
            version.experiment.id, version.experiment.policy.signature)], default=0)  # fmt: skip


def serves_newer(host: Host, than: int) -> None:
    """Wait until a host serves a newer model."""
    with closing(own_client(host.target)) as client:

        def look() -> bool:
            try:
                return client.decide(ID).model > than
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE:
                    raise
                return False

        until(look, what="a newer model serves")


def check_ledger(url: str, visitors: list[PatientVisitor]) -> None:
    """What was acknowledged is in the log, once; the log is whole, and comes out again."""
    with closing(open_reader(LogUrl(url))) as log:
        assert log.check(lambda _: None) == []
        decided, rewarded = count_decisions(log, visitors), count_rewards(log, visitors)
        assert decided.sound, decided
        assert rewarded.sound, rewarded
        assert decided.acknowledged > 100
        done = verify(log)
        assert done.equal == done.decisions > 100


def test_hosts_share_a_log_whoever_dies(
    mortal: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One leads, and its models serve on both. Where it stands still, dies, or is cut off by the death of PostgreSQL,
    somebody leads again; what was acknowledged is there, once; the models are those that one process makes."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    url = mortal.new_schema()
    a = Host(tmp_path, "a", url)
    client = a.client()
    client.apply(experiment(ID, *ACTIONS, window=WINDOW))
    b = Host(tmp_path, "b", url)
    code, text = b.client().fetch("/readyz")
    assert (code, "stands by" in text, "leads" in text) == (200, True, True)
    assert 'decider_worker_up{worker="1"} 1.0' in b.client().fetch("/metrics")[1]
    with visiting([a, b], seed=20_261_129) as visitors:
        for host in (a, b):
            serves_newer(host, 0)
        a.signal("leader", signal.SIGSTOP)
        b.leads()
        before = newest_model(url)
        serves_newer(a, before)  # whose own leader stands still
        a.signal("leader", signal.SIGCONT)
        until(lambda: "another host leads" in a.output, what="it has found out")
        until(lambda: "stands by" in client.fetch("/readyz")[1], what="it stands by")
        b.signal("leader", signal.SIGKILL)
        before = newest_model(url)
        for host in (a, b):
            serves_newer(host, before)
        mortal.kill()
        mortal.restart()
        before = newest_model(url)
        for host in (a, b):
            serves_newer(host, before)
    for visitor in visitors:
        visitor.settle(client.target)
    client.close()
    for host in (b, a):
        assert host.terminate() == 0
        assert "Traceback" not in host.output
    assert not [*tmp_path.glob("*-workers-*")], "no folder is left"
    check_ledger(url, visitors)


def test_a_host_whose_role_may_not_lead_serves_beside_one_that_does(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the worker's rights a host never leads, and nothing there can change or delete an entry; with the leader's,
    the same but for models and totals."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    url = postgres.new_schema()
    with closing(open_log(LogUrl(url))):  # its owner makes the tables
        pass
    roles = (Path(__file__).parents[1] / "decider" / "log" / "postgres" / "roles.sql").read_text()
    administer(url, roles)
    urls = {}
    for role in ("worker", "leader"):
        login = f"{url.rpartition('log_')[2]}_{role}"
        administer(url, f"create role host_{login} login in role decider_{role}")
        urls[role] = url.replace("user=postgres", f"user=host_{login}")
    leading = Host(tmp_path, "leading", urls["leader"])
    with closing(leading.client()) as client:
        client.apply(experiment(ID, *ACTIONS, window=WINDOW))
        serving = Host(tmp_path, "serving", urls["worker"])
        for host in (leading, serving):
            made = [client.decide(ID).decision_id for _ in range(5)]
            client.reward(made[0], value=1.0)
            serves_newer(host, 0)
        leading.signal("leader", signal.SIGKILL)
        before = newest_model(url)
        for number in range(5):
            client.reward(client.decide(ID, f"unit-{number}").decision_id, value=1.0)
        serves_newer(serving, before)
        assert serving.led == 0
    for login in urls.values():
        for sql in ("delete from decisions", "update decisions set action = 'x'", "update rewards set value = 1",
                    "delete from published", "truncate decisions", "drop table decisions"):  # fmt: skip
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                administer(login, sql)
    for host in (serving, leading):
        assert host.terminate() == 0
        assert "Traceback" not in host.output
