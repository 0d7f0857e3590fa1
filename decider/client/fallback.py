"""What the page shows when there is no answer. Called by `decisions.py`."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from decider.client.values import full_text, text, tree
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
            raise TypeError(f"fallback.payload: is of type {type(self.payload).__name__}; give a mapping")
        made = pb.DecidedAction(id=full_text("fallback.id", self.id), kind=text("fallback.kind", self.kind))
        made.payload.update(tree("fallback.payload", self.payload))
        object.__setattr__(self, "message", made)  # once, not in every call


GivenFallback = str | Fallback | pb.DecidedAction | Absent
"""An action's id; an action; or none."""


def read_fallback(given: GivenFallback, path: str = "") -> pb.DecidedAction | None:
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
            full_text(f"{path}fallback.id", given.id)
            return given
        case str():
            return pb.DecidedAction(id=full_text(f"{path}fallback", given))
    kind = "None" if given is None else f"of type {type(given).__name__}"
    raise TypeError(
        f"{path}fallback: is {kind}; give an action's id or a Fallback, or leave it out and catch the errors"
    )


def fallback_reply(shown: pb.DecidedAction) -> pb.DecideResponse:
    """It has no decision id: nothing was decided, so there is nothing to reward."""
    return pb.DecideResponse(action=shown, propensity=1.0, reason=pb.REASON_FALLBACK)
