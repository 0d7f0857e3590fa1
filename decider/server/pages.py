"""Keys for pages: public, so they are good for little. Which pages have one, and what they may ask. Called by
`tokens.py`, which reads them, and by the guard of `web/`.

Whoever opens a page can read its key, and a program can send any `Origin`. So a key gives what every visitor has
anyway: decisions of some experiments and rewards for them, and that not often. What a visitor's page has no need of is
refused, and what it has no need to know is left out of the answer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from decider.errors import DeciderError, PermissionDenied, RateExceeded
from decider.server.rates import Rate, Rates, neighbours
from decider.server.roles import Rights, Role
from decider.v1 import decider_service_pb2 as pb

KEY_START = "page_"
"""By which people and scanners of repositories know that it is no secret."""

ROLES = frozenset({Role.DECIDE, Role.REWARD})
"""All that a key may have."""

RATE, TOTAL = 20.0, 2_000.0
"""Calls a second of one address, and of the key: the defaults."""

LARGEST = 65_536
"""Bytes of a page's request, also unpacked: navigator.sendBeacon takes no more."""

A_CALL = 16_384
"""Bytes that count as one more call: JSON may be written so that so many take 20 ms to read."""

LEAST_RATE, MOST_RATE = 0.1, 100_000.0
"""A smaller one would have to be remembered for long, a larger one of many."""


