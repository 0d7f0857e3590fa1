"""Candidates: each asked as the server would ask it, learners never ahead of the log."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from decider.decide.slots import SLOTS, to_slots
from decider.errors import DeciderError
from decider.experiment.schema import to_message, write_json
from decider.learn.trainer import Trainer
from decider.log.open import open_log
from decider.log.protocol import Mark
from simulator.evaluate.candidates import Candidate, ProgressiveLearner
from simulator.evaluate.parse import parse
from simulator.evaluate.replay_decisions import ReplayedPolicy
from simulator.evaluate.scores import score
from simulator.logs.columns import Columns, Floats
from simulator.logs.decider_log import load
from simulator.logs.example import example
from tests.conftest import Clock, sample_experiment, sample_version, spec
from tests.processes import PACE
from tests.test_verify import HOME, Drive


def asked(candidate: Candidate, columns: Columns) -> Floats:
    """(n, actions): everything that a candidate answers, block by block."""
    return np.concatenate([candidate.pmf(block) for _, block in columns.blocks()])


@pytest.fixture
def served(tmp_path: Path, clock: Clock) -> Path:
    """A log of one version whose policy learned while it served; rewards came late, some actions were not eligible.

    Every model is stored.
    """
    with closing(open_log(tmp_path / "log.db", clock=clock)) as log:
        drive = Drive(log, clock)
        drive.restart(replace(PACE, store_interval=0.0))
        drive.apply(sample_experiment())
        drive.visits(150)
        clock.advance(600)
        drive.step()
    return tmp_path / "log.db"


def toml(folder: Path, **changes: object) -> str:
    """An experiment file with the sample experiment's actions."""
    path = folder / "candidate.toml"
    path.write_text(as_toml(json.loads(write_json(to_message(sample_experiment(**changes))))), encoding="utf-8")
    return str(path)


def as_toml(message: dict[str, object]) -> str:
    """JSON values are TOML values, written inline; there is no null in them."""
    return "\n".join(f"{key} = {inline(value)}" for key, value in message.items())


def inline(value: object) -> str:
    """One TOML value."""
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{key}" = {inline(inner)}' for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, int | float) else '"' + str(value).replace('"', '\\"') + '"'


@pytest.mark.parametrize("algorithm", ["squarecb", "softmax", "epsilon_greedy", "first"])
def test_a_learner_answers_as_the_served_policy_would_have(served: Path, tmp_path: Path, algorithm: str) -> None:
    """Every decision is scored by the trainer's own policy, taught with what was sealed by then: no second way."""
    experiment = sample_experiment(policy=spec(algorithm))
    columns = load(served)
    pmfs = asked(parse(toml(tmp_path, policy=spec(algorithm)), columns), columns)
    with closing(open_log(served)) as log:
        trainer = Trainer(log, HOME, experiment.policy)
        (version,) = log.versions()
        rows = sorted(log.decisions(version.position), key=lambda one: one.position)
        at_a_time = Counter(row.time for row in rows)
        checked = 0
        for logged in rows:
            where: Sequence[int] = (
                np.flatnonzero(columns.time == logged.time).tolist() if at_a_time[logged.time] == 1 else []
            )
            trainer.learn_up_to(Mark(logged.position, logged.time))
            decision = logged.decision
            if len(decision.eligible) == 1 or len(where) != 1:
                continue
            choices = version.choices_of(decision.eligible, decision.action_features)
            pmf = trainer.model().policy.pmf(decision.context, choices)
            slots = to_slots(pmf, minimum=experiment.minimum_propensity)
            expected = dict(zip(decision.eligible, slots, strict=True))
            found = (pmfs[int(where[0])] * SLOTS).round().astype(int).tolist()
            assert found == [expected.get(id_, 0) for id_ in columns.actions]  # type: ignore[call-overload]
            checked += 1
    assert checked > 40


