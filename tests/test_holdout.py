"""The control group in the evaluation: its mean, what it adds to the baseline, its split, and which versions are read.

Logs are written by the code that serves, over worlds whose truth is known; coverage is measured on columns alone.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from decider.decide.decide import RULES, decide, in_holdout
from decider.estimate.independent import share_of, weighted_sum
from decider.estimate.mean import Interval
from decider.experiment.definition import Aggregation, Experiment, ExperimentVersion, RewardDefinition
from decider.learn.versions import Versions
from decider.log.open import open_log
from decider.log.protocol import NewReward, Tick
from decider.policy.make import make_policy
from decider.policy.protocol import Model
from decider.types import ActionId, Context, DecisionId, DecisionRequest, Position, Time
from simulator.commands.group import main
from simulator.evaluate.candidates import Candidate, FixedAction, UniformPolicy
from simulator.evaluate.checks.log import log_findings
from simulator.evaluate.checks.split import split_evidence, split_finding, units_in_both
from simulator.evaluate.result import Difference, Estimate, Evaluation, Finding, HoldoutMean
from simulator.evaluate.run import evaluate
from simulator.logs.columns import Category, Columns
from simulator.logs.decider_log import DIFFERENT_VERSIONS, load
from simulator.logs.errors import BadLog
from simulator.logs.holdout_split import Split
from simulator.logs.open import ReadOptions
from simulator.logs.open import open_log as read_log
from simulator.logs.span import Span
from simulator.logs.versions import differences
from simulator.report.evaluation import lift_text
from tests.conftest import sample_experiment
from tests.long_logs import GROUP, PastClock, shop

MEANS = {"a": 0.1, "b": 0.25}
CONTROLLED = shop(holdout=0.2, baseline_action="a")
UNCONTROLLED = shop(baseline_action="a")


@dataclass(frozen=True)
class Phase:
    """So many decisions under one version; each action's mean reward."""

    experiment: Experiment
    decisions: int
    means: dict[str, float]


def write(db: Path, phases: Sequence[Phase]) -> Path:
    """A log of one version after the other, a minute a commit; every decision of another unit."""
    clock, random, first = PastClock(864_000.0), Random(7), 0
    with closing(open_log(db, clock=clock)) as log:
        for phase in phases:
            Versions(log).apply(phase.experiment)
            version = log.versions()[-1]
            model = Model(make_policy(version.experiment.policy))
            for start in range(first, first + phase.decisions, GROUP):
                numbers = range(start, min(start + GROUP, first + phase.decisions))
                requests = [
                    DecisionRequest(DecisionId(f"d{n}"), f"u{n}", Context(segment=f"s{n % 3}")) for n in numbers
                ]
                made = [decide(request, version, model) for request in requests]
                marks = zip(log.append(made), made, strict=True)
                clicks = [mark for mark, one in marks if mark and random.random() < phase.means[one.action]]
                log.append([NewReward(mark.position, "click", 1.0) for mark in clicks])
                clock.advance(60.0)
            first += phase.decisions
        clock.advance(600.0)
        log.append([Tick()])
    return db


def _request(number: int) -> DecisionRequest:
    return DecisionRequest(DecisionId(f"d{number}"), f"u{number}", Context(segment=f"s{number % 3}"))


