"""/healthz (the process lives) and /readyz (it takes calls). Called by `server/leading.py`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from decider.server.http.guard import rights_of
from decider.server.http.turns import Turns
from decider.server.roles import Rights, Role


class Readiness(NamedTuple):
    """Whether calls are taken, and a text for people: warnings, or why not."""

    ready: bool
    text: str


HIDDEN = {"WWW-Authenticate": "Bearer"}
"""Says that another token would change the answer (RFC 9110, 11.6.1)."""


def tells_all(rights: Rights) -> bool:
    """Whether a caller may know what concerns every experiment."""
    return Role.READ in rights.roles and rights.experiments is None


def as_told(readiness: Readiness, rights: Rights) -> str:
    """The text, to who may read every experiment: it names them. The status alone to others."""
    if tells_all(rights):
        return readiness.text
    return "ok" if readiness.ready else "not ready; why is said to who may read every experiment"


def probes(ready: Callable[[], Readiness]) -> list[Route]:
    """The routes. ready: may read the log; /healthz reads nothing, so it answers whatever the disk does."""
    turns = Turns(most_waiting=math.inf)  # all wait for the same answer, and whoever asks needs no token

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        readiness, rights = await turns.run(ready), rights_of(request)
        headers = None if tells_all(rights) else HIDDEN
        return PlainTextResponse(f"{as_told(readiness, rights)}\n", 200 if readiness.ready else 503, headers)

    return [Route("/healthz", healthz), Route("/readyz", readyz)]
