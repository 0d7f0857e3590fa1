"""Applies an experiment by appending a version to the log (compare-and-set); workers follow. Called by the RPCs and for
experiment files, in any process, without the leader and without a lock.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile

from decider.errors import FailedPrecondition, InvalidExperiment, NotFound, Violation
from decider.experiment.changes import changes
from decider.experiment.checks import check_successor, check_work
from decider.experiment.combinations import check_combinations, combination_warnings
from decider.experiment.definition import Experiment, ExperimentVersion, RewardDefinition
from decider.experiment.guardrails import ONLY_SERVER, Guardrail
from decider.experiment.origin import UNKNOWN, Origin, is_from_file
from decider.experiment.schema import ONLY_RELEARN, definition_text, reward_text
from decider.learn.limits import LimitChecker, Limits
from decider.learn.trainer import check_learnable
from decider.log.protocol import EventLog, LogReader, NewVersion
from decider.policy.spec import Relearned
from decider.policy.work import Budget
from decider.serving.lineup import Lineup
from decider.types import START, ExperimentId, Position, Time

logger = logging.getLogger(__name__)

MOST_VERSIONS, MOST_COMPARED = 10_000, 100
"""Of an experiment: how far back the version is looked for that a file made last, and how many since then are compared
with what the file says."""


@dataclass(frozen=True, slots=True)
class ApplyResult:
    """changed: whether it is a new version. waits: it serves once its policy has learned the log. before: the newest
    version until then; None: there was none."""

    version: ExperimentVersion
    changed: bool
    waits: bool
    before: Experiment | None = None

    @property
    def changes(self) -> tuple[str, ...]:
        """What differs from the version before, in words."""
        return changes(self.before, self.version.experiment) if self.changed else ()


class Versions:
    """Applies experiments to a log, within the limits of a server. budget: an experiment of which not even a decision
    without free features fits is refused. archived: whether the log is to be archived, which some policies prevent."""

    def __init__(
        self,
        log: EventLog,
        limits: Limits | None = None,
        budget: Budget | None = None,
        *,
        archived: bool = False,
    ) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._lineup = Lineup(log)
        self._followed = START
        self._limits = LimitChecker(limits or Limits())
        self._budget = budget
        self._archived = archived

    def apply(
        self,
        experiment: Experiment,
        *,
        keep_state: bool = False,
        end_fallback: bool = False,
        validate_only: bool = False,
        origin: Origin = UNKNOWN,
    ) -> ApplyResult:
        """Make an experiment, or a new version of one; the same content changes nothing.

        keep_state: it stays paused, active or ended. end_fallback: the policy decides again where everybody got the
        baseline after a guardrail was crossed. origin: of the new version. Raises InvalidExperiment where it
        contradicts earlier versions or itself, or its decisions would cost too much, LimitReached where all experiments
        together would be too much, FailedPrecondition where its policy would have to learn from a part of the archive
        that is not there.
        """

        def content(newest: Experiment | None) -> Experiment:
            return _over(newest, experiment, keep_state=keep_state, end_fallback=end_fallback)

        return self._apply(experiment.id, content, origin, validate_only=validate_only)

    def newest(self) -> Mapping[ExperimentId, Position]:
        """Where the version of each experiment stands that was applied last."""
        with self._lock:
            return {id_: rollout.newest.position for id_, rollout in self._follow().items()}

    def overtaken(self, experiment: Experiment, *, keep_state: bool) -> tuple[ExperimentVersion, Origin] | None:
        """The newest version and its origin, if no file made it and what a file defines is older: what a file made, or
        a version since then. None where the file says something new, or just what runs."""
        positions = self._log.newest_versions(experiment.id, most=MOST_VERSIONS)
        origins = self._log.origins(positions)
        newer = list(takewhile(lambda at: not _may_be_of_a_file(origins.get(at, UNKNOWN)), positions))
        if not newer:
            return None
        newest = self._log.version_at(newer[0])
        if _says(newest.experiment, experiment, keep_state=keep_state):
            return None
        older = [*positions[len(newer) : len(newer) + 1], *newer[1:MOST_COMPARED]]
        if any(_says(self._log.version_at(at).experiment, experiment, keep_state=keep_state) for at in older):
            return newest, origins[newest.position]
        return None

    def relearn(self, id_: ExperimentId, *, origin: Origin = UNKNOWN) -> ApplyResult:
        """Learn the log anew, with what came late and by the newest reward definition: a new version, which waits for
        its model. Raises NotFound, FailedPrecondition where there is nothing that could learn, and as `apply`."""

        def content(newest: Experiment | None) -> Experiment:
            known = learner(id_, newest)
            head = self._log.head()  # behind the newest version, so that its decisions are learned by this definition
            return _relearned(known, Relearned(head.position, head.time, reward_text(known.reward)))

        return self._apply(id_, content, origin)

    def undo_relearning(self, id_: ExperimentId, *, origin: Origin = UNKNOWN) -> ApplyResult:
        """Back to the model that learned each decision as it was sealed: a new version. Raises as `relearn`."""
        return self._apply(id_, lambda newest: _relearned(learner(id_, newest), None), origin)

    def set_paused(self, id_: ExperimentId, *, paused: bool, origin: Origin = UNKNOWN) -> ApplyResult:
        """Pause or resume: a new version with the other state. To resume what is not paused ends a fallback to the
        baseline. Raises NotFound, FailedPrecondition if it has ended."""

        def content(newest: Experiment | None) -> Experiment:
            running = _running(id_, newest)
            return replace(running, paused=paused) if paused or running.paused else running.without_fallback()

        return self._apply(id_, content, origin)

    def fall_back(self, id_: ExperimentId, crossed: Guardrail, *, at: Time, origin: Origin) -> ApplyResult:
        """Everybody gets the baseline, since a guardrail was crossed: a new version. Where a person has changed the
        guardrail meanwhile, or it fell back already, nothing changes. Raises as `set_paused`."""

        def content(newest: Experiment | None) -> Experiment:
            running = _running(id_, newest)
            if running.fallback is not None:
                return running
            marked = [replace(one, crossed_at=at) if one == crossed else one for one in running.guardrails]
            return replace(running, guardrails=tuple(marked))

        return self._apply(id_, content, origin)

    def end_fallback(self, id_: ExperimentId, fallback: Guardrail, *, origin: Origin) -> ApplyResult:
        """The policy decides again: a new version. Where that fallback is over already, nothing changes. Raises as
        `set_paused`."""

        def content(newest: Experiment | None) -> Experiment:
            running = _running(id_, newest)
            return running.without_fallback() if running.fallback == fallback else running

        return self._apply(id_, content, origin)

    def _apply(
        self,
        id_: ExperimentId,
        content: Callable[[Experiment | None], Experiment],
        origin: Origin,
        *,
        validate_only: bool = False,
    ) -> ApplyResult:
        # Compare-and-set: the log's unique key (experiment, number) refuses the entry where another process has applied
        # a version meanwhile; then everything is computed anew from what that process has applied.
        while True:
            with self._lock:
                rollout = self._follow().get(id_)
                newest = self._log.version_at(rollout.newest.position) if rollout else None
                before = newest.experiment if newest else None
                experiment = content(before)
                self._limits.check(experiment, self._lineup)
            check_successor(experiment, self._log.action_kinds(id_))
            if not _is_only_another_state(newest, experiment):  # a pause or the same content is never refused
                check_combinations(experiment, before)
            waits = rollout is not None and rollout.must_wait(experiment)
            if rollout and newest and definition_text(newest.experiment) == definition_text(experiment):
                return ApplyResult(newest, changed=False, waits=rollout.waiting is not None)
            if newest and experiment.policy.signature != newest.experiment.policy.signature:
                check_learnable(self._log, id_, experiment.policy)  # a pause keeps the policy, so nothing stops it
            asks = not (experiment.paused or experiment.ended or experiment.fallback is not None)
            if self._budget is not None and asks:  # others are never refused
                check_work(experiment, self._budget)
            number = newest.number + 1 if newest else 1
            if validate_only:
                version = ExperimentVersion(experiment, number=number, position=START, time=self._log.head().time)
                return ApplyResult(version, True, waits, before)
            (mark,) = self._log.append([NewVersion(experiment, number, waits, origin)])
            if mark is not None:
                self._warn_of_whole_log(experiment)
                for warning in combination_warnings(experiment, mark.time, before):
                    logger.warning("experiment %s: %s", experiment.id, warning)
                self._warn_of_old_rewards(newest, experiment)
                version = ExperimentVersion(experiment, number=number, position=mark.position, time=mark.time)
                return ApplyResult(version, True, waits, before)

    def _warn_of_whole_log(self, experiment: Experiment) -> None:
        policy = experiment.policy
        if self._archived and policy.learns and not policy.resumable:
            logger.warning(
                "experiment %s: its policy %s needs the whole log, so nothing of the log is archived any more, of no "
                "experiment; give it another policy, or serve it from a log of its own (another --db)",
                experiment.id, policy.algorithm,
            )  # fmt: skip

    def _warn_of_old_rewards(self, before: ExperimentVersion | None, experiment: Experiment) -> None:
        if before is None or not experiment.policy.learns or learns_alike(before.experiment.reward, experiment.reward):
            return
        count = self._log.count_learned(experiment.id)
        if count:
            logger.warning(
                "experiment %s: its reward definition is another one now. %d decisions in the log stay learned by the "
                "one that they were made with; `decider relearn %s --db %s` learns them anew by this one",
                experiment.id, count, experiment.id, self._log.name,
            )  # fmt: skip

    def _follow(self) -> Lineup:
        """What serves and waits now."""
        news = self._log.follow(self._followed)
        self._lineup.follow(news)
        self._followed = news.head
        return self._lineup


def _may_be_of_a_file(origin: Origin) -> bool:
    """Older releases did not say."""
    return is_from_file(origin) or not origin.source


def _over(newest: Experiment | None, experiment: Experiment, *, keep_state: bool, end_fallback: bool) -> Experiment:
    """An experiment as the version after another."""
    kept = _keep_fallback(_keep_relearned(experiment, newest), newest, ends=end_fallback)
    return replace(kept, paused=newest.paused, ended=newest.ended) if keep_state and newest else kept


def _says(version: Experiment, experiment: Experiment, *, keep_state: bool) -> bool:
    """Whether an experiment is that version already."""
    again = _over(version, experiment, keep_state=keep_state, end_fallback=False)
    return definition_text(again) == definition_text(version)


def _is_only_another_state(newest: ExperimentVersion | None, experiment: Experiment) -> bool:
    return newest is not None and experiment.without_fallback() == replace(
        newest.experiment.without_fallback(), paused=experiment.paused, ended=experiment.ended
    )


def newest_version(log: LogReader, id_: ExperimentId) -> ExperimentVersion | None:
    """The one that was applied last; None: there is no such experiment."""
    lineup = Lineup(log)
    lineup.follow(log.follow(START))
    return log.version_at(lineup[id_].newest.position) if id_ in lineup else None


def learner(id_: ExperimentId, newest: Experiment | None) -> Experiment:
    """The newest version, where there is a model that could learn anew. Raises NotFound, FailedPrecondition."""
    running = _running(id_, newest)
    if not running.policy.learns:
        raise FailedPrecondition(f"experiment {id_!r}: its policy {running.policy.algorithm} learns nothing")
    return running


def _running(id_: ExperimentId, newest: Experiment | None) -> Experiment:
    """The newest version. Raises NotFound, and FailedPrecondition if it has ended."""
    if newest is None:
        raise NotFound(f"there is no experiment {id_!r}", reason="EXPERIMENT_NOT_FOUND")
    if newest.ended:
        raise FailedPrecondition(
            f"experiment {id_!r} has ended; apply it with the state ACTIVE to begin it again", reason="EXPERIMENT_ENDED"
        )
    return newest


def learns_alike(one: RewardDefinition, other: RewardDefinition) -> bool:
    """Whether the same rewards are worth the same to a model. Windows end as they did, whatever comes later."""
    return replace(one, window=0) == replace(other, window=0)


def _relearned(experiment: Experiment, relearned: Relearned | None) -> Experiment:
    return replace(experiment, policy=replace(experiment.policy, relearned=relearned))


def _keep_relearned(experiment: Experiment, newest: Experiment | None) -> Experiment:
    """What was learned anew stays so, also by another policy. Raises InvalidExperiment where somebody else says so."""
    running = newest.policy.relearned if newest else None
    if experiment.policy.relearned not in (None, running):
        raise InvalidExperiment([Violation("relearned", f"{ONLY_RELEARN}; leave it out: the running one stays")])
    return _relearned(experiment, running)


def _keep_fallback(experiment: Experiment, newest: Experiment | None, *, ends: bool) -> Experiment:
    """A fallback to the baseline goes on, also with other margins; it ends with its guardrail, or where somebody says
    so. Raises InvalidExperiment for one that there is not."""
    running = {one.reward: one.crossed_at for one in newest.guardrails} if newest else {}
    for index, one in enumerate(experiment.guardrails):
        if one.crossed_at not in (None, running.get(one.reward)):
            problem = f"{ONLY_SERVER}; leave it out: a fallback goes on until the experiment is resumed"
            raise InvalidExperiment([Violation(f"guardrails[{index}].crossed_at", problem)])
    if ends:
        return experiment
    kept = [
        replace(one, crossed_at=running.get(one.reward)) if one.falls_back else one for one in experiment.guardrails
    ]
    return replace(experiment, guardrails=tuple(kept))
