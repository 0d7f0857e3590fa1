"""`decider forget` removes a person's ids from the archive, too, and both can still be proved and recomputed."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from decider.learn.archive import archive
from decider.log.archive.find import parts_of
from decider.log.forgotten import KEY
from decider.log.open import open_log, open_reader, open_to_cut
from decider.log.protocol import NewReward, Tick
from decider.types import Position, Time
from simulator.commands.group import main as simulator
from simulator.verify import Verification, verify
from tests.conftest import Clock, sample_experiment, spec
from tests.rpc_clients import rows
from tests.test_forget import UNIT, forget
from tests.test_verify import Drive

OTHER = "unit-5"

KILLED_AT = """
import os, signal, sys
left = int(sys.argv.pop(1))
def hook(event, arguments):
    global left
    if event in ("os.mkdir", "os.rename", "shutil.rmtree", "os.rmdir"):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
from decider.cli import main
sys.addaudithook(hook)
main()
"""
"""The command, killed before so many changes of folders."""


@pytest.fixture
def log(tmp_path: Path, clock: Clock) -> Path:
    """A log with two parts of an archive; rewards of the first part's decisions lie in the second, and in the log."""
    path = tmp_path / "shop.db"
    with closing(open_log(path, clock=clock)) as opened:
        drive = Drive(opened, clock)
        drive.apply(sample_experiment(policy=spec("squarecb")))
        drive.visits(60)
        mine = [row[0] for row in rows(path, "select position from decisions where unit_id = ?", UNIT)]
        clock.advance(3 * 86_400)
        drive.visits(60)
        _reward(path, clock, mine, "second")
        first_end = opened.head().time - 86_400_000_000
        clock.advance(3 * 86_400)
        drive.visits(60)
    _archive(path, before=Time(first_end))
    _reward(path, clock, mine, "third")
    _archive(path, before=Time(first_end + 2 * 86_400_000_000))
    assert len(parts_of(path)) == 2
    return path


def _reward(path: Path, clock: Clock, decisions: list[int], when: str) -> None:
    with closing(open_log(path, clock=clock)) as opened:
        for position in decisions:
            opened.append([NewReward(Position(position), "click", 0.5, reward_id=f"{when}-of-{UNIT}-{position}")])


def _archive(path: Path, before: Time) -> None:
    with closing(open_to_cut(path)) as cuttable:
        assert archive(cuttable, path.parent / "archive", before=before, remember=1, say=lambda _: None)


def _found(folder: Path, unit: str = UNIT) -> list[str]:
    """Files that have the unit's id in any byte."""
    return [str(file) for file in folder.rglob("*") if file.is_file() and unit.encode() in file.read_bytes()]


def _verified(log: Path, *archives: Path) -> Verification:
    with closing(open_reader(log, archive=archives)) as opened:
        assert opened.check(lambda _: None) == []
        return verify(opened)


def test_the_ids_are_in_no_file_of_log_and_archive(log: Path) -> None:
    """That is what the person asked for; and the auditor still gets N of N."""
    folder = log.parent / "archive"
    before, alone = _verified(log, folder), _verified(folder)
    ran = forget(log, "--rebuild")
    assert ran.exit_code == 0, ran.output
    assert ran.output.count("written anew: ") == 2
    assert _found(log.parent) == []
    assert _found(log.parent, OTHER)
    after, alone_after = _verified(log, folder), _verified(folder)
    assert after.first is alone_after.first is None
    assert after.forgotten > alone_after.forgotten > 0
    assert after.equal == after.decisions == before.decisions - after.forgotten
    assert alone_after.equal == alone_after.decisions == alone.decisions - alone_after.forgotten
    assert sorted(one.name for one in folder.iterdir() if one.name != ".lock") == [
        one.path.name for one in parts_of(log)
    ]
    with closing(open_reader(log)) as opened:
        assert opened.check(lambda _: None) == []


def test_contexts_go_from_the_archive_too(log: Path) -> None:
    """What was learned from them is counted apart, with the log and without."""
    folder = log.parent / "archive"
    before = _verified(log, folder)
    assert forget(log, "--context", "--pseudonym").exit_code == 0
    for result in (_verified(log, folder), _verified(folder)):
        assert result.first is None
        assert result.equal == result.decisions
        assert result.unlearned > 0
    result = _verified(log, folder)
    assert result.decisions + result.forgotten + result.unlearned == before.decisions


