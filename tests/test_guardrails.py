"""Guardrails: a reward that the policy must not harm, judged by its own lift at every look."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from decider.decide.decide import SlotsCache, decide, in_holdout
from decider.errors import InvalidExperiment
from decider.estimate.guardrail import guardrail_evidence
from decider.estimate.lift import GroupSums, lift
from decider.experiment.changes import changes
from decider.experiment.definition import Experiment, ExperimentVersion
from decider.experiment.guardrails import MAX_GUARDRAILS, MOST_NAMES, Guardrail
from decider.experiment.origin import Origin
from decider.experiment.schema import (
    definition_text,
    file_content_of,
    from_message,
    parse_toml,
    to_message,
)
from decider.experiment.strata import strata_of
from decider.experiment.toml_text import toml_text
from decider.learn.guardrails import AUTHOR, Guardrails
from decider.learn.versions import Versions
from decider.log.lift_totals import LEARNED
from decider.log.log_totals import LogTotals
from decider.log.open import open_log
from decider.log.protocol import EventLog, NewReward, Tick
from decider.metrics.guardrails import GuardrailCollector
from decider.metrics.shared_totals import SharedTotals
from decider.policy.make import make_policy
from decider.policy.protocol import Model
from decider.server.command import main as decider
from decider.server.files import ExperimentFiles
from decider.types import Context, DecisionId, DecisionRequest, ExperimentId, Position, Reason, Time
from simulator.commands.group import main
from simulator.lift.find import find_lift
from simulator.logs.groups import load_groups
from simulator.verify import verify
from tests.long_logs import PastClock
from tests.rpc_clients import GrpcClient, ServerProcess

DEFINITION = """
id = "email"
baseline_action = "none"
holdout = 0.1

[[actions]]
id = "none"
kind = "none"

[[actions]]
id = "offer"

[policy.uniform]

[reward]
window = "1s"
weights = { click = 1.0, unsubscribe = 0.0 }

