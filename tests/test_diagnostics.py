"""The checks of a log and of a candidate on it: each speaks up on a log made wrong in its way, and only there."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy.stats import binom

from decider.estimate.sample import Floats, Longs, by_unit
from decider.estimate.weights import effective_size, largest_share, mean_weight, top_share, usual_value
from simulator.datasets import open_bandit
from simulator.evaluate.checks.answer import Answer
from simulator.evaluate.checks.candidate import diagnose
from simulator.evaluate.checks.context import CAUTION
from simulator.evaluate.checks.context import NAME as BALANCE
from simulator.evaluate.checks.log import log_findings
from simulator.evaluate.estimates import estimate_mean
from simulator.evaluate.result import Diagnostics, Finding, LogSummary, Verdict
from simulator.evaluate.support import samples_of
from simulator.evaluate.verdicts import ALARM, worst_verdict
from simulator.logs.columns import Category, Columns, Number
from simulator.report.checks import candidate_panel, findings_table, log_panel
from simulator.report.table import in_terminal
from tests.conftest import THOMPSON

CHECKS = Path(__file__).parent.parent / "simulator" / "evaluate" / "checks"
SECOND = 1_000_000
HOUR = 3_600 * SECOND
SURE = 1e-5
"""Chance that right checks fail one of these tests, were the seeds not fixed."""


def draw(pmf: Floats, rng: np.random.Generator) -> Longs:
    """(n,) actions from (n, actions) probabilities."""
    below = pmf.cumsum(axis=1) < rng.random((len(pmf), 1))
    drawn: Longs = np.minimum(below.sum(axis=1), pmf.shape[1] - 1)
    return drawn


def contextual(decisions: int, actions: int, rng: np.random.Generator) -> Floats:
    """pmfs as a learning policy has them: different everywhere, with a floor, in millionths like ours."""
    pmf = 0.9 * rng.dirichlet(np.ones(actions), decisions) + 0.1 / actions
    pmf = np.floor(pmf * 1e6) / 1e6
    pmf[:, 0] += 1 - pmf.sum(axis=1)
    return pmf


def log(
    decisions: int = 5_000,
    *,
    actions: int = 4,
    seed: int = 0,
    rate: float = 0.1,
    pmf: Floats | None = None,
    drawn_from: Floats | None = None,
    drawn: Longs | None = None,
    unit: Longs | None = None,
    with_pmf: bool = True,
) -> Columns:
    """A right log of ours: contextual pmfs, clicks, an arrival every second on average, a window of an hour.

    drawn_from: the pmfs that the draws really come from; drawn: the draws themselves.
    """
    rng = np.random.default_rng(seed)
    logged = contextual(decisions, actions, rng) if pmf is None else pmf
    action = draw(logged if drawn_from is None else drawn_from, rng) if drawn is None else drawn
    clicked = rng.random(decisions) < rate
    time = 1_800_000_000 * SECOND + np.cumsum(rng.exponential(SECOND, decisions)).astype(np.int64)
    return Columns(
        name="made by hand",
        actions=tuple(f"action {index}" for index in range(logged.shape[1])),
        action=action.astype(np.int32),
        propensity=logged[np.arange(decisions), action],
        reward=clicked.astype(np.float64),
        reward_range=(0.0, 1.0),
        time=time,
        known=time + HOUR,
        unit=np.arange(decisions) if unit is None else unit,
        fields={
            "segment": Category(rng.integers(-1, 2, decisions).astype(np.int32), ("young", "old")),
            "age": Number(np.where(rng.random(decisions) < 0.5, 40.0, np.nan)),
        },
        sets=(tuple(range(logged.shape[1])),),
        eligible=np.zeros(decisions, np.int32),
        pmf=logged.astype(np.float32).ravel() if with_pmf else None,
        default=~clicked,
        delay=np.where(clicked, rng.exponential(60.0, decisions), np.nan),
        reason=Category(np.zeros(decisions, np.int32), ("EXPLORE", "FALLBACK", "NO_EXPLORATION")),
        model=np.ones(decisions, np.int64),
        left_out={"window open": 0, "overridden": 0},
        counts={"rewards joined": 500, "rewards late": 3, "rewards duplicate": 2, "rewards orphan": 1},
    )


def found(columns: Columns, name: str) -> Finding:
    """The finding of that name; there is exactly one."""
    (finding,) = (finding for finding in log_findings(columns) if finding.name == name)
    return finding


def names(columns: Columns) -> set[str]:
    """Of all findings."""
    return {finding.name for finding in log_findings(columns)}


def not_fine(findings: tuple[Finding, ...]) -> dict[str, Verdict]:
    """Names and verdicts of what is not fine."""
    return {finding.name: finding.verdict for finding in findings if finding.verdict != "fine"}


# A right log


def test_a_right_log_is_fine_in_every_way() -> None:
    """A tool that warns about everything is not read."""
    findings = log_findings(log())
    assert not_fine(findings) == {}
    assert {
        *("decisions", "rewarded decisions", "propensities", "smallest propensity", "mean weight by action", "pmfs"),
        *("propensity calibration", "sample ratio", "choice", "exploration", "actions never drawn", "repeated units"),
        *("default share", "reward delay", "late rewards", "refused rewards", "overrides", "time gaps", "drift"),
        *("fallbacks", "exploration switched off", "models", "balance of the context"),
    } == {finding.name for finding in findings}


@pytest.mark.parametrize("with_pmf", [True, False])
def test_right_logs_raise_false_alarms_at_most_at_the_rate_that_is_promised(with_pmf: bool) -> None:
    """300 logs with few clicks, repeated units, propensities down to 0.2 %: each check is wrong about 0.1 % of them."""
    alarms: list[str] = []
    for seed in range(300):
        rng = np.random.default_rng(10_000 + seed)
        pmf = contextual(2_000, 4, rng) * 0.9
        pmf[:, 1] += 1 - pmf.sum(axis=1)
        pmf[:, 2:] *= 0.1
        pmf[:, 0] += 1 - pmf.sum(axis=1)
        columns = log(2_000, seed=seed, rate=0.05, pmf=pmf, unit=rng.integers(0, 1_200, 2_000), with_pmf=with_pmf)
        alarms += not_fine(log_findings(columns))
    checks = (
        "mean weight by action",
        "propensity calibration",
        "sample ratio",
        "draws of a unit",
        "time gaps",
        "drift",
    )
    for check in checks:
        assert alarms.count(check) <= binom.ppf(1 - SURE, 300, ALARM), check
    assert alarms.count(BALANCE) <= binom.ppf(1 - SURE, 300, CAUTION)
    assert set(alarms) <= {*checks, BALANCE}


# Wrong propensities


def test_without_propensities_nothing_can_be_weighted_and_the_finding_says_what_is_left() -> None:
    """Ordinary tables come without; a researcher must learn what is still possible."""
    columns = replace(log(), propensity=np.full(5_000, np.nan), pmf=None)
    finding = found(columns, "propensities")
    assert finding.verdict == "do not use"
    assert "direct method" in finding.text
    assert finding.value == 5_000
    assert not {"mean weight by action", "sample ratio"} & names(columns)


def test_one_missing_propensity_is_counted() -> None:
    """nan must not leak into the other figures."""
    columns = log()
    columns.propensity[7] = np.nan
    assert found(columns, "propensities").value == 1


def test_a_greedy_server_that_logs_a_softmax_is_found() -> None:
    """Two live open-source servers do this: the argmax is served, a softer pmf is logged."""
    pmf = contextual(5_000, 4, np.random.default_rng(1))
    findings = not_fine(log_findings(log(pmf=pmf, drawn=pmf.argmax(axis=1))))
    assert findings["propensity calibration"] == findings["sample ratio"] == "do not use"
    assert findings["mean weight by action"] == "do not use"
    assert "the most probable action" in found(log(pmf=pmf, drawn=pmf.argmax(axis=1)), "sample ratio").text


def test_propensities_of_other_decisions_are_found() -> None:
    """A join that shifts rows by one leaves every column plausible by itself."""
    pmf = contextual(5_000, 4, np.random.default_rng(2))
    findings = not_fine(log_findings(log(pmf=pmf, drawn_from=np.roll(pmf, 1, axis=0))))
    assert findings["propensity calibration"] == "do not use"
    assert findings["mean weight by action"] == "do not use"


@pytest.mark.parametrize("with_pmf", [True, False])
def test_propensities_that_belong_to_other_actions_are_found(with_pmf: bool) -> None:
    """Mean weight 4.6 in place of 1: libraries return figures without a warning."""
    pmf = np.tile([0.7, 0.2, 0.06, 0.04], (5_000, 1))
    findings = not_fine(log_findings(log(pmf=pmf, drawn_from=pmf[:, ::-1], with_pmf=with_pmf)))
    assert findings["mean weight by action"] == "do not use"
    assert findings["sample ratio"] == "do not use"


def test_an_action_drawn_a_fifth_too_often_is_named() -> None:
    """The finding must lead to the broken place."""
    rng = np.random.default_rng(4)
    pmf = contextual(40_000, 4, rng)
    really = pmf.copy()
    really[:, 2] *= 1.2
    really /= really.sum(axis=1, keepdims=True)
    columns = log(40_000, pmf=pmf, drawn_from=really)
    for name in ("mean weight by action", "sample ratio"):
        finding = found(columns, name)
        assert finding.verdict == "do not use"
        assert "'action 2'" in finding.text
        assert "more often" in finding.text


def test_a_skew_that_is_certain_but_small_is_no_reason_to_refuse() -> None:
    """In a million decisions a skew of 3 % is beyond doubt, and changes no conclusion."""
    pmf = np.tile([0.5, 0.5], (400_000, 1))
    finding = found(log(400_000, pmf=pmf, drawn_from=pmf + np.array([0.015, -0.015])), "sample ratio")
    assert finding.verdict == "caution"


def test_without_pmfs_an_action_that_is_drawn_too_rarely_may_not_have_been_eligible() -> None:
    """1{a}/propensity is below 1 in both cases; only the pmf could tell, and the finding says so."""
    rng = np.random.default_rng(5)
    pmf = np.tile([0.25, 0.25, 0.25, 0.25], (5_000, 1))
    pmf[rng.random(5_000) < 0.5] = [0.5, 0.5, 0.0, 0.0]
    finding = found(log(pmf=pmf, with_pmf=False), "mean weight by action")
    assert finding.verdict == "caution"
    assert "could not always be drawn" in finding.text
    assert found(log(pmf=pmf), "mean weight by action").verdict == "fine"


def test_a_pmf_that_does_not_give_the_propensity_is_found() -> None:
    """An override after the draw, logged as the draw, leaves this trace."""
    columns = log()
    few = columns.propensity.copy()
    few[:100] /= 2
    assert found(replace(columns, propensity=few), "pmfs").verdict == "caution"
    assert found(replace(columns, propensity=columns.propensity / 2), "pmfs").verdict == "do not use"
    assert columns.pmf is not None
    assert found(replace(columns, pmf=(columns.pmf / 2).astype(np.float32)), "pmfs").verdict == "do not use"


def test_units_that_keep_their_action_are_seen_and_raise_no_alarm_about_propensities() -> None:
    """An experiment that draws once for each visitor is right; taken for independent draws it would look skewed."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        unit = rng.integers(0, 60, 3_000)
        pmf = np.tile([0.4, 0.3, 0.2, 0.1], (3_000, 1))
        columns = log(3_000, seed=seed, pmf=pmf, unit=unit, drawn=draw(pmf[:60], rng)[unit])
        findings = not_fine(log_findings(columns))
        assert findings["draws of a unit"] == "caution"
        assert not {"mean weight by action", "propensity calibration", "sample ratio"} & findings.keys()


