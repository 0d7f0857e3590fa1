"""The client for pages (`decider/client/typescript/`), as it is served: in Node, and in a real browser from another
origin. `tests/frontends/typescript_client.test.mjs` has what needs no page."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import tarfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.browser import Browser, Page, browser
from tests.test_architecture import ROOT

FOLDER = ROOT / "decider" / "client" / "typescript"
FRONTENDS = ROOT / "tests" / "frontends"
MODULES = FRONTENDS / "node_modules"
CLIENT_JS = FOLDER / "client.js"
MOST_BYTES = 10_000
"""Of the client, compressed."""


def node() -> str:
    """Node's path; skips the test where there is none."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("no Node.js on the PATH")
    return found


def npm_packages() -> Path:
    """Where their programs are; skips the test where they are not installed."""
    if not (MODULES / ".bin" / "esbuild").exists():
        pytest.skip("the npm packages are not installed: make frontends")
    return MODULES / ".bin"


def test_in_node() -> None:
    """Everything but the page itself: calls, fallbacks, outages, queues, storages, errors."""
    file = FRONTENDS / "typescript_client.test.mjs"
    done = subprocess.run(
        [node(), "--test", "--test-force-exit", file], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout


def test_it_is_small() -> None:
    """Every page of a shop loads it."""
    assert len(gzip.compress(CLIENT_JS.read_bytes(), 9)) <= MOST_BYTES


def test_what_is_served_is_what_the_source_gives(tmp_path: Path) -> None:
    """The built file is checked in, so that nobody needs npm to install or to run a server. It also passes `tsc` with
    all that is strict."""
    programs = npm_packages()
    shutil.copytree(FOLDER, tmp_path / "client", ignore=shutil.ignore_patterns("types", "client.js"))
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    run = ["npm", "run", "--silent", "build"]
    done = subprocess.run(run, cwd=tmp_path / "client", env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "client" / "client.js").read_bytes() == CLIENT_JS.read_bytes(), "run make client-js"


def test_the_package_for_npm(tmp_path: Path) -> None:
    """It has the client, its types and nothing else, and a strict program compiles against it."""
    programs = npm_packages()
    shutil.copytree(FOLDER, tmp_path / "source", ignore=shutil.ignore_patterns("types"))
    subprocess.run([programs / "tsc", "-p", tmp_path / "source"], check=True)
    subprocess.run(["npm", "pack", "--silent"], cwd=tmp_path / "source", check=True, capture_output=True)
    with tarfile.open(next((tmp_path / "source").glob("*.tgz"))) as packed:
        names = {name.removeprefix("package/") for name in packed.getnames()}
        packed.extractall(tmp_path / "packed", filter="data")
    modules = {f"types/{path.stem}.d.ts" for path in (FOLDER / "src").glob("*.ts")}
    assert names == {"package.json", "client.js", "openfeature.js", "openfeature.d.ts", "README.md"} | modules
    shutil.move(tmp_path / "packed" / "package", tmp_path / "node_modules" / "decider-client")
    (tmp_path / "shop.mts").write_text(SHOP, encoding="utf-8")
    strict = ["--strict", "--noEmit", "--module", "nodenext", "--target", "es2022", "--lib", "es2022,dom"]
    done = subprocess.run(
        [programs / "tsc", *strict, "--types", "", "shop.mts"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


SHOP = """
import { Client, cookieStorage, DeciderError, type Decision, type Reason } from "decider-client";
import { withRewards } from "decider-client/openfeature";
const client = new Client("https://decider.shop.example", { key: "k", keptStorage: cookieStorage({ domain: "a" }) });
const decision: Decision = await client.decide("storefront", "v", { fallback: "none", features: { price: 1 } });
const reason: Reason = decision.reason;
const title = decision.action.payload["title"];
const outcome = await client.reward(decision.decisionId, "click");
if (outcome === "joined") console.log(reason, title);
// @ts-expect-error - a wrong name is found before it runs
await client.decide("storefront", "v", { eligible_actions: ["a"] });
withRewards({ runsOn: "client" }, client, { deadlineMs: 300 }).runsOn;
const results = await client.decideBatch([{ experiment: "a", unitId: "b" }]);
for (const { response, error } of results) console.log(response ? response.action.id : error.code);
const slate = await client.decideSlate("a", "b", [{}], { fallback: ["x"] });
console.log(slate.decisions[0]?.action.id, DeciderError);
"""


def test_the_version_is_that_of_the_service() -> None:
    """A page's author can tell which release a client belongs to."""
    version = json.loads((FOLDER / "package.json").read_text(encoding="utf-8"))["version"]
    assert f'version = "{version}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert CLIENT_JS.read_text(encoding="utf-8").startswith(f"// decider-client {version}")


HEAD = """<!doctype html><meta charset=utf-8><title>Shop</title><body style="margin:0">
<style>div { height: 100px } #middle { height: 3000px }</style>
<div id=top>top</div><div id=middle></div><div id=below>below</div>
<script type=module>
import { Client, cookieStorage } from "/client.js";
window.failures = [];
window.cookieStorage = cookieStorage;
const options = { key: "page key", timeoutMs: 20000, onError: (failure) => failures.push(failure.code) };
window.make = (more) => new Client("STUB", { ...options, ...more });
addEventListener("pageshow", (event) => (window.restored = event.persisted));
"""
PAGES = {
    "/empty": f"{HEAD} window.ready = true; </script>",
    "/home": f"""{HEAD}
        window.client = make();
        window.decision = await client.decide("storefront", "visitor-1", {{ fallback: "none" }});
        window.ready = true;
    </script>""",
    "/thanks": f"{HEAD} window.client = make(); window.ready = true; </script>",
}


@dataclass(frozen=True, slots=True)
class Stub:
    """tests/frontends/connect_stub.mjs."""

    url: str

    def set(self, **mode: Any) -> None:
        """How it is from now on."""
        self._ask("/mode", json.dumps(mode).encode())

    def calls(self, method: str) -> list[dict[str, Any]]:
        """So far."""
        return [one for one in self._ask("/calls", b"{}") if one["method"] == method]

    def requests(self, method: str, **fields: object) -> list[dict[str, Any]]:
        """Those with these fields."""
        found = [one["request"] for one in self.calls(method)]
        return [one for one in found if fields.items() <= one.items()]

    def _ask(self, path: str, body: bytes) -> Any:
        with urllib.request.urlopen(self.url + path, body) as reply:
            return json.load(reply)


@pytest.fixture(scope="module")
def stub() -> Iterator[Stub]:
    """A server that does as it is told."""
    with subprocess.Popen([node(), FRONTENDS / "connect_stub.mjs"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield Stub(f"http://127.0.0.1:{int(process.stdout.readline())}")
        process.terminate()


class Pages:
    """A shop's own server on a port of its own: another origin than the service. contents: pages by path."""

    def __init__(self) -> None:
        self.contents: dict[str, str] = {}
        contents = self.contents

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                js = path.endswith(".js")
                self.send_response(200 if path in contents else 404)
                self.send_header("Content-Type", "text/javascript" if js else "text/html")
                self.send_header("Access-Control-Allow-Origin", "*")
                self.end_headers()
                self.wfile.write(contents.get(path, "").encode())

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Pages:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def shop(stub: Stub) -> Iterator[str]:
    """Its address."""
    with Pages() as pages:
        pages.contents |= {path: page.replace("STUB", stub.url) for path, page in PAGES.items()}
        pages.contents["/client.js"] = CLIENT_JS.read_text(encoding="utf-8")
        yield pages.url


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One for all."""
    with browser() as started:
        yield started


@pytest.fixture
def page(chromium: Browser, shop: str, stub: Stub) -> Iterator[Page]:
    """A tab with nothing kept, and a server without faults."""
    stub.set()
    page = chromium.visit(f"{shop}/empty")
    page.run("localStorage.clear(), sessionStorage.clear()")
    yield page
    page.close()  # a tab that is left open sends what the next ones store


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    """Until it is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)


def visit(page: Page, address: str) -> None:
    """Go there in the same tab, and wait for its module."""
    page.open(address)
    wait_for(lambda: page.run("window.ready"))


def test_a_page_of_another_origin_decides_and_is_rewarded(page: Page, shop: str, stub: Stub) -> None:
    """With a publishable key, and a preflight by the browser."""
    visit(page, f"{shop}/home")
    assert page.run("[decision.action.id, decision.action.payload.title]") == ["sale", "Sale of storefront"]
    assert page.run("client.reward(decision.decisionId, 'click')") == "joined"
    assert stub.calls("Decide")[-1]["authorization"] == "Bearer page key"
    assert page.run("failures") == []


def test_seen_is_what_was_in_sight_for_long_enough(page: Page, shop: str, stub: Stub) -> None:
    """Not what lies below, not in a page that is hidden, and once, however many listeners there are."""
    visit(page, f"{shop}/home")
    id_ = page.run("decision.decisionId")
    page.run("""[1, 2].forEach(() => {
        client.activateWhenSeen(document.getElementById("below"), decision, { forMs: 150 });
        client.activateWhenSeen(document.getElementById("below"), decision.decisionId, { forMs: 150 });
        client.activateWhenSeen(document.getElementById("top"), { decisionId: "" });
    })""")
    time.sleep(0.4)
    assert stub.requests("Activate", decisionId=id_) == []
    page.run("Object.defineProperty(document, 'hidden', { value: true, configurable: true })")
    page.run("document.getElementById('below').scrollIntoView()")
    time.sleep(0.4)
    assert stub.requests("Activate", decisionId=id_) == []
    page.run("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    wait_for(lambda: stub.requests("Activate", decisionId=id_))
    page.run("client.activateWhenSeen(document.getElementById('below'), decision, { forMs: 10 })")
    time.sleep(0.3)
    assert stub.requests("Activate", decisionId=id_) == [{"decisionId": id_}]


def test_an_element_that_is_larger_than_the_window_or_gets_its_size_late(page: Page, shop: str, stub: Stub) -> None:
    """Half of a long list is never in sight at once; an image has no size before it comes."""
    visit(page, f"{shop}/home")
    page.run("""
        document.body.style.height = "90000px";
        client.activateWhenSeen(document.body, "the whole page", { forMs: 50 });
        top.empty = document.body.insertBefore(document.createElement("div"), document.body.firstChild);
        top.empty.style.height = 0;
        client.activateWhenSeen(top.empty, "an image", { forMs: 50 });
        null""")
    wait_for(lambda: stub.requests("Activate", decisionId="the whole page"))
    assert stub.requests("Activate", decisionId="an image") == []
    page.run("top.empty.style.height = '100px'")
    wait_for(lambda: stub.requests("Activate", decisionId="an image"))


def test_a_reward_outlives_its_page_and_counts_once(page: Page, shop: str, stub: Stub) -> None:
    """A click leads away before its reward is answered: a beacon takes it, and the next page says it again."""
    visit(page, f"{shop}/home")
    stub.set(hang=True, only="Reward")
    page.run("client.reward(decision.decisionId, 'click', 1, { rewardId: 'click-1' }), null")
    wait_for(lambda: stub.requests("Reward", rewardId="click-1"))
    visit(page, f"{shop}/thanks")
    wait_for(
        lambda: [one for one in stub.calls("RewardBatch") if one["request"]["requests"][0]["rewardId"] == "click-1"]
    )
    beacon = stub.calls("RewardBatch")[-1]
    assert (beacon["key"], beacon["type"]) == ("page key", "text/plain;charset=UTF-8")
    stub.set()
    wait_for(lambda: len(stub.requests("Reward", rewardId="click-1")) == 2)
    wait_for(lambda: page.run("client.waiting") == 0)
    assert page.run("client.undelivered") == []


def test_a_decision_that_nobody_will_see_is_reported(page: Page, shop: str, stub: Stub) -> None:
    """The visitor goes on before the answer: it may be committed."""
    visit(page, f"{shop}/thanks")
    stub.set(hang=True, only="Decide")
    page.run("client.decide('storefront', 'visitor-1', { fallback: 'none', decisionId: 'unseen' }), null")
    wait_for(lambda: stub.requests("Decide", decisionId="unseen"))
    page.run("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: false }))")
    wait_for(lambda: stub.requests("Activate", decisionId="unseen", action="none"))


def test_the_id_survives_to_the_purchase_and_back(page: Page, shop: str, stub: Stub) -> None:
    """Over pages of the site; and a page that the browser kept shows what it showed: no new exposure, the same id."""
    visit(page, f"{shop}/home")
    id_ = page.run("decision.decisionId")
    page.run("client.activateWhenSeen(document.getElementById('top'), decision, { forMs: 1 })")
    wait_for(lambda: stub.requests("Activate", decisionId=id_))
    page.run("location.href = '/thanks'")
    wait_for(lambda: page.run("location.pathname == '/thanks' && window.ready"))
    assert page.run("client.kept('storefront')") == id_
    newer = page.run("client.decide('storefront', 'visitor-1').then((one) => one.decisionId)")
    assert page.run("client.kept('storefront')") == newer != id_
    page.run("history.back()")
    wait_for(lambda: page.run("location.pathname == '/home' && window.ready"))
    assert page.run("restored"), "the page was not kept by the browser: something in the client forbids it"
    page.run("client.activateWhenSeen(document.getElementById('top'), decision, { forMs: 1 })")
    time.sleep(0.2)
    assert len(stub.requests("Activate", decisionId=id_)) == 1
    assert page.run("client.kept('storefront')") == id_
    assert page.run("client.reward(client.kept('storefront'), 'purchase', 80)") == "joined"
    assert stub.calls("Reward")[-1]["request"]["decisionId"] == id_


def test_offline(page: Page, shop: str, stub: Stub) -> None:
    """Decisions fall back at once, rewards wait, and go when the network is back."""
    visit(page, f"{shop}/home")
    stub.set(status=503, text="", headers={"retry-after": "200"})
    assert page.run("client.reward(decision.decisionId, 'click', 1, { rewardId: 'tunnel-1' })") == "queued"
    stub.set()
    page.cut_off()
    assert page.run("client.decide('storefront', 'v', { fallback: 'none' }).then((one) => one.action.id)") == "none"
    assert page.run("client.reward(decision.decisionId, 'click', 1, { rewardId: 'tunnel-2' })") == "queued"
    assert page.run("client.waiting") == 2  # no report of the fallback: nothing was sent
    page.cut_off(False)
    wait_for(lambda: page.run("client.waiting") == 0)  # long before the server wanted to be asked again
    for id_ in ("tunnel-1", "tunnel-2"):
        assert stub.requests("Reward", rewardId=id_)


def test_two_tabs(chromium: Browser, page: Page, shop: str, stub: Stub) -> None:
    """They share what is kept and what waits, and neither loses anything of the other."""
    other = chromium.visit(f"{shop}/thanks")
    visit(page, f"{shop}/home")
    wait_for(lambda: other.run("window.ready"))
    assert other.run("client.kept('storefront')") == page.run("decision.decisionId")
    stub.set(status=503, text="")
    for tab, name in ((page, "one"), (other, "two")):
        assert tab.run(f"client.reward('d', 'click', 1, {{ rewardId: 'tab {name}' }})") == "queued"
    stub.set()
    assert other.run("client.flush()")
    assert stub.requests("Reward", rewardId="tab one")
    assert stub.requests("Reward", rewardId="tab two")
    assert page.run("client.flush()")
    assert page.run("Object.keys(localStorage).filter((key) => key.includes('|q|'))") == []
    other.close()


def test_a_full_storage_a_forbidden_one_and_cookies(page: Page, shop: str) -> None:
    """What localStorage does not take goes to sessionStorage; without any storage the page itself still knows."""
    page.run("""
        for (let size = 1 << 22; size >= 1; size >>= 1) {
            try { for (let n = 0; n < 9; n++) localStorage.setItem(`fill${size}-${n}`, "x".repeat(size)) } catch {}
        }""")
    visit(page, f"{shop}/home")
    id_ = page.run("decision.decisionId")
    assert page.run("Object.keys(localStorage).filter((key) => key.startsWith('decider'))") == []
    visit(page, f"{shop}/thanks")
    assert page.run("client.kept('storefront')") == id_
    page.run("localStorage.clear(), sessionStorage.clear()")
    forbidden = f"""new Promise((resolve) => {{
        addEventListener("message", (event) => resolve(event.data));
        const frame = document.createElement("iframe");
        frame.sandbox = "allow-scripts";
        frame.srcdoc = `<script type=module>
            import {{ Client }} from "{shop}/client.js";
            const client = new Client("STUB");
            const {{ decisionId }} = await client.decide("storefront", "v", {{ fallback: "none" }});
            let denied = ""; try {{ localStorage }} catch (error) {{ denied = error.name }}
            const kept = client.kept("storefront") === decisionId;
            parent.postMessage([denied, kept, await client.reward(decisionId)], "*");
        <` + "/script>";
        document.body.append(frame);
    }})"""
    url = page.run('Object.keys(localStorage), client.constructor, document.scripts[0].text.match(/http:[^"]+/)[0]')
    assert page.run(forbidden.replace("STUB", url)) == ["SecurityError", True, "joined"]
    assert page.run("""(async () => {
        const first = make({ keptStorage: cookieStorage() });
        const { decisionId } = await first.decide("storefront", "v");
        const same = make({ keptStorage: cookieStorage() }).kept("storefront") === decisionId;
        return [same, Object.keys(localStorage).length];
    })()""") == [True, 0]
    page.run("document.cookie = 'offer=50%'")  # another script's, which does not decode
    assert page.run("make({ keptStorage: cookieStorage() }).kept('storefront')") != ""
    page.run("document.cookie = 'offer=; max-age=0'")
    page.run("make({ keptStorage: cookieStorage() }).forget()")
    assert page.run("document.cookie") == ""
