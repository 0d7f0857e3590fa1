"""Every way in of the web port by every stranger, from pages of everybody's. Called by `attacker.py`.

A visitor is a stranger with the origin of a page and a place for the token: a browser adds `Origin` to what a page
sends, and nothing else about the page. What a page of a stranger's may neither read nor do is judged here beside what
the stranger's own token is good for. The RPCs are those of the served descriptors.
"""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import NamedTuple
from urllib.parse import quote

from google.protobuf.message import Message

from decider.server.roles import Role
from simulator.studies.attack.calls import WRITES, Method, decked, foreign, not_served, served_methods
from simulator.studies.attack.doors import BEACON, CONNECT_JSON, DOORS, STREAM, Answer, Door, Sent, unzipped
from simulator.studies.attack.findings import Finding
from simulator.studies.attack.names import (
    KNOWN_DECISIONS,
    KNOWN_UNIT,
    OWN,
    PAGE_KEYS,
    SITE,
    VICTIM,
    Aim,
    Identity,
    leaks,
)
from simulator.studies.attack.requests import request_of
from simulator.studies.attack.sockets import PATIENCE, REFUSED, STRANGER, context_of

ON_THE_WEB = ("decider.v1.DeciderService/", "flagd.")
"""How the names of RPCs begin that the web port has."""

OTHER_ORIGINS = (
    "https://evil.example", "null", f"{SITE}.evil.example", SITE.replace("https", "http"), f"{SITE}:444",
    SITE.upper(), f"{SITE}/", f"{SITE}, https://evil.example", f"{SITE} https://evil.example", "https://evilshop.example",
    "https://sub.shop.example", "file://", "*", "", "https://127.0.0.1", f" {SITE}@evil.example",
)  # fmt: skip
"""Of pages that nobody has let in; browsers send the first three kinds."""

PLACES: Sequence[tuple[str, str]] = (
    ("GET", "/"), ("GET", "/metrics"), ("GET", f"/experiments/{VICTIM}"), ("GET", "/decisions"), ("GET", "/healthz"),
    ("POST", f"/experiments/{VICTIM}"), ("GET", f"/decisions/{KNOWN_DECISIONS[0]}"), ("GET", "/readyz"),
    ("GET", "/client.js"), ("GET", "/client.js/../metrics"), ("GET", "/%2e%2e/%2e%2e/etc/passwd"),
    ("POST", "/ofrep/v1/evaluate/flags/" + VICTIM), ("POST", f"/ofrep/v1/evaluate/flags/{VICTIM}:object"),
    ("POST", "/ofrep/v1/evaluate/flags"), ("POST", "/ofrep/v1/evaluate/flags/" + OWN),
    ("GET", "/ofrep/v1/configuration"), ("GET", "/tokens.toml"),
    ("POST", "/ofrep/v1/evaluate/flags/" + quote(f"{OWN}/../{VICTIM}", safe="")),
    ("POST", f"/ofrep/v1/evaluate/flags/{OWN}%00{VICTIM}"), ("PUT", "/ofrep/v1/evaluate/flags/" + VICTIM),
    ("GET", "/ofrep/v1/evaluate/flags/" + VICTIM), ("GET", "/decider.v1.DeciderService/Decide?message=%7B%7D"),
    ("POST", "//decider.v1.DeciderService/Decide"), ("POST", "/decider.v1.DeciderService/Decide/"),
    ("POST", "/decider.v1.deciderservice/decide"), ("POST", "/%64ecider.v1.DeciderService/Decide"),
)  # fmt: skip
SHORT_STREAM = "300"
"""Milliseconds after which a stream ends that is let in."""

PUBLIC = "/client.js"
"""The one place that every page may read."""

OFREP = "/ofrep/"


@dataclass(frozen=True, slots=True)
class Visitor:
    """origin: None: not sent. headers, query: with which the token or key is sent. let_in: whether anything of the
    stranger's own experiment may be answered; else nothing at all."""

    identity: Identity
    origin: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    query: str = ""
    let_in: bool = True
    how: str = ""

    @property
    def name(self) -> str:
        """For the tables: the stranger, and whose page it is."""
        return self.identity.name + (f", {self.how}" if self.how else "")


def visitors(aim: Aim) -> Sequence[Visitor]:
    """All of them. A token in an address is in somebody's log, so that it must not be good for anything; a page's key
    is public, so that it must be good for its pages alone."""
    identities = [one for one in aim.identities if one.name != PAGE_KEYS]  # those come with their pages, below
    some = [identities[0], *[one for one in identities if one.roles]]
    other = [Visitor(one, OTHER_ORIGINS[0], let_in=False, how="other page") for one in some]
    if not aim.asks:  # then whoever is no page may do everything
        return other
    site = [Visitor(one, SITE, how="page of the site") for one in identities]
    alone = [Visitor(one) for one in identities]
    return [*site, *other, *alone, *_with_tokens_elsewhere(identities), *_with_keys(aim)]


