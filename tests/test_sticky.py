"""Sticky: a unit keeps its first decision for a time. One draw, one entry in the log, however often it asks."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decider.experiment.definition import ExperimentVersion
from decider.learn.versions import Versions
from decider.log.memory import MemoryLog
from decider.log.open import open_log, open_reader, open_to_forget
from decider.log.protocol import EarlyActivation, Entry, EventLog, NewActivation, NewReward, NewVersion, UnitDecision
from decider.log.sqlite import assignments, writer
from decider.log.sqlite.writer import SqliteLog
from decider.types import ActionId, DecisionId, ExperimentId, Position
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from simulator.verify import verify
from tests.conftest import SECOND, Clock, sample_experiment
from tests.rpc_clients import RpcClient, SubprocessClient, code_of, experiment, reason_of, status_of
from tests.two_writers import decision

HOME = ExperimentId("home")
DAY = 86_400


def sticky(id_: str, seconds: float = DAY, **fields: Any) -> experiment_pb2.Experiment:
    """An experiment of three actions whose units keep theirs."""
    made = experiment(id_, **fields)
    made.sticky.FromMicroseconds(round(seconds * SECOND))
    return made


def logged(client: RpcClient, id_: str) -> int:
    """Decisions of an experiment in the log."""
    sql = "select count(*) from decisions d join experiments e on e.position = d.version where e.experiment = ?"
    return int(client.rows(sql, id_)[0][0])


def test_a_unit_sees_the_same_again(client: RpcClient, mine: str) -> None:
    """A visitor who loads a page again and sees another price does not buy. One draw is one decision in the log."""
    client.apply(sticky(mine))
    first = client.decide(mine, "visitor")
    assert first.reason != pb.REASON_STICKY
    for _ in range(20):
        again = client.decide(mine, "visitor", context=pb.Context(device="tv"))
        assert again.reason == pb.REASON_STICKY
        again.reason = first.reason
        assert again == first
    assert logged(client, mine) == 1


def test_units_keep_their_own(client: RpcClient, mine: str) -> None:
    """An assignment belongs to a unit, and to an experiment."""
    client.apply(sticky(mine))
    client.apply(sticky(f"{mine}-2"))
    first = {unit: client.decide(mine, unit).decision_id for unit in "abcdef"}
    assert len(set(first.values())) == 6
    assert {unit: client.decide(mine, unit).decision_id for unit in "abcdef"} == first
    assert client.decide(f"{mine}-2", "a").reason != pb.REASON_STICKY


def test_rewards_go_to_the_decision_that_is_kept(client: RpcClient, mine: str) -> None:
    """The frontend need not remember an id from page to page."""
    client.apply(sticky(mine))
    client.decide(mine, "visitor")
    again = client.decide(mine, "visitor")
    assert client.reward(again.decision_id, name="click", reward_id="once") == "joined"
    assert client.reward(again.decision_id, name="click", reward_id="once") == "duplicate"


def test_after_its_time_a_unit_is_drawn_anew(client: RpcClient, mine: str) -> None:
    """A day later it is another visit."""
    client.apply(sticky(mine, seconds=0.3))
    first = client.decide(mine, "visitor").decision_id
    client.until(lambda: client.decide(mine, "visitor").decision_id != first, what="the assignment is over")
    assert logged(client, mine) == 2


def test_an_action_that_cannot_be_served_is_not_kept(client: RpcClient, mine: str) -> None:
    """A sold-out offer is not shown for another day. The new decision is kept in its place."""
    client.apply(sticky(mine))
    first = client.decide(mine, "visitor")
    other = client.decide(mine, "visitor", excluded_actions=[first.action.id])
    assert other.action.id != first.action.id
    assert other.reason != pb.REASON_STICKY
    assert client.decide(mine, "visitor").decision_id == other.decision_id


def test_a_retry_gets_its_own_decision(client: RpcClient, mine: str) -> None:
    """An idempotency key says more than the unit: the same id is the same answer, also after a new draw."""
    client.apply(sticky(mine))
    first = client.decide(mine, "visitor", decision_id=f"{mine}-1")
    other = client.decide(mine, "visitor", excluded_actions=[first.action.id])
    assert client.decide(mine, "visitor", decision_id=f"{mine}-1") == first
    assert client.decide(mine, "visitor").decision_id == other.decision_id


def test_without_exploration_nothing_is_kept(client: RpcClient, mine: str) -> None:
    """The most probable action, asked for by a preview, must not become what the visitor sees all day."""
    client.apply(sticky(mine))
    preview = client.decide(mine, "visitor", explore=False)
    drawn = client.decide(mine, "visitor")
    assert drawn.decision_id != preview.decision_id
    assert client.decide(mine, "visitor", explore=False).decision_id == drawn.decision_id


def test_calls_at_once_are_one_draw(client: RpcClient, mine: str) -> None:
    """A page that asks from four places at once."""
    client.apply(sticky(mine))
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(client.decide, mine, "visitor") for _ in range(16)]
        assert len({call.result().decision_id for call in calls}) == 1
    assert logged(client, mine) == 1


def test_a_batch_with_a_unit_twice_is_one_draw(client: RpcClient, mine: str) -> None:
    """The second one is refused by the log in the same commit, and gets the first."""
    client.apply(sticky(mine))
    results = client.decide_batch([pb.DecideRequest(experiment=mine, unit_id=unit) for unit in ("x", "y", "x")])
    ids = [result.response.decision_id for result in results]
    assert ids[0] == ids[2] != ids[1]
    assert results[2].response.reason == pb.REASON_STICKY
    assert logged(client, mine) == 2


def test_an_action_that_was_not_shown_is_not_kept(client: RpcClient, mine: str) -> None:
    """The client gave up and showed its fallback: nobody has seen the drawn action, so the next page draws anew, and
    its clicks belong to a decision that shows what it says."""
    client.apply(sticky(mine))
    first = client.decide(mine, "visitor")
    other = next(id_ for id_ in "abc" if id_ != first.action.id)
    assert client.activate(first.decision_id, other)
    again = client.decide(mine, "visitor")
    assert again.decision_id != first.decision_id
    assert again.reason != pb.REASON_STICKY
    assert client.activate(again.decision_id, again.action.id)
    assert client.decide(mine, "visitor").decision_id == again.decision_id


def test_an_override_that_comes_first_keeps_nothing(client: RpcClient, mine: str) -> None:
    """The report of a call that timed out can be quicker than the call."""
    client.apply(sticky(mine))
    for number in range(8):  # some of them draw what was shown
        unit = f"visitor-{number}"
        client.activate(f"{mine}-{number}", "a")
        first = client.decide(mine, unit, decision_id=f"{mine}-{number}")
        again = client.decide(mine, unit)
        assert (again.decision_id == first.decision_id) == (first.action.id == "a")


def test_after_the_last_word_a_unit_is_drawn_anew(client: RpcClient, mine: str) -> None:
    """What it buys next would be late for the sealed decision."""
    client.apply(sticky(mine))
    first = client.decide(mine, "visitor")
    assert client.reward(first.decision_id, name="purchase", final=True) == "joined"
    again = client.decide(mine, "visitor")
    assert again.decision_id != first.decision_id
    assert client.reward(again.decision_id, name="purchase") == "joined"
    assert client.decide(mine, "visitor").decision_id == again.decision_id


def test_slates_are_refused(client: RpcClient, mine: str) -> None:
    """Which slot a unit keeps is not said; a slate's id does the same."""
    client.apply(sticky(mine))
    request = pb.DecideSlateRequest(experiment=mine, unit_id="visitor", slots=[pb.Slot()])
    status = status_of(lambda: client.call("DeciderService", "DecideSlate", request))
    assert (code_of(status), reason_of(status)) == ("FAILED_PRECONDITION", "EXPERIMENT_STICKY")
    assert "slate_id" in status.message


