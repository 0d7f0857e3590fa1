"""A final reward lets the model learn at once, and no figure: whoever is rewarded must not be compared alone.

In an open window only decisions with a final reward are sealed. Means over these are means of buyers, in both groups;
a policy that makes more people buy, for less each, would look worse than the holdout and be switched off for it.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from decider.decide.decide import decide
from decider.experiment.definition import RewardDefinition
from decider.experiment.guardrails import Guardrail
from decider.learn.archive import archive
from decider.learn.guardrails import judge
from decider.learn.versions import Versions
from decider.log.log_totals import LogTotals
from decider.log.open import open_log, open_to_cut
from decider.log.protocol import EventLog, Mark, NewReward, Tick
from decider.log.sqlite.checkpoints import BY_SEAL, _checksum, stored_checkpoints
from decider.log.totals import LabelTotals
from decider.metrics.lift import lifts
from decider.policy.make import make_policy
from decider.policy.protocol import Model
from decider.types import START, Context, DecisionId, DecisionRequest, Reason, Time
from simulator.commands.group import main as simulator
from simulator.logs.decider_log import load
from tests.conftest import SECOND, Clock
from tests.lift_logs import shop
from tests.long_logs import PastClock
from tests.test_final import WHOLE, WINDOW, final
from tests.test_reward_changes import apply
from tests.test_reward_changes import decide as decide_one

WEEK = 7 * 86_400.0

HOURS, VISITS = 16, 250
"""Commits, one an hour, and decisions of each."""

OVER = {"open": 0, "half": 9 * VISITS, "over": HOURS * VISITS}
"""Decisions whose window is over: that of the ninth hour ends just then."""

SOLD = {False: (0.3, 64.0), True: (0.1, 80.0)}
"""How many buy, and for how much: of the policy's units and of the holdout's."""


@pytest.mark.parametrize("step", [1, 3, 100])
def test_a_decision_counts_when_its_declared_window_is_over(log: EventLog, clock: Clock, step: int) -> None:
    """However often it is counted in between, the sums are those of counting once, on every log."""
    version = apply(log, WHOLE)
    made: list[int] = []
    totals = LogTotals(log)
    for number in range(30):
        made.append(clock.now)
        at = decide_one(log, version, f"d{number}")
        clock.advance(1)
        if number % 3 == 0:
            log.append([final(at)])
        log.append([Tick()])
        if number % step == 0:
            totals.catch_up()
            over = [time for time in made if time + WINDOW <= log.head().time]
            assert sum(totals.totals.sealed.values()) == len(over)
            assert sum(totals.totals.defaulted.values()) == sum(made.index(time) % 3 > 0 for time in over)
            assert sum(totals.totals.open_decisions().values()) == len(made) - len(over)
    totals.catch_up()
    assert totals.totals == counted(log)


def counted(log: EventLog) -> LabelTotals:
    """From the beginning."""
    totals, mark = LabelTotals(), log.head().mark
    found = log.totals(Mark(START, Time(0)), mark)
    totals.add(found, log.experiment_ids(found.versions()))
    return totals


def sell(log: EventLog, clock: PastClock) -> None:
    """A shop with a window of a week, which says at once when somebody has bought."""
    experiment = replace(
        shop(holdout=0.2),
        reward=RewardDefinition(window=int(WEEK * SECOND), minimum=0.0, maximum=200.0, weights={"purchase": 1.0}),
        guardrails=(Guardrail("purchase", at_least=-1.0, falls_back=True),),
    )
    Versions(log).apply(experiment)
    version, rng = log.versions()[-1], np.random.default_rng(1)
    model = Model(make_policy(version.experiment.policy))
    for hour in range(HOURS):
        requests = [DecisionRequest(DecisionId(f"{hour}-{n}"), f"u{hour}-{n}", Context()) for n in range(VISITS)]
        decisions = [decide(request, version, model) for request in requests]
        sent = []
        for decision, mark in zip(decisions, log.append(decisions), strict=True):
            assert mark is not None
            share, value = SOLD[decision.reason is Reason.HOLDOUT]
            if rng.random() < share:
                sent.append(NewReward(mark.position, "purchase", value + rng.normal() * 10.0, 1.0, final=True))
        log.append(sent)
        clock.advance(3600.0)
    log.append([Tick()])


@pytest.fixture(scope="module")
def sold(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The log when all windows are open, when half are over, and when all are."""
    folder = tmp_path_factory.mktemp("sold")
    clock = PastClock(30 * 86_400.0)
    found = {name: folder / f"{name}.db" for name in ("open", "half", "over")}
    with closing(open_log(found["open"], clock=clock)) as log:
        sell(log, clock)
    for before, after in itertools.pairwise(found.values()):
        with closing(sqlite3.connect(before)) as one, closing(sqlite3.connect(after)) as other:
            one.backup(other)
        clock.advance(WEEK - HOURS * 3600 / 2)
        with closing(open_log(after, clock=clock)) as log:
            log.append([Tick()])
    return found


