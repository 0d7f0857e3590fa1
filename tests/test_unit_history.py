"""Features of what a unit did before: asked for in the experiment, made by the server, logged as scored, made again by
`verify`.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import replace
from heapq import heappop, heappush
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from decider.decide.decide import decide as serve
from decider.errors import InvalidExperiment
from decider.experiment.definition import ExperimentVersion, RewardDefinition
from decider.experiment.schema import definition_text, from_message, parse_toml, read_json, to_message
from decider.experiment.unit_history import (
    DAY,
    MAX_REWARDS,
    HistoryDefinition,
    PastDecision,
    PastReward,
    Seen,
    history_features,
    with_history,
)
from decider.learn.archive import archive
from decider.learn.versions import Versions
from decider.log.archive.part import PART_JSON
from decider.log.memory import MemoryLog
from decider.log.open import open_log, open_reader, open_to_cut, open_to_forget
from decider.log.protocol import (
    EventLog,
    LogReader,
    Mark,
    NewActivation,
    NewReward,
    NewRewardChange,
    NewSlate,
    NewVersion,
    Tick,
    UnitDecision,
)
from decider.log.sqlite.writer import SqliteLog
from decider.policy.make import make_policy
from decider.policy.protocol import Model
from decider.server.service import DeciderService
from decider.serving.current import Current
from decider.serving.follower import Copies, Follower
from decider.types import (
    START,
    ActionId,
    Context,
    Decision,
    DecisionId,
    DecisionRequest,
    ExperimentId,
    FeatureValue,
    Position,
    Time,
)
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from simulator.commands.group import main as simulator
from simulator.logs.columns import Number
from simulator.logs.example import example
from simulator.logs.import_features import sent_features
from simulator.run.task import Task, run
from simulator.run.unit_pasts import UnitPasts
from simulator.verify import verify
from simulator.worlds.registry import find
from tests.conftest import Clock, sample_experiment, spec
from tests.processes import Process
from tests.rpc_clients import RpcClient, SubprocessClient, code_of, experiment, fields_of, rows, status_of
from tests.sqlite_steps import steps
from tests.two_writers import decision

HOME = ExperimentId("home")
ALL = HistoryDefinition(30 * DAY, ("click", "purchase"), decisions=True, last_action=True, last_channel=True, most=5)


# What an experiment may ask for.

TOML = """
id = "shop"

[[actions]]
id = "sale"

[reward]
window = "1h"
weights = { purchase = 1.0, click = 0.1 }
range = { minimum = 0, maximum = 200 }

