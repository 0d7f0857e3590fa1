"""One decision explained: what was left to choose, who chose, and why this action; proved by making it again.

Called by `decider explain` and by the server's `/decisions/ID`. It reads what belongs to the decision, never the whole
log; only the decision's model may have to be learned again, for as long as the caller allows. `words.py` puts it into
sentences.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from decider.decide.decide import policy_slots
from decider.decide.slate import slot_id
from decider.errors import DeciderError, LogCorrupt, NotFound
from decider.experiment.definition import ExperimentVersion
from decider.learn.left_out import in_force_at, knows_until
from decider.log.protocol import LeaveOut, LoggedDecision, LogReader
from decider.policy.contributions import Gap, asked_contexts, gap_between
from decider.policy.make import make_policy
from decider.policy.protocol import Model
from decider.replay.gaps import Gaps, find_version, sources
from decider.replay.models import Owner, model_at, owner_of
from decider.replay.past import UnitHistories, as_logged, request_of
from decider.replay.recompute import Build, compare, withheld_from
from decider.types import ActionId, DecisionId, Position, Reason, Time

ASKED = (Reason.EXPLOIT, Reason.EXPLORE, Reason.NO_EXPLORATION)
"""Reasons of decisions in which the policy had the word."""

MODEL_MATTERS = (*ASKED, Reason.FALLBACK)
"""Others are made by rules alone, whatever the model."""

TRACED = 3
"""How much longer Vowpal Wabbit takes where it tells what it expects, about."""

MOST_SLOTS = 100
"""Of a slate, that are named."""


class Check(enum.StrEnum):
    """What became of making the decision again."""

    EQUAL = "equal"
    DIFFERENT = "different"
    UNCHECKED = "unchecked"


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds for learning a model again, and for asking it about every field."""

    learning: float = math.inf
    asking: float = math.inf


@dataclass(frozen=True, slots=True)
class Compared:
    """The two actions that the policy found most probable, and why it expects more of one; first is the best.

    probabilities: that the policy gave them.
    """

    first: ActionId
    second: ActionId
    probabilities: tuple[float, float]
    gap: Gap


@dataclass(frozen=True, slots=True)
class Explanation:
    """withheld: by which rule, by action. left_out: actions that the call did not allow, or that slots before took.

    check: see `Check`; what: the difference, or why it was not made again. compared: None where there is nothing to
    compare, for the reason in `no_gap`. model_time: up to when the model knows what was earned. model_leaves_out: what
    it leaves out. slots: of the slate so far, with what each got; only itself where it is no slot. kept_until: until
    when the unit keeps the decision, 0: not. counted: whether limits were counted again; they are taken as logged.
    unread: whether the unit's history could not be read again.
    """

    logged: LoggedDecision
    version: ExperimentVersion
    withheld: Mapping[ActionId, str]
    left_out: tuple[ActionId, ...]
    model_time: Time | None
    model_leaves_out: Sequence[LeaveOut]
    check: Check
    what: str
    compared: Compared | None
    no_gap: str
    slots: tuple[ActionId, ...]
    kept_until: Time
    unread: bool


InMemory = Callable[[Owner, Position], Model | None]
"""A model that somebody holds already."""


def explain(
    log: LogReader,
    decision_id: DecisionId,
    *,
    patience: Patience = Patience(),
    in_memory: InMemory = lambda owner, position: None,  # noqa: ARG005 - nobody holds one
    say: Callable[[Time], None] = lambda time: None,  # noqa: ARG005 - told to nobody
) -> Explanation:
    """say: told up to what time a model has learned. Raises NotFound; LogCorrupt where the log lacks the version."""
    logged = log.find(decision_id)
    if logged is None:
        raise not_found(log, decision_id)
    version = find_version(log, logged.decision.version)
    if version is None:
        raise LogCorrupt(f"{log.name}: it has no experiment version at position {logged.decision.version}")
    withheld = withheld_from(log, logged, version)
    entries = log.leave_outs(version.experiment.id)
    again = _make_again(log, logged, version, patience, in_memory, say)
    model = again.model if again.check is Check.EQUAL else None
    compared, no_gap = _compare_first_two(logged, version, model, withheld, patience)
    return Explanation(
        logged=logged,
        version=version,
        withheld=withheld,
        left_out=tuple([id_ for id_ in version.all_active if id_ not in {*logged.decision.eligible, *withheld}]),
        model_time=_model_time(log, version, logged.decision.model, entries),
        model_leaves_out=in_force_at(entries, logged.decision.model),
        check=again.check,
        what=again.what,
        compared=compared,
        no_gap=no_gap,
        slots=_slots_so_far(log, logged),
        kept_until=_kept_until(log, logged, version),
        unread=again.unread,
    )


class _Again(NamedTuple):
    """A decision made again. model: that it was made with. unread: see Explanation."""

    check: Check
    what: str
    model: Model | None = None
    unread: bool = False


