"""The log whose truth is known, what the rivals are given of it, and the table: the published results rest on them."""

from __future__ import annotations

import ast
import json
import math
import os
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from decider.estimate.ips import Ips
from decider.estimate.snips import Snips
from decider.experiment.schema import from_message
from decider.experiment_files import read_toml
from simulator.evaluate.candidates import UniformPolicy
from simulator.logs.columns import Category, Number
from simulator.logs.decider_log import load
from simulator.studies import bench_evaluate
from simulator.studies.rivals.exchange import Arrays, Points, ToolEstimate, dumps, loads
from simulator.studies.rivals.known import (
    ACTIONS,
    EPSILON,
    NUMBERS,
    KnownLog,
    arrays,
    columns,
    experiment,
    known_log,
    value_names,
    vw_lines,
)
from simulator.studies.rivals.written import write_log
from simulator.studies.side_by_side import (
    INTERPRETER,
    ROOT,
    SCRIPTS,
    FixedPmf,
    RecordingCandidate,
    RivalFailed,
    hand_over,
    main,
    ours,
    rival,
    table,
)
from simulator.worlds.logistic import FIELDS

SIDE = ROOT / "simulator/studies/rivals"
RIVALS = {"vowpalwabbit": "vowpalwabbit", "coba": "coba", "sb-obp": "obp", "vw-estimators": "estimators"}
RIVALS |= {"mabwiser": "mabwiser", "scikit-learn": "sklearn", "pandas": "pandas"}

needs_rivals = pytest.mark.skipif(
    not INTERPRETER.exists(), reason="the rivals' environment is not there: `make side-by-side` makes it"
)


@pytest.fixture(scope="module")
def known() -> KnownLog:
    """Large enough for frequencies to show."""
    return known_log(seed=3, rounds=20_000)


def within(mean: float, expected: float, deviation: float, count: int) -> bool:
    """Six standard errors: one false alarm in 500 million."""
    return abs(mean - expected) <= 6 * deviation / math.sqrt(count)


def test_the_truth_is_what_the_candidate_earns(known: KnownLog) -> None:
    """The yardstick of the table: rewards drawn for the candidate's own actions have the mean that is called true."""
    rng = np.random.default_rng(1)
    mean = (known.candidate * known.log.visits.means).sum(axis=1)
    earned = rng.random((50, len(mean))) < mean
    assert within(earned.mean(), known.truth, 0.5, earned.size)
    assert arrays(known).truth == known.truth


def test_actions_are_drawn_with_the_logged_probabilities(known: KnownLog) -> None:
    """Every estimator trusts the propensities: weights have mean 1 for each action, the greedy one gets its share."""
    log = known.log
    assert np.allclose(log.pmf.sum(axis=1), 1)
    assert log.pmf.min() == pytest.approx(EPSILON / len(ACTIONS))
    for action in range(len(ACTIONS)):
        weight = (log.action == action) / log.pmf[:, action]
        assert within(weight.mean(), 1.0, weight.std(), len(weight))
    greedy = log.pmf[np.arange(len(log.action)), log.action] > 0.5
    assert within(greedy.mean(), 1 - EPSILON + EPSILON / len(ACTIONS), 0.5, len(greedy))


def test_rewards_have_the_true_means(known: KnownLog) -> None:
    """Of the drawn action, in whatever visit."""
    log = known.log
    mean = log.visits.means[np.arange(len(log.action)), log.action]
    assert set(log.reward.tolist()) == {0.0, 1.0}
    assert within((log.reward - mean).mean(), 0.0, 0.5, len(mean))
    likely = mean > np.median(mean)
    assert log.reward[likely].mean() > log.reward[~likely].mean()


def test_means_are_logistic_in_the_features(known: KnownLog) -> None:
    """As the module says: log-odds are a linear function of constant, categories and numbers, for each action."""
    visits = known.log.visits
    odds = np.log(visits.means / (1 - visits.means))
    fitted, *_ = np.linalg.lstsq(visits.matrix, odds, rcond=None)
    assert np.allclose(visits.matrix @ fitted, odds)


def test_the_candidate_beats_the_log_and_is_not_perfect(known: KnownLog) -> None:
    """A candidate like the log, or the best one, would be too easy."""
    means = known.log.visits.means
    logged = (known.log.pmf * means).sum(axis=1).mean()
    assert means.mean() < logged < known.truth < means.max(axis=1).mean()
    agreement = (known.candidate.argmax(axis=1) == known.log.pmf.argmax(axis=1)).mean()
    assert 0.2 < agreement < 0.8


