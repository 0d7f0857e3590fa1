"""A request of any RPC, made from its message's descriptor, so that what is added later is attacked by itself.

Called by `calls.py`. Fields are filled by their names: with what the strangers know of the victim's, or with what they
would write into it. Some requests are right but for who sends them; others miss a field or have one too many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from decider.v1 import experiment_pb2
from simulator.studies.attack.names import KNOWN_DECISIONS, KNOWN_UNIT, MARK, OWN, SITE, VICTIM

EXPERIMENTS = {"experiment", "id", "flag_key"}
"""Fields that name one; the fields below, too, name something of the victim's or something new."""

VALUES: Mapping[str, Sequence[str]] = {
    "unit_id": (KNOWN_UNIT,),
    "same_as": (f"{MARK}-person",),
    "decision_id": KNOWN_DECISIONS,
    "name": ("", "", "click", f"{MARK}-name"),
    "reward_id": (f"{MARK}-reward",),
    "author": (MARK,),
    "note": (MARK,),
    "service": ("", "decider.v1.DeciderService", MARK),
    "list_services": ("",),
    "file_containing_symbol": ("decider.v1.DeciderService",),
    "file_by_filename": ("decider/v1/decider_service.proto",),
}

FLAG_CONTEXT = {"targetingKey": KNOWN_UNIT, "device": MARK}
"""Of a flag: a message that has no fields by which it could be filled."""

NEW_IDS = {"DecideRequest": "decision_id", "DecideSlateRequest": "slate_id"}
"""Where an id is of something that is made."""

ACTIONS = ("a", "b", MARK)
LARGEST_ID = 10_000

REFUSED = {"actions"}
"""Fields of messages that the victim's experiment refuses."""

FILLED, SELDOM = 0.6, 0.1
"""Shares of requests in which a field is there: one that is known by name, and any other."""


def request_of(kind: type[Message], random: Random, *, own: bool = False) -> Message:
    """own: the caller has an experiment, and may put the victim's things beside its own ones."""
    message = kind()
    _fill(message, random, own=own, depth=0)
    return message


def experiment_of(id_: str, random: Random) -> experiment_pb2.Experiment:
    """A right definition that is another each time."""
    made = experiment_pb2.Experiment(id=id_, description=f"{MARK} {random.randrange(LARGEST_ID)}")
    for action in ACTIONS:
        made.actions.add(id=action)
    made.reward.window.FromSeconds(60)
    return made


def form_of(random: Random) -> str:
    """A change of the page."""
    deed = random.choice(("pause", "resume", "rollback"))
    return f"do={deed}&seen={random.randrange(60)}&note={MARK}&author={MARK}&to={random.randrange(60)}"


def form_headers() -> Sequence[tuple[str, str]]:
    """With which a browser sends it."""
    return (("Origin", SITE), ("Content-Type", "application/x-www-form-urlencoded"))


def _fill(message: Any, random: Random, *, own: bool, depth: int) -> None:
    for field in message.DESCRIPTOR.fields:
        if random.random() < _share(field):
            _set(message, field, random, own=own, depth=depth)


def _share(field: FieldDescriptor) -> float:
    known = field.name in VALUES or field.name in EXPERIMENTS or field.name in NEW_IDS.values()
    known = known or _is_flag_context(field)
    return FILLED if known or (_is_ours(field) and field.name not in REFUSED) else SELDOM


def _is_ours(field: FieldDescriptor) -> bool:
    return field.message_type is not None and not field.message_type.GetOptions().map_entry and (
        not field.message_type.full_name.startswith("google.protobuf.")
    )  # fmt: skip


def _is_flag_context(field: FieldDescriptor) -> bool:
    return bool(field.name == "context" and field.message_type.full_name == "google.protobuf.Struct")


def _set(message: Any, field: FieldDescriptor, random: Random, *, own: bool, depth: int) -> None:
    if field.message_type is not None:
        if _is_flag_context(field):
            message.context.update(FLAG_CONTEXT)
        elif _is_ours(field) and depth < 3:
            _set_message(message, field, random, own=own, depth=depth)
        return
    value = _value(message, field, random, own=own)
    if field.is_repeated:
        getattr(message, field.name).append(value)
    else:
        setattr(message, field.name, value)


def _set_message(message: Any, field: FieldDescriptor, random: Random, *, own: bool, depth: int) -> None:
    if field.message_type.full_name == "decider.v1.Experiment":
        getattr(message, field.name).CopyFrom(experiment_of(VICTIM, random))
    elif field.is_repeated:
        for _ in range(random.randint(1, 3)):
            _fill(getattr(message, field.name).add(), random, own=own, depth=depth + 1)
    else:
        inner = getattr(message, field.name)
        inner.SetInParent()
        _fill(inner, random, own=own, depth=depth + 1)


def _value(message: Any, field: FieldDescriptor, random: Random, *, own: bool) -> Any:
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        text = _text(message.DESCRIPTOR.name, field.name, random, own=own)
        return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return True
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return random.choice(field.enum_type.values).number
    return 1


def _text(message: str, field: str, random: Random, *, own: bool) -> str:
    if field in EXPERIMENTS:
        return OWN if own and random.random() < 0.5 else VICTIM
    if NEW_IDS.get(message) == field:
        new = f"{MARK}-{random.getrandbits(64):x}"
        return new if random.random() < 0.7 else random.choice(KNOWN_DECISIONS)
    return random.choice(VALUES.get(field, (MARK,)))
