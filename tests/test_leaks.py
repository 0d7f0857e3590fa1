"""Columns made after the draw, and propensities that ignore the context: found, named, and no right log accused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from simulator.commands.group import main
from simulator.evaluate.candidates import TablePolicy, UniformPolicy
from simulator.evaluate.checks.context import NAME as BALANCE
from simulator.evaluate.checks.dr_against_ips import NAME as MODEL
from simulator.evaluate.checks.leaks import set_leaks_aside
from simulator.evaluate.checks.log import log_findings
from simulator.evaluate.replay_decisions import DoesNotFit
from simulator.evaluate.result import Finding
from simulator.evaluate.run import evaluate
from simulator.logs.columns import Category, Columns, Field, Number
from simulator.logs.open import open_log
from simulator.logs.options import ReadOptions
from tests.logged_worlds import ACTIONS, SEGMENTS, LoggedWorld, logged_world

LIKED = np.full((len(SEGMENTS), len(ACTIONS)), 0.05) + 0.75 * np.eye(len(SEGMENTS), len(ACTIONS))


def made_of_the_action(log: Columns, _: np.random.Generator) -> Field:
    """Its price; two actions cost the same."""
    return Number(np.array([9.0, 5.0, 9.0, 7.0, 12.0])[log.action])


def text_of_the_action(log: Columns, _: np.random.Generator) -> Field:
    """Its banner."""
    return Category(log.action.copy(), tuple(f"banner {action}" for action in ACTIONS))


def conversion(log: Columns, rng: np.random.Generator) -> Field:
    """Only who clicked buys."""
    return Number(log.reward * (rng.random(len(log)) < 0.8))


def revenue(log: Columns, rng: np.random.Generator) -> Field:
    """What who bought paid."""
    return Number(log.reward * rng.integers(20, 30, len(log)))


def dwell_time(log: Columns, rng: np.random.Generator) -> Field:
    """Longer after a click; some stay long without."""
    return Number(rng.exponential(5 + 20 * log.reward))


def copy_of_the_propensity(log: Columns, _: np.random.Generator) -> Field:
    """As a model's score is often logged."""
    return Number(log.propensity * 100)


LEAKS = (made_of_the_action, text_of_the_action, conversion, revenue, dwell_time, copy_of_the_propensity)


def world(seed: int, *, with_pmf: bool = True) -> LoggedWorld:
    """Four thousand decisions of known means."""
    return logged_world(seed=seed, decisions=4_000, with_pmf=with_pmf)


def with_field(made: LoggedWorld, name: str, leak: Callable[..., Field]) -> Columns:
    """The log with one more column."""
    field = leak(made.columns, np.random.default_rng(5))
    return replace(made.columns, fields={**made.columns.fields, name: field})


def verdict_of(findings: tuple[Finding, ...], name: str) -> str:
    """Of the finding with that name."""
    (found,) = [one for one in findings if one.name == name]
    return found.verdict


@pytest.mark.parametrize("with_pmf", [True, False])
@pytest.mark.parametrize("leak", LEAKS)
def test_a_column_made_after_the_draw_is_named_and_left_out(leak: Callable[..., Field], with_pmf: bool) -> None:
    """The doubly robust estimate with it was 28 of 100 times right, and called fine."""
    made = world(1, with_pmf=with_pmf)
    log = with_field(made, "extra", leak)
    assert list(set_leaks_aside(log).set_aside) == ["extra"]
    candidate = TablePolicy("liked", "segment", SEGMENTS, LIKED)
    found = evaluate(log, [candidate], breakdown=False)
    assert "extra" in next(one.text for one in found.log.findings if one.name == "columns left out")
    estimate = found.policies[0].estimates["dr"]
    assert estimate.low <= made.value(candidate.pmf(made.columns)) <= estimate.high


