"""`simulator evaluate` and `simulator inspect`: right answers, honest refusals, output that scripts can rely on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from scipy.stats import binom

from simulator.commands.group import main
from simulator.datasets import open_bandit
from simulator.evaluate.checks.leaks import set_leaks_aside
from simulator.evaluate.checks.log import log_findings
from simulator.evaluate.estimates import Estimator, estimate_mean
from simulator.evaluate.parse import parse
from simulator.evaluate.result import SCHEMA, PolicyResult, to_json
from simulator.evaluate.run import cumulative_estimate, evaluate
from simulator.evaluate.scores import score
from simulator.evaluate.verdicts import worst_verdict
from simulator.logs.columns import Category, Columns
from simulator.logs.open import open_log
from simulator.logs.options import ReadOptions
from tests.conftest import THOMPSON
from tests.logged_worlds import LoggedWorld, logged_world
from tests.test_candidates import asked

DATA = Path(__file__).parent / "data"
OLD_LOG = str(DATA / "log-0.1.0.db")
STOREFRONT = str(Path(__file__).parent.parent / "simulator" / "storefront.toml")


def run(*arguments: str) -> Result:
    """The command, in this process."""
    return CliRunner().invoke(main, list(arguments), env={"COLUMNS": "120"})


def evaluated(columns: Columns, *names: str, **options: Any) -> dict[str, PolicyResult]:
    """Results by policy."""
    return {one.name: one for one in evaluate(columns, [parse(n, columns) for n in names], **options).policies}


@pytest.fixture
def dataset(open_bandit_wheel: Path) -> Callable[[str], Columns]:
    """A log of the Open Bandit Dataset."""
    assert open_bandit_wheel.is_file()
    return lambda campaign: open_log(f"open-bandit:{campaign}", ReadOptions())


def plainly(campaign: str, pmf: Callable[[open_bandit.Row], float]) -> dict[str, float]:
    """The papers' formulas in plain Python, from the data set's own rows."""
    rows = open_bandit.load(campaign)
    weights = [pmf(row) / row.propensity_score for row in rows]
    weighted = [w * row.click for w, row in zip(weights, rows, strict=True)]
    return {
        "ips": math.fsum(weighted) / len(rows),
        "snips": math.fsum(weighted) / math.fsum(weights),
        "ess": math.fsum(weights) ** 2 / math.fsum([w * w for w in weights]),
        "max_weight": max(weights),
    }


def figures(result: PolicyResult) -> dict[str, float]:
    """The same figures from an evaluation."""
    return {
        "ips": result.estimates["ips"].value,
        "snips": result.estimates["snips"].value,
        "ess": result.diagnostics.ess,
        "max_weight": result.diagnostics.max_weight,
    }


def test_the_known_answer_on_real_traffic(dataset: Callable[[str], Columns]) -> None:
    """Another library's figures for the same question, to all the digits that it shows."""
    columns = dataset("random/all")
    result = evaluated(columns, f"table:{THOMPSON}")[f"table:{THOMPSON}"]
    found = figures(result)
    assert f"{found['ips']:.9f}" == "0.004552880"
    assert f"{found['snips']:.9f}" == "0.004775833"
    assert f"{found['ess']:.2f}" == "1639.50"
    assert f"{found['max_weight']:.4f}" == "19.5984"
    assert columns.reward.mean() == 0.0038


@pytest.mark.parametrize("campaign", open_bandit.CAMPAIGNS)
def test_no_campaign_of_the_real_shop_is_forbidden(dataset: Callable[[str], Columns], campaign: str) -> None:
    """Real draws deviate a little over the days, and many fields say little: neither makes a log useless."""
    columns = set_leaks_aside(dataset(campaign))
    assert columns.set_aside == {}
    assert worst_verdict(log_findings(columns)) != "do not use"


@pytest.mark.parametrize("campaign", open_bandit.CAMPAIGNS)
def test_every_campaign_and_direction_agrees_with_the_formulas(
    dataset: Callable[[str], Columns], campaign: str
) -> None:
    """Uniform on both loggers' logs, from the raw rows, by sums that lose nothing."""
    columns = dataset(campaign)
    expected = plainly(campaign, lambda _: 1 / len(columns.actions))
    result = evaluated(columns, "uniform", force=True)["uniform"]
    assert figures(result) == pytest.approx(expected, rel=1e-12)