[[guardrails]]
reward = "unsubscribe"
at_most = 0.002
on_crossing = "baseline"
"""

MINUTE = 60.0

EMAIL = ExperimentId("email")


def email(*more: str, without: str = "", **fields: object) -> Experiment:
    """DEFINITION with other lines at its end, or without one."""
    kept = "\n".join(line for line in DEFINITION.splitlines() if not (without and line.startswith(without)))
    return replace(from_message(parse_toml("\n".join([kept, *more]), "email.toml")), **fields)  # type: ignore[arg-type]


def violations(*more: str, without: str = "") -> dict[str, str]:
    """What is refused, by field."""
    with pytest.raises(InvalidExperiment) as refused:
        email(*more, without=without)
    return {one.field: one.description for one in refused.value.violations}


def test_a_definition_is_read_and_written() -> None:
    """What a person declares is what the log keeps, and what `decider get` gives back."""
    made = email('again_after = "7d"')
    (guardrail,) = made.guardrails
    assert guardrail == Guardrail("unsubscribe", at_most=0.002, falls_back=True, again_after=7 * 86_400_000_000)
    assert from_message(to_message(made)) == made
    crossed = replace(made, guardrails=(replace(guardrail, crossed_at=Time(10**15)),))
    assert from_message(to_message(crossed)) == crossed
    assert from_message(parse_toml(toml_text(file_content_of(to_message(crossed))), "email.toml")) == made
    assert changes(made, crossed) == ('guardrail unsubscribe.crossed_at none -> "2001-09-09T01:46:40Z"',)
    assert "guardrails" not in definition_text(replace(made, guardrails=()))


def test_a_file_written_after_a_crossing_does_not_end_the_fallback() -> None:
    """Whoever gets the file, changes a word and applies it would send the harm out again."""
    made = email()
    crossed = replace(made, guardrails=(replace(made.guardrails[0], crossed_at=Time(10**15)),))
    assert "state" not in file_content_of(to_message(crossed))
    assert file_content_of(to_message(replace(crossed, paused=True)))["state"] == "paused"
    assert file_content_of(to_message(made))["state"] == "active"


def test_a_guardrail_that_nobody_could_judge_is_refused_with_a_way_out() -> None:
    """It would look as if all were well for ever."""
    assert "take a share above 0 and below 1" in violations(without="holdout")["holdout"]
    other = violations("[[guardrails]]", 'reward = "refund"', "at_most = 0.1")
    assert "add it there, with the weight 0" in other["guardrails[1].reward"]
    assert "one of the two" in violations("at_least = 0.1")["guardrails[0]"]
    assert "one of the two" in violations(without="at_most")["guardrails[0]"]
    assert "within +-1e+12" in violations("at_most = 1e13", without="at_most")["guardrails[0].at_most"]
    assert "[1 s, 366 days]" in violations('again_after = "5ms"')["guardrails[0].again_after"]
    alarm = violations('again_after = "7d"', without="on_crossing")
    assert 'needs on_crossing = "baseline"' in alarm["guardrails[0].again_after"]
    twice = violations("[[guardrails]]", 'reward = "unsubscribe"', "at_most = 0.1")
    assert "give each reward one" in twice["guardrails[1].reward"]
    many = violations(*["[[guardrails]]\nreward = 'click'\nat_least = 0.0"] * MAX_GUARDRAILS)
    assert "at most 10 are possible" in many["guardrails"]
    ours = violations('crossed_at = "2026-01-01T00:00:00Z"')
    assert "set by the server alone" in ours["email.toml: guardrails[0].crossed_at"]
    message = parse_toml(DEFINITION, "email.toml")
    message.reward.weights.update({f"a{number:03}": 1.0 for number in range(MOST_NAMES)})
    with pytest.raises(InvalidExperiment, match="which alone have a lift"):
        from_message(message)


# The estimate.


def sums(decisions: tuple[int, int], rewarded: tuple[int, int]) -> GroupSums:
    """Of units that came once, spread over the buckets, some of them with a reward of 1."""
    rng = np.random.default_rng(1)
    made, earned = np.zeros((2, 512)), np.zeros((2, 512))
    for group in (0, 1):
        bucket = rng.integers(0, 512, decisions[group])
        np.add.at(made[group], bucket, 1.0)
        np.add.at(earned[group], bucket[: rewarded[group]], 1.0)
    return GroupSums(made, earned)


def test_few_unsubscribes_in_both_groups_are_no_alarm() -> None:
    """As a growth team met it: 26 of 4,066 under the policy, 4 of 434 in the holdout."""
    found = guardrail_evidence({1: sums((4_066, 434), (26, 4))}, margin=0.002, is_upper=True)
    assert not found.crossed
    assert (found.log_evalue, found.decisions) == (0.0, (4_066, 434)), "the holdout has too few to say anything"


def test_harm_is_found_although_the_holdout_has_none() -> None:
    """Where the baseline hardly ever annoys, nobody can wait until it does."""
    for harmed in (0, 2):
        found = guardrail_evidence({1: sums((9_000, 1_000), (270, harmed))}, margin=0.002, is_upper=True)
        assert not lift({1: sums((9_000, 1_000), (270, harmed))}).is_known
        assert found.crossed
        assert 0.002 < found.bound < found.lift
    assert not guardrail_evidence({1: sums((9_000, 1_000), (14, 0))}, margin=-1.0, is_upper=True).is_known


@pytest.mark.parametrize("value", [1e3, -1e6, 1e12, 1e200])
@pytest.mark.parametrize("group", [0, 1])
def test_one_odd_value_is_told(value: float, group: int) -> None:
    """A guardrail that was crossed went back to "too little is known" without a word, for the whole stratum."""
    harmed = sums((9_000, 1_000), (270, 2))
    assert guardrail_evidence({1: harmed}, margin=0.002, is_upper=True).crossed
    harmed.rewards[group, 5] += value
    found = guardrail_evidence({1: harmed}, margin=0.002, is_upper=True)
    assert found.outweighed
    assert not found.is_known
    assert lift({1: harmed}).outweighed


@pytest.mark.parametrize("rewarded", [(0, 0), (3, 0), (40, 4), (270, 0), (270, 12), (2_700, 300)])
def test_few_rewards_are_not_odd_ones(rewarded: tuple[int, int]) -> None:
    """Whoever waits for data must not be sent to look for a mistake."""
    made = sums((9_000, 1_000), rewarded)
    assert not guardrail_evidence({1: made}, margin=0.002, is_upper=True).outweighed
    assert not lift({1: made}).outweighed


def test_a_bound_on_the_other_side_is_the_mirror() -> None:
    """`at_least`: purchases must not fall."""
    up = guardrail_evidence({1: sums((9_000, 1_000), (270, 10))}, margin=0.005, is_upper=True)
    harmed = sums((9_000, 1_000), (270, 10))
    down = guardrail_evidence({1: GroupSums(harmed.decisions, -harmed.rewards)}, margin=-0.005, is_upper=False)
    assert (down.lift, down.bound, down.log_evalue) == pytest.approx((-up.lift, -up.bound, up.log_evalue))


@pytest.mark.parametrize("margin", [-0.02, 0.0, 0.0195, 0.0205, 0.05])
def test_it_is_crossed_where_the_bound_is_beyond_the_margin(margin: float) -> None:
    """The e-value and the bound are two views of one thing."""
    for is_upper in (True, False):
        found = guardrail_evidence({1: sums((9_000, 1_000), (300, 20))}, margin=margin, is_upper=is_upper)
        assert found.crossed == (found.bound > margin if is_upper else found.bound < margin)


def test_a_healthy_guardrail_is_hardly_ever_crossed() -> None:
    """Whoever is alarmed by chance switches alarms off: 120 of 3,000 looks would be, at a bound for one look."""
    trials, looks, crossed = 100, 30, 0
    for trial in range(trials):
        rng = np.random.default_rng(trial)
        counted = GroupSums(np.zeros((2, 512)), np.zeros((2, 512)))
        for _ in range(looks):
            group, bucket = (rng.random(1_000) < 0.1).astype(int), rng.integers(0, 512, 1_000)
            np.add.at(counted.decisions, (group, bucket), 1.0)
            np.add.at(counted.rewards, (group, bucket), (rng.random(1_000) < 0.01).astype(float))
            if guardrail_evidence({1: counted}, margin=0.0, is_upper=True).crossed:
                crossed += 1
                break
    assert crossed <= 10  # of 5 expected at most, 10 are exceeded with a probability of 1 %


# What is served.


def version(experiment: Experiment) -> ExperimentVersion:
    """As applied."""
    return ExperimentVersion(experiment, number=1, position=Position(1), time=Time(0))


def crossed(experiment: Experiment, at: int = 5) -> Experiment:
    """With its first guardrail crossed."""
    first, *others = experiment.guardrails
    return replace(experiment, guardrails=(replace(first, crossed_at=Time(at)), *others))


def request(number: int, **fields: object) -> DecisionRequest:
    """Of some unit."""
    return DecisionRequest(DecisionId(f"d{number}"), f"unit-{number}", Context(), **fields)  # type: ignore[arg-type]


def test_everybody_gets_the_baseline_then() -> None:
    """Also a unit that a policy would explore with, and a call that names another default action."""
    fallen = version(crossed(email()))
    model = Model(make_policy(fallen.experiment.policy))
    for number in range(50):
        made = decide(request(number, default="offer"), fallen, model, SlotsCache())
        assert (made.action, made.propensity, made.reason) == ("none", 1.0, Reason.BASELINE)
    assert any(in_holdout(fallen, f"unit-{number}") for number in range(50))
    assert (fallen.experiment.control_share, fallen.experiment.learns) == (0.0, False)


def test_what_comes_after_a_fallback_is_a_stratum_of_its_own() -> None:
    """Else the old evidence would send everybody back at once."""
    made = [email(), crossed(email()), email(), email(description="x")]
    versions = [
        ExperimentVersion(one, number=n, position=Position(10 * n), time=Time(n)) for n, one in enumerate(made, 1)
    ]
    found = strata_of(versions)
    assert {position: stratum.first for position, stratum in found.items()} == {10: 10, 30: 30, 40: 30}
    assert len({stratum.measure for stratum in found.values()}) == 1


# Versions.


@pytest.fixture
def clock() -> PastClock:
    return PastClock(4 * 86_400.0)


@pytest.fixture
def log(tmp_path: Path, clock: PastClock) -> Iterator[EventLog]:
    """An open log."""
    with closing(open_log(tmp_path / "email.db", clock=clock)) as opened:
        yield opened


ANN = Origin("ann", "api", "")


def fall_back(log: EventLog, experiment: Experiment, at: int = 5) -> Experiment:
    """As the server does."""
    return Versions(log).fall_back(experiment.id, experiment.guardrails[0], at=Time(at), origin=ANN).version.experiment


def test_a_fallback_goes_on_until_somebody_ends_it(log: EventLog) -> None:
    """A file that is applied again, another margin or a pause is no word that the harm is over."""
    versions = Versions(log)
    versions.apply(email())
    assert fall_back(log, email()).fallback is not None
    assert not Versions(log).fall_back("email", email().guardrails[0], at=Time(9), origin=ANN).changed  # type: ignore[arg-type]
    assert not versions.apply(email(), keep_state=True).changed
    assert versions.apply(email(description="new"), keep_state=True).version.experiment.fallback is not None
    for paused in (True, False):
        applied = versions.set_paused(email().id, paused=paused).version.experiment
        assert (applied.fallback is not None, applied.paused) == (True, paused)
    assert versions.set_paused(email().id, paused=False).version.experiment == email(description="new")
    assert not versions.set_paused(email().id, paused=False).changed


def test_a_person_ends_it_by_applying_it_as_active_or_without_the_guardrail(log: EventLog) -> None:
    """Both are said by name."""
    versions = Versions(log)
    versions.apply(email())
    fallen = fall_back(log, email())
    assert not versions.apply(fallen, end_fallback=True).changed, "as GetExperiment gives it"
    assert versions.apply(email(), end_fallback=True).version.experiment.fallback is None
    with pytest.raises(InvalidExperiment, match="set by the server alone"):
        versions.apply(crossed(email(), at=77))
    fall_back(log, email())
    assert versions.apply(email(guardrails=()), keep_state=True).version.experiment.fallback is None


def test_a_file_read_at_a_start_ends_no_fallback(log: EventLog, tmp_path: Path) -> None:
    """A restart in the night is nobody's decision, also where the file says active; editing it is."""
    path = tmp_path / "email.toml"
    path.write_text(f'state = "active"\n{DEFINITION}')
    files = ExperimentFiles([path], Versions(log))
    files.apply_all()
    fall_back(log, email())
    files = ExperimentFiles([path], Versions(log))
    files.apply_all()
    assert log.versions()[-1].experiment.fallback is not None
    path.write_text(f'state = "active"\ndescription = "looked at"\n{DEFINITION}')
    files.apply_changes()
    assert log.versions()[-1].experiment.fallback is None


