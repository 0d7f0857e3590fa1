"""What counts for caps is what `Activate` answered, behind a final reward too; what it costs to ask does not grow."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decider.decide.decide import RULES
from decider.experiment.definition import ExperimentVersion, RewardDefinition
from decider.experiment.limits import Cap, Counts
from decider.log.exposures import Exposures
from decider.log.memory import MemoryLog
from decider.log.open import open_log, open_reader
from decider.log.protocol import DecisionRef, Entry, EventLog, Mark, NewActivation, NewReward, Tick
from decider.server.reward_checks import are_late
from decider.types import ActionId, DecisionId, Position, Time
from decider.v1 import experiment_pb2
from simulator.verify import verify
from tests.conftest import SECOND, Clock
from tests.rpc_clients import RpcClient, rows
from tests.sqlite_steps import steps
from tests.test_limits import DAY, HOUR, NEWS, NONE, SALE, apply, cap, offers, shop, visit, with_budget
from tests.two_writers import decision


class Shown(NamedTuple):
    """A decision with everything that was said about it, as a plain list has it."""

    place: DecisionRef
    unit: str
    activations: list[tuple[ActionId | None, bool]]
    """What each one named, and whether it came too late."""
    closed: list[Time]


def counted(shown: list[Shown], log: EventLog, version: ExperimentVersion, unit: str, at: Time) -> Counts:
    """By the definition, over all that ever was: no row is left out, and none is forgotten."""
    limits = version.limits
    assert limits is not None
    caps, spent = [0] * len(limits.caps), dict.fromkeys(limits.budgets, 0)
    for one in shown:
        made, time = log.version_at(one.place.version), one.place.time
        in_time = [action for action, late in one.activations[:1] if not late]
        action = (in_time[0] if in_time else None) or one.place.action
        kind = made.kind_of(action, {})
        if made.limits is None or not made.limits.covers(action, kind):
            continue
        window = Time(time + made.experiment.reward.window)
        if made.experiment.needs_activation and not in_time and at >= min([window, *one.closed]):
            continue
        if one.unit == unit and at < max(window, time + made.limits.period(action, kind)):
            for index, cap_ in enumerate(limits.caps):
                caps[index] += cap_.covers(action, kind) and time > at - cap_.per
        day, today = made.limits.day(time), limits.day(at)
        if action in made.limits.budgets and action in spent and day.begin < today.end and day.end > today.begin:
            spent[action] += 1
    return Counts(tuple([min(n, cap_.most) for n, cap_ in zip(caps, limits.caps, strict=True)]), tuple(spent.values()))


VERSIONS = [
    with_budget(shop(caps=(Cap(2, 30 * SECOND, SALE), Cap(3, 60 * SECOND, kind="content"))), sale=4),
    with_budget(shop(needs_activation=True, caps=(Cap(1, 40 * SECOND, kind="offer"),)), sale=3, news=6),
    shop(needs_activation=True, caps=(Cap(3, 500 * SECOND, SALE), Cap(1, 5 * SECOND, SALE), Cap(2, HOUR, NEWS))),
    shop(caps=(Cap(1, 2 * SECOND, SALE), Cap(4, 90 * SECOND, kind="offer"))),
    with_budget(shop(time_zone="Asia/Tokyo", needs_activation=True), news=3),
]
"""Longer and shorter periods of the same action, more and less of it."""

steps_of_pages = st.lists(
    st.one_of(
        st.tuples(st.just("visit"), st.sampled_from("ab"), st.booleans()),
        st.tuples(st.just("shown"), st.integers(0, 8), st.sampled_from([None, SALE, SALE, SALE, NEWS, NONE])),
        st.tuples(st.just("final"), st.integers(0, 8), st.booleans()),
        st.tuples(st.just("wait"), st.sampled_from([0.5, 3, 10, 31, 20 * HOUR, 40 * HOUR])),
        st.tuples(st.just("apply"), st.integers(0, len(VERSIONS) - 1)),
        st.tuples(st.just("tidy")),
    ),
    max_size=60,
)


@given(steps=steps_of_pages)
def test_bounded_counts_reach_the_same_limits(
    steps: list[tuple[Any, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever is decided, overridden, closed and applied anew: what is read reaches the limits that everything would,
    and an Activate that is answered LATE changes nothing. A replay and `check` see the same."""
    clock = Clock()
    memory = MemoryLog(clock=clock)
    with closing(open_log(tmp_path_factory.mktemp("limits") / "log.db", clock=clock)) as sqlite:
        logs: list[EventLog] = [memory, sqlite]
        for log in logs:
            log.name_build({"rules": RULES})
        versions = [[apply(log, made) for made in VERSIONS] for log in logs]
        now, shown = 0, list[Shown]()
        for number, step in enumerate(steps):
            newest = shown[-1 - step[1] % len(shown)] if shown and step[0] in ("shown", "final") else None
            match step:
                case ("visit", unit, all_):
                    eligible = () if all_ else (SALE,)
                    for log, of_log in zip(logs, versions, strict=True):
                        assert visit(log, of_log[now], f"d{number}", clock(), unit, eligible=eligible)
                    place = sqlite.locate(DecisionId(f"d{number}"))
                    assert place is not None
                    shown.append(Shown(place, unit, [], []))
                case ("shown", _, action) if newest:
                    entry = NewActivation(newest.place.position, action)
                    (mark,) = sqlite.append([entry])
                    assert memory.append([entry]) == [mark]
                    (late,) = are_late(sqlite, [(newest.place, mark)])
                    newest.activations.append((action, late))
                case ("final", _, also_shown) if newest:
                    both: list[Entry] = [final(newest.place.position)]
                    if also_shown:
                        both.append(NewActivation(newest.place.position, SALE))
                    marks = sqlite.append(both)
                    assert memory.append(both) == marks
                    closed = sqlite.seals([newest.place.position])
                    assert marks[0] is not None
                    if closed.get(newest.place.position) == marks[0].position + 1:
                        newest.closed.append(marks[0].time)
                    if also_shown:
                        newest.activations.append((SALE, are_late(sqlite, [(newest.place, marks[1])])[0]))
                case ("wait", seconds):
                    clock.advance(seconds)
                case ("apply", which):
                    now = which
                case ("tidy",):
                    sqlite.maintain()
            for of_log, log in zip(versions, logs, strict=True):
                for version in of_log:
                    for unit in "ab":
                        found = log.limit_counts(version, unit, at=clock())
                        assert found == counted(shown, log, version, unit, clock())
        for log in logs:
            assert (result := verify(log)).first is None, result.first and result.first.what
            assert result.equal == result.decisions == log.count_decisions()
        assert sqlite.check(lambda _: None) == []


