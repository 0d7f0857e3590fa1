"""What a decision means, against a known truth: logs of the serving code, in scenes that frontends live through."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats

from decider.experiment.aggregate import final_reward
from decider.log.open import open_log
from decider.log.protocol import EventLog
from decider.types import Time
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from simulator.evaluate.checks.log import log_findings
from simulator.evaluate.run import evaluate
from simulator.logs.decider_log import load
from simulator.studies.prepared import SetClock
from simulator.studies.results import placed
from simulator.studies.semantics.__main__ import main
from simulator.studies.semantics.judge import Judged, Learned, Sums, check, judge, play, run
from simulator.studies.semantics.judge import Task as StudyTask
from simulator.studies.semantics.scenes import BUDGET, CANDIDATES, SCENES, Scene, candidates
from simulator.studies.semantics.shop import BEGIN, Shop
from simulator.studies.semantics.table import MARKERS
from tests.rpc_clients import rows

LOGS, VISITS, SEED = 6, 240, 5
CHANCE = 1e-4
"""Of a wrong alarm in a test, were other seeds taken."""


def named(must: str) -> list[str]:
    """Scenes by what is to be expected."""
    return [name for name, scene in SCENES.items() if scene.must == must]


def results(name: str, *, logs: int = LOGS) -> tuple[list[Judged], list[Learned]]:
    """Of some logs of a scene, every one of which replays."""
    found, checked = run(StudyTask(name, first=0, logs=logs, visits=VISITS, seed=SEED))
    assert [one.equal for one in checked] == [one.decisions for one in checked]
    return [one for one in found if isinstance(one, Judged)], [one for one in found if isinstance(one, Learned)]


def is_by_chance(sums: Sums, expected: float) -> bool:
    """Whether a mean may be off by so much: Student's t over logs."""
    if sums.mean == expected:
        return True
    return bool(abs(sums.mean - expected) <= stats.t.isf(CHANCE / 2, sums.count - 1) * sums.error)


@pytest.mark.parametrize("name", named("hold"))
def test_estimates_are_right_whatever_the_frontend_does(name: str) -> None:
    """Mean weight 1, the estimate right on average, the truth within its interval; the study has more logs."""
    judged, learned = results(name)
    assert len(judged) == len(CANDIDATES) * len(SCENES[name].estimators)
    for one in judged:
        assert is_by_chance(one.weight, 1.0), one
        assert one.estimator == "iips" or is_by_chance(one.off, 0.0), one
    unbiased = [one for one in judged if one.estimator != "iips" and "backward" not in name]
    asked = sum(one.logs for one in unbiased)
    assert sum(one.logs - one.covered for one in unbiased) <= stats.binom.isf(CHANCE, asked, 0.06)
    assert all(is_by_chance(one.off, 0.0) for one in learned)


def test_a_kept_decision_is_one_draw(tmp_path: Path) -> None:
    """Every unit comes up to four times and is one decision, with all that its visits earned."""
    play(SCENES["sticky"], tmp_path / "log.db", visits=VISITS, seed=SEED, number=0)
    columns = load(tmp_path / "log.db")
    assert len(columns) == len(columns.units.size) == VISITS
    assert columns.reward.max() > 1
    assert columns.counts["rewards joined"] == columns.reward.sum()


def test_caps_and_budgets_hold_in_their_scenes(tmp_path: Path) -> None:
    """Or the estimates would be right of something else."""
    for name in ("caps", "budgets"):
        play(SCENES[name], tmp_path / f"{name}.db", visits=VISITS, seed=SEED, number=0)
    columns = load(tmp_path / "caps.db")
    seen = Counter(zip(columns.unit.tolist(), columns.action.tolist(), strict=True))
    assert max(times for (_, action), times in seen.items() if columns.actions[action] != "none") == 1
    assert max(times for (_, action), times in seen.items() if columns.actions[action] == "none") > 1
    columns = load(tmp_path / "budgets.db")
    drawn = Counter([columns.actions[action] for action in columns.action.tolist()])
    assert drawn["sale"] == drawn["outfit"] == BUDGET < drawn["none"]


def test_shares_hold_in_their_scene(tmp_path: Path) -> None:
    """Every pmf of the log keeps them, and some are at the bound: what the policy alone wants is something else."""
    play(SCENES["shares"], tmp_path / "log.db", visits=VISITS, seed=SEED, number=0)
    columns = load(tmp_path / "log.db")
    pmfs = dict(zip(columns.actions, columns.dense_pmf().T, strict=True))
    assert pmfs["sale"].max() == pytest.approx(0.3, abs=1e-6)
    assert pmfs["gift"].min() == pytest.approx(0.25, abs=1e-6)
    assert pmfs["none"].min() == pytest.approx(0.1, abs=1e-6)


