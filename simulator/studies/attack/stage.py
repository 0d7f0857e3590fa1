"""A server that asks who calls, an experiment to be attacked, and strangers of every kind. Called by `__main__.py`.

TOKENS: TLS, and who calls is told by tokens. MUTUAL: gRPC takes certificates of one authority alone, and the tokens
file says what each of them is good for. PAGES: nobody is asked, and the strangers are pages of other sites, in browsers
of people who reach the server. Each has a port for pages, for those of one site.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc

from decider.channel import Credentials, open_channel
from decider.server.roles import Role
from decider.server.settings import ANY_ORIGIN
from decider.server.tokens import new_page_key, new_token
from decider.v1 import experiment_pb2
from decider.v1 import experiment_service_pb2 as experiments_pb
from decider.v1.experiment_service_pb2_grpc import ExperimentServiceStub
from simulator.studies.attack.customers import PageStub, page_caller
from simulator.studies.attack.names import OWN, PAGE_KEYS, SITE, VICTIM, Aim, Identity
from simulator.studies.certificates import Pair, authority, issue
from simulator.studies.served import Served, free_port, serving

TOKENS, MUTUAL, PAGES = "tokens", "mutual TLS", "other pages"
KINDS = (TOKENS, MUTUAL, PAGES)

CUSTOMER, OPERATOR = "customer", "operator"
PAST = datetime(2026, 1, 1, tzinfo=UTC)
WINDOW = 60
"""Seconds, of rewards."""

SELDOM = 2.0
"""Calls a second that a page may make, of one address."""

ON_PAGES = ("frontends",)
"""Attacks that pages can make."""

KNOWN_IN = 20.0
"""Seconds within which a change of the tokens file must hold."""

MALFORMED = ("Bearer", "Bearer ", "Bearer  ", "Basic cm9vdDpyb290", "Token wrong", "bearer", f"Bearer {'A' * 5_000}",
             "Bearer a b", "Bearer null", "Negotiate", "")  # fmt: skip

ALL_ROLES = tuple(map(str, Role))


@dataclass(frozen=True, slots=True)
class Stage:
    """customer, operator: what lets them in. page: how customers call from pages of the site. versions: (experiment,
    number) that were applied."""

    server: Served
    db: Path
    aim: Aim
    customer: Credentials
    operator: Credentials
    page: Callable[[], PageStub]
    versions: list[tuple[str, int]]


class _Tokens:
    """The tokens file."""

    def __init__(self, path: Path) -> None:
        self.path, self._lines = path, ""

    def add(
        self, name: str, roles: Sequence[str], experiments: Sequence[str] = (), until: datetime | None = None
    ) -> str:
        """A header with a new token."""
        token, lines = new_token(name, [Role(role) for role in roles], experiments, until)
        self._lines += lines
        self.path.write_text(self._lines)
        return f"Bearer {token}"

    def add_certificate(
        self, name: str, roles: Sequence[str], experiments: Sequence[str] = (), until: datetime | None = None
    ) -> None:
        """A row for the certificate with this name."""
        _, lines = new_token(name, [Role(role) for role in roles], experiments, until)
        kept = [line for line in lines.splitlines() if not line.startswith("sha256")]
        self._lines += "\n".join(["[[certificates]]", *kept[1:], ""])
        self.path.write_text(self._lines)

    def add_page(self, name: str, experiment: str, *, rate: float, until: datetime | None = None) -> str:
        """A new key for pages of the site. rate: calls a second of one address."""
        lines = new_page_key(name, origins=[SITE], experiments=[experiment], until=until)
        self._lines += f"{lines}rate = {rate}\n"
        self.path.write_text(self._lines)
        return lines.partition('key = "')[2].partition('"')[0]

    def remove(self, name: str) -> None:
        """Its row."""
        rows = self._lines.split("[[")
        self._lines = "[[".join(row for row in rows if f'name = "{name}"' not in row)
        self.path.write_text(self._lines)


@contextmanager
def staged(
    folder: Path, kind: str, *, secret: str, seed: int, rate: float, only: tuple[str, ...] = (), guarded: bool = True
) -> Iterator[Stage]:
    """guarded: the server asks who calls; else everybody may do everything, and the attack must be seen to succeed:
    for that two strangers are enough."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs, tokens = folder / "pairs", _Tokens(folder / "tokens.toml")
    ca = authority(pairs, "authority")
    people = _by_certificate(tokens, pairs, ca) if kind == MUTUAL else _by_token(tokens, ca)
    keys = _keys(tokens)
    asks = guarded and kind != PAGES
    own, db = issue(pairs, "server", ca), folder / "attack.db"
    web = f"127.0.0.1:{free_port()}"
    options = ["--tls-cert", own.cert, "--tls-key", own.key, "--page-writes", SITE, "--web", web]
    options += ["--web-origin", SITE if guarded else ANY_ORIGIN]
    options += ["--tokens", tokens.path] if asks else []
    options += ["--tls-client-ca", ca.cert] if guarded and kind == MUTUAL else []
    with serving(db, *map(str, options)) as server:
        target = f"127.0.0.1:{server.port}"
        versions = _apply(target, people.operator, secret)
        if asks and people.revoked:
            _revoke(tokens, people.revoked, target, ca)
        sent = tuple([f"Bearer {key}" for key in keys.values()])
        with_keys = replace(people.strangers[0], name=PAGE_KEYS, authorizations=sent)
        strangers = (*people.strangers, with_keys) if asks else (people.strangers[0], people.strangers[-1])
        only = only or (ON_PAGES if kind == PAGES else ())
        aim = Aim(target, server.http, web, str(ca.cert), secret, strangers, seed, asks, keys, SELDOM, rate, only)
        (folder / "aim.json").write_text(json.dumps(asdict(aim), indent=1))
        page = page_caller(web, ca.cert, keys["victim"] if asks else "")
        yield Stage(server, db, aim, people.customer, people.operator, page, versions)


