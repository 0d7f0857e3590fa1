"""Keys that everybody can read: what pages may do with them, and that nobody may do more."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from click.testing import CliRunner
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from decider.channel import Credentials, open_channel
from decider.errors import (
    DeciderError,
    FailedPrecondition,
    InvalidArgument,
    LimitReached,
    NotFound,
    PermissionDenied,
    RateExceeded,
    Unauthenticated,
    Violation,
)
from decider.server.access import Access, exposures
from decider.server.command import main
from decider.server.limits import Limit
from decider.server.pages import KEY_START, PageKey, PageRights, calls_of, shorten, shorten_error
from decider.server.roles import Rights, Role
from decider.server.rpc import to_status
from decider.server.settings import Settings
from decider.server.tokens import BadTokens, new_page_key, new_token, parse_tokens
from decider.server.web.exchange import Request as Asked
from decider.server.web.guard import Guard
from decider.server.web.streams import Streams
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from decider.v1 import experiment_service_pb2 as experiments_pb
from tests.browser import Browser
from tests.rpc_clients import ServerProcess, code_of, experiment, reason_of, rows, status_of, until
from tests.test_access import COUNTS, unary
from tests.test_metrics import Scrape

SHOP = "https://shop.example"
DECIDE = "/decider.v1.DeciderService/Decide"

ROW = f"[[pages]]\nname = 'p'\nkey = '{KEY_START}{'k' * 32}'\norigins = ['{SHOP}']\nexperiments = ['own']\n"

KEY = PageKey(Rights("p", frozenset({Role.DECIDE, Role.REWARD}), frozenset({"own"})), frozenset({SHOP}))


def key_of(lines: str) -> str:
    """In its row."""
    return re.findall(r'^key = "(.*)"$', lines, re.MULTILINE)[0]  # type: ignore[no-any-return]


def test_a_row_says_what_a_key_is_good_for() -> None:
    """The least that it has to say is its experiments and its sites; the rest has defaults that fit a page."""
    page = parse_tokens(ROW.encode()).page(KEY_START + "k" * 32)
    assert page == KEY
    assert (page.rate, page.total, page.rewards_by_unit) == (20.0, 2_000.0, False)
    more = "roles = ['reward']\nrate = 5\ntotal = 0.5\nrewards_by_unit = true\n"
    page = parse_tokens((ROW + more).encode()).page(KEY_START + "k" * 32)
    assert page is not None
    assert (page.rate, page.total, page.rewards_by_unit) == (5.0, 0.5, True)
    assert page.rights.roles == {Role.REWARD}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("key = 'short'", "key: must be page_ and 22 to 64"),
        ("key = 'secret-secret-secret-secret-secret-secret'", "key: must be page_"),
        ("roles = ['decide', 'operate']", "roles: everybody has a page's key; only decide and reward"),
        ("roles = []", "roles: write a list"),
        ("experiments = []", "experiments: write a list of ids"),
        ("origins = []", "origins: write a list of 1 to 100 addresses"),
        ("origins = 'https://shop.example'", "origins: write a list of 1 to 100 addresses"),
        (f"origins = {['https://shop.example'] * 101}", "origins: write a list of 1 to 100 addresses"),
        ("origins = ['https://*.shop.example']", "origins: number 1 is not the address of a site"),
        (f"origins = ['{SHOP}', 'secret-secret']", "origins: number 2 is not the address of a site"),
        ("origins = ['https://shop.example/path']", "origins: number 1 is not the address"),
        ("origins = ['https://münchen.example']", "xn-- where letters are not ASCII"),
        ("origins = ['null']", "origins: number 1 is not the address"),
        ("origins = ['file://']", "origins: number 1 is not the address"),
        ("origins = ['https://shop.example:99999']", "origins: number 1 is not the address"),
        ("origins = [1]", "origins: number 1 is not the address"),
        ("rate = 0", "rate: write calls a second, 0.1 to 100,000"),
        ("rate = true", "rate: write calls a second"),
        ("rate = nan", "rate: write calls a second"),
        ("total = inf", "total: write calls a second"),
        ("rewards_by_unit = 'yes'", "rewards_by_unit: write true or false"),
        ("sha256 = 'secret'", "has another key than"),
        ("until = 2027-01-01", "until: write a time with its zone"),
    ],
)
def test_a_wrong_row_is_named_and_nothing_of_it_told(line: str, words: str) -> None:
    """An error stands in outputs and on /readyz: it must not repeat what may be a token in the wrong place."""
    name = line.partition(" ")[0]
    rows = [one for one in ROW.splitlines() if not one.startswith(f"{name} =")]
    with pytest.raises(BadTokens) as caught:
        parse_tokens("\n".join([*rows, line]).encode())
    assert "tokens: [[pages]] number 1: " in str(caught.value)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_key_is_never_for_every_experiment() -> None:
    """So it cannot link units either, which holds everywhere."""
    without = "\n".join([one for one in ROW.splitlines() if not one.startswith("experiments")])
    with pytest.raises(BadTokens, match="experiments: is needed"):
        parse_tokens(without.encode())
    with pytest.raises(BadTokens, match="number 2: key: the same stands further above"):
        parse_tokens((ROW + ROW).encode())
    page = parse_tokens(ROW.encode()).page(KEY_START + "k" * 32)
    assert page is not None
    with pytest.raises(PermissionDenied):
        page.rights.check_all("a link holds in every experiment")


def test_there_are_not_more_rows_than_metrics_have_labels() -> None:
    """Each name is a label."""
    many = "".join([ROW.replace("k" * 32, f"{number:032}") for number in range(1_001)])
    with pytest.raises(BadTokens, match="pages: at most 1,000 rows"):
        parse_tokens(many.encode())


def test_the_row_in_the_text_is_one() -> None:
    """People copy it."""
    text = (Path(__file__).parent.parent / "decider" / "README.md").read_text()
    (row,) = re.findall(r"```toml\n(\[\[pages\]\].*?)```", text, re.DOTALL)
    (page,) = parse_tokens(row.encode()).pages
    assert (page.rate, page.total, page.rewards_by_unit) == (20.0, 2_000.0, False)
    assert page.rights.roles == {Role.DECIDE, Role.REWARD}


def test_the_command_makes_a_row() -> None:
    """As it is written it works."""
    made = CliRunner().invoke(
        main, ["token", "shop", "--page", "--origin", "https://Shop.example:443/", "--experiment", "own"]
    )
    assert (made.exit_code, made.stderr) == (0, "")
    page = parse_tokens(made.stdout.encode()).page(key_of(made.stdout))
    assert page is not None
    assert (page.origins, page.rights.experiments) == (frozenset({SHOP}), frozenset({"own"}))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--page", "--experiment", "own"], "--page: name the sites"),
        (["--page", "--origin", SHOP], "--page: name the sites"),
        (["--page", "--origin", "*", "--experiment", "own"], "--origin is not the address of a site"),
        (["--page", "--origin", SHOP, "--experiment", "own", "--role", "read"], "only decide and reward"),
        (["--page", "--origin", SHOP, "--experiment", "own", "--token-file", "x"], "--token-file: is for secrets"),
        (["--role", "decide", "--origin", SHOP], "--origin: is for keys of pages; add --page"),
        ([], "--role: is needed"),
    ],
)
def test_the_command_says_what_is_missing(options: list[str], words: str) -> None:
    """And makes nothing."""
    made = CliRunner().invoke(main, ["token", "shop", *options])
    assert made.exit_code != 0
    assert words in made.stderr
    assert made.stdout == ""


def test_a_key_is_good_for_nothing_where_tokens_are_asked_for(tmp_path: Path) -> None:
    """Over gRPC and on the page's port there are no origins and no rates."""
    tokens = tmp_path / "tokens.toml"
    lines = new_page_key("shop", origins=[SHOP], experiments=["own"])
    tokens.write_text(lines)
    access = Access(Settings(tokens=tokens))
    with pytest.raises(PermissionDenied) as refused:
        access.identify(f"Bearer {key_of(lines)}", None)
    assert refused.value.reason == "PAGE_KEY"
    assert key_of(lines) not in str(refused.value)
    with pytest.raises(Unauthenticated):
        access.identify(f"Bearer {key_of(lines)}x", None)