@pytest.mark.parametrize("seconds", [-1.0, 91 * DAY])
def test_a_wrong_time_is_named(client: RpcClient, mine: str, seconds: float) -> None:
    """For ever is no time: the log would grow without a bound."""
    status = status_of(lambda: client.apply(sticky(mine, seconds)))
    assert code_of(status) == "INVALID_ARGUMENT"
    assert "sticky" in status.message
    assert "90 days" in status.message


def test_a_killed_server_s_units_keep_theirs(tmp_path: Path) -> None:
    """The assignment is in the same commit as its decision: what was answered is answered again."""
    client = SubprocessClient(tmp_path / "log.db")
    with closing(client):
        client.apply(sticky("home"))
        first = {unit: client.decide("home", unit).decision_id for unit in map(str, range(30))}
        client.process.kill()
    with closing(SubprocessClient(tmp_path / "log.db")) as again:
        assert {unit: again.decide("home", unit).decision_id for unit in first} == first
    with closing(open_reader(tmp_path / "log.db")) as log:
        found = verify(log)
    assert found.equal == found.decisions == 30


def test_a_window_that_ends_before_units_are_drawn_anew_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What later visits earn would be late, and nothing else would say so."""
    with closing(open_log(tmp_path / "log.db")) as log, caplog.at_level(logging.WARNING):
        service = Versions(log)
        service.apply(sample_experiment(sticky=10 * SECOND))
        assert not caplog.records
        service.apply(sample_experiment(sticky=20 * SECOND))
    assert [("sticky" in line, "reward.window" in line) for line in caplog.messages] == [(True, True)]


# Laws, on every implementation of the log.


def version_of(log: EventLog, **changes: Any) -> ExperimentVersion:
    """The sample experiment."""
    log.append([NewVersion(sample_experiment(**changes), 1)])
    return log.versions()[-1]


def kept(log: EventLog, clock: Clock, unit: str = "unit") -> str | None:
    """The id of the decision that a unit keeps now."""
    found = log.assigned(HOME, unit, at=clock())
    return found.decision.decision_id if found else None


def test_the_first_assignment_counts_until_it_ends(log: EventLog, clock: Clock) -> None:
    """Whoever loses finds the winner, and an end is an end to the microsecond."""
    version = version_of(log)
    first, second = (UnitDecision(decision(version, id_), keep=10 * SECOND) for id_ in ("first", "second"))
    marks = log.append([first, second])
    assert [mark is not None for mark in marks] == [True, False]
    assert kept(log, clock) == "first"
    assert log.find(second.decision.decision_id) is None
    clock.now = clock.now + 10 * SECOND - 1
    assert kept(log, clock) == "first"
    assert log.append([second]) == [None]
    clock.now += 1
    assert kept(log, clock) is None
    assert log.append([second]) != [None]
    assert kept(log, clock) == "second"


def test_only_the_decision_that_was_named_is_replaced(log: EventLog, clock: Clock) -> None:
    """Two calls that both want to replace a sold-out offer: the second one must not replace the first one's."""
    version = version_of(log)
    (mark,) = log.append([UnitDecision(decision(version, "sold-out"), keep=SECOND)])
    assert mark is not None
    two, three = (UnitDecision(decision(version, id_), keep=SECOND, replaces=mark.position) for id_ in ("two", "three"))
    assert [mark is not None for mark in log.append([two, three])] == [True, False]
    assert kept(log, clock) == "two"