@pytest.fixture(scope="module")
def controlled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5,000 decisions, a fifth of the units in the control group."""
    return write(tmp_path_factory.mktemp("controlled") / "shop.db", [Phase(CONTROLLED, 5000, MEANS)])


@pytest.fixture(scope="module")
def ramped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """No holdout while hardly anybody buys, then one while many do: pooled, the policy looks worse than it is."""
    good = {action: 2 * mean for action, mean in MEANS.items()}
    poor = dict.fromkeys(MEANS, 0.02)
    phases = [Phase(UNCONTROLLED, 3000, poor), Phase(CONTROLLED, 2000, good)]
    return write(tmp_path_factory.mktemp("ramped") / "shop.db", phases)


@pytest.fixture(scope="module")
def run() -> Callable[..., Result]:
    """The command line."""
    return lambda *args: CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False)


def finding(columns: Columns, name: str) -> Finding:
    """The finding of the log with this name."""
    (found,) = [one for one in log_findings(columns) if one.name == name]
    return found


def baseline(columns: Columns) -> Evaluation:
    """The evaluation of the baseline action."""
    assert columns.baseline is not None
    return evaluate(columns, [FixedAction("baseline", columns.baseline)], breakdown=False)


# Reading.


@pytest.mark.parametrize("rules", [1, RULES])
def test_visits_without_the_baseline_are_in_neither_group_of_the_lift(rules: int, tmp_path: Path) -> None:
    """Half of the visits cannot have the baseline and never buy: they are not the control group's, and with them in the
    policy's mean alone the better policy looked worse. Also in logs of builds that called them HOLDOUT."""
    clock, random = PastClock(864_000.0), Random(7)
    with closing(open_log(tmp_path / "shop.db", clock=clock)) as log:
        Versions(log).apply(CONTROLLED)
        version = log.versions()[-1]
        model = Model(make_policy(version.experiment.policy))
        for start in range(0, 4000, GROUP):
            numbers = range(start, start + GROUP)
            asked = [_request(number)._replace(excluded=(ActionId("a"),) * (number % 2)) for number in numbers]
            made = [decide(one, version, model, rules=rules) for one in asked]
            means = [0.0 if one.excluded else MEANS[got.action] for one, got in zip(asked, made, strict=True)]
            marks = zip(log.append(made), means, strict=True)
            bought = [mark.position for mark, mean in marks if mark and random.random() < mean]
            log.append([NewReward(position, "click", 1.0) for position in bought])
            clock.advance(60.0)
        clock.advance(600.0)
        log.append([Tick()])
    columns = load(tmp_path / "shop.db")
    assert columns.holdout is not None
    assert {columns.actions[code] for code in columns.holdout.action} == {"a"}
    assert columns.left_out["holdout without the baseline action"] > 300
    evaluated = baseline(columns)
    assert evaluated.log.holdout
    assert evaluated.log.holdout.lift
    assert evaluated.log.holdout.lift.low > 0
    assert evaluated.log.holdout.lift.low < 0.075 < evaluated.log.holdout.lift.high
    assert "holdout" not in evaluated.policies[0].estimates  # the two groups are not of the same visits


def test_the_control_group_is_read_beside_the_policys_decisions(controlled: Path) -> None:
    """Randomised decisions of the baseline are too dear to be thrown away."""
    columns = load(controlled)
    assert columns.holdout is not None
    assert len(columns) + len(columns.holdout) == 5000
    assert columns.left_out["holdout"] == len(columns.holdout)
    assert 0.17 < len(columns.holdout) / 5000 < 0.23
    assert {columns.actions[code] for code in columns.holdout.action} == {"a"}
    assert not set(columns.unit) & set(columns.holdout.unit)
    assert columns.experiment == "shop"
    assert columns.range_declared


def test_versions_with_another_holdout_are_not_pooled(ramped: Path) -> None:
    """Pooled, the policy earns less than its control group; within the version it earns more (Simpson)."""
    columns = load(ramped)
    assert columns.left_out[DIFFERENT_VERSIONS] == 3000
    holdout = baseline(columns).log.holdout
    assert holdout
    assert holdout.lift
    assert holdout.lift.low > 0
    pooled = baseline(load(ramped, version=(1, 2))).log.holdout
    assert pooled
    assert pooled.lift is None
    assert pooled.verdict == "caution"


def test_versions_that_were_named_together_have_no_lift_and_say_why(
    ramped: Path, run: Callable[..., Result], tmp_path: Path
) -> None:
    """It read "0.067 less than the holdout" where the policy earned more in every version with a holdout."""
    why = "Versions 1 to 2 differ (holdout 0, then 0.2)"
    way_out = "--version 2."
    asked = ("evaluate", ramped, "--policy", "baseline", "--version", "1-2")
    found = run(*asked, "--json", tmp_path / "found.json", "--report", tmp_path / "page.html")
    said = [" ".join(text.split()) for text in (found.output, (tmp_path / "page.html" / "index.html").read_text())]
    assert all(why in text and way_out in text and "than the holdout" not in text for text in said)
    holdout = json.loads((tmp_path / "found.json").read_text())["log"]["holdout"]
    assert holdout["lift"] is None
    assert why in holdout["no_lift"]