class Recorder(Shop):
    """Remembers rewards and their changes as they were sent."""

    def __init__(self, log: EventLog, experiment: experiment_pb2.Experiment, clock: SetClock) -> None:
        super().__init__(log, experiment, clock)
        self.sent: list[pb.RewardRequest] = []

    def send(self, rewards: Sequence[pb.RewardRequest]) -> list[pb.RewardOutcome]:
        """As the shop does."""
        self.sent += rewards
        return super().send(rewards)


def kept(sent: Sequence[pb.RewardRequest]) -> dict[str, float]:
    """What is left of each order: its last change, whether it came before its order or after that."""
    found: dict[str, float] = {}
    for text in dict.fromkeys([one.SerializeToString() for one in sent]):  # a copy changes nothing
        one = pb.RewardRequest.FromString(text)
        if one.retract or one.correct:
            found[one.reward_id] = one.value
        else:
            found.setdefault(one.reward_id, 1.0)
    return found


@pytest.mark.parametrize("name", ["returns", "returns, by unit"])
def test_what_visitors_kept_is_what_is_learned(name: str, tmp_path: Path) -> None:
    """Of each decision, to the last cent: by what was sent, and by nothing of the service's."""
    clock, scene = SetClock(BEGIN), SCENES[name]
    with closing(open_log(tmp_path / "log.db", clock=clock)) as log:
        with closing(Recorder(log, scene.experiment(salt="1"), clock)) as shop:
            scene.play(shop, VISITS, np.random.default_rng(SEED))
        (version,) = log.versions()
        sealed = log.sealed_decisions(version.experiment.id, after=Time(0), until=log.head().time)
        learned = {one.decision.unit_id: final_reward(version.experiment.reward, one.rewards) for one in sealed}
    orders = kept(shop.sent)
    assert learned == {f"u{number}": orders.get(f"order-{number}", 0.0) for number in range(VISITS)}
    assert {0.0, 0.5, 1.0} == set(orders.values())
    columns = load(tmp_path / "log.db")
    assert sorted(columns.reward.tolist()) == sorted(learned.values())


CREDITED = """
select c.reward_id, d.unit_id from credited_rewards c left join decisions d on d.position = c.decision
"""


@pytest.mark.parametrize(
    ("name", "devices"), [("attribution, last", ["u-laptop"]), ("attribution, all", ["u-laptop", "u-phone"])]
)
def test_a_store_s_purchase_reaches_the_pages_of_its_person(name: str, devices: list[str], tmp_path: Path) -> None:
    """As the experiment says, once, and never one that is over: a customer's name is all that the till knows."""
    db = tmp_path / "log.db"
    play(SCENES[name], db, visits=VISITS, seed=SEED, number=0)
    credited: dict[str, list[str]] = {}
    for till, unit in rows(db, CREDITED):
        credited.setdefault(till, []).append(unit)
    person = {till: till.removeprefix("till-") for till in credited}
    in_time = {till: sorted(units) for till, units in credited.items() if units != [None]}
    assert in_time == {till: [f"{device}-{person[till]}" for device in devices] for till in in_time}
    assert 0 < len(credited) - len(in_time) < len(in_time)  # too late: nobody's
    assert {int(one) % 2 for one in person.values()} == {0, 1}  # signed in before, and at the till