def test_a_fallback_never_waits_for_a_model(log: EventLog) -> None:
    """It is for harm that is done now."""
    Versions(log).apply(email())
    learning = email(policy=from_message(parse_toml(DEFINITION.replace("uniform", "thompson"), "x")).policy)
    applied = Versions(log).apply(learning)
    assert applied.waits
    fallen = Versions(log).fall_back(learning.id, learning.guardrails[0], at=Time(5), origin=ANN)
    assert not fallen.waits
    assert fallen.changes == ('guardrail unsubscribe.crossed_at none -> "1970-01-01T00:00:00.000005Z"',)
    assert Versions(log).set_paused(learning.id, paused=False).waits


# The watch.


def visits(log: EventLog, clock: PastClock, count: int, rates: tuple[float, float], seed: int) -> None:
    """Decisions of the newest version, sealed; rates: of unsubscribes by (offer, none)."""
    newest = log.versions()[-1]
    model, rng = Model(make_policy(newest.experiment.policy)), np.random.default_rng(seed)
    made = [decide(request(seed * 1_000_000 + n), newest, model) for n in range(count)]
    marks = log.append(made)
    log.append(
        [
            NewReward(mark.position, "unsubscribe", 1.0, 0.0)
            for decision, mark in zip(made, marks, strict=True)
            if mark is not None and rng.random() < rates[decision.action == "none"]
        ]
    )
    clock.advance(MINUTE)
    log.append([Tick()])


