"""Who calls: by token or by certificate, as files say that are looked at every second. Called by `process.py`, and for
each call by `intake.py` and `http/guard.py`.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Collection, Container, Mapping, Sequence

from decider.errors import DeciderError, Unauthenticated
from decider.server.certificates import BadCertificates, Certificates
from decider.server.listeners import DECISIONS, EXPERIMENTS, FLAGS, SERVICES, listeners
from decider.server.pages import PageKey
from decider.server.roles import Rights
from decider.server.settings import Settings, split_address
from decider.server.tokens import Tokens, parse_tokens, read_tokens

logger = logging.getLogger(__name__)

TOKENS, CERTIFICATES = "tokens", "certificates"


class Access:
    """problems: what is wrong with a file now, by TOKENS or CERTIFICATES; what it said before serves. Raises
    DeciderError where a file is wrong at the start."""

    def __init__(self, settings: Settings) -> None:
        self._warnings = exposures(settings)
        self.problems = {TOKENS: "", CERTIFICATES: ""}
        self.certificates = _certificates(settings)
        self._path = settings.tokens
        self._content = self._seen = read_tokens(self._path) if self._path else b""
        self._processes = max(1, settings.workers)
        self._tokens: Tokens | None = None
        self._page_origins: Collection[str] = ()
        if self._path:
            self._take(self._content)
        self.asks_certificates = self.certificates is not None and self.certificates.client_ca is not None
        self.asks = self._path is not None or self.asks_certificates
        for warning in self._warnings:
            logger.warning("%s", warning)

    @property
    def warnings(self) -> Sequence[str]:
        """For /readyz."""
        return [*self._warnings, *[problem for problem in self.problems.values() if problem]]

    def identify(self, authorization: str | None, certificate: str | None) -> Rights:
        """Of who sent these; a token says more than a certificate. Raises Unauthenticated."""
        if self._tokens is not None and authorization is not None:
            return self._tokens.of_header(authorization)
        if certificate is not None and not certificate.isprintable():
            raise Unauthenticated(  # it would be the `author` of changes, in logs and terminals
                "the certificate's name has control characters; show one without", reason="NO_CERTIFICATE"
            )
        if certificate is not None:
            return Rights(certificate) if self._tokens is None else self._tokens.of_certificate(certificate)
        if self._tokens is None:
            raise Unauthenticated("show a certificate of --tls-client-ca", reason="NO_CERTIFICATE")
        raise Unauthenticated("authorization: send 'Bearer TOKEN'", reason="NO_TOKEN")

    def page(self, key: str) -> PageKey | None:
        """Whose key this is; None: nobody's. Raises Unauthenticated where its time is over."""
        return self._tokens.page(key) if self._tokens is not None else None

    def missing(self, known: Container[str]) -> Sequence[str]:
        """Keys of pages that are for experiments which there are not, for /readyz."""
        pages = self._tokens.pages if self._tokens is not None else ()
        return [
            f"tokens: the page's key {page.rights.name!r} is for experiment {id_!r}, which there is not: calls for it "
            "get EXPERIMENT_NOT_FOUND"
            for page in pages
            for id_ in sorted(page.rights.experiments or ())
            if id_ not in known
        ]

    def is_page(self, origin: str) -> bool:
        """Whether pages of this origin have a key."""
        return origin in self._page_origins

    def _take(self, content: bytes) -> None:
        """Raises BadTokens."""
        tokens = parse_tokens(content).with_rates(self._processes, self._tokens)
        self._tokens, self._content = tokens, content
        self._page_origins = frozenset().union(*[page.origins for page in tokens.pages])

    def look(self) -> None:
        """Whether the files say something else."""
        if self._path is not None:
            self._try_to(TOKENS, self._look_at_tokens)
        if self.certificates is not None:
            self._try_to(CERTIFICATES, self.certificates.look)

    def _look_at_tokens(self) -> bool:
        assert self._path is not None
        content, before = read_tokens(self._path), self._seen
        self._seen = content
        if content == self._content or content != before:  # it may be half written: two looks must agree
            return False
        self._take(content)
        return True

    def _try_to(self, files: str, look: Callable[[], bool]) -> None:
        try:
            changed, problem = look(), ""
        except DeciderError as error:
            changed, problem = False, f"{error}; the {files} from before still hold"
        if problem and problem != self.problems[files]:
            logger.error("%s", problem)
        if changed or (self.problems[files] and not problem):
            logger.info("the %s were read anew", files)
        self.problems[files] = problem


def _certificates(settings: Settings) -> Certificates | None:
    certificate, key = settings.tls_cert, settings.tls_key
    if certificate is not None and key is not None:
        return Certificates(certificate=certificate, key=key, client_ca=settings.tls_client_ca)
    if certificate is not None or key is not None or settings.tls_client_ca is not None:
        raise BadCertificates("--tls-cert and --tls-key: TLS needs both; --tls-client-ca is for TLS only")
    return None


_DEEDS: Mapping[tuple[str, ...], str] = {
    (*SERVICES, *FLAGS): "decide, send rewards, read and change every experiment",
    (DECISIONS, *FLAGS): "decide and send rewards",
    (EXPERIMENTS,): "read and change every experiment",
}
"""What a listener of gRPC lets do, by its services."""


def exposures(settings: Settings) -> Sequence[str]:
    """Warnings about listeners that others than this machine reach, one of each."""
    web = [("--web", settings.web, _DEEDS[(DECISIONS, *FLAGS)])] if settings.web is not None else []
    pages = "read every decision, and change experiments" if settings.page_writes else "read every decision"
    grpc = [(one.option, one.address, _DEEDS[one.services]) for one in listeners(settings)]
    open_ = [
        (f"{address} ({option})", may)
        for option, address, may in [*grpc, *web, ("--http", settings.http, pages)]
        if not is_loopback(split_address(address)[0])
    ]
    tls = settings.tls_cert is not None
    if settings.tokens is None and settings.tls_client_ca is None:
        how = "--tokens says who may do what" if tls else "--tls-cert, --tls-key and --tokens say who may do what"
        return [f"anybody who reaches {where} may {may}: {how}" for where, may in open_]
    if tls:
        return []
    return [f"tokens travel to {where} without encryption: give --tls-cert and --tls-key" for where, _ in open_]


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0"), is_loopback("shop.example")
    (True, True, False, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
