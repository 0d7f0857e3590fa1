"""What is said about decisions afterwards: rewards, their changes, what was shown. Called through `service.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from decider.decide.slate import slot_id
from decider.errors import (
    DeciderError,
    FailedPrecondition,
    InvalidArgument,
    LogError,
    NotFound,
    RewardOutOfRange,
    UndeclaredReward,
    Violation,
)
from decider.experiment import attribution
from decider.experiment.definition import ExperimentVersion
from decider.experiment.ids import is_id
from decider.log.protocol import (
    MOST_ROWS,
    MOST_UNITS,
    Append,
    DecisionRef,
    EarlyActivation,
    Entry,
    LocateAll,
    LogReader,
    Mark,
    NewActivation,
    NewLink,
    NewReward,
    NewRewardChange,
    Orphan,
    RefusedReward,
    can_change,
)
from decider.server import convert
from decider.server.convert import SentChange, SentReward
from decider.server.reward_checks import are_late, check_value, no_weight, weight_of
from decider.server.roles import ALL, Rights
from decider.server.rpc import to_status, unexpected
from decider.server.unit_rewards import UnitEntry, UnitRewards
from decider.serving.current import Current
from decider.types import (
    ANY_NAME,
    START,
    ActionId,
    ActivationOutcome,
    DecisionId,
    LinkOutcome,
    RewardOutcome,
    same_name,
)
from decider.v1 import decider_service_pb2 as pb

Request = TypeVar("Request")
Result = TypeVar("Result")


class _Prepared(NamedTuple):
    """What is to be written of a reward that was sent. place: of its decision; None: it names a unit. outcome: where it
    is new and in time."""

    entry: NewReward | NewRewardChange | UnitEntry
    place: DecisionRef | None
    outcome: RewardOutcome


_Group = list[_Prepared] | DeciderError
"""Of one request: what is to be written, or why nothing is."""

LARGEST_OUTCOME = 16
"""Bytes of a result in a batch's reply that names no decisions."""

_Written = list[tuple[_Prepared, Mark | None]] | DeciderError


