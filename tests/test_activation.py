"""What counts where an experiment asks for activations, and what becomes of overrides: everywhere the same."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest

from decider.decide.decide import decide
from decider.errors import InvalidExperiment
from decider.experiment.aggregate import final_reward
from decider.experiment.definition import ExperimentVersion
from decider.experiment.limits import Cap, Counts
from decider.experiment.schema import definition_text, from_message, parse_toml, to_message
from decider.learn.archive import archive
from decider.learn.trainer import Trainer
from decider.log.archive import sealed as parts
from decider.log.log_totals import LogTotals
from decider.log.open import open_log, open_reader, open_to_cut
from decider.log.protocol import (
    EarlyActivation,
    EventLog,
    LogReader,
    NewActivation,
    NewReward,
    NewVersion,
    SealedDecision,
    Tick,
    UnitDecision,
)
from decider.log.totals import POLICY
from decider.policy.algorithms import ALGORITHMS
from decider.policy.make import make_policy
from decider.types import ActionId, Context, DecisionId, Time
from simulator.logs.decider_log import load
from simulator.verify import verify
from tests.conftest import LEARNING, SECOND, Clock, sample_experiment, sample_version, spec
from tests.rpc_clients import InProcessClient, experiment, rows
from tests.test_verify import HOME, Drive
from tests.two_writers import decision

NONE = ActionId("none")
REQUIRED = {"needs_activation": True}


class Shop(Drive):
    """Visitors of whom some are shown what was drawn, some something else, some nothing, and some too late."""

    def shop(self, count: int) -> None:
        """So many of them; each earns something."""
        source = self.random
        for _ in range(count):
            request = self.request()._replace(eligible=(), excluded=())
            early = source.random() < 0.2
            if early:
                self.log.append([EarlyActivation(request.decision_id, source.choice([None, NONE, ActionId("sale")]))])
            made = decide(request, *self.current[HOME])
            (mark,) = self.log.append([made])
            assert mark is not None
            if not early and source.random() < 0.6:
                self.clock.advance(source.choice([0, 1, 12]))  # the window is 10 s
                shown = source.choice([None, None, NONE])
                self.log.append([NewActivation(mark.position, None if shown == made.action else shown)])
            self.log.append([NewReward(mark.position, "click", source.choice([0.0, 0.5, 1.0]))])
            self.clock.advance(source.choice([0, 0.5, 1, 3]))
            if source.random() < 0.3:
                self.step()

    def end(self) -> list[SealedDecision]:
        """Everything is sealed and learned."""
        self.clock.advance(100)
        self.log.append([Tick()])
        self.step()
        return sealed(self.log)


def sealed(log: LogReader) -> list[SealedDecision]:
    """All of an experiment."""
    return list(log.sealed_decisions(HOME, after=Time(0), until=log.head().time))


def shop(log: EventLog, clock: Clock, **changes: Any) -> Shop:
    """One with a version, and visitors."""
    made = Shop(log, clock)
    made.apply(sample_experiment(**changes))
    made.shop(60)
    return made


def pmfs(log: LogReader, version: ExperimentVersion) -> list[tuple[float, ...]]:
    """What a version's policy says once it has learned the log."""
    trainer = Trainer(log, HOME, version.experiment.policy)
    trainer.learn_up_to(log.head().mark)
    return _pmfs(trainer.model().policy, version)


def _pmfs(policy: Any, version: ExperimentVersion) -> list[tuple[float, ...]]:
    choices = version.choices_of(version.all_active, {})
    return [tuple(policy.pmf(Context(segment=segment), choices)) for segment in ("new", "vip", "bargain")]


def taught(version: ExperimentVersion, lessons: list[tuple[SealedDecision, ActionId]]) -> list[tuple[float, ...]]:
    """What a policy says that was taught these decisions, each as this action."""
    policy = make_policy(version.experiment.policy)
    for one, action in lessons:
        made = one.decision
        choices = version.choices_of((action,), made.action_features)
        policy.learn(
            made.context, choices, drawn=0, propensity=made.propensity,
            reward=final_reward(version.experiment.reward, one.rewards),
        )  # fmt: skip
    return _pmfs(policy.snapshot(), version)