def test_a_propensity_that_the_log_is_too_short_for_is_pointed_out() -> None:
    """One draw at 1e-5 weighs more than all of 1,000 decisions."""
    columns = log(1_000)
    columns.propensity[3] = 1e-5
    finding = found(replace(columns, pmf=None), "smallest propensity")
    assert (finding.verdict, finding.value) == ("caution", 1e-5)


def test_a_log_without_exploration_says_so() -> None:
    """Only the logged policy can be judged on it."""
    pmf = np.tile([1.0, 0.0, 0.0, 0.0], (1_000, 1))
    findings = not_fine(log_findings(log(1_000, pmf=pmf)))
    assert findings == {"exploration": "caution", "actions never drawn": "caution"}


# Everything else about a log


def test_few_rewards_are_pointed_out_with_how_many_decisions_would_do() -> None:
    """At rare clicks the number of clicks, not of decisions, says how much is known."""
    columns = replace(log(10_000), reward=(np.arange(10_000) < 40).astype(np.float64))
    finding = found(columns, "rewarded decisions")
    assert (finding.verdict, finding.value) == ("caution", 40)
    assert "2,500 more decisions" in finding.needed


def test_rewards_of_minus_one_and_zero_count_as_the_same_events() -> None:
    """{-1, 0} is {0, 1} shifted: the zeros are what happened rarely."""
    columns = log()
    assert found(replace(columns, reward=columns.reward - 1), "rewarded decisions").value == columns.reward.sum()


