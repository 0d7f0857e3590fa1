"""Identity: what was served, replayed, is equal; and whatever in a log was changed afterwards is found."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner, Result

from decider.decide.decide import RULES, decide, eligible_actions, in_holdout
from decider.decide.slots import draw, hash_ticket
from decider.errors import FailedPrecondition, UnknownCode
from decider.experiment.definition import Experiment, Learning, RewardDefinition
from decider.experiment.limits import Cap
from decider.learn.versions import Versions
from decider.log.memory import MemoryLog
from decider.log.open import LogUrl, open_log, open_reader
from decider.log.protocol import EventLog, Mark, ModelName, NewActivation, NewReward, UnitDecision
from decider.policy.algorithms import code_versions
from decider.policy.make import make_policy
from decider.policy.protocol import Model
from decider.types import (
    NOTHING_REACHED,
    ActionId,
    Context,
    Decision,
    DecisionId,
    DecisionRequest,
    ExperimentId,
    History,
    Position,
    Reason,
)
from simulator.commands.group import main
from simulator.verify import Verification, verify
from tests.conftest import SECOND, Clock, sample_experiment, spec
from tests.postgres import PostgresServer, administer
from tests.processes import Process

HOME, OTHER = ExperimentId("home"), ExperimentId("other")
SEGMENTS = ("new", "vip", "bargain")


class Drive(Process):
    """Visitors of one log: decisions as the server makes them, rewards, activations, and rounds of the leader."""

    def __init__(self, log: EventLog, clock: Clock, *, seed: int = 1) -> None:
        super().__init__(log, clock)
        self.random = Random(seed)
        self.count = 0

    def request(self) -> DecisionRequest:
        """One of every kind that callers send."""
        source = self.random
        self.count += 1
        return DecisionRequest(
            DecisionId(f"d-{self.count}"),
            f"unit-{source.randrange(40)}",
            Context(
                segment=source.choice(SEGMENTS),
                device=source.choice(["mobile", ""]),
                features={"age": source.uniform(18, 80), "app": source.random() < 0.5, "odd|one": "a:b c"},
            ),
            eligible=source.choice([(), (), (ActionId("none"), ActionId("sale")), (ActionId("outfit"),)]),
            excluded=source.choice([(), (), (), (ActionId("outfit"),)]) if self.count % 7 else (),
            action_features={} if source.random() < 0.7 else {ActionId("sale"): {"discount": source.random()}},
            explore=source.random() < 0.9,
            default=(None, ActionId("none"), ActionId("sale"))[self.count % 3],
        )

    def decide(self, request: DecisionRequest, experiment: ExperimentId) -> tuple[Mark, Decision]:
        """One decision, as the server makes and writes it."""
        version, model, cache = self.current[experiment]
        limits = version.limits
        counts = self.log.limit_counts(version, request.unit_id, at=self.clock()) if limits else None
        reached = limits.reached(counts) if limits and counts else None
        eligible = eligible_actions(version, request, History(reached or NOTHING_REACHED))
        made = decide(request, version, model, cache, eligible=eligible)
        (mark,) = self.log.append([UnitDecision(made, reached=reached, withheld=eligible.withheld)])
        assert mark is not None
        return mark, made

    def visits(self, count: int, experiment: ExperimentId = HOME) -> None:
        """Decisions; some earn, some twice, some are overridden; time passes and the learner steps now and then."""
        source = self.random
        for _ in range(count):
            try:
                mark, made = self.decide(self.request(), experiment)
            except FailedPrecondition:
                continue
            if source.random() < (0.7 if made.action == ("sale" if made.context.segment == "vip" else "none") else 0.2):
                self.log.append([NewReward(mark.position, "click", source.choice([0.5, 1.0]))])
            if source.random() < 0.1:
                self.log.append([NewActivation(mark.position, source.choice([None, ActionId("none")]))])
            self.clock.advance(source.choice([0, 0.5, 1, 3]))
            if source.random() < 0.3:
                self.step()


def eventful(drive: Drive, *, visits: int = 24) -> None:
    """Several versions and experiments, with everything that changes what a replay computes."""
    drive.apply(sample_experiment(holdout=0.1))
    drive.apply(sample_experiment(id=OTHER, policy=spec("softmax")))
    drive.visits(visits)
    drive.visits(visits // 2, OTHER)
    drive.apply(sample_experiment(holdout=0.1, policy=spec("epsilon_greedy")))
    drive.visits(visits)
    drive.set_paused(HOME, paused=True)
    drive.clock.advance(30)
    drive.step()
    drive.set_paused(HOME, paused=False)
    drive.visits(visits // 2)
    drive.restart()
    drive.apply(sample_experiment(reward=RewardDefinition(window=2 * SECOND, default=0.25), learning=Learning.FROZEN))
    drive.visits(visits // 2)
    drive.apply(sample_experiment(reward=RewardDefinition(window=2 * SECOND, default=0.25)))
    drive.visits(visits)
    for learning in (Learning.APPRENTICE, Learning.LOG_ONLY):
        drive.apply(sample_experiment(learning=learning))
        drive.visits(visits // 3)
    for name in ("fixed", "uniform", "cover", "first"):
        drive.apply(sample_experiment(policy=spec(name), holdout=0.05, salt=name))
        drive.visits(visits // 2)
    drive.restart()
    drive.visits(visits // 2)
    drive.apply(limited(sample_experiment(holdout=0.05)))
    drive.visits(2 * visits)


def limited(experiment: Experiment) -> Experiment:
    """With caps, budgets, shares and rules on everything but the baseline action."""
    most = {"sale": 4, "none": 3}
    actions = [replace(one, daily_budget=most.get(one.id)) for one in experiment.actions]
    actions[0] = replace(actions[0], eligible_if="segment != 'new'")
    actions[1] = replace(actions[1], max_share=0.6)
    caps = (Cap(1, 3_600 * SECOND, kind="offer"), Cap(2, 20 * SECOND, action=ActionId("none")))
    return replace(experiment, actions=tuple(actions), caps=caps, time_zone="Europe/Berlin")


def assert_equal(result: Verification, decisions: int) -> None:
    """Everything was recomputed as it was logged."""
    assert result.first is None, result.first and result.first.what
    assert result.equal == result.decisions == decisions


def test_a_replayed_log_gives_the_same_decisions(log: EventLog, clock: Clock) -> None:
    """The promise of the whole project, over everything that can happen to an experiment."""
    drive = Drive(log, clock)
    eventful(drive)
    assert_equal(verify(log), log.count_decisions())
    reasons = {d.decision.reason for v in log.versions() for d in log.decisions(v.position)}
    assert reasons == set(Reason) - {Reason.FALLBACK}
    assert len({d.decision.model for v in log.versions() for d in log.decisions(v.position)}) > 12


def test_a_log_that_grows_meanwhile_replays(tmp_path: Path, clock: Clock) -> None:
    """A server writes versions, builds and models while the auditor reads: what decisions name is looked up anew."""
    with (
        closing(open_log(tmp_path / "log.db", clock=clock)) as log,
        closing(open_reader(tmp_path / "log.db")) as reader,
    ):
        drive, told = Drive(log, clock), 0
        drive.apply(sample_experiment(id=OTHER))
        drive.visits(5, OTHER)
        drive.apply(sample_experiment())
        drive.visits(5)

        def on_decision() -> None:
            nonlocal told
            told += 1
            if told == 3:
                log.name_build({"decider": "next", "codes": code_versions(), "rules": RULES})
                drive.visits(40)

        assert_equal(verify(reader, on_decision=on_decision), reader.count_decisions())


@pytest.mark.parametrize("algorithm", ["squarecb", "softmax", "epsilon_greedy", "bag", "cover", "rnd", "first"])
def test_every_algorithm_replays(clock: Clock, algorithm: str) -> None:
    """With a restart in between, since then the stored model goes on."""
    drive = Drive(MemoryLog(clock=clock), clock)
    drive.apply(sample_experiment(policy=spec(algorithm)))
    for _ in range(3):
        drive.visits(30)
        drive.restart()
    assert_equal(verify(drive.log), drive.log.count_decisions())


def test_progress_is_told_for_every_decision(clock: Clock) -> None:
    """A long log shows a bar that ends."""
    drive = Drive(MemoryLog(clock=clock), clock)
    drive.apply(sample_experiment())
    drive.visits(20)
    heard: list[None] = []
    verify(drive.log, on_decision=lambda: heard.append(None))
    assert len(heard) == drive.log.count_decisions()


def test_a_log_whose_model_was_damaged_and_learned_again_replays(clock: Clock) -> None:
    """The learner that starts anew names its model by the log's end, although it knows no more than the old one."""
    log = MemoryLog(clock=clock)
    drive = Drive(log, clock)
    drive.apply(sample_experiment())
    drive.visits(10)
    clock.advance(20)
    drive.step()
    drive.visits(1)
    signature = sample_experiment().policy.signature
    stored = log.models.newest(HOME, signature)
    assert stored is not None
    damaged = replace(stored[1], data=stored[1].data[:-1])
    log.models.store(ModelName(HOME, stored[0], signature), damaged, keep_bytes=10**9)
    clock.advance(1)
    drive.restart()
    drive.visits(5)
    assert_equal(verify(log), log.count_decisions())