[history]
"""


def test_a_file_asks_in_plain_words() -> None:
    """A growth person writes it, and every default is filled in."""
    asked = from_message(parse_toml(TOML + 'period = "30d"\nrewards = ["purchase"]\nlast_channel = true', "shop.toml"))
    assert asked.history == HistoryDefinition(30 * DAY, ("purchase",), last_channel=True, most=20)
    asked = from_message(parse_toml(TOML + "decisions = true\nlast_action = true\nmost = 7", "shop.toml"))
    assert asked.history == HistoryDefinition(90 * DAY, decisions=True, last_action=True, most=7)


@pytest.mark.parametrize(
    ("lines", "field", "text"),
    [
        ("", "history", "asks for nothing"),
        ('period = "10m"\ndecisions = true', "history.period", "600 s is not in [1 hour, 365 days]"),
        ('period = "366d"\ndecisions = true', "history.period", "365 days"),
        ("most = 101\ndecisions = true", "history.most", "101 is not in [1, 100]"),
        ('rewards = ["buy"]', "history.rewards[0]", "never comes: reward.weights has click, purchase"),
        ('rewards = ["click", "click"]', "history.rewards[1]", "twice"),
        ('rewards = ["two words"]', "history.rewards[0]", "letters"),
        (f'rewards = ["{"x" * 47}"]', "history.rewards[0]", "1 to 46"),
        (f"rewards = {[f'r{n}' for n in range(11)]}", "history.rewards", "at most 10"),
        ('decisions = true\n[schema.features."history.decisions"]\nrequired = true',
         "schema.features[history.decisions]", "a call cannot send it"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_by_its_field(lines: str, field: str, text: str) -> None:
    """Each would be a feature that is always empty, or a read without a bound."""
    with pytest.raises(InvalidExperiment) as told:
        from_message(parse_toml(TOML + lines, "shop.toml"))
    found = {violation.field: violation.description for violation in told.value.violations}
    assert text in found[field]


def test_a_definition_is_read_as_it_was_written() -> None:
    """And one without a history keeps its text: it would be a new version of every experiment there is."""
    plain = sample_experiment()
    assert "history" not in definition_text(plain)
    asked = sample_experiment(history=ALL)
    assert from_message(read_json(definition_text(asked))) == asked
    assert from_message(to_message(asked)) == asked


# Features of given decisions.


def past(position: int, *, time: int = 0, rewards: Sequence[PastReward] = (), **changes: Any) -> PastDecision:
    """A decision of some time, activated, with everything else plain."""
    plain = PastDecision(
        Position(position), Time(time), ActionId("sale"), "web", True, True, Time(time + DAY), tuple(rewards)
    )
    return plain._replace(**changes)


def reward(position: int, name: str = "click", value: float = 1.0, *, time: int = 0, weight: float = 1.0) -> PastReward:
    """A reward."""
    return PastReward(Position(position), Time(time), name, value, weight)


def test_a_new_unit_is_all_zero() -> None:
    """To a linear policy it is the average visitor without a past, not a hole in the data."""
    assert history_features(ALL, [], Time(0)) == {
        "history.click.recency": 0.0, "history.click.frequency": 0.0, "history.click.money": 0.0,
        "history.purchase.recency": 0.0, "history.purchase.frequency": 0.0, "history.purchase.money": 0.0,
        "history.decisions": 0.0, "history.activations": 0.0,
    }  # fmt: skip


def test_recency_frequency_and_money_of_a_reward() -> None:
    """The last one counts for recency, all of them for the other two; other names do not."""
    decisions = [
        past(1, rewards=[reward(2, "purchase", 20.0, time=5 * DAY), reward(3, "click")]),
        past(4, rewards=[reward(5, "purchase", 79.0, time=9 * DAY)]),
    ]
    found = history_features(ALL, decisions, Time(10 * DAY))
    assert found["history.purchase.recency"] == round(1 - math.log(2) / math.log(31), 4)
    assert found["history.purchase.frequency"] == round(math.log(3), 4)
    assert found["history.purchase.money"] == round(math.log(100), 4)


@pytest.mark.parametrize(
    ("last", "at", "result"),
    [
        (past(9, rewards=[reward(10)]), DAY, "rewarded"),
        (past(9, rewards=[reward(10, value=-1.0)]), DAY, "unrewarded"),
        (past(9, rewards=[reward(10, weight=0.0)]), 0, "open"),
        (past(9), DAY - 1, "open"),
        (past(9), DAY, "unrewarded"),
        (past(9, activated=False), DAY, "unrewarded"),
    ],
)
def test_what_became_of_the_last_action(last: PastDecision, at: int, result: str) -> None:
    """An action that was just shown is not one that failed."""
    found = history_features(
        HistoryDefinition(DAY, last_action=True), [past(1, action=ActionId("old")), last], Time(at)
    )
    assert found == {"history.last_action": "sale", "history.last_result": result}


def test_what_nobody_can_have_seen_is_no_last_action() -> None:
    """Where only activated decisions count, a page that was not rendered showed nothing."""
    unseen = past(9, action=ActionId("unseen"), activated=False, counts=False)
    found = history_features(HistoryDefinition(DAY, last_action=True, decisions=True), [past(1), unseen], Time(1))
    assert found["history.last_action"] == "sale"
    assert found["history.decisions"] == round(math.log(3), 4)
    assert found["history.activations"] == round(math.log(2), 4)


def test_the_channel_of_the_last_response() -> None:
    """The newest response says it, not the newest decision."""
    asked = HistoryDefinition(DAY, last_channel=True)
    mail = past(1, channel="email", rewards=[reward(9)])
    web = past(2, channel="web", rewards=[reward(5), reward(10, value=-1.0)])
    assert history_features(asked, [mail, web], Time(1)) == {"history.last_channel": "email"}
    assert history_features(asked, [past(2, channel="web")], Time(1)) == {}
    assert history_features(asked, [past(2, channel="", rewards=[reward(3)])], Time(1)) == {}


values = st.floats(-1e12, 1e12)
past_rewards = st.builds(
    PastReward,
    st.integers(1, 99),
    st.integers(0, 99 * DAY),
    st.sampled_from(["click", "purchase", "x"]),
    values,
    values,
)


@given(st.lists(past_rewards, max_size=6), st.integers(0, 10**20), st.permutations(range(6)))
def test_every_number_is_finite_and_in_no_order(rewards: list[PastReward], at: int, order: list[int]) -> None:
    """A number that the policy cannot take, or that depends on how rows come, would not replay."""
    shuffled = [rewards[place] for place in order if place < len(rewards)]
    found, again = (history_features(ALL, [past(1, rewards=some)], Time(at)) for some in (rewards, shuffled))
    assert found == again
    for name, value in found.items():
        assert isinstance(value, str) or math.isfinite(value)
        assert not name.endswith("recency") or 0 <= float(value) <= 1
        assert str(value) != "-0.0"


# The log: what it knows of a unit.


def brute(log: EventLog, experiment_id: str, unit: str, history: HistoryDefinition, seen: Seen) -> dict[str, Any]:
    """The features by their definition, over plain lists of everything that a memory log has."""
    assert isinstance(log, MemoryLog)
    entries = [(mark, entry) for mark, entry in log._entries if seen.after < mark.position <= seen.until]
    versions = {version.position: version for version in log.versions()}
    mine = [
        (mark, entry)
        for mark, entry in entries
        if isinstance(entry, Decision)
        and entry.unit_id == unit
        and versions[entry.version].experiment.id == experiment_id
        and log.recall(mark.position) is not None
    ][-history.most :]
    decisions = []
    for mark, made in mine:
        if mark.time <= seen.time - history.period:
            continue
        window = versions[made.version].experiment.reward.window
        shown = [e.action for _, e in entries if isinstance(e, NewActivation) and e.decision == mark.position]
        worth: dict[Position, list[Any]] = {}
        for at, entry in entries:
            if isinstance(entry, NewReward) and entry.decision == mark.position:
                worth[at.position] = [at, entry.name, entry.value, entry.weight, entry.reward_id]
            if isinstance(entry, NewRewardChange) and entry.decision == mark.position:
                next(one for one in worth.values() if one[4] == entry.reward_id)[2] = entry.value
        rewards = tuple(
            PastReward(at.position, at.time, name, v, w) for at, name, v, w, _ in worth.values() if v is not None
        )
        decisions.append(
            PastDecision(
                *mark, next((one for one in shown if one), made.action), made.context.channel, bool(shown), True,
                Time(mark.time + window), rewards,
            )
        )  # fmt: skip
    return dict(history_features(history, decisions, seen.time))


def apply(log: EventLog, number: int = 1, **changes: Any) -> ExperimentVersion:
    """A version of the sample experiment with a history."""
    changes = {"history": ALL, "reward": RewardDefinition(window=2 * DAY), **changes}
    log.append([NewVersion(sample_experiment(**changes), number)])
    return log.versions()[-1]


def features(log: LogReader, unit: str, at: int, id_: ExperimentId = HOME) -> Mapping[str, FeatureValue]:
    """Of a unit now."""
    seen, found = log.unit_history(id_, unit, ALL, at=Time(at))
    return history_features(ALL, found, seen.time)


def decide(log: EventLog, version: ExperimentVersion, id_: str, unit: str = "unit", **changes: Any) -> Mark:
    """A decision with its unit's history."""
    at = Time(0)
    seen, found = log.unit_history(version.experiment.id, unit, ALL, at=at)
    context = with_history(Context(channel="web"), history_features(ALL, found, seen.time))
    made = decision(version, id_, unit, **{"context": context, **changes})
    (mark,) = log.append([UnitDecision(made, seen=seen)])
    assert mark is not None
    return mark


