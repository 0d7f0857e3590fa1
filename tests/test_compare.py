"""`simulator compare`: simultaneous intervals, grids, worlds and logs, going on after a kill, table and page."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from scipy.stats import t as student

from simulator.commands.group import main
from simulator.compare import on_world
from simulator.compare.grid import BadGrid, policies, read_grid
from simulator.compare.on_decisions import family
from simulator.compare.on_log import LogResult, LogTask, Reading, on_same_decisions, standing, sums_of, try_evaluate
from simulator.compare.on_world import try_run
from simulator.compare.paired import DRAWS, Comparison, Floats, all_pairs, paired, shrinkage
from simulator.compare.result import ComparisonResult, Family, ShareCurve, Standing, rank, sentence
from simulator.compare.table import read_table, write_table
from simulator.evaluate.estimates import Estimator
from simulator.evaluate.parse import parse
from simulator.evaluate.result import Estimate, to_json
from simulator.evaluate.scores import score
from simulator.logs.export_table import write_parquet
from simulator.logs.open import ReadOptions, open_log
from simulator.report.comparison import standings_table, terminal_parts
from simulator.report.pages.comparison import summary, write_comparison_report
from simulator.report.plots.comparison import grids, plots_of
from simulator.run.task import Task
from simulator.worlds.registry import find
from tests.browser import FAINT, OVERFLOWING, UNDRAWN, Browser, Page
from tests.evaluations import HOSTILE
from tests.logged_worlds import ACTIONS, logged_world
from tests.test_report import Parsed, parsed

NEVER = 1e-3
"""How often a test of chance may fail although all is right."""

# Simultaneous intervals


def families(random: np.random.Generator, *, spread: Floats, seeds: int, count: int) -> Iterator[Floats]:
    """(policies, seeds) each, without any difference: visitors that all share, and what each policy adds."""
    for _ in range(count):
        yield 3 * random.standard_normal(seeds) + spread[:, None] * random.standard_normal((len(spread), seeds))


SPREADS = {
    "alike": np.ones(7),
    "a steady reference": np.array([0.05, 1, 1, 1, 1, 1, 1]),
    "a noisy reference": np.array([1, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3]),
    "from steady to noisy": np.geomspace(0.1, 3, 7),
}


@pytest.mark.parametrize("seeds", [2, 5, 9])
@pytest.mark.parametrize("spread", SPREADS)
def test_all_intervals_of_a_family_hold_together(spread: str, seeds: int) -> None:
    """Twelve policies that are all the same must not give a winner in every second table."""
    count, covered, names = 150, 0, list("abcdefg")
    for values in families(np.random.default_rng(seeds), spread=SPREADS[spread], seeds=seeds, count=count):
        found = paired(values, names, reference=0, draws=1_000)
        covered += all(one.low <= 0 <= one.high for one in found)
    assert binom.cdf(covered, count, 0.95) > NEVER, f"{covered} of {count}"


def test_intervals_for_one_policy_alone_do_not_hold_together() -> None:
    """The test above would notice intervals that are not corrected: these miss in one family of six."""
    count, covered = 150, 0
    for values in families(np.random.default_rng(9), spread=np.ones(7), seeds=9, count=count):
        apart = values[1:] - values[0]
        half = student.isf(0.025, 8) * apart.std(axis=1, ddof=1) / np.sqrt(9)
        covered += bool((np.abs(apart.mean(axis=1)) <= half).all())
    assert binom.cdf(covered, count, 0.95) < NEVER, f"{covered} of {count}"


@pytest.mark.parametrize("seeds", [5, 9])
def test_all_pairs_hold_together(seeds: int) -> None:
    """The question "which of all differ?" has more chances to be wrong."""
    count = 150
    found = [
        all_pairs(values, list("abcde"), draws=1_000)
        for values in families(np.random.default_rng(4), spread=np.ones(5), seeds=seeds, count=count)
    ]
    assert {len(one) for one in found} == {10}
    covered = sum(not any(one.real for one in pairs) for pairs in found)
    assert binom.cdf(covered, count, 0.95) > NEVER, f"{covered} of {count}"


def widths(values: Floats) -> tuple[float, float]:
    """Half-width of the first interval, and Bonferroni's."""
    found = paired(values, [str(n) for n in range(len(values))], reference=0)
    seeds = values.shape[1]
    error = (values[1] - values[0]).std(ddof=1) / np.sqrt(seeds)
    return (found[0].high - found[0].low) / 2, float(student.isf(0.025 / len(found), seeds - 1) * error)


