"""What a drive earned, by the world's true means, beside what others would have earned on the same visits.

Called by `live.py`. The words are those of `simulator run`; but what the server would have chosen otherwise is not
known here, so the figure is that of the actions that were drawn, with their luck.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np

from simulator.drive.ledger import Ledger
from simulator.drive.plan import Plan
from simulator.run.play import play_reference
from simulator.run.task import share_of_lift
from simulator.worlds.world import Floats


@dataclass(frozen=True, slots=True)
class Earnings:
    """Means per visit. earned: of the drawn actions; best: of the best action of every visit; uniform: of `uniform`;
    fixed: of the best single action, which is fixed_action. right: how often a best action was drawn. regret:
    mean shortfall per visit against the best action. share: of the attainable lift, 0 is a uniform choice and 1 the
    best action of every visit; nan if there is no lift.
    """

    visits: int
    earned: float
    best: float
    uniform: float
    fixed: float
    fixed_action: str
    right: float
    regret: float
    share: float


def measure(plan: Plan, ledger: Ledger, *, seed: int) -> Earnings | None:
    """Over the acknowledged decisions; None of none."""
    done = np.flatnonzero(ledger.acked)
    if not len(done):
        return None
    visits, cases, actions = plan.visits, ledger.case[done], ledger.action[done]

    def mean(pmfs: Floats) -> float:
        return float(play_reference(visits, pmfs, random=Random(seed))[done].mean())

    singles = {action: mean(visits.always(index)) for index, action in enumerate(plan.world.actions)}
    fixed = max(singles, key=lambda action: singles[action])
    ours, best, uniform = float(visits.means[cases, actions].mean()), mean(visits.best), mean(visits.uniform)
    return Earnings(
        visits=len(done),
        earned=ours,
        best=best,
        uniform=uniform,
        fixed=singles[fixed],
        fixed_action=fixed,
        right=float((visits.best[cases, actions] > 0).mean()),
        regret=best - ours,
        share=float(share_of_lift(np.array(ours), best=np.array(best), uniform=np.array(uniform))),
    )