def test_decisions_without_a_choice_and_actions_that_never_came_are_counted() -> None:
    """There is nothing to learn from the first, and nothing known about the second."""
    columns = log(1_000, pmf=np.tile([0.5, 0.5, 0.0, 0.0], (1_000, 1)))
    one = replace(
        columns,
        sets=((0, 1, 2), (0,)),
        eligible=(np.arange(1_000) < 600).astype(np.int32),
        propensity=np.where(np.arange(1_000) < 600, 1.0, 0.5),
        action=np.where(np.arange(1_000) < 600, 0, columns.action).astype(np.int32),
        pmf=None,
    )
    assert (found(one, "choice").verdict, found(one, "choice").value) == ("caution", 0.6)
    never = found(one, "actions never drawn")
    assert (never.verdict, never.value) == ("caution", 1)
    assert "'action 2'" in never.text
    assert found(one, "exploration").value == 0


def test_one_unit_with_a_tenth_of_the_decisions_is_a_robot() -> None:
    """Its decisions count as one in the intervals, and its taste is not that of visitors."""
    unit = np.where(np.arange(5_000) % 10 == 0, -1, np.arange(5_000))
    finding = found(log(unit=unit), "repeated units")
    assert (finding.verdict, finding.value) == ("caution", 0.1)


def test_a_log_in_which_no_reward_ever_came_says_so() -> None:
    """The most common mistake: rewards are sent with another id."""
    columns = replace(log(), default=np.ones(5_000, np.bool_), reward=np.zeros(5_000), delay=np.full(5_000, np.nan))
    findings = not_fine(log_findings(columns))
    assert findings["default share"] == findings["rewarded decisions"] == "caution"
    assert "reward delay" not in names(columns)


def test_rewards_that_come_until_the_window_closes_and_after_it_are_pointed_out() -> None:
    """Who converts slowly would be missing."""
    columns = log()
    slow = np.where(columns.reward > 0, np.linspace(0, 3_600, 5_000), np.nan)
    assert found(replace(columns, delay=slow), "reward delay").verdict == "caution"
    late = {"rewards joined": 90, "rewards late": 10}
    finding = found(replace(columns, counts=late), "late rewards")
    assert (finding.verdict, finding.value) == ("caution", 0.1)