@dataclass(frozen=True, slots=True)
class _People:
    """revoked: a header that is good for something until it is removed."""

    customer: Credentials
    operator: Credentials
    strangers: tuple[Identity, ...]
    revoked: str = ""


def _by_token(tokens: _Tokens, ca: Pair) -> _People:
    operator, customer = tokens.add(OPERATOR, ALL_ROLES), tokens.add(CUSTOMER, ("decide", "reward"), (VICTIM,))
    revoked = tokens.add("revoked", ALL_ROLES)
    read = Identity("read token", (tokens.add("reader", ("read",)),), roles=("read",))
    others = [
        Identity(f"other's {name} token", (tokens.add(name, roles, (OWN,)),), roles=roles, experiments=(OWN,))
        for name, roles in (("read", ("read",)), ("decide", ("decide",)), ("reward", ("reward",)), ("whole", ALL_ROLES))
    ]
    digest = hashlib.sha256(customer.removeprefix("Bearer ").encode()).hexdigest()
    strangers = (
        Identity("no token"),
        Identity("wrong token", (f"Bearer {'w' * 43}",)),
        Identity("malformed token", MALFORMED),
        Identity("hash of a token", (f"Bearer {digest}",)),  # who has read the file of tokens
        Identity("revoked token", (revoked,)),
        Identity("expired token", (tokens.add("expired", ALL_ROLES, until=PAST),)),
        read,
        *others,
    )
    credentials = [Credentials(token=one.removeprefix("Bearer "), ca=ca.cert) for one in (customer, operator)]
    return _People(credentials[0], credentials[1], strangers, revoked)


def _keys(tokens: _Tokens) -> Mapping[str, str]:
    """Of pages; by name."""
    return {
        "victim": tokens.add_page("page of the victim", VICTIM, rate=1_000),
        "own": tokens.add_page("own page", OWN, rate=1_000),
        "seldom": tokens.add_page("own page that calls seldom", OWN, rate=SELDOM),
        "old": tokens.add_page("old page", VICTIM, rate=1_000, until=PAST),
    }


