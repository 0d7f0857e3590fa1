"""Who calls over the web port: from which pages, and with which token. Called by `app.py` and by what answers calls.

A browser tells with `Origin` whose page sends a request. Other pages than those that a setting names are refused before
anything is done: they could neither read nor change anything. What sends no `Origin` is no page, and its token decides.
Pages that have a key of their own (`pages.py`) may call with it, and may do what it is good for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from urllib.parse import unquote_to_bytes

from decider.errors import DeciderError, PermissionDenied, Unauthenticated
from decider.server.access import Access
from decider.server.pages import PageKey, PageRights
from decider.server.roles import ALL, Rights, Role
from decider.server.settings import ANY_ORIGIN
from decider.server.tokens import bearer
from decider.server.web.exchange import Headers, Request, header

logger = logging.getLogger(__name__)

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
    """origins: of pages that may call, or ANY_ORIGIN among them. refused: is told the name of the page's key, or none,
    and the reason, of each call that is refused. behind_proxy: whether a setting names proxies that are believed."""

    def __init__(
        self,
        access: Access,
        origins: Sequence[str],
        *,
        refused: Callable[[str, str], object] = lambda *_: None,
        behind_proxy: bool = False,
    ) -> None:
        self._access = access
        self._origins: Collection[bytes] = frozenset(one.encode() for one in origins)
        self._any = ANY_ORIGIN in origins
        self._refused = refused
        self._knows_proxy = behind_proxy
        self._told_of_origin = False

    def check_origin(self, request: Request) -> Headers:
        """What lets the page read the reply. Raises PermissionDenied for the page of somebody else."""
        origin = request.headers.get(b"origin")
        if origin is None:
            return (VARY,)
        if not (self._is_named(origin) or self._access.is_page(origin.decode("latin-1"))):
            self._refused("", OTHER_ORIGIN)
            self._tell_of_origin(request)
            raise PermissionDenied(
                f"pages of {header(request, b'origin')[:100]} may not call here; --web-origin says which may, and "
                "[[pages]] in the tokens file",
                reason=OTHER_ORIGIN,
            )
        return (VARY, (b"access-control-allow-origin", origin), (b"access-control-expose-headers", EXPOSED_HEADERS))

    def _tell_of_origin(self, request: Request) -> None:
        """Once: a page's developer hears only of CORS from the browser."""
        if not self._told_of_origin:
            self._told_of_origin = True
            logger.warning(
                "pages of %r have called and were refused: if they are yours, name them by --web-origin, or in "
                "[[pages]] of the tokens file; told once, decider_web_refused_total counts on",
                header(request, b"origin")[:100],
            )

    def _is_named(self, origin: bytes) -> bool:
        return self._any or origin in self._origins

    def preflight(self, methods: bytes) -> Headers:
        """What a browser hears that asks what a page may send."""
        return (
            (b"access-control-allow-methods", methods),
            (b"access-control-allow-headers", ALLOWED_HEADERS),
            (b"access-control-max-age", MAX_AGE),
        )

    def identify(self, request: Request, role: Role | None) -> tuple[str, Rights]:
        """Who calls, for the limits, and what they may do. Raises Unauthenticated, PermissionDenied, RateExceeded."""
        if not self._access.asks:
            return f"address:{request.address}", ALL
        key = ""
        try:
            page = self._page(request)
            if page is None:
                return self._identify(request, role)
            key = page.rights.name
            page.check_origin(header(request, b"origin") or None)
            self._warn_of_proxy(request)
            page.take(request.address)
            rights = PageRights.of(page, request.address, self._refused)
            if role is not None:
                rights.check_role(role)
        except DeciderError as error:
            self._refused(key, error.reason)
            raise
        return page.caller(request.address), rights

    def look_again(self, request: Request, role: Role | None) -> None:
        """Whether who has a stream open may still have it; that is no new call. Raises as `identify`."""
        if not self._access.asks:
            return
        page = self._page(request)
        if page is None:
            self._identify(request, role)
        else:
            page.check_origin(header(request, b"origin") or None)

    def _warn_of_proxy(self, request: Request) -> None:
        """Once."""
        if not self._knows_proxy and b"x-forwarded-for" in request.headers:
            self._knows_proxy = True
            logger.warning(
                "calls with keys of pages come through a proxy (X-Forwarded-For), so all of them count as from one "
                "address: name the proxy by --web-proxy"
            )

    def _check_named(self, request: Request) -> None:
        """A site whose pages have a key, and which no setting names, is there for that key alone."""
        origin = request.headers.get(b"origin")
        if origin is not None and not self._is_named(origin):
            raise Unauthenticated(
                "key: pages of this origin call with their key: 'Authorization: Bearer KEY', 'X-API-Key: KEY' or ?key=",
                reason="NO_TOKEN",
            )

    def _identify(self, request: Request, role: Role | None) -> tuple[str, Rights]:
        self._check_named(request)
        try:
            rights = self._access.identify(_authorization(request), _certificate(request))
        except Unauthenticated:
            if role is None:
                return f"address:{request.address}", ALL
            raise
        if role is not None:
            rights.check_role(role)
        return f"token:{rights.name}", rights if role is not None else ALL

    def _page(self, request: Request) -> PageKey | None:
        """Whose key was sent. Raises Unauthenticated."""
        in_address = key_in(request.query)
        if in_address is None:
            authorization = _authorization(request)
            return self._access.page(bearer(authorization)) if authorization else None
        page = self._access.page(in_address)
        if page is None:
            raise Unauthenticated(
                "key: this is no page's key, or no longer; a token never stands in an address: exchange it if it did",
                reason="UNKNOWN_TOKEN",
            )
        return page


OTHER_ORIGIN = "OTHER_ORIGIN"

LONGEST_QUERY = 2_000
"""Bytes; what is longer has no key."""


def key_in(query: bytes) -> str | None:
    """The key in an address: navigator.sendBeacon sends no headers. The first one of several.

    >>> key_in(b"key=page_1&key=page_2"), key_in(b"keys=1"), key_in(b"key=")
    ('page_1', None, '')
    """
    if len(query) > LONGEST_QUERY:
        return None
    found = [value for name, equals, value in (one.partition(b"=") for one in query.split(b"&")) if name == b"key"]
    return unquote_to_bytes(found[0]).decode("latin-1") if found else None


def _certificate(request: Request) -> str | None:
    """Of a program: a browser shows its user's to whatever page asks, and no page needs one."""
    return None if b"origin" in request.headers else request.certificate


def _authorization(request: Request) -> str | None:
    """`X-API-Key`, which clients of OFREP send, is the same in another header."""
    sent = header(request, b"authorization")
    key = header(request, b"x-api-key")
    return sent or (f"Bearer {key}" if key else None)