class Feedback:
    """Handlers of the RPCs of the same names; a part of DeciderService.

    rights: the caller's. To a caller for some experiments only, decisions of others do not exist. max_reply_bytes: what
    a larger reply would tell is not logged.
    """

    def __init__(
        self, current: Current, log: LogReader, *, append: Append, locate_all: LocateAll | None, max_reply_bytes: int
    ) -> None:
        self._max_reply_bytes = max_reply_bytes
        self._current = current
        self._log = log
        self._unit_rewards = UnitRewards(current, log)
        self._append = append
        self._locate_all = locate_all or log.locate_all

    def _check_size(self, size: int, field: str, way_out: str) -> None:
        """Before the append: what its caller cannot receive is not logged. Raises InvalidArgument."""
        if size > self._max_reply_bytes:
            said = f"the reply would have {size} bytes, and {self._max_reply_bytes} are possible; {way_out}"
            raise InvalidArgument([Violation(field, said)])

    def Activate(self, request: pb.ActivateRequest, rights: Rights = ALL) -> pb.ActivateResponse:
        """Append what was shown; only the first activation of a decision counts. One that comes before its decision is
        remembered: a caller that gave up need not know whether its call was committed."""
        id_ = DecisionId(convert.check_id("decision_id", request.decision_id))
        (place,) = self._own(self._locate_all([id_]), rights)
        slots = self._slots_of(id_, rights) if place is None else []
        if slots:
            return self._activate_slate(request, slots)
        if place is None and rights.experiments is not None:
            # Not remembered: whoever decides with this id later may do so in another experiment.
            raise _no_decision(id_)
        (mark,) = self._append([self._activation(id_, place, request.action)])
        if mark is not None and mark.position != START and place is None:  # decided between the look and the commit
            (place,) = self._locate_all([id_])
        return _activation_reply(self._activation_outcome(place, request.action, mark), first=mark is not None)

    def _activate_slate(self, request: pb.ActivateRequest, slots: Sequence[DecisionRef]) -> pb.ActivateResponse:
        """All of its slots."""
        if request.action:
            slot = slot_id(request.decision_id, 0)
            hint = f"{request.decision_id!r} is a slate; name the decision of the slot that showed it, like {slot!r}"
            raise InvalidArgument([Violation("action", hint)])
        marks = self._append([NewActivation(place.position) for place in slots])
        outcomes = [self._activation_outcome(place, "", mark) for place, mark in zip(slots, marks, strict=True)]
        return _activation_reply(_of_slate(outcomes, ActivationOutcome.DUPLICATE), first=any(marks))

    def _activation(self, id_: DecisionId, place: DecisionRef | None, action: str) -> Entry:
        if place is not None:
            return NewActivation(place.position, self._override(place, action))
        return EarlyActivation(id_, ActionId(convert.check_id("action", action)) if action else None)

    def _activation_outcome(self, place: DecisionRef | None, action: str, mark: Mark | None) -> ActivationOutcome:
        if place is None:
            return ActivationOutcome.REMEMBERED if mark else ActivationOutcome.DUPLICATE
        if are_late(self._log, [(place, mark)])[0]:
            return ActivationOutcome.LATE
        if mark is None:
            return ActivationOutcome.DUPLICATE
        return ActivationOutcome.ACTIVATED if action in ("", place.action) else ActivationOutcome.OVERRIDDEN

    def _override(self, place: DecisionRef, action: str) -> ActionId | None:
        if action in ("", place.action):
            return None
        version = self._log.version_at(place.version)
        if action not in version.choices and not (version.experiment.most_actions and is_id(action)):
            raise NotFound(
                f"experiment {version.experiment.id!r} has no action {action!r}; it has {', '.join(version.choices)}",
                reason="ACTION_NOT_FOUND",
            )
        return ActionId(action)

    def Reward(self, request: pb.RewardRequest, rights: Rights = ALL) -> pb.RewardResponse:
        """Append, answer with the outcome."""
        (reward,) = self._append_rewards([request], self._prepare_rewards([request], rights), rights)
        if isinstance(reward, DeciderError):
            raise reward
        return reward

    def RewardBatch(self, request: pb.RewardBatchRequest, rights: Rights = ALL) -> pb.RewardBatchResponse:
        """Append all in as few commits as others can wait for, answer each. Where their decisions' ids would make the
        reply too large, it names none."""
        convert.check_batch(len(request.requests))
        prepared = self._prepare_rewards(request.requests, rights)
        refused = [pb.RewardResult(error=to_status(one)) for one in prepared if isinstance(one, DeciderError)]
        size = pb.RewardBatchResponse(results=refused).ByteSize() + LARGEST_OUTCOME * (len(prepared) - len(refused))
        self._check_size(size, "requests", "send fewer requests a call")
        results = [
            pb.RewardResult(error=to_status(reward))
            if isinstance(reward, DeciderError)
            else pb.RewardResult(response=reward)
            for reward in self._append_rewards(request.requests, prepared, rights)
        ]
        reply = pb.RewardBatchResponse(results=results)
        if reply.ByteSize() > self._max_reply_bytes:
            for result in reply.results:
                if result.HasField("response"):  # else it would have both
                    result.response.ClearField("decision_ids")
        return reply

    def _prepare_rewards(self, requests: Sequence[pb.RewardRequest], rights: Rights) -> Sequence[_Group]:
        """Of each, what is to be written; nothing is yet."""
        sent = [attempt(convert.sent_reward, request) for request in requests]
        ids = [one.decision_id for one in sent if not isinstance(one, DeciderError) and not one.unit_id]
        places = iter(self._own(self._locate_all(ids), rights) if ids else ())
        prepare = partial(self._prepare_all, rights)
        return [
            reward if isinstance(reward, DeciderError) else attempt(partial(prepare, reward), places) for reward in sent
        ]

    def _append_rewards(
        self, requests: Sequence[pb.RewardRequest], prepared: Sequence[_Group], rights: Rights
    ) -> list[pb.RewardResponse | DeciderError]:
        """A reply or an error for each, after the commit."""
        written = self._append_groups(prepared, _counted(prepared, requests))
        said = [(one.place, mark) for w in written if isinstance(w, list) for one, mark in w if one.place]
        late = iter(are_late(self._log, said) if said else ())
        return [w if isinstance(w, DeciderError) else self._reply(w, late, rights) for w in written]

    def _append_groups(self, prepared: Sequence[_Group], counted: Sequence[Entry]) -> list[_Written]:
        """In one commit; in several where they write many entries. Raises LogError where the first one fails; a later
        one's is the result of what is left."""
        written: list[_Written] = []
        for piece in self._pieces(prepared):
            entries = [one.entry for group in piece if isinstance(group, list) for one in group]
            try:
                marks = iter(self._append([*entries, *counted]))
            except LogError as error:
                if not written:
                    raise
                return written + [
                    group if isinstance(group, DeciderError) else error for group in prepared[len(written) :]
                ]
            written += [g if isinstance(g, DeciderError) else [(one, next(marks)) for one in g] for g in piece]
            counted = ()
        return written

    def _pieces(self, prepared: Sequence[_Group]) -> Iterator[Sequence[_Group]]:
        """Such that each writes about MOST_ROWS entries at most."""
        first = rows = 0
        for place, group in enumerate(prepared):
            more = self._rows(group)
            if rows and rows + more > MOST_ROWS:
                yield prepared[first:place]
                first, rows = place, 0
            rows += more
        yield prepared[first:]

    def _rows(self, group: _Group) -> int:
        if isinstance(group, DeciderError):
            return 0
        return sum([self._unit_rewards.rows(o.entry) if isinstance(o.entry, UnitEntry) else 1 for o in group])

    def _prepare_all(
        self, rights: Rights, sent: SentReward | SentChange, places: Iterator[DecisionRef | None]
    ) -> list[_Prepared]:
        """For the unit or decision that is named, whose place comes next; for each slot where a slate is."""
        if sent.unit_id:
            return [_Prepared(self._unit_rewards.prepare(sent, rights), None, RewardOutcome.JOINED)]
        place = next(places)
        if place is not None:
            return [self._prepare(sent, place)]
        slots = self._slots_of(sent.decision_id, rights)
        if not slots:
            raise _no_decision(sent.decision_id)
        return [self._prepare(sent, slot) for slot in slots]

    def _slots_of(self, slate: str, rights: Rights) -> list[DecisionRef]:
        found = self._log.locate_all([slot_id(slate, place) for place in range(convert.MAX_SLOTS)])
        return [place for place in self._own(found, rights) if place is not None]

    def _own(self, places: Sequence[DecisionRef | None], rights: Rights) -> Sequence[DecisionRef | None]:
        """None in the place of those that are not for the caller."""
        if rights.experiments is None:
            return places
        return [
            place if place is not None and rights.sees(self._log.version_at(place.version).experiment.id) else None
            for place in places
        ]

    def _reply(
        self, written: Sequence[tuple[_Prepared, Mark | None]], late: Iterator[bool], rights: Rights
    ) -> pb.RewardResponse:
        first, mark = written[0]
        if isinstance(first.entry, UnitEntry):
            outcome, ids = self._unit_rewards.reply(first.entry, mark, rights)
            return _reward_reply(outcome, ids)
        outcomes = [_reward_outcome(one, mark, late=next(late)) for one, mark in written]
        return _reward_reply(_of_slate(outcomes, RewardOutcome.DUPLICATE))

    def LinkUnits(self, request: pb.LinkUnitsRequest, rights: Rights = ALL) -> pb.LinkUnitsResponse:
        """Append that two units are one person, answer with the outcome."""
        rights.check_all("a link holds in every experiment")
        unit, other = convert.check_unit("unit_id", request.unit_id), convert.check_unit("same_as", request.same_as)
        if unit == other:
            raise InvalidArgument([Violation("same_as", f"is {unit!r}, as unit_id is; name another id of the person")])
        (mark,) = self._append([NewLink(unit, other)])
        if mark is None and other not in self._log.units_of(unit):
            raise FailedPrecondition(
                f"{unit!r} and {other!r} would be one person with more than {MOST_UNITS} units; is one of them shared "
                "by many people? `decider forget` removes a unit's links",
                reason="TOO_MANY_UNITS",
            )
        outcome = LinkOutcome.LINKED if mark else LinkOutcome.DUPLICATE
        return pb.LinkUnitsResponse(outcome=pb.LinkOutcome.Value(f"LINK_OUTCOME_{outcome.name}"))

    def _prepare(self, sent: SentReward | SentChange, place: DecisionRef) -> _Prepared:
        if isinstance(sent, SentChange):
            return self._prepare_change(sent, place)
        version = self._log.version_at(place.version)
        weight = weight_of(version, sent.name)
        inside = check_value(version, sent.value, weight)
        entry = NewReward(place.position, sent.name, sent.value, weight, sent.reward_id, sent.occurred_at, sent.final)
        return _Prepared(entry, place, RewardOutcome.JOINED if inside else RewardOutcome.CLIPPED)

    def _prepare_change(self, sent: SentChange, place: DecisionRef) -> _Prepared:
        """Under the name of the reward that is changed; under its own where that reward has not come yet."""
        version = self._log.version_at(place.version)
        reward = self._log.find_reward(place.position, sent.reward_id)
        name = sent.name or (reward.name if reward else _name_of_missing(version))
        if reward and not same_name(reward.name, name):
            raise InvalidArgument(
                [Violation("name", f"reward {sent.reward_id!r} was sent as {reward.name!r}; send that name, or none")]
            )
        if reward:
            name, weight = reward.name, reward.weight
        elif name == ANY_NAME and sent.value is None:
            # Taken back before it came: it counts nothing, whatever its name will be.
            weight = attribution.weight_of(version.experiment.reward, name)
        else:
            weight = weight_of(version, name)
        if not can_change(name, weight, sent.value):
            raise InvalidArgument([no_weight(sent.reward_id)])
        if sent.value is not None:
            check_value(version, sent.value, weight)
        entry = NewRewardChange(place.position, sent.reward_id, sent.value, name, weight, sent.occurred_at, sent.final)
        outcome = RewardOutcome.RETRACTED if sent.value is None else RewardOutcome.CORRECTED
        return _Prepared(entry, place, outcome)