def test_a_file_that_is_read_anew_forgets_no_calls(tmp_path: Path) -> None:
    """Else whoever can make the file change, or waits for it, had a burst more."""
    tokens = tmp_path / "tokens.toml"
    lines = new_page_key("shop", origins=[SHOP], experiments=["own"])
    key = key_of(lines)
    tokens.write_text(lines)
    access = Access(Settings(tokens=tokens, workers=4))

    def change(content: str) -> PageKey | None:
        tokens.write_text(content)
        access.look()
        access.look()
        return access.page(key)

    page = access.page(key)
    assert page is not None
    assert page.rates.most == 100
    page.take("203.0.113.7", 100)
    assert access.is_page(SHOP)
    page = change(lines + new_token("root", [*Role], [], None)[1])
    assert page is not None
    with pytest.raises(RateExceeded):
        page.take("203.0.113.7")
    page = change(lines + "rate = 40\n")
    assert page is not None
    page.take("203.0.113.7", 200)
    assert change(new_token("root", [*Role], [], None)[1]) is None
    assert not access.is_page(SHOP)


def test_of_several_processes_each_takes_its_share() -> None:
    """They share a port, and a key's total is for all of them; what one address may is not divided, since all of its
    connections may be with one of them."""
    page = KEY.with_rates(4)
    assert [page.rates.take(f"{number}", 100) == 0.0 for number in range(26)] == [True] * 25 + [False]


def test_a_batch_counts_as_its_requests() -> None:
    """Else a batch of a thousand would be one call."""
    many = pb.DecideBatchRequest(requests=[pb.DecideRequest()] * 7)
    assert calls_of(many) == 7
    assert calls_of(pb.RewardBatchRequest(requests=[pb.RewardRequest()] * 3)) == 3
    assert calls_of(pb.DecideSlateRequest(slots=[pb.Slot()] * 4)) == 4
    assert [calls_of(one) for one in (pb.DecideRequest(), pb.DecideBatchRequest(), pb.ActivateRequest())] == [1, 1, 1]
    page = KEY.with_rates(1)
    rights = PageRights.of(page, "203.0.113.7", lambda *_: None)
    one = pb.DecideRequest(experiment="own")
    with pytest.raises(RateExceeded, match=r"requests: 101 are more than .*; send at most 100 a call"):
        rights.check_request(pb.DecideBatchRequest(requests=[one] * 101))
    page.take("203.0.113.7")
    rights.check_request(pb.DecideBatchRequest(requests=[one] * 100))
    with pytest.raises(RateExceeded, match=r"the next one may come in \d\d\d? ms") as refused:
        page.take("203.0.113.7", 2)
    assert refused.value.after == pytest.approx(0.1, abs=0.05)


