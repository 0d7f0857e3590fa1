"""Who calls over the web port: from which pages, and with which token. Called by `app.py` and by what answers calls.

A browser tells with `Origin` whose page sends a request. Other pages than those that a setting names are refused before
anything is done: they could neither read nor change anything. What sends no `Origin` is no page, and its token decides.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from decider.errors import DeciderError, PermissionDenied
from decider.server.access import Access
from decider.server.roles import ALL, Rights, Role
from decider.server.settings import ANY_ORIGIN
from decider.server.web.exchange import Headers, Request, header

MAX_AGE = b"7200"
"""Seconds for which a browser need not ask again whether a page may call; more than this Chromium does not take."""

ALLOWED_HEADERS = (
    b"authorization, content-type, connect-protocol-version, connect-timeout-ms, x-api-key, if-none-match, x-grpc-web, "
    b"x-user-agent, grpc-timeout, content-encoding"
)
EXPOSED_HEADERS = b"etag, grpc-status, grpc-message, grpc-status-details-bin, retry-after"

VARY = (b"vary", b"origin")
"""So that no cache gives the reply for one page to another."""


class Guard:
    """origins: of pages that may call, or ANY_ORIGIN among them."""

    def __init__(self, access: Access, origins: Sequence[str]) -> None:
        self._access = access
        self._origins: Collection[bytes] = frozenset(one.encode() for one in origins)
        self._any = ANY_ORIGIN in origins

    def check_origin(self, request: Request) -> Headers:
        """What lets the page read the reply. Raises PermissionDenied for the page of somebody else."""
        origin = request.headers.get(b"origin")
        if origin is None:
            return (VARY,)
        if not (self._any or origin in self._origins):
            raise PermissionDenied(
                f"pages of {header(request, b'origin')[:100]} may not call here; --web-origin says which may",
                reason="OTHER_ORIGIN",
            )
        return (VARY, (b"access-control-allow-origin", origin), (b"access-control-expose-headers", EXPOSED_HEADERS))

    def preflight(self, methods: bytes) -> Headers:
        """What a browser hears that asks what a page may send."""
        return (
            (b"access-control-allow-methods", methods),
            (b"access-control-allow-headers", ALLOWED_HEADERS),
            (b"access-control-max-age", MAX_AGE),
        )

    def identify(self, request: Request, role: Role | None) -> tuple[str, Rights]:
        """Who calls, for the limits, and what they may do. Raises Unauthenticated, PermissionDenied."""
        if role is None or not self._access.asks:
            return self._name_or_address(request), ALL
        rights = self._rights(request)
        rights.check_role(role)
        return f"token:{rights.name}", rights

    def _name_or_address(self, request: Request) -> str:
        if self._access.asks:
            try:
                return f"token:{self._rights(request).name}"
            except DeciderError:
                pass
        return f"address:{request.address}"

    def _rights(self, request: Request) -> Rights:
        return self._access.identify(header(request, b"authorization") or None, request.certificate)