@dataclass(frozen=True, slots=True)
class PageKey:
    """origins: of the pages that may use it. rewards_by_unit: whether rewards may name a unit. rate, total: calls a
    second, of an address and in all; a batch counts as its requests."""

    rights: Rights
    origins: frozenset[str]
    rewards_by_unit: bool = False
    rate: float = RATE
    total: float = TOTAL
    rates: Rates = field(default_factory=lambda: Rates(Rate(RATE), Rate(TOTAL)), compare=False, repr=False)

    def with_rates(self, processes: int, before: PageKey | None = None) -> PageKey:
        """For one of so many processes that share a port: of what a key takes in all it has its share, as the system
        spreads connections evenly; those of one address may all be with one process. before: the same key until now,
        whose calls still count where its rates are the same."""
        if before is not None and (before.rate, before.total) == (self.rate, self.total):
            return replace(self, rates=before.rates)
        return replace(self, rates=Rates(Rate(self.rate), Rate(self.total / processes)))

    def check_origin(self, origin: str | None) -> None:
        """Raises PermissionDenied."""
        if origin not in self.origins:
            raise PermissionDenied(
                f"origin: the key {self.rights.name!r} is for pages of other addresses; a row of [[pages]] in the "
                "tokens file has `origins`, and programs take a token",
                reason="OTHER_ORIGIN",
            )

    def check_size(self, calls: int) -> None:
        """Of a batch. Raises RateExceeded where it may never come."""
        if calls > self.rates.most:
            raise RateExceeded(
                f"requests: {calls} are more than ever may come at once with the key {self.rights.name!r}; send at "
                f"most {self.rates.most} a call",
                self.rates.seconds,
            )

    def take(self, address: str, calls: int = 1) -> None:
        """Raises RateExceeded."""
        after = self.rates.take(neighbours(address), calls)
        if after:
            wait = f"the next one may come in {math.ceil(after * 1000)} ms"
            raise RateExceeded(f"too many calls with the key {self.rights.name!r}; {wait}", after)

    def caller(self, address: str) -> str:
        """For the limits."""
        return f"key:{self.rights.name}@{neighbours(address)}"

    def check(self, request: Message) -> None:
        """What no page has need of. Raises PermissionDenied."""
        for one in requests_of(request):
            for name, is_set in _FOR_TOKENS.get(type(one), {}).items():
                if is_set(one):
                    raise _not_for_pages(name)
            if isinstance(one, pb.RewardRequest) and one.unit_id and not self.rewards_by_unit:
                raise PermissionDenied(
                    "unit_id: this page's key takes rewards by decision_id alone; `rewards_by_unit = true` in its row "
                    "of the tokens file takes both",
                    reason="NOT_FOR_PAGES",
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRights(Rights):
    """Of a call with a page's key, from this address."""

    key: PageKey
    address: str
    count: Callable[[str, str], object]

    @classmethod
    def of(cls, key: PageKey, address: str, count: Callable[[str, str], object]) -> PageRights:
        """count: is called with the key's name and the reason of each call that is refused."""
        one = key.rights
        return cls(one.name, one.roles, one.experiments, key=key, address=address, count=count)

    def refused(self, error: DeciderError) -> None:
        """Count it."""
        self.count(self.name, error.reason)

    def check_request(self, request: Message) -> None:
        """Whether a page may send it, and as much of it now: one call of it was counted when it came. Raises
        PermissionDenied, RateExceeded."""
        self.key.check(request)
        self.take_more(calls_of(request) - 1)

    def take_size(self, size: int) -> None:
        """Bytes of a request. Raises RateExceeded, and counts it: no handler has begun, which would."""
        try:
            self.take_more(size // A_CALL)
        except RateExceeded as error:
            self.refused(error)
            raise

    def take_more(self, calls: int) -> None:
        """What one call asks for beside the first. Raises RateExceeded."""
        if calls:
            self.key.check_size(calls + 1)
            self.key.take(self.address, calls)


def answer(handle: Callable[..., Any], request: Message, caller: object, rights: Rights) -> Any:
    """The reply of a handler (request, caller, rights); of a call with a page's key, request and reply are looked at.
    Raises as the handler does, and as `PageRights.check_request`."""
    if not isinstance(rights, PageRights):
        return handle(request, caller, rights)
    rights.check_request(request)
    reply = handle(request, caller, rights)
    shorten(request, reply)
    return reply


_Is = Callable[[Any], bool]

_OF_DECIDE: Mapping[str, _Is] = {
    "explore": lambda one: one.HasField("explore") and not one.explore,
    "with_ranking": lambda one: bool(one.with_ranking),
    "action_features": lambda one: bool(one.action_features),
    "actions": lambda one: bool(one.actions),
}

_FOR_TOKENS: Mapping[type[Message], Mapping[str, _Is]] = {
    pb.DecideRequest: _OF_DECIDE,
    pb.DecideSlateRequest: _OF_DECIDE,
    pb.RewardRequest: {
        "retract": lambda one: bool(one.retract),
        "correct": lambda one: bool(one.correct),
        "final": lambda one: bool(one.final),
    },
}
"""Fields by which a caller learns of the policy, makes actions up, or changes what was said by others."""


def _not_for_pages(name: str) -> PermissionDenied:
    return PermissionDenied(
        f"{name}: a page's key may not send it, since everybody has the key; a server of yours with a token may",
        reason="NOT_FOR_PAGES",
    )


def requests_of(request: Message) -> Sequence[Message]:
    """Those of a batch; else itself."""
    if isinstance(request, pb.DecideBatchRequest | pb.RewardBatchRequest):
        return [*request.requests]
    return [request]


def calls_of(request: Message) -> int:
    """As how many calls it counts, at least 1: a slot of a slate is a decision, too."""
    many = len(request.slots) if isinstance(request, pb.DecideSlateRequest) else len(requests_of(request))
    return max(1, many)


def shorten(request: Message, reply: Message) -> None:
    """Take out of a reply what a page has no need to know: how much the log holds, what a unit has had, the names in
    texts of errors."""
    if isinstance(reply, pb.DecideBatchResponse | pb.RewardBatchResponse):
        for one, result in zip(requests_of(request), reply.results, strict=True):
            if result.HasField("error"):
                shorten_error(result.error)
            else:
                shorten(one, result.response)
    elif isinstance(reply, pb.DecideSlateResponse):
        for decision in reply.decisions:
            _shorten_decision(decision)
    elif isinstance(reply, pb.DecideResponse):
        _shorten_decision(reply)
    elif isinstance(reply, pb.RewardResponse) and isinstance(request, pb.RewardRequest) and request.unit_id:
        reply.Clear()


def _shorten_decision(reply: pb.DecideResponse) -> None:
    """Which ids are ignored tells which actions there are that are not in play yet."""
    reply.ClearField("model")
    reply.ClearField("ignored_actions")


_TOLD = frozenset(
    {
        "CANCELLED",
        "DEADLINE_EXCEEDED",
        "DECISION_ID_REUSED",
        "DECISION_NOT_FOUND",
        "EXPERIMENT_ENDED",
        "EXPERIMENT_NOT_FOUND",
        "EXPERIMENT_PAUSED",
        "EXPERIMENT_STICKY",
        "FLAG_NOT_FOUND",
        "INTERNAL",
        "LIMIT_REACHED",
        "NOT_FOR_PAGES",
        "NO_ATTRIBUTION",
        "OTHER_EXPERIMENT",
        "RATE_EXCEEDED",
        "ROLE_MISSING",
        "TARGETING_KEY_MISSING",
        "TOKEN_EXPIRED",
        "TOO_MANY_FLAGS",
    }
)
"""Reasons of errors whose texts have nothing but what their callers sent. Texts of others are not told: they may name
actions that nobody is to see yet, values of features, or where the log is."""

_FIELDS = re.compile(
    r"(requests|slots)(\[\d+\]\.(decision_id|reward_id|unit_id))?|"
    r"action|decision_id|experiment|flag_key|occurred_at|request|reward_id|slate_id|unit_id|BODY|"
    r"context(\[(targetingKey|decision_id)\])?"
)
"""Fields that are wrong whatever an experiment says. Whole paths: a page may give a feature any name."""

_IN_PLACE = {
    "ACTION_NOT_FOUND": "action: the experiment has no action with this id",
    "NO_ELIGIBLE_ACTION": "no action is left that the call and the rules of the experiment allow",
}

_NO_MORE = "is refused; who calls with a token is told why"


def shorten_error(status: status_pb2.Status) -> None:
    """The same for an error of a handler. Its code, its reason and the names of its fields stay."""
    info, wrong = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    details = [one for one in status.details if one.Unpack(info) or one.Unpack(wrong)]
    if info.reason in _TOLD:
        return
    for violation in wrong.field_violations:
        if not _FIELDS.fullmatch(violation.field):
            violation.description = _NO_MORE
    told = [f"{one.field}: {one.description}" for one in wrong.field_violations]
    status.message = "; ".join(told) or _IN_PLACE.get(info.reason) or f"the call {_NO_MORE}"
    for detail in details:
        if detail.Is(wrong.DESCRIPTOR):
            detail.Pack(wrong)