def test_a_unit_s_decisions_and_what_became_of_them(log: EventLog, clock: Clock) -> None:
    """Of this experiment, of this unit, up to now; a decision without a history is none of it."""
    version, other = apply(log), apply(log, id=ExperimentId("other"))
    first = decide(log, version, "one")
    decide(log, version, "somebody", "else")
    decide(log, other, "elsewhere")
    log.append([decision(version, "without")])
    clock.advance(86_400)
    log.append(
        [NewReward(first.position, "purchase", 40.0, reward_id="r"), NewActivation(first.position, ActionId("none"))]
    )
    log.append([NewRewardChange(first.position, "r", 19.0, "purchase")])
    found = features(log, "unit", clock() + DAY)
    assert found["history.purchase.money"] == round(math.log(20), 4)
    assert found["history.purchase.recency"] == round(1 - math.log(2) / math.log(31), 4)
    assert found["history.decisions"] == found["history.activations"] == round(math.log(2), 4)
    assert found["history.last_action"] == "none"
    assert found["history.last_channel"] == "web"
    log.append([NewRewardChange(first.position, "r", None, "purchase")])
    assert features(log, "unit", clock())["history.purchase.frequency"] == 0.0
    assert features(log, "nobody", clock()) == history_features(ALL, [], Time(0))


def test_a_final_reward_ends_the_wait_for_a_result(log: EventLog, clock: Clock) -> None:
    """What comes behind it is late, so nothing is open any more; who looked before it has seen it open."""
    version = apply(log)
    first = decide(log, version, "one")
    before, _ = log.unit_history(HOME, "unit", ALL, at=clock())
    assert features(log, "unit", clock())["history.last_result"] == "open"
    log.append([NewReward(first.position, "click", 0.0, final=True)])
    for _ in range(2):
        assert features(log, "unit", clock())["history.last_result"] == "unrewarded"
        then = log.unit_history_at(HOME, "unit", ALL, before)
        assert history_features(ALL, then, before.time)["history.last_result"] == "open"
        clock.advance(1)
    second = decide(log, version, "two")
    log.append([NewReward(second.position, "click", 1.0, final=True)])
    assert features(log, "unit", clock())["history.last_result"] == "rewarded"


def test_an_idle_log_s_units_grow_older(log: EventLog, clock: Clock) -> None:
    """The last entry may be days ago: recency is that of the call, not of the entry."""
    version = apply(log)
    mark = decide(log, version, "one")
    log.append([NewReward(mark.position, "click", 1.0)])
    seen, _ = log.unit_history(HOME, "unit", ALL, at=Time(clock() + 7 * DAY))
    assert seen == Seen(START, log.head().position, Time(clock() + 7 * DAY))
    assert features(log, "unit", clock() + 29 * DAY)["history.decisions"] != 0
    assert features(log, "unit", clock() + 30 * DAY)["history.decisions"] == 0
    earlier, _ = log.unit_history(HOME, "unit", ALL, at=Time(0))
    assert earlier.time == log.head().time


def test_slots_of_a_page_have_one_history(log: EventLog) -> None:
    """They were decided from one reading; each says so."""
    version = apply(log)
    seen, _ = log.unit_history(HOME, "unit", ALL, at=Time(0))
    first, second = (UnitDecision(decision(version, id_), seen=seen) for id_ in ("s/0", "s/1"))
    (mark,) = log.append([NewSlate((first, second))])
    assert mark is not None
    assert log.recall(mark.position) == log.recall(Position(mark.position + 1)) == seen
    assert features(log, "unit", 0)["history.decisions"] == round(math.log(3), 4)
    assert log.append([NewSlate((second,))]) == [None]
    assert log.head().position == 5