def test_the_candidate_never_saw_the_log(known: KnownLog) -> None:
    """Else every model would look better than it is."""
    assert not np.isin(known.sample.visits.numbers, known.log.visits.numbers).any()


def test_equal_arguments_make_equal_logs() -> None:
    """The published table can be made again; another seed is another world."""
    one, same, other = (known_log(seed=seed, rounds=300) for seed in (5, 5, 6))
    assert one.truth == same.truth != other.truth
    assert np.array_equal(one.log.action, same.log.action)
    assert np.array_equal(one.log.reward, same.log.reward)


def test_columns_hold_the_log(known: KnownLog) -> None:
    """Ours and the rivals must be asked about the same decisions."""
    one, log = columns(known), known.log
    assert np.array_equal(one.action, log.action)
    assert np.array_equal(one.reward, log.reward)
    assert np.array_equal(one.propensity, log.propensity)
    assert np.allclose(one.dense_pmf(), log.pmf)
    for row, name in enumerate(FIELDS):
        field = one.fields[name]
        assert isinstance(field, Category)
        assert [field.values[code] for code in field.codes[:50]] == [
            value_names(name)[code] for code in log.visits.codes[:50, row]
        ]
    for row, name in enumerate(NUMBERS):
        field = one.fields[name]
        assert isinstance(field, Number)
        assert np.array_equal(field.values, log.visits.numbers[:, row])


def test_the_rivals_get_the_log_as_it_is(known: KnownLog, tmp_path: Path) -> None:
    """Through a file and back, nothing changes."""
    arrays(known).write(tmp_path)
    read = Arrays.read(tmp_path)
    assert read.truth == known.truth
    assert np.array_equal(read.action, known.log.action)
    assert np.array_equal(read.matrix, known.log.visits.matrix)
    assert read.earned(known.log.pmf) == pytest.approx((known.log.pmf * known.log.visits.means).sum(axis=1).mean())


def test_vw_gets_every_decision_with_its_label() -> None:
    """One labelled line a decision, the drawn action's, with cost = -reward and the propensity."""
    small = known_log(seed=3, rounds=200)
    log = small.log
    for row, text in enumerate(vw_lines(small)):
        shared, *actions = text.strip().split("\n")
        assert text.endswith("\n\n")
        assert shared.startswith("shared |C segment=")
        assert all(f"{name}:" in shared for name in NUMBERS)
        labels = [line.partition("|")[0].strip() for line in actions]
        assert len(labels) == len(ACTIONS)
        assert [number for number, label in enumerate(labels) if label] == [log.action[row]]
        _, cost, propensity = map(float, labels[log.action[row]].split(":"))
        assert cost == -log.reward[row]
        assert propensity == pytest.approx(log.propensity[row])


def test_a_log_of_ours_holds_the_same_decisions(tmp_path: Path) -> None:
    """The million decisions of the bench are read back as they were made."""
    small = known_log(seed=3, rounds=700)
    (tmp_path / "default.toml").write_text(experiment())
    write_log(columns(small), from_message(read_toml(tmp_path / "default.toml")), tmp_path / "log.db")
    read, log = load(tmp_path / "log.db"), small.log
    assert read.actions == ACTIONS
    assert np.array_equal(read.action, log.action)
    assert np.array_equal(read.reward, log.reward)
    assert np.allclose(read.propensity, log.propensity)
    assert np.allclose(read.dense_pmf(), log.pmf)
    assert set(read.fields) == {*FIELDS, *NUMBERS}


def test_the_fixed_candidate_answers_block_by_block(known: KnownLog) -> None:
    """Whatever the blocks are."""
    given, log = FixedPmf(known.candidate), columns(known)
    pmfs = np.concatenate([given.pmf(block) for _, block in log.blocks()])
    assert np.array_equal(pmfs, known.candidate)
    assert given.rows(log) is None


def test_a_watched_candidate_answers_as_the_inner_one_does(known: KnownLog) -> None:
    """Its truth is computed from what it really said."""
    watched, log = RecordingCandidate(UniformPolicy()), columns(known)
    pmfs = np.concatenate([watched.pmf(block) for _, block in log.blocks()])
    assert (watched.name, watched.estimand) == ("uniform", UniformPolicy().estimand)
    assert np.array_equal(watched.seen, pmfs)
    assert np.array_equal(watched.seen, np.full_like(known.log.pmf, 1 / len(ACTIONS)))


def test_rows_survive_the_way_from_a_rivals_process() -> None:
    """Also without an interval."""
    row = ToolEstimate("coba", "IPS", "learning policy", 0.25, 0.2, unbiased=True, settings="as documented")
    again = loads(dumps(row))
    assert again.off == pytest.approx(0.25)
    assert again.inside is None
    assert again.settings == "as documented"
    assert math.isnan(again.low)


