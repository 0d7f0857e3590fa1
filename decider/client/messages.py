"""Keywords -> requests. Errors name the field; see `values.py`. Called by `decisions.py` and `deliveries.py`."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from decider.client.fallback import ABSENT
from decider.client.values import features, flag, full_text, number, text, texts, tree
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
    for name in ("explore", "with_ranking"):
        if asked.get(name) is not None:
            setattr(request, name, flag(name, asked[name]))
    _write_context(request.context, asked)
    _write_action_features(request, asked)
    _write_actions(request, asked)
    return request


def _text(field: str, asked: Mapping[str, object]) -> str:
    return "" if asked.get(field) is None else text(field, asked[field])


def _actions(field: str, asked: Mapping[str, object]) -> list[str]:
    return [] if asked.get(field) is None else texts(field, asked[field])


def _eligible_actions(asked: Mapping[str, object]) -> list[str]:
    found = _actions("eligible_actions", asked)
    # To the server, no names mean all actions: the opposite of what a page means that found none to be possible.
    if not found and asked.get("eligible_actions") is not None:
        raise ValueError("eligible_actions: is empty, so nothing may be chosen; leave it out where all may be")
    return found


def _write_context(context: pb.Context, asked: Mapping[str, object]) -> None:
    for name in CONTEXT_FIELDS:
        if asked.get(name) is not None:
            setattr(context, name, text(name, asked[name]))
    apart = {*DECIDE_FIELDS, *CONTEXT_FIELDS}
    by_keyword = features("", {name: value for name, value in asked.items() if name not in apart})
    others = {} if asked.get("features") is None else features("", asked["features"])
    for name in by_keyword.keys() & others.keys():
        raise ValueError(f"{name}: is given twice, as a keyword and in features")
    if by_keyword or others:
        context.features.update({**by_keyword, **others})


def _write_action_features(request: pb.DecideRequest, asked: Mapping[str, object]) -> None:
    given = asked.get("action_features")
    if given is None:
        return
    if not isinstance(given, Mapping):
        raise TypeError(f"action_features: is of type {type(given).__name__}; give a mapping of actions to features")
    for action, known in given.items():
        name = full_text("action_features: an action", action)
        if known is not None:
            request.action_features[name].update(features(f"action_features[{name}].", known))


def _write_actions(request: pb.DecideRequest, asked: Mapping[str, object]) -> None:
    given = asked.get("actions")
    if given is None:
        return
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise TypeError(f"actions: is of type {type(given).__name__}; give a list of mappings")
    for index, one in enumerate(given):
        _write_action(request.actions.add(), f"actions[{index}]", one)


def _write_action(made: pb.CalledAction, path: str, given: object) -> None:
    if not isinstance(given, Mapping):
        raise TypeError(f"{path}: is of type {type(given).__name__}; give a mapping with an id")
    for name in given.keys() - {"id", "kind", "features", "payload"}:
        raise ValueError(f"{path}.{name}: is no field of an action; it has id, kind, features and payload")
    made.id, made.kind = full_text(f"{path}.id", given.get("id")), _text("kind", given)
    if given.get("features") is not None:
        made.features.update(features(f"{path}.features.", given["features"]))
    if given.get("payload") is not None:
        made.payload.update(tree(f"{path}.payload", given["payload"]))


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
