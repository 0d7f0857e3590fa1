"""Who gave up showed something: that is true whether its decision was made before, later, or never."""

from __future__ import annotations

import math
import re
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from random import Random

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decider.experiment.definition import ExperimentVersion
from decider.learn.archive import archive
from decider.log import memory, protocol
from decider.log.open import open_reader, open_to_cut
from decider.log.postgres import early as postgres_early
from decider.log.protocol import (
    EARLY_MICROSECONDS,
    Awaited,
    Caller,
    DecisionRef,
    EarlyActivation,
    Entry,
    EventLog,
    Mark,
    NewActivation,
    NewVersion,
    Tick,
)
from decider.log.sqlite import early
from decider.log.sqlite.writer import SqliteLog
from decider.server.service import DeciderService
from decider.serving.current import Current
from decider.types import START, ActionId, DecisionId, Time
from decider.v1 import decider_service_pb2 as pb
from simulator.studies.given_up import Load, play, words
from simulator.verify import verify
from tests.conftest import SECOND, Clock, sample_experiment, spec
from tests.rpc_clients import (
    CLIENTS,
    GrpcClient,
    InProcessClient,
    RpcClient,
    ServerProcess,
    code_of,
    experiment,
    rows,
    status_of,
    until,
)
from tests.two_writers import decision

WINDOW = 10 * SECOND
"""Of the sample experiment."""

DRAWN = "sale"
"""By `decision`."""


@pytest.fixture
def log(log: EventLog) -> EventLog:
    """Every implementation, with one version."""
    log.append([NewVersion(sample_experiment(), 1)])
    return log


def version_of(log: EventLog) -> ExperimentVersion:
    """Its only version."""
    return log.versions()[-1]


def say(log: EventLog, id_: str, action: str | None = None) -> Mark | None:
    """Activate a decision that is perhaps still to come."""
    (mark,) = log.append([EarlyActivation(DecisionId(id_), ActionId(action) if action else None)])
    return mark


def overridden(log: EventLog) -> dict[str, bool]:
    """By decision id, once every window is over."""
    id_ = version_of(log).experiment.id
    sealed = log.sealed_decisions(id_, after=Time(0), until=Time(2**60))
    return {one.decision.decision_id: one.overridden for one in sealed}


def test_an_activation_before_its_decision_takes_effect_with_it(log: EventLog) -> None:
    """A call that was given up is perhaps committed after its caller has said what it showed."""
    end = log.head().position
    mark = say(log, "a", "none")
    assert mark is not None
    assert (mark.position, log.head().position) == (START, end), "it is remembered: no entry yet"
    log.append([decision(version_of(log), "a"), decision(version_of(log), "b")])
    assert overridden(log) == {"a": True, "b": False}
    assert log.head().position == end + 3, "two decisions and an activation"
    assert log.check(lambda _: None) == []


def test_what_was_shown_is_the_drawn_action_where_it_has_its_name(log: EventLog) -> None:
    """A fallback may be what was drawn: then nothing was overridden."""
    say(log, "a", DRAWN)
    say(log, "b")
    log.append([decision(version_of(log), "a")])
    log.append([decision(version_of(log), "b")])
    assert overridden(log) == {"a": False, "b": False}
    assert log.head().position == 5, "both are activated"


def test_the_first_early_activation_counts(log: EventLog) -> None:
    """As of those that come after the decision."""
    assert [say(log, "a", "none") is not None, say(log, "a", DRAWN) is not None] == [True, False]
    log.append([decision(version_of(log), "a")])
    assert say(log, "a", DRAWN) is None, "the decision is there, with its activation"
    assert overridden(log) == {"a": True}


def test_an_early_activation_of_a_decision_that_is_there_is_an_activation(log: EventLog) -> None:
    """The decision may be committed between the look for it and the append."""
    log.append([decision(version_of(log), "a")])
    mark = say(log, "a", "none")
    assert mark is not None
    assert mark.position == 3
    assert overridden(log) == {"a": True}