def _no_decision(id_: str) -> NotFound:
    return NotFound(f"there is no decision {id_!r}", reason="DECISION_NOT_FOUND")


def _name_of_missing(version: ExperimentVersion) -> str:
    """Of a reward that is changed before it came, where the change names none: the only one that the experiment has."""
    names = [*version.experiment.reward.weights]
    return names[0] if len(names) == 1 else ANY_NAME


def _reward_outcome(prepared: _Prepared, mark: Mark | None, *, late: bool) -> RewardOutcome:
    if late:
        return RewardOutcome.LATE
    return RewardOutcome.DUPLICATE if mark is None else prepared.outcome


def _reward_reply(outcome: RewardOutcome, ids: Sequence[DecisionId] = ()) -> pb.RewardResponse:
    return pb.RewardResponse(outcome=pb.RewardOutcome.Value(f"REWARD_OUTCOME_{outcome.name}"), decision_ids=ids)


def _of_slate(outcomes: Sequence[Result], duplicate: Result) -> Result:
    """That of the first slot for which it is not a duplicate."""
    return next((one for one in outcomes if one != duplicate), duplicate)


def _activation_reply(outcome: ActivationOutcome, *, first: bool) -> pb.ActivateResponse:
    return pb.ActivateResponse(first=first, outcome=pb.ActivationOutcome.Value(f"ACTIVATION_OUTCOME_{outcome.name}"))


def _counted(prepared: Sequence[_Group], requests: Sequence[pb.RewardRequest]) -> list[Entry]:
    """What is only counted: rewards without a decision, and those that their experiment refuses."""
    refused = [(p, convert.reward_name(r)) for p, r in zip(prepared, requests, strict=True) if _is_counted(p)]
    orphans: list[Entry] = [Orphan(name) for error, name in refused if isinstance(error, NotFound)]
    return orphans + [
        RefusedReward(name, outcome) for error, name in refused for kind, outcome in _REFUSED if isinstance(error, kind)
    ]


def _is_counted(prepared: _Group) -> bool:
    return isinstance(prepared, NotFound | RewardOutOfRange | UndeclaredReward)


_REFUSED = ((RewardOutOfRange, RewardOutcome.OUT_OF_RANGE), (UndeclaredReward, RewardOutcome.UNDECLARED))
"""What an experiment refuses, and as what it is counted: nothing else of it is kept."""


def attempt(prepare: Callable[[Request], Result], request: Request) -> Result | DeciderError:
    """One request of a batch: its error must not fail the others, an unexpected one neither."""
    try:
        return prepare(request)
    except DeciderError as error:
        return error
    except Exception as error:
        return unexpected(error)
