"""The lift as plain data: the JSON of `simulator lift`, its table and its page are made of it.

SCHEMA grows by one whenever a name's meaning changes or a name goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from decider.estimate.lift import Answer
from decider.estimate.mean import Interval
from simulator.logs.groups import StratumRead

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class LiftRow:
    """reward: the name, or `(learned)`. field, value: of which decisions; empty: all.

    lift: in units of the reward; relative: as a share of the holdout's mean; per_week: what the policy's decisions of a
    week bring, None where the log is shorter than a day. policy, holdout: mean rewards. decisions, units: (policy,
    holdout). clusters: over how many the rewards of the poorer group are spread; the interval needs `needed`.
    """

    reward: str
    field: str
    value: str
    answer: Answer
    lift: Interval
    relative: Interval
    per_week: Interval | None
    policy: float
    holdout: float
    decisions: tuple[int, int]
    units: tuple[int, int]
    clusters: float
    needed: float


@dataclass(frozen=True, slots=True)
class LiftResult:
    """rows: of all decisions, one for each reward. by: of the values of the fields that were named.

    level: all intervals of `rows` together hold it at every look; by_level: those of `by`. begin, end: microseconds
    since 1970, of the first and the last decision. cost: of the holdout, reward/decision; exploration: its cost,
    reward/draw, over all versions since a reward has meant the same; None where nothing is known.
    left_out: decisions, by kind.
    """

    log: str
    experiment: str
    level: float
    rows: tuple[LiftRow, ...]
    by: tuple[LiftRow, ...]
    by_level: float
    cost: float | None
    exploration: Interval | None
    strata: tuple[StratumRead, ...]
    begin: int
    end: int
    left_out: Mapping[str, int]
    schema: int = field(default=SCHEMA)
