"""The trainers: one for each (experiment, signature) that serves or waits to serve, each with its own schedule.

A trainer far behind the log's end works in slices, so that the others are not held up, and its model is stored every
few seconds, so that a kill costs little. Called by the leader.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from decider.experiment.definition import ExperimentVersion
from decider.learn.trainer import Steps, Trainer
from decider.log.protocol import LogReader, Mark
from decider.serving.follower import Owner, owner_of
from decider.serving.lineup import Lineup, Rollout
from decider.types import START, ExperimentId, Position

STRIDE = 5_000
"""Log entries between two positions at which a model can be named and stored."""

PIECE = 5.0
"""Seconds of learning after which a trainer that is catching up stores its model."""


@dataclass(slots=True)
class Training:
    """A trainer and its progress. version: the one that needs its model.

    at: position up to which the log is learned. named: position of the newest published model, which is learned again
    first. mark: the end of the stride under way. due: when it learns again, on the monotonic clock. reached: whether it
    has ever caught up. seconds: of learning since the last model was published. published, stored: `trainer.steps` at
    that time. published_at, stored_at: on the monotonic clock. stored_bytes: of the model last stored; None if there is
    none.
    """

    trainer: Trainer
    version: ExperimentVersion
    at: Position
    named: Position = START
    mark: Mark | None = None
    due: float = 0.0
    reached: bool = False
    seconds: float = 0.0
    published: Steps = Steps()
    published_at: float = -math.inf
    stored: Steps = Steps()
    stored_at: float = field(default_factory=time.monotonic)
    stored_bytes: float | None = None
    unstored_seconds: float = 0.0

    @property
    def owner(self) -> Owner:
        """What its models are of."""
        return self.trainer.experiment, self.trainer.signature

    @property
    def news(self) -> bool:
        """Whether it has learned, or gone back, since its model was published."""
        return self.trainer.steps != self.published

    def skip_to(self, mark: Mark) -> None:
        """Nothing was sealed between: the log is not asked."""
        self.trainer.skip_to(mark)
        self.at = mark.position

    def work(self, goal: Mark, log: LogReader, seconds: float) -> bool:
        """Learn one slice of so many seconds towards the goal, STRIDE entries at most. Returns whether a model can be
        named there.

        Raises what reading or learning raises.
        """
        if self.at >= goal.position:
            return True
        started = time.monotonic()
        self.mark = self.mark or self._next_mark(goal, log)
        there = self.trainer.advance(self.mark, seconds=seconds)
        if there:
            self.at, self.mark = self.mark.position, None
        spent = time.monotonic() - started
        self.seconds += spent
        self.unstored_seconds += spent
        return there

    def _next_mark(self, goal: Mark, log: LogReader) -> Mark:
        if goal.position - self.at <= STRIDE:
            return goal
        position = Position(self.at + STRIDE)
        cut = log.cut()  # nobody knows the times of entries before it
        return min(cut, goal) if position <= cut.position else Mark(position, log.time_at(position))


class Roster(dict[Owner, Training]):
    """The trainings, by what their models are of."""

    def versions_by_owner(self, lineup: Lineup) -> dict[Owner, ExperimentVersion]:
        """The models that serve or will serve, and the versions that need them; of two versions the later one."""
        return {
            owner_of(version): version
            for rollout in lineup.values()
            for version in _versions(rollout)
            if version.experiment.policy.learns
        }

    def behind(
        self, lineup: Mapping[ExperimentId, Rollout], head: Position
    ) -> Iterator[tuple[ExperimentId, int, Position, Position]]:
        """(experiment, version's number, learned up to, of) of every version whose model has not caught up."""
        for rollout in lineup.values():
            for version in _versions(rollout):
                training = self.get(owner_of(version))
                if training is not None and not training.reached:
                    yield version.experiment.id, version.number, training.at, head
                elif training is None and version is rollout.waiting:
                    yield version.experiment.id, version.number, START, head


def _versions(rollout: Rollout) -> tuple[ExperimentVersion, ...]:
    return (rollout.serving,) if rollout.waiting is None else (rollout.serving, rollout.waiting)