FOR_TOKENS = [
    ("explore", pb.DecideRequest(explore=False)),
    ("explore", pb.DecideBatchRequest(requests=[pb.DecideRequest(), pb.DecideRequest(explore=False)])),
    ("explore", pb.DecideSlateRequest(explore=False)),
    ("with_ranking", pb.DecideRequest(with_ranking=True)),
    ("with_ranking", pb.DecideSlateRequest(with_ranking=True)),
    ("actions", pb.DecideRequest(actions=[pb.CalledAction(id="x")])),
    ("action_features", pb.DecideRequest(action_features={"x": {}})),
    ("retract", pb.RewardRequest(retract=True)),
    ("correct", pb.RewardBatchRequest(requests=[pb.RewardRequest(correct=True)])),
    ("final", pb.RewardRequest(final=True)),
    ("unit_id", pb.RewardRequest(unit_id="somebody")),
]


@pytest.mark.parametrize(
    ("field", "request_"), FOR_TOKENS, ids=[f"{name}-{number}" for number, (name, _) in enumerate(FOR_TOKENS)]
)
def test_what_no_page_needs_is_refused(field: str, request_: pb.DecideRequest) -> None:
    """What a page's key may not: see the policy, make actions up, change what was said before, ask about units."""
    with pytest.raises(PermissionDenied, match=f"^{field}: ") as refused:
        KEY.check(request_)
    assert refused.value.reason == "NOT_FOR_PAGES"


def test_every_field_of_a_request_is_for_pages_or_for_tokens() -> None:
    """A field that is added later must not be open to everybody because nobody thought of it."""
    fields: dict[Any, str] = {
        pb.DecideRequest: "experiment unit_id context decision_id eligible_actions excluded_actions default_action",
        pb.DecideSlateRequest: "experiment unit_id context slate_id slots",
        pb.RewardRequest: "decision_id name value reward_id occurred_at experiment",
        pb.ActivateRequest: "decision_id action",
    }
    refused = {type(one) for _, one in FOR_TOKENS} & fields.keys()
    assert refused == fields.keys() - {pb.ActivateRequest}
    for kind, names in fields.items():
        for_tokens = {
            pb.DecideRequest: "action_features explore with_ranking actions",
            pb.DecideSlateRequest: "action_features explore with_ranking actions",
            pb.RewardRequest: "retract correct final unit_id",
            pb.ActivateRequest: "",
        }[kind]
        assert {one.name for one in kind.DESCRIPTOR.fields} == {*names.split(), *for_tokens.split()}


def test_a_reply_tells_a_page_what_it_needs() -> None:
    """Not how much the log holds, nor what a unit has had."""
    decided = pb.DecideResponse(decision_id="d", propensity=0.5, model=4711, ignored_actions=["soon"])
    shorten(pb.DecideRequest(), decided)
    assert decided == pb.DecideResponse(decision_id="d", propensity=0.5)
    slate = pb.DecideSlateResponse(decisions=[pb.DecideResponse(model=4711, ignored_actions=["soon"])])
    shorten(pb.DecideSlateRequest(), slate)
    assert slate == pb.DecideSlateResponse(decisions=[pb.DecideResponse()])
    rewards = pb.RewardBatchRequest(requests=[pb.RewardRequest(unit_id="u"), pb.RewardRequest(decision_id="d")])
    joined = pb.RewardResponse(outcome=pb.REWARD_OUTCOME_JOINED)
    no_decision = pb.RewardResponse(outcome=pb.REWARD_OUTCOME_NO_DECISION)
    credited = pb.RewardResponse(outcome=pb.REWARD_OUTCOME_JOINED, decision_ids=["e"])
    for by_unit in (credited, no_decision):
        results = [pb.RewardResult(response=by_unit), pb.RewardResult(response=joined)]
        reply = pb.RewardBatchResponse(results=results)
        shorten(rewards, reply)
        assert [one.response for one in reply.results] == [pb.RewardResponse(), joined]
    shorten(pb.RewardRequest(unit_id="u"), credited)
    assert credited == pb.RewardResponse()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            NotFound("experiment 'own' has no action 'x'; it has a, hidden", reason="ACTION_NOT_FOUND"),
            "action: the experiment has no action with this id",
        ),
        (
            FailedPrecondition(
                "eligible_actions names no active action; active are hidden", reason="NO_ELIGIBLE_ACTION"
            ),
            "no action is left that the call and the rules of the experiment allow",
        ),
        (
            InvalidArgument(
                [
                    Violation(
                        "context.features[age]", "has no rule in the experiment's schema; it has rules for hidden"
                    ),
                    Violation("context.features[x.action[]", "it has rules for hidden"),
                    Violation("context[action]", "it has rules for hidden"),
                    Violation("unit_id", "must have 1 to 256 characters"),
                ]
            ),
            "context.features[age]: is refused; who calls with a token is told why; "
            "context.features[x.action[]: is refused; who calls with a token is told why; "
            "context[action]: is refused; who calls with a token is told why; "
            "unit_id: must have 1 to 256 characters",
        ),
        (
            DeciderError("/var/hidden.db", reason="LOG_UNAVAILABLE"),
            "the call is refused; who calls with a token is told why",
        ),
        (NotFound("there is no decision 'd'", reason="DECISION_NOT_FOUND"), "there is no decision 'd'"),
    ],
)
def test_an_error_names_nothing_that_a_page_did_not_send(error: DeciderError, message: str) -> None:
    """Hints list the actions of an experiment, those of next week's campaign as well."""
    status = to_status(error)
    before = status_pb2.Status()
    before.CopyFrom(status)
    shorten_error(status)
    assert status.message == message
    assert "hidden" not in str(status)
    assert status.code == before.code
    assert [one.TypeName() for one in status.details] == [one.TypeName() for one in before.details]
    batch = pb.DecideBatchResponse(results=[pb.DecideResult(error=before)])
    shorten(pb.DecideBatchRequest(requests=[pb.DecideRequest()]), batch)
    assert batch.results[0].error == status


