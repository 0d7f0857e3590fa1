"""Linked units are one person: what one purchase brings to each of them is no independent evidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decider.estimate.independent import weighted_sum
from decider.estimate.mean import Interval
from decider.experiment.definition import Attribution
from decider.log.open import open_log, open_reader, open_to_forget
from decider.log.protocol import NewLink, Tick
from decider.types import ExperimentId
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from simulator.agreement import compare
from simulator.evaluate.checks.draw import repeated_draws
from simulator.evaluate.checks.log import log_findings
from simulator.evaluate.checks.split import units_in_both
from simulator.evaluate.control_group import holdout_mean
from simulator.evaluate.estimates import mean_reward
from simulator.evaluate.result import Evaluation
from simulator.evaluate.reward_model import fold_of
from simulator.evaluate.run import evaluate
from simulator.logs.columns import Columns
from simulator.logs.decider_log import load
from simulator.logs.export_log import export_log
from simulator.logs.holdout_split import Split
from simulator.logs.import_log import import_log
from simulator.logs.open import ReadOptions
from simulator.logs.open import open_log as read_log
from simulator.studies.semantics.judge import check
from simulator.studies.semantics.scenes import SCENES, candidates, credit_all, credit_devices
from simulator.studies.semantics.shop import open_shop
from tests.archives import archive, ends
from tests.conftest import Clock
from tests.test_unit_rewards import apply, decide

PERSONS, LOOKS = 24, 4


def several(person: int, look: int) -> str:
    """A unit of its own for every look."""
    return f"u{person}-{look}"


def single(person: int, _: int) -> str:
    """One unit for all looks of a person."""
    return f"customer-{person}"


def apprentice(experiment: experiment_pb2.Experiment) -> None:
    """It serves its baseline."""
    credit_all(experiment)
    experiment.learning = experiment_pb2.LEARNING_APPRENTICE
    experiment.baseline_action = experiment.actions[0].id


def checked(db: Path) -> Path:
    """The log, which replays."""
    found = check(db)
    assert found.equal == found.decisions
    return db


def write(
    db: Path,
    name: Callable[[int, int], str],
    *,
    links: bool,
    change: Callable[[experiment_pb2.Experiment], None] = credit_devices,
) -> Path:
    """Persons look several times, in turns, and every second one buys in a store. links: made in the middle of it."""
    random, made = np.random.default_rng(3), SCENES["visits"].experiment(salt="p")
    change(made)
    made.reward.window.FromMicroseconds(3_600_000_000)
    with open_shop(db, made) as shop:
        for look in range(LOOKS):
            for person in range(PERSONS):
                segment = pb.Context(segment=("new", "vip")[person % 2])
                shop.decide(pb.DecideRequest(unit_id=name(person, look), context=segment))
                if links and look == LOOKS // 2:
                    for one in range(LOOKS):
                        shop.link(name(person, one), f"customer-{person}")
            shop.wait(1)
        for person in range(PERSONS):
            if random.random() < 0.5:
                shop.send([pb.RewardRequest(unit_id=f"customer-{person}", name="store", reward_id=f"till-{person}")])
        shop.wait(4_000)
    return checked(db)


def figures(found: Evaluation) -> Sequence[object]:
    """Every number that has an interval."""
    log = found.log
    mean = (log.decisions, log.units, log.mean_reward, log.mean_reward_low, log.mean_reward_high)
    periods = [one.mean_reward for one in found.over_time.periods] if found.over_time else []
    return [
        mean,
        *periods,
        *[(one.estimates, one.difference, one.diagnostics.ess, one.segments) for one in found.policies],
    ]


def test_linked_units_have_the_intervals_of_one_unit(tmp_path: Path) -> None:
    """With `all`, a purchase counts for each of them: as units of their own they would promise twice the evidence. What
    was decided before the link is the person's, too."""
    linked = load(write(tmp_path / "linked.db", several, links=True))
    one = load(write(tmp_path / "one.db", single, links=False))
    assert len(np.unique(linked.unit)) == PERSONS * LOOKS == linked.unit_count
    assert linked.person is not None
    assert linked.person.tolist() == one.unit.tolist()
    assert linked.reward.tolist() == one.reward.tolist()
    apart = replace(linked, person=None)
    found, same, wrong = (evaluate(columns, candidates()) for columns in (linked, one, apart))
    assert figures(found) == figures(same)
    wide, narrow = (one.log.mean_reward_high - one.log.mean_reward_low for one in (found, wrong))
    assert wide > 1.5 * narrow


