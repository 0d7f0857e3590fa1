"""`decider forget` removes a person's ids, and what remains can still be proved and recomputed."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from decider.errors import LogCorrupt
from decider.learn.archive import archive
from decider.log.forgotten import KEY, MADE_UP, ChangedCommit, Originals, Removal, removals
from decider.log.open import open_log, open_reader, open_to_cut, open_to_forget
from decider.log.protocol import NewReward, NewVersion
from decider.server.command import main
from decider.types import ExperimentId, Position, Time
from simulator.commands.group import main as simulator
from simulator.verify import verify
from tests.conftest import Clock, sample_experiment, spec
from tests.rpc_clients import InProcessClient, experiment, rows
from tests.test_log_damage import fill
from tests.test_verify import Drive, eventful
from tests.two_writers import decision

UNIT = "unit-7"


@pytest.fixture
def log(tmp_path: Path, clock: Clock) -> Path:
    """A log in which much has happened, closed."""
    path = tmp_path / "shop.db"
    with closing(open_log(path, clock=clock)) as opened:
        eventful(Drive(opened, clock))
        for (position,) in rows(path, "select position from decisions where unit_id = ?", UNIT):
            opened.append([NewReward(Position(position), "click", 0.5, reward_id=f"order-of-{UNIT}-{position}")])
    return path


def forget(log: Path, *options: str, unit: str = UNIT) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, ["forget", unit, "--db", str(log), *options])


def damages(log: Path) -> list[str]:
    """What the check of the log finds."""
    with closing(open_reader(log)) as opened:
        return [str(one) for one in opened.check(lambda _: None)]


def count(log: Path, unit: str = UNIT) -> int:
    """Decisions of a unit."""
    ((found,),) = rows(log, "select count(*) from decisions where unit_id = ?", unit)
    return int(found)


def test_the_ids_of_a_unit_are_gone_and_everybody_elses_decisions_are_recomputed(log: Path) -> None:
    """That is what the person asked for, and what the auditor asks for."""
    with closing(open_reader(log)) as opened:
        before = verify(opened)
    mine = count(log)
    assert mine > 2
    ids = [id_ for row in rows(log, "select decision_id from decisions where unit_id = ?", UNIT) for id_ in row]
    ran = forget(log, "--rebuild")
    assert ran.exit_code == 0, ran.output
    assert ran.output == f"{mine} decisions forgotten: each has a unit of its own; contexts are kept\n"
    assert damages(log) == []
    with closing(open_reader(log)) as opened:
        after = verify(opened)
    assert after.first is None
    assert (after.decisions, after.equal) == (before.decisions - mine, before.equal - mine)
    assert (after.forgotten, after.unlearned) == (mine, 0)
    units = rows(log, "select unit_id, decision_id from decisions where unit_id like 'forgotten-%'")
    assert len(units) == mine == len(set(units)) == len({unit for unit, _ in units})
    assert all(unit.startswith(MADE_UP) and id_.startswith(MADE_UP) for unit, id_ in units)
    assert not [id_ for id_ in ids if rows(log, "select 1 from decisions where decision_id = ?", id_)]
    content = b"".join(file.read_bytes() for file in log.parent.iterdir())
    assert UNIT.encode() not in content


def test_verify_says_what_it_could_not_recompute_and_which_entries_removed_it(log: Path) -> None:
    """Whoever did not order a removal must see that there was one."""
    mine = count(log)
    forget(log)
    ((entry,),) = rows(log, "select position from builds where build like ?", f"%{KEY}%")
    ran = CliRunner().invoke(simulator, ["verify", str(log)])
    assert ran.exit_code == 0, ran.output
    assert f"{mine} decisions of forgotten units are not recomputed: see entries {entry}\n" in ran.output


def test_old_rows_are_gone_from_the_write_ahead_log(log: Path) -> None:
    """It holds whole pages as they were, until it is emptied; and the answer says what else may hold them."""
    with closing(sqlite3.connect(log)) as reader:  # keeps the files of the write-ahead log
        reader.execute("select count(*) from decisions").fetchone()
        ran = forget(log)
        assert ran.output.endswith("--rebuild writes it anew\n")
        assert UNIT.encode() not in Path(f"{log}-wal").read_bytes()


def test_a_reader_that_keeps_old_rows_is_told_of(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report, a notebook: as long as it reads, its snapshot stays in the write-ahead log."""
    monkeypatch.setattr("decider.log.sqlite.forget.WAIT", 100)
    with closing(sqlite3.connect(log, isolation_level=None)) as reader:
        reader.execute("begin")
        reader.execute("select count(*) from decisions").fetchone()
        ran = forget(log)
        assert ran.exit_code == 1
        assert "the log does not name the unit any more" in ran.output
        assert "end the reader" in ran.output
    assert count(log) == 0
    again = forget(log)
    assert again.exit_code == 0
    assert "none any more" in again.output


