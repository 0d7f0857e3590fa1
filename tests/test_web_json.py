"""Messages as JSON: read and written as protobuf's own `json_format` does, faster, with errors that name the field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from decider.errors import InvalidArgument
from decider.server.rpc import to_status
from decider.server.web.json_messages import MOST_UNUSUAL, MOST_VALUES, json_parser, to_json
from decider.v1 import decider_service_pb2 as pb

REQUESTS: list[type[Message]] = [
    pb.DecideRequest,
    pb.DecideBatchRequest,
    pb.DecideSlateRequest,
    pb.ActivateRequest,
    pb.RewardRequest,
    pb.RewardBatchRequest,
    pb.LinkUnitsRequest,
]
REPLIES: list[type[Message]] = [
    pb.DecideResponse,
    pb.DecideBatchResponse,
    pb.DecideSlateResponse,
    pb.ActivateResponse,
    pb.RewardResponse,
    pb.RewardBatchResponse,
    pb.LinkUnitsResponse,
]
PARSERS = {kind: json_parser(kind) for kind in REQUESTS}

NAMED: list[Any] = [*REQUESTS, pb.Context, pb.CalledAction, pb.Slot]

NAMES: list[str] = sorted(
    {name for kind in NAMED for one in kind.DESCRIPTOR.fields
     for name in (one.name, one.json_name)}
)  # fmt: skip
LEAVES: st.SearchStrategy[Any] = st.one_of(
    st.text(max_size=3),
    st.sampled_from(["home", "1", "1.5", "NaN", "Infinity", "2026-11-29T10:00:00Z", "REASON_EXPLORE", "\ud800"]),
    st.booleans(),
    st.none(),
    st.integers(-3, 3),
    st.sampled_from([2**31, -(2**31) - 1, 2**53 + 1, 2**63, 10**400]),
    st.floats(),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(st.one_of(st.sampled_from(NAMES), st.text(max_size=2)), inner, max_size=4),
    ),
    max_leaves=12,
)


def fitting(message: Any) -> st.SearchStrategy[Any]:
    """JSON of the right form, mostly: a value for each of some fields."""
    return st.dictionaries(st.sampled_from([one.json_name for one in message.fields]), VALUES, max_size=4)


def outcome(parse: Any) -> Message | None:
    """What is read; None where it is refused."""
    try:
        found: Message = parse()
    except (InvalidArgument, json_format.ParseError, ValueError, RecursionError):
        return None
    return found


@pytest.mark.parametrize("kind", REQUESTS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_it_reads_as_protobuf_does(kind: type[Message], data: st.DataObject) -> None:
    """Whatever comes: the same message, or both refuse it."""
    text = json.dumps(data.draw(st.one_of(fitting(kind.DESCRIPTOR), VALUES)))
    ours = outcome(lambda: PARSERS[kind](text.encode("utf-8", "surrogatepass")))
    theirs = outcome(lambda: json_format.Parse(text, kind()))
    assert (ours is None) == (theirs is None)
    assert (
        ours is None
        or theirs is None
        or ours.SerializeToString(deterministic=True) == theirs.SerializeToString(deterministic=True)
    )


FULL = {
    "experiment": "home",
    "unitId": "u",
    "context": {
        "segment": "vip",
        "intent_stage": "cart",
        "features": {"age": 31, "share": 0.5, "new": True, "plan": "x", "size": None},
    },
    "actionFeatures": {"a": {"price": 3, "sale": True}, "b": {}},
    "actions": [{"id": "c", "payload": {"url": "/c"}}],
    "eligibleActions": ["a", "b"],
    "explore": False,
}


def test_a_usual_request_is_read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it is not faster, and nobody would see it."""
    expected = json_format.Parse(json.dumps(FULL), pb.DecideRequest())
    reward = json.dumps({"decisionId": "d", "value": 2.5, "occurredAt": "2026-11-30T01:02:03.5Z"})
    rewarded = json_format.Parse(reward, pb.RewardRequest())
    monkeypatch.setattr(json_format, "Parse", None)
    assert PARSERS[pb.DecideRequest](json.dumps(FULL).encode()) == expected
    assert PARSERS[pb.RewardRequest](reward.encode()) == rewarded


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"experment": "home"}', "experment: unknown field; did you mean experiment?"),
        ('{"context": {"segmnt": "x"}}', "context.segmnt: unknown field; did you mean segment?"),
        ('{"context": {"age": 3}}', "context.age: unknown field; there are segment, "),
        ('{"actions": [{"id": "a"}, {"nmae": "b"}]}', "actions[1].nmae: unknown field; there are id, "),
        ('{"unitId": 3}', "request: is no JSON of this method's request: Failed to parse unitId field"),
        ('{"unitId": "a", "unitId": "b"}', "duplicate key"),
        ("{", "request: is no JSON"),
        ("", "request: is no JSON"),
    ],
)
def test_what_is_wrong_is_named(text: str, words: str) -> None:
    """A field that is written wrong must not be lost in silence."""
    with pytest.raises(InvalidArgument) as caught:
        PARSERS[pb.DecideRequest](text.encode())
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"requests": [' + "{}," * MOST_VALUES + "{}, {}]}", "more than 120,000 values; send fewer requests a call"),
        ('{"x": 1, "requests": [' + "{}," * MOST_UNUSUAL + "{}]}", "an unknown field"),
        ('{"requests": [{"eligibleActions": [' + "[]," * MOST_UNUSUAL + "[], []]}]}", "at most 6,000 values are read"),
    ],
    ids=["too many", "a wrong one among many", "unusual"],
)
def test_json_that_would_take_seconds_is_refused(text: str, words: str) -> None:
    """Nobody else has an answer while it is read, and the same bytes over gRPC take milliseconds."""
    with pytest.raises(InvalidArgument, match=words):
        PARSERS[pb.DecideBatchRequest](text.encode())


