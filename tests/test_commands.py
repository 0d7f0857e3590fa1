"""The commands of an operator: `validate`, `list`, `backup`, `restore`, and `--json` of all."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from decider.errors import LogError
from decider.log.open import open_log, open_reader
from decider.log.protocol import Head, Tick
from decider.server.command import main
from decider.server.json_output import echo_json
from decider.types import ActionId, DecisionId
from simulator.verify import verify
from tests.long_logs import shop, write_past
from tests.rpc_clients import COMMAND, ServerProcess, SubprocessClient

TWO_ACTIONS = 'actions = [{ id = "a" }, { id = "b" }]\n'


def invoke(*args: object) -> Result:
    """A command, with what it says."""
    return CliRunner().invoke(main, list(map(str, args)))


def run(*args: object) -> str:
    """What a command says on standard output; it has to succeed."""
    done = invoke(*args)
    assert done.exit_code == 0, done.output
    return done.stdout


def run_json(*args: object) -> Any:
    """The one object of `--json`: anything else on standard output would break a script."""
    return json.loads(run(*args, "--json"))


def head_of(log: Path) -> Head:
    """The end of a log."""
    with closing(open_reader(log)) as opened:
        return opened.head()


@pytest.fixture
def log_file(tmp_path: Path) -> Path:
    """A log of 600 decisions."""
    write_past(tmp_path / "shop.db", 600, shop())
    return tmp_path / "shop.db"


# --- validate


def test_files_are_checked_as_a_server_checks_them(tmp_path: Path) -> None:
    """Names, combinations and the work of a decision: whoever has no server must not find out in production."""
    (tmp_path / "right.toml").write_text(f'id = "right"\n{TWO_ACTIONS}')
    (tmp_path / "name.toml").write_text(f'id = "name"\nholdot = 0.1\n{TWO_ACTIONS}')
    (tmp_path / "floor.toml").write_text(f'id = "floor"\nholdout = 0.1\n{TWO_ACTIONS}')
    many = ", ".join(f'{{ id = "a{n}" }}' for n in range(1000))
    (tmp_path / "work.toml").write_text(
        f'id = "work"\nactions = [{many}]\n[policy]\ninteractions = ["CCCA"]\n[policy.squarecb]\n'
    )
    (tmp_path / "rule.toml").write_text(
        'id = "rule"\nactions = [{ id = "a", eligible_if = "false" }, { id = "b", eligible_if = "false" }]\n'
    )
    done = invoke("validate", tmp_path, "--decide-budget", 0.001, "--json")
    assert done.exit_code == 1
    content = json.loads(done.stdout)
    fields = {Path(one["file"]).stem: [error["field"] for error in one["errors"]] for one in content["files"]}
    assert content["valid"] is False
    assert fields["right"] == []
    assert fields["floor"] == ["baseline_action"]
    assert fields["rule"] == ["actions"]
    assert fields["work"] in (["policy.interactions"], ["actions"])
    assert "did you mean holdout?" in invoke("validate", tmp_path / "name.toml").output


def test_what_a_server_leaves_alone_in_a_folder_is_not_checked(tmp_path: Path) -> None:
    """Editors and copies under way leave files beside: a check before a merge must not fail for what is never read."""
    (tmp_path / "shop.toml").write_text(f'id = "shop"\n{TWO_ACTIONS}')
    for leftover in (".shop.toml", ".#shop.toml", ".shop.toml.swp", "shop.toml~", "#shop.toml#", ".a.toml"):
        (tmp_path / leftover).write_text("half a fi")
    (only,) = run_json("validate", tmp_path)["files"]
    assert only["file"] == str(tmp_path / "shop.toml")
    assert invoke("validate", tmp_path / ".shop.toml").exit_code == 1, "named by itself it is checked"
    os.mkfifo(tmp_path / "pipe.toml")
    assert "is no regular file" in invoke("validate", tmp_path).stdout, "to read it would take for ever"


def test_json_is_json_whatever_a_file_is_called(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """A name that is no UTF-8 made all of it unreadable."""
    echo_json({"backup": os.fsdecode(b"a\xff.db"), "note": "ä"})
    written = capsysbinary.readouterr().out.decode()
    assert json.loads(written) == {"backup": "a\udcff.db", "note": "ä"}


def test_an_id_that_two_files_define_is_wrong(tmp_path: Path) -> None:
    """A server would refuse the second file, or the two would take turns."""
    for name in ("one.toml", "two.toml"):
        (tmp_path / name).write_text(f'id = "shop"\n{TWO_ACTIONS}')
    done = invoke("validate", tmp_path / "one.toml", tmp_path / "two.toml")
    assert done.exit_code == 1
    assert f"two.toml: error: id: 'shop' is defined by {tmp_path / 'one.toml'} already" in done.output
    assert run_json("validate", tmp_path / "one.toml", tmp_path / "one.toml")["valid"] is True


def test_a_warning_is_told_and_does_not_fail(tmp_path: Path) -> None:
    """It may be meant: a check before a merge must not stop for it."""
    file = tmp_path / "shop.toml"
    file.write_text(f'id = "shop"\nsticky = "30d"\n{TWO_ACTIONS}[reward]\nwindow = "1h"\n')
    (only,) = run_json("validate", file)["files"]
    assert len(only["warnings"]) == 1
    assert "reward.window" in only["warnings"][0]


def test_limits_of_the_server_are_checked_over_all_files(tmp_path: Path) -> None:
    """The file too many is right by itself."""
    for name in "abc":
        (tmp_path / f"{name}.toml").write_text(f'id = "{name}"\n{TWO_ACTIONS}')
    done = invoke("validate", tmp_path, "--max-experiments", 2)
    assert done.exit_code == 1
    assert "c.toml: error: experiment: experiment 'c' would be one too many" in done.output


# --- list, get, apply, pause, resume


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SubprocessClient]:
    """A server with two experiments."""
    folder = tmp_path_factory.mktemp("served")
    for name in ("home", "shop"):
        (folder / f"{name}.toml").write_text(f'id = "{name}"\nbaseline_action = "a"\n{TWO_ACTIONS}')
    opened = SubprocessClient(folder / "log.db", "--experiments", str(folder))
    yield opened
    opened.close()


def test_a_list_says_who_changed_what_last(served: SubprocessClient, tmp_path: Path) -> None:
    """Of a server and of its log alike, and for people as a table."""
    target = ("--target", served.target)
    run("pause", "shop", *target, "--author", "ann", "--note", "pixel broken")
    found = run_json("list", *target)["experiments"]
    assert [(one["experiment"], one["version"], one["state"]) for one in found] == [
        ("home", 1, "active"),
        ("shop", 2, "paused"),
    ]
    assert (found[1]["author"], found[1]["source"], found[1]["note"]) == ("ann", "api", "pixel broken")
    assert (found[1]["policy"], found[1]["holdout"], found[1]["waiting"]) == ("thompson", 0.0, None)
    assert run_json("list", "--db", served.db)["experiments"] == found
    head, *lines = run("list", *target).splitlines()
    assert head.split() == ["experiment", "version", "state", "policy", "holdout", "changed", "by"]
    assert [line.split()[0] for line in lines] == ["home", "shop"]
    assert run_json("resume", "shop", *target) == {
        "experiment": "shop", "version": 3, "state": "active", "waiting": None, "fallback": None,
    }  # fmt: skip
    file = tmp_path / "home.toml"
    file.write_text(f'id = "home"\nbaseline_action = "a"\nholdout = 0.1\n{TWO_ACTIONS}')
    assert run_json("apply", file, *target, "--dry-run") == {
        "experiment": "home", "version": 2, "state": "active",
        "changed": True, "changes": ["holdout 0 -> 0.1"], "waits": False, "dry_run": True,
    }  # fmt: skip
    assert run_json("pause", "home", *target)["state"] == "paused"
    got = run_json("get", "home", *target)
    assert (got["version"], got["definition"]["state"], got["definition"]["baseline_action"]) == (2, "paused", "a")


def test_an_error_with_json_leaves_standard_output_empty(tmp_path: Path) -> None:
    """A script that reads the answer must not read half of one; the way out is on standard error."""
    for args in (
        ("list", "--target", "127.0.0.1:1"),
        ("list", "--db", tmp_path / "none.db"),
        ("get", "shop", "--target", "127.0.0.1:1"),
        ("backup", tmp_path / "copy.db", "--db", tmp_path / "none.db"),
        ("restore", tmp_path / "copy.db", "--db", tmp_path / "none.db"),
    ):
        done = invoke(*args, "--json")
        assert (done.exit_code, done.stdout) == (1, ""), args
        assert done.stderr.startswith("Error: ")


def test_what_reads_files_says_so_to_who_names_a_server(tmp_path: Path) -> None:
    """`list` and `get` have `--target`, so somebody types it here, too: "no such option" would be no way out."""
    for args, words in (
        (("doctor",), ("--db LOG", "--http HOST:PORT asks a server's /readyz")),
        (("check",), ("--db LOG", "also while a server writes it")),
        (("backup", tmp_path / "copy.db"), ("--db LOG", "also while a server writes it")),
        (("restore", tmp_path / "copy.db"), ("--db LOG", "while no server runs on it")),
        (("validate", tmp_path), ("decider apply FILE --dry-run --target HOST:PORT",)),
    ):
        done = invoke(*args, "--target", "127.0.0.1:50051")
        assert (done.exit_code, done.stdout) == (2, ""), args
        assert all(word in done.stderr for word in ("takes no gRPC address", *words)), done.stderr
    assert "name the log with --db, a running server with --http" in invoke("doctor").stderr


def test_a_log_is_read_while_a_server_writes_it(served: SubprocessClient, tmp_path: Path) -> None:
    """What the README says of each command: these need no server, and no pause of one."""
    ids = [served.decide("shop", f"u{n}").decision_id for n in range(50)]
    assert run("get", "shop", "--db", served.db) == run("get", "shop", "--target", served.target)
    assert "there is no experiment 'none'; there is home, shop" in invoke("get", "none", "--db", served.db).stderr
    checked = run_json("check", "--db", served.db)
    assert (checked["damage"], checked["decisions"]) == ([], checked["equal"])
    assert checked["decisions"] >= len(ids)
    found = run_json("doctor", "--db", served.db, "--http", served.http)
    assert (found["healthy"], {one["experiment"] for one in found["findings"]} <= {"home"}) == (True, True)
    copied = run_json("backup", tmp_path / "copy.db", "--db", served.db)
    assert run_json("list", "--db", tmp_path / "copy.db") == run_json("list", "--target", served.target)
    assert copied["position"] >= checked["position"]


# --- backup and restore


def test_a_backup_of_a_log_under_writers_is_whole(log_file: Path, tmp_path: Path) -> None:
    """It is of one moment, and the commits of others do not make it begin anew, or wait for it."""
    stop = threading.Event()
    commits = []

    def write() -> None:
        with closing(open_log(log_file)) as log:
            while not stop.is_set():
                log.append([Tick()])
                commits.append(time.monotonic())

    writer = threading.Thread(target=write)
    writer.start()
    before = head_of(log_file)
    try:
        done = subprocess.run(
            [sys.executable, *COMMAND, "backup", str(tmp_path / "copy.db"), "--db", str(log_file), "--json"],
            capture_output=True, check=True, timeout=60,
        )  # fmt: skip
    finally:
        stop.set()
        writer.join()
    content = json.loads(done.stdout)
    with closing(open_reader(tmp_path / "copy.db")) as copy:
        assert before.position <= copy.head().position < head_of(log_file).position
        assert copy.head().position == content["position"]
        assert list(copy.check(lambda _: None)) == []
        result = verify(copy)
    assert (result.equal, result.decisions) == (600, 600)
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []


def test_a_backup_never_takes_the_place_of_another_file(log_file: Path, tmp_path: Path) -> None:
    """Last week's backup may be the only good one. Nor does it take what another log has left beside that name: SQLite
    would read that file's commits as the backup's."""
    dest = tmp_path / "copy.db"
    dest.write_text("precious")
    assert "--force" in invoke("backup", dest, "--db", log_file).output
    assert dest.read_text() == "precious"
    run("backup", dest, "--db", log_file, "--force")
    dest.unlink()
    shutil.copy(log_file, tmp_path / "copy.db-wal")
    assert "copy.db-wal: is there already" in invoke("backup", dest, "--db", log_file).output
    run("backup", dest, "--db", log_file, "--force")
    assert not (tmp_path / "copy.db-wal").exists()
    assert head_of(dest) == head_of(log_file)
    os.mkfifo(tmp_path / "pipe")
    no_names = [tmp_path / "pipe", *[tmp_path / f"{log_file.name}-{ending}" for ending in ("wal", "shm", "last")]]
    for wrong in (log_file, tmp_path, tmp_path / "none" / "copy.db", *no_names):
        done = invoke("backup", wrong, "--db", log_file, "--force")
        assert done.exit_code == 1
    assert (tmp_path / "pipe").is_fifo()  # it might have been /dev/null
    assert invoke("restore", dest, "--db", tmp_path / "pipe").exit_code == 1
    assert (tmp_path / "pipe").is_fifo()
    assert head_of(log_file) == head_of(dest)


def test_a_damaged_log_gives_no_backup(log_file: Path, tmp_path: Path) -> None:
    """A backup that has its name is one that can be restored."""
    with closing(sqlite3.connect(log_file)) as connection:
        connection.execute("update decisions set unit_id = 'x' where position = (select max(position) from decisions)")
        connection.commit()
    done = invoke("backup", tmp_path / "copy.db", "--db", log_file)
    assert done.exit_code == 1
    assert "the copy is damaged" in done.output
    assert not (tmp_path / "copy.db").exists()


def test_acknowledged_entries_that_are_gone_are_no_backup(log_file: Path, tmp_path: Path) -> None:
    """A log whose write-ahead log was lost looks whole: the last acknowledged position says that it is not."""
    server = ServerProcess(log_file)
    server.kill()
    (tmp_path / "shop.db-wal").unlink()
    done = invoke("backup", tmp_path / "copy.db", "--db", log_file)
    assert "were acknowledged and are not there" in done.output
    assert not (tmp_path / "copy.db").exists()


def test_a_restored_log_serves_and_the_old_one_is_kept(log_file: Path, tmp_path: Path) -> None:
    """With what a killed server had acknowledged: it lies in the write-ahead log of the old one."""
    run("backup", tmp_path / "copy.db", "--db", log_file)
    server = ServerProcess(log_file)
    done = invoke("restore", tmp_path / "copy.db", "--db", log_file)
    assert (done.exit_code, "another server writes this log" in done.output) == (1, True)
    server.kill()
    assert (tmp_path / "shop.db-last").exists()
    old = head_of(log_file)
    content = run_json("restore", tmp_path / "copy.db", "--db", log_file)
    kept = Path(content["kept"])
    assert (content["kept_position"], head_of(kept)) == (old.position, old)
    assert head_of(log_file) == head_of(tmp_path / "copy.db")
    assert not (tmp_path / "shop.db-last").exists()
    again = ServerProcess(log_file)
    assert again.terminate() == 0
    with closing(open_reader(log_file)) as log:
        assert list(log.check(lambda _: None)) == []


def test_a_damaged_backup_changes_nothing(log_file: Path, tmp_path: Path) -> None:
    """The log that is there may be better than nothing."""
    run("backup", tmp_path / "copy.db", "--db", log_file)
    with closing(sqlite3.connect(tmp_path / "copy.db")) as connection:
        connection.execute("delete from rewards where position = (select max(position) from rewards)")
        connection.commit()
    before = head_of(log_file)
    names = sorted(one.name for one in tmp_path.iterdir())
    assert invoke("restore", tmp_path / "copy.db", "--db", log_file).exit_code == 1
    assert head_of(log_file) == before
    assert sorted(one.name for one in tmp_path.iterdir() if not one.name.startswith("copy.db-")) == names


def test_a_restore_that_was_killed_is_made_again(log_file: Path, tmp_path: Path) -> None:
    """The old log has two names then, so that no server writes it, and it is whole under both."""
    run("backup", tmp_path / "copy.db", "--db", log_file)
    with closing(open_log(log_file)) as log:
        log.append([Tick()])
    old = head_of(log_file)
    (tmp_path / "shop.db.before-kill").hardlink_to(log_file)
    with pytest.raises(LogError, match="a second name"):
        open_log(log_file)
    run("restore", tmp_path / "copy.db", "--db", log_file)
    assert head_of(tmp_path / "shop.db.before-kill") == old
    with closing(open_log(log_file)) as log:
        assert log.head() == head_of(tmp_path / "copy.db") != old


def test_a_log_that_is_gone_can_be_restored(log_file: Path, tmp_path: Path) -> None:
    """The usual case: a disk was lost."""
    run("backup", tmp_path / "copy.db", "--db", log_file)
    content = run_json("restore", tmp_path / "copy.db", "--db", tmp_path / "new.db")
    assert (content["kept"], content["kept_position"]) == (None, None)
    assert head_of(tmp_path / "new.db") == head_of(log_file)


def test_a_log_of_an_older_release_is_backed_up_as_it_is(tmp_path: Path) -> None:
    """Before the upgrade is when a backup matters most."""
    old = Path("tests/data/log-0.1.0.db")
    shutil.copy(old, tmp_path / "old.db")
    run("backup", tmp_path / "copy.db", "--db", tmp_path / "old.db")
    with closing(open_reader(tmp_path / "copy.db")) as copy:
        assert verify(copy).first is None


# --- check


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log whose decisions were made with models that a server has learned."""
    file = tmp_path_factory.mktemp("learned") / "shop.db"
    write_past(file, 1000, shop())
    served = SubprocessClient(file)
    for n in range(30):
        served.decide("shop", decision_id=f"new-{n}", unit_id=f"u{n}")
    served.close()
    return file


