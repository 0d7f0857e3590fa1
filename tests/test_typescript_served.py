"""The client for pages against a real server: loaded from its port for frontends by a page of another origin, with a
publishable key; and from Node, with a token."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from decider.server.roles import Role
from decider.server.tokens import new_page_key, new_token
from tests.browser import Browser, browser
from tests.rpc_clients import ServerProcess, until
from tests.rpc_clients import rows as rows_of
from tests.test_page_keys import WEB, key_of
from tests.test_typescript_client import CLIENT_JS, FOLDER, MOST_BYTES, Pages, node, visit, wait_for

EXPERIMENT = """
id = "storefront"
baseline_action = "none"
activation = "required"

[[actions]]
id = "none"

[[actions]]
id = "sale"
payload = { title = "20 % off" }

[reward]
weights = { click = 0.1, purchase = 1.0 }
range = { minimum = 0, maximum = 200 }
attribution = "last"
"""


class Site(NamedTuple):
    """A shop with its pages, and a server that takes calls from them. web: its address; elsewhere: the same pages as
    another origin."""

    db: Path
    web: str
    shop: str
    elsewhere: str
    token: str

    def rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Of the log."""
        return rows_of(self.db, sql, *parameters)


README = re.findall(r"```(?:html|js)\n(.*?)```", (FOLDER / "README.md").read_text(encoding="utf-8"), re.DOTALL)
"""Its examples: a page, the line of a purchase, a program for Node."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Started as a person would, with a tokens file."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "storefront.toml").write_text(EXPERIMENT, encoding="utf-8")
    with Pages() as pages:
        token, row = new_token("backend", [Role.DECIDE, Role.REWARD], [], None)
        page_row = new_page_key("shop", origins=[pages.url], experiments=["storefront"])
        (folder / "tokens.toml").write_text(row + page_row, encoding="utf-8")
        files = ("--experiments", str(folder / "storefront.toml"), "--tokens", str(folder / "tokens.toml"))
        server = ServerProcess(folder / "log.db", *files, "--web", "127.0.0.1:0")
        web = until(lambda: WEB.search(server.output), what="the address of --web")[1]
        shown = f"window.buy = () => {README[1].strip()[:-1]}; Object.assign(window, {{ decision, ready: true }});"
        page = README[0].replace("</script>", f"{shown}</script>").replace("page_...", key_of(page_row))
        patient = page.replace("timeoutMs: 300", "timeoutMs: 5000")
        pages.contents["/readme"] = patient.replace("http://127.0.0.1:9465", f"http://{web}")
        pages.contents["/home"] = HOME.replace("SERVER", f"http://{web}").replace("KEY", key_of(page_row))
        elsewhere = pages.url.replace("127.0.0.1", "localhost")
        try:
            yield Site(folder / "log.db", f"http://{web}", pages.url, elsewhere, token)
        finally:
            server.kill()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One for all."""
    with browser() as started:
        yield started


HOME = """<!doctype html><meta charset=utf-8><title>Shop</title><h1 id=banner>Hello</h1>
<script type=module>
import { Client } from "SERVER/client.js";
window.failures = [];
window.client = new Client("SERVER", { key: "KEY", timeoutMs: 5000, onError: (failure) => failures.push(failure) });
const known = { segment: "vip", features: { age: 31 } };
window.decision = await client.decide("storefront", "visitor-1", { fallback: "none", ...known });
client.activateWhenSeen(document.getElementById("banner"), decision, { forMs: 50 });
window.ready = true;
</script>"""


def load(address: str, **headers: str) -> tuple[int, Mapping[str, str], bytes]:
    """Status, headers and content."""
    request = urllib.request.Request(
        address, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, {name.lower(): value for name, value in error.headers.items()}, error.read()


def test_every_page_may_load_it(site: Site) -> None:
    """Also one of another origin, which may do nothing with it; compressed, and known by its tag."""
    status, headers, content = load(f"{site.web}/client.js", origin="https://stranger.example")
    assert (status, content) == (200, CLIENT_JS.read_bytes())
    assert headers["content-type"] == "text/javascript; charset=utf-8"
    assert headers["access-control-allow-origin"] == "*"
    assert headers["cache-control"].startswith("public, max-age=3600, stale-while-revalidate=")
    status, packed_headers, packed = load(f"{site.web}/client.js", accept_encoding="gzip, br")
    assert packed_headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed) == content
    assert len(packed) <= MOST_BYTES
    assert packed_headers["etag"] != headers["etag"]
    assert load(f"{site.web}/client.js", if_none_match=f'W/"x", {headers["etag"]}')[0] == 304
    assert load(f"{site.web}/client.js", if_none_match='"another"')[0] == 200