WEB = re.compile(r"Connect and JSON on http://(\S+)/")

OWN, OTHER = "own", "other"

ADMIN = "https://admin.example"
"""A site that --web-origin names."""


class Reply(NamedTuple):
    """Of HTTP; body: of JSON."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def error(self) -> tuple[int, str]:
        """Status and the reason in the details."""
        reasons = [error_details_pb2.ErrorInfo.FromString(one) for one in self._details("google.rpc.ErrorInfo")]
        return self.status, reasons[0].reason if reasons else ""

    def _details(self, kind: str) -> list[bytes]:
        details = self.body.get("details", ())
        return [b64decode(one["value"] + "==") for one in details if one["type"] == kind]


ADDRESSES = (f"198.51.{number >> 8}.{number & 255}" for number in range(1 << 16))


class Site:
    """A server with keys for pages, an own experiment and another one, behind a proxy."""

    def __init__(self, folder: Path) -> None:
        self.tokens, self.db = folder / "tokens.toml", folder / "log.db"
        self.root, lines = new_token("root", [*Role], [], None)
        row = new_page_key("shop", origins=[SHOP], experiments=[OWN, "missing"])
        few = new_page_key("few", origins=[SHOP, "https://few.example"], experiments=[OWN]) + "rate = 0.2\n"
        units = new_page_key("units", origins=[SHOP], experiments=[OWN]) + "rewards_by_unit = true\n"
        rewards = new_page_key("rewards", origins=[SHOP], experiments=[OWN], roles=[Role.REWARD])
        self.key, self.few, self.units, self.rewards = map(key_of, (row, few, units, rewards))
        self.without, self.lines = lines + row + units + rewards, lines + row + units + rewards + few
        self.tokens.write_text(self.lines)
        web = ("--web", "127.0.0.1:0", "--web-origin", ADMIN, "--web-proxy", "127.0.0.1")
        self.server = ServerProcess(self.db, "--tokens", str(self.tokens), *web)
        self.web = until(lambda: WEB.search(self.server.output), what="the address of --web")[1]
        for id_ in (OWN, OTHER):
            made = experiment(id_, "a", "b", "hidden")
            made.actions[2].available_from.FromJsonString("2100-01-01T00:00:00Z")
            made.reward.attribution = experiment_pb2.ATTRIBUTION_LAST
            self.grpc("ExperimentService/ApplyExperiment", experiments_pb.ApplyExperimentRequest(experiment=made))

    def grpc(self, method: str, request: Message, token: str = "") -> Any:
        """The reply of a call with a token."""
        with open_channel(self.server.target, Credentials(token=token or self.root)) as channel:
            return unary(channel, method)(request, timeout=20)

    def ask(self, method: str, body: Any, key: str = "", *, query: str = "", **headers: str | None) -> Reply:
        """A call of a page of the shop, from an address of its own. headers: with _ for -; None: without it."""
        sent: dict[str, str | None] = {"Content-Type": "application/json", "Origin": SHOP}
        sent |= {"X-Forwarded-For": next(ADDRESSES), "X-API-Key": key or None}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        given = {name: value for name, value in sent.items() if value is not None}
        return self.send("POST", f"/decider.v1.DeciderService/{method}{query}", body, given)

    def send(self, method: str, path: str, body: Any, headers: Mapping[str, str]) -> Reply:
        """Whatever comes of it."""
        with closing(HTTPConnection(self.web, timeout=20)) as connection:
            connection.request(method, path, json.dumps(body).encode(), dict(headers))
            answer = connection.getresponse()
            text = answer.read()
            names = {name.lower(): value for name, value in answer.getheaders()}
            is_json = names.get("content-type") == "application/json"
            return Reply(answer.status, names, json.loads(text) if is_json else text)

    def decide(self, key: str = "", **fields: Any) -> Reply:
        """For a unit of the own experiment."""
        return self.ask("Decide", {"experiment": OWN, "unitId": "unit", **fields}, key or self.key)

    def count(self) -> list[Any]:
        """What the log holds."""
        return rows(self.db, COUNTS)

    def rate_exceeded(self, key: str) -> float:
        """Calls above the rate of a key."""
        return Scrape(self)("decider_web_refused_total", key=key, reason="RATE_EXCEEDED")

    def exhausted(self) -> float:
        """Calls that count as failed for want of something."""
        return Scrape(self)("grpc_server_handled_total", grpc_code="ResourceExhausted")

    def fetch(self, path: str) -> tuple[int, str]:
        """Of the HTTP port, with the right to read."""
        request = Request(f"http://{self.server.http}{path}", headers={"Authorization": f"Bearer {self.root}"})
        with urlopen(request, timeout=20) as answer:
            return int(answer.status), str(answer.read().decode())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One server for all that only asks."""
    made = Site(tmp_path_factory.mktemp("pages"))
    try:
        yield made
    finally:
        made.server.terminate()