@pytest.mark.parametrize("attribution", [True, False])
def test_pages_of_linked_units_are_one_persons(attribution: bool, tmp_path: Path) -> None:
    """Each page stays the page of its own unit; intervals over pages are by person. attribution: a purchase counts for
    all pages; else each page is clicked or not."""
    linked, one = (
        load(pages(tmp_path / f"{name.__name__}.db", name, attribution=attribution)) for name in (several, single)
    )
    assert linked.pages is not None
    assert one.pages is not None
    assert linked.pages.page.tolist() == one.pages.page.tolist()
    found, same = (evaluate(columns, candidates(), force=True, breakdown=False).slates for columns in (linked, one))
    assert found is not None
    assert same is not None
    assert found.pages == 2 * PERSONS
    assert found.mean_reward == same.mean_reward
    assert [policy.estimates for policy in found.policies] == [policy.estimates for policy in same.policies]


def pages(db: Path, name: Callable[[int, int], str], *, attribution: bool) -> Path:
    """A page on each of two devices of every person."""
    random, made = np.random.default_rng(4), SCENES["slates"].experiment(salt="p")
    credit_all(made)
    with open_shop(db, made) as shop:
        for person in range(PERSONS):
            for device in range(2):
                unit, slate = name(person, device), f"s{person}-{device}"
                if unit != single(person, device):
                    shop.link(unit, single(person, device))
                request = pb.DecideSlateRequest(unit_id=unit, slate_id=slate, slots=[pb.Slot()] * 2)
                request.context.segment = "new"
                reply = shop.decide_slate(request)
                clicked = [one.decision_id for one in reply.decisions if random.random() < 0.5]
                shop.reward(*clicked * (not attribution))
            if attribution and random.random() < 0.5:
                shop.send([pb.RewardRequest(unit_id=f"customer-{person}", name="store", reward_id="till")])
        shop.wait(60)
    return checked(db)


def test_links_that_join_no_two_units_of_the_log_change_nothing(tmp_path: Path) -> None:
    """A customer's number that decides nothing is no second unit; and without links every figure is as it was."""
    plain = load(write(tmp_path / "plain.db", single, links=False))
    db = write(tmp_path / "linked.db", single, links=False)
    with closing(open_log(db)) as log:
        log.append([NewLink("customer-1", "card-1"), NewLink("card-2", "letter-2")])
    linked = load(db)
    assert plain.person is None
    assert linked.person is None
    assert plain.cluster is plain.unit
    assert figures(evaluate(plain, candidates())) == figures(evaluate(linked, candidates()))


def test_an_archive_knows_the_persons_of_its_links(tmp_path: Path) -> None:
    """Where the log is gone, its parts are all that is left."""
    db = write(tmp_path / "log.db", several, links=True)
    live = load(db)
    archive(db, tmp_path / "archive", [ends(db)[-1]])
    restored = load(tmp_path / "archive")
    assert live.person is not None
    assert restored.person is not None
    assert restored.person.tolist() == live.person.tolist()


def test_a_forgotten_unit_is_nobodys(tmp_path: Path, clock: Clock) -> None:
    """Its links are gone with its id; the others of its person stay one, in the log and as far as parts can tell."""
    db = tmp_path / "log.db"
    with closing(open_log(db, clock=clock)) as log:
        version = apply(log, Attribution.ALL)
        for unit in ("anna", "bert", "card", "desk"):
            decide(log, version, unit)
        log.append([NewLink("anna", "bert"), NewLink("bert", "card"), NewLink("card", "desk")])
        clock.advance(60)
        log.append([Tick()])
    with closing(open_to_forget(db)) as log:
        log.forget("anna", pseudonym=False, context=False, rebuild=False)
    left = dict.fromkeys(["bert", "card", "desk"], "bert")
    with closing(open_reader(db)) as reader:
        assert reader.persons() == left
    archive(db, tmp_path / "archive", [ends(db)[-1]])
    with closing(open_reader(tmp_path / "archive")) as restored:
        assert restored.persons() == left


@pytest.mark.parametrize("kind", ["csv", "parquet", "dsjson"])
def test_an_exported_log_has_persons_as_units(kind: str, tmp_path: Path) -> None:
    """A file has one id for whom a decision is for: intervals stay honest, and what got lost is said."""
    columns = load(write(tmp_path / "log.db", several, links=True))
    exported = export_log(columns, tmp_path / f"log.{kind}")
    assert "which units of a person are linked: a person is one unit" in exported.lost
    again = read_log(str(tmp_path / f"log.{kind}"), ReadOptions(reward_range=columns.reward_range))
    assert len(again.units.size) == PERSONS
    logged = mean_reward(again.reward, again.units, columns.reward_range)
    assert logged == mean_reward(columns.reward, columns.units, columns.reward_range)


def test_an_imported_log_has_persons_as_units(tmp_path: Path) -> None:
    """As an exported one."""
    columns = load(write(tmp_path / "log.db", several, links=True))
    assert "which units of a person are linked: a person is one unit" in import_log(columns, tmp_path / "new.db").lost
    assert len(load(tmp_path / "new.db").units.size) == PERSONS


