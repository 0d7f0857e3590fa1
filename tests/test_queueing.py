"""The simulation of queues, beside closed forms: what it says of waits backs SCALING.md."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import numpy as np
import pytest
import simpy
from scipy.optimize import brentq

from decider.log.group_commit import MOST_WAITING
from simulator.studies.queueing import SLOW_DISK, Line, Setting, Steps, costs_of, simulate

CUSTOMERS = 40_000
SERVICE = 1.0
"""Seconds, on average."""


def sojourns(
    rate: float, service: Callable[[Random], float], servers: int = 1
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Seconds from arrival to end, of customers who come at random."""
    random, env = Random(1), simpy.Environment()
    line, found = Line(env, servers), list[float]()

    def customer() -> Steps:
        came = env.now
        yield from line.serve(service(random))
        found.append(env.now - came)

    def arrivals() -> Steps:
        for _ in range(CUSTOMERS):
            yield env.timeout(random.expovariate(rate))
            env.process(customer())

    env.process(arrivals())
    env.run()
    return np.array(found[CUSTOMERS // 10 :])


def always(_: Random) -> float:
    """Of an M/D/1 queue."""
    return SERVICE


def at_random(random: Random) -> float:
    """Of an M/M/1 or M/M/c queue."""
    return random.expovariate(1 / SERVICE)


def share_that_waits_at_most(seconds: float, rate: float) -> float:
    """M/D/1, service of 1 s: Erlang's formula (1909).

    >>> share_that_waits_at_most(0.0, 0.8)  # who finds nobody
    0.2
    """
    terms = [
        (rate * (count - seconds)) ** count / math.factorial(count) * math.exp(-rate * (count - seconds))
        for count in range(int(seconds) + 1)
    ]
    return round((1 - rate) * sum(terms), 12)


@pytest.mark.parametrize("rate", [0.5, 0.7])
def test_waits_with_a_service_that_is_always_the_same(rate: float) -> None:
    """M/D/1: mean wait within 5 % of Pollaczek and Khinchine, p99 within 8 % of Erlang."""
    waits = sojourns(rate, always) - SERVICE
    assert waits.mean() == pytest.approx(rate / (2 * (1 - rate)), rel=0.05)
    p99 = brentq(lambda seconds: share_that_waits_at_most(seconds, rate) - 0.99, 0.0, 30.0)
    assert np.quantile(waits, 0.99) == pytest.approx(p99, rel=0.08)


@pytest.mark.parametrize("rate", [0.5, 0.7])
def test_waits_with_a_service_at_random(rate: float) -> None:
    """M/M/1: the time in the system is exponential with mean 1 / (1 - rate); within 5 %, p99 within 8 %."""
    found = sojourns(rate, at_random)
    assert found.mean() == pytest.approx(1 / (1 - rate), rel=0.05)
    assert np.quantile(found, 0.99) == pytest.approx(math.log(100) / (1 - rate), rel=0.08)


def test_waits_with_several_servers() -> None:
    """M/M/4 at 75 %: mean wait within 8 % of Erlang C."""
    servers, rate = 4, 3.0
    last = rate**servers / math.factorial(servers) / (1 - rate / servers)
    erlang_c = last / (sum(rate**n / math.factorial(n) for n in range(servers)) + last)
    waits = sojourns(rate, at_random, servers).mean() - SERVICE
    assert waits == pytest.approx(erlang_c / (servers - rate), rel=0.08)


CLUSTERS = [
    Setting(in_flight=32, calls=8_000),
    Setting(workers=8, in_flight=32, calls=8_000),
    Setting(workers=4, rate=8_000, calls=8_000),
    Setting(workers=16, in_flight=32, network=0.0005, costs=costs_of(SLOW_DISK), calls=16_000),
]


@pytest.mark.parametrize("setting", CLUSTERS, ids=lambda one: f"{one.workers} workers")
def test_a_cluster_keeps_the_laws_of_every_queue(setting: Setting) -> None:
    """Processor and head are busy for what the calls take; in a closed loop, calls in flight = rate x wait (Little)."""
    found = simulate(setting)
    models = 2 * setting.costs.new_model
    calls = found.rate / setting.workers * setting.costs.call(found.known, found.group)
    assert found.worker == pytest.approx(calls + models, rel=0.04)
    assert 0 < found.head <= 1.0
    if setting.in_flight:
        assert found.rate * found.waits.mean() == pytest.approx(setting.workers * setting.in_flight, rel=0.04)
    else:
        assert found.rate == pytest.approx(setting.rate, rel=0.04)


def test_the_head_row_is_the_end_of_one_log() -> None:
    """With enough workers it is always taken: the log takes a group in the time for which a group has the row."""
    setting = Setting(workers=24, in_flight=64, network=0.0002, calls=30_000)
    found = simulate(setting)
    assert found.head == pytest.approx(1.0, abs=0.02)
    assert MOST_WAITING / 2 <= found.group <= MOST_WAITING
    assert found.rate == pytest.approx(found.group / setting.costs.held(round(found.group), 0.0002, 0.0), rel=0.1)


def test_the_same_seed_gives_the_same_waits() -> None:
    """Every figure can be made again."""
    one, other = (simulate(Setting(rate=1_500, calls=3_000)) for _ in range(2))
    assert one.waits.tolist() == other.waits.tolist()
    assert simulate(Setting(rate=1_500, calls=3_000, seed=2)).waits.tolist() != one.waits.tolist()
