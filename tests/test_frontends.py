"""Real clients against a real server: stock OpenFeature providers, Connect, gRPC-Web, grpc-js, curl, buf, a browser.

Each is driven from its first decision to the purchase, then with a server that stands still, and with one that is gone.
What was found is the table of clients in `decider/FRONTENDS.md`: `make clients` writes it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests import browser as browsers
from tests.clients_table import (
    CLIENTS,
    FRONTENDS,
    NO_DEADLINE,
    NO_WAIT,
    PAGE,
    ROOT,
    Found,
    table_of,
    write_table,
    written_table,
)
from tests.rpc_clients import ANY_PORT, ServerProcess, rows, until

EXPERIMENT = """
id = "storefront"
baseline_action = "none"
activation = "REQUIRED"
actions = [{ id = "none" }, { id = "sale", payload = { title = "20 % off" } }, { id = "free-shipping" }]
policy = { uniform = {} }
[reward]
window = "1h"
attribution = "last"
weights = { click = 1, order = 5, purchase = 5 }
range = { maximum = 1000 }
"""
ACTIONS = {"none", "sale", "free-shipping"}
PYTHON = ROOT / ".venv-frontends" / "bin" / "python"
MODULES = FRONTENDS / "node_modules"
PROTOS = ROOT / "proto"
TYPESCRIPT = ROOT / "decider" / "client" / "typescript"
COMMON = Path(str(files("grpc_tools"))) / "_proto"
SERVICE = "decider/v1/decider_service.proto"
SIMULATOR = (sys.executable, "-m", "simulator.cli")
JARS = Path("/usr/share/java")
"""Where Debian puts them."""
KNOWN = [("vip", 80.5)]
"""What each client says of its visitor: segment and the feature cart_value. It must not get lost on the way."""
VISITOR = "visitor-42"
"""Of the example."""
IN_PAGES = [name for name in CLIENTS if name.startswith("web-")]
DEADLINE = 2.0
"""Seconds, of each call that has one."""
PATIENCE = 40.0
"""Seconds that an answer of a drive may take on a busy machine."""

Answers = dict[str, Any]
"""By client."""


class Process:
    """A drive of its own process, which takes and gives lines."""

    def __init__(self, command: Sequence[str], output: Path, environment: Mapping[str, str]) -> None:
        self._output = output
        with output.open("wb") as errors:
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=errors, text=True, cwd=output.parent, env=environment
            )

    def ask_line(self, line: str) -> str:
        """The line that answers this one."""
        assert self._process.stdin
        assert self._process.stdout
        killer = threading.Timer(PATIENCE, self._process.kill)
        killer.start()
        try:
            print(line, file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        finally:
            killer.cancel()
        assert answer, f"no answer to {line}: {self._output.read_text()[-3000:]}"
        return answer

    def ask(self, phase: str, **asked: Any) -> Answers:
        """What the clients of the drive got."""
        answers: Answers = json.loads(self.ask_line(json.dumps({"phase": phase, **asked})))
        return answers

    def close(self) -> None:
        """It ends with its input."""
        self._process.kill()
        self._process.communicate()


Call = Callable[[str, Mapping[str, object], float], dict[str, Any]]
"""Method, message and seconds; raises where there is no reply."""


class Caller:
    """A drive of one client that calls the RPCs itself."""

    def __init__(self, name: str, call: Call) -> None:
        self._name, self._bounded_call = name, call
        self._deadline = PATIENCE / 2

    def ask(self, phase: str, *, decisions: Mapping[str, str] | None = None) -> Answers:
        """As Process."""
        if phase == "ready":
            return {}
        if phase == "live":
            reply = self._decide()
            self._call("Activate", {"decisionId": reply["decisionId"]})
            self._call("Reward", {"decisionId": reply["decisionId"], "name": "click"})
            return {self._name: {"value": reply["action"]["id"], "decision": reply["decisionId"]}}
        if phase == "purchase":
            assert decisions
            self._call("Reward", {"decisionId": decisions[self._name], "name": "purchase", "value": 80.5})
            return {}
        self._deadline = DEADLINE
        begin = time.monotonic()
        try:
            value = self._decide()["action"]["id"]
        except (OSError, subprocess.SubprocessError):
            value = "code"
        return {self._name: {"value": value, "seconds": time.monotonic() - begin}}

    def _call(self, method: str, message: Mapping[str, object]) -> dict[str, Any]:
        return self._bounded_call(method, message, self._deadline)

    def _decide(self) -> dict[str, Any]:
        context = {"segment": "vip", "features": {"cart_value": 80.5}}
        return self._call("Decide", {"experiment": "storefront", "unitId": self._name, "context": context})


class Pages:
    """A drive in Chromium: a page of its own for each provider, on another origin than the server's."""

    def __init__(self, browser: browsers.Browser, site: str, web: str) -> None:
        self._browser = browser
        self._addresses = [f"{site}/?{urlencode({'web': web, 'row': row})}" for row in (*IN_PAGES, "calls")]
        self._pages: list[browsers.Page] = []

    def ask(self, phase: str, *, decisions: Mapping[str, str] | None = None) -> Answers:
        """As Process. For the purchase the tabs load their page anew."""
        if phase == "ready":
            self._pages = [self._browser.visit(address) for address in self._addresses]
            return {}
        if phase == "purchase":
            for page, address in zip(self._pages, self._addresses, strict=True):
                page.open(address)
        asked = json.dumps({"decisions": decisions})
        for page in self._pages:
            page.run(
                f"void (window.answer = import('/drive.js').then(({{ run }}) => run({json.dumps(phase)}, {asked})))"
            )
        answers: Answers = {}
        for page in self._pages:
            answers |= page.run("window.answer")
        return answers


