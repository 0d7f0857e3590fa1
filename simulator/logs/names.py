"""Names of columns as people write them: `userId`, `User ID`, `user_id` are one. Pure; called by the readers of tables.

A field's name is also evidence of what it holds: see `id_fields.py`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

PMF = "pmf."
"""`pmf.ACTION` is a column with the logged probability of an action; empty where it was not eligible."""

CONTEXT = "context."
"""`context.NAME` is the context field NAME: for names that mean something else here."""

_UNSEEN = " \t\r\n\u00a0\u200b\ufeff"
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_A-Za-z]+")


def cleaned(name: str) -> str:
    """Without the blanks and byte order marks around it, which nobody sees; what stands after a mark stays as it is.

    >>> cleaned("\\ufeff propensity "), cleaned(" pmf.buy now ")
    ('propensity', 'pmf.buy now ')
    """
    start = name.lstrip(_UNSEEN)
    return start if start.startswith((PMF, CONTEXT)) else start.rstrip(_UNSEEN)


def words_of(name: str) -> tuple[str, ...]:
    """The words of a name, in lower case.

    >>> words_of("userID"), words_of("User-Id 2"), words_of("EventId")
    (('user', 'id'), ('user', 'id', '2'), ('event', 'id'))
    """
    return tuple([word.casefold() for word in _WORD.findall(name)])


def plain(name: str) -> str:
    """Equal for all ways of writing one name.

    >>> len({plain(name) for name in ("userId", "UserID", "user-id", "User ID", "user_ID", " userid", "USERID")})
    1
    """
    return "".join(words_of(name))


def repeated_names(names: Iterable[str]) -> list[str]:
    """Those that stand there more than once; a column without a name is none.

    >>> repeated_names(["a", "b", "a", "", ""])
    ['a']
    """
    count: dict[str, int] = defaultdict(int)
    for name in names:
        count[name] += 1
    return [name for name, times in count.items() if name and times > 1]


def by_plain(names: Sequence[str]) -> Mapping[str, list[str]]:
    """The names by what they are without their way of writing.

    >>> dict(by_plain(["userId", "x", "user_id"]))
    {'userid': ['userId', 'user_id'], 'x': ['x']}
    """
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        found[plain(name)].append(name)
    return found
