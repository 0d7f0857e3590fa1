"""The one learner of a log: applies experiment versions, seals and learns in log order, publishes models to serve.

Everything it knows it has read from the log, so it can be killed at any moment: the next one goes on from the last
published model. One lock makes a step and the applying of a version wait for each other; handlers never take it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from decider.errors import DeciderError, ModelMismatch
from decider.experiment.checks import check_successor
from decider.experiment.definition import Experiment, ExperimentVersion
from decider.experiment.schema import to_message, write_json
from decider.learn.trainer import Trainer, resumed_trainer
from decider.log.protocol import EventLog, Mark, NewVersion, PublishedModel, Tick
from decider.policy.make import load_model, make_policy
from decider.policy.protocol import Model
from decider.policy.saved import SavedModel
from decider.serving.current import Current, Serving
from decider.types import START, ExperimentId, Time

logger = logging.getLogger(__name__)


def _surprise(error: Exception) -> Exception | None:
    """What deserves a traceback."""
    return None if isinstance(error, DeciderError) else error


def _ignore_failed(experiment: ExperimentId) -> None:
    pass


def _ignore_learned(experiment: ExperimentId, count: int, seconds: float) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Applied:
    """changed: whether there is a new version."""

    serving: Serving
    changed: bool


class Learner:
    """See above. keep_models: how many stored models of an experiment keep their data.

    on_learned: told the experiment, the number of decisions and the seconds of every round of learning.
    on_failed: told the experiment whose round failed.
    """

    def __init__(
        self,
        log: EventLog,
        running: Current,
        *,
        clock: Callable[[], Time],
        keep_models: int = 100,
        on_learned: Callable[[ExperimentId, int, float], None] = _ignore_learned,
        on_failed: Callable[[ExperimentId], None] = _ignore_failed,
    ) -> None:
        self._log = log
        self._running = running
        self._clock = clock
        self._keep_models = keep_models
        self._on_learned = on_learned
        self._on_failed = on_failed
        self._lock = threading.Lock()
        self._trainers: dict[ExperimentId, Trainer] = {}
        with self._lock:
            for version in self._newest_versions():
                self._serve(version)

    def _newest_versions(self) -> list[ExperimentVersion]:
        return list({v.experiment.id: v for v in self._log.versions()}.values())

    def _serve(self, version: ExperimentVersion) -> None:
        """At the start: as before the restart, and up to the log's end unless frozen."""
        experiment = version.experiment
        trainer, model = self._kept(experiment) if experiment.frozen else self._ready(experiment)
        self._install(version, trainer, model)

    def _kept(self, experiment: Experiment) -> tuple[Trainer | None, Model]:
        """The model that a frozen experiment had, and a trainer for when it no longer is."""
        policy = experiment.policy
        trainer = self._resumed(experiment) if policy.learns else None
        stored = self._log.newest_model(experiment.id, policy.signature)
        if trainer is None or stored is None:
            return trainer, Model(make_policy(policy))
        position, saved = stored
        try:
            return trainer, Model(load_model(policy, saved), position)
        except ModelMismatch:
            trainer.learn_up_to(Mark(position, self._log.time_at(position)))
            return trainer, Model(trainer.publish()[0].policy, position)

    def _resumed(self, experiment: Experiment) -> Trainer:
        trainer, mismatch = resumed_trainer(self._log, experiment.id, experiment.policy)
        if mismatch is not None:
            logger.error("experiment %s: %s; learning again from the log", experiment.id, mismatch)
        return trainer

    def _install(self, version: ExperimentVersion, trainer: Trainer | None, model: Model) -> Serving:
        """Serve a version with this model from now on, and teach this trainer."""
        serving = Serving(version, model)
        if trainer is None:
            self._trainers.pop(version.experiment.id, None)
        else:
            self._trainers[version.experiment.id] = trainer
        self._running.put(serving)
        return serving

    def _ready(self, experiment: Experiment) -> tuple[Trainer | None, Model]:
        """A trainer that has learned the whole log, and its model."""
        if not experiment.policy.learns:
            return None, Model(make_policy(experiment.policy))
        trainer = self._resumed(experiment)
        return trainer, self._learn(trainer) or trainer.publish()[0]

    def _learn(self, trainer: Trainer) -> Model | None:
        """A new model, stored, if there was anything to learn."""
        started = time.perf_counter()
        count = trainer.learn_up_to(self._log.end())
        if not count:
            return None
        model, saved = trainer.publish()
        self._store(trainer, model, saved)
        self._on_learned(trainer.experiment, count, time.perf_counter() - started)
        return model

    def _store(self, trainer: Trainer, model: Model, saved: SavedModel) -> None:
        """Before it serves: every model that a decision names is in the log's file."""
        place = PublishedModel(trainer.experiment, model.position, trainer.spec.signature)
        self._log.publish(place, saved, learned=trainer.learned, keep=self._keep_models)

    def step(self) -> None:
        """Seal what is due, learn, publish. Raises LogError if time cannot be told; the next step tries again."""
        with self._lock:
            self._tick_if_due()
            for serving in self._running.all():
                self._try_to_learn(serving)
            self._log.maintain()

    def _try_to_learn(self, serving: Serving) -> None:
        """One experiment that cannot learn does not stop the others; it goes on from its last stored model."""
        id_ = serving.version.experiment.id
        try:
            self._learn_and_serve(serving)
        except Exception as error:
            self._trainers.pop(id_, None)
            self._on_failed(id_)
            logger.error("experiment %s could not learn; it tries again: %s", id_, error, exc_info=_surprise(error))

    def _tick_if_due(self) -> None:
        """When time alone ends a window, the log must say so."""
        end = self._log.end().time
        now = self._clock()
        deadlines = (self._log.next_deadline(v, after=end) for v in self._log.versions())
        if any(deadline is not None and deadline <= now for deadline in deadlines):
            self._log.append([Tick()])

    def _learn_and_serve(self, serving: Serving) -> None:
        experiment = serving.version.experiment
        if experiment.frozen or not experiment.policy.learns:
            return
        if experiment.id not in self._trainers:
            self._trainers[experiment.id] = self._resumed(experiment)
        model = self._learn(self._trainers[experiment.id])
        if model is not None:
            self._running.put(Serving(serving.version, model))

    def apply(self, experiment: Experiment, *, keep_state: bool = False, validate_only: bool = False) -> Applied:
        """Make an experiment, or a new version of one, run; the same content changes nothing.

        A version whose policy needs another model serves only once that has learned the log.
        keep_state: paused or not, it stays as it is. Raises InvalidExperiment where it contradicts earlier versions.
        """
        with self._lock:
            history = self._history(experiment.id)
            if keep_state and history:
                experiment = replace(experiment, paused=history[-1].experiment.paused)
            return self._apply(experiment, history, validate_only=validate_only)

    def set_paused(self, id_: ExperimentId, *, paused: bool) -> Applied:
        """Pause or resume: a new version with the other state. Raises NotFound."""
        with self._lock:
            experiment = replace(self._running[id_].version.experiment, paused=paused)
            return self._apply(experiment, self._history(id_))

    def _history(self, id_: ExperimentId) -> list[ExperimentVersion]:
        return [version for version in self._log.versions() if version.experiment.id == id_]

    def _apply(
        self, experiment: Experiment, history: list[ExperimentVersion], *, validate_only: bool = False
    ) -> Applied:
        check_successor(experiment, [version.experiment for version in history])
        if history and write_json(to_message(history[-1].experiment)) == write_json(to_message(experiment)):
            return Applied(self._running[experiment.id], changed=False)
        number = len(history) + 1
        if validate_only:
            version = ExperimentVersion(experiment, number=number, position=START, time=self._log.end().time)
            return Applied(Serving(version, Model(make_policy(experiment.policy))), changed=True)
        trainer, model = self._next(experiment)
        self._log.append([NewVersion(experiment, number)])
        return Applied(self._install(self._log.versions()[-1], trainer, model), changed=True)

    def _next(self, experiment: Experiment) -> tuple[Trainer | None, Model]:
        trainer = self._trainers.get(experiment.id)
        if trainer is not None and trainer.spec.signature == experiment.policy.signature:
            return trainer, self._running[experiment.id].model
        return self._ready(experiment)
