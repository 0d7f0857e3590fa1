"""Asks who calls, in front of every route. Called by `server/leading.py`; endpoints ask `rights_of`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from decider.errors import DeciderError, Unauthenticated
from decider.server.access import Access
from decider.server.roles import ALL, NOBODY, PATHS, READING, WHOLE_LOG, Rights, Role

Endpoint = Callable[[Request], Awaitable[Response]]


def guarded(routes: Sequence[Route], access: Access) -> Sequence[Route]:
    """The same routes, for those who may ask. Raises KeyError for a path without a row in `roles.py`."""
    if not access.asks:
        return routes
    return [Route(one.path, _guarded(one.endpoint, one.path, access), methods=one.methods) for one in routes]


def rights_of(request: Request) -> Rights:
    """Of who asks."""
    rights: Rights = getattr(request.state, "rights", ALL)
    return rights


def _guarded(endpoint: Endpoint, path: str, access: Access) -> Endpoint:
    role = PATHS[path]

    async def guard(request: Request) -> Response:
        try:
            request.state.rights = _rights(request, role, access)
            if path in WHOLE_LOG:
                rights_of(request).check_all("this shows every experiment")
            if "id" in request.path_params:
                rights_of(request).check(request.path_params["id"])
        except Unauthenticated as error:
            raise HTTPException(401, str(error), {"WWW-Authenticate": "Bearer"}) from error
        return await endpoint(request)

    return guard


def _rights(request: Request, role: Role | None, access: Access) -> Rights:
    """Raises Unauthenticated, PermissionDenied."""
    sent, certificate = request.headers.get("Authorization"), getattr(request.state, "certificate", None)
    if role is None:
        try:
            return access.identify(sent, certificate)
        except DeciderError:
            return NOBODY
    rights = access.identify(sent, certificate)
    rights.check_role(role if request.method in READING else Role.OPERATE)
    return rights
