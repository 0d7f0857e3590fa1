"""The one way in which a policy learns from a log: sealed decisions in the order in which their windows end.

A trainer's state is a pure function of (log up to its position, experiment, policy spec), however the way there was
cut into pieces: windows are longer than nothing and log time never goes back, so nothing that comes later can seal
earlier. The server's learner and `simulator verify` use this same class; that is why a log can be replayed.
"""

from __future__ import annotations

import logging
from heapq import merge

from decider.errors import LogCorrupt, ModelMismatch
from decider.experiment.definition import ExperimentVersion
from decider.experiment.aggregate import final_reward
from decider.log.protocol import LogReader, Mark, SealedDecision
from decider.policy.make import SavedModel, load_model, make_policy, save_model
from decider.policy.protocol import Model
from decider.policy.spec import PolicySpec
from decider.types import START, ExperimentId, Position, Reason, Time

logger = logging.getLogger(__name__)

PROGRESS = 100_000
"""Decisions between two lines that say how far a long round of learning is."""

NOT_POLICY_TRAFFIC = (Reason.HOLDOUT, Reason.FALLBACK)


class Trainer:
    """Owns one policy and teaches it. `learned` counts the decisions since this trainer began."""

    def __init__(self, log: LogReader, experiment: ExperimentId, spec: PolicySpec) -> None:
        self._log = log
        self.experiment = experiment
        self.spec = spec
        self._restart(START, None)

    def _restart(self, position: Position, saved: SavedModel | None) -> None:
        self._policy = load_model(self.spec, saved) if saved else make_policy(self.spec)
        self._time: Time = self._log.time_at(position) if position > START else Time(0)
        self._position = position
        self.learned = 0

    def resume(self) -> None:
        """Go on from the newest stored model, if there is one and its policy can.

        Raises ModelMismatch if it is damaged; the trainer is then fresh and can learn everything from the log again.
        """
        stored = self._log.newest_model(self.experiment, self.spec.signature)
        if stored is not None and self.spec.resumable:
            self._restart(*stored)

    def learn_up_to(self, mark: Mark) -> int:
        """Learn from every decision sealed up to `mark`, which must not lie behind; how many that were.

        Where reading fails half way the trainer forgets everything, so that nothing is learned twice.
        """
        try:
            return self._learn_up_to(mark)
        except BaseException:
            self._restart(START, None)
            raise

    def _learn_up_to(self, mark: Mark) -> int:
        before = self.learned
        versions = [v for v in self._log.versions() if v.experiment.id == self.experiment]
        by_position = {v.position: v for v in versions}
        streams = [self._log.sealed(v, after=self._time, until=mark.time) for v in versions]
        for sealed in merge(*streams, key=lambda s: (s.deadline, s.position)):
            self._learn(sealed, by_position[sealed.decision.version])
        self._time = max(self._time, mark.time)
        if self.learned > before:
            self._position = mark.position
        return self.learned - before

    def _learn(self, sealed: SealedDecision, version: ExperimentVersion) -> None:
        decision = sealed.decision
        if version.experiment.frozen or sealed.overridden or decision.reason in NOT_POLICY_TRAFFIC:
            return
        try:
            lines = version.encoded(decision.eligible, decision.action_features)
            drawn = decision.eligible.index(decision.action)
        except (KeyError, ValueError) as error:
            raise LogCorrupt(f"the decision at position {sealed.position} names an unknown action: {error}") from error
        self._policy.learn(
            decision.context,
            lines,
            drawn=drawn,
            propensity=decision.propensity,
            reward=final_reward(version.experiment.reward, sealed.rewards),
        )
        self.learned += 1
        if self.learned % PROGRESS == 0:
            logger.info(
                "experiment %s: learned %d decisions, up to position %d", self.experiment, self.learned, sealed.position
            )

    def publish(self) -> tuple[Model, SavedModel]:
        """An immutable copy of what has been learned, to serve, and the same to store."""
        saved = save_model(self.spec, self._policy)
        return Model(load_model(self.spec, saved), self._position), saved


def resumed_trainer(log: LogReader, experiment: ExperimentId, spec: PolicySpec) -> tuple[Trainer, ModelMismatch | None]:
    """A trainer that goes on from the newest stored model; with a damaged one a fresh trainer, and the reason."""
    trainer = Trainer(log, experiment, spec)
    try:
        trainer.resume()
    except ModelMismatch as mismatch:
        return trainer, mismatch
    return trainer, None
