"""The file of tokens: which roles and experiments they are good for, by hash; what is presented is looked up there.

The server knows no token, only SHA-256 of each: whoever reads the file or a core dump cannot call. A token has 256
random bits, so it needs no slow hash. It is found by its digest in a dict: how long that takes depends on digests
alone, and nobody can choose a token whose digest begins as another one's. Called by `access.py` and `decider token`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from decider.errors import DeciderError, Unauthenticated
from decider.experiment.ids import is_id
from decider.server.file_looks import read_regular
from decider.server.roles import Rights, Role

_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@:/-]{0,63}")
_NAME_FORM = "a letter or digit first, then letters, digits, spaces and ._@:/-, at most 64"

LONGEST_TOKEN = 1_000
"""Characters; a longer one is nobody's and is not hashed."""

LARGEST_FILE = 10_000_000
"""Bytes."""

_WAY_OUT = "`decider token NAME --role decide` makes one"


class BadTokens(DeciderError):
    """The file of tokens cannot be read, or is wrong. Its words name neither a hash nor the file's path."""

    reason = "BAD_TOKENS"


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the file. until: after that it is good for nothing; None: for ever."""

    rights: Rights
    until: datetime | None = None

    def check(self) -> Rights:
        """Raises Unauthenticated where it is too old."""
        if self.until is not None and datetime.now(UTC) >= self.until:
            raise Unauthenticated(
                f"{self.rights.name!r} was good until {self.until:%Y-%m-%dT%H:%M:%SZ}; take a new one",
                reason="TOKEN_EXPIRED",
            )
        return self.rights


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a file says. by_digest: digest and entry, by digest; by_name: of certificates."""

    by_digest: Mapping[bytes, tuple[bytes, Entry]]
    by_name: Mapping[str, Entry]

    def of_header(self, authorization: str) -> Rights:
        """Of `Bearer TOKEN`. Raises Unauthenticated."""
        scheme, _, rest = authorization.strip().partition(" ")
        token = rest.strip()
        if scheme.lower() != "bearer" or not 0 < len(token) <= LONGEST_TOKEN:
            raise Unauthenticated("authorization: send 'Bearer TOKEN'", reason="UNKNOWN_TOKEN")
        presented = _digest(token)
        known, entry = self.by_digest.get(presented, (b"", None))
        if entry is None or not hmac.compare_digest(known, presented):
            raise Unauthenticated(
                f"authorization: this token is not, or no longer, known; {_WAY_OUT}", reason="UNKNOWN_TOKEN"
            )
        return entry.check()

    def of_certificate(self, name: str) -> Rights:
        """Raises Unauthenticated."""
        entry = self.by_name.get(name)
        if entry is None:
            raise Unauthenticated(
                "the certificate's name is not in the tokens file; add it under [[certificates]], or send a token",
                reason="NO_TOKEN",
            )
        return entry.check()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def read_tokens(path: Path) -> bytes:
    """The file. Raises BadTokens."""
    try:
        return read_regular(path, LARGEST_FILE)
    except OSError as error:
        raise BadTokens(f"tokens: the file cannot be read: {error.strerror}") from error


def parse_tokens(content: bytes) -> Tokens:
    """Raises BadTokens, which says which row is wrong."""
    try:
        found = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise BadTokens(f"tokens: the file is no TOML: {error}") from None
    _check_keys("the file", found, {"tokens", "certificates"})
    by_digest: dict[bytes, tuple[bytes, Entry]] = {}
    for place, row in enumerate(_rows(found, "tokens"), start=1):
        where = f"[[tokens]] number {place}"
        entry = _entry(where, row, {"sha256"})
        digest = bytes.fromhex(_string(where, row, "sha256", _DIGEST, "64 hexadecimal digits; " + _WAY_OUT))
        if digest in by_digest:
            raise BadTokens(f"tokens: {where}: sha256: the same stands further above")
        by_digest[digest] = digest, entry
    by_name: dict[str, Entry] = {}
    for place, row in enumerate(_rows(found, "certificates"), start=1):
        entry = _entry(f"[[certificates]] number {place}", row, set())
        if entry.rights.name in by_name:
            raise BadTokens(f"tokens: [[certificates]] number {place}: name: the same stands further above")
        by_name[entry.rights.name] = entry
    if not (by_digest or by_name):
        raise BadTokens(f"tokens: the file names nobody; {_WAY_OUT}")
    return Tokens(by_digest, by_name)


def _rows(found: Mapping[str, Any], table: str) -> Sequence[Mapping[str, Any]]:
    rows = found.get(table, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadTokens(f"tokens: {table}: write a row as [[{table}]]")
    return rows


def _entry(where: str, row: Mapping[str, Any], more: set[str]) -> Entry:
    _check_keys(where, row, {"name", "roles", "experiments", "until"} | more)
    name = _string(where, row, "name", _NAME, _NAME_FORM)
    until = row.get("until")
    if until is not None and (not isinstance(until, datetime) or until.tzinfo is None):
        raise BadTokens(f"tokens: {where}: until: write a time with its zone, like 2027-01-01T00:00:00Z")
    try:
        until = until and until.astimezone(UTC)
    except OverflowError:
        raise BadTokens(f"tokens: {where}: until: in UTC it is beyond the years 1 to 9999") from None
    return Entry(Rights(name, _roles(where, row), _experiments(where, row)), until)


def _roles(where: str, row: Mapping[str, Any]) -> frozenset[Role]:
    roles = row.get("roles")
    if not isinstance(roles, list) or not roles or not all(role in [*Role] for role in roles):
        raise BadTokens(f"tokens: {where}: roles: write a list of {', '.join(Role)}")
    return frozenset(map(Role, roles))


def _experiments(where: str, row: Mapping[str, Any]) -> frozenset[str] | None:
    if "experiments" not in row:
        return None
    ids = row["experiments"]
    if not isinstance(ids, list) or not ids or not all(isinstance(id_, str) and is_id(id_) for id_ in ids):
        raise BadTokens(f"tokens: {where}: experiments: write a list of ids, or leave it out for all")
    return frozenset(ids)


def _string(where: str, row: Mapping[str, Any], key: str, pattern: re.Pattern[str], form: str) -> str:
    text = row.get(key)
    if not isinstance(text, str) or not pattern.fullmatch(text):
        raise BadTokens(f"tokens: {where}: {key}: must be {form}")
    return text


def _check_keys(where: str, found: Mapping[str, Any], known: set[str]) -> None:
    if set(found) - known:  # not named: it may be a token that somebody pasted
        raise BadTokens(f"tokens: {where}: has another key than {', '.join(sorted(known))}")


def new_token(name: str, roles: Sequence[Role], experiments: Sequence[str], until: datetime | None) -> tuple[str, str]:
    """A fresh token, and its lines for the file. Raises BadTokens."""
    _string("the token", {"name": name}, "name", _NAME, _NAME_FORM)
    if experiments:
        _experiments("the token", {"experiments": [*experiments]})
    token = secrets.token_urlsafe(32)
    lines = [
        "[[tokens]]",
        f'name = "{name}"',
        f'sha256 = "{_digest(token).hex()}"',
        f"roles = {_list(roles)}",
        *([f"experiments = {_list(experiments)}"] if experiments else []),
        *([f"until = {until.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"] if until else []),
    ]
    return token, "\n".join(lines) + "\n"


def _list(texts: Sequence[str]) -> str:
    return "[" + ", ".join([f'"{text}"' for text in texts]) + "]"
