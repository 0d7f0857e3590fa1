"""The examples for each kind of frontend run, as `decider/FRONTENDS.md` says, against one real server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from decider.client import Client
from decider.log.open import open_reader
from decider.types import DecisionId
from simulator.drive.server import OwnServer, serving
from tests.browser import Browser, Page, browser
from tests.rpc_clients import rows
from tests.test_readme import Place, free_port, stop
from tests.test_typescript_client import FOLDER, FRONTENDS, MODULES, Pages, node, npm_packages, wait_for

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "decider" / "client" / "examples"
STOCK_PYTHON = ROOT / ".venv-frontends" / "bin" / "python"
PATIENCE = 30.0
"""Seconds: what is tested is not the speed of the machine."""


TEXT = (ROOT / "decider" / "FRONTENDS.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()]
SERVERS = (
    "python3 -m http.server 8000 --bind 127.0.0.1 --directory decider/client/examples/plain",
    "python3 -m http.server 8000 --bind 127.0.0.1 --directory decider/client/examples/react/dist",
    "PORT=8000 node decider/client/examples/node/server.mjs",
    "PORT=8000 node decider/client/examples/cdn/origin.mjs",
    "PYTHONPATH=. .venv-frontends/bin/python -m uvicorn --app-dir decider/client/examples/fastapi shop:app --port 8000",
)
"""Commands that serve until they are ended. What they serve is tested below, from copies and with other addresses."""
NPM = ("npm install --prefix decider/client/examples", "npm run build --prefix decider/client/examples")
"""The build is run below; the packages are those of `make frontends`."""

CDN = free_port()
"""Its page calls the service, which has to know its origin before it starts."""


@pytest.fixture(scope="module")
def pages() -> Iterator[Pages]:
    """Of a shop."""
    with Pages() as started:
        yield started


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, pages: Pages) -> Iterator[OwnServer]:
    """With the experiment of the examples, for the pages of a shop."""
    folder = tmp_path_factory.mktemp("examples")
    experiment = Path(shutil.copy(EXAMPLES / "storefront.toml", folder))
    os.utime(experiment, (0, 0))  # a younger one would be waited for
    origins = [part for origin in (pages.url, f"http://127.0.0.1:{CDN}") for part in ("--web-origin", origin)]
    with serving(folder / "shop.db", experiments=[experiment], options=["--web", "127.0.0.1:0", *origins]) as started:
        yield started


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One for all."""
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `npm install` in their folder leaves them; React and Vite only where `make frontends` has installed them."""
    folder = tmp_path_factory.mktemp("npm") / "examples"
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("node_modules", "dist"))
    modules = folder / "node_modules"
    modules.mkdir()
    (modules / "decider-client").symlink_to(FOLDER)
    for name in ("react", "react-dom", "vite", ".bin"):
        if (MODULES / name).exists():
            (modules / name).symlink_to(MODULES / name)
    return folder


@contextmanager
def running(command: list[str], address: str, *, cwd: Path, env: Mapping[str, str]) -> Iterator[None]:
    """A web server of an example, once it answers."""
    process = subprocess.Popen(command, cwd=cwd, env={**os.environ, **env})
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            assert process.poll() is None, f"{command} ended"
            assert time.monotonic() < deadline, f"{command} does not answer"
            try:
                with urllib.request.urlopen(address, timeout=PATIENCE):
                    break
            except ConnectionError:
                time.sleep(0.05)
            except OSError as error:
                if not isinstance(getattr(error, "reason", None), ConnectionError):
                    raise
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(10)


def read(address: str, body: bytes | None = None, **headers: str) -> tuple[Mapping[str, str], str]:
    """Headers and text of what answers."""
    with urllib.request.urlopen(urllib.request.Request(address, body, headers), timeout=PATIENCE) as response:
        return response.headers, response.read().decode()


def logged(server: OwnServer, decision: str) -> str:
    """The action that the log has for it."""
    with closing(open_reader(server.db)) as log:
        found = log.find(DecisionId(decision))
    assert found is not None
    return found.decision.action


def logged_rows(server: OwnServer, sql: str, *parameters: str) -> list[tuple[Any, ...]]:
    """What the log says."""
    assert isinstance(server.db, Path)
    return rows(server.db, sql, *parameters)


def test_a_campaign_decides_in_batches_and_its_links_carry_the_decisions(server: OwnServer, tmp_path: Path) -> None:
    """Sent again it decides nothing anew; a click days later names the decision by its link."""
    people = tmp_path / "people.csv"
    rows = [f"person-{number},{('vip', 'new', '')[number % 3]}" for number in range(1_200)]
    people.write_text("\n".join(["unit,segment", *rows]), encoding="utf-8")
    script = f"{EXAMPLES / 'email' / 'campaign.py'}"
    command = [sys.executable, script, "autumn", f"{people}", "https://shop.example/from-mail"]
    first, second = (
        subprocess.run(
            command, env={**os.environ, "DECIDER_TARGET": server.target}, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    )
    assert first == second
    mails = [json.loads(line) for line in first.splitlines()]
    assert 600 < len(mails) < 1_200  # `none` is no mail
    assert {mail["to"] for mail in mails} < {row.partition(",")[0] for row in rows}
    (decision,) = parse_qs(urlsplit(mails[0]["link"]).query)["decision"]
    with Client(server.target, timeout=PATIENCE) as client:
        assert client.reward(decision, "click") == "joined"


def test_a_python_web_app_renders_the_decision_and_takes_the_click(server: OwnServer) -> None:
    """The page is one visitor's, and no cache keeps it; its form brings the id back."""
    if not STOCK_PYTHON.exists():
        pytest.skip("the stock Python providers are not installed: make frontends")
    address = f"http://127.0.0.1:{(port := free_port())}"
    env = {"PYTHONPATH": str(ROOT), "DECIDER_TARGET": server.target, "DECIDER_TIMEOUT": f"{PATIENCE}"}
    command = [f"{STOCK_PYTHON}", "-m", "uvicorn", "shop:app", "--port", f"{port}", "--log-level", "error"]
    with running(command, f"{address}/docs", cwd=EXAMPLES / "fastapi", env=env):
        headers, page = read(address)
        (decision,) = re.findall(r'name="decision" value="([^"]+)"', page)
        assert f'data-action="{logged(server, decision)}"' in page
        assert headers["Cache-Control"] == "private, no-store"
        assert "visitor=" in headers["Set-Cookie"]
        assert json.loads(read(f"{address}/click", f"decision={decision}".encode())[1]) == {"reward": "joined"}


