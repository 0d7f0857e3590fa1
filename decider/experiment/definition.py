"""An experiment as frozen types, checked and complete: every default is filled in.

Built by `schema.py` from the proto message; read by the rules, the learner and the metrics.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from decider.experiment.feature_schema import FeatureSchema
from decider.experiment.guardrails import Guardrail
from decider.experiment.limits import UTC_NAME, Cap, Limits
from decider.experiment.rules import Rules
from decider.experiment.unit_history import HistoryDefinition
from decider.experiment.workload import Workload
from decider.policy.protocol import Choice
from decider.policy.spec import PolicySpec
from decider.types import ActionId, ExperimentId, Features, Position, Reason, Time

NOT_POLICY_TRAFFIC = (Reason.HOLDOUT, Reason.HOLDOUT_UNAVAILABLE, Reason.FALLBACK)

DEFAULT_KIND = "content"

KIND = "kind"
"""Among the logged features of an action that only its call knew: its kind, a name that no feature can have."""


class Aggregation(enum.StrEnum):
    """How several rewards of one decision become one."""

    FIRST = "first"
    LAST = "last"
    SUM = "sum"
    MAX = "max"
    MIN = "min"
    MEAN = "mean"


class OutOfRange(enum.StrEnum):
    """What becomes of a single reward outside of the range: see the proto enum of the same name."""

    CLIP = "clip"
    REFUSE = "refuse"


class Attribution(enum.StrEnum):
    """Which decisions of a unit are credited with a reward that names no decision."""

    LAST = "last"
    FIRST = "first"
    ALL = "all"


class Learning(enum.StrEnum):
    """Who decides, and whether the policy learns: see the proto enum of the same name."""

    ONLINE = "online"
    APPRENTICE = "apprentice"
    LOG_ONLY = "log_only"
    FROZEN = "frozen"


DEFAULT_ACTION_REASONS = {Learning.APPRENTICE: Reason.APPRENTICE, Learning.LOG_ONLY: Reason.BASELINE}
"""In these modes no policy decides: the caller's default action is served, for this reason."""


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that can be chosen. `payload` is for the caller; the policy never sees it.

    eligible_if: a rule on the context (`rules.py`); empty: none. available_from, available_until: in [from, until) it
    can be chosen; None: no bound. min_share, max_share: its probability where a policy draws is between them.
    daily_budget: most decisions of a day; None: any number.
    """

    id: ActionId
    kind: str = DEFAULT_KIND
    features: Features = field(default_factory=dict)
    payload: Mapping[str, Any] = field(default_factory=dict)
    retired: bool = False
    eligible_if: str = ""
    available_from: Time | None = None
    available_until: Time | None = None
    min_share: float = 0.0
    max_share: float = 1.0
    daily_budget: int | None = None

    def unavailable(self, at: Time) -> str | None:
        """The field for which it cannot be chosen at that time; None: it can."""
        if at < (self.available_from or 0):
            return "available_from"
        return "available_until" if self.available_until is not None and at >= self.available_until else None


@dataclass(frozen=True, slots=True)
class RewardDefinition:
    """window: microseconds. Without `weights` every name counts with weight 1. attribution: of rewards by unit; None:
    they are refused."""

    window: int = 600_000_000
    default: float = 0.0
    weights: Mapping[str, float] = field(default_factory=dict)
    minimum: float = 0.0
    maximum: float = 1.0
    aggregation: Aggregation = Aggregation.SUM
    out_of_range: OutOfRange = OutOfRange.CLIP
    attribution: Attribution | None = None

    def holds(self, reward: float) -> bool:
        """Whether a reward (value x weight) is in the range by itself."""
        return self.minimum <= reward <= self.maximum


@dataclass(frozen=True, slots=True)
class Experiment:
    """minimum_propensity in [0, 1/active actions]; holdout in [0, 1]; baseline may be missing. ended: like paused, and
    nothing of it is kept in memory. needs_activation: only activated decisions count. learns_overrides: a decision in
    whose place another action was shown is learned as that one. most_actions: of one decision, where calls may bring
    actions; 0: they may not. schema: of the features of contexts; None: they are not checked. sticky:
    microseconds for which a unit keeps a decision; 0: each call draws. time_zone: of the days of budgets. history:
    features of what the unit did before; None: there are none. guardrails: of rewards that the policy must not harm."""

    id: ExperimentId
    actions: tuple[Action, ...]
    description: str = ""
    paused: bool = False
    ended: bool = False
    baseline: ActionId | None = None
    policy: PolicySpec = field(default_factory=PolicySpec)
    minimum_propensity: float = 0.0
    holdout: float = 0.0
    reward: RewardDefinition = field(default_factory=RewardDefinition)
    learning: Learning = Learning.ONLINE
    salt: str = ""
    needs_activation: bool = False
    learns_overrides: bool = False
    most_actions: int = 0
    schema: FeatureSchema | None = None
    sticky: int = 0
    history: HistoryDefinition | None = None
    caps: tuple[Cap, ...] = ()
    time_zone: str = UTC_NAME
    guardrails: tuple[Guardrail, ...] = ()

    @property
    def fallback(self) -> Guardrail | None:
        """The guardrail for which everybody gets the baseline action; None: none was crossed, or it is over."""
        return next((one for one in self.guardrails if one.crossed_at is not None), None)

    def without_fallback(self) -> Experiment:
        """As before a guardrail was crossed."""
        return replace(self, guardrails=tuple([replace(one, crossed_at=None) for one in self.guardrails]))

    @property
    def learns(self) -> bool:
        """Whether the policy, if it can, learns from the decisions. What the baseline action earns where everybody gets
        it would only make it forget the others."""
        return self.learning in (Learning.ONLINE, Learning.APPRENTICE) and self.fallback is None

    @property
    def control_share(self) -> float:
        """The share of units in the control group: there is none where everybody gets a default or the baseline
        action."""
        return 0.0 if self.learning in DEFAULT_ACTION_REASONS or self.fallback is not None else self.holdout


class ExperimentVersion:
    """An experiment as it was applied, with the lookups that the rules need. Decisions name its position.

    scheduled: the actions that can be chosen at some times only. limits: caps and budgets; None: there are none.
    shares: (smallest, largest) share, by action; those of others are 0 and 1. default_reason: where the caller's
    default action is served, why; None: the policy decides. falls_back: everybody gets the baseline action, since a
    guardrail was crossed; then neither counts.

    position, time: of its entry in the log. number: counted from 1 for each experiment.
    """

    __slots__ = (
        "__weakref__",
        "active",
        "all_active",
        "all_choices",
        "choices",
        "default_reason",
        "experiment",
        "falls_back",
        "limits",
        "number",
        "position",
        "rules",
        "scheduled",
        "shares",
        "time",
        "work",
    )

    def __init__(self, experiment: Experiment, *, number: int, position: Position, time: Time) -> None:
        self.experiment = experiment
        self.number = number
        self.position = position
        self.time = time
        self.falls_back = experiment.fallback is not None
        self.default_reason = None if self.falls_back else DEFAULT_ACTION_REASONS.get(experiment.learning)
        self.active: dict[ActionId, Action] = {a.id: a for a in experiment.actions if not a.retired}
        self.all_active: tuple[ActionId, ...] = tuple(self.active)
        self.choices: dict[ActionId, Choice] = {a.id: Choice(a.id, a.kind, a.features) for a in experiment.actions}
        self.all_choices = tuple([self.choices[id_] for id_ in self.all_active])
        texts = {a.id: a.eligible_if for a in experiment.actions if a.eligible_if}
        self.rules = Rules(texts) if texts else None
        self.scheduled: dict[ActionId, Action] = {
            a.id: a for a in experiment.actions if (a.available_from, a.available_until) != (None, None)
        }
        budgets = {a.id: a.daily_budget for a in experiment.actions if a.daily_budget is not None}
        self.limits = Limits(experiment.caps, budgets, experiment.time_zone) if experiment.caps or budgets else None
        self.shares: dict[ActionId, tuple[float, float]] = {
            a.id: (a.min_share, a.max_share) for a in experiment.actions if (a.min_share, a.max_share) != (0, 1)
        }
        self.work = Workload(experiment.policy, {a.id: a.features for a in experiment.actions}, self.all_active)

    def counts(self, *, activated: bool) -> bool:
        """Whether such a decision is traffic: nobody may have seen one that was not activated."""
        return activated or not self.experiment.needs_activation

    def learns_from(self, reason: Reason, *, activated: bool = True, overridden: bool) -> bool:
        """Whether a policy may learn from such a decision. overridden: another action was shown."""
        experiment = self.experiment
        if not experiment.learns or reason in NOT_POLICY_TRAFFIC or not self.counts(activated=activated):
            return False
        return experiment.learns_overrides or not overridden

    def kind_of(self, action: ActionId, extra: Mapping[ActionId, Features]) -> str:
        """Of an action of a decision. extra: what is logged of those that only its call knew."""
        known = self.choices.get(action)
        return known.kind if known is not None else str(extra.get(action, {}).get(KIND, DEFAULT_KIND))

    def without_actions(self) -> ExperimentVersion:
        """What has to be remembered of a version that has ended: a definition may be megabytes long."""
        short = replace(self.experiment, actions=(), description="", schema=None)
        return ExperimentVersion(short, number=self.number, position=self.position, time=self.time)

    def choices_of(self, eligible: tuple[ActionId, ...], extra: Mapping[ActionId, Features]) -> tuple[Choice, ...]:
        """The actions as the policy sees them; `extra` features come with the call and override the actions' own.

        All active actions are the same object each time: caches compare it by identity.
        """
        if extra:
            return tuple([self._choice(id_, extra) for id_ in eligible])
        return self.all_choices if eligible is self.all_active else tuple([self.choices[id_] for id_ in eligible])

    def _choice(self, id_: ActionId, extra: Mapping[ActionId, Features]) -> Choice:
        if id_ not in self.choices and self.experiment.most_actions:
            return called_choice(id_, extra[id_])
        return _with(self.choices[id_], extra[id_]) if id_ in extra else self.choices[id_]


def called_choice(id_: ActionId, logged: Features) -> Choice:
    """An action that only its call knew, of what is logged about it.

    >>> called_choice(ActionId("article-7"), {"kind": "article", "topic": "sport"})
    Choice(id='article-7', kind='article', features={'topic': 'sport'})
    """
    return Choice(id_, str(logged[KIND]), {name: value for name, value in logged.items() if name != KIND})


def _with(choice: Choice, extra: Features) -> Choice:
    if not extra:
        return choice
    return Choice(choice.id, choice.kind, {**choice.features, **extra} if choice.features else extra)