def test_a_refused_decision_has_no_recall(log: EventLog) -> None:
    """Nothing of an entry that a key refuses may stay."""
    version = apply(log)
    decide(log, version, "once")
    seen, _ = log.unit_history(HOME, "unit", ALL, at=Time(0))
    end = log.head().position
    assert log.append([UnitDecision(decision(version, "once"), seen=seen)]) == [None]
    assert log.head().position == end


steps_of_a_log = st.lists(
    st.tuples(
        st.sampled_from(["decide", "decide", "decide", "reward", "change", "activate", "wait"]),
        st.sampled_from(["a", "b"]),
        st.integers(0, 7),
        st.sampled_from(["click", "purchase"]),
        st.sampled_from([None, -2.0, 0.0, 1.0, 30.0]),
    ),
    max_size=40,
)


@settings(max_examples=40)
@given(steps_of_a_log)
def test_all_logs_know_what_the_definition_says(
    tmp_path_factory: pytest.TempPathFactory, taken: list[tuple[str, str, int, str, float | None]]
) -> None:
    """Memory and SQLite give what a walk over all entries gives: now, and for every reading that is in the log."""
    clock = Clock()
    sqlite = SqliteLog(tmp_path_factory.mktemp("log") / "log.db", clock=clock)
    with closing(sqlite), closing(MemoryLog(clock=clock)) as memory:
        logs: tuple[EventLog, EventLog] = (sqlite, memory)
        versions = [[apply(log), apply(log, id=ExperimentId("other"))] for log in logs]
        for number, one in enumerate(taken):
            if one[0] == "wait":
                clock.advance(one[2] * 86_400)
            for log, of_log in zip(logs, versions, strict=True):
                _take(log, of_log, number, one)
            for unit in "ab":
                seen, found = memory.unit_history(HOME, unit, ALL, at=clock())
                assert (seen, found) == sqlite.unit_history(HOME, unit, ALL, at=clock())
                assert history_features(ALL, found, seen.time) == brute(memory, HOME, unit, ALL, seen)
        for version in versions[1]:
            for logged in memory.decisions(version.position):
                then = memory.recall(logged.position)
                assert then is not None
                assert sqlite.recall(logged.position) == then
                asked = (version.experiment.id, logged.decision.unit_id, ALL, then)
                found = sqlite.unit_history_at(*asked)
                assert found == memory.unit_history_at(*asked)
                assert history_features(ALL, found, then.time) == brute(memory, *asked)
                assert logged.decision.context == with_history(Context(channel="web"), brute(memory, *asked))
        assert sqlite.check(lambda _: None) == []


def _take(log: EventLog, versions: list[ExperimentVersion], number: int, one: Any) -> None:
    what, unit, back, name, value = one
    made = [logged for version in versions for logged in log.decisions(version.position)]
    target = made[-1 - back % len(made)].position if made else None
    if what == "decide":
        decide(log, versions[back == 0], f"d-{number}", unit)
    elif target is not None and what == "activate":
        log.append([NewActivation(target, ActionId("none") if value else None)])
    elif target is not None and what == "change":
        log.append([NewRewardChange(target, f"r-{back}", value, name)])
    elif target is not None and what == "reward":
        log.append([NewReward(target, name, value or 5.0, reward_id=f"r-{back}" if back % 2 else None)])


def test_no_more_is_read_of_a_unit_with_a_long_past(tmp_path: Path, clock: Clock) -> None:
    """A bot with a million visits, each with a hundred clicks and changes of mind, must not slow down anybody."""
    with closing(SqliteLog(tmp_path / "log.db", clock=clock)) as log:
        version = apply(log)
        counts: list[int] = []
        for _ in range(3):
            for number in range(200):
                mark = decide(log, version, f"{len(counts)}-{number}")
            rewards = [NewReward(mark.position, "click", 1.0, reward_id=f"r{n:04}") for n in range(2 * MAX_REWARDS)]
            log.append(rewards)
            log.append([NewRewardChange(mark.position, "r0000", float(n), "click") for n in range(500)])
            log.unit_history(HOME, "unit", ALL, at=Time(0))
            counts.append(steps(log, lambda: log.unit_history(HOME, "unit", ALL, at=clock())))
            seen, found = log.unit_history(HOME, "unit", ALL, at=clock())
            assert len(found) == ALL.most
            assert len(found[-1].rewards) == MAX_REWARDS
            assert found[-1].rewards[0].value == 499.0
            assert history_features(ALL, found, seen.time)["history.decisions"] == round(math.log(6), 4)
        old = list(log.decisions(version.position))[20]
        then = log.recall(old.position)
        assert then is not None
        counts.append(steps(log, lambda: log.unit_history_at(HOME, "unit", ALL, then)))
    assert counts[1] == pytest.approx(counts[0], rel=0.1)
    assert counts[2] == pytest.approx(counts[0], rel=0.1)
    assert counts[3] < counts[0]


