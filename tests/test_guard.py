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

from decider.estimate.outage import ALPHA, DAYS, FLOOR, LEAST, Lows, OutageTest, UsualShare, evidence
from decider.experiment.definition import RewardDefinition
from decider.experiment.origin import Origin
from decider.learn.bad_data import in_force, leave_out, take_back
from decider.learn.guard import AUTHOR, SOURCE
from decider.learn.usual_shares import by_day, known
from decider.log.log_totals import LogTotals
from decider.log.memory import MemoryLog
from decider.log.open import open_log
from decider.log.protocol import EventLog, LeaveOut, NewReward
from decider.log.totals import ALL, BEFORE, POLICY, LabelTotals
from decider.types import ExperimentId
from simulator.studies.guard import (
    FAULTS,
    MARKERS,
    SCENES,
    Fault,
    Scene,
    Store,
    false_holds,
    fault_line,
    found,
    report,
)
from simulator.studies.results import placed
from simulator.verify import verify
from tests.conftest import SECOND, Clock, sample_experiment, spec
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


def with_a_small_holdout(count: int) -> Iterator[tuple[bool, bool]]:
    """Whether a decision is of the holdout, and whether it is rewarded: 2 in 5 of the holdout, nobody else."""
    for number in range(count):
        holdout = number % 20 == 0
        yield holdout, holdout and number // 20 % 5 in (1, 3)


def test_a_small_holdout_that_earns_is_enough_to_tell() -> None:
    """Of all decisions next to none is rewarded then: without the holdout that is an outage."""
    test, blind = (OutageTest(UsualShare.known(100_000, 40_000)) for _ in range(2))
    for number, (holdout, rewarded) in enumerate(with_a_small_holdout(1000)):
        test.add(number, rewarded=rewarded, holdout=holdout)
        blind.add(number, rewarded=rewarded, holdout=False)
        assert not test.missing
    assert blind.missing


def test_an_outage_is_over_where_the_holdout_earns_again() -> None:
    """And the others do not: that is the policy, though next to none of all decisions is rewarded."""
    test, blind = (OutageTest(UsualShare.known(100_000, 40_000), missing=True) for _ in range(2))
    for number, (holdout, rewarded) in enumerate(with_a_small_holdout(500)):
        test.add(number, rewarded=rewarded, holdout=holdout)
        blind.add(number, rewarded=rewarded, holdout=False)
    assert not test.missing
    assert blind.missing


def test_an_outage_does_not_move_the_usual_share() -> None:
    """However long it is: else its end would not be found, and the next one neither."""
    test = OutageTest(UsualShare.known(100_000, 10_000), missing=True)
    assert alarms(test, iter([0.0] * 5000), Random(5)) == []
    assert test.missing
    assert test.share == UsualShare.known(100_000, 10_000)


def visits_and_a_crawler(test: OutageTest, share: float, *, crawls: float, seed: int, most: int = 20_000) -> int | None:
    """The decision at which an outage is found; share: of rewarded visits. A crawler makes the part `crawls` of all
    decisions, and gets no rewards. The others come from a thousand units."""
    source = Random(seed)
    for number in range(most):
        is_crawler = source.random() < crawls
        bucket = 0 if is_crawler else source.randrange(1, 1000)
        rewarded = not is_crawler and source.random() < share
        if test.add(number, rewarded=rewarded, holdout=False, bucket=bucket) is not None:
            return number
    return None


@pytest.mark.parametrize("crawls", [0.8, 0.95, 0.99])
def test_one_unit_is_no_outage_whatever_it_makes(crawls: float) -> None:
    """A crawler on the shop: decisions are counted by unit."""
    for seed in range(3):
        test = OutageTest(UsualShare.known(100_000, 10_000))
        assert visits_and_a_crawler(test, 0.1, crawls=crawls, seed=seed) is None
    alone = OutageTest(UsualShare.known(100_000, 10_000))
    assert visits_and_a_crawler(alone, 0.0, crawls=1.0, seed=0) is None, "nobody else came"


