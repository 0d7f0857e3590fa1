"""`simulator drive`: a world's visitors against a live server, killed or stalled, and what was sent against the log."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import grpc
import numpy as np
import pytest
from click.testing import CliRunner, Result
from google.rpc import status_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from decider.experiment.schema import to_message
from decider.log.open import open_reader
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from decider.v1.decider_service_pb2_grpc import DeciderServiceServicer, add_DeciderServiceServicer_to_server
from simulator.commands.group import main
from simulator.drive import calls, live
from simulator.drive.calls import Unanswered
from simulator.drive.earnings import measure
from simulator.drive.example import example_result
from simulator.drive.kills import moments
from simulator.drive.latency import CURVE, percentiles
from simulator.drive.ledger import Ledger
from simulator.drive.live import Options
from simulator.drive.plan import BadDrive, Plan, Shares, fates, lanes, plan, unweighted
from simulator.drive.reconcile import Reconciliation, reconcile
from simulator.drive.schedule import Schedule
from simulator.drive.send import Drive
from simulator.drive.target import apply
from simulator.load_policy import BadPolicy
from simulator.report.drive import calls_of
from simulator.report.pages.drive import write_drive_report
from simulator.report.plots.drive import latencies
from simulator.run.policies import served_experiment, with_policy
from simulator.verify import verify
from simulator.worlds.registry import find, names
from tests.browser import UNDRAWN, Browser, assert_readable
from tests.rpc_clients import InProcessClient, ServerProcess, rows, until

NOTHING = Shares(0, 0, 0, 0)
SURE = NormalDist().inv_cdf(1 - 1e-7)
"""Standard errors that a share leaves once in ten million runs."""


def planned(name: str = "storefront", *, visitors: int = 200, window: float = 1.0, **given: Any) -> Plan:
    """A small plan of a world's visitors."""
    world = find(name)
    return plan(world, world.experiment, run="test", visitors=visitors, seed=3, window=window, **given)


def likely(count: int, trials: int, share: float) -> bool:
    """Whether a binomial count is within SURE standard errors."""
    return abs(count - trials * share) <= SURE * math.sqrt(trials * share * (1 - share)) + 1


# What is planned


def test_shares_of_lost_late_duplicate_and_reordered_rewards_come_out() -> None:
    """What the options say is what the server meets."""
    shares = Shares(lost=0.1, late=0.2, duplicate=0.3, reordered=0.4)
    found = fates(np.full(50_000, 0.1), seed=5, window=1.0, shares=shares)
    sent = int((~found.lost).sum())
    assert likely(int(found.lost.sum()), 50_000, 0.1)
    assert likely(int(found.late.sum()), 50_000, 0.2)
    assert likely(int(found.duplicate.sum()), sent, 0.3)
    assert likely(int(found.reordered.sum()), sent, 0.4)
    assert not (found.lost & (found.late | found.duplicate | found.reordered)).any()
    assert (found.after[found.late] > 1.0).all()
    assert (found.after[~found.late & ~found.reordered] == 0.1).all()
    assert (found.after[found.reordered & ~found.late] > 0.1).all(), "held back, so that later ones overtake them"


def test_equal_arguments_give_equal_plans() -> None:
    """Two drives with one seed are to meet the same visitors and the same fates."""
    one, other = planned(visitors=300), planned(visitors=300)
    assert (one.visits.rewards == other.visits.rewards).all()
    assert (one.fates.after == other.fates.after).all()
    assert (one.fates.lost == other.fates.lost).all()
    assert (one.fates.after != planned(visitors=300, shares=NOTHING).fates.after).any()


@pytest.mark.parametrize("name", ["storefront", "email", "asking"])
@pytest.mark.parametrize("clients", [1, 3, 8])
def test_every_round_is_in_one_lane_and_a_units_rounds_in_order(name: str, clients: int) -> None:
    """A visitor who was asked must have answered before coming back; a round in no lane would never be sent."""
    made = planned(name, visitors=1_100, clients=clients)
    found = lanes(made)
    assert len(found) == clients
    assert sorted(number for lane in found for call in lane for number in call) == list(range(1_100))
    for lane in found:
        numbers = [number for call in lane for number in call]
        assert numbers == sorted(numbers)
        assert all(len(call) <= made.world.batch for call in lane)
    if made.world.batch == 1:
        units = [{int(made.visits.units[number]) for call in lane for number in call} for lane in found]
        assert sum(map(len, units)) == len(set(made.visits.units.tolist()))


def test_large_batches_are_sent_in_calls_that_the_server_takes() -> None:
    """DecideBatch refuses more than 1,000."""
    made = planned("storefront", visitors=2_500)
    wide = replace(made, world=replace(made.world, batch=2_200))
    assert [len(call) for lane in lanes(wide) for call in lane] == [1_000, 1_000, 200, 300]