def test_a_learner_never_sees_a_reward_before_the_log_did(served: Path, tmp_path: Path) -> None:
    """Rewards that change after a moment must not change what was answered before it."""
    columns = load(served)
    name = toml(tmp_path)
    moment = int(columns.time[100])
    later = columns.known > moment
    other = replace(columns, reward=np.where(later, 1 - columns.reward, columns.reward))
    one, two = asked(parse(name, columns), columns), asked(parse(name, other), other)
    until = columns.time <= moment
    assert (one[until] == two[until]).all()
    assert (one[~until] != two[~until]).any()


def test_without_delay_a_reward_is_learned_before_the_next_decision(served: Path, tmp_path: Path) -> None:
    """`--no-delay`: only the decision itself and those after it are unknown."""
    columns = load(served)
    name = toml(tmp_path)
    row = 50
    changed = columns.reward.copy()
    changed[row] = 1 - changed[row]
    other = replace(columns, reward=changed)
    one, two = (asked(parse(name, it, delayed=False), it) for it in (columns, other))
    assert (one[: row + 1] == two[: row + 1]).all()
    assert (one[row + 1 :] != two[row + 1 :]).any()


def test_blocks_do_not_change_a_learners_answers(served: Path, tmp_path: Path) -> None:
    """A log is cut into blocks for memory only."""
    columns = load(served)
    name = toml(tmp_path)
    whole = parse(name, columns).pmf(columns)
    pieces = parse(name, columns)
    cut = [pieces.pmf(columns.take(slice(start, start + 7))) for start in range(0, len(columns), 7)]
    assert (np.concatenate(cut) == whole).all()


def test_a_candidate_keeps_its_floor_and_has_no_holdout(served: Path, tmp_path: Path) -> None:
    """What is compared is policy traffic with policy traffic, with the exploration that would be served."""
    columns = load(served)
    free = columns.member[columns.eligible].sum(axis=1) > 1
    pmfs = asked(parse(toml(tmp_path, minimum_propensity=0.1, holdout=0.9), columns), columns)[free]
    positive = np.where(columns.member[columns.eligible][free], pmfs, 1.0)
    assert positive.min() >= 0.1


def test_mass_on_actions_that_the_log_does_not_know_is_missing(served: Path, tmp_path: Path) -> None:
    """Nobody knows what they would have earned."""
    columns = load(served)
    actions = sample_experiment().actions
    new = replace(actions[0], id=type(actions[0].id)("brand-new"))
    candidate = parse(toml(tmp_path, actions=(*actions, new), policy=spec("uniform")), columns)
    (scores,) = score(columns, [candidate])
    sizes = columns.member[columns.eligible].sum(axis=1)
    free = (columns.propensity < 1) | (sizes == 1)  # elsewhere the caller had switched exploration off
    assert free.sum() > 100
    assert scores.missing[free] == pytest.approx(1 / (sizes[free] + 1), abs=2e-6)


def test_an_action_that_was_impossible_in_a_decision_is_missing_there() -> None:
    """It can be eligible by name and have had no chance: the log's pmf says so."""
    columns = replace(example(), pmf=np.array([0.0, 1.0, 0.75, 0.25], np.float32), propensity=np.array([1.0, 0.75]))
    (scores,) = score(columns, [parse("fixed:a", columns)])
    assert scores.missing.tolist() == [1.0, 0.0]
    assert scores.missing_by_action.tolist() == [0.5, 0.0]
    assert scores.example.tolist() == [0, -1]


def test_fixed_and_uniform_and_logged_over_partly_eligible_sets() -> None:
    """An action that is not eligible cannot be taken: the fixed policy then does as the served one."""
    columns = replace(
        example(),
        sets=((0,), (0, 1)),
        eligible=np.array([1, 0], np.int32),
        pmf=np.array([0.5, 0.5, 1.0], np.float32),
        propensity=np.array([0.5, 1.0]),
    )
    assert asked(parse("fixed:b", columns), columns).tolist() == [[0, 1], [1, 0]]
    assert asked(parse("uniform", columns), columns).tolist() == [[0.5, 0.5], [1, 0]]
    assert asked(parse("logged", columns), columns).tolist() == [[0.5, 0.5], [1, 0]]


