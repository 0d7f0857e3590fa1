"""What `check` finds: every change of what was acknowledged, wherever it is made."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decider.errors import LogCorrupt, LogError
from decider.experiment.definition import Attribution
from decider.experiment.limits import Cap
from decider.experiment.origin import Origin
from decider.experiment.unit_history import Seen
from decider.log.exact_sum import ExactSum
from decider.log.log_totals import LogTotals
from decider.log.open import open_to_forget
from decider.log.protocol import (
    Damage,
    EarlyActivation,
    Entry,
    EventLog,
    ModelName,
    NewActivation,
    NewBuild,
    NewLeaveOut,
    NewLink,
    NewModel,
    NewReward,
    NewRewardChange,
    NewUnitReward,
    NewVersion,
    Orphan,
    Serves,
    Tick,
    UnitDecision,
)
from decider.log.sqlite import action_counts
from decider.log.sqlite.check import _unreadable_too
from decider.log.sqlite.checkpoints import stored_checkpoints, write_checkpoint
from decider.log.sqlite.reader import SqliteReader
from decider.log.sqlite.writer import SqliteLog
from decider.log.tables import ENTRY_TABLES
from decider.log.totals import POLICY
from decider.policy.saved import SavedModel
from decider.types import NOTHING_REACHED, ActionId, Context, DecisionId, ExperimentId, Position, Time
from tests.conftest import SECOND, Clock, names, sample_experiment, texts
from tests.rpc_clients import rows
from tests.two_writers import decision

HOME = ExperimentId("home")


def fill(log: SqliteLog, clock: Clock, rounds: int = 12) -> None:
    """Every kind of entry, in commits of one and of many, with the clock moving and not."""
    origin = Origin("ann", "api", "for the test")
    log.append([NewVersion(sample_experiment(sticky=600 * SECOND), 1, waits=True, origin=origin)])
    version = log.versions()[-1]
    log.name_build({"decider": "1"})
    log.append([Serves(version.position)])
    for number in range(rounds):
        clock.advance(number % 3)
        full = Context("vip", "phone", "mail", "north", "cart", {"age": 0.5 + number})
        made = [decision(version, f"{number}-{i}", f"unit-{i}") for i in range(4)]
        made[0] = made[0]._replace(context=full, eligible=version.all_active[:2], pmf=(500_000, 500_000))
        made[0] = made[0]._replace(action_features={ActionId("sale"): {"price": 1.5}}, propensity=0.5)
        marks = log.append(made)
        at = marks[0].position if marks[0] else Position(0)
        log.append([NewReward(at, "click", 1.0, 0.5, f"r{number}", Time(number)), NewReward(at, "buy", 2.0)])
        log.append([NewReward(at, "click", 1.0, 0.5, f"r{number}"), Orphan("click"), Tick()])
        log.append([NewRewardChange(at, f"r{number}", None if number % 3 == 1 else 0.25, "click", 0.5, Time(number))])
        log.append(
            [NewActivation(at, ActionId("none")), EarlyActivation(DecisionId(f"early-{number}"), ActionId("sale"))]
        )
        kept = decision(version, f"kept-{number}", f"visitor-{number}")
        seen = Seen(Position(0), Position(at), clock())
        log.append([UnitDecision(kept, keep=600 * SECOND, seen=seen)])
        name = ModelName(HOME, Position(at), "signature one")
        log.append([NewModel(name, learned=number)])
        if number in (rounds // 2, rounds - 1):
            store_totals(log)
    data = Random(1).randbytes(2560)  # several pieces, also after it was compressed
    log.models.store(name, SavedModel(name.signature, hashlib.sha256(data).hexdigest(), data), keep_bytes=10**6)


def fill_limited(log: EventLog, clock: Clock) -> None:
    """What counts for caps and budgets, activated and not, and what was withheld."""
    made = sample_experiment(
        id=ExperimentId("limited"), needs_activation=True, caps=(Cap(3, 600 * SECOND, kind="offer"),)
    )
    sale = replace(made.actions[0], daily_budget=9)
    log.append([NewVersion(replace(made, actions=(sale, *made.actions[1:])), 1)])
    version = log.versions()[-1]
    for number in range(4):
        clock.advance(1)
        one = decision(version, f"limited-{number}", f"unit-{number}")
        (mark,) = log.append([UnitDecision(one, reached=NOTHING_REACHED, withheld={ActionId("none"): "eligible_if"})])
        if mark is not None and number in (0, 3):
            log.append([NewActivation(mark.position)])


def fill_persons(log: EventLog, clock: Clock) -> None:
    """Rewards by unit, credited to a person's decisions, and last words that seal them."""
    made = sample_experiment(id=ExperimentId("stores"))
    log.append([NewVersion(replace(made, reward=replace(made.reward, attribution=Attribution.ALL)), 1)])
    version = log.versions()[-1]
    for number in range(4):
        clock.advance(1)
        log.append([NewLink(f"person-{number}", f"visitor-of-{number}")])
        log.append([decision(version, f"store-{number}-{i}", f"person-{number}") for i in range(2)])
        log.append([NewUnitReward(f"visitor-of-{number}", "click", 1.0, f"till-{number}", Time(number), made.id)])
        (sealed, _) = log.append([decision(version, f"last-{number}", "somebody"), Tick()])
        if sealed is not None:
            log.append([NewReward(sealed.position, "click", 1.0, final=True)])
    known = Time(log.head().time - SECOND)
    (left_out,) = log.append([NewLeaveOut(made.id, known, None, origin=Origin("Ada", "api", "the pixel was down"))])
    if left_out is not None:
        log.append(
            [NewLeaveOut(made.id, known, log.head().time, left_out.position, Origin("Ada", "api", "it is back"))]
        )


