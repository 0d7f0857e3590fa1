"""Takes calls and streams in: who calls, how large a request is, how many there are at once. Called by the protocols in
this folder, as gRPC's own `intake.py` is by grpcio.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from decider.errors import DeciderError
from decider.log.protocol import Caller
from decider.server.limits import Limit
from decider.server.pages import LARGEST, PageRights
from decider.server.roles import Rights, Role
from decider.server.web.calls import Calls
from decider.server.web.exchange import Request
from decider.server.web.guard import Guard
from decider.server.web.streams import Streams

T = TypeVar("T")

LONGEST_CALL = 30.0
"""Seconds until a call without a deadline of its own has failed."""


def _ignore(_: DeciderError) -> None:
    pass


@dataclass(frozen=True, slots=True)
class WebIntake:
    """guard: says who calls. large: limit of requests of more than SMALL bytes. most_bytes: of a request."""

    guard: Guard
    calls: Calls
    streams: Streams
    large: Limit
    most_bytes: int

    async def body(self, request: Request, name: str, rights: Rights) -> bytes:
        """All of it; a page's counts as more calls where it is large. name: of the caller, for the limits. Raises
        DeciderError."""

        def grow() -> None:
            self.large.enter(name)
            request.after(lambda: self.large.leave(name))

        body = await request.body(self.most_of(rights), grow)
        if isinstance(rights, PageRights):
            rights.take_size(LARGEST if request.is_packed else len(body))
        return body

    def most_of(self, rights: Rights) -> int:
        """Bytes of a request of who has these rights; unpacked, too."""
        return min(self.most_bytes, LARGEST) if isinstance(rights, PageRights) else self.most_bytes

    async def call(
        self,
        request: Request,
        role: Role | None,
        work: Callable[[bytes, Caller, Rights], T],
        *,
        seconds: float = LONGEST_CALL,
        refused: Callable[[DeciderError], object] = _ignore,
    ) -> T:
        """What the work makes of the body, in a thread of calls. role: that a caller needs. seconds: that the caller
        waits. refused: is told why, where the work does not begin. Raises what the work raises, and DeciderError where
        it does not begin; Refused where the caller's time is over."""
        try:
            name, rights = self.guard.identify(request, role)
            body = await self.body(request, name, rights)
            ended = self.calls.enter(request, name)
        except DeciderError as error:
            refused(error)
            raise
        caller = request.caller(min(seconds, LONGEST_CALL))
        return await self.calls.run(partial(work, body, caller, rights), caller, ended)