def test_a_large_batch_is_read() -> None:
    """1,000 decisions with 100 features each, some of them unknown."""
    features = {f"f{place}": place / 3 for place in range(99)} | {"size": None}
    one = {"experiment": "home", "unitId": "u", "context": {"features": features}}
    found = PARSERS[pb.DecideBatchRequest](json.dumps({"requests": [one] * 1_000}).encode())
    assert len(found.requests[999].context.features) == 100


def fill(message: Any, data: st.DataObject) -> None:
    """Some fields with some values."""
    for field in message.DESCRIPTOR.fields:
        if not data.draw(st.booleans()):
            continue
        value = getattr(message, field.name)
        if field.message_type is None:
            drawn = data.draw(_OF_TYPE[field.type])
            value.append(drawn) if field.is_repeated else setattr(message, field.name, drawn)
        elif field.message_type.full_name == "google.protobuf.Struct":
            value.update(data.draw(st.dictionaries(st.text(max_size=2), st.one_of(st.booleans(), st.floats(-9, 9)))))
        elif field.message_type.full_name == "google.rpc.Status":
            value.code = 5
            value.details.add().Pack(error_details_pb2.ErrorInfo(reason="X"))
        elif not field.message_type.full_name.startswith("google."):
            fill(value.add() if field.is_repeated else value, data)


_OF_TYPE: dict[int, st.SearchStrategy[Any]] = {
    1: st.floats(),
    3: st.integers(-(2**63), 2**63 - 1),
    5: st.integers(-(2**31), 2**31 - 1),
    8: st.booleans(),
    9: st.text(max_size=3),
    14: st.integers(0, 12),
}
"""By FieldDescriptor.type."""


@pytest.mark.parametrize("part", ['" at "a".\n"[', 'has no field named "" at "a".\n"[', '".\n Available', "x"])
def test_words_that_the_caller_chose_are_told_at_once_and_not_at_length(part: str) -> None:
    """They stand in the words of protobuf's error. A pattern that was sought there took hours (the 4th power of their
    length), and held Python's lock: every other call waited."""
    text = json.dumps({"value": 'has no field named "' + 4_000 * part})
    with pytest.raises(InvalidArgument) as raised:
        json_parser(pb.RewardRequest)(text.encode())
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    "text",
    [r'{"actions": "\ud800"}', r'{"excludedActions": "\udc00\ud800"}', r'{"context": "\ud800"}', r'{"\ud800": 1}'],
)
def test_half_a_character_is_the_callers_mistake(text: str) -> None:
    """Protobuf's error has it in its words, and no answer can: it was an INTERNAL, and a traceback in the log."""
    with pytest.raises(InvalidArgument) as raised:
        json_parser(pb.DecideRequest)(text.encode())
    assert to_status(raised.value).message.startswith(str(raised.value)[:9])


@pytest.mark.parametrize("kind", [*REPLIES, status_pb2.Status])
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_it_writes_as_protobuf_does(kind: type[Message], data: st.DataObject) -> None:
    """Also what no reply of today has."""
    message = kind()
    fill(message, data)
    assert to_json(message).decode() == json_format.MessageToJson(message, indent=None)