def count_actions(log: EventLog) -> None:
    """As in a log that is longer than a piece."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(action_counts, "PIECE", 20)
        for _ in range(50):
            log.maintain()


def store_totals(log: EventLog) -> None:
    """The totals up to the end of the log."""
    counted = LogTotals(log)
    counted.catch_up()
    log.store_totals(counted.checkpoint())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed log with a bit of everything, upgraded from an older release, so that `chain_start` has its row."""
    path = tmp_path_factory.mktemp("whole") / "log.db"
    shutil.copy(Path(__file__).parent / "data" / "log-0.1.0.db", path)
    with closing(sqlite3.connect(path)) as db:
        for table in ("decisions", "rewards", "ticks"):
            db.execute(f"delete from {table} where position > 40")  # noqa: S608 - our names
        db.execute("delete from models")
        db.commit()
        db.execute("vacuum")
    clock = Clock()
    with closing(SqliteLog(path, clock=clock, piece_bytes=1000)) as log:
        fill(log, clock)
        fill_limited(log, clock)
        fill_persons(log, clock)
        count_actions(log)
        assert log.check(lambda _: None) == []
    return path


@pytest.fixture
def file(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copy(whole, tmp_path / "log.db"))


def damage(file: Path) -> Sequence[Damage]:
    """What is found."""
    with closing(SqliteReader(file)) as log:
        return log.check(lambda _: None)


def columns() -> list[tuple[str, str]]:
    """Every column of every table, from the schema."""
    schema = (Path(__file__).parents[1] / "decider" / "log" / "sqlite" / "schema.sql").read_text(encoding="utf-8")
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(schema)
        tables = db.execute("select name from sqlite_master where type = 'table' and name not like 'sqlite%'")
        return [
            (table, column[1]) for (table,) in tables.fetchall() for column in db.execute(f"pragma table_info({table})")
        ]


HARMLESS = {
    ("closed_until", "time"): "later: more versions are asked; earlier: only where none is missed, else it is found",
    ("models", "created"): "says when a model was stored; nothing is decided by it",
}

KEYS = {
    "refused_rewards": "name, outcome",
    "action_kinds": "experiment, action",
    "assignments": "experiment, unit_id",
    "row_sums": "name",
    "unit_decisions": "experiment, unit_id, decision",
    "creditable_decisions": "unit_id, decision",
    "persons": "unit_id",
    "daily_counts": "experiment, day_end, day_begin, action",
    "action_counts": "version, action, drawn",
}
"""Of tables without row ids."""

CHANGES = {
    "integer": "{0} {1} 1",
    "real": "{0} + 0.0000001",
    "text": "coalesce({0}, '') || 'x'",
    "blob": "zeroblob(length({0}))",
}


