"""The bench of serving and the study of growth, small: every row and cell can be measured. No test asserts a time."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from decider.log.open import open_reader
from decider.types import ExperimentId, Time, now
from simulator.studies import bench, bench_access, bench_features, bench_web, growth
from simulator.studies.growth_plot import drawing
from simulator.studies.load import LARGEST_MESSAGE
from simulator.studies.load_http1 import answered, request
from simulator.studies.prepared import LESSONS, SECOND, TRICKLE, requests, storefront_visitor, write_log
from simulator.studies.served import cpu_seconds
from simulator.studies.side_by_side import INTERPRETER


@pytest.mark.parametrize("row", bench.ROWS, ids=lambda row: row.name)
def test_a_row_sends_many_different_requests(row: bench.Row) -> None:
    """One repeated request flatters a cache; one that does not fit would stop the load."""
    sent = {message.SerializeToString() for message in bench.messages(row)}
    assert len(sent) >= 200
    assert max(map(len, sent)) <= LARGEST_MESSAGE


def test_a_prepared_log_seals_a_few_decisions_at_a_time(tmp_path: Path) -> None:
    """A new model must serve every half second while the load runs, although nothing of the load is learned."""
    begin = now()
    write_log(tmp_path / "log.db", storefront_visitor, actions=3, window=900, trickle=10, open_decisions=7)
    with closing(open_reader(tmp_path / "log.db")) as log:
        sealed = [
            one.deadline
            for one in log.sealed_decisions(ExperimentId("bench"), after=Time(0), until=Time(begin + 60 * SECOND))
        ]
        assert log.count_decisions() == len(sealed) + 7
    assert sum(deadline < begin for deadline in sealed) == LESSONS
    assert len(sealed) == LESSONS + 10 * TRICKLE
    assert max(sealed) - begin >= 9 * SECOND


@pytest.mark.parametrize("name", ["Decide", "DecideBatch of 100", "Reward"])
def test_a_row_is_measured_beside_the_echo(name: str, tmp_path: Path) -> None:
    """Both servers answer every call of the load without an error, or it raises."""
    (row,) = (row for row in bench.ROWS if row.name == name)
    of = bench.measure(row, tmp_path, seconds=0.2, rounds=1)
    assert of.ours.rate > 0
    assert of.echo.rate > 0
    assert bench.line(row, of).count("|") == bench.heading().splitlines()[0].count("|")


@pytest.mark.parametrize("feature", bench_features.FEATURES, ids=lambda feature: feature.name)
def test_a_feature_can_be_declared(feature: bench_features.Feature, tmp_path: Path) -> None:
    """In the second version of an experiment, as the bench does."""
    write_log(
        tmp_path / "log.db", storefront_visitor, actions=10, window=900, trickle=0,
        declare=feature.declare, beside=feature.beside,
    )  # fmt: skip


@pytest.mark.parametrize("feature", [bench_features.FEATURES[0], bench_features.FEATURES[-1]], ids=lambda f: f.name)
def test_a_feature_is_measured_beside_none(feature: bench_features.Feature, tmp_path: Path) -> None:
    """All of them can be declared together, and every call is answered without an error, or it raises."""
    few = replace(feature, units=100)
    cost = bench_features.measure(few, tmp_path, seconds=0.2, rounds=1)
    assert min(cost.on, cost.off) > 0
    assert bench_features.line(few, cost).count("|") == bench_features.heading().splitlines()[0].count("|")


def test_ways_to_call_are_measured_beside_the_plain_one(tmp_path: Path) -> None:
    """Servers and echoes let the load in with token and certificate over TLS, or it raises."""
    everything = bench_access.Way("everything", token=True, tls=True, certificate=True)
    found = bench_access.measure([bench_access.PLAIN, everything], tmp_path, seconds=0.05, rounds=3)
    assert all(min(one.ours, one.echo) > 0 for rounds in found.values() for one in rounds)
    for way, rounds in found.items():
        line = bench_access.line(way, bench_access.cost(rounds, found[bench_access.PLAIN]))
        assert line.count("|") == bench_access.heading().splitlines()[0].count("|")
    assert bench_access.limits(times=10) > 0


def test_every_way_in_is_measured_beside_grpc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call over HTTP is answered as its protocol says that it is good, or it raises."""
    monkeypatch.setattr(bench_web, "WARM", 0.05)
    found = bench_web.measure(bench_web.WAYS, tmp_path, seconds=0.1, rounds=2, beside=False)
    assert list(found) == [bench_web.GRPC, bench_web.GRPC_MANY, bench_web.FLAGD, *(way.name for way in bench_web.WAYS)]
    for name in found:
        compared = bench_web.compare(found, name)
        assert compared.figures.rate > 0
        assert bench_web.line(name, compared).count("|") == bench_web.heading().splitlines()[0].count("|")


@pytest.mark.skipif(
    not INTERPRETER.exists(), reason="the rivals' environment is not there: `make side-by-side` makes it"
)
def test_the_rival_takes_the_same_requests(tmp_path: Path) -> None:
    """It decides, keeps the decision with its probability, and learns from its reward."""
    asked = requests(storefront_visitor, actions=10, count=1)[0]
    with bench_web.serving_rival(tmp_path) as (_, port):
        assert answered(port, bench_web.rival(asked)).status == 0
        with closing(sqlite3.connect(tmp_path / "rival.db")) as log:
            ((id_, propensity),) = log.execute("select id, propensity from decision")
        assert 0 < propensity <= 1
        reward = request("/reward", json.dumps({"decision_id": id_}).encode(), "application/json")
        assert answered(port, reward).status == 0


def test_the_interval_of_a_median_leaves_out_rounds_at_both_ends() -> None:
    """A few rounds beside somebody's tests must not carry it."""
    found = bench_access.spread([*range(98), 10_000, 10_000])
    assert (found.median, found.low, found.high) == (49.5, 39, 60)


def test_processor_time_of_a_process_is_told_to_less_than_a_tick() -> None:
    """Turns are as short as 50 ms; the ticks of /proc are 10."""
    before, end = cpu_seconds(os.getpid()), time.process_time() + 0.003
    while time.process_time() < end:
        pass
    assert 0.003 <= cpu_seconds(os.getpid()) - before < 1


@pytest.mark.parametrize("cell", growth.QUICK[:1] + growth.QUICK[3:4], ids=lambda cell: cell.axis)
def test_a_cell_is_measured_and_drawn(cell: growth.Cell, tmp_path: Path) -> None:
    """Log, two starts, scrapes and a little traffic."""
    db, written = tmp_path / "log.db", [0]

    def tell(count: int) -> None:
        written[0] += count

    growth.write_log(db, cell, tell)
    assert written == [cell.decisions]
    of = growth.measure(db, cell, 0.5)
    assert of.memory > 0
    assert growth.line(cell, of).count("|") == growth.heading().splitlines()[0].count("|")
    assert drawing([(cell.axis, cell.value, asdict(of))] * 2).startswith(b"<?xml")


def test_a_server_that_does_not_start_has_its_row() -> None:
    """The study goes on: that it does not start is what is to be known."""
    row = growth.line(growth.Cell("versions", versions=5_000), "does not start: too many open files")
    assert "too many open files" in row
    assert row.count("|") == growth.heading().splitlines()[0].count("|")
