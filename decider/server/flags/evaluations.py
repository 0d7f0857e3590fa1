"""DecideResponse -> what OpenFeature calls an evaluation: reason, variant, value, metadata. Pure. Called by `flags.py`
and by each protocol, which writes it in its own words.

An experiment is two flags: the string flag `ID`, whose value is the action, and an object flag with all that a page
needs to show and reward it. Some clients keep the value alone and drop the metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from google.protobuf.struct_pb2 import Struct

from decider.text import time_text
from decider.types import Time
from decider.v1 import decider_service_pb2 as pb

OBJECT = ":object"
"""Ends the key of an object flag where keys have no types. No experiment's id has a colon."""

FLAG_SET = "decider"

SPLIT, DEFAULT, DISABLED = "SPLIT", "DEFAULT", "DISABLED"
"""OpenFeature's words. STATIC is none of them: clients keep a STATIC value for everybody, by its key alone."""

_DRAWN = ("EXPLOIT", "EXPLORE", "HOLDOUT", "HOLDOUT_UNAVAILABLE", "STICKY")
_REASONS = {number: name.removeprefix("REASON_") for name, number in pb.Reason.items()}

Metadata = Mapping[str, str | float]


class Evaluation(NamedTuple):
    """Of one experiment. reply: None where it is DISABLED: there is no value, and a client takes its code's default."""

    experiment: str
    metadata: Metadata
    reply: pb.DecideResponse | None

    @property
    def reason(self) -> str:
        """In OpenFeature's words."""
        return reason_of(self.reply)

    @property
    def variant(self) -> str:
        """The action; empty where there is none."""
        return "" if self.reply is None else self.reply.action.id


def reason_of(reply: pb.DecideResponse | None) -> str:
    """SPLIT where chance or an earlier draw says which action; DEFAULT where something is served in its place.

    >>> [reason_of(pb.DecideResponse(reason=one)) for one in (pb.REASON_HOLDOUT, pb.REASON_FALLBACK)], reason_of(None)
    (['SPLIT', 'DEFAULT'], 'DISABLED')
    """
    if reply is None:
        return DISABLED
    return SPLIT if _REASONS[reply.reason] in _DRAWN else DEFAULT


def evaluated(experiment: str, reply: pb.DecideResponse, unit_id: str, expires: Time | None) -> Evaluation:
    """Of a decision. expires: the end of its window; None where that is not known any more."""
    metadata: dict[str, str | float] = {
        "decisionId": reply.decision_id,
        "contextId": unit_id,
        "version": str(reply.experiment_version),  # a text, as OpenTelemetry's feature_flag.version
        "propensity": reply.propensity,
        "flagSetId": FLAG_SET,
    }
    if expires is not None:
        metadata["expires"] = time_text(expires)
    return Evaluation(experiment, metadata, reply)


def disabled(experiment: str, unit_id: str) -> Evaluation:
    """Of an experiment that is paused, or has ended."""
    return Evaluation(experiment, {"contextId": unit_id, "flagSetId": FLAG_SET}, None)


def set_object(value: Struct, reply: pb.DecideResponse) -> None:
    """The value of the object flag, into an empty message."""
    fields = value.fields
    fields["action"].string_value = reply.action.id
    fields["payload"].struct_value.CopyFrom(reply.action.payload)
    fields["decision_id"].string_value = reply.decision_id
    fields["propensity"].number_value = reply.propensity
    fields["reason"].string_value = _REASONS[reply.reason]


def set_metadata(message: Struct, metadata: Metadata) -> None:
    """Into an empty message."""
    fields = message.fields
    for name, value in metadata.items():
        if isinstance(value, str):
            fields[name].string_value = value
        else:
            fields[name].number_value = value


FLAG_BYTES = 1_100
"""More than what both flags of a decision take beside its reply, their ids and their texts."""


def bulk_bytes(reply: pb.DecideBatchResponse, unit_id: str) -> int:
    """At most so many bytes have the flags of all these decisions."""
    each = FLAG_BYTES + 2 * len(unit_id.encode())
    ids = sum([3 * len(one.response.decision_id.encode()) for one in reply.results])
    return int(reply.ByteSize()) + ids + each * len(reply.results)
