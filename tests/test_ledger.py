"""The ledger of callers: what it counts as lost, doubled or otherwise in the log."""

from __future__ import annotations

from typing import Any

import pytest

from decider.log.protocol import EventLog, NewReward, NewVersion
from decider.v1 import decider_service_pb2 as pb
from simulator.studies.ledger import (
    DUPLICATE,
    PREFIX,
    Counts,
    Visitor,
    count_decisions,
    count_rewards,
    visiting,
)
from tests.conftest import sample_experiment
from tests.two_writers import decision

JOINED = pb.REWARD_OUTCOME_JOINED


def write(log: EventLog, *numbers: int) -> Visitor:
    """Decisions with these numbers, each with a click; who has been told all of that."""
    visitor = Visitor(1, seed=1)
    (applied,) = log.append([NewVersion(sample_experiment(), 1)])
    assert applied is not None
    for number in numbers:
        made = decision(log.version_at(applied.position), f"{PREFIX}{number}")
        (mark,) = log.append([made])
        assert mark is not None
        log.append([NewReward(mark.position, "click", 1.0, reward_id="click-1")])
        visitor.decided[made.decision_id] = pb.DecideResponse(
            action=pb.DecidedAction(id=made.action), propensity=made.propensity, model=made.model
        )
        visitor.rewarded[made.decision_id, "click-1"] = [JOINED]
    return visitor


def test_what_is_in_the_log_as_it_was_answered_is_sound(log: EventLog) -> None:
    """A retry that is answered as a duplicate changes nothing."""
    visitor = write(log, 1, 2, 3)
    visitor.rewarded[f"{PREFIX}1", "click-1"].append(DUPLICATE)
    for found in (count_decisions(log, [visitor]), count_rewards(log, [visitor])):
        assert found == Counts(acknowledged=3, in_log=3, lost=0, doubled=0, other=0)
        assert found.sound


def test_what_is_not_in_the_log_is_lost(log: EventLog) -> None:
    """An acknowledgement is a promise."""
    visitor = write(log, 1)
    visitor.decided["decision-2"] = pb.DecideResponse()
    visitor.rewarded["decision-2", "click-1"] = [JOINED]
    for found in (count_decisions(log, [visitor]), count_rewards(log, [visitor])):
        assert (found.lost, found.sound) == (1, False)


def test_a_reward_that_is_new_twice_is_doubled(log: EventLog) -> None:
    """As its callers were told."""
    visitor = write(log, 1, 2)
    visitor.rewarded[f"{PREFIX}2", "click-1"] = [JOINED, JOINED]
    assert count_rewards(log, [visitor]) == Counts(acknowledged=2, in_log=2, lost=0, doubled=1, other=0)


def test_what_was_answered_otherwise_or_to_nobody_is_seen(log: EventLog) -> None:
    """A decision is its action, its propensity and its model."""
    visitor = write(log, 1, 2, 3)
    visitor.decided[f"{PREFIX}1"].propensity *= 0.5
    del visitor.decided[f"{PREFIX}2"], visitor.rewarded[f"{PREFIX}2", "click-1"]
    assert count_decisions(log, [visitor]).other == 2
    assert count_rewards(log, [visitor]).other == 1


class Broken(Visitor):
    """Meets what nobody has thought of."""

    def visit(self, *_: Any, **__: Any) -> None:
        """See Visitor."""
        raise ValueError("broken")


def test_a_visitor_who_cannot_go_on_is_a_failure() -> None:
    """A study must not end well because nobody called."""
    with pytest.raises(ValueError, match="broken"), visiting("nowhere", [Broken(1, seed=1)]):
        pass
