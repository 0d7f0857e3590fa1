"""/metrics over real HTTP, and a real Prometheus that scrapes it: what growth teams and alerts read."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import urllib.parse
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Protocol

import pytest
from prometheus_client.parser import text_string_to_metric_families

from decider.decide.decide import decide
from decider.experiment.schema import from_message
from decider.log.open import open_log
from decider.log.protocol import EventLog, NewReward
from decider.log.totals import LabelTotals
from decider.metrics import collector
from decider.metrics.collector import LogCollector
from decider.metrics.shared_totals import SharedTotals
from decider.types import Context, DecisionId, DecisionRequest, ExperimentId
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from simulator.verify import verify
from tests.conftest import Clock
from tests.processes import Process
from tests.rpc_clients import GrpcClient, InProcessClient, ServerProcess, experiment, fetch, until

FAMILIES = {
    "decider_access_problem": "gauge",
    "decider_action_missing_log_evalue": "gauge",
    "decider_archive_failures": "counter",
    "decider_archive_last_success_time_seconds": "gauge",
    "decider_build_info": "gauge",
    "decider_channel_rewards_missing_log_evalue": "gauge",
    "decider_clock_offset_seconds": "gauge",
    "decider_commit_entries": "histogram",
    "decider_commit_seconds": "histogram",
    "decider_connections": "gauge",
    "decider_connections_limit": "gauge",
    "decider_decisions": "counter",
    "decider_disk_free_bytes": "gauge",
    "decider_experiment_files_refused": "gauge",
    "decider_experiment_info": "gauge",
    "decider_exploration_cost": "gauge",
    "decider_exploration_cost_high": "gauge",
    "decider_exploration_cost_low": "gauge",
    "decider_holdout_cost": "gauge",
    "decider_holdout_cost_high": "gauge",
    "decider_holdout_cost_low": "gauge",
    "decider_guardrail_crossed": "gauge",
    "decider_guardrail_log_evalue": "gauge",
    "decider_guardrail_outweighed": "gauge",
    "decider_holdout_ratio": "gauge",
    "decider_inverse_propensity": "counter",
    "decider_lift": "gauge",
    "decider_lift_high": "gauge",
    "decider_lift_low": "gauge",
    "decider_lift_outweighed": "gauge",
    "decider_learn_seconds": "histogram",
    "decider_learned": "counter",
    "decider_apprentice_agreement": "counter",
    "decider_apprentice_best": "counter",
    "decider_apprentice_decisions": "counter",
    "decider_feature_problems": "counter",
    "decider_withheld_actions": "counter",
    "decider_ignored_actions": "counter",
    "decider_learn_failures": "counter",
    "decider_learning_entries": "gauge",
    "decider_learning_held": "gauge",
    "decider_leads": "gauge",
    "decider_learns": "gauge",
    "decider_leave_outs": "counter",
    "decider_open_leave_outs": "gauge",
    "decider_log_bytes": "gauge",
    "decider_log_connections_lost": "counter",
    "decider_log_position": "gauge",
    "decider_model_age_seconds": "gauge",
    "decider_model_features": "gauge",
    "decider_model_position": "gauge",
    "decider_open_decisions": "gauge",
    "decider_possible": "counter",
    "decider_propensity_log_evalue": "gauge",
    "decider_ready": "gauge",
    "decider_reward_delay_seconds": "histogram",
    "decider_reward_squared_value": "counter",
    "decider_reward_value": "counter",
    "decider_rewards": "counter",
    "decider_rewards_missing_log_evalue": "gauge",
    "decider_seal_lag_seconds": "gauge",
    "decider_segment_rewards_missing_log_evalue": "gauge",
    "decider_abandoned_calls": "counter",
    "decider_sealed": "counter",
    "decider_sealed_activated": "counter",
    "decider_sealed_not_activated": "counter",
    "decider_sealed_default": "counter",
    "decider_sealed_rewarded": "counter",
    "decider_sealed_overridden": "counter",
    "decider_sealed_reward": "counter",
    "decider_sealed_squared_reward": "counter",
    "decider_sealed_squared_value": "counter",
    "decider_sealed_value": "counter",
    "decider_split_log_evalue": "gauge",
    "decider_weight_mean": "gauge",
    "decider_web_refused": "counter",
    "decider_web_requests": "counter",
    "decider_worker_starts": "counter",
    "decider_worker_up": "gauge",
    "decider_window_seconds": "gauge",
    "grpc_server_handled": "counter",
    "grpc_server_handling_seconds": "histogram",
}
"""Every family of ours. Dashboards and alerts are built on these names: a change here is a breaking change."""

LABELS = {
    "action": 2_002,
    "channel": 9,
    "done": 2,
    "experiment": 1_000,
    "feature": None,
    "field": 2,
    "file": 3,
    "files": 2,
    "group": 3,
    "grpc_code": 17,
    "grpc_method": 20,
    "grpc_service": 5,
    "grpc_type": 1,
    "le": 13,
    "key": 1_001,
    "learning": 4,
    "listener": 3,
    "name": 52,
    "outcome": 10,
    "policy": 11,
    "protocol": 14,
    "problem": 5,
    "reason": 10,
    "rule": 5,
    "state": 3,
    "value": 21,
    "version": None,
}
"""Every label of ours, and how many values it has at most: for each experiment, where there is one. None: as many as a
definition declares, or one at a time. Nothing that a call says may be a label."""

Key = tuple[str, frozenset[tuple[str, str]]]

README = Path(collector.__file__).parents[1] / "README.md"
DECISIONS = 400
HOUR, DAY = 3_600.0, 86_400.0
ACTIVE, ENDED = "EXPERIMENT_STATE_ACTIVE", "EXPERIMENT_STATE_ENDED"
SEALING, OPEN = "sealing", "open"
FROM_THE_LOG = (
    "decider_decisions",
    "decider_inverse_propensity",
    "decider_open_decisions",
    "decider_possible",
    "decider_propensity_log_evalue",
    "decider_reward",
    "decider_sealed",
    "decider_weight_mean",
)
"""How the samples begin that follow from the log alone."""


class Fetches(Protocol):
    """Whoever reads the HTTP port."""

    def fetch(self, path: str) -> tuple[int, str]:
        """Status and body."""
        ...


class Scrape:
    """One look at /metrics."""

    def __init__(self, client: Fetches) -> None:
        status, text = client.fetch("/metrics")
        assert status == 200
        families = list(text_string_to_metric_families(text))
        self.types = {family.name: family.type for family in families}
        self.samples: dict[Key, float] = {}
        for family in families:
            for sample in family.samples:
                assert not sample.name.endswith("_created"), "one more series for each counter"
                self.samples[sample.name, frozenset(sample.labels.items())] = sample.value

    def __call__(self, name: str, /, **labels: str) -> float:
        """The sum of a sample over the labels not given."""
        wanted = set(labels.items())
        return sum(value for (n, given), value in self.samples.items() if n == name and wanted <= given)

    def by(self, name: str, label: str, /, **labels: str) -> Mapping[str, float]:
        """The sums by one label."""
        sums: Counter[str] = Counter()
        wanted = set(labels.items())
        for (n, given), value in self.samples.items():
            if n == name and wanted <= given:
                sums[dict(given)[label]] += value  # type: ignore[assignment]
        return sums


def traffic(client: GrpcClient) -> dict[str, int]:
    """Decisions in two experiments, one with windows that end at once, and rewards of every outcome; what was sent."""
    random = Random(7)
    floor = 0.05
    sealing = experiment(SEALING, "a", "b", "c", window=0.2, minimum_propensity=floor)
    sealing.policy.CopyFrom(experiment_pb2.Policy(epsilon_greedy=experiment_pb2.EpsilonGreedy(epsilon=0.4)))
    client.apply(sealing)
    opened = experiment(OPEN, "a", "b", holdout=0.5, baseline_action="a")
    opened.reward.range.maximum = 10
    client.apply(opened)
    requests = [pb.DecideRequest(experiment=SEALING, unit_id=f"unit-{i}") for i in range(DECISIONS)]
    for start in range(0, DECISIONS, 100):
        results = client.decide_batch(requests[start : start + 100])
        rewards = [pb.RewardRequest(decision_id=r.response.decision_id, name="click", value=0.5) for r in results]
        client.reward_batch([reward for reward in rewards if random.random() < 0.5])
    until(lambda: Scrape(client)("decider_sealed_total", experiment=SEALING) == DECISIONS, what="all is sealed")
    until(lambda: Scrape(client)("decider_learned_total", experiment=SEALING) == DECISIONS, what="all is learned")
    (late,) = client.rows("select decision_id from sealed_decisions order by position limit 1")[0]
    assert [client.reward(late, name="click", reward_id="late") for _ in range(3)] == ["late", "duplicate", "duplicate"]
    ids = [client.decide(OPEN, f"unit-{i}").decision_id for i in range(20)]
    for id_ in ids[:5]:
        client.reward(id_, name="purchase", value=4.0)
    for _ in range(4):
        with pytest.raises(Exception, match="there is no decision"):
            client.reward("nowhere", name="purchase")
    return {"open": len(ids)}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessClient]:
    """A server after the traffic."""
    opened = InProcessClient(tmp_path_factory.mktemp("metrics") / "log.db")
    traffic(opened)
    yield opened
    opened.close()


def test_every_family_is_known(client: InProcessClient) -> None:
    """Dashboards break silently when a name changes: a new, lost or renamed family must be seen here."""
    ours = {
        name: type_
        for name, type_ in Scrape(client).types.items()
        if name.startswith(("decider_", "grpc_")) and not name.endswith("_created")  # prometheus_client adds these
    }
    assert ours == FAMILIES


def test_every_label_has_a_bound_that_the_documentation_says(client: InProcessClient) -> None:
    """Label sets that grow with traffic fill a Prometheus in a year: whoever adds a label has to say how many values it
    can have."""
    values: dict[tuple[str, str], set[str]] = {}
    for name, labels in Scrape(client).samples:
        if name.startswith(("decider_", "grpc_")) and name != "decider_build_info":
            for label, value in labels:
                values.setdefault((label, name), set()).add(value)
    assert {label for label, _ in values} <= LABELS.keys()
    for (label, name), found in values.items():
        most = LABELS[label]
        assert most is None or len(found) <= most, (label, name)
    _, _, documented = README.read_text(encoding="utf-8").partition("| label | values at most |")
    rows = [row.partition("|")[0] for row in documented.partition("\n\n")[0].split("\n| ")]
    assert {name.strip(" `") for row in rows for name in row.split(",")} >= LABELS.keys()


def test_decisions_are_counted_as_in_the_log(client: InProcessClient) -> None:
    """The metrics say what the log says; anything else is an invention."""
    scrape = Scrape(client)
    assert scrape("decider_decisions_total", experiment=SEALING) == DECISIONS
    assert scrape("decider_decisions_total", experiment=OPEN) == 20
    sql = "select action, reason, count(*) from decisions d join experiments e on e.position = d.version"
    for action, reason, count in client.rows(f"{sql} where experiment = ? group by 1, 2", OPEN):
        assert scrape("decider_decisions_total", experiment=OPEN, action=action, reason=reason) == count
    assert set(scrape.by("decider_decisions_total", "reason", experiment=OPEN)) > {"HOLDOUT"}


def test_rewards_are_counted_by_outcome(client: InProcessClient) -> None:
    """Late and orphan rewards say that a window is too short or that ids get lost: both must be visible."""
    scrape = Scrape(client)
    in_log = dict(client.rows("select outcome, count(*) from joined_rewards where name = 'click' group by 1"))
    clicks = scrape.by("decider_rewards_total", "outcome", name="click")
    assert clicks == {**in_log, "duplicate": 2}
    assert in_log["late"] >= 1
    assert scrape.by("decider_rewards_total", "outcome", name="purchase") == {"joined": 5, "orphan": 4}
    assert scrape("decider_reward_value_total", name="purchase") == 20
    assert scrape("decider_reward_squared_value_total", name="purchase") == 80


def test_sealed_and_open_decisions_are_all_decisions(client: InProcessClient) -> None:
    """What is not sealed is open; a decision that is neither is lost."""
    scrape = Scrape(client)
    assert (scrape("decider_sealed_total"), scrape("decider_open_decisions")) == (DECISIONS, 20)
    assert (scrape("decider_open_decisions", experiment=SEALING), scrape("decider_sealed_total", experiment=OPEN)) == (
        0,
        0,
    )
    ((rewarded, total),) = client.rows("select sum(rewards > 0), sum(reward) from sealed_decisions")
    assert scrape("decider_sealed_default_total", experiment=SEALING) == DECISIONS - rewarded
    assert scrape("decider_sealed_reward_total", experiment=SEALING) == total
    assert scrape("decider_seal_lag_seconds") >= 0


def test_calls_are_counted_by_code(client: InProcessClient) -> None:
    """The usual dashboards for gRPC work because these names are those of go-grpc-middleware."""
    scrape = Scrape(client)
    service = "decider.v1.DeciderService"
    decided = scrape.by("grpc_server_handled_total", "grpc_code", grpc_service=service, grpc_method="Decide")
    assert decided == {"OK": 20}
    rewarded = scrape.by("grpc_server_handled_total", "grpc_code", grpc_service=service, grpc_method="Reward")
    assert rewarded == {"OK": 8, "NotFound": 4}
    assert scrape("grpc_server_handled_total", grpc_method="ApplyExperiment", grpc_code="OK") == 2
    assert scrape("grpc_server_handling_seconds_count", grpc_method="Reward", grpc_type="unary") == 12


def test_weights_have_mean_one(client: InProcessClient) -> None:
    """The audit of the propensities: 1/p over draws that could give an action has mean 1, within 5 standard errors."""
    scrape = Scrape(client)
    for action in "abc":
        mean = scrape("decider_weight_mean", experiment=SEALING, action=action)
        count = scrape("decider_possible_total", experiment=SEALING, action=action)
        assert count == DECISIONS
        # each draw's weight 1{drawn}/p has variance 1/p - 1; p of every draw is in the log
        sql = "select sum(1e6 / json_extract(pmf, ?) - 1) from decisions d join experiments e on e.position = d.version"
        ((variance,),) = client.rows(f"{sql} where experiment = ?", f"$[{'abc'.index(action)}]", SEALING)
        assert abs(mean - 1) < 5 * math.sqrt(variance) / count, action


def test_delays_are_counted_in_buckets(client: InProcessClient) -> None:
    """Where the delays of rewards lie tells how long a window has to be."""
    scrape = Scrape(client)
    ((count, seconds),) = client.rows("select count(*), sum(delay_seconds) from joined_rewards where name = 'click'")
    assert scrape("decider_reward_delay_seconds_count", experiment=SEALING) == count
    assert scrape("decider_reward_delay_seconds_sum", experiment=SEALING) == pytest.approx(seconds)
    assert scrape("decider_reward_delay_seconds_bucket", experiment=SEALING, le="+Inf") == count
    buckets = scrape.by("decider_reward_delay_seconds_bucket", "le", experiment=SEALING)
    in_order = [value for _, value in sorted(buckets.items(), key=lambda pair: float(pair[0]))]
    assert in_order == sorted(in_order)
    within = "select count(*) from joined_rewards where name = 'click' and delay_seconds <= 1"
    assert [(buckets["1.0"],)] == client.rows(within)


def test_model_and_log_positions_are_those_of_the_log(client: InProcessClient) -> None:
    """How far the model is behind the log is what an alert looks at."""
    scrape = Scrape(client)
    assert scrape("decider_model_position", experiment=SEALING) == client.get(SEALING).model > 0
    assert scrape("decider_model_position", experiment=OPEN) == 0
    assert [(scrape("decider_log_position"),)] == client.rows("select max(position) from entries")
    assert scrape("decider_learned_total", experiment=SEALING) == DECISIONS


def test_sizes_are_those_of_the_files(client: InProcessClient) -> None:
    """A disk fills up over months: who looks at these sees it coming, and what takes the room."""
    before = client.db.stat().st_size, Path(f"{client.db}-wal").stat().st_size
    scrape = Scrape(client)
    assert scrape("decider_log_bytes", file="database") >= before[0] > 0
    assert scrape("decider_log_bytes", file="wal") == before[1] > 0
    sql = "select coalesce(sum(length(data)), 0) from models"
    assert [(scrape("decider_log_bytes", file="models"),)] == client.rows(sql)
    assert client.rows(sql) != [(0,)]
    assert scrape("decider_disk_free_bytes") == pytest.approx(shutil.disk_usage(client.db.parent).free, rel=0.1)


def test_commits_are_counted(client: InProcessClient) -> None:
    """Entries by commit show whether group commit works."""
    scrape = Scrape(client)
    entries = client.rows("select count(*) from entries")[0][0]
    assert scrape("decider_commit_entries_sum") >= entries
    assert scrape("decider_commit_entries_count") == scrape("decider_commit_seconds_count") > 0


def test_totals_are_equal_after_a_restart(tmp_path: Path) -> None:
    """Counters come from the log, so that a deployment does not look like a drop in sales."""
    opened = InProcessClient(tmp_path / "log.db")
    traffic(opened)
    before = from_the_log(opened)
    opened.close()
    again = InProcessClient(tmp_path / "log.db")
    after = from_the_log(again)
    again.close()
    assert len(before) > 40
    assert set(after) == set(before)
    assert after == before


def from_the_log(client: GrpcClient) -> dict[Key, float]:
    """The samples that follow from the log alone."""
    return {key: value for key, value in Scrape(client).samples.items() if key[0].startswith(FROM_THE_LOG)}


class Shop(Process):
    """A process on a log in a file, with what a scrape of it reads; `visit` makes a decision that is rewarded."""

    def __init__(self, log: EventLog, clock: Clock) -> None:
        super().__init__(log, clock)
        self._totals = SharedTotals(log)

    def visit(self, id_: str) -> None:
        """In that experiment."""
        request = DecisionRequest(DecisionId(f"{id_}-{self.log.head().position}"), "u", Context())
        (mark,) = self.log.append([decide(request, *self.current[ExperimentId(id_)])])
        assert mark is not None
        self.log.append([NewReward(mark.position, "click", 1.0)])
        self.step()

    def wait(self, seconds: float) -> None:
        """That much later, with everything learned."""
        self.clock.advance(seconds)
        self.step()

    def samples(self, id_: str) -> dict[str, float]:
        """What a scrape has of an experiment, by name and labels."""
        families = LogCollector(self.log, self._totals, self.current, clock=self.clock).collect()
        return {
            f"{sample.name} {sorted(sample.labels.items())}": sample.value
            for family in families
            for sample in family.samples
            if sample.labels.get("experiment") == id_
        }

    def totals(self) -> LabelTotals:
        """Of the whole log."""
        with self._totals.read() as counted:
            return counted.totals


@pytest.fixture
def shop(tmp_path: Path, clock: Clock) -> Iterator[Shop]:
    """One with two experiments, `old` and `new`, and a decision in each."""
    with closing(open_log(tmp_path / "log.db", clock=clock)) as log:
        made = Shop(log, clock)
        for id_ in ("old", "new"):
            made.apply(from_message(experiment(id_, "a", "b", window=HOUR)))
            made.visit(id_)
        yield made


def test_an_ended_experiment_is_in_the_metrics_until_a_day_after_its_last_window(shop: Shop) -> None:
    """Each experiment that a company has ever had would make every scrape dearer for ever; and yet Prometheus must see
    the last rewards."""
    shop.apply(from_message(experiment("old", "a", "b", window=HOUR, state=ENDED)))
    shop.wait(HOUR + DAY - 1)
    last = shop.samples("old")
    assert last["decider_sealed_total [('experiment', 'old'), ('group', 'policy')]"] == 1
    counted = shop.totals().to_json()
    shop.wait(2)
    assert shop.samples("old") == {}
    assert shop.samples("new") != {}
    assert shop.totals().to_json() == counted
    shop.restart()
    assert shop.samples("old") == {}
    assert verify(shop.log).equal == 2


def test_an_experiment_that_begins_again_has_its_totals_in_the_metrics(shop: Shop) -> None:
    """Nothing was forgotten, so that its counters go on from where they were."""
    shop.apply(from_message(experiment("old", "a", "b", window=HOUR, state=ENDED)))
    shop.wait(HOUR + DAY - 1)
    last = shop.samples("old")
    shop.wait(2)
    assert shop.samples("old") == {}
    shop.apply(from_message(experiment("old", "a", "b", window=HOUR, state=ACTIVE)))
    assert last.items() <= shop.samples("old").items()
    shop.visit("old")
    assert shop.samples("old")["decider_sealed_total [('experiment', 'old'), ('group', 'policy')]"] == 1
    assert sum(value for key, value in shop.samples("old").items() if key.startswith("decider_decisions_total")) == 2


def test_an_ended_experiment_with_open_decisions_is_in_the_metrics(shop: Shop) -> None:
    """The window may have been longer for an earlier version: what is not sealed yet must be seen when it is."""
    shop.apply(from_message(experiment("new", "a", "b", window=3 * DAY)))
    shop.visit("new")
    shop.apply(from_message(experiment("new", "a", "b", window=HOUR, state=ENDED)))
    shop.wait(2 * DAY)
    assert shop.samples("new")["decider_sealed_total [('experiment', 'new'), ('group', 'policy')]"] == 1
    shop.wait(DAY + HOUR)
    assert shop.samples("new") == {}


def test_a_server_names_an_experiment_that_ended_long_ago_in_no_metric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also not in those of its own process, as what it has learned: they last as long as the process does."""
    monkeypatch.setattr(collector, "KEEP_ENDED", 1.0)
    opened = InProcessClient(tmp_path / "log.db")
    try:
        opened.apply(experiment("e", "a", "b", window=0.2))
        opened.decide("e", eligible_actions=["a", "b", "nonsense"])
        until(lambda: Scrape(opened)("decider_learned_total", experiment="e") == 1, what="it is learned")
        assert Scrape(opened)("decider_ignored_actions_total", experiment="e") == 1
        opened.apply(experiment("e", "a", "b", window=0.2, state=ENDED))
        until(lambda: 'experiment="e"' not in opened.fetch("/metrics")[1], what="it is left out")
        opened.apply(experiment("e", "a", "b", window=0.2, state=ACTIVE))
        until(lambda: Scrape(opened)("decider_sealed_total", experiment="e") == 1, what="it is told of again")
    finally:
        opened.close()


