"""DeciderService: translates between messages and the domain. Domain code raises; `rpc.py` aborts. Called by gRPC."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from decider.decide.agreement import Agreement, agreement_of
from decider.decide.batch import AskAll, Waiting, ask_together, asks_for
from decider.decide.decide import Ask, Eligible, decide, default_action, eligible_actions
from decider.decide.named_actions import MAX_SHOWN, SHOWN, check_default, inactive_actions
from decider.decide.slate import decide_slate, slot_id
from decider.errors import (
    AlreadyExists,
    DeciderError,
    FailedPrecondition,
    InvalidArgument,
    LogError,
    Violation,
)
from decider.experiment.definition import Experiment, ExperimentVersion
from decider.experiment.limits import Counts, is_limit
from decider.experiment.unit_history import Seen, check_call, history_features, with_history
from decider.log.protocol import (
    Append,
    Awaited,
    Caller,
    DecisionRef,
    LocateAll,
    LoggedDecision,
    LogReader,
    Mark,
    NewSlate,
    UnitDecision,
)
from decider.metrics.agreement import AgreementMetrics
from decider.metrics.requests import RequestMetrics
from decider.policy.work import Budget
from decider.server import convert
from decider.server.feedback import Feedback, attempt
from decider.server.request_checks import RequestChecks
from decider.server.roles import ALL, Rights
from decider.server.rpc import check_caller, to_status
from decider.server.settings import MAX_REPLY_BYTES
from decider.serving.current import Current, Serving
from decider.types import (
    NO_HISTORY,
    STICKY,
    ActionId,
    Decision,
    DecisionId,
    DecisionRequest,
    ExperimentId,
    History,
    Reached,
    Reason,
    Time,
    now,
)
from decider.v1 import decider_service_pb2 as pb


class _Answer(NamedTuple):
    """A decision with its version; `stored`: it was in the log before. ignored: ids of actions in the request that were
    left out. reason: of the answer, if not the decision's. unit: of a new decision, what it depends on of its unit.
    agreement: of an apprentice with a new decision."""

    decision: Decision
    version: ExperimentVersion
    stored: bool
    ignored: Sequence[ActionId] = ()
    reason: str | None = None
    unit: UnitDecision | None = None
    agreement: Agreement | None = None


class _Undecided(NamedTuple):
    """A request that is to be decided. kept: of its unit, which does not serve again. reached, seen: what the decision
    depends on of its unit. of_unit: whether it depends on its unit."""

    asked: DecisionRequest
    serving: Serving
    eligible: Eligible
    ignored: Sequence[ActionId]
    kept: LoggedDecision | None
    reached: Reached | None
    seen: Seen | None
    of_unit: bool


MOST_TRIES = 100
"""To decide. Each but the last one fails because something was written between the decision and the commit: another
decision of the unit that used up or freed a limit, or a version that took the place of this one. That ends once nobody
is quicker."""

OF_SLOT = {field.name for field in pb.Slot.DESCRIPTOR.fields}
"""Fields that each slot has, and not the slate."""

PATIENT = Caller(math.inf, lambda: True)
"""A caller that never gives up."""


def _follow_nothing() -> None:
    pass


class DeciderService(Feedback):
    """Handlers of the RPCs of the same names. budget: see `decide`. metrics: of what requests have that their
    experiment does not know. agreement: of apprentices. clock: the log's.
    max_reply_bytes: a larger reply is refused, and what it would tell is not decided. follow: brings `current` up to
    date with the log, where a decision's version was overtaken before its commit. ask_all: for slots, where other calls
    of the thread may wait, too; None: each call asks alone.

    caller: what its call decided is in the log only where it still waits when the commit begins. Rewards and
    activations are true whoever waits. rights: the caller's; looked at before anything else of the request is.
    """

    def __init__(
        self,
        current: Current,
        log: LogReader,
        *,
        append: Append,
        budget: Budget | None = None,
        locate_all: LocateAll | None = None,
        ask_all: AskAll | None = None,
        metrics: RequestMetrics | None = None,
        agreement: AgreementMetrics | None = None,
        clock: Callable[[], Time] = now,
        max_reply_bytes: int = MAX_REPLY_BYTES,
        follow: Callable[[], None] = _follow_nothing,
    ) -> None:
        super().__init__(current, log, append=append, locate_all=locate_all, max_reply_bytes=max_reply_bytes)
        self._budget = budget
        self._ask_all = ask_all
        self._clock = clock
        self._follow = follow
        self._replies = convert.Replies()
        self._metrics = metrics or RequestMetrics()
        self._checks = RequestChecks(self._metrics)
        self._agreement = agreement or AgreementMetrics()

    def Decide(self, request: pb.DecideRequest, caller: Caller = PATIENT, rights: Rights = ALL) -> pb.DecideResponse:
        """Choose, append, answer; a decision id that is in the log gets the stored decision."""
        if rights.experiments is not None:
            self._check_rights(request, rights)
        return self._decide(request, caller)

    def _check_rights(self, request: pb.DecideRequest, rights: Rights) -> None:
        """Whether nothing but an experiment of the caller's is touched: rewards for a slate go to whatever decision has
        its id, or the id of a slot of it. Raises PermissionDenied, AlreadyExists."""
        rights.check(request.experiment)
        if rights.experiments is None or not request.decision_id:
            return
        slate, _, place = request.decision_id.rpartition("/")
        slates = [request.decision_id, *([slate] if place.isdigit() else [])]
        firsts = self._log.locate_all([slot_id(one, 0) for one in slates])
        if self._owners(firsts) - {request.experiment}:
            raise _taken("decision_id", request.decision_id)

    def _owners(self, places: Sequence[DecisionRef | None]) -> set[ExperimentId]:
        """The experiments of those that are there."""
        return {self._log.version_at(place.version).experiment.id for place in places if place is not None}

    def _decide(self, request: pb.DecideRequest, caller: Caller) -> pb.DecideResponse:
        """The reply with a decision that is in the log."""
        for _ in range(MOST_TRIES):
            chosen = self._choose(request)
            if chosen.stored:
                return self._decide_reply(chosen, request)
            if request.actions:  # a definition's payloads have room in every reply, a call's may not
                size = self._decide_reply(chosen, request).ByteSize()
                self._check_size(size, "actions", "shorten the payload of the action, or call without with_ranking")
            (mark,) = self._append([Awaited(chosen.unit or chosen.decision, caller)])
            confirmed = self._confirm(request, chosen, mark, caller)
            if confirmed is not None:
                return self._decide_reply(confirmed, request)
        raise _too_many_tries(request.unit_id)

    def _decide_reply(self, chosen: _Answer, request: pb.DecideRequest) -> pb.DecideResponse:
        reply = pb.DecideResponse()
        self._write(reply, chosen, request)
        return reply

    def _write(
        self, reply: pb.DecideResponse, chosen: _Answer, request: pb.DecideRequest | pb.DecideSlateRequest
    ) -> None:
        self._replies.write(
            reply,
            chosen.decision,
            chosen.version,
            with_ranking=request.with_ranking,
            called=request.actions,
            reason=chosen.reason,
        )
        if chosen.ignored:
            reply.ignored_actions.extend([id_[:MAX_SHOWN] for id_ in chosen.ignored[:SHOWN]])

    def DecideBatch(
        self,
        request: pb.DecideBatchRequest,
        caller: Caller = PATIENT,
        rights: Rights = ALL,
        size_of: Callable[[pb.DecideBatchResponse], int] = pb.DecideBatchResponse.ByteSize,
    ) -> pb.DecideBatchResponse:
        """Choose all, append in one commit, answer each. size_of: the bytes of what the caller is told of a reply."""
        convert.check_batch(len(request.requests))

        def look_up(one: pb.DecideRequest) -> _Answer | _Undecided:
            self._check_rights(one, rights)
            return self._undecided(one)

        chosen = self._choose_all([attempt(look_up, message) for message in request.requests])
        response = pb.DecideBatchResponse()
        for message, choice in zip(request.requests, chosen, strict=True):
            self._add_result(response, message, choice)
        self._check_size(size_of(response), "requests", "send fewer requests a call, or shorten the actions' payloads")
        new = [Awaited(c.unit or c.decision, caller) for c in chosen if isinstance(c, _Answer) and not c.stored]
        marks = self._append(new)
        if None in marks:
            check_caller(caller)
        ahead = iter(marks)
        for result, message, choice in zip(response.results, request.requests, chosen, strict=True):
            if isinstance(choice, _Answer) and not choice.stored:
                self._confirm_result(result, message, choice, next(ahead), caller)
        return response

    def DecideSlate(
        self, request: pb.DecideSlateRequest, caller: Caller = PATIENT, rights: Rights = ALL
    ) -> pb.DecideSlateResponse:
        """Choose for each slot, append all in one commit, answer; a slate id in the log gets the stored slate."""
        rights.check(request.experiment)
        sane = request.slate_id and len(request.slots) <= convert.MAX_SLOTS  # else it is refused, and not looked for
        stored = self._find_slate(request) if sane else ()
        return self._slate_reply(request, request.slate_id, stored) if stored else self._new_slate(request, caller)

    def _slate_reply(
        self, request: pb.DecideSlateRequest, slate_id: str, answers: Sequence[_Answer]
    ) -> pb.DecideSlateResponse:
        response = pb.DecideSlateResponse(slate_id=slate_id)
        for answer in answers:
            self._write(response.decisions.add(), answer, request)
        return response

    def _new_slate(self, request: pb.DecideSlateRequest, caller: Caller) -> pb.DecideSlateResponse:
        slate_id, slots = convert.slate_requests(request)
        for _ in range(MOST_TRIES):
            reply = self._try_slate(request, slate_id, slots, caller)
            if reply is not None:
                return reply
        raise _too_many_tries(request.unit_id)

    def _try_slate(
        self, request: pb.DecideSlateRequest, slate_id: str, slots: Sequence[DecisionRequest], caller: Caller
    ) -> pb.DecideSlateResponse | None:
        """The reply; None where what the unit has had, or the version that serves, was another at the commit."""
        serving = self._serving(request.experiment)
        version, model, cache = serving
        if version.experiment.sticky:
            raise FailedPrecondition(
                f"experiment {request.experiment!r} is sticky, slates cannot be: send the session's id as slate_id",
                reason="EXPERIMENT_STICKY",
            )
        fit = self._fit_slots(version, slots)
        asked, seen = self._recall(version, [slot for slot, _ in fit])
        counts = self._limit_counts(version, request.unit_id)
        filled = decide_slate(asked, version, model, cache, self._budget, counts)
        units = [
            _of_unit(one.decision, version.experiment, None, counts and one.reached, one.withheld, seen)
            for one in filled
        ]
        new = tuple([unit or one.decision for unit, one in zip(units, filled, strict=True)])
        answers = [
            _Answer(one.decision, version, False, ignored, None, unit, self._compare(slot, one.decision, serving))
            for one, unit, slot, (_, ignored) in zip(filled, units, asked, fit, strict=True)
        ]
        reply = self._slate_reply(request, slate_id, answers)
        self._check_size(reply.ByteSize(), "slots", "ask for fewer slots a call, or shorten the actions' payloads")
        (mark,) = self._append([Awaited(NewSlate(new), caller)])
        if mark is None:
            stored = self._refused_slate(request, caller, retry=any(units) or self._is_overtaken(version))
            return self._slate_reply(request, slate_id, stored) if stored else None
        for answer in answers:
            self._count(answer)
        return reply

    def _fit_slots(
        self, version: ExperimentVersion, slots: Sequence[DecisionRequest]
    ) -> Sequence[tuple[DecisionRequest, Sequence[ActionId]]]:
        """All of them before the first error, so that what any slot ignores is counted. Raises as `_fit_slot` does."""
        fit: list[tuple[DecisionRequest, Sequence[ActionId]]] = []
        errors: list[DeciderError] = []
        for place, slot in enumerate(slots):
            try:
                fit.append(self._fit_slot(version, place, slot))
            except DeciderError as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return fit

    def _refused_slate(self, request: pb.DecideSlateRequest, caller: Caller, *, retry: bool) -> Sequence[_Answer]:
        """What another call with this id, that was quicker, has written; none where it may be decided anew."""
        check_caller(caller)
        stored = self._find_slate(request)
        if not (stored or retry):
            raise LogError(f"slate {request.slate_id!r} was refused by the log and is not in it")
        return stored

    def _find_slate(self, request: pb.DecideSlateRequest) -> Sequence[_Answer]:
        """The slate with this id; empty if there is none. Raises AlreadyExists if it belongs to another unit or
        experiment, is a decision's, has another number of slots, or if a slot leaves out its action."""
        ids = [slot_id(request.slate_id, place) for place in range(convert.MAX_SLOTS)]
        decision, *there = self._log.locate_all([DecisionId(request.slate_id), *ids])
        is_own = self._owners(there[:1]) == {request.experiment}
        if not is_own and self._owners([decision, *there]) - {request.experiment}:
            raise _taken("slate_id", request.slate_id)  # whatever it is there: that is nobody else's business
        if decision is not None and not any(there):
            raise AlreadyExists(
                f"slate_id {request.slate_id!r} is the id of a decision, which would get the page's rewards; take a "
                "new id",
                reason="DECISION_ID_REUSED",
            )
        if not any(there):  # as for most calls, which need not be copied for each slot then
            return ()
        beyond = any(there[len(request.slots) :][:1])
        wanted = [
            pb.DecideRequest(
                experiment=request.experiment,
                unit_id=request.unit_id,
                decision_id=id_,
                eligible_actions=slot.eligible_actions,
                excluded_actions=slot.excluded_actions,
                action_features=request.action_features,
                actions=request.actions,
                default_action=slot.default_action,
            )
            for id_, slot in zip(ids, request.slots, strict=False)  # the others are none of this slate
        ]
        stored = [self._find_stored(one, field="slate_id", id_=request.slate_id) for one in wanted]
        found = [answer for answer in stored if answer is not None]
        if len(found) < len(wanted) or beyond:
            raise AlreadyExists(
                f"slate_id {request.slate_id!r} belongs to a slate with another number of slots; take a new id",
                reason="DECISION_ID_REUSED",
            )
        return found

    def _add_result(
        self,
        response: pb.DecideBatchResponse,
        request: pb.DecideRequest,
        chosen: _Answer | DeciderError,
    ) -> None:
        result = response.results.add()
        try:
            if isinstance(chosen, DeciderError):
                raise chosen
            self._write(result.response, chosen, request)
        except Exception as error:
            result.error.CopyFrom(to_status(error))

    def _confirm_result(
        self,
        result: pb.DecideResult,
        request: pb.DecideRequest,
        chosen: _Answer,
        mark: Mark | None,
        caller: Caller,
    ) -> None:
        """After the commit: another result, if the log has another decision."""
        try:
            confirmed = self._confirm(request, chosen, mark, caller)
            if confirmed is chosen:
                return
            reply = self._decide_reply(confirmed, request) if confirmed is not None else self._decide(request, caller)
            result.response.CopyFrom(reply)
        except Exception as error:
            result.error.CopyFrom(to_status(error))

    def _choose(self, request: pb.DecideRequest) -> _Answer:
        found = self._undecided(request)
        if isinstance(found, _Answer):
            return found
        version, model, slots = found.serving
        others = self._ask_all
        ask = slots if others is None or others.is_alone() else ask_together(others, slots, self._budget)
        made = decide(found.asked, version, model, ask, self._budget, eligible=found.eligible)
        # The shorter way, which most calls take: see `make walk`.
        is_plain = not (found.of_unit or version.default_reason)
        return _Answer(made, version, False, found.ignored) if is_plain else self._answer(found, made)

    def _choose_all(self, of_batch: Sequence[_Answer | _Undecided | DeciderError]) -> list[_Answer | DeciderError]:
        asks = iter(asks_for([self._waiting(one) for one in of_batch if isinstance(one, _Undecided)]))
        return [
            attempt(partial(self._chosen, ask=next(asks)), one) if isinstance(one, _Undecided) else one
            for one in of_batch
        ]

    def _waiting(self, undecided: _Undecided) -> Waiting:
        return Waiting(undecided.asked, *undecided.serving, undecided.eligible, self._budget)

    def _undecided(self, request: pb.DecideRequest) -> _Answer | _Undecided:
        """All but the choice; an answer that needs none."""
        if request.decision_id:
            stored = self._find_stored(request)
            if stored is not None:
                return stored
        asked = convert.decision_request(request)
        serving = self._serving(request.experiment)
        version = serving.version
        asked, ignored = self._fit(version, asked)
        seen = None
        if version.experiment.history is not None:
            (asked,), seen = self._recall(version, [asked])
        kept = self._kept(version, asked.unit_id) if version.experiment.sticky else None
        counts = self._limit_counts(version, asked.unit_id)
        reached = version.limits.reached(counts) if version.limits and counts else None
        eligible = eligible_actions(version, asked, History(reached) if reached else NO_HISTORY)
        if kept is not None and _may_repeat(kept.decision.action, eligible, version, asked.default):
            of = self._log.version_at(kept.decision.version)
            if _same_chooser(of, version):
                return _Answer(kept.decision, of, True, ignored, STICKY)
        of_unit = bool(reached or eligible.withheld or seen or version.experiment.sticky)
        return _Undecided(asked, serving, eligible, ignored, kept, reached, seen, of_unit)

    def _chosen(self, found: _Undecided, ask: Ask) -> _Answer:
        version, model, _ = found.serving
        return self._answer(found, decide(found.asked, version, model, ask, self._budget, eligible=found.eligible))

    def _answer(self, found: _Undecided, made: Decision) -> _Answer:
        asked, serving, eligible, ignored, kept, reached, seen, of_unit = found
        version = serving.version
        new = _of_unit(made, version.experiment, kept, reached, eligible.withheld, seen) if of_unit else None
        agreement = self._compare(asked, made, serving) if version.default_reason else None
        return _Answer(made, version, stored=False, ignored=ignored, unit=new, agreement=agreement)

    def _compare(self, asked: DecisionRequest, made: Decision, serving: Serving) -> Agreement | None:
        version, model, slots = serving
        return agreement_of(asked, made, version, model, slots, self._budget)

    def _limit_counts(self, version: ExperimentVersion, unit: str) -> Counts | None:
        """What counts for a unit; None where the version has no limits."""
        return self._log.limit_counts(version, unit, at=self._clock()) if version.limits else None

    def _recall(
        self, version: ExperimentVersion, asked: Sequence[DecisionRequest]
    ) -> tuple[Sequence[DecisionRequest], Seen | None]:
        """The requests of one unit with what it did before, and from what that was read. Raises InvalidArgument."""
        history = version.experiment.history
        if history is None:
            return asked, None
        for one in asked:
            check_call(one.context, version.experiment.id)
        seen, past = self._log.unit_history(version.experiment.id, asked[0].unit_id, history, at=self._clock())
        known = history_features(history, past, seen.time)
        return [one._replace(context=with_history(one.context, known)) for one in asked], seen

    def _fit(self, version: ExperimentVersion, asked: DecisionRequest) -> tuple[DecisionRequest, Sequence[ActionId]]:
        """The request as the experiment takes it, and the ids of actions that it leaves out. Raises InvalidArgument,
        FailedPrecondition."""
        experiment = version.experiment
        if experiment.schema is not None:
            self._checks.check_features(experiment.id, experiment.schema, asked.context)
        if version.scheduled:
            asked = asked._replace(at=self._clock())
        if version.default_reason is not None:
            fitted, ignored = self._checks.fit(version, asked)
            check_default(version, asked, fitted)
            return fitted, ignored
        if asked.eligible or asked.excluded or asked.action_features or asked.called:
            return self._checks.fit(version, asked._replace(default=None))
        return asked, ()

    def _fit_slot(
        self, version: ExperimentVersion, place: int, slot: DecisionRequest
    ) -> tuple[DecisionRequest, Sequence[ActionId]]:
        """`_fit`; errors about what each slot has for itself say which slot it is."""
        try:
            return self._fit(version, slot)
        except FailedPrecondition as error:
            raise FailedPrecondition(f"slots[{place}]: {error}", reason=error.reason) from error
        except InvalidArgument as error:
            raise InvalidArgument([_of_slot(place, one) for one in error.violations]) from error

    def _kept(self, version: ExperimentVersion, unit: str) -> LoggedDecision | None:
        return self._log.assigned(version.experiment.id, unit, at=self._clock())

    def _serving(self, experiment: str) -> Serving:
        """What decides for an experiment. Raises NotFound, FailedPrecondition."""
        serving = self._current[ExperimentId(experiment)]
        if serving[0].experiment.paused:
            raise FailedPrecondition(
                f"experiment {experiment!r} is paused; resume it with ResumeExperiment", reason="EXPERIMENT_PAUSED"
            )
        return serving

    def _confirm(self, request: pb.DecideRequest, chosen: _Answer, mark: Mark | None, caller: Caller) -> _Answer | None:
        """The decision to answer with after the commit; None: its unit's past, or what serves, is another by now.
        Raises GaveUp, and LogError if it is not in the log."""
        # No mark: the caller gave up before the commit, a unique key refused the id, or another call wrote between
        # `_choose` and the commit: a decision of the unit, or a version. Only what is in the log is ever answered.
        if mark is not None:
            self._count(chosen)
            return chosen
        check_caller(caller)
        stored = self._find_stored(request) if request.decision_id else None
        if stored is None and (self._is_overtaken(chosen.version) or chosen.unit is not None):
            return None
        if stored is None:
            raise LogError(f"decision {request.decision_id!r} was refused by the log and is not in it")
        return stored

    def _is_overtaken(self, version: ExperimentVersion) -> bool:
        """Whether another version serves by now, perhaps since another process applied it. Raises LogError."""
        self._follow()
        serving = self._current.get(version.experiment.id)
        return serving is None or serving.version.position != version.position

    def _count(self, chosen: _Answer) -> None:
        """A new decision, in the metrics of this process."""
        experiment = chosen.version.experiment.id
        if chosen.unit is not None and chosen.unit.withheld:
            self._metrics.observe_withheld(experiment, chosen.unit.withheld.values())
        if chosen.agreement is not None:
            self._agreement.observe(experiment, chosen.agreement)

    def _find_stored(self, request: pb.DecideRequest, *, field: str = "decision_id", id_: str = "") -> _Answer | None:
        """The decision with this id, if there is one. Raises AlreadyExists if it belongs to another unit or experiment,
        or if the request excludes its action. field, id_: what the caller has sent, where that is a slate's."""
        logged = self._log.find(DecisionId(request.decision_id))
        if logged is None:
            return None
        version = self._log.version_at(logged.decision.version)
        if (version.experiment.id, logged.decision.unit_id) != (request.experiment, request.unit_id):
            raise _taken(field, id_ or request.decision_id)
        action, eligible = logged.decision.action, request.eligible_actions
        if (eligible and action not in eligible) or action in request.excluded_actions:
            raise AlreadyExists(
                f"decision_id {request.decision_id!r} has got the action {action!r}, which this request leaves out; "
                "take a new id",
                reason="DECISION_ID_REUSED",
            )
        return _Answer(logged.decision, version, stored=True, ignored=_ignored(request, logged.decision, version))