def test_duplicates_are_fine_and_orphans_are_not() -> None:
    """A retried reward is counted once; one without a decision is lost."""
    counts = {"rewards joined": 80, "rewards late": 0, "rewards duplicate": 50, "rewards orphan": 0}
    assert found(replace(log(), counts=counts), "refused rewards").verdict == "fine"
    finding = found(replace(log(), counts=counts | {"rewards orphan": 70}), "refused rewards")
    assert (finding.verdict, finding.value) == ("caution", 0.35)


@pytest.mark.parametrize("where", ["left_out", "counts"])
def test_many_overrides_are_pointed_out(where: str) -> None:
    """What is left is a selection: real click rates were 3 times below the estimate."""
    counted: Mapping[str, int] = {"overridden": 1_000}
    columns = replace(log(), left_out={})
    columns = replace(columns, left_out=counted) if where == "left_out" else replace(columns, counts=counted)
    finding = found(columns, "overrides")
    assert finding.verdict == "caution"
    assert finding.value == pytest.approx(1 / 6 if where == "left_out" else 1 / 5)


def test_decisions_that_the_policy_did_not_make_are_counted_by_their_reason() -> None:
    """A policy that fails often was not logged: the baseline was."""
    columns = log()
    reason = Category((np.arange(5_000) % 10 == 0).astype(np.int32), ("EXPLORE", "FALLBACK"))
    finding = found(replace(columns, reason=reason), "fallbacks")
    assert (finding.verdict, finding.value) == ("caution", 0.1)
    off = Category((np.arange(5_000) % 5 == 0).astype(np.int32), ("EXPLORE", "NO_EXPLORATION"))
    assert found(replace(columns, reason=off), "exploration switched off").value == 0.2


def test_what_was_left_out_is_named_by_kind() -> None:
    """A figure about half of a log must say which half."""
    finding = found(replace(log(), left_out={"holdout": 200, "window open": 50, "overridden": 0}), "left out")
    assert "200 holdout, 50 window open" in finding.text


def test_a_hole_in_time_is_found_and_quiet_traffic_is_not_one() -> None:
    """A server that was down, or a day whose file is missing."""
    columns = log()
    later = columns.time + np.where(np.arange(5_000) < 2_500, 0, 600 * SECOND)
    finding = found(replace(columns, time=later, known=later + HOUR), "time gaps")
    assert finding.verdict == "caution"
    assert finding.value == pytest.approx(600, abs=15)
    assert "time gaps" not in names(replace(columns, time=np.zeros(5_000, np.int64)))


def test_drift_is_found_and_repeated_units_are_no_drift() -> None:
    """Rewards that double half-way through; a visitor whose 200 clicks come together is one event, not 200."""
    columns, rng = log(20_000), np.random.default_rng(6)
    rising = (rng.random(20_000) < np.where(np.arange(20_000) < 10_000, 0.05, 0.1)).astype(np.float64)
    assert found(replace(columns, reward=rising), "drift").verdict == "caution"
    unit = np.arange(20_000) // 200
    together = (rng.random(100) < 0.1)[unit].astype(np.float64)
    assert found(replace(columns, reward=together, unit=unit), "drift").verdict == "fine"
    assert found(replace(columns, reward=together), "drift").verdict == "caution"


# Logs that are hardly there


@pytest.mark.parametrize("decisions", [0, 1, 2, 3])
@pytest.mark.parametrize("actions", [1, 3])
@pytest.mark.parametrize("with_pmf", [True, False])
def test_tiny_logs_give_findings_and_no_warnings(decisions: int, actions: int, with_pmf: bool) -> None:
    """Warnings are errors here: no division by zero, no mean of nothing."""
    columns = log(decisions, actions=actions, with_pmf=with_pmf)
    for one in (columns, replace(columns, reward=np.zeros(decisions)), replace(columns, default=None, delay=None)):
        findings = log_findings(one)
        assert findings[0].verdict == ("fine" if decisions else "do not use")
        diagnostics = diagnose(against(one, np.full((decisions, actions), 1 / actions)), log=findings)
        assert diagnostics.verdict == "do not use"
        _printed(findings, diagnostics)


def test_a_log_with_nothing_but_actions_and_rewards_gives_what_it_can() -> None:
    """A plain table: no sets that were used, no times, no propensities, no counts."""
    bare = replace(
        log(100),
        propensity=np.full(100, np.nan),
        pmf=None,
        time=np.zeros(100, np.int64),
        known=np.zeros(100, np.int64),
        fields={},
        default=None,
        delay=None,
        reason=None,
        model=None,
        left_out={},
        counts={},
    )
    assert names(bare) == {
        *("decisions", "rewarded decisions", "propensities", "choice", "actions never drawn", "repeated units"),
    }
    diagnostics = diagnose(Weights(bare, np.full(100, np.nan)), log=log_findings(bare))
    assert diagnostics.verdict == "do not use"
    assert math.isnan(diagnostics.smallest_propensity)


# A candidate on a log


