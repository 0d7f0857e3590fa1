"""The lift as plain data: the JSON of `simulator lift`, its table and its page are made of it.

SCHEMA grows by one whenever a name's meaning changes or a name goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from decider.estimate.lift import Answer
from decider.estimate.mean import Interval
from simulator.logs.groups import StratumRead

SCHEMA = 1


SPLIT_IS_WRONG: Final = "split is wrong"

RowAnswer = Answer | Literal["split is wrong"]
"""`split is wrong`: units are not in the holdout with the declared share, so that no figure is right."""

GuardrailAnswer = Literal["crossed", "held", "too little"]
"""`held`: nothing says beyond doubt that the lift is beyond the margin. `crossed`: also where it was, and everybody
gets the baseline since."""


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
    answer: RowAnswer
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
class GuardrailRow:
    """A guardrail of the newest version. lift: of the values of its reward; None where too little is known, as bound:
    the lift is beyond it for sure. log_evalue: against "within the margin"; it is crossed at `needed`. crossed_at:
    since when everybody gets the baseline, microseconds since 1970; None: nobody does because of it. decisions:
    (policy, holdout), those that it is judged by.
    """

    reward: str
    at_most: float | None
    at_least: float | None
    answer: GuardrailAnswer
    lift: float | None
    bound: float | None
    log_evalue: float
    needed: float
    policy: float | None
    holdout: float | None
    decisions: tuple[int, int]
    crossed_at: int | None


@dataclass(frozen=True, slots=True)
class PersonsFound:
    """Linked units are one person. units: that are linked; in_both: persons with units in both groups. lift: the first
    row's, with an interval by person; None: too little is known."""

    units: int
    persons: int
    in_both: int
    lift: Interval | None


@dataclass(frozen=True, slots=True)
class LiftResult:
    """rows: of all decisions, one for each reward. by: of the values of the fields that were named.

    level: the first row's interval holds it at every look, and so do those of all other names together, other_names of
    them, which need not have a row; by_level: those of `by` together. begin, end: microseconds
    since 1970, of the first and the last decision. cost: of the holdout, reward/decision; exploration: its cost,
    reward/draw, over all versions since a reward has meant the same; None where nothing is known.
    left_out: decisions, by kind. guardrails: together they are crossed by chance in 5 % of the cases at most. since,
    until: as they were asked for. other_rewards: names that were sent and have no row, the most frequent first.
    live_strata: so many of the newest strata are in the metrics and on the page; 0: all. persons: None where no two
    units are linked. split_log_evalue: evidence that units are not split as declared, as the metric; above ALARM the
    groups cannot be compared, and every answer says so. None: too little is known.
    """

    log: str
    experiment: str
    level: float
    rows: tuple[LiftRow, ...]
    by: tuple[LiftRow, ...]
    by_level: float
    cost: Interval | None
    exploration: Interval | None
    strata: tuple[StratumRead, ...]
    begin: int
    end: int
    left_out: Mapping[str, int]
    other_names: int = 0
    guardrails: tuple[GuardrailRow, ...] = ()
    since: str = ""
    until: str = ""
    other_rewards: tuple[str, ...] = ()
    live_strata: int = 0
    persons: PersonsFound | None = None
    split_log_evalue: float | None = None
    schema: int = field(default=SCHEMA)