def test_a_shared_noise_makes_intervals_narrower_than_bonferronis() -> None:
    """With a noisy reference all differences rise and fall together: that is one chance to be wrong, not six."""
    (values,) = families(np.random.default_rng(1), spread=SPREADS["a noisy reference"], seeds=20, count=1)
    ours, bonferroni = widths(values)
    assert ours < 0.92 * bonferroni


@settings(max_examples=20)
@given(st.integers(2, 6), st.integers(2, 8), st.integers(0, 2**32))
def test_intervals_are_never_wider_than_bonferronis(many: int, seeds: int, seed: int) -> None:
    """What needs no correlation is always allowed."""
    ours, bonferroni = widths(np.random.default_rng(seed).standard_normal((many, seeds)))
    assert ours <= bonferroni * (1 + 1e-9)


def test_a_single_comparison_is_students() -> None:
    """With nothing to correct, the interval is the one of any textbook."""
    ours, textbook = widths(np.array([[1.0, 2.0, 4.0], [2.0, 2.5, 6.0]]))
    assert ours == pytest.approx(textbook, rel=1e-12)


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.lists(st.floats(-10, 10), min_size=4, max_size=4))
def test_what_all_policies_share_at_a_seed_changes_nothing(seed: int, visitors: list[float]) -> None:
    """That is what pairing is for: easy visitors at one seed are easy for all."""
    values = np.random.default_rng(seed).standard_normal((3, 4))
    names = ["a", "b", "c"]
    for one, other in zip(
        paired(values, names, reference=1), paired(values + np.array(visitors), names, reference=1), strict=True
    ):
        assert (one.difference, one.low, one.high) == pytest.approx((other.difference, other.low, other.high), abs=1e-9)


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.floats(0, 4))
def test_real_and_p_say_the_same(seed: int, shift: float) -> None:
    """A table in which p is 0.03 and the interval holds 0 would be quoted both ways."""
    values = np.random.default_rng(seed).standard_normal((4, 6)) + shift * np.arange(4)[:, None]
    for one in paired(values, ["a", "b", "c", "d"], reference=0):
        assert one.real == (one.low > 0 or one.high < 0)
        if abs(one.p_adjusted - 0.05) > 0.001:
            assert one.real == (one.p_adjusted < 0.05)


def test_one_seed_has_no_interval() -> None:
    """One run of each says which was ahead, not which is better."""
    (one,) = paired(np.array([[0.1], [0.9]]), ["a", "b"], reference=0)
    assert one.difference == pytest.approx(0.8)
    assert (one.real, one.conclusion) == (False, "run more seeds")
    assert np.isnan([one.low, one.high, one.p_adjusted]).all()
    assert sentence(one) == "b against a: run more seeds"


def test_a_difference_without_any_spread_is_what_it_is() -> None:
    """Of policies that know the world: the best less an even choice is 1 at every seed, but for rounding."""
    share = np.array([[0.0, 0.0, 0.0], [1.0, 1.0 - 1e-16, 1.0], [0.0, 0.0, 0.0]])
    best, same = paired(share, ["uniform", "best", "again"], reference=0)
    assert (best.conclusion, best.p_adjusted) == ("better", 0.0)
    assert best.low == pytest.approx(1.0)
    assert (same.conclusion, same.p_adjusted, same.high) == ("no significant difference", 1.0, 0.0)


def test_a_worse_policy_is_called_worse() -> None:
    """The sign is part of the answer."""
    one, *_ = paired(np.array([[5.0, 6.0, 7.0, 8.0], [1.0, 2.1, 3.0, 4.1]]), ["a", "b"], reference=0)
    assert sentence(one) == "b is worse than a"