def test_many_units_are_found_as_soon_as_ever() -> None:
    """Each adds little. Beside a crawler, by what the others do."""
    known, expected = UsualShare.known(100_000, 10_000), -math.log(ALPHA) / (FLOOR * 0.1)
    found = visits_and_a_crawler(OutageTest(known), 0.0, crawls=0.0, seed=1)
    assert found is not None
    assert found < 1.2 * expected
    beside = visits_and_a_crawler(OutageTest(UsualShare.known(100_000, 10_000)), 0.0, crawls=0.5, seed=1)
    assert beside is not None
    assert beside < 3 * expected


def test_nothing_is_told_before_enough_is_known() -> None:
    """A new experiment whose first rewards come late."""
    assert alarms(OutageTest(), iter([0.0] * 20_000 + [0.1] * 100), Random(4)) == []


# --- the guard of a log


def shop(log: EventLog, clock: Clock) -> Drive:
    """An experiment with a learning policy."""
    drive = Drive(log, clock)
    drive.apply(sample_experiment(policy=spec("squarecb")))
    return drive


def visit(drive: Drive, count: int, *, rewards: bool, unit: str | None = None) -> None:
    """Visits; every second one earns, where rewards come. unit: that makes all of them."""
    for number in range(count):
        request = drive.request()._replace(eligible=(), excluded=())
        mark, _ = drive.decide(request._replace(unit_id=unit or request.unit_id), HOME)
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


def test_one_visitor_without_rewards_does_not_stop_learning(drive: Drive) -> None:
    """A crawler that comes a thousand times."""
    visit(drive, 1000, rewards=True)
    visit(drive, 300, rewards=False, unit="crawler")
    assert in_force(drive.log, HOME) == []


def test_an_outage_is_left_out_and_learning_goes_on_by_itself(drive: Drive) -> None:
    """The model that serves afterwards has learned nothing from it, and the log replays."""
    visit(drive, 1000, rewards=True)
    begun = drive.log.head().time
    visit(drive, 300, rewards=False)
    (held,) = in_force(drive.log, HOME)
    assert (held.entry.origin[:2], held.entry.until) == ((AUTHOR, SOURCE), None)
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


LONG = 4_100
"""Seconds of a window in which more rewarded decisions are sealed than the guard needs to know."""


@pytest.fixture
def final_drive(tmp_path: Path) -> Iterator[Drive]:
    """On disk, with a long window."""
    clock = Clock()
    with closing(open_log(tmp_path / "log.db", clock=clock)) as log:
        drive = Drive(log, clock)
        drive.apply(sample_experiment(policy=spec("squarecb"), reward=RewardDefinition(window=LONG * SECOND)))
        yield drive


def final_visits(drive: Drive, count: int, *, every: int) -> None:
    """Visits; one in so many has a final reward, with which its window ends at once. 0: none has."""
    for number in range(count):
        mark, _ = drive.decide(drive.request()._replace(eligible=(), excluded=()), HOME)
        if every and number % every == 0:
            drive.log.append([NewReward(mark.position, "click", 1.0, final=True)])
        drive.clock.advance(1)
        if number % 100 == 0:
            drive.step()


def end_windows(drive: Drive) -> None:
    """Long after, with some visits of which the windows are open."""
    drive.clock.advance(LONG)
    final_visits(drive, 2, every=1)
    drive.step()
    drive.step()


def test_final_rewards_are_no_outage_when_the_first_windows_end(final_drive: Drive) -> None:
    """At first only rewarded decisions are sealed: their share is no usual one. A start in between knows no better."""
    final_visits(final_drive, LONG + 400, every=20)
    final_drive.restart()
    final_visits(final_drive, 300, every=20)
    end_windows(final_drive)
    assert final_drive.log.leave_outs(HOME) == []