def test_only_what_was_activated_in_time_is_learned(log: EventLog, clock: Clock) -> None:
    """A page that was decided and never rendered did not fail."""
    made = shop(log, clock, **REQUIRED)
    found, (version,) = made.end(), log.versions()
    kinds = {(one.activated, one.overridden) for one in found}
    assert kinds == {(True, False), (True, True), (False, False)}
    seen = [(one, one.decision.action) for one in found if one.activated and not one.overridden]
    assert 5 < len(seen) < len(found) - 5
    assert pmfs(log, version) == taught(version, seen)
    assert pmfs(log, version) != taught(version, [(one, one.decision.action) for one in found])
    assert verify(log).equal == verify(log).decisions == 60


def test_an_override_is_learned_as_what_was_shown_where_that_is_declared(log: EventLog, clock: Clock) -> None:
    """What a visitor saw has earned its reward; but how probable that was nobody knows."""
    made = shop(log, clock, **REQUIRED, learns_overrides=True)
    found, (version,) = made.end(), log.versions()
    assert sum(one.overridden for one in found) > 3
    shown = [(one, one.shown or one.decision.action) for one in found if one.activated]
    assert pmfs(log, version) == taught(version, shown)
    assert pmfs(log, version) != taught(version, [one for one in shown if not one[0].overridden])
    assert verify(log).equal == verify(log).decisions == 60


def test_an_override_by_an_unknown_action_is_not_learned(log: EventLog, clock: Clock) -> None:
    """A fallback of the page's own is no action of the experiment: there is nothing to learn about it."""
    made = Shop(log, clock)
    made.apply(sample_experiment(learns_overrides=True))
    (version,) = log.versions()
    log.append([EarlyActivation(decision(version, "a").decision_id, ActionId("of the page"))])
    log.append([decision(version, "a")])
    (one,) = made.end()
    assert (one.overridden, one.shown) == (True, "of the page")
    assert pmfs(log, version) == taught(version, [])


def test_an_unknown_action_that_came_before_its_decision_is_an_override(log: EventLog, clock: Clock) -> None:
    """Before the decision nobody can tell which actions there are. The page has shown something else, so the drawn
    action is not learned from, uses up no cap and no budget, and the override is counted."""
    made = sample_experiment(holdout=0.0, caps=(Cap(1, 600 * SECOND, action=ActionId("sale")),))
    sale = replace(made.actions[0], daily_budget=1)
    log.append([NewVersion(replace(made, actions=(sale, *made.actions[1:])), 1)])
    version = log.versions()[-1]
    log.append([EarlyActivation(DecisionId("d"), ActionId("not-one-of-ours"))])
    (mark,) = log.append([UnitDecision(decision(version, "d", "unit", action=ActionId("sale")))])
    assert mark is not None
    assert log.limit_counts(version, "unit", at=clock()) == Counts((0,), (0,))
    clock.advance(60)
    log.append([Tick()])
    (sealed,) = log.sealed_decisions(HOME, after=Time(0), until=log.head().time)
    assert (sealed.activated, sealed.overridden, sealed.shown) == (True, True, "not-one-of-ours")
    assert log.count_learned(HOME) == 0
    counted = LogTotals(log)
    counted.catch_up()
    assert counted.totals.overridden[HOME, "policy"] == 1


def test_a_policy_that_uses_propensities_does_not_learn_overrides_of_earlier_versions(
    log: EventLog, clock: Clock
) -> None:
    """It learns the log of the version before: there overrides were declared for another policy."""
    made = shop(log, clock, learns_overrides=True)
    found = made.end()
    made.apply(sample_experiment(policy=spec("squarecb")))
    version = log.versions()[-1]
    as_drawn = [(one, one.decision.action) for one in found if not one.overridden]
    trainer = Trainer(log, HOME, version.experiment.policy)
    assert trainer.learn_up_to(log.head().mark) == len(as_drawn) < len(found)


