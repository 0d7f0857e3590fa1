"""The shipped rules and dashboard in a real Prometheus and a real Alertmanager, on faults made on purpose.

The rules' minutes are made shorter, each in the same proportion below an hour: nothing else of them is changed.
`test_ops.py` has every rule with its own minutes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from random import Random

import grpc
import pytest

from decider.log.open import open_reader
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from simulator.verify import verify
from tests.promtool import ALERTS, RULES
from tests.rpc_clients import GrpcClient, ServerProcess, experiment, fetch, until
from tests.test_metrics import answers, ask, free_port, start_prometheus

MINUTE, HOUR_MINUTE = 500, 100
"""Milliseconds that a minute of a rule lasts here: in times of less than an hour, and in longer ones."""

DASHBOARD = RULES.with_name("dashboard.json")

ALERTMANAGER = """
route:
  receiver: tickets
  group_by: [job, experiment]
  group_wait: 100ms
  routes: [{receiver: pager, matchers: [severity="page"]}]
receivers: [{name: tickets}, {name: pager}]
"""


def shorter(rules: str) -> str:
    """With other times.

    >>> shorter("for: 5m"), shorter("x[6h] offset 15m"), shorter("offset 23h30m"), shorter("rate1h, 30m")
    ('for: 2500ms', 'x[36000ms] offset 7500ms', 'offset 141000ms', 'rate1h, 30m')
    """
    return re.sub(r"(for: |\[|offset )(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?=[\]\s)]|$)", _shorter, rules)


def _shorter(found: re.Match[str]) -> str:
    before, days, hours, minutes = found[1], *(int(part or 0) for part in found.groups()[1:])
    whole = (days * 24 + hours) * 60 + minutes
    return f"{before}{whole * (MINUTE if whole < 60 else HOUR_MINUTE)}ms" if whole else found[0]


class Monitored:
    """A server process, a Prometheus that scrapes it with the shipped rules, and an Alertmanager behind that."""

    def __init__(self, folder: Path, *options: str, db: Path | None = None) -> None:
        self.folder, self.options = folder, options
        self.db = db or folder / "log.db"
        self.http = f"127.0.0.1:{free_port()}"
        self.started: list[subprocess.Popen[bytes]] = []
        self.serve()
        self.alertmanager = self._start_alertmanager()
        self.prometheus = self._start_prometheus()

    def serve(self) -> None:
        """Start the server, on the same HTTP port again."""
        output = self.folder / "server"  # of which the output's name is made: on a large disk
        options = ("--db", str(self.db), "--http", self.http, "--learn-interval", "0.1", *self.options)
        self.server = ServerProcess(output, *options)
        self.client = GrpcClient(self.db, self.server.target, self.server.http)

    def _start_alertmanager(self) -> str:
        config = self.folder / "alertmanager.yml"
        config.write_text(ALERTMANAGER)
        address = f"127.0.0.1:{free_port()}"
        command = [
            *(shutil.which("prometheus-alertmanager") or "", f"--config.file={config}", "--cluster.listen-address="),
            *(f"--storage.path={self.folder / 'alertmanager'}", f"--web.listen-address={address}"),
        ]
        with (self.folder / "alertmanager.output").open("wb") as both:
            self.started.append(subprocess.Popen(command, stdout=both, stderr=both))
        until(lambda: answers(f"http://{address}/-/ready"), what="the Alertmanager is ready")
        return address

    def _start_prometheus(self) -> str:
        (self.folder / "rules.yml").write_text(shorter(RULES.read_text(encoding="utf-8")))
        config = self.folder / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 250ms, scrape_timeout: 250ms, evaluation_interval: 250ms}\n"
            f"rule_files: ['{self.folder / 'rules.yml'}']\n"
            f"alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{self.alertmanager}']}}]}}]}}\n"
            f"scrape_configs: [{{job_name: decider, static_configs: [{{targets: ['{self.http}']}}]}}]\n"
        )
        process, address = start_prometheus(shutil.which("prometheus") or "", config, self.folder)
        self.started.append(process)
        return address

    def firing(self) -> set[str]:
        """Alerts that the Alertmanager has now, each as "receiver name"."""
        _, text = fetch(f"http://{self.alertmanager}/api/v2/alerts?active=true")
        return {f"{one['receivers'][0]['name']} {one['labels']['alertname']}" for one in json.loads(text)}

    def fires(self, alert: str) -> dict[str, str]:
        """Its annotations, as soon as the Alertmanager has it; "pager DeciderDown"."""
        until(lambda: alert in self.firing(), what=f"{alert} fires; there is {self.firing()}", patience=45)
        _, text = fetch(f"http://{self.alertmanager}/api/v2/alerts")
        name = alert.split()[1]
        return next(one["annotations"] for one in json.loads(text) if one["labels"]["alertname"] == name)

    def ends(self, alert: str) -> None:
        """It is over, also for the Alertmanager."""
        until(lambda: alert not in self.firing(), what=f"{alert} is over", patience=45)

    def close(self) -> None:
        """End all of it."""
        self.client.close()
        self.server.terminate()
        for process in self.started:
            os.kill(process.pid, signal.SIGTERM)
            process.wait(30)


Monitor = Callable[..., Monitored]


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[Monitor]:
    """Starts one; options are those of the server."""
    if shutil.which("prometheus", path="/usr/bin") is None:
        pytest.skip("there is no /usr/bin/prometheus")
    if shutil.which("prometheus-alertmanager", path="/usr/bin") is None:
        pytest.skip("there is no /usr/bin/prometheus-alertmanager")
    opened: list[Monitored] = []

    def start(*options: str, db: Path | None = None) -> Monitored:
        opened.append(Monitored(tmp_path, *options, db=db))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


class Traffic:
    """Visitors, 20 at a time, until `close`; what they do can be changed meanwhile."""

    def __init__(self, client: GrpcClient, id_: str, *, pause: float = 0.1) -> None:
        self.client, self.id, self.pause = client, id_, pause
        self.rewards = True
        self.features: dict[str, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        random = Random(3)
        while not self._over.wait(self.pause):
            with suppress(grpc.RpcError):
                self._visit(random)

    def _visit(self, random: Random) -> None:
        context = pb.Context()
        context.features.update(self.features)
        requests = [
            pb.DecideRequest(experiment=self.id, unit_id=f"unit-{random.random()}", context=context) for _ in range(20)
        ]
        ids = [one.response.decision_id for one in self.client.decide_batch(requests) if one.HasField("response")]
        rewards = [pb.RewardRequest(decision_id=one, name="click") for one in ids if random.random() < 0.3]
        if rewards and self.rewards:
            self.client.reward_batch(rewards)

    def close(self) -> None:
        """No more."""
        self._over.set()
        self._thread.join(30)


def shop() -> experiment_pb2.Experiment:
    """An experiment with a short window, a holdout, and a policy that many features make dear."""
    made = experiment("shop", "sale", "outfit", "none", window=0.5, holdout=0.2, baseline_action="none")
    made.policy.CopyFrom(experiment_pb2.Policy(squarecb=experiment_pb2.SquareCb(), interactions=["CCCC"]))
    return made


MANY = {f"x{number}": float(number) for number in range(60)}
"""Features, too many for the budget."""


def test_rewards_that_stop_wake_somebody_and_a_pause_does_not(monitor: Monitor) -> None:
    """The way from a broken pixel to a pager, through all of the programs on it; and back."""
    seen = monitor("--decide-budget", "0.005")
    seen.client.apply(shop())
    with closing(Traffic(seen.client, "shop")) as traffic:
        until(
            lambda: ask(seen.prometheus, "quantile_over_time(.25, decider:rewards:increase15m[5s] offset 12s) > 20"),
            what="the usual rewards are known", patience=60,
        )  # fmt: skip
        assert seen.firing() == set()
        traffic.rewards = False
        told = seen.fires("pager DeciderRewardsStopped")
        assert told["summary"] == "Rewards of shop have stopped."
        assert "leave-out" in told["description"]
        seen.fires("tickets DeciderLearningHeld")
        traffic.rewards = True
        seen.ends("pager DeciderRewardsStopped")
        seen.ends("tickets DeciderLearningHeld")
        traffic.features = MANY
        assert "of the decisions of shop get the baseline action" in seen.fires("pager DeciderFallback")["summary"]
        traffic.features = {}
        seen.ends("pager DeciderFallback")
        seen.client.pause("shop")
        paused = "decider:decisions:increase15m == 0"
        until(lambda: ask(seen.prometheus, paused), what="nothing is decided", patience=45)
        assert seen.firing() == set()
    seen.server.terminate()
    with closing(open_reader(seen.db)) as log:
        checked = verify(log)
    assert checked.equal == checked.decisions > 0


def test_a_server_that_is_gone_wakes_somebody(monitor: Monitor) -> None:
    """Killed, so that it can say nothing itself."""
    seen = monitor()
    seen.client.apply(shop())
    until(lambda: ask(seen.prometheus, "decider_ready == 1"), what="it is scraped")
    assert seen.firing() == set()
    seen.server.kill()
    assert seen.fires("pager DeciderDown")["summary"] == f"The server {seen.http} does not answer."
    assert seen.firing() == {"pager DeciderDown"}
    seen.serve()
    seen.ends("pager DeciderDown")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mount does not work here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_wakes_somebody(small_disk: Path, monitor: Monitor) -> None:
    """First that it gets full, then that nothing can be written any more."""
    seen = monitor(db=small_disk / "log.db")
    seen.client.apply(shop())
    told = seen.fires("pager DeciderDiskLow")
    assert re.match(r"Only [\d.]+[Mk]iB are free on the disk", told["summary"])
    with closing(Traffic(seen.client, "shop", pause=0.02)):
        seen.fires("pager DeciderNotReady")
        seen.fires("pager DeciderErrors")
        subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
        seen.ends("pager DeciderNotReady")
        seen.ends("pager DeciderErrors")


def expressions(part: object) -> Iterator[str]:
    """Every expression in a part of the dashboard."""
    if isinstance(part, dict):
        if "expr" in part:
            yield str(part["expr"])
        if str(part.get("query", "")).startswith("label_values("):
            yield part["query"].removeprefix("label_values(").rpartition(",")[0]
        part = list(part.values())
    if isinstance(part, list):
        for one in part:
            yield from expressions(one)


def test_every_expression_of_rules_and_dashboard_is_answered(monitor: Monitor) -> None:
    """A panel whose query is wrong shows an error, one whose metric is gone shows nothing, and a rule whose expression
    fails stays quiet for ever. Each gives few series, whatever the traffic is."""
    seen = monitor()
    seen.client.apply(shop())
    with closing(Traffic(seen.client, "shop")):
        until(lambda: ask(seen.prometheus, "increase(decider_learned_total[5s]) > 0"), what="it learns")
        found = list(expressions(json.loads(DASHBOARD.read_text(encoding="utf-8"))))
        assert len(found) > 30
        for one in found:
            asked = one.replace("$__rate_interval", "5s").replace("$job", "decider").replace("$experiment", "shop")
            assert "$" not in asked
            series = ask(seen.prometheus, asked)
            assert len(series) < 100, one
            assert series or any(name in one for name in MAY_BE_SILENT), one
        _, text = fetch(f"{seen.prometheus}/api/v1/rules")
    rules = [rule for group in json.loads(text)["data"]["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in rules if rule["type"] == "alerting"} == set(ALERTS)
    assert [rule["name"] for rule in rules if rule["health"] != "ok" or rule.get("lastError")] == []


MAY_BE_SILENT = (
    *("decider_lift", "decider_holdout_cost"),  # too little data
    *("decider_exploration_cost", "decider_split_log_evalue", "decider_rewards_missing_log_evalue"),  # the same
    *("ALERTS", "decider_feature_problems_total"),  # nothing is wrong
    "decider_guardrail",  # nothing is declared
    *("decider_channel_rewards_missing_log_evalue", "decider_segment_rewards_missing_log_evalue"),  # nothing is wrong
    "decider_action_missing_log_evalue",
    "decider_leave_outs_total",  # nothing is left out
)
"""Metrics of expressions that this traffic gives no value."""
