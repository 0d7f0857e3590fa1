"""The attack: a short one finds a guarded server sound, and each of its checks finds a server that asks nobody out."""

from __future__ import annotations

import io
import socketserver
import ssl
import threading
from array import array
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from rich.console import Console

from decider.log.open import open_log
from decider.log.protocol import NewLink
from decider.server.roles import METHODS, PATHS
from decider.v1.decider_service_pb2 import DecideRequest, DecideResponse
from simulator.studies.attack import wire, wire_web
from simulator.studies.attack.__main__ import Plan, attack_all
from simulator.studies.attack.calls import served_methods
from simulator.studies.attack.check import wrong_in_log
from simulator.studies.attack.customers import Ledger
from simulator.studies.attack.doors import CONNECT_JSON, DOORS, STREAM, TRAILER, Answer, framed
from simulator.studies.attack.frontends import Target, Visitor, judge, targets
from simulator.studies.attack.names import OWN, SITE, VICTIM, Aim, Identity, leaks
from simulator.studies.attack.report import Phase, failed, page, table
from simulator.studies.attack.requests import request_of
from simulator.studies.attack.stage import MUTUAL, PAGES, TOKENS
from simulator.studies.attack.web import known_places
from simulator.studies.certificates import authority, issue

NOBODY = Console(file=io.StringIO())

NEVER_ANSWERED = ("ResolveBoolean", "ResolveInt", "ResolveFloat")
"""RPCs that refuse whoever calls: no experiment is such a flag."""


def sound() -> Phase:
    """With nothing wrong."""
    phase = Phase("tokens", calm=[array("d", [0.01] * 9)], attacked=[array("d", [0.015] * 9)], verifies=True)
    phase.found = {"outcomes": [["calls", "no token", "UNAUTHENTICATED", 7]], "untried": {"calls": 0, "pages": 1}}
    phase.counts = {"decisions": 3, "rewards": 2, "activations": 1}
    phase.rss, phase.descriptors, phase.threads = (1, 2, 1), (20, 300, 22), (18, 20, 19)
    return phase


def test_a_short_attack_finds_a_sound_server_sound(tmp_path: Path) -> None:
    """Tokens, then certificates; every stranger tries every RPC. The way of the long one but for the latencies."""
    plan = Plan(0.2, on=8.0, off=1.0, settle=0.5, rate=3.0, kinds=(TOKENS, MUTUAL))
    phases = attack_all(tmp_path, plan, seed=1, console=NOBODY)
    assert [text for phase in phases for text in failed(phase, timed=False)] == []
    for phase in phases:
        refused = {outcome for attack, *_, outcome, _ in phase.found["outcomes"] if attack == "calls"}
        assert {"UNAUTHENTICATED", "PERMISSION_DENIED"} <= refused
        for way in ("pages", "frontends"):
            assert "401" in {outcome for attack, *_, outcome, _ in phase.found["outcomes"] if attack == way}
    assert any(identity == "expired certificate" for _, identity, *_ in phases[1].found["outcomes"])
    NOBODY.print(*table(phases))
    assert "All checks hold" in page(phases, minutes=0.2, seed=1, rate=1.0, found=[])


def test_pages_of_others_find_nothing_where_nobody_is_asked(tmp_path: Path) -> None:
    """A browser of somebody who reaches the server is all that they need, so the port must look at the page alone."""
    (phase,) = attack_all(tmp_path, Plan(0.1, on=2.0, off=0.3, settle=0.1, kinds=(PAGES,)), seed=1, console=NOBODY)
    assert [*failed(phase, timed=False)] == []
    assert {outcome for *_, outcome, _ in phase.found["outcomes"]} >= {"403"}


def test_the_attack_is_seen_to_succeed_where_nobody_is_asked(tmp_path: Path) -> None:
    """Else its silence would mean nothing: every RPC, every path, what was read, and what is in the log."""
    plan = Plan(
        0.2,
        on=12.0,
        off=0.5,
        settle=0.5,
        rate=4.0,
        kinds=(TOKENS,),
        only=("calls", "pages", "frontends"),
        guarded=False,
    )
    (phase,) = attack_all(tmp_path, plan, seed=1, console=NOBODY)
    breaches = "\n".join(phase.breaches)
    for method in served_methods():
        answers = METHODS[method.name] is not None and not method.name.endswith(NEVER_ANSWERED)
        assert (f"{method.name} by" in breaches) == answers, method.name
    for row, role in PATHS.items():
        assert (f"GET {row} by" in breaches) == (role is not None), row
    assert "holds what is the victim's" in breaches
    assert "may read it, and it was sent from" in breaches
    wrong = " ".join(phase.in_log)
    for kind in ("was applied by a stranger", "units were linked", "decisions that nobody", "rewards that nobody"):
        assert kind in wrong
    assert "activations that nobody" in wrong
    assert list(failed(phase, timed=False))


