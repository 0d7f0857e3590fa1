"""How a policy learns from a log: from sealed decisions, in the order in which their windows end.

A trainer's state is a pure function of (log up to its position, experiment, policy spec, code), however many calls it
took: log time never goes back and every window is longer than 0, so no later entry can seal earlier. The leader and
`simulator verify` use this class; that is why a log can be replayed.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import NamedTuple

from decider.errors import ArchiveDamaged, ArchiveMissing, FailedPrecondition, LogCorrupt, ModelMismatch
from decider.experiment.definition import ExperimentVersion
from decider.learn.leave_out import NEVER, Stretch, first_change, stretches
from decider.learn.rewards import rewards_of
from decider.log.protocol import LeaveOut, LogReader, Mark, ModelName, SealedDecision
from decider.policy.make import load_model, make_policy, save_model
from decider.policy.memory import PolicyMemory
from decider.policy.protocol import Model, Policy
from decider.policy.saved import SavedModel
from decider.policy.spec import PolicySpec
from decider.types import START, ExperimentId, Position, Time

logger = logging.getLogger(__name__)


OnSealed = Callable[[SealedDecision, ExperimentVersion], None]
"""Called with each sealed decision that a trainer reads, and its version; after going back with some of them again."""


def ignore_sealed(sealed: SealedDecision, version: ExperimentVersion) -> None:
    """Nobody watches."""


class Steps(NamedTuple):
    """Of a trainer since it began: decisions that it has learned, how often it went back, and how often it came to know
    entries that leave something out: its model says that it follows them, also where they change nothing."""

    learned: int = 0
    went_back: int = 0
    followed: int = 0


class Trainer:
    """Owns one policy and teaches it. code: version of the learning code; by default the newest. memory: bounds
    the policy.

    position: the log position it has learned up to, as in the model's name; 0: nothing. time: the log time up to which
    it has read sealed decisions. learned: decisions since this trainer began. went_back: how often it
    has gone back since, to the time before a stretch that is left out.
    """

    def __init__(
        self,
        log: LogReader,
        experiment: ExperimentId,
        spec: PolicySpec,
        *,
        code: int | None = None,
        memory: PolicyMemory | None = None,
        on_sealed: OnSealed = ignore_sealed,
    ) -> None:
        self._log = log
        self._on_sealed = on_sealed
        self._memory = memory
        self.experiment = experiment
        self.spec = spec
        self.signature = spec.signature if code is None else spec.signature_of(code)
        self._code = code
        self._rewards = rewards_of(spec.relearned)
        self._resumes = False
        self.learned = self.went_back = self.followed = 0
        self._way: Generator[None, None, None] | None = None
        self._begin()

    def _begin(self, *, before: Time = NEVER) -> None:
        """From the model that was kept where the log is cut off; from nothing where there is none. before: it may have
        learned up to there."""
        base = self._log.models.base(self.experiment, self.signature)
        usable = base is not None and base.name.position > START and self.spec.resumable and base.time <= before
        if base is not None and usable:
            self._restart(base.name.position, base.time, self._log.models.load_base(base))
        else:
            self.begin_with_nothing()

    def begin_with_nothing(self) -> None:
        """Learn from the first decision on, also where the log is cut off: the archive has what it needs."""
        self._restart(START, Time(0), None)

    def _restart(self, position: Position, at: Time, saved: SavedModel | None) -> None:
        policy = load_model(self.spec, saved, self._code) if saved else make_policy(self.spec, code=self._code)
        bounded = self._memory.keep(policy, fixed=not self.spec.resumable) if self._memory else policy
        self._policy: Policy = bounded
        self.time: Time = at
        self.position = position
        self._counted = Mark(position, at)
        self._sealed = 0
        self._left_out: list[Stretch] = []
        self._known = position

    def resume(self) -> None:
        """Continue from the newest stored model, if there is one behind the base and the policy is resumable.

        Raises ModelMismatch if it is damaged; the trainer is then fresh and can learn everything from the log again.
        """
        self._resumes = True
        stored = self._log.models.newest(self.experiment, self.signature)
        at = self._log.time_at(stored[0]) if stored is not None else START
        if stored is not None and at > START and self.spec.resumable and stored[0] > self.position:
            self._restart(stored[0], Time(at), stored[1])

    def resume_up_to(self, mark: Mark) -> None:
        """Continue from the newest stored model that has learned no further than a mark; where learning begins behind
        the mark, with nothing. Raises ModelMismatch as `resume`."""
        self._resumes = True
        if self.position > mark.position:
            self.begin_with_nothing()
        stored = self._log.models.stored_positions(self.experiment, self.signature) if self.spec.resumable else ()
        for position in reversed(stored):
            if self.position < position <= mark.position:
                saved = self._log.models.load(ModelName(self.experiment, position, self.signature))
                if saved is not None:
                    self._restart(position, self._log.time_at(position), saved)
                    return

    @property
    def steps(self) -> Steps:
        """Another one where the policy is another one."""
        return Steps(self.learned, self.went_back, self.followed)

    def learn_up_to(self, mark: Mark) -> int:
        """Learn from every decision sealed up to `mark`, which must not lie behind. Returns their number."""
        before = self.learned
        self.advance(mark, seconds=math.inf)
        return self.learned - before

    def replay_up_to(self, mark: Mark) -> None:
        """Make the model that a log names by a mark: `learn_up_to`, `name_by`."""
        self.learn_up_to(mark)
        self.name_by(mark)

    def name_by(self, mark: Mark) -> None:
        """Call the model that of a mark up to which everything is learned, and tell it how many decisions are under way
        there. A learner does so where it has learned something; a replay wherever it is asked for, so that its model
        does not depend on the places before.
        """
        decided = self._log.count_decided(self.experiment, after=self._counted, until=mark)
        if decided or self._sealed:
            self._policy.count_under_way(decided=decided, sealed=self._sealed)
        self._counted, self._sealed = mark, 0
        self.position = mark.position

    def advance(self, mark: Mark, *, seconds: float) -> bool:
        """Learn towards `mark` for about so many seconds. Returns whether it is reached; until then, call it with the
        same mark. Where reading fails half way the trainer begins anew, so that nothing is learned twice.
        """
        deadline = time.monotonic() + seconds
        way = self._way = self._way or self._go(mark)
        try:
            for _ in way:
                if time.monotonic() >= deadline:
                    return False
        except BaseException:
            self.begin_with_nothing()  # without reading: that is what may have failed
            self.learned = self.went_back = self.followed = 0
            self._way = None
            self._begin()
            raise
        self._way = None
        return True

    def skip_to(self, mark: Mark) -> None:
        """Go on from a mark up to which nothing was sealed; the caller knows that, so the log is not asked."""
        self.time = max(self.time, mark.time)

    def close(self) -> None:
        """Close the log's stream, also in the middle of an advance; do not use the trainer afterwards."""
        if self._way is not None:
            self._way.close()

    def _go(self, mark: Mark) -> Generator[None, None, None]:
        """Learn everything up to the mark; yields after each decision."""
        before = self.steps
        self._follow_leave_outs(mark)
        with closing(self._read_sealed(mark)) as decisions:
            for sealed in decisions:
                version = self._log.version_at(sealed.decision.version)
                self._on_sealed(sealed, version)
                self._sealed += version.experiment.learns
                self._learn(sealed, version)
                yield
        self.time = max(self.time, mark.time)
        if self.steps != before:
            self.name_by(mark)

    def _follow_leave_outs(self, mark: Mark) -> None:
        """Know what is left out at a mark; go back where the policy has learned from some of it, or not learned from
        what is not left out any more."""
        entries = self._log.leave_outs(self.experiment)
        known = self._known
        first = first_change(entries, after=known, until=mark.position)
        if first < self.time:
            self._go_back(first, entries, mark)
            self.went_back += 1
        self.followed += any(known < one.position <= mark.position for one in entries)
        self._known = mark.position
        self._left_out = stretches(entries, mark.position)

    def _go_back(self, before: Time, entries: Sequence[LeaveOut], mark: Mark) -> None:
        """To the newest stored model that follows the same entries, for a trainer that goes on from stored ones."""
        self._begin(before=before)
        if not (self._resumes and self.spec.resumable):
            return
        for position in reversed(self._log.models.stored_positions(self.experiment, self.signature)):
            at = self._log.time_at(position)
            if at <= first_change(entries, after=position, until=mark.position) and at > self.time:
                saved = self._log.models.load(ModelName(self.experiment, position, self.signature))
                if saved is not None:
                    self._restart(position, at, saved)
                    return

    def _read_sealed(self, mark: Mark) -> Generator[SealedDecision, None, None]:
        # A generator, so that it can be closed half way: an iterator of the log need not have `close`.
        yield from self._rewards.read(self._log, self.experiment, after=self.time, until=mark.time)

    def _learn(self, sealed: SealedDecision, version: ExperimentVersion) -> None:
        decision = sealed.decision
        if any(stretch.holds(made=sealed.time, deadline=sealed.deadline) for stretch in self._left_out):
            return
        if not version.learns_from(decision.reason, activated=sealed.activated, overridden=sealed.overridden):
            return
        if sealed.overridden:
            if self.spec.uses_propensity or sealed.shown not in version.choices:
                return  # the version's own policy used none, and this one was applied later
            decision = decision._replace(eligible=(sealed.shown,), action=sealed.shown)
        try:
            choices = version.choices_of(decision.eligible, decision.action_features)
            drawn = decision.eligible.index(decision.action)
        except (KeyError, ValueError) as error:
            raise LogCorrupt(f"the decision at position {sealed.position} names an unknown action: {error}") from error
        self._policy.learn(
            decision.context,
            choices,
            drawn=drawn,
            propensity=decision.propensity,
            reward=self._rewards.of(sealed, version),
        )
        self.learned += 1

    def model(self) -> Model:
        """An immutable copy of what has been learned, to serve."""
        return Model(self._policy.snapshot(), self.position)

    def save(self) -> SavedModel:
        """The policy's state, to store and to continue from."""
        return save_model(self.spec, self._policy, self._code)


def resume_trainer(
    log: LogReader,
    experiment: ExperimentId,
    spec: PolicySpec,
    *,
    memory: PolicyMemory | None = None,
    on_sealed: OnSealed = ignore_sealed,
) -> tuple[Trainer, ModelMismatch | None]:
    """A trainer that continues from the newest stored model; if that is damaged, a fresh trainer and the reason."""
    trainer = Trainer(log, experiment, spec, memory=memory, on_sealed=on_sealed)
    try:
        trainer.resume()
    except ModelMismatch as mismatch:
        return trainer, mismatch
    return trainer, None


def check_learnable(log: LogReader, experiment: ExperimentId, spec: PolicySpec) -> None:
    """Before a policy begins to learn. Raises FailedPrecondition where that needs a part of the archive that is missing
    or damaged."""
    trainer, _ = resume_trainer(log, experiment, spec)
    try:
        log.check_archive(experiment, after=trainer.time, late=rewards_of(spec.relearned).late)
    except (ArchiveMissing, ArchiveDamaged) as error:
        raise FailedPrecondition(
            f"experiment {experiment!r}: its policy would have to learn from archived decisions: {error}",
            reason=error.reason,
        ) from error