@dataclass(frozen=True, slots=True)
class Weights:
    """A candidate's overlap with a log, as the evaluation's scores have it; without a reward model."""

    columns: Columns
    weight: Floats
    missing: Floats = field(default_factory=lambda: np.zeros(0))
    predicted: Floats = field(default_factory=lambda: np.array([math.nan]))
    expected: Floats = field(default_factory=lambda: np.array([math.nan]))
    guess: Floats = field(default_factory=lambda: np.zeros(1))
    missing_by_action: Floats = field(default_factory=lambda: np.zeros(0))
    example: Longs = field(default_factory=lambda: np.zeros(0, np.int64))
    possible_weight: float = math.nan

    def __post_init__(self) -> None:
        if not len(self.missing):
            object.__setattr__(self, "missing", np.zeros(len(self.weight)))


def against(columns: Columns, candidate: Floats) -> Weights:
    """What (n, actions) candidate probabilities make of a log with pmfs, worked out in the plainest way."""
    logged = columns.dense_pmf() if columns.pmf is not None else np.ones_like(candidate)
    lost = np.where(logged > 0, 0.0, candidate)
    ratio = np.divide(candidate, logged, out=np.zeros_like(logged), where=logged > 0)
    rows = np.arange(len(columns))
    return Weights(
        columns=columns,
        weight=candidate[rows, columns.action] / columns.propensity,
        missing=lost.sum(axis=1),
        missing_by_action=lost.sum(axis=0) / max(1, len(columns)),
        example=np.where(lost.any(axis=0), lost.argmax(axis=0) if len(columns) else -1, -1),
        possible_weight=float(ratio.max(initial=0.0)),
    )


def verdicts(diagnostics: Diagnostics) -> dict[str, Verdict]:
    """Of all findings."""
    return {finding.name: finding.verdict for finding in diagnostics.findings}


def test_the_logged_policy_on_its_own_log_is_fine() -> None:
    """All weights are 1: every figure is known."""
    columns = log()
    diagnostics = diagnose(against(columns, columns.dense_pmf()), log=log_findings(columns))
    assert diagnostics.verdict == "fine"
    assert diagnostics.reasons == ()
    assert diagnostics.ess == pytest.approx(5_000)
    assert diagnostics.mean_weight == pytest.approx(1)
    assert diagnostics.effective_successes == pytest.approx(columns.reward.sum())
    assert diagnostics.support_violations == diagnostics.missing_mass == 0


def test_candidates_that_overlap_are_not_refused() -> None:
    """50 logs and candidates of another taste: what is estimable must be estimated."""
    for seed in range(50):
        columns = log(3_000, seed=seed, rate=0.2)
        candidate = contextual(3_000, 4, np.random.default_rng(1_000 + seed))
        assert diagnose(against(columns, candidate)).verdict != "do not use"


def test_the_figures_are_those_of_their_definitions() -> None:
    """Written out once more, number by number."""
    weight = np.array([4.0, 1.0, 1.0, 0.5, 0.0, 2.0])
    reward = np.array([1.0, 0.0, 0.0, 1.0, 0.0, 0.0])
    diagnostics = diagnose(Weights(replace(log(6), reward=reward), weight, possible_weight=9.0))
    assert diagnostics.ess == pytest.approx(8.5**2 / (16 + 1 + 1 + 0.25 + 4))
    assert diagnostics.effective_successes == pytest.approx(4.5**2 / 16.25)
    assert diagnostics.max_weight == 4
    assert diagnostics.possible_weight == 9
    assert diagnostics.top_share == pytest.approx(4 / 8.5)
    assert diagnostics.mean_weight == pytest.approx(8.5 / 6)


def test_an_action_that_the_log_could_not_draw_is_named_with_where() -> None:
    """ "Which action in which context": without it nobody can repair the logging."""
    pmf = np.tile([0.5, 0.5, 0.0], (4_000, 1))
    pmf[1_000:] = [0.4, 0.4, 0.2]
    columns = log(4_000, pmf=pmf)
    columns = replace(columns, fields={"segment": Category(np.zeros(4_000, np.int32), ("young",))})
    diagnostics = diagnose(against(columns, np.tile([0.2, 0.2, 0.6], (4_000, 1))))
    assert diagnostics.support_violations == 1_000
    assert diagnostics.missing_mass == pytest.approx(0.15)
    (finding,) = (one for one in diagnostics.findings if one.name == "support")
    assert finding.verdict == "caution", "the interval says how much is unknown, and is refused where that is too much"
    assert "15 % of all its draws" in finding.text
    assert "'action 2'" in finding.text
    assert "decision 1 (segment=young)" in finding.text
    assert verdicts(diagnostics)["mean weight"] == "fine"


def test_a_little_missing_mass_is_a_warning_with_its_bound() -> None:
    """The estimate can be off by the missing mass times the range, and no more."""
    pmf = np.tile([0.5, 0.5, 0.0], (4_000, 1))
    columns = log(4_000, pmf=pmf)
    diagnostics = diagnose(against(columns, np.tile([0.5, 0.49, 0.01], (4_000, 1))))
    assert verdicts(diagnostics)["support"] == diagnostics.verdict == "caution"
    assert "1 % of the range" in diagnostics.reasons[0]


def test_mass_on_actions_that_the_log_does_not_know_is_missing_too() -> None:
    """A candidate with an action that was added later."""
    columns = log(1_000)
    weights = replace(
        against(columns, columns.dense_pmf() * 0.8), missing=np.full(1_000, 0.2), missing_by_action=np.zeros(4)
    )
    diagnostics = diagnose(weights)
    assert verdicts(diagnostics)["support"] == "caution"
    assert "does not know" in diagnostics.reasons[0]


