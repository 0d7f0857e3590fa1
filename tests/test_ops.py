"""The alert rules that are shipped, each on faults, pauses, restarts and silence, by Prometheus' own test program.

`test_ops_live.py` has them in a real Prometheus; these tests need no server.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from decider.policy.algorithms import ALGORITHMS
from tests.promtool import ALERTS, RULES, World, check_alerts, counter, gauge, promtool
from tests.test_architecture import ROOT

README = (ROOT / "decider" / "README.md").read_text(encoding="utf-8")

BEFORE, DURING, AFTER = 20, 40, 65
"""Minutes of a healthy server, of a fault, and of a healthy server again."""

LONG = 300
"""Seconds between the samples of hours and days."""
DAY = 288
"""Such samples."""

EXPERIMENT = 'job="decider", instance="shop:9464", experiment="home"'
SERVER = 'job="decider", instance="shop:9464"'
CALL = f'{SERVER}, grpc_service="decider.v1.DeciderService", grpc_method="Decide"'
INFO = f'decider_experiment_info{{{EXPERIMENT}, version="3", policy="thompson", state="%s", learning="%s"}}'

COUNTERS = {
    f'decider_decisions_total{{{EXPERIMENT}, action="sale", reason="EXPLOIT"}}': 500,
    f'decider_decisions_total{{{EXPERIMENT}, action="outfit", reason="EXPLOIT"}}': 100,
    f'decider_decisions_total{{{EXPERIMENT}, action="none", reason="HOLDOUT"}}': 100,
    f'decider_decisions_total{{{EXPERIMENT}, action="none", reason="FALLBACK"}}': 0,
    f"decider_reward_delay_seconds_count{{{EXPERIMENT}}}": 60,
    f'decider_rewards_total{{{EXPERIMENT}, name="click", outcome="joined"}}': 60,
    f'decider_rewards_total{{{SERVER}, experiment="", name="click", outcome="orphan"}}': 0.5,
    f'decider_rewards_total{{{SERVER}, experiment="", name="purchse", outcome="undeclared"}}': 0.5,
    f'decider_sealed_total{{{EXPERIMENT}, group="policy"}}': 500,
    f'decider_sealed_total{{{EXPERIMENT}, group="holdout"}}': 100,
    f'decider_sealed_rewarded_total{{{EXPERIMENT}, name="click", group="policy"}}': 60,
    f'decider_possible_total{{{EXPERIMENT}, action="sale"}}': 600,
    f'decider_possible_total{{{EXPERIMENT}, action="outfit"}}': 600,
    f'decider_log_bytes{{{SERVER}, file="database"}}': 200_000,  # a gauge that grows
}
"""What a minute adds to the counters that come from the log: they go on after a restart."""

OF_THE_PROCESS = {
    f"decider_learned_total{{{EXPERIMENT}}}": 600,
    f"decider_learn_failures_total{{{EXPERIMENT}}}": 0,
    f'decider_feature_problems_total{{{EXPERIMENT}, feature="age", problem="type"}}': 1,
    f"decider_archive_failures_total{{{SERVER}}}": 0,
    f'grpc_server_handled_total{{{CALL}, grpc_code="OK"}}': 600,
    f'grpc_server_handled_total{{{CALL}, grpc_code="Unavailable"}}': 0,
    f'grpc_server_handled_total{{{CALL}, grpc_code="NotFound"}}': 300,  # a caller's fault
    f'grpc_server_handling_seconds_bucket{{{CALL}, le="0.005"}}': 590,
    f'grpc_server_handling_seconds_bucket{{{CALL}, le="0.05"}}': 600,
    f'grpc_server_handling_seconds_bucket{{{CALL}, le="1.0"}}': 600,
    f'grpc_server_handling_seconds_bucket{{{CALL}, le="+Inf"}}': 600,
    f"decider_log_connections_lost_total{{{SERVER}}}": 0,
}
"""What a minute adds to the counters of the process: they begin again after a restart."""

GAUGES = {
    f"up{{{SERVER}}}": 1.0,
    f"decider_ready{{{SERVER}}}": 1.0,
    f"decider_leads{{{SERVER}}}": 1.0,
    f"decider_seal_lag_seconds{{{SERVER}}}": 0.5,
    f"decider_disk_free_bytes{{{SERVER}}}": 5e10,
    f"decider_clock_offset_seconds{{{SERVER}}}": 0.01,
    f"decider_experiment_files_refused{{{SERVER}}}": 0.0,
    f'decider_access_problem{{{SERVER}, files="tokens"}}': 0.0,
    f'decider_access_problem{{{SERVER}, files="certificates"}}': 0.0,
    f'decider_connections{{{SERVER}, listener="--listen"}}': 3_500.0,
    f'decider_connections_limit{{{SERVER}, listener="--listen"}}': 4_000.0,
    f'decider_connections{{{SERVER}, listener="--operate-listen"}}': 3.0,
    f'decider_connections_limit{{{SERVER}, listener="--operate-listen"}}': 256.0,
    f"decider_archive_last_success_time_seconds{{{SERVER}}}": 1.0,  # promtool's time begins at 0
    f"decider_model_position{{{EXPERIMENT}}}": 900.0,
    f"decider_learning_held{{{EXPERIMENT}}}": 0.0,
    f'decider_lift_high{{{EXPERIMENT}, name="(learned)"}}': 0.05,
    f'decider_lift_high{{{EXPERIMENT}, name="unsubscribe"}}': -0.01,  # the fewer the better
    f"decider_split_log_evalue{{{EXPERIMENT}}}": 6.9,
    f"decider_propensity_log_evalue{{{EXPERIMENT}}}": 6.9,
    f'decider_rewards_missing_log_evalue{{{EXPERIMENT}, name="click", group="policy"}}': 6.9,
    f'decider_rewards_missing_log_evalue{{{EXPERIMENT}, name="click", group="holdout"}}': 6.9,
    f'decider_channel_rewards_missing_log_evalue{{{EXPERIMENT}, name="click", group="policy", channel="mail"}}': 6.9,
    f'decider_segment_rewards_missing_log_evalue{{{EXPERIMENT}, field="segment", value="bargain"}}': 6.9,
    f'decider_action_missing_log_evalue{{{EXPERIMENT}, action="sale"}}': 6.9,
    f'decider_action_missing_log_evalue{{{EXPERIMENT}, action="outfit"}}': 6.9,
    f'decider_guardrail_log_evalue{{{EXPERIMENT}, name="unsubscribe"}}': 2.9,
    f'decider_guardrail_crossed{{{EXPERIMENT}, name="unsubscribe"}}': 0.0,
}
"""A healthy server, with evidence that is not quite enough."""


SILENT: dict[str, float | None] = dict.fromkeys([*COUNTERS, *OF_THE_PROCESS], 0)
"""No calls, and nothing that follows from calls."""


def find(start: str) -> str:
    """The one series that begins so."""
    (found,) = [name for name in {**COUNTERS, **OF_THE_PROCESS, **GAUGES} if name.startswith(start)]
    return found


def world(
    *times: int, fault: Mapping[str, float | None] | None = None, state: str = "active", learning: str = "online"
) -> World:
    """A healthy server for so many samples, then with the fault for as many as the second number says, then healthy.
    fault: what changes, by the beginning of the series; of a counter it is what a sample adds."""
    before, during, after = (*times, 0, 0)[:3]
    changed = {find(start): value for start, value in (fault or {}).items()}

    def parts(name: str, usual: float) -> list[tuple[int, float | None]]:
        all_ = [(before, usual), (during, changed.get(name, usual)), (after, usual)]
        return [(count, value) for count, value in all_ if count]

    made = {name: counter(*parts(name, usual)) for name, usual in {**COUNTERS, **OF_THE_PROCESS}.items()}
    made |= {name: gauge(*parts(name, usual)) for name, usual in GAUGES.items()}
    return made | {INFO % (state, learning): gauge((before + during + after, 1.0))}


GONE: dict[str, float | None] = dict.fromkeys(
    (name for name in {**COUNTERS, **OF_THE_PROCESS, **GAUGES} if not name.startswith("up")), None
)
"""Every series of a server that does not answer."""

DECISIONS = 'decider_decisions_total{job="decider", instance="shop:9464", experiment="home", action='

FAULTS: dict[str, Mapping[str, float | None]] = {
    "DeciderDown": {**GONE, "up": 0.0},
    "DeciderNotReady": {"decider_ready": 0.0},
    "DeciderErrors": {find(f'grpc_server_handled_total{{{CALL}, grpc_code="Unavailable"'): 60},
    "DeciderSlow": {
        find(f'grpc_server_handling_seconds_bucket{{{CALL}, le="0.005"'): 0,
        find(f'grpc_server_handling_seconds_bucket{{{CALL}, le="0.05"'): 500,
    },
    "DeciderSealLag": {"decider_seal_lag_seconds": 400.0},
    "DeciderDiskLow": {"decider_disk_free_bytes": 9e8},
    "DeciderClockOff": {"decider_clock_offset_seconds": -30.0},
    "DeciderFilesRefused": {f'decider_access_problem{{{SERVER}, files="tokens"': 1.0},
    "DeciderConnectionsFull": {f'decider_connections{{{SERVER}, listener="--operate-listen"': 250.0},
    "DeciderNobodyLeads": {"decider_leads": 0.0},
    "DeciderLogConnectionsLost": {"decider_log_connections_lost_total": 1},
    "DeciderArchiveFails": {"decider_archive_failures_total": 1, "decider_archive_last_success_time_seconds": 0.0},
    "DeciderRewardsMissing": {f'decider_rewards_missing_log_evalue{{{EXPERIMENT}, name="click", group="policy"': 7.0},
    "DeciderChannelRewardsMissing": {"decider_channel_rewards_missing_log_evalue": 7.0},
    "DeciderSegmentRewardsMissing": {"decider_segment_rewards_missing_log_evalue": 7.0},
    "DeciderActionMissing": {f'decider_action_missing_log_evalue{{{EXPERIMENT}, action="outfit"': 7.0},
    "DeciderFallback": {f'{DECISIONS}"none", reason="FALLBACK"': 10},
    "DeciderLiftNegative": {f'decider_lift_high{{{EXPERIMENT}, name="(learned)"': -0.01},
    "DeciderGuardrailCrossed": {"decider_guardrail_crossed": 1.0, "decider_guardrail_log_evalue": 3.1},
    "DeciderSplitWrong": {"decider_split_log_evalue": 7.0},
    "DeciderPropensitiesWrong": {"decider_propensity_log_evalue": 7.0},
    "DeciderLearningHeld": {"decider_learning_held": 1.0, "decider_learned_total": 0},
    "DeciderLearningFails": {"decider_learn_failures_total": 20},
    "DeciderFeatureProblems": {"decider_feature_problems_total": 60},
    "DeciderRewardsOrphaned": {f'decider_rewards_total{{{SERVER}, experiment="", name="click", outcome="orphan"': 30},
    "DeciderRewardsUndeclared": {f'decider_rewards_total{{{SERVER}, experiment="", name="purchse"': 30},
}
"""What brings each alert; those that look back for longer have tests of their own."""

LOOK_BACK = {
    *("DeciderDecisionsStopped", "DeciderRewardsStopped", "DeciderLearningStopped"),
    *("DeciderActionNeverEligible", "DeciderExplorationCollapsed", "DeciderRewardsFewer"),
}

NO_REWARDS = {
    "decider_reward_delay_seconds_count": 0.0,
    f'decider_rewards_total{{{EXPERIMENT}, name="click", outcome="joined"': 0.0,
}


def test_promtool_takes_the_rules() -> None:
    """A file with one wrong rule is refused as a whole by Prometheus."""
    done = subprocess.run([promtool(), "check", "rules", RULES], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_configuration_shown_is_taken(tmp_path: Path) -> None:
    """People copy it: Prometheus and Alertmanager check it with their own programs."""
    amtool = shutil.which("amtool", path="/usr/bin")
    if amtool is None:
        pytest.skip("there is no /usr/bin/amtool")
    blocks = re.findall(r"```yaml\n# ([\w.]+)(.*?)```", README, re.DOTALL)
    for name, content in blocks:
        (tmp_path / name).write_text(f"#{content}", encoding="utf-8")
    shutil.copy(RULES, tmp_path / "decider-rules.yml")
    assert "scrape_configs" in (tmp_path / "prometheus.yml").read_text()
    for command in ([promtool(), "check", "config", "prometheus.yml"], [amtool, "check-config", "alertmanager.yml"]):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_fault_that_brings_it() -> None:
    """A rule that no test has seen fire is a rule that may never fire."""
    assert FAULTS.keys() | LOOK_BACK == set(ALERTS)
    assert len(ALERTS) == 32


TEXTS = dict(
    re.findall(
        r"^      - alert: (\w+)\n(.*?)(?=^      - |^  - |\Z)", RULES.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
)
"""What the file says of each alert."""


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_what_it_means_and_what_to_do(alert: str) -> None:
    """Whoever is woken at night has only this: the runbook's paragraph has to be there, and every label that a text
    names has to be one that the expression keeps."""
    text = TEXTS[alert]
    assert re.search(r"severity: (page|ticket)\n", text)
    assert re.search(r"summary: ", text)
    assert len(re.findall(r"description: >-\n((?: {12}.*\n)+)", text)[0]) > 100
    assert re.findall(r"runbook: (.*)\n", text) == [f"decider/README.md#{alert.lower()}"]
    assert re.search(rf"^### {alert}\n\n.{{80,}}$", README, re.MULTILINE)
    kept = {*re.split(r"[(), ]+", " ".join(re.findall(r"by \(([\w, ]+)\)", text))), *LABELS_OF_RECORDED}
    assert set(re.findall(r"\$labels\.(\w+)", text)) <= kept


LABELS_OF_RECORDED = {"experiment", "grpc_method"}
"""Labels that the recorded series have beside `job`."""


def test_how_often_evidence_rings_by_mistake_is_said_of_each_rule() -> None:
    """One rate for all of them would be wrong: some have a proof, others begin anew and have none."""
    table = README.split("### How often they ring by mistake")[1].split("\n### ")[0]
    said = set(re.findall(r"^\| (Decider\w+)", table, re.MULTILINE))
    evidence = {
        alert for alert in ALERTS if re.search("log_evalue.* > 6|_crossed|_lift_high|_held\\) == 1", TEXTS[alert])
    }
    assert len(evidence) == 9
    assert evidence <= said <= set(ALERTS)
    assert "1 in 1,000, however often" not in README


@pytest.mark.parametrize("alert", FAULTS)
def test_an_alert_fires_on_its_fault_alone_and_ends_with_it(alert: str, tmp_path: Path) -> None:
    """The one who is woken reads one cause, and the alert is over when the cause is."""
    made = world(BEFORE, DURING, AFTER, fault=FAULTS[alert])
    end = BEFORE + DURING
    check_alerts(made, {BEFORE - 1: [], end - 1: [alert], end + AFTER - 1: []}, tmp_path)


def test_an_experiment_that_does_not_serve_sets_nothing_off(tmp_path: Path) -> None:
    """Whoever pauses an experiment because of an alert must not be woken by it again; evidence stays after a pause."""
    evidence = {
        name: value
        for fault in FAULTS.values()
        for name, value in fault.items()
        if value is not None and find(name) in GAUGES and EXPERIMENT in find(name)
    }
    silent = {**SILENT, **evidence}
    names = [
        *("DeciderActionMissing", "DeciderGuardrailCrossed", "DeciderLearningHeld", "DeciderLiftNegative"),
        *("DeciderPropensitiesWrong", "DeciderRewardsMissing", "DeciderSegmentRewardsMissing", "DeciderSplitWrong"),
    ]
    alarming = world(BEFORE, DURING, fault=silent)
    check_alerts(alarming, {BEFORE + DURING - 1: names}, tmp_path)
    check_alerts(world(BEFORE, DURING, fault=silent, state="paused"), {BEFORE + DURING - 1: []}, tmp_path)
    ended = {find("decider_model_position"): gauge((BEFORE, 900), (DURING, None))}
    check_alerts({**alarming, **ended}, {BEFORE + DURING - 1: []}, tmp_path)


def test_a_fallback_is_told_and_what_still_serves_is_watched(tmp_path: Path) -> None:
    """A guardrail that acted has changed the state by itself: nobody must have to find that out. Everybody gets the
    baseline then, and its calls and rewards can stop as well."""
    crossed = FAULTS["DeciderGuardrailCrossed"]
    end = BEFORE + DURING
    for state, names in {"active": ["DeciderGuardrailCrossed"], "baseline": ["DeciderGuardrailCrossed"]}.items():
        made = world(BEFORE, DURING, AFTER, fault=crossed, state=state)
        check_alerts(made, {BEFORE - 1: [], end - 1: names, end + AFTER - 1: []}, tmp_path)
    check_alerts(world(BEFORE, DURING, fault=crossed, state="paused"), {end - 1: []}, tmp_path)
    nearly = {"decider_guardrail_log_evalue": 50.0}
    check_alerts(world(BEFORE, DURING, fault=nearly, state="baseline"), {end - 1: []}, tmp_path)
    missing = FAULTS["DeciderRewardsMissing"]
    check_alerts(world(BEFORE, DURING, fault=missing, state="baseline"), {end - 1: ["DeciderRewardsMissing"]}, tmp_path)


def test_a_pause_and_its_end_set_nothing_off(tmp_path: Path) -> None:
    """Rewards of earlier decisions trickle in and stop; afterwards decisions come at once and rewards later."""
    parts = [(40, 1.0), (24, 0.0), (24, 1.0)]
    made = {
        **world(88),
        find(f'{DECISIONS}"sale"'): counter(*[(n, 2500 * on) for n, on in parts]),
        find(f'{DECISIONS}"outfit"'): counter(*[(n, 500 * on) for n, on in parts]),
        find(f'{DECISIONS}"none", reason="HOLDOUT"'): counter(*[(n, 500 * on) for n, on in parts]),
        find("decider_reward_delay_seconds_count"): counter((42, 300), (28, 0), (18, 300)),
        INFO % ("active", "online"): gauge((40, 1), (24, None), (24, 1)),
        INFO % ("paused", "online"): "_x40 " + gauge((24, 1), (24, None)),
    }
    check_alerts(made, dict.fromkeys(range(30, 88), ()), tmp_path, interval=LONG)


@pytest.mark.parametrize("learning", ["frozen", "log_only"])
def test_an_experiment_that_is_meant_to_learn_nothing_sets_nothing_off(learning: str, tmp_path: Path) -> None:
    """Frozen by a person, it looks like a broken learner."""
    made = world(12, 24, fault={"decider_learned_total": 0}, learning=learning)
    check_alerts(made, {35: []}, tmp_path, interval=LONG)


@pytest.mark.parametrize("policy", [name for name, algorithm in ALGORITHMS.items() if not algorithm.learns])
def test_a_policy_that_never_learns_sets_nothing_off(policy: str, tmp_path: Path) -> None:
    """A first week with `uniform` is usual: it seals decisions, and has nothing to learn."""
    made = world(12, 24, fault={"decider_learned_total": None})
    made = {name.replace('policy="thompson"', f'policy="{policy}"'): values for name, values in made.items()}
    check_alerts(made, {35: []}, tmp_path, interval=LONG)


def test_learning_that_stops_is_noticed(tmp_path: Path) -> None:
    """The model grows old while everything else looks well."""
    made = world(12, 24, 12, fault={"decider_learned_total": 0})
    check_alerts(made, {11: [], 35: ["DeciderLearningStopped"], 47: []}, tmp_path, interval=LONG)


def test_a_version_that_waits_sets_nothing_off(tmp_path: Path) -> None:
    """A policy that learns a long log first is behind, and that is how it should be."""
    waiting = {f"decider_learning_entries{{{EXPERIMENT}}}": "_x12 " + gauge((24, 50_000))}
    made = world(12, 24, fault={"decider_seal_lag_seconds": 9e4, "decider_learned_total": 0})
    check_alerts({**made, **waiting}, {35: []}, tmp_path, interval=LONG)


def test_silence_sets_nothing_off(tmp_path: Path) -> None:
    """Neither a server that nobody has called yet, nor one that falls silent within its first day."""
    check_alerts(world(0, 60, fault=SILENT), dict.fromkeys(range(0, 60, 10), ()), tmp_path, interval=LONG)
    check_alerts(world(60, 60, fault=SILENT), dict.fromkeys(range(60, 120, 10), ()), tmp_path, interval=LONG)


def test_a_few_calls_that_go_wrong_set_nothing_off(tmp_path: Path) -> None:
    """Of three calls a minute one is a third: a share of next to nothing is no reason to wake anybody."""
    rare: dict[str, float | None] = {
        **SILENT,
        find(f'{DECISIONS}"sale"'): 2,
        find(f'{DECISIONS}"none", reason="FALLBACK"'): 0.2,
        find(f'grpc_server_handled_total{{{CALL}, grpc_code="OK"'): 3,
        find(f'grpc_server_handled_total{{{CALL}, grpc_code="Unavailable"'): 1,
        find(f'grpc_server_handling_seconds_bucket{{{CALL}, le="1.0"'): 3,
        find(f'grpc_server_handling_seconds_bucket{{{CALL}, le="+Inf"'): 3,
        find("decider_feature_problems_total"): 1,
        find('decider_sealed_total{job="decider", instance="shop:9464", experiment="home", group="policy"'): 2,
        find(f'decider_rewards_total{{{SERVER}, experiment="", name="click"'): 0.5,
        find(f'decider_rewards_total{{{SERVER}, experiment="", name="purchse"'): 0.5,
    }
    check_alerts(world(0, 60, fault=rare), dict.fromkeys(range(0, 60, 5), ()), tmp_path)


SECONDS = 15
"""Between the scrapes around a restart."""


@pytest.mark.parametrize("away", [1, 2, 7])
def test_a_deploy_sets_nothing_off(away: int, tmp_path: Path) -> None:
    """Away for up to 105 seconds, with counters of the process that begin again and those of the log that go on."""
    before, after = 80, 80
    changed = (before, away, after)
    made = {name: counter(*zip(changed, (n, None, n), strict=True)) for name, n in COUNTERS.items()}
    made |= {
        name: counter(*zip(changed, (n, None, n), strict=True), restarts=True) for name, n in OF_THE_PROCESS.items()
    }
    made |= {name: gauge(*zip(changed, (v, None, v), strict=True)) for name, v in GAUGES.items()}
    made |= {
        find("up"): gauge((before, 1), (away, 0), (after, 1)),
        find("decider_ready"): gauge((before - 1, 1), (1, 0), (away, None), (4, 0), (after - 4, 1)),
        find("decider_learned_total"): counter((before, 600), (away + 8, None), (after - 8, 600), restarts=True),
        INFO % ("active", "online"): gauge((before, 1), (away, None), (after, 1)),
    }
    looks = range(before - 2, before + away + after, 2)
    check_alerts(made, dict.fromkeys(looks, ()), tmp_path, interval=SECONDS)


def test_a_server_that_was_away_for_long_sets_nothing_off_once_it_is_back(tmp_path: Path) -> None:
    """While it is down there is one alert, and not one for everything that does not come from it."""
    made = world(150, 40, 30, fault=FAULTS["DeciderDown"])  # the rule about rewards looks two hours back
    during = dict.fromkeys(range(155, 190, 5), ("DeciderDown",))
    after = dict.fromkeys(range(192, 220, 2), ())
    check_alerts(made, {**during, **after}, tmp_path)


def test_a_target_that_is_gone_is_down(tmp_path: Path) -> None:
    """Service discovery forgets a server that is gone, and a typing error in the configuration knows none."""
    check_alerts({'up{job="other"}': gauge((30, 1))}, {1: [], 10: ["DeciderDown"]}, tmp_path)


def long_world(*traffic: tuple[int, float], state: str = "active") -> World:
    """Days of a server with that many decisions by sample, and a tenth of it rewards."""
    length = sum(count for count, _ in traffic)
    made = world(0, length, fault=SILENT, state=state)
    return {
        **made,
        find(f'{DECISIONS}"sale"'): counter(*traffic),
        **{name: counter(*traffic) for name in COUNTERS if name.startswith("decider_possible_total")},
        find("decider_reward_delay_seconds_count"): counter(*[(n, rate / 10) for n, rate in traffic]),
        find("decider_archive_last_success_time_seconds"): gauge((length, 0)),
    }


def test_decisions_that_stop_are_noticed_until_they_come_back(tmp_path: Path) -> None:
    """The frontend was released without its calls: yesterday's traffic says that there should be some."""
    made = long_world((DAY + 60, 500), (DAY, 0), (30, 500))
    stopped = ["DeciderDecisionsStopped"]
    looks = {DAY + 59: [], DAY + 70: stopped, DAY + 200: stopped, 2 * DAY + 59: stopped, 2 * DAY + 70: []}
    check_alerts(made, looks, tmp_path, interval=LONG)


