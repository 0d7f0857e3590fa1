"""Drift: a policy that learned is no fault, a world that changed is one; the control group tells which."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from simulator.evaluate.checks.drift import drift
from simulator.evaluate.result import Finding
from simulator.evaluate.verdicts import ALARM
from simulator.logs.columns import Category, Columns, Floats
from tests.logged_worlds import logged_world

START = 1_800_000_000_000_000


def log(rate: Floats | float, *, seed: int = 1, decisions: int = 20_000, models: int = 1) -> Columns:
    """Clicks at a rate that may change along the log; one decision a second."""
    columns = logged_world(seed=seed, decisions=decisions).columns
    time = START + np.arange(decisions) * 1_000_000
    reward = (np.random.default_rng(seed).random(decisions) < rate).astype(np.float64)
    model = np.arange(decisions) * models // decisions
    return replace(columns, time=time, known=time, reward=reward, model=model)


def rising(decisions: int = 20_000) -> Floats:
    """From 5 % to 15 %."""
    return np.linspace(0.05, 0.15, decisions)


def beside(columns: Columns, rate: Floats | float, *, decisions: int = 4_000) -> Columns:
    """The log with a control group over the same time."""
    holdout = log(rate, seed=99, decisions=decisions)
    time = START + np.arange(decisions) * (len(columns) // decisions) * 1_000_000
    return replace(columns, holdout=replace(holdout, time=time))


def judged(columns: Columns) -> Finding:
    """The finding; there is one."""
    finding = drift(columns)
    assert finding is not None
    return finding


def test_a_policy_that_learned_is_fine() -> None:
    """The control group stands still while the policy earns more: success, and nothing to be done."""
    finding = judged(beside(log(rising(), models=20), 0.05))
    assert (finding.verdict, finding.needed) == ("fine", "")
    assert "so the policy learned" in finding.text


def test_a_world_that_changed_is_said_with_the_way_out() -> None:
    """The control group, which always gets the same action, moved along."""
    finding = judged(beside(log(rising(), models=20), rising(4_000)))
    assert finding.verdict == "caution"
    assert "so the world changed" in finding.text
    assert "--since 2027-01-15T10:46:40Z" in finding.needed, "the start of the later half"


def test_a_policy_that_got_worse_is_a_caution() -> None:
    """The control group stands still, and the policy falls."""
    finding = judged(beside(log(rising()[::-1], models=20), 0.05))
    assert finding.verdict == "caution"
    assert "the policy got worse" in finding.text


@pytest.mark.parametrize(("rate", "verdict"), [(rising(), "fine"), (rising()[::-1], "caution")])
def test_a_control_group_that_is_too_small_tells_nothing(rate: Floats, verdict: str) -> None:
    """Forty decisions could have moved along as well as not."""
    finding = judged(beside(log(rate, models=20), 0.1, decisions=40))
    assert finding.verdict == verdict
    assert "too small to tell" in finding.text


@pytest.mark.parametrize(
    ("rate", "models", "verdict"),
    [
        (rising(), 20, "fine"),
        (rising()[::-1], 20, "caution"),
        (np.concatenate([rising(10_000), rising(10_000)[::-1]]), 20, "caution"),
        (rising(), 1, "caution"),
        (rising()[::-1], 1, "caution"),
        (0.1, 20, "fine"),
        (0.1, 1, "fine"),
    ],
)
def test_without_a_control_group_several_models_may_have_learned(
    rate: Floats | float, models: int, verdict: str
) -> None:
    """Rising under several models is what is wanted; one model cannot learn, so there the world changed."""
    finding = judged(log(rate, models=models))
    assert finding.verdict == verdict
    assert bool(finding.needed) == (verdict == "caution")


@pytest.mark.parametrize("factor", [1.0, -1.0, 1e-3, -250.0])
@pytest.mark.parametrize("shift", [0.0, -7.0, 1e4])
@pytest.mark.parametrize("rate", [0.1, np.linspace(0.098, 0.102, 20_000), np.linspace(0.09, 0.12, 20_000)])
def test_the_unit_and_the_zero_of_rewards_do_not_matter(factor: float, shift: float, rate: Floats | float) -> None:
    """Profit in cents above a baseline is the same log as profit in euros; a loss is a profit with another sign."""
    columns = log(rate)
    moved = replace(columns, reward=factor * columns.reward + shift)
    assert judged(moved).verdict == judged(columns).verdict
    assert judged(moved).value == pytest.approx(judged(columns).value, rel=1e-3)


def test_right_logs_raise_a_false_alarm_at_the_rate_that_is_promised() -> None:
    """Steady rewards, with a steady control group, in 2,000 logs."""
    alarms = sum(
        judged(beside(log(0.1, seed=seed, decisions=2_000), 0.1, decisions=400)).verdict != "fine"
        for seed in range(2_000)
    )
    assert alarms <= binom.ppf(1 - 1e-6, 2_000, ALARM)


@pytest.mark.parametrize(("rate", "verdict"), [(rising(), "fine"), (rising()[::-1], "caution")])
def test_a_policy_whose_propensities_change_may_have_learned(rate: Floats, verdict: str) -> None:
    """A learner's log as a table names no models; what it earns more and more was called a drift to look into."""
    columns = log(rate)
    sharper = np.linspace(0.7, 1.0, len(columns)) * columns.propensity
    finding = judged(replace(columns, propensity=sharper))
    assert finding.verdict == verdict
    assert "the propensities changed as well" in finding.text
    assert bool(finding.needed) == (verdict == "caution")


@pytest.mark.parametrize("steady", [None, 0.25])
def test_other_visitors_are_no_policy_that_learned(steady: float | None) -> None:
    """The same propensities as ever; more and more visitors are of the kind that buys."""
    columns, rng = log(0.1), np.random.default_rng(3)
    kind = (rng.random(len(columns)) < np.linspace(0.1, 0.9, len(columns))).astype(np.int32)
    reward = (rng.random(len(columns)) < np.where(kind, 0.2, 0.05)).astype(np.float64)
    propensity = np.full(len(columns), steady) if steady else np.where(kind == columns.action % 2, 0.4, 0.1)
    field = Category(kind, ("old", "new"))
    finding = judged(replace(columns, reward=reward, propensity=propensity, fields={"kind": field}))
    assert finding.verdict == "caution"
    assert "propensities changed" not in finding.text


def test_units_that_come_back_do_not_look_like_another_policy() -> None:
    """Each of 40 visitors stays for one block of time and has propensities of their own."""
    columns, rng = log(rising()), np.random.default_rng(4)
    unit = np.arange(len(columns)) * 40 // len(columns)
    propensity = np.exp(rng.normal(-2.0, 0.2, 40))[unit]
    finding = judged(replace(columns, propensity=propensity, unit=unit, fields={}))
    assert "propensities changed" not in finding.text