def test_weights_that_do_not_add_up_are_refused_in_both_directions() -> None:
    """Propensities half or twice as large as they should be: every estimate would be off by as much."""
    columns = log()
    candidate = contextual(5_000, 4, np.random.default_rng(8))
    for factor, text in ((2.0, "more often"), (0.5, "hardly drawn")):
        overlap = against(columns, candidate)
        diagnostics = diagnose(replace(overlap, weight=overlap.weight * factor))
        assert verdicts(diagnostics)["mean weight"] == "do not use"
        assert any(text in reason for reason in diagnostics.reasons)


def test_a_candidate_whose_actions_chance_never_drew_is_refused_although_the_weights_look_even() -> None:
    """Drawn once in 10,000 and wanted nine times in ten: in 1,000 decisions all weights are 0.1, ESS is 1,000."""
    pmf = np.tile([0.9999, 0.0001], (1_000, 1))
    columns = log(1_000, pmf=pmf, drawn=np.zeros(1_000, np.int64), rate=0.3)
    diagnostics = diagnose(against(columns, np.tile([0.1, 0.9], (1_000, 1))))
    assert diagnostics.ess == pytest.approx(1_000)
    assert verdicts(diagnostics)["mean weight"] == "do not use"
    assert verdicts(diagnostics)["largest weight"] == "caution"


def test_units_that_repeat_make_the_mean_weight_uncertain() -> None:
    """Ten visitors with 500 decisions and one draw each: a mean weight of 1.2 is chance, not wrong propensities."""
    unit = np.arange(5_000) % 10
    weight = np.where(unit < 6, 2.0, 0.0)
    alone, together = log(), log(unit=unit)
    assert verdicts(diagnose(Weights(alone, weight)))["mean weight"] == "do not use"
    assert verdicts(diagnose(Weights(together, weight)))["mean weight"] == "fine"


def test_two_effective_draws_are_refused_and_a_hundred_are_not() -> None:
    """Some pairs of the Open Bandit logs have an effective sample of 2: there a tool must refuse."""
    columns = log(10_000, rate=0.5)
    for hits, verdict in ((2, "do not use"), (100, "caution"), (1_000, "fine")):
        weight = np.where(np.arange(10_000) < hits, 10_000 / hits, 0.0)
        diagnostics = diagnose(Weights(columns, weight))
        assert diagnostics.ess == pytest.approx(hits)
        assert verdicts(diagnostics)["effective sample size"] == verdict


def weighted_answer(columns: Columns, weight: Floats, *, heaviest: float) -> Answer:
    """IPS, as the evaluation makes it."""
    terms, (low, high) = weight * columns.reward, columns.reward_range
    sample = by_unit(terms, weight, columns.unit, low=min(0, low), high=high * heaviest, max_weight=heaviest)
    return Answer(estimate_mean(samples_of(sample, None), columns.reward_range), terms, columns.reward_range)


def test_one_decision_that_carries_the_result_is_pointed_out() -> None:
    """One purchase larger than all others together: the interval holds its absence, so it is a caution."""
    amounts = np.where(np.arange(5_000) < 500, 1.0, 0.0)
    amounts[1] = 600
    for reward, verdict in ((np.minimum(amounts, 1.0), "fine"), (amounts, "caution")):
        columns = replace(log(), reward=reward, reward_range=(0.0, 600.0 if verdict == "caution" else 1.0))
        ones = np.ones(5_000)
        diagnostics = diagnose(Weights(columns, ones), answer=weighted_answer(columns, ones, heaviest=1.0))
        assert verdicts(diagnostics)["largest contribution"] == diagnostics.verdict == verdict


def test_a_few_heavy_weights_are_pointed_out_with_how_much_more_logging_would_do() -> None:
    """A caution, not a refusal: the interval is wide, and honest."""
    weight = np.where(np.arange(10_000) < 60, 100.0, 0.4)
    diagnostics = diagnose(Weights(log(10_000, rate=0.3), weight, possible_weight=600.0))
    assert diagnostics.verdict == "caution"
    assert {"effective sample size", "top 1 %", "largest weight"} <= set(not_fine(diagnostics.findings))
    needed = {finding.name: finding.needed for finding in diagnostics.findings}
    assert "more decisions like these" in needed["effective sample size"]
    assert "minimum propensity" in needed["largest weight"]


def test_what_forbids_weighting_in_the_log_forbids_the_candidate() -> None:
    """Fine weights from wrong propensities are not fine; what is only a caution about a log stays with the log."""
    columns = log()
    of_log = (Finding("sample ratio", "do not use", "Skewed."), Finding("drift", "caution", "Drifts."))
    diagnostics = diagnose(against(columns, columns.dense_pmf()), log=of_log)
    assert (diagnostics.verdict, diagnostics.reasons) == ("do not use", ("Skewed.",))


# What is not fine says what to do


def _calls(module: Path) -> list[ast.Call]:
    found = [one for one in ast.walk(ast.parse(module.read_text(encoding="utf-8"))) if isinstance(one, ast.Call)]
    return [one for one in found if getattr(one.func, "id", "") == "Finding"]