def change(file: Path, table: str, column: str, *, last: bool) -> None:
    """One value of one row, as little as possible."""
    with closing(sqlite3.connect(file)) as db:
        (kind,) = [info[2] for info in db.execute(f"pragma table_info({table})") if info[1] == column]
        key = KEYS.get(table, "rowid")
        rows = db.execute(f"select {key} from {table} order by {key}").fetchall()  # noqa: S608 - from the schema
        row = rows[-1 if last else 0]
        where = " and ".join(f"{name} = ?" for name in key.split(", "))
        old = f"coalesce({column}, 0)" if kind == "INTEGER" else column
        value = CHANGES[kind.lower()].format(old, "+" if last else "-")  # away from the other rows: keys must allow it
        db.execute(f"update {table} set {column} = {value} where {where}", row)  # noqa: S608 - from the schema
        db.commit()


ARCHIVE_TABLES = {
    "archives",
    "cut",
    "archived_experiments",
    "archived_times",
    "kept_models",
    "archived_decisions",
    "bases",
    "base_pieces",
}
"""Empty in a log of which nothing is archived: `test_trim.py` damages one that was cut."""


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize(("table", "column"), [one for one in columns() if one[0] not in ARCHIVE_TABLES])
def test_a_changed_value_is_found(file: Path, table: str, column: str, *, last: bool) -> None:
    """Views, metrics and reports read columns that replay does not: none may be changed unseen."""
    change(file, table, column, last=last)
    if (table, column) in HARMLESS:
        assert [one for one in damage(file) if "counts as closed" not in one.text] == []
    else:
        assert damage(file) != []


@pytest.mark.parametrize("table", ["decisions", "rewards", "activations", "recalls", "published", "builds", "serves",
                                   "ticks", "experiments", "refused_rewards", "early_activations", "head",
                                   "chain_start", "open_versions", "closed_until", "model_bytes", "withheld",
                                   "exposures", "reward_changes", "seals", "unit_rewards", "links", "marks",
                                   "signatures", "assignments", "persons", "creditable_decisions", "unit_decisions",
                                   "daily_counts", "action_kinds", "row_sums", "version_notes",
                                   "leave_outs", "action_counts", "action_counts_until"])  # fmt: skip
@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
def test_a_row_that_was_taken_away_is_found(file: Path, table: str, *, last: bool) -> None:
    """The last decision as well as the first; and of what follows from entries, too, since it decides what comes."""
    take_away(file, table, last=last)
    assert damage(file) != []


def take_away(file: Path, table: str, *, last: bool) -> None:
    """One row."""
    key = KEYS.get(table, "rowid")
    with closing(sqlite3.connect(file)) as db:
        found = db.execute(f"select {key} from {table} order by {key}").fetchall()  # noqa: S608 - from the schema
        where = " and ".join(f"{name} = ?" for name in key.split(", "))
        db.execute(f"delete from {table} where {where}", found[-1 if last else 0])  # noqa: S608 - from the schema
        db.commit()


ADDED_ANYWHERE = {
    "assignments": "select experiment, 'another', until, decision from assignments limit 1",
    "persons": "select 'another', person from persons limit 1",
    "creditable_decisions": "select 'another', decision, until from creditable_decisions limit 1",
    "unit_decisions": "select experiment, 'another', decision from unit_decisions limit 1",
    "exposures": "select 1, experiment, unit_id, action, kind, time, until, reserved_until, day_begin, day_end "
                 "from exposures limit 1",
    "daily_counts": "select experiment, day_end, day_begin, 'none', 1 from daily_counts limit 1",
    "action_kinds": "select experiment, 'another', kind from action_kinds limit 1",
}  # fmt: skip
"""A row that could stand there, of tables without positions, in every database."""

ADDED = {
    **ADDED_ANYWHERE,
    "row_sums": "select 'another', 0",
    "early_activations": "select id + 99, 'another', action, time from early_activations limit 1",
    "refused_rewards": "select 'another', outcome, 1 from refused_rewards limit 1",
    "open_versions": "select position, 'another' from experiments where position not in "
                     "(select version from open_versions) union all select 9999, 'another' limit 1",
    "marks": "select position, zeroblob(32) from decisions where position not in (select position from marks) limit 1",
}  # fmt: skip
"""The same, of SQLite."""


@pytest.mark.parametrize("table", sorted(ADDED))
def test_a_row_that_nobody_wrote_is_found(file: Path, table: str) -> None:
    """It would make somebody a person with strangers, or use up a budget."""
    with closing(sqlite3.connect(file)) as db:
        db.execute(f"insert into {table} {ADDED[table]}")
        db.commit()
    assert damage(file) != []


