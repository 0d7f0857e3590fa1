"""Which version of each experiment serves, and which one waits: computed from the log's entries alone.

A version serves from its own entry on, unless its policy has to learn the log first: then it waits, the version before
it goes on serving, and a `Serves` entry ends the waiting. A pause or any newer version ends it too. Used by the
follower, the leader and `learn/versions.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from decider.experiment.definition import Experiment, ExperimentVersion
from decider.log.protocol import ServingChanges
from decider.types import ExperimentId, Position


@dataclass(frozen=True, slots=True)
class Rollout:
    """The versions of one experiment that serve and wait. warm: signature of the policy whose model has caught up.
    What has ended is remembered without its actions."""

    serving: ExperimentVersion
    warm: str
    waiting: ExperimentVersion | None = None

    def after_serves(self, version: Position) -> Rollout:
        """After a `Serves` entry for that version."""
        if self.waiting is not None and self.waiting.position == version:
            return Rollout(self.waiting, self.waiting.experiment.policy.signature)
        if self.serving.position == version:
            return replace(self, warm=self.serving.experiment.policy.signature)
        return self

    @property
    def newest(self) -> ExperimentVersion:
        """The version that was applied last."""
        return self.waiting or self.serving


class Lineup(dict[ExperimentId, Rollout]):
    """The rollout of every experiment."""

    def follow(self, news: ServingChanges) -> set[ExperimentId]:
        """Apply new entries. Returns the experiments that changed."""
        applied = {version.position: (version, waits) for version, waits in news.versions}
        served = dict(news.serves)
        return {
            id_
            for position in sorted(applied | served)
            for id_ in (self._apply(*applied[position]) if position in applied else self._serve(served[position]),)
            if id_ is not None
        }

    def _apply(self, version: ExperimentVersion, waits: bool) -> ExperimentId:
        id_ = version.experiment.id
        rollout = self.get(id_)
        if version.experiment.ended:
            version = version.without_actions()
        if rollout is None:
            self[id_] = Rollout(version, version.experiment.policy.signature)
        elif waits:
            self[id_] = replace(rollout, waiting=version)
        else:
            self[id_] = Rollout(version, rollout.warm)
        return id_

    def _serve(self, version: Position) -> ExperimentId | None:
        """None where a newer version had ended the waiting before: then the entry has no effect."""
        for id_, rollout in self.items():
            if version in (rollout.newest.position, rollout.serving.position):
                self[id_] = rollout.after_serves(version)
                return id_
        return None

    def must_wait(self, experiment: Experiment) -> bool:
        """Whether a new version of this content has to learn before it serves. A pause or an end never waits."""
        rollout = self.get(experiment.id)
        policy = experiment.policy
        refuses = experiment.paused or experiment.ended
        return rollout is not None and policy.learns and not refuses and policy.signature != rollout.warm