@pytest.mark.parametrize(("every", "silent"), [(10, 700), (1, 200)])
def test_an_outage_of_final_rewards_is_found_and_ends(final_drive: Drive, every: int, silent: int) -> None:
    """Also where each decision has its last word at once, so that nothing waits for a window any more."""
    final_visits(final_drive, 220 * every, every=every)
    end_windows(final_drive)
    final_visits(final_drive, silent, every=0)
    end_windows(final_drive)
    (held,) = in_force(final_drive.log, HOME)
    assert held.entry.until is None
    final_visits(final_drive, silent, every=every)
    end_windows(final_drive)
    (left_out,) = in_force(final_drive.log, HOME)
    assert left_out.entry.until is not None
    assert not final_drive.guard.held
    result = verify(final_drive.log)
    assert result.equal == result.decisions > 0


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
    take_back(drive.log, HOME, held.position, origin=Origin("Ada", "api", "the sale is over"))
    visit(drive, 500, rewards=False)
    assert in_force(drive.log, HOME) == []
    assert not drive.guard.held
    assert verify(drive.log).first is None


def held_shop(drive: Drive) -> LeaveOut:
    """After an outage that is found and not over; the totals are stored from before it."""
    visit(drive, 1000, rewards=True)
    counted = LogTotals(drive.log)
    counted.catch_up()
    drive.log.store_totals(counted.checkpoint())
    visit(drive, 300, rewards=False)
    (held,) = in_force(drive.log, HOME)
    return held


def test_a_process_knows_from_its_start_that_learning_is_held(drive: Drive) -> None:
    """Also where nothing is sealed for hours: /readyz must not say that all is well."""
    held = held_shop(drive)
    drive.restart()
    assert drive.guard.held == {HOME: held}


def test_other_rewards_in_an_outage_do_not_hold_for_ever(drive: Drive) -> None:
    """The repaired pixel sends another name: it is usual once some hundred have come. So it is in a process that
    starts then, which must not take what was sent before for usual."""
    held_shop(drive)
    other = RewardDefinition(window=sample_experiment().reward.window, default=0.01)
    drive.apply(sample_experiment(policy=spec("squarecb"), reward=other))
    visit(drive, 60, rewards=True)
    drive.restart()
    visit(drive, 600, rewards=True)
    assert not drive.guard.held
    assert verify(drive.log).first is None


def test_a_start_after_other_rewards_takes_the_old_share_for_nothing(drive: Drive) -> None:
    """From a click to a purchase the share falls a hundredfold, on purpose."""
    held = held_shop(drive)
    take_back(drive.log, HOME, held.position, origin=Origin("Ada", "api", "purchases only from now on"))
    other = RewardDefinition(window=sample_experiment().reward.window, default=0.01)
    drive.apply(sample_experiment(policy=spec("squarecb"), reward=other))
    drive.restart()
    visit(drive, 500, rewards=False)
    assert in_force(drive.log, HOME) == []


def test_a_person_may_be_called_guard(drive: Drive) -> None:
    """Their entries stay theirs: the guard neither takes them for its own nor ends them."""
    visit(drive, 50, rewards=True)
    leave_out(drive.log, HOME, begin=drive.log.head().time, end=None, origin=Origin("guard", "api", "a bot"))
    drive.restart()
    visit(drive, 50, rewards=True)
    assert not drive.guard.held
    assert len(in_force(drive.log, HOME)) == 1