def test_others_and_older_decisions_cost_nothing(tmp_path: Path, clock: Clock) -> None:
    """Nor does a past that lies outside of the period."""
    counts: list[int] = []
    with closing(SqliteLog(tmp_path / "log.db", clock=clock)) as log:
        version, other = apply(log), apply(log, id=ExperimentId("other"))
        for more in (10, 300):
            for number in range(more):
                decide(log, version, f"d-{more}-{number}")
                decide(log, other, f"o-{more}-{number}")
            clock.advance(86_400 * 31)
            decide(log, version, f"new-{more}")
            log.unit_history(HOME, "unit", ALL, at=Time(0))
            counts.append(steps(log, lambda: log.unit_history(HOME, "unit", ALL, at=clock())))
            assert features(log, "unit", clock())["history.decisions"] == round(math.log(2), 4)
    assert counts[1] == pytest.approx(counts[0], rel=0.05)


# The service: what is logged is what was scored.


def returning(id_: str = "home", **fields: Any) -> experiment_pb2.Experiment:
    """An experiment of three actions that knows what its visitors did."""
    made = experiment(id_, **fields)
    made.history.CopyFrom(to_message(sample_experiment(history=ALL)).history)
    return made


def logged_features(client: RpcClient, decision_id: str) -> dict[str, Any]:
    """Of the context of a decision, as the log has them."""
    ((text,),) = client.rows("select features from decisions where decision_id = ?", decision_id)
    return dict(json.loads(text))


def assert_replays(db: Path, *, archive: Sequence[Path] = (), unrecalled: int = 0) -> int:
    """`verify` says N of N, and the log is what was acknowledged."""
    with closing(open_reader(db, archive=archive)) as log:
        assert log.check(lambda _: None) == []
        done = verify(log)
    assert done.first is None, done.first.what
    assert (done.equal, done.unrecalled) == (done.decisions, unrecalled)
    return done.decisions


def test_a_visitor_who_comes_back_is_known(client: RpcClient, mine: str) -> None:
    """The context that was scored is the context that is logged; a retry computes nothing."""
    client.apply(returning(mine))
    first = client.decide(mine, "visitor", decision_id=f"{mine}-1", context=pb.Context(channel="email"))
    assert logged_features(client, f"{mine}-1")["history.decisions"] == 0.0
    client.activate(first.decision_id)
    client.reward(first.decision_id, name="purchase", value=1.0)
    context = pb.Context()
    context.features["cart_value"] = 80.5
    client.decide(mine, "visitor", decision_id=f"{mine}-2", context=context)
    known = logged_features(client, f"{mine}-2")
    assert known["cart_value"] == 80.5
    assert known["history.last_action"] == first.action.id
    assert (known["history.last_result"], known["history.last_channel"]) == ("rewarded", "email")
    assert known["history.purchase.recency"] > 0.99
    assert known["history.purchase.frequency"] == known["history.activations"] == known["history.decisions"] == 0.6931
    assert client.decide(mine, "visitor", decision_id=f"{mine}-1") == first
    assert logged_features(client, f"{mine}-1")["history.decisions"] == 0.0
    client.decide(mine, "another", decision_id=f"{mine}-3")
    assert logged_features(client, f"{mine}-3")["history.decisions"] == 0.0
    assert_replays(client.db)


def test_a_call_cannot_say_what_a_unit_did(client: RpcClient, mine: str) -> None:
    """A frontend's own idea of it would be logged as the server's. Without a history the name is free."""
    client.apply(returning(mine))
    client.apply(experiment(f"{mine}-2"))
    context = pb.Context()
    context.features["history.decisions"] = 7.0
    status = status_of(lambda: client.decide(mine, context=context))
    assert code_of(status) == "INVALID_ARGUMENT"
    assert fields_of(status) == ["context.features[history.decisions]"]
    assert "take another name" in status.message
    assert f"experiment '{mine}' declares a history" in status.message
    assert client.decide(f"{mine}-2", context=context).action.id


def test_an_import_says_who_has_to_send_what_units_did() -> None:
    """A model that learned from another system's `history.visits` scores 0 for it, where nobody is told to send it."""
    fields = {"history.visits": Number(np.array([1.0, 2.0])), "age": Number(np.array([30.0, 40.0]))}
    columns = replace(example(), fields=fields)
    age, visits = "context.features[age]", "context.features[history.visits]"
    assert sent_features(columns) == {age: "number", visits: "number"}
    assert sent_features(columns, history=True) == {age: "number"}


def test_a_batch_and_a_slate_know_it_as_well(client: RpcClient, mine: str) -> None:
    """Every way to decide; those of one call have the same past, since none of them comes after another."""
    client.apply(returning(mine))
    client.decide(mine, "visitor")
    batch = [pb.DecideRequest(experiment=mine, unit_id="visitor", decision_id=f"{mine}-b{n}") for n in range(3)]
    client.decide_batch(batch)
    for one in batch:
        assert logged_features(client, one.decision_id)["history.decisions"] == 0.6931
    slate = pb.DecideSlateRequest(
        experiment=mine, unit_id="visitor", slate_id=f"{mine}-s", slots=[pb.Slot(), pb.Slot()]
    )
    first = client.call("DeciderService", "DecideSlate", slate)
    assert client.call("DeciderService", "DecideSlate", slate) == first
    for place in (0, 1):
        assert logged_features(client, f"{mine}-s/{place}")["history.decisions"] == round(math.log(5), 4)
    slate.slots[1].features["history.money"] = 1.0
    slate.slate_id = f"{mine}-t"
    assert code_of(status_of(lambda: client.call("DeciderService", "DecideSlate", slate))) == "INVALID_ARGUMENT"
    assert_replays(client.db)


