"""Keywords -> requests. Errors name the field; see `values.py`. Called by `decisions.py` and `deliveries.py`."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from decider.client.fallback import ABSENT
from decider.client.values import features, flag, full_text, number, text, texts, tree, type_of
from decider.types import CONTEXT_FIELDS
from decider.v1 import decider_service_pb2 as pb

T = TypeVar("T")

MOST_IN_A_BATCH = 1000
"""What the server takes in one call."""

DECIDE_FIELDS = (
    *("experiment", "unit_id", "decision_id", "eligible_actions", "excluded_actions", "action_features"),
    *("actions", "default_action", "explore", "with_ranking", "features", "fallback"),
)
"""Keywords of `decide` besides the context."""

SLATE_FIELDS = (
    *("experiment", "unit_id", "slots", "slate_id", "action_features", "actions", "explore", "with_ranking"),
    *("features", "fallback"),
)
"""Keywords of `decide_slate` besides the context."""

SLOT_FIELDS = ("features", "eligible_actions", "excluded_actions", "default_action")
"""What a slot has."""

ACTION_FIELDS = ("id", "kind", "features", "payload")
"""What an action of a call has."""


def new_id() -> str:
    """A uuid7: ids that rise with time keep the log's indexes small. (The bare package has no uuid-utils.)

    >>> uuid.UUID(new_id()).version
    7
    """
    moment = time.time_ns() // 1_000_000 << 80
    chance = int.from_bytes(os.urandom(10)) & ~(0xF << 76) & ~(0x3 << 62)
    return str(uuid.UUID(int=moment | 0x7 << 76 | 0x2 << 62 | chance))


def decide_request(asked: Mapping[str, object]) -> pb.DecideRequest:
    """From the keywords of `Client.decide`; None is the same as none given. It always has a decision id.

    >>> decide_request({"experiment": "cart", "unit_id": "visitor-1", "price": [1]})
    Traceback (most recent call last):
        ...
    TypeError: price: is of type list; give a text, a number, a flag, or None where it is unknown
    """
    request = pb.DecideRequest(
        experiment=full_text("experiment", asked.get("experiment")),
        unit_id=full_text("unit_id", asked.get("unit_id")),
        decision_id=_text("decision_id", asked) or new_id(),
        default_action=_text("default_action", asked),
        excluded_actions=_actions("excluded_actions", asked),
        eligible_actions=_eligible_actions(asked),
    )
    _write_context(request.context, asked, DECIDE_FIELDS)
    _write_rest(request, asked)
    return request


def slate_request(asked: Mapping[str, object]) -> pb.DecideSlateRequest:
    """From the keywords of `Client.decide_slate`, as above. It always has a slate id.

    >>> slate_request({"experiment": "cart", "unit_id": "visitor-1", "slots": [{}, {"features": {"place": ["top"]}}]})
    Traceback (most recent call last):
        ...
    TypeError: slots[1].features.place: is of type list; give a text, a number, a flag, or None where it is unknown
    """
    for name in sorted({*DECIDE_FIELDS} - {*SLATE_FIELDS}):
        if asked.get(name) is not None:  # else it would be a feature
            raise ValueError(
                f"{name}: is for one decision; a slate has slate_id, and {', '.join(SLOT_FIELDS)} in slots"
            )
    request = pb.DecideSlateRequest(
        experiment=full_text("experiment", asked.get("experiment")),
        unit_id=full_text("unit_id", asked.get("unit_id")),
        slate_id=_text("slate_id", asked) or new_id(),
        slots=[_slot(f"slots[{place}]", one) for place, one in enumerate(as_list(asked.get("slots")))],
    )
    if not request.slots:
        raise ValueError("slots: is empty; give a mapping for each place, {} where it has nothing of its own")
    _write_context(request.context, asked, SLATE_FIELDS)
    _write_rest(request, asked)
    return request


def _slot(path: str, given: object) -> pb.Slot:
    fields = _fields(path, given, SLOT_FIELDS, "a slot")
    made = pb.Slot(
        eligible_actions=_eligible_actions(fields, f"{path}."),
        excluded_actions=_actions("excluded_actions", fields, f"{path}."),
        default_action=_text("default_action", fields, f"{path}."),
    )
    known = {} if fields.get("features") is None else features(f"{path}.features.", fields["features"])
    if known:
        made.features.update(known)
    return made


def as_list(slots: object) -> list[object]:
    """The slots of a slate, which may come from a generator."""
    return list(_mappings("slots", slots))


def decision_ids(request: pb.DecideRequest | pb.DecideSlateRequest) -> list[str]:
    """Of what was asked for: of each slot of a slate.

    >>> decision_ids(pb.DecideSlateRequest(slate_id="page-7", slots=[pb.Slot(), pb.Slot()]))
    ['page-7/0', 'page-7/1']
    """
    if isinstance(request, pb.DecideRequest):
        return [request.decision_id]
    return [f"{request.slate_id}/{place}" for place in range(len(request.slots))]


def _mappings(field: str, given: object) -> Iterable[object]:
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise TypeError(f"{field}: is {type_of(given)}; give a list of mappings")
    return given


def _fields(path: str, given: object, names: Collection[str], what: str) -> Mapping[str, object]:
    if not isinstance(given, Mapping):
        raise TypeError(f"{path}: is {type_of(given)}; give a mapping")
    for name in given.keys() - {*names}:
        raise ValueError(f"{path}.{name}: is no field of {what}; it has {', '.join(names)}")
    return given


def _write_rest(request: pb.DecideRequest | pb.DecideSlateRequest, asked: Mapping[str, object]) -> None:
    for name in ("explore", "with_ranking"):
        if asked.get(name) is not None:
            setattr(request, name, flag(name, asked[name]))
    _write_action_features(request, asked)
    _write_actions(request, asked)


def _text(field: str, asked: Mapping[str, object], path: str = "") -> str:
    return "" if asked.get(field) is None else text(f"{path}{field}", asked[field])


def _actions(field: str, asked: Mapping[str, object], path: str = "") -> list[str]:
    return [] if asked.get(field) is None else texts(f"{path}{field}", asked[field])


def _eligible_actions(asked: Mapping[str, object], path: str = "") -> list[str]:
    found = _actions("eligible_actions", asked, path)
    # To the server, no names mean all actions: the opposite of what a page means that found none to be possible.
    if not found and asked.get("eligible_actions") is not None:
        raise ValueError(f"{path}eligible_actions: is empty, so nothing may be chosen; leave it out where all may be")
    return found


def _write_context(context: pb.Context, asked: Mapping[str, object], others: Collection[str]) -> None:
    for name in CONTEXT_FIELDS:
        if asked.get(name) is not None:
            setattr(context, name, text(name, asked[name]))
    apart = {*others, *CONTEXT_FIELDS}
    by_keyword = features("", {name: value for name, value in asked.items() if name not in apart})
    by_name = {} if asked.get("features") is None else features("", asked["features"])
    for name in by_keyword.keys() & by_name.keys():
        raise ValueError(f"{name}: is given twice, as a keyword and in features")
    if by_keyword or by_name:
        context.features.update({**by_keyword, **by_name})


def _write_action_features(request: pb.DecideRequest | pb.DecideSlateRequest, asked: Mapping[str, object]) -> None:
    given = asked.get("action_features")
    if given is None:
        return
    if not isinstance(given, Mapping):
        raise TypeError(f"action_features: is of type {type(given).__name__}; give a mapping of actions to features")
    for action, known in given.items():
        name = full_text("action_features: an action", action)
        if known is not None:
            request.action_features[name].update(features(f"action_features[{name}].", known))


def _write_actions(request: pb.DecideRequest | pb.DecideSlateRequest, asked: Mapping[str, object]) -> None:
    given = asked.get("actions")
    for index, one in enumerate(_mappings("actions", given) if given is not None else ()):
        _write_action(request.actions.add(), f"actions[{index}]", one)


def _write_action(made: pb.CalledAction, path: str, given: object) -> None:
    fields = _fields(path, given, ACTION_FIELDS, "an action")
    made.id, made.kind = full_text(f"{path}.id", fields.get("id")), _text("kind", fields, f"{path}.")
    if fields.get("features") is not None:
        made.features.update(features(f"{path}.features.", fields["features"]))
    if fields.get("payload") is not None:
        made.payload.update(tree(f"{path}.payload", fields["payload"]))


def reward_request(asked: Mapping[str, object]) -> pb.RewardRequest | None:
    """From the keywords of `Client.reward` or `Client.reward_unit`; None where there is no decision to reward, since a
    fallback was shown.

    It always has a reward id, so that it can be sent again and counts once.
    """
    decision_id = _text("decision_id", asked)
    if not decision_id and "unit_id" not in asked:
        return None
    request = pb.RewardRequest(
        decision_id=decision_id,
        unit_id=full_text("unit_id", asked["unit_id"]) if "unit_id" in asked else "",
        experiment=_text("experiment", asked),
        name=_text("name", asked),
        reward_id=_text("reward_id", asked) or new_id(),
    )
    for name in ("correct", "retract", "final"):
        if asked.get(name) is not None:
            setattr(request, name, flag(name, asked[name]))
    if (request.correct or request.retract) and not _text("reward_id", asked):
        raise ValueError("reward_id: is missing; a change needs that of the reward that it changes")
    value = asked.get("value", ABSENT)  # None is given, and refused: a page failed to find it
    if value is not ABSENT:
        request.value = number("value", value)
    if asked.get("occurred_at") is not None:
        request.occurred_at.CopyFrom(_timestamp(asked["occurred_at"]))
    return request


def _timestamp(moment: object) -> Timestamp:
    if not isinstance(moment, datetime):
        raise TypeError(f"occurred_at: is of type {type(moment).__name__}; give a datetime")
    if moment.tzinfo is None:
        raise ValueError("occurred_at: has no time zone; give one, for example datetime.now(UTC)")
    found = Timestamp()
    found.FromDatetime(moment.astimezone(UTC))
    return found


def activate_request(asked: Mapping[str, object]) -> pb.ActivateRequest | None:
    """From the keywords of `Client.activate`; None where there is no decision."""
    decision_id = _text("decision_id", asked)
    return pb.ActivateRequest(decision_id=decision_id, action=_text("action", asked)) if decision_id else None


def link_request(asked: Mapping[str, object]) -> pb.LinkUnitsRequest:
    """From the keywords of `Client.link_units`."""
    return pb.LinkUnitsRequest(
        unit_id=full_text("unit_id", asked["unit_id"]), same_as=full_text("same_as", asked["same_as"])
    )


def numbered(make: Callable[[Mapping[str, object]], T], name: str, index: int, asked: Mapping[str, object]) -> T:
    """One of several requests; errors name its place, too.

    >>> numbered(decide_request, "requests", 3, {"experiment": "cart"})
    Traceback (most recent call last):
        ...
    TypeError: requests[3].unit_id: is None; give a text, for example str(...)
    """
    if not isinstance(asked, Mapping):
        raise TypeError(f"{name}[{index}]: is of type {type(asked).__name__}; give a mapping of keywords to values")
    try:
        return make(asked)
    except (TypeError, ValueError) as error:
        raise (TypeError if isinstance(error, TypeError) else ValueError)(f"{name}[{index}].{error}") from error


def chunks(requests: Sequence[T]) -> Iterator[Sequence[T]]:
    """As many as one call takes, in order."""
    for start in range(0, len(requests), MOST_IN_A_BATCH):
        yield requests[start : start + MOST_IN_A_BATCH]
