"""No decision stands behind an entry that made another version serve: not even where its process had not seen that."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from decider.errors import FailedPrecondition
from decider.experiment.definition import ExperimentVersion
from decider.log.open import open_log
from decider.log.protocol import Awaited, Caller, EventLog, NewSlate, NewVersion, Serves, Tick, UnitDecision
from decider.server.service import DeciderService
from decider.serving.current import Current
from decider.serving.follower import Copies, Follower
from decider.v1 import decider_service_pb2 as pb
from tests.conftest import Clock, sample_experiment
from tests.two_writers import decision

WAITING = Caller(math.inf, lambda: True)


def apply(log: EventLog, number: int, *, waits: bool = False, paused: bool = False) -> ExperimentVersion:
    """A version of the sample experiment."""
    (mark,) = log.append([NewVersion(sample_experiment(paused=paused), number, waits)])
    assert mark is not None
    return log.version_at(mark.position)


def is_written(log: EventLog, version: ExperimentVersion, id_: str) -> bool:
    """Whether a decision of a version is written, where its caller waits."""
    (mark,) = log.append([Awaited(decision(version, id_), WAITING)])
    return mark is not None


def test_a_version_in_its_place_refuses_decisions(log: EventLog) -> None:
    """A pause holds from its entry on. The decision's id is free afterwards, and the log is as it was."""
    first = apply(log, 1)
    assert is_written(log, first, "a")
    paused = apply(log, 2, paused=True)
    assert not is_written(log, first, "b")
    assert is_written(log, paused, "b"), "the service refuses it, not the log"
    assert log.check(lambda _: None) == []


def test_a_version_that_waits_refuses_nothing_before_it_serves(log: EventLog) -> None:
    """The one before it goes on serving, whatever else is written; a newer one that waits starts the waiting anew."""
    first, waiting = apply(log, 1), apply(log, 2, waits=True)
    assert is_written(log, first, "a")
    newer = apply(log, 3, waits=True)
    log.append([Serves(waiting.position)])
    assert is_written(log, first, "b"), "that entry came too late to have an effect"
    log.append([Serves(newer.position)])
    assert not is_written(log, first, "c")
    assert is_written(log, newer, "c")


def test_other_experiments_are_not_touched(log: EventLog) -> None:
    """One experiment never waits for another."""
    first = apply(log, 1)
    (mark,) = log.append([NewVersion(sample_experiment(id="other"), 1)])
    assert mark is not None
    apply(log, 2)
    marks = log.append(
        [Awaited(decision(one, one.experiment.id), WAITING) for one in (first, log.version_at(mark.position))]
    )
    assert [one is not None for one in marks] == [False, True]


def test_what_shares_a_commit_with_a_pause_comes_before_it(log: EventLog) -> None:
    """Nobody could know of the pause when it was decided."""
    first = apply(log, 1)
    pause, decided, tick = log.append(
        [NewVersion(sample_experiment(paused=True), 2), Awaited(decision(first, "a"), WAITING), Tick()]
    )
    assert pause is not None
    assert decided is not None
    assert tick is not None
    assert decided.position < tick.position < pause.position


@pytest.mark.parametrize("kind", [UnitDecision, lambda one: NewSlate((one,))], ids=["of a unit", "slate"])
def test_slates_and_decisions_of_units_are_refused_as_well(log: EventLog, kind: type[UnitDecision]) -> None:
    """All kinds of decisions."""
    first = apply(log, 1)
    apply(log, 2)
    slot = decision(first, "a/0")
    assert log.append([Awaited(kind(slot), WAITING)]) == [None]


@pytest.fixture
def two(tmp_path: Path, clock: Clock) -> Iterator[tuple[EventLog, EventLog]]:
    """Two writers of one log."""
    with (
        closing(open_log(tmp_path / "log", clock=clock)) as one,
        closing(open_log(tmp_path / "log", clock=clock)) as other,
    ):
        yield one, other


def test_another_writers_pause_refuses_decisions(two: tuple[EventLog, EventLog]) -> None:
    """The writer looks at the log's end, not at what it has written itself."""
    one, other = two
    first = apply(one, 1)
    assert is_written(other, first, "a")
    assert is_written(one, first, "b")
    apply(one, 2, paused=True)
    assert not is_written(other, first, "c")
    assert not is_written(one, first, "d")


def test_the_service_decides_anew(two: tuple[EventLog, EventLog]) -> None:
    """By the version that serves now; where that is paused, the caller hears it."""
    one, other = two
    apply(one, 1)
    current = Current()
    follower = Follower(other, current, Copies())
    follower.follow()
    service = DeciderService(current, other, append=other.append, follow=follower.follow)
    only = tuple(replace(action, retired=action.id != "outfit") for action in sample_experiment().actions)
    (mark,) = one.append([NewVersion(sample_experiment(actions=only), 2)])
    assert mark is not None
    request = pb.DecideRequest(experiment="home", unit_id="u", decision_id="a")
    reply = service.Decide(request)
    assert reply.experiment_version == 2
    assert reply.action.id == "outfit"
    apply(one, 3, paused=True)
    assert service.Decide(request).action.id == "outfit", "it is in the log"
    slots = [pb.Slot(), pb.Slot()]
    with pytest.raises(FailedPrecondition, match="paused"):
        service.Decide(pb.DecideRequest(experiment="home", unit_id="u", decision_id="b"))
    apply(one, 4)
    follower.follow()
    one.append([NewVersion(sample_experiment(minimum_propensity=0.02), 5)])
    slate = service.DecideSlate(pb.DecideSlateRequest(experiment="home", unit_id="u", slate_id="s", slots=slots))
    assert [slot.experiment_version for slot in slate.decisions] == [5, 5]
    one.append([NewVersion(sample_experiment(minimum_propensity=0.03), 6)])
    batch = service.DecideBatch(
        pb.DecideBatchRequest(requests=[pb.DecideRequest(experiment="home", unit_id="u") for _ in range(3)])
    )
    assert [result.response.experiment_version for result in batch.results] == [6, 6, 6]