def test_an_early_activation_is_forgotten_in_the_end(log: EventLog, clock: Clock) -> None:
    """Ids that never get a decision must not be kept for ever; and a new decision of that id may be another one."""
    say(log, "old", "none")
    clock.advance(1)
    say(log, "young", "none")
    clock.advance(EARLY_MICROSECONDS / SECOND - 1)
    log.append([decision(version_of(log), "old"), decision(version_of(log), "young")])
    assert overridden(log) == {"old": False, "young": True}


def test_an_early_activation_may_be_sent_again_once_it_was_forgotten(log: EventLog, clock: Clock) -> None:
    """Else the id could never be activated any more."""
    say(log, "a", DRAWN)
    clock.advance(EARLY_MICROSECONDS / SECOND)
    assert say(log, "a", "none") is not None
    log.append([decision(version_of(log), "a")])
    assert overridden(log) == {"a": True}


def test_early_activations_are_bounded_in_number(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody can invent ids: the newest are remembered."""
    for module in (memory, early, postgres_early):
        monkeypatch.setattr(module, "MOST_EARLY", 3)
    for number in range(6):
        say(log, f"d{number}", "none")
    log.append([decision(version_of(log), f"d{number}") for number in range(6)])
    assert [id_ for id_, is_ in sorted(overridden(log).items()) if is_] == ["d3", "d4", "d5"]
    assert protocol.MOST_EARLY == 100_000


ENTRIES = st.lists(
    st.tuples(
        st.sampled_from(["decision", "early", "shown"]), st.integers(0, 3), st.sampled_from([None, DRAWN, "none"])
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(groups=st.lists(ENTRIES, min_size=1, max_size=4))
def test_the_first_word_about_a_decision_counts_whenever_it_comes(
    log: EventLog, groups: list[list[tuple[str, int, str | None]]]
) -> None:
    """However decisions and activations of one id are mixed into commits: what was said first was shown."""
    prefix, shown, made = f"{log.head().position}-", dict[str, str | None](), set[str]()
    for group in groups:
        entries: list[Entry] = [Tick()]
        for kind, number, action in group:
            id_ = f"{prefix}{number}"
            if kind == "decision":
                entries.append(decision(version_of(log), id_))
                made.add(id_)
                continue
            place = log.locate(DecisionId(id_)) if kind == "shown" else None
            given = ActionId(action) if action else None
            if place is not None:
                entries.append(NewActivation(place.position, None if action == DRAWN else given))
            else:
                entries.append(EarlyActivation(DecisionId(id_), given))
            shown.setdefault(id_, action)
        log.append(entries)
    found = {id_: is_ for id_, is_ in overridden(log).items() if id_.startswith(prefix)}
    assert found == {id_: shown.get(id_) == "none" for id_ in made}
    assert log.check(lambda _: None) == []


WAITING = Caller(math.inf, lambda: True)
LATE = Caller(0.0, lambda: True)
CANCELLED = Caller(math.inf, lambda: False)


@pytest.mark.parametrize("gone", [LATE, CANCELLED])
def test_a_decision_whose_caller_has_given_up_is_not_written(log: EventLog, gone: Caller) -> None:
    """Nobody can have seen it. The others of its commit are not touched, and its id is free for another call."""
    version, waiting = version_of(log), WAITING
    marks = log.append(
        [
            Awaited(decision(version, "a"), waiting),
            Awaited(decision(version, "b"), gone),
            Tick(),
            Awaited(decision(version, "c"), gone),
            Awaited(decision(version, "d"), waiting),
        ]
    )
    assert [mark and mark.position for mark in marks] == [2, None, 3, None, 4]
    assert log.append([Awaited(decision(version, "b"), gone)]) == [None]
    assert log.head().position == 4
    assert log.append([Awaited(decision(version, "b"), waiting)]) != [None]
    assert sorted(overridden(log)) == ["a", "b", "d"]
    assert log.check(lambda _: None) == []


def test_another_process_writes_the_decision(tmp_path: Path, clock: Clock) -> None:
    """Workers share the log: who remembers need not be who decides."""
    path = tmp_path / "log"
    with closing(SqliteLog(path, clock=clock)) as one, closing(SqliteLog(path, clock=clock)) as other:
        one.append([NewVersion(sample_experiment(), 1)])
        other.append([Tick()])
        say(one, "a", "none")
        say(one, "b", "none")
        other.append([decision(version_of(other), "a")])
        other.append([decision(version_of(other), f"more-{number}") for number in range(300)])
        other.append([decision(version_of(other), f"even-{number}") for number in range(300)] + [
            decision(version_of(other), "b")])  # fmt: skip
        assert [id_ for id_, is_ in overridden(one).items() if is_] == ["a", "b"]
        assert other.check(lambda _: None) == []
    assert rows(path, "select * from early_activations") == []


def test_ids_that_never_get_a_decision_are_deleted(tmp_path: Path, clock: Clock) -> None:
    """By the leader's housekeeping, also where no activation comes any more."""
    path = tmp_path / "log"
    with closing(SqliteLog(path, clock=clock)) as log:
        say(log, "a", "none")
        clock.advance(EARLY_MICROSECONDS / SECOND + 1)
        log.maintain()
    assert rows(path, "select * from early_activations") == []


def _remove_trigger(path: Path) -> None:
    with closing(sqlite3.connect(path)) as tool:
        tool.execute("drop trigger activated_before")
        tool.commit()


def test_a_remembered_activation_whose_decision_is_there_is_damage(tmp_path: Path, clock: Clock) -> None:
    """It would say that a decision was seen that was overridden."""
    path = tmp_path / "log"
    with closing(SqliteLog(path, clock=clock)) as log:
        log.append([NewVersion(sample_experiment(), 1)])
        say(log, "a", "none")
        _remove_trigger(path)
        log.append([decision(version_of(log), "a")])
        assert [str(one) for one in log.check(lambda _: None)] == [
            "the activation remembered for 'a' should have been written with its decision"
        ]


def test_an_id_that_is_free_again_is_no_damage_beside_the_archive(tmp_path: Path, clock: Clock) -> None:
    """The archive has an old decision with it; the activation waits for a new one."""
    path = tmp_path / "log"
    with closing(SqliteLog(path, clock=clock)) as log:
        log.append([NewVersion(sample_experiment(policy=spec("uniform")), 1)])  # it keeps nothing for learning
        log.append([decision(version_of(log), "a")])
        clock.advance(100)
        log.append([Tick()])
        with closing(open_to_cut(path)) as cutting:
            assert archive(cutting, tmp_path / "archive", before=log.head().time, remember=0, say=lambda _: None)
        assert log.locate(DecisionId("a")) is None
        assert say(log, "a", "none") is not None
        with closing(open_reader(path, archive=[tmp_path / "archive"])) as whole:
            assert whole.find(DecisionId("a")) is not None
            assert whole.check(lambda _: None) == []
        log.append([decision(version_of(log), "a")])
        assert log.check(lambda _: None) == []


def test_a_decision_that_is_made_while_its_activation_is_looked_for_is_activated(tmp_path: Path) -> None:
    """Between the look and the commit another process decides: the outcome is that of the activation."""
    with closing(SqliteLog(tmp_path / "log")) as log:
        log.append([NewVersion(sample_experiment(), 1)])
        log.append([decision(version_of(log), "a")])
        looks: Iterator[list[DecisionRef | None]] = iter([[None], log.locate_all([DecisionId("a")])])
        service = DeciderService(Current(), log, append=log.append, locate_all=lambda _: next(looks))
        reply = service.Activate(pb.ActivateRequest(decision_id="a", action="none"))
        assert (reply.first, reply.outcome) == (True, pb.ACTIVATION_OUTCOME_OVERRIDDEN)
        assert overridden(log) == {"a": True}


@pytest.fixture(params=list(CLIENTS))
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RpcClient]:
    """Every way in."""
    made = CLIENTS[request.param](tmp_path / "log.db")
    yield made
    made.close()