def test_a_unit_that_is_no_text_is_refused(log: Path) -> None:
    """Bytes of another encoding reach a command as they are; no log has such an id."""
    command: list[str | bytes] = [sys.executable, "-m", "decider.cli", "forget", b"unit-\xff", "--db", str(log)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "is no UTF-8 text" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_what_counts_for_figures_stays(log: Path) -> None:
    """Totals, learning and estimates must not change because somebody asked to be forgotten."""
    figures = "select position, time, version, pmf, action, propensity, reason, model, build from decisions"
    rewards = "select position, decision, name, value, weight, occurred_at from rewards"
    contexts = "select segment, device, features, action_features from decisions"
    before = [rows(log, f"{sql} order by position") for sql in (figures, rewards, contexts)]
    forget(log)
    assert [rows(log, f"{sql} order by position") for sql in (figures, rewards, contexts)] == before


def test_a_pseudonym_keeps_the_decisions_of_the_unit_together(log: Path) -> None:
    """Where figures are by unit: a unit that is split into several would count as several independent ones."""
    mine = count(log)
    ran = forget(log, "--pseudonym")
    ((unit, found),) = rows(log, "select unit_id, count(*) from decisions where unit_id like 'forgotten-%' group by 1")
    assert (found, f"made-up unit {unit}" in ran.output) == (mine, True)
    assert damages(log) == []


def test_removed_contexts_are_a_named_gap(log: Path) -> None:
    """What was learned from them cannot be recomputed: neither called equal nor called forged."""
    mine = count(log)
    ran = forget(log, "--context")
    assert "contexts are removed" in ran.output
    assert damages(log) == []
    with closing(open_reader(log)) as opened:
        result = verify(opened)
        ((everything,),) = rows(log, "select count(*) from decisions")
    assert result.first is None
    assert result.forgotten == mine
    assert result.unlearned > 0
    assert result.equal == result.decisions > 0
    assert result.decisions + result.forgotten + result.unlearned == everything
    assert (
        f"{result.unlearned} decisions are not recomputed" in CliRunner().invoke(simulator, ["verify", str(log)]).output
    )


@pytest.mark.parametrize("context", [False, True])
@pytest.mark.parametrize("after", [1, 30, 60])
def test_verify_beside_a_removal_tells_no_difference(
    log: Path, context: bool, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The auditor and the person do not wait for each other: what was removed meanwhile is counted apart."""
    monkeypatch.setattr("decider.log.sqlite.forget.WAIT", 10)
    told = 0

    def on_decision() -> None:
        nonlocal told
        told += 1
        if told == after:
            with closing(open_to_forget(log)) as opened:
                for (unit,) in rows(log, "select distinct unit_id from decisions limit 20"):
                    opened.forget(unit, pseudonym=False, context=context, rebuild=False)

    with closing(open_reader(log)) as opened:
        result = verify(opened, on_decision=on_decision)
        everything = opened.count_decisions()
    assert result.first is None
    assert result.equal == result.decisions > 0
    assert result.forgotten > 0
    assert result.decisions + result.forgotten + result.unlearned == everything


def test_several_units_of_one_commit_are_forgotten_one_after_the_other(tmp_path: Path, clock: Clock) -> None:
    """A commit holds the decisions of many: its digest changes each time."""
    path = tmp_path / "log.db"
    with closing(open_log(path, clock=clock)) as opened:
        fill(opened, clock)  # type: ignore[arg-type] # the one implementation
    for unit in ("unit-2", "unit-0", "unit-3", "unit-1"):
        assert "12 decisions forgotten" in forget(path, unit=unit).output
        assert damages(path) == []
    assert rows(path, "select count(*) from decisions where unit_id like 'unit-%'") == [(0,)]


@pytest.mark.parametrize(
    "sql",
    [
        "update decisions set action = 'none' where unit_id like 'forgotten-%'",
        "update decisions set unit_id = 'somebody' where unit_id like 'forgotten-%'",
        "update decisions set propensity = propensity / 2 where unit_id not like 'forgotten-%'",
        "update decisions set unit_id = 'x' where unit_id = 'unit-8'",
        "update rewards set value = 9.5 where decision in (select position from decisions where unit_id like 'forg%')",
        'update builds set build = replace(build, \'"sealed":{}\', \'"sealed":{"home":1}\')',
        """update builds set build = '{"forgotten":{"decisions":[],"sealed":{},"commits":[]}}'
           where build like '%forgotten%'""",
        "delete from builds where build like '%forgotten%'",
    ],
)
def test_a_row_that_was_changed_otherwise_is_damage_as_before(log: Path, sql: str) -> None:
    """Forgetting must not become the way to change a log unnoticed."""
    forget(log)
    with closing(sqlite3.connect(log)) as connection, connection:
        assert connection.execute(sql).rowcount
    assert damages(log)


def test_a_damaged_entry_is_told_as_damage(log: Path) -> None:
    """Not as a traceback."""
    forget(log)
    with closing(sqlite3.connect(log)) as connection, connection:
        connection.execute("""update builds set build = '{"forgotten": 7}' where build like '%forgotten%'""")
    assert any("damaged" in text for text in damages(log))
    with closing(open_reader(log)) as opened, pytest.raises(LogCorrupt, match="what was forgotten is damaged"):
        verify(opened)


def test_a_server_goes_on_meanwhile(tmp_path: Path) -> None:
    """Nobody stops a shop for one visitor; and what the visitor does later is new."""
    db = tmp_path / "log.db"
    with closing(InProcessClient(db)) as client:
        client.apply(experiment("home"))
        first = [client.decide("home", f"u{number % 5}", decision_id=f"d{number}") for number in range(50)]
        for reply in first:
            client.reward(reply.decision_id, value=1.0, reward_id=f"r-{reply.decision_id}")
        assert "10 decisions forgotten" in forget(db, unit="u3").output
        later = [client.decide("home", f"u{number % 5}", decision_id=f"d{number}") for number in range(50)]
        assert client.reward(later[3].decision_id, value=1.0, reward_id="r-d3") == "joined"
        same = [number for number in range(50) if later[number] == first[number]]
        assert {number for number in range(50) if number % 5 != 3} <= set(same)
        assert count(db, "u3") == 10
    assert damages(db) == []
    with closing(open_reader(db)) as opened:
        result = verify(opened)
    assert (result.equal, result.decisions, result.forgotten) == (50, 50, 10)


def test_a_unit_that_is_not_there_changes_nothing(log: Path) -> None:
    """A typo must not look like success."""
    before = rows(log, "select * from head")
    assert "the log has no decision of this unit" in forget(log, unit="nobody").output
    assert rows(log, "select * from head") == before


def test_no_log_is_made_where_there_is_none(tmp_path: Path) -> None:
    """A wrong path would answer "nothing to forget"."""
    ran = forget(tmp_path / "missing.db")
    assert ran.exit_code == 1
    assert "there is no such log" in ran.output
    assert not (tmp_path / "missing.db").exists()


def test_a_killed_run_leaves_each_decision_as_it_was_or_forgotten(tmp_path: Path, clock: Clock) -> None:
    """And the next run does the rest."""
    db, source = tmp_path / "log.db", Random(5)
    with closing(open_log(db, clock=clock)) as opened:
        opened.append([NewVersion(sample_experiment(), 1, waits=False)])
        (version,) = opened.versions()
        for number in range(150):
            clock.advance(source.choice([0, 1]))
            units = [source.choice(["me", "you"]) for _ in range(20)]
            opened.append([decision(version, f"{number}-{i}", unit) for i, unit in enumerate(units)])
    everything = count(db, "me")
    left = everything
    for attempt in range(20):
        command = [sys.executable, "-m", "decider.cli", "forget", "me", "--db", str(db)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if count(db, "me") < left or attempt == 0:
                process.send_signal(signal.SIGKILL)
                break
        process.wait()
        left = count(db, "me")
        with closing(open_reader(db)) as opened:
            named = {p for removal in removals(opened.builds().values()) for p in removal.decisions}
        gone = {row[0] for row in rows(db, "select position from decisions where unit_id like 'forgotten-%'")}
        assert named == gone
        assert len(gone) == everything - left
        if not left:
            break
    assert forget(db, unit="me").exit_code == 0
    assert count(db, "me") == 0
    assert damages(db) == []


SMALL_PIECES = """
import sys
from decider.log.sqlite import forgetting
from decider.server.command import main
forgetting.FORGET_AT_ONCE = 4
main(sys.argv[1:])
"""


def test_a_dozen_kills_in_the_midst_lose_nothing_and_the_next_run_ends_it(tmp_path: Path, clock: Clock) -> None:
    """Each kill comes after a piece that the run has committed, and before its last one."""
    db, source = tmp_path / "log.db", Random(6)
    with closing(open_log(db, clock=clock)) as log:
        log.append([NewVersion(sample_experiment(), 1, waits=False)])
        (version,) = log.versions()
        for number in range(20):
            clock.advance(source.choice([0, 1]))
            marks = log.append([decision(version, f"{number}-{i}", f"secret-{i % 2}") for i in range(40)])
            log.append([NewReward(mark.position, "click", 1.0, reward_id="r-secret-0") for mark in marks[::2] if mark])
    archived = move_half_away(db, tmp_path / "archive")
    pieces = "select count(*) from builds where build like '%forgotten%'"
    names = "select count(*) from (select unit_id from decisions union all select unit_id from archived_decisions)"
    kills = 0
    for _ in range(12):
        ((before,),) = rows(db, pieces)
        command = [sys.executable, "-c", SMALL_PIECES, "forget", "secret-0", "--db", str(db), "--context"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while rows(db, pieces) == [(before,)]:
            assert process.poll() is None
        time.sleep(source.uniform(0, 0.003))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        assert damages(db) == []
    assert kills == 12
    assert rows(db, f"{names} where unit_id = 'secret-0'")[0][0] > 0
    assert forget(db, "--rebuild", "--context", unit="secret-0").exit_code == 0
    assert damages(db) == []
    content = b"".join(file.read_bytes() for file in tmp_path.iterdir() if file.is_file())
    assert (b"secret-0" in content, b"secret-1" in content) == (False, True)
    assert rows(db, f"{names} where unit_id = 'secret-1'") == [(400,)]
    assert archived > 0
    with closing(open_reader(db, archive=[tmp_path / "archive"])) as whole:
        assert whole.check(lambda _: None) == []
        assert whole.count_decisions() == 800


def move_half_away(db: Path, folder: Path) -> int:
    """Archive the first decisions of a log, which keeps them for retries. Returns their number."""
    with closing(open_to_cut(db)) as log:
        before = Time(log.head().time - 5_000_000)
        part = archive(log, folder, before=before, remember=10**12, say=lambda _: None)
    return part.plan.decisions if part else 0


@given(st.lists(st.binary(min_size=1, max_size=2), min_size=1, max_size=5))
def test_forged_digests_cannot_keep_the_check_busy_for_ever(digests: list[bytes]) -> None:
    """An entry that says A came from B and another that B came from A."""
    span = (Position(1), Position(2))
    made = [ChangedCommit(*span, digests[i - 1], digests[i]) for i in range(len(digests))]
    assert Originals(made).digest(*span, digests[0]) in digests


@given(st.lists(st.integers(1, 10**9).map(Position), max_size=4), st.binary(max_size=32))
def test_a_removal_survives_its_entry(decisions: list[Position], digest: bytes) -> None:
    """What is read back is what was written."""
    removal = Removal(
        tuple(decisions),
        {ExperimentId("home"): Time(7)},
        (ChangedCommit(Position(3), Position(9), digest, digest[::-1]),),
    )
    assert removals([{"decider": "1"}, removal.to_build()]) == [removal]


def test_a_log_that_was_cut_forgets_what_it_still_holds(tmp_path: Path, clock: Clock) -> None:
    """Archived decisions stay in the log for retries; and the parts that are changed are named."""
    log = tmp_path / "shop.db"
    with closing(open_log(log, clock=clock)) as opened:
        drive = Drive(opened, clock)
        drive.apply(sample_experiment(policy=spec("squarecb")))
        drive.visits(150)
    ((made,),) = rows(log, "select count(*) from decisions")
    forget(log, unit="unit-3")
    with closing(open_to_cut(log)) as cuttable:
        part = archive(
            cuttable, tmp_path / "archive", before=Time(cuttable.head().time - 60_000_000), remember=10**12, say=print
        )
    assert part is not None
    archived = "select count(*) from archived_decisions where unit_id = ?"
    assert rows(log, archived, UNIT)[0][0] > 0
    ran = forget(log)
    assert f"written anew: {part.folder}\n" in ran.output
    assert rows(log, archived, UNIT) == [(0,)]
    assert count(log) == 0
    assert damages(log) == []
    with closing(open_reader(log)) as opened_again:
        result = verify(opened_again)
    assert result.first is None
    assert result.decisions == result.equal > 0
    with closing(open_reader(log, archive=[tmp_path / "archive"])) as whole:
        assert whole.check(lambda _: None) == []
        result = verify(whole)
    assert result.first is None
    assert (result.decisions, result.equal) == (made - result.forgotten, made - result.forgotten)
    part.folder.rename(tmp_path / "away")
    assert f"{part.folder}: the part" in forget(log).output