@pytest.mark.parametrize("values", [np.zeros(3), np.zeros((2, 0)), np.zeros((3, 2)), np.array([[1.0], [np.nan]])])
def test_values_that_do_not_fit_are_refused(values: Floats) -> None:
    """A missing seed must be left out by who knows why it is missing."""
    with pytest.raises(ValueError, match="values: must be"):
        paired(values, ["a", "b"], reference=0)


def test_two_seeds_show_no_correlation() -> None:
    """Two points always lie on a line; to believe it made intervals hold in three of four cases only."""
    assert shrinkage(np.ones((3, 3)), 2) == 1.0
    assert shrinkage(np.ones((3, 3)), 20) == 0.0
    assert DRAWS >= 20_000, "fewer make the quantile itself uncertain"


# Grids


def test_a_grid_is_the_product_of_what_it_lists(tmp_path: Path) -> None:
    """Each algorithm has its own parameters, all share the others."""
    file = tmp_path / "grid.toml"
    file.write_text(
        'algorithm = ["squarecb", "softmax"]\nsquarecb.gamma_scale = [10, 100]\n'
        'interactions = [["CA"], ["CA", "CCA"]]\nminimum_propensity = [0.001, 0.01]\n',
        encoding="utf-8",
    )
    names = read_grid(file)
    assert len(names) == len(set(names)) == 2 * 2 * 2 + 2 * 2
    assert names[0] == "squarecb:gamma_scale=10,interactions=CA,floor=0.001"
    assert names[-1] == "softmax:interactions=CA+CCA,floor=0.01"
    assert all(try_run(Task("storefront", name, 1, 5)).run for name in names), "every name can be played"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("algorythm = []", "algorythm: there is no such field; did you mean algorithm?"),
        ('algorithm = ["squarebc"]', "algorithm: there is no 'squarebc' to learn with; did you mean squarecb?"),
        ("squarecb.gama_scale = [1]", "squarecb.gama_scale: there is no such field; did you mean gamma_scale?"),
        ("algorithm = []", "algorithm: is an empty list"),
        ('algorithm = ["softmax"]\nsquarecb.gamma_scale = [1]', "squarecb: has parameters, but is not in algorithm"),
        ('interactions = ["CA"]', "interactions: 'CA' is no list of interactions"),
        ("minimum_propensity = [true]", "minimum_propensity: True is no number"),
        ('squarecb.gamma_scale = ["big"]', "squarecb.gamma_scale: 'big' is no number"),
        ("squarecb = 3", "squarecb: must be a table of parameters"),
        ("a = [", "is no TOML"),
    ],
)
def test_a_wrong_grid_names_the_field_and_the_way_out(tmp_path: Path, text: str, said: str) -> None:
    """A typo that is ignored is an hour of the wrong runs."""
    file = tmp_path / "grid.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(BadGrid) as error:
        read_grid(file)
    assert said in str(error.value)
    assert str(file) in str(error.value)


def test_an_empty_grid_is_the_default_policy() -> None:
    """Nothing varies, so there is one combination."""
    assert policies({}) == ["default"]


# The command on a world


def compare(*args: str | Path, exit_code: int = 0) -> Result:
    """The command in this process."""
    result = CliRunner().invoke(main, ["compare", *map(str, args)])
    assert result.exit_code == exit_code, result.output
    return result


SMALL = ("--rounds", "60", "--seeds", "3", "--workers", "1", "--no-delay")


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """Four policies on the storefront, with everything that the command writes."""
    folder = tmp_path_factory.mktemp("played")
    grid = folder / "grid.toml"
    grid.write_text("squarecb.gamma_scale = [10, 1000]\n", encoding="utf-8")
    files = ("--grid", grid, "--out", folder / "out", "--json", folder / "found.json", "--report", folder / "report")
    return folder, compare("storefront", "--policies", "uniform", "best", "uniform", *SMALL, *files)


