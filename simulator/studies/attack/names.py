"""What the strangers know, what they must never see, and who they are. Plain data: it goes to their process as JSON.

Called by everything in this room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from decider.server.roles import READING, WHOLE_LOG, Rights, Role

VICTIM, OWN = "victim", "own"
"""Experiments: the one that is attacked, and the one that some strangers have tokens for."""

SITE = "https://shop.example"
"""From which the page takes changes."""

KNOWN = "known"
"""Decisions of the victim's with such ids are known to the strangers, as ids of orders may be."""

KNOWN_DECISIONS = tuple(f"{KNOWN}-{number}" for number in range(8))
KNOWN_UNIT = "known-unit"
PAGE_KEYS = "page's key"
"""The stranger that has those keys of pages that everybody can read."""

MARK = "attack"
"""In all that the strangers write."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A stranger. authorizations: headers, one of which is sent; none: no such header. cert, key: files of a
    certificate, empty: none. joins: whether its certificate gets it through the handshake of gRPC. roles, experiments:
    what a token or certificate of its own is good for."""

    name: str
    authorizations: tuple[str, ...] = ()
    cert: str = ""
    key: str = ""
    joins: bool = True
    roles: tuple[str, ...] = ()
    experiments: tuple[str, ...] = ()

    @property
    def rights(self) -> Rights:
        """What the server has to let it do."""
        return Rights(self.name, frozenset(map(Role, self.roles)), frozenset(self.experiments) or None)

    @property
    def reads_all(self) -> bool:
        """Whether it may read the victim's."""
        return Role.READ in self.rights.roles and not self.experiments

    def may(self, role: Role | None) -> bool:
        """Whether the role is enough for it, of whatever experiment."""
        return role is None or role in self.rights.roles

    def may_use(self, role: Role | None) -> bool:
        """The same for what is the victim's."""
        return role is None or (role in self.rights.roles and not self.experiments)

    def role_for(self, path_role: Role | None, method: str) -> Role | None:
        """What a request over HTTP needs."""
        return path_role if path_role is None or method in READING else Role.OPERATE

    @classmethod
    def of_json(cls, found: Mapping[str, Any]) -> Self:
        """As `dataclasses.asdict` made it, through JSON."""
        plain: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in found.items()}
        return cls(**plain)


@dataclass(frozen=True, slots=True)
class Aim:
    """target, http, web: HOST:PORT. ca: file of the authority. secret: a text that is in all of the victim's that
    the strangers do not know. asks: whether the server asks who calls. keys: of pages, by the name of their row.
    seldom: calls a second that the key with that name has. rate: of all attacks; 1: as their tables say. only: attacks
    with these names; none: all."""

    target: str
    http: str
    web: str
    ca: str
    secret: str
    identities: tuple[Identity, ...]
    seed: int
    asks: bool = True
    keys: Mapping[str, str] = field(default_factory=dict)
    seldom: float = 0.0
    rate: float = 1.0
    only: tuple[str, ...] = ()

    @classmethod
    def of_json(cls, found: Mapping[str, Any]) -> Self:
        """As `dataclasses.asdict` made it, through JSON."""
        identities = tuple(map(Identity.of_json, found["identities"]))
        return cls(**{**found, "identities": identities, "only": tuple(found["only"])})


def shows_every_experiment(path: str) -> bool:
    """Of a row of `roles.PATHS`."""
    return path in WHOLE_LOG


def leaks(secret: str, pieces: Sequence[bytes | str]) -> bool:
    """Whether something of the victim's is in an answer."""
    encoded = secret.encode()
    return any(encoded in (piece.encode() if isinstance(piece, str) else piece) for piece in pieces)