def test_a_fixed_item_on_every_campaign_agrees_with_the_formulas(dataset: Callable[[str], Columns]) -> None:
    """The other extreme of a candidate."""
    for campaign in open_bandit.CAMPAIGNS:
        columns = dataset(campaign)
        item = int(columns.actions[3].removeprefix("item-"))
        expected = plainly(campaign, lambda row, item=item: float(row.item_id == item))  # type: ignore[misc]
        result = evaluated(columns, f"fixed:item-{item}", force=True)[f"fixed:item-{item}"]
        assert figures(result) == pytest.approx(expected, rel=1e-12)


def test_logs_without_overlap_are_refused(dataset: Callable[[str], Columns]) -> None:
    """Uniform on the Thompson log of the women's campaign: 10,000 rows are worth 2."""
    result = evaluated(dataset("bts/women"), "uniform")["uniform"]
    assert result.diagnostics.ess < 3
    assert result.refused
    assert result.estimates == {}
    assert any(reason.startswith("Effective sample size") for reason in result.diagnostics.reasons)
    assert any(finding.needed for finding in result.diagnostics.findings)


@pytest.mark.parametrize("repeats", [1, 4])
def test_the_logged_policy_gets_exactly_the_logs_mean(repeats: int) -> None:
    """w is 1, not nearly 1."""
    columns = logged_world(seed=1, repeats=repeats).columns
    result = evaluated(columns, "logged")["logged"]
    assert result.estimates["ips"].value == columns.reward.mean()
    assert result.headline == "ips"
    assert result.difference is None


def asked_and_estimated(world: LoggedWorld, name: str) -> tuple[float, Estimator]:
    """A candidate's true value, and what is estimated of it."""
    candidate = parse(name, world.columns)
    (scores,) = score(world.columns, [candidate])
    return world.value(asked(candidate, world.columns)), Estimator(scores)


def covered(world: LoggedWorld, name: str) -> tuple[bool, bool]:
    """Whether IPS's and DR's intervals hold the truth."""
    truth, estimator = asked_and_estimated(world, name)
    estimates = [estimate_mean(estimator.samples(terms), (0.0, 1.0)) for terms in (estimator.ips(), estimator.dr())]
    return estimates[0].low <= truth <= estimates[0].high, estimates[1].low <= truth <= estimates[1].high


SEEDS = 200
LEAST = int(binom.ppf(1e-3, SEEDS, 0.95))
"""Fewer than so many of 200 intervals that hold at 95 % would happen once in a thousand runs."""


@pytest.mark.parametrize("name", ["uniform", "fixed:shipping"])
@pytest.mark.parametrize("repeats", [1, 3])
def test_intervals_hold_the_truth_at_the_nominal_rate(name: str, repeats: int) -> None:
    """Over seeds, in a world with known means; with units that come back, too."""
    hits = [covered(logged_world(seed=seed, decisions=400, repeats=repeats), name) for seed in range(SEEDS)]
    ips, dr = np.array(hits).sum(axis=0)
    assert ips >= LEAST
    assert dr >= LEAST


def test_the_difference_to_the_logged_policy_holds_too() -> None:
    """It is what a decision to switch rests on."""
    hits = 0
    for seed in range(SEEDS):
        world = logged_world(seed=seed, decisions=400)
        truth, estimator = asked_and_estimated(world, "uniform")
        difference = estimator.difference()
        hits += difference.low <= truth - world.value(world.columns.dense_pmf()) <= difference.high
    assert hits >= LEAST


def test_the_confidence_sequence_holds_at_all_points_at_once() -> None:
    """Growth teams look every day."""
    hits = 0
    for seed in range(60):
        world = logged_world(seed=seed, decisions=600)
        truth, estimator = asked_and_estimated(world, "uniform")
        path = cumulative_estimate(estimator)
        hits += all(low <= truth <= high for low, high in zip(path.low, path.high, strict=True))
    assert hits >= binom.ppf(1e-3, 60, 0.95)


def test_every_unbiased_estimate_is_near_the_truth_and_the_biased_say_so() -> None:
    """On a large log."""
    world = logged_world(seed=5, decisions=60_000)
    columns = world.columns
    truth = world.value(asked(parse("fixed:gift", columns), columns))
    estimates = evaluated(columns, "fixed:gift")["fixed:gift"].estimates
    assert set(estimates) == {
        "ips", "snips", "cressie_read", "clipped_ips", "replay", "dm", "dr", "sndr", "switch_dr", "dr_shrinkage",
    }  # fmt: skip
    for name in ("ips", "snips", "cressie_read", "dr", "sndr", "replay"):
        assert estimates[name].unbiased, name
        assert estimates[name].low <= truth <= estimates[name].high, name
    assert not estimates["dm"].unbiased
    assert "reward model" in estimates["dm"].note