# A cost that does not grow.


def overridden(log: EventLog, version: ExperimentVersion, count: int, name: str = "d") -> None:
    """So many decisions of a unit, in whose place a capped action was shown."""
    marks = log.append([decision(version, f"{name}{number}", action=NONE) for number in range(count)])
    log.append([NewActivation(mark.position, SALE) for mark in marks if mark])


def test_a_unit_with_many_exposures_is_read_as_quickly_as_any(tmp_path: Path, clock: Clock) -> None:
    """A frontend that shows the capped offer all the same, again and again, makes a row each time; no decision reads
    them all. Nor those of a budget, which no cap counts."""
    with closing(open_log(tmp_path / "log.db", clock=clock)) as log:
        caps = (Cap(3, DAY * SECOND, SALE), Cap(5, DAY * SECOND, kind="offer"), Cap(2, DAY * SECOND, NEWS))
        made = with_budget(shop(caps=caps, reward=RewardDefinition(window=DAY * SECOND)), none=10**9)
        version = apply(log, made)

        def look() -> None:
            assert log.limit_counts(version, "unit", at=clock()).caps == (3, 5, 0)

        overridden(log, version, 10)
        few = steps(log, look)
        overridden(log, version, 3_000, "more")
        log.append([decision(version, f"other{number}", action=NONE) for number in range(2_000)])
        assert steps(log, look) <= few + 10


def test_a_forgotten_exposure_leaves_nothing_behind(clock: Clock) -> None:
    """A replay of a long log holds no unit that counts for nothing any more, and no day that is over."""
    log = MemoryLog(clock=clock)
    version = apply(log, with_budget(shop(caps=(Cap(3, 20 * SECOND, SALE),)), sale=10**6))
    for number in range(50):
        log.append([decision(version, f"d{number}", f"u{number}", action=SALE)])
        clock.advance(DAY)
    exposures: Exposures = log._exposures
    assert len(exposures._counted) == 2
    assert len(exposures._spent[version.experiment.id]) <= 4
    assert len(exposures._known) == len(exposures._decisions) == 1