def test_the_table_says_what_each_figure_is() -> None:
    """Which truth, whether it is inside, and what is biased and why; nothing is left to the reader."""
    rows = [
        ToolEstimate(
            "ours",
            "dm",
            "fixed policy",
            0.25,
            0.3,
            unbiased=False,
            low=0.24,
            high=0.26,
            interval="asymptotic",
            note="why",
        ),
        ToolEstimate("rival", "x", "learning policy", math.nan, math.nan, unbiased=False, failure="TypeError: no"),
        ToolEstimate("rival", "IPS", "fixed policy", 0.31, 0.3, unbiased=True, settings="as documented"),
    ]
    fixed, learning = table(rows).split("**Learning policy**")
    cells = [re.split(r"\s*\|\s*", line.strip("| ")) for line in fixed.splitlines() if line.startswith("|")]
    assert cells[2] == [
        "ours",
        "dm",
        "0.2500",
        "0.2400 to 0.2600, asymptotic",
        "0.3000",
        "-16.7 %",
        "**no**",
        "biased: why",
    ]
    assert cells[3] == ["rival", "IPS (as documented)", "0.3100", "none", "0.3000", "+3.3 %", "", "unbiased"]
    assert "| rival | x | fails | TypeError: no |" in learning
    assert "learning" not in table(rows[:1]).lower()


def test_a_rival_that_fails_says_why(tmp_path: Path) -> None:
    """An empty part of the table would look like a result."""
    arrays(known_log(seed=3, rounds=50)).write(tmp_path)
    with pytest.raises(RivalFailed, match="No module named 'obp'"):
        rival("with_obp", tmp_path, Path(sys.executable))


def test_without_the_rivals_the_command_says_how_to_get_them(tmp_path: Path) -> None:
    """And exits as for any wrong use."""
    for command in (main, bench_evaluate.main):
        result = CliRunner().invoke(command, ["--rivals", str(tmp_path / "python")])
        assert (result.exit_code, "make side-by-side" in result.output) == (2, True), result.output


@pytest.mark.parametrize("command", [main, bench_evaluate.main])
def test_help_has_an_example(command: click.Command) -> None:
    """What a person tries first."""
    assert "Example: python -m simulator." in CliRunner().invoke(command, ["--help"]).output