def totals_of(db: Path) -> LabelTotals:
    with closing(open_log(db)) as log:
        totals = LogTotals(log)
        totals.catch_up()
        judged = judge(log.versions()[-1].experiment, totals.totals.lift.get("shop", {}), since=START)
        assert not judged[0].crossed, "who buys spends less, and more of them buy"
        return totals.totals


def test_buyers_are_not_compared_with_buyers(sold: Mapping[str, Path]) -> None:
    """The policy earns 11 more a decision. Lift, page and guardrail said it earns 18 less, and were sure of it."""
    totals = totals_of(sold["open"])
    assert not totals.sealed
    assert not totals.sealed_reward
    assert not totals.rewarded
    assert not any(found.is_known for found in lifts(totals.lift.get("shop", {})).values())
    assert not totals.exploration
    assert not any(day.earned for day in totals.daily["shop"].values())


@pytest.mark.parametrize("name", ["half", "over"])
def test_what_is_over_says_the_truth(sold: Mapping[str, Path], name: str) -> None:
    """The figures that come first are those that stay."""
    totals = totals_of(sold[name])
    found = lifts(totals.lift["shop"])["(learned)"]
    assert sum(found.decisions) == OVER[name]
    assert found.interval.low <= 0.3 * 64.0 - 0.1 * 80.0 <= found.interval.high
    assert found.answer == "yes"
    (draws,) = totals.exploration["shop"].values()
    assert sum(draws.decisions) == found.decisions[0]
    assert (
        sum(day.earned["policy"].decisions for day in totals.daily["shop"].values() if day.earned) == found.decisions[0]
    )


def rows(db: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(db)) as log:
        return log.execute(sql).fetchall()


def test_the_views_of_summaries_wait_as_well(sold: Mapping[str, Path]) -> None:
    """They are what people copy their own figures from."""
    for view in ("holdout_summary", "action_summary"):
        assert rows(sold["open"], f"select * from {view}") == []  # noqa: S608 - our names
    ((made,),) = rows(sold["half"], "select sum(decisions) from holdout_summary")
    ((sealed,),) = rows(sold["half"], "select sum(sealed) from action_summary")
    assert (made, sealed) == (OVER["half"],) * 2
    for name in ("half", "over"):
        for group, mean in rows(sold[name], 'select "group", mean_reward from holdout_summary'):
            assert mean == pytest.approx({"policy": 19.2, "holdout": 8.0}[str(group)], rel=0.25)
        early = "select count(*) from sealed_decisions where window_end > (select time from head)"
        assert (rows(sold[name], early) != [(0,)]) == (name == "half")


def test_the_simulator_waits_as_well(sold: Mapping[str, Path]) -> None:
    """Server and simulator have the same figures; an evaluation of buyers alone would be as wrong."""
    made = {name: load(db) for name, db in sold.items()}
    for name, columns in made.items():
        assert columns.left_out["window open"] == OVER["over"] - OVER[name]
    assert len(made["open"]) == 0
    assert 0 < len(made["half"]) < len(made["over"])
    answer = CliRunner().invoke(simulator, ["lift", str(sold["open"])])
    assert "less" not in answer.output
    assert "yes" in CliRunner().invoke(simulator, ["lift", str(sold["over"])]).output


def test_totals_that_counted_early_are_counted_anew(sold: Mapping[str, Path], tmp_path: Path) -> None:
    """A server that is upgraded must not go on from sums of buyers; nor may `check` call them damage."""
    db = tmp_path / "log.db"
    with closing(sqlite3.connect(sold["over"])) as one, closing(sqlite3.connect(db)) as other:
        one.backup(other)
    with closing(open_log(db)) as log:
        totals = LogTotals(log)
        totals.catch_up()
        whole = totals.totals
        log.store_totals(totals.checkpoint())
    with closing(sqlite3.connect(db)) as other:
        (stored, *_) = stored_checkpoints(other)
        row = (*stored.row[:3], BY_SEAL, 0, LabelTotals().to_json())
        other.execute(
            "update totals_checkpoints set format = ?, content = ?, checksum = ?", (*row[3::2], _checksum(*row))
        )
        other.commit()
    with closing(open_log(db)) as log:
        assert LogTotals(log).mark.position == START
        assert log.check(lambda _: None) == []
        assert totals_of(db) == whole


def test_archived_decisions_stay_counted_once(sold: Mapping[str, Path], tmp_path: Path) -> None:
    """Only decisions whose declared window is over are archived: a seal alone does not make one old."""
    db = tmp_path / "log.db"
    with closing(sqlite3.connect(sold["half"])) as one, closing(sqlite3.connect(db)) as other:
        one.backup(other)
    before = totals_of(db)
    with closing(open_to_cut(db)) as log:
        assert archive(log, tmp_path / "archive", before=log.head().time, remember=0, say=lambda _: None) is not None
    assert rows(db, "select count(*) from decisions") != [(OVER["over"],)]
    assert totals_of(db) == before