def test_names_of_duplicates_do_not_grow_the_number_of_series(tmp_path: Path) -> None:
    """A caller that puts an id into the reward's name must not fill Prometheus: names are bounded everywhere."""
    opened = InProcessClient(tmp_path / "log.db")
    try:
        opened.apply(experiment("e"))
        id_ = opened.decide("e").decision_id
        for prefix in ("first", "second"):
            requests = [pb.RewardRequest(decision_id=id_, reward_id="1", name=f"{prefix}-{i}") for i in range(300)]
            opened.reward_batch(requests)
        names = Scrape(opened).by("decider_rewards_total", "name")
        assert sum(names.values()) == 600
        assert len(names) <= 110
    finally:
        opened.close()


def test_names_of_rewards_and_orphans_do_not_grow_the_number_of_series(tmp_path: Path) -> None:
    """The same for rewards that count and for those without a decision."""
    opened = InProcessClient(tmp_path / "log.db")
    try:
        opened.apply(experiment("e"))
        id_ = opened.decide("e").decision_id
        opened.reward_batch([pb.RewardRequest(decision_id=id_, name=f"joined-{i}") for i in range(300)])
        opened.reward_batch([pb.RewardRequest(decision_id="nowhere", name=f"orphan-{i}") for i in range(300)])
        names = Scrape(opened).by("decider_rewards_total", "name")
        assert sum(names.values()) == 600
        assert len(names) <= 160
    finally:
        opened.close()