def _with_tokens_elsewhere(identities: Sequence[Identity]) -> Iterator[Visitor]:
    for one in identities:
        if one.authorizations and one.experiments:
            token, bare = one.authorizations[0].removeprefix("Bearer "), replace(one, authorizations=())
            yield Visitor(bare, None, (), _query(token), let_in=False, how="in the address")
            yield Visitor(bare, None, (("X-API-Key", token),), how="as X-API-Key")


def _with_keys(aim: Aim) -> Sequence[Visitor]:
    own, victims, old = (aim.keys[name] for name in ("own", "victim", "old"))
    mine = Identity("own page's key", (f"Bearer {own}",), roles=("decide", "reward"), experiments=(OWN,))
    bare = replace(mine, authorizations=())
    theirs = Identity("victim's page's key", (f"Bearer {victims}",))
    return [
        Visitor(mine, SITE, how="page of the site"),
        Visitor(bare, SITE, (("X-API-Key", own),), how="page of the site, as X-API-Key"),
        Visitor(bare, SITE, (), _query(own), how="page of the site, in the address"),
        Visitor(mine, None, let_in=False, how="no page"),
        Visitor(mine, OTHER_ORIGINS[0], let_in=False, how="other page"),
        Visitor(bare, OTHER_ORIGINS[0], (), _query(own), let_in=False, how="other page, in the address"),
        Visitor(theirs, None, let_in=False, how="no page"),
        Visitor(theirs, OTHER_ORIGINS[0], let_in=False, how="other page"),
        Visitor(Identity("victim's page's key"), None, (), _query(victims), let_in=False, how="in the address"),
        Visitor(Identity("old page's key", (f"Bearer {old}",)), SITE, let_in=False, how="page of the site"),
    ]


def _query(key: str) -> str:
    return f"?key={quote(key)}"


class Target(NamedTuple):
    """What is asked for: an RPC through a door, or a place."""

    door: Door | None
    method: Method | None
    verb: str
    path: str

    @property
    def name(self) -> str:
        """For the tables."""
        return f"{self.door.name}: {self.path}" if self.door else f"{self.verb} {self.path}"

    @property
    def kind(self) -> str:
        """The door; or that it is a place, or a preflight."""
        return self.door.name if self.door else "preflights" if self.verb == PREFLIGHT else "places"


PREFLIGHT = "OPTIONS"


def targets() -> Sequence[Target]:
    """All of them: what the web port has by every door, what it must not have by two of them, preflights, places."""
    found = []
    for method in [*served_methods(), *not_served()[:2]]:
        here = method.name.startswith(ON_THE_WEB)
        doors = (STREAM,) if method.streams else DOORS if here else (CONNECT_JSON, BEACON)
        found += [Target(door, method, "POST", f"/{method.name}") for door in doors]
        found.append(Target(None, None, PREFLIGHT, f"/{method.name}"))
    return [*found, *(Target(None, None, verb, path) for verb, path in PLACES)]


BELIEVED: Sequence[tuple[str, str]] = (
    ("X-Forwarded-For", "127.0.0.1"), ("X-Forwarded-For", "203.0.113.9, 127.0.0.1"), ("Forwarded", f"host={SITE}"),
    ("X-Forwarded-Host", "shop.example"), ("Host", "shop.example"), ("Host", "evil.example"), ("Referer", f"{SITE}/"),
    ("X-HTTP-Method-Override", "POST"), ("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Mode", "navigate"),
    ("Cookie", "token=wrong"), ("Connect-Timeout-Ms", "1"), ("Connect-Timeout-Ms", "99999999999"), ("Upgrade", "h2c"),
    ("grpc-timeout", "99999999H"), ("Accept-Encoding", "gzip"), ("Connect-Protocol-Version", "9"),
    ("Access-Control-Request-Private-Network", "true"), ("If-None-Match", "*"), ("X-Grpc-Web", "1"),
)  # fmt: skip
"""Now and then one of these is sent, too."""


GROUPS: Mapping[str, Sequence[Target]] = {
    kind: [one for one in targets() if one.kind == kind] for kind in dict.fromkeys(one.kind for one in targets())
}
"""Targets by their door: what one of them lets in, its others would, too."""