def test_a_log_served_live_evaluated_for_its_own_policy_covers_what_it_earned() -> None:
    """The demo's server made this log; its policy, learned again from it, must be worth what it earned."""
    columns = open_log(OLD_LOG, ReadOptions())
    result = evaluated(columns, STOREFRONT)[STOREFRONT]
    assert result.estimand == "progressive learner"
    assert not result.refused
    for name in ("ips", "dr"):
        assert result.estimates[name].low <= columns.reward.mean() <= result.estimates[name].high


def test_several_candidates_at_once_are_as_each_alone() -> None:
    """One pass over the log must not mix them."""
    columns = open_log(OLD_LOG, ReadOptions())
    names = ("uniform", STOREFRONT, "fixed:sale")
    together = evaluated(columns, *names, force=True)
    for name in names:
        assert evaluated(columns, name, force=True)[name] == together[name]


def test_mips_is_there_where_actions_are_many() -> None:
    """With few actions there is nothing to gain."""
    world = logged_world(seed=2, decisions=4_000)
    assert "mips" not in evaluated(world.columns, "uniform")["uniform"].estimates
    wide = many_actions(world.columns)
    assert "mips" in evaluated(wide, "uniform", force=True)["uniform"].estimates


def many_actions(columns: Columns) -> Columns:
    """30 actions in three groups, logged uniformly."""
    rng = np.random.default_rng(0)
    count = 30
    return replace(
        columns,
        actions=tuple(f"a{number}" for number in range(count)),
        action=rng.integers(0, count, len(columns)).astype(np.int32),
        propensity=np.full(len(columns), 1 / count),
        sets=(tuple(range(count)),),
        pmf=np.full(count * len(columns), 1 / count, np.float32),
        traits={"kind": tuple(f"kind-{number % 3}" for number in range(count))},
    )


def test_without_propensities_only_the_reward_model_can_speak_and_only_when_forced() -> None:
    """Nothing weighs such decisions."""
    columns = replace(logged_world(seed=1).columns, propensity=np.full(2_000, np.nan), pmf=None)
    assert evaluated(columns, "uniform")["uniform"].refused
    forced = evaluated(columns, "uniform", force=True)["uniform"]
    assert set(forced.estimates) == {"dm"}
    assert forced.difference is None


def test_without_logged_pmfs_the_weighted_estimates_are_the_same() -> None:
    """They need the propensity alone."""
    full, bare = (logged_world(seed=3, with_pmf=with_pmf).columns for with_pmf in (True, False))
    one, other = (evaluated(columns, "uniform")["uniform"].estimates for columns in (full, bare))
    assert one["ips"].value == other["ips"].value
    assert one["dr"].value == pytest.approx(other["dr"].value, abs=1e-12)
    logged = evaluated(bare, "logged")["logged"]
    assert logged.estimates["ips"].value == bare.reward.mean()


def test_an_empty_log_is_refused_without_an_accident() -> None:
    """A new experiment has no sealed decision yet."""
    columns = logged_world(seed=1).columns.take(slice(0, 0))
    result = evaluated(columns, "uniform", "logged", force=True)
    assert all(one.refused for one in result.values())


def test_the_json_has_the_names_that_scripts_rely_on(tmp_path: Path) -> None:
    """They are a promise; a name that goes needs another SCHEMA."""
    file = tmp_path / "result.json"
    done = run("evaluate", OLD_LOG, "--policy", "uniform", "--policy", "baseline", "--json", str(file), "--force")
    assert done.exit_code == 0, done.output
    found = json.loads(file.read_text())
    names = {"log", "policies", "seconds", "importance", "importance_missing", "over_time", "slates", "schema"}
    assert set(found) == names
    assert found["schema"] == SCHEMA == 2
    assert {"name", "decisions", "mean_reward", "left_out", "verdict", "findings"} <= set(found["log"])
    assert found["log"]["decisions"] == 429
    assert [policy["name"] for policy in found["policies"]] == ["logged", "uniform", "baseline"]
    for policy in found["policies"]:
        assert {"name", "estimand", "diagnostics", "estimates", "difference", "refused", "headline"} <= set(policy)
        assert {
            "ess", "effective_successes", "max_weight", "mean_weight", "support_violations", "verdict", "reasons",
        } <= set(policy["diagnostics"])  # fmt: skip
        for estimate in policy["estimates"].values():
            assert {"value", "low", "high", "interval"} <= set(estimate)
        assert policy["headline"] in policy["estimates"]
    logged, *others = [policy["answer"] for policy in found["policies"]]
    assert logged is None
    assert all(set(one) == {"conclusion", "effect", "certainty", "advice"} for one in others)
    assert found["seconds"] > 0


