"""Cutting a live log: what is archived is there once, what stays is recomputed, and learning goes on.

The part's own files: `test_archive.py`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from decider.learn.archive import ArchivedPart, archive
from decider.learn.trainer import Trainer
from decider.log.open import open_log, open_reader, open_to_cut
from decider.log.protocol import LogReader
from decider.types import Context, ExperimentId, Time
from simulator.verify import verify
from tests.conftest import SECOND, Clock, sample_experiment, spec
from tests.test_verify import HOME, OTHER, Drive, eventful

DAY = 86_400 * SECOND


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the log will be."""
    return tmp_path / "log.db"


@pytest.fixture
def drive(file: Path, clock: Clock) -> Iterator[Drive]:
    """Visitors of a log."""
    with closing(open_log(file, clock=clock)) as log:
        yield Drive(log, clock)


def cut(file: Path, folder: Path, *, age: float, remember: float = 0) -> ArchivedPart | None:
    """Archive what is older, in seconds of log time."""
    with closing(open_to_cut(file)) as log:
        before = Time(log.head().time - round(age * SECOND))
        return archive(log, folder, before=before, remember=round(remember * SECOND), say=lambda _: None)


def assert_whole(log: LogReader, decisions: int) -> None:
    """No damage, and so many decisions, each recomputed as it was logged."""
    assert log.check(lambda _: None) == []
    result = verify(log)
    assert result.first is None, f"{result.first.what} {result.first.logged}"
    assert result.equal == result.decisions == decisions


def pmfs(log: LogReader, experiment: ExperimentId) -> list[tuple[float, ...]]:
    """What the newest version's policy says once it has learned the whole log."""
    version = [version for version in log.versions() if version.experiment.id == experiment][-1]
    trainer = Trainer(log, experiment, version.experiment.policy)
    trainer.learn_up_to(log.head().mark)
    policy = trainer.model().policy
    choices = version.choices_of(version.all_active, {})
    return [
        tuple(policy.pmf(Context(segment=segment, device=device), choices))
        for segment in ("new", "vip", "bargain", "other")
        for device in ("mobile", "")
    ]


def test_what_stays_and_the_whole_are_recomputed(drive: Drive, file: Path, tmp_path: Path) -> None:
    """The promise of the project holds for the log alone, and for log and archive together."""
    eventful(drive)
    drive.apply(sample_experiment(policy=spec("squarecb")))
    drive.visits(40)
    drive.visits(20, OTHER)
    everything = drive.log.count_decisions()
    part = cut(file, tmp_path / "archive", age=40)
    assert part is not None
    assert part.plan.decisions > 50
    assert_whole(drive.log, everything - part.plan.decisions)
    drive.visits(20)
    second = cut(file, tmp_path / "archive", age=15)
    assert second is not None
    rest = everything + 20 - part.plan.decisions - second.plan.decisions
    assert_whole(drive.log, rest)
    with closing(open_reader(file, archive=[tmp_path / "archive"])) as whole:
        assert_whole(whole, everything + 20)


def test_learning_goes_on_as_in_a_log_that_was_never_cut(drive: Drive, file: Path, tmp_path: Path) -> None:
    """Nobody who is decided for may notice that a log was trimmed."""
    drive.apply(sample_experiment())
    drive.apply(sample_experiment(id=OTHER, policy=spec("softmax")))
    drive.visits(60)
    drive.visits(40, OTHER)
    copy = tmp_path / "copy.db"
    with closing(open_reader(file)):
        shutil.copy(file, copy)
        shutil.copy(f"{file}-wal", f"{copy}-wal")
    assert cut(file, tmp_path / "archive", age=20) is not None
    with closing(open_reader(copy)) as untouched:
        for experiment in (HOME, OTHER):
            assert pmfs(drive.log, experiment) == pmfs(untouched, experiment)
    assert len(set(pmfs(drive.log, HOME))) > 1
