"""What learning a log anew would change, and waiting for it. Called by `decider relearn`; `versions.py` applies it.

It reads the log twice, side by side: as the running model learns it, and with everything that has come late since.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from decider.errors import LogError
from decider.experiment.definition import Experiment, ExperimentVersion
from decider.experiment.schema import read_reward, reward_text
from decider.learn.leave_out import stretches
from decider.learn.rewards import WithLate, rewards_of
from decider.learn.versions import learner, learns_alike, newest_version
from decider.log.protocol import LogReader, Mark, SealedDecision
from decider.policy.spec import Relearned
from decider.serving.lineup import Lineup
from decider.types import START, ExperimentId, Position, Time

TELL_EVERY = 10_000
"""Decisions."""

LOOK_EVERY = 0.2
"""Seconds between two looks whether a version serves."""


@dataclass(slots=True)
class Survey:
    """What would change. decisions: those that the model learns from. late, redefined: of them, those that get another
    reward by what came after their window, and by the definition alone. waiting: decisions whose window is open, of
    another definition. before, after: sums of rewards."""

    decisions: int = 0
    late: int = 0
    redefined: int = 0
    waiting: bool = False
    before: float = 0.0
    after: float = 0.0

    @property
    def changes(self) -> bool:
        """Whether another model would come out."""
        return self.waiting or self.late + self.redefined > 0

    def __str__(self) -> str:
        count = max(self.decisions, 1)
        return (
            f"{self.decisions} decisions, {self.late + self.redefined} with another reward ({self.late} by what came "
            f"late, {self.redefined} by the definition), mean reward {self.before / count:.6g} -> "
            f"{self.after / count:.6g}"
        )

    def add(self, *, before: float, after: float, late: bool) -> None:
        """A decision that is learned. late: something came after its window."""
        self.decisions += 1
        self.before += before
        self.after += after
        if before != after:
            self.late += late
            self.redefined += not late


def survey(log: LogReader, id_: ExperimentId, *, say: Callable[[str], None] = lambda _: None) -> Survey:
    """Compare what a model has learned with what it would. say: called with progress.

    Raises NotFound, FailedPrecondition where nothing could learn, ArchiveMissing, ArchiveDamaged before anything is
    read.
    """
    running = newest_version(log, id_)
    newest = learner(id_, running.experiment if running else None)
    head = log.head().mark
    now = rewards_of(newest.policy.relearned)
    then = WithLate(Relearned(head.position, head.time, reward_text(newest.reward)))
    log.check_archive(id_, after=Time(0), late=head)
    found = Survey(waiting=_has_open_windows_of_another_definition(log, newest, head))
    left_out = stretches(log.leave_outs(id_), head.position)
    for old, new in _both(now.read, then.read, log, id_, head):
        if any(stretch.holds(made=old.time, deadline=old.deadline) for stretch in left_out):
            continue
        version = log.version_at(old.decision.version)
        if version.learns_from(old.decision.reason, activated=old.activated, overridden=old.overridden):
            late = old.rewards != new.rewards
            found.add(before=now.of(old, version), after=then.of(new, version), late=late)
            if found.decisions % TELL_EVERY == 0:
                say(f"comparing {id_}: {found.decisions} decisions")
    return found


_Read = Callable[..., Iterator[SealedDecision]]


def _both(
    now: _Read, then: _Read, log: LogReader, id_: ExperimentId, head: Mark
) -> Iterator[tuple[SealedDecision, SealedDecision]]:
    """Everything that is sealed, as it is learned and as it would be."""
    old, new = (read(log, id_, after=Time(0), until=head.time) for read in (now, then))
    return zip(old, new, strict=True)


def _has_open_windows_of_another_definition(log: LogReader, newest: Experiment, head: Mark) -> bool:
    if log.next_deadline(after=head.time, experiment=newest.id) is None:
        return False
    relearned = newest.policy.relearned
    until = relearned.until if relearned else START
    later = [one.experiment for one in log.versions() if one.experiment.id == newest.id and one.position > until]
    learned = [one.reward for one in later if one.learns] + ([read_reward(relearned.reward)] if relearned else [])
    return not all(learns_alike(one, newest.reward) for one in learned)


def wait_until_it_serves(
    log: LogReader, id_: ExperimentId, *, is_led: Callable[[], bool], say: Callable[[str], None]
) -> ExperimentVersion:
    """Until the newest version of an experiment serves, which it returns. is_led: whether a server learns.

    Raises LogError where nobody learns any more.
    """
    lineup, followed = Lineup(log), START
    while True:
        news = log.follow(followed)
        lineup.follow(news)
        followed = news.head
        newest = lineup[id_].newest
        if lineup[id_].waiting is None:
            return newest
        if not is_led():
            raise LogError(f"{log.name}: the server has ended; the next one that starts goes on learning")
        say(f"version {newest.number} has learned up to position {_learned(log, newest)} of {news.head}")
        time.sleep(LOOK_EVERY)


def _learned(log: LogReader, version: ExperimentVersion) -> Position:
    return log.models.last_published_position(version.experiment.id, version.experiment.policy.signature)