def test_a_visit(chromium: Browser, site: Site) -> None:
    """Decide, activate when seen, and reward, from a page of another origin; then a click that leads away at once."""
    page = chromium.visit(f"{site.shop}/home")
    visit(page, f"{site.shop}/home")
    assert page.run("failures") == []
    id_ = page.run("decision.decisionId")
    assert page.run("decision.action.id") in ("none", "sale")
    assert page.run("decision.action.id == 'none' || decision.action.payload.title == '20 % off'")
    (logged,) = site.rows("select position, unit_id, segment, features from decisions where decision_id = ?", id_)
    assert logged[1:] == ("visitor-1", "vip", '{"age":31.0}')
    wait_for(lambda: site.rows("select 1 from activations where decision = ?", logged[0]))
    assert page.run("client.reward(decision.decisionId, 'click')") == "joined"
    page.run("client.reward(decision.decisionId, 'purchase', 80, { rewardId: 'order-1' }), location.href = '/home'")
    wait_for(lambda: site.rows("select 1 from rewards where reward_id = 'order-1'"))
    wait_for(lambda: page.run("window.ready && client.waiting == 0"))
    assert page.run("client.undelivered") == []
    assert page.run("client.kept('storefront')") == page.run("decision.decisionId") != id_
    assert site.rows("select name, value from rewards where decision = ?", logged[0]) == [
        ("click", 1.0),
        ("purchase", 80.0),
    ]
    page.close()