def test_a_late_word_about_a_day_that_is_over_is_no_damage(tmp_path: Path, clock: Clock) -> None:
    """The count of that day is deleted while the window of its decisions is still open."""
    with closing(open_log(tmp_path / "log.db", clock=clock)) as log:
        made = with_budget(shop(reward=RewardDefinition(window=20 * DAY * SECOND)), sale=100, news=100)
        version = apply(log, made)
        marks = log.append([decision(version, f"d{number}", action=SALE) for number in range(5)])
        clock.advance(6 * DAY)
        log.append([Tick()])
        log.maintain()
        assert rows(tmp_path / "log.db", "select count(*) from daily_counts") == [(0,)]
        log.append([NewActivation(mark.position, NEWS) for mark in marks[:2] if mark])
        assert log.limit_counts(version, "unit", at=clock()) == Counts((), (0, 0))
        assert log.check(lambda _: None) == []
        log.maintain()
        assert rows(tmp_path / "log.db", "select count(*) from daily_counts") == [(0,)]
        assert log.check(lambda _: None) == []


# After the last word.


@pytest.fixture
def required(log: EventLog) -> ExperimentVersion:
    """An offer that counts where it was activated, in windows of a day."""
    made = shop(needs_activation=True, caps=(Cap(1, 9 * DAY * SECOND, SALE),))
    log.name_build({"rules": RULES})
    return apply(log, with_budget(replace(made, reward=RewardDefinition(window=DAY * SECOND)), sale=1))


def final(at: Position) -> NewReward:
    """The last word about a decision."""
    return NewReward(at, "purchase", 1.0, final=True)


def offered(log: EventLog, version: ExperimentVersion, id_: str, at: Time, action: ActionId = SALE) -> Position:
    """A decision for the offer, or another action, which is free."""
    assert visit(log, version, id_, at, eligible=(action,)) is not None
    found = log.find(DecisionId(id_))
    assert found is not None
    assert found.decision.action == action
    return found.position


def assert_replays(log: EventLog) -> None:
    """N of N, and nothing is damaged."""
    result = verify(log)
    assert result.first is None, result.first.what
    assert result.equal == result.decisions == log.count_decisions()
    assert log.check(lambda _: None) == []


def test_a_final_reward_ends_a_reservation(log: EventLog, required: ExperimentVersion, clock: Clock) -> None:
    """Nobody can say any more that it was shown, so nobody needs to wait until its window would have ended."""
    first = offered(log, required, "first", clock())
    assert log.limit_counts(required, "unit", at=clock()) == Counts((1,), (1,))
    clock.advance(1)
    log.append([final(first)])
    assert log.limit_counts(required, "unit", at=clock()) == Counts((0,), (0,))
    second = offered(log, required, "second", clock())
    late = log.append([NewActivation(first)])
    assert are_late(log, [(DecisionRef(first, clock(), required.position, SALE), late[0])]) == [True]
    assert log.limit_counts(required, "unit", at=clock()) == Counts((1,), (1,)), "the second one's"
    log.append([NewActivation(second), final(second)])
    clock.advance(2 * DAY)
    log.append([Tick()])
    log.maintain()
    assert log.limit_counts(required, "unit", at=clock()) == Counts((1,), (0,))
    assert visit(log, required, "third", clock()) is not None
    assert_replays(log)


@pytest.mark.parametrize("seconds", [0, 1])
def test_what_is_shown_after_the_last_word_counts_for_nothing(log: EventLog, clock: Clock, seconds: int) -> None:
    """Also in the same commit: Activate answers LATE, and an override changes nothing."""
    log.name_build({"rules": RULES})
    version = apply(log, shop(caps=(Cap(2, 60 * SECOND, SALE), Cap(2, 60 * SECOND, NEWS))))
    article, offer = offered(log, version, "a", clock(), NEWS), offered(log, version, "b", clock())
    if seconds == 0:
        log.append([final(article), NewActivation(article, SALE), final(offer), NewActivation(offer, NONE)])
    else:
        log.append([final(article), final(offer)])
        clock.advance(seconds)
        log.append([NewActivation(article, SALE), NewActivation(offer, NONE)])
    assert log.limit_counts(version, "unit", at=clock()) == Counts((1, 1), ())
    assert visit(log, version, "next", clock(), eligible=(SALE, NONE)) is not None
    assert_replays(log)


