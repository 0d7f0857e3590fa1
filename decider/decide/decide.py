"""(request, experiment version, model) -> decision. Pure: no clock, no global randomness, no I/O but a line in the
process's log where a policy fails.

The server calls `decide` to serve and `simulator verify` calls it to recompute what was served: one code path, so that
the log reproduces every decision. Rules first, then the policy's pmf, then the one sampler. `slots_of` is the only way
from a policy to slots, also for the simulator's `run` and `evaluate`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from decider.decide.slots import (
    SLOTS,
    Slots,
    bounded_slots,
    check_pmf,
    draw,
    hash_ticket,
    one_slot,
    to_slots,
    uniform_slots,
)
from decider.errors import FailedPrecondition, InvalidArgument, NotFound, OverBudget, Violation
from decider.experiment.definition import ExperimentVersion
from decider.experiment.limits import ELIGIBLE_IF, is_limit
from decider.policy.protocol import Choice, Model, PlainPolicy
from decider.policy.static import Fixed
from decider.policy.work import Budget
from decider.types import (
    NO_HISTORY,
    NOTHING_REACHED,
    ActionId,
    Context,
    Decision,
    DecisionRequest,
    ExperimentId,
    FeatureValue,
    History,
    Reason,
)

logger = logging.getLogger(__name__)

CACHE_BYTES = 4_000_000
"""What one cache keeps, about; then it starts anew."""

ENTRY_BYTES, SLOT_BYTES, FEATURE_BYTES = 600, 48, 250
"""Of an entry without texts, slots and features; of a slot and its eligible action; of a feature. A character takes 4
at most."""

MAX_FAILURE_KINDS = 1_000
"""Most kinds of failures that are remembered as logged; then all are forgotten."""

RULES = 3
"""Version of the rules before sampling; builds of a log name it. 1: the control group was called HOLDOUT also where the
baseline action was not eligible. 2: what rules withheld was not logged. A replay decides by the rules of the build that
decided."""

OnFailure = Callable[[ExperimentVersion, Exception], None]
"""Called with what a policy raised, before the baseline action is served."""


class Eligible(NamedTuple):
    """What can be chosen: the experiment's actions in its order, then those that only the call knows, by id.

    withheld: the rule that took an action out, by action, of those that the request allows. is_empty: caps and budgets
    have left nothing, and the baseline action stands in `actions` in place of that.
    """

    actions: tuple[ActionId, ...]
    withheld: Mapping[ActionId, str] = MappingProxyType({})
    is_empty: bool = False


SlotsAndReason = tuple[Slots, Reason | None]
"""The slots of the eligible actions, and the reason where a rule or the fallback made them; None: the policy did."""

Ask = Callable[[DecisionRequest, ExperimentVersion, Model, tuple[ActionId, ...]], SlotsAndReason]
"""`policy_slots`, or something that gives the same."""


def decide(
    request: DecisionRequest,
    version: ExperimentVersion,
    model: Model,
    ask: Ask | None = None,
    budget: Budget | None = None,
    *,
    rules: int = RULES,
    history: History = NO_HISTORY,
    eligible: Eligible | None = None,
) -> Decision:
    """Choose one action. ask: for the policy's slots; a cache of this version and this model gives them, too. budget: a
    decision that would cost more falls back. rules: their version. eligible: `eligible_actions`, where the caller has
    them already.

    Raises NotFound, InvalidArgument or FailedPrecondition where the request's actions do not fit the experiment.
    """
    actions, _, is_empty = eligible or eligible_actions(version, request, history)
    if is_empty:
        slots, reason = _slots_of_empty(version, request.unit_id)
    else:
        slots, reason = _slots(request, version, model, actions, ask or policy_slots, budget, rules)
    experiment = version.experiment
    index = draw(slots, hash_ticket(experiment.id, experiment.salt, "draw", request.decision_id))
    return Decision(  # by place: names would take half a microsecond more
        request.decision_id,
        version.position,
        request.unit_id,
        request.context,
        actions,
        request.action_features,
        slots,
        actions[index],
        slots[index] / SLOTS,
        reason or _draw_reason(slots, index),
        model.position,
    )


def _slots(
    request: DecisionRequest,
    version: ExperimentVersion,
    model: Model,
    eligible: tuple[ActionId, ...],
    ask: Ask,
    budget: Budget | None,
    rules: int,
) -> SlotsAndReason:
    ruled = slots_before_policy(request, version, eligible, budget, rules)
    if ruled is not None:
        return ruled
    slots, reason = ask(request, version, model, eligible)
    if reason is None and not request.explore:
        return one_slot(slots.index(max(slots)), len(slots)), Reason.NO_EXPLORATION
    return slots, reason


def slots_before_policy(
    request: DecisionRequest,
    version: ExperimentVersion,
    eligible: tuple[ActionId, ...],
    budget: Budget | None,
    rules: int = RULES,
) -> SlotsAndReason | None:
    """Where the policy is not asked at all; else None."""
    if version.default_reason is not None:
        return _default_slots(version, eligible, request.default, version.default_reason)
    if version.falls_back:
        return _default_slots(version, eligible, None, Reason.BASELINE)
    if version.experiment.holdout and in_holdout(version, request.unit_id):
        return baseline_slots(version, eligible), _holdout_reason(version, eligible, rules)
    if budget is not None and not fits_budget(request, version, eligible, budget):
        return baseline_slots(version, eligible), Reason.FALLBACK
    return None


def _slots_of_empty(version: ExperimentVersion, unit_id: str) -> SlotsAndReason:
    """The baseline action, also where the call leaves it out: a unit of the control group is no control then."""
    held_out = version.experiment.control_share and in_holdout(version, unit_id)
    return one_slot(0, 1), Reason.HOLDOUT_UNAVAILABLE if held_out else Reason.WITHHELD


def _holdout_reason(version: ExperimentVersion, eligible: tuple[ActionId, ...], rules: int) -> Reason:
    """A unit of the control group that cannot get the baseline action is no control then."""
    clean = version.experiment.baseline in eligible or rules == 1
    return Reason.HOLDOUT if clean else Reason.HOLDOUT_UNAVAILABLE


def fits_budget(
    request: DecisionRequest, version: ExperimentVersion, eligible: tuple[ActionId, ...], budget: Budget
) -> bool:
    """Whether the policy may be asked. Vowpal Wabbit holds the interpreter lock for a whole call: one dear request
    would keep all others waiting."""
    if version.work.fits(budget, request.context, eligible, request.action_features) or len(eligible) == 1:
        return True
    seconds = version.work.seconds(request.context, eligible, request.action_features)
    log_failure(
        version,
        OverBudget(
            f"a decision with {len(request.context.features)} context features and {len(eligible)} actions would take "
            f"about {seconds:.2g} s, more than --decide-budget {budget.seconds:g}; send fewer features, or take fewer "
            "actions or shorter interactions"
        ),
    )
    return False


def _draw_reason(slots: Slots, index: int) -> Reason:
    """EXPLOIT for the most probable action; a flat pmf (uniform up to rounding) has none."""
    most = max(slots)
    return Reason.EXPLOIT if slots[index] == most and most > min(slots) + 1 else Reason.EXPLORE


# From a policy to slots.


def policy_slots(
    request: DecisionRequest, version: ExperimentVersion, model: Model, eligible: tuple[ActionId, ...]
) -> SlotsAndReason:
    """The slots of the version's policy for a request, the holdout and `explore` aside."""
    if eligible is version.all_active and not request.action_features:
        choices = version.all_choices  # as `choices_of` gives, without a call into another room for every decision
    else:
        choices = version.choices_of(eligible, request.action_features)
    return slots_of(version, model.policy, request.context, choices)


