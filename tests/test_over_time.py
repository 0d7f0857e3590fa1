"""The log over its time: what was earned and drawn by day, where versions changed, and how the page shows it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from simulator.commands.group import main
from simulator.evaluate.candidates import UniformPolicy
from simulator.evaluate.over_time import DAY, HOUR, WEEK, split_by_time
from simulator.evaluate.result import Estimate, OverTime, Period, PeriodUnit, VersionChange
from simulator.evaluate.run import evaluate
from simulator.logs.columns import Columns
from simulator.logs.decider_log import load
from simulator.logs.versions import VersionsRead
from simulator.report.pages.evaluation import write_report
from simulator.report.plots.over_time import over_time
from tests.evaluations import ACTIONS, EVALUATION, HOSTILE, LEARNED, LOG, OVER_TIME
from tests.test_holdout import MEANS, UNCONTROLLED, Phase, write

MIDNIGHT = 1_763_942_400_000_000
"""2025-11-24, a Monday, in UTC."""


def columns_at(time: list[int], *, reward: list[float] | None = None, action: list[int] | None = None) -> Columns:
    """Decisions between seven actions at these times, each of another unit."""
    n = len(time)
    return Columns(
        name="known.csv",
        actions=tuple("abcdefg"),
        action=np.array(action or [0] * n, np.int32),
        propensity=np.full(n, 1 / 7),
        reward=np.array(reward or [0.0] * n),
        reward_range=(0.0, 1.0),
        time=np.array(time, np.int64),
        known=np.array(time, np.int64),
        unit=np.arange(n),
        fields={},
        sets=(tuple(range(7)),),
        eligible=np.zeros(n, np.int32),
    )


def found_in(columns: Columns) -> OverTime:
    """What it was split into; there is something."""
    found = split_by_time(columns)
    assert found is not None
    return found


# What is computed


def test_each_day_has_its_own_mean_and_shares() -> None:
    """A reader compares days: each must be of its own decisions, whatever the order of the log."""
    days = [0, 1, 3, 1, 0, 3, 3, 3]
    found = found_in(
        columns_at(
            [MIDNIGHT + day * DAY + 23 * HOUR * (row > 3) for row, day in enumerate(days)],
            reward=[1, 0, 1, 1, 0, 1, 1, 0],
            action=[2, 2, 2, 4, 2, 4, 2, 2],
        )
    )
    assert (found.unit, found.actions) == ("day", ("c", "e"))
    assert [one.begins for one in found.periods] == [f"2025-11-{day}T00:00:00Z" for day in (24, 25, 27)]
    assert [one.place for one in found.periods] == [0, 1, 3], "a day without decisions leaves a gap"
    assert [one.decisions for one in found.periods] == [2, 2, 4]
    assert [one.mean_reward.value for one in found.periods] == [0.5, 0.5, 0.75]
    assert [one.shares for one in found.periods] == [(1.0, 0.0), (0.5, 0.5), (0.75, 0.25)]
    assert all(one.mean_reward.low < one.mean_reward.value < one.mean_reward.high for one in found.periods)


def test_decisions_of_one_unit_count_as_one_draw_in_a_days_interval() -> None:
    """Eight visits of one visitor are no eight visitors: the interval of their day is as wide as that says."""
    alone = columns_at(
        [MIDNIGHT + row * DAY // 80 for row in range(80)], reward=[0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0] * 10
    )
    shared = replace(alone, unit=np.arange(80) // 4)
    narrow, wide = ([one.mean_reward for one in found_in(log).periods] for log in (alone, shared))
    assert [one.value for one in narrow] == [one.value for one in wide]
    assert all(one.high - one.low < other.high - other.low for one, other in zip(narrow[:-1], wide[:-1], strict=True))


@pytest.mark.parametrize(
    ("span", "unit"),
    [
        (59, "tenth"),
        (3 * HOUR - 1, "tenth"),
        (3 * HOUR, "hour"),
        (3 * DAY - 1, "hour"),
        (3 * DAY, "day"),
        (59 * DAY, "day"),
        (60 * DAY, "week"),
        (103 * WEEK, "week"),
        (3000 * WEEK, "tenth"),
    ],
)
def test_the_unit_fits_the_logs_time(span: int, unit: str) -> None:
    """Ten bars of a minute or of a year say more than one bar, or than thousands."""
    found = found_in(columns_at([MIDNIGHT, MIDNIGHT + span // 2, MIDNIGHT + span]))
    assert found.unit == unit
    assert found.periods[0].begins == "2025-11-24T00:00:00Z"
    if unit == "tenth":
        assert [one.place for one in found.periods] in ([0, 4, 9], [0, 5, 9])


@given(st.lists(st.integers(1, 2**52), min_size=2, max_size=50))
def test_every_decision_is_in_exactly_one_period(times: list[int]) -> None:
    """None is lost at an edge, and there are never so many periods that a plot could not show them."""
    found = split_by_time(columns_at(times))
    if found is None:
        assert len(set(times)) == 1
        return
    assert sum(one.decisions for one in found.periods) == len(times)
    places = [one.place for one in found.periods]
    assert places == sorted(set(places))
    assert 0 <= places[0] <= places[-1] <= 104
    assert all(math.isclose(sum(one.shares), 1.0) for one in found.periods)


def test_the_most_frequent_actions_are_named_and_the_others_are_the_rest() -> None:
    """Eighty colours would tell nobody anything."""
    found = found_in(columns_at([MIDNIGHT, MIDNIGHT + 1] * 8, action=[0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 5, 6, 6, 6, 6]))
    assert found.actions == ("g", "f", "b", "c", "d")
    drawn = sum(sum(one.shares) * one.decisions for one in found.periods)
    assert drawn == pytest.approx(13)


@pytest.mark.parametrize("time", [[], [0, 0, 0], [MIDNIGHT] * 3])
def test_nothing_is_said_where_no_time_passes(time: list[int], tmp_path: Path) -> None:
    """A log without times has all of them 0: that is no day of 1970."""
    assert split_by_time(columns_at(time)) is None
    page = write_report(replace(EVALUATION, over_time=None), tmp_path).read_text(encoding="utf-8")
    assert "over-time" not in page
    assert not list(tmp_path.glob("log-*"))


def test_it_comes_with_the_breakdown_only() -> None:
    """Without `--report` nobody sees it."""
    columns = columns_at([MIDNIGHT, MIDNIGHT + DAY])
    assert evaluate(columns, [UniformPolicy()], breakdown=False).over_time is None
    assert evaluate(columns, [UniformPolicy()]).over_time == split_by_time(columns)


# Versions


def test_every_version_but_the_first_is_marked_in_the_order_of_time() -> None:
    """The first one changed nothing."""
    begins = {4: MIDNIGHT, 7: MIDNIGHT + 4 * DAY, 5: MIDNIGHT + 36 * HOUR}
    columns = replace(columns_at([MIDNIGHT, MIDNIGHT + 5 * DAY]), versions=VersionsRead(begins=begins))
    assert found_in(columns).versions == (
        VersionChange(5, "2025-11-25T12:00:00Z", 1.5),
        VersionChange(7, "2025-11-28T00:00:00Z", 4.0),
    )
    assert found_in(columns_at([MIDNIGHT, MIDNIGHT + DAY])).versions == ()


def test_a_log_of_ours_knows_when_its_version_changed(tmp_path: Path) -> None:
    """From the log to the JSON and the page: the mark stands at the first decision of the new version."""
    changed = replace(UNCONTROLLED, minimum_propensity=0.2)
    db = write(tmp_path / "shop.db", [Phase(one, 2000, MEANS) for one in (UNCONTROLLED, changed)])
    columns = load(db)
    assert columns.versions is not None
    assert list(columns.versions.begins) == [1, 2]
    assert columns.versions.begins[2] == columns.time[2000]
    args = ["evaluate", str(db), "--policy", "uniform", "--json", str(tmp_path / "j"), "--report", str(tmp_path)]
    assert CliRunner().invoke(main, args, catch_exceptions=False).exit_code == 0
    found = json.loads((tmp_path / "j").read_text())["over_time"]
    (mark,) = found["versions"]
    assert mark["number"] == 2
    begins = datetime.fromisoformat(mark["begins"]).timestamp() * 1e6
    assert begins == pytest.approx(columns.versions.begins[2], abs=1_000)
    assert found["unit"] == "tenth"
    assert 4 < mark["place"] < 6
    assert "version 2 at" in (tmp_path / "index.html").read_text(encoding="utf-8")


# How it is shown


def test_the_page_says_the_unit_the_days_and_the_changes_in_words() -> None:
    """For who cannot see the plot, and for who reads only its caption."""
    plot = over_time(OVER_TIME, LOG)
    assert plot.alt.startswith("Reward and actions by day, 7 of them with decisions. First, 2025-11-10")
    assert "0.0034 (0.0004 to 0.0064) in 1,427 decisions" in plot.alt
    assert "version 2 at 2025-11-13T12:00:00Z, version 3 at" in plot.alt
    assert "mean reward of each day as logged, with its 95 % interval" in plot.caption
    assert "Dotted lines: another version" in plot.caption
    unmarked = over_time(replace(OVER_TIME, versions=()), LOG)
    assert "Dotted" not in unmarked.caption
    assert "v2" not in _drawn(unmarked.svg)
    three = tuple(replace(one, shares=(0.1, 0.7, 0.2)) for one in OVER_TIME.periods)  # their sum is less than 1
    assert "others" not in _drawn(over_time(replace(OVER_TIME, actions=("a", "b", "c"), periods=three), LOG).svg)


def test_names_and_numbers_of_versions_are_drawn_as_they_are() -> None:
    """A name with markup or with "_" before it is a name; two versions side by side share one text."""
    drawn = _drawn(over_time(OVER_TIME, LOG).svg)
    for text in ("_private", "$x^2$ & 'half' \"price\"", "others", "day (UTC)", "v2 to v3", "2025-11-10"):
        assert text in drawn
    assert HOSTILE in ACTIONS[1]
    assert "<script>" not in over_time(OVER_TIME, LOG).svg.decode()


def _drawn(svg: bytes) -> str:
    return "\n".join(ElementTree.fromstring(svg).itertext())


@given(st.tuples(*[st.floats()] * 3), st.floats(), st.sampled_from(["week", "day", "hour", "tenth"]))
def test_whatever_the_figures_are_there_is_a_plot(
    ends: tuple[float, float, float], mean: float, unit: PeriodUnit
) -> None:
    """A nan or an infinity must not cost the page."""
    period = Period("2025-11-10T00:00:00Z", 0, 1, Estimate(*ends, ""), ())
    found = replace(OVER_TIME, unit=unit, actions=(), periods=(period, replace(period, place=3)))
    ElementTree.fromstring(over_time(found, replace(LOG, mean_reward=mean)).svg)


def test_the_curve_of_dr_says_that_its_sequence_is_approximate(tmp_path: Path) -> None:
    """Its reward model knows decisions that come later; a sequence for every moment may not."""
    (dr,) = [one for one in EVALUATION.policies if one.name == LEARNED.name]
    page = write_report(replace(EVALUATION, policies=(dr,)), tmp_path / "dr").read_text(encoding="utf-8")
    assert "For dr this is approximate" in page
    assert LEARNED.curve is not None
    ips = replace(dr, curve=replace(LEARNED.curve, estimator="ips"))
    page = write_report(replace(EVALUATION, policies=(ips,)), tmp_path / "ips").read_text(encoding="utf-8")
    assert "approximate" not in page