def test_two_persons_that_were_made_one_are_found(file: Path) -> None:
    """Every link still joins what it says: that no link joins them shows in the sum alone."""
    with closing(sqlite3.connect(file)) as db:
        (one, other, *_) = db.execute("select distinct person from persons order by person").fetchall()
        db.execute("update persons set person = ? where person = ?", (*one, *other))
        db.commit()
    assert [str(one) for one in damage(file)] == ["table persons has other rows than were written"]


def test_what_is_dropped_and_forgotten_is_no_damage(tmp_path: Path) -> None:
    """Sums follow whatever the log does with its rows itself: over, replaced, forgotten, linked over several steps."""
    path, clock = tmp_path / "log.db", Clock()
    with closing(SqliteLog(path, clock=clock)) as log:
        log.append([NewVersion(sample_experiment(sticky=5 * SECOND), 1)])
        version = log.versions()[-1]
        for number in range(12):
            clock.advance(2)
            one = decision(version, f"d-{number}", f"unit-{number % 4}")
            log.append([UnitDecision(one, keep=5 * SECOND, replaces=None)])
            log.append([NewLink(f"unit-{number % 5}", f"unit-{number % 3}")])
            log.maintain()
            assert log.check(lambda _: None) == []
        assert 0 < len(rows(path, "select 1 from assignments")) < 4
    with closing(open_to_forget(path)) as log:
        log.forget("unit-1", pseudonym=False, context=False, rebuild=False)
        assert log.check(lambda _: None) == []


@pytest.mark.parametrize("table", ["head", "chain_start", "model_bytes"])
def test_a_second_row_where_there_is_one_is_found(file: Path, table: str) -> None:
    """Which of the two is read is chance."""
    with closing(sqlite3.connect(file)) as db:
        db.execute(f"insert into {table} select * from {table}")  # noqa: S608 - above
        db.commit()
    assert any(f"table {table} has 2 rows" in str(one) for one in damage(file))


@pytest.mark.parametrize("at", ["(select min(position) - 1 from decisions)", "(select position + 1 from head)", "20"])
def test_an_added_row_is_found(file: Path, at: str) -> None:
    """Before all others, behind them, and at a position that is taken."""
    with closing(sqlite3.connect(file)) as db:
        db.execute(f"insert into activations (position, time, decision) values ({at}, 1, 7777)")  # noqa: S608 - above
        db.commit()
    assert damage(file) != []


@pytest.mark.parametrize("which", ["min", "max"])
def test_stored_totals_that_are_not_those_of_the_entries_are_found(file: Path, which: str) -> None:
    """Metrics go on from them: a wrong number with a right checksum would be wrong for ever."""
    with closing(sqlite3.connect(file)) as db:
        row = db.execute(f"select {which}(position) from totals_checkpoints").fetchone()  # noqa: S608 - above
        (stored,) = [one for one in stored_checkpoints(db) if one.position == row[0]]
        totals = stored.totals
        totals.sealed_reward[HOME, POLICY] += ExactSum.of(5e-324)
        write_checkpoint(db, stored.checkpoint._replace(content=totals.to_json()))
        db.commit()
    assert [str(one) for one in damage(file)] == [
        f"positions {row[0]} to {row[0]}: the totals stored there are not those of the entries"
    ]


def test_damage_is_located_between_two_marks(tmp_path: Path) -> None:
    """In a log of millions nobody looks at each entry: the thousand around it are named, and only those."""
    path, clock = tmp_path / "log.db", Clock()
    with closing(SqliteLog(path, clock=clock)) as log:
        log.append([NewVersion(sample_experiment(), 1)])
        (version,) = log.versions()
        for number in range(100):
            clock.advance(1)
            log.append([decision(version, f"{number}-{i}", "unit") for i in range(50)])
        marks = [position for (position,) in rows(path, "select position from marks order by position")]
    assert all(1 <= after - before <= 1024 + 50 for before, after in pairwise([0, *marks, 5001]))
    with closing(sqlite3.connect(path)) as db:
        for changed in (1500, 4000):
            db.execute("update decisions set unit_id = 'another' where position = ?", (changed,))
        db.commit()
    found = damage(path)
    assert [(one.first <= 1500 <= one.last, one.first <= 4000 <= one.last) for one in found] == [
        (True, False),
        (False, True),
    ]
    assert all(one.last - one.first < 1100 for one in found)
    assert "was changed" in str(found[0])