def test_a_page_s_reward_is_that_of_each_slot_and_counts_once(tmp_path: Path) -> None:
    """Each slot's decision learns from it; an estimate of pages that added them up would promise twice what comes."""
    play(SCENES["slates, one reward"], tmp_path / "log.db", visits=VISITS // 2, seed=SEED, number=0)
    columns = load(tmp_path / "log.db")
    first, second = columns.reward.reshape(-1, 2).T
    assert first.tolist() == second.tolist()
    assert 0 < first.mean() < 1
    found = evaluate(columns, candidates(), force=True, breakdown=False).slates
    assert found is not None
    assert (found.pages, found.reward) == (VISITS // 2, "page")
    assert found.mean_reward.value == pytest.approx(first.mean())


@pytest.mark.parametrize(("name", "sign"), [("returns, untold", 1), ("attribution, the page alone", -1)])
def test_what_nobody_says_is_missed(name: str, sign: int) -> None:
    """Returns that are not told are earnings, and a store that is silent makes pages look bad that lead to it: so the
    scenes in which both are said would show it if the service did not listen. Of twice as many logs: the default
    explores little, so an estimate of one varies much."""
    judged, (learned,) = results(name, logs=2 * LOGS)
    for off in (learned.off, *[one.off for one in judged]):
        assert sign * off.mean > 2 * off.error


def test_what_was_not_rendered_is_not_learned() -> None:
    """Without required activation pages that nobody saw count as failures, and what is learned is too low."""
    (required,), (immediate,) = (results(name)[1] for name in ("rendered, required", "rendered, immediate"))
    assert is_by_chance(required.off, 0.0)
    assert immediate.off.mean < -4 * immediate.off.error
    assert immediate.lessons.mean == VISITS > required.lessons.mean


def test_an_overridden_decision_leaves_learning_or_is_learned_as_shown() -> None:
    """Learned as drawn, it would teach of the sale what the outfit has earned."""
    (left_out,), (learned,) = (results(name)[1] for name in ("overrides, by segment", "overrides, learned"))
    assert learned.lessons.mean == VISITS > left_out.lessons.mean
    assert is_by_chance(left_out.off, 0.0)
    assert is_by_chance(learned.off, 0.0)


@pytest.mark.parametrize("name", named("be noticed"))
def test_a_log_in_which_the_draw_decides_what_is_left_is_refused(name: str) -> None:
    """Nothing can mend it; an answer would be one about other pages."""
    judged, _ = results(name, logs=3)
    assert all(one.refused == one.logs for one in judged)


@pytest.mark.parametrize(("name", "cause"), [("overrides", "overrides"), ("rendered", "not activated")])
def test_the_cause_of_a_selection_is_named(name: str, cause: str, tmp_path: Path) -> None:
    """ "Log the right propensity" is no help where they are right, and what was shown depends on them."""
    play(SCENES[f"{name}, by action"], tmp_path / "log.db", visits=VISITS, seed=SEED, number=0)
    (found,) = [one for one in log_findings(load(tmp_path / "log.db")) if one.name == cause]
    assert (found.verdict, "before the draw" in found.needed) == ("caution", True)


def test_pages_that_were_not_seen_for_another_reason_are_no_fault(tmp_path: Path) -> None:
    """With required activation many decisions are left out: that alone must not alarm anybody."""
    play(SCENES["rendered, required"], tmp_path / "log.db", visits=VISITS, seed=SEED, number=0)
    (found,) = [one for one in log_findings(load(tmp_path / "log.db")) if one.name == "not activated"]
    assert found.verdict == "fine"
    assert found.value == pytest.approx(0.3, abs=0.1)


def test_a_scene_is_the_same_for_a_seed(tmp_path: Path) -> None:
    """Or a log that stands out could not be looked at."""
    scene = SCENES["visits"]
    logs = []
    for place, number in enumerate((0, 0, 1)):
        db = tmp_path / f"{place}.db"
        play(scene, db, visits=60, seed=SEED, number=number)
        logs.append(load(db))
    one, again, other = logs
    assert (one.action.tolist(), one.reward.tolist()) == (again.action.tolist(), again.reward.tolist())
    assert one.action.tolist() != other.action.tolist()


@pytest.mark.parametrize("scene", [SCENES["visits"], SCENES["slates"]], ids=lambda scene: scene.name)
def test_a_scene_has_the_truth_that_estimates_are_held_against(scene: Scene, tmp_path: Path) -> None:
    """What the log earned is the truth of what was drawn: by its own pmfs, within five standard errors."""
    play(scene, tmp_path / "log.db", visits=VISITS, seed=SEED, number=0)
    assert check(tmp_path / "log.db").first is None
    columns = load(tmp_path / "log.db")
    values = [scene.truth(columns, one) for one in candidates()]
    assert values[0] > values[1] > 0
    found = judge(scene, tmp_path / "log.db")
    assert {one.policy for one in found if isinstance(one, Judged)} == set(CANDIDATES)


def test_the_command_prints_both_tables(tmp_path: Path) -> None:
    """What `make semantics` does, with little of it."""
    options = ["--scenes", "^visits$|one reward", "--logs", "2", "--visits", "60", "--workers", "1"]
    result = CliRunner().invoke(main, [*options, "--json", str(tmp_path / "sums.json")])
    assert result.exit_code == 0, result.output
    assert "| visits | 2 | by segment, dr | " in result.output
    assert "verify, 2 of the logs: 180 of 180 decisions equal." in result.output
    refused = CliRunner().invoke(main, [*options, "--publish"])
    assert (refused.exit_code, "leave out --scenes" in refused.output) == (2, True)
    assert placed(f"{MARKERS[0]}{MARKERS[1]}", "new\n", MARKERS) == f"{MARKERS[0]}new\n{MARKERS[1]}"
    with pytest.raises(ValueError, match="lacks"):
        placed("nothing", "new\n", MARKERS)


def test_sums_have_a_mean_and_its_error() -> None:
    """By hand: 1, 2, 3 have the variance 1."""
    sums = Sums()
    for number in (1.0, 2.0, 3.0):
        sums.add(number)
    assert sums.mean == 2
    assert sums.error == pytest.approx(1 / math.sqrt(3))
    assert math.isnan(Sums().mean)
    assert math.isnan(Sums(1, 1.0, 1.0).error)