def _taken(field: str, id_: str) -> AlreadyExists:
    """All that a caller is told of what belongs to others."""
    return AlreadyExists(
        f"{field} {id_!r} belongs to another unit or experiment; take a new id", reason="DECISION_ID_REUSED"
    )


def _of_slot(place: int, wrong: Violation) -> Violation:
    return replace(wrong, field=f"slots[{place}].{wrong.field}") if wrong.field in OF_SLOT else wrong


def _ignored(request: pb.DecideRequest, decision: Decision, version: ExperimentVersion) -> Sequence[ActionId]:
    """Of a call that is sent again: as in the first answer. Its other fields are not read."""
    brought = [*decision.eligible, *[action.id for action in request.actions]]
    named = [*request.eligible_actions, *request.excluded_actions, *sorted(request.action_features)]
    if request.default_action and version.default_reason is not None:
        named.append(request.default_action)
    if not (named or request.actions):
        return ()
    return inactive_actions(version, map(ActionId, named), map(ActionId, brought))


NOT_KEPT = (Reason.FALLBACK, Reason.NO_EXPLORATION, Reason.WITHHELD)
"""Reasons of decisions that no unit keeps: they were served in place of a draw."""


def _of_unit(
    made: Decision,
    experiment: Experiment,
    kept: LoggedDecision | None,
    reached: Reached | None,
    withheld: Mapping[ActionId, str],
    seen: Seen | None,
) -> UnitDecision | None:
    """A decision with what it depends on; None where that is nothing."""
    keep = 0 if made.reason in NOT_KEPT else experiment.sticky
    if not (keep or withheld or reached is not None or seen is not None):
        return None
    return UnitDecision(made, keep, kept.position if kept else None, reached, withheld, seen)


def _may_repeat(action: ActionId, eligible: Eligible, version: ExperimentVersion, default: ActionId | None) -> bool:
    """Whether a unit may see what it keeps: that is no new draw, so limits do not withhold it. A default action that is
    to be served in its place does."""
    shown = (*eligible.actions, *[id_ for id_, rule in eligible.withheld.items() if is_limit(rule)])
    if version.default_reason is not None and default_action(version, shown, default) not in (None, action):
        return False
    return action in eligible.actions or is_limit(eligible.withheld.get(action, ""))


def _same_chooser(kept: ExperimentVersion, version: ExperimentVersion) -> bool:
    """Whether callers choose in both versions, or the policy and the control group, or a crossed guardrail: what one of
    them has chosen is not what the other one would."""
    one, other = ((of.default_reason is None, of.falls_back) for of in (kept, version))
    return one == other


def _too_many_tries(unit: str) -> LogError:
    return LogError(f"other decisions of unit {unit!r} were quicker {MOST_TRIES} times; send the call again")