class Frontends:
    """Takes the next (visitor, door) with each step, and one of the targets there; each has a connection of its own."""

    name = "frontends"

    def __init__(self, aim: Aim, random: Random) -> None:
        self._aim = aim
        self._cards = [(who, kind) for who in visitors(aim) for kind in GROUPS]
        self._deck = decked(self._cards, random)
        self._lock = threading.Lock()
        identities = {who.identity.name: who.identity for who, _ in self._cards}
        self._contexts = {name: context_of(aim.ca, one.cert, one.key) for name, one in identities.items()}

    def cards(self) -> Sequence[tuple[str, str]]:
        """(visitor, door), all of them."""
        return [(who.name, kind) for who, kind in self._cards]

    def step(self, random: Random) -> Finding:
        """One request."""
        with self._lock:
            visitor, kind = next(self._deck)
        target = random.choice(GROUPS[kind])
        own = visitor.identity.experiments == (OWN,)
        sent, request = _written(target, random, own=own)
        origin = random.choice(OTHER_ORIGINS) if visitor.how.startswith("other page") else visitor.origin
        try:
            answer = self._fetch(replace(visitor, origin=origin), target, sent, random)
        except (*REFUSED, http.client.HTTPException) as error:
            return Finding(self.name, visitor.name, kind, type(error).__name__)
        breach = judge(self._aim, replace(visitor, origin=origin), target, request, answer)
        return Finding(self.name, visitor.name, kind, str(answer.status), breach and f"{target.name}: {breach}")

    def drop(self) -> None:
        """Nothing stays open."""

    def _fetch(self, visitor: Visitor, target: Target, sent: Sent, random: Random) -> Answer:
        headers = [] if visitor.origin is None else [("Origin", visitor.origin)]
        headers += [("Content-Type", sent.content_type)] if sent.content_type else []
        if visitor.identity.authorizations:
            headers.append(("Authorization", random.choice(visitor.identity.authorizations)))
        if target.verb == PREFLIGHT:
            headers += [("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "authorization")]
        headers += [("Connect-Timeout-Ms", SHORT_STREAM)] if target.door is STREAM else []
        headers += [*visitor.headers, *([random.choice(BELIEVED)] if random.random() < 0.3 else [])]
        context = self._contexts[visitor.identity.name]
        path = target.path + (visitor.query if "?" not in target.path else visitor.query.replace("?", "&"))
        return fetch(self._aim.web, context, target.verb, path, headers, sent.body)


def _written(target: Target, random: Random, *, own: bool) -> tuple[Sent, Message | None]:
    if target.door and target.method:
        may_be_own = own and target.method.role is not Role.OPERATE
        request = request_of(target.method.request, random, own=may_be_own)
        return target.door.write(request), request
    if target.verb not in ("POST", "PUT"):
        return Sent("", b""), None
    kind = random.choice(("application/json", "text/plain", "application/x-www-form-urlencoded", ""))
    body = {
        "context": {"targetingKey": KNOWN_UNIT, "decision_id": random.choice(KNOWN_DECISIONS)},
        "experiment": VICTIM,
    }
    return Sent(kind, json.dumps(body).encode()), None


def fetch(
    address: str, context: ssl.SSLContext, verb: str, path: str, headers: Sequence[tuple[str, str]], body: bytes
) -> Answer:
    """One request on a connection of its own, from the strangers' machine. Raises OSError, HTTPException."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPSConnection(
        host, int(port), timeout=PATIENCE, context=context, source_address=STRANGER
    )
    try:
        connection.putrequest(verb, path, skip_host="Host" in dict(headers), skip_accept_encoding=True)
        for name, value in [*headers, ("Content-Length", str(len(body))), ("Connection", "close")]:
            connection.putheader(name, value)
        connection.endheaders(body)
        reply = connection.getresponse()
        return Answer(reply.status, reply.getheaders(), unzipped(reply.read()))
    finally:
        connection.close()


def judge(aim: Aim, visitor: Visitor, target: Target, request: Message | None, answer: Answer) -> str:
    """Why it must not end so; empty where it may."""
    if leaks(aim.secret, answer.pieces):
        return "holds what is the victim's"
    if breach := _shared(visitor, target, answer):
        return breach
    if answer.status // 100 != 2 or target.verb == PREFLIGHT or target.path == PUBLIC:
        return ""
    if not visitor.let_in:
        return "" if _is_refusal(target, answer) else f"answered, from {visitor.origin!r}"
    if target.door and target.method:
        return _of_call(visitor.identity, target.door, target.method, request, answer)
    return _of_place(visitor.identity, target)


def _shared(visitor: Visitor, target: Target, answer: Answer) -> str:
    """What a page may read of it."""
    allowed = answer.header("access-control-allow-origin")
    if answer.header("access-control-allow-credentials") is not None:
        return "pages may send cookies"
    if target.path == PUBLIC or allowed is None or allowed == visitor.origin == SITE:
        return ""
    return f"pages of {allowed!r} may read it, and it was sent from one of {visitor.origin!r}"


def _is_refusal(target: Target, answer: Answer) -> bool:
    """gRPC-Web and streams refuse with 200, and say so in the body."""
    return bool(target.door and target.method and target.door.read(answer, target.method.reply) is None)


def _of_call(identity: Identity, door: Door, method: Method, request: Message | None, answer: Answer) -> str:
    reply = door.read(answer, method.reply)
    if reply is None:
        return ""
    if not identity.may(method.role):
        return f"it has not the role {method.role}"
    if not method.name.startswith(ON_THE_WEB):
        return "the web port must not have it"
    if method.role in WRITES and not identity.may_use(method.role):
        return foreign(method, request, reply)
    return ""


def _of_place(identity: Identity, target: Target) -> str:
    if target.path.startswith(OFREP) and identity.may(Role.DECIDE):
        foreign_flag = VICTIM in target.path and not identity.may_use(Role.DECIDE)
        return "a flag of another experiment" if foreign_flag else ""
    return "the web port must not have it"
