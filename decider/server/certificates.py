"""TLS: certificate, key and the authority of clients' certificates, for gRPC and HTTP, looked at again while serving.

New connections get what the files say since the last look; open ones keep what they have. Files that do not fit each
other are a problem that is told, and what was there before serves. Called by `access.py`.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from decider.errors import DeciderError
from decider.server.file_looks import read_regular

Content = tuple[bytes, ...]
"""Key, certificates, authorities; the last one may be missing."""


LARGEST_FILE = 10_000_000
"""Bytes."""

ANY_PORT = "127.0.0.1:0"
"""That is free; this machine alone reaches it."""


class BadCertificates(DeciderError):
    """The files cannot be read, or do not fit each other."""

    reason = "BAD_CERTIFICATES"


class Certificates:
    """Raises BadCertificates where there is nothing to begin with."""

    def __init__(self, *, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self.client_ca = client_ca
        self._certificate, self._key = certificate, key
        self._content = self._seen = self._read()
        self._context = self._load()
        _try_with_grpc(self._content)
        self._refused: tuple[Content, BadCertificates] | None = None
        self.http = self._load()
        self.http.sni_callback = self._take_newest

    def _read(self) -> Content:
        files = {"--tls-key": self._key, "--tls-cert": self._certificate}
        if self.client_ca is not None:
            files["--tls-client-ca"] = self.client_ca
        contents = []
        for option, path in files.items():
            try:
                contents.append(read_regular(path, LARGEST_FILE))
            except OSError as error:
                raise BadCertificates(f"{option}: the file cannot be read: {error.strerror}") from error
        return tuple(contents)

    def _load(self) -> ssl.SSLContext:
        """For HTTP. A client may show a certificate there and need not: probes have none."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self._certificate, self._key, password=_no_password)
        except (OSError, ValueError) as error:
            raise BadCertificates(
                f"--tls-cert and --tls-key: no PEM files that fit each other: {_words(error)}"
            ) from None
        if self.client_ca is not None:
            context.verify_mode = ssl.CERT_OPTIONAL
            context.num_tickets = 0  # a session that is taken up again shows no certificate anew: see `connection.py`
            context.options |= ssl.OP_NO_TICKET
            try:
                context.load_verify_locations(self.client_ca)
            except (OSError, ValueError) as error:
                raise BadCertificates(f"--tls-client-ca: no PEM file of certificates: {_words(error)}") from None
        return context

    def _take_newest(self, connection: ssl.SSLObject, _name: str | None, _first: ssl.SSLContext) -> None:
        """For each handshake over HTTP."""
        connection.context = self._context

    def look(self) -> bool:
        """Whether the files are others than before; raises BadCertificates where they cannot serve."""
        content, before = self._read(), self._seen
        self._seen = content
        if content == self._content or content != before:  # they may be half written: two looks must agree
            return False
        context = self._load()
        self._try_once(content)
        if self._read() != content:
            raise BadCertificates("--tls-cert and --tls-key: the files are being written")
        self._context, self._content = context, content
        return True

    def _try_once(self, content: Content) -> None:
        """gRPC writes several lines of its own each time. Raises BadCertificates."""
        if self._refused is not None and self._refused[0] == content:
            raise self._refused[1]
        try:
            _try_with_grpc(content)
        except BadCertificates as error:
            self._refused = content, error
            raise

    def grpc(self) -> grpc.ServerCredentials:
        """For one port of gRPC. With an authority of clients, each must show a certificate of it."""
        given = self._content

        def newest() -> Any:
            """For each handshake at this port; None: as before."""
            nonlocal given
            if self._content is given:
                return None
            given = self._content
            return _configuration(given)

        return grpc.dynamic_ssl_server_credentials(
            _configuration(given), newest, require_client_authentication=self.client_ca is not None
        )


def _configuration(content: Content) -> Any:
    key, chain, *authorities = content
    return grpc.ssl_server_certificate_configuration([(key, chain)], authorities[0] if authorities else None)


def _try_with_grpc(content: Content) -> None:
    """gRPC has a TLS library of its own, which takes fewer kinds of keys than that of HTTP; while serving it would
    silently keep the old pair. Raises BadCertificates."""
    key, chain, *authorities = content
    credentials = grpc.ssl_server_credentials(
        [(key, chain)], authorities[0] if authorities else None, bool(authorities)
    )
    server = grpc.server(ThreadPoolExecutor(1))  # never started
    try:
        server.add_secure_port(ANY_PORT, credentials)
    except RuntimeError:
        if _can_bind(server):
            raise BadCertificates(
                "--tls-key and --tls-cert: gRPC does not take this key: it has to be RSA (not RSA-PSS), ECDSA with "
                "P-256, P-384 or P-521, or Ed25519"
            ) from None
    finally:
        server.stop(None)


def _can_bind(server: grpc.Server) -> bool:
    """Else the failure says nothing about certificates."""
    try:
        return bool(server.add_insecure_port(ANY_PORT))
    except RuntimeError:
        return False


def certificate_name(found: Mapping[str, Any] | None) -> str | None:
    """The name in a verified certificate: as gRPC's port takes it, too.

    >>> certificate_name({"subject": ((("commonName", "shop"),),)}), certificate_name(None)
    ('shop', None)
    """
    if not found:
        return None
    subject = [pair for parts in found.get("subject", ()) for pair in parts]
    names = [value for key, value in subject if key == "commonName"]
    others = [value for _, value in found.get("subjectAltName", ())]
    return next((str(name) for name in [*names, *others] if name), None)


def _no_password() -> str:
    raise ValueError("the key has a password; write it without one")  # else OpenSSL asks on the terminal


def _words(error: Exception) -> str:
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error)