def test_every_activation_gets_an_outcome(client: RpcClient) -> None:
    """As Reward's do: a caller must see that what it said changes nothing."""
    client.apply(experiment("home", window=600))
    reply = client.decide("home", decision_id="d")
    other = next(action for action in "abc" if action != reply.action.id)
    assert [client.activation("d"), client.activation("d", other)] == ["activated", "duplicate"]
    client.decide("home", decision_id="e", eligible_actions=[reply.action.id])
    assert client.activation("e", other) == "overridden"
    assert [client.activation("f", other), client.activation("f")] == ["remembered", "duplicate"]
    client.decide("home", decision_id="f", eligible_actions=[reply.action.id])
    assert client.activation("f") == "duplicate"
    sql = "select d.decision_id, a.action from activations a join decisions d on d.position = a.decision order by 1"
    assert client.rows(sql) == [("d", None), ("e", other), ("f", other)]


def test_an_activation_after_the_window_is_late(client: RpcClient) -> None:
    """It is stored, and changes nothing of what is learned."""
    client.apply(experiment("home", window=0.01))
    client.decide("home", decision_id="d")
    client.until(lambda: client.rows("select 1 from sealed_decisions") or None, what="the window is over")
    assert client.activation("d", "a") == "late"


def test_an_early_activation_survives_a_kill(tmp_path: Path) -> None:
    """The server that remembered is dead when the decision is made."""
    db = tmp_path / "log.db"
    server = ServerProcess(db)
    client = server.client()
    client.apply(experiment("home", window=0.2))
    assert client.activation("d", "not-one-of-ours") == "remembered"
    client.close()
    server.kill()
    server = ServerProcess(db)
    client = server.client()
    client.decide("home", decision_id="d")
    client.decide("home", decision_id="e")
    sealed = "select decision_id, overridden from sealed_decisions order by 1"
    assert client.until(lambda: len(client.rows(sealed)) == 2 and client.rows(sealed), what="both are sealed") == [
        ("d", 1), ("e", 0)]  # fmt: skip
    client.close()
    assert server.terminate() == 0
    with closing(SqliteLog(db)) as log:
        assert log.check(lambda _: None) == []
        checked = verify(log)
        assert checked.equal == checked.decisions == 2