def test_totals_leave_out_what_was_not_activated_and_count_it(log: EventLog, clock: Clock) -> None:
    """A sealed reward of 0 that nobody could earn would be a loss in every dashboard."""
    made = shop(log, clock, **REQUIRED)
    made.end()
    made.apply(sample_experiment())
    made.shop(30)
    found = made.end()
    totals = LogTotals(log)
    totals.catch_up()
    counted, key = totals.totals, (HOME, POLICY)
    needed = log.versions()[0].position
    seen = [one for one in found if one.activated or one.decision.version != needed]
    assert counted.not_activated[key] == len(found) - len(seen) > 5
    assert counted.sealed[key] == len(seen)
    assert counted.activated[key] == sum(one.activated for one in seen) < len(seen)
    assert counted.overridden[key] == sum(one.overridden for one in seen) > 0
    definition = log.versions()[0].experiment.reward
    assert float(counted.sealed_reward[key]) == pytest.approx(
        sum(final_reward(definition, one.rewards) for one in seen)
    )
    again = type(counted).from_json(counted.to_json())
    assert again == counted


def test_arrow_says_what_was_activated(log: EventLog, clock: Clock) -> None:
    """The simulator reads whole logs by it."""
    made = shop(log, clock, **REQUIRED)
    found = {one.position: one.activated for one in made.end()}
    batches = [batch.to_pylist() for batch in log.arrow(HOME, log.head()).decisions]
    assert {row["position"]: bool(row["activated"]) for batch in batches for row in batch} == found


def test_views_for_people_agree_with_the_learner(tmp_path: Path, clock: Clock) -> None:
    """Whoever reads the log with SQL must not count what nobody saw."""
    path = tmp_path / "log.db"
    with closing(open_log(path, clock=clock)) as log:
        found = shop(log, clock, **REQUIRED).end()
    sql = "select position, activated, overridden, shown, left_out from sealed_decisions order by position"
    assert rows(path, sql) == sorted(
        (one.position, one.activated, one.overridden, one.shown, not one.activated) for one in found
    )
    counted = {one.position for one in found if one.activated and not one.overridden}
    assert rows(path, "select sum(sealed) from action_summary") == [(len(counted),)]
    plan = rows(path, "explain query plan select left_out from decision_windows")
    assert any("versions_that_need_activation" in str(row) for row in plan), "no definition is read per decision"


def test_evaluation_leaves_out_what_was_not_activated_and_says_how_many(tmp_path: Path, clock: Clock) -> None:
    """As the learner does; versions that count otherwise are not pooled."""
    path = tmp_path / "log.db"
    with closing(open_log(path, clock=clock)) as log:
        made = shop(log, clock)
        made.apply(sample_experiment(**REQUIRED))
        made.shop(40)
        found = [one for one in made.end() if one.decision.version == log.versions()[-1].position]
    columns = load(path)
    assert columns.left_out["not activated"] == sum(not one.activated for one in found) > 5
    assert columns.left_out["overridden"] == sum(one.overridden for one in found) > 0
    assert columns.left_out["in versions with another reward, holdout or activation"] == 60
    assert len(columns) == sum(one.activated and not one.overridden for one in found)


@pytest.mark.parametrize("changes", [REQUIRED, {**REQUIRED, "learns_overrides": True}, {"learns_overrides": True}])
def test_what_is_archived_is_learned_as_before(tmp_path: Path, clock: Clock, changes: dict[str, Any]) -> None:
    """Trainers begin anew after a release: they read rows that the log has kept, or parts of the archive."""
    path = tmp_path / "log.db"
    with closing(open_log(path, clock=clock)) as log:
        made = shop(log, clock, **changes)
        known = made.end()
        expected = pmfs(log, log.versions()[0])
        made.shop(10)
        later = made.end()
        with closing(open_to_cut(path)) as cutting:
            before = Time(log.head().time - 100 * SECOND)
            part = archive(cutting, tmp_path / "archive", before=before, remember=0, say=lambda _: None)
        assert part is not None
        assert part.plan.decisions > 50
        version = log.versions()[0]
        trainer = Trainer(log, HOME, version.experiment.policy)
        trainer.begin_with_nothing()
        trainer.learn_up_to(log.head().mark)
        with closing(open_reader(path, archive=[tmp_path / "archive"])) as whole:
            assert sealed(whole) == later
            assert pmfs(whole, version) == _pmfs(trainer.model().policy, version) != expected
            assert verify(whole).equal == verify(whole).decisions == 70
            assert whole.check(lambda _: None) == []
        assert len(known) == 60
        assert log.check(lambda _: None) == []
        assert verify(log).first is None