@given(st.floats(-50, 50), st.floats(0.001, 1_000), st.floats(0.0, 1.0))
def test_a_value_times_its_weight_is_worth_what_it_was_and_in_the_range(
    edge: float, weight: float, part: float
) -> None:
    """A reward at the edge of the range must not be refused for a rounding error."""
    low, high = sorted((edge, edge + 1.0))
    for worth in (low, high, low + part * (high - low)):
        value = unweighted(worth, weight, minimum=low, maximum=high)
        assert low <= value * weight <= high
        assert value * weight == pytest.approx(worth, rel=1e-12, abs=1e-300)


def test_at_a_fixed_rate_the_window_holds_as_many_visits_as_in_the_world() -> None:
    """The policy learns as late, counted in visits, as it does in `simulator run`."""
    world = find("storefront")
    made = plan(world, world.experiment, run="test", visitors=1, seed=1, rate=400.0)
    visits = world.experiment.reward.window / 1e6 * world.traffic
    assert made.window * 400 == pytest.approx(visits)
    assert made.scale == pytest.approx(made.window / (world.experiment.reward.window / 1e6))


@given(st.integers(1, 10_000), st.integers(0, 20), st.integers(0, 100))
def test_kills_fall_into_the_midst_of_a_drive(visitors: int, times: int, seed: int) -> None:
    """A kill before the first or after the last call would test nothing."""
    found = moments(visitors, times, seed=seed)
    assert found == sorted(found)
    assert len(found) == times
    assert all(visitors // 20 <= moment <= visitors - visitors // 20 for moment in found)


def test_shares_that_do_not_go_together_are_refused() -> None:
    """A reward cannot be lost and late."""
    with pytest.raises(BadDrive, match="at most 1 in all"):
        planned(shares=Shares(lost=0.6, late=0.6))


@given(st.lists(st.floats(0, 100), min_size=1, max_size=300))
def test_percentiles_are_calls_that_were_measured(seconds: list[float]) -> None:
    """p99 is the least latency that 99 % of the calls did not exceed: no interpolation between two calls."""
    found = percentiles(array("d", seconds))
    assert found is not None
    for value, share in ((found.p50, 0.5), (found.p90, 0.9), (found.p99, 0.99), (found.p99_9, 0.999), (found.max, 1)):
        assert value in seconds
        assert sum(one <= value for one in seconds) >= share * len(seconds) - 1e-6
        assert sum(one < value for one in seconds) < share * len(seconds)
    assert percentiles(array("d")) is None


def test_a_schedule_gives_rewards_when_they_are_due_and_ends() -> None:
    """Too early is a wrong delay; a sender that waits for a reward that was dropped would keep a drive from its end."""
    schedule, start = Schedule(), time.monotonic()
    schedule.put(start + 0.2, 2)
    schedule.put(start + 0.1, 1)
    assert [number for _, number in schedule.take(1)] == [1]
    assert time.monotonic() >= start + 0.1
    schedule.drop()
    schedule.put(start + 1e9, 3)
    assert schedule.take(10) == []


# Servers that do what ours must not


class Stub(DeciderServiceServicer):
    """Always the first action; rewards joined. Tests change what they need."""

    def Decide(self, request: pb.DecideRequest, _context: Any) -> pb.DecideResponse:
        """The first action of the storefront."""
        return pb.DecideResponse(
            decision_id=request.decision_id, action=pb.DecidedAction(id="new-arrivals"), propensity=0.5
        )

    def Reward(self, _request: pb.RewardRequest, _context: Any) -> pb.RewardResponse:
        """Joined."""
        return pb.RewardResponse(outcome=pb.REWARD_OUTCOME_JOINED)

    def RewardBatch(self, request: pb.RewardBatchRequest, context: Any) -> pb.RewardBatchResponse:
        """One by one."""
        return pb.RewardBatchResponse(
            results=[pb.RewardResult(response=self.Reward(one, context)) for one in request.requests]
        )


@contextmanager
def serving(stub: Stub) -> Iterator[str]:
    """HOST:PORT of a server that is this stub."""
    server = grpc.server(ThreadPoolExecutor(8))
    add_DeciderServiceServicer_to_server(stub, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def driven(stub: Stub, made: Plan, **options: float) -> Drive:
    """A drive against a stub, over."""
    with serving(stub) as target:
        drive = Drive(made, target, **options)
        drive.run()
    return drive


class Stalls(Stub):
    """Does not answer for a while in the midst."""

    def __init__(self, *, at: int, seconds: float) -> None:
        self._at, self._seconds, self._calls = at, seconds, 0

    def Decide(self, request: pb.DecideRequest, context: Any) -> pb.DecideResponse:
        """Sleeps once."""
        self._calls += 1
        if self._calls == self._at:
            time.sleep(self._seconds)
        return super().Decide(request, context)


def test_at_a_fixed_rate_all_who_wait_are_counted() -> None:
    """With one client, a stall of 0.6 s delays all the calls that were due in it. A client that measured from sending
    would call one of them slow: coordinated omission."""
    made = planned(visitors=100, rate=200.0, clients=1, shares=NOTHING, window=0.2)
    drive = driven(Stalls(at=20, seconds=0.6), made)
    slow = [seconds for seconds in drive.ledger.calls["decide"].seconds if seconds > 0.3]
    assert len(slow) >= 0.3 * 200 - 1, "all that were due in the first half of the stall waited longer than the rest"
    closed = driven(Stalls(at=20, seconds=0.6), planned(visitors=100, clients=1, shares=NOTHING, window=0.2))
    assert len(closed.ledger.calls["decide"].seconds) == 100
    assert sum(seconds >= 0.6 for seconds in closed.ledger.calls["decide"].seconds) == 1


def test_nobody_is_sent_before_the_time() -> None:
    """A fixed rate is never exceeded, and everybody is sent although the server stalls."""
    made = planned(visitors=120, rate=300.0, window=0.2)
    drive = driven(Stalls(at=5, seconds=0.3), made)
    assert drive.ledger.acknowledged == 120
    assert drive.ledger.last - drive.ledger.started >= 119 / 300
    assert drive.ledger.rate <= 120 / (119 / 300)


class Forgets(Stub):
    """Acknowledges decisions that it does not keep."""

    def Reward(self, _request: pb.RewardRequest, context: Any) -> pb.RewardResponse:
        """No such decision."""
        raise context.abort(grpc.StatusCode.NOT_FOUND, "there is no such decision")

    def RewardBatch(self, request: pb.RewardBatchRequest, _context: Any) -> pb.RewardBatchResponse:
        """None of them."""
        error = status_pb2.Status(code=grpc.StatusCode.NOT_FOUND.value[0])
        return pb.RewardBatchResponse(results=[pb.RewardResult(error=error) for _ in request.requests])


@pytest.mark.parametrize(
    ("stub", "shares", "kind"),
    [(Forgets, NOTHING, "lost"), (Stub, Shares(0, 0, 1, 0), "doubled")],
    ids=["forgets decisions", "counts duplicates"],
)
def test_broken_promises_show_in_the_answers_alone(stub: type[Stub], shares: Shares, kind: str) -> None:
    """Without the log's file there are only the answers; they can still contradict each other."""
    made = planned(visitors=150, window=0.2, shares=shares)
    drive = driven(stub(), made)
    found = reconcile(made, drive.ledger, None)
    assert live.count_fates(made, drive.ledger).happened > 0
    assert getattr(found, kind) == live.count_fates(made, drive.ledger).happened
    assert not found.clean
    assert found.log == ""


class Refuses(Stub):
    """Takes some decisions, then none."""

    def __init__(self) -> None:
        self._left = 30

    def Decide(self, request: pb.DecideRequest, context: Any) -> pb.DecideResponse:
        """Paused, after a while."""
        self._left -= 1
        if self._left < 0:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the experiment is paused")
        return super().Decide(request, context)


def test_a_refusal_ends_the_drive_and_says_why() -> None:
    """It would be refused again: trying for ever helps nobody; what was sent is still compared."""
    made = planned(visitors=500, window=0.2)
    drive = driven(Refuses(), made)
    assert "FAILED_PRECONDITION: the experiment is paused" in str(drive.failure)
    assert drive.ledger.acknowledged == 30
    assert reconcile(made, drive.ledger, None).clean


class Flickers(Stub):
    """Every third call fails after it was carried out."""

    def __init__(self) -> None:
        self._lock, self._calls = threading.Lock(), 0
        self._stored: set[str] = set()

    def _perhaps(self, context: Any) -> None:
        with self._lock:
            self._calls += 1
            failing = self._calls % 3 == 0
        if failing:
            context.abort(grpc.StatusCode.UNAVAILABLE, "try again")

    def Decide(self, request: pb.DecideRequest, context: Any) -> pb.DecideResponse:
        """See the class."""
        self._perhaps(context)
        return super().Decide(request, context)

    def RewardBatch(self, request: pb.RewardBatchRequest, context: Any) -> pb.RewardBatchResponse:
        """See the class; the outcomes are as ours would say them."""
        results = [pb.RewardResult(response=self._once(one)) for one in request.requests]
        self._perhaps(context)
        return pb.RewardBatchResponse(results=results)

    def Reward(self, request: pb.RewardRequest, context: Any) -> pb.RewardResponse:
        """See the class."""
        outcome = self._once(request)
        self._perhaps(context)
        return outcome

    def _once(self, request: pb.RewardRequest) -> pb.RewardResponse:
        known = request.decision_id in self._stored
        self._stored.add(request.decision_id)
        return pb.RewardResponse(outcome=pb.REWARD_OUTCOME_DUPLICATE if known else pb.REWARD_OUTCOME_JOINED)


def test_what_has_no_answer_is_sent_again_until_it_has_one() -> None:
    """An error is no loss: the same ids make the second attempt harmless, and a `duplicate` then is right."""
    made = planned(visitors=150, window=0.2, shares=NOTHING)
    drive = driven(Flickers(), made)
    assert drive.failure is None
    assert drive.ledger.acked.all()
    assert drive.ledger.errors.by_status["UNAVAILABLE"] > 0
    found = reconcile(made, drive.ledger, None)
    assert found.clean
    assert found.rewards.sent == found.rewards.acknowledged == live.count_fates(made, drive.ledger).happened


class Never(Stub):
    """Is not available."""

    def Decide(self, _request: pb.DecideRequest, context: Any) -> pb.DecideResponse:
        """Never."""
        raise context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")


def test_patience_has_an_end() -> None:
    """A server that does not come back is not waited for until somebody looks."""
    drive = driven(Never(), planned(visitors=20), patience=0.2)
    assert "UNAVAILABLE: not yet; no answer for 0.2 s" in str(drive.failure)
    assert drive.ledger.errors.by_status["UNAVAILABLE"] >= 2
    assert drive.ledger.acknowledged == 0
    assert measure(drive.plan, drive.ledger, seed=1) is None


def test_one_failed_request_of_a_batch_is_a_failed_call() -> None:
    """Its status is inside a reply that is itself in order."""
    error = status_pb2.Status(code=grpc.StatusCode.UNAVAILABLE.value[0], message="log busy")

    class Batch:
        """A stub of a stub."""

        def DecideBatch(self, _request: Any, timeout: float) -> pb.DecideBatchResponse:  # noqa: ARG002
            """One of two."""
            return pb.DecideBatchResponse(
                results=[pb.DecideResult(response=pb.DecideResponse()), pb.DecideResult(error=error)]
            )

    with pytest.raises(Unanswered, match="UNAVAILABLE: log busy") as failed:
        calls.decide(Batch(), [pb.DecideRequest(), pb.DecideRequest()])
    assert failed.value.again


# A real server


@pytest.mark.parametrize(
    ("name", "kills", "visitors"), [("storefront", 2, 900), ("email", 1, 2_000), ("asking", 1, 700)]
)
def test_a_killed_server_loses_nothing_doubles_nothing_and_replays(
    tmp_path: Path, name: str, kills: int, visitors: int
) -> None:
    """The whole promise, over a plain world, a batch world and one in which visitors come back with answers."""
    db = tmp_path / "drive.db"
    options = Options(serve=db, kills=kills, visitors=visitors, window=0.5, shares=Shares(0.1, 0.1, 0.3, 0.3))
    told: list[str] = []
    result = live.drive(find(name), options, note=told.append)
    found = result.reconciliation
    assert (found.lost, found.doubled, found.different, found.examples) == (0, 0, 0, ())
    assert found.decisions.sent == found.decisions.acknowledged == found.decisions.logged == visitors
    assert found.rewards.acknowledged == found.rewards.logged > 0
    assert result.rewards.happened == found.rewards.sent + result.rewards.lost
    assert len(result.kills) == kills
    assert result.errors
    assert result.ended == ""
    assert rows(db, "select count(*) from decisions") == [(visitors,)]
    assert rows(db, "select count(*) from builds") == [(1 + kills,)], "it was started again after every kill"
    assert rows(db, "select (select count(*) from decisions) = (select count(*) from sealed_decisions)") == [(1,)]
    log = open_reader(db)
    verification = verify(log)
    assert (verification.equal, verification.decisions, verification.first) == (visitors, visitors, None)
    log.close()
    assert any(name in line for line in told)
    assert result.earned is not None
    assert result.earned.uniform < result.earned.best
    assert result.earned.regret == pytest.approx(result.earned.best - result.earned.earned)
    if name == "asking":
        known = rows(db, "select count(*) from decisions where features like '%taste%'")
        assert known[0][0] > 0, "who has answered is known later"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessClient]:
    """One server for several drives; ids do not collide."""
    client = InProcessClient(tmp_path_factory.mktemp("drive") / "log.db")
    yield client
    client.close()


@pytest.mark.parametrize("name", names())
def test_every_world_can_be_driven(server: InProcessClient, name: str) -> None:
    """Its contexts, eligible actions, reward names and values are what a server takes."""
    world = find(name)
    made = plan(world, world.experiment, run=f"every-{name}", visitors=150, seed=1, window=0.1)
    apply(server.target, to_message(made.experiment))
    drive = Drive(made, server.target)
    drive.run()
    assert drive.failure is None
    assert drive.ledger.acked.all()
    with closing(open_reader(server.db)) as log:
        assert reconcile(made, drive.ledger, log).clean


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[InProcessClient]:
    """A server that nobody has driven before."""
    client = InProcessClient(tmp_path / "log.db")
    yield client
    client.close()


def test_a_changed_policy_is_driven_once_it_serves(fresh: InProcessClient) -> None:
    """What ran before would be measured otherwise."""
    world = find("storefront")
    for policy in ("default", "softmax"):
        message = to_message(with_policy(policy, world.experiment) or world.experiment)
        message.reward.window.FromMilliseconds(50)
        served = apply(fresh.target, message).applied
        assert fresh.get(world.experiment.id).version == served.version
        for number in range(30):
            fresh.decide(world.experiment.id, f"{policy}-{number}")
    assert served.version == 2


@pytest.fixture(scope="module")
def finished(server: InProcessClient) -> tuple[Plan, Ledger, Path]:
    """A drive with many rewards, and its log."""
    world = find("storefront")
    shares = Shares(lost=0.1, late=0.2, duplicate=0.3, reordered=0.2)
    made = plan(world, world.experiment, run="whole", visitors=800, seed=2, window=0.6, shares=shares)
    apply(server.target, to_message(made.experiment))
    drive = Drive(made, server.target)
    drive.run()
    assert drive.failure is None
    return made, drive.ledger, server.db


def check(finished: tuple[Plan, Ledger, Path], db: Path) -> Reconciliation:
    """Against a log of one's choice."""
    made, ledger, _ = finished
    with closing(open_reader(db)) as log:
        return reconcile(made, ledger, log)


def test_what_happens_to_rewards_is_what_was_planned(finished: tuple[Plan, Ledger, Path]) -> None:
    """Each share within a binomial bound, and the log agrees with it."""
    made, ledger, db = finished
    fate = live.count_fates(made, ledger)
    assert likely(fate.lost, fate.happened, 0.1)
    assert likely(fate.late, fate.happened, 0.2)
    assert likely(fate.duplicate, fate.happened - fate.lost, 0.3)
    assert ledger.outcome_counts()["late"] >= fate.late
    assert ledger.outcome_counts()["duplicate"] == fate.duplicate
    joined = rows(db, "select count(*) from joined_rewards where decision_id like 'whole-%'")
    assert joined == [(fate.happened - fate.lost,)]


def test_a_whole_log_has_nothing_lost_or_doubled(finished: tuple[Plan, Ledger, Path]) -> None:
    """The check itself: what is in order passes."""
    found = check(finished, finished[2])
    assert found.clean
    assert (found.decisions.logged, found.lost, found.doubled, found.different) == (800, 0, 0, 0)


PICK = """
create temp view one as select min(position) as position from decisions where decision_id like 'whole-%';
create temp view rewarded as select min(r.position) as position from rewards r
  join decisions d on d.position = r.decision where d.decision_id like 'whole-%';
create temp view next as select max(position) + 1 as position from entries;
"""
AGAIN = """
insert into rewards select (select position from next), time, decision, name, value, weight, {}, null from rewards
where position = (select position from rewarded)
"""


@pytest.mark.parametrize(
    ("kind", "sql"),
    [
        ("lost", "delete from decisions where position = (select position from one)"),
        ("lost", "delete from rewards where position = (select position from rewarded)"),
        ("lost", "delete from refused_rewards"),
        ("doubled", AGAIN.format("'again'")),
        (
            "doubled",
            "insert into decisions select (select position from next), time, version, 'whole-0009999', "
            "unit_id, segment, device, channel, location, intent_stage, features, eligible, action_features, pmf, "
            "action, propensity, reason, model, build from decisions where position = (select position from one)",
        ),
        ("different", "update decisions set action = action || '-x' where position = (select position from one)"),
        ("different", "update decisions set propensity = propensity / 2 where position = (select position from one)"),
        ("different", "update decisions set unit_id = 'somebody' where position = (select position from one)"),
        ("different", "update decisions set device = 'fridge' where position = (select position from one)"),
        ("different", """update decisions set features = '{"x": 1}' where position = (select position from one)"""),
        ("different", """update decisions set eligible = '["sale"]' where position = (select position from one)"""),
        ("different", "update rewards set value = value + 1 where position = (select position from rewarded)"),
        (
            "different",
            "update rewards set time = time + 3600000000 where position = (select min(position) from joined_rewards "
            "where outcome = 'joined' and decision_id like 'whole-%')",
        ),
    ],
    ids=[
        "decision gone", "reward gone", "duplicates uncounted", "reward twice", "decision never sent",
        "other action", "other propensity", "other unit", "other device", "other features",
        "other eligible actions", "other value", "late, not joined",
    ],
)  # fmt: skip
def test_a_log_that_was_tampered_with_is_found_out(
    finished: tuple[Plan, Ledger, Path], tmp_path: Path, kind: str, sql: str
) -> None:
    """A check that cannot fail proves nothing."""
    copy = tmp_path / "copy.db"
    with closing(sqlite3.connect(finished[2])) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
        target.executescript(PICK)
        assert target.execute(sql).rowcount > 0
        target.commit()
    found = check(finished, copy)
    assert getattr(found, kind) >= 1
    assert not found.clean
    assert any(example.startswith(kind) for example in found.examples)


def test_a_reward_that_the_log_holds_twice_is_doubled(finished: tuple[Plan, Ledger, Path], tmp_path: Path) -> None:
    """As it would be without the unique key."""
    copy = tmp_path / "copy.db"
    with closing(sqlite3.connect(finished[2])) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
        target.executescript(f"{PICK} drop index rewards_once")
        target.execute(AGAIN.format("reward_id"))
        target.commit()
    assert check(finished, copy).doubled == 1


def test_what_was_earned_is_the_mean_of_the_drawn_actions(finished: tuple[Plan, Ledger, Path]) -> None:
    """Computed once more, decision by decision, from the log."""
    made, ledger, db = finished
    found = measure(made, ledger, seed=2)
    assert found is not None
    means = made.visits.means
    logged = rows(db, "select decision_id, action from decisions where decision_id like 'whole-%'")
    worth = [
        means[made.visits.seen[int(id_.rpartition("-")[2])], made.world.actions.index(action)] for id_, action in logged
    ]
    assert found.earned == pytest.approx(sum(worth) / len(worth))
    assert found.best == pytest.approx(means.max(axis=1)[made.visits.seen].mean())
    assert found.uniform <= found.fixed <= found.best
    assert found.share == pytest.approx((found.earned - found.uniform) / (found.best - found.uniform))


def run(*arguments: str) -> Result:
    """`simulator drive ...`."""
    return CliRunner().invoke(main, ["drive", *arguments], env={"COLUMNS": "120"})


def test_the_command_reconciles_with_the_log_it_is_given(fresh: InProcessClient, tmp_path: Path) -> None:
    """The whole way; a second drive of other content applies a version and warns, and its ids do not collide."""
    file = tmp_path / "drive.json"
    common = ("push", "--target", fresh.target, "--visitors", "200", "--window", "0.4")
    first = run(*common, "--db", str(fresh.db), "--json", str(file))
    assert first.exit_code == 0, first.output
    assert "lost 0, doubled 0, different 0" in first.output
    told = json.loads(file.read_text())
    assert told["reconciliation"]["decisions"] == {"sent": 200, "acknowledged": 200, "logged": 200}
    assert told["decide"]["calls"] == 200
    assert {"earned", "regret", "share", "best", "uniform", "fixed"} <= told["earned"].keys()
    second = run(*common, "--db", str(fresh.db), "--policy", "epsilon_greedy:epsilon=0.3")
    assert second.exit_code == 0, second.output
    assert "has applied version 2" in second.output
    assert "has 200 decisions of push already" in second.output
    assert rows(fresh.db, "select count(*) from decisions where version in (select position from experiments "
                           "where experiment = 'push')") == [(400,)]  # fmt: skip
    blind = run(*common, "--rate", "2000")
    assert blind.exit_code == 0, blind.output
    assert "the log itself was not read" in blind.output
    assert "of 2,000 wanted" in blind.output


def test_another_servers_log_is_not_taken_for_its_own(server: InProcessClient, tmp_path: Path) -> None:
    """All would be lost, and the server would be blamed for it."""
    other = InProcessClient(tmp_path / "other.db")
    other.close()
    result = run("rare", "--target", server.target, "--visitors", "5", "--db", str(tmp_path / "other.db"))
    assert result.exit_code == 2
    assert "it is not the log of" in result.output
    missing = run("rare", "--target", server.target, "--visitors", "5", "--db", str(tmp_path / "none.db"))
    assert (missing.exit_code, "there is no such log" in missing.output) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("storefront", "--target", "127.0.0.1:1"), "Start one: decider serve --listen 127.0.0.1:1"),
        (("storefront",), "either --target HOST:PORT or --serve"),
        (("storefront", "--target", "127.0.0.1:1", "--kills", "1"), "--serve LOG.db instead"),
        (("storefront", "--serve", "a.db", "--db", "a.db"), "leave --db out"),
        (("storefront", "--target", "http://localhost:1"), "is not HOST:PORT"),
        (("storefront", "--target", "127.0.0.1:99999"), "a port is 1 to 65535"),
        (("open-bandit", "--target", "127.0.0.1:99999"), "a port is 1 to 65535"),
        (("storefront", "--serve", "gone/a.db"), "gone/a.db.log: cannot be written (No such file or directory)"),
        (("storefront", "--serve", "a.db", "--json", "a.db"), "--json a.db: is the log itself"),
        (("storefront", "--target", "127.0.0.1:1", "--db", "a.db", "--json", "a.db"), "--json a.db: is the log itself"),
        (("storefront", "--serve", "a.db", "--rate", "nan"), "'--rate': 'nan' is no finite number"),
        (("storefront", "--serve", "a.db", "--rate", "inf"), "'--rate': 'inf' is no finite number"),
        (("storefront", "--serve", "a.db", "--rate", "1e-9"), "--rate 1e-09: the window would last 1.2e+12 s"),
        (("storefront", "--serve", "a.db", "--window", "nan"), "'--window': 'nan' is no finite number"),
        (("storefront", "--serve", "a.db", "--late", "nan"), "'--late': 'nan' is no finite number"),
        (("storefront", "--serve", "a.db", "--visitors", "100000000"), "'--visitors': 100000000 is not in the range"),
        (("storefront", "--target", "127.0.0.1:1", "--policy", "best"), "no server can serve it"),
        (("storefront", "--target", "127.0.0.1:1", "--lost", "0.7", "--late", "0.7"), "at most 1 in all"),
        (("storfront", "--target", "127.0.0.1:1"), "did you mean storefront"),
    ],
)
def test_what_cannot_be_driven_is_one_line_with_the_way_out(arguments: tuple[str, ...], words: str) -> None:
    """Before anything is sent."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert words in result.output
    assert "Traceback" not in result.output


def test_a_wrong_log_is_refused_before_the_server_is_changed(fresh: InProcessClient, tmp_path: Path) -> None:
    """Who mistypes a path must not find another experiment running."""
    result = run("rare", "--target", fresh.target, "--visitors", "5", "--db", str(tmp_path / "none.db"))
    assert (result.exit_code, "there is no such log" in result.output) == (2, True)
    assert rows(fresh.db, "select count(*) from experiments where experiment = 'rare'") == [(0,)]


def drive_twice(fresh: InProcessClient, *more: str) -> tuple[experiment_pb2.Experiment, str]:
    """What runs after a drive of a server with a control group, and what the command said."""
    world = replace(find("rare").experiment, holdout=0.4, salt="spring", description="ours")
    apply(fresh.target, to_message(world))
    result = run("rare", "--target", fresh.target, "--visitors", "60", "--window", "0.1", *more)
    assert result.exit_code == 0, result.output
    return fresh.get("rare").experiment, " ".join(result.output.split())


def test_a_drive_keeps_the_control_group_of_what_runs(fresh: InProcessClient) -> None:
    """Whoever tries the product's own control group must not lose it to the trial, nor its units to another salt."""
    runs, said = drive_twice(fresh)
    assert (runs.holdout, runs.salt) == (0.4, "spring")
    assert "rare: 0.4 of the units are the control group, as before" in said
    assert 'this drive has applied version 2: description ours -> "", reward.window' in said
    assert fresh.rows("select count(*) > 0 from decisions where reason = 'HOLDOUT'") == [(1,)]
    assert fresh.get("rare").note == "simulator drive rare"