OF_UNIT = "select d.action from decisions d where d.unit_id = ?"
REWARDS = (
    "select r.name from rewards r join decisions d on d.position = r.decision where d.unit_id = ? order by r.position"
)
SEEN = "select a.position from activations a join decisions d on d.position = a.decision where d.unit_id = ?"
ACTION = "document.querySelector('#banner')?.dataset.action"


def shown(page: Page) -> str:
    """The banner's action."""
    wait_for(lambda: page.run(ACTION))
    return str(page.run(ACTION))


def visitor_of(page: Page) -> str:
    """The page's own id of who visits it."""
    return str(page.run("localStorage.visitor"))


def patient(text: str) -> str:
    """An example with a client that waits for a busy machine."""
    found = re.sub(r"timeoutMs: \d+", f"timeoutMs: {PATIENCE * 1000:.0f}", text)
    assert found != text
    return found


def check_shown_and_seen(page: Page, server: OwnServer) -> None:
    """What the page shows is what the log has, once; and it was seen."""
    action = shown(page)
    assert logged_rows(server, OF_UNIT, visitor_of(page)) == [(action,)]
    wait_for(lambda: logged_rows(server, SEEN, visitor_of(page)))


def test_a_plain_page_decides_is_seen_and_rewards(server: OwnServer, pages: Pages, chromium: Browser) -> None:
    """From another origin than the service, without a build step; the purchase finds the decision that was kept."""
    text = (EXAMPLES / "plain" / "index.html").read_text(encoding="utf-8")
    pages.contents["/plain"] = patient(text.replace("http://127.0.0.1:8080", f"http://{server.web}"))
    page = chromium.visit(f"{pages.url}/plain")
    try:
        check_shown_and_seen(page, server)
        has_link = shown(page) != "none"
        page.run("document.querySelector('#banner a')?.click(), document.querySelector('#buy').click()")
        wait_for(lambda: ("order",) in logged_rows(server, REWARDS, visitor_of(page)))
        assert (("click",) in logged_rows(server, REWARDS, visitor_of(page))) == has_link
    finally:
        page.run("localStorage.clear()")
        page.close()