_known_failures: set[tuple[ExperimentId, str, type[Exception]]] = set()


def log_failure(version: ExperimentVersion, error: Exception) -> None:
    """One line with a traceback for each policy and kind of error, not for each request."""
    experiment = version.experiment
    kind = (experiment.id, experiment.policy.signature, type(error))
    if kind in _known_failures:
        return
    if len(_known_failures) >= MAX_FAILURE_KINDS:
        _known_failures.clear()
    _known_failures.add(kind)
    if isinstance(error, OverBudget):
        logger.warning("experiment %s: %s; the baseline action is served", experiment.id, error)
        return
    logger.error(
        "experiment %s: its policy failed, the baseline action is served: %r", experiment.id, error, exc_info=error
    )


def slots_of(
    version: ExperimentVersion,
    policy: PlainPolicy,
    context: Context,
    choices: Sequence[Choice],
    *,
    on_failure: OnFailure = log_failure,
) -> SlotsAndReason:
    """The slots that the rules or the policy give; the holdout is a matter of `decide`.

    A policy that fails in whatever way must not cost a decision: the baseline action is served instead.
    """
    ruled = rule_slots(version, policy, choices)
    if ruled is not None:
        return ruled
    pmf = usable_pmf(version, policy, context, choices, on_failure=on_failure)
    if pmf is None:
        return baseline_slots(version, [choice.id for choice in choices]), Reason.FALLBACK
    return slots_of_pmf(version, pmf, choices), None