def test_a_part_that_was_archived_after_a_removal_is_proved_alone(log: Path) -> None:
    """The entry that names the removal lies behind the part."""
    forget(log)
    with closing(open_reader(log)) as opened:
        end = opened.head().time
    _archive(log, before=Time(end - 60_000_000))
    result = _verified(log.parent / "archive")
    assert result.first is None
    assert result.forgotten > 0


def test_verify_says_where_the_removals_stand(log: Path, clock: Clock) -> None:
    """An archive that is read alone has not all entries about it, and its reader has to know where to look."""
    folder = log.parent / "archive"
    behind = "not recomputed: see the entries of the log behind this archive\n"
    forget(log)
    assert behind in _said(folder)
    own = ", ".join(str(row[0]) for row in rows(log, "select position from builds where build like ?", f"%{KEY}%"))
    assert f"not recomputed: see entries {own}\n" in _said(log, "--archive", str(folder))
    clock.advance(3 * 86_400)
    with closing(open_log(log, clock=clock)) as opened:
        opened.append([Tick()])
        end = opened.head().time
    _archive(log, before=end)
    assert f"not recomputed: see entries {own}\n" in _said(folder), "now they lie in it"
    forget(log, unit=OTHER)
    assert f"not recomputed: see entries {own} and the entries of the log behind this archive\n" in _said(folder)


def _said(*arguments: Path | str) -> str:
    ran = CliRunner().invoke(simulator, ["verify", *map(str, arguments)])
    assert ran.exit_code == 0, ran.output
    return ran.output


def test_several_units_are_forgotten_one_after_the_other(log: Path) -> None:
    """Their decisions share commits."""
    for unit in (UNIT, OTHER, "unit-8"):
        assert forget(log, "--rebuild", unit=unit).exit_code == 0
        assert _found(log.parent, unit) == []
    result = _verified(log, log.parent / "archive")
    assert result.first is None
    assert _verified(log.parent / "archive").first is None


@pytest.mark.parametrize("which", [0, 1])
def test_a_part_that_is_away_is_named_and_done_later(log: Path, which: int) -> None:
    """Nobody may believe that all is gone; and the rewards in the other part are found without it."""
    path, elsewhere = parts_of(log)[which].path, log.parent / "elsewhere"
    elsewhere.mkdir()
    path.rename(elsewhere / path.name)
    ran = forget(log, "--rebuild")
    assert ran.exit_code == 1
    assert str(path) in ran.output
    assert "--archive DIR" in ran.output
    ran = forget(log, "--rebuild", "--archive", str(elsewhere))
    assert ran.exit_code == 0, ran.output
    assert _found(log.parent) == []
    assert _verified(log, log.parent / "archive", elsewhere).first is None


def test_another_logs_part_in_the_folder_is_not_touched(log: Path, tmp_path: Path, clock: Clock) -> None:
    """It may have a unit of the same name."""
    other = tmp_path / "other" / "blog.db"
    other.parent.mkdir()
    with closing(open_log(other, clock=clock)) as opened:
        drive = Drive(opened, clock)
        drive.apply(sample_experiment(policy=spec("squarecb")))
        drive.visits(60)
        end = opened.head().time
    clock.advance(3 * 86_400)
    with closing(open_log(other, clock=clock)) as opened:
        Drive(opened, clock).apply(sample_experiment(id="later"))
    with closing(open_to_cut(other)) as cuttable:
        part = archive(cuttable, log.parent / "archive", before=Time(end + 1), remember=1, say=lambda _: None)
    assert part is not None
    before = {file: file.read_bytes() for file in part.folder.iterdir()}
    assert forget(log).exit_code == 0
    assert {file: file.read_bytes() for file in part.folder.iterdir()} == before


def test_a_run_that_was_killed_is_finished_by_the_next(log: Path) -> None:
    """Before and after each change of a folder: what counts is always there, and nothing is left at the end."""
    kept = log.parent.parent / f"{log.parent.name}-kept"
    shutil.copytree(log.parent, kept)
    command = ["forget", UNIT, "--db", str(log), "--rebuild"]
    killed = 0
    while True:
        ran = subprocess.run([sys.executable, "-c", KILLED_AT, str(killed + 1), *command], capture_output=True)
        if ran.returncode == 0:
            break
        assert ran.returncode == -signal.SIGKILL, ran.stderr
        killed += 1
        assert all(one.part for one in parts_of(log))
        assert _verified(log, log.parent / "archive").first is None
        assert forget(log, "--rebuild").exit_code == 0
        assert _found(log.parent) == []
        assert _verified(log.parent / "archive").first is None
        shutil.rmtree(log.parent)
        shutil.copytree(kept, log.parent)
    assert killed >= 8
    shutil.rmtree(kept)