VISITOR = Visitor(Identity("own", roles=("decide",), experiments=(OWN,)), SITE, how="page of the site")
DECIDE = next(one for one in targets() if one.door is CONNECT_JSON and one.path.endswith("/Decide"))
OF_VICTIM, OF_OWN = (DecideRequest(experiment=name) for name in (VICTIM, OWN))
NONE: Sequence[tuple[str, str]] = ()


@pytest.mark.parametrize(
    ("visitor", "target", "request_", "answer", "word"),
    [
        (VISITOR, DECIDE, OF_OWN, Answer(200, NONE, b"{}"), ""),
        (VISITOR, DECIDE, OF_OWN, Answer(200, [("Access-Control-Allow-Origin", SITE)], b"{}"), ""),
        (VISITOR, DECIDE, OF_OWN, Answer(200, [("Access-Control-Allow-Origin", "*")], b"{}"), "may read it"),
        (VISITOR, DECIDE, OF_OWN, Answer(200, [("Access-Control-Allow-Credentials", "true")], b"{}"), "cookies"),
        (VISITOR, DECIDE, OF_OWN, Answer(403, NONE, b"a secret"), "the victim's"),
        (VISITOR, DECIDE, OF_VICTIM, Answer(200, NONE, b"{}"), "another experiment"),
        (VISITOR, DECIDE, OF_VICTIM, Answer(403, NONE, b"{}"), ""),
        (replace(VISITOR, let_in=False), DECIDE, OF_OWN, Answer(200, NONE, b"{}"), "answered"),
        (replace(VISITOR, identity=Identity("nobody")), DECIDE, OF_OWN, Answer(200, NONE, b"{}"), "has not the role"),
        (VISITOR, Target(None, None, "GET", "/metrics"), None, Answer(200, NONE, b""), "must not have it"),
        (VISITOR, Target(None, None, "GET", "/client.js"), None, Answer(200, NONE, b""), ""),
    ],
)
def test_what_a_page_may_not_is_seen(
    visitor: Visitor, target: Target, request_: DecideRequest | None, answer: Answer, word: str
) -> None:
    """And what it may is not taken for a breach."""
    aim = Aim("", "", "", "", "secret", (), 1)
    found = judge(aim, visitor, target, request_, answer)
    assert word in found
    assert bool(word) == bool(found)


def test_grpc_web_and_streams_tell_errors_with_200() -> None:
    """Else every refusal would be a breach."""
    web = next(door for door in DOORS if door.name == "gRPC-Web")
    reply = framed(b"")
    for trailers, read in ((b"grpc-status: 0\r\n", b""), (b"grpc-status: 7\r\n", None)):
        assert web.read(Answer(200, NONE, reply + framed(trailers, TRAILER)), DecideResponse) == read
    assert STREAM.read(Answer(200, NONE, framed(b'{"error":{"code":"unauthenticated"}}', 2)), DecideResponse) is None


class TakesAll(socketserver.BaseRequestHandler):
    """Whatever comes is answered with 200, and that twice."""

    def handle(self) -> None:
        """Until the caller goes."""
        with suppress(OSError):
            while self.request.recv(2**20):
                self.request.sendall(
                    2 * b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 0\r\n\r\n"
                )


@pytest.fixture(scope="module")
def taker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aim]:
    """A server with TLS that takes everything."""
    folder = tmp_path_factory.mktemp("taker")
    ca = authority(folder, "authority")
    own = issue(folder, "server", ca)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.cert, own.key)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), TakesAll) as server:
        server.daemon_threads = True
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        address = f"127.0.0.1:{server.server_address[1]}"
        keys = {"seldom": "page_x"}
        yield Aim(address, address, address, str(ca.cert), "secret", (Identity("no token"),), 1, keys=keys, seldom=1.0)
        server.shutdown()