def test_a_decision_id_that_is_there_is_not_assigned(log: EventLog, clock: Clock) -> None:
    """Nothing of an entry that a key refuses may stay."""
    version = version_of(log)
    log.append([decision(version, "once", "other")])
    assert log.append([UnitDecision(decision(version, "once"), keep=SECOND)]) == [None]
    assert kept(log, clock) is None


def test_the_override_of_a_decision_that_was_replaced_ends_nothing(log: EventLog, clock: Clock) -> None:
    """Only the decision that is kept ends, and the override of a unit's old one says nothing of its new one."""
    version = version_of(log)
    (old,) = log.append([UnitDecision(decision(version, "old"), keep=SECOND)])
    assert old is not None
    log.append([UnitDecision(decision(version, "new"), keep=SECOND, replaces=old.position)])
    log.append([NewActivation(old.position, ActionId("other")), NewReward(old.position, "buy", 1.0, final=True)])
    assert kept(log, clock) == "new"


def test_whoever_replaces_what_has_ended_meanwhile_wins(log: EventLog, clock: Clock) -> None:
    """A call has seen what its unit keeps; then that is overridden, and then the call's own decision is written."""
    version = version_of(log)
    (old,) = log.append([UnitDecision(decision(version, "old"), keep=SECOND)])
    assert old is not None
    log.append([NewActivation(old.position, ActionId("other"))])
    assert kept(log, clock) is None
    two, three = (UnitDecision(decision(version, id_), keep=SECOND, replaces=old.position) for id_ in ("two", "three"))
    assert [mark is not None for mark in log.append([two, three])] == [True, False]
    assert kept(log, clock) == "two"


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.sampled_from(["shown", "other", "final", "early"])),
        max_size=25,
    )
)
def test_all_logs_end_the_same(tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[str, int, str]]) -> None:
    """What overrides and last words end, in any history; and `check` counts what is left."""
    clock, path = Clock(), tmp_path_factory.mktemp("log") / "log.db"
    with closing(SqliteLog(path, clock=clock)) as sqlite, closing(MemoryLog(clock=clock)) as memory:
        logs: tuple[EventLog, EventLog] = (sqlite, memory)
        versions = [version_of(log, sticky=5 * SECOND) for log in logs]
        for number, (unit, seconds, event) in enumerate(calls):
            clock.now += seconds * SECOND
            id_ = DecisionId(f"d{number}")
            entries: list[Entry] = [UnitDecision(decision(versions[0], id_, unit), keep=5 * SECOND)]
            if event == "early":
                entries.insert(0, EarlyActivation(id_, ActionId("other")))
            for log, version in zip(logs, versions, strict=True):
                assert version.position == versions[0].position
                log.append(entries)
                found = log.assigned(HOME, unit, at=clock())
                if found is not None:
                    log.append(list(said(event, found.position)))
            assert len({kept(log, clock, unit) for log in logs}) == 1
            assert event != "final" or kept(sqlite, clock, unit) is None
    with closing(open_reader(path)) as reader:
        assert reader.check(lambda _: None) == []


