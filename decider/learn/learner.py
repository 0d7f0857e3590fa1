"""The learner: learns the experiments of its share, and publishes their models. Called by a thread of the server.

All that it knows comes from the log. So it can be killed at any moment: whoever learns these experiments next continues
from their last stored models. Nobody waits for it: versions are applied by appending them (`versions.py`), and workers
follow the log (`serving/follower.py`). The one that holds the log's lease is the leader (`leader.py`).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from decider.errors import ArchiveDamaged, ArchiveMissing, DeciderError
from decider.experiment.definition import ExperimentVersion
from decider.learn.guard import Guard
from decider.learn.roster import PIECE, STRIDE, Roster, Training
from decider.learn.trainer import Steps, ignore_sealed, resume_trainer
from decider.log.protocol import Entry, EventLog, Mark, ModelName, NewModel, Serves, Share
from decider.policy.memory import PolicyMemory
from decider.serving.follower import Copies, Owner, owner_of
from decider.serving.lineup import Lineup, Rollout
from decider.types import START, ExperimentId, Position, Time

logger = logging.getLogger(__name__)

PUBLISH_INTERVAL = 0.1
"""Seconds, at most, that a model waits for others in the same round, to be published in one commit with them."""

PROGRESS_INTERVAL = 10.0
"""Seconds between two log lines about the progress of a long round of learning."""


@dataclass(frozen=True, slots=True)
class Pace:
    """interval: seconds between rounds of learning. store_interval: seconds after which what was learned is stored at
    the latest; earlier, once `store_bytes` for each decision learned have come together. keep_bytes: of stored models,
    for each experiment. slice: seconds that a trainer works before the others have their turn."""

    interval: float = 0.5
    store_interval: float = 300.0
    store_bytes: int = 150
    keep_bytes: int = 100_000_000
    slice: float = 0.05


@dataclass(frozen=True, slots=True)
class _Publication:
    """What a round of a trainer has to append, and whether its model is stored afterwards."""

    training: Training
    entries: Sequence[Entry]
    store: bool


@dataclass(frozen=True, slots=True)
class Progress:
    """How much of the log the model of a version has learned that must learn before it serves."""

    experiment: ExperimentId
    version: int
    position: Position
    head: Position

    def __str__(self) -> str:
        return f"experiment {self.experiment}, version {self.version}: position {self.position} of {self.head}"


def _ignore_failure(experiment: ExperimentId) -> None:
    pass


def _ignore_learning(experiment: ExperimentId, count: int, seconds: float) -> None:
    pass


class Options(TypedDict, total=False):
    """What a learner may be given: see there."""

    pace: Pace
    memory: PolicyMemory | None
    guard: Guard | None
    stopping: Callable[[], bool]
    on_learned: Callable[[ExperimentId, int, float], None]
    on_failed: Callable[[ExperimentId], None]


class Learner:
    """See above. share: says which experiments are its own.

    on_learned: called with the experiment, the number of decisions and the seconds of every round of learning.
    on_failed: called with the experiment whose round failed.
    stopping: asked between slices; True ends a round. memory: bounds the trainers' policies.
    guard: holds learning while rewards are missing; None: nobody does.
    """

    def __init__(
        self,
        log: EventLog,
        share: Share,
        copies: Copies,
        *,
        pace: Pace = Pace(),
        memory: PolicyMemory | None = None,
        guard: Guard | None = None,
        stopping: Callable[[], bool] = lambda: False,
        on_learned: Callable[[ExperimentId, int, float], None] = _ignore_learning,
        on_failed: Callable[[ExperimentId], None] = _ignore_failure,
    ) -> None:
        self._log = log
        self._share = share
        self._copies = copies
        self._pace = pace
        self._memory = memory
        self._guard = guard
        self._on_sealed = guard.watch if guard else ignore_sealed
        self._stopping = stopping
        self._on_learned = on_learned
        self._on_failed = on_failed
        self._lineup = Lineup(log)
        self._followed = START
        self._roster = Roster()
        self._wanted: dict[Owner, ExperimentVersion] = {}
        self._wanted_old = self._roster_old = True
        self._own: Collection[ExperimentId] = ()
        self._asked = Mark(START, Time(0))
        self._left_out = set[ExperimentId]()
        self._unpublished: list[_Publication] = []
        self._unpublished_since = 0.0
        self._settled: set[Position] = set()
        self._progress_at = time.monotonic()
        self.unlearned: dict[Owner, str] = {}
        """Models that could not be learned at the start, and why."""
        self._failures: dict[Owner, str] = {}
        """Of those that tried and failed: why the last time."""

    def catch_up(self) -> bool:
        """At the start: learn until every serving model has learned the log, where another process does not learn it;
        False if `stopping` came first.

        Models of versions that wait go on learning afterwards. One that needs a part of the archive that is missing or
        damaged does not hold up the others: see `unlearned`. Raises what else reading or learning raises: a server that
        cannot learn at all fails at once.
        """
        self.unlearned = {}
        while not self._stopping():
            self.follow()
            left = [
                t for t in self._roster.values()
                if not t.reached and not self._is_cold(t) and t.owner not in self.unlearned
            ]  # fmt: skip
            if not left and self._share.is_whole:
                return True
            for training in left:
                self._learn_at_start(training)
            if not left:
                time.sleep(self._pace.interval)  # who learned the rest leaves it
            self._look_after_log()
            self._log_progress()
        return False

    def _look_after_log(self) -> None:
        """Between rounds: that is the leader's."""

    def _learn_at_start(self, training: Training) -> None:
        try:
            self._learn(training, self._log.head().mark)
            for published in self._publish_all():
                self._store(published)
        except (ArchiveMissing, ArchiveDamaged) as error:
            self.unlearned[training.owner] = str(error)
            self._roster[training.owner] = self._begin(training.version)

    def serves_without(self, owners: Collection[Owner]) -> bool:
        """Whether an experiment can serve by another model than these."""
        serving = [rollout.serving for rollout in self._lineup.values()]
        return any(not version.experiment.ended and owner_of(version) not in owners for version in serving)

    def has_learned(self, owner: Owner) -> bool:
        """Whether a model has caught up, or is not needed any more."""
        training = self._roster.get(owner)
        return training is None or training.reached

    def step(self) -> bool:
        """One round: let each trainer learn a slice, publish. Returns whether a trainer is behind.

        Raises LogError if the log cannot be read or written; the next round tries again.
        """
        self.follow()
        end = self._log.head().mark
        trainings = [t for t in self._with_news(end) if t.due <= time.monotonic()]
        for training in trainings:
            if not self._stopping():
                self._try_to_learn(training, end)
                if time.monotonic() - self._unpublished_since >= PUBLISH_INTERVAL:
                    self._try_to_publish()
        self._try_to_publish()
        if self._guard is not None:
            self._guard.act()
        self._look_after_log()
        self._log_progress()
        now = time.monotonic()
        return any(t.due <= now and (not t.reached or t.mark) for t in self._roster.values())

    def _with_news(self, end: Mark) -> Sequence[Training]:
        """The trainings that may have something to do. Those of which the log has sealed nothing since the last look
        go on without asking it: one query for all of them, so that an experiment without news costs nothing."""
        asked = self._asked
        due, self._left_out = self._left_out, set()
        if end.position > asked.position:
            first = self._log.first_deadlines(after=asked.time)
            due |= {id_ for id_, deadline in first.items() if deadline <= end.time}
        self._asked = end
        return [t for t in self._roster.values() if not self._is_idle(t, asked, due) or not self._skip(t, end)]

    def _is_idle(self, training: Training, asked: Mark, due: Collection[ExperimentId]) -> bool:
        """Whether it had learned all that was sealed at the last look, and nothing of it was sealed since."""
        return (
            training.trainer.experiment not in due
            and training.reached
            and training.mark is None
            and training.at >= asked.position
            and not training.news
            and not self._is_cold(training)
        )

    def _skip(self, training: Training, end: Mark) -> bool:
        """Go on to the end without a look into the log. False where its model is to be stored."""
        if self._store_is_due(training):
            return False
        training.skip_to(end)
        return True

    def finish_learning(self, deadline: float) -> None:
        """At the end: learn and publish what is due, until the monotonic clock reads `deadline`.

        Trainers that are far behind continue at the next start. Raises LogError.
        """
        self.follow()
        end = self._log.head().position
        for owner in [owner for owner, training in self._roster.items() if end - training.at <= STRIDE]:
            self._roster[owner].due = 0.0
            while not (training := self._roster[owner]).due and time.monotonic() < deadline:
                self._try_to_learn(training, self._log.head().mark)
                self._try_to_publish()

    def finish(self) -> None:
        """At the end: store the models, and leave the experiments to others. Raises LogError."""
        try:
            for training in self._roster.values():
                self._store(training)
        finally:
            for training in self._roster.values():
                training.trainer.close()
            self._share.release()

    def progress(self, lineup: Mapping[ExperimentId, Rollout] | None = None) -> Sequence[Progress]:
        """The versions of a lineup (the leader's own by default) whose models have not caught up; from any thread."""
        head = self._log.head().position
        known = dict(self._lineup if lineup is None else lineup)
        return [Progress(*one) for one in Roster(self._roster).behind(known, head)]

    def lag(self) -> float:
        """Seconds of log time that the trainer furthest behind has not learned yet; from any thread."""
        end = self._log.head().time
        behind = [t.trainer.time for t in list(self._roster.values()) if not t.reached or t.mark]
        return max(0.0, (end - min(behind, default=end)) / 1e6)

    @property
    def experiments(self) -> Collection[ExperimentId]:
        """Those that it learns; from any thread."""
        return {id_ for id_, _ in list(self._roster)}

    def follow(self) -> None:
        """Begin and end trainers, so that there is one for each model of its own that serves or waits. Raises
        LogError."""
        news = self._log.follow(self._followed)
        self._wanted_old |= bool(self._lineup.follow(news))
        self._followed = news.head
        self._follow_leave_outs({id_ for _, id_ in news.leave_outs})
        if self._wanted_old:
            self._wanted_old = self._renew_wanted()
            self._roster_old = True
        ended = {id_ for (id_, _), version in self._wanted.items() if version.experiment.ended}
        own = set(self._share.own({id_ for id_, _ in self._wanted}.difference(ended), ended))
        if self._roster_old or own != self._own:
            self._roster_old = True
            self._renew_roster(own)
            self._own, self._roster_old = own, False

    def _follow_leave_outs(self, changed: Collection[ExperimentId]) -> None:
        self._left_out.update(changed)
        if self._guard is not None:
            for id_ in changed:
                self._guard.follow(id_)

    def _renew_wanted(self) -> bool:
        """Returns whether to look again soon: an experiment that has ended still has something to learn."""
        self._wanted = {
            owner: version
            for owner, version in self._roster.versions_by_owner(self._lineup).items()
            if not version.experiment.ended or self._has_more_to_learn(owner, version)
        }
        return any(version.experiment.ended for version in self._wanted.values())

    def _renew_roster(self, own: Collection[ExperimentId]) -> None:
        mine = {owner: version for owner, version in self._wanted.items() if owner[0] in own}
        for owner in self._roster.keys() - mine.keys():
            self._store(self._roster[owner])
            self._roster.pop(owner).trainer.close()
            self._failures.pop(owner, None)
            if owner in self._wanted:
                self._hand_over(owner)
            else:
                self._copies.drop(owner)
        for owner, version in mine.items():
            if owner in self._roster:
                self._roster[owner].version = version
            else:
                self._roster[owner] = self._begin(version)

    def _hand_over(self, owner: Owner) -> None:
        """Another process learns its experiment from now on."""
        self._copies.leave(owner)
        if self._guard is not None:
            self._guard.end(owner[0])

    def _has_more_to_learn(self, owner: Owner, version: ExperimentVersion) -> bool:
        """Whether decisions of an experiment that has ended wait for their rewards, or for a trainer that is behind.

        What is left out here, because its policy had not caught up, is learned if the experiment begins again.
        """
        if not version.experiment.learns or version.position in self._settled:
            return False
        if self._lineup[owner[0]].warm != owner[1]:
            return False
        training = self._roster.get(owner)
        if training is not None and (training.mark or training.news):
            return True
        if training is None and not version.experiment.policy.resumable:
            return False  # what it learned could not be stored, and is learned anew if the experiment begins again
        learned = training.trainer.time if training else self._time_stored(owner)
        if self._log.next_deadline(after=learned, experiment=owner[0]) is not None:
            return True
        self._settled.add(version.position)
        return False

    def _time_stored(self, owner: Owner) -> Time:
        stored = self._log.models.stored_positions(*owner)
        return self._log.time_at(stored[-1]) if stored else Time(0)

    def _begin(self, version: ExperimentVersion) -> Training:
        experiment = version.experiment
        trainer, mismatch = resume_trainer(
            self._log, experiment.id, experiment.policy, memory=self._memory, on_sealed=self._on_sealed
        )
        if mismatch is not None:
            logger.error("experiment %s: %s; learning again from the log", experiment.id, mismatch)
        elif trainer.position == START:
            self._warn_of_other_code(version)
        if self._guard is not None:
            self._guard.begin(version)
        named = self._log.models.last_published_position(experiment.id, experiment.policy.signature)
        training = Training(trainer, version, at=trainer.position, named=named)
        if trainer.position > START:
            training.stored_bytes = math.inf  # unknown: the next model is stored after `store_interval`
        return training

    def _warn_of_other_code(self, version: ExperimentVersion) -> None:
        """A model of other learning code must not serve; the warning says why the start takes long."""
        experiment = version.experiment
        same = [s for s in self._log.models.signatures(experiment.id) if experiment.policy.same_but_code(s)]
        if same and experiment.policy.signature not in same:
            logger.warning(
                "experiment %s: its stored models were made by [%s], this build makes [%s]; learning anew from the log",
                experiment.id, same[-1], experiment.policy.signature,
            )  # fmt: skip

    def _try_to_learn(self, training: Training, end: Mark) -> None:
        """An experiment that cannot learn does not stop the others; it continues from its last stored model."""
        try:
            self._learn(training, end)
        except Exception as error:
            self._begin_again(training, error)

    def _begin_again(self, training: Training, error: Exception) -> None:
        id_ = training.trainer.experiment
        again = self._begin(training.version)
        again.due = time.monotonic() + self._pace.interval
        self._roster[training.owner] = again
        self._on_failed(id_)
        unexpected = None if isinstance(error, DeciderError) else error
        if str(error) not in (self.unlearned.get(training.owner), self._failures.get(training.owner)):  # told before
            way_out = self._way_out(training, error)
            logger.error(
                "experiment %s could not learn; it tries again: %s%s", id_, error, way_out, exc_info=unexpected
            )
        self._failures[training.owner] = str(error)

    def _way_out(self, training: Training, error: Exception) -> str:
        """Where the version before serves as long as a part of the archive is not found."""
        if not (isinstance(error, ArchiveMissing | ArchiveDamaged) and training.version.experiment.policy.relearned):
            return ""
        id_ = training.version.experiment.id
        return f" (of this server); or go back: decider relearn {id_} --db {self._log.name} --undo"

    def _learn(self, training: Training, end: Mark) -> None:
        """Learn a slice. The model is published once it has caught up, and from time to time on the way."""
        goal = self._goal(training, end)
        named = training.work(goal, self._log, self._pace.slice)
        if training.at < goal.position:
            if named:
                self._publish_on_the_way(training)
            return
        if training.named > START and not training.reached:
            training.named = START
            self._publish(training, first=True)  # the model that served last, learned again, under its old name
            return
        training.due = time.monotonic() + self._pace.interval
        first, training.reached = not training.reached, True
        self._failures.pop(training.owner, None)
        self._publish(training, first=first, store=first or self._store_is_due(training))

    def _publish_on_the_way(self, training: Training) -> None:
        """Where traffic outruns the learner, the log's end is never reached within a slice: what serves must not wait
        for that. While a model learns what it had learned before, only pieces are kept."""
        if training.reached:
            if time.monotonic() - training.published_at >= self._pace.interval:
                self._publish(training, store=self._store_is_due(training))
        elif training.unstored_seconds >= PIECE and training.trainer.spec.resumable:
            self._publish(training, store=True)

    def _goal(self, training: Training, end: Mark) -> Mark:
        """The position to learn up to: the log's end; for an experiment that does not learn that of its last model."""
        if training.at < training.named:
            return Mark(training.named, self._log.time_at(training.named))
        if training.version.experiment.learns:
            return end
        if training.reached:
            return Mark(training.at, training.trainer.time)
        return end if self._is_cold(training) else self._newest_published(training)

    def _newest_published(self, training: Training) -> Mark:
        """The newest model's mark, of this learning code or an earlier one."""
        experiment = training.version.experiment
        models, policy = self._log.models, experiment.policy
        signatures = [s for s in models.signatures(experiment.id) if policy.same_but_code(s)]
        newest = max([models.last_published_position(experiment.id, one) for one in signatures], default=START)
        return Mark(newest, self._log.time_at(newest))

    def _publish(self, training: Training, *, first: bool = False, store: bool = False) -> None:
        """Its model goes into the round's next commit."""
        trainer = training.trainer
        entries: list[Entry] = []
        if training.news or (first and trainer.position > START):
            model = trainer.model()
            name = ModelName(trainer.experiment, model.position, trainer.signature)
            self._copies.put(
                name, model, trainer.save
            )  # before the entry: a follower may look for it right after the commit
            entries.append(NewModel(name, trainer.learned))
            if training.news:
                self._on_learned(trainer.experiment, trainer.learned - training.published.learned, training.seconds)
            training.published, training.published_at, training.seconds = trainer.steps, time.monotonic(), 0.0
        if training.reached and self._is_cold(training):
            entries.append(Serves(training.version.position))
        if entries or store:
            self._unpublished_since = self._unpublished_since if self._unpublished else time.monotonic()
            self._unpublished.append(_Publication(training, entries, store))

    def _publish_all(self) -> Sequence[Training]:
        """One commit for the models of several trainers: each commit has a price of its own. Returns those whose models
        are to be stored now."""
        waiting, self._unpublished = self._unpublished, []
        # Model and `Serves` are in one commit: the version never serves with an older model.
        self._log.append([entry for one in waiting for entry in one.entries])
        # Stored after the commit: `check` takes a stored, unpublished model for damage.
        return [one.training for one in waiting if one.store]

    def _try_to_publish(self) -> None:
        """Trainers whose models could not be published or stored continue from their last stored models."""
        waiting = [one.training for one in self._unpublished]
        try:
            due = self._publish_all()
        except Exception as error:
            for training in waiting:
                training.published = Steps(-1)  # so that none of them stores a model that was never published
            for training in waiting:
                self._begin_again(training, error)
            return
        for training in due:
            self._try_to_store(training)

    def _try_to_store(self, training: Training) -> None:
        try:
            self._store(training)
        except Exception as error:
            self._begin_again(training, error)

    def _is_cold(self, training: Training) -> bool:
        """Whether a version waits for this model to catch up."""
        rollout = self._lineup[training.version.experiment.id]
        return rollout.newest.position == training.version.position and rollout.warm != training.trainer.signature

    def _store_is_due(self, training: Training) -> bool:
        steps, stored = training.trainer.steps, training.stored
        if steps == stored:
            return False
        if steps.went_back > stored.went_back:
            return True  # the newest stored model may have learned what is left out now
        learned, waited = steps.learned - stored.learned, time.monotonic() - training.stored_at
        size = training.stored_bytes
        return size is None or learned * self._pace.store_bytes >= size or waited >= self._pace.store_interval

    def _store(self, training: Training) -> None:
        trainer = training.trainer
        if trainer.steps == training.stored or training.news:
            return
        saved = trainer.save()
        name = ModelName(trainer.experiment, trainer.position, trainer.signature)
        needed = [signature for id_, signature in self._roster if id_ == trainer.experiment]
        size = self._log.models.store(name, saved, keep_bytes=self._pace.keep_bytes, keep=needed)
        training.stored, training.stored_at = trainer.steps, time.monotonic()
        training.stored_bytes, training.unstored_seconds = size, 0.0

    def _log_progress(self) -> None:
        if time.monotonic() - self._progress_at >= PROGRESS_INTERVAL:
            self._progress_at = time.monotonic()
            for progress in self.progress():
                logger.info("learning %s", progress)
