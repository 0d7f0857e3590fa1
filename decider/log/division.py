"""How the experiments of a log are divided between the processes that learn them: the rule alone, pure; and the share
of a log that is not divided.

Each learner looks now and then, by itself; a lock for each experiment says whose it is. Called by the logs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from decider.log.protocol import Lease
from decider.types import ExperimentId


class Division(NamedTuple):
    """What a learner does after a look. keeps: of its own. gives_back: more than its part, or learned no more. room:
    how many of those that nobody learns it may take, beside those that have ended."""

    keeps: Sequence[ExperimentId]
    gives_back: Sequence[ExperimentId]
    room: int


def largest_part(experiments: int, learners: int) -> int:
    """How many of so many experiments each of so many learners has at most: then nobody has to learn one too many, and
    none is left over.

    >>> largest_part(5, 2), largest_part(2, 3), largest_part(0, 1)
    (3, 1, 0)
    """
    return -(-experiments // max(1, learners))


def divide(
    own: Collection[ExperimentId],
    experiments: Collection[ExperimentId],
    ended: Collection[ExperimentId] = (),
    *,
    learners: int,
) -> Division:
    """own: what this learner has now. experiments, ended: see Share. learners: those that live, with this one.

    >>> divide({ExperimentId("a"), ExperimentId("b"), ExperimentId("c")}, list("abcd"), learners=2)
    Division(keeps=['a', 'b'], gives_back=['c'], room=0)
    """
    part = largest_part(len(experiments), learners)
    learned = sorted(set(own).intersection(experiments))
    kept = learned[:part]
    keeps = [*kept, *sorted(set(own).intersection(ended).difference(experiments))]
    return Division(keeps, sorted(set(own).difference(keeps)), part - len(kept))


class WholeShare:
    """See Share: of a log that is not divided. lease: of this process, if it leads."""

    def __init__(self, lease: Lease | None) -> None:
        self._lease = lease

    @property
    def is_whole(self) -> bool:
        """See Share."""
        return True

    def own(
        self, experiments: Collection[ExperimentId], ended: Collection[ExperimentId] = ()
    ) -> Collection[ExperimentId]:
        """See Share. All or none."""
        return {*experiments, *ended} if self._lease is not None and self._lease.held else ()

    def release(self) -> None:
        """See Share."""
        self._lease = None
