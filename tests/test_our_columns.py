"""Our log as columns: the same decisions and rewards as the learner reads, and nothing else."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from decider.decide.slots import SLOTS
from decider.errors import LogError
from decider.experiment.aggregate import final_reward
from decider.log.open import open_log, open_reader
from decider.log.protocol import LogReader, NewActivation, NewReward, SealedDecision
from decider.types import Reason, Time
from simulator.logs.columns import Columns
from simulator.logs.contexts import Contexts
from simulator.logs.decider_log import AmbiguousExperiment, load
from tests.conftest import Clock, sample_experiment
from tests.test_verify import HOME, Drive, eventful


@pytest.fixture
def path(tmp_path: Path, clock: Clock) -> Path:
    """A log in which everything happens that can happen to an experiment."""
    with closing(open_log(tmp_path / "log.db", clock=clock)) as log:
        eventful(Drive(log, clock))
    return tmp_path / "log.db"


CONTROL = (Reason.HOLDOUT, Reason.HOLDOUT_UNAVAILABLE)
"""No policy drew these."""


def load_all(path: Path) -> Columns:
    """Every version: without their numbers only the newest that agree are read."""
    with closing(open_reader(path)) as log:
        numbers = [version.number for version in log.versions() if version.experiment.id == HOME]
    return load(path, experiment=HOME, version=tuple(numbers))


def sealed_by_position(log: LogReader) -> list[tuple[SealedDecision, float]]:
    """What the learner is given, whether it learns from it or not, with the final reward; in order of position."""
    found = [
        (sealed, final_reward(log.version_at(sealed.decision.version).experiment.reward, sealed.rewards))
        for sealed in log.sealed_decisions(HOME, after=Time(0), until=log.head().time)
    ]
    return sorted(found, key=lambda one: one[0].position)


def test_columns_hold_what_the_learner_reads(path: Path) -> None:
    """Evaluation and learning must not disagree about what was decided and what it earned."""
    columns, log = load_all(path), open_reader(path)
    expected = [
        (sealed, reward)
        for sealed, reward in sealed_by_position(log)
        if not sealed.overridden and sealed.decision.reason not in CONTROL
    ]
    assert len(columns) == len(expected) > 60
    assert columns.reward.tolist() == [reward for _, reward in expected]
    assert columns.propensity.tolist() == [sealed.decision.propensity for sealed, _ in expected]
    assert [columns.actions[code] for code in columns.action] == [sealed.decision.action for sealed, _ in expected]
    assert columns.known.tolist() == [sealed.deadline for sealed, _ in expected]
    assert (columns.known > columns.time).all()
    assert columns.default is not None
    assert columns.default.tolist() == [not sealed.rewards for sealed, _ in expected]
    assert columns.model is not None
    assert columns.model.tolist() == [sealed.decision.model for sealed, _ in expected]


def test_contexts_come_back_as_they_were_logged(path: Path) -> None:
    """What was scored is what is evaluated: texts, numbers and flags, odd characters included."""
    columns, log = load_all(path), open_reader(path)
    contexts = Contexts().of(columns)
    logged = {sealed.position: sealed.decision for sealed, _ in sealed_by_position(log) if not sealed.overridden}
    expected = [decision.context for decision in logged.values() if decision.reason not in CONTROL]
    for ours, theirs in zip(contexts, expected, strict=True):
        assert ours[:5] == theirs[:5]
        texts = {name: str(v).lower() if isinstance(v, bool) else v for name, v in theirs.features.items()}
        assert dict(ours.features) == texts


def test_pmfs_come_back_for_every_eligible_set(path: Path) -> None:
    """In the order of the actions, 0 where an action was not eligible, the propensity at the drawn one."""
    columns, log = load_all(path), open_reader(path)
    dense = columns.dense_pmf()
    assert len(columns.sets) >= 3
    assert np.allclose(dense.sum(axis=1), 1, atol=1e-6)
    assert np.allclose(dense[np.arange(len(columns)), columns.action], columns.propensity, atol=1e-7)
    rows = [
        sealed.decision
        for sealed, _ in sealed_by_position(log)
        if not sealed.overridden and sealed.decision.reason not in CONTROL
    ]
    for row, decision in zip(dense, rows, strict=True):
        by_action = dict(zip(decision.eligible, decision.pmf, strict=True))
        assert row == pytest.approx([by_action.get(id_, 0) / SLOTS for id_ in columns.actions], abs=1e-7)  # type: ignore[call-overload]


def test_what_is_left_out_is_counted(path: Path) -> None:
    """Nothing disappears without a word."""
    columns, log = load_all(path), open_reader(path)
    home = {version.position for version in log.versions() if version.experiment.id == HOME}
    decided = sum(1 for version in home for _ in log.decisions(version))
    assert len(columns) + sum(columns.left_out.values()) == decided
    assert all(columns.left_out[kind] > 0 for kind in ("holdout", "overridden"))
    assert columns.counts["rewards joined"] > 0


def test_a_log_with_several_experiments_asks_which_one(path: Path) -> None:
    """The wrong one would give figures that look right."""
    with pytest.raises(AmbiguousExperiment, match="--experiment home"):
        load(path)
    with pytest.raises(AmbiguousExperiment, match="no experiment 'hom'; it has home, other"):
        load(path, experiment="hom")


def test_open_windows_are_left_out_until_they_are_over(tmp_path: Path, clock: Clock) -> None:
    """A decision that can still be rewarded has no reward yet; counting it would favour slow actions."""
    with closing(open_log(tmp_path / "log.db", clock=clock)) as log:
        drive = Drive(log, clock)
        drive.apply(sample_experiment())
        drive.visits(12)
        clock.advance(1)
        drive.visits(1)
        columns = load(tmp_path / "log.db")
        assert columns.left_out["window open"] > 0
        assert len(columns) + columns.left_out["window open"] + columns.left_out["overridden"] == log.count_decisions()


def test_late_rewards_and_overrides_do_not_count(tmp_path: Path, clock: Clock) -> None:
    """The learner did not see them either."""
    with closing(open_log(tmp_path / "log.db", clock=clock)) as log:
        drive = Drive(log, clock)
        drive.apply(sample_experiment())
        drive.visits(6)
        positions = [logged.position for logged in log.decisions(log.versions()[0].position)]
        before = load(tmp_path / "log.db")
        clock.advance(600)
        log.append([NewReward(position, "click", 1.0, reward_id="late") for position in positions])
        log.append([NewActivation(position, sample_experiment().actions[0].id) for position in positions])
        after = load(tmp_path / "log.db")
    assert after.counts["rewards late"] == len(positions)
    assert after.reward[: len(before)].tolist() == before.reward.tolist()


def test_taking_rows_by_slice_and_by_mask_is_the_same(path: Path) -> None:
    """Blocks and segments see the same decisions."""
    columns = load_all(path)
    mask = np.zeros(len(columns), np.bool_)
    mask[5:40] = True
    one, other = columns.take(slice(5, 40)), columns.take(mask)
    assert one.dense_pmf().tolist() == other.dense_pmf().tolist()
    assert one.time.tolist() == other.time.tolist()
    assert Contexts().of(one) == Contexts().of(other)
    whole = [row for _, block in columns.blocks() for row in block.reward.tolist()]
    assert whole == columns.reward.tolist()


def test_the_released_log_still_loads() -> None:
    """Old logs are evaluated, too."""
    columns = load(Path(__file__).parent / "data" / "log-0.1.0.db")
    assert len(columns) + sum(columns.left_out.values()) == 450
    assert isinstance(columns, Columns)


def test_what_is_no_log_is_refused_by_name(tmp_path: Path) -> None:
    """A wrong path is the most common mistake."""
    with pytest.raises(LogError, match="there is no such log"):
        load(tmp_path / "nothing.db")
    (tmp_path / "text.db").write_text("hello, this is no database" * 100)
    with pytest.raises(LogError, match="damaged or not a log"):
        load(tmp_path / "text.db")
    shutil.copy(Path(__file__).parent / "data" / "log-0.1.0.db", tmp_path / "cut.db")
    with (tmp_path / "cut.db").open("r+b") as file:
        file.truncate(120_000)
    with pytest.raises(LogError, match=r"cut\.db"):
        load(tmp_path / "cut.db")
