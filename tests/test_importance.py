"""Importance of context fields: what a learner loses without each, over the decisions that a time limit allows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decider.experiment.definition import Action, Experiment
from decider.types import ActionId, ExperimentId
from simulator.evaluate.candidates import LEARNER, Candidate, UniformPolicy
from simulator.evaluate.importance import STEP, add_importance, answer_of
from simulator.evaluate.parse import experiment_candidate
from simulator.evaluate.result import Estimate, Evaluation
from simulator.evaluate.run import evaluate
from simulator.evaluate.scores import Scoring, score
from simulator.logs.columns import Category, Columns, Floats
from simulator.report.evaluation import importance_table, missing_importance
from tests.logged_worlds import ACTIONS, logged_world
from tests.test_evaluate import OLD_LOG, narrow_csv, run

Fresh = Callable[[], Candidate]

TWO_ACTIONS = """id = "two"
[[actions]]
id = "a"
[[actions]]
id = "b"
[policy]
thompson = {}
"""


def world(decisions: int, *, seed: int = 4) -> Columns:
    """Uniform logging. Every segment likes another action, phones like one a little more; the weather says nothing."""
    columns = logged_world(seed=seed, decisions=decisions, epsilon=1.0).columns
    weather = np.random.default_rng(seed).integers(0, 3, decisions).astype(np.int32)
    return replace(columns, fields={**columns.fields, "weather": Category(weather, ("sun", "rain", "snow"))})


def learner(columns: Columns) -> Fresh:
    """Makes a learner with the actions of the log."""
    experiment = Experiment(ExperimentId("x"), tuple(Action(ActionId(id_)) for id_ in ACTIONS), minimum_propensity=0.01)
    return partial(experiment_candidate, "learner", experiment, columns)


def ticking(*, steps: int) -> Callable[[], float]:
    """A clock that moves by one second whenever somebody looks at it, at first when the limit is set."""
    return partial(next, count(0.0, 1.0 / steps))


def with_importance(columns: Columns, *, steps: int = 1_000_000, fresh: Fresh | None = None) -> Evaluation:
    """Evaluated, then measured for so many steps at most."""
    fresh = fresh or learner(columns)
    done = evaluate(columns, [fresh()], breakdown=False)
    return add_importance(done, columns, {fresh().name: fresh}, seconds=1.0, clock=ticking(steps=steps))


@dataclass
class Diary:
    """A candidate that learns nothing and writes down which decisions it met, with which fields."""

    met: list[int] = field(default_factory=list)
    fields: set[str] = field(default_factory=set)
    name: str = "diary"
    estimand: str = LEARNER

    def pmf(self, block: Columns) -> Floats:
        """Uniform."""
        self.met += block.time.tolist()
        self.fields |= set(block.fields)
        return UniformPolicy().pmf(block)

    def rows(self, columns: Columns) -> None:
        """All."""


def diaries(columns: Columns, *, steps: int) -> list[Diary]:
    """Of the learner with all fields and without each."""
    made: list[Diary] = []

    def fresh() -> Diary:
        made.append(Diary())
        return made[-1]

    done = evaluate(columns, [Diary()], breakdown=False)
    add_importance(done, columns, {"diary": fresh}, seconds=1.0, clock=ticking(steps=steps))
    return made


def test_a_useful_field_is_found_and_useless_ones_are_not() -> None:
    """In words, since an interval around 0 alone does not say whether the log could have shown a loss."""
    found = {one.field: one for one in with_importance(world(6_000)).importance}
    assert {name: one.answer for name, one in found.items()} == {
        "segment": "useful",
        "device": "no significant loss",
        "weather": "no significant loss",
    }
    assert found["segment"].loss.low > 0
    assert found["segment"].loss.value > found["device"].loss.high
    assert {one.decisions for one in found.values()} == {6_000}


def noise(seed: int, *, fields: int) -> Columns:
    """No field says anything."""
    columns, rng = world(400, seed=seed), np.random.default_rng(seed)
    added = {f"noise-{one}": Category(rng.integers(0, 2, 400).astype(np.int32), ("x", "y")) for one in range(fields)}
    return replace(columns, fields=added)


def test_among_many_useless_fields_none_looks_useful() -> None:
    """On this log one of the eight does, by a 95 % interval of its own."""
    assert {one.answer for one in with_importance(noise(15, fields=8)).importance} == {"cannot tell"}


def test_where_little_was_learned_nobody_says_that_no_field_matters() -> None:
    """The learner has gained nothing that shows: its fields cannot have lost anything that shows."""
    columns = world(6_000)
    rewards = np.random.default_rng(1).permutation(columns.reward)
    found = with_importance(replace(columns, reward=rewards))
    assert {one.answer for one in found.importance} == {"cannot tell"}
    assert "this log cannot tell" in words(found)


def test_a_learner_that_never_got_a_reward_says_nothing_of_its_fields() -> None:
    """All differences are exactly 0, which looks like the surest answer of all."""
    columns = world(2_000)
    found = with_importance(replace(columns, known=columns.time + 10**15))
    assert {one.loss.value for one in found.importance} == {0.0}
    assert {one.answer for one in found.importance} == {"cannot tell"}


def words(evaluation: Evaluation) -> list[str]:
    """The last column of the table."""
    table = importance_table(evaluation.importance, evaluation.log.decisions)
    return [table.columns[-1].of(row).text for row in evaluation.importance]


@given(
    low=st.integers(-999, 999).map(float),
    width=st.integers(0, 999).map(float),
    gain=st.integers(-999, 999).map(float),
    factor=st.sampled_from([0.5, 2.0, 4096.0]),
)
def test_the_unit_of_the_reward_does_not_change_the_answer(
    low: float, width: float, gain: float, factor: float
) -> None:
    """Cents or euros; by powers of two, which scale without rounding."""
    loss, gained = Estimate(low, low, low + width, ""), Estimate(gain, gain, gain, "")
    scaled = [
        replace(one, value=one.value * factor, low=one.low * factor, high=one.high * factor) for one in (loss, gained)
    ]
    assert answer_of(*scaled) == answer_of(loss, gained)


def test_a_field_that_only_costs_is_called_so() -> None:
    """Noise with many values slows a learner down."""
    assert answer_of(Estimate(-0.1, -0.2, -0.05, ""), Estimate(0.5, 0.4, 0.6, "")) == "better without"


def test_a_time_limit_leaves_the_first_decisions_and_says_how_many() -> None:
    """A sample that is silent would look like the whole log."""
    columns = world(3_000)
    found = with_importance(columns, steps=3)
    assert {one.decisions for one in found.importance} == {3 * STEP}
    note = importance_table(found.importance, found.log.decisions).note
    assert f"the first {3 * STEP:,} of 3,000 decisions" in note
    assert "--importance-seconds" in note


def test_all_learners_meet_the_same_decisions_in_the_order_of_the_log() -> None:
    """Learning along every second decision, or in another order, would be another question."""
    columns = world(3_000)
    full, *reduced = diaries(columns, steps=4)
    assert full.met == columns.time[: 4 * STEP].tolist()
    assert all(one.met == full.met for one in reduced)
    assert [set(columns.fields) - one.fields for one in reduced] == [{"segment"}, {"device"}, {"weather"}]


def test_an_early_stop_leaves_the_scores_of_the_first_decisions_as_they_are() -> None:
    """A sample may be short, never wrong."""
    columns = world(1_000)
    fresh = learner(columns)
    scoring = Scoring(columns, [fresh()])
    steps = scoring.steps(300)
    assert [next(steps), next(steps)] == [300, 600]
    (part,), (whole,) = scoring.finish(), score(columns, [fresh()])
    assert len(part.columns) == 600
    for name in ("pmf", "weight", "predicted", "expected", "missing"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[:600])


@pytest.mark.parametrize(("steps_done", "decisions"), [(1, STEP), (4, 4 * STEP)])
def test_an_interrupt_keeps_the_evaluation_and_what_was_measured(steps_done: int, decisions: int) -> None:
    """Whoever loses patience with a part must not lose the whole."""
    columns = world(3_000)
    fresh = learner(columns)
    done = evaluate(columns, [fresh()], breakdown=False)
    looks = count(1)

    def interrupt(_: float) -> None:
        if next(looks) == steps_done:
            raise KeyboardInterrupt

    found = add_importance(done, columns, {"learner": fresh}, seconds=1e9, on_progress=interrupt)
    assert found.policies == done.policies
    assert {one.decisions for one in found.importance} == {decisions}


def test_an_interrupt_before_the_first_decisions_leaves_a_reason() -> None:
    """Building the reward model of a large log takes a while, too."""

    class Impatient(Diary):
        def pmf(self, block: Columns) -> Floats:  # noqa: ARG002 - the protocol's
            raise KeyboardInterrupt

    columns = world(1_000)
    done = evaluate(columns, [Diary()], breakdown=False)
    found = add_importance(done, columns, {"diary": Impatient})
    assert found.importance == ()
    assert "interrupted" in found.importance_missing["diary"]


def test_progress_never_goes_back_and_reaches_its_end() -> None:
    """By decisions or by time, whichever is nearer to its end."""
    columns = world(1_000)
    fresh = learner(columns)
    done, seen = evaluate(columns, [fresh()], breakdown=False), [0.0]
    add_importance(done, columns, {"learner": fresh}, seconds=1e9, on_progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_fields_that_were_set_aside_are_not_among_the_fields() -> None:
    """What cannot be context has no worth as context."""
    columns = replace(world(1_000), set_aside={"weather": "made of the action"})
    assert [one.field for one in with_importance(columns).importance] == ["segment", "device"]


def test_a_policy_without_importance_says_why() -> None:
    """Asked for and silent, it would look as if no field mattered."""
    columns = world(1_000)
    fixed = with_importance(columns, fresh=UniformPolicy)
    assert fixed.importance == ()
    assert missing_importance(fixed) == [
        "Importance of fields for uniform: not computed, this policy does not learn along the log."
    ]
    bare = with_importance(replace(columns, fields={}), fresh=Diary)
    assert bare.importance_missing == {"diary": "the log has no context field"}


def test_a_refused_policy_has_no_importance_unless_it_is_forced(tmp_path: Path) -> None:
    """Figures of a question that the log cannot carry read as "no field matters"."""
    (tmp_path / "two.toml").write_text(TWO_ACTIONS)
    policy, file = str(tmp_path / "two.toml"), tmp_path / "result.json"
    few = "".join(narrow_csv(tmp_path).read_text().splitlines(keepends=True)[:20])
    (tmp_path / "few.csv").write_text(few)
    arguments = ("evaluate", str(tmp_path / "few.csv"), "--policy", policy, "--importance", "--json", str(file))
    done = run(*arguments)
    assert done.exit_code == 1, done.output
    assert "this log cannot carry this policy" in " ".join(done.output.split())
    assert "Reward lost" not in done.output
    found = json.loads(file.read_text())
    assert found["importance"] == []
    assert found["importance_missing"] == {policy: "this log cannot carry this policy"}
    forced = run(*arguments, "--force")
    assert forced.exit_code == 0, forced.output
    assert [one["field"] for one in json.loads(file.read_text())["importance"]] == ["device"]


def test_the_limit_is_an_option_of_importance_alone() -> None:
    """No option is ignored without a word."""
    done = run("evaluate", OLD_LOG, "--policy", "uniform", "--importance-seconds", "5")
    assert done.exit_code == 2
    assert "give that, too" in done.output
    assert "--importance-seconds" in run("evaluate", "--help").output
