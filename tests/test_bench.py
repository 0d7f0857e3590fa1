"""The bench of serving and the study of growth, small: every row and cell can be measured. No test asserts a time."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from decider.log.open import open_reader
from decider.types import ExperimentId, Time, now
from simulator.studies import bench, bench_features, growth
from simulator.studies.growth_plot import drawing
from simulator.studies.load import LARGEST_MESSAGE
from simulator.studies.prepared import LESSONS, SECOND, TRICKLE, storefront_visitor, write_log


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