def _make_again(
    log: LogReader,
    logged: LoggedDecision,
    version: ExperimentVersion,
    patience: Patience,
    in_memory: InMemory,
    say: Callable[[Time], None],
) -> _Again:
    reason = _uncheckable(log, logged)
    if reason:
        return _Again(Check.UNCHECKED, reason)
    build = Build(logged.build, log.builds().get(logged.build, {}))
    histories = UnitHistories(log)
    try:
        model = _model(log, logged, owner_of(version, build), patience, in_memory, say)
        if model is None:
            waited = f"learning it again takes more than {patience.learning:g} s"
            return _Again(Check.UNCHECKED, f"its model is neither in memory nor stored, and {waited}")
        difference = compare(
            log,
            logged,
            version,
            build=build,
            model=partial(_itself, model),
            histories=histories,
            history=partial(as_logged, version),
        )
    except DeciderError as error:
        return _Again(Check.UNCHECKED, str(error))
    if difference:
        return _Again(Check.DIFFERENT, difference.what)
    return _Again(Check.EQUAL, "", model, histories.unread > 0)


def not_found(log: LogReader, decision_id: DecisionId) -> NotFound:
    """The error for an id that the log does not have; without its path, which is not for every caller over HTTP."""
    archived = "; it may lie in the log's archive" if log.cut().position else ""
    return NotFound(
        f"the log has no decision {decision_id!r}{archived}. Ids of forgotten units are gone",
        reason="DECISION_NOT_FOUND",
    )


def _itself(model: Model) -> Model:
    return model


def _uncheckable(log: LogReader, logged: LoggedDecision) -> str:
    """Why a decision cannot be made again; empty where it can."""
    imported = sources(log).get(logged.build)
    if imported is not None:
        return f"another system made it: it was imported from {imported}"
    if logged.position <= log.cut().position:
        return "it lies in the log's archive, and the log keeps only what retries and late rewards need"
    gaps = Gaps(log)
    if logged.position in gaps.decisions:
        return "its unit was forgotten: the ids, and perhaps the context, are no longer those that were decided by"
    if gaps.has_learned(logged.decision):
        return "its model has learned from contexts that were removed since (decider forget --context)"
    return ""


def _model(
    log: LogReader,
    logged: LoggedDecision,
    owner: Owner,
    patience: Patience,
    in_memory: InMemory,
    say: Callable[[Time], None],
) -> Model | None:
    """The decision's; where rules alone decided, any of that name: one that was asked would draw for another reason."""
    decision = logged.decision
    if decision.reason not in MODEL_MATTERS:
        return Model(make_policy(owner.policy, code=owner.code), decision.model)
    held = in_memory(owner, decision.model)
    return held or model_at(log, owner, decision.model, seconds=patience.learning, say=say)


def _compare_first_two(
    logged: LoggedDecision,
    version: ExperimentVersion,
    model: Model | None,
    withheld: Mapping[ActionId, str],
    patience: Patience,
) -> tuple[Compared | None, str]:
    """Or why there is nothing to compare. model: None where the decision was not made again, or not alike."""
    decision = logged.decision
    if decision.reason not in ASKED:
        return None, "no policy was asked, so the context made no difference"
    if model is None:
        return None, "the contributions of the fields need the model that decided"
    seconds = version.work.seconds(decision.context, decision.eligible, decision.action_features)
    if TRACED * seconds * asked_contexts(decision.context) > patience.asking:
        return None, f"asking the model about every field takes more than {patience.asking:g} s"
    slots, _ = policy_slots(request_of(decision, version, withheld), version, model, decision.eligible)
    choices = version.choices_of(decision.eligible, decision.action_features)
    scores = model.policy.scores([decision.context], choices)
    if scores is None:
        return None, f"the policy {version.experiment.policy.algorithm} does not depend on the context"
    (only,) = scores
    first, second, *_ = sorted(range(len(slots)), key=lambda index: (-slots[index], -only.expected[index]))
    gap = gap_between(model.policy, decision.context, choices, first=first, second=second)
    assert gap is not None
    total = sum(slots)
    probabilities = slots[first] / total, slots[second] / total
    return Compared(decision.eligible[first], decision.eligible[second], probabilities, gap), ""


def _model_time(
    log: LogReader, version: ExperimentVersion, model: Position, entries: Sequence[LeaveOut]
) -> Time | None:
    """None where the log does not know it any more."""
    try:
        return knows_until(log, version.experiment.id, model, entries)
    except DeciderError:
        return None


def _slots_so_far(log: LogReader, logged: LoggedDecision) -> tuple[ActionId, ...]:
    """What the slots of the slate got, up to this one: they were decided one after the other."""
    slate, _, place = logged.decision.decision_id.rpartition("/")
    if slate and place.isascii() and place.isdecimal() and int(place) < MOST_SLOTS:
        before = [log.find(slot_id(slate, one)) for one in range(int(place))]
        found = [one for one in before if one is not None and one.decision.unit_id == logged.decision.unit_id]
        if len(found) == int(place):
            return (*[one.decision.action for one in found], logged.decision.action)
    return (logged.decision.action,)


def _kept_until(log: LogReader, logged: LoggedDecision, version: ExperimentVersion) -> Time:
    experiment = version.experiment
    kept = log.assigned(experiment.id, logged.decision.unit_id, at=logged.time) if experiment.sticky else None
    return Time(logged.time + experiment.sticky) if kept is not None and kept.position == logged.position else Time(0)