def said(event: str, at: Position) -> Iterator[Entry]:
    """What came about a decision."""
    if event == "final":
        yield NewReward(at, "purchase", 1.0, final=True)
    else:
        yield NewActivation(at, None if event == "shown" else ActionId("other"))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 4), st.booleans()), max_size=25))
def test_all_logs_keep_the_same(tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[str, int, bool]]) -> None:
    """Memory and SQLite answer any history alike, and never give a unit a second decision while it keeps one."""
    clock = Clock()
    sqlite = SqliteLog(tmp_path_factory.mktemp("log") / "log.db", clock=clock)
    with closing(sqlite), closing(MemoryLog(clock=clock)) as memory:
        logs: tuple[EventLog, EventLog] = (sqlite, memory)
        versions = [version_of(log) for log in logs]
        for number, (unit, seconds, replace) in enumerate(calls):
            clock.now += seconds * SECOND
            found = [log.assigned(HOME, unit, at=clock()) for log in logs]
            assert found[0] == found[1]
            old = found[0].position if found[0] and replace else None
            marks = [
                log.append([UnitDecision(decision(version, f"d{number}", unit), keep=5 * SECOND, replaces=old)])
                for log, version in zip(logs, versions, strict=True)
            ]
            assert marks[0] == marks[1]
            assert (marks[0] == [None]) == (found[0] is not None and not replace)


def test_two_processes_assign_once(tmp_path: Path, clock: Clock) -> None:
    """The key is in the file, not in a process."""
    with closing(open_log(tmp_path / "log.db", clock=clock)) as one, closing(open_log(tmp_path / "log.db")) as two:
        version = version_of(one)
        with ThreadPoolExecutor(2) as pool:
            for number in range(50):
                unit = f"unit-{number}"
                new = [
                    pool.submit(
                        log.append, [UnitDecision(decision(version, f"{name}-{unit}", unit), keep=DAY * SECOND)]
                    )
                    for name, log in (("one", one), ("two", two))
                ]
                assert sum(future.result() != [None] for future in new) == 1


def test_assignments_that_are_over_are_deleted(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """What grows with visitors has an end, and each transaction is short."""
    monkeypatch.setattr(assignments, "AT_ONCE", 500)
    monkeypatch.setattr(writer, "MOST_DROPS", 1)
    with closing(SqliteLog(tmp_path / "log.db", clock=clock)) as log:
        version = version_of(log)
        log.append([UnitDecision(decision(version, f"d{n}", f"unit-{n}"), keep=SECOND) for n in range(700)])
        clock.now += 2 * SECOND
        log.append([UnitDecision(decision(version, "new", "new"), keep=SECOND)])
        log.maintain()
        assert log._one("select count(*) as n from assignments")["n"] == 201
        log.maintain()
        assert log._one("select count(*) as n from assignments")["n"] == 1
        assert kept(log, clock, "new") == "new"


def test_a_decision_that_is_no_longer_in_the_log_is_not_kept(tmp_path: Path, clock: Clock) -> None:
    """Archived, and longer ago than the log remembers: its unit must be decided anew, not refused until the end."""
    with closing(SqliteLog(tmp_path / "log.db", clock=clock)) as log:
        version = version_of(log)
        log.append([UnitDecision(decision(version, "old"), keep=DAY * SECOND)])
        log._writer.execute("delete from decisions")
        assert kept(log, clock) is None
        assert log.append([UnitDecision(decision(version, "new"), keep=DAY * SECOND)]) != [None]
        assert kept(log, clock) == "new"


def test_a_forgotten_unit_keeps_nothing(tmp_path: Path, clock: Clock) -> None:
    """Its id would stay in the table for as long as it is sticky."""
    with closing(open_log(tmp_path / "log.db", clock=clock)) as log:
        version = version_of(log)
        log.append([UnitDecision(decision(version, f"d-{unit}", unit), keep=DAY * SECOND) for unit in ("you", "me")])
    with closing(open_to_forget(tmp_path / "log.db")) as forgetting:
        forgetting.forget("you", pseudonym=False, context=False, rebuild=False)
        assert forgetting.assigned(HOME, "you", at=clock()) is None
        assert forgetting.assigned(HOME, "me", at=clock()) is not None