def _by_certificate(tokens: _Tokens, pairs: Path, ca: Pair) -> _People:
    def stranger(name: str, pair: Pair, **more: Any) -> Identity:
        return Identity(name, cert=str(pair.cert), key=str(pair.key), **more)

    customer, operator = issue(pairs, CUSTOMER, ca), issue(pairs, OPERATOR, ca)
    tokens.add_certificate(CUSTOMER, ("decide", "reward"), (VICTIM,))
    tokens.add_certificate(OPERATOR, ALL_ROLES)
    tokens.add_certificate("reader", ("read",))
    tokens.add_certificate("late", ALL_ROLES, until=PAST)
    tokens.add_certificate("other", ALL_ROLES, (OWN,))
    elsewhere = authority(pairs / "elsewhere", "authority")
    unnamed = issue(pairs, "unnamed", ca)
    strangers = (
        stranger("unnamed certificate", unnamed),
        stranger("unnamed certificate, wrong token", unnamed, authorizations=(f"Bearer {'w' * 43}", *MALFORMED)),
        stranger("read certificate", issue(pairs, "reader", ca), roles=("read",)),
        stranger("other's certificate", issue(pairs, "other", ca), roles=ALL_ROLES, experiments=(OWN,)),
        stranger("row that has ended", issue(pairs, "late", ca)),
        Identity("no certificate", joins=False),
        stranger("expired certificate", issue(pairs / "expired", CUSTOMER, ca, days=-1), joins=False),
        stranger("other authority", issue(pairs / "elsewhere", CUSTOMER, elsewhere), joins=False),
        stranger("self-signed certificate", authority(pairs / "self", CUSTOMER), joins=False),
    )
    credentials = [Credentials(ca=ca.cert, cert=one.cert, key=one.key) for one in (customer, operator)]
    return _People(credentials[0], credentials[1], strangers)


def experiment(id_: str, secret: str) -> experiment_pb2.Experiment:
    """The secret is in the text, the actions and what they show."""
    made = experiment_pb2.Experiment(id=id_, description=f"{secret}-description")
    for name in ("a", "b", "c"):
        action = made.actions.add(id=f"{secret}-{name}")
        action.payload.update({"title": f"{secret}-title-{name}"})
    made.reward.window.FromSeconds(WINDOW)
    made.reward.attribution = experiment_pb2.ATTRIBUTION_LAST
    made.reward.weights["click"] = 1.0
    return made


def _apply(target: str, operator: Credentials, secret: str) -> list[tuple[str, int]]:
    with _stub(target, operator) as stub:
        for id_, words in ((VICTIM, secret), (OWN, "own")):
            request = experiments_pb.ApplyExperimentRequest(experiment=experiment(id_, words), note=f"{words}-note")
            stub.ApplyExperiment(request, timeout=30)
    return [(VICTIM, 1), (OWN, 1)]


def _revoke(tokens: _Tokens, header: str, target: str, ca: Pair) -> None:
    tokens.remove("revoked")
    end = time.monotonic() + KNOWN_IN
    with _stub(target, Credentials(token=header.removeprefix("Bearer "), ca=ca.cert)) as stub:
        while _is_let_in(lambda: stub.ListExperiments(experiments_pb.ListExperimentsRequest(), timeout=10)):
            if time.monotonic() > end:
                return  # the attack will find that it still holds
            time.sleep(0.1)


def _is_let_in(call: Callable[[], object]) -> bool:
    try:
        call()
    except grpc.RpcError as error:
        return bool(error.code() is not grpc.StatusCode.UNAUTHENTICATED)
    return True


@contextmanager
def _stub(target: str, credentials: Credentials) -> Iterator[Any]:
    with open_channel(target, credentials, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield ExperimentServiceStub(channel)  # type: ignore[no-untyped-call]
