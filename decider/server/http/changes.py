"""Pause, resume and roll back from the page: its forms, sent by POST. Called by `server/leading.py`, where the operator
allows it (`--page-writes`).

Whoever reaches the port may send them, as over gRPC; with tokens, whoever has the role `operate`. What must not be is
that a page of another site sends them from the browser of somebody who may. A browser says with every POST of which
site the page is that sends it (`Origin`), and no script can change that. Only the sites that the operator has named are
taken, and not whatever `Host` says: the name of another site may lead here, too (DNS rebinding).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import NamedTuple, Self
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from decider.errors import DeciderError, FailedPrecondition, InvalidArgument, NotFound, Violation
from decider.experiment.origin import FROM_PAGE, Origin, check_origin
from decider.learn.bad_data import roll_back
from decider.learn.versions import Versions
from decider.log.protocol import EventLog
from decider.page.page import address, refusal_page
from decider.server.http.guard import rights_of
from decider.server.http.pages import page_headers
from decider.server.http.turns import Turns
from decider.types import ExperimentId, Position

FORM = "application/x-www-form-urlencoded"
"""What the page's forms send."""

MOST_FIELDS = 10

STATUSES = {NotFound: 404, InvalidArgument: 400, FailedPrecondition: 409}


class ChangeForm(NamedTuple):
    """What was sent. seen: the newest change that the page showed. to: of a rollback, the position of its model."""

    deed: str
    seen: str
    note: str
    author: str
    to: str

    @classmethod
    def of(cls, body: bytes) -> Self:
        """Of a form's content; a field that is not there is empty.

        >>> ChangeForm.of(b"do=pause&seen=7&note=why+not").note
        'why not'
        """
        try:
            fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS)
        except ValueError as error:
            raise InvalidArgument([Violation("form", f"cannot be read ({error}); send it from the page")]) from error
        return cls(*[fields.get(name, [""])[-1] for name in ("do", "seen", "note", "author", "to")])

    def origin(self, caller: str) -> Origin:
        """Who, whence and why. caller: the name of a token or certificate, if there is one. Raises InvalidArgument."""
        origin = check_origin(author=self.author, source=FROM_PAGE, note=self.note)
        if not origin.note:
            raise InvalidArgument([Violation("note", "is empty: say why; it is kept with the change")])
        return origin.proven_by(caller) if caller else origin


class Changes:
    """Does what a form asks for. last_change: where the newest change of an experiment is. follow: lets what serves
    follow the log."""

    def __init__(
        self,
        log: EventLog,
        versions: Versions,
        *,
        last_change: Callable[[ExperimentId], Position],
        follow: Callable[[], object],
    ) -> None:
        self._log = log
        self._versions = versions
        self._last_change = last_change
        self._follow = follow

    def make(self, id_: ExperimentId, form: ChangeForm, *, caller: str = "") -> Position:
        """Returns where the change is in the log. Raises InvalidArgument, NotFound, FailedPrecondition."""
        origin = form.origin(caller)
        if form.seen != str(self._last_change(id_)):
            raise FailedPrecondition(
                "the experiment has changed since the page was loaded: load it again, look, and decide anew",
                reason="CHANGED",
            )
        match form.deed:
            case "pause" | "resume":
                return self._set_paused(id_, origin, paused=form.deed == "pause")
            case "rollback":
                return roll_back(self._log, id_, _position(form.to), origin=origin).position
        raise InvalidArgument([Violation("do", f"{form.deed[:64]!r} is none of pause, resume and rollback")])

    def _set_paused(self, id_: ExperimentId, origin: Origin, *, paused: bool) -> Position:
        applied = self._versions.set_paused(id_, paused=paused, origin=origin)
        self._follow()
        if not applied.changed:
            state = "paused" if paused else "running"
            raise FailedPrecondition(f"nothing has changed: the experiment is {state} already", reason="UNCHANGED")
        return applied.version.position


def changes(find: Callable[[], Changes | None], origins: Collection[str]) -> list[Route]:
    """The route. find: None as long as the server does not serve. origins: sites whose pages may send forms."""
    turns = Turns()

    async def change(request: Request) -> Response:
        id_ = ExperimentId(request.path_params["id"])
        if problem := sender_problem(request, origins):
            return _refuse(403, problem, id_)
        if request.headers.get("Content-Type", "").partition(";")[0].strip().lower() != FORM:
            return _refuse(415, f"a change is sent as {FORM}, as the page does", id_)
        made = find()
        if made is None:
            raise HTTPException(503, "changes are made once the server takes calls", {"Retry-After": "1"})
        return await turns.run(partial(_answer, made, id_, await request.body(), rights_of(request).name))

    return [Route("/experiments/{id:path}", change, methods=["POST"])]


def sender_problem(request: Request, origins: Collection[str]) -> str:
    """Why a form is not taken from who sends it; nothing where it is. A browser that tells how sender and receiver are
    related (Sec-Fetch-Site) is believed, too."""
    origin = request.headers.get("Origin", "")
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    if origin in origins and site == "same-origin":
        return ""
    ways = " or ".join(origins)
    if not origin:
        return f"nobody says which page sent this; open the page at {ways}, or use the decider command"
    return f"changes are not taken from a page of {origin[:200]}; open the page at {ways} (--page-writes names it)"


def _answer(changes_: Changes, id_: ExperimentId, body: bytes, caller: str) -> Response:
    try:
        position = changes_.make(id_, ChangeForm.of(body), caller=caller)
    except (NotFound, InvalidArgument, FailedPrecondition) as error:
        return _refuse(_status(error), str(error), id_)
    return RedirectResponse(f"{address(id_)}?made={position}", 303, page_headers())


def _status(error: DeciderError) -> int:
    return next(status for kind, status in STATUSES.items() if isinstance(error, kind))


def _refuse(status: int, text: str, id_: ExperimentId) -> Response:
    return HTMLResponse(refusal_page(text, id_), status, page_headers())


def _position(text: str) -> Position:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InvalidArgument([Violation("to", "is no position: choose one of the stored models")])
    return Position(int(text))
