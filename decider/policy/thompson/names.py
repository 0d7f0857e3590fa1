"""Contexts and actions -> the features by which the regressions know them. Called by `thompson.py` and `pmf.py`."""

from __future__ import annotations

from functools import lru_cache

from decider.policy.features import CACHED_CHARACTERS, Vector, category, fields_vector, vector_of
from decider.policy.protocol import Choice
from decider.policy.thompson.arrays import FEATURE, Cache, floats_of
from decider.policy.thompson.features import CONSTANT, OF_ACTION
from decider.policy.thompson.recurring import Recurring
from decider.types import ActionId, Context

NAME_CACHE = 10_000
"""Most sets of context fields whose features are cached."""

ActionNames = tuple[tuple[str, ...], tuple[Vector, ...]]
"""The ids of actions as the regressions name them, and each action's features."""

_known_ids: Cache[tuple[ActionId, ...], tuple[str, ...]] = Cache()

_names_of_actions: Cache[tuple[Choice, ...], ActionNames] = Cache()


def action_names(actions: tuple[Choice, ...]) -> ActionNames:
    """Of these actions, made once for each set of them that recurs."""
    if not _recurring(actions):
        return _makeaction_names(actions)
    known = _names_of_actions.get(actions)
    if known is None:
        known = _makeaction_names(actions)
        # Twice: the choices are kept as well, with the features that they were made from.
        size = 4 * FEATURE * len(known[1]) + 2 * sum(map(floats_of, known[1]))
        _names_of_actions.put(actions, known, floats=size)
    return known


def _makeaction_names(actions: tuple[Choice, ...]) -> ActionNames:
    own = [
        tuple([(f"{OF_ACTION}{name}", value) for name, value in one.vector]) if one.vector else () for one in actions
    ]
    return _ids_of(tuple([one.id for one in actions])), tuple(own)


def _ids_of(actions: tuple[ActionId, ...]) -> tuple[str, ...]:
    ids = _known_ids.get(actions)
    if ids is None:
        ids = tuple([category("id", id_)[0] for id_ in actions])
        _known_ids.put(actions, ids, floats=FEATURE * len(actions) + sum(map(len, actions)))
    return ids


def context_features(context: Context) -> Vector:
    """The features of a context; the first is the constant.

    >>> context_features(Context(device="mobile", features={"age": 31}))
    (('constant', 1.0), ('device=mobile', 1.0), ('age:', 31.0))
    """
    own = context[:5]
    # Long texts are not kept, so that a number of entries is a number of bytes.
    fields = _with_constant(own) if sum(map(len, own)) <= CACHED_CHARACTERS else _with_constant.__wrapped__(own)
    return fields + vector_of(context.features) if context.features else fields


_recurring = Recurring()


@lru_cache(maxsize=NAME_CACHE)
def _with_constant(fields: tuple[str, ...]) -> Vector:
    return ((CONSTANT, 1.0), *fields_vector(fields))