def test_an_apprentices_bounds_know_persons(tmp_path: Path) -> None:
    """Agreement has intervals of its own, from the log directly."""
    found = []
    for path, name, links in (("linked.db", several, True), ("one.db", single, False)):
        with closing(open_reader(write(tmp_path / path, name, links=links, change=apprentice))) as reader:
            found.append(compare(reader, ExperimentId("shop")).earned())
    assert found[0] is not None
    assert found[0].decisions == PERSONS * LOOKS
    assert found[0] == found[1]


def test_the_checks_count_persons_where_rewards_are_shared(tmp_path: Path) -> None:
    """Who reads `inspect` must see how many independent visitors there are."""
    columns = load(write(tmp_path / "log.db", several, links=True))
    (found,) = [one for one in log_findings(columns) if one.name == "repeated units"]
    assert "24 persons with 96 units" in found.text
    assert "clustered by person" in found.text


def test_draws_are_those_of_units(tmp_path: Path) -> None:
    """Each device keeps its decision or not: asked by person, two devices in turns would look like new draws."""
    columns = load(write(tmp_path / "log.db", several, links=True))
    rows = np.arange(len(columns))
    pair, device = rows // 6, rows % 2
    kept = replace(columns, unit=2 * pair + device, action=((pair + device) % 2).astype(np.int32))
    assert repeated_draws(replace(kept, person=pair)) == repeated_draws(replace(kept, person=None))
    found = repeated_draws(kept)
    assert found is not None
    assert found.verdict == "caution"


def test_no_reward_model_predicts_a_person_that_it_has_seen(tmp_path: Path) -> None:
    """The same purchase on both sides of a fold would make the model look better than it is."""
    columns = load(write(tmp_path / "log.db", several, links=True))
    assert columns.person is not None
    folds = fold_of(columns, 5)
    assert len(np.unique(np.stack([folds, columns.person]), axis=1).T) == PERSONS
    assert len(np.unique(folds)) > 1


# --- persons in both groups of a holdout


def two_devices(seed: int, *, shared: bool, persons: int = 400) -> Columns:
    """Of each person one device is in the control group and one is not; half of them buy once. shared: both devices get
    the purchase; else one of them does."""
    random = np.random.default_rng(seed)
    buys = random.random(persons) < 0.5
    reward = np.repeat(buys[:, np.newaxis], 2, axis=1).astype(np.float64)
    if not shared:
        reward[np.arange(persons), random.integers(2, size=persons)] = 0.0
    flat, rows = reward.ravel(), 2 * persons
    columns = Columns(
        name="devices",
        actions=("a", "b"),
        action=np.tile([0, 1], persons).astype(np.int32),
        propensity=np.full(rows, 0.5),
        reward=flat,
        reward_range=(0.0, 1.0),
        time=np.arange(1, rows + 1),
        known=np.arange(1, rows + 1),
        unit=np.arange(rows),
        person=np.repeat(np.arange(persons), 2),
        fields={},
        sets=((0, 1),),
        eligible=np.zeros(rows, np.int32),
        baseline=0,
        split=Split(np.full(rows, 0.5), np.tile([True, False], persons), 0.5, 0),
    )
    control = columns.action == 0
    return replace(columns.take(~control), holdout=columns.take(control))


@pytest.mark.parametrize("shared", [True, False])
def test_the_lift_over_a_holdout_knows_who_is_in_both_groups(shared: bool) -> None:
    """A purchase that both devices get is no difference between groups, and one that only one of them can get makes
    their difference twice: the interval is as wide as lifts differ from log to log."""
    lifts, halves = [], []
    for seed in range(100):
        columns = two_devices(seed, shared=shared)
        found = holdout_mean(columns, mean_reward(columns.reward, columns.units, (0.0, 1.0)))
        assert found is not None
        assert found.lift is not None
        lifts.append(found.lift.value)
        halves.append((found.lift.high - found.lift.low) / 2 / 1.96)
    if shared:
        assert max(map(abs, lifts)) < 1e-9
        assert max(halves) < 1e-3
    else:
        assert np.std(lifts) == pytest.approx(np.mean(halves), rel=0.25)


def test_persons_in_both_groups_are_told() -> None:
    """What the policy showed on one device may have sold on the other."""
    found = units_in_both(two_devices(1, shared=True))
    assert found is not None
    assert found.verdict == "caution"
    assert "400 persons" in found.text


sides = st.floats(0.0, 10.0)


@given(a=sides, b=sides, weight=st.floats(-2.0, 2.0), correlation=st.floats(-1.0, 1.0))
def test_the_length_of_a_correlated_sum_is_that_of_its_variance(
    a: float, b: float, weight: float, correlation: float
) -> None:
    """Symmetric intervals are standard errors: their sum has the variance that every textbook has."""
    one, other = Interval(0.0, -a, a), Interval(0.0, -b, b)
    found = weighted_sum((1.0, one), (weight, other), correlation=correlation)
    expected = sqrt(max(0.0, a**2 + (weight * b) ** 2 + 2 * correlation * a * weight * b))
    assert found.high == pytest.approx(expected, abs=1e-6)
    assert found.low == pytest.approx(-expected, abs=1e-6)