def slots_of_pmf(version: ExperimentVersion, pmf: Sequence[float], choices: Sequence[Choice]) -> Slots:
    """Of a pmf that `check_pmf` took, with the experiment's floor and shares."""
    return to_shares(version, to_slots(pmf, minimum=version.experiment.minimum_propensity), choices)


def to_shares(version: ExperimentVersion, slots: Slots, choices: Sequence[Choice]) -> Slots:
    """The slots of a policy within the smallest and largest shares that the experiment declares."""
    if not version.shares:
        return slots
    shares = [version.shares.get(choice.id, (0.0, 1.0)) for choice in choices]
    return bounded_slots(slots, shares, minimum=version.experiment.minimum_propensity)


def rule_slots(
    version: ExperimentVersion, policy: PlainPolicy, choices: Sequence[Choice]
) -> tuple[Slots, Reason] | None:
    """The slots where a rule decides without the policy; None where the policy decides."""
    if len(choices) == 1:
        return one_slot(0, 1), Reason.ONLY_ELIGIBLE
    if isinstance(policy, Fixed):
        return baseline_slots(version, [choice.id for choice in choices]), Reason.BASELINE
    return None


def usable_pmf(
    version: ExperimentVersion,
    policy: PlainPolicy,
    context: Context,
    choices: Sequence[Choice],
    *,
    on_failure: OnFailure = log_failure,
) -> Sequence[float] | None:
    """The policy's, before floor and rounding; None where it raises or gives no pmf, and the baseline is served."""
    try:
        pmf = policy.pmf(context, choices)
        check_pmf(pmf, len(choices))
    except Exception as error:  # any error: a visitor waits for an answer
        on_failure(version, error)
        return None
    return pmf


# The cache of slots.


CacheKey = tuple[tuple[str, ...], tuple[ActionId, ...], tuple[tuple[str, FeatureValue], ...]]
"""Fields of the context, eligible actions, features of the context."""


_TEXTS_AND_FLAGS = {str, bool}
"""Types of the features by which slots are kept; 1.0 and True would be one key."""


