"""Which version of each experiment serves, and which one waits: computed from the log's entries alone.

A version serves from its own entry on, unless its policy has to learn the log first: then it waits, the version before
it goes on serving, and a `Serves` entry ends the waiting. A pause or any newer version ends it too. Used by the
follower, the leader and `learn/versions.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from decider.experiment.definition import Experiment, ExperimentVersion
from decider.log.protocol import LogReader, ServingChanges
from decider.types import ExperimentId, Position


@dataclass(frozen=True, slots=True)
class Rollout:
    """The versions of one experiment that serve and wait. warm: signature of the policy whose model has caught up.
    What has ended is remembered without its actions."""

    serving: ExperimentVersion
    warm: str
    waiting: ExperimentVersion | None = None

    @property
    def newest(self) -> ExperimentVersion:
        """The version that was applied last."""
        return self.waiting or self.serving

    def must_wait(self, experiment: Experiment) -> bool:
        """Whether a new version of this content has to learn before it serves. A pause, an end or a fallback to the
        baseline never waits."""
        policy = experiment.policy
        asks = not (experiment.paused or experiment.ended or experiment.fallback is not None)
        return policy.learns and asks and policy.signature != self.warm


class _Places(NamedTuple):
    """A rollout by the positions of its versions. warm: of the version whose policy's model has caught up."""

    serving: Position
    warm: Position
    waiting: Position | None = None

    def after(self, version: Position, *, waits: bool) -> _Places:
        """After a new version."""
        return self._replace(waiting=version) if waits else _Places(version, self.warm)

    def after_serves(self, version: Position) -> _Places:
        """After a `Serves` entry for that version."""
        if version == self.waiting:
            return _Places(version, version)
        return self._replace(warm=version) if version == self.serving else self


class Lineup(dict[ExperimentId, Rollout]):
    """The rollout of every experiment. log: has the definitions; only those that matter now are read."""

    def __init__(self, log: LogReader) -> None:
        super().__init__()
        self._log = log
        self._places: dict[ExperimentId, _Places] = {}

    def follow(self, news: ServingChanges) -> set[ExperimentId]:
        """Apply new entries. Returns the experiments that changed. Raises LogError; then it is as it was before."""
        changed = self._places_after(news)
        rollouts = {id_: self._rollout(places) for id_, places in changed.items()}
        self._places |= changed
        self.update(rollouts)
        return {*changed}

    def _places_after(self, news: ServingChanges) -> dict[ExperimentId, _Places]:
        """The new places of the experiments that changed."""
        applied = {name.position: (name.experiment, waits) for name, waits in news.versions}
        served = dict(news.serves)
        changed: dict[ExperimentId, _Places] = {}
        for position in sorted(applied | served):
            if position in applied:
                id_, waits = applied[position]
                before = changed.get(id_) or self._places.get(id_)
                changed[id_] = before.after(position, waits=waits) if before else _Places(position, position)
                continue
            version = served[position]
            known = applied[version][0] if version in applied else self._experiment_of(version)
            if known is not None:
                changed[known] = (changed.get(known) or self._places[known]).after_serves(version)
        return changed

    def _experiment_of(self, version: Position) -> ExperimentId | None:
        """None where a newer version had ended the waiting before: then a `Serves` entry has no effect."""
        return next((id_ for id_, at in self._places.items() if version in (at.serving, at.waiting)), None)

    def _rollout(self, places: _Places) -> Rollout:
        return Rollout(
            serving=self._version(places.serving),
            warm=self._log.version_at(places.warm).experiment.policy.signature,
            waiting=None if places.waiting is None else self._version(places.waiting),
        )

    def _version(self, position: Position) -> ExperimentVersion:
        version = self._log.version_at(position)
        return version.without_actions() if version.experiment.ended else version
