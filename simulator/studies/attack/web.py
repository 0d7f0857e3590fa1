"""Every path with every method by every stranger, over HTTP as it is written on the wire. Called by `attacker.py`.

The paths are those of `roles.py`, without a row in which the server would not start; beside them ways to write a path
otherwise, and headers that proxies and frameworks believe.
"""

from __future__ import annotations

import re
import threading
import zlib
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from decider.server.roles import PATHS, Role
from simulator.studies.attack.calls import decked
from simulator.studies.attack.findings import Finding
from simulator.studies.attack.names import KNOWN_DECISIONS, VICTIM, Aim, Identity, leaks, shows_every_experiment
from simulator.studies.attack.requests import form_headers, form_of
from simulator.studies.attack.sockets import REFUSED, connect, context_of, read_all

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get", "PROPFIND")

PUBLIC = (b"", b"ok\n", b"not ready; why is said to who may read every experiment\n")
"""What is said to everybody."""

LARGEST_ANSWER = 2**20


class Place(NamedTuple):
    """Something to ask for. row: of `roles.PATHS`; empty where the path is written so that nobody knows."""

    row: str
    path: str


def known_places() -> Sequence[Place]:
    """Every row, with what is the victim's."""
    found = [Place(row, re.sub(r"\{.*\}", text, row)) for row in PATHS for text in _fillings(row)]
    return [*found, Place("/decisions", f"/decisions?id={KNOWN_DECISIONS[0]}")]


def _fillings(row: str) -> Sequence[str]:
    if "decision_id" in row:
        return (KNOWN_DECISIONS[0], f"{KNOWN_DECISIONS[1]}.json")
    return (VICTIM,) if "{" in row else ("",)


TRICKS = (
    "/{}", "/./{}", "/%2e/{}", "/healthz/../{}", "/healthz/%2e%2e/{}", "/healthz%2f..%2f{}", "/{}/", "/{};a", "/{}%00",
    "/{}?access_token=wrong&token=wrong", "/healthz?/{}", "/healthz#/{}", "/%2f{}", "\\{}", "{}", "http://{host}/{}",
    "https://healthz/{}", "/{}.json", "/readyz/..;/{}", "/{}%20", "/{}%0d%0aX-Role:%20read", "*",
)  # fmt: skip
"""Ways to write a path; now and then with its first letter in capitals."""

BELIEVED: Sequence[tuple[str, str]] = (
    ("X-Original-URL", "/metrics"), ("X-Rewrite-URL", "/metrics"), ("X-HTTP-Method-Override", "POST"),
    ("X-Forwarded-For", "127.0.0.1"), ("X-Real-IP", "127.0.0.1"), ("Forwarded", "for=127.0.0.1"),
    ("X-Forwarded-User", "root"), ("X-Client-Cert", "root"), ("X-SSL-Client-S-DN", "CN=root"),
    ("X-Forwarded-Client-Cert", "Subject=\"CN=root\""), ("Host", "127.0.0.1"), ("Host", "evil.example"),
    ("Cookie", "token=wrong; session=root"), ("Upgrade", "websocket"), ("Upgrade", "h2c"),
    ("Accept", "application/json"),
    ("Accept-Encoding", "gzip"), ("Authorization", "Bearer"), ("Proxy-Authorization", "Bearer wrong"),
    ("Transfer-Encoding", "chunked"), ("Content-Length", "0"), ("Expect", "100-continue"), ("Range", "bytes=0-100"),
    ("Connection", "Authorization"),
)  # fmt: skip


class Web:
    """Takes the next (stranger, path, method) with each step; each has a connection of its own."""

    name = "pages"

    def __init__(self, aim: Aim, random: Random) -> None:
        self._aim = aim
        self._cards = [(who, place, method) for who in aim.identities for place in known_places() for method in METHODS]
        self._cards += [
            (who, Place("", trick), method) for who in aim.identities for trick in TRICKS for method in ("GET", "POST")
        ]
        self._deck = decked(self._cards, random)
        self._lock = threading.Lock()
        self._contexts = {one.name: context_of(aim.ca, one.cert, one.key) for one in aim.identities}

    def step(self, random: Random) -> Finding:
        """One request."""
        with self._lock:
            identity, place, method = next(self._deck)
        what = _what(place, method)
        if not place.row:
            place = Place("", _written_otherwise(place.path, random, self._aim.http))
        try:
            status, pieces, body = self._fetch(identity, place, method, random)
        except REFUSED as error:
            return Finding(self.name, identity.name, what, type(error).__name__)
        breach = self._breach(identity, place, method, status, pieces, body)
        return Finding(self.name, identity.name, what, status, breach)

    def cards(self) -> Sequence[tuple[str, str]]:
        """(stranger, path and method), all of them."""
        return [(identity.name, _what(place, method)) for identity, place, method in self._cards]

    def drop(self) -> None:
        """Nothing stays open."""

    def _fetch(
        self, identity: Identity, place: Place, method: str, random: Random
    ) -> tuple[str, Sequence[bytes], bytes]:
        with connect(self._aim.http, self._contexts[identity.name]) as socket:
            socket.sendall(_written(identity, place.path, method, random))
            answer = read_all(socket, LARGEST_ANSWER)
        head, _, body = answer.partition(b"\r\n\r\n")
        found = re.match(rb"HTTP/1\.1 (\d+)", head)
        return found[1].decode() if found else "nothing", [head, body], _unzipped(body)

    def _breach(
        self, identity: Identity, place: Place, method: str, status: str, pieces: Sequence[bytes], body: bytes
    ) -> str:
        role = identity.role_for(PATHS[place.row], method) if place.row else Role.READ
        if leaks(self._aim.secret, [*pieces, body]) and not identity.reads_all:
            return f"{place.path!r} holds what is the victim's"
        good = status[:1] in "23"
        if not good or (body in PUBLIC and not place.row) or role is None:
            return ""
        if not identity.may(role):
            return f"{place.path!r}: it has not the role {role}"
        foreign = "{" in place.row or shows_every_experiment(place.row)
        if status[:1] == "2" and foreign and not identity.may_use(role):
            return f"{place.path!r} is another experiment's"
        return ""


def _what(place: Place, method: str) -> str:
    return f"{method} {place.row or 'written as ' + place.path}"


def _written_otherwise(trick: str, random: Random, host: str) -> str:
    path = random.choice(known_places()).path.lstrip("/")
    path = path.capitalize() if random.random() < 0.1 else path
    return trick.replace("{host}", host).replace("{}", path)


def _written(identity: Identity, path: str, method: str, random: Random) -> bytes:
    """A request, with headers of all kinds."""
    body = form_of(random) if method not in ("GET", "HEAD", "get") else ""
    headers = [("Host", "127.0.0.1"), ("Connection", "close")]
    headers += [("Authorization", random.choice(identity.authorizations))] if identity.authorizations else []
    headers += [*form_headers(), ("Content-Length", str(len(body)))] if body else []
    headers += [random.choice(BELIEVED)] if random.random() < 0.4 else []
    target = path.replace("known-0", "known-0?id=known-0", 1) if random.random() < 0.02 else path
    lines = [f"{method} {target} HTTP/1.1", *[f"{name}: {value}" for name, value in headers]]
    return "\r\n".join([*lines, "", body]).encode()


def _unzipped(body: bytes) -> bytes:
    if not body.startswith(b"\x1f\x8b"):
        return body
    try:
        return zlib.decompress(body, wbits=31)
    except zlib.error:
        return body