def test_rivals_are_pinned_and_no_dependency_of_ours() -> None:
    """Names and versions only, each once; the product installs none of them."""
    lines = [line for line in (SIDE / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    names = [line.partition("==")[0] for line in lines]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), lines
    assert len(set(names)) == len(names)
    assert set(RIVALS) <= set(names)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = " ".join([*project["dependencies"], *project["optional-dependencies"]["dev"]]).lower()
    assert not [name for name in RIVALS if re.search(rf"\b{name}\b(?!-)", wanted)]


def test_rivals_are_imported_in_their_scripts_only() -> None:
    """And there inside functions, so that everything else of ours can be imported without them."""
    modules = {
        path: [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]
        for top in ("decider", "simulator")
        for path in (ROOT / top).rglob("*.py")
        if "bakeoff" not in path.parts
    }
    users = {
        path.stem: [node.col_offset for node in nodes if _imported(node) & set(RIVALS.values())]
        for path, nodes in modules.items()
    }
    found = {stem: offsets for stem, offsets in users.items() if offsets}
    assert set(found) == {*SCRIPTS, "speed", "with_fastapi"} - {"with_vw"}
    assert all(offset > 0 for offsets in found.values() for offset in offsets)


def _imported(node: ast.Import | ast.ImportFrom) -> set[str]:
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
    return {name.partition(".")[0] for name in names}


@pytest.fixture(scope="module")
def published_rows(tmp_path_factory: pytest.TempPathFactory) -> list[ToolEstimate]:
    """Ours, on the log of the published table."""
    return ours(known_log(seed=3, rounds=50_000), tmp_path_factory.mktemp("ours"))


def test_our_unbiased_estimates_have_the_truth_inside(published_rows: list[ToolEstimate]) -> None:
    """What the results say below the table, for the fixed and for the learning policy."""
    unbiased = [row for row in published_rows if row.unbiased]
    assert {row.about for row in unbiased} == {"fixed policy", "learning policy"}
    for about in ("fixed policy", "learning policy"):
        assert {"ips", "snips", "dr", "sndr"} <= {row.estimator for row in unbiased if row.about == about}
    assert all(row.inside for row in unbiased), [row for row in unbiased if not row.inside]


def test_our_direct_method_is_marked_as_what_it_is(published_rows: list[ToolEstimate]) -> None:
    """It has an interval that means nothing; the table must say so."""
    direct = [row for row in published_rows if row.estimator == "dm"]
    assert len(direct) == 2
    assert not any(row.unbiased for row in direct)
    assert all("model" in row.note for row in direct)


@pytest.fixture(scope="module")
def bench_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A little of everything that the bench needs."""
    folder = tmp_path_factory.mktemp("bench")
    bench_evaluate.prepare(folder, decisions=300, rows=1_000, stored_decisions=5_000)
    return folder


@pytest.mark.parametrize("contestant", bench_evaluate.OURS)
def test_our_contestants_measure_something(
    contestant: str, bench_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bench that fails after ten minutes is no bench. (No test asserts a time.)"""
    monkeypatch.chdir(bench_folder)
    measured = bench_evaluate.OURS[contestant](bench_folder)
    assert measured
    assert all(value >= 0 for value in measured.values())


def test_both_sides_of_the_bench_estimate_the_same_rows(tmp_path: Path) -> None:
    """What is written is what the rivals read."""
    points = Points.random(100, actions=3)
    points.write(tmp_path)
    assert np.array_equal(Points.read(tmp_path).pmf, points.pmf)


@pytest.fixture(scope="module")
def rival_rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[KnownLog, list[ToolEstimate]]:
    """Every rival on a small log."""
    folder, small = tmp_path_factory.mktemp("rivals"), known_log(seed=4, rounds=2_000)
    hand_over(small, folder)
    return small, [row for script in SCRIPTS for row in rival(script, folder, INTERPRETER)]


@needs_rivals
def test_everybody_has_the_same_ips_and_snips(rival_rows: tuple[KnownLog, list[ToolEstimate]]) -> None:
    """Independent code, the same log, the same formula: the hand-over lost nothing."""
    small, rows = rival_rows
    log = small.log
    chosen = small.candidate[np.arange(len(log.action)), log.action]
    for names, estimator in ((("IPS", "IPW"), Ips()), (("SNIPS", "SNIPW"), Snips())):
        estimator.add_many(propensity=log.propensity, reward=log.reward, pmf=chosen)
        theirs = [row for row in rows if row.about == "fixed policy" and row.estimator in names]
        assert len({row.tool for row in theirs}) >= 2
        assert [row.value for row in theirs] == pytest.approx([estimator.value] * len(theirs), rel=1e-9)
        assert [row.truth for row in theirs] == pytest.approx([small.truth] * len(theirs))


@needs_rivals
def test_every_rival_has_its_rows(rival_rows: tuple[KnownLog, list[ToolEstimate]]) -> None:
    """None is left out of the table, and every value has a truth beside it."""
    _, rows = rival_rows
    assert {row.tool for row in rows} == {"vw-estimators", "obp", "coba", "MABWiser", "vw"}
    for row in rows:
        assert bool(row.failure) == math.isnan(row.value)
        assert row.failure or 0 < row.truth < 1


@needs_rivals
def test_the_command_prints_the_table_and_writes_json(tmp_path: Path) -> None:
    """What `make side-by-side` does, on a small log."""
    file = tmp_path / "side.json"
    result = CliRunner().invoke(main, ["--rounds", "2000", "--rivals", str(INTERPRETER), "--json", str(file)])
    assert result.exit_code == 0, result.output
    report = json.loads(file.read_text())
    assert report["truth"] == pytest.approx(known_log(seed=3, rounds=2_000).truth)
    assert {row["tool"] for row in report["rows"]} == {"ours", "vw-estimators", "obp", "coba", "MABWiser", "vw"}
    assert all(f"| {row['tool']} |" in result.stdout for row in report["rows"])


@pytest.fixture
def cores() -> Iterator[None]:
    """The bench keeps to one core; the tests after it do not."""
    before = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, before)


@needs_rivals
@pytest.mark.usefixtures("cores")
def test_the_bench_fills_every_row() -> None:
    """What `make bench` does, on small logs."""
    sizes = ["--rounds", "1", "--decisions", "500", "--rows", "1000", "--stored", "5000"]
    result = CliRunner().invoke(bench_evaluate.main, [*sizes, "--rivals", str(INTERPRETER)])
    assert result.exit_code == 0, result.output
    for comparison in bench_evaluate.COMPARISONS:
        row = next(line for line in result.stdout.splitlines() if f" {comparison.rival} " in line)
        assert re.search(r"\d\.\d\d +│$", row), row
    assert "nan" not in result.stdout
