"""The lift as a server has it, counted on from the log: exact, bounded, and what `simulator lift` says."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from decider.decide.decide import decide, in_holdout
from decider.errors import DeciderError
from decider.estimate.lift import LiftSums
from decider.estimate.mean import Interval
from decider.experiment.definition import ExperimentVersion
from decider.experiment.guardrails import MOST_NAMES
from decider.experiment.strata import BUCKETS, Stratum
from decider.learn.archive import archive
from decider.log.exact_sum import ExactSum, digits_of
from decider.log.lift_totals import (
    LEARNED,
    MOST_STRATA,
    PlaceSums,
    StratumTotals,
    add_stratum,
    from_rows,
    place_of,
    to_rows,
)
from decider.log.log_totals import LogTotals
from decider.log.memory import MemoryLog
from decider.log.open import open_log, open_reader, open_to_cut
from decider.log.protocol import EventLog, Mark, NewReward, NewRewardChange, Tick
from decider.log.sqlite.checkpoints import WITHOUT_GROUPS, _checksum, stored_checkpoints
from decider.log.totals import HOLDOUT, MAX_REWARD_NAMES, OTHER, POLICY, LabelTotals, NamedTotals, Totals
from decider.metrics.lift import lift_of
from decider.policy.make import make_policy
from decider.policy.protocol import Model
from decider.server.forget_command import forget_command
from decider.text import between, signed
from decider.types import START, Context, Decision, DecisionId, DecisionRequest, Position, Time
from simulator.kept import compare_totals
from simulator.lift.find import find_lift
from simulator.logs.groups import GroupedDecisions, load_groups
from simulator.report.lift import sentences
from simulator.verify import verify
from tests.lift_logs import shop, visits_db, write_visits
from tests.long_logs import PastClock
from tests.rpc_clients import ServerProcess, fetch

FIGURES = ("decider_lift", "decider_lift_low", "decider_lift_high")


def counted(log: EventLog, slice_: int = 1_000_000) -> LabelTotals:
    """From what is stored on."""
    totals = LogTotals(log)
    while not totals.advance(slice_):
        pass
    return totals.totals


def anew(log: EventLog) -> LabelTotals:
    """From the first entry on, at once."""
    found, totals = log.totals(Mark(START, Time(0)), log.head().mark), LabelTotals()
    totals.add(found, log.experiment_ids(found.versions()))
    return totals


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of two strata; nothing writes it."""
    return visits_db(
        tmp_path_factory.mktemp("lift") / "log.db", shop(), shop(holdout=0.3), decisions=3_000, units=2_000
    )


@pytest.fixture
def db(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    with closing(sqlite3.connect(made)) as source, closing(sqlite3.connect(tmp_path / "log.db")) as copy:
        source.backup(copy)
    return tmp_path / "log.db"


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(allow_nan=False, allow_infinity=False)), max_size=30))
def test_sums_are_exact_and_survive_their_text(values: list[tuple[int, float]]) -> None:
    """Amounts of any size, in any order: what is counted anew is what is stored."""
    sums, backwards = PlaceSums(), PlaceSums()
    for place, value in values:
        sums.add_float(place, value)
    for place, value in reversed(values):
        backwards.add_float(place, value)
    assert sums == backwards == PlaceSums.from_json(sums.to_json())
    for place in range(6):
        exact = sum((ExactSum.of(value) for at, value in values if at == place), ExactSum())
        assert sums.floats()[place] == float(exact)
        assert digits_of(float("0.1")) is not None


def test_counting_in_pieces_is_counting_at_once(db: Path) -> None:
    """A server that is restarted at any moment has the same sums as one that counts for the first time."""
    with closing(open_log(db)) as log:
        whole = anew(log)
        assert set(whole.lift) == {"shop"}
        assert len(whole.lift["shop"]) == 2
        totals = LogTotals(log)
        while not totals.advance(777):
            log.store_totals(totals.checkpoint())
            totals = LogTotals(log)
        assert totals.totals == whole
        assert counted(log) == whole == LabelTotals.from_json(whole.to_json())
        assert log.check(lambda _: None) == []


