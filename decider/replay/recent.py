"""The newest decisions of a log, made again. Called by `decider check`.

`simulator verify` learns the whole log and trusts no stored model. This goes on from the stored model before the first
of these decisions, so that it takes as long as these take, however long the log is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from operator import attrgetter

from decider.errors import ModelMismatch
from decider.experiment.definition import ExperimentVersion
from decider.learn.trainer import Trainer
from decider.log.evicted import EvictedPolicies
from decider.log.protocol import LoggedDecision, LogReader, Mark
from decider.policy.make import make_policy
from decider.policy.memory import PolicyMemory
from decider.policy.protocol import Model
from decider.replay.gaps import Gaps, find_version, sources
from decider.replay.models import MEMORY, Owner, owner_of
from decider.replay.past import UnitHistories, as_logged
from decider.replay.recompute import Build, Mismatch, compare
from decider.types import START, Position, Time


@dataclass(frozen=True, slots=True)
class Recent:
    """decisions: that were made again; equal: of them. first: the difference with the lowest position. skipped: those
    that cannot be made again, since another system drew them or their unit was forgotten. cut: whether some version may
    have more decisions after that time than were asked for."""

    decisions: int
    equal: int
    skipped: int
    first: Mismatch | None
    cut: bool = False


def recompute_newest(
    log: LogReader, *, since: Time, most: int, on_decision: Callable[[], None] = lambda: None
) -> Recent:
    """Of each version, the decisions after a time; at most so many, the newest. What limits had been used up is taken
    as logged. Raises UnknownCode, ArchiveMissing, ArchiveDamaged, LogCorrupt."""
    gaps, imported, builds, models = Gaps(log), sources(log), log.builds(), _Models(log)
    histories = UnitHistories(log)
    decisions = equal = skipped = 0
    cut = False
    differences: list[Mismatch] = []
    for position in log.versions_with_decisions():
        version = find_version(log, position)
        newest = _newest(log, position, since=since, most=most)
        cut |= len(newest) == most
        for logged in newest:
            on_decision()
            if version is None or logged.build in imported or gaps.has(logged):
                skipped += 1
                continue
            build = Build(logged.build, builds.get(logged.build, {}))
            difference = _compare(log, logged, version, build, models, histories)
            decisions += 1
            equal += difference is None
            differences += [difference] if difference else []
    return Recent(decisions, equal, skipped, min(differences, key=_position, default=None), cut)


_position = attrgetter("logged.position")


def _newest(log: LogReader, version: Position, *, since: Time, most: int) -> Sequence[LoggedDecision]:
    """In the order of their models, which are learned one after the other."""
    lines = [line for line in log.newest_decisions(version, most=most) if line.time > since]
    found = [one for one in (log.find(line.decision_id) for line in lines) if one is not None]
    return sorted(found, key=lambda one: (one.decision.model, one.position))


def _compare(
    log: LogReader,
    logged: LoggedDecision,
    version: ExperimentVersion,
    build: Build,
    models: _Models,
    histories: UnitHistories,
) -> Mismatch | None:
    return compare(
        log,
        logged,
        version,
        build=build,
        model=partial(models.at, owner_of(version, build), logged.decision.model),
        histories=histories,
        history=partial(as_logged, version),
    )


class _Models:
    """Models by name, in rising order of position, each owner's learned on from a stored one."""

    def __init__(self, log: LogReader) -> None:
        self._log = log
        self._memory = PolicyMemory(MEMORY, EvictedPolicies())
        self._trainers: dict[object, Trainer] = {}
        self._newest: dict[object, tuple[Position, Model]] = {}

    def at(self, owner: Owner, position: Position) -> Model:
        """The policy as it was after learning the log up to this position."""
        if not owner.policy.learns or position == START:
            return Model(make_policy(owner.policy, code=owner.code), position)
        known = self._newest.get(owner.key)
        if known is None or known[0] > position:
            self._trainers[owner.key] = self._begin(owner, position)
        elif known[0] == position:
            return known[1]
        trainer = self._trainers[owner.key]
        trainer.replay_up_to(self._mark(position))
        model = Model(trainer.model().policy, position)
        self._newest[owner.key] = (position, model)
        self._memory.trim()
        return model

    def _begin(self, owner: Owner, position: Position) -> Trainer:
        trainer = Trainer(self._log, owner.experiment, owner.policy, code=owner.code, memory=self._memory)
        with suppress(ModelMismatch):  # it is damaged: the trainer has learned nothing yet, and learns it all again
            trainer.resume_up_to(self._mark(position))
        return trainer

    def _mark(self, position: Position) -> Mark:
        return Mark(position, self._log.time_at(position))