def test_a_part_from_before_says_that_nothing_was_activated(log: EventLog, clock: Clock) -> None:
    """Its columns were not known then, and no experiment could ask for them."""
    made = Shop(log, clock)
    made.apply(sample_experiment())
    (version,) = log.versions()
    row = {
        "position": 2, "time": 1, "version": version.position, "decision_id": "a", "unit_id": "u", "pmf": "[1000000]",
        "eligible": '["sale"]', "action": "sale", "propensity": 1.0, "reason": "EXPLOIT", "model": 0, "deadline": 9,
        "overridden": True, "rewards_in_time": [1.0],
    }  # fmt: skip
    names = [name for name in parts._NAMES if name not in ("activated", "shown")]
    batch = pa.RecordBatch.from_pylist([{name: row.get(name) for name in names}])
    ((_, one),) = parts._decisions(batch, {version.position: version})
    assert (one.overridden, one.activated, one.shown) == (True, False, None)


def test_a_log_with_archived_decisions_from_before_is_upgraded(tmp_path: Path, clock: Clock) -> None:
    """Its kept rows have no column for activations yet, and their checksum does not cover any."""
    path = tmp_path / "log.db"
    with closing(open_log(path, clock=clock)) as log:
        made = shop(log, clock)
        made.end()
        with closing(open_to_cut(path)) as cutting:
            assert archive(cutting, tmp_path / "archive", before=log.head().time, remember=10**12, say=lambda _: None)
        assert rows(path, "select count(*) > 5 from archived_decisions") == [(1,)]
    with closing(sqlite3.connect(path)) as tool:
        for (view,) in tool.execute("select name from sqlite_master where type = 'view'").fetchall():
            tool.execute(f"drop view {view}")
        tool.execute("drop index versions_that_need_activation")
        tool.execute("drop trigger activated_before")
        for table in ("early_activations", "reward_changes", "assignments"):
            tool.execute(f"drop table {table}")
        tool.execute("alter table archived_decisions drop column activated")
        tool.execute("alter table archived_decisions drop column shown")
        tool.execute("delete from _sqlite_migrations where name = 'know_activations'")
        tool.execute("create view sealed_decisions as select 1 as old")
        tool.commit()
    with closing(open_reader(path)) as copy:
        assert copy.check(lambda _: None) == []
    with closing(open_log(path, clock=clock)) as log:
        assert log.check(lambda _: None) == []
        assert verify(log).first is None


def test_definitions_of_before_stay_as_they_are() -> None:
    """Their text is in the log and under its checksum."""
    text = definition_text(sample_experiment())
    assert "activation" not in text
    assert "override" not in text


@pytest.mark.parametrize("changes", [REQUIRED, {"learns_overrides": True}, {**REQUIRED, "learns_overrides": True}])
def test_what_is_declared_is_read_as_it_was_written(changes: dict[str, Any]) -> None:
    """By the message, in the log and in a file."""
    declared = sample_experiment(**changes)
    assert from_message(to_message(declared)) == declared
    words = {"needs_activation": 'activation = "required"', "learns_overrides": 'override = "learn"'}
    text = "\n".join(['id = "home"', *(words[name] for name in changes), '[[actions]]\nid = "sale"'])
    read = from_message(parse_toml(text, "home.toml"))
    assert {name: getattr(read, name) for name in words} == {name: name in changes for name in words}