def test_what_is_not_finite_is_null_in_json() -> None:
    """NaN is no JSON; half of the readers would refuse the file."""
    result = evaluate(logged_world(seed=1).columns.take(slice(0, 1)), [])
    text = to_json(replace(result, seconds=math.inf))
    assert json.loads(text)["seconds"] is None


def test_the_table_in_the_terminal_names_estimand_verdict_and_difference() -> None:
    """First the answer in plain words, then whether the numbers can be trusted, then the numbers."""
    done = run("evaluate", OLD_LOG, "--policy", "uniform", "--policy", STOREFRONT)
    assert done.exit_code == 0, done.output
    assert done.output.index("This log cannot tell") < done.output.index("What to do: Log about")
    assert done.output.index("What to do:") < done.output.index("caution")
    assert done.output.index("caution") < done.output.index("Reward/decision")
    for expected in ("deployed curve", "fixed policy", "progressive learner", "look here first", "holdout"):
        assert expected in done.output, expected


def test_a_refusal_says_why_and_what_would_be_needed_and_exits_1(tmp_path: Path) -> None:
    """No number, and `--force` for those who know better."""
    file = tmp_path / "result.json"
    arguments = ("evaluate", str(narrow_csv(tmp_path)), "--policy", "fixed:b", "--json", str(file))
    done = run(*arguments)
    assert done.exit_code == 1, done.output
    assert "refused" in done.output
    assert "do not use" in done.output
    assert "Needed" in done.output
    policy = json.loads(file.read_text())["policies"][1]
    assert policy["refused"]
    assert policy["estimates"] == {}
    forced = run(*arguments, "--force")
    assert forced.exit_code == 0, forced.output
    assert json.loads(file.read_text())["policies"][1]["estimates"]["ips"]["value"] is not None


def narrow_csv(folder: Path) -> Path:
    """A log that hardly ever drew `b`."""
    rng = np.random.default_rng(1)
    rows = ["action,propensity,reward,device"]
    for row in range(1_500):
        drew_b = row % 500 == 7
        rows.append(f"{'b' if drew_b else 'a'},{0.002 if drew_b else 0.998},{int(rng.random() < 0.3)},phone")
    (folder / "narrow.csv").write_text("\n".join(rows) + "\n")
    return folder / "narrow.csv"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "nowhere.db", "--policy", "uniform"), "there is no such log"),
        (("evaluate", "open-bandit:random/children", "--policy", "uniform"), "random/children"),
        (("evaluate", OLD_LOG, "--policy", "best"), "there is no policy 'best'"),
        (("evaluate", OLD_LOG, "--policy", "fixed:gone"), "it has new-arrivals, sale"),
        (("evaluate", OLD_LOG, "--policy", "uniform", "--experiment", "home"), "no experiment 'home'"),
        (("inspect", "nowhere.csv"), "there is no such log"),
    ],
)
def test_bad_input_exits_2_and_names_what_is_wrong(arguments: tuple[str, ...], message: str) -> None:
    """One line, no traceback."""
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize("command", ["evaluate", "inspect"])
def test_help_has_examples(command: str) -> None:
    """The shortest way in."""
    done = run(command, "--help")
    assert done.exit_code == 0
    assert f"simulator {command} demo.db" in done.output


def test_inspect_shows_every_finding_and_writes_them(tmp_path: Path) -> None:
    """Without any policy."""
    file = tmp_path / "findings.json"
    done = run("inspect", OLD_LOG, "--json", str(file))
    assert done.exit_code == 0, done.output
    found = json.loads(file.read_text())
    names = {finding["name"] for finding in found["findings"]}
    assert {"sample ratio", "smallest propensity", "reward delay", "drift", "late rewards", "overrides"} <= names
    assert all(name in done.output for name in names)
    assert (
        "This log can be used. To do first (rewarded decisions): Log about 82 more decisions like these." in done.output
    )
    assert done.output.index("This log can be used") < done.output.index("Decisions 429")
    assert found["left_out"]["holdout"] == 21


def test_a_report_is_written(tmp_path: Path) -> None:
    """What it looks like in a browser is tested in test_report.py."""
    done = run("evaluate", OLD_LOG, "--policy", "uniform", "--report", str(tmp_path / "report"))
    assert done.exit_code == 0, done.output
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "uniform" in page
    assert list((tmp_path / "report").glob("*.png"))