def test_a_drive_has_the_control_group_that_it_is_told(fresh: InProcessClient) -> None:
    """None at all, too."""
    for share in ("0", "0.75"):
        runs, said = drive_twice(fresh, "--holdout", share)
        assert runs.holdout == float(share)
        assert f"rare: {share} of the units are the control group rare:" in said


def test_another_servers_output_is_kept(tmp_path: Path) -> None:
    """A drive of a log that is in use is refused; what the server that uses it has said is still there."""
    process = ServerProcess(tmp_path / "log.db")
    try:
        output = tmp_path / "log.db.log"
        output.write_text("said before\n", encoding="utf-8")
        result = run("storefront", "--serve", str(process.db), "--visitors", "5")
    finally:
        process.kill()
    assert result.exit_code == 2
    assert "another server writes this log" in result.output
    assert output.read_text(encoding="utf-8").startswith("said before\n")


def test_the_help_lists_every_world() -> None:
    """It is how people find them."""
    output = run("--help").output
    assert all(re.search(rf"^  {name} ", output, re.MULTILINE) for name in ("storefront", "email", "open-bandit"))


def test_only_policies_that_a_server_can_serve_are_applied() -> None:
    """`best` knows the world; a server does not."""
    world = find("storefront")
    assert served_experiment("fixed:sale", world).baseline == "sale"
    assert served_experiment("fixed:sale", world).policy.algorithm == "fixed"
    assert served_experiment("uniform", world).policy.algorithm == "uniform"
    for name in ("best", "fixed:nothing", "module:factory"):
        with pytest.raises(BadPolicy):
            served_experiment(name, world)