def watch_of(log: EventLog, clock: PastClock) -> Guardrails:
    """As a server that starts now."""
    return Guardrails(log, Versions(log), SharedTotals(log).read, clock=clock, look_every=0.0)


def test_a_guardrail_that_cannot_be_judged_says_so(
    log: EventLog, clock: PastClock, caplog: pytest.LogCaptureFixture
) -> None:
    """In one line of the output, in `/readyz` as long as it lasts, and as a metric."""
    registry = CollectorRegistry()
    Versions(log).apply(email(without="on_crossing"))
    watch = watch_of(log, clock)
    registry.register(GuardrailCollector(watch))
    labels = {"experiment": "email", "name": "unsubscribe"}
    visits(log, clock, 4_000, (0.06, 0.0), seed=1)
    watch.look()
    assert registry.get_sample_value("decider_guardrail_crossed", labels) == 1
    version = log.versions()[-1]
    (mark,) = log.append([decide(request(1), version, Model(make_policy(version.experiment.policy)))])
    assert mark is not None
    log.append([NewReward(mark.position, "unsubscribe", 1e6, 0.0)])
    clock.advance(MINUTE)
    log.append([Tick()])
    caplog.clear()
    for _ in range(2):
        watch.look()
        (warning,) = watch.warnings()
        assert "guardrail unsubscribe: at most 0.002 is declared, and cannot be judged: a few units" in warning
        assert registry.get_sample_value("decider_guardrail_outweighed", labels) == 1
    assert len([line for line in caplog.messages if "cannot be judged" in line]) == 1


