"""What an evaluation found, as plain data: the JSON of `simulator evaluate`, its tables and its report are made of it.

`to_json` gives exactly these names. SCHEMA grows by one whenever a name's meaning changes or a name goes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SCHEMA = 2

Verdict = Literal["fine", "caution", "do not use"]
FieldAnswer = Literal["useful", "better without", "no significant loss", "cannot tell"]
"""What the interval of a field's importance says."""
PeriodUnit = Literal["week", "day", "hour", "tenth"]
"""Into what a log's time is split; a tenth is one of the time from its first decision to its last."""
PageReward = Literal["sum", "page"]
Conclusion = Literal["more", "less", "not told apart", "no comparison", "not to be relied on", "refused"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One check of a log or of a candidate on it. value: the figure that was looked at; text: it, in plain words.

    needed: what to do, or what logging (or how much of it) would make it fine; empty where it is, and only there.
    """

    name: str
    verdict: Verdict
    text: str
    value: float | None = None
    needed: str = ""


@dataclass(frozen=True, slots=True)
class LogSummary:
    """The log that was evaluated. left_out: decisions or lines that are not among `decisions`, by kind.

    mean_reward: of the decisions as logged, with its interval. hours: from the first decision to the last.
    experiment: its id, empty where the log names none. first_decision, last_decision: ISO 8601 in UTC; empty without
    times. holdout: None where the log has no control group.
    """

    name: str
    decisions: int
    units: int
    actions: int
    mean_reward: float
    mean_reward_low: float
    mean_reward_high: float
    reward_range: tuple[float, float]
    hours: float
    left_out: Mapping[str, int]
    verdict: Verdict
    findings: tuple[Finding, ...]
    experiment: str = ""
    first_decision: str = ""
    last_decision: str = ""
    holdout: HoldoutMean | None = None


@dataclass(frozen=True, slots=True)
class HoldoutMean:
    """The control group, which always gets the baseline action: its own mean reward. share: of the units, declared.

    lift: what the policy's decisions earned more on average, as logged; no_lift: why there is none, empty where there
    is one. verdict: of the comparison between the two.
    """

    action: str
    share: float
    decisions: int
    units: int
    estimate: Estimate
    lift: Difference | None = None
    verdict: Verdict = "fine"
    no_lift: str = ""


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """Whether the log can carry the question. ess: (sum w)^2 / sum w^2. effective_successes: the same over rewarded
    decisions. top_share: share of the weight that the largest 1 % have. mean_weight: about 1.

    possible_weight: the largest weight that could have been seen. support_violations: decisions where the candidate
    gives probability to an action that the log could not draw; missing_mass: mean of that probability.
    verdict: the worst of the findings'; reasons: the texts of those that are not fine.
    """

    ess: float
    effective_successes: float
    max_weight: float
    possible_weight: float
    top_share: float
    mean_weight: float
    smallest_propensity: float
    support_violations: int
    missing_mass: float
    verdict: Verdict
    reasons: tuple[str, ...]
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value in the reward's unit with its 95 % interval. interval: which one. unbiased: on paper; note: why not."""

    value: float
    low: float
    high: float
    interval: str
    unbiased: bool = True
    note: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """Candidate less `to` on the same decisions, by one estimator, with its 95 % interval."""

    to: str
    estimator: str
    value: float
    low: float
    high: float
    interval: str


@dataclass(frozen=True, slots=True)
class Curve:
    """An estimate after so many decisions, with a confidence sequence: valid at all of them at once.

    estimator: which one, that of the headline.
    """

    decisions: tuple[int, ...]
    value: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    estimator: str = "ips"


@dataclass(frozen=True, slots=True)
class Histogram:
    """counts[i] is for edges[i] <= x < edges[i + 1]; the last edge belongs to the last bin."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ActionShare:
    """logged, candidate: mean probability of the action under each, over the same decisions."""

    action: str
    logged: float
    candidate: float


@dataclass(frozen=True, slots=True)
class Segment:
    """One value of one context field. estimate and difference are None where the segment cannot carry them.

    difference: estimate less logged; the intervals of all segments of a policy hold at once.
    """

    field: str
    value: str
    decisions: int
    ess: float
    logged: Estimate
    estimate: Estimate | None
    difference: Estimate | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A policy in three sentences for people who are not statisticians, and in one word for scripts.

    effect: how much better or worse than what was logged. certainty: how sure that is. advice: what to do.
    """

    conclusion: Conclusion
    effect: str
    certainty: str
    advice: str


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """One candidate. refused: the log cannot carry the question; then estimates, difference and curve are empty.

    headline: the estimator to look at first. estimates: by the estimator's name (ips, snips, dr, ...).
    answer: what follows from all of it; None until everything else is known.
    """

    name: str
    estimand: str
    decisions: int
    refused: bool
    headline: str
    diagnostics: Diagnostics
    estimates: Mapping[str, Estimate]
    difference: Difference | None
    curve: Curve | None = None
    weights: Histogram | None = None
    actions: tuple[ActionShare, ...] = ()
    segments: tuple[Segment, ...] = ()
    answer: Answer | None = None


@dataclass(frozen=True, slots=True)
class FieldImportance:
    """What the policy, learned with every field but this one, would earn less, in the reward's unit.

    loss: its interval holds together with those of the policy's other fields at 95 %. answer: it in words.
    decisions: how many of the log it was learned and estimated on, from the first.
    """

    field: str
    loss: Estimate
    policy: str = ""
    decisions: int = 0
    answer: FieldAnswer = "cannot tell"


@dataclass(frozen=True, slots=True)
class Period:
    """A part of the log's time. begins: ISO 8601 in UTC; place: how many periods after the first one, from 0.

    shares: of the decisions that drew each of `OverTime.actions`; the rest drew another action.
    """

    begins: str
    place: int
    decisions: int
    mean_reward: Estimate
    shares: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class VersionChange:
    """A version that followed another one. begins: its first decision. place: that in periods from the first one on."""

    number: int
    begins: str
    place: float


@dataclass(frozen=True, slots=True)
class OverTime:
    """The log as logged, over its time: what was earned and what was drawn. unit: how long a period is.

    actions: the ones drawn most often, the most frequent first. periods: those with decisions, the earliest first.
    versions: changes of the experiment; none where the log does not know.
    """

    unit: PeriodUnit
    actions: tuple[str, ...]
    periods: tuple[Period, ...]
    versions: tuple[VersionChange, ...] = ()


@dataclass(frozen=True, slots=True)
class PageResults:
    """Whole pages: what `DecideSlate` filled, slot by slot. pages: those of which every slot is among the decisions;
    incomplete: the others. slots: the decisions in them; most_slots: of one page.

    reward: "sum" of the slots' rewards, or "page" where every slot has that of the page. mean_reward: of a page, as
    logged; reward_range: of a page. policies: as those of the decisions, but of pages: `decisions` counts pages, and
    what was logged is not among them.
    """

    pages: int
    incomplete: int
    slots: int
    most_slots: int
    reward: PageReward
    mean_reward: Estimate
    reward_range: tuple[float, float]
    policies: tuple[PolicyResult, ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything. seconds: reading and computing. importance: only where it was asked for.

    over_time: None where the log has no times, and without the breakdown.
    importance_missing: the policies that have no figures there although they were asked for, each with the reason.
    slates: None where the log has no pages of several slots.
    """

    log: LogSummary
    policies: tuple[PolicyResult, ...]
    seconds: float
    importance: tuple[FieldImportance, ...] = ()
    importance_missing: Mapping[str, str] = field(default_factory=dict)
    over_time: OverTime | None = None
    slates: PageResults | None = None
    schema: int = field(default=SCHEMA)


def to_json(found: DataclassInstance) -> str:
    """An evaluation, or another result, as standard JSON: what is infinite or not a number becomes null."""
    return json.dumps(_plain(asdict(found)), indent=1, allow_nan=False, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value
