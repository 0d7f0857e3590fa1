"""Applies an experiment by appending a version to the log (compare-and-set); workers follow. Called by the RPCs and for
experiment files, in any process, without the leader and without a lock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from decider.errors import NotFound
from decider.experiment.checks import check_successor, check_work
from decider.experiment.definition import Experiment, ExperimentVersion
from decider.experiment.schema import to_message, write_json
from decider.learn.trainer import check_learnable
from decider.log.protocol import EventLog, NewVersion
from decider.policy.work import Budget
from decider.serving.lineup import Lineup
from decider.types import START, ExperimentId


@dataclass(frozen=True, slots=True)
class ApplyResult:
    """changed: whether it is a new version. waits: it serves once its policy has learned the log."""

    version: ExperimentVersion
    changed: bool
    waits: bool


class Versions:
    """Applies experiments to a log. budget: an experiment of which not even a decision without free features fits is
    refused."""

    def __init__(self, log: EventLog, budget: Budget | None = None) -> None:
        self._log = log
        self._budget = budget

    def apply(self, experiment: Experiment, *, keep_state: bool = False, validate_only: bool = False) -> ApplyResult:
        """Make an experiment, or a new version of one; the same content changes nothing.

        keep_state: it stays paused or active. Raises InvalidExperiment where it contradicts earlier versions or its
        decisions would cost too much, FailedPrecondition where its policy would have to learn from a part of the
        archive that is not there.
        """

        def content(newest: Experiment | None) -> Experiment:
            return replace(experiment, paused=newest.paused) if keep_state and newest else experiment

        return self._apply(experiment.id, content, validate_only=validate_only)

    def set_paused(self, id_: ExperimentId, *, paused: bool) -> ApplyResult:
        """Pause or resume: a new version with the other state. Raises NotFound, and InvalidExperiment as `apply`."""

        def content(newest: Experiment | None) -> Experiment:
            if newest is None:
                raise NotFound(f"there is no experiment {id_!r}", reason="EXPERIMENT_NOT_FOUND")
            return replace(newest, paused=paused)

        return self._apply(id_, content)

    def _apply(
        self, id_: ExperimentId, content: Callable[[Experiment | None], Experiment], *, validate_only: bool = False
    ) -> ApplyResult:
        # Compare-and-set: the log's unique key (experiment, number) refuses the entry where another process has applied
        # a version meanwhile; then everything is computed anew from what that process has applied.
        while True:
            lineup, news = Lineup(), self._log.follow(START)  # one read for both: they must know the same versions
            lineup.follow(news)
            history = [version for version, _ in news.versions if version.experiment.id == id_]
            experiment = content(history[-1].experiment if history else None)
            check_successor(experiment, [version.experiment for version in history])
            waits = lineup.must_wait(experiment)
            if history and write_json(to_message(history[-1].experiment)) == write_json(to_message(experiment)):
                return ApplyResult(history[-1], changed=False, waits=lineup[id_].waiting is not None)
            if self._budget is not None and not experiment.paused:  # a pause is never refused
                check_work(experiment, self._budget)
            if history and experiment.policy.signature != history[-1].experiment.policy.signature:
                check_learnable(self._log, id_, experiment.policy)  # a pause keeps the policy, so nothing stops it
            number = len(history) + 1
            if validate_only:
                version = ExperimentVersion(experiment, number=number, position=START, time=self._log.head().time)
                return ApplyResult(version, changed=True, waits=waits)
            (mark,) = self._log.append([NewVersion(experiment, number, waits)])
            if mark is not None:
                version = ExperimentVersion(experiment, number=number, position=mark.position, time=mark.time)
                return ApplyResult(version, changed=True, waits=waits)
