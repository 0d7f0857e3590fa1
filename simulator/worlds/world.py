"""What a world is: an experiment, visitors who come to it, and what every action is truly worth to each of them.

A world draws all visits of a seed beforehand, with what every action would earn there, so that all policies meet the
same visitors and the same luck. Found by `registry.py`; played by `simulator/run`, driven by `simulator/drive`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from decider.experiment.definition import Experiment, ExperimentVersion
from decider.types import START, Context, Time

Floats = NDArray[np.float64]
Indexes = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Answers:
    """Visitors who can be asked a question: what they answered is known at their later visits.

    action: index of the action that asks. given: (rounds,) whether this visitor would answer now.
    seen: (rounds,) the case that the round is for somebody who has answered before.
    """

    action: int
    given: Flags
    seen: Indexes


@dataclass(frozen=True)
class Visits:
    """The rounds of one world and seed, over a list of distinct cases: a context at one time of the world.

    contexts: of each case. means: (cases, actions), the true mean reward. eligible: (cases, actions).
    seen: (rounds,) each round's case. units: (rounds,) who comes. delays: (rounds,) seconds of the world from the
    decision to its reward. rewards: (rounds, actions), what each action would earn there.
    names: (rounds, actions), index into the world's reward names; -1 where no reward comes.
    """

    contexts: tuple[Context, ...]
    means: Floats
    eligible: Flags
    seen: Indexes
    units: Indexes
    delays: Floats
    rewards: Floats
    names: NDArray[np.int8]
    answers: Answers | None = None

    def __len__(self) -> int:
        return len(self.seen)

    @cached_property
    def best(self) -> Floats:
        """(cases, actions): evenly over the best of the eligible actions."""
        worth = np.where(self.eligible, self.means, -np.inf)
        best = worth >= worth.max(axis=1, keepdims=True)
        return np.asarray(best / best.sum(axis=1, keepdims=True))

    @cached_property
    def uniform(self) -> Floats:
        """(cases, actions): evenly over the eligible actions."""
        return np.asarray(self.eligible / self.eligible.sum(axis=1, keepdims=True))

    def always(self, action: int) -> Floats:
        """(cases, actions): one action; evenly over the eligible ones where it is not, as a baseline is served."""
        one = np.zeros_like(self.uniform)
        one[:, action] = 1.0
        return np.where(self.eligible[:, [action]], one, self.uniform)


@dataclass(frozen=True)
class World:
    """name: as on the command line. line: what it is, in one line for people.

    experiment: as a growth team would write it; its actions are in the order of `Visits`' columns, and where no reward
    comes its default is earned, which is 0 in all worlds but those that are fitted to a log with another one.
    draw: (seed, rounds) -> visits; the same for the same arguments. traffic: visits per second of the world's time.
    batch: that many visitors are decided at once, with one model (an e-mail campaign). Where the means were fitted on
    a log, `fitted` names it.
    """

    name: str
    line: str
    experiment: Experiment
    draw: Callable[[int, int], Visits]
    reward_names: tuple[str, ...] = ("click",)
    traffic: float = 2.0
    batch: int = 1
    fitted: str = ""

    @property
    def actions(self) -> tuple[str, ...]:
        """Ids, in the order of the columns."""
        return tuple(action.id for action in self.experiment.actions)

    def arrives(self, number: int) -> float:
        """Seconds of the world's time from its start to that round."""
        return number // self.batch * self.batch / self.traffic

    @property
    def version(self) -> ExperimentVersion:
        """The experiment as if applied at the start."""
        return ExperimentVersion(self.experiment, number=1, position=START, time=Time(0))
