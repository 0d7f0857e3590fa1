"""/decisions/ID: one decision explained, as a page for people and as JSON for programs; /decisions?id=ID leads there.
Called by `server/leading.py`.

An answer costs a bounded time, whatever the log: explanations take turns in one thread, and a model that would take
long to learn again is left to `decider explain`.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from decider.errors import NotFound
from decider.log.place import LogUrl
from decider.page.decision import decision_page, missing_page
from decider.page.latest import decision_address
from decider.replay.explain import Explanation
from decider.replay.words import to_json
from decider.server.http.guard import rights_of
from decider.server.http.pages import page_headers
from decider.server.http.turns import Turns
from decider.server.roles import Rights
from decider.types import DecisionId

JSON, HTML = "application/json", "text/html; charset=utf-8"

SUFFIX = ".json"
"""Of a path, where the caller cannot send an Accept header."""

Explain = Callable[[DecisionId, Rights], Explanation | None]
"""What a caller with these rights may know; None as long as the server does not serve. Raises NotFound."""

_ToCaller = Callable[[DecisionId], Explanation | None]


def decisions(explain: Explain, db: Path | LogUrl) -> list[Route]:
    """The route. db: the log, for the command that says the same in a terminal."""
    turns = Turns()

    async def decision(request: Request) -> Response:
        id_ = request.path_params["decision_id"]
        wants_json = wants_json_of(request.headers.get("Accept", ""), id_)
        told = partial(_as_told, explain, rights_of(request))
        return await turns.run(partial(_answer, told, id_, db, wants_json))

    async def find(request: Request) -> Response:
        id_ = request.query_params.get("id", "").strip()
        if not id_:
            return _refusal(404, "no id is given: /decisions/ID explains the decision ID", wants_json=False)
        return RedirectResponse(decision_address(DecisionId(id_)), 303, page_headers())

    return [Route("/decisions/{decision_id:path}", decision), Route("/decisions", find)]


def wants_json_of(accept: str, path: str) -> bool:
    """Whether JSON suits a caller better than a page.

    >>> wants_json_of("application/json", "d-1"), wants_json_of("", "d-1.json")
    (True, True)
    >>> wants_json_of("text/html,application/json;q=0.9", "d-1"), wants_json_of("*/*", "d-1")
    (False, False)
    """
    asked = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    return path.endswith(SUFFIX) or (JSON in asked and "text/html" not in asked)


def _as_told(explain: Explain, rights: Rights, id_: DecisionId) -> Explanation | None:
    return explain(id_, rights)


def _answer(explain: _ToCaller, path: str, db: Path | LogUrl, wants_json: bool) -> Response:
    try:
        explanation = _explain(explain, path)
    except NotFound as error:
        return _refusal(404, str(error), wants_json)
    account = to_json(explanation)
    if wants_json:
        return Response(json.dumps(account), headers=_headers(), media_type=JSON)
    command = shlex.join(["decider", "explain", account["decision_id"], "--db", str(db)])
    return Response(decision_page(account, command=command), headers={**_headers(), "Content-Type": HTML})


def _refusal(status: int, text: str, wants_json: bool) -> Response:
    if wants_json:
        return Response(json.dumps({"error": text}), status, _headers(), JSON)
    return Response(missing_page(text), status, {**_headers(), "Content-Type": HTML})


def _headers() -> dict[str, str]:
    """No store: a context is somebody's."""
    return {**page_headers(), "Vary": "Accept"}


def _explain(explain: _ToCaller, path: str) -> Explanation:
    """An id may end in the suffix itself."""
    try:
        explanation = explain(DecisionId(path))
    except NotFound:
        if not path.endswith(SUFFIX):
            raise
        explanation = explain(DecisionId(path.removesuffix(SUFFIX)))
    if explanation is None:
        raise HTTPException(503, "decisions are explained once the server takes calls; /readyz says how far it is")
    return explanation