def test_a_page_shows_its_own_banner_when_nobody_answers(pages: Pages, chromium: Browser) -> None:
    """The server is gone; the client came with the shop's own files."""
    text = (EXAMPLES / "plain" / "index.html").read_text(encoding="utf-8")
    text = text.replace("http://127.0.0.1:8080/client.js", "/client.js")
    pages.contents["/client.js"] = (FOLDER / "client.js").read_text(encoding="utf-8")
    pages.contents["/alone"] = text.replace("http://127.0.0.1:8080", f"http://127.0.0.1:{free_port()}")
    page = chromium.visit(f"{pages.url}/alone")
    try:
        assert shown(page) == "new-arrivals"
        assert page.run("document.querySelector('#banner').textContent").strip() == "New this week"
    finally:
        page.run("localStorage.clear()")
        page.close()


def test_the_hooks_for_react_decide_once(server: OwnServer, pages: Pages, chromium: Browser, examples: Path) -> None:
    """Built by Vite as the text says; however often React renders, there is one decision."""
    npm_packages()
    hooks = examples / "react" / "decider.jsx"
    hooks.write_text(patient(hooks.read_text(encoding="utf-8")), encoding="utf-8")
    env = {**os.environ, "VITE_DECIDER_WEB": f"http://{server.web}"}
    built = subprocess.run(
        ["npm", "run", "--silent", "build"], cwd=examples, env=env, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stdout + built.stderr
    for file in (examples / "react" / "dist").rglob("*.*"):
        pages.contents[f"/{file.relative_to(examples / 'react' / 'dist')}"] = file.read_text(encoding="utf-8")
    page = chromium.visit(f"{pages.url}/index.html")
    try:
        check_shown_and_seen(page, server)
        if shown(page) != "none":
            page.run("document.querySelector('#banner a').click()")
            wait_for(lambda: logged_rows(server, REWARDS, visitor_of(page)) == [("click",)])
    finally:
        page.run("localStorage.clear()")
        page.close()


def test_the_examples_ask_for_the_packages_that_are_tested() -> None:
    """React, Vite: the same versions."""
    asked = json.loads((EXAMPLES / "package.json").read_text(encoding="utf-8"))
    tested = json.loads((FRONTENDS / "package.json").read_text(encoding="utf-8"))["dependencies"]
    (packages,) = [{**asked["dependencies"], **asked["devDependencies"]}]
    assert packages.pop("decider-client") == f"file:{os.path.relpath(FOLDER, EXAMPLES)}"
    assert packages.items() <= tested.items()


def test_a_page_rendered_in_node_hands_its_decision_on(server: OwnServer, chromium: Browser, examples: Path) -> None:
    """The page is complete without JavaScript; what is seen and clicked comes back to the shop's own server."""
    address = f"http://127.0.0.1:{(port := free_port())}"
    env = {
        "PORT": f"{port}", "DECIDER_WEB": f"http://{server.web}", "DECIDER_TIMEOUT_MS": f"{PATIENCE * 1000:.0f}"
    }  # fmt: skip
    with running([node(), "node/server.mjs"], address, cwd=examples, env=env):
        headers, text = read(address)
        assert headers["Cache-Control"] == "private, no-store"
        decision = json.loads(re.findall(r'id="decision">(.*?)</script>', text)[0])
        assert logged(server, decision["decisionId"]) == decision["action"]
        assert f'data-action="{decision["action"]}"' in text
        page = chromium.visit(address)
        found = page.run("JSON.parse(document.querySelector('#decision').textContent).decisionId")
        page.run("document.querySelector('button').click()")
        of_decision = " from decisions d join {} x on x.decision = d.position where d.decision_id = ?"
        activated, rewarded = (f"select d.action{of_decision.format(table)}" for table in ("activations", "rewards"))
        wait_for(lambda: logged_rows(server, activated, found) and logged_rows(server, rewarded, found))
        page.close()


def test_a_cached_page_is_decided_in_the_browser_or_at_the_edge(
    server: OwnServer, chromium: Browser, examples: Path
) -> None:
    """The cache has one page for all, without a decision; what has one in it, it may not keep."""
    address = f"http://127.0.0.1:{CDN}"
    origin = examples / "cdn" / "origin.mjs"
    origin.write_text(patient(origin.read_text(encoding="utf-8")), encoding="utf-8")
    env = {"PORT": f"{CDN}", "DECIDER_WEB": f"http://{server.web}"}
    with running([node(), "cdn/origin.mjs"], address, cwd=examples, env=env):
        headers, first = read(address)
        assert headers["Cache-Control"].startswith("public, ")
        assert headers["Set-Cookie"] is None
        assert read(address)[1] == first  # it may be kept for everybody
        assert read(f"{address}/bag")[0]["Cache-Control"] == "private, no-store"
        page = chromium.visit(address)
        check_shown_and_seen(page, server)
        page.run("localStorage.clear()")
        page.close()
        asked = """
            import edge from "./cdn/edge.mjs";
            const [ORIGIN, DECIDER_WEB, TIMEOUT_MS] = process.argv.slice(1);
            const env = { ORIGIN, DECIDER_WEB, TIMEOUT_MS };
            const request = (path, headers) => new Request(`https://shop.example${path}`, { headers });
            const known = request("/", { cookie: "visitor=one" });
            const pages = [await edge.fetch(request("/"), env), await edge.fetch(known, env)];
            const image = await edge.fetch(request("/banner.3f9c1e.svg"), env);
            const read = async (one) => ({ cache: one.headers.get("cache-control"), text: await one.text() });
            console.log(JSON.stringify([...(await Promise.all(pages.map(read))), await read(image)]));
            process.exit();
        """
        command = [
            node(),
            "--input-type=module",
            "-e",
            asked,
            address,
            f"http://{server.web}",
            f"{PATIENCE * 1000:.0f}",
        ]
        done = subprocess.run(command, cwd=examples, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        *filled, image = json.loads(done.stdout)
        for one in filled:
            action, decision = re.findall(r'data-action="([\w-]+)" data-decision="([\w-]+)"', one["text"])[0]
            assert logged(server, decision) == action
            assert one["cache"] == "private, no-store"
        assert logged_rows(server, OF_UNIT, "one")
        assert image["cache"] == "public, max-age=31536000, immutable"


def test_every_command_of_the_text_has_a_test() -> None:
    """A command that nobody runs is soon wrong; what it names is there."""
    served = (".venv/bin/decider serve ", "curl -s ", ".venv/bin/python decider/client/examples/email/campaign.py ")
    assert [one for one in COMMANDS if not one.startswith(served) and one not in (*SERVERS, *NPM)] == []
    assert {*SERVERS, *NPM} <= set(COMMANDS)
    named = set(re.findall(r"\]\((client/[^)#]+)\)", TEXT))
    assert {name for name in named if not (ROOT / "decider" / name).exists()} == set()
    scripts = json.loads((EXAMPLES / "package.json").read_text(encoding="utf-8"))["scripts"]
    assert {"react", "build"} <= scripts.keys()


def test_the_rewards_of_the_examples_are_those_of_their_experiment() -> None:
    """Another name is refused, and whoever copies it has no rewards. Ports are those of the server that is started."""
    weights = tomllib.loads((EXAMPLES / "storefront.toml").read_text(encoding="utf-8"))["reward"]["weights"]
    made = {"node_modules", "dist", "__pycache__"}
    sources = [path for path in EXAMPLES.rglob("*.*") if made.isdisjoint(path.parts)]
    texts = [TEXT, *(path.read_text(encoding="utf-8") for path in sources if path.is_file())]
    named = re.findall(r'(?:reward\(.*, |track\()"([\w-]+)"[,)]', "\n".join(texts))
    assert {"click", "order"} <= set(named) <= weights.keys()
    assert "127.0.0.1:9465" not in TEXT


def test_the_commands_of_the_text_reach_the_server_that_it_starts(tmp_path: Path) -> None:
    """The same server for all pages; curl decides, activates and rewards, and is told of a field that there is not."""
    place = Place(tmp_path)
    people = tmp_path / "people.csv"
    people.write_text("unit,segment\none,vip\ntwo,\n", encoding="utf-8")
    (serve,) = [one for one in COMMANDS if one.startswith(".venv/bin/decider serve")]
    (campaign,) = [one for one in COMMANDS if "campaign.py" in one]
    process = place.start(serve)
    try:
        said = [json.loads(place.run(one)) for one in COMMANDS if one.startswith("curl ")]
        campaign = campaign.replace("people.csv", f"{people}").replace("mails.jsonl", f"{tmp_path / 'mails.jsonl'}")
        place.run(f"DECIDER_TARGET=127.0.0.1:{place.port} {campaign}")
    finally:
        assert stop(process) == 0
    decided, activated, rewarded, flag, refused = said
    assert (decided["decisionId"], "propensity" in decided) == ("visit-1", True)
    assert activated["outcome"] == "ACTIVATION_OUTCOME_ACTIVATED"
    assert rewarded["outcome"] == "REWARD_OUTCOME_JOINED"
    assert flag["value"]["action"] == flag["variant"]
    assert refused["code"] == "invalid_argument"
    assert "colour" in refused["message"]
    assert all("decision=autumn-" in line for line in (tmp_path / "mails.jsonl").read_text().splitlines())
    assert place.run(".venv/bin/simulator verify shop.db") == "4 of 4 decisions equal\n"