def test_several_policies_follow_one_option(played: tuple[Path, Result]) -> None:
    """As in every example; what is named twice is run once, and how much there is to do is said first."""
    _, result = played
    assert "12 runs: 4 policies x 3 seeds of 60 visits" in result.stderr
    assert "1 policies are named twice and run once" in result.stderr


def test_the_best_is_found_and_called_real(played: tuple[Path, Result]) -> None:
    """Terminal and JSON say the same, with the estimand."""
    folder, result = played
    found = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    assert found["standings"][0]["name"] == "best"
    assert found["reference"] == "uniform"
    assert [family["figure"] for family in found["families"]] == ["share of the attainable lift", "reward/visit"]
    best = next(one for one in found["families"][0]["comparisons"] if one["name"] == "best")
    assert (best["difference"], best["real"]) == (pytest.approx(1.0), True)
    for said in ("deployed learning curve", "simultaneous 95 %", "compared with", "better"):
        assert said in " ".join(result.stdout.split())


def test_the_table_has_one_row_a_task_with_every_parameter(played: tuple[Path, Result]) -> None:
    """Whoever sorts it in a notebook finds what was varied, also what is a default."""
    folder, _ = played
    rows = read_table(folder / "out" / "runs.parquet")
    assert len(rows) == 12
    assert {row["squarecb.gamma_scale"] for row in rows} == {10.0, 1000.0, None}
    assert {(row["policy"], row["seed"]) for row in rows} == {(one["policy"], n) for one in rows for n in (1, 2, 3)}
    assert {row["interactions"] for row in rows if row["algorithm"] == "squarecb"} == {"CA"}
    assert [row["share_of_lift"] for row in rows if row["policy"] == "best"] == pytest.approx([1.0] * 3)


def test_csv_and_parquet_read_back_equal(played: tuple[Path, Result], tmp_path: Path) -> None:
    """The choice of the format changes no figure."""
    folder, _ = played
    rows = read_table(folder / "out" / "runs.parquet")
    write_table(rows, tmp_path / "runs.csv")
    assert read_table(tmp_path / "runs.csv") == rows