class SlotsCache:
    """`policy_slots` for one version and one model, by context and eligible actions. Neither ever changes, so the slots
    do not either.

    Made when a version or model begins to serve. `simulator verify` recomputes without it, so a wrong entry would show
    there. Contexts with numbers and calls with features of actions are not kept, since they hardly ever come twice;
    nor is what a rule decided, which is cheap, or a fallback, since the policy may succeed the next time.
    """

    bytes: int
    """Of what it keeps, about."""

    def __init__(self, most_bytes: int = CACHE_BYTES) -> None:
        self._most_bytes = most_bytes
        self.bytes = 0
        self._known: dict[CacheKey, SlotsAndReason] = {}

    def __call__(
        self, request: DecisionRequest, version: ExperimentVersion, model: Model, eligible: tuple[ActionId, ...]
    ) -> SlotsAndReason:
        """The slots, and the reason where a rule decided."""
        key = self.key(request, eligible)
        if key is None:
            return policy_slots(request, version, model, eligible)
        ruled = self._known.get(key)
        if ruled is None:
            ruled = policy_slots(request, version, model, eligible)
            if ruled[1] is None:
                self.keep(key, ruled)
        return ruled

    def __contains__(self, key: CacheKey | None) -> bool:
        """Whether its slots are kept."""
        return key in self._known

    def key(self, request: DecisionRequest, eligible: tuple[ActionId, ...]) -> CacheKey | None:
        """By which its slots are kept; None where they are not."""
        context, features = request.context, request.context.features
        if request.action_features or (features and not _TEXTS_AND_FLAGS.issuperset(map(type, features.values()))):
            return None
        return (context[:-1], eligible, tuple(features.items()) if features else ())

    def keep(self, key: CacheKey, ruled: SlotsAndReason) -> None:
        """Keep the policy's slots."""
        texts = [*key[0], *[text for pair in key[2] for text in pair if isinstance(text, str)]]
        self.bytes += ENTRY_BYTES + 4 * sum(map(len, texts)) + SLOT_BYTES * len(ruled[0]) + FEATURE_BYTES * len(key[2])
        if self.bytes > self._most_bytes:
            self.clear()
        self._known[key] = ruled

    def clear(self) -> None:
        """Forget all."""
        self._known.clear()
        self.bytes = 0


# The rules that act before sampling.


def eligible_actions(version: ExperimentVersion, request: DecisionRequest, history: History = NO_HISTORY) -> Eligible:
    """The actions that may be chosen.

    A request of a caller comes through `fit_actions`, which leaves out the names that do not fit; a log's has none.
    Raises NotFound, InvalidArgument or FailedPrecondition.
    """
    asked = _asked(version, request)
    if version.rules or version.scheduled or version.limits:
        eligible = _restrict(version, request, asked, history)
    else:
        eligible = Eligible(asked)
    if not eligible.actions:
        raise nothing_left(version, request)
    return eligible


def _asked(version: ExperimentVersion, request: DecisionRequest) -> tuple[ActionId, ...]:
    """Those that the request allows."""
    eligible = version.all_active
    if not eligible or request.eligible or request.excluded or request.action_features:
        _check_names(version, request)
        if version.experiment.most_actions:
            eligible += tuple(sorted(request.action_features.keys() - version.choices.keys()))
        if request.eligible or request.excluded:
            wanted = set(request.eligible or eligible) - set(request.excluded)
            eligible = tuple([id_ for id_ in eligible if id_ in wanted])
    return eligible


def _restrict(
    version: ExperimentVersion, request: DecisionRequest, asked: tuple[ActionId, ...], history: History
) -> Eligible:
    """Those that the experiment's times, rules and limits leave; they act in this order."""
    withheld: dict[ActionId, str] = {}
    for rules in (_schedule, _rules, _limits):
        withheld |= rules(version, request, _without(asked, withheld), history)
    if not withheld:
        return Eligible(asked)  # the same object: caches compare it by identity
    left, baseline = _without(asked, withheld), version.experiment.baseline
    if not left and baseline is not None and any(map(is_limit, withheld.values())):
        return Eligible((baseline,), withheld, is_empty=True)
    return Eligible(left, withheld)


def _without(asked: tuple[ActionId, ...], withheld: Mapping[ActionId, str]) -> tuple[ActionId, ...]:
    return tuple([id_ for id_ in asked if id_ not in withheld]) if withheld else asked