def test_ctrl_c_ends_with_what_was_sent(tmp_path: Path) -> None:
    """Nobody waits for the rest; what was acknowledged up to then is still compared, and the server is not left."""
    db, errors = tmp_path / "drive.db", tmp_path / "errors"
    command = [sys.executable, "-m", "simulator.cli", "drive", "storefront", "--serve", str(db), "--rate", "150"]
    with errors.open("wb") as file:
        process = subprocess.Popen([*command, "--visitors", "20000"], stdout=subprocess.PIPE, stderr=file, text=True)
    try:
        until(lambda: db.exists() and _decided(db) > 50, what="visitors are sent")
        os.kill(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    finally:
        process.terminate()  # it ends its server, too; does nothing after the end
    assert process.returncode == 130, errors.read_text()
    assert "lost 0, doubled 0, different 0" in output
    assert "interrupted" in errors.read_text()
    assert "Traceback" not in errors.read_text()
    assert Path(f"{db}.log").read_text().rstrip().endswith("stopped"), "the drive's own server was drained"


def _decided(db: Path) -> int:
    try:
        return int(rows(db, "select count(*) from decisions")[0][0])
    except sqlite3.OperationalError:  # not made yet
        return 0


def test_a_server_that_sleeps_costs_time_and_no_visitor(tmp_path: Path) -> None:
    """A paused process answers late, not wrongly."""
    process = ServerProcess(tmp_path / "log.db")
    made = planned(visitors=150, rate=150.0, window=0.5)
    try:
        apply(process.target, to_message(made.experiment))
        drive = Drive(made, process.target)
        drive.run(alongside=[_sleeps(process)])
        assert drive.failure is None
        with closing(open_reader(process.db)) as log:
            assert reconcile(made, drive.ledger, log).clean
        assert max(drive.ledger.calls["decide"].seconds) >= 0.5
        assert drive.ledger.acked.all()
    finally:
        process.kill()


def _sleeps(process: ServerProcess) -> Callable[[Drive], None]:
    def sleep(drive: Drive) -> None:
        drive.wait_until(lambda: drive.ledger.acknowledged >= 20)
        os.kill(process.process.pid, signal.SIGSTOP)
        time.sleep(0.6)
        os.kill(process.process.pid, signal.SIGCONT)

    return sleep


# The page


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's page, with names that would like to be scripts."""
    hostile = "<script>document.title='taken'</script>"
    told = replace(example_result().reconciliation, log=hostile, lost=1, examples=(f"lost: {hostile}",))
    result = replace(example_result(), policy=hostile, ended=hostile, reconciliation=told)
    return write_drive_report(result, tmp_path_factory.mktemp("page") / "new")


def test_the_command_writes_a_page(fresh: InProcessClient, tmp_path: Path) -> None:
    """What it says is what the terminal says; the whole distribution is in the JSON, too."""
    file, folder = tmp_path / "drive.json", tmp_path / "page"
    told = run(
        "rare",
        "--target",
        fresh.target,
        "--visitors",
        "50",
        "--window",
        "0.2",
        "--json",
        f"{file}",
        "--report",
        f"{folder}",
    )
    assert told.exit_code == 0, told.output
    assert f"Report: {folder / 'index.html'}" in told.output
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert "lost 0, doubled 0, different 0" in text
    assert "the log itself was not read" in text
    curve = json.loads(file.read_text(encoding="utf-8"))["decide"]["curve"]
    assert len(curve) == len(CURVE)
    assert curve == sorted(curve)


def test_a_drive_without_an_answer_has_a_page(tmp_path: Path) -> None:
    """It is when nothing worked that somebody looks."""
    nothing = replace(example_result(), decide=None, reward=None, earned=None, ended="no answer")
    assert "no answer" in write_drive_report(nothing, tmp_path).read_text(encoding="utf-8")
    assert [file.name for file in tmp_path.iterdir()] == ["index.html"]


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=30))
@settings(max_examples=10, deadline=None)
def test_any_latencies_can_be_drawn(seconds: list[float]) -> None:
    """Also a single call, and one that took no time."""
    result = replace(example_result(), decide=percentiles(array("d", seconds)), reward=None)
    assert latencies(result, calls_of(result)).svg.startswith(b"<?xml")