@pytest.mark.parametrize(
    ("name", "allowed"), [("thompson", True), ("squarecb", False), ("bag", False), ("uniform", True)]
)
def test_overrides_are_learned_only_where_that_is_sound(name: str, allowed: bool) -> None:
    """A policy that weighs by propensities would need the one of the shown action, which nobody knows."""
    message = to_message(sample_experiment(policy=spec(name), learns_overrides=True))
    if allowed:
        assert from_message(message).learns_overrides
        return
    with pytest.raises(InvalidExperiment, match=f"override: {name} learns with the propensity") as refused:
        from_message(message)
    assert [violation.field for violation in refused.value.violations] == ["override"]


TRUTH = {"sale": 0.6, "outfit": 0.4}
RENDERED = {"sale": 0.4, "outfit": 1.0}
"""The better action is heavy: often the visitor has left before it is there."""


@pytest.mark.parametrize("required", [True, False])
def test_what_is_seldom_rendered_is_judged_by_those_who_saw_it(tmp_path: Path, clock: Clock, *, required: bool) -> None:
    """Against the truth: without activations the better action looks worse, and would be given up."""
    path, random = tmp_path / "log.db", Random(7)
    with closing(open_log(path, clock=clock)) as log:
        log.append([NewVersion(sample_experiment(needs_activation=required), 1)])
        (version,) = log.versions()
        for number in range(15):
            made = [decision(version, f"{number}-{i}", action=ActionId(random.choice([*TRUTH]))) for i in range(100)]
            marks = log.append(made)
            for one, mark in zip(made, marks, strict=True):
                assert mark is not None
                if random.random() < RENDERED[one.action]:
                    reward = NewReward(mark.position, "click", float(random.random() < TRUTH[one.action]))
                    log.append([NewActivation(mark.position), reward])
        clock.advance(60)
        log.append([Tick()])
        sale, outfit, _ = pmfs(log, version)[1]
    means = dict(rows(path, "select action, confounded_mean_reward from action_summary"))
    columns = load(path)
    evaluated = {action: float(columns.reward[columns.action == code].mean())
                 for code, action in enumerate(columns.actions) if action in TRUTH}  # fmt: skip
    assert evaluated == pytest.approx(means)
    if required:
        assert means == pytest.approx(TRUTH, abs=4 * 0.5 / 300**0.5)
        assert sale > 10 * outfit
    else:
        assert means["sale"] < means["outfit"] - 0.05
        assert outfit > 10 * sale


@pytest.mark.parametrize("name", [name for name in LEARNING if not ALGORITHMS[name].uses_propensity])
def test_an_algorithm_that_says_so_uses_no_propensity(name: str) -> None:
    """Else what is learned of an override would depend on a number that means nothing there."""
    version = sample_version(policy=spec(name))
    learned = []
    for propensity in (1.0, 1e-6):
        policy = make_policy(version.experiment.policy)
        for reward in (1.0, 0.0, 1.0):
            policy.learn(Context("vip"), version.all_choices, drawn=1, propensity=propensity, reward=reward)
        learned.append(_pmfs(policy.snapshot(), version))
    assert learned[0] == learned[1]


def test_metrics_show_what_was_left_out_and_the_rate_of_overrides(tmp_path: Path) -> None:
    """By experiment, from a server."""
    client = InProcessClient(tmp_path / "log.db")
    try:
        client.apply(experiment("home", window=2.0, activation="ACTIVATION_REQUIRED"))
        for id_ in ("shown", "overridden", "never"):
            client.decide("home", decision_id=id_, eligible_actions=["a"])
        assert [client.activation("shown"), client.activation("overridden", "b")] == ["activated", "overridden"]
        client.until(lambda: len(client.rows("select 1 from sealed_decisions")) == 3, what="all are sealed")
        text = client.fetch("/metrics")[1]
        found = {
            name: float(value)
            for name, value in re.findall(
                r'^decider_(\w+)\{experiment="home"(?:,group="policy")?\} (\S+)$', text, re.MULTILINE
            )
        }
        names = ("sealed_total", "sealed_activated_total", "sealed_overridden_total", "sealed_not_activated_total")
        assert {name: found[name] for name in names} == dict(zip(names, (2.0, 2.0, 1.0, 1.0), strict=True))
        assert found["open_decisions"] == 0
    finally:
        client.close()
