"""SIGKILL of `decider backup` and `decider restore` between any two steps: the old log or the new one, whole."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from decider.errors import LogError
from decider.log.open import back_up_log, open_log, open_reader
from decider.log.protocol import Head, Tick
from decider.server.command import main
from simulator.verify import verify
from tests.long_logs import shop, write_past

DECISIONS = 40


def head_of(log: Path) -> Head:
    """The end of a log that is whole."""
    with closing(open_reader(log)) as opened:
        assert opened.check(lambda _: None) == []
        return opened.head()


def killed(what: str, root: Path) -> range:
    """The steps at which it was killed; the last one's folder is of the run that was not."""
    command = [sys.executable, "-m", "tests.killed_copies", what, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return range(1, int(done.stdout))


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A backup, and the log as a killed server leaves it: its last entries lie in the write-ahead log alone."""
    folder = tmp_path / "template"
    folder.mkdir()
    live = tmp_path / "live.db"
    write_past(live, DECISIONS, shop())
    back_up_log(live, folder / "copy.db", replace=False, on_copied=lambda *_: None, on_checked=lambda _: None)
    with closing(open_log(live)) as log:
        log.append([Tick()])
        log.append([Tick()])
        for ending in ("", "-wal", "-last"):
            shutil.copy(f"{live}{ending}", folder / f"shop.db{ending}")
    assert head_of(folder / "shop.db").position == head_of(folder / "copy.db").position + 2
    return folder


def kept(folder: Path) -> list[Path]:
    """The old logs beside the new one."""
    return [one for one in folder.glob("shop.db.before-*") if not one.name.endswith(("-wal", "-shm", "-last"))]


def is_refused(log: Path) -> str:
    """Why no server takes it; empty where one does."""
    try:
        open_log(log).close()
    except LogError as error:
        return str(error)
    return ""


def go_back(log: Path) -> None:
    """As the message says."""
    (old,) = kept(log.parent)
    for ending in ("", "-wal", "-last"):
        Path(f"{log}{ending}").unlink(missing_ok=True)
    for ending in ("", "-wal", "-last"):
        if Path(f"{old}{ending}").exists():
            subprocess.run(["mv", f"{old}{ending}", f"{log}{ending}"], check=True)


def leftovers(folder: Path) -> list[Path]:
    """Copies that nobody needs."""
    return [one for one in folder.glob(".*") if any(one.iterdir())]


def test_a_restore_that_is_killed_leaves_the_old_log_or_the_new_one(template: Path, tmp_path: Path) -> None:
    """A server takes the old one or the new one, whole, or says how to go on; both ways that it names lead there."""
    old, new = head_of(template / "shop.db"), head_of(template / "copy.db")
    steps = killed("restore", tmp_path)
    found = set()
    for step in steps:
        log = tmp_path / str(step) / "shop.db"
        other = tmp_path / f"{step}-back"
        subprocess.run(["cp", "-a", log.parent, other], check=True)  # with its hard links
        why = is_refused(log)
        if why:
            assert "since a restore was killed: the old log is whole as" in why
            with closing(open_reader(log)) as opened:  # what only reads is not misled either
                assert opened.head() == old or opened.check(lambda _: None)
            go_back(other / "shop.db")
            assert is_refused(other / "shop.db") == ""
            assert head_of(other / "shop.db") == old
        else:
            assert head_of(log) in (old, new)
        found.add("refused" if why else "new" if head_of(log) == new else "old")
        done = CliRunner().invoke(main, ["restore", str(log.parent / "copy.db"), "--db", str(log)])
        assert done.exit_code == 0, done.output
        assert head_of(log) == new
        assert old in [head_of(one) for one in kept(log.parent)]
        assert leftovers(log.parent) == []
    assert found == {"old", "refused", "new"}
    assert len(steps) >= 12
    with closing(open_reader(log)) as opened:
        assert verify(opened).equal == DECISIONS


def test_a_second_name_that_somebody_has_made_by_hand_is_no_old_log(template: Path) -> None:
    """It may lack the write-ahead log, with what was acknowledged last."""
    log, old = template / "shop.db", head_of(template / "shop.db")
    (template / "shop.db.before-upgrade").hardlink_to(log)
    assert "a hard link" in is_refused(log)
    done = CliRunner().invoke(main, ["restore", str(template / "copy.db"), "--db", str(log)])
    assert done.exit_code == 0, done.output
    assert "before-upgrade" not in done.stdout
    (whole,) = [one for one in kept(template) if "before-upgrade" not in one.name]
    assert head_of(whole) == old


def test_a_backup_that_is_killed_leaves_the_old_backup_or_the_new_one(template: Path, tmp_path: Path) -> None:
    """What has the name of a backup is a whole log, and what a killed run has left takes no room for ever."""
    new, old = head_of(template / "shop.db"), head_of(template / "copy.db")
    steps = killed("backup", tmp_path)
    seen = []
    for step in steps:
        folder = tmp_path / str(step)
        seen.append(head_of(folder / "copy.db"))
        done = CliRunner().invoke(main, ["backup", str(folder / "copy.db"), "--db", str(folder / "shop.db"), "--force"])
        assert done.exit_code == 0, done.output
        assert head_of(folder / "copy.db") == new
        assert leftovers(folder) == []
    assert seen == sorted(seen)
    assert {*seen} == {old, new}


def test_a_run_that_still_works_is_left_alone(template: Path) -> None:
    """Two backups to one name at the same moment: the second one must not remove the copy of the first."""

    def second(*_: object) -> None:
        done = CliRunner().invoke(
            main, ["backup", str(template / "copy.db"), "--db", str(template / "shop.db"), "--force"]
        )
        assert done.exit_code == 0, done.output
        assert leftovers(template) != []

    back_up_log(
        template / "shop.db", template / "copy.db", replace=True, on_copied=second, on_checked=lambda _: None
    )  # fmt: skip
    assert head_of(template / "copy.db") == head_of(template / "shop.db")
    assert leftovers(template) == []