def test_the_logged_policy_has_weight_one_exactly(served: Path) -> None:
    """So its IPS estimate is the log's mean, to the last bit."""
    columns = load(served)
    (scores,) = score(columns, [parse("logged", columns)])
    assert (scores.weight == 1).all()


def test_a_table_gives_each_value_its_distribution(tmp_path: Path) -> None:
    """First column the action, the others headed FIELD=VALUE."""
    file = tmp_path / "table.csv"
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([["action", "device=phone", "device=desktop"], ["a", 0.2, 1], ["b", 0.8, 0]])
    assert asked(parse(f"table:{file}", example()), example()).tolist() == [[0.2, 0.8], [1, 0]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["action", "device=phone"], ["a", 0.2], ["b", 0.9]], r"device=phone is no distribution: it sums to 1\.1"),
        ([["action", "device=phone"], ["a", 2], ["b", -1]], "device=phone is no distribution"),
        ([["action", "device=phone"], ["a", 1]], "has no column device=desktop"),
        ([["action", "device=phone", "age=3"], ["a", 1, 1]], "all of one field"),
        ([["action", "size=phone"], ["a", 1]], "no context field 'size' of texts; it has segment, device, age"),
        ([["action", "age=31"], ["a", 1]], "no context field 'age' of texts"),
        ([["action", "device=phone"], ["c", 1]], r"table\.csv:2: the log has no action 'c'; it has a, b"),
        ([["action", "device=phone"], ["a", "x"]], r"table\.csv:2: could not convert"),
        ([["action", "device=phone"], ["a"]], r"table\.csv:2: has 1 cells, not 2"),
        ([], "not enough values"),
    ],
)
def test_a_wrong_table_is_refused_with_its_place(tmp_path: Path, rows: list[list[object]], message: str) -> None:
    """Somebody made it by hand or with another tool."""
    file = tmp_path / "table.csv"
    with file.open("w", newline="") as out:
        csv.writer(out).writerows(rows)
    with pytest.raises(DeciderError, match=message):
        asked(parse(f"table:{file}", example()), example())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unifrom", "there is no policy 'unifrom'; there are uniform, logged"),
        ("fixed:c", "the log has no such action; it has a, b"),
        ("baseline", "no baseline_action"),
        ("nowhere.toml", "nowhere.toml"),
        ("table:nowhere.csv", "No such file"),
        ("model:nowhere.db", "there is no such log"),
        ("nowhere:make", "No module named 'nowhere'"),
        ("json:loads", "json:loads: loads"),
        ("collections:Counter", "has no pmf and no learn"),
    ],
)
def test_a_policy_that_there_is_not_is_refused_by_name(name: str, message: str) -> None:
    """The message says what would have been right."""
    with pytest.raises(DeciderError, match=message):
        parse(name, example())


def test_a_policy_without_any_of_the_logs_actions_does_not_fit(tmp_path: Path) -> None:
    """Most likely the wrong file."""
    candidate = parse(toml(tmp_path), example())
    (scores,) = score(example(), [candidate])
    assert scores.missing.tolist() == [1.0, 1.0]


def test_a_stored_model_answers_as_it_did_and_only_for_what_it_has_not_learned(served: Path) -> None:
    """On decisions that it has learned from, it would be judged by what it knows by heart."""
    columns = load(served)
    assert columns.model is not None
    position = Counter(columns.model[columns.model > 0].tolist()).most_common(1)[0][0]
    with closing(open_log(served)) as log:
        at = log.time_at(position)
    candidate = parse(f"model:{served}@{position}", columns)
    (scores,) = score(columns, [candidate])
    assert len(scores.columns) == int((columns.known > at).sum()) > 10
    made_with_it = columns.model == position
    whole = asked(candidate, columns)
    logged = columns.dense_pmf()
    explored = columns.propensity < 1
    same = made_with_it & explored
    assert same.sum() > 2
    assert whole[same] == pytest.approx(logged[same], abs=1e-7)


