"""The steps of `decide` and its like: a reply, or the fallback and everybody told. Called by both clients.

Steps are a generator: it yields a Call, is given the reply or has the call's error thrown in, and returns what the
client returns. One client blocks between the steps and the other awaits; the steps are the same.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from decider.client.failures import Consequence, Failure, Failures, failure_of, failure_of_status, wrong_argument
from decider.client.fallback import (
    GivenFallback,
    GivenFallbacks,
    check_each_has_one,
    fallback_reply,
    fallback_slate,
    read_fallback,
    read_fallbacks,
)
from decider.client.messages import as_list, chunks, decide_request, decision_ids, numbered, slate_request
from decider.client.outbox import Call, Outbox
from decider.v1 import decider_service_pb2 as pb

T = TypeVar("T")

Steps = Generator[Call, Any, T]

_Request = pb.DecideRequest | pb.DecideSlateRequest


@dataclass(slots=True)
class _Asked:
    """One of a batch. shown: its fallback. request: None where it cannot be sent; then there is a result already."""

    shown: pb.DecidedAction | None
    request: pb.DecideRequest | None = None
    result: pb.DecideResult | None = None


class Decisions:
    """failures: told of every fallback. reports: sends which fallback was shown."""

    def __init__(self, failures: Failures, reports: Outbox) -> None:
        self._failures, self._reports = failures, reports

    def decide(self, asked: Mapping[str, object], fallback: GivenFallback) -> Steps[pb.DecideResponse]:
        """See `Client.decide`; asked: its keywords."""
        shown = read_fallback(fallback)
        if shown is None:
            reply: pb.DecideResponse = yield Call("Decide", decide_request(asked))
            return reply
        found = yield from self._ask_or_tell("Decide", partial(decide_request, asked), [shown])
        return fallback_reply(shown) if found is None else found

    def decide_slate(self, asked: Mapping[str, object], fallback: GivenFallbacks) -> Steps[pb.DecideSlateResponse]:
        """See `Client.decide_slate`; asked: its keywords."""
        shown = read_fallbacks(fallback)
        if shown is None:
            reply: pb.DecideSlateResponse = yield Call("DecideSlate", slate_request(asked))
            return reply
        try:
            slots = as_list(asked.get("slots"))
        except Exception as error:  # a page's own objects may raise anything
            self._tell(shown, wrong_argument("DecideSlate", error))
            return fallback_slate(shown)
        check_each_has_one(shown, slots)
        found = yield from self._ask_or_tell("DecideSlate", partial(slate_request, {**asked, "slots": slots}), shown)
        return fallback_slate(shown) if found is None else found

    def _ask_or_tell(
        self, method: str, make: Callable[[], _Request], shown: Sequence[pb.DecidedAction]
    ) -> Steps[Any | None]:
        """The reply; None, and everybody told, where there is none and these actions are shown."""
        try:
            request = make()
        except Exception as error:  # as above
            self._tell(shown, wrong_argument(method, error))
            return None
        try:
            return (yield Call(method, request))
        except CancelledError:  # whoever awaited it has given up: nobody will see an action that may be committed
            self._report(request, shown)
            raise
        except Exception as error:
            self._tell(shown, failure_of(method, request, error), request)
            return None

    def _tell(self, shown: Sequence[pb.DecidedAction], failure: Failure, request: _Request | None = None) -> None:
        if request is not None and failure.may_be_logged:
            self._report(request, shown)
        names = ", ".join(one.id for one in shown)
        self._failures.note(replace(failure, consequence=Consequence.FALLBACK, shown=names))

    def _report(self, request: _Request, shown: Sequence[pb.DecidedAction]) -> None:
        """A decision that was committed without an answer must not be learned from as if its action had been shown."""
        for id_, one in zip(decision_ids(request), shown, strict=True):
            self._reports.put(Call("Activate", pb.ActivateRequest(decision_id=id_, action=one.id)))

    def decide_batch(
        self, requests: Iterable[Mapping[str, object]], fallback: GivenFallback
    ) -> Steps[list[pb.DecideResult]]:
        """See `Client.decide_batch`."""
        asked = [self._ask(one, index, fallback) for index, one in enumerate(self._list(requests, fallback))]
        for some in chunks([one for one in asked if one.request is not None]):
            yield from self._decide_some(some)
        return [one.result for one in asked if one.result is not None]

    def _list(self, requests: Iterable[Mapping[str, object]], fallback: GivenFallback) -> list[Mapping[str, object]]:
        shown = read_fallback(fallback)
        try:
            return list(requests)
        except Exception as error:
            if shown is None:
                raise TypeError("requests: give a list of mappings, each with the keywords of `decide`") from error
            self._failures.note(replace(wrong_argument("DecideBatch", error), consequence=Consequence.FALLBACK))
            return []

    def _ask(self, keywords: Mapping[str, object], index: int, fallback: GivenFallback) -> _Asked:
        given = keywords.get("fallback", fallback) if isinstance(keywords, Mapping) else fallback
        asked = _Asked(read_fallback(given, f"requests[{index}].fallback"))  # type: ignore[arg-type] # it checks that
        try:
            asked.request = numbered(decide_request, "requests", index, keywords)
        except Exception as error:
            if asked.shown is None:
                raise
            self._tell([asked.shown], wrong_argument("DecideBatch", error))
            asked.result = _result(fallback_reply(asked.shown))
        return asked

    def _decide_some(self, some: Sequence[_Asked]) -> Steps[None]:
        try:
            reply = yield Call(
                "DecideBatch", pb.DecideBatchRequest(requests=[one.request for one in some if one.request])
            )
        except CancelledError:
            for one in some:
                if one.shown is not None and one.request is not None:
                    self._report(one.request, [one.shown])
            raise
        except Exception as error:
            if any(one.shown is None for one in some):
                raise
            for one in some:
                self._finish(one, partial(failure_of, error=error))
            return
        for one, result in zip(some, reply.results, strict=True):
            one.result = result
            if result.HasField("error") and one.shown is not None:
                self._finish(one, partial(failure_of_status, status=result.error))

    def _finish(self, one: _Asked, failure: partial[Failure]) -> None:
        assert one.shown is not None
        self._tell([one.shown], failure("DecideBatch", one.request), one.request)
        one.result = _result(fallback_reply(one.shown))


def _result(reply: pb.DecideResponse) -> pb.DecideResult:
    return pb.DecideResult(response=reply)
