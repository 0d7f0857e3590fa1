"""The file of tokens: which roles and experiments they are good for, by hash; what is presented is looked up there.
Keys for pages stand there, too, in the clear: see `pages.py`.

The server knows no token, only SHA-256 of each: whoever reads the file or a core dump cannot call. A token has 256
random bits, so it needs no slow hash. It is found by its digest in a dict: how long that takes depends on digests
alone, and nobody can choose a token whose digest begins as another one's. Called by `access.py` and `decider token`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from decider.errors import DeciderError, PermissionDenied, Unauthenticated
from decider.experiment.ids import is_id
from decider.server.file_looks import read_regular
from decider.server.pages import KEY_START, LEAST_RATE, MOST_RATE, RATE, ROLES, TOTAL, PageKey
from decider.server.roles import Rights, Role
from decider.server.settings import page_origin

_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@:/-]{0,63}")
_NAME_FORM = "a letter or digit first, then letters, digits, spaces and ._@:/-, at most 64"

_KEY = re.compile(KEY_START + "[A-Za-z0-9_-]{22,64}")

MOST_PAGES, MOST_ORIGINS = 1_000, 100
"""Keys for pages, whose names are labels of metrics; sites of each."""

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
    """What a file says. by_digest: digest and entry, by digest; by_name: of certificates; by_key: of pages."""

    by_digest: Mapping[bytes, tuple[bytes, Entry]]
    by_name: Mapping[str, Entry]
    by_key: Mapping[str, tuple[PageKey, Entry]] = field(default_factory=dict)

    def of_header(self, authorization: str) -> Rights:
        """Of `Bearer TOKEN`. Raises Unauthenticated; PermissionDenied for a page's key, which is good for nothing where
        this is asked."""
        return self.of_token(bearer(authorization))

    def of_token(self, token: str) -> Rights:
        """Raises as `of_header`."""
        if token in self.by_key:
            raise PermissionDenied(
                "authorization: this is a page's key, and it is for pages at the address of --web; take a token",
                reason="PAGE_KEY",
            )
        presented = _digest(token)
        known, entry = self.by_digest.get(presented, (b"", None))
        if entry is None or not hmac.compare_digest(known, presented):
            raise Unauthenticated(
                f"authorization: this token is not, or no longer, known; {_WAY_OUT}", reason="UNKNOWN_TOKEN"
            )
        return entry.check()

    def page(self, key: str) -> PageKey | None:
        """None: it is no page's key. Raises Unauthenticated where it is too old."""
        page, entry = self.by_key.get(key, (None, None))
        if entry is not None:
            entry.check()
        return page

    def with_rates(self, processes: int, before: Tokens | None = None) -> Tokens:
        """Each key with its own, see `PageKey.with_rates`. before: the file until now."""
        old = {key: page for key, (page, _) in before.by_key.items()} if before else {}
        new = {key: (page.with_rates(processes, old.get(key)), entry) for key, (page, entry) in self.by_key.items()}
        return replace(self, by_key=new)

    @property
    def pages(self) -> Sequence[PageKey]:
        """Every key of pages."""
        return [page for page, _ in self.by_key.values()]

    def of_certificate(self, name: str) -> Rights:
        """Raises Unauthenticated."""
        entry = self.by_name.get(name)
        if entry is None:
            raise Unauthenticated(
                "the certificate's name is not in the tokens file; add it under [[certificates]], or send a token",
                reason="NO_TOKEN",
            )
        return entry.check()


def bearer(authorization: str) -> str:
    """What stands behind the scheme. Raises Unauthenticated."""
    scheme, _, rest = authorization.strip().partition(" ")
    token = rest.strip()
    if scheme.lower() != "bearer" or not 0 < len(token) <= LONGEST_TOKEN:
        raise Unauthenticated("authorization: send 'Bearer TOKEN'", reason="UNKNOWN_TOKEN")
    return token


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
    _check_keys("the file", found, {"tokens", "certificates", "pages"})
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
    by_key = _pages(_rows(found, "pages"))
    if not (by_digest or by_name or by_key):
        raise BadTokens(f"tokens: the file names nobody; {_WAY_OUT}")
    return Tokens(by_digest, by_name, by_key)