# --- tampering


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log on disk of one learning experiment, closed. Its draws are so wide that hardly any propensity is the least:
    where all are, another context may have the same pmf."""
    clock, path = Clock(), tmp_path_factory.mktemp("verify") / "log.db"
    with closing(open_log(path, clock=clock)) as log:
        drive = Drive(log, clock)
        drive.apply(sample_experiment(holdout=0.05, policy=spec("thompson", width=2.0)))
        drive.visits(80)
    return path


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    """A copy to tamper with."""
    return Path(shutil.copy(original, tmp_path / "copy.db"))


def victim(path: Path) -> Decision:
    """A decision in the middle, drawn from a learned model's pmf over all actions."""
    with closing(open_reader(path)) as log:
        (version,) = log.versions()
        drawn = sorted((d for d in log.decisions(version.position) if d.decision.model > 0), key=lambda d: d.position)
        usual = [
            d.decision
            for d in drawn[5:]
            if d.decision.reason in (Reason.EXPLOIT, Reason.EXPLORE) and len(d.decision.eligible) == 3
        ]
        return usual[len(usual) // 3]


def tamper(path: Path, decision: Decision, column: str, value: Any) -> Position:
    """Change one column of one decision's row; its position."""
    with closing(sqlite3.connect(path)) as db:
        sql = f"update decisions set {column} = ? where decision_id = ? returning position"  # noqa: S608
        ((position,),) = db.execute(sql, (value, decision.decision_id)).fetchall()
        db.commit()
    return Position(position)


def checked(path: Path) -> Verification:
    """What `verify` says about a file."""
    with closing(open_reader(path)) as log:
        return verify(log)


def other_action(d: Decision) -> str:
    """An eligible action that was not drawn."""
    return next(id_ for id_ in d.eligible if id_ != d.action)


def shifted(d: Decision) -> str:
    """The pmf with one millionth moved."""
    most = d.pmf.index(max(d.pmf))
    return str([share - (i == most) + (i == (most + 1) % len(d.pmf)) for i, share in enumerate(d.pmf)])


@pytest.mark.parametrize(
    ("column", "value", "named"),
    [
        ("pmf", shifted, "pmf"),
        ("pmf", lambda d: str(list(d.pmf[:-1])), "pmf"),
        ("action", other_action, "action"),
        ("propensity", lambda d: d.propensity * (1 + 1e-15), "propensity"),
        ("reason", lambda d: "EXPLOIT" if d.reason == Reason.EXPLORE else "EXPLORE", "reason"),
        ("reason", lambda _: "HOLDOUT", "reason"),
        ("reason", lambda _: "NO_EXPLORATION", "pmf"),
        ("model", lambda _: 0, "pmf"),
        ("model", lambda _: 10**9, "model"),
        ("segment", lambda d: next(s for s in SEGMENTS if s != d.context.segment), "pmf"),
        ("features", lambda _: '{"age":20.0}', "pmf"),
        ("features", lambda _: None, "pmf"),
        ("eligible", lambda _: '["sale","none"]', "pmf"),
        ("eligible", lambda _: '["none","sale"]', "eligible"),
        ("eligible", lambda _: '["sale","nonsense"]', "nonsense"),
        ("action_features", lambda _: '{"sale":{"discount":0.999}}', "pmf"),
    ],
)  # fmt: skip
def test_a_changed_row_is_found(copy: Path, column: str, value: Callable[[Decision], Any], named: str) -> None:
    """Exactly that position is the first difference, and what differs is named."""
    decision = victim(copy)
    position = tamper(copy, decision, column, value(decision))
    result = checked(copy)
    assert result.first is not None
    assert result.first.logged.position == position
    assert named in result.first.what
    assert result.equal < result.decisions


@pytest.mark.parametrize(("column", "field"), [("pmf", "pmf"), ("propensity", "propensity"), ("action", "action")])
def test_only_the_changed_field_is_named(copy: Path, column: str, field: str) -> None:
    """A list of everything would send whoever looks for the cause astray."""
    decision = victim(copy)
    tamper(
        copy,
        decision,
        column,
        {"pmf": shifted, "propensity": lambda _: 0.123, "action": other_action}[column](decision),
    )
    result = checked(copy)
    assert result.first is not None
    assert result.first.what == field


def test_a_changed_decision_id_is_found(copy: Path) -> None:
    """The id is the key of the draw: a forged one whose ticket draws another action is told by the action."""
    decision = victim(copy)
    index = decision.eligible.index(decision.action)
    forged = next(
        id_
        for id_ in (f"forged-{attempt}" for attempt in range(100_000))
        if draw(decision.pmf, hash_ticket(HOME, "", "draw", id_)) != index
    )
    position = tamper(copy, decision, "decision_id", forged)
    result = checked(copy)
    assert result.first is not None
    assert (result.first.logged.position, "action" in result.first.what) == (position, True)


def test_a_changed_reward_is_found(copy: Path) -> None:
    """What was learned is recomputed too: a reward that was not there changes later pmfs, not earlier ones."""
    with closing(sqlite3.connect(copy)) as db:
        ((decided,),) = db.execute("select min(decision) from rewards").fetchall()
        db.execute("update rewards set value = 1 - value where decision = ?", (decided,))
        db.execute("delete from rewards where decision between ? and ?", (decided + 1, decided + 40))
        db.commit()
    result = checked(copy)
    assert result.first is not None
    assert result.first.logged.position > decided


def test_a_decision_of_a_version_that_does_not_exist_is_found(copy: Path) -> None:
    """Otherwise rows could be hidden from the audit by pointing them nowhere."""
    position = tamper(copy, victim(copy), "version", 999)
    result = checked(copy)
    assert result.first is not None
    assert result.first.logged.position == position


def test_an_action_that_does_not_exist_is_found(copy: Path) -> None:
    """And told as a difference: the learner meets that row too, later, and must not end the audit with a traceback."""
    position = tamper(copy, victim(copy), "action", "nonsense")
    result = checked(copy)
    assert result.first is not None
    assert result.first.logged.position == position


def _control_log(path: Path, clock: Clock, build: dict[str, object], *, rules: int) -> Path:
    """One decision of the control group that could not have its baseline action, made by these rules."""
    with closing(open_log(path, clock=clock)) as log:
        log.name_build(build)
        version = Versions(log).apply(sample_experiment(holdout=0.9)).version
        units = (f"u{number}" for number in range(100))
        unit = next(one for one in units if in_holdout(version, one))
        request = DecisionRequest(DecisionId("d"), unit, eligible=(ActionId("sale"), ActionId("none")))
        log.append([decide(request, version, Model(make_policy(version.experiment.policy)), rules=rules)])
    return path


def test_a_replay_uses_the_rules_of_the_build_that_decided(tmp_path: Path, clock: Clock) -> None:
    """Earlier builds called it HOLDOUT and did not name their rules; a build that names the new ones must not."""
    old = _control_log(tmp_path / "old.db", clock, {"codes": code_versions()}, rules=1)
    new = _control_log(tmp_path / "new.db", clock, {"codes": code_versions(), "rules": RULES}, rules=RULES)
    wrong = _control_log(tmp_path / "wrong.db", clock, {"codes": code_versions(), "rules": RULES}, rules=1)
    for path, equal in ((old, 1), (new, 1), (wrong, 0)):
        with closing(open_reader(path)) as log:
            result = verify(log)
        assert (result.decisions, result.equal) == (1, equal), path
    assert result.first is not None
    assert result.first.what == "reason"


def test_rules_that_this_build_does_not_have_are_not_recomputed(tmp_path: Path, clock: Clock) -> None:
    """To call its decisions different would accuse a log that is right; a damaged entry is told as a difference."""
    newer = _control_log(tmp_path / "newer.db", clock, {"rules": RULES + 1}, rules=RULES)
    with closing(open_reader(newer)) as log, pytest.raises(UnknownCode, match=f"rules of version {RULES + 1}"):
        verify(log)
    damaged = _control_log(tmp_path / "damaged.db", clock, {"rules": "two"}, rules=RULES)
    with closing(open_reader(damaged)) as log:
        first = verify(log).first
    assert first is not None
    assert "no usable version of the rules: 'two'" in first.what


# --- the command


def run(path: Path) -> Result:
    """`simulator verify`."""
    return CliRunner().invoke(main, ["verify", str(path)])


def test_the_command_says_that_all_are_equal(copy: Path) -> None:
    """Exit code 0: CI can rely on it."""
    result = run(copy)
    with closing(open_reader(copy)) as log:
        count = log.count_decisions()
    assert (result.exit_code, result.output.strip()) == (0, f"{count} of {count} decisions equal")


def test_the_command_reads_a_log_in_postgresql(postgres: PostgresServer, clock: Clock) -> None:
    """Its address stands where else a path does; a changed row is found there, too."""
    url = postgres.new_schema()
    with closing(open_log(LogUrl(url), clock=clock)) as log:
        drive = Drive(log, clock)
        drive.apply(sample_experiment())
        drive.visits(12)
        count = log.count_decisions()
    result = CliRunner().invoke(main, ["verify", url])
    assert (result.exit_code, result.output.strip()) == (0, f"{count} of {count} decisions equal")
    administer(url, "update rewards set value = value + 1 where position = (select min(position) from rewards)")
    assert CliRunner().invoke(main, ["verify", url]).exit_code == 2
    assert "leave out --archive" in CliRunner().invoke(main, ["verify", url, "--archive", "."]).output


def test_the_command_shows_the_first_difference(copy: Path) -> None:
    """Exit code 1, with the position and both decisions."""
    decision = victim(copy)
    position = tamper(copy, decision, "propensity", 0.123)
    result = run(copy)
    assert result.exit_code == 1
    assert f"first difference at position {position}, decision {decision.decision_id}: propensity" in result.output
    assert "0.123" in result.output
    assert isinstance(result.exception, SystemExit)


def test_the_command_says_why_a_log_cannot_be_read(tmp_path: Path) -> None:
    """Exit code 2, told apart from a difference."""
    missing = run(tmp_path / "none.db")
    assert (missing.exit_code, "no such log" in missing.output) == (2, True)
    (tmp_path / "text.db").write_text("not a log " * 1000)
    assert run(tmp_path / "text.db").exit_code == 2
    sqlite3.connect(tmp_path / "empty.db").close()
    (tmp_path / "empty.db").touch()
    assert run(tmp_path / "empty.db").exit_code == 2


@pytest.mark.parametrize(
    ("column", "value"), [("pmf", "[1,2"), ("reason", "BECAUSE"), ("features", "{"), ("eligible", "7"), ("pmf", "{}")]
)
def test_the_command_tells_a_damaged_row_without_a_traceback(copy: Path, column: str, value: str) -> None:
    """Damage on disk is news for a person: exit code 1 or 2 and a message, not an exception from the json module."""
    tamper(copy, victim(copy), column, value)
    result = run(copy)
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code in (1, 2)
