"""Totals by day and segment: the same in every log and however they are cut into pieces, bounded, and forgettable."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from decider.log.daily_totals import (
    DAY,
    MOST_ACTIONS,
    MOST_DAYS,
    MOST_SEGMENTS,
    OTHER,
    SEGMENT_DAYS,
    DailyTotals,
    DayCell,
    DayGroup,
    Earned,
    add_days,
    from_rows,
    to_rows,
)
from decider.log.exact_sum import ExactSum
from decider.log.log_totals import LogTotals
from decider.log.memory import MemoryLog
from decider.log.open import open_log
from decider.log.protocol import EventLog
from decider.log.totals import HOLDOUT, POLICY, LabelTotals
from decider.server.forget_command import forget_command
from decider.types import ActionId, Position
from tests.lift_logs import shop, visits_db, write_visits
from tests.long_logs import PastClock

EXPERIMENTS = {Position(1): "shop", Position(2): "shop", Position(3): "home"}

cells = st.builds(
    DayCell,
    st.sampled_from([*EXPERIMENTS]),
    st.integers(0, MOST_DAYS + 20),
    st.sampled_from([f"s{number}" for number in range(MOST_SEGMENTS + 5)]),
    st.sampled_from([ActionId(f"a{number}") for number in range(MOST_ACTIONS + 5)]),
)
days = st.builds(DayGroup, st.sampled_from([*EXPERIMENTS]), st.integers(0, MOST_DAYS + 20), st.sampled_from([POLICY]))


Piece = tuple[dict[DayCell, int], dict[DayGroup, Earned]]


def counted(log: EventLog, slice_: int = 1_000_000) -> LabelTotals:
    """From the start on."""
    totals = LogTotals(log)
    while not totals.advance(slice_):
        pass
    return totals.totals


@given(st.lists(st.tuples(cells, st.integers(1, 9)), max_size=80), st.lists(days, max_size=40))
def test_the_order_of_counting_does_not_matter(decisions: list[tuple[DayCell, int]], earned: list[DayGroup]) -> None:
    """A check counts anew at once what a server counted in pieces, and they have to be equal: also what is left out."""
    pieces: list[Piece] = [({cell: count}, {}) for cell, count in decisions]
    sealed: list[Piece] = [({}, {one: Earned(1, ExactSum.of(0.1))}) for one in earned]
    found: list[dict[str, DailyTotals]] = []
    for order in (pieces + sealed, (sealed + pieces)[::-1]):
        daily: dict[str, DailyTotals] = {}
        for some, more in order:
            add_days(daily, some, more, EXPERIMENTS)
        found.append(daily)
    assert found[0] == found[1] == from_rows(to_rows(found[0]))


def test_days_actions_and_segments_are_bounded_and_nothing_is_lost() -> None:
    """A log of years with thousands of segments must not make its checkpoint grow; sums stay whole."""
    daily: dict[str, DailyTotals] = {}
    many = MOST_ACTIONS + MOST_SEGMENTS
    for day in range(MOST_DAYS + 5):
        one_day = {DayCell(Position(1), day, f"s{number:03}", ActionId(f"a{number:03}")): 1 for number in range(many)}
        add_days(daily, one_day, {}, EXPERIMENTS)
    kept = daily["shop"]
    assert sorted(kept) == [*range(5, MOST_DAYS + 5)]
    newest = kept[MOST_DAYS + 4]
    assert newest.actions.total() == many
    assert newest.actions[OTHER] == many - MOST_ACTIONS
    assert len(newest.segments) == MOST_SEGMENTS + 1
    assert sum([actions.total() for actions in newest.segments.values()]) == many
    assert len([day for day in kept.values() if day.segments]) == SEGMENT_DAYS


def test_every_log_counts_the_same_days(tmp_path: Path) -> None:
    """The page must not depend on where the log is kept; and the sums are those of the rows."""
    found = []
    clock = PastClock(4 * 86_400.0)
    begin = clock.now
    for log in (open_log(tmp_path / "log.db", clock=clock), MemoryLog(clock=clock)):
        clock.now = begin
        with closing(log):
            write_visits(log, clock, [shop(), shop(holdout=0.2)], decisions=500, pause=30_000.0)
            found.append(counted(log))
            assert counted(log, 700) == found[-1]
    assert found[0].daily == found[1].daily
    days = found[0].daily["shop"]
    with closing(sqlite3.connect(tmp_path / "log.db")) as db:
        expected = db.execute(
            f"""select time / {DAY}, reason = 'HOLDOUT', count(*), sum(reward) from sealed_decisions group by 1, 2"""  # noqa: S608
        ).fetchall()
        shares = db.execute(
            f"""select time / {DAY}, segment, action, count(*) from decisions where reason <> 'HOLDOUT'
            group by 1, 2, 3"""  # noqa: S608
        ).fetchall()
    assert len(days) > 1
    for day, holdout, count, reward in expected:
        earned = days[day].earned[HOLDOUT if holdout else POLICY]
        assert (earned.decisions, round(float(earned.reward), 9)) == (count, round(reward, 9))
    for day, segment, action, count in shares:
        assert days[day].segments[segment][action] == count


def test_a_forgotten_context_is_no_damage(tmp_path: Path) -> None:
    """Its segment is gone from the rows, and stays in the sums of its day."""
    db = visits_db(tmp_path / "log.db", decisions=300)
    with closing(open_log(db)) as log:
        totals = LogTotals(log)
        totals.catch_up()
        log.store_totals(totals.checkpoint())
    ran = CliRunner().invoke(forget_command, ["unit-7", "--context", "--db", str(db)])
    assert ran.exit_code == 0, ran.output
    with closing(open_log(db)) as log:
        assert counted(log).daily == totals.totals.daily
        assert log.check(lambda _: None) == []
