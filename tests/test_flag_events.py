"""Event streams of flags, without a server: what is told to whom, and what a slow client costs."""

from __future__ import annotations

from typing import Any

import grpc

from decider.flagd.v2 import evaluation_pb2 as v2
from decider.policy.make import make_policy
from decider.policy.protocol import Model
from decider.policy.spec import PolicySpec
from decider.server.flags.events import KEEP_ALIVE_LOOKS, FlagEvents
from decider.server.roles import ALL, Rights, Role
from decider.serving.current import Current
from decider.types import ExperimentId
from tests.conftest import sample_version


class Written:
    """A stream whose client is slow: what was sent leaves when the test says so."""

    def __init__(self, rights: Rights) -> None:
        self.rights = rights
        self.sent: list[Any] = []
        self.code: Any = None
        self._then: Any = None

    def send(self, message: bytes, then: Any) -> None:
        """One at a time."""
        assert self._then is None
        self.sent.append(v2.EventStreamResponse.FromString(message))
        self._then = then

    def leave(self) -> None:
        """What was sent last has left."""
        then, self._then = self._then, None
        then()

    def end(self, code: grpc.StatusCode = grpc.StatusCode.OK, details: str = "") -> None:
        """With this status."""
        self.code, self.details = code, details

    def on_end(self, callback: Any) -> None:
        """See Stream."""
        self.gone = callback


def changes(*versions: tuple[str, int]) -> Current:
    """What serves, by id and version number."""
    current = Current()
    for id_, number in versions:
        put(current, id_, number)
    return current


def put(current: Current, id_: str, number: int) -> None:
    """Another version, or the same with another model."""
    policy = PolicySpec("fixed", {})
    current.put(sample_version(id=ExperimentId(id_), position=number, policy=policy), Model(make_policy(policy)))


def open_stream(events: FlagEvents, rights: Rights = ALL) -> Written:
    """Of a client of version 2."""
    stream = Written(rights)
    events.open(stream, lambda type_, data: v2.EventStreamResponse(type=type_, data=data).SerializeToString())
    return stream


def test_changes_that_come_while_an_event_leaves_are_one_event() -> None:
    """A slow client costs a set of names, not a queue of events; nothing is told twice."""
    current = changes(("home", 1), ("cart", 2))
    events = FlagEvents(current)
    stream = open_stream(events)
    put(current, "home", 3)
    events.look()
    put(current, "cart", 4)
    put(current, "cart", 5)
    events.look()
    put(current, "cart", 5)  # another model
    events.look()
    assert [one.type for one in stream.sent] == ["provider_ready"]
    stream.leave()
    assert set(stream.sent[1].data["flags"].keys()) == {"home", "home:object", "cart", "cart:object"}
    stream.leave()
    events.look()
    assert len(stream.sent) == 2
    stream.gone()
    put(current, "home", 6)
    events.look()
    assert len(stream.sent) == 2


def test_a_silent_stream_is_kept_alive() -> None:
    """Proxies end connections on which nothing comes; a client that does not read gets nothing more."""
    events = FlagEvents(changes(("home", 1)))
    stream = open_stream(events)
    for _ in range(KEEP_ALIVE_LOOKS):
        events.look()
    assert len(stream.sent) == 1
    stream.leave()
    for _ in range(2 * KEEP_ALIVE_LOOKS):
        events.look()
    assert [one.type for one in stream.sent] == ["provider_ready", "keep_alive"]


def test_a_caller_for_some_experiments_hears_of_no_others() -> None:
    """Their names alone would say what somebody else tries."""
    current = changes(("home", 1), ("secret", 2))
    events = FlagEvents(current)
    stream = open_stream(events, Rights("shop", frozenset({Role.DECIDE}), frozenset({"home"})))
    stream.leave()
    put(current, "secret", 3)
    events.look()
    assert len(stream.sent) == 1
    put(current, "home", 4)
    events.look()
    assert set(stream.sent[1].data["flags"].keys()) == {"home", "home:object"}


def test_a_stop_ends_streams_and_those_that_come_later() -> None:
    """With an error: some clients stay with a stream that ended well, and connect nowhere."""
    events = FlagEvents(changes(("home", 1)))
    stream = open_stream(events)
    events.end()
    late = open_stream(events)
    assert stream.code is late.code is grpc.StatusCode.UNAVAILABLE
    assert not late.sent
