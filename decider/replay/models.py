"""The models that decisions name, learned again from the log, or from a model that is stored. Called by `explain.py`,
`simulator verify` and `simulator agreement`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from decider.errors import ModelMismatch
from decider.experiment.definition import ExperimentVersion
from decider.learn.bases import code_of
from decider.learn.trainer import Trainer
from decider.log.evicted import EvictedPolicies
from decider.log.protocol import LoggedDecision, LogReader, Mark, ModelName
from decider.policy.make import load_model, make_policy
from decider.policy.memory import PolicyMemory
from decider.policy.protocol import Model
from decider.policy.spec import PolicySpec
from decider.policy.work import Budget
from decider.replay.recompute import Build, budget_of
from decider.types import START, ExperimentId, Position, Time


class Owner(NamedTuple):
    """What a model is of. code: of the learning code."""

    experiment: ExperimentId
    policy: PolicySpec
    code: int

    @property
    def key(self) -> tuple[ExperimentId, str]:
        """By which its models are found."""
        return self.experiment, self.policy.signature_of(self.code)


def owner_of(version: ExperimentVersion, build: Build) -> Owner:
    """Of the models that a build made for a version."""
    policy = version.experiment.policy
    return Owner(version.experiment.id, policy, code_of(build.content, policy))


MEMORY = 1_000_000_000
"""Bytes of the policies in memory, at most: a log may have thousands of experiments."""


class Models:
    """Models by name. Asked in rising order of position it learns the log once for each policy spec and code."""

    def __init__(self, log: LogReader) -> None:
        self._log = log
        self._memory = PolicyMemory(MEMORY, EvictedPolicies())
        self._head = Position(-1)
        self._trainers: dict[tuple[ExperimentId, str], Trainer] = {}
        self._models: dict[tuple[ExperimentId, str], tuple[Position, Model]] = {}
        self.read_news()

    def read_news(self) -> None:
        """Read the log again where it has grown."""
        head = self._log.head().position
        if head == self._head:
            return
        self._head = head
        self._builds = self._log.builds()
        self._published: dict[tuple[ExperimentId, str], set[Position]] = {}
        self.versions = {version.position: version for version in self._log.versions()}

    def that_served(self, logged: LoggedDecision, version: ExperimentVersion) -> Model:
        """The model that a decision of this version names. Raises UnknownCode."""
        return self.at(self.owner(logged, version), logged.decision.model)

    def owner(self, logged: LoggedDecision, version: ExperimentVersion) -> Owner:
        """Of the model that a decision of this version names."""
        return owner_of(version, self.build(logged))

    def budget(self, logged: LoggedDecision) -> Budget | None:
        """See `budget_of`."""
        return budget_of(self.build(logged))

    def build(self, logged: LoggedDecision) -> Build:
        """That wrote a decision."""
        return Build(logged.build, self._builds.get(logged.build, {}))

    def published(self, owner: Owner, position: Position) -> bool:
        """Whether the log says that there was such a model."""
        if owner.key not in self._published:
            self._published[owner.key] = {START, *self._log.models.published_positions(*owner.key)}
        return position in self._published[owner.key]

    def at(self, owner: Owner, position: Position) -> Model:
        """The policy as it was after learning the log up to this position. Raises UnknownCode."""
        known = self._models.get(owner.key)
        if known is not None and known[0] == position:
            return known[1]
        if not owner.policy.learns:
            model = Model(make_policy(owner.policy, code=owner.code))
        else:
            if known is None or known[0] > position:
                self._trainers[owner.key] = Trainer(
                    self._log, owner.experiment, owner.policy, code=owner.code, memory=self._memory
                )
            trainer = self._trainers[owner.key]
            if trainer.position > position:  # older than the model that was kept at the cut
                trainer.begin_with_nothing()
            if position > START:
                trainer.replay_up_to(Mark(position, self._log.time_at(position)))
            model = Model(trainer.model().policy, position)
        self._models[owner.key] = (position, model)
        self._memory.trim()
        return model


STEP = 0.5
"""Seconds of learning between two reports of progress."""


def model_at(
    log: LogReader, owner: Owner, position: Position, *, seconds: float, say: Callable[[Time], None]
) -> Model | None:
    """The same for one model alone: from the newest stored model on that has learned no further. None where that would
    take longer than so many seconds. say: told now and then up to what time it has learned.

    Raises UnknownCode; ArchiveMissing, ArchiveDamaged, LogCorrupt where what it learned from cannot be read.
    """
    if not owner.policy.learns or position == START:
        return Model(make_policy(owner.policy, code=owner.code), position)
    stored = _stored(log, owner, position)
    return stored or _learned(log, owner, position, seconds=seconds, say=say)


def _stored(log: LogReader, owner: Owner, position: Position) -> Model | None:
    saved = log.models.load(ModelName(owner.experiment, position, owner.key[1]))
    if saved is None:
        return None
    try:
        return Model(load_model(owner.policy, saved, owner.code), position)
    except ModelMismatch:
        return None  # it is damaged: the log can make it again


def _learned(
    log: LogReader, owner: Owner, position: Position, *, seconds: float, say: Callable[[Time], None]
) -> Model | None:
    trainer = Trainer(log, owner.experiment, owner.policy, code=owner.code)
    mark = Mark(position, log.time_at(position))
    deadline = time.monotonic() + seconds
    try:
        with suppress(ModelMismatch):  # it is damaged: the trainer has learned nothing yet, and learns it all again
            trainer.resume_up_to(mark)
        while not trainer.advance(mark, seconds=min(STEP, max(0.0, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                return None
            say(trainer.time)
        trainer.name_by(mark)
        return Model(trainer.model().policy, position)
    finally:
        trainer.close()
