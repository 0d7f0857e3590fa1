"""What was true of a log: the pmfs that served, by the true mean rewards of the world. Called by `stage.py`.

The truth of a lift is what those pmfs were worth more than the baseline action: not what a best policy would have
earned, and without the luck of draws and rewards.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from decider.decide.slots import SLOTS
from decider.log.open import open_reader
from decider.types import Context, ExperimentId, Reason, Time
from simulator.worlds.world import Flags, Floats, Indexes, World


@dataclass(frozen=True)
class Truth:
    """Of the sealed decisions of one drive. holdout: (n,). pmf, means: (n, actions); pmf is 0 where an action was not
    eligible. model: (n,) what each had learned up to.

    >>> pmf, means = np.array([[0.0, 1.0], [0.25, 0.75], [1.0, 0.0]]), np.array([[0.1, 0.3], [0.2, 0.1], [0.5, 0.0]])
    >>> held = np.array([False, False, True])
    >>> contexts = (Context("vip"), Context("new"), Context("vip"))
    >>> truth = Truth(("none", "sale"), contexts, held, pmf, means, np.zeros(3, np.int64), baseline=0)
    >>> round(truth.lift(), 4), round(truth.lift(truth.where("segment", "vip")), 4), round(truth.exploration(), 4)
    (0.0625, 0.2, -0.0125)
    >>> truth.best(truth.where("segment", "vip"))
    'none'
    """

    actions: tuple[str, ...]
    contexts: tuple[Context, ...]
    holdout: Flags
    pmf: Floats
    means: Floats
    model: Indexes
    baseline: int

    def lift(self, rows: Flags | None = None, means: Floats | None = None) -> float:
        """Of the policy's decisions. rows: only of these. means: of another reward."""
        used = ~self.holdout & (True if rows is None else rows)
        worth = (self.means if means is None else means)[used]
        return float(((self.pmf[used] * worth).sum(axis=1) - worth[:, self.baseline]).mean())

    def where(self, field: str, value: str) -> Flags:
        """(n,): the decisions with that value of a field; empty: not given."""
        return np.array([getattr(context, field) == value for context in self.contexts])

    def exploration(self) -> float:
        """What a draw of the policy was worth less than its most probable action."""
        used = ~self.holdout
        pmf, means = self.pmf[used], self.means[used]
        greedy = np.take_along_axis(means, pmf.argmax(axis=1)[:, np.newaxis], axis=1)[:, 0]
        return float((greedy - (pmf * means).sum(axis=1)).mean())

    def best(self, rows: Flags) -> str:
        """The action that is worth most to these decisions together."""
        return self.actions[int(self.means[rows].mean(axis=0).argmax())]


def read_truth(db: Path, world: World, *, run: str, seed: int, visitors: int) -> Truth:
    """Of the drive with these ids."""
    visits = world.draw(seed, visitors)
    with closing(open_reader(db)) as log:
        sealed = log.sealed_decisions(ExperimentId(world.experiment.id), after=Time(0), until=log.head().time)
        mine = [one.decision for one in sealed if one.decision.decision_id.startswith(f"{run}-")]
    made = [one for one in mine if one.reason != Reason.BASELINE]  # behind a crossed guardrail nothing is compared
    pmf = np.zeros((len(made), len(world.actions)))
    for row, one in zip(pmf, made, strict=True):
        row[[world.actions.index(action) for action in one.eligible]] = np.array(one.pmf) / SLOTS
    return Truth(
        actions=world.actions,
        contexts=tuple([one.context for one in made]),
        holdout=np.array([one.reason == Reason.HOLDOUT for one in made]),
        pmf=pmf,
        means=visits.means[visits.seen[[int(one.decision_id.rpartition("-")[2]) for one in made]]],
        model=np.array([one.model for one in made]),
        baseline=world.actions.index(world.experiment.baseline or ""),
    )
