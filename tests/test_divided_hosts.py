"""Learning that is divided between two hosts, as real processes: who learns what, also where one is gone."""

from __future__ import annotations

import re
import signal
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from decider.log.open import LogUrl, open_reader
from decider.types import ExperimentId
from simulator.verify import verify
from tests.hosts import Host
from tests.postgres import PostgresServer
from tests.rpc_clients import RpcClient, experiment, until

NAMES = tuple(f"shop-{number}" for number in range(4))

LEARNS = re.compile(r'decider_learns\{experiment="([^"]+)"\} 1.0')


def learned_by(host: Host) -> set[str]:
    """The experiments that a host learns, as its metrics say."""
    return set(LEARNS.findall(host.client().fetch("/metrics")[1]))


def are_divided(a: Host, b: Host) -> bool:
    """Whether each learns half of all."""
    first, second = learned_by(a), learned_by(b)
    return len(first) == len(second) == len(NAMES) // 2 and first | second == {*NAMES}


def teach(client: RpcClient) -> None:
    """Some decisions of each experiment, with rewards."""
    for name in NAMES:
        made = client.decide(name, f"unit-{time.monotonic_ns()}")
        client.reward(made.decision_id, value=1.0)


def models(client: RpcClient) -> dict[str, int]:
    """What serves."""
    return {name: client.decide(name).model for name in NAMES}


def serve_newer(client: RpcClient, than: dict[str, int]) -> bool:
    """Whether all experiments serve newer models; meanwhile there is something to learn."""
    teach(client)
    return all(model > than[name] for name, model in models(client).items())


def test_two_hosts_divide_what_is_learned(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Models of each reach the visitors of both. Where a host that stands by, or the leader, is killed or stands still,
    the other one learns all within seconds; and what served comes out again."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    url = postgres.new_schema()
    a = Host(tmp_path, "a", url)
    with closing(a.client()) as client:
        for name in NAMES:
            client.apply(experiment(name, window=0.05))
        until(lambda: learned_by(a) == {*NAMES}, what="one host learns all")
        b = Host(tmp_path, "b", url)
        until(partial(are_divided, a, b), what="each learns half")
        assert "decider_seal_lag_seconds" in b.client().fetch("/metrics")[1]
        with closing(b.client()) as other:
            until(partial(serve_newer, client, dict.fromkeys(NAMES, 0)), what="all learn")
            until(partial(serve_newer, other, models(client)), what="all serve everywhere")
            b.signal("leader", signal.SIGKILL)
            until(partial(serve_newer, client, models(client)), what="all are learned on")
            until(partial(are_divided, a, b), what="who was killed learns again")
            b.signal("leader", signal.SIGSTOP)
            until(lambda: learned_by(a) == {*NAMES}, what="the other one learns all")
            b.signal("leader", signal.SIGCONT)
            until(partial(are_divided, a, b), what="each learns half again")
            led = b.led
            a.process.send_signal(signal.SIGSTOP)  # else its parent starts it again at once, and it may lead again
            try:
                a.signal("leader", signal.SIGKILL)
                b.leads(led)
            finally:
                a.process.send_signal(signal.SIGCONT)
            until(partial(serve_newer, other, models(client)), what="all are learned by both")
            until(partial(are_divided, a, b), what="who led before learns beside the other one")
    for host in (b, a):
        assert host.terminate() == 0
        assert "Traceback" not in host.output
    with closing(open_reader(LogUrl(url))) as log:
        assert log.check(lambda _: None) == []
        done = verify(log)
        assert done.equal == done.decisions == log.count_decisions()
        assert all(log.count_learned(ExperimentId(name)) > 5 for name in NAMES)