class Storm:
    """Visitors who say what they show before, after or while it is decided, on a server that is killed.

    said: by decision id, what was said first.
    """

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self.said: dict[str, str] = {}
        self._left: list[tuple[str, str]] = []

    def visit(self, target: str) -> None:
        """Until the server dies; what was not answered is sent again the next time."""
        client = GrpcClient(Path(), target, "")
        try:
            while True:
                self._left = self._left or self._calls()
                self._send(client)
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                raise
        finally:
            client.close()

    def settle(self, client: GrpcClient) -> None:
        """Send what is left."""
        while self._left:
            self._send(client)

    def _calls(self) -> list[tuple[str, str]]:
        id_ = f"{self._random.randrange(10**12)}"
        self.said[id_] = self._random.choice("abc")
        calls = [("decide", id_), ("activate", id_)]
        return calls if self._random.random() < 0.5 else calls[::-1]

    def _send(self, client: GrpcClient) -> None:
        kind, id_ = self._left[0]
        if kind == "decide":
            client.decide("home", decision_id=id_)
        else:
            client.activation(id_, self.said[id_])
        self._left.pop(0)


def said_more_than(least: int, storms: Sequence[Storm]) -> bool:
    """All of them together."""
    return sum(len(storm.said) for storm in storms) > least


def test_kills_lose_no_activation_whenever_it_comes(tmp_path: Path) -> None:
    """Between a remembered activation and its decision there is always a moment in which a process can die."""
    db, storms = tmp_path / "log.db", [Storm(seed) for seed in range(4)]
    for round_ in range(4):
        server = ServerProcess(db)
        if round_ == 0:
            with closing(server.client()) as client:
                client.apply(experiment("home", window=0.2))
        threads = [threading.Thread(target=storm.visit, args=(server.target,)) for storm in storms]
        for thread in threads:
            thread.start()
        time.sleep(0.4)
        until(partial(said_more_than, 8 * round_, storms), what="some were said")
        server.kill()
        for thread in threads:
            thread.join()
    server = ServerProcess(db)
    with closing(server.client()) as client:
        for storm in storms:
            storm.settle(client)
    assert server.terminate() == 0
    found = rows(db, "select d.decision_id, coalesce(a.action, d.action) from decisions d "
                     "left join activations a on a.decision = d.position")  # fmt: skip
    assert dict(found) == {id_: action for storm in storms for id_, action in storm.said.items()}
    assert rows(db, "select * from early_activations") == []
    with closing(open_reader(db)) as log:
        assert log.check(lambda _: None) == []
        checked = verify(log)
        assert checked.equal == checked.decisions == len(found) > 20


