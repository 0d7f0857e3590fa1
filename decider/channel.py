"""A connection to a server, with what lets a caller in: token, authority, own certificate. Called by the clients, the
commands and the simulator's drives.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import grpc.aio

Options = Sequence[tuple[str, Any]]

LOOK_AGAIN = 1.0
"""Seconds after which a token file is read again."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Files are PEM. Empty: nothing is presented, and calls are not encrypted."""

    token: str = ""
    token_file: Path | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    @property
    def encrypts(self) -> bool:
        """Whether calls go over TLS."""
        return self.ca is not None or self.cert is not None


def credentials_of(
    *,
    token: str | None = None,
    token_file: str | os.PathLike[str] | None = None,
    ca: str | os.PathLike[str] | None = None,
    cert: str | os.PathLike[str] | None = None,
    key: str | os.PathLike[str] | None = None,
) -> Credentials:
    """What is left out comes from the environment. Raises ValueError."""
    if token is None and token_file is None:
        token, token_file = os.environ.get("DECIDER_TOKEN"), os.environ.get("DECIDER_TOKEN_FILE") or None
    if token and token_file:
        raise ValueError("token: give the token or token_file, not both")
    found = Credentials(
        token=_checked(token or ""),
        token_file=Path(token_file) if token_file else None,
        ca=_path(ca, "DECIDER_CA"),
        cert=_path(cert, "DECIDER_CLIENT_CERT"),
        key=_path(key, "DECIDER_CLIENT_KEY"),
    )
    if (found.cert is None) != (found.key is None):
        raise ValueError("cert: a client's certificate needs its key, and the key its certificate")
    return found


def _path(given: str | os.PathLike[str] | None, variable: str) -> Path | None:
    path = given or os.environ.get(variable)
    return Path(path) if path else None


def _checked(token: str) -> str:
    """Raises ValueError, which does not repeat it."""
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ValueError("token: has a character that no token has")
    return token


def open_channel(target: str, credentials: Credentials, options: Options = ()) -> Any:
    """A blocking grpc.Channel. Raises OSError where a file cannot be read."""
    if credentials.encrypts:
        channel = grpc.secure_channel(target, _tls(credentials), options=options)
    else:
        channel = grpc.insecure_channel(target, options=options)
    source = _token_source(credentials)
    return grpc.intercept_channel(channel, _Blocking(source)) if source else channel


def open_aio_channel(target: str, credentials: Credentials, options: Options = ()) -> Any:
    """A grpc.aio.Channel of the running event loop. Raises OSError where a file cannot be read."""
    source = _token_source(credentials)
    interceptors = [_Awaited(source)] if source else []
    if credentials.encrypts:
        return grpc.aio.secure_channel(target, _tls(credentials), options=options, interceptors=interceptors)
    return grpc.aio.insecure_channel(target, options=options, interceptors=interceptors)


def _tls(credentials: Credentials) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=credentials.ca.read_bytes() if credentials.ca else None,
        private_key=credentials.key.read_bytes() if credentials.key else None,
        certificate_chain=credentials.cert.read_bytes() if credentials.cert else None,
    )


def authorization(credentials: Credentials) -> str:
    """What a call over HTTP sends as `Authorization`; empty without a token. Raises OSError, ValueError."""
    source = _token_source(credentials)
    return source.header() if source else ""


class _TokenSource:
    """The token now; of a file, as it says since the last look. A file that cannot be read: as before."""

    def __init__(self, token: str, file: Path | None) -> None:
        self._header, self._file = f"Bearer {token}", file
        self._looked = 0.0
        if file is not None:
            self._read(file)

    def header(self) -> str:
        """The value of `authorization`."""
        now = time.monotonic()
        if self._file is not None and now - self._looked >= LOOK_AGAIN:
            try:
                self._read(self._file)
            except (OSError, ValueError):
                self._looked = now
        return self._header

    def _read(self, file: Path) -> None:
        self._header = f"Bearer {_checked(file.read_text().strip())}"
        self._looked = time.monotonic()


def _token_source(credentials: Credentials) -> _TokenSource | None:
    if not (credentials.token or credentials.token_file):
        return None
    return _TokenSource(credentials.token, credentials.token_file)


class _Details(NamedTuple):
    """Of a call, as grpc.ClientCallDetails."""

    method: Any
    timeout: Any
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    compression: Any


class _Blocking(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    """Sends the token with each call."""

    def __init__(self, source: _TokenSource) -> None:
        self._source = source

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """Called by grpcio."""
        metadata = [*(details.metadata or ()), ("authorization", self._source.header())]
        changed = _Details(
            details.method,
            details.timeout,
            metadata,
            details.credentials,
            getattr(details, "wait_for_ready", None),
            getattr(details, "compression", None),
        )
        return continuation(changed, request)


class _Awaited(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    """Sends the token with each call."""

    def __init__(self, source: _TokenSource) -> None:
        self._source = source

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """Called by grpcio."""
        metadata = grpc.aio.Metadata(*(details.metadata or ()), ("authorization", self._source.header()))
        return await continuation(
            grpc.aio.ClientCallDetails(
                details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
            ),
            request,
        )