def test_a_page_decides_and_rewards_with_its_key(site: Site) -> None:
    """In each of the three places where a client can put it; a beacon has the last one alone."""
    decided = site.decide()
    assert decided.status == 200
    assert decided.body["action"]["id"] in ("a", "b")
    assert decided.headers["access-control-allow-origin"] == SHOP
    assert "origin" in decided.headers["vary"].lower()
    id_ = decided.body["decisionId"]
    bearer = site.ask("Activate", {"decisionId": id_}, Authorization=f"Bearer {site.key}")
    assert (bearer.status, bearer.body["outcome"]) == (200, "ACTIVATION_OUTCOME_ACTIVATED")
    beacon = site.ask("Reward", {"decisionId": id_}, query=f"?key={site.key}", Content_Type="text/plain;charset=UTF-8")
    assert (beacon.status, beacon.body) == (200, {"outcome": "REWARD_OUTCOME_JOINED"})


def test_a_browser_is_told_that_the_page_may_call(site: Site) -> None:
    """Before it sends a header: so the key cannot be looked at yet, and every site that has one is let in."""
    path = "/decider.v1.DeciderService/Decide"
    for origin in (SHOP, "https://few.example", ADMIN):
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        told = site.send("OPTIONS", path, None, headers)
        assert (told.status, told.headers["access-control-allow-origin"]) == (204, origin)
        assert "x-api-key" in told.headers["access-control-allow-headers"]
    told = site.send("OPTIONS", path, None, {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"})
    assert told.status == 403
    assert "access-control-allow-origin" not in told.headers


def test_nobody_else_s_page_may_use_a_key(site: Site) -> None:
    """A key is read by everybody; a browser tells whose page sends it, and a stranger's page cannot change that."""
    before = site.count()
    body = {"experiment": OWN, "unitId": "unit"}
    for origin in ("https://evil.example", "null", "http://shop.example", f"{SHOP}:444", f"{SHOP}.evil.example"):
        for key in (site.key, site.root, ""):
            refused = site.ask("Decide", body, key, Origin=origin)
            assert refused.error == (403, "OTHER_ORIGIN")
            assert "access-control-allow-origin" not in refused.headers
        assert site.ask("Decide", body, query=f"?key={site.key}", Origin=origin).error == (403, "OTHER_ORIGIN")
    others: tuple[str | None, ...] = ("https://few.example", ADMIN, None)
    for other in others:  # another key's site, one that needs none, no page at all
        assert site.ask("Decide", body, site.key, Origin=other).error == (403, "OTHER_ORIGIN")
    assert site.count() == before


def test_a_site_with_a_key_calls_with_that_alone(site: Site) -> None:
    """A token on a page is a token that everybody has: where only [[pages]] names the site, it is not taken."""
    before = site.count()
    body = {"experiment": OWN, "unitId": "unit"}
    assert site.ask("Decide", body).error == (401, "NO_TOKEN")
    assert site.ask("Decide", body, site.root).error == (401, "NO_TOKEN")
    assert site.ask("Decide", body, site.key + "x").error == (401, "NO_TOKEN")
    assert site.count() == before
    assert site.ask("Decide", body, site.root, Origin=ADMIN).status == 200
    assert site.ask("Decide", body, site.root, Origin=None).status == 200


def test_a_token_is_never_taken_out_of_an_address(site: Site) -> None:
    """Addresses stand in the logs of proxies and in histories. What was sent is not told again, to whomever."""
    before = site.count()
    for origin in (SHOP, ADMIN, None):
        for sent in (site.root, "", "page_x", site.key + "x"):
            refused = site.ask("Decide", {}, site.key, query=f"?key={sent}", Origin=origin)
            assert refused.error == (401, "UNKNOWN_TOKEN")
            assert site.root not in str(refused)
            assert "a token never stands in an address" in refused.body["message"]
    assert site.count() == before
    for secret in (site.root, site.key, site.few):
        assert secret not in site.server.output


def test_a_key_is_for_its_experiments_and_roles(site: Site) -> None:
    """As a token is."""
    before = site.count()
    other = site.ask("Decide", {"experiment": OTHER, "unitId": "unit"}, site.key)
    assert other.error == (403, "OTHER_EXPERIMENT")
    assert site.decide(site.rewards).error == (403, "ROLE_MISSING")
    link = site.ask("LinkUnits", {"unitId": "unit", "sameAs": "person"}, site.key)
    assert link.error == (403, "OTHER_EXPERIMENT")
    missing = site.ask("Decide", {"experiment": "missing", "unitId": "unit"}, site.key)
    assert missing.error == (404, "EXPERIMENT_NOT_FOUND")
    assert OTHER not in str(missing.body)
    assert site.count() == before
    decided = site.grpc("DeciderService/Decide", pb.DecideRequest(experiment=OTHER, unit_id="unit"))
    for method in ("Reward", "Activate"):
        found = site.ask(method, {"decisionId": decided.decision_id}, site.key)
        nowhere = site.ask(method, {"decisionId": "nowhere"}, site.key)
        assert found.error == nowhere.error == (404, "DECISION_NOT_FOUND")
        assert found.body["message"].replace(decided.decision_id, "ID") == nowhere.body["message"].replace(
            "nowhere", "ID"
        )


def test_nothing_but_decisions_and_rewards_is_there_for_a_key(site: Site) -> None:
    """Not over gRPC, not on the page's port, no other service on this one."""
    before = site.count()
    asked: Mapping[str, Message] = {
        "DeciderService/Decide": pb.DecideRequest(experiment=OWN, unit_id="unit"),
        "ExperimentService/PauseExperiment": experiments_pb.PauseExperimentRequest(id=OWN),
    }
    for method, message in asked.items():
        status = status_of(partial(site.grpc, method, message, site.key))
        assert (code_of(status), reason_of(status)) == ("PERMISSION_DENIED", "PAGE_KEY")
        assert site.key not in str(status)
    for path in ("/metrics", f"/experiments/{OWN}", "/"):
        request = Request(f"http://{site.server.http}{path}", headers={"Authorization": f"Bearer {site.key}"})
        with pytest.raises(HTTPError) as refused:
            urlopen(request, timeout=20)
        assert refused.value.code == 403
        refused.value.close()
    for path in ("/metrics", "/decider.v1.ExperimentService/ListExperiments", "/", "/readyz"):
        answer = site.send(
            "POST", path, {}, {"Origin": SHOP, "X-API-Key": site.key, "Content-Type": "application/json"}
        )
        assert answer.status == 404
    assert site.count() == before


def test_what_no_page_needs_is_refused_before_anything_is_done(site: Site) -> None:
    """A batch as a whole: it comes from one page, whose author sees it at the first try."""
    before = site.count()
    fields: Sequence[Mapping[str, Any]] = [
        *({"withRanking": True}, {"explore": False}, {"actions": [{"id": "x"}]}, {"actionFeatures": {"a": {}}})
    ]
    for one in fields:
        assert site.decide(**one).error == (403, "NOT_FOR_PAGES")
    own = {"experiment": OWN, "unitId": "unit"}
    batch = site.ask("DecideBatch", {"requests": [own, {**own, "explore": False}]}, site.key)
    assert batch.error == (403, "NOT_FOR_PAGES")
    said = {"decisionId": "d", "rewardId": "r", "value": 1}
    for name in ("retract", "correct", "final"):
        assert site.ask("Reward", {**said, name: True}, site.key).error == (403, "NOT_FOR_PAGES")
    assert site.ask("Reward", {"unitId": "unit", "experiment": OWN}, site.key).error == (403, "NOT_FOR_PAGES")
    assert site.count() == before


def test_a_reward_by_unit_tells_nothing_of_the_unit(site: Site) -> None:
    """Whoever guesses the id of a unit would else learn whether it was there, and get the ids of its decisions: with
    those, what it has seen."""
    assert site.decide(site.units, unitId="seen").status == 200
    before = site.count()
    answers = [
        site.ask("Reward", {"unitId": unit, "experiment": OWN, "rewardId": "r"}, site.units)
        for unit in ("seen", "seen", "never-seen")
    ]
    assert [(one.status, one.body) for one in answers] == [(200, {})] * 3
    assert site.count() != before
    assert site.ask("Reward", {"unitId": "seen"}, site.units).error == (403, "OTHER_EXPERIMENT")


def test_errors_name_no_actions(site: Site) -> None:
    """One of them is for next year, and no page has shown it."""
    id_ = site.decide().body["decisionId"]
    for method, body in (
        ("Activate", {"decisionId": id_, "action": "typo"}),
        ("Decide", {"experiment": OWN, "unitId": "unit", "eligibleActions": ["typo"]}),
        ("DecideBatch", {"requests": [{"experiment": OWN, "unitId": "unit", "eligibleActions": ["typo"]}]}),
    ):
        assert "hidden" in str(site.ask(method, body, site.root, Origin=None).body)
        answer = site.ask(method, body, site.key)
        assert "hidden" not in str(answer.body)
        assert not any(b"hidden" in b64decode(one["value"] + "==") for one in answer.body.get("details", ()))
    assert "untiId: unknown field; did you mean unitId?" in site.decide(untiId="x").body["message"]
    too_long = site.decide(unitId="x" * 300)
    assert "unit_id: " in too_long.body["message"]


def test_of_too_many_calls_some_are_refused(site: Site) -> None:
    """With the time after which the next one may come; nothing of them is done, and others' calls are."""
    before, exhausted = site.count(), site.exhausted()
    one = {"experiment": OWN, "unitId": "unit"}
    first, second = (site.ask("Decide", one, site.few, X_Forwarded_For="2001:db8::1") for _ in range(2))
    assert (first.status, second.error) == (200, (429, "RATE_EXCEEDED"))
    assert 1 <= int(second.headers["retry-after"]) <= 5
    assert "retry-after" in second.headers["access-control-expose-headers"]
    assert second.body["code"] == "resource_exhausted"
    neighbour = site.ask("Decide", one, site.few, X_Forwarded_For="2001:db8::2:3:4:5")
    assert neighbour.error == (429, "RATE_EXCEEDED")
    spoofed = site.ask("Decide", one, site.few, X_Forwarded_For="9.9.9.9, 2001:db8::1")
    assert spoofed.error == (429, "RATE_EXCEEDED")
    assert site.ask("Decide", one, site.few, X_Forwarded_For="2001:db8:0:1::1").status == 200
    assert site.count()[0][0] == before[0][0] + 2
    batch = site.ask("DecideBatch", {"requests": [one] * 101}, site.key)
    assert batch.error == (429, "RATE_EXCEEDED")
    assert "send at most 100 a call" in batch.body["message"]
    assert site.count()[0][0] == before[0][0] + 2
    assert site.rate_exceeded("few") == 3
    assert site.exhausted() == exhausted, "what counts as failed calls an operator, and these any visitor can send"


def test_a_large_request_counts_as_several_and_a_larger_one_is_refused(site: Site) -> None:
    """JSON of 4 MiB can be written so that it takes 5 s to read, and 20 of those a second would keep everybody waiting:
    with a key that everybody has, more than a beacon takes is never read, however small it is packed."""
    one = {"experiment": OWN, "unitId": "unit", "context": {"features": {"text": "x" * 70_000}}}
    before = site.count()
    for method, body in (("Decide", one), ("RewardBatch", {"requests": [{"name": "x" * 66_000}]})):
        assert site.ask(method, body).error[0] == 401
        large = site.ask(method, body, site.key)
        assert (large.status, large.body["code"]) == (429, "resource_exhausted")
        assert "65,536 bytes" in large.body["message"]
    headers = {"Content-Type": "application/json", "Origin": SHOP, "X-API-Key": site.key, "Content-Encoding": "gzip"}
    with closing(HTTPConnection(site.web, timeout=20)) as connection:
        packed = gzip.compress(json.dumps(one).encode())
        connection.request("POST", DECIDE, packed, headers)
        answer = connection.getresponse()
        assert (answer.status, b"65,536 bytes" in answer.read()) == (429, True)
    one["context"] = {"features": {}}
    address, counted = next(ADDRESSES), site.rate_exceeded("shop")
    large_one = {**one, "decisionId": "x" * 60_000}
    # A small one first, so that it is the size of the last one that is too much.
    pieces = [site.ask("Decide", {**one, "decisionId": "x" * 300}, site.key, X_Forwarded_For=address)]
    while len(pieces) < 500 and pieces[-1].status != 429:  # more come while a slow machine sends them
        pieces.append(site.ask("Decide", large_one, site.key, X_Forwarded_For=address))
    assert {piece.status for piece in pieces[:20]} == {400}
    assert pieces[-1].error == (429, "RATE_EXCEEDED")
    assert site.rate_exceeded("shop") == counted + 1
    assert site.count() == before


def test_flags_are_for_a_key_as_decisions_are(site: Site) -> None:
    """Each flag is a decision: it counts as one, and of another experiment there is none."""
    flags, context = "/ofrep/v1/evaluate/flags", {"context": {"targetingKey": "unit"}}
    page = {"Origin": SHOP, "Content-Type": "application/json", "X-Forwarded-For": next(ADDRESSES)}
    all_ = site.send("POST", flags, context, {**page, "X-API-Key": site.key})
    assert (all_.status, {one["key"] for one in all_.body["flags"]}) == (200, {OWN, f"{OWN}:object"})
    other = site.send("POST", f"{flags}/{OTHER}", context, {**page, "X-API-Key": site.key})
    assert (other.status, other.body["errorCode"]) == (404, "FLAG_NOT_FOUND")
    assert OTHER in other.body["errorDetails"]
    assert OWN not in other.body["errorDetails"]
    missing = site.send("POST", f"{flags}/{OWN}", {}, {**page, "X-API-Key": site.key})
    assert (missing.status, missing.body["errorCode"]) == (400, "TARGETING_KEY_MISSING")
    assert "is needed" in missing.body["errorDetails"]
    assert site.send("POST", flags, context, {**page, "X-API-Key": site.key, "Origin": ADMIN}).status == 403
    assert site.send("POST", flags, context, {**page, "X-API-Key": site.rewards}).status == 403
    assert site.send("POST", flags, context, {**page, "X-API-Key": site.root}).status == 401
    few = [site.send("POST", flags, context, {**page, "X-API-Key": site.few}) for _ in range(2)]
    assert [one.status for one in few] == [200, 429]
    assert int(few[1].headers["retry-after"]) >= 1


def test_grpc_web_says_it_in_its_own_words(site: Site) -> None:
    """The status is in the body there, and 200 in HTTP."""
    headers = {"Origin": SHOP, "Content-Type": "application/grpc-web+proto", "X-Forwarded-For": next(ADDRESSES)}
    request = pb.DecideRequest(experiment=OWN, unit_id="unit").SerializeToString()

    def call(key: str) -> str:
        with closing(HTTPConnection(site.web, timeout=20)) as connection:
            body = b"\0" + len(request).to_bytes(4, "big") + request
            connection.request("POST", DECIDE, body, {**headers, "X-API-Key": key})
            answer = connection.getresponse()
            return f"{answer.status} {answer.headers.get('retry-after')} {answer.read().decode('latin-1')}"

    assert "grpc-status: 0" in call(site.few)
    too_many = call(site.few)
    assert too_many.startswith(("200 4 ", "200 5 "))
    assert "grpc-status: 8" in too_many
    assert "grpc-status: 7" in call(site.rewards)
    assert "grpc-status: 16" in call("")


@pytest.fixture(scope="module")
def page_port() -> Iterator[int]:
    """Of a server of empty pages. At 127.0.0.1 and at localhost they are of two sites, as a browser sees it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>a page</title>")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


IN_A_BROWSER = """
(async () => {
  const say = async (way) => { try { return await way() } catch (error) { return error.name } };
  const [url, key, body] = ["http://%s/decider.v1.DeciderService/Decide", "%s", '{"experiment":"own","unitId":"u"}'];
  const headers = {"Content-Type": "application/json", "X-API-Key": key};
  return {
    fetched: await say(async () => (await (await fetch(url, {method: "POST", headers, body})).json()).action.id),
    simple: await say(async () => (await (await fetch(`${url}?key=${key}`, {method: "POST", body})).json()).action.id),
    blind: await say(async () => (await fetch(`${url}?key=${key}`, {method: "POST", body, mode: "no-cors"})).type),
    beacon: navigator.sendBeacon(`${url}?key=${key}`, body),
  };
})()
"""


def test_a_browser_lets_the_site_call_and_no_other(chromium: Browser, site: Site, page_port: int) -> None:
    """With headers and without, by beacon, and blindly: what a stranger's page sends does nothing, and what it could
    read a browser does not give it."""
    own = new_page_key("browser", origins=[f"http://127.0.0.1:{page_port}"], experiments=[OWN])
    site.tokens.write_text(site.lines + own)
    page, stranger = (chromium.visit(f"http://{host}:{page_port}/") for host in ("127.0.0.1", "localhost"))
    script = IN_A_BROWSER % (site.web, key_of(own))
    asks = {"Origin": f"http://127.0.0.1:{page_port}", "Access-Control-Request-Method": "POST"}
    until(lambda: site.send("OPTIONS", DECIDE, None, asks).status == 204, what="the key is known")

    def refused() -> float:
        return Scrape(site)("decider_web_refused_total", key="", reason="OTHER_ORIGIN")

    before = site.count()[0][0]
    told = page.run(script)
    assert {told["fetched"], told["simple"]} <= {"a", "b"}
    assert told["beacon"] is True
    until(lambda: site.count()[0][0] == before + 4, what="all four are decided, the beacon too")
    before, were_refused = site.count(), refused()
    assert stranger.run(script) == {"fetched": "TypeError", "simple": "TypeError", "blind": "opaque", "beacon": True}
    until(lambda: refused() == were_refused + 4, what="all four are refused, the first one before it is sent")
    assert site.count() == before
    assert key_of(own) not in site.server.output


def test_a_key_that_is_taken_out_of_the_file_is_out(site: Site) -> None:
    """A second or two later, with its sites; nothing else of the file changes."""
    headers = {"Origin": "https://few.example", "Access-Control-Request-Method": "POST"}

    def preflight() -> int:
        return site.send("OPTIONS", DECIDE, None, headers).status

    assert preflight() == 204
    site.tokens.write_text(site.without)
    until(lambda: preflight() == 403, what="its site is out")
    assert site.decide(site.few).error == (401, "NO_TOKEN")
    assert site.decide().status == 200
    site.tokens.write_text(site.lines)
    until(lambda: preflight() == 204, what="it is back")


def test_a_key_for_an_experiment_that_there_is_not_is_told(site: Site) -> None:
    """A typo in the file would else be seen in the pages alone."""
    request = Request(f"http://{site.server.http}/readyz", headers={"Authorization": f"Bearer {site.root}"})
    with urlopen(request, timeout=20) as answer:
        text = answer.read().decode()
    assert "the page's key 'shop' is for experiment 'missing', which there is not" in text
    assert "'own'" not in text


def guard(folder: Path, lines: str, *, behind_proxy: bool = False) -> Guard:
    """Of a port by itself."""
    (folder / "tokens.toml").write_text(lines)
    return Guard(Access(Settings(tokens=folder / "tokens.toml")), (), behind_proxy=behind_proxy)


def asked(key: str, **headers: str) -> Asked:
    """As the guard sees it."""
    sent = {"origin": SHOP, "x-api-key": key, **{name.replace("_", "-"): value for name, value in headers.items()}}
    raw = [(name.encode(), value.encode()) for name, value in sent.items()]
    return Asked({"method": "POST", "path": "/", "headers": raw, "client": ("192.0.2.1", 1)}, lambda: None)


def test_a_proxy_that_is_not_named_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """All visitors would share the rate of one address, and whoever writes the header is not believed."""
    lines = new_page_key("shop", origins=[SHOP], experiments=[OWN])
    for _ in range(2):
        one = guard(tmp_path, lines)
        callers = {one.identify(asked(key_of(lines), x_forwarded_for=f"9.9.9.{n}"), Role.DECIDE)[0] for n in range(3)}
        assert callers == {"key:shop@192.0.2.1"}
    one = guard(tmp_path, lines, behind_proxy=True)
    one.identify(asked(key_of(lines), x_forwarded_for="9.9.9.9"), Role.DECIDE)
    assert [record.message for record in caplog.records if "name the proxy by --web-proxy" in record.message] == [
        caplog.records[0].message
    ] * 2


def test_an_open_stream_is_one_call_however_long(tmp_path: Path) -> None:
    """Whether it may go on is looked at twice a second; that is no call of its page. A page's streams are few."""
    lines = new_page_key("shop", origins=[SHOP], experiments=[OWN]) + "rate = 0.1\n"
    one = guard(tmp_path, lines)
    request = asked(key_of(lines))
    caller, rights = one.identify(request, Role.DECIDE)
    for _ in range(5):
        one.look_again(request, Role.DECIDE)
    with pytest.raises(RateExceeded):
        one.identify(request, Role.DECIDE)

    async def opened() -> None:
        few = Limit("streams of pages", most=2, most_of_one=1)
        streams = Streams(Limit("streams", most=1, most_of_one=1), of_pages=few)
        streams.open(caller, rights, lambda: None)
        with pytest.raises(LimitReached):
            streams.open(caller, rights, lambda: None)
        streams.open("token:root", Rights(), lambda: None)

    asyncio.run(opened())


def test_what_stands_open_is_told() -> None:
    """As of the other ports."""
    open_ = exposures(Settings(web="0.0.0.0:8080"))
    assert any("0.0.0.0:8080 (--web) may decide and send rewards" in one for one in open_)
    assert exposures(Settings(web="127.0.0.1:8080")) == []
