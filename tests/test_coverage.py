"""The coverage studies: their worlds, their counting, their commands; and whether intervals and verdicts hold there."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats

from decider.estimate.confidence_sequence import confidence_sequence
from decider.estimate.cressie_read import cressie_read
from decider.estimate.default_interval import default_interval
from decider.estimate.mean import Interval
from simulator.evaluate.run import evaluate
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
from simulator.studies.kinds import judge, table
from simulator.studies.kinds.__main__ import main as kinds_command
from simulator.studies.kinds.__main__ import publish_tables
from simulator.studies.kinds.judge import Answers, JudgeTask, Verdicts
from simulator.studies.kinds.registry import KINDS


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


# The kinds of logs: whole evaluations.


def count_kind(name: str, *, logs: int, first: int = 0) -> tuple[Verdicts, dict[str, Answers]]:
    """What the evaluation says of some logs of a kind: of the log, and by question."""
    found = judge.run(JudgeTask(name, first=first, logs=logs, seed=11))
    [verdicts] = [one for one in found if isinstance(one, Verdicts)]
    return verdicts, {one.question: one for one in found if isinstance(one, Answers)}


WORLDS = [name for name, kind in KINDS.items() if "1,000 actions" not in name]


@pytest.mark.parametrize("name", WORLDS)
def test_a_kind_of_logs_is_the_same_for_a_seed(name: str) -> None:
    """Or the table could not be made again, and a log that stands out could not be looked at."""
    one, other, another = (judge.make_case(KINDS[name], seed=1, number=number) for number in (7, 7, 8))
    assert (one.logged, one.error) == (other.logged, other.error)
    if one.columns is not None and other.columns is not None and another.columns is not None:
        assert (one.columns.reward == other.columns.reward).all()
        assert (one.columns.action == other.columns.action).all()
        assert not np.array_equal(one.columns.action, another.columns.action) or len(one.columns) == 1


UNBIASED = [
    *[name for name, kind in KINDS.items() if kind.must == "silence"],
    *[name for name in KINDS if re.match("100 with|rewards|an action with|leak by outcome: last page, no", name)],
]
"""Propensities and rewards are right, and every action can be drawn: weighting is unbiased, whatever a column says."""


@pytest.mark.parametrize("name", UNBIASED)
def test_the_truth_of_a_kind_is_what_its_logs_earn(name: str) -> None:
    """The mean over logs of the weighted reward (which needs no model and no interval) is the truth, within five
    standard errors: a truth that is wrong would make every figure of the table wrong."""
    apart: dict[str, list[float]] = {}
    for number in range(20):
        case = judge.make_case(KINDS[name], seed=3, number=number)
        assert case.columns is not None
        apart.setdefault("logged", []).append(float(case.columns.reward.mean()) - case.logged)
        for question in case.questions:
            pmf = question.candidate(case.columns).pmf(case.columns)
            drawn = pmf[np.arange(len(pmf)), case.columns.action]
            value = float((drawn / case.columns.propensity * case.columns.reward).mean())
            apart.setdefault(question.name, []).append(value - question.truth)
    for question_name, differences in apart.items():
        error = float(np.std(differences, ddof=1)) / math.sqrt(len(differences))
        assert abs(float(np.mean(differences))) < 5 * error, question_name


@pytest.mark.parametrize(
    "name",
    ["all propensities halved, no pmfs", "two segments swapped, pmfs", "greedy draws, softmax logged, pmfs"],
)
def test_wrong_propensities_are_found_and_nothing_is_answered(name: str) -> None:
    """Each estimate would be wrong by as much as the propensities are."""
    verdicts, answers = count_kind(name, logs=4)
    assert (verdicts.verdicts["do not use"], verdicts.caused) == (4, 4)
    assert all(one.answered == 0 for one in answers.values())


@pytest.mark.parametrize("name", ["logging by segment, pmfs", "40 units x 50", "eligible sets, no pmfs"])
def test_right_logs_are_answered_without_an_alarm_and_covered(name: str) -> None:
    """An alarm that rings for right logs is switched off. Of 24 answers at 95 % more than six miss by chance in one of
    5,000 tables."""
    verdicts, answers = count_kind(name, logs=8)
    assert (verdicts.verdicts["do not use"], verdicts.refused) == (0, 0)
    assert sum(one.answered for one in answers.values()) == 8 * len(answers)
    assert sum(one.missed for one in answers.values()) <= 6


def test_what_cannot_be_read_is_counted_as_such() -> None:
    """A reader that refuses a log does what it must; it is no evaluation, so there is nothing to cover."""
    verdicts, answers = count_kind("empty clicks", logs=3)
    assert (verdicts.logs, verdicts.verdicts[judge.UNREADABLE], answers) == (3, 3, {})


def test_a_forced_evaluation_tells_what_would_have_been_refused() -> None:
    """The study evaluates each log once, forced: the verdict has to be that of the evaluation that people run."""
    for name in ("clicks 0.4 %", "300 rows, pmfs"):
        case = judge.make_case(KINDS[name], seed=5, number=0)
        assert case.columns is not None
        candidates = [one.candidate(case.columns) for one in case.questions]
        forced, plain = (evaluate(case.columns, candidates, force=force, breakdown=False) for force in (True, False))
        for question, one, other in zip(case.questions, forced.policies, plain.policies, strict=True):
            assert judge.answer_to(question, one, forced, logged=case.logged).refused == other.refused


def test_counts_of_chunks_add_up_to_those_of_the_whole() -> None:
    """Whatever process judges which logs."""
    whole, answers = count_kind("300 rows, pmfs", logs=4)
    (first, one), (second, other) = (count_kind("300 rows, pmfs", logs=2, first=start) for start in (0, 2))
    assert first + second == whole
    for name, answer in answers.items():
        added = one[name] + other[name]
        assert (added.logs, added.verdicts, added.missed_forced) == (4, answer.verdicts, answer.missed_forced)
        assert added.width == pytest.approx(answer.width)


def test_the_worst_is_an_answer_that_is_fine_and_misses() -> None:
    """It is counted only where log and policy are fine; a miss that was cautioned or refused is another thing."""
    wrong = Answers("300 rows, pmfs", "uniform", Counter({"fine": 3, "do not use": 1}), 4, answered=3, missed=2)
    wrong = replace(wrong, missed_forced=3, misleading=1, finite=4, width=0.4, squares=0.05)
    counts: list[judge.Counts] = [Verdicts("300 rows, pmfs", Counter({"fine": 4}), 4, refused=1), wrong]
    row = next(line for line in table.report(counts, seed=1).splitlines() if line.startswith("| 300 rows"))
    cells = [cell.strip() for cell in row.strip("| ").split("|")]
    assert cells[1:4] == ["uniform", "100 / 0 / 0", "75 / 0 / 25"]
    assert cells[5:7] == ["33.3 ± 27.2", "25.0 ± 21.7"]
    assert cells[-1] == "25.0 ± 21.7"
    assert "| **all** | 4 | 0 | 53 % | 1 | 75 % | 0 | 53 % |" in table.report(counts, seed=1)


def test_the_kinds_command_prints_tables_and_writes_counts(tmp_path: Path) -> None:
    """What `make kinds` does, with little of everything; what is published is what was counted."""
    file = tmp_path / "kinds.json"
    options = ["--kinds", "^300 rows|^empty clicks$|last page$", "--logs", "2", "--workers", "1", "--json", str(file)]
    result = CliRunner().invoke(kinds_command, options)
    assert result.exit_code == 0, result.output
    rows = [line.split("|")[1].strip() for line in result.stdout.splitlines() if line.startswith("| ")]
    assert {"300 rows, pmfs", "300 rows, no pmfs", "empty clicks", "leak by outcome: last page", "**all**"} <= {*rows}
    counts = json.loads(file.read_text())
    assert {one["logs"] for one in counts} == {2}
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.START}\nold\n{table.END}\nafter\n")
    publish_tables([Verdicts("300 rows, pmfs", Counter({"fine": 4}), 4)], seed=1, folder=tmp_path, page=page)
    assert page.read_text().startswith(f"before\n{table.START}\n4 logs from seed 1")
    assert page.read_text().endswith(f"{table.END}\nafter\n")
    assert (tmp_path / "RESULTS.md").read_text().startswith("# Kinds of logs\n\n4 logs")


@pytest.mark.parametrize(("pattern", "message"), [("(", "not a regular expression"), ("Zz", "matches none of: leak")])
def test_a_pattern_that_selects_no_kind_is_refused(pattern: str, message: str) -> None:
    """Before the long run, with the names there are."""
    result = CliRunner().invoke(kinds_command, ["--kinds", pattern])
    assert (result.exit_code, message in result.output) == (2, True), result.output


def test_a_part_of_the_kinds_is_not_published() -> None:
    """It would take the place of the whole tables."""
    result = CliRunner().invoke(kinds_command, ["--kinds", "leak", "--logs", "1", "--publish"])
    assert (result.exit_code, "leave out --kinds" in result.output) == (2, True), result.output


def test_the_results_have_a_place_for_the_tables() -> None:
    """`--publish` writes between the markers, and nowhere else."""
    text = (Path(judge.__file__).parents[1] / "RESULTS.md").read_text(encoding="utf-8")
    assert text.count(table.START) == text.count(table.END) == 1