@pytest.mark.parametrize("leak", [conversion, made_of_the_action])
def test_who_insists_on_a_column_gets_it_and_hears_that_it_does_not_fit(leak: Callable[..., Field]) -> None:
    """The user may know better; but then the propensities are wrong."""
    log = replace(with_field(world(1), "extra", leak), insisted=frozenset({"extra"}))
    assert set_leaks_aside(log).set_aside == {}
    assert verdict_of(log_findings(log), BALANCE) == "do not use"


@pytest.mark.parametrize("with_pmf", [True, False])
@pytest.mark.parametrize("share", ["1/n", "overall"])
@pytest.mark.parametrize("name", ["segment", "device", "tier"])
def test_propensities_that_ignore_the_context_are_found(name: str, share: str, with_pmf: bool) -> None:
    """Each action's share of all draws is right on the whole, and wrong for everybody."""
    made = world(2, with_pmf=with_pmf)
    rng, log = np.random.default_rng(3), made.columns
    level = rng.integers(0, 3, len(log))
    drawn = np.where(rng.random(len(log)) < 0.7, level, rng.integers(0, len(ACTIONS), len(log))).astype(np.int32)
    shares = np.full(len(ACTIONS), 1 / len(ACTIONS))
    if share == "overall":
        shares = np.bincount(drawn, minlength=len(ACTIONS)) / len(log)
    pmf = np.tile(shares, (len(log), 1)).astype(np.float32).ravel() if with_pmf else None
    fields = {name: Category(level.astype(np.int32), ("one", "two", "three"))}
    wrong = replace(log, action=drawn, propensity=shares[drawn], pmf=pmf, fields=fields)
    assert verdict_of(log_findings(set_leaks_aside(wrong)), BALANCE) == "do not use"
    assert name not in set_leaks_aside(wrong).set_aside


@pytest.mark.parametrize("with_pmf", [True, False])
def test_no_right_log_is_accused(with_pmf: bool) -> None:
    """A check that cries wolf is switched off. The many logs of RESULTS.md bound the rate; here it is none of 60."""
    for seed in range(60):
        log = set_leaks_aside(logged_world(seed=seed, decisions=1_000, with_pmf=with_pmf).columns)
        assert log.set_aside == {}
        assert verdict_of(log_findings(log), BALANCE) == "fine"


def test_a_log_without_any_draw_is_read_without_a_warning(tmp_path: Path) -> None:
    """Log-only experiments, and logs of rule-based shops: every action came with probability 1. Warnings of numpy are
    errors here; in a terminal they stood between the lines of the answer."""
    path = tmp_path / "rules.csv"
    rows = [f"{'ab'[number % 2]},{number % 3 == 0:d},{20 + number % 7},1" for number in range(60)]
    path.write_text("\n".join(["action,reward,age,propensity", *rows]) + "\n", encoding="utf-8")
    columns = set_leaks_aside(open_log(str(path), ReadOptions()))
    assert columns.set_aside == {}
    assert log_findings(columns)
    assert CliRunner().invoke(main, ["import", str(path), str(tmp_path / "log.db")]).exit_code == 0


def test_a_disagreement_of_model_and_weights_is_told() -> None:
    """What the checks of the log do not see still shows where it does harm: the paired test of DR against IPS."""
    made = world(4)
    log = replace(with_field(made, "extra", conversion), insisted=frozenset({"extra"}))
    found = evaluate(log, [TablePolicy("liked", "segment", SEGMENTS, LIKED)], force=True, breakdown=False)
    assert verdict_of(found.policies[0].diagnostics.findings, MODEL) == "do not use"


def test_the_paired_test_does_not_see_where_rewards_have_their_zero() -> None:
    """Rewards from 5 to 6 are the rewards from 0 to 1 of another shop."""
    made = world(4)
    moved = replace(made.columns, reward=made.columns.reward + 5.0, reward_range=(5.0, 6.0))
    found = [evaluate(log, [UniformPolicy()], breakdown=False).policies[0] for log in (made.columns, moved)]
    one, other = (next(f for f in policy.diagnostics.findings if f.name == MODEL) for policy in found)
    assert one.value == pytest.approx(other.value, abs=1e-9)


