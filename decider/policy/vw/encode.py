"""Context and actions -> Vowpal Wabbit's text lines, of features that `features.py` has named. The only place that
writes that format.

Namespace C holds the context, A the action. Called by `workspace.py`.
"""

from __future__ import annotations

from functools import lru_cache

from decider.policy.features import CACHE_ENTRIES, CACHED_CHARACTERS, Vector, category, fields_vector
from decider.policy.protocol import Choice


def context_line(fields: tuple[str, ...], free: Vector = ()) -> str:
    """The shared line of one decision: the context's own fields, and the free features.

    >>> context_line(("new visitor", "", "", "", ""), (("age:", 31.0), ("vip=true", 1.0)))
    'shared |C segment=new%20visitor age:31.0 vip=true'
    """
    known = sum(map(len, fields)) <= CACHED_CHARACTERS
    line = _fields_line(fields) if known else _fields_line.__wrapped__(fields)
    return line + _tokens(free) if free else line


@lru_cache(maxsize=CACHE_ENTRIES)
def _fields_line(fields: tuple[str, ...]) -> str:
    return f"shared |C{_tokens(fields_vector(fields))}"


def action_line(choice: Choice) -> str:
    """The line of one action.

    >>> from decider.types import ActionId
    >>> action_line(Choice(ActionId("sale"), "offer", {"price": 8, "colour": "red|blue"}))
    '|A id=sale kind=offer colour=red%7Cblue price:8.0'
    """
    return f"|A{_tokens((category('id', choice.id), category('kind', choice.kind), *choice.vector))}"


def _tokens(vector: Vector) -> str:
    return "".join([f" {name}{value!r}" if name.endswith(":") else f" {name}" for name, value in vector])