def test_the_newest_decisions_are_made_again(learned: Path) -> None:
    """From the stored models, by the code that serves: a build that decides otherwise is found before it is needed."""
    content = run_json("check", "--db", learned, "--last", "1h")
    assert (content["decisions"], content["equal"], content["skipped"]) == (30, 30, 0)
    assert (content["damage"], content["first_difference"]) == ([], None)
    assert content["bytes"]["database"] == learned.stat().st_size
    some = run_json("check", "--db", learned, "--last", "10d", "--most", 50)
    assert (some["decisions"], some["cut"]) == (50, True)
    every = run_json("check", "--db", learned, "--last", "10d")
    assert (every["equal"], every["cut"]) == (1030, False)
    text = run("check", "--db", learned, "--last", "10d", "--most", 50)
    assert "50 of 50 decisions of the last 10 days equal (of each version the newest 50 at most" in text
    text = run("check", "--db", learned, "--last", "1h")
    assert text.startswith(f"whole up to position {content['position']}, ")
    assert "30 of 30 decisions of the last 1 h equal" in text or "30 of 30 decisions of the last 60 min equal" in text


def test_a_log_that_is_damaged_or_gone_has_another_exit_code(learned: Path, tmp_path: Path) -> None:
    """A script tells both from a decision that comes out otherwise."""
    damaged = tmp_path / "damaged.db"
    shutil.copy(learned, damaged)
    with closing(sqlite3.connect(damaged)) as connection:
        connection.execute("update decisions set unit_id = 'x' where position = (select max(position) from decisions)")
        connection.commit()
    done = invoke("check", "--db", damaged, "--json")
    content = json.loads(done.stdout)
    assert (done.exit_code, content["decisions"]) == (2, 0)
    assert any("an entry was changed" in one["text"] for one in content["damage"])
    done = invoke("check", "--db", tmp_path / "none.db", "--json")
    assert (done.exit_code, done.stdout) == (2, "")


def test_a_decision_that_comes_out_otherwise_is_named(tmp_path: Path) -> None:
    """Written with its checksum by something that does not decide as this code does."""
    write_past(tmp_path / "shop.db", 5, shop())
    with closing(open_log(tmp_path / "shop.db")) as log:
        logged = log.find(DecisionId("d0"))
        assert logged is not None
        other = "b" if logged.decision.action == "a" else "a"
        log.append([logged.decision._replace(decision_id=DecisionId("odd"), unit_id="u9", action=ActionId(other))])
    done = invoke("check", "--db", tmp_path / "shop.db", "--json")
    content = json.loads(done.stdout)
    assert (done.exit_code, content["decisions"] - content["equal"]) == (1, 1)
    assert "decision odd: " in content["first_difference"]
