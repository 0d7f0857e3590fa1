"""The coverage study: its worlds, its counting, its command; and whether the default interval holds in them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats

from decider.estimate.confidence_sequence import confidence_sequence
from decider.estimate.cressie_read import cressie_read
from decider.estimate.default_interval import default_interval
from decider.estimate.mean import Interval
from simulator.studies.coverage import (
    METHODS,
    SETTINGS,
    SIZES,
    CoverageResult,
    CoverageTask,
    Setting,
    draw,
    main,
    markdown,
    run,
    tasks_for,
)


def name_of(setting: Setting) -> str:
    """For pytest."""
    return setting.name


def holds(interval: Interval, setting: Setting) -> bool:
    """Whether the truth is in it."""
    return interval.low <= setting.truth <= interval.high


@pytest.mark.parametrize("setting", SETTINGS, ids=name_of)
def test_a_setting_has_the_truth_that_intervals_are_held_against(setting: Setting) -> None:
    """By the law of large numbers: five standard errors of a large log's mean term, by unit. Weights have mean 1."""
    sample = draw(setting, 300_000, np.random.default_rng(1))
    units, decisions = len(sample.total), float(sample.size.sum())
    for sums, truth in ((sample.total, setting.truth), (sample.weight, 1.0)):
        error = float(np.std(sums - truth * sample.size)) * math.sqrt(units) / decisions
        assert abs(float(sums.sum()) / decisions - truth) < 5 * error


@pytest.mark.parametrize("setting", SETTINGS, ids=name_of)
def test_a_setting_stays_within_what_it_says_is_possible(setting: Setting) -> None:
    """Or the intervals that rely on it would fail for a wrong reason."""
    sample = draw(setting, 5_000, np.random.default_rng(2))
    slack = 1e-9 * sample.high
    assert (sample.total >= sample.low * sample.size - slack).all()
    assert (sample.total <= sample.high * sample.size + slack).all()
    assert (sample.weight <= sample.max_weight * sample.size * (1 + 1e-9)).all()
    assert setting.value_range[0] <= setting.truth <= setting.value_range[1]
    assert sample.size.sum() == pytest.approx(5_000, rel=0.1)
    assert sample.size.max() == max(1, 2 * setting.visits - 1)


@pytest.mark.parametrize("setting", SETTINGS, ids=name_of)
def test_the_default_interval_holds_at_its_level(setting: Setting) -> None:
    """Of 150 logs with 300 decisions as many as an interval that covers 94 % misses with a chance of 1e-4.

    The asymptotic one misses far more. Settings from D on were run only after the default was fixed.
    """
    logs = 150
    samples = [draw(setting, 300, np.random.default_rng((3, number))) for number in range(logs)]
    intervals = [default_interval(sample, value_range=setting.value_range) for sample in samples]
    missed = sum(not holds(interval, setting) for interval in intervals)
    assert missed <= stats.binom.isf(1e-4, logs, 0.06)


@pytest.mark.parametrize("setting", SETTINGS, ids=name_of)
def test_the_default_interval_is_no_wider_than_cressie_reads(setting: Setting) -> None:
    """Why it is the default. On the same 60 logs the mean difference is below three standard errors of it."""
    for decisions in (300, 1_000):
        apart = []
        for number in range(60):
            sample = draw(setting, decisions, np.random.default_rng((4, number)))
            ours = default_interval(sample, value_range=setting.value_range)
            other = cressie_read(sample, value_range=setting.value_range)
            apart.append((ours.high - ours.low) - (other.high - other.low))
        assert np.mean(apart) < 3 * np.std(apart, ddof=1) / math.sqrt(len(apart))


@pytest.mark.parametrize("setting", SETTINGS[:2], ids=name_of)
def test_a_confidence_sequence_is_not_much_wider_after_10_000_decisions(setting: Setting) -> None:
    """The price of looking whenever one likes: less than 1.5 times the Cressie-Read interval, and it holds."""
    widths = {"sequence": 0.0, "once": 0.0}
    for number in range(8):
        sample = draw(setting, 10_000, np.random.default_rng((5, number)))
        sequence = confidence_sequence(sample, value_range=setting.value_range)
        once = cressie_read(sample, value_range=setting.value_range)
        assert holds(sequence, setting)
        widths["sequence"] += sequence.high - sequence.low
        widths["once"] += once.high - once.low
    assert 1 < widths["sequence"] / widths["once"] < 1.5


def test_results_of_chunks_add_up_to_those_of_the_whole() -> None:
    """Whatever process runs which: the table can be made again."""
    whole = run(CoverageTask(setting=1, decisions=300, first=0, logs=40, seed=6))
    first, second = (run(CoverageTask(setting=1, decisions=300, first=start, logs=20, seed=6)) for start in (0, 20))
    assert [one.method for one in whole] == list(METHODS)
    for together, one, other in zip(whole, first, second, strict=True):
        added = one + other
        assert (added.logs, added.above, added.below) == (together.logs, together.above, together.below)
        assert added.width == pytest.approx(together.width)
    assert [one.logs for one in whole] == [len(range(0, 40, method.every)) for method in METHODS.values()]


def test_tasks_hold_every_log_once() -> None:
    """No more and no fewer than the table says."""
    found = tasks_for([0, 2], repetitions=250, seed=1)
    for setting in (0, 2):
        for decisions in SIZES:
            mine = [task for task in found if (task.setting, task.decisions) == (setting, decisions)]
            numbers = [number for task in mine for number in range(task.first, task.first + task.logs)]
            assert numbers == list(range(250))


def test_coverage_counts_misses_on_both_sides() -> None:
    """An interval that is always too high is as wrong as one that is always too low."""
    result = CoverageResult("A", 300, "asymptotic", logs=10, above=2, below=3, width=20.0)
    assert (result.coverage, result.mean_width) == (0.5, 2.0)
    assert "| asymptotic | 50.0 % · 2 |" in markdown([result])


def test_the_command_prints_the_table_and_writes_every_cell(tmp_path: Path) -> None:
    """What `make coverage` does, with little of everything."""
    file = tmp_path / "coverage.json"
    options = ["--repetitions", "3", "--settings", "[BI]", "--workers", "2", "--json", str(file)]
    result = CliRunner().invoke(main, options)
    assert result.exit_code == 0, result.output
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")] for line in result.stdout.splitlines() if "|" in line
    ]
    assert rows[0] == ["interval", *[f"{name}, {size:,}" for name in "BI" for size in SIZES]]
    assert [row[0] for row in rows[2:]] == list(METHODS)
    cells = json.loads(file.read_text())
    assert len(cells) == len(METHODS) * 2 * len(SIZES)
    one = next(c for c in cells if (c["setting"], c["decisions"], c["method"]) == ("I", 300, "Cressie-Read"))
    assert (
        rows[2 + list(METHODS).index("Cressie-Read")][4] == f"{100 * one['coverage']:.1f} % · {one['mean_width']:.3g}"
    )


@pytest.mark.parametrize(("pattern", "message"), [("(", "not a regular expression"), ("Z", "matches none of: A; B")])
def test_a_pattern_that_selects_nothing_is_refused(pattern: str, message: str) -> None:
    """Before the long run, with the names there are."""
    result = CliRunner().invoke(main, ["--settings", pattern])
    assert (result.exit_code, message in result.output) == (2, True), result.output


def test_help_has_an_example() -> None:
    """What a person tries first."""
    assert "--repetitions 400" in CliRunner().invoke(main, ["--help"]).output