def _given(call: ast.Call, name: str) -> ast.expr | None:
    place = list(Finding.__dataclass_fields__).index(name)
    by_name = {one.arg: one.value for one in call.keywords}
    return call.args[place] if len(call.args) > place else by_name.get(name)


@pytest.mark.parametrize("module", sorted(CHECKS.glob("*.py")), ids=lambda path: path.stem)
def test_a_finding_that_may_be_a_caution_has_a_text_of_what_to_do(module: Path) -> None:
    """Where all is amber nothing is: who is warned must be able to do something about it."""
    for call in _calls(module):
        verdict, needed = _given(call, "verdict"), _given(call, "needed")
        always_fine = isinstance(verdict, ast.Constant) and verdict.value == "fine"
        after_return = isinstance(verdict, ast.Name)  # `if verdict == "fine": return Finding(name, verdict, ...)`
        empty = needed is None or (isinstance(needed, ast.Constant) and not needed.value)
        assert always_fine or after_return or not empty, f"{module.name}:{call.lineno}"


def wrong_in_every_way() -> dict[str, Columns]:
    """Logs of which some check must say something."""
    columns, size = log(), 5_000
    reason = Category(np.arange(size, dtype=np.int32) % 3, ("EXPLORE", "FALLBACK", "NO_EXPLORATION"))
    few = np.arange(size) < 20
    counted = dict(columns.counts) | {"rewards late": 400, "rewards orphan": 400, "overridden": 900}
    return {
        "no propensities": replace(columns, propensity=np.full(size, np.nan), pmf=None),
        "half propensities": replace(columns, propensity=columns.propensity / 2, pmf=None),
        "other pmfs": replace(columns, propensity=np.roll(columns.propensity, 1)),
        "greedy": log(pmf=np.tile([1.0, 0.0, 0.0, 0.0], (size, 1))),
        "one action": replace(columns, sets=((0, 1, 2, 3), (0,)), eligible=(~few).astype(np.int32), pmf=None),
        "few rewards": replace(columns, reward=few.astype(np.float64)),
        "one unit": replace(columns, unit=np.zeros(size, np.int64)),
        "counts": replace(columns, counts=counted),
        "no reward": replace(columns, default=np.ones(size, np.bool_)),
        "short window": replace(columns, known=columns.time + 200 * SECOND),
        "reasons": replace(columns, reason=reason),
        "a hole": replace(columns, time=columns.time + np.where(few, 0, 5 * HOUR)),
        "drift": replace(columns, reward=(np.arange(size) % 10 < np.arange(size) // 500).astype(np.float64)),
    }


@pytest.mark.parametrize(("name", "columns"), wrong_in_every_way().items(), ids=lambda one: str(one)[:20])
def test_whatever_is_not_fine_says_what_to_do(name: str, columns: Columns) -> None:
    """The same of the findings that logs really give, of the log and of a candidate."""
    weight = np.where(np.arange(5_000) < 40, 60.0, 0.4) * np.where(np.isnan(columns.propensity), np.nan, 1.0)
    overlap = Weights(columns, weight, possible_weight=600.0)
    findings = [*log_findings(columns), *diagnose(overlap).findings]
    assert not_fine(log_findings(columns)), name
    assert [one.name for one in findings if one.verdict != "fine" and not one.needed] == []


# The real logs


def real_log(campaign: str) -> Columns:
    """One of the Open Bandit logs, without pmfs."""
    rows = open_bandit.load(campaign)
    items = max(row.item_id for row in rows) + 1
    pmf = np.zeros((len(rows), items))
    pmf[np.arange(len(rows)), [row.item_id for row in rows]] = [row.propensity_score for row in rows]
    drawn = np.array([row.item_id for row in rows])
    made = log(len(rows), pmf=pmf, drawn=drawn, with_pmf=False)
    time = np.array([round(row.timestamp.timestamp() * SECOND) for row in rows])
    return replace(made, reward=np.array([float(row.click) for row in rows]), time=time, known=time)


@pytest.mark.usefixtures("open_bandit_wheel")
@pytest.mark.parametrize("campaign", open_bandit.CAMPAIGNS)
def test_the_propensities_of_real_logs_pass(campaign: str) -> None:
    """True propensities down to 1e-6, 80 actions and 40 clicks: nothing here forbids weighting."""
    findings = log_findings(real_log(campaign))
    assert worst_verdict(findings) != "do not use"
    assert {"mean weight by action", "sample ratio", "actions never drawn"} & not_fine(findings).keys() <= {
        "actions never drawn"
    }


@pytest.mark.usefixtures("open_bandit_wheel")
@pytest.mark.parametrize(
    ("campaign", "verdict"), [("bts/all", "caution"), ("bts/men", "caution"), ("bts/women", "do not use")]
)
def test_uniform_on_the_real_bandit_logs_is_refused_only_where_there_is_no_overlap(
    campaign: str, verdict: Verdict
) -> None:
    """`women` has an effective sample of 2; on the others an estimate is possible, with a wide interval."""
    columns = real_log(campaign)
    weight = 1 / len(columns.actions) / columns.propensity
    answer = weighted_answer(columns, weight, heaviest=float(weight.max()))
    diagnostics = diagnose(Weights(columns, weight), log=log_findings(columns), answer=answer)
    assert diagnostics.verdict == verdict


@pytest.mark.usefixtures("open_bandit_wheel")
def test_thompson_on_the_real_uniform_log_is_not_refused() -> None:
    """The right answers: 80 actions, 38 clicks, ESS 1,640, of which 4.7 effective clicks. A caution, not a refusal."""
    table = np.loadtxt(THOMPSON, delimiter=",", skiprows=1)[:, 1:]
    rows = open_bandit.load("random/all")
    weight = np.array([table[row.item_id, row.position - 1] / row.propensity_score for row in rows])
    columns = real_log("random/all")
    overlap = Weights(columns, weight, possible_weight=float(table.max() * 80))
    answer = weighted_answer(columns, weight, heaviest=overlap.possible_weight)
    diagnostics = diagnose(overlap, log=log_findings(columns), answer=answer)
    assert diagnostics.ess == pytest.approx(1639.50, abs=0.005)
    assert diagnostics.max_weight == pytest.approx(19.5984, abs=0.00005)
    assert diagnostics.verdict == "caution"


# How it is shown


def _printed(findings: tuple[Finding, ...], diagnostics: Diagnostics) -> str:
    console = Console(width=100, record=True, file=StringIO())
    summary = LogSummary(
        name="shop.db",
        decisions=5_000,
        units=4_000,
        actions=4,
        mean_reward=0.1,
        mean_reward_low=0.09,
        mean_reward_high=0.11,
        reward_range=(0.0, 1.0),
        hours=1.5,
        left_out={"holdout": 12},
        verdict=worst_verdict(findings),
        findings=findings,
    )
    for shown in (
        in_terminal(findings_table(findings)),
        log_panel(summary),
        candidate_panel("uniform", diagnostics, 5_000),
    ):
        console.print(shown)
    return console.export_text()


def test_the_terminal_says_the_verdict_in_words_first_the_worst_first() -> None:
    """Read without colours, at 100 columns, from the top."""
    columns = replace(log(), propensity=np.full(5_000, np.nan), pmf=None)
    findings = log_findings(columns)
    text = _printed(findings, diagnose(Weights(columns, np.full(5_000, np.nan)), log=findings))
    lines = text.splitlines()
    assert lines[2].startswith("do not use  propensities")
    assert max(map(len, lines)) <= 100
    assert "shop.db: do not use" in text
    assert "uniform: do not use" in text
    assert "Needed: Log with every decision" in " ".join(text.split())
    assert "12 holdout" in text


def test_what_looks_like_markup_is_shown_as_it_is() -> None:
    """Action names come from logs; `[red]` in one must not colour, nor `[/]` break, the terminal."""
    finding = Finding("support", "caution", "Action '[/red] [bold]' is rare.", None, "[x]")
    assert "'[/red] [bold]' is rare. Needed: [x]" in _printed((finding,), diagnose(Weights(log(10), np.ones(10))))


# Statistics of weights


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30))
def test_the_effective_size_is_between_one_and_all(weights: list[float]) -> None:
    """Equal weights are worth all decisions, one heavy weight is worth one."""
    size = effective_size(np.array(weights))
    assert size == 0 if not any(weight**2 for weight in weights) else 1 - 1e-9 <= size <= len(weights) * (1 + 1e-9)
    assert effective_size(np.full(len(weights), 2.5)) == pytest.approx(len(weights))


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300), st.floats(0.01, 1))
def test_the_share_of_the_top_is_what_sorting_gives(weights: list[float], top: float) -> None:
    """Partition is fast; sorting is obviously right."""
    count = max(1, round(top * len(weights)))
    largest = math.fsum(sorted(weights)[-count:])
    total = math.fsum(weights)
    assert top_share(np.array(weights), top=top) == pytest.approx(largest / total if total else 0.0)