def test_names_that_nobody_declares_are_counted_and_bounded(tmp_path: Path) -> None:
    """Which name was refused is what a growth team asks; a caller that invents names must not fill Prometheus."""
    opened = InProcessClient(tmp_path / "log.db")
    try:
        declared = experiment("e")
        declared.reward.weights["purchase"] = 1.0
        opened.apply(declared)
        id_ = opened.decide("e").decision_id
        opened.reward_batch([pb.RewardRequest(decision_id=id_, name="purchse") for _ in range(30)])
        opened.reward_batch([pb.RewardRequest(decision_id=id_, name=f"invented-{i}") for i in range(300)])
        names = Scrape(opened).by("decider_rewards_total", "name", outcome="undeclared")
        assert (names["purchse"], sum(names.values()), len(names)) == (30, 330, 51)
        assert names["other"] == 251
    finally:
        opened.close()


def test_scrapes_leave_no_files_open(client: InProcessClient) -> None:
    """A scrape every few seconds for months: what each one leaves open adds up to a server that opens nothing more."""
    Scrape(client)
    before = open_files()
    for _ in range(30):
        Scrape(client)
    assert open_files() < before + 15


def open_files() -> int:
    """Files and connections that this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[str]:
    """A Prometheus that scrapes a server process every second; its address."""
    binary = shutil.which("prometheus", path="/usr/bin")
    if binary is None:
        pytest.skip("there is no /usr/bin/prometheus")
    server = ServerProcess(tmp_path / "log.db")
    client = server.client()
    client.apply(experiment("e"))
    for unit in range(7):
        client.decide("e", f"unit-{unit}")
    client.close()
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s}\n"
        f"scrape_configs: [{{job_name: decider, static_configs: [{{targets: ['{server.http}']}}]}}]\n"
    )
    process, address = start_prometheus(binary, config, tmp_path)
    yield address
    os.kill(process.pid, signal.SIGTERM)
    process.wait(30)
    server.terminate()


def start_prometheus(binary: str, config: Path, folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """The process and its address, ready; on another port if the first is taken meanwhile."""
    for _ in range(3):
        port = free_port()
        output = folder / "prometheus.output"
        with output.open("wb") as both:
            process = subprocess.Popen(
                [
                    binary,
                    f"--config.file={config}",
                    f"--storage.tsdb.path={folder / f'prometheus-{port}'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=both,
                stderr=both,
            )
        address = f"http://127.0.0.1:{port}"
        ready = f"{address}/-/ready"
        until(lambda p=process, url=ready: p.poll() is not None or answers(url), what="Prometheus is ready")  # type: ignore[misc]
        if process.poll() is None:
            return process, address
    raise AssertionError(output.read_text())


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def answers(url: str) -> bool:
    """Whether it answers with 200."""
    try:
        return fetch(url)[0] == 200
    except OSError:
        return False


def ask(prometheus: str, query: str) -> list[tuple[dict[str, str], float]]:
    """The instant vector of a query: labels and value."""
    _, text = fetch(f"{prometheus}/api/v1/query?query={urllib.parse.quote(query)}")
    return [(found["metric"], float(found["value"][1])) for found in json.loads(text)["data"]["result"]]


def test_prometheus_scrapes_the_server(prometheus: str) -> None:
    """The format is right only if the real reader takes it: the target is up and the counters can be queried."""
    until(lambda: ask(prometheus, "up{job='decider'} == 1"), what="the target is up")
    found = until(lambda: ask(prometheus, "sum by (experiment) (decider_decisions_total)"), what="decisions are there")
    assert found == [({"experiment": "e"}, 7.0)]
    assert [value for _, value in ask(prometheus, "up{job='decider'}")] == [1.0]
    assert ask(prometheus, "grpc_server_handled_total{grpc_method='Decide',grpc_code='OK'}")[0][1] == 7.0