def test_a_table_on_a_column_that_was_left_out_says_so() -> None:
    """Else the policy would read the very action that was drawn."""
    log = with_field(world(1), "banner", text_of_the_action)
    table = TablePolicy("table:b.csv", "banner", tuple(f"banner {action}" for action in ACTIONS), np.eye(len(ACTIONS)))
    with pytest.raises(DoesNotFit, match=r"banner is not used as context.*--column context=banner"):
        evaluate(log, [table], breakdown=False)


def test_inspect_and_evaluate_tell_of_a_leak(tmp_path: Path) -> None:
    """As a user meets it: a file with the click and what came of it."""
    made = world(1)
    rng = np.random.default_rng(5)
    bought = made.columns.reward * (rng.random(len(made.columns)) < 0.8)
    segment = made.columns.fields["segment"]
    assert isinstance(segment, Category)
    rows = zip(made.columns.action, made.columns.propensity, segment.codes, made.columns.reward, bought, strict=True)
    file = tmp_path / "log.csv"
    lines = [f"{ACTIONS[a]},{p:.6g},{SEGMENTS[s]},{int(r)},{int(b)}" for a, p, s, r, b in rows]
    file.write_text("\n".join(["action,propensity,segment,click,conversion", *lines]))
    found = CliRunner().invoke(main, ["inspect", str(file)])
    assert found.exit_code == 0
    assert "conversion" in found.output.split("columns left out")[1][:400]


def two_actions(
    better: np.ndarray[tuple[int], np.dtype[np.float64]], fields: dict[str, Field], *, seed: int, with_pmf: bool
) -> Columns:
    """`b` is drawn with probability `better`, and logged with 1/2; where it is drawn more often it does better."""
    rng, rows = np.random.default_rng(seed), len(better)
    action = (rng.random(rows) < better).astype(np.int32)
    means = np.where(better > 0.5, np.where(action == 1, 0.6, 0.4), np.where(action == 1, 0.2, 0.3))
    time = (1_700_000_000 + 60 * np.arange(rows)) * 1_000_000
    return Columns(
        name="log",
        actions=("a", "b"),
        action=action,
        propensity=np.full(rows, 0.5),
        reward=(rng.random(rows) < means).astype(np.float64),
        reward_range=(0.0, 1.0),
        time=time,
        known=time,
        unit=np.arange(rows),
        fields=fields,
        sets=((0, 1),),
        eligible=np.zeros(rows, np.int32),
        pmf=np.full(2 * rows, 0.5, np.float32) if with_pmf else None,
    )


def category(codes: np.ndarray[tuple[int], np.dtype[np.int64]], name: str) -> Category:
    """Texts like page-a, page-b."""
    return Category(codes.astype(np.int32), tuple(f"{name}-{chr(97 + number)}" for number in range(codes.max() + 1)))


@pytest.mark.parametrize("with_pmf", [True, False])
def test_many_small_deviations_are_one_large_one(with_pmf: bool) -> None:
    """Draws that depend a little on each of 20 pages: no page stands out, and every estimate is wrong."""
    page = np.random.default_rng(1).integers(0, 20, 2_000)
    better = np.where(page % 2 == 0, 0.65, 0.35)
    for field in (category(page, "page"), Number(page.astype(np.float64))):
        log = set_leaks_aside(two_actions(better, {"page": field}, seed=2, with_pmf=with_pmf))
        assert log.set_aside == {}
        assert verdict_of(log_findings(log), BALANCE) == "do not use"