def test_what_was_shown_before_the_last_word_stays(log: EventLog, required: ExperimentVersion, clock: Clock) -> None:
    """A page is shown, then paid."""
    first = offered(log, required, "first", clock())
    log.append([NewActivation(first), final(first)])
    clock.advance(3 * DAY)
    assert log.limit_counts(required, "unit", at=clock()) == Counts((1,), (0,))
    assert visit(log, required, "next", clock(), eligible=(SALE,)) is not None
    found = log.find(DecisionId("next"))
    assert found is not None
    assert log.withheld(found.position) == {SALE: "caps[0]"}
    assert_replays(log)


def test_a_log_from_before_learns_of_its_final_rewards(tmp_path: Path, clock: Clock) -> None:
    """A reservation that waited for the end of its window ends when the log is opened."""
    path = tmp_path / "log.db"
    with closing(open_log(path, clock=clock)) as log:
        version = apply(log, shop(needs_activation=True, caps=(Cap(1, DAY * SECOND, SALE),)))
        first = offered(log, version, "first", clock())
        writer: Any = log
        for name in ("trigger end_reservation", "index exposures_by_kind", "index exposures_by_action"):
            writer._writer.execute(f"drop {name}")
        writer._writer.execute("create index exposures_by_unit on exposures (unit_id, experiment, time)")
        writer._writer.execute("delete from _sqlite_migrations where name = 'bound_limits'")
        log.append([final(first)])
    with closing(open_reader(path)) as old:
        assert old.limit_counts(version, "unit", at=clock()) == Counts((0,), ())
    with closing(open_log(path, clock=clock)) as log:
        assert log.limit_counts(version, "unit", at=clock()) == Counts((0,), ())
        assert log.check(lambda _: None) == []
        assert offered(log, version, "second", clock()) > first


def test_a_closed_offer_is_free_again(client: RpcClient, mine: str) -> None:
    """Through the service: what Activate answers is what caps do."""
    client.apply(offers(mine, cap(1, 600, action="sale"), window=300.0, activation=experiment_pb2.ACTIVATION_REQUIRED))
    first = client.decide(mine, "u", eligible_actions=["sale"])
    assert first.action.id == "sale"
    assert client.decide(mine, "u", eligible_actions=["sale"]).action.id == "none"
    assert client.reward(first.decision_id, name="purchase", value=0.5, final=True) == "joined"
    second = client.decide(mine, "u", eligible_actions=["sale"])
    assert second.action.id == "sale"
    assert client.activation(first.decision_id) == "late"
    assert client.activation(second.decision_id, "news") == "overridden"
    assert client.decide(mine, "u", eligible_actions=["sale"]).action.id == "sale"


def test_a_budget_is_kept_for_the_longest_day(tmp_path: Path) -> None:
    """One day had 31 hours in Antarctica/Vostok. A day of another zone that it overlapped must be there to its end."""
    clock = Clock()
    clock.now = round(datetime(1994, 1, 30, 17, 30, tzinfo=UTC).timestamp()) * SECOND
    with closing(open_log(tmp_path / "log.db", clock=clock)) as log:
        log.name_build({"rules": RULES})
        dhaka = apply(log, with_budget(shop(time_zone="Asia/Dhaka"), sale=1))
        offered(log, dhaka, "first", clock())
        clock.advance(26.5 * HOUR)
        vostok = apply(log, with_budget(shop(time_zone="Antarctica/Vostok"), sale=1))
        log.append([Tick()])
        log.maintain()
        assert log.limit_counts(vostok, "u", at=clock()) == Counts((), (1,))
        assert visit(log, vostok, "last", clock()) is not None
        found = log.find(DecisionId("last"))
        assert found is not None
        assert log.withheld(found.position) == {SALE: "daily_budget"}
        assert_replays(log)


def test_an_activation_after_the_window_is_late_for_both(log: EventLog, clock: Clock) -> None:
    """The usual window, to the microsecond."""
    version = apply(log, shop(needs_activation=True, caps=(Cap(9, DAY * SECOND, SALE),)))
    places: list[tuple[DecisionRef, Mark | None]] = []
    for number, wait in enumerate((10 * SECOND - 1, 10 * SECOND)):
        at = offered(log, version, f"d{number}", clock())
        ref = DecisionRef(at, clock(), version.position, SALE)
        clock.now += wait
        places.append((ref, log.append([NewActivation(at)])[0]))
    assert are_late(log, places) == [False, True]
    assert log.limit_counts(version, "unit", at=clock()) == Counts((1,), ())
