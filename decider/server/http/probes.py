"""/healthz (the process lives) and /readyz (it takes calls). Called by `server/serve.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from decider.server.http.guard import rights_of
from decider.server.http.turns import Turns
from decider.server.roles import Role


class Readiness(NamedTuple):
    """Whether calls are taken, and a text for people: warnings, or why not."""

    ready: bool
    text: str


def probes(ready: Callable[[], Readiness]) -> list[Route]:
    """The routes. ready: may read the log; /healthz reads nothing, so it answers whatever the disk does."""
    turns = Turns()

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        is_ready, text = await turns.run(ready)
        rights = rights_of(request)
        if Role.READ not in rights.roles or rights.experiments is not None:  # the text names experiments
            text = "ok" if is_ready else "not ready; why is said to who may read every experiment"
        return PlainTextResponse(f"{text}\n", 200 if is_ready else 503)

    return [Route("/healthz", healthz), Route("/readyz", readyz)]