@pytest.mark.parametrize("with_pmf", [True, False])
def test_two_fields_together_and_the_time_are_looked_at(with_pmf: bool) -> None:
    """Draws that depend on two fields together, or on the day, are balanced in each field."""
    rng = np.random.default_rng(1)
    one, other = rng.integers(0, 2, (2, 2_000))
    fields: dict[str, Field] = {"tier": category(one, "tier"), "theme": category(other, "theme")}
    for depends in (one != other, np.arange(2_000) < 1_000):
        log = set_leaks_aside(two_actions(np.where(depends, 0.8, 0.2), fields, seed=2, with_pmf=with_pmf))
        assert log.set_aside == {}
        assert verdict_of(log_findings(log), BALANCE) == "do not use"


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_an_action_that_was_not_eligible_for_some_accuses_nobody(share: float) -> None:
    """Without eligible sets and pmfs the log does not say it; the propensities are right all the same."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        vip = rng.random(4_000) < share
        log = two_actions(
            np.full(4_000, 0.5), {"tier": category(vip.astype(np.int64), "tier")}, seed=seed, with_pmf=False
        )
        action = np.where(vip, rng.integers(0, 2, 4_000), rng.integers(0, 3, 4_000)).astype(np.int32)
        reward = (rng.random(4_000) < np.where(vip, 0.5, 0.2) + 0.1 * (action == 1)).astype(np.float64)
        propensity = np.where(vip, 1 / 2, 1 / 3)
        log = replace(
            log, actions=("a", "b", "c"), sets=((0, 1, 2),), action=action, reward=reward, propensity=propensity
        )
        assert set_leaks_aside(log).set_aside == {}
        assert verdict_of(log_findings(log), BALANCE) == "fine"


def test_a_log_without_randomisation_is_read_to_the_end() -> None:
    """All propensities 1: nothing can be balanced, and nothing may break."""
    log = world(1, with_pmf=False).columns
    certain = replace(log, propensity=np.ones(len(log)))
    assert set_leaks_aside(certain).set_aside == {}
    assert log_findings(certain)


def test_a_long_log_with_a_period_is_no_alarm() -> None:
    """Slots of a page in turn: every k-th decision would be one slot's."""
    rows = 300_000
    log = two_actions(np.full(rows, 0.5), {"tier": category(np.arange(rows) % 7, "tier")}, seed=1, with_pmf=False)
    turn = replace(log, action=(np.arange(rows) % 2).astype(np.int32))
    assert verdict_of(log_findings(set_leaks_aside(turn)), BALANCE) == "fine"


UNIT_BY_SHAPE = {"visitor": "looks like an id: 60 different values in 600 rows; intervals take it for the unit"}


@pytest.mark.parametrize(
    ("more", "verdict"),
    [({}, "fine"), (UNIT_BY_SHAPE, "caution"), ({"price": "it is a copy of the propensity"}, "caution")],
)
def test_an_id_that_is_left_out_costs_nothing(more: dict[str, str], verdict: str) -> None:
    """Nearly every table has an `order_id`: there is nothing to do, unless a unit was made of it or a column leaks."""
    ids = {"order_id": "looks like an id: 600 different values in 600 rows", "n": "counts the rows: 600 numbers"}
    columns = replace(logged_world(seed=1).columns, set_aside={**ids, **more})
    (found,) = [one for one in log_findings(columns) if one.name == "columns left out"]
    assert found.verdict == verdict
    assert bool(found.needed) == bool(more)
    assert "order_id" in found.text


def test_a_table_with_an_order_id_needs_nothing_done(tmp_path: Path) -> None:
    """As a user meets it; the same ids as a visitor's, who comes ten times, are the unit."""
    made, verdicts = world(2).columns, {}
    for name, rows_of_one in {"order_id": 1, "trace": 10}.items():
        file = tmp_path / f"{name}.csv"
        rows = zip(made.action, made.propensity, made.reward, strict=True)
        lines = [f"{ACTIONS[a]},{p:.6g},{int(r)},k{n // rows_of_one}" for n, (a, p, r) in enumerate(rows)]
        file.write_text("\n".join([f"action,propensity,click,{name}", *lines]))
        found = log_findings(open_log(str(file), ReadOptions()))
        verdicts[name] = next(one.verdict for one in found if one.name == "columns left out")
    assert verdicts == {"order_id": "fine", "trace": "caution"}