def test_a_call_that_is_given_up_while_others_commit_is_not_logged(tmp_path: Path) -> None:
    """Its thread waits for the commit of another one: the deadline that counts is looked at when its own begins."""
    opened = InProcessClient(tmp_path / "log.db", threads=8)
    try:
        opened.apply(experiment("e"))
        with closing(sqlite3.connect(opened.db, isolation_level=None)) as other:
            other.execute("begin immediate")
            busy = opened.future("Decide", pb.DecideRequest(experiment="e", unit_id="unit", decision_id="in-time"))
            time.sleep(0.3)  # its thread waits for the lock; each other call has a thread, which waits for that commit
            late = pb.DecideRequest(experiment="e", unit_id="unit", decision_id="late")
            patient = opened.future("Decide", pb.DecideRequest(experiment="e", unit_id="unit", decision_id="patient"))
            cancelled = opened.future("Decide", pb.DecideRequest(experiment="e", unit_id="u", decision_id="cancelled"))
            batch = pb.DecideBatchRequest(
                requests=[pb.DecideRequest(experiment="e", unit_id="u", decision_id=f"batch-{n}") for n in range(3)]
            )
            late_batch = opened.future("DecideBatch", batch, timeout=0.3)
            assert code_of(status_of(lambda: opened.call("DeciderService", "Decide", late, timeout=0.3))) == (
                "DEADLINE_EXCEEDED"
            )
            cancelled.cancel()
            time.sleep(0.3)
            other.execute("rollback")
        assert busy.result().decision_id == "in-time"
        assert patient.result().decision_id == "patient"
        assert code_of(status_of(late_batch.result)) == "DEADLINE_EXCEEDED"
        assert opened.rows("select decision_id from decisions order by 1") == [("in-time",), ("patient",)]
        assert opened.decide("e", decision_id="late").reason, "the id is free: a call with it counts"
        assert abandoned(opened) == {("Decide", "no"): 2.0, ("DecideBatch", "no"): 1.0}
    finally:
        opened.close()


def abandoned(client: InProcessClient) -> dict[tuple[str, str], float]:
    """The metric of that name, once both calls are over."""
    pattern = r'^decider_abandoned_calls_total\{done="(\w+)",grpc_method="(\w+)"\} (\S+)$'

    def read() -> dict[tuple[str, str], float]:
        found = re.findall(pattern, client.fetch("/metrics")[1], re.MULTILINE)
        return {(method, done): float(value) for done, method, value in found}

    return client.until(lambda: read() if sum(read().values()) >= 3 else None, what="all that gave up are counted")


def test_nothing_is_learned_as_shown_that_nobody_saw(tmp_path: Path) -> None:
    """A server that stands still answers too late: what its callers showed instead must be what the log teaches."""
    load = Load(calls=1_000, in_flight=50, deadline=0.2, stop_every=0.55, stopped=0.4, window=8.0)
    result = play(tmp_path / "log.db", load)
    print(words(result))
    assert (result.wrong, result.lost) == ([], [])
    assert len(result.fallbacks) > 20, "the server must have stood still"
    assert result.verification.equal == result.verification.decisions == len(result.sealed)
