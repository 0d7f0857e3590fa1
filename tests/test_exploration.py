"""What exploration costs: the reward of the most probable action less that of the action drawn, by unit, from a log."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from decider.decide.decide import decide
from decider.decide.slots import SLOTS, to_slots
from decider.estimate.exploration import ExplorationCost, mean_cost
from decider.experiment.definition import Experiment
from decider.experiment.schema import from_message
from decider.experiment.strata import BUCKETS, measures_of_all, whole
from decider.learn.archive import archive
from decider.learn.versions import Versions
from decider.log.exploration import exploration_cost
from decider.log.lift_totals import LEARNED, StrataTotals
from decider.log.log_totals import LogTotals
from decider.log.memory import MemoryLog
from decider.log.open import open_log, open_to_cut
from decider.log.protocol import EventLog, Mark, NewReward, Tick
from decider.log.totals import LabelTotals
from decider.metrics import lift as metrics
from decider.policy.protocol import Choice, Model
from decider.policy.static import Uniform
from decider.text import rough
from decider.types import START, ActionId, Context, Decision, DecisionId, DecisionRequest, Position, Reason, Time
from simulator.commands.lift import lift_command
from simulator.lift.find import find_lift
from simulator.logs.groups import load_groups
from tests import rpc_clients
from tests.long_logs import PastClock
from tests.rpc_clients import ServerProcess, fetch

ACTIONS = ("a", "b", "c")
PMFS = {"sharp": (0.9, 0.06, 0.04), "even": (0.2, 0.5, 0.3), "tie": (0.45, 0.45, 0.1), "flat": (1 / 3, 1 / 3, 1 / 3)}
MEANS = {"sharp": (0.6, 0.3, 0.1), "even": (0.2, 0.5, 0.4), "tie": (0.5, 0.3, 0.1), "flat": (0.9, 0.1, 0.2)}
"""Of rewards, by segment and action."""


class Given(Uniform):
    """A policy whose pmf is that of the segment."""

    def pmf(self, context: Context, choices: Sequence[Choice]) -> Sequence[float]:
        """See Policy."""
        return PMFS[context.segment][: len(choices)]


def shop(**fields: object) -> Experiment:
    """Three actions and a window of a second; a tenth of the units is held out."""
    defaults: dict[str, object] = {"holdout": 0.1, "baseline_action": "b", "window": 1.0, "minimum_propensity": 0.0}
    return from_message(rpc_clients.experiment("shop", *ACTIONS, **(defaults | fields)))  # type: ignore[arg-type]


def write(log: EventLog, clock: PastClock, *versions: Experiment, decisions: int = 2_000, units: int = 900) -> None:
    """Each version is applied and decides so many times; all windows are over at the end."""
    rng = np.random.default_rng(5)
    for number, experiment in enumerate(versions):
        Versions(log).apply(experiment)
        version = log.versions()[-1]
        for first in range(0, decisions, 250):
            made = []
            for n in range(first, min(first + 250, decisions)):
                unit = int(rng.integers(units))
                context = Context(segment=list(PMFS)[unit % 4])
                request = DecisionRequest(DecisionId(f"{number}-{n}"), f"unit-{unit}", context, explore=n % 50 > 0)
                made.append(decide(request, version, Model(Given())))
            marks = log.append(made)
            log.append(
                [
                    NewReward(mark.position, "click", 1.0)
                    for one, mark in zip(made, marks, strict=True)
                    if mark and rng.random() < MEANS[one.context.segment][ACTIONS.index(one.action)]
                ]
            )
            clock.advance(30.0)
        clock.advance(60.0)
        log.append([Tick()])


def db_of(path: Path, *versions: Experiment, decisions: int = 2_000) -> Path:
    """A closed log of them."""
    clock = PastClock(86_400.0)
    with closing(open_log(path, clock=clock)) as log:
        write(log, clock, *versions or [shop()], decisions=decisions)
    return path


def anew(log: EventLog) -> LabelTotals:
    """Counted from the first entry on, at once."""
    found, totals = log.totals(Mark(START, Time(0)), log.head().mark), LabelTotals()
    totals.add(found, log.experiment_ids(found.versions()))
    return totals


def cost_in(measures: StrataTotals) -> ExplorationCost:
    """Of the only measure."""
    (draws,) = measures.values()
    return metrics.exploration_cost(draws)


def draw_of(slots: Sequence[int], index: int) -> Decision:
    """That action drawn from the slots, with the reason that `decide` gives."""
    is_most = slots[index] == max(slots) > min(slots) + 1
    return Decision(
        DecisionId("d"), Position(1), "unit", Context(), tuple(map(ActionId, "abcdef"[: len(slots)])), {},
        tuple(slots), ActionId("abcdef"[index]), slots[index] / SLOTS, Reason.EXPLOIT if is_most else Reason.EXPLORE,
        START,
    )  # fmt: skip


def cost_of(pmf: Sequence[float], means: Sequence[float]) -> float:
    """By enumeration: of greedy, by lot among the most probable actions, less that of the policy."""
    slots = to_slots(pmf)
    logged = sum(share / SLOTS * mean for share, mean in zip(slots, means, strict=True))
    most = [mean for share, mean in zip(slots, means, strict=True) if share == max(slots)]
    return 0.0 if max(slots) <= min(slots) + 1 else sum(most) / len(most) - logged


@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 1, 2, 5]), st.floats(-10, 10)), min_size=2, max_size=6).filter(
        lambda places: any(weight for weight, _ in places)
    )
)
def test_the_mean_over_the_draws_is_what_greedy_earns_more(places: list[tuple[int, float]]) -> None:
    """By enumeration, with several best actions and with none: a uniform policy knows no better action, so exploring
    costs it nothing; counting every draw of it as a loss would show the whole reward as a cost."""
    weights, rewards = zip(*places, strict=True)
    pmf = [weight / sum(weights) for weight in weights]
    slots = to_slots(pmf)
    mean = sum(
        share / SLOTS * exploration_cost(draw_of(slots, at), rewards[at]) for at, share in enumerate(slots) if share
    )
    assert mean == pytest.approx(cost_of(pmf, rewards), abs=1e-9)


def test_a_log_has_the_cost_of_its_world(tmp_path: Path) -> None:
    """The interval covers what enumeration says, and the holdout and calls without exploration are in no draw."""
    with closing(open_log(db_of(tmp_path / "log.db", decisions=12_000))) as log:
        found = cost_in(anew(log).exploration["shop"])
        truth = np.mean([cost_of(PMFS[segment], MEANS[segment]) for segment in PMFS])
        assert found.interval.low < truth < found.interval.high
        assert found.interval.value == pytest.approx(truth, abs=0.02)
        reasons = anew(log).decisions
        draws = sum(count for (_, _, reason), count in reasons.items() if reason in (Reason.EXPLOIT, Reason.EXPLORE))
        assert found.draws == draws < 12_000 * 0.9


def test_every_log_counts_the_same(tmp_path: Path) -> None:
    """In SQL, and in Python: to the bit, where rewards are whole."""
    versions = [
        shop(),
        shop(window=2.0),
        shop(window=2.0, holdout=0.0),
        shop(window=2.0, activation="ACTIVATION_REQUIRED"),
    ]
    clock = PastClock(86_400.0)
    memory = MemoryLog(clock=clock)
    write(memory, clock, *versions, decisions=300)
    with closing(open_log(db_of(tmp_path / "log.db", *versions, decisions=300))) as log:
        found = log.totals(Mark(START, Time(0)), log.head().mark).exploration
        assert found == memory.totals(Mark(START, Time(0)), memory.head().mark).exploration
        positions = [version.position for version in log.versions()]
        assert list(found) == [whole(positions[0]), whole(positions[1])], "nothing was activated in the last version"
        assert anew(log).exploration["shop"] == {whole(positions[1]): found[whole(positions[1])]}
        assert measures_of_all(log.versions())[positions[3]] == whole(positions[3])


def test_counting_in_pieces_and_after_restarts_is_counting_at_once(tmp_path: Path) -> None:
    """A server that is restarted at any moment shows the same cost; and a check that counts anew agrees."""
    db = db_of(tmp_path / "log.db", shop(), shop(holdout=0.3))
    with closing(open_log(db)) as log:
        whole_log = anew(log)
    done = False
    while not done:
        with closing(open_log(db)) as log:
            totals = LogTotals(log)
            done = totals.advance(700)
            log.store_totals(totals.checkpoint())
    with closing(open_log(db)) as log:
        assert LogTotals(log).totals == whole_log
        assert log.check(lambda _: None) == []
        totals = LogTotals(log)
        (draws,) = totals.totals.exploration["shop"].values()
        draws.of(LEARNED).add_float(3, 5e-324)
        log.store_totals(totals.checkpoint())
        (damage,) = log.check(lambda _: None)
        assert "the totals stored there are not those of the entries" in str(damage)


def test_what_is_archived_still_counts(tmp_path: Path) -> None:
    """Its rewards and pmfs are no longer in the log; its cost is."""
    db = db_of(tmp_path / "log.db")
    with closing(open_log(db)) as log:
        before = cost_in(anew(log).exploration["shop"])
    with closing(open_to_cut(db)) as cut:
        assert archive(cut, tmp_path / "archive", before=Time(cut.head().time - 200_000_000), remember=0, say=print)
    with closing(sqlite3.connect(db)) as rows:
        (left,) = rows.execute("select count(*) from decisions").fetchone()
    assert left < 2_000
    with closing(open_log(db)) as log:
        totals = LogTotals(log)
        totals.catch_up()
        assert cost_in(totals.totals.exploration["shop"]) == before
        assert log.check(lambda _: None) == []


def test_a_server_and_the_command_show_it(tmp_path: Path) -> None:
    """Beside the cost of the holdout; with the same interval, over versions without a holdout as well."""
    db = db_of(tmp_path / "log.db", shop(holdout=0.0), shop(), decisions=4_000)
    with closing(open_log(db)) as log:
        found = cost_in(anew(log).exploration["shop"])
    told = find_lift(load_groups(db))
    assert told.exploration is not None
    ends = [told.exploration.value, told.exploration.low, told.exploration.high]
    assert ends == pytest.approx([found.interval.value, found.interval.low, found.interval.high], rel=1e-12)
    text = " ".join(CliRunner().invoke(lift_command, [str(db)]).output.split())
    assert "The holdout costs 0." in text
    assert f"Exploration costs {rough(ends[0], digits=3)} a draw (" in text
    server = ServerProcess(db)
    try:
        _, text = fetch(f"http://{server.http}/metrics")
    finally:
        server.terminate()
    live = {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("decider_exploration_cost")
    }
    assert live == {
        "decider_exploration_cost": found.interval.value,
        "decider_exploration_cost_low": found.interval.low,
        "decider_exploration_cost_high": found.interval.high,
    }


def test_too_little_claims_nothing() -> None:
    """Ten units, or draws that are all alike, say nothing about a mean."""
    few = np.zeros(BUCKETS)
    few[:10] = 1.0
    assert not mean_cost(few, few * 0.3).is_known
    assert not mean_cost(np.full(BUCKETS, 9.0), np.zeros(BUCKETS)).is_known
    assert not mean_cost(np.zeros(BUCKETS), np.zeros(BUCKETS)).is_known


def test_visits_of_a_unit_are_not_independent() -> None:
    """Forty equal visits of each unit say no more than one."""
    rng = np.random.default_rng(1)
    draws = rng.poisson(3.0, BUCKETS).astype(float)
    costs = rng.standard_normal(BUCKETS) * np.sqrt(draws) + 0.1 * draws
    once, often = mean_cost(draws, costs).interval, mean_cost(40 * draws, 40 * costs).interval
    assert often.high - often.low == pytest.approx(once.high - once.low, rel=0.05)


def test_one_robot_is_one_unit() -> None:
    """However different the costs of others are: their mean is its own."""
    draws = np.ones(BUCKETS)
    costs = np.where(np.arange(BUCKETS) % 2, 1.0, -0.5)
    assert mean_cost(draws, costs).is_known
    draws[3], costs[3] = 1e6, 2.5e5
    assert not mean_cost(draws, costs).is_known


def test_somebody_may_look_every_day() -> None:
    """Of 80 logs without a cost at most one in twenty ever seems to have one, at 30 looks; an interval of one look sees
    one in every third."""
    wrong = 0
    for seed in range(80):
        rng = np.random.default_rng(seed)
        draws = rng.poisson(1.0, (30, BUCKETS)).astype(float).cumsum(axis=0)
        costs = rng.standard_normal((30, BUCKETS)).cumsum(axis=0)
        found = [mean_cost(*sums).interval for sums in zip(draws, costs, strict=True)]
        wrong += any(not one.low <= 0 <= one.high for one in found)
    assert wrong <= 9, "P(more) < 1 % at 5 %"