@pytest.mark.parametrize(
    ("attack", "word"),
    [
        (wire_web.drop_bombs, "was taken"),
        (wire_web.smuggle, "was taken"),
        (wire_web.call_too_often, "with a key for 1 a second"),
        (wire_web.preflight_often, "is let in"),
    ],
)
def test_what_a_server_must_not_take_is_seen_where_it_does(taker: Aim, attack: wire.Attack, word: str) -> None:
    """Else silence would mean nothing."""
    of = wire.Wire("attack", attack, taker)
    found = " ".join(of.step(Random(seed)).breach for seed in range(6))
    assert word in found


def test_what_is_served_is_what_is_attacked() -> None:
    """RPCs and paths that are added later are attacked without a change here."""
    assert {one.name for one in served_methods()} == set(METHODS)
    assert {one.row for one in known_places()} == set(PATHS)


def test_requests_name_the_victim_and_are_of_many_kinds() -> None:
    """Some are right, so that nothing but the caller's rights refuses them."""
    for method in served_methods():
        made = [request_of(method.request, Random(seed)) for seed in range(60)]
        assert len({one.SerializeToString() for one in made}) > 1 or not made[0].DESCRIPTOR.fields, method.name
        if method.name.endswith("Service/Decide"):
            assert any(VICTIM.encode() in one.SerializeToString() for one in made)


def test_a_leak_is_found_in_bytes_and_in_texts() -> None:
    """Replies, trailers and details."""
    assert leaks("secret", [b"", "a secret b"])
    assert leaks("secret", [b"\x0a\x06secret"])
    assert not leaks("secret", [b"secre", ""])


def test_who_may_what_is_what_the_server_says() -> None:
    """The judge must not be stricter, nor laxer."""
    other = Identity("other", roles=("read", "operate"), experiments=("own",))
    read = Identity("reader", roles=("read",))
    role = PATHS["/metrics"]
    assert read.may_use(role)
    assert read.reads_all
    assert not read.may(read.role_for(role, "POST"))
    assert other.may(role)
    assert not other.may_use(role)
    assert not other.reads_all
    assert Identity("nobody").may(Identity("nobody").role_for(None, "POST"))


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """A log with a link, which no customer makes."""
    path = tmp_path / "log.db"
    with closing(open_log(path)) as log:
        log.append([NewLink("a", "b")])
    return path


def test_what_customers_were_told_and_is_not_in_the_log_is_lost(db: Path) -> None:
    """And what is there, and nobody sent, is a stranger's."""
    ledger = Ledger(decided={"one": True, "two": False}, rewarded={"one"}, activated={"one"})
    assert wrong_in_log(db, ledger, [(VICTIM, 1)]) == {
        "units were linked": 1,
        f"version 1 of {VICTIM!r} is lost": 1,
        "decisions lost": 1,
        "rewards lost": 1,
        "activations lost": 1,
    }


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("found", {"outcomes": [["calls", "x", "OK", 1]], "breaches": {"Decide by 'x'": 2}}, "Decide by 'x' (2 times)"),
        ("found", {}, "nothing was measured"),
        ("found", {"outcomes": [["calls", "x", "OK", 1]], "untried": {"calls": 3}}, "3 kinds of calls were not tried"),
        ("found", {"outcomes": [["calls", "x", "OK", 1]], "failures": {"calls: TypeError": 1}}, "were not made"),
        ("found", {"outcomes": [["calls", "x", "OK", 1]], "exit_code": -11}, "exit code -11"),
        ("counts", {"decisions": 0}, "nothing was measured"),
        ("errors", {"UNAVAILABLE: gone": 1}, "UNAVAILABLE"),
        ("in_log", {"decisions lost": 3}, "3 decisions lost"),
        ("verifies", False, "verify"),
        ("exit_code", 1, "exit code 1"),
        ("peak", 2 * 10**9, "2000 MB"),
        ("descriptors", (20, 300, 300), "300 descriptors"),
        ("threads", (18, 50, 50), "50 threads"),
        ("attacked", [array("d", [0.03] * 9)], "3.00"),
    ],
)
def test_each_check_can_fail(name: str, value: object, word: str) -> None:
    """A check that cannot fail proves nothing."""
    phase = sound()
    assert list(failed(phase, timed=False)) == []
    setattr(phase, name, value)
    assert any(word in text for text in failed(phase, timed=True))
