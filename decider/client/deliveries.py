"""The steps of rewards, activations and links: try at once, and again where that may help.

See `decisions.py` on steps. Nothing here raises for what the server, the network or a value does: a page that thanks
for an order must not die of a reward.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NewType

from google.protobuf.message import Message

from decider.client.decisions import Steps
from decider.client.failures import Consequence, Failure, Failures, failure_of, failure_of_status, wrong_argument
from decider.client.messages import activate_request, chunks, link_request, numbered, reward_request
from decider.client.outbox import Call, Outbox
from decider.v1 import decider_service_pb2 as pb

Outcome = NewType("Outcome", str)
"""What became of a reward or an activation. The server's word, such as "joined", "late", "duplicate"; of an activation
"first" or "again"; or one of the three below."""

QUEUED = Outcome("queued")
"""It could not be delivered now, and is sent again."""

REFUSED = Outcome("refused")
"""It is wrong, or the server does not take it: logged, counted and told to `on_error`."""

NOTHING = Outcome("nothing")
"""There is no decision, since its action was a fallback: nothing is sent."""


class Deliveries:
    """failures: told of what is not delivered at once. outbox: sends it again."""

    def __init__(self, failures: Failures, outbox: Outbox) -> None:
        self._failures, self._outbox = failures, outbox

    def reward(self, asked: Mapping[str, object]) -> Steps[Outcome]:
        """See `Client.reward` and `Client.reward_unit`; asked: its keywords."""
        return (yield from self._deliver(self._prepare("Reward", partial(reward_request, asked))))

    def activate(self, asked: Mapping[str, object]) -> Steps[Outcome]:
        """See `Client.activate`; asked: its keywords."""
        return (yield from self._deliver(self._prepare("Activate", partial(activate_request, asked))))

    def activate_later(self, asked: Mapping[str, object]) -> Outcome:
        """See `Client.activate_later`; asked: its keywords."""
        call = self._prepare("Activate", partial(activate_request, asked))
        return self._queue(call) if isinstance(call, Call) else call

    def link_units(self, asked: Mapping[str, object]) -> Steps[Outcome]:
        """See `Client.link_units`; asked: its keywords."""
        return (yield from self._deliver(self._prepare("LinkUnits", partial(link_request, asked))))

    def _prepare(self, method: str, make: Callable[[], Message | None]) -> Call | Outcome:
        """What to send, or at once what becomes of it."""
        try:
            request = make()
        except Exception as error:  # a page's own objects may raise anything
            self._failures.note(wrong_argument(method, error))
            return REFUSED
        return NOTHING if request is None else Call(method, request)

    def _deliver(self, call: Call | Outcome) -> Steps[Outcome]:
        if not isinstance(call, Call):
            return call
        if self._outbox.goes_before(call):
            return self._queue(call)
        try:
            reply = yield call
        except CancelledError:
            self._queue(call)
            raise
        except Exception as error:
            return self._after(call, failure_of(*call, error))
        return _outcome(reply)

    def _queue(self, call: Call) -> Outcome:
        return QUEUED if self._outbox.put(call) else REFUSED

    def _after(self, call: Call, failure: Failure) -> Outcome:
        if failure.lasting:
            self._failures.note(failure)
            return REFUSED
        outcome = self._queue(call)
        if outcome == QUEUED:
            self._failures.note(replace(failure, consequence=Consequence.QUEUED))
        return outcome

    def reward_batch(self, rewards: Iterable[Mapping[str, object]]) -> Steps[list[Outcome]]:
        """See `Client.reward_batch`."""
        results = [
            self._prepare("Reward", partial(numbered, reward_request, "rewards", place, one))
            for place, one in enumerate(self._list(rewards))
        ]
        to_send = [(place, one) for place, one in enumerate(results) if isinstance(one, Call)]
        for some in chunks(to_send):
            outcomes = yield from self._deliver_some([call for _, call in some])
            for (place, _), outcome in zip(some, outcomes, strict=True):
                results[place] = outcome
        return [one for one in results if not isinstance(one, Call)]

    def _list(self, rewards: Iterable[Mapping[str, object]]) -> list[Mapping[str, object]]:
        try:
            return list(rewards)
        except Exception as error:
            self._failures.note(wrong_argument("RewardBatch", error))
            return []

    def _deliver_some(self, calls: Sequence[Call]) -> Steps[list[Outcome]]:
        if any(self._outbox.goes_before(call) for call in calls):
            return [self._queue(call) for call in calls]
        try:
            reply = yield Call("RewardBatch", pb.RewardBatchRequest(requests=[call.request for call in calls]))
        except CancelledError:
            for call in calls:
                self._queue(call)
            raise
        except Exception as error:
            return [self._after(call, failure_of(*call, error)) for call in calls]
        return [
            self._after(call, failure_of_status(*call, result.error))
            if result.HasField("error")
            else _outcome(result.response)
            for call, result in zip(calls, reply.results, strict=True)
        ]


def _outcome(reply: pb.RewardResponse | pb.ActivateResponse | pb.LinkUnitsResponse) -> Outcome:
    """The server's word; of a newer server that has another one, its number; of an older one, what it has."""
    number = getattr(reply, "outcome", 0)
    if number == 0:
        return Outcome("first" if getattr(reply, "first", False) else "again")
    named = reply.DESCRIPTOR.fields_by_name["outcome"].enum_type.values_by_number.get(number)
    return Outcome(named.name.partition("_OUTCOME_")[2].lower() if named else f"outcome {number}")
