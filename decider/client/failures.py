"""What went wrong in a call: counted, logged and told to the application.

A page that shows its fallback looks as if all were well. So each failure is counted, logged (once a minute for each
kind) and given to `on_error`. Called by `decisions.py`, `deliveries.py` and `outbox.py`.
"""

from __future__ import annotations

import enum
import inspect
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from decider.client.forks import Forkable, watch

logger = logging.getLogger("decider.client")

WRONG_ARGUMENT = "WRONG_ARGUMENT"
"""The reason where nothing was sent, since a keyword could not be."""

LASTING = frozenset(
    (
        *("INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION", "OUT_OF_RANGE"),
        *("PERMISSION_DENIED", "UNIMPLEMENTED", "DATA_LOSS"),
    )
)
"""Codes by which a server says that it did nothing, and would not the next time. Not UNAUTHENTICATED: a token that has
run out is replaced, and rewards wait for that."""

NOT_CONNECTED = ("failed to connect to all addresses", "DNS resolution failed")
"""How gRPC's text begins where a call had no connection to be sent on. (It has no code of its own for that.)"""

LOG_AGAIN = 60.0
"""Seconds after which a kind of failure is logged again, with their number since."""

MOST_KINDS = 256
"""Kinds that are told apart; see `_bounded`."""

LONGEST_MESSAGE = 500


class NotSent(Exception):
    """A call that was not even tried: its client is closed, or cannot be used after a fork."""


class Consequence(enum.StrEnum):
    """What became of the call."""

    FALLBACK = "fallback"
    QUEUED = "queued"
    REFUSED = "refused"
    DROPPED = "dropped"


class Kind(NamedTuple):
    """What failures are counted by. code: gRPC's name. reason: the server's name for it, "" where it gave none."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that failed. call: the RPC's name. message: for people; names the field where one was wrong.

    decision_id: of a slate, its id. shown: the fallback action, if one was shown; of a slate, those of its slots.
    error: what was raised, if anything was.
    """

    call: str
    code: str
    reason: str
    message: str
    consequence: Consequence = Consequence.REFUSED
    experiment: str = ""
    decision_id: str = ""
    shown: str = ""
    error: BaseException | None = None

    @property
    def kind(self) -> Kind:
        """As it is counted."""
        return Kind(self.code, self.reason)

    @property
    def lasting(self) -> bool:
        """The same call would fail again."""
        return self.code in LASTING

    @property
    def may_be_logged(self) -> bool:
        """The server may have committed the call, although no answer came."""
        full = self.code == "RESOURCE_EXHAUSTED" and self.reason != ""  # our server's word that it took nothing
        stranger = self.code == "UNAUTHENTICATED"  # whose call was not even read
        return not (
            self.lasting
            or full
            or stranger
            or isinstance(self.error, NotSent)
            or self.message.startswith(NOT_CONNECTED)
        )


def wrong_argument(call: str, error: Exception) -> Failure:
    """Of a keyword that cannot be sent."""
    return Failure(call, "INVALID_ARGUMENT", WRONG_ARGUMENT, _cut(_text(error)), error=error)


def failure_of(call: str, request: Message, error: BaseException) -> Failure:
    """Of whatever a call raised."""
    if not isinstance(error, grpc.RpcError):  # such as NotSent
        return _about(request, Failure(call, "UNKNOWN", type(error).__name__, _cut(_text(error)), error=error))
    status = _rich_status(error)
    code, message = "UNKNOWN", ""
    with suppress(Exception):  # an interceptor may raise an RpcError without a code
        code, message = error.code().name, error.details() or ""
    return _about(request, Failure(call, code, _reason(status), _cut(message), error=error))


def failure_of_status(call: str, request: Message, status: status_pb2.Status) -> Failure:
    """Of one result of a batch."""
    code = next((code.name for code in grpc.StatusCode if code.value[0] == status.code), "UNKNOWN")
    return _about(request, Failure(call, code, _reason(status), _cut(status.message)))


def _about(request: Message, failure: Failure) -> Failure:
    id_ = getattr(request, "decision_id", "") or getattr(request, "slate_id", "")
    return replace(failure, experiment=getattr(request, "experiment", ""), decision_id=id_)