def test_a_log_that_is_closed_in_the_middle_of_a_stream_says_nothing(file: Path) -> None:
    """A command that ends with an error closes its log first: a traceback would hide what the error says."""
    log = SqliteReader(file)
    stream = log.decisions_between("", "~")
    next(stream)
    log.close()
    del stream


@pytest.mark.parametrize("definition", ["", "{", "{}", "[]", '{"unknown": 1}', '{"id": 7}', "null"])
def test_a_definition_that_cannot_be_read_is_damage(file: Path, definition: str) -> None:
    """Not a traceback, and not the exit code that says "decisions differ"."""
    with closing(sqlite3.connect(file)) as db:
        db.execute("update experiments set definition = ?", (definition,))
        db.commit()
    assert any("cannot be read" in str(one) for one in damage(file))
    with (
        closing(SqliteReader(file)) as log,
        pytest.raises(LogCorrupt, match="definition of the experiment"),
    ):
        log.versions()


def test_values_of_another_type_are_damage(file: Path) -> None:
    """SQLite lets anything stand in any column."""
    with closing(sqlite3.connect(file)) as db:
        db.execute("update decisions set features = x'ff00', pmf = x'5b', unit_id = cast(x'ff' as text)")
        db.execute("update rewards set value = 'much'")
        db.execute("update builds set build = x'01'")
        db.commit()
    assert damage(file) != []


OTHER_TYPES = (8.9e-309, "ä", b"\xff\x00", None, 0.5)


def put(file: Path, table: str, column: str, value: object) -> bool:
    """Another value into a column of the last row, whatever the schema says. False where it was there, or cannot be."""
    key = KEYS.get(table, "rowid")
    with closing(sqlite3.connect(file)) as db:
        db.execute("pragma writable_schema = on")
        db.execute("update sqlite_master set sql = replace(sql, ' not null', '') where name = ?", (table,))
        db.commit()
    with closing(sqlite3.connect(file)) as db:
        row = db.execute(f"select {key} from {table} order by {key} desc limit 1").fetchone()  # noqa: S608 - ours
        where = " and ".join(f"{name} is ?" for name in key.split(", "))
        try:
            sql = f"update {table} set {column} = ? where {where} and {column} is not ?"  # noqa: S608 - ours
            changed = db.execute(sql, (value, *row, value)).rowcount
        except sqlite3.IntegrityError:  # a row id is a number in the file, too
            return False
        db.commit()
        return changed > 0


def catch_up(file: Path) -> None:
    """What a server reads when it starts."""
    with closing(SqliteReader(file)) as log:
        LogTotals(log).catch_up()
        log.follow(Position(0))
        for version in log.versions():
            list(log.sealed_decisions(version.experiment.id, after=Time(0), until=log.head().time))
            list(log.decisions(version.position))


@pytest.mark.parametrize("table", [*(one.name for one in ENTRY_TABLES), "head", "marks", "chain_start"])
def test_a_value_of_another_type_is_found(file: Path, tmp_path: Path, table: str) -> None:
    """One bit in a row's header makes a time a float, a text or nothing: the check says so, and where, and does not
    end with a traceback; a server that starts on it says that the log is damaged, if it notices."""
    copy = tmp_path / "copy.db"
    entry = table in {one.name for one in ENTRY_TABLES}
    names = [column for of, column in columns() if of == table]
    values = [(name, OTHER_TYPES[number % 5]) for number, name in enumerate(names)]
    for name, value in [*values, ("time", 8.9e-309)]:
        shutil.copy(file, copy)
        if name not in names or not put(copy, table, name, value):
            continue
        found = damage(copy)
        assert found, (name, value)
        assert not entry or any(one.last for one in found), (name, value, found)
        with suppress(LogError):
            catch_up(copy)


def test_a_time_that_a_flipped_bit_made_a_float_is_found_where_it_is(file: Path) -> None:
    """The case that ended the check itself: the other damage of the log is found as well."""
    ((position,),) = rows(file, "select max(position) from activations")
    put(file, "activations", "time", 8.9e-309)
    with closing(sqlite3.connect(file)) as db:
        db.execute("update model_bytes set bytes = bytes + 1")
        db.commit()
    found = [str(one) for one in damage(file)]
    assert f"positions {position} to {position}: the time is 8.9e-309, which is no whole number" in found
    assert any("model_bytes" in one for one in found)