def _schedule(
    version: ExperimentVersion, request: DecisionRequest, asked: tuple[ActionId, ...], _: History
) -> dict[ActionId, str]:
    at = request.at
    if at is None or not version.scheduled:
        return {}
    fields = [(id_, version.scheduled[id_].unavailable(at)) for id_ in asked if id_ in version.scheduled]
    return {id_: field for id_, field in fields if field}


def _rules(
    version: ExperimentVersion, request: DecisionRequest, asked: tuple[ActionId, ...], _: History
) -> dict[ActionId, str]:
    if not version.rules:
        return {}
    allowed = version.rules.allowed(asked, request.context)
    return dict.fromkeys([id_ for id_ in asked if id_ not in allowed], ELIGIBLE_IF) if allowed != asked else {}


def _limits(
    version: ExperimentVersion, request: DecisionRequest, asked: tuple[ActionId, ...], history: History
) -> dict[ActionId, str]:
    limits, reached = version.limits, history.reached
    if not limits or reached == NOTHING_REACHED:
        return {}
    rules = [(id_, limits.rule(id_, version.kind_of(id_, request.action_features), reached)) for id_ in asked]
    return {id_: rule for id_, rule in rules if rule}


def nothing_left(version: ExperimentVersion, request: DecisionRequest) -> FailedPrecondition:
    """The error where request and rules leave no action."""
    ruled = "; eligible_if, available_from or available_until may leave out others"
    return FailedPrecondition(
        f"no action of experiment {version.experiment.id!r} is left: {len(version.all_active)} active, "
        f"eligible_actions names {len(request.eligible)}, excluded_actions {len(request.excluded)}"
        f"{ruled if version.rules or version.scheduled else ''}",
        reason="NO_ELIGIBLE_ACTION",
    )


def _check_names(version: ExperimentVersion, request: DecisionRequest) -> None:
    names = (*request.eligible, *request.excluded, *request.action_features)
    known = set(version.choices)
    if version.experiment.most_actions:
        known.update(request.action_features)
    if not known >= set(names):
        unknown = next(id_ for id_ in names if id_ not in known)
        raise NotFound(
            f"experiment {version.experiment.id!r} has no action {unknown!r}; it has {', '.join(version.choices)}",
            reason="ACTION_NOT_FOUND",
        )
    for id_ in request.eligible:
        if id_ in version.choices and id_ not in version.active:
            raise InvalidArgument([Violation("eligible_actions", f"action {id_!r} is retired")])


def in_holdout(version: ExperimentVersion, unit_id: str) -> bool:
    """Whether the unit belongs to the control group; the same for every version with this id and salt."""
    experiment = version.experiment
    return hash_ticket(experiment.id, experiment.salt, "holdout", unit_id) < experiment.holdout * SLOTS


def _default_slots(
    version: ExperimentVersion, eligible: tuple[ActionId, ...], default: ActionId | None, reason: Reason
) -> SlotsAndReason:
    if len(eligible) == 1:
        return one_slot(0, 1), Reason.ONLY_ELIGIBLE
    action = default_action(version, eligible, default)
    if action is None:
        return uniform_slots(len(eligible)), reason
    return one_slot(eligible.index(action), len(eligible)), reason


def default_action(
    version: ExperimentVersion, eligible: tuple[ActionId, ...], default: ActionId | None
) -> ActionId | None:
    """What is served where no policy decides: the caller's default action, else the baseline action. None: one of the
    eligible actions by lot."""
    return next((id_ for id_ in (default, version.experiment.baseline) if id_ in eligible), None)


def baseline_slots(version: ExperimentVersion, eligible: Sequence[ActionId]) -> Slots:
    """Everything to the baseline action; evenly to all where it is not eligible."""
    baseline = version.experiment.baseline
    if baseline in eligible:
        return one_slot(eligible.index(baseline), len(eligible))
    return uniform_slots(len(eligible))