def _rich_status(error: grpc.RpcError) -> status_pb2.Status:
    with suppress(Exception):  # no trailers, or some that a proxy cut off
        return rpc_status.from_call(error) or status_pb2.Status()
    return status_pb2.Status()


def _reason(status: status_pb2.Status) -> str:
    info = error_details_pb2.ErrorInfo()
    return next((str(info.reason) for packed in status.details if packed.Unpack(info)), "")


def _text(error: BaseException) -> str:
    with suppress(Exception):
        return str(error)
    return type(error).__name__


def _cut(message: str) -> str:
    return message if len(message) <= LONGEST_MESSAGE else message[: LONGEST_MESSAGE - 3] + "..."


OnError = Callable[[Failure], object]


class Failures(Forkable):
    """The failures of one client. on_error: called with each; what it raises is logged and goes no further."""

    def __init__(self, on_error: OnError | None = None) -> None:
        if on_error is not None and (not callable(on_error) or inspect.iscoroutinefunction(on_error)):
            raise TypeError("on_error: give a plain function; it is called, not awaited")
        self._on_error = on_error
        self.after_fork()
        watch(self)

    def after_fork(self) -> None:
        """Begin with nothing counted, and with a lock that no thread holds."""
        self._lock = threading.Lock()
        self._counts: dict[Consequence, Counter[Kind]] = {one: Counter() for one in Consequence}
        self._logged: dict[tuple[str, ...], tuple[float, int]] = {}
        self._calling = threading.local()

    def count(self, consequence: Consequence) -> Counter[Kind]:
        """By kind, up to now."""
        with self._lock:
            return self._counts[consequence].copy()

    def note(self, failure: Failure) -> None:
        """Count, log, tell."""
        with self._lock:
            counts = self._counts[failure.consequence]
            counts[_bounded(failure.kind, counts)] += 1
            line = self._line(failure)
        if line:
            logger.warning("%s", line)
        self._tell(failure)

    def _line(self, failure: Failure) -> str:
        """What to log; nothing where its kind was logged a short while ago."""
        field = failure.message.partition(":")[0] if failure.code == "INVALID_ARGUMENT" else ""
        kind = (failure.call, failure.consequence, *failure.kind, failure.experiment, field)
        if kind not in self._logged and len(self._logged) >= MOST_KINDS:
            self._logged.clear()
        since, others = self._logged.get(kind, (-LOG_AGAIN, 0))
        if time.monotonic() - since < LOG_AGAIN:
            self._logged[kind] = since, others + 1
            return ""
        self._logged[kind] = time.monotonic(), 0
        more = f" ({others} more like it since the last line)" if others else ""
        return f"{_sentence(failure)}{more}"

    def _tell(self, failure: Failure) -> None:
        if self._on_error is None or getattr(self._calling, "now", False):  # it calls the client, which fails again
            return
        self._calling.now = True
        try:
            self._on_error(failure)
        except Exception:
            logger.exception("on_error failed; the page goes on")
        finally:
            self._calling.now = False


def _bounded(kind: Kind, counts: Counter[Kind]) -> Kind:
    """Reasons come from outside: whoever invents new ones for ever must not fill the memory of the page."""
    return kind if kind in counts or len(counts) < MOST_KINDS else Kind("OTHER", "")


def _sentence(failure: Failure) -> str:
    """For whoever reads the log of the page.

    >>> _sentence(Failure("Decide", "UNAVAILABLE", "", "no route", Consequence.FALLBACK, "cart", shown="none"))
    "Decide for experiment 'cart': UNAVAILABLE: no route; the fallback 'none' is shown"
    """
    where = f" for experiment {failure.experiment!r}" if failure.experiment else ""
    cause = ": ".join(part for part in (failure.code, failure.reason, failure.message) if part)
    become = {
        Consequence.FALLBACK: f"the fallback {failure.shown!r} is shown",
        Consequence.QUEUED: "it is queued and sent again",
        Consequence.REFUSED: "it is not sent again",
        Consequence.DROPPED: "it is lost",
    }
    return f"{failure.call}{where}: {cause}; {become[failure.consequence]}"
