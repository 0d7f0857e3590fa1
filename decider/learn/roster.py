"""Who learns: one trainer for each (experiment, signature) that serves or waits to serve, each with its own schedule.

A trainer far behind the log's end works in slices, so that the others learn on as if it were not there, and stores what
it has learned in pieces, so that a kill costs seconds. Called by the leader.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from decider.experiment.definition import ExperimentVersion
from decider.learn.trainer import Trainer
from decider.log.protocol import LogReader, Mark
from decider.serving.follower import Owner, owner_of
from decider.serving.lineup import Lineup, Rollout
from decider.types import START, ExperimentId, Position

SLICE = 0.05
"""Seconds that a trainer that is behind works before the others have their turn."""

STRIDE = 5_000
"""Entries of the log that are learned at once; then there is a model that can be named and stored."""

PIECE = 5.0
"""Seconds of learning that a kill may cost a trainer that is catching up."""


@dataclass(slots=True)
class Training:
    """A trainer and how far it is. version: the one that wants its model.

    at: position up to which the log is learned. named: the newest model that others have published, which is made again
    first. due: when it learns again, on the process's monotonic clock. reached:
    whether it has once learned all there was. seconds: of learning since the last model was published.
    published, stored: what `trainer.learned` was then. stored_bytes: of the model last stored; None if there is none.
    """

    trainer: Trainer
    version: ExperimentVersion
    at: Position
    named: Position = START
    mark: Mark | None = None
    due: float = 0.0
    reached: bool = False
    seconds: float = 0.0
    published: int = 0
    stored: int = 0
    stored_at: float = field(default_factory=time.monotonic)
    stored_bytes: float | None = None
    unstored_seconds: float = 0.0

    @property
    def news(self) -> bool:
        """Whether it has learned something that is not published."""
        return self.trainer.learned > self.published

    def work(self, goal: Mark, log: LogReader) -> bool:
        """One slice towards the goal, STRIDE entries at most; whether it ends where a model can be named.

        Raises what reading or learning raises.
        """
        if self.at >= goal.position:
            return True
        started = time.monotonic()
        self.mark = self.mark or self._next_mark(goal, log)
        there = self.trainer.advance(self.mark, seconds=SLICE)
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
        return Mark(position, log.time_at(position))


class Roster(dict[Owner, Training]):
    """The trainings, by what their models are of."""

    def versions_by_owner(self, lineup: Lineup) -> dict[Owner, ExperimentVersion]:
        """Whose models serve, or will; a version that waits comes after the one that serves."""
        return {
            owner_of(version): version
            for rollout in lineup.values()
            for version in _versions(rollout)
            if version.experiment.policy.learns
        }

    def behind(self, lineup: Lineup, head: Position) -> Iterator[tuple[ExperimentId, int, Position, Position]]:
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
