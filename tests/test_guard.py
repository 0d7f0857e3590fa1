"""The guard of learning: an outage of rewards is found, left out and over again; a season is none."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decider.estimate.outage import ALPHA, FLOOR, OutageTest, UsualShare, evidence
from decider.learn.bad_data import Note, in_force, take_back
from decider.learn.guard import AUTHOR
from decider.log.log_totals import LogTotals
from decider.log.open import open_log
from decider.log.protocol import EventLog, NewReward
from simulator.verify import verify
from tests.conftest import Clock, sample_experiment, spec
from tests.rpc_clients import GrpcClient, ServerProcess, experiment
from tests.test_relearn import simulator_verify
from tests.test_verify import HOME, Drive

# --- the test


@given(st.floats(1e-4, 1.0), st.floats(0, 1))
def test_the_evidence_is_fair_where_rewards_come(usual: float, part: float) -> None:
    """Its exponential has a mean of at most 1 at every share from the floor up, so alarms keep their rate."""
    share = usual * (FLOOR + part * (1 - FLOOR))
    mean = share * math.exp(evidence(usual, rewarded=True)) + (1 - share) * math.exp(evidence(usual, rewarded=False))
    assert mean <= 1 + 1e-12


def alarms(test: OutageTest, shares: Iterator[float], source: Random, *, holdout: float = 0.0) -> list[int]:
    """The decisions at which `missing` has changed. shares: of rewarded decisions; of all groups."""
    return [
        number
        for number, share in enumerate(shares)
        if test.add(number, rewarded=source.random() < share, holdout=source.random() < holdout) is not None
    ]


@pytest.mark.parametrize("usual", [0.02, 0.1, 0.4])
def test_an_outage_is_found_soon_and_its_end_too(usual: float) -> None:
    """ln(1 / ALPHA) / (FLOOR x share) decisions, by the module's word; the end after some rewards."""
    test = OutageTest(UsualShare.known(100_000, round(100_000 * usual)))
    expected = -math.log(ALPHA) / (FLOOR * usual)
    down, up = round(3 * expected), round(60 / usual)
    found = alarms(test, iter([usual] * 2000 + [0.0] * down + [usual] * up), Random(1))
    assert len(found) == 2
    assert expected / 2 < found[0] - 2000 < 1.5 * expected
    assert found[1] - 2000 - down < 20 / usual


def test_a_season_and_a_policy_that_learns_are_no_outage() -> None:
    """Six months of 3,000 decisions a day: the share falls to a fifth of its height each night, and drifts."""
    days = 180
    waves = (
        0.1 * (1 + 0.65 * math.sin(2 * math.pi * n / 3000)) * (1 + 0.3 * math.sin(2 * math.pi * n / 270_000))
        for n in range(days * 3000)
    )
    assert alarms(OutageTest(), waves, Random(2)) == []


def test_where_the_holdout_goes_on_earning_it_is_the_policy() -> None:
    """Then the model must learn that what it does earns nothing."""
    test, source = OutageTest(UsualShare.known(100_000, 10_000)), Random(3)
    for number in range(5000):
        holdout = source.random() < 0.1
        test.add(number, rewarded=holdout and source.random() < 0.1, holdout=holdout)
        assert not test.missing
    for number in range(5000, 7000):
        test.add(number, rewarded=False, holdout=source.random() < 0.1)
    assert test.missing


def test_nothing_is_told_before_enough_is_known() -> None:
    """A new experiment whose first rewards come late."""
    assert alarms(OutageTest(), iter([0.0] * 20_000 + [0.1] * 100), Random(4)) == []


# --- the guard of a log


def shop(log: EventLog, clock: Clock) -> Drive:
    """An experiment with a learning policy."""
    drive = Drive(log, clock)
    drive.apply(sample_experiment(policy=spec("squarecb")))
    return drive


def visit(drive: Drive, count: int, *, rewards: bool) -> None:
    """Visits; every second one earns, where rewards come."""
    for number in range(count):
        mark, _ = drive.decide(drive.request()._replace(eligible=(), excluded=()), HOME)
        if rewards and number % 2:
            drive.log.append([NewReward(mark.position, "click", 1.0)])
        drive.clock.advance(1)
        if number % 20 == 0:
            drive.step()


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Drive]:
    """On disk."""
    clock = Clock()
    with closing(open_log(tmp_path / "log.db", clock=clock)) as log:
        yield shop(log, clock)