@pytest.mark.parametrize(("column", "value"), [("position", "x"), ("time", 0.5), ("time", -1), ("chain", "x")])
def test_a_head_that_is_none_ends_nothing_but_the_start(file: Path, column: str, value: object) -> None:
    """Whoever opens the log is told so in our words."""
    put(file, "head", column, value)
    assert any("damaged" in str(one) for one in damage(file))
    with pytest.raises(LogCorrupt, match="damaged"), closing(SqliteLog(file)):
        pass
    with closing(SqliteReader(file)) as log, pytest.raises(LogCorrupt, match="damaged"):
        log.head()


@pytest.mark.parametrize(
    "error", [AttributeError("x"), struct.error("x"), OverflowError(), AssertionError(), RecursionError(), IndexError()]
)
def test_whatever_damaged_rows_raise_is_damage(error: Exception) -> None:
    """A check that ends with a traceback says neither what else is damaged nor, by its exit code, that anything is."""

    def part() -> Iterator[Damage]:
        yield Damage(Position(1), Position(1), "first")
        raise error

    found = [*_unreadable_too(part())]
    assert [one.text for one in found] == ["first", f"cannot be read: {str(error) or type(error).__name__}"]


@pytest.mark.parametrize(
    "broken",
    [
        "update builds set build = replace(build, '{', '{!')",
        "update builds set build = '[]'",
        "update totals_checkpoints set chain = 'x'",
        "delete from model_bytes",
    ],
)
def test_what_is_no_build_no_chain_and_no_number_is_damage(file: Path, broken: str) -> None:
    """A traceback says neither that the log is damaged nor where."""
    with closing(sqlite3.connect(file)) as db:
        db.execute("pragma ignore_check_constraints = on")
        db.execute(broken)
        db.commit()
    with closing(SqliteReader(file)) as log:
        assert log.check(lambda _: None) != []
        assert log.sizes().database > 0
        if "builds" in broken:
            with pytest.raises(LogCorrupt, match="the build at position"):
                log.builds()


# --- rows read back give the text that was written

odd_floats = st.floats(allow_nan=False) | st.sampled_from([-0.0, 0.1, 1e300, 5e-324, float("inf"), 2.0**53 + 1, 1e16])
big = st.integers(0, 2**63 - 1)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    rewards=st.lists(st.builds(NewReward, big, names, odd_floats, odd_floats, st.none() | names, st.none() | big)),
    changes=st.lists(
        st.builds(NewRewardChange, big, names, st.none() | odd_floats, names, odd_floats, st.none() | big), max_size=3
    ),
    strings=st.lists(texts, min_size=4, max_size=4),
    build=st.dictionaries(texts, texts | odd_floats | st.none() | st.lists(big)),
    model=big,
)
def test_the_chain_over_rows_read_back_is_the_chain_that_was_written(
    odd: SqliteLog,
    rewards: list[NewReward],
    changes: list[NewRewardChange],
    strings: list[str],
    build: dict[str, object],
    model: int,
) -> None:
    """Odd numbers, NUL, every alphabet: what a database gives back in another form would look like damage."""
    (version,) = odd.versions()
    end = odd.head().position
    made = decision(version, f"{end} {strings[0]}", strings[1])
    made = made._replace(
        context=Context(strings[2], features={"a": strings[3], "b": -0.0, "c": 1e22}),
        model=Position(model),
        propensity=5e-324,
    )
    entries: list[Entry] = [
        made, *rewards, *changes, NewBuild(build), NewActivation(Position(model), ActionId(strings[3])),
        NewModel(ModelName(ExperimentId(strings[0]), Position(model), strings[1]), learned=model), Orphan(strings[2]),
    ]  # fmt: skip
    odd.append([made._replace(decision_id=DecisionId(f"{made.decision_id} alone"))])
    odd.append(entries)
    assert odd.check(lambda _: None) == []


@pytest.fixture
def odd(tmp_path: Path) -> Iterator[SqliteLog]:
    """A log with one version."""
    with closing(SqliteLog(tmp_path / "odd.db", clock=Clock())) as log:
        log.append([NewVersion(sample_experiment(), 1)])
        yield log


# --- a disk that breaks