def test_what_has_nothing_new_is_not_judged_anew(log: EventLog, clock: PastClock) -> None:
    """Hundreds of experiments that rest cost nothing, although others have visits all the time."""
    Versions(log).apply(email())
    watch = watch_of(log, clock)
    visits(log, clock, 500, (0.06, 0.0), seed=1)
    watch.look()
    before = watch.judged[EMAIL]
    log.append([Tick()])
    watch.look()
    assert watch.judged[EMAIL] is before
    visits(log, clock, 500, (0.06, 0.0), seed=2)
    watch.look()
    assert watch.judged[EMAIL][0].evidence.decisions > before[0].evidence.decisions
    before = watch.judged[EMAIL]
    Versions(log).apply(email("[[actions]]", 'id = "more"'))
    watch.look()
    assert watch.judged[EMAIL] is not before


def test_harm_brings_the_baseline_with_its_evidence_and_never_flaps(log: EventLog, clock: PastClock) -> None:
    """What a growth team reads afterwards is in the log; old evidence never speaks twice."""
    Versions(log).apply(email())
    watch = watch_of(log, clock)
    decisions = 0
    while log.versions()[-1].experiment.fallback is None:
        decisions += 500
        assert decisions <= 10_000
        visits(log, clock, 500, (0.06, 0.0), seed=decisions)
        watch.look()
    made = log.versions()[-1]
    origin = log.origins([made.position])[made.position]
    assert (origin.author, origin.source) == (AUTHOR, "server")
    assert "guardrail unsubscribe: lift +0.0" in origin.note
    assert "at most 0.002 is declared" in origin.note
    for number, again in enumerate((watch, watch_of(log, clock))):
        visits(log, clock, 500, (0.06, 0.0), seed=100_000 + number)
        again.look()
        assert log.versions()[-1].position == made.position
        assert again.warnings() == [
            "experiment email: guardrail unsubscribe is crossed, so everybody gets the baseline action: "
            "`decider resume email` ends that"
        ]
    Versions(log).set_paused(email().id, paused=False)
    for again in (watch, watch_of(log, clock)):
        again.look()
        (judged,) = again.judged[email().id]
        assert (judged.evidence.decisions, judged.crossed) == ((0, 0), False)
    visits(log, clock, 20_000, (0.06, 0.0), seed=7)
    watch_of(log, clock).look()
    assert log.versions()[-1].experiment.fallback is not None, "it harms still"
    assert verify(log).first is None
    assert log.check(lambda _: None) == []