def test_beacons_are_taken(chromium: Browser, site: Site) -> None:
    """As texts without a preflight, with the key in the address: what a page sends as it goes away."""
    page = chromium.visit(f"{site.shop}/home")
    visit(page, f"{site.shop}/home")
    id_ = page.run("decision.decisionId")
    page.run("""
        globalThis.fetch = () => new Promise(() => {}); // the network is slow
        client.activate(decision.decisionId);
        for (const id of ["last-1", "last-2"]) client.reward(decision.decisionId, "click", 1, { rewardId: id });
        null""")
    page.run("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    wait_for(lambda: len(site.rows("select 1 from rewards where reward_id like 'last-%'")) == 2)
    joined = (
        "select 1 from activations join decisions on activations.decision = decisions.position where decision_id = ?"
    )
    wait_for(lambda: site.rows(joined, id_))
    page.close()


def test_what_a_key_may_not_ask_spoils_nothing_else(chromium: Browser, site: Site) -> None:
    """Two parts of a page ask in one moment, and the server refuses a batch whole in which one asks for the policy."""
    page = chromium.visit(f"{site.shop}/home")
    visit(page, f"{site.shop}/home")
    page.run("""
        window.options = { fallback: "none", segment: "vip" };
        window.asked = Promise.all([
            client.decide("storefront", "visitor-1", { ...options, withRanking: true }),
            client.decide("storefront", "visitor-1", options),
        ]); null""")
    assert page.run("asked.then((all) => all.map((one) => one.decisionId !== ''))") == [False, True]
    assert page.run("failures.map((one) => one.reason)") == ["NOT_FOR_PAGES"]
    wait_for(lambda: page.run("client.waiting") == 0)
    page.close()


def test_a_page_of_somebody_else(chromium: Browser, site: Site) -> None:
    """It can load the client, and shows its fallback: nothing is decided for it."""
    before = site.rows("select count(*) from decisions")
    page = chromium.visit(f"{site.elsewhere}/home")
    visit(page, f"{site.elsewhere}/home")
    assert page.run("[decision.action.id, decision.decisionId, decision.reason]") == ["none", "", "REASON_FALLBACK"]
    assert page.run("failures[0].consequence") == "fallback"
    assert site.rows("select count(*) from decisions") == before
    page.close()


NODE = """
import { Client } from "CLIENT";
const client = new Client("SERVER", { token: () => "TOKEN", timeoutMs: 5000 });
console.warn = () => {};
const batch = await client.decideBatch([
  { experiment: "storefront", unitId: "customer-7" },
  { experiment: "missing", unitId: "customer-7" },
]);
const nothing = { eligibleActions: ["none"], excludedActions: ["none"] };
const wrong = await client.decide("storefront", "u", nothing).catch((error) => error);
const slots = [{ features: { place: "top" } }, {}];
const slate = await client.decideSlate("storefront", "u", slots, { fallback: ["none", "sale"] });
const again = await client.decide("storefront", "u", { decisionId: "mine", withRanking: true });
const outcomes = [
  await client.activate("mine"),
  await client.reward("mine", "purchase", 80, { rewardId: "order-2" }),
  await client.reward("mine", "purchase", 60, { rewardId: "order-2", correct: true }),
  await client.reward("mine", null, undefined, { rewardId: "order-2", retract: true }),
  await client.rewardUnit("u", "purchase", 5, { experiment: "storefront" }),
  await client.linkUnits("u", "customer-7"),
  await client.reward("nobody's", "click"),
];
console.log(JSON.stringify({
  batch: [batch[0].response.action.id, batch[1].error.code, batch[1].error.reason],
  wrong: [wrong.code, wrong.reason],
  slate: slate.decisions.map((one) => one.action.id).sort(),
  ranking: again.ranking.length, outcomes, undelivered: client.undelivered,
}));
await client.close();
"""


def test_from_node(site: Site, tmp_path: Path) -> None:
    """A server that renders pages, with a token: batches, slates, corrections, and the server's own words in errors."""
    script = NODE.replace("CLIENT", (FOLDER / "client.js").as_uri()).replace("SERVER", site.web)
    (tmp_path / "shop.mjs").write_text(script.replace("TOKEN", site.token), encoding="utf-8")
    done = subprocess.run([node(), tmp_path / "shop.mjs"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["batch"][1:] == ["NOT_FOUND", "EXPERIMENT_NOT_FOUND"]
    assert found["wrong"] == ["FAILED_PRECONDITION", "NO_ELIGIBLE_ACTION"]
    assert found["slate"] == ["none", "sale"]
    assert found["ranking"] == 2
    assert found["outcomes"] == ["activated", "joined", "corrected", "retracted", "joined", "linked", "refused"]
    assert found["undelivered"] == [{"code": "NOT_FOUND", "reason": "DECISION_NOT_FOUND", "count": 1}]


def test_the_readmes_page(chromium: Browser, site: Site) -> None:
    """As it stands there, with another address and key."""
    page = chromium.visit(f"{site.shop}/readme")
    wait_for(lambda: page.run("window.ready"))
    id_ = page.run("decision.decisionId")
    assert page.run("banner.textContent") in ("", "20 % off")
    page.run("banner.click()")
    assert page.run("buy()") == "joined"
    named = "select name, value from rewards join decisions on decision = decisions.position where decision_id = ?"
    wait_for(lambda: set(site.rows(named, id_)) == {("click", 1.0), ("purchase", 79.9)})
    page.close()


def test_the_readmes_program(site: Site, tmp_path: Path) -> None:
    """As it stands there, with the package where npm would put it."""
    package = tmp_path / "node_modules" / "decider-client"
    package.mkdir(parents=True)
    for name in ("client.js", "package.json"):
        shutil.copy(FOLDER / name, package)
    (tmp_path / "shop.mjs").write_text(README[2].replace("http://127.0.0.1:9465", site.web), encoding="utf-8")
    environment = {**os.environ, "DECIDER_TOKEN": site.token}
    done = subprocess.run([node(), tmp_path / "shop.mjs"], capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"(none \{\}|sale \{ title: '20 % off' \})\njoined\n", done.stdout)