def test_what_was_left_out_is_said_with_the_way_out(ramped: Path) -> None:
    """Somebody who wants the older versions must learn how."""
    found = finding(load(ramped), "versions")
    assert found.verdict == "caution"
    assert "holdout 0, then 0.2" in found.text
    assert found.needed == "For the others: --version 1"
    assert "although they differ" in finding(load(ramped, version=(1, 2)), "versions").text


def test_few_decisions_in_the_newest_versions_are_said_first(tmp_path: Path) -> None:
    """After a change of the reward an evaluation rests on the first minutes of the new one."""
    db = write(tmp_path / "shop.db", [Phase(UNCONTROLLED, 1000, MEANS), Phase(CONTROLLED, 20, MEANS)])
    found = finding(load(db), "versions")
    assert found.text.startswith("Only 1.96 % of the log's decisions are read.")


def test_versions_that_agree_are_read_together(tmp_path: Path) -> None:
    """A pause or another floor changes neither the reward nor the control group."""
    other = replace(CONTROLLED, minimum_propensity=0.2, description="with a floor")
    columns = load(write(tmp_path / "shop.db", [Phase(CONTROLLED, 500, MEANS), Phase(other, 500, MEANS)]))
    assert columns.holdout is not None
    assert len(columns) + len(columns.holdout) == 1000
    assert not [one for one in log_findings(columns) if one.name == "versions"]


def test_a_version_without_decisions_hides_no_other(tmp_path: Path) -> None:
    """A change of the reward that was just applied has nothing to show yet."""
    changed = replace(CONTROLLED, reward=replace(CONTROLLED.reward, maximum=5.0))
    columns = load(write(tmp_path / "shop.db", [Phase(CONTROLLED, 500, MEANS), Phase(changed, 0, MEANS)]))
    assert len(columns) > 300
    assert columns.reward_range == (0.0, 1.0)


@pytest.mark.parametrize(
    "change",
    [
        {"holdout": 0.3},
        {"salt": "another"},
        {"baseline": ActionId("sale")},
        {"reward": RewardDefinition(window=7)},
        {"reward": RewardDefinition(default=0.5)},
        {"reward": RewardDefinition(weights={"click": 2.0})},
        {"reward": RewardDefinition(minimum=-1.0)},
        {"reward": RewardDefinition(aggregation=Aggregation.MAX)},
    ],
)
def test_whatever_changes_what_is_compared_keeps_versions_apart(change: dict[str, object]) -> None:
    """Each of these makes one of the two groups, or the number that both earn, another one."""
    before = sample_experiment(holdout=0.1, reward=RewardDefinition())
    assert differences(before, replace(before, **change))  # type: ignore[arg-type]
    assert not differences(before, before)


# The parts that the user names.


def test_a_version_is_read_alone(ramped: Path, run: Callable[..., Result], tmp_path: Path) -> None:
    """The way out that the finding names works."""
    found = run("inspect", ramped, "--version", "1", "--json", tmp_path / "found.json")
    assert found.exit_code == 0
    log = json.loads((tmp_path / "found.json").read_text())
    assert (log["decisions"], log["left_out"]["in versions that were not asked for"]) == (3000, 2000)
    assert log["holdout"] is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--version", "9"], "--version 9: the experiment has no such version; it has versions 1 to 2"),
        (["--version", "0"], "'0' is no version's number"),
        (["--since", "yesterday"], "'yesterday' is no date (2026-11-28), time"),
        (["--until", "1999-12-31"], "no decision is left with --until 1999-12-31; its decisions are from 20"),
    ],
)
def test_a_part_that_is_not_there_is_named(
    ramped: Path, run: Callable[..., Result], options: list[str], said: str
) -> None:
    """With the values that would work."""
    found = run("inspect", ramped, *options)
    assert found.exit_code == 2
    assert said in found.output


