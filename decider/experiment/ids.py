"""What an id of an experiment or action may be, and a kind. Called by `checks.py`, `limit_checks.py` and the server."""

from __future__ import annotations

import re
from collections.abc import Iterable

from decider.errors import Violation

_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def is_id(text: str) -> bool:
    """Whether it can be an id of an experiment or action.

    >>> is_id("article-7"), is_id("two words")
    (True, False)
    """
    return _ID.fullmatch(text) is not None


def id_violation(path: str, id_: str) -> Iterable[Violation]:
    """What is wrong with an id, or a kind."""
    if not is_id(id_):
        yield Violation(path, f"{id_[:80]!r} is not 1 to 64 letters, digits, '-', '_' or '.'")