def test_decisions_that_stop_in_an_experiment_that_is_paused_or_new_set_nothing_off(tmp_path: Path) -> None:
    """A person has stopped them, or nobody knows yet what is usual."""
    paused = long_world((DAY + 60, 500), (60, 0), state="paused")
    check_alerts(paused, dict.fromkeys(range(DAY, DAY + 120, 10), ()), tmp_path, interval=LONG)
    new = long_world((200, 500), (120, 0))
    check_alerts(new, dict.fromkeys(range(60, 320, 10), ()), tmp_path, interval=LONG)


def test_nights_and_campaigns_set_nothing_off(tmp_path: Path) -> None:
    """A shop that sleeps, a mail that goes out for half an hour a day at about the same time, one on Mondays alone."""
    nights = [(DAY // 2, 500.0), (DAY // 2, 0.0)] * 2
    mails = [(100, 0.0), (6, 5000.0), (DAY - 9, 0.0), (6, 5000.0), (DAY - 3, 0.0), (6, 5000.0), (90, 0.0)]
    mondays = [(100, 0.0), (60, 500.0), (DAY + 20, 0.0)]
    for traffic in (nights, mails, mondays):
        looks = dict.fromkeys(range(6, sum(count for count, _ in traffic), 2), ())
        check_alerts(long_world(*traffic), looks, tmp_path, interval=LONG)


def test_rewards_that_come_in_batches_set_nothing_off(tmp_path: Path) -> None:
    """Purchases of a till that are sent once an hour: fifteen minutes without any are nothing new."""
    rewards = counter(*[(1, 3600), (11, 0)] * 8)
    made = {**world(96), find("decider_reward_delay_seconds_count"): rewards}
    check_alerts(made, dict.fromkeys(range(96), ()), tmp_path, interval=LONG)


def test_rewards_that_stop_are_noticed_until_they_come_back(tmp_path: Path) -> None:
    """The past that the rule compares with moves on; the fault does not end by that."""
    made = world(60, 240, 12, fault=NO_REWARDS)
    stopped = ["DeciderRewardsStopped"]
    check_alerts(made, {59: [], 66: stopped, 180: stopped, 299: stopped, 306: []}, tmp_path, interval=LONG)


def test_a_disk_that_fills_within_a_day_is_noticed(tmp_path: Path) -> None:
    """20 GB are much, unless the log grows by more each day."""
    growing = {f'decider_log_bytes{{{SERVER}, file="database"': 3e10 / DAY, "decider_disk_free_bytes": 2e10}
    check_alerts(world(DAY, 100, fault=growing), {DAY - 1: [], DAY + 99: []}, tmp_path, interval=LONG)
    check_alerts(world(10, DAY, fault=growing), {9: [], DAY: ["DeciderDiskLow"]}, tmp_path, interval=LONG)


def test_an_archive_without_a_run_for_two_days_is_noticed(tmp_path: Path) -> None:
    """A run that never comes does not fail."""
    made = {find("up"): gauge((80, 1)), find("decider_archive_last_success_time_seconds"): gauge((80, 1))}
    check_alerts(made, {47: [], 51: ["DeciderArchiveFails"]}, tmp_path, interval=3600)


HALF_HOUR, OF_DAY = 1800, 48
"""Seconds between the samples of days and weeks, and how many samples a day has."""

EVER = {find("decider_archive_last_success_time_seconds"): 0.0}
"""No archive, whose rule would look at the time."""


def days(*parts: tuple[int, Mapping[str, float | None]], state: str = "active") -> World:
    """Days of a healthy server, so many samples each, in which this changes."""
    usual = {**COUNTERS, **OF_THE_PROCESS, **GAUGES, **EVER}
    changes = [(count, {find(start): value for start, value in fault.items()}) for count, fault in parts]
    made = {}
    for name, value in usual.items():
        values = [(count, fault.get(name, value)) for count, fault in changes]
        made[name] = gauge(*values) if name in GAUGES else counter(*values)
    return made | {INFO % (state, "online"): gauge((sum(count for count, _ in parts), 1.0))}


OUTFIT = f'{{{EXPERIMENT}, action="outfit"'
NEVER_ELIGIBLE = {f"decider_possible_total{OUTFIT}": 0.0, f"decider_decisions_total{OUTFIT}": 0.0}


def test_an_action_that_nobody_could_get_for_a_day_is_noticed(tmp_path: Path) -> None:
    """A rule that was written wrong takes it from everybody, and no count of draws is missed."""
    made = days((OF_DAY, {}), (OF_DAY + 8, NEVER_ELIGIBLE), (8, {}))
    never = ["DeciderActionNeverEligible"]
    looks = {OF_DAY + 30: [], 2 * OF_DAY - 1: [], 2 * OF_DAY + 6: never, 2 * OF_DAY + 12: []}
    # What it preferred before, it cannot prefer now: whoever must not have it gets another.
    check_alerts(
        {**made, find(f"decider_decisions_total{OUTFIT}"): counter((2 * OF_DAY + 16, 100))},
        looks,
        tmp_path,
        interval=HALF_HOUR,
    )


@pytest.mark.parametrize(
    "quiet",
    [
        {INFO % ("active", "online"): "_", INFO % ("paused", "online"): gauge((OF_DAY + 10, 1))},
        {find(f"decider_action_missing_log_evalue{OUTFIT}"): "_"},  # retired
        {find(f"decider_possible_total{OUTFIT}"): f"_x{OF_DAY} " + counter((10, 0))},  # new
        {name: counter((OF_DAY + 10, 0)) for name in COUNTERS if "EXPLOIT" in name},  # all are held out
        {name: counter((OF_DAY + 10, 0)) for name in {**COUNTERS, **OF_THE_PROCESS}},  # no traffic
    ],
    ids=["paused", "retired", "new", "no draws", "no traffic"],
)
def test_an_action_that_nobody_can_get_sets_nothing_off_where_that_is_right(
    quiet: Mapping[str, str], tmp_path: Path
) -> None:
    """The same series, and a reason for it."""
    never = {f"decider_possible_total{OUTFIT}": 0.0}
    check_alerts({**days((OF_DAY + 10, never)), **quiet}, {OF_DAY + 9: []}, tmp_path, interval=HALF_HOUR)


HALF: dict[str, float | None] = {find("decider_sealed_rewarded_total"): 30.0}


def test_half_of_the_rewards_that_get_lost_are_noticed(tmp_path: Path) -> None:
    """No outage: every second page has no pixel any more. The same day a week ago knows what is usual on it."""
    fewer = ["DeciderRewardsFewer"]
    looks = {8 * OF_DAY: [], 8 * OF_DAY + 36: [], 8 * OF_DAY + 45: fewer, 9 * OF_DAY + 15: fewer, 10 * OF_DAY + 10: []}
    check_alerts(days((8 * OF_DAY, {}), (OF_DAY + 16, HALF), (OF_DAY, {})), looks, tmp_path, interval=HALF_HOUR)


def test_fewer_visits_or_rewards_that_are_right_set_nothing_off(tmp_path: Path) -> None:
    """Half of the visitors on a holiday, after a restart; a pause; next to no rewards; and nothing at all."""
    everything = {name: value / 2 for name, value in COUNTERS.items()}
    few: dict[str, float | None] = {find("decider_sealed_rewarded_total"): 1.0}
    quarter: dict[str, float | None] = {find("decider_sealed_rewarded_total"): 0.25}
    looks = dict.fromkeys((8 * OF_DAY + 36, 8 * OF_DAY + 46), ())
    up = {find("up"): gauge((9 * OF_DAY + 3, 1))}
    for made in (
        {**days((8 * OF_DAY, {}), (3, GONE), (OF_DAY, everything)), **up},
        days((8 * OF_DAY, few), (OF_DAY, quarter)),
        days((8 * OF_DAY, {}), (OF_DAY, SILENT)),
        days((8 * OF_DAY, {}), (OF_DAY, HALF), state="paused"),
    ):
        check_alerts(made, looks, tmp_path, interval=HALF_HOUR)


ONE_ACTION: dict[str, float | None] = {f'{DECISIONS}"sale"': 600.0, f"decider_decisions_total{OUTFIT}": 1.0}


def test_a_policy_that_prefers_one_action_all_at_once_is_noticed(tmp_path: Path) -> None:
    """Its features are gone, or its model is ruined. After a day that is how it is."""
    made = days((5 * OF_DAY, {}), (2 * OF_DAY, ONE_ACTION))
    collapsed = ["DeciderExplorationCollapsed"]
    looks = {5 * OF_DAY: [], 5 * OF_DAY + 3: [], 5 * OF_DAY + 8: collapsed, 6 * OF_DAY: collapsed, 6 * OF_DAY + 10: []}
    check_alerts(made, looks, tmp_path, interval=HALF_HOUR)


def test_a_policy_that_has_learned_sets_nothing_off(tmp_path: Path) -> None:
    """One action is the best for all, and it knows so since its first day; then a restart, a pause and silence."""
    looks = dict.fromkeys(range(0, 7 * OF_DAY, 4), ())
    check_alerts(days((OF_DAY // 2, {}), (6 * OF_DAY + OF_DAY // 2, ONE_ACTION)), looks, tmp_path, interval=HALF_HOUR)
    restarted = days((5 * OF_DAY, {}), (3, GONE), (OF_DAY, {}), (OF_DAY, SILENT))
    looks = dict.fromkeys(range(5 * OF_DAY + 4, 7 * OF_DAY, 4), ())
    check_alerts({**restarted, find("up"): gauge((7 * OF_DAY + 3, 1))}, looks, tmp_path, interval=HALF_HOUR)
    paused = days((5 * OF_DAY, {}), (OF_DAY, ONE_ACTION), state="paused")
    check_alerts(paused, dict.fromkeys(range(5 * OF_DAY, 6 * OF_DAY, 4), ()), tmp_path, interval=HALF_HOUR)
