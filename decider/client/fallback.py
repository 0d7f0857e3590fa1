"""What the page shows when there is no answer. Called by `decisions.py`."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from decider.client.values import full_text, text, tree, type_of
from decider.v1 import decider_service_pb2 as pb


class Absent(enum.Enum):
    """An argument that was not given. None is not this: it is a fallback, or an amount, that a page failed to find."""

    ABSENT = "absent"


ABSENT = Absent.ABSENT


@dataclass(frozen=True, slots=True)
class Fallback:
    """An action with all that the page needs to show it. message: as in a reply of the server.

    >>> Fallback("sale", payload={"title": "20 % off"}).id
    'sale'
    """

    id: str
    kind: str = ""
    payload: Mapping[str, object] = field(default_factory=dict)
    message: pb.DecidedAction = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raises TypeError or ValueError here, where the fallback is written, and not in the first outage."""
        if not isinstance(self.payload, Mapping):
            raise TypeError(f"fallback.payload: is {type_of(self.payload)}; give a mapping")
        made = pb.DecidedAction(id=full_text("fallback.id", self.id), kind=text("fallback.kind", self.kind))
        made.payload.update(tree("fallback.payload", self.payload))
        object.__setattr__(self, "message", made)  # once, not in every call


GivenFallback = str | Fallback | pb.DecidedAction | Absent
"""An action's id; an action; or none."""


GivenFallbacks = Sequence[str | Fallback | pb.DecidedAction] | Absent
"""One for each slot; or none at all."""


def read_fallback(given: GivenFallback, field: str = "fallback") -> pb.DecidedAction | None:
    """The action to show, or None where none was given. Raises TypeError or ValueError for anything else.

    >>> read_fallback(None)
    Traceback (most recent call last):
        ...
    TypeError: fallback: is None; give an action's id or a Fallback, or leave it out and catch the errors
    """
    match given:
        case Absent.ABSENT:
            return None
        case Fallback():
            return given.message
        case pb.DecidedAction():
            full_text(f"{field}.id", given.id)
            return given
        case str():
            return pb.DecidedAction(id=full_text(field, given))
    raise TypeError(
        f"{field}: is {type_of(given)}; give an action's id or a Fallback, or leave it out and catch the errors"
    )


def read_fallbacks(given: GivenFallbacks) -> list[pb.DecidedAction] | None:
    """The action to show in each slot, or None where none were given. Raises TypeError or ValueError for anything else.

    >>> read_fallbacks("sale")
    Traceback (most recent call last):
        ...
    TypeError: fallback: is of type str; give a list of actions, one for each slot
    """
    if isinstance(given, Absent):
        return None
    if isinstance(given, str | bytes) or not isinstance(given, Sequence):
        raise TypeError(f"fallback: is {type_of(given)}; give a list of actions, one for each slot")
    shown = [read_fallback(one, f"fallback[{place}]") for place, one in enumerate(given)]
    if not shown or None in shown:
        raise ValueError("fallback: is empty, or has a place that is; give an action for each slot")
    return [one for one in shown if one is not None]


def check_each_has_one(shown: Sequence[pb.DecidedAction], slots: Sequence[object]) -> None:
    """Raises ValueError where there are more actions than slots, or fewer. Without slots it is these that are wrong."""
    if slots and len(slots) != len(shown):
        raise ValueError(f"fallback: has {len(shown)} actions for {len(slots)} slots; give one for each")


def fallback_reply(shown: pb.DecidedAction) -> pb.DecideResponse:
    """It has no decision id: nothing was decided, so there is nothing to reward."""
    return pb.DecideResponse(action=shown, propensity=1.0, reason=pb.REASON_FALLBACK)


def fallback_slate(shown: Sequence[pb.DecidedAction]) -> pb.DecideSlateResponse:
    """It has no slate id either."""
    return pb.DecideSlateResponse(decisions=map(fallback_reply, shown))