def test_the_same_drive_gives_the_same_bytes(tmp_path: Path) -> None:
    """A page in version control changes only when its figures do."""
    for folder in (tmp_path / "a", tmp_path / "b"):
        write_drive_report(example_result(), folder)
    for name in ("index.html", "latency.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_browser_shows_the_page(chromium: Browser, page: Path) -> None:
    """The plot is decoded, nothing is cut off on a phone or a desk, by day or by night; names are text."""
    opened = chromium.page(page)
    assert opened.run("document.images.length") == 1
    assert opened.run(UNDRAWN) == []
    assert opened.run("document.querySelectorAll('#counts tbody tr').length") == 2
    assert opened.run("document.querySelectorAll('#percentiles tbody tr').length") == 2
    assert opened.run("document.querySelectorAll('#rewards tbody tr').length") == 4
    assert opened.run("document.title") == "A world driven against a live server: storefront"
    assert opened.run("document.scripts.length") == 0
    assert all(address.startswith(("file:", "data:")) for address in opened.requests)
    assert_readable(opened)


def test_runs_have_ids_of_their_own() -> None:
    """Two drives into one log must not answer each other's calls."""
    found = {live.new_run() for _ in range(50)}
    assert len(found) > 1
    assert all(re.fullmatch(r"[0-9a-f]+-[0-9a-f]{4}", one) for one in found)