def test_the_error_of_the_mean_weight_is_that_of_units() -> None:
    """Without repeats the ordinary one; with units that repeat their weight, that of so many units."""
    rng = np.random.default_rng(10)
    weights = rng.exponential(1.0, 4_000)
    alone = mean_weight(weights, np.arange(4_000))
    assert alone.error == pytest.approx(weights.std(ddof=1) / math.sqrt(4_000))
    units = np.repeat(np.arange(400), 10)
    repeated = mean_weight(np.repeat(weights[:400], 10), units)
    assert repeated.error == pytest.approx(weights[:400].std(ddof=1) / math.sqrt(400))


@given(st.lists(st.sampled_from([0.0, 1.0, -1.0, 5.0]), min_size=1, max_size=50))
def test_the_usual_reward_is_that_of_a_majority(rewards: list[float]) -> None:
    """Whatever most decisions have carries no news."""
    for value in set(rewards):
        if 2 * rewards.count(value) > len(rewards):
            assert usual_value(np.array(rewards)) == value


def test_the_usual_reward_of_a_long_log_does_not_depend_on_its_beginning() -> None:
    """The first thousand decisions are only a guess."""
    rewards = np.concatenate([np.ones(1_001), np.zeros(1_100)])
    assert usual_value(rewards) == 0


def test_the_largest_share_looks_at_both_signs() -> None:
    """A refund counts as much as a purchase."""
    assert largest_share(np.array([-8.0, 1.0, 1.0])) == pytest.approx(0.8)
    assert largest_share(np.zeros(3)) == 0