def run_command(command: list[str], message: Mapping[str, object]) -> dict[str, Any]:
    """The JSON that a command prints for a request. Raises CalledProcessError or TimeoutExpired."""
    done = subprocess.run(
        [*command, json.dumps(message)], capture_output=True, check=True, cwd=PROTOS, timeout=PATIENCE
    )
    reply: dict[str, Any] = json.loads(done.stdout)
    return reply


def call_with_curl(web: str, method: str, message: Mapping[str, object], seconds: float) -> dict[str, Any]:
    """A plain POST."""
    header = "content-type: application/json"
    address = f"{web}/decider.v1.DeciderService/{method}"
    return run_command(["curl", "-sSf", "--max-time", f"{seconds:g}", address, "-H", header, "-d"], message)


def call_with_buf(
    address: str, options: list[str], method: str, message: Mapping[str, object], seconds: float
) -> dict[str, Any]:
    """With the proto files, as a person would."""
    buf = [
        str(Path(sys.executable).with_name("buf")),
        "curl",
        "--schema",
        ".",
        "--timeout",
        f"{seconds:g}s",
        *options,
    ]
    return run_command([*buf, f"{address}/decider.v1.DeciderService/{method}", "-d"], message)


def call_with_java(java: Process, method: str, message: Mapping[str, object], seconds: float) -> dict[str, Any]:
    """A line of the drive in Java."""
    answer = java.ask_line(f"{method} {1000 * seconds:.0f} {json.dumps(message)}")
    if answer.startswith("!"):
        raise OSError(answer)
    reply: dict[str, Any] = json.loads(answer)
    return reply


def java_commands(folder: Path, *, grpc: str, web: str) -> dict[str, list[str]]:
    """By client; those that this machine has."""
    if not shutil.which("java"):
        return {}
    commands = {"java": ["java", str(FRONTENDS / "Drive.java"), web]}
    if (JARS / "grpc-netty.jar").exists():
        messages = folder / "messages"
        protoc = [sys.executable, "-m", "grpc_tools.protoc", "-I.", "--include_imports"]
        subprocess.run([*protoc, f"--descriptor_set_out={messages}", SERVICE], check=True, cwd=PROTOS)
        drive = [str(FRONTENDS / "GrpcDrive.java"), grpc, str(messages)]
        commands["java-grpc"] = ["java", "-cp", f"{JARS}/*", *drive]
    return commands


