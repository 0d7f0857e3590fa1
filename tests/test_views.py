"""The views that growth teams read: as the definitions say, and without a look at every decision of a long log."""

from __future__ import annotations

import math
import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

import decider
from decider.decide.slots import SLOTS
from decider.experiment.definition import Aggregation, RewardDefinition
from decider.learn.archive import archive
from decider.log.open import open_log, open_to_cut
from decider.log.protocol import EventLog, NewActivation, NewReward, NewRewardChange, NewVersion, Tick
from decider.log.sqlite import action_counts
from decider.types import ActionId, ExperimentId, Reason, Time
from tests.conftest import SECOND, Clock, sample_experiment
from tests.rpc_clients import rows
from tests.two_writers import decision

SOME = (Reason.EXPLOIT, Reason.EXPLORE, Reason.HOLDOUT, Reason.ONLY_ELIGIBLE)


def fill(log: EventLog, clock: Clock, random: Random, *, visits: int) -> None:
    """Decisions of every kind of version: late, changed, final and several rewards, overrides, what was never shown,
    and windows that are still open."""
    for number, aggregation in enumerate(Aggregation, 1):
        reward = RewardDefinition(
            window=10 * SECOND, default=0.25 * (number % 2), minimum=-1.0, maximum=3.0, aggregation=aggregation
        )
        made = sample_experiment(
            id=ExperimentId(f"e{number % 2}"), reward=reward, needs_activation=number % 3 == 0, holdout=0.2
        )
        log.append([NewVersion(made, (number + 1) // 2)])
        version = log.versions()[-1]
        for visit in range(visits):
            clock.advance(random.random())
            slots = random.choice([100_000, 300_000, 600_000])
            action = ActionId(random.choice(["sale", "outfit", "none"]))
            one = decision(version, f"{number}-{visit}", f"unit-{random.randrange(8)}", action=action)
            one = one._replace(propensity=slots / SLOTS, reason=random.choice(SOME))
            (mark,) = log.append([one])
            assert mark is not None
            said = random.random()
            if said < 0.5:
                log.append([NewActivation(mark.position, ActionId("none") if said < 0.15 else None)])
            for sent in range(random.choice([0, 0, 1, 2, 3])):
                clock.advance(random.choice([0.1, 0.1, 11]))
                final = random.random() < 0.2
                log.append([NewReward(mark.position, "click", random.uniform(-2, 4), 1.0, f"r{sent}", final=final)])
                if random.random() < 0.3:
                    log.append([NewRewardChange(mark.position, f"r{sent}", random.choice([None, 0.5]), "click")])
    log.append([Tick()])


@pytest.fixture
def eventful(tmp_path: Path, clock: Clock) -> Iterator[tuple[Path, EventLog]]:
    """A log, and its file."""
    path = tmp_path / "log.db"
    with closing(open_log(path, clock=clock)) as log:
        fill(log, clock, Random(3), visits=60)
        yield path, log


def expected(path: Path) -> dict[tuple[str, str], list[float | None]]:
    """The summary, from the definition of sealed decisions."""
    sql = """select experiment, action, reason, propensity, reward, rewards from sealed_decisions
      where not overridden and not left_out"""
    found: dict[tuple[str, str], list[Any]] = defaultdict(list)
    draws: dict[str, int] = defaultdict(int)
    for experiment, action, reason, propensity, reward, rewards in rows(path, sql):
        drawn = reason in ("EXPLOIT", "EXPLORE")
        draws[experiment] += drawn
        found[experiment, action].append((drawn / propensity, propensity, reward, rewards > 0))
    return {key: summary(np.array(value), draws[key[0]], found, key[0]) for key, value in found.items()}


def summary(of: Any, draws: int, found: Any, experiment: str) -> list[float | None]:
    """One row without its names."""
    weights, propensities, rewards, rewarded = of.T
    mean = float(weights @ rewards / draws)
    size = float(weights.sum() ** 2 / (weights**2).sum())
    alpha = 0.05 / sum(key[0] == experiment for key in found)
    rho = (-2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha))) / 1e4
    variance = float((weights * rewards) @ (weights * rewards)) / draws - mean**2
    width = math.sqrt(
        variance * 2 * (draws * rho + 1) / (draws**2 * rho) * math.log(math.sqrt(draws * rho + 1) / alpha)
    )
    earned = weights * rewards
    is_known = size >= 30 and earned.sum() ** 2 >= 50 * (earned @ earned) > 0
    low, high = (mean - width, mean + width) if is_known else (None, None)
    return [len(of), rewarded.sum(), mean, low, high, size, propensities.mean(), rewards.mean()]


def assert_summary(path: Path) -> None:
    """The view is what it says."""
    found = {(row[0], row[1]): list(row[2:]) for row in rows(path, "select * from action_summary")}
    wanted = expected(path)
    assert found.keys() == wanted.keys()
    for key, values in wanted.items():
        for one, other in zip(found[key], values, strict=True):
            assert (one is None) == (other is None), key
            assert one is None or one == pytest.approx(other, rel=1e-4, abs=1e-6), key


def summary_view() -> sqlite3.Connection:
    """The view of views.sql, over sums that a test writes itself."""
    text = (Path(action_counts.__file__).parent / "views.sql").read_text(encoding="utf-8")
    begin = text.index("create view action_summary as")
    connection = sqlite3.connect(":memory:")
    connection.executescript(
        "create table experiments (position, experiment); insert into experiments values (1, 'e');"
        "create table action_sums (version, action, decisions, drawn, propensity, inverse, squared, rewarded, reward,"
        " weighted, weighted_squared);"
    )
    connection.executescript(text[begin : text.index(";", begin) + 1])
    return connection


@pytest.mark.parametrize(("rate", "actions"), [(0.003, 3), (0.02, 6), (0.1, 6)])
def test_the_intervals_of_actions_hold_however_often_one_looks(rate: float, actions: int) -> None:
    """Before an action has earned something often enough, nobody knows how much its rewards vary: an interval of [0, 0]
    was one. 12 looks in each of 100 logs: with 5 % of errors, 12 or more are seen in 1 of 200 runs."""
    source, wrong, known = np.random.default_rng(7), 0, 0
    with closing(summary_view()) as view:
        for _ in range(100):
            sums, at = np.zeros((actions, 2)), 0
            missed = False
            for until in np.geomspace(200, 60_000, 12).astype(int).tolist():
                drawn = source.multinomial(until - at, np.full(actions, 1 / actions))
                sums += np.stack([drawn, source.binomial(drawn, rate)], axis=1)
                at = until
                found = intervals(view, sums, actions)
                known += len(found)
                missed |= any(not low <= rate <= high for low, high in found)
            wrong += missed
    assert known > 100
    assert wrong < 12


def intervals(view: sqlite3.Connection, sums: Any, actions: int) -> list[tuple[float, float]]:
    """Of a uniform policy's actions, where there are any. sums: draws, and those that earned 1."""
    view.execute("delete from action_sums")
    for number, (draws, earned) in enumerate(sums.tolist()):
        q = float(actions)
        row = (
            1,
            f"a{number}",
            draws,
            draws,
            draws / q,
            draws * q,
            draws * q * q,
            earned,
            earned,
            earned * q,
            earned * q * q,
        )
        view.execute("insert into action_sums values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    found = view.execute("select low_95_any_time, high_95_any_time from action_summary")
    return [row for row in found if row[0] is not None]


def test_rewarded_decisions_are_those_of_the_definition(eventful: tuple[Path, EventLog]) -> None:
    """They are found another way, for speed: "sealed" must mean the same."""
    path, _ = eventful
    wanted = rows(path, "select position, rewards, reward from sealed_decisions where rewards > 0 order by 1")
    assert rows(path, "select position, rewards, reward from rewarded_decisions where rewards > 0 order by 1") == wanted
    assert len(wanted) > 100


def test_the_summary_of_actions_is_that_of_the_definition(
    eventful: tuple[Path, EventLog], clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nothing counted before, with pieces counted, and after a part of the log was archived."""
    path, log = eventful
    assert_summary(path)
    monkeypatch.setattr(action_counts, "PIECE", 50)
    for _ in range(4):
        log.maintain()
        assert_summary(path)
    assert rows(path, "select position from action_counts_until") == [(1000,)]
    assert log.check(lambda _: None) == []
    with closing(open_to_cut(path)) as cutting:
        archive(cutting, tmp_path / "archive", before=Time(clock() - 100 * SECOND), remember=0, say=lambda _: None)
    assert rows(path, "select count(*) from archives") == [(1,)]
    assert_summary(path)
    assert log.check(lambda _: None) == []


def test_the_holdout_is_summed_by_unit(eventful: tuple[Path, EventLog]) -> None:
    """Visits of one unit are alike: an error by decision would be too small."""
    path, _ = eventful
    sql = """select experiment, experiment_version, case reason when 'HOLDOUT' then 'holdout' else 'policy' end,
      unit_id, count(*), sum(reward) from sealed_decisions where not left_out group by 1, 2, 3, 4"""
    units: dict[tuple[Any, ...], list[Any]] = defaultdict(list)
    for *key, _, count, reward in rows(path, sql):
        units[tuple(key)].append((count, reward))
    found = rows(path, "select * from holdout_summary")
    assert len(found) == len(units) == 2 * len(Aggregation)
    for *key, decisions, count, mean, error in found:
        counts, rewards = np.array(units[tuple(key)]).T
        apart = rewards - rewards.sum() / counts.sum() * counts
        expect = math.sqrt(len(counts) / (len(counts) - 1) * float(apart @ apart)) / counts.sum()
        assert (decisions, count) == (counts.sum(), len(counts))
        assert (mean, error) == (pytest.approx(rewards.sum() / counts.sum()), pytest.approx(expect))


def test_a_long_log_is_summed_without_a_look_at_every_decision(tmp_path: Path, clock: Clock) -> None:
    """Datasette gives a query one second: what was counted once must not be read again."""
    path = tmp_path / "log.db"
    with closing(open_log(path, clock=clock)) as log:
        log.append([NewVersion(sample_experiment(), 1)])
        (version,) = log.versions()
        for first in range(0, 12_000, 1_000):
            log.append([decision(version, f"{first + i:06d}") for i in range(1_000)])
        clock.advance(11)
        log.append([Tick()])
        before = steps_of(path)
        for _ in range(3):
            log.maintain()
        assert_summary(path)
        assert steps_of(path) < before / 4


def steps_of(path: Path) -> int:
    """Hundreds of steps of SQLite's machine that the summary takes."""
    count = 0

    def step() -> None:
        nonlocal count
        count += 1

    with closing(sqlite3.connect(path)) as connection:
        connection.set_progress_handler(step, 100)
        connection.execute("select * from action_summary").fetchall()
    return count


def test_every_view_of_the_text_is_there_and_every_view_is_in_the_text(tmp_path: Path, clock: Clock) -> None:
    """Whoever reads the log by SQL begins with that table."""
    open_log(tmp_path / "log.db", clock=clock).close()
    with closing(sqlite3.connect(tmp_path / "log.db")) as connection:
        views = {name for (name,) in connection.execute("select name from sqlite_master where type = 'view'")}
    text = (Path(decider.__file__).parent / "README.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if re.match(r"\| views? `", line)]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == views
