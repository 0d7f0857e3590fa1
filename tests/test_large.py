"""Logs larger than memory: divided by unit, evaluated part by part, with the figures of all at once."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from decider.estimate.default_interval import default_interval
from decider.estimate.divided import SampleSums, Spread, divided_interval
from decider.estimate.sample import Floats, Sample, Units
from simulator.commands.group import main
from simulator.logs import divide as division
from simulator.logs.divide import divide, part_folder, plan_division
from simulator.logs.options import ReadOptions
from tests.large_logs import write_large

CLOSE = 1e-9
"""Relative: sums in another order, and the precision of the likelihood's limits."""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 50,000 decisions, in two files."""
    folder = tmp_path_factory.mktemp("log")
    write_large(folder / "1.parquet", rows=30_000)
    write_large(folder / "2.parquet", rows=20_000, seed=2)
    return folder


def found(command: str, log: Path, json_file: Path, *options: str) -> dict[str, Any]:
    """The JSON of a command that ends well."""
    policies = ["--policy", "uniform", "--policy", "fixed:a", "--policy", "fixed:rare"]
    given = [command, str(log), "--reward-range", "0", "1", *policies, "--force", "--json", str(json_file), *options]
    result = CliRunner().invoke(main, given)
    assert result.exit_code == 0, result.output
    loaded: dict[str, Any] = json.loads(json_file.read_text(encoding="utf-8"))
    return loaded


def divided(folder: Path) -> list[str]:
    """Options."""
    return ["--folder", str(folder / "parts"), "--parts", "3", "--workers", "1"]


# Intervals


def parts_of(sample: Sample, unit_part: Any, parts: int) -> list[Sample]:
    """The units of each part."""
    bounds = (sample.low, sample.high, sample.max_weight)
    return [
        Sample(sample.total[rows], sample.weight[rows], sample.size[rows], *bounds)
        for rows in (unit_part == part for part in range(parts))
    ]


def in_parts(parts: list[Sample]) -> tuple[float, float]:
    """Low and high."""
    sums = SampleSums.of(parts[0])
    for part in parts[1:]:
        sums += SampleSums.of(part)
    points = [sums.points(part) for part in parts]
    spread = Spread.of(points[0])
    for one in points[1:]:
        spread += Spread.of(one)
    count = sum(map(spread.grid.count, points[1:]), spread.grid.count(points[0]))
    interval = divided_interval(sums, spread, count, value_range=(0.0, 1.0))
    return interval.low, interval.high


def weighted(random: np.random.Generator, decisions: int) -> tuple[Floats, Floats]:
    """Weights with a mean of 1, and weighted rewards."""
    weight = np.minimum(random.exponential(size=decisions), 20.0)
    return weight, weight * (random.random(decisions) < 0.1)


@pytest.mark.parametrize("visits", [1, 3])
@pytest.mark.parametrize("parts", [1, 7])
def test_an_interval_of_parts_is_that_of_all_units_at_once(visits: int, parts: int) -> None:
    """Whoever has no room for the log must not get another answer. (Few units have exact points, and no grid.)"""
    random = np.random.default_rng(visits)
    weight, terms = weighted(random, 60_000 * visits)
    units = Units(random.integers(0, 60_000, len(weight)) if visits > 1 else np.arange(len(weight)))
    sample = units.sample(terms, weight, low=0.0, high=20.0, max_weight=20.0)
    whole = default_interval(sample, value_range=(0.0, 1.0))
    low, high = in_parts(parts_of(sample, random.integers(0, parts, len(sample.size)), parts))
    assert math.isclose(low, whole.low, rel_tol=1e-8)
    assert math.isclose(high, whole.high, rel_tol=1e-8)


# Dividing


def test_every_row_comes_into_one_part_and_every_unit_too(log: Path, tmp_path: Path) -> None:
    """A unit in two parts would count as two, and intervals would be too short."""
    plan = plan_division(log, ReadOptions(), parts=4, folder=tmp_path)
    assert (plan.rows, plan.parts) == (50_000, 4)
    rows = [divide(task) for task in plan.tasks]
    tables = [pq.read_table(part_folder(tmp_path, part)) for part in range(4)]
    assert [len(table) for table in tables] == np.sum([one.by_part for one in rows], axis=0).tolist()
    assert min(map(len, tables)) > 10_000
    users = [set(table["user_id"].to_pylist()) for table in tables]
    assert sum(map(len, users)) == len(set.union(*users))
    whole = pa.concat_tables(
        [pq.read_table(log / name).select(tables[0].column_names) for name in ("1.parquet", "2.parquet")]
    )
    order = [(name, "ascending") for name in ("user_id", "time", "action", "reward")]
    assert pa.concat_tables(tables).sort_by(order).equals(whole.sort_by(order))