def test_a_declared_time_ends_it(log: EventLog, clock: PastClock) -> None:
    """Then the policy is judged by what comes from then on."""
    Versions(log).apply(email('again_after = "1h"'))
    visits(log, clock, 10_000, (0.06, 0.0), seed=1)
    watch_of(log, clock).look()
    clock.advance(50 * MINUTE)
    watch_of(log, clock).look()
    assert log.versions()[-1].experiment.fallback is not None
    clock.advance(20 * MINUTE)
    watch = watch_of(log, clock)
    watch.look()
    newest = log.versions()[-1]
    assert newest.experiment == email('again_after = "1h"')
    assert "again_after = 1h is over" in log.origins([newest.position])[newest.position].note
    visits(log, clock, 2_000, (0.0, 0.0), seed=2)
    watch.look()
    assert log.versions()[-1].position == newest.position


def test_an_alarm_alone_changes_nothing(log: EventLog, clock: PastClock) -> None:
    """Not everybody wants a server to decide."""
    Versions(log).apply(email(without="on_crossing"))
    visits(log, clock, 10_000, (0.06, 0.0), seed=1)
    watch = watch_of(log, clock)
    watch.look()
    assert len(log.versions()) == 1
    (warning,) = watch.warnings()
    assert warning.startswith("experiment email: guardrail unsubscribe is crossed: lift +0.0")


def test_the_weight_0_is_counted_and_not_learned(log: EventLog, clock: PastClock) -> None:
    """A reward that is only watched must not teach anything."""
    Versions(log).apply(email())
    visits(log, clock, 4_000, (0.06, 0.06), seed=1)
    totals = LogTotals(log)
    totals.catch_up()
    (found,) = totals.totals.lift["email"].values()
    assert sum(found.rewards["unsubscribe"].floats()) > 100
    assert sum(found.rewards[LEARNED].floats()) == 0


def test_the_command_judges_as_the_server_does(log: EventLog, clock: PastClock, tmp_path: Path) -> None:
    """Nobody can explain two answers."""
    Versions(log).apply(email('[[guardrails]]\nreward = "click"\nat_least = -0.01'))
    visits(log, clock, 10_000, (0.06, 0.0), seed=1)
    watch = watch_of(log, clock)
    watch.look()
    judged = {one.guardrail.reward: one.evidence for one in watch.judged[email().id]}
    rows = {row.reward: row for row in find_lift(load_groups(tmp_path / "email.db")).guardrails}
    assert {name: row.answer for name, row in rows.items()} == {"unsubscribe": "crossed", "click": "too little"}
    assert rows["unsubscribe"].crossed_at == log.versions()[-1].experiment.guardrails[0].crossed_at
    for name, row in rows.items():
        assert row.log_evalue == pytest.approx(judged[name].log_evalue, rel=1e-9)
        assert row.decisions == judged[name].decisions
    ran = CliRunner().invoke(
        main, ["lift", str(tmp_path / "email.db"), "--json", str(tmp_path / "a.json"), "--report", str(tmp_path / "r")]
    )
    assert ran.exit_code == 0, ran.output
    assert "Guardrails" in ran.output
    assert "`decider resume email` ends that" in " ".join(ran.output.split())
    found = json.loads((tmp_path / "a.json").read_text())["guardrails"]
    assert [row["answer"] for row in found] == ["crossed", "too little"]
    assert 'id="guardrails"' in (tmp_path / "r" / "index.html").read_text()
    assert find_lift(load_groups(tmp_path / "email.db")).guardrails[1].lift is None