def test_a_stored_model_that_has_learned_everything_is_refused(served: Path) -> None:
    """There is nothing left to judge it by."""
    columns = load(served)
    with pytest.raises(DeciderError, match="has learned from every decision of this log"):
        parse(f"model:{served}", columns)
    with pytest.raises(DeciderError, match="no model of position 7 is stored; stored ones are"):
        parse(f"model:{served}@7", columns)


def test_a_policy_written_in_python_sees_what_served_ones_see(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same protocol as the policies that serve: pmf and learn, in the order of the log."""
    (tmp_path / "mine.py").write_text(
        "seen = []\n"
        "class Mine:\n"
        "    def pmf(self, context, actions): return [1.0] + [0.0] * (len(actions) - 1)\n"
        "    def learn(self, context, actions, *, drawn, propensity, reward):\n"
        "        seen.append((actions[drawn], propensity, reward))\n"
    )
    monkeypatch.chdir(tmp_path)
    columns = load(served)
    candidate = parse("mine:Mine", columns, delayed=False)
    assert isinstance(candidate, ProgressiveLearner)
    pmfs = asked(candidate, columns)
    assert set(pmfs.max(axis=1)) == {1.0}
    seen = sys.modules["mine"].seen
    assert [reward for _, _, reward in seen] == columns.reward[:-1].tolist()
    assert all(
        action.id == columns.actions[code] for code, (action, _, _) in zip(columns.action[:-1], seen, strict=True)
    )


def test_a_policy_that_gives_no_pmf_is_served_by_the_baseline(served: Path) -> None:
    """As the server does: nan from a policy must not become a weight."""

    class Broken:
        def pmf(self, context: object, actions: list[str]) -> list[float]:  # noqa: ARG002
            return [float("nan")] * len(actions)

        def learn(self, context: object, actions: list[str], **_: object) -> None:
            pass

        def save(self) -> bytes:
            return b""

    columns = load(served)
    version = sample_version()
    pmfs = asked(ProgressiveLearner(ReplayedPolicy("broken", version, Broken(), actions=columns.actions)), columns)  # type: ignore[arg-type]
    baseline = columns.actions.index("outfit")
    eligible = columns.member[columns.eligible]
    assert (pmfs[eligible[:, baseline], baseline] == 1).all()
    assert pmfs.sum(axis=1) == pytest.approx(1)


def test_a_table_has_a_column_for_decisions_without_the_field(tmp_path: Path) -> None:
    """Most logs have some."""
    file = tmp_path / "table.csv"
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([["action", "segment=vip", "segment="], ["a", 0.25, 1], ["b", 0.75, 0]])
    assert asked(parse(f"table:{file}", example()), example()).tolist() == [[0.25, 0.75], [1, 0]]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return [0.9] * len(actions)", "bad:P: gave no distribution over 2 actions"),
        ("return [1.0]", "bad:P: gave no distribution over 2 actions"),
        ("return 1 / 0", "bad:P: ZeroDivisionError: division by zero, for Context"),
    ],
)
def test_somebodys_own_policy_that_fails_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, message: str
) -> None:
    """Replacing its answer by another one would evaluate something else."""
    source = f"class P:\n    def pmf(self, context, actions): {body}\n    def learn(self, *_, **__): pass\n"
    (tmp_path / "bad.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "bad", raising=False)
    with pytest.raises(DeciderError, match=message):
        asked(parse("bad:P", example()), example())


def test_a_copy_of_a_log_is_the_same_log_to_a_stored_model(served: Path, tmp_path: Path) -> None:
    """Backups and exports hold the decisions that it has learned from, too."""
    shutil.copy(served, tmp_path / "copy.db")
    with pytest.raises(DeciderError, match="has learned from every decision of this log"):
        parse(f"model:{tmp_path / 'copy.db'}", load(served))