def test_the_control_group_has_a_past_too(client: RpcClient, mine: str) -> None:
    """Else its contexts could not be compared with those of the others."""
    client.apply(returning(mine, holdout=0.5, baseline_action="a"))
    for number in range(2):
        for unit in range(20):
            client.decide(mine, f"visitor-{unit}", decision_id=f"{mine}-{unit}-{number}")
    sql = "select reason, features from decisions where decision_id like ? order by position"
    again = client.rows(sql, f"{mine}-%-1")
    assert {reason for reason, _ in again} > {"HOLDOUT"}
    assert {json.loads(features)["history.decisions"] for _, features in again} == {0.6931}
    assert_replays(client.db)


def test_a_kept_decision_is_nothing_new(client: RpcClient, mine: str) -> None:
    """A sticky repeat is no draw, so it is no decision of the unit's past. A preview is one, and is not kept."""
    made = returning(mine)
    made.sticky.FromSeconds(3600)
    client.apply(made)
    client.decide(mine, "visitor", explore=False)
    for _ in range(3):
        kept = client.decide(mine, "visitor")
    other = client.decide(mine, "visitor", excluded_actions=[kept.action.id])
    assert logged_features(client, kept.decision_id)["history.decisions"] == 0.6931
    assert logged_features(client, other.decision_id)["history.decisions"] == round(math.log(3), 4)
    assert_replays(client.db)


def test_a_rule_may_ask_for_it(client: RpcClient, mine: str) -> None:
    """No offer for who has just bought: rules act before sampling, on the context that is logged."""
    made = returning(mine)
    made.actions[1].eligible_if = "features['history.purchase.frequency'] == 0.0"
    client.apply(made)
    first = client.decide(mine, "visitor", with_ranking=True)
    client.reward(first.decision_id, name="purchase")
    second = client.decide(mine, "visitor", with_ranking=True)
    assert {one.action for one in first.ranking} - {one.action for one in second.ranking} == {made.actions[1].id}
    assert_replays(client.db)


def test_a_killed_server_s_visitors_stay_known(tmp_path: Path) -> None:
    """From what a history was read is in the commit of its decision: everything acknowledged replays."""
    client = SubprocessClient(tmp_path / "log.db")
    with closing(client):
        client.apply(returning())
        for number in range(60):
            made = client.decide("home", f"visitor-{number % 7}")
            if number % 3 == 0:
                client.reward(made.decision_id, name="purchase", value=0.5)
        client.process.kill()
    with closing(SubprocessClient(tmp_path / "log.db")) as again:
        again.decide("home", "visitor-6", decision_id="last")
        assert logged_features(again, "last")["history.decisions"] == round(math.log(6), 4)
    assert assert_replays(tmp_path / "log.db") == 61


# Logs in which much has happened.


class Shop(Process):
    """Visitors who come back to a service on a log, whose clock the test holds."""

    def __init__(self, log: EventLog, clock: Clock) -> None:
        self.random, self.count = Random(1), 0
        super().__init__(log, clock)

    def start(self, *given: Any) -> None:
        """The service as well."""
        super().start(*given)
        self.service = DeciderService(self.current, self.log, append=self.log.append, clock=self.clock)

    def visits(self, count: int, name: str = "d") -> None:
        """Decisions of a few units; some buy, return what they bought, are shown something else; days pass."""
        source = self.random
        for _ in range(count):
            self.count += 1
            id_, channel = f"{name}-{self.count}", source.choice(["web", "email", ""])
            unit = f"unit-{source.randrange(10)}"
            context = pb.Context(channel=channel, device=source.choice(["mobile", "tv"]))
            self.service.Decide(pb.DecideRequest(experiment="home", unit_id=unit, decision_id=id_, context=context))
            if source.random() < 0.5:
                self.service.Reward(pb.RewardRequest(decision_id=id_, name="purchase", value=0.5, reward_id="order"))
            if source.random() < 0.2:
                self.service.Reward(pb.RewardRequest(decision_id=id_, retract=True, reward_id="order", name="purchase"))
            if source.random() < 0.3:
                self.service.Activate(pb.ActivateRequest(decision_id=id_, action=source.choice(["", "none"])))
            self.clock.advance(source.choice([0, 1, 3_600, 86_400]))
            if source.random() < 0.2:
                self.step()


def shop(log: EventLog, clock: Clock) -> Shop:
    """A shop with a history of 30 days, open for some three months: three versions, a restart."""
    made = Shop(log, clock)
    made.apply(sample_experiment(history=ALL, holdout=0.1))
    made.visits(60)
    made.apply(sample_experiment(history=replace(ALL, most=20, period=60 * DAY), policy=spec("squarecb")))
    made.visits(60)
    made.restart()
    made.apply(sample_experiment(policy=spec("squarecb")))
    made.visits(10)
    made.apply(sample_experiment(history=ALL, policy=spec("squarecb")))
    made.visits(60)
    clock.advance(20)
    log.append([Tick()])
    made.step()
    return made