TIMES = 160
"""Places that are damaged, one by one, of each kind."""


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a log as a killed server leaves it: its end is still in the write-ahead log alone."""
    folder, clock = tmp_path_factory.mktemp("crashed"), Clock()
    copy = folder / "copy"
    copy.mkdir()
    with closing(SqliteLog(folder / "log.db", clock=clock, piece_bytes=1000)) as log:
        fill(log, clock, rounds=48)
    with closing(SqliteLog(folder / "log.db", clock=clock)) as log:
        version = log.versions()[-1]
        for number in range(12):
            clock.advance(1)
            log.append([decision(version, f"late-{number}-{i}", "unit") for i in range(3)])
        for name in ("log.db", "log.db-wal", "log.db-last"):
            shutil.copy(folder / name, copy / name)
    return copy


Content = list[tuple[object, ...]]

ENTRIES = ("experiments", "decisions", "rewards", "activations", "serves", "ticks", "builds", "published", "signatures")


def content(db: Path) -> Content:
    """Every entry, and what its keys lead to."""
    with closing(sqlite3.connect(db)) as tool:
        tool.text_factory = bytes
        rows = [row for table in ENTRIES for row in tool.execute(f"select * from {table} not indexed")]  # noqa: S608
        by_id = tool.execute("select decision_id, position from decisions order by decision_id").fetchall()
        by_version = tool.execute("select version, time, position from decisions order by version, time").fetchall()
        return [*rows, *by_id, *by_version]


def look(folder: Path, expected: Content) -> tuple[bool, bool]:
    """(whether what was acknowledged is there, whether damage is found or the file refused)."""
    path = folder / "log.db"
    try:
        with closing(SqliteReader(path)) as log:
            found = bool(log.check(lambda _: None))
    except LogError:
        found = True
    try:
        same = content(path) == expected
    except (sqlite3.Error, UnicodeDecodeError):
        same = False
    return same, found


def flip(path: Path, source: Random) -> None:
    """One bit of a byte that is not 0: most of the others are in no use."""
    data = bytearray(path.read_bytes())
    used = [place for place, byte in enumerate(data) if byte]
    data[source.choice(used)] ^= 1 << source.randrange(8)
    path.write_bytes(data)


def truncate(path: Path, source: Random) -> None:
    """The end is missing."""
    os.truncate(path, source.randrange(path.stat().st_size))


def zero(path: Path, source: Random) -> None:
    """A page of nothing."""
    with path.open("r+b") as file:
        pages = file.seek(0, os.SEEK_END) // 4096
        file.seek(source.randrange(pages) * 4096)
        file.write(bytes(4096))


@pytest.mark.parametrize(
    ("after", "name", "do", "times"),
    [("a kill", "log.db", flip, TIMES), ("a kill", "log.db", truncate, TIMES), ("a kill", "log.db", zero, 41),
     ("a kill", "log.db-wal", flip, TIMES), ("a kill", "log.db-wal", truncate, TIMES),
     ("an end", "log.db", flip, TIMES), ("an end", "log.db", truncate, TIMES), ("an end", "log.db", zero, 41)],
)  # fmt: skip
def test_damage_of_the_files_is_found(
    crashed: Path, whole: Path, tmp_path: Path, after: str, name: str, do: Callable[[Path, Random], None], times: int
) -> None:
    """A broken disk, a torn copy, of a server that was killed or had ended: no entry changes or is lost without a
    word, and every index leads where it should."""
    original = crashed if after == "a kill" else whole.parent
    reference = tmp_path / "reference"
    shutil.copytree(original, reference)
    expected = content(reference / "log.db")
    source, changed, unnoticed = Random(7), 0, []
    for number in range(times):
        folder = tmp_path / str(number)
        shutil.copytree(original, folder)
        do(folder / name, source)
        same, found = look(folder, expected)
        changed += not same
        if not same and not found:
            unnoticed.append(number)
        shutil.rmtree(folder)
    assert unnoticed == []
    assert changed > times / 20, "the damage must mostly hit what is in use"


def test_a_lost_end_is_told_when_the_log_is_opened(
    crashed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The server goes on, since after a power cut it must come up by itself; but it says so."""
    folder = tmp_path / "folder"
    shutil.copytree(crashed, folder)
    with closing(SqliteLog(folder / "log.db")):
        assert caplog.text == ""
    shutil.rmtree(folder)
    shutil.copytree(crashed, folder)
    (folder / "log.db-wal").unlink()
    with closing(SqliteLog(folder / "log.db")) as log:
        assert "were acknowledged, and the log ends at" in caplog.text
        assert log.check(lambda _: None) == []
    assert sorted(path.name for path in folder.iterdir()) == ["log.db"]
