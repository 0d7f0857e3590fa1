"""Where a log is: a path, or the address of one in PostgreSQL. Called by settings, commands and `open.py`.

An address may hold a password. So wherever it is shown, a text without it is shown; only `postgres/` reads the rest.
The schema is shown: several logs may be in one database.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote

SCHEMES = ("postgresql://", "postgres://")

_PARTS = re.compile(
    r"[a-z]+://(?:(?P<user>[^:@/?]*)(?::[^@/?]*)?@)?(?P<host>[^@/?]*)(?P<base>/[^@/?]*)?(?:\?(?P<rest>.*))?"
)

_ALMOST = re.compile(
    r"\s*postgres(ql)?(\+\w+)?:/.*|\s*((host|hostaddr|port|user|password|dbname|sslmode)\s*=\s*\S+(\s+|$)){2,}.*",
    re.IGNORECASE | re.DOTALL,
)
"""What other programs take as an address: a file of such a name is never meant, and would show the password."""

_SEARCH_PATH = re.compile(r"search_path\s*=\s*((?:\\.|[^\s\\])+)")
"""In the options of a session."""

_PASSWORD_IN_FRONT = re.compile(r"[a-z]+://[^/?@]*:[^/@]*\?.*@")
"""A question mark in a password: what stands before it looks like a host and its port."""

OF_SCHEMA = "?options=-csearch_path%3D"
"""What stands before the schema in a name."""

UNREADABLE = "postgresql://..."
"""The name of an address that is none: any part of it may be a part of a password."""


class LogUrl(str):
    """The address of a log in PostgreSQL, as libpq takes it; the log is in the first schema of its search path.

    >>> print(LogUrl("postgresql://ann:secret@db:5432/shop?sslmode=require&password=secret"))
    postgresql://ann@db:5432/shop
    """

    __slots__ = ()

    def __str__(self) -> str:
        """Without passwords, and of the options the schema alone: for people."""
        return name_of(self)

    def __format__(self, form: str) -> str:
        """As `str`."""
        return format(name_of(self), form)

    def __repr__(self) -> str:
        """As `str`."""
        return f"LogUrl({name_of(self)!r})"


def name_of(url: str) -> str:
    """A log's name in messages: its address without passwords, and of the options the schema alone.

    >>> name_of("postgresql:///shop?user=ann&password=secret&host=/run/pg&port=5433")
    'postgresql://ann@/run/pg:5433/shop'
    >>> name_of("postgresql://ann:secret@db/shop?options=-csearch_path%3Dnorth")
    'postgresql://ann@db/shop?options=-csearch_path%3Dnorth'
    >>> name_of("postgresql://ann:se/cret@db/shop")  # such a password has to be written as se%2Fcret
    'postgresql://...'
    >>> name_of("postgresql://ann:se?cret@db/shop")
    'postgresql://...'
    """
    found = _PARTS.fullmatch(str.__str__(url))
    if found is None or _PASSWORD_IN_FRONT.match(str.__str__(url)):
        return UNREADABLE
    rest = {name: values[-1] for name, values in parse_qs(found["rest"] or "").items()}
    user = unquote(found["user"] or "") or rest.get("user", "")
    port = f":{rest['port']}" if "port" in rest else ""
    base = (found["base"] or "")[1:] or rest.get("dbname", user)
    schema = _SEARCH_PATH.search(rest.get("options", ""))
    options = f"{OF_SCHEMA}{quote(schema[1], safe=',')}" if schema else ""
    return f"postgresql://{user and f'{user}@'}{found['host'] or rest.get('host', '')}{port}/{base}{options}"


def options_of(url: str) -> str:
    """What an address sets, like the search path: of two logs of one database, which it is.

    >>> options_of("postgresql://ann:secret@db/shop?options=-csearch_path%3Dtoys")
    '-csearch_path=toys'
    """
    found = _PARTS.fullmatch(str.__str__(url))
    return "" if found is None else parse_qs(found["rest"] or "").get("options", [""])[-1]


def has_password(text: str) -> bool:
    """Whether a text is an address with a password.

    >>> has_password("postgresql://ann:secret@db/shop"), has_password("postgresql://ann@db/shop"), has_password("a.db")
    (True, False, False)
    """
    found = _PARTS.fullmatch(text)
    in_front = text.partition("://")[2].rpartition("@")[0]
    return text.startswith(SCHEMES) and (found is None or "password=" in text or ":" in in_front)


def log_place(text: str) -> Path | LogUrl:
    """Where a log is, as people write it.

    >>> log_place("demo.db"), type(log_place("postgresql://db/shop")).__name__
    (PosixPath('demo.db'), 'LogUrl')
    >>> log_place("postgresql+psycopg://ann:secret@db/shop"), log_place("host=db password=secret")
    (LogUrl('postgresql://...'), LogUrl('postgresql://...'))
    """
    if isinstance(text, LogUrl):  # whose text, as others see it, is not all of it
        return text
    return LogUrl(text) if _ALMOST.fullmatch(text) else Path(text)
