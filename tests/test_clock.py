"""Log time from a wall clock that may be wrong: steps that nothing confirms, clocks set back, logs from the future."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decider.log.clock import BELIEVE_AFTER, TOLERANCE, LogClock
from decider.types import Time
from tests.conftest import SECOND

HOUR = 3600 * SECOND
DAY = 24 * HOUR


class Machine:
    """A machine with a wall clock that can be set, and elapsed time that cannot."""

    def __init__(self) -> None:
        self.wall = Time(1_800_000_000 * SECOND)
        self.elapsed = 77
        self.clock = LogClock(wall=lambda: self.wall, elapsed=lambda: self.elapsed)

    def pass_(self, microseconds: int) -> None:
        """Time goes by."""
        self.elapsed += microseconds
        self.wall = Time(self.wall + microseconds)

    def set(self, by: int) -> None:
        """Somebody sets the wall clock."""
        self.wall = Time(self.wall + by)


@pytest.fixture
def machine() -> Machine:
    """One whose clock is right."""
    return Machine()


def test_log_time_is_the_wall_clock_where_that_goes_evenly(machine: Machine) -> None:
    """The ordinary case, with small corrections in both directions."""
    for step in (0, SECOND, -SECOND, 0):
        machine.set(step)
        machine.pass_(10 * SECOND)
        assert machine.clock() == machine.wall
        assert machine.clock.problem is None


def test_a_step_ahead_is_not_believed_until_it_has_lasted(machine: Machine) -> None:
    """One wrong reading a day ahead stopped all learning for a day; a real correction must come through in the end."""
    began = machine.clock()
    machine.set(DAY)
    for _ in range(9):
        machine.pass_(60 * SECOND)
        assert machine.clock() == began + machine.elapsed - 77
    assert "24 h ahead" in (machine.clock.problem or "")
    machine.pass_(61 * SECOND)
    assert machine.clock() != machine.wall  # not seen for 10 minutes yet: it was first seen after a minute
    machine.pass_(60 * SECOND)
    assert machine.clock() == machine.wall
    assert machine.clock.problem is None


def test_a_step_ahead_that_is_taken_back_leaves_no_trace(machine: Machine) -> None:
    """And the next one has to last as long again."""
    machine.set(HOUR)
    machine.pass_(5 * SECOND)
    machine.clock()
    machine.set(-HOUR)
    machine.pass_(SECOND)
    assert machine.clock() == machine.wall
    machine.set(HOUR)
    machine.pass_(BELIEVE_AFTER - SECOND)
    assert machine.clock() == machine.wall - HOUR


def test_a_step_that_grows_has_to_last_anew(machine: Machine) -> None:
    """Three seconds that nobody minded for ten minutes must not vouch for ten years."""
    machine.set(3 * SECOND)
    machine.clock()
    machine.pass_(BELIEVE_AFTER - SECOND)
    machine.set(365 * DAY)
    machine.clock()
    machine.pass_(10 * SECOND)
    assert machine.clock() < machine.wall - 364 * DAY


def test_a_clock_behind_the_log_s_end_goes_on_from_there_by_elapsed_time(machine: Machine) -> None:
    """Windows close and calls are answered, whatever the wall clock says."""
    end = Time(machine.wall + DAY)
    machine.clock.start(end)
    assert machine.clock() == end
    assert machine.clock.offset == pytest.approx(-86_400)
    machine.pass_(HOUR)
    assert machine.clock() == end + HOUR
    assert "behind the log" in (machine.clock.problem or "")
    machine.set(DAY)
    assert machine.clock() == machine.wall
    assert machine.clock.problem is None


def test_a_clock_set_back_does_not_stop_log_time(machine: Machine) -> None:
    """A correction of an hour must not keep windows open for an hour."""
    machine.pass_(SECOND)
    before = machine.clock()
    machine.set(-HOUR)
    machine.pass_(10 * SECOND)
    assert machine.clock() == before + 10 * SECOND


def test_an_end_little_ahead_is_waited_for(machine: Machine) -> None:
    """Two machines never agree to the microsecond."""
    machine.clock.reach(Time(machine.wall + TOLERANCE))
    assert machine.clock() == machine.wall
    assert machine.clock.problem is None


def test_what_is_wrong_is_said_once_and_its_end_too(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    """A line for every reading would be a line for every commit."""
    with caplog.at_level(logging.WARNING):
        machine.set(DAY)
        for _ in range(5):
            machine.pass_(SECOND)
            machine.clock()
        machine.set(-DAY)
        machine.clock()
    assert len(caplog.records) == 2


def test_an_old_log_is_said_and_not_refused(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    """A server that was off for a week starts; one whose clock is a week ahead looks the same, and is told of."""
    with caplog.at_level(logging.WARNING):
        machine.clock.start(Time(machine.wall - 7 * DAY))
    assert "7.0 days old" in caplog.text
    assert machine.clock() == machine.wall
    caplog.clear()
    machine.clock.start(Time(0))  # an empty log
    assert not caplog.records


@given(st.lists(st.tuples(st.integers(0, 20 * 60 * SECOND), st.integers(-2 * DAY, 2 * DAY)), max_size=20))
def test_log_time_never_goes_back_and_never_faster_than_both_clocks(steps: list[tuple[int, int]]) -> None:
    """Whatever is done to the wall clock."""
    machine = Machine()
    last = machine.clock()
    for passed, set_by in steps:
        machine.pass_(passed)
        machine.set(set_by)
        before, now = last, machine.clock()
        assert now >= before
        assert now <= max(before + passed + TOLERANCE, machine.wall)
        last = now


def test_a_clock_ahead_of_the_database_s_is_not_believed(machine: Machine) -> None:
    """A host that joins with such a one must not end the windows of all; not before both agree."""
    right = machine.wall
    machine.set(HOUR)
    machine.clock()
    machine.clock.start(Time(right - SECOND), right)
    for _ in range(100):
        assert machine.clock() == right
        assert machine.clock.problem == "the wall clock is 1 h ahead of the database's; log time goes on without it"
        machine.pass_(60 * SECOND)
        right = Time(right + 60 * SECOND)
    machine.set(-HOUR)
    assert machine.clock() == machine.wall == right
    assert machine.clock.problem is None


def test_a_step_that_the_database_has_made_too_is_believed(machine: Machine) -> None:
    """Once it has lasted: who sets both clocks means it."""
    machine.clock.start(machine.wall, machine.wall)
    machine.set(HOUR)
    machine.clock()
    assert machine.clock.problem
    machine.clock.compare(machine.wall)
    for _ in range(11):
        machine.clock()
        machine.pass_(60 * SECOND)
    assert machine.clock() == machine.wall
    assert machine.clock.problem is None


def test_a_clock_behind_the_database_s_is_as_it_was(machine: Machine) -> None:
    """The log's end says by how much."""
    machine.clock.start(Time(0), Time(machine.wall + HOUR))
    assert machine.clock() == machine.wall
    assert machine.clock.problem is None