def test_an_outage_is_left_out_and_learning_goes_on_by_itself(drive: Drive) -> None:
    """The model that serves afterwards has learned nothing from it, and the log replays."""
    visit(drive, 1000, rewards=True)
    begun = drive.log.head().time
    visit(drive, 300, rewards=False)
    (held,) = in_force(drive.log, HOME)
    assert (held.entry.author, held.entry.until) == (AUTHOR, None)
    assert list(drive.guard.held) == [HOME]
    back = drive.log.head().time
    visit(drive, 300, rewards=True)
    (left_out,) = in_force(drive.log, HOME)
    window = sample_experiment().reward.window
    assert begun - window <= left_out.entry.after <= begun + 2 * window
    assert left_out.entry.until is not None
    assert back <= left_out.entry.until <= back + 2 * window
    assert not drive.guard.held
    result = verify(drive.log)
    assert result.equal == result.decisions > 1500
    sealed = drive.log.sealed_decisions(HOME, after=left_out.entry.after, until=left_out.entry.until)
    assert not any(one.rewards for one in sealed)


def test_a_process_that_starts_in_the_outage_goes_on_holding(drive: Drive) -> None:
    """The usual share is in the stored totals."""
    visit(drive, 1000, rewards=True)
    counted = LogTotals(drive.log)
    counted.catch_up()
    drive.log.store_totals(counted.checkpoint())
    visit(drive, 300, rewards=False)
    drive.restart()
    visit(drive, 30, rewards=False)
    assert list(drive.guard.held) == [HOME]
    visit(drive, 200, rewards=True)
    assert not drive.guard.held
    assert len(drive.log.leave_outs(HOME)) == 2


def test_what_a_person_takes_back_is_not_held_again(drive: Drive) -> None:
    """Sales are over for the season: the person knows better."""
    visit(drive, 1000, rewards=True)
    visit(drive, 300, rewards=False)
    (held,) = in_force(drive.log, HOME)
    take_back(drive.log, HOME, held.position, note=Note("Ada", "the sale is over"))
    visit(drive, 500, rewards=False)
    assert in_force(drive.log, HOME) == []
    assert not drive.guard.held
    assert verify(drive.log).first is None


# --- a real server


def test_a_server_says_that_it_holds_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    """In /readyz, in a metric and in its output; SIGKILL in the middle."""
    db = tmp_path / "log.db"
    options = ("--learn-interval", "0.05")
    server = ServerProcess(db, *options)

    def visit(client: GrpcClient, count: int, *, rewards: bool) -> None:
        for number in range(count):
            made = client.decide("shop", f"u{number}")
            if rewards:
                client.reward(made.decision_id, name="click")

    try:
        with closing(server.client()) as client:
            client.apply(experiment("shop", "a", "b", window=2.0))
            visit(client, 400, rewards=True)
            visit(client, 300, rewards=False)
            client.until(lambda: "rewards are missing" in client.fetch("/readyz")[1] or None, what="it holds")
            assert client.fetch("/readyz")[0] == 200
            assert 'decider_learning_held{experiment="shop"} 1.0' in client.fetch("/metrics")[1]
            assert "experiment shop: rewards are missing, so nothing is learned" in server.output
        server.kill()
        server = ServerProcess(db, *options)
        with closing(server.client()) as client:
            visit(client, 100, rewards=True)
            client.until(lambda: len(client.rows("select * from leave_outs")) == 2 or None, what="it goes on")
            assert 'decider_learning_held{experiment="shop"} 0.0' in client.fetch("/metrics")[1]
        assert server.terminate() == 0
    finally:
        with suppress(ProcessLookupError):
            server.kill()
    assert "800 of 800" in simulator_verify(db)


def test_the_guard_can_be_switched_off(tmp_path: Path) -> None:
    """By one setting; then the model learns whatever comes."""
    server = ServerProcess(tmp_path / "log.db", "--learn-interval", "0.05", "--guard", "off")
    try:
        with closing(server.client()) as client:
            client.apply(experiment("shop", "a", "b", window=0.3))
            for one in [client.decide("shop", f"u{number}") for number in range(400)]:
                client.reward(one.decision_id, name="click")
            for number in range(300):
                client.decide("shop", f"v{number}")
            sealed = "select count(*) from sealed_decisions"
            client.until(lambda: client.rows(sealed) == [(700,)] or None, what="all sealed")
            assert client.rows("select * from leave_outs") == []
        assert server.terminate() == 0
    finally:
        with suppress(ProcessLookupError):
            server.kill()