def test_since_and_until_cut_a_log_into_two(controlled: Path) -> None:
    """The one is inclusive, the other is not, so no decision is in both parts or in none."""
    whole = load(controlled)
    middle = str(np.datetime_as_string(np.datetime64(int(whole.time[len(whole) // 2]), "us"))) + "Z"
    early, late = (load(controlled, span=span) for span in (Span(until=middle), Span(since=middle)))
    assert whole.holdout
    assert early.holdout
    assert late.holdout
    assert np.concatenate([early.reward, late.reward]).tolist() == whole.reward.tolist()
    assert len(early.holdout) + len(late.holdout) == len(whole.holdout)
    assert (
        early.left_out["from --until on"]
        == late.left_out["before --since"] + 5000 - 2 * late.left_out["before --since"]
    )


def test_the_newest_versions_are_those_of_the_span(ramped: Path) -> None:
    """A span before the last change is not empty because of it."""
    columns = load(ramped, span=Span(until="5m"))
    assert len(columns) == 3000 - columns.left_out["from --until on"] + 2000
    assert columns.versions
    assert columns.versions.numbers == (1,)


@pytest.mark.parametrize("kind", ["csv", "parquet", "dsjson"])
def test_a_span_works_for_logs_of_every_kind(
    controlled: Path, run: Callable[..., Result], tmp_path: Path, kind: str
) -> None:
    """It is about times, which most logs have."""
    exported = tmp_path / f"shop.{kind}"
    assert run("export", controlled, exported, "--since", "3m").exit_code == 0
    part = load(controlled, span=Span(since="3m"))
    assert len(read_log(str(exported), ReadOptions())) == len(part)
    minute = read_log(str(exported), ReadOptions(since="1m"))
    assert 0 < len(minute) < len(part)
    assert minute.left_out["before --since"] == len(part) - len(minute)


def test_logs_without_versions_or_times_say_so(tmp_path: Path) -> None:
    """An option that cannot be followed is refused, not ignored."""
    (tmp_path / "log.csv").write_text("action,reward,propensity\na,1,0.5\nb,0,0.5\n")
    with pytest.raises(BadLog, match=r"log.csv: has no versions of an experiment.*leave out --version"):
        read_log(str(tmp_path / "log.csv"), ReadOptions(version=(1,)))
    with pytest.raises(BadLog, match=r"log.csv: its decisions have no times, so --since 7d cannot be told"):
        read_log(str(tmp_path / "log.csv"), ReadOptions(since="7d"))


def test_a_comparison_reads_the_same_part(ramped: Path, run: Callable[..., Result], tmp_path: Path) -> None:
    """Its results are kept by what was read: another part must not get the numbers of the first."""
    found = []
    for number in ("1", "2"):
        where = ("--out", tmp_path / "out", "--json", tmp_path / "found.json", "--workers", 1)
        done = run("compare", ramped, "--policies", "uniform", "fixed:b", "--version", number, *where)
        assert done.exit_code == 0, done.output
        found.append(json.loads((tmp_path / "found.json").read_text())["standings"][0]["estimate"]["value"])
    assert found == [pytest.approx(0.02, abs=0.01), pytest.approx(0.5, abs=0.06)]


# What it says.


def test_the_holdouts_mean_stands_beside_the_candidates(
    controlled: Path, run: Callable[..., Result], tmp_path: Path
) -> None:
    """The question whether it pays off has one answer, in words and in JSON."""
    done = run("evaluate", controlled, "--policy", "fixed:b", "--json", tmp_path / "found.json")
    assert done.exit_code == 0
    assert " holdout " in done.output
    assert "more a decision than the holdout, which always got 'a' (95 %: +0.0" in done.output.replace("\n", " ")
    holdout = json.loads((tmp_path / "found.json").read_text())["log"]["holdout"]
    assert (holdout["action"], holdout["share"], holdout["verdict"]) == ("a", 0.2, "fine")
    assert holdout["estimate"]["low"] < 0.1 < holdout["estimate"]["high"]
    assert holdout["lift"]["low"] < 0.075 < holdout["lift"]["high"]
    assert holdout["lift"]["low"] > 0


def test_a_log_without_a_holdout_is_evaluated_as_before(ramped: Path) -> None:
    """The control group adds; it changes nothing where there is none."""
    found = baseline(load(ramped, version=(1,)))
    assert found.log.holdout is None
    assert found.policies[0].headline == "dr"
    assert "holdout" not in found.policies[0].estimates


def test_only_what_the_control_group_does_profits_from_it(controlled: Path) -> None:
    """Its rewards say nothing about what another action would have earned."""
    columns = load(controlled)
    candidates: list[Candidate] = [FixedAction("fixed:a", 0), FixedAction("fixed:b", 1), UniformPolicy()]
    found = evaluate(columns, candidates, breakdown=False).policies
    assert [one.headline for one in found] == ["dr_and_holdout", "dr", "ips"]


# Known truth.


@dataclass(frozen=True)
class World:
    """n decisions of so many units, a share of them in the control group, which gets action 0. drawn: the policy's
    probability of that action, by segment half, the same and double. clicks: its mean; action 1 has twice as many."""

    drawn: float
    n: int = 1500
    holdout: float = 0.1
    clicks: float = 0.1
    units: int = 0

    def log(self, seed: int) -> Columns:
        """One log of it."""
        rng = np.random.default_rng(seed)
        units = self.units or self.n
        unit = rng.integers(units, size=self.n) if self.units else np.arange(self.n)
        control = (rng.random(units) < self.holdout)[unit]
        segment = rng.integers(3, size=self.n)
        p = self.drawn * np.array([0.5, 1.0, 2.0])[segment]
        action = np.where(control, 0, rng.random(self.n) >= p)
        mean = self.clicks * (1 + action) * np.array([0.5, 1.0, 1.5])[segment]
        columns = Columns(
            name="world",
            actions=("a", "b"),
            action=action.astype(np.int32),
            propensity=np.where(action == 0, p, 1 - p),
            reward=(rng.random(self.n) < mean).astype(np.float64),
            reward_range=(0.0, 1.0),
            time=np.arange(1, self.n + 1),
            known=np.arange(1, self.n + 1),
            unit=unit,
            fields={"segment": Category(segment.astype(np.int32), ("x", "y", "z"))},
            sets=((0, 1),),
            eligible=np.zeros(self.n, np.int32),
            pmf=np.column_stack([p, 1 - p]).astype(np.float32).ravel(),
            baseline=0,
        )
        return replace(columns.take(~control), holdout=columns.take(control))

    @property
    def truth(self) -> tuple[float, float]:
        """The baseline's mean reward, and the policy's."""
        rate, p = self.clicks * np.array([0.5, 1.0, 1.5]), self.drawn * np.array([0.5, 1.0, 2.0])
        return float(rate.mean()), float((rate * (2 - p)).mean())


WORLDS = (World(0.2), World(0.05), World(0.1, clicks=0.03, n=2500), World(0.1, holdout=0.2, units=300))
SEEDS = 60
LEAST = 0.93 * SEEDS - 3 * (SEEDS * 0.93 * 0.07) ** 0.5
"""Fewer than this covered has a chance of 1 in 500 at most where the coverage is 93 %."""


@pytest.mark.parametrize("world", WORLDS)
def test_the_baselines_interval_covers_the_truth_and_is_narrower_than_either_group(world: World) -> None:
    """Each group alone answers the question; both together answer it better, and no less honestly."""
    base, policy = world.truth
    covered, widths = np.zeros(3), []
    for seed in range(SEEDS):
        found = baseline(world.log(seed))
        result, holdout = found.policies[0], found.log.holdout
        assert holdout
        assert holdout.lift
        assert result.difference
        own, both = result.estimates["holdout"], result.estimates[result.headline]
        truths = ((both, base), (result.difference, base - policy), (holdout.lift, policy - base))
        covered += [one.low <= truth <= one.high for one, truth in truths]
        dr = result.estimates.get("dr", own)
        widths.append([both.high - both.low, min(own.high - own.low, dr.high - dr.low)])
    assert (covered >= LEAST).all(), covered
    mean, best = np.mean(widths, axis=0)
    assert mean < 1.01 * best


SIDES = st.floats(0, 10)


@given(value=st.floats(-5, 5), sides=st.tuples(SIDES, SIDES, SIDES, SIDES))
def test_a_mean_of_two_estimates_is_never_wider_than_the_better_one(
    value: float, sides: tuple[float, float, float, float]
) -> None:
    """However lopsided they are: more data must not make an answer worse."""
    one, other = Interval(value, value - sides[0], value + sides[1]), Interval(0.0, -sides[2], sides[3])
    share = share_of(one, other)
    both = weighted_sum((share, one), (1 - share, other))
    assert both.low <= both.value <= both.high
    assert both.high - both.low <= min(one.high - one.low, other.high - other.low) + 1e-9


def test_what_the_policy_hardly_drew_is_answered_by_the_control_group_alone() -> None:
    """Refusing the baseline's value would throw away hundreds of draws of it."""
    found = baseline(World(0.001, n=3000).log(1)).policies[0]
    assert found.headline == "holdout"
    assert not found.refused
    assert found.diagnostics.verdict != "do not use"
    assert found.estimates["holdout"].low < 0.1 < found.estimates["holdout"].high
    assert found.difference
    assert found.difference.high < 0


def test_a_control_group_that_contradicts_the_weights_is_believed() -> None:
    """Propensities that ignore the context make the weighted estimate wrong; the control group needs none."""
    world = World(0.2, n=100_000)
    columns = replace(world.log(1), fields={})  # no check of the log can see it: the segment was not logged
    share = 0.7 / 3
    pmf = np.tile(np.array([share, 1 - share], np.float32), len(columns))
    propensity = np.where(columns.action == 0, share, 1 - share)
    found = baseline(replace(columns, propensity=propensity, pmf=pmf)).policies[0]
    assert found.headline == "holdout"
    assert found.diagnostics.verdict == "caution"
    assert "Chance cannot explain that" in found.diagnostics.reasons[0]
    assert found.estimates["holdout"].low < world.truth[0] < found.estimates["holdout"].high


# The split.


def test_a_right_split_raises_no_alarm() -> None:
    """400 logs of 4,000 units, split by the hash that serves: not one."""
    version = ExperimentVersion(CONTROLLED, number=1, position=Position(1), time=Time(0))
    control = np.array([in_holdout(version, f"unit-{n}") for n in range(400 * 4000)]).reshape(400, 4000)
    share = np.full(4000, CONTROLLED.holdout)
    evidence = [split_evidence(Split(share, one, CONTROLLED.holdout, 0)) for one in control]
    assert max(evidence) < 1000


def test_lost_control_units_are_found(controlled: Path, tmp_path: Path) -> None:
    """Half of them never arrived: the draws are right, the split is not, and the holdout is left aside."""
    columns = load(controlled)
    assert finding(columns, "holdout split").verdict == "fine"
    thinned = tmp_path / "thinned.db"
    with closing(sqlite3.connect(controlled)) as source, closing(sqlite3.connect(thinned)) as copy:
        source.backup(copy)
        copy.execute("delete from decisions where reason = 'HOLDOUT' and position % 2")
        copy.commit()
    lost = load(thinned)
    found = finding(lost, "holdout split")
    assert found.verdict == "caution"
    assert "20 % were declared" in found.text
    evaluated = baseline(lost)
    assert evaluated.log.holdout
    assert evaluated.log.holdout.verdict == "do not use"
    assert evaluated.policies[0].headline == "dr"
    assert finding(lost, "sample ratio").verdict == "fine"


def test_units_count_in_the_version_in_which_they_came(tmp_path: Path) -> None:
    """The share of the first 1,000 units is another one than that of the others; both are right."""
    half = replace(CONTROLLED, holdout=0.5)
    db = write(tmp_path / "shop.db", [Phase(CONTROLLED, 1000, MEANS), Phase(half, 1000, MEANS)])
    split = load(db, version=(1, 2)).split
    assert split is not None
    assert split.share.tolist() == [0.2] * 1000 + [0.5] * 1000
    assert split_evidence(split) < 10


def test_units_in_both_groups_are_found() -> None:
    """One hash decides for a unit, so it means that ids are reused or that somebody else wrote into the log."""
    columns = World(0.2).log(1)
    right, wrong = (replace(columns, split=Split(np.zeros(0), np.zeros(0, np.bool_), 0.1, n)) for n in (0, 3))
    assert split_finding(wrong) is None
    (fine, found) = (units_in_both(one) for one in (right, wrong))
    assert fine
    assert fine.verdict == "fine"
    assert found
    assert found.verdict == "caution"
    assert "3 units are both" in found.text


def test_a_holdout_of_five_units_is_too_small_and_not_wrongly_split() -> None:
    """Whoever reads that the split is wrong looks for a fault that is none."""
    mean, lift = Estimate(0.1, 0.05, 0.2, ""), Difference("holdout", "mean", 0.05, -0.1, 0.2, "")
    few = HoldoutMean("none", 0.1, decisions=13, units=5, estimate=mean, lift=lift, verdict="do not use")
    assert "it has 5 units, too few" in lift_text(few)
    assert "not split off as declared" in lift_text(replace(few, units=500))
