"""Follows the log: reads new versions and published models, and makes them serve.

Every worker has one, and nothing else changes what serves: a server in one process, workers beside a leader and workers
on other machines all take this path. A model's *name* comes from the log alone. Its content is looked up by that name:
among the copies of a leader in the same process or on the same machine (to store every model would write megabytes per
second), else among the stored models.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Sequence

from decider.errors import DeciderError
from decider.experiment.definition import ExperimentVersion
from decider.log.protocol import LogReader, ModelName, ServingChanges
from decider.policy.make import load_model, make_policy
from decider.policy.memory import PolicyMemory
from decider.policy.protocol import Model, Policy
from decider.policy.saved import SavedModel
from decider.serving.current import Current
from decider.serving.lineup import Lineup, Rollout
from decider.types import START, ExperimentId, Position

logger = logging.getLogger(__name__)

Owner = tuple[ExperimentId, str]
"""What a model is of: experiment and signature."""


class Copies:
    """The newest model of each owner that this process has made, by name."""

    def __init__(self) -> None:
        self._models: dict[Owner, tuple[ModelName, Model]] = {}

    def put(self, name: ModelName, model: Model, save: Callable[[], SavedModel]) -> None:  # noqa: ARG002
        """Keep a model. Called before its name is published. save: makes what other processes can load."""
        self._models[name.experiment, name.signature] = (name, model)

    def get(self, name: ModelName) -> Model | None:
        """The model of that name, if it is the newest."""
        known = self._models.get((name.experiment, name.signature))
        return known[1] if known and known[0] == name else None

    def load(self, name: ModelName) -> SavedModel | None:  # noqa: ARG002
        """What another process on this machine has made, where such a one shares its models."""
        return None

    def drop(self, owner: Owner) -> None:
        """Forget the owner's model."""
        self._models.pop(owner, None)

    def leave(self, owner: Owner) -> None:
        """As `drop`, where another process makes the owner's models from now on."""
        self.drop(owner)


class Follower:
    """Keeps `current` up to date with the log. `lineup`: which version serves and which one waits. memory: bounds the
    models that it loads. tell: each is called with what is new, once."""

    def __init__(
        self,
        log: LogReader,
        current: Current,
        copies: Copies,
        *,
        memory: PolicyMemory | None = None,
        tell: Sequence[Callable[[ServingChanges], None]] = (),
    ) -> None:
        self._log = log
        self._current = current
        self._copies = copies
        self._memory = memory
        self._tell = tell
        self._lock = threading.Lock()
        self._position = START
        self._due: set[ExperimentId] = set()
        self._names: dict[Owner, ModelName] = {}
        self._held: dict[Owner, str] = {}
        self.lineup = Lineup(log)

    def follow(self) -> None:
        """Make serve what has come since the last call. Raises LogError; the next call retries what is left."""
        # `_due` outlives a failure: the position moves on at once, and what could not be swapped in is tried again.
        with self._lock:
            news = self._log.follow(self._position)
            changed = self.lineup.follow(news)
            self._due |= changed
            for _, name in news.models:
                self._names[name.experiment, name.signature] = name
                self._due.add(name.experiment)
            self._position = news.head
            if news.versions or news.leave_outs:
                for tell in self._tell:
                    tell(news)
            self._swap_due(changed)

    def hold(self, owner: Owner, problem: str) -> None:
        """A model that cannot be learned yet must not serve: it would be one that has learned nothing."""
        with self._lock:
            self._held[owner] = problem

    def release(self, owner: Owner) -> None:
        """The model has learned: it serves from the next `follow` on."""
        with self._lock:
            self._held.pop(owner, None)
            self._due.add(owner[0])

    def _swap_due(self, changed: Collection[ExperimentId]) -> None:
        """An experiment whose model cannot be read does not hold up the others. changed: have another version, which
        comes first: a pause must not wait until the models of others are loaded."""
        failed: DeciderError | None = None
        for id_ in sorted(self._due, key=lambda id_: id_ not in changed):
            try:
                if id_ in self.lineup:
                    self._swap(self.lineup[id_])
                self._due.discard(id_)
            except DeciderError as error:
                failed = error
        if failed is not None:
            raise failed

    def _swap(self, rollout: Rollout) -> None:
        version = rollout.serving
        if version.experiment.ended:
            self._current.end(version)
            if rollout.waiting is None:
                self._names.pop(owner_of(version), None)
            return
        problem = self._held.get(owner_of(version))
        if problem is not None:
            self._current.held[version.experiment.id] = problem
            return
        serving = self._current.get(version.experiment.id)
        kept = serving.model if serving and owner_of(serving.version) == owner_of(version) else None
        # Where the newest model's content is in another process, the one before goes on.
        self._current.put(version, self._newest(version, kept) or kept or self._newest_stored(version))

    def _newest(self, version: ExperimentVersion, kept: Model | None) -> Model | None:
        """The model with the newest name, where its content is at hand. kept: serves already: a pause loads none."""
        name = self._names.get(owner_of(version))
        if name is None:
            return None
        if kept is not None and kept.position == name.position:
            return kept
        return self._copies.get(name) or self._load(version, name)

    def _load(self, version: ExperimentVersion, name: ModelName) -> Model | None:
        try:
            saved = self._copies.load(name) or self._log.models.load(name)
            return self._keep(load_model(version.experiment.policy, saved), name.position) if saved else None
        except DeciderError as error:
            logger.error("experiment %s: %s; an older model serves", name.experiment, error)
            return None

    def _newest_stored(self, version: ExperimentVersion) -> Model:
        """The newest stored model, or a fresh one."""
        policy = version.experiment.policy
        stored = self._log.models.stored_positions(*owner_of(version)) if policy.learns else ()
        for position in reversed(stored):
            model = self._load(version, ModelName(version.experiment.id, position, policy.signature))
            if model is not None:
                return model
        return self._keep(make_policy(policy)) if policy.learns else Model(make_policy(policy))

    def _keep(self, policy: Policy, position: Position = START) -> Model:
        serves = policy.snapshot()  # without what only learning needs
        return Model(self._memory.keep(serves) if self._memory else serves, position)


def owner_of(version: ExperimentVersion) -> Owner:
    """The owner of the models that serve a version."""
    return version.experiment.id, version.experiment.policy.signature