@given(
    st.lists(
        st.fixed_dictionaries(
            {"policy": st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1), "seed": st.integers(0, 9)},
            optional={"x": st.floats(allow_nan=False, allow_infinity=False), "learned": st.booleans()},
        ),
        min_size=1,
        max_size=5,
    )
)
@settings(max_examples=25)
def test_any_rows_survive_both_formats(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    """Names hold commas, quotes and other scripts; tasks lack each other's parameters."""
    folder = tmp_path_factory.mktemp("rows")
    names = {name for row in rows for name in row} | {"failed"}
    for file in (folder / "runs.csv", folder / "runs.parquet"):
        write_table(rows, file)
        back = read_table(file)
        assert [{name: row.get(name) for name in names} for row in rows] == [
            {name: row[name] for name in names} for row in back
        ]


def test_the_same_again_runs_nothing_and_says_the_same(played: tuple[Path, Result]) -> None:
    """What is kept is not run again."""
    folder, result = played
    kept = {file: file.stat().st_mtime_ns for file in (folder / "out" / "kept").iterdir()}
    again = compare(
        "storefront", "--policies", "uniform", "best", *SMALL, "--grid", folder / "grid.toml", "--out", folder / "out",
        "--format", "csv",
    )  # fmt: skip
    assert {file: file.stat().st_mtime_ns for file in (folder / "out" / "kept").iterdir()} == kept
    assert read_table(folder / "out" / "runs.csv") == read_table(folder / "out" / "runs.parquet")
    assert result.stdout.partition(" s\n")[0][:-4] == again.stdout.partition(" s\n")[0][:-4]


def test_after_a_kill_only_what_is_missing_is_run(tmp_path: Path) -> None:
    """Workers, too, are gone with SIGKILL; the same command goes on, to the table of one that was not killed."""
    asked = ["storefront", "--policies", "default", "softmax", "uniform", "--rounds", "1000", "--seeds", "4"]
    command = [
        sys.executable,
        "-m",
        "simulator.cli",
        "compare",
        *asked,
        "--workers",
        "2",
        "--out",
        str(tmp_path / "out"),
    ]
    kept = tmp_path / "out" / "kept"
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while len(list(kept.glob("*.json"))) < 3:
            assert process.poll() is None, "it was too fast to be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = {file: file.stat().st_mtime_ns for file in kept.glob("*.json")}
    assert 3 <= len(done) < 12
    compare(*asked, "--workers", "1", "--out", tmp_path / "out")
    assert {file: file.stat().st_mtime_ns for file in done} == done, "what was done is not run again"
    assert len(list(kept.glob("*.json"))) == 12
    compare(*asked, "--workers", "1", "--out", tmp_path / "other")
    assert read_table(tmp_path / "out" / "runs.parquet") == read_table(tmp_path / "other" / "runs.parquet")


def test_a_policy_that_fails_is_named_and_the_others_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A night of runs is not lost to one policy's bug at one seed."""
    source = "class Own:\n    def pmf(self, context, actions):\n        raise RuntimeError('not today')\n"
    source += "    def learn(self, *a, **k): ...\n    def save(self): return b''\n"
    (tmp_path / "own_policies.py").write_text(source, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    result = compare("storefront", "--policies", "uniform", "own_policies:Own", "best", *SMALL, exit_code=1)
    said = " ".join(result.stdout.split())
    assert "own_policies:Own failed at 3 of 3 seeds, so it is not compared: RuntimeError: not today" in said
    assert "better" in said
    rows = read_table(tmp_path / "compare-storefront" / "runs.parquet")
    assert {row["policy"]: row["failed"] for row in rows}["own_policies:Own"] == "RuntimeError: not today"
    assert len(rows) == 9
    blamed = compare("storefront", "--policies", "own_policies:Own", "best", *SMALL, exit_code=1)
    assert "name another one: --against NAME" in " ".join(blamed.stdout.split())


def test_one_seed_says_run_more(tmp_path: Path) -> None:
    """A first look is allowed; it is not taken for an answer."""
    given_ = ("--rounds", "30", "--seeds", "1", "--workers", "1", "--out", tmp_path, "--all-pairs")
    said = " ".join(compare("storefront", "--policies", "uniform", "best", *given_).stdout.split())
    assert said.count("run more seeds") == 3
    assert "better" not in said


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("storefrnt", "--policies", "default"), "did you mean storefront?"),
        (("storefront",), "there is nothing to run: name policies"),
        (("storefront", "--policies", "defalt"), "there is no policy 'defalt'"),
        (("storefront", "--policies", "softmax:lamda=3"), "there is no parameter 'lamda'"),
        (("storefront", "--policies", "default", "--skip-bad"), "--skip-bad: says how to read a log"),
        (("log.csv", "--policies", "uniform", "--seeds", "3"), "--seeds: is for worlds"),
        (("log.csv", "--policies", "uniform", "--json", "log.csv"), "--json log.csv: is the log itself"),
        (("gone.db", "--policies", "uniform"), "gone.db: there is no such log; and there is no world 'gone.db'"),
        (("storefront", "--policies", "bag:size=2.5"), "size=2.5 is no whole number"),
        (("storefront", "--policies", "default", "--rounds", "100000000"), "'--rounds': 100000000 is not in the"),
        (("log.csv", "--policies", "uniform", "nope"), "there is no policy 'nope'"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(
    args: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said in one line with the way out."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.csv").write_text("action,propensity,reward\na,0.5,1\nb,0.5,0\n", encoding="utf-8")
    result = compare(*args, exit_code=2)
    assert said in result.stderr
    assert not list(tmp_path.rglob("kept/*.json"))


def test_a_single_action_is_compared_on_a_world_as_well() -> None:
    """Help names fixed:ACTION; the action must not be taken for a parameter."""
    assert on_world.parameters("fixed:sale", find("storefront")) == {"algorithm": "fixed"}


# The command on a log


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8,000 decisions of 4,000 units."""
    file = tmp_path_factory.mktemp("log") / "log.parquet"
    write_parquet(logged_world(seed=3, decisions=8_000, repeats=2).columns, file, done=lambda _: None)
    return file


def judgements(log: Path, *names: str) -> dict[str, LogResult]:
    """What the tasks of these policies find."""
    return {name: try_evaluate(LogTask(Reading(str(log)), name)) for name in names}


def test_one_comparison_with_the_log_is_the_evaluations_difference(log: Path) -> None:
    """Same code, same words, same figures: two commands must not answer one question twice."""
    columns = open_log(str(log), ReadOptions())
    for name in ("uniform", "fixed:sale"):
        found = judgements(log, "logged", name)
        (one,) = family(on_same_decisions(found, "logged"), (0.0, 1.0), reference="logged").comparisons
        (scores,) = score(columns, [parse(name, columns)])
        wanted = Estimator(scores).difference()
        assert (one.difference, one.low, one.high) == pytest.approx((wanted.value, wanted.low, wanted.high), rel=1e-6)


def test_a_difference_turned_round_has_the_other_sign(log: Path) -> None:
    """The logged policy can be compared, too, and is then worse by what the other is better."""
    sums = on_same_decisions(judgements(log, "logged", "uniform"), "uniform")
    (one,) = family(sums, (0.0, 1.0), reference="uniform").comparisons
    (other,) = family(sums, (0.0, 1.0), reference="logged").comparisons
    assert (one.difference, one.low, one.high) == pytest.approx((-other.difference, -other.high, -other.low))
    assert one.real == (one.p_adjusted < 0.05)


def test_pairing_on_decisions_is_narrower_than_two_intervals(log: Path) -> None:
    """What two policies have in common cancels: that is why terms are kept by unit."""
    names = ("squarecb:floor=0.05", "softmax:lambda=20,floor=0.05")
    found = judgements(log, *names)
    (one,) = family(on_same_decisions(found, names[0]), (0.0, 1.0), reference=names[0]).comparisons
    alone = [result.estimates[result.headline] for result in (one.result for one in found.values()) if result]
    assert one.high - one.low < min(estimate.high - estimate.low for estimate in alone)


def test_intervals_on_a_log_hold_together() -> None:
    """Held against the truth of logged worlds: what fixed actions earn there in these contexts."""
    count, covered = 40, 0
    for seed in range(count):
        world = logged_world(seed=seed, decisions=800, epsilon=0.6)
        candidates = [parse(name, world.columns) for name in ("uniform", *[f"fixed:{action}" for action in ACTIONS])]
        scored = zip(candidates, score(world.columns, candidates), strict=True)
        sums = {one.name: sums_of(one, scores, world.columns) for one, scores in scored}
        comparisons = family(sums, (0.0, 1.0), reference="uniform").comparisons
        wanted = world.means.mean(axis=0) - world.means.mean()
        covered += all(one.low <= truth <= one.high for one, truth in zip(comparisons, wanted, strict=True))
    assert binom.cdf(covered, count, 0.95) > NEVER, f"{covered} of {count}"


def test_a_log_is_compared_with_files_algorithms_and_what_was_logged(log: Path, tmp_path: Path) -> None:
    """A file may hold only a policy: the log knows the actions. Tables name the estimand of each."""
    (tmp_path / "B.toml").write_text("[policy.squarecb]\ngamma_scale = 1000\n", encoding="utf-8")
    names = ("uniform", str(tmp_path / "B.toml"), "epsilon_greedy:epsilon=0.2")
    files = ("--out", tmp_path / "out", "--json", tmp_path / "found.json", "--report", tmp_path / "report")
    result = compare(log, "--policies", *names, "--against", "logged", "--workers", "1", "--format", "csv", *files)
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert {one["estimand"] for one in found["standings"]} == {"fixed policy", "progressive learner"}
    said = {one["name"]: one["real"] for one in found["families"][0]["comparisons"]}
    assert said == {"uniform": True, names[1]: True, names[2]: True}
    assert "progressive" in result.stdout
    rows = {str(row["policy"]): row for row in read_table(tmp_path / "out" / "runs.csv")}
    assert rows[names[1]]["squarecb.gamma_scale"] == 1000
    assert rows["logged"]["reward"] == pytest.approx(found["standings"][2]["estimate"]["value"])


def test_a_refused_policy_stays_refused_and_is_named(tmp_path: Path) -> None:
    """No figure for what the log cannot carry, not even a difference; the others are compared all the same."""
    write_parquet(logged_world(seed=1, epsilon=0.02).columns, tmp_path / "log.parquet", done=lambda _: None)
    rows = ["action,device=desktop,device=phone,device=tablet", "sale,0,1,1", "outfit,1,0,0"]
    (tmp_path / "near.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    names = ("logged", f"table:{tmp_path / 'near.csv'}", "fixed:gift")
    given_ = ("--out", tmp_path / "out", "--json", tmp_path / "found.json", "--workers", "1")
    result = compare(tmp_path / "log.parquet", "--policies", *names, *given_, exit_code=1)
    found = json.loads((tmp_path / "found.json").read_text("utf-8"))
    standings = {one["name"]: one for one in found["standings"]}
    assert standings["fixed:gift"]["estimate"] is None
    assert "refused, this log cannot answer it" in standings["fixed:gift"]["trouble"]
    assert "fixed:gift refused" in " ".join(result.stdout.split())
    assert [one["name"] for one in found["families"][0]["comparisons"]] == [names[1]]
    alone = compare(tmp_path / "log.parquet", "--policies", "fixed:gift", "logged", *given_, exit_code=1)
    assert "fixed:gift cannot be compared with on this log" in " ".join(alone.stdout.split())


def test_policies_judged_by_other_decisions_are_not_compared(log: Path) -> None:
    """A stored model is evaluated on what came after it: its difference to the others would not be paired."""
    found = judgements(log, "uniform", "fixed:sale")
    apart = found["fixed:sale"]
    assert apart.sums
    found["fixed:sale"] = replace(apart, sums=replace(apart.sums, decisions="later ones"))
    assert list(on_same_decisions(found, "uniform")) == ["uniform"]
    assert standing("fixed:sale", apart, {}).estimate


# The page


def hand_made() -> ComparisonResult:
    """Names that hold markup, figures that are not numbers, a grid, and pairs."""
    scales = (10.0, 100.0, 1000.0)
    grid = [
        Standing(
            f"squarecb:gamma_scale={scale:g},floor={floor}",
            "deployed learning curve in a simulated world",
            {"algorithm": "squarecb", "squarecb.gamma_scale": scale, "minimum_propensity": floor},
            Estimate(0.5 + scale / 4000 - floor, 0.4, 0.9, "Student's t over seeds"),
            {"reward/visit": 0.0312},
        )
        for scale in scales
        for floor in (0.001, 0.01)
    ]
    hostile = Standing(
        HOSTILE, "fixed policy in a simulated world", {"algorithm": HOSTILE}, None, trouble=f"x {HOSTILE}"
    )
    alone = Standing("uniform", "fixed policy in a simulated world", {"algorithm": "uniform"}, Estimate(0, 0, 0, ""))
    compared = [Comparison(one.name, "uniform", 0.5, 0.3, 0.7, 0.0004, real=True) for one in grid]
    compared[0] = Comparison(grid[0].name, "uniform", -0.1, float("nan"), float("nan"), float("nan"), real=False)
    families = (
        Family("share of the attainable lift", "paired by seed over 5 seeds", tuple(compared)),
        Family("share of the attainable lift", f"every pair {HOSTILE}", tuple(compared)),
    )
    return ComparisonResult(
        subject=f"world {HOSTILE}",
        line="A line about it.",
        figure="share of the attainable lift",
        conditions="Estimand: deployed learning curve in a simulated world; 5 seeds.",
        reference="uniform",
        standings=rank([hostile, alone, *grid]),
        families=families,
        curves=tuple([ShareCurve(one.name, (10, 20, 30), (float("nan"), 0.2, 0.4)) for one in (alone, *grid)]),
        notes=(f"A note {HOSTILE}",),
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report, written."""
    return write_comparison_report(hand_made(), tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def read(page: Path) -> Parsed:
    """What it holds."""
    return parsed(page.read_text(encoding="utf-8"))


def test_the_page_ranks_policies_and_names_the_estimand_in_every_table(read: Parsed) -> None:
    """Each table can be cut out and pasted: it still says what its numbers are."""
    rows = read.table("Policy", "Estimand")
    assert [row[0] for row in rows][:2] == [
        "squarecb:gamma_scale=1000,floor=0.001",
        "squarecb:gamma_scale=1000,floor=0.01",
    ]
    assert rows[0][3:] == ["+50 % +30 % to +70 %", "< 0.001", "better"]
    assert rows[-1] == [HOSTILE, "fixed policy in a simulated world", "failed", "-", "-", "not compared"]
    for name in ("standings", "family-1", "parameters"):
        assert "deployed learning curve" in read.sections[name]
    assert "run more seeds" in read.text


def test_the_summary_counts_every_comparison() -> None:
    """The first sentence adds up."""
    assert summary(hand_made()) == (
        "Of 6 policies that are compared with uniform, by share of the attainable lift: 1 run more seeds; 5 better."
    )
    assert summary(replace(hand_made(), families=())) == "Nothing could be compared."


def test_a_grid_of_two_parameters_has_a_picture() -> None:
    """What was varied is along the axes; policies that share nothing with it are not in it."""
    (grid,) = grids(hand_made().standings)
    assert grid.axes == ("squarecb.gamma_scale", "minimum_propensity")
    assert len(grid.points) == 6
    assert [plot.file for plot in plots_of(hand_made())] == ["differences-1", "differences-2", "curves", "grid-1"]


def test_names_are_text_on_the_page(read: Parsed) -> None:
    """A policy's name can come from anybody's file."""
    assert "script" not in {tag for tag, _ in read.tags}
    assert HOSTILE in read.text
    asked = [*read.attributes("src"), *read.attributes("href")]
    assert asked
    assert all(address.startswith(("data:", "#")) for address in asked)


def test_the_json_names_are_of_this_schema() -> None:
    """A script that reads the file breaks where a name goes without a word: a change raises SCHEMA and comes here."""
    found = json.loads(to_json(hand_made()))
    assert found["schema"] == 2
    assert set(found) == {
        "subject", "line", "conditions", "figure", "reference", "standings", "families", "notes", "seconds", "schema",
        "curves", "level",
    }  # fmt: skip


def test_json_and_terminal_bear_what_is_not_a_number() -> None:
    """A comparison with one seed is no reason to lose the others."""
    assert json.loads(to_json(hand_made()))["families"][0]["comparisons"][0]["low"] is None
    assert len(list(terminal_parts(hand_made()))) > 4
    assert len(standings_table(hand_made()).rows) == 8


@pytest.fixture(scope="module")
def opened(chromium: Browser, page: Path) -> Page:
    """The report, opened from the disk."""
    return chromium.page(page)


def test_a_browser_draws_every_plot_and_loads_nothing(opened: Page) -> None:
    """An SVG that is no XML is an empty box that only a browser notices."""
    assert opened.run("document.images.length") == 4
    assert opened.run(UNDRAWN) == []
    assert opened.run("document.scripts.length") == 0
    own, *others = opened.requests
    assert own.startswith("file:")
    assert all(address.startswith("data:") for address in others)


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_cut_off_on_a_phone_or_a_desk(opened: Page, width: int) -> None:
    """Long names of grids are the rule here."""
    opened.resize(width)
    assert opened.run(OVERFLOWING) == []
    assert opened.run("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read_by_day_and_by_night(opened: Page, scheme: str) -> None:
    """Contrast as WCAG asks for, in both schemes."""
    opened.prefer(scheme=scheme)
    assert opened.run(FAINT) == []