def test_differences_by_segment_hold_all_at_once() -> None:
    """Without a correction, one of twelve segments without any effect looks like a winner in every second log."""
    wrong = 0
    for seed in range(60):
        columns = logged_world(seed=seed, decisions=600).columns
        rng = np.random.default_rng(seed)
        even = replace(
            columns,
            reward=(rng.random(600) < 0.3).astype(np.float64),
            fields={"segment": Category(rng.integers(0, 4, 600).astype(np.int32), ("a", "b", "c", "d"))},
        )
        segments = evaluated(even, "uniform", breakdown=True)["uniform"].segments
        found = [one.difference for one in segments if one.difference]
        assert len(found) == len(segments) == 4
        wrong += any(one.low > 0 or one.high < 0 for one in found)
    assert wrong <= binom.ppf(1 - 1e-3, 60, 0.05)


def test_a_segment_that_is_too_small_has_no_difference() -> None:
    """It is said, not drawn."""
    columns = logged_world(seed=3, decisions=600).columns
    few = Category(np.where(np.arange(600) < 6, 1, 0).astype(np.int32), ("many", "few"))
    large, small = evaluated(replace(columns, fields={"field": few}), "uniform")["uniform"].segments
    assert large.difference
    assert large.estimate
    assert large.difference.value == pytest.approx(large.estimate.value - large.logged.value)
    assert small.estimate is None
    assert small.difference is None


def test_the_curve_ends_at_the_headline() -> None:
    """Two numbers for one question would be one too many."""
    result = evaluated(logged_world(seed=6).columns, "uniform")["uniform"]
    assert result.curve
    assert result.curve.estimator == result.headline == "dr"
    assert result.curve.value[-1] == pytest.approx(result.estimates["dr"].value)


def test_what_cannot_be_written_is_said_before_the_work(tmp_path: Path) -> None:
    """An hour of work must not end at a folder that is not there."""
    done = run("evaluate", OLD_LOG, "--policy", "uniform", "--json", str(tmp_path / "no" / "result.json"))
    assert done.exit_code == 2
    assert "result.json" in done.output
    assert "Mean reward a decision" not in done.output


def test_terms_of_ips_do_not_depend_on_the_order_of_fields() -> None:
    """A field more or less changes the reward model, never the weights."""
    columns = logged_world(seed=9).columns
    fewer = replace(columns, fields={})
    one, other = (evaluated(it, "uniform")["uniform"].estimates["ips"] for it in (columns, fewer))
    assert one == other


def test_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    """Many exports begin with the newest; a learner must meet the oldest first."""
    exported = tmp_path / "log.csv"
    assert run("export", OLD_LOG, str(exported)).exit_code == 0
    header, *rows = exported.read_text().splitlines()
    (tmp_path / "newest.csv").write_text("\n".join([header, *rows[::-1]]) + "\n")
    one, other = (open_log(str(tmp_path / name), ReadOptions()) for name in ("log.csv", "newest.csv"))
    assert one.time.tolist() == other.time.tolist()
    assert sorted(zip(one.time.tolist(), one.propensity.tolist(), strict=True)) == sorted(
        zip(other.time.tolist(), other.propensity.tolist(), strict=True)
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("inspect", "mine.csv", "--json", "mine.csv"), "is the log itself"),
        (("export", "mine.csv", "out.csv", "--json", "out.csv"), "is the log itself"),
        (("inspect", "mine.csv", "--reward-range", "0", "inf"), "two finite numbers"),
        (("inspect", OLD_LOG, "--reward-range", "0", "1"), "has fixed columns"),
    ],
)
def test_what_would_do_harm_or_be_ignored_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    """A log must not become its own report, and no option may be dropped without a word."""
    monkeypatch.chdir(tmp_path)
    content = narrow_csv(tmp_path).read_text()
    (tmp_path / "mine.csv").write_text(content)
    done = run(*arguments)
    assert done.exit_code == 2, done.output
    assert message in done.output
    assert (tmp_path / "mine.csv").read_text() == content


def test_a_row_that_comes_again_counts_once(tmp_path: Path) -> None:
    """It is no other draw."""
    rows = ["decision_id,action,propensity,reward", "1,a,0.5,1", "2,b,0.5,0", "1,a,0.5,1"]
    (tmp_path / "twice.csv").write_text("\n".join(rows) + "\n")
    columns = open_log(str(tmp_path / "twice.csv"), ReadOptions())
    assert len(columns) == 2
    assert columns.left_out["repeated decision id"] == 1
