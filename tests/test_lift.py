"""The lift over the holdout: what is claimed, how often, and that every way of adding up gives the same."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from decider.decide.decide import decide, in_holdout
from decider.estimate.lift import (
    BORROWED,
    HOLDOUT,
    POLICY,
    START,
    GroupSums,
    Lift,
    LiftSums,
    boundary,
    compare,
    interval_by_person,
)
from decider.estimate.mean import Interval
from decider.estimate.sample import Floats, Longs
from decider.experiment.definition import ExperimentVersion
from decider.experiment.strata import BUCKETS, Stratum, bucket_of, strata_of
from decider.learn.versions import Versions
from decider.log.open import open_log
from decider.log.protocol import NewLink, NewReward, Tick
from decider.policy.make import make_policy
from decider.policy.protocol import Model
from decider.types import Context, DecisionId, DecisionRequest, Position, Time
from simulator.commands.lift import lift_command
from simulator.lift.find import find_lift
from simulator.logs.errors import BadLog
from simulator.logs.groups import LEARNED, OTHER_REWARD, load_groups
from simulator.report import lift as report
from simulator.studies import guardrails as guardrail_study
from simulator.studies import heavy as heavy_study
from simulator.studies import lift as study
from simulator.studies.results import placed
from tests.browser import assert_readable, browser
from tests.lift_logs import shop, visits_db, write_visits
from tests.long_logs import PastClock


class Decisions(NamedTuple):
    """(n,) each."""

    bucket: Longs
    holdout: NDArray[np.bool_]
    reward: Floats
    stratum: Longs


def decisions(seed: int, count: int = 4_000, *, strata: int = 1, spread: float = 0.0) -> Decisions:
    """Some, with a lift of 0.1 on 0.2."""
    rng = np.random.default_rng(seed)
    holdout = rng.random(count) < 0.3
    rewarded = rng.random(count) < np.where(holdout, 0.2, 0.3)
    reward: Floats = np.where(rewarded, np.exp(spread * rng.standard_normal(count)), 0.0)
    return Decisions(rng.integers(0, BUCKETS, count), holdout, reward, rng.integers(0, strata, count))


def sums_of(made: Decisions, rows: slice | Longs = slice(None), *, scale: float = 1.0, swap: bool = False) -> LiftSums:
    """Added up in one go."""
    sums = LiftSums(BUCKETS)
    sums.add_many(
        bucket=made.bucket[rows],
        holdout=made.holdout[rows] ^ swap,
        reward=scale * made.reward[rows],
        stratum=made.stratum[rows],
    )
    return sums


def flat(holdout: NDArray[np.bool_], reward: Floats, *, seed: int = 1) -> Decisions:
    """Of one stratum."""
    n = len(holdout)
    return Decisions(np.random.default_rng(seed).integers(0, BUCKETS, n), holdout, reward, np.zeros(n, np.int64))


def repeated(made: Decisions, times: int) -> Decisions:
    """The same decisions again and again."""
    bucket, holdout, reward, stratum = made
    return Decisions(np.tile(bucket, times), np.tile(holdout, times), np.tile(reward, times), np.tile(stratum, times))


def figures(found: Lift) -> list[float]:
    """Every number of it."""
    intervals = (found.interval, found.relative)
    ends = [x for one in intervals for x in (one.value, one.low, one.high)]
    return [*ends, found.policy, found.holdout, *found.decisions, *found.units, found.clusters]


def same(one: Lift, other: Lift) -> bool:
    """Equal up to rounding."""
    return np.allclose(figures(one), figures(other), rtol=1e-9, atol=1e-12, equal_nan=True)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1_000), cut=st.integers(0, 4_000), strata=st.integers(1, 3))
def test_parts_add_up_to_the_whole_in_any_order(seed: int, cut: int, strata: int) -> None:
    """The server counts slice by slice and goes on from stored sums; the simulator counts at once."""
    made = decisions(seed, strata=strata)
    order = np.random.default_rng(seed).permutation(4_000)
    first, second = sums_of(made, order[:cut]), sums_of(made, order[cut:])
    whole = sums_of(made).lift()
    assert same((first + second).lift(), whole)
    assert same((second + first).lift(), whole)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1_000), scale=st.sampled_from([-1.0, 0.01, 1e6]), strata=st.integers(1, 3))
def test_the_lift_has_the_unit_of_the_reward(seed: int, scale: float, strata: int) -> None:
    """Cents in place of euros: the lift is a hundred times as large, and the lift in per cent is the same."""
    made = decisions(seed, strata=strata, spread=0.5)
    before, after = sums_of(made).lift(), sums_of(made, scale=scale).lift()
    ends = sorted([scale * before.interval.low, scale * before.interval.high])
    assert [after.interval.low, after.interval.high] == pytest.approx(ends)
    if scale > 0:
        assert figures(after)[3:6] == pytest.approx(figures(before)[3:6], nan_ok=True)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1_000), strata=st.integers(1, 3))
def test_swapped_groups_change_the_sign(seed: int, strata: int) -> None:
    """What one group earns more the other earns less."""
    made = decisions(seed, strata=strata)
    one, other = sums_of(made).lift().interval, sums_of(made, swap=True).lift().interval
    assert [one.value, one.low, one.high] == pytest.approx([-other.value, -other.high, -other.low])


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1_000))
def test_strata_of_equal_groups_are_one(seed: int) -> None:
    """Where nothing differs between two halves it does not matter that they were apart; up to chance."""
    made = decisions(seed)
    twice = repeated(made, 2)
    apart = sums_of(twice._replace(stratum=np.repeat([0, 1], 4_000))).lift()
    one = sums_of(twice).lift()
    assert apart.interval.value == pytest.approx(one.interval.value)
    assert apart.interval.high == pytest.approx(one.interval.high, rel=0.02)


def test_the_lift_is_within_strata() -> None:
    """Half of a bad week and a tenth of a good one are in the holdout: pooled, a policy that brings 0.1 seems to bring
    four times as much (Simpson's paradox)."""
    rng = np.random.default_rng(3)
    stratum = np.repeat([0, 1], 20_000)
    holdout = rng.random(40_000) < np.where(stratum, 0.1, 0.5)
    base = np.where(stratum, 0.7, 0.1)
    reward = (rng.random(40_000) < base + np.where(holdout, 0.0, 0.1)).astype(float)
    pooled = sums_of(flat(holdout, reward)).lift().interval
    apart = sums_of(flat(holdout, reward)._replace(stratum=stratum)).lift().interval
    assert apart.low < 0.1 < apart.high
    assert apart.high - apart.low < 0.07
    assert pooled.low > 0.25


@pytest.mark.parametrize("reward", [0.0, 0.7, -3.0])
def test_equal_rewards_claim_nothing(reward: float) -> None:
    """A name that was never sent, or a default that everybody gets: there is no variance to tell anything by."""
    found = sums_of(decisions(1)._replace(reward=np.full(4_000, reward))).lift()
    assert not found.is_known
    assert math.isinf(found.interval.high)
    assert found.clusters == 0.0


def test_one_heavy_reward_claims_nothing() -> None:
    """One large order in one group is no lift, however large."""
    made, reward = decisions(1), np.zeros(4_000)
    reward[np.flatnonzero(~made.holdout)[:200]] = 1.0
    reward[np.flatnonzero(made.holdout)[:3]] = 1.0
    reward[np.flatnonzero(~made.holdout)[0]] = 1e6
    found = sums_of(made._replace(reward=reward)).lift()
    assert not found.is_known
    assert found.clusters < START


def by_group(decisions: float, *, policy: Floats, holdout: Floats) -> GroupSums:
    """So many decisions in every bucket of both groups; (BUCKETS,) rewards of each."""
    return GroupSums(np.full((2, BUCKETS), decisions), np.stack([policy, holdout]))


def rewarded_in(buckets: int) -> Floats:
    """A reward of 1 in so many buckets."""
    return (np.arange(BUCKETS) < buckets).astype(np.float64)


@pytest.mark.parametrize(("policy", "holdout"), [(200, 5), (5, 200)])
def test_the_group_with_fewer_rewards_decides_whether_there_is_enough(policy: int, holdout: int) -> None:
    """200 purchases in one group do not make up for five in the other: its variance is known from five alone."""
    sums = LiftSums(BUCKETS)
    sums.add(0, by_group(10.0, policy=rewarded_in(policy), holdout=rewarded_in(holdout)))
    assert not sums.lift().is_known
    assert 4 < sums.lift().clusters < START
    assert interval_by_person(sums.strata) is None
    sums.add(0, by_group(10.0, policy=rewarded_in(200), holdout=rewarded_in(200)[::-1]))
    assert sums.lift().is_known


@pytest.mark.parametrize("group", [POLICY, HOLDOUT])
def test_a_stratum_with_a_handful_of_units_in_a_group_waits(group: int) -> None:
    """A holdout that began an hour ago has five units: they would stand for all that the hour's policy brought. So
    would one robot that comes all day long."""
    made = by_group(10.0, policy=rewarded_in(200), holdout=rewarded_in(150))
    few, robot = (GroupSums(made.decisions.copy(), made.rewards.copy()) for _ in range(2))
    few.decisions[group], few.rewards[group] = rewarded_in(5), rewarded_in(2)
    robot.decisions[group, 7] = 1e6
    for young in (few, robot):
        sums = LiftSums(BUCKETS)
        sums.add("old", made)
        alone = sums.lift()
        sums.add("young", young)
        assert same(sums.lift(), alone)
        assert alone.is_known


def test_a_small_holdout_has_the_variance_of_amounts_that_it_has_not_seen_yet() -> None:
    """Its largest orders are still to come, so its mean and its variance are too low together, and a lift looks sure:
    with its own variance alone 7 of these 60 logs would claim one. `make lift` has more logs."""
    scenes = [one for one in heavy_study.SCENES if one.buyers == 0.1 and one.holdout == 0.02]
    logs = [heavy_study.judge(scene, seed) for scene in scenes for seed in range(30)]
    assert len(scenes) == 2
    assert sum(one.known for one in logs) > 50
    assert sum(one.wrong for one in logs) <= 3
    assert heavy_study.report([(scenes[0], logs)]).count("\n| ") == 2


def test_what_the_other_group_has_seen_counts_as_far_as_this_one_earns_as_much() -> None:
    """The variance by unit of a holdout with the same mean is four fifths of the policy's at least. Where the
    policy earns more since more units buy, its variance is larger by as much: then the holdout's own is right."""
    *_, sums = heavy_study.sums_at_looks(heavy_study.SCENES[0], 1)
    rewards = sums.rewards.copy()
    rewards[HOLDOUT] = rewards[HOLDOUT].mean() + 0.01 * (rewards[HOLDOUT] - rewards[HOLDOUT].mean())
    even = compare({0: GroupSums(sums.decisions, rewards)})
    assert even is not None
    by_unit = even.variance * even.clocks
    assert by_unit[HOLDOUT] == pytest.approx(
        BORROWED * by_unit[POLICY] * min(1.0, even.mean[HOLDOUT] / even.mean[POLICY])
    )
    four_times = compare({0: by_group(1e4, policy=rewarded_in(100), holdout=rewarded_in(25))})
    assert four_times is not None
    own = rewarded_in(25) - rewarded_in(25).mean()
    assert four_times.variance[HOLDOUT] == pytest.approx(
        (own**2).sum() / (1e4 * BUCKETS) ** 2 * BUCKETS / (BUCKETS - 1)
    )


def test_negative_rewards_are_rewards() -> None:
    """A refund of 4: the policy's lift is negative, and known."""
    interval = sums_of(decisions(1), scale=-4.0).lift().interval
    assert interval.high < 0


def test_amounts_that_are_no_amounts_claim_nothing() -> None:
    """A value of 1e300 is a bug of the caller, and must not break a scrape."""
    made = decisions(1)
    found = sums_of(made._replace(reward=made.reward * 1e300)).lift()
    assert not found.is_known


def test_nothing_is_known_of_nothing() -> None:
    """A new experiment is no error."""
    found = LiftSums(BUCKETS).lift()
    assert found.decisions == (0, 0)
    assert not found.is_known
    assert math.isnan(found.cost)


def test_the_lift_in_per_cent_is_unbounded_where_the_holdout_may_earn_nothing() -> None:
    """Dividing by what may be 0 gives any number."""
    made = decisions(1)
    reward = np.where(made.holdout, 0.05, 1.0) + np.random.default_rng(2).standard_normal(4_000)
    found = sums_of(made._replace(reward=reward)).lift()
    assert found.interval.low > 0
    assert math.isinf(found.relative.high)


def test_visits_of_one_unit_are_not_independent() -> None:
    """Forty visits of a unit say hardly more than one: the interval must not shrink with them."""
    rng = np.random.default_rng(5)
    made = flat(rng.random(3_000) < 0.3, (rng.random(3_000) < 0.3).astype(float))
    once, often = sums_of(made).lift(), sums_of(repeated(made, 40)).lift()
    assert often.interval.high - often.interval.low == pytest.approx(once.interval.high - once.interval.low, rel=0.05)
    assert often.units == pytest.approx(once.units, rel=0.15)


# How often it claims something.


def test_nothing_is_claimed_where_nothing_is() -> None:
    """Thirty daily looks at a Wald interval find a false lift in more than a quarter of the logs; this one in at most
    one of twenty. `make lift` has more scenes and logs."""
    rows = [study.null_log(study.Scene("", rate=0.1), seed) for seed in range(80)]
    assert sum(row["every"] for row in rows) <= 9, "P(more) < 1 % at 5 %"
    assert sum(row["wald"] for row in rows) >= 12
    assert np.mean([row["width"] for row in rows]) < 1.7
    by_unit = [study.null_log(study.Scene("", visits=8, apart=1.0), seed) for seed in range(40)]
    assert sum(row["every"] for row in by_unit) <= 6
    assert sum(row["decisions"] for row in by_unit) >= 4


def test_a_real_lift_is_found_and_covered() -> None:
    """The truth moves, since the policy learns: the interval holds what it has brought so far."""
    rows = [study.real_log(study.Scene("", gain=1.0), seed) for seed in range(40)]
    assert sum(row["every"] for row in rows) <= 6
    assert all(row["found"] for row in rows)


def test_the_study_looks_at_what_the_service_computes() -> None:
    """Its looks after every decision are computed in another way."""
    scene = study.Scene("", visits=8, apart=0.5, spread=0.5)
    log = study.simulate(scene, 7)
    ends, found = study.looks(log, 100)
    path = study.path(log, log.bucket, buckets=BUCKETS)
    for end, one in zip(ends.tolist(), found, strict=True):
        assert path.value[end] == pytest.approx(one.interval.value, nan_ok=True) or not one.is_known
        if one.is_known and math.isfinite(path.half[end]):
            assert path.half[end] == pytest.approx(one.interval.high - one.interval.value, rel=1e-6)
    assert found[-1].is_known


def test_the_study_of_guardrails_judges_as_the_service_does() -> None:
    """Looks after every decision are computed in another way there, too."""
    log = study.simulate(study.Scene("", visits=4, rate=0.05, apart=0.5, harm=3.0, since=0.5), 3)
    path = guardrail_study.evidence_path(log, 0.01)
    ends, found = guardrail_study.evidence_at_looks(log, 0.01, looks=100)
    both = np.isfinite(path[ends]) & np.isfinite(found)
    both[:20] = False  # whether a group has enough of its own is asked at the pauses alone
    assert both.sum() > 60
    assert path[ends][both] == pytest.approx(found[both], rel=1e-6, abs=1e-6)
    assert found[-1] > math.log(20)


def test_guardrails_are_crossed_where_something_harms_alone() -> None:
    """One in twenty right ones at most, at any decision; RESULTS.md has more logs and cases."""
    right, harmed = (
        next(one for one in guardrail_study.CASES if one.scene.name == name)
        for name in ("right, 10 %", "10 % becomes 13 %")
    )
    rows = {case: [guardrail_study.judge(case, seed) for seed in range(40)] for case in (right, harmed)}
    assert sum(math.isfinite(one.after) for one in rows[right]) <= 7, "P(more) < 1 % at 5 %"
    assert sum(math.isfinite(one.after) for one in rows[harmed]) >= 30
    text = guardrail_study.report([*rows.items()])
    assert text.count("\n| ") == 3
    assert (
        placed(f"{guardrail_study.MARKERS[0]}{guardrail_study.MARKERS[1]}", text, guardrail_study.MARKERS).count(text)
        == 1
    )


# Buckets and strata.


def test_buckets_know_nothing_of_the_holdout() -> None:
    """Were they one hash, a bucket would have units of one group only."""
    version = ExperimentVersion(shop(holdout=0.5), number=1, position=Position(1), time=Time(1))
    units = [f"unit-{n}" for n in range(20_000)]
    bucket = np.array([bucket_of(unit) for unit in units])
    held = np.array([in_holdout(version, unit) for unit in units])
    size, own = np.bincount(bucket, minlength=BUCKETS), np.bincount(bucket[held], minlength=BUCKETS)
    assert 350 < float(((size - size.mean()) ** 2 / size.mean()).sum()) < 690, "chi-square of 511 degrees of freedom"
    assert 350 < float(((own - size / 2) ** 2 / (size / 4)).sum()) < 700


def versions(*experiments: object) -> list[ExperimentVersion]:
    """At positions 1, 2, ..."""
    return [
        ExperimentVersion(one, number=n, position=Position(n), time=Time(n))  # type: ignore[arg-type]
        for n, one in enumerate(experiments, 1)
    ]


def test_a_stratum_goes_on_while_the_holdout_stays_the_same() -> None:
    """New actions, a pause, a time without a holdout: the units of the holdout are the same ones."""
    found = strata_of(
        versions(
            shop(), shop(description="other"), shop(holdout=0.0), shop(), shop(holdout=0.2),
            shop(holdout=0.2, salt="x"), shop(holdout=0.2, salt="x", window=2.0),
        )
    )  # fmt: skip
    assert found == {
        1: Stratum(Position(1), Position(1)),
        2: Stratum(Position(1), Position(1)),
        4: Stratum(Position(1), Position(1)),
        5: Stratum(Position(1), Position(5)),
        6: Stratum(Position(1), Position(6)),
        7: Stratum(Position(7), Position(7)),
    }


# The command.


def test_the_command_counts_both_groups_by_unit(tmp_path: Path) -> None:
    """The figures are those of the log's own rows."""
    db = visits_db(tmp_path / "log.db", shop(), shop(holdout=0.3), decisions=2_000, units=1_500)
    log = load_groups(db, rewards=["purchase"])
    assert len(log) == 4_000
    assert [one.share for one in log.strata] == [0.1, 0.3]
    found = find_lift(log, ["segment"])
    assert [row.value for row in found.by[::2]] == list(dict.fromkeys(row.value for row in found.by))
    learned, purchase = found.rows
    assert learned.answer == "yes"
    assert learned.lift.low < 0.3 + 0.02 < learned.lift.high + 0.05
    assert learned.decisions[HOLDOUT] == int(log.holdout.sum())
    assert learned.units[POLICY] + learned.units[HOLDOUT] >= 1_300
    assert purchase.reward == "purchase"
    assert sum(row.decisions[0] + row.decisions[1] for row in found.by if row.reward == LEARNED) == 4_000
    assert learned.per_week is not None or found.end - found.begin < 86_400e6


def test_many_rows_hold_together(tmp_path: Path) -> None:
    """Twelve segments are twelve chances to be wrong: each interval is wider than it would be alone."""
    log = load_groups(visits_db(tmp_path / "log.db", decisions=6_000, units=4_000))
    (alone,) = (row for row in find_lift(log, ["segment"]).by if row.value == "s1")
    among = next(row for row in find_lift(log, ["segment", "device"]).by if row.value == "s1")
    assert width(among.lift) > width(alone.lift)


def width(interval: Interval) -> float:
    """From end to end."""
    return interval.high - interval.low


def test_another_reward_is_no_part_of_it(tmp_path: Path) -> None:
    """Clicks and euros have no common mean; the newest definition counts, and the rest is said."""
    db = visits_db(tmp_path / "log.db", shop(), shop(window=2.0), decisions=1_000)
    log = load_groups(db)
    assert (len(log), log.left_out) == (1_000, {OTHER_REWARD: 1_000})


def test_the_command_prints_answer_table_and_sentences(tmp_path: Path) -> None:
    """A growth team reads the first line; JSON and page have the same figures."""
    db = visits_db(tmp_path / "log.db", decisions=4_000, units=3_000, pause=7_200.0)
    args = [str(db), "--by", "device", "--json", str(tmp_path / "lift.json"), "--report", str(tmp_path / "page")]
    result = CliRunner().invoke(lift_command, args)
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    assert "shop: the policy earns 0." in text
    assert "more a decision than the holdout (95 %, valid at every look: +0." in text
    in_percent = r"that is \+[\d.]+ % to \+[\d.]+ %\)\."
    assert re.search(rf"earns 0\.\d+ \([\d.]+ %\) more a decision .* to \+0\.\d+, {in_percent}", text)
    assert "There are rewards with a lift of their own: --reward click, --reward purchase." in text
    assert "Compared: version 1 with a holdout of 10 %" in text
    assert "The holdout costs 0.0" in text
    found = json.loads((tmp_path / "lift.json").read_text())
    assert found["schema"] == 1
    assert found["rows"][0]["answer"] == "yes"
    assert {row["value"] for row in found["by"]} == {"phone", "desktop"}
    page = (tmp_path / "page" / "index.html").read_text()
    assert "Does it pay?" in page
    assert "By device" in page


def test_the_page_is_readable_on_a_phone(tmp_path: Path) -> None:
    """Growth teams read it there; every width and scheme of the other pages."""
    db = visits_db(tmp_path / "log.db", shop(), shop(holdout=0.2), decisions=3_000, units=2_500, pause=14_400.0)
    result = CliRunner().invoke(lift_command, [str(db), "--by", "segment", "--report", str(tmp_path / "page")])
    assert result.exit_code == 0, result.output
    with browser() as opened:
        assert_readable(opened.page(tmp_path / "page" / "index.html"))


def example_output(folder: Path) -> str:
    """Of the command in simulator/README.md."""
    db = visits_db(folder / "shop.db", shop(), shop(holdout=0.2), decisions=8_000, units=5_000, pause=7_200.0)
    result = CliRunner(env={"COLUMNS": "100"}).invoke(lift_command, [str(db), "--by", "device"])
    assert result.exit_code == 0, result.output
    return "\n".join([line.rstrip() for line in result.output.splitlines()])


def test_the_text_shows_what_the_command_prints(tmp_path: Path) -> None:
    """A reader compares them."""
    text = (Path(__file__).parents[1] / "simulator" / "README.md").read_text(encoding="utf-8")
    assert example_output(tmp_path) in text


def test_a_log_without_a_holdout_is_refused(tmp_path: Path) -> None:
    """There is no answer in it; the message says how to get one."""
    db = visits_db(tmp_path / "log.db", shop(holdout=0.0), decisions=10)
    with pytest.raises(BadLog, match=r"never had a holdout.*holdout = 0.1 and baseline_action"):
        load_groups(db)


def test_why_there_is_no_holdout_is_said(tmp_path: Path) -> None:
    """ "Declare one" helps nobody who has declared one."""
    empty = tmp_path / "empty.db"
    open_log(empty).close()
    with pytest.raises(BadLog, match="has no experiment, so nobody knows"):
        load_groups(empty)
    apprentice = visits_db(tmp_path / "apprentice.db", shop(learning="LEARNING_APPRENTICE"), decisions=10)
    with pytest.raises(BadLog, match="'shop' declares a holdout, but everybody got a default action"):
        load_groups(apprentice)


def test_a_log_whose_windows_are_open_is_no_error(tmp_path: Path) -> None:
    """Whoever looks in the first hour sees that it is too early, on the page, too."""
    clock = PastClock(60.0)
    log = open_log(tmp_path / "log.db", clock=clock)
    write_visits(log, clock, [shop(window=86_400.0)], decisions=300, pause=0.0)
    log.close()
    args = [str(tmp_path / "log.db"), "--by", "device", "--reward", "click", "--report", str(tmp_path / "page")]
    result = CliRunner().invoke(lift_command, args)
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    assert "shop: too little is known to say what the policy brings." in text
    assert "There is nothing to compare yet: no decision counts." in text
    assert "Left out: 300 window open." in text
    assert "no decisions yet" in (tmp_path / "page" / "index.html").read_text()


def test_what_a_part_of_a_log_cannot_promise_is_said(tmp_path: Path) -> None:
    """The last 7 days are other decisions every day: nothing holds over all those looks together."""
    db = visits_db(tmp_path / "log.db", decisions=2_000, units=1_500, pause=14_400.0)
    result = CliRunner().invoke(lift_command, [str(db), "--since", "1d"])
    text = " ".join(result.output.split())
    assert "One that moves, like the last 7 days, is another question every day." in text
    assert "before --since" in text
    assert "Only a part" not in CliRunner().invoke(lift_command, [str(db)]).output


def test_a_row_with_too_little_is_named(tmp_path: Path) -> None:
    """ "One group has 3" of which row?"""
    db = visits_db(tmp_path / "log.db", decisions=1_500, units=1_200)
    found = find_lift(load_groups(db), ["segment"])
    poor = next(row for row in found.by if row.answer == "too little")
    assert found.rows[0].answer != "too little"
    assert any(f"one group of segment {poor.value} has " in text for text in report.sentences(found))


def test_linked_units_are_told_with_their_own_interval(tmp_path: Path) -> None:
    """Groups are drawn by unit, so the figures are by unit, as the server's. One purchase that counts for each of five
    linked units is one, though: by unit the interval promises five times the evidence."""
    clock = PastClock(4 * 86_400.0)
    log = open_log(tmp_path / "log.db", clock=clock)
    Versions(log).apply(shop(holdout=0.5))
    version = log.versions()[-1]
    bought = np.random.default_rng(2).random(400) < 0.3
    model = Model(make_policy(version.experiment.policy))
    for person, buys in enumerate(bought.tolist()):
        units = [f"{person}-{device}" for device in range(5)]
        marks = log.append([decide(DecisionRequest(DecisionId(f"d{u}"), u, Context()), version, model) for u in units])
        log.append([NewLink(units[0], other) for other in units[1:]])
        log.append([NewReward(mark.position, "purchase", 1.0) for mark in marks if mark and buys])
    clock.advance(60.0)
    log.append([Tick()])
    log.close()
    found = find_lift(load_groups(tmp_path / "log.db"))
    assert found.persons is not None
    assert (found.persons.units, found.persons.persons) == (2_000, 400)
    assert 340 < found.persons.in_both < 400
    assert found.persons.lift is not None
    assert found.persons.lift.value == pytest.approx(found.rows[0].lift.value)
    text = " ".join(report.sentences(found))
    assert "2,000 units are linked: they are 400 persons" in text
    assert find_lift(load_groups(visits_db(tmp_path / "other.db", decisions=300))).persons is None


def test_an_interval_by_person_is_as_wide_as_lifts_differ() -> None:
    """Five units of a person in the same group are one; where they are in both, a purchase of all is no difference."""
    lifts, by_unit, by_person = [], [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        held, buys = rng.random(1_500) < 0.3, rng.random(1_500) < 0.3
        made = flat(np.repeat(held, 5), np.repeat(buys, 5).astype(float))
        sums = sums_of(made._replace(bucket=np.repeat(rng.integers(0, BUCKETS, 1_500), 5)))
        found = interval_by_person(sums.strata)
        assert found is not None
        lifts.append(found.value)
        by_person.append(width(found) / 2 / boundary(1_500 * 0.3 * 0.7))
        by_unit.append(width(sums_of(made).lift().interval) / 2 / boundary(7_500 * 0.3 * 0.7))
    assert np.mean(by_person) == pytest.approx(np.std(lifts), rel=0.25)
    assert np.mean(by_unit) < 0.6 * np.std(lifts)


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    """A typing error must not read as "no lift"."""
    db = visits_db(tmp_path / "log.db", decisions=500)
    with pytest.raises(BadLog, match="--by devise: no decision has such a field; there are segment, device"):
        find_lift(load_groups(db), ["devise"])
    with pytest.raises(BadLog, match="no reward has that name; there are click, purchase"):
        load_groups(db, rewards=["purchases"])


def test_sums_of_a_stratum_can_be_given_whole() -> None:
    """As the log's totals have them."""
    made = decisions(4)
    whole = sums_of(made)
    given_whole = LiftSums(BUCKETS)
    for stratum, sums in whole.strata.items():
        given_whole.add(stratum, GroupSums(sums.decisions.copy(), sums.rewards.copy()))
    assert same(given_whole.lift(), whole.lift())