def test_a_file_is_divided_by_row_groups_and_the_same_again_is_the_same(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file must not be one task; and a task that is run again, since its worker died, must not add rows."""
    monkeypatch.setattr(division, "TASK_ROWS", 12_000)
    plan = plan_division(log / "1.parquet", ReadOptions(), parts=2, folder=tmp_path)
    assert [(task.first, task.last) for task in plan.tasks] == [(0, 1), (2, 3), (4, 4)]
    first = [divide(task) for task in plan.tasks]
    assert [divide(task) for task in plan.tasks] == first
    assert len(pq.read_table(tmp_path)) == 30_000
    assert not list(tmp_path.rglob("*.unfinished"))


def test_rows_without_a_unit_are_spread_over_all_parts(tmp_path: Path) -> None:
    """Each is a unit of its own; together they would fill one part, which is the memory."""
    file = tmp_path / "log.parquet"
    table = {"user_id": [None, "", "unknown", "u"] * 100, "action": ["a"] * 400, "reward": [0.0] * 400}
    pq.write_table(pa.table(table), file)
    plan = plan_division(file, ReadOptions(), parts=5, folder=tmp_path / "parts")
    (rows,) = [divide(task) for task in plan.tasks]
    assert min(rows.by_part) >= 55


# The whole command


@pytest.mark.parametrize("pmf", [False, True], ids=["propensities", "pmfs"])
def test_figures_are_those_of_the_whole_log(tmp_path: Path, pmf: bool) -> None:
    """With `rare`, which a part hardly has, and with an action that the log could not draw. DR has a reward model of
    each part, so it is another estimate of the same mean."""
    file = tmp_path / "log.parquet"
    write_large(file, pmf=pmf)
    whole = found("evaluate", file, tmp_path / "whole.json")
    large = found("evaluate-large", file, tmp_path / "large.json", *divided(tmp_path))
    assert (large["decisions"], large["units"]) == (whole["log"]["decisions"], whole["log"]["units"])
    by_name = {one["name"]: one for one in whole["policies"]}
    assert [one["name"] for one in large["policies"]] == list(by_name)
    for one in large["policies"]:
        other = by_name[one["name"]]
        assert math.isclose(one["ess"], other["diagnostics"]["ess"], rel_tol=CLOSE)
        assert math.isclose(one["missing_mass"], other["diagnostics"]["missing_mass"], rel_tol=CLOSE, abs_tol=CLOSE)
        for name in ("ips", "snips"):
            if name in other["estimates"]:
                for end in ("value", "low", "high"):
                    assert math.isclose(one["estimates"][name][end], other["estimates"][name][end], rel_tol=1e-8)
        if "dr" in one["estimates"]:
            width = other["estimates"]["dr"]["high"] - other["estimates"]["dr"]["low"]
            assert abs(one["estimates"]["dr"]["value"] - other["estimates"]["dr"]["value"]) < 0.1 * width
            assert math.isclose(one["estimates"]["dr"]["high"] - one["estimates"]["dr"]["low"], width, rel_tol=0.05)


def test_a_second_policy_divides_nothing_again(log: Path, tmp_path: Path) -> None:
    """Dividing writes the whole log; asking one more question should not."""
    options = ["--reward-range", "0", "1", "--folder", str(tmp_path), "--parts", "2", "--workers", "1"]
    written = []
    for policy in ("uniform", "fixed:b"):
        assert CliRunner().invoke(main, ["evaluate-large", str(log), "--policy", policy, *options]).exit_code == 0
        written.append({file: file.stat().st_mtime_ns for file in tmp_path.rglob("part-*/*.parquet")})
    assert len(written[0]) == 4
    assert written[1] == written[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no part knows what a reward can be in the others; say it: --reward-range 0 1"),
        (["--reward-range", "0", "1", "--actions", "9"], "name the actions, not how many there are"),
        (["--reward-range", "0", "1", "--column", "ignore=user_id"], "no column says who a decision is for"),
        (["--reward-range", "0", "1", "--policy", "{folder}/learns.toml"], "learns along the log"),
        (["--reward-range", "0", "1", "--policy", "fixed:nothing"], "the log has no such action"),
    ],
)
def test_what_cannot_be_is_said_with_the_way_out(log: Path, tmp_path: Path, options: list[str], message: str) -> None:
    """Before the log is divided, where that can be known."""
    (tmp_path / "learns.toml").write_text('id = "log"\nactions = [{ id = "a" }, { id = "b" }]\n', encoding="utf-8")
    given = [one.format(folder=tmp_path) for one in options]
    command = ["evaluate-large", str(log), "--policy", "uniform", "--folder", str(tmp_path / "parts"), "--parts", "2"]
    result = CliRunner().invoke(main, [*command, "--workers", "1", *given])
    assert result.exit_code == 2
    assert message in result.output


def test_a_table_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    """Rows of a CSV have no places that several workers could begin at."""
    file = tmp_path / "log.csv"
    file.write_text("user_id,action,reward\nu,a,1\n", encoding="utf-8")
    command = [
        "evaluate-large",
        str(file),
        "--policy",
        "uniform",
        "--reward-range",
        "0",
        "1",
        "--folder",
        str(tmp_path),
    ]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert "only Parquet can be divided" in result.output


def test_a_file_that_is_torn_is_named(log: Path, tmp_path: Path) -> None:
    """Of a thousand files; and what was divided before is kept."""
    (tmp_path / "torn.parquet").write_bytes((log / "1.parquet").read_bytes()[:-9])
    options = ["--reward-range", "0", "1", "--policy", "uniform", "--folder", str(tmp_path / "parts")]
    result = CliRunner().invoke(main, ["evaluate-large", str(tmp_path / "torn.parquet"), *options])
    assert result.exit_code == 2
    assert "torn.parquet: is no Parquet file" in result.output


def test_what_a_part_cannot_carry_is_refused(tmp_path: Path) -> None:
    """As by `evaluate`, by the checks of the first part: without --force there are no figures."""
    file = tmp_path / "log.parquet"
    write_large(file, rows=4_000, units=3_000)
    options = [
        "--reward-range",
        "0",
        "1",
        "--policy",
        "fixed:rare",
        "--folder",
        str(tmp_path / "parts"),
        "--parts",
        "2",
    ]
    result = CliRunner().invoke(main, ["evaluate-large", str(file), *options, "--workers", "1"])
    assert result.exit_code == 1, result.output
    assert "refused" in result.output
