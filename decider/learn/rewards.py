"""Which rewards a model learns: those that came in the window of each decision, and those that came late once it has
learned anew. Called by the trainer, and by `relearn.py` to compare the two.
"""

from __future__ import annotations

from collections.abc import Iterator

from decider.experiment.aggregate import final_reward, rewards_under
from decider.experiment.definition import ExperimentVersion
from decider.experiment.schema import read_reward
from decider.log.protocol import LogReader, Mark, SealedDecision
from decider.policy.spec import Relearned
from decider.types import ExperimentId, Time


class InTime:
    """What came in the window, by the definition of the decision's version."""

    late: Mark | None = None

    def read(self, log: LogReader, experiment: ExperimentId, *, after: Time, until: Time) -> Iterator[SealedDecision]:
        """The decisions whose window ended in (after, until], in the order of sealing."""
        return log.sealed_decisions(experiment, after=after, until=until)

    def of(self, sealed: SealedDecision, version: ExperimentVersion) -> float:
        """What a decision has earned. version: the decision's."""
        return final_reward(version.experiment.reward, sealed.rewards)


class WithLate:
    """What came in the window or late, up to a mark; decisions of versions up to there by one definition."""

    def __init__(self, relearned: Relearned) -> None:
        self.late = Mark(relearned.until, relearned.at)
        self._definition = read_reward(relearned.reward)

    def read(self, log: LogReader, experiment: ExperimentId, *, after: Time, until: Time) -> Iterator[SealedDecision]:
        """As of InTime."""
        return log.sealed_with_late(experiment, after=after, until=until, late=self.late)

    def of(self, sealed: SealedDecision, version: ExperimentVersion) -> float:
        """As of InTime. Also where the window was still open: the version before serves while this model learns."""
        if version.position > self.late.position:
            return final_reward(version.experiment.reward, sealed.rewards)
        return final_reward(self._definition, rewards_under(self._definition, sealed.named))


def rewards_of(relearned: Relearned | None) -> InTime | WithLate:
    """What a model with that mark learns."""
    return InTime() if relearned is None else WithLate(relearned)
