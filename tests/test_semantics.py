"""What a decision means, against a known truth: logs of the serving code, in scenes that frontends live through."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from click.testing import CliRunner
from scipy import stats

from simulator.evaluate.checks.log import log_findings
from simulator.logs.decider_log import load
from simulator.studies.semantics.__main__ import main
from simulator.studies.semantics.judge import Judged, Learned, Sums, check, judge, play, run
from simulator.studies.semantics.judge import Task as StudyTask
from simulator.studies.semantics.scenes import CANDIDATES, SCENES, Scene, candidates
from simulator.studies.semantics.table import MARKERS, placed

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
    assert "| visits | by segment, dr | " in result.output
    assert "verify, 2 of the logs: 180 of 180 decisions equal." in result.output
    refused = CliRunner().invoke(main, [*options, "--publish"])
    assert (refused.exit_code, "leave out --scenes" in refused.output) == (2, True)
    assert placed(f"{MARKERS[0]}{MARKERS[1]}", "new\n") == f"{MARKERS[0]}new\n{MARKERS[1]}"
    with pytest.raises(ValueError, match="lacks"):
        placed("nothing", "new\n")


def test_sums_have_a_mean_and_its_error() -> None:
    """By hand: 1, 2, 3 have the variance 1."""
    sums = Sums()
    for number in (1.0, 2.0, 3.0):
        sums.add(number)
    assert sums.mean == 2
    assert sums.error == pytest.approx(1 / math.sqrt(3))
    assert math.isnan(Sums().mean)
    assert math.isnan(Sums(1, 1.0, 1.0).error)