# A real server.


def live(client: GrpcClient) -> dict[str, float]:
    """The gauges of the guardrail."""
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(client.fetch("/metrics")[1])
        for sample in family.samples
        if sample.name.startswith("decider_guardrail")
        and sample.labels == {"experiment": "email", "name": "unsubscribe"}
    }


def visit(client: GrpcClient, units: range) -> set[str]:
    """Whoever gets the offer unsubscribes, half of the time. The actions that were served."""
    served = set()
    for number in units:
        decided = client.decide("email", f"u{number}")
        served.add(decided.action.id)
        if decided.action.id == "offer" and number % 2:
            client.reward(decided.decision_id, name="unsubscribe")
    return served


def test_a_server_falls_back_by_itself_and_stays_there_through_a_kill(tmp_path: Path) -> None:
    """Nobody is awake when an experiment begins to harm; and a crash must not begin it again."""
    file, db = tmp_path / "email.toml", tmp_path / "email.db"
    file.write_text(f'state = "active"\nsticky = "1d"\n{DEFINITION}')
    options = ("--experiments", str(file), "--learn-interval", "0.05")
    server = ServerProcess(db, *options)
    try:
        with closing(server.client()) as client:
            visit(client, range(300))
        server.kill()
        server = ServerProcess(db, *options)
        with closing(server.client()) as client:
            visit(client, range(300, 1_200))
            client.until(lambda: "everybody gets" in client.fetch("/readyz")[1] or None, what="it falls back")
            assert client.fetch("/readyz")[0] == 200
            assert visit(client, range(1_200, 1_250)) == {"none"}
            assert visit(client, range(50)) == {"none"}, "also who kept an offer"
            found = live(client)
            assert found["decider_guardrail_crossed"] == 1
            assert found["decider_guardrail_log_evalue"] > 3
            shown = client.fetch("/metrics")[1]
            assert re.search(r'^decider_experiment_info\{.*experiment="email".*state="baseline"', shown, re.MULTILINE)
            assert re.search(r'^decider_model_position\{experiment="email"\}', shown, re.MULTILINE), "alerts need it"
            assert client.rows("select author, source from changes order by position desc limit 1") == [
                ("guardrail", "server")
            ]
            assert "experiment email: guardrail unsubscribe is crossed: lift +0." in server.output
            assert "guardrail unsubscribe.crossed_at none -> " in server.output
        server.kill()
        server = ServerProcess(db, *options)
        with closing(server.client()) as client:
            assert visit(client, range(1_250, 1_300)) == {"none"}
            assert "`decider resume email` ends that" in server.output
            ran = CliRunner().invoke(decider, ["resume", "email", "--target", server.target, "--author", "ann"])
            assert ran.exit_code == 0, ran.output
            assert re.fullmatch(r"experiment email decides: version \d+\n", ran.output)
            assert visit(client, range(1_300, 1_350)) == {"none", "offer"}
            client.until(lambda: live(client)["decider_guardrail_crossed"] == 0 or None, what="it is judged anew")
            assert client.fetch("/readyz")[1] == "ok\n"
        assert server.terminate() == 0
    finally:
        with suppress(ProcessLookupError):
            server.kill()
    verified = CliRunner().invoke(main, ["verify", str(db)])
    assert "1400 of 1400" in verified.output.replace(",", ""), verified.output