def build(folder: Path) -> None:
    """What Node runs, and what the page loads: our providers, the drives and the generated code of connect-es."""
    (folder / "node_modules").symlink_to(MODULES)
    for file in [*FRONTENDS.glob("*drive*.mjs"), *TYPESCRIPT.glob("*.js")]:
        shutil.copy(file, folder)
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", f"-I{COMMON}"]
    plugin = [
        f"--plugin={MODULES}/.bin/protoc-gen-es",
        f"--es_out={folder / 'gen'}",
        "--es_opt=target=js,import_extension=js",
    ]
    (folder / "gen").mkdir()
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "site").mkdir()
    subprocess.run([*protoc, *plugin, SERVICE, "google/rpc/status.proto"], check=True, cwd=PROTOS)
    bundle = [f"{MODULES}/.bin/esbuild", "web_drive.mjs", "--bundle", "--format=esm", "--outfile=site/drive.js"]
    subprocess.run([*bundle, "--log-level=error"], check=True, cwd=folder)
    head = '<!doctype html><title>A shop</title><link rel="icon" href="data:,">'
    (folder / "site" / "index.html").write_text(head + '<script type="module" src="/drive.js"></script>')


class Quiet(SimpleHTTPRequestHandler):
    """Files of the shop."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The origin of these files."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{site.server_port}"
        site.shutdown()


@contextmanager
def decider(folder: Path, origin: str) -> Iterator[tuple[ServerProcess, str]]:
    """The server and the address of its web port."""
    (folder / "experiments").mkdir()
    (folder / "experiments" / "storefront.toml").write_text(EXPERIMENT)
    os.utime(folder / "experiments" / "storefront.toml", (1.7e9, 1.7e9))
    options = ("--experiments", str(folder / "experiments"), "--web", ANY_PORT, "--web-origin", origin)
    server = ServerProcess(folder / "log.db", *options)
    try:
        web = until(
            lambda: re.search(r"^Connect and JSON on (\S+?)/?$", server.output, re.MULTILINE), what="it says so"
        )
        yield server, web[1]
    finally:
        server.kill()


class Drives:
    """All of them, asked side by side."""

    def __init__(self, stack: ExitStack, folder: Path, *, origin: str, grpc: str, web: str) -> None:
        def start(name: str, *command: str, **variables: str) -> Process:
            return stack.enter_context(closing(Process(command, folder / f"{name}.log", os.environ | variables)))

        python = [str(PYTHON), str(FRONTENDS / "drive.py"), web, grpc]
        node = ["node", "node_drive.mjs", web, grpc, str(PROTOS), str(COMMON)]
        here = [start("python", *python, PYTHONPATH=str(ROOT)), start("node", *node)]
        there = [start("other python", *python, PYTHONPATH=str(ROOT)), start("other node", *node)]
        java = java_commands(folder, grpc=grpc, web=web)
        h2 = ["--protocol=grpc", "--http2-prior-knowledge"]
        others = [
            Pages(stack.enter_context(browsers.browser()), origin, web),
            Caller("curl", partial(call_with_curl, web)),
            Caller("buf", partial(call_with_buf, web, [])),
            Caller("buf-grpc", partial(call_with_buf, f"http://{grpc}", h2)),
            *[Caller(name, partial(call_with_java, start(name, *command))) for name, command in java.items()],
        ]
        self._pool = stack.enter_context(ThreadPoolExecutor(8))
        self._here: list[Any] = [*here, *others]
        self._there: list[Any] = [*there, *others]

    def decide(self) -> Answers:
        """And track a click, and say what was shown. All have started before: none is short of a processor."""
        self._ask([*self._here, *self._there[:2]], "ready")
        return self._ask(self._here, "live")

    def buy(self, decisions: Mapping[str, str]) -> None:
        """In other processes and newly loaded pages than the decisions."""
        list(self._pool.map(lambda drive: drive.ask("purchase", decisions=decisions), self._there))

    def decide_in_vain(self) -> Answers:
        """Nobody answers."""
        return self._ask(self._here, "gone")

    def _ask(self, drives: list[Any], phase: str) -> Answers:
        answers: Answers = {}
        for some in self._pool.map(lambda drive: drive.ask(phase), drives):
            answers |= some
        return answers


def fallback(answer: Mapping[str, Any]) -> str:
    """The cell of the table."""
    value, seconds = answer["value"], answer["seconds"]
    if value == "hangs":
        return NO_DEADLINE
    if value.startswith("code, but"):
        return NO_WAIT
    return "yes" if value == "code" and seconds < 2 * DEADLINE else f"no: {value} after {seconds:.1f} s"


needs_packages = pytest.mark.skipif(
    not (MODULES / "ready").exists() or not PYTHON.exists(), reason="the npm packages are not installed: make frontends"
)


@needs_packages
def test_real_clients(tmp_path: Path) -> None:
    """The table says what these versions do, and no more than that."""
    build(tmp_path)
    with ExitStack() as stack:
        origin = stack.enter_context(served(tmp_path / "site"))
        server, web = stack.enter_context(decider(tmp_path, origin))
        drives = Drives(stack, tmp_path, origin=origin, grpc=server.target, web=web)
        live = drives.decide()
        decisions = {name: answer["decision"] for name, answer in live.items() if answer["decision"]}
        drives.buy(decisions)
        run_example(tmp_path, web=web, grpc=server.target)
        run_example_in_page(tmp_path, origin=origin, web=web, db=server.db)
        assert set(rewards_of(server.db, VISITOR)) == {"order", "click"}
        found = {name: seen(server.db, name, live[name]) for name in CLIENTS if name in live}
        os.kill(server.process.pid, signal.SIGSTOP)
        for name, answer in drives.decide_in_vain().items():
            found[name].late = fallback(answer)
        os.kill(server.process.pid, signal.SIGCONT)
        assert server.terminate() == 0
        for name, answer in drives.decide_in_vain().items():
            found[name].down = fallback(answer)
    verified = subprocess.run([*SIMULATOR, "verify", str(server.db)], capture_output=True, text=True, check=False)
    assert re.fullmatch(r"(\d+) of \1 decisions equal\n", verified.stdout), verified
    if os.environ.get("WRITE_TABLE"):
        write_table(table_of(found))
    driven = table_of(found).splitlines()
    assert driven == [line for line in written_table().splitlines() if line in driven or "Java" not in line]


def run_example(folder: Path, *, web: str, grpc: str) -> None:
    """What the page of frontends has for Python."""
    (example,) = re.findall(r"^```python\n(.*?ofrep_provider.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    moved = (
        example.replace("http://127.0.0.1:8080", web).replace("127.0.0.1:50051", grpc).replace("0.3)", f"{PATIENCE})")
    )
    (folder / "example.py").write_text(moved)
    subprocess.run([PYTHON, folder / "example.py"], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def run_example_in_page(folder: Path, *, origin: str, web: str, db: Path) -> None:
    """What the page of frontends has for pages, bundled, but for what comes from the server."""
    (example,) = re.findall(r"^```js\n(.*?withRewards.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    moved = example.replace("https://decider.shop.example", web).replace("300", f"{1000 * PATIENCE:.0f}")
    (folder / "example.mjs").write_text(f"{moved}\nwindow.shown = action;")
    bundle = [f"{MODULES}/.bin/esbuild", "example.mjs", "--bundle", "--format=esm", "--outfile=site/example.js"]
    subprocess.run([*bundle, "--external:http://*", "--log-level=error"], check=True, cwd=folder)
    (folder / "site" / "example.html").write_text('<!doctype html><script type="module" src="/example.js"></script>')
    with browsers.browser() as chromium:
        page = chromium.visit(f"{origin}/example.html")
        until(lambda: page.run("window.shown") in ACTIONS, what="the page has a decision")
        until(lambda: "click" in rewards_of(db, VISITOR), what="it is rewarded")


def rewards_of(db: Path, unit: str) -> dict[str, str]:
    """Their names, and the decision that got them."""
    return dict(
        rows(
            db,
            "select name, decision_id from rewards join decisions d on d.position = decision where unit_id = ?",
            unit,
        )
    )


def seen(db: Path, name: str, answer: Mapping[str, Any]) -> Found:
    """What the log has of a client."""
    id_ = answer["decision"]
    made = rows(db, "select segment, features from decisions where decision_id = ? and unit_id = ?", id_, name)
    ((activated,),) = rows(
        db,
        "select count(*) from activations join decisions d on d.position = decision"
        " where decision_id = ? and activations.action is null",
        id_,
    )
    names = rewards_of(db, name)
    return Found(
        resolves=answer["value"] in ACTIONS
        and [(one, json.loads(known)["cart_value"]) for one, known in made] == KNOWN,
        tracks="click" in names,
        activates=activated == 1,
        survives=names.get("purchase") == id_,
    )
