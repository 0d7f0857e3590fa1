"""What a log says about a holdout that is to come: mean, deviation and visits by unit, and how many decisions a day.

Called by `simulator plan --log`. Deviation and kurtosis are of units, so that repeated visits need no correlation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from decider.log.open import LogUrl
from decider.text import count, percent, rough
from simulator.lift.find import DAY
from simulator.lift.power import Rewards
from simulator.logs.errors import BadLog
from simulator.logs.groups import Served, load_served

FEWEST = 100
"""Units from which a mean and a deviation are taken."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """per_day: decisions; None where the log is shorter than a day. note: what was taken from the log."""

    rewards: Rewards
    per_day: float | None
    note: str


def load_traffic(path: Path | LogUrl, experiment: str | None = None, archive: Sequence[Path] = ()) -> Traffic:
    """Of the versions in which a reward means what it does today. Raises as `load_served` does, and BadLog where there
    are too few units."""
    return traffic_of(load_served(path, experiment=experiment, archive=archive))


def traffic_of(served: Served) -> Traffic:
    """Of sealed decisions. Raises BadLog."""
    _, unit = np.unique(served.unit, return_inverse=True)
    made = np.bincount(unit).astype(np.float64)
    if len(made) < FEWEST:
        raise BadLog(
            f"{served.log}: has sealed decisions of {count(len(made))} units, which say too little: wait for "
            f"{FEWEST}, or give --rate (or --mean and --deviation) and --traffic instead"
        )
    mean, group = _mean(served)
    apart = np.bincount(unit, served.reward) - served.reward.mean() * made
    variance = float(np.dot(apart, apart)) / len(served)
    if not variance > 0:
        raise BadLog(f"{served.log}: every decision has the same reward; give --rate, or --mean and --deviation")
    visits = float(np.dot(made, made)) / len(served)
    took = float(served.time.max() - served.time.min()) / DAY
    rewards = Rewards(
        mean=mean,
        deviation=math.sqrt(variance),
        visits=visits,
        kurtosis=float(np.mean(apart**4)) / float(np.mean(apart**2)) ** 2,
    )
    note = (
        f"{served.log}: {count(len(served))} sealed decisions of {count(len(made))} units in {rough(took)} days; mean "
        f"reward {rough(mean, digits=3)} of {group}; deviation {rough(rewards.deviation, digits=3)}, by unit"
    )
    return Traffic(rewards, len(served) / took if took >= 1.0 else None, note)


def _mean(served: Served) -> tuple[float, str]:
    """Without the policy, if that is known; and of which decisions."""
    held = served.reward[served.holdout]
    if len(np.unique(served.unit[served.holdout])) >= FEWEST:
        return float(held.mean()), f"the holdout ({percent(len(held) / len(served))} of the decisions)"
    return float(served.reward.mean()), "all decisions, since no holdout says what they earn without the policy"