def test_everything_is_made_again(log: EventLog, clock: Clock) -> None:
    """On every log: whatever version decided, and whatever happened to what it read since then."""
    shop(log, clock)
    done = verify(log)
    assert (done.first, done.equal, done.decisions, done.unrecalled) == (None, 190, 190, 0)


@pytest.mark.parametrize("wrong", [{"history.decisions": 5.0}, {"history.last_action": "sale"}, {"history.odd": True}])
def test_a_feature_that_was_not_so_is_found(log: EventLog, clock: Clock, wrong: dict[str, FeatureValue]) -> None:
    """As a decision that was drawn otherwise is."""
    version = Shop(log, clock).apply(sample_experiment(history=ALL, policy=spec("uniform"))).version
    plain = DecisionRequest(DecisionId("d-1"), "unit")
    seen, found = log.unit_history(HOME, "unit", ALL, at=clock())
    context = with_history(plain.context, {**history_features(ALL, found, seen.time), **wrong})
    made = serve(plain._replace(context=context), version, Model(make_policy(version.experiment.policy)))
    log.append([UnitDecision(made, seen=seen)])
    difference = verify(log).first
    assert difference is not None
    assert difference.what == "context"


def test_a_decision_without_a_word_of_what_was_read_is_found(log: EventLog, clock: Clock) -> None:
    """Nobody could say that its features were true."""
    version = Shop(log, clock).apply(sample_experiment(history=ALL, policy=spec("uniform"))).version
    log.append(
        [serve(DecisionRequest(DecisionId("d"), "unit"), version, Model(make_policy(version.experiment.policy)))]
    )
    difference = verify(log).first
    assert difference is not None
    assert "no entry says" in difference.what


def test_a_row_that_is_missing_in_a_unit_s_past_is_found(tmp_path: Path, clock: Clock) -> None:
    """The table follows from the entries; who changes it changes what is served next."""
    for change in ("delete from unit_decisions where unit_id = 'unit-1'", "update unit_decisions set unit_id = 'x'"):
        db = tmp_path / f"{len(change)}.db"
        with closing(open_log(db, clock=clock)) as log:
            shop(log, clock)
        with closing(sqlite3.connect(db)) as connection, connection:
            connection.execute(change)
        with closing(open_reader(db)) as log:
            damages = log.check(lambda _: None)
        assert damages
        assert "unit's history" in damages[0].text


@pytest.fixture
def db(tmp_path: Path, clock: Clock) -> Path:
    """The log of a shop, closed."""
    with closing(open_log(tmp_path / "shop.db", clock=clock)) as log:
        shop(log, clock)
    return tmp_path / "shop.db"


def cut_at(db: Path, share: float) -> Path:
    """Archive that share of the decisions; the folder."""
    times = [time for (time,) in rows(db, "select time from decisions order by position")]
    with closing(open_to_cut(db)) as log:
        before = Time(times[round(share * len(times))])
        assert archive(log, db.parent / "archive", before=before, remember=1, say=lambda _: None)
    return db.parent / "archive"


def test_what_was_read_before_an_archive_run_is_proved_with_the_archive(db: Path, clock: Clock) -> None:
    """The log alone says how many histories reach into the archive; with it all of them are made again. Decisions after
    the run have seen what was left, and are proved by both."""
    folder = cut_at(db, 0.3)
    with closing(open_reader(db)) as log:
        alone = verify(log)
    assert (alone.first, alone.equal) == (None, alone.decisions)
    assert 0 < alone.unrecalled < alone.decisions
    said = CliRunner().invoke(simulator, ["verify", str(db)])
    assert said.exit_code == 0, said.output
    assert f"{alone.unrecalled} decisions: what their units did before lies in the archive" in said.output
    assert assert_replays(db, archive=[folder]) == 190
    assert rows(db, "select count(*) from unit_decisions where decision <= (select position from cut)") == [(0,)]
    with closing(open_log(db, clock=clock)) as log:
        more = Shop(log, clock)
        more.visits(40, "more")
        assert verify(log).unrecalled == alone.unrecalled
    cut_at(db, 0.5)
    assert assert_replays(db, archive=[folder]) == 230
    whole = CliRunner().invoke(simulator, ["verify", str(db), "--archive", str(folder)])
    assert whole.exit_code == 0, whole.output
    assert "230 of 230 decisions equal" in whole.output
    assert "lies in the archive" not in whole.output


def test_a_part_of_an_older_release_is_read(tmp_path: Path, clock: Clock) -> None:
    """It has no file of what was read, since there was nothing."""
    with closing(open_log(tmp_path / "log.db", clock=clock)) as log:
        made = Shop(log, clock)
        made.apply(sample_experiment())
        made.visits(20)
        clock.advance(20)
        log.append([Tick()])
    folder = cut_at(tmp_path / "log.db", 0.5)
    (part,) = [one for one in folder.iterdir() if one.is_dir()]
    content = json.loads((part / PART_JSON).read_text())
    del content["files"]["recalls.parquet"]
    (part / PART_JSON).write_text(json.dumps(content))
    (part / "recalls.parquet").unlink()
    with closing(open_reader(folder)) as restored:
        assert restored.check(lambda _: None) == []