@pytest.mark.parametrize("experiments", [1, 12])
def test_stored_totals_are_read_once_for_all_experiments(experiments: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start must not read them once for each of a thousand."""
    clock = Clock()
    drive = Drive(MemoryLog(clock=clock), clock)
    for number in range(experiments):
        drive.apply(sample_experiment(id=ExperimentId(f"e{number}"), policy=spec("squarecb")))
    reads, read = [], MemoryLog.totals_checkpoint
    monkeypatch.setattr(MemoryLog, "totals_checkpoint", lambda log: reads.append(log) or read(log))  # type: ignore[func-returns-value]
    drive.restart()
    assert len(reads) == 1


def test_shares_are_of_the_last_days() -> None:
    """By experiment, for all names: of a day what most have; a year ago it was another one."""
    totals = LabelTotals()
    for name, counts in ((ALL, (50_000, 1_000, 2_000)), ("click", (25_000, 90, 100)), ("buy", (10, 20, 120))):
        for day, count in zip((BEFORE, "20001", "20002"), counts, strict=True):
            totals.rewarded["shop", name, POLICY, day] = count
    counted = by_day(totals)["shop"]
    assert counted == {BEFORE: (50_000, 25_000), "20001": (1_000, 90), "20002": (2_000, 120)}
    share, lows = known(counted)
    assert (share.value, lows.lowest) == (0.07, 0.06)


# --- what was there before


def day(hours: int) -> int:
    """Log time."""
    return hours * 3_600_000_000


def test_a_low_counts_once_it_has_passed_and_for_some_days() -> None:
    """One that lasts may be an outage; and what is nearly nothing is one."""
    lows = Lows()
    lows.add_run(day(1), 0.1, usual=0.1)
    lows.add_run(day(2), 0.02, usual=0.1)
    lows.add_run(day(3), 0.009, usual=0.1)
    assert lows.lowest == 0.1
    lows.add_run(day(8), 0.05, usual=0.1)
    assert lows.lowest == 0.02
    lows.add_run(day(8 + 24 * DAYS), 0.1, usual=0.1)
    assert lows.lowest == 0.1


@given(st.lists(st.floats(0.001, 1.0), max_size=40))
def test_lows_are_never_below_what_was_seen(shares: list[float]) -> None:
    """So the guard is never blind, whatever has happened."""
    lows, usual = Lows(), 0.4
    for number, share in enumerate(shares):
        lows.add_run(day(number * 5), share, usual=usual)
    assert lows.lowest >= LEAST * usual
    assert len(lows.by_day) <= DAYS


# --- the study


@pytest.mark.parametrize("scene", SCENES, ids=lambda one: one.name)
def test_the_guard_is_quiet_where_nothing_is_wrong(scene: Scene) -> None:
    """A few days of each scene of `make guard`."""
    assert false_holds(scene._replace(a_day=min(scene.a_day, 5_000)), 1, days=5) == 0


@pytest.mark.parametrize("fault", FAULTS, ids=lambda one: one.name)
def test_what_the_study_says_of_faults(fault: Fault) -> None:
    """All lost is always found, half lost never, and what is found is over soon."""
    if fault.share < 0.01:
        fault = fault._replace(share=0.02)
    outcome = found(fault, 1)
    assert (outcome.after < math.inf) >= (fault.lost == 1)
    assert (outcome.after < math.inf) <= (fault.lost > 0.5)
    assert outcome.back < 20 / fault.share
    assert fault_line(fault, [outcome]).count("|") == 6


def test_the_study_goes_on_where_it_was(tmp_path: Path) -> None:
    """A row takes minutes."""
    for logs in (1, 3):
        store = Store(tmp_path / "results.json")
        store.fill(SCENES[0].name, logs, lambda seed: [float(seed)], deadline=math.inf)
    assert Store(tmp_path / "results.json").known == {SCENES[0].name: [[0.0], [1.0], [2.0]]}
    assert "| 3 | 3 | 67 ± 27 % |" in report(store.known)
    store.fill("another", 3, lambda seed: [float(seed)], deadline=-math.inf)
    assert store.known["another"] == []
    old = "a\n<!-- guard -->\nold\n<!-- /guard -->"
    assert placed(old, "new\n", MARKERS) == "a\n<!-- guard -->\nnew\n<!-- /guard -->"
    with pytest.raises(ValueError, match="lacks"):
        placed("a", "new", MARKERS)


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
