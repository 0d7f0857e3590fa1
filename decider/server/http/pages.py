"""`/` and `/experiments/ID`: the page for people. Called by `server/leading.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from decider.page.page import Answer, Page, security_policy
from decider.server.http.guard import rights_of
from decider.server.http.probes import Readiness, as_told
from decider.server.http.turns import Turns
from decider.server.roles import NOBODY
from decider.types import ExperimentId, Position

LARGEST_NUMBER = 1_000_000
"""Of a page of the list; whoever asks for more gets the same answer."""

LAST_POSITION = 2**63 - 1
"""That a log could have."""


@dataclass(frozen=True)
class _Overview:
    """Work that is the same for all who ask for it at once (see `Turns`)."""

    page: Page
    number: int

    def __call__(self) -> Answer:
        return self.page.overview(self.number)


@dataclass(frozen=True)
class _Experiment:
    """readiness: as of the page's `experiment`."""

    page: Page
    id: ExperimentId
    made: Position
    readiness: Callable[[], str] | None

    def __call__(self) -> Answer:
        return self.page.experiment(self.id, self.made, readiness=self.readiness)


def pages(find: Callable[[], Page | None], ready: Callable[[], Readiness]) -> list[Route]:
    """The routes. find: None as long as the server does not serve; then the answer is what /readyz says."""
    turns = Turns()

    def status() -> str:
        return as_told(ready(), NOBODY)

    async def show(make: Callable[[Page], Callable[[], Answer]]) -> Response:
        page = find()
        if page is None:
            text = (await turns.run(ready)).text
            raise HTTPException(503, f"the page is there once the server takes calls: {text}", {"Retry-After": "1"})
        status, html = await turns.run(make(page))
        return HTMLResponse(html, status, page_headers())

    async def overview(request: Request) -> Response:
        number = _number(request.query_params.get("page", "1"))
        return await show(lambda page: _Overview(page, number))

    async def experiment(request: Request) -> Response:
        id_ = ExperimentId(request.path_params["id"])
        made = Position(_number(request.query_params.get("made", "0"), most=LAST_POSITION))
        readiness = None if rights_of(request).experiments is None else status
        return await show(lambda page: _Experiment(page, id_, made, readiness))

    return [Route("/", overview), Route("/experiments/{id:path}", experiment)]


def page_headers() -> dict[str, str]:
    """Of every page: it loads nothing, nobody keeps it, and no other site hears where people come from. (With
    `no-referrer` browsers would not say either from which site our own forms come.)"""
    return {
        "Content-Security-Policy": security_policy(),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
        "Cache-Control": "no-store",
    }


def _number(text: str, most: int = LARGEST_NUMBER) -> int:
    """0, which is none, for what is no number."""
    return min(int(text), most) if text.isascii() and text.isdigit() and len(text) < 20 else 0