_KEY_FORM = f"{KEY_START} and 22 to 64 letters, digits, - and _; `decider token NAME --page` makes one"


def _pages(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, tuple[PageKey, Entry]]:
    """By key."""
    if len(rows) > MOST_PAGES:
        raise BadTokens(f"tokens: pages: at most {MOST_PAGES:,} rows are possible; a key may have many origins")
    by_key: dict[str, tuple[PageKey, Entry]] = {}
    for place, row in enumerate(rows, start=1):
        where = f"[[pages]] number {place}"
        key = _string(where, row, "key", _KEY, _KEY_FORM)
        if key in by_key:
            raise BadTokens(f"tokens: {where}: key: the same stands further above")
        by_key[key] = _page(where, row)
    return by_key


def _page(where: str, row: Mapping[str, Any]) -> tuple[PageKey, Entry]:
    entry = _entry(where, {"roles": [*ROLES], **row}, {"key", "origins", "rate", "total", "rewards_by_unit"})
    if not entry.rights.roles <= ROLES:
        raise BadTokens(f"tokens: {where}: roles: everybody has a page's key; only decide and reward are possible")
    if entry.rights.experiments is None:
        raise BadTokens(f"tokens: {where}: experiments: is needed, a list of ids: a page's key is for some alone")
    by_unit = row.get("rewards_by_unit", False)
    if not isinstance(by_unit, bool):
        raise BadTokens(f"tokens: {where}: rewards_by_unit: write true or false")
    rate, total = _rate(where, row, "rate", RATE), _rate(where, row, "total", TOTAL)
    return PageKey(entry.rights, _origins(where, row), by_unit, rate, total), entry


def _origins(where: str, row: Mapping[str, Any]) -> frozenset[str]:
    origins = row.get("origins")
    if not isinstance(origins, list) or not 0 < len(origins) <= MOST_ORIGINS:
        raise BadTokens(
            f"tokens: {where}: origins: write a list of 1 to {MOST_ORIGINS} addresses, like https://shop.example"
        )
    return frozenset([_origin(f"{where}: origins: number {place}", one) for place, one in enumerate(origins, start=1)])


def _origin(where: str, address: Any) -> str:
    try:
        return page_origin(address)
    except ValueError as error:
        raise BadTokens(f"tokens: {where} {error}") from None


def _rate(where: str, row: Mapping[str, Any], key: str, default: float) -> float:
    value = row.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not LEAST_RATE <= value <= MOST_RATE:
        raise BadTokens(f"tokens: {where}: {key}: write calls a second, {LEAST_RATE:g} to {MOST_RATE:,.0f}")
    return float(value)


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


def new_page_key(
    name: str,
    *,
    origins: Sequence[str],
    experiments: Sequence[str],
    roles: Sequence[Role] = (),
    until: datetime | None = None,
) -> str:
    """The lines of a fresh key for pages. Raises BadTokens."""
    lines = [
        "[[pages]]",
        f"name = {_text(name)}",
        f'key = "{KEY_START}{secrets.token_urlsafe(24)}"',
        f"origins = {_list([_origin('--origin', one) for one in origins])}",
        *([f"roles = {_list(roles)}"] if roles else []),
        f"experiments = [{', '.join(map(_text, experiments))}]",
        *([f"until = {until.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"] if until else []),
    ]
    made = "\n".join(lines) + "\n"
    parse_tokens(made.encode())
    return made


def _text(text: str) -> str:
    """As TOML writes it."""
    return json.dumps(text)


def _list(texts: Sequence[str]) -> str:
    return "[" + ", ".join([f'"{text}"' for text in texts]) + "]"