@pytest.mark.parametrize("pseudonym", [False, True])
def test_a_forgotten_unit_begins_anew(db: Path, clock: Clock, pseudonym: bool) -> None:
    """What it did is nobody's any more; who reads its decisions cannot find what led to them, and `verify` says so."""
    mine = rows(db, "select count(*) from decisions where unit_id = 'unit-3'")[0][0]
    with closing(open_to_forget(db)) as forgetting:
        forgetting.forget("unit-3", pseudonym=pseudonym, context=False, rebuild=False)
    assert rows(db, "select count(*) from unit_decisions where unit_id = 'unit-3'") == [(0,)]
    with closing(open_log(db, clock=clock)) as log:
        assert features(log, "unit-3", clock())["history.decisions"] == 0.0
        Shop(log, clock).visits(40, "more")
        done = verify(log)
    assert (done.first, done.forgotten, done.equal) == (None, mine, done.decisions)
    assert assert_replays(db) == 230 - mine


def test_a_decision_that_was_being_made_while_its_unit_was_forgotten_is_no_difference(db: Path, clock: Clock) -> None:
    """It has seen what is gone now. Only where a removal came in between, and there is a difference."""
    with closing(open_log(db, clock=clock)) as log:
        version = log.versions()[-1]
        asked = version.experiment.history
        assert asked is not None
        seen, found = log.unit_history(HOME, "unit-3", asked, at=clock())
        assert found
        with closing(open_to_forget(db)) as forgetting:
            forgetting.forget("unit-3", pseudonym=False, context=False, rebuild=False)
        before = verify(log)
        context = with_history(Context(), history_features(asked, found, seen.time))
        log.append([UnitDecision(decision(version, "late", "unit-3", context=context), seen=seen)])
        done = verify(log)
    assert (done.first, done.forgotten) == (None, before.forgotten + 1)


def _visit_often(db: Path, name: str) -> None:
    """A worker of its own: it follows the log and decides; somebody else leads."""
    with closing(open_log(db)) as log:
        current = Current()
        Follower(log, current, Copies()).follow()
        service = DeciderService(current, log, append=log.append)
        for number in range(60):
            id_ = f"{name}-{number}"
            service.Decide(pb.DecideRequest(experiment="home", unit_id=f"unit-{number % 3}", decision_id=id_))
            service.Reward(pb.RewardRequest(decision_id=id_, name="click", value=0.1))


def test_two_processes_read_one_past(tmp_path: Path) -> None:
    """Each reads what the other has committed; whatever it saw, the entry beside its decision says."""
    db = tmp_path / "log.db"
    with closing(open_log(db)) as log:
        Versions(log).apply(sample_experiment(history=replace(ALL, most=100), policy=spec("uniform")))
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(_visit_often, [db, db], ["one", "two"]))
    assert assert_replays(db) == 120
    ((text,),) = rows(db, "select features from decisions where unit_id = 'unit-0' order by position desc limit 1")
    assert json.loads(text)["history.decisions"] >= round(math.log(20), 4)


# The world of returning customers.


def test_what_customers_did_before_earns_more() -> None:
    """They cannot be told apart otherwise. 0 is a uniform choice, 1 is who looks into their heads."""
    with_past, without = (
        run(Task("returning", name, seed=1, rounds=6_000)) for name in ("default", "default:history=0")
    )
    assert with_past.share() > without.share() + 0.1
    assert with_past.best == without.best


def test_a_world_knows_of_a_unit_what_a_log_would() -> None:
    """The simulator plays with the features that the server would make, at the same times."""
    world = find("returning")
    visits, asked, source = world.draw(1, 400), world.experiment.history, Random(1)
    assert asked is not None
    visits = replace(visits, units=visits.units % 9)
    pasts, clock = UnitPasts(world, visits, asked), Clock()
    log = MemoryLog(clock=clock)
    log.append([NewVersion(world.experiment, 1)])
    version, start, coming = log.versions()[-1], clock(), [(math.inf, NewReward(START, "", 0.0))]
    for number in range(len(visits)):
        now = Time(start + round(world.arrives(number) * 1e6))
        while coming[0][0] <= now:
            arrival, one = heappop(coming)
            clock.now = int(arrival)
            log.append([one])
        clock.now = now
        unit, plain = str(visits.units[number]), visits.contexts[visits.seen[number]]
        seen, found = log.unit_history(world.experiment.id, unit, asked, at=now)
        context = pasts.context(number, plain)
        assert context == with_history(plain, history_features(asked, found, seen.time))
        action = source.randrange(len(world.actions))
        pasts.chose(number, action, plain)
        made = decision(version, str(number), unit, context=context, action=world.experiment.actions[action].id)
        (mark,) = log.append([UnitDecision(made, seen=seen)])
        assert mark is not None
        log.append([NewActivation(mark.position)])
        name = visits.names[number, action]
        if name >= 0:
            weight = world.experiment.reward.weights[world.reward_names[name]]
            value = visits.rewards[number, action] / weight
            reward = NewReward(mark.position, world.reward_names[name], value, weight, str(number))
            heappush(coming, (now + round(visits.delays[number] * 1e6), reward))