def test_every_log_counts_the_same(tmp_path: Path) -> None:
    """In SQL, and in Python."""
    clock = PastClock(4 * 86_400.0)
    versions = [shop(), shop(holdout=0.0), shop(holdout=0.3, salt="x"), shop(activation="ACTIVATION_REQUIRED")]
    memory = MemoryLog(clock=clock)
    write_visits(memory, clock, versions, decisions=120)
    found = anew(memory).lift["shop"]
    assert {stratum.measure for stratum, one in found.items() if not one.is_empty} == {1}
    (last,) = [one for one in found.values() if one.is_empty]
    assert sum(last.left_out) == 120, "nothing was shown, and the split is known"
    clock = PastClock(4 * 86_400.0)
    with closing(open_log(tmp_path / "log.db", clock=clock)) as log:
        write_visits(log, clock, versions, decisions=120)
        same = anew(log).lift["shop"]
    assert found.keys() == same.keys()
    for stratum, one in found.items():
        assert one.decisions == same[stratum].decisions
        assert one.left_out == same[stratum].left_out
        assert one.rewards[LEARNED].floats() == pytest.approx(same[stratum].rewards[LEARNED].floats(), rel=1e-12)
        assert one.rewards.get("purchase") == same[stratum].rewards.get("purchase")


def test_a_server_and_the_command_have_the_same_figures(db: Path) -> None:
    """Nobody can explain two lifts of one experiment, nor two intervals of one lift: asking for another reward
    beside it changes nothing."""
    server = ServerProcess(db)
    try:
        status, text = fetch(f"http://{server.http}/metrics")
        page = fetch(f"http://{server.http}/experiments/shop")[1]
    finally:
        server.terminate()
    assert status == 200
    live = {
        (sample.name, sample.labels.get("name", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name in FIGURES or sample.name.startswith("decider_holdout_")
    }
    for name in (LEARNED, "click", "purchase"):
        found = find_lift(load_groups(db, rewards=[] if name == LEARNED else [name]))
        assert found.other_names == 2
        row = found.rows[-1]
        interval = (row.lift.value, row.lift.low, row.lift.high)
        if row.answer == "too little":
            assert (FIGURES[0], name) not in live
        else:
            assert [live[figure, name] for figure in FIGURES] == pytest.approx(interval, rel=1e-12)
            assert between(row.lift.low, row.lift.high, written=signed) in page
    with closing(open_log(db)) as opened:
        totals = counted(opened).lift["shop"]
    whole = find_lift(load_groups(db, rewards=["purchase", "click"])).rows
    assert whole[0].answer == "yes"
    assert whole == tuple(
        [find_lift(load_groups(db, rewards=names)).rows[-1] for names in ([], ["purchase"], ["click"])]
    )
    assert width(whole[0].lift) == pytest.approx(width(lift_of(totals, LEARNED).interval))
    assert width(whole[2].lift) > 1.02 * width(lift_of(totals, "click").interval), "two names hold together"
    cost = find_lift(load_groups(db)).cost
    assert cost is not None
    ends = [live[f"decider_holdout_cost{end}", ""] for end in ("", "_low", "_high")]
    assert ends == pytest.approx([cost.value, cost.low, cost.high], rel=1e-12)
    assert live["decider_holdout_ratio", ""] == 0.3
    groups = [line for line in text.splitlines() if line.startswith("decider_sealed_total")]
    assert len(groups) == 2
    assert_values_by_group(text, load_groups(db, rewards=["click", "purchase"]))
    with closing(open_log(db)) as opened:
        assert verify(opened).first is None


def width(interval: Interval) -> float:
    """From end to end."""
    return interval.high - interval.low


def test_what_the_server_left_out_is_said(tmp_path: Path) -> None:
    """A holdout that was changed ten times: the server keeps the newest eight times, the command reads all. Over the
    same times both say the same."""
    shares = [0.2 + 0.01 * number for number in range(MOST_STRATA + 2)]
    db = visits_db(tmp_path / "log.db", *[shop(holdout=share) for share in shares], decisions=250, units=4_000)
    with closing(open_log(db)) as log:
        live = lift_of(counted(log).lift["shop"], LEARNED)
    found = load_groups(db)
    assert len(found.strata) == MOST_STRATA + 2
    whole = find_lift(found)
    assert sum(live.decisions) == 250 * MOST_STRATA < sum(whole.rows[0].decisions)
    assert live.interval != whole.rows[0].lift
    text = " ".join(sentences(whole))
    assert "know the newest 8 of these 10 times with another holdout" in text
    newest, sums = found.stratum >= 2, LiftSums(BUCKETS)
    sums.add_many(
        bucket=found.bucket[newest],
        holdout=found.holdout[newest],
        reward=found.rewards[LEARNED][newest],
        stratum=found.stratum[newest],
    )
    same = sums.lift()
    assert same.is_known
    assert (live.interval.value, live.interval.low) == pytest.approx((same.interval.value, same.interval.low))
    assert "newest 8" not in " ".join(sentences(find_lift(load_groups(visits_db(tmp_path / "one.db", decisions=300)))))


def assert_values_by_group(text: str, log: GroupedDecisions) -> None:
    """What a dashboard divides by `decider_sealed_total` is what the command compares."""
    families = {family.name: family for family in text_string_to_metric_families(text)}
    for family, power in (("decider_sealed_value", 1), ("decider_sealed_squared_value", 2)):
        live = {(s.labels["name"], s.labels["group"]): s.value for s in families[family].samples}
        assert live == {
            (name, group): pytest.approx((log.rewards[name][log.holdout == held] ** power).sum())
            for name in ("click", "purchase")
            for group, held in ((POLICY, False), (HOLDOUT, True))
        }


def test_rewards_of_a_name_are_summed_as_they_are_in_force(tmp_path: Path) -> None:
    """A guardrail's dashboard must not count what was taken back, nor what came late; and both logs count alike."""
    found = []
    for opened in (MemoryLog, partial(open_log, tmp_path / "log.db")):
        clock = PastClock(4 * 86_400.0)
        with closing(opened(clock=clock)) as log:
            write_visits(log, clock, [shop(window=10.0)], decisions=4)
            version = log.versions()[-1]
            made = [request_of(version, f"d{n}") for n in range(4)]
            at = [mark.position for mark in log.append(made) if mark]
            sent = [NewReward(at[0], "refund", 3.0, 0.5), NewReward(at[0], "refund", 4.0, 0.5)]
            sent += [NewReward(at[1], "refund", 9.0, 0.5, "r1"), NewReward(at[2], "refund", 2.0, 0.5, "r2")]
            log.append(sent)
            retracted = NewRewardChange(at[1], "r1", None, "refund", 0.5)
            log.append([retracted, NewRewardChange(at[2], "r2", 1.0, "refund", 0.5)])
            clock.advance(60.0)
            log.append([NewReward(at[3], "refund", 100.0, 0.5)])
            found.append(anew(log))
    assert found[0].sealed_values == found[1].sealed_values
    key = ("shop", "refund", POLICY)
    assert (float(found[1].sealed_values[key]), float(found[1].squared_sealed_values[key])) == (8.0, 50.0)


def request_of(version: ExperimentVersion, id_: str) -> Decision:
    """A decision for a unit that is not in the holdout."""
    unit = next(f"{id_}-{n}" for n in range(1_000) if not in_holdout(version, f"{id_}-{n}"))
    return decide(
        DecisionRequest(DecisionId(id_), unit, Context()), version, Model(make_policy(version.experiment.policy))
    )


def test_values_have_a_bounded_number_of_names_in_any_order() -> None:
    """Whoever puts an id into a name must not fill the metrics, nor damage what is stored."""
    names = [f"name-{number:03}" for number in range(2 * MAX_REWARD_NAMES)]
    totals = []
    for order in (names, names[::-1]):
        counted = LabelTotals()
        for name in order:
            more = Totals(rewarded=Counter({(Position(1), name, POLICY, 20_000): 1}))
            more.named = {(Position(1), name, POLICY): NamedTotals.of(0.1)}
            counted.add(more, {Position(1): "shop"})
        totals.append(LabelTotals.from_json(counted.to_json()))
    assert totals[0] == totals[1]
    assert len(totals[0].sealed_values) == len(totals[0].squared_sealed_values) == MAX_REWARD_NAMES + 1
    assert float(totals[0].sealed_values["shop", OTHER, POLICY]) == pytest.approx(0.1 * MAX_REWARD_NAMES)


def one_decision() -> StratumTotals:
    """Of the policy's units."""
    totals = StratumTotals()
    totals.decisions[0] = 1
    return totals


def test_only_the_newest_strata_and_some_names_stay() -> None:
    """Whoever changes the holdout every day, or puts an id into a reward's name, must not fill memory."""
    strata: dict[Stratum, StratumTotals] = {}
    for number in range(1, MOST_STRATA + 4):
        add_stratum(strata, Stratum(Position(1), Position(number)), one_decision())
    assert sorted(one.first for one in strata) == list(range(4, MOST_STRATA + 4))
    nothing_shown = StratumTotals()
    nothing_shown.left_out[0] = 1
    add_stratum(strata, Stratum(Position(50), Position(50)), nothing_shown)
    assert len(strata) == MOST_STRATA, "another reward, of which nothing is known yet"
    add_stratum(strata, Stratum(Position(50), Position(50)), one_decision())
    assert list(strata) == [Stratum(Position(50), Position(50))]
    add_stratum(strata, Stratum(Position(1), Position(20)), one_decision())
    assert list(strata) == [Stratum(Position(50), Position(50))], "seals of an older one, that come late"
    many = StratumTotals()
    for number in range(2 * MOST_NAMES):
        many.of(f"name-{number:03}")
    add_stratum(strata, Stratum(Position(50), Position(50)), many)
    (totals,) = strata.values()
    assert sorted(totals.rewards) == [LEARNED, *[f"name-{number:03}" for number in range(MOST_NAMES)]]


def test_stored_sums_are_short() -> None:
    """They are written with every checkpoint."""
    totals = StratumTotals()
    for place in range(2 * BUCKETS):
        totals.decisions[place] = 100 + place % 37
        totals.of(LEARNED).add(place, (place % 13, 0, 0))
    (row,) = to_rows({"shop": {Stratum(Position(1), Position(1)): totals}})
    assert len(str(row)) < 4_000
    assert from_rows([row])["shop"] == {Stratum(Position(1), Position(1)): totals}
    with pytest.raises(ValueError, match="damaged sums of shop"):
        from_rows([[*row[:3], "!!", "", {}]])


def test_a_changed_sum_is_damage(db: Path) -> None:
    """A lift that nobody earned must not be shown for ever."""
    with closing(open_log(db)) as log:
        totals = LogTotals(log)
        totals.catch_up()
        (stratum, *_) = totals.totals.lift["shop"].values()
        stratum.of(LEARNED).add_float(place_of(3, holdout=True), 5e-324)
        log.store_totals(totals.checkpoint())
        (damage,) = log.check(lambda _: None)
        assert "the totals stored there are not those of the entries" in str(damage)


# Totals of an older release.


def as_an_older_release(db: Path) -> None:
    """What is stored, without groups and lift."""
    with closing(sqlite3.connect(db)) as other:
        (stored, *_) = stored_checkpoints(other)
        old = stored.totals.without_groups().to_json().replace('"lift":[]', '"x":[]').replace(',""],', "],")
        row = (*stored.row[:3], WITHOUT_GROUPS, 0, old)
        other.execute("delete from totals_checkpoints")
        other.execute("insert into totals_checkpoints values (?, ?, ?, ?, ?, ?, ?)", (*row, _checksum(*row)))
        other.commit()


@pytest.fixture
def old(db: Path) -> Iterator[EventLog]:
    """A log with totals of an older release, which is upgraded."""
    with closing(open_log(db)) as log:
        totals = LogTotals(log)
        totals.catch_up()
        log.store_totals(totals.checkpoint())
    as_an_older_release(db)
    with closing(open_log(db)) as log:
        yield log


def test_after_an_upgrade_the_lift_is_counted_from_the_start_once(old: EventLog, db: Path) -> None:
    """What was sealed before the upgrade is the larger part of the answer."""
    whole = anew(old)
    assert old.check(lambda _: None) == []
    assert LogTotals(old).mark.position == START
    assert counted(old) == whole
    totals = LogTotals(old)
    totals.advance(1_024)
    old.store_totals(totals.checkpoint())
    with closing(sqlite3.connect(db)) as other:
        assert other.execute("select position from totals_checkpoints").fetchall() == [(totals.mark.position,)]
    assert LogTotals(old).mark == totals.mark


def test_totals_of_archived_entries_know_no_groups_and_stay(old: EventLog, db: Path) -> None:
    """They are nowhere else; the lift then begins behind them."""
    whole = anew(old)
    with closing(sqlite3.connect(db)) as other:
        other.execute("update totals_checkpoints set kept = 1")
        row = other.execute("select position, time, chain, format, kept, content from totals_checkpoints").fetchone()
        other.execute("update totals_checkpoints set checksum = ?", (_checksum(*row),))
        other.commit()
    found = counted(old)
    assert found.sealed == {("shop", ""): sum(whole.sealed.values())}
    assert found.lift == {}
    old.append([Tick()])
    assert counted(old).open_decisions() == whole.open_decisions()
    assert old.check(lambda _: None) == []


# Other ways in which entries change.


def test_a_forgotten_unit_is_no_damage(db: Path) -> None:
    """Its decisions have other ids since, and so another bucket where they are counted anew."""
    with closing(open_log(db)) as log:
        totals = LogTotals(log)
        totals.catch_up()
        log.store_totals(totals.checkpoint())
        before = totals.totals
    ran = CliRunner().invoke(forget_command, ["unit-7", "--db", str(db)])
    assert ran.exit_code == 0, ran.output
    with closing(open_log(db)) as log:
        assert counted(log) == before, "what is counted stays"
        assert anew(log) != before
        assert anew(log).agrees_with(before, forgotten=True)
        assert log.check(lambda _: None) == []


def test_what_is_archived_stays_in_the_lift(db: Path, tmp_path: Path) -> None:
    """An archive run deletes entries, not what was counted; with the archive the command reads all of them."""
    whole = load_groups(db)
    with closing(open_to_cut(db)) as log:
        before = anew(log)
        at = Time(log.head().time - 1)
        log.append([Tick()])
        assert archive(log, tmp_path / "archive", before=at, remember=0, say=lambda _: None) is not None
        assert log.count_decisions() == 0
        assert counted(log) == before
        assert log.check(lambda _: None) == []
    again = load_groups(db, archive=[tmp_path / "archive"])
    assert find_lift(again).rows == find_lift(whole).rows
    with closing(open_reader(db)) as live, closing(open_reader(db, archive=[tmp_path / "archive"])) as everything:
        assert list(compare_totals(live, everything)) == []


def test_a_log_without_a_holdout_has_no_sums(tmp_path: Path) -> None:
    """Nothing is counted that nobody can use."""
    db = visits_db(tmp_path / "log.db", shop(holdout=0.0), decisions=200)
    with closing(open_log(db)) as log:
        assert anew(log).lift == {}
    with pytest.raises(DeciderError, match="never had a holdout"):
        load_groups(db)
