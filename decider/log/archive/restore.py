"""Rebuilds a log from the parts of its archive, and from the rows that it still has. Called by `open.py`.

The copy is an ordinary log, so that everything that reads one reads it, and `check` follows its chain from the first
entry. But it takes an id of a decision twice: once an archived decision is no longer remembered, or is forgotten, a
call with its id is a new decision.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from decider.errors import ArchiveDamaged, LogError
from decider.log.archive.columns import raw_names
from decider.log.archive.find import check_joined
from decider.log.archive.part import NAMED, Part, file_of, read_part
from decider.log.archive.read import entry_rows, marks_of, rows_of
from decider.log.sqlite.all_at_once import without_indexes
from decider.log.sqlite.archived import KEPT, digest_of_cut, digest_of_entries, digest_of_models
from decider.log.sqlite.errors import sqlite_errors
from decider.log.sqlite.exposures import recount
from decider.log.sqlite.log_files import witness_path
from decider.log.sqlite.migrations import migrate
from decider.log.sqlite.read_rows import version_reader
from decider.log.sqlite.units import join_all
from decider.log.tables import BUILDS, ENTRY_TABLES, EXPERIMENTS, INTERN_SIGNATURE, PUBLISHED_MODELS, EntryTable
from decider.types import START, Position

_OF_DECISIONS = (
    "select sql from sqlite_master where tbl_name = 'decisions' and sql is not null order by type = 'table' desc"
)
_UNIQUE_ID, _ID = "decision_id text not null unique", "decision_id text not null"
_INDEX_OF_IDS = "create index decisions_by_id on decisions (decision_id)"
_MISSING_PARTS = "insert into archives (last, first, time, path, digest) values (?, ?, ?, ?, ?)"
_NOT_LEARNED = """
insert into archived_experiments (experiment, decisions, complete_after)
select experiment, 0, (1 << 62) from experiments group by experiment having min(number) > 1
  or min(position) <= (select last from archives)
"""
_CUT = """
insert into cut (position, time, chain, counted, sealed, remember, digest, archived) values (?, ?, ?, ?, ?, ?, ?, ?)
"""
_MARK = "insert into marks (position, chain) values (?, ?) on conflict (position) do nothing"
_COPIED = ("refused_rewards", "early_activations", "models", "persons")
"""Tables of the live log that are no entries."""
_COPY_SUM = """
update main.row_sums set sum = (select sum from live.row_sums where name = 'persons') where name = 'persons'
"""


def restore(parts: Sequence[Part], live: Path | None, target: Path) -> None:
    """Make the log `target` of the parts, and of the entries of `live` behind them.

    Where the first part does not begin with the first entry, the log is one whose entries up to there are archived.
    Raises ArchiveDamaged, ArchiveMissing before anything is made; LogError.
    """
    check_joined(parts)
    whole = [read_part(part.folder) for part in parts]
    with sqlite_errors(target), closing(_make(target)) as connection:
        with without_indexes(connection):
            _fill(connection, whole, live, target)
        if live is None:
            _join_persons(connection)


def _fill(connection: sqlite3.Connection, whole: Sequence[Part], live: Path | None, target: Path) -> None:
    if live is not None:
        connection.execute("attach ? as live", (f"{live.absolute().as_uri()}?mode=ro",))
        connection.execute("insert into main.signatures select * from live.signatures")
    if whole and whole[0].first > 1:
        _insert_named(connection, whole[0])
    for part in whole:
        _insert_part(connection, part)
    if whole and whole[0].first > 1:
        _begin_with(connection, whole[0])
    if live is None:
        _end_with(connection, whole[-1])
    else:
        _copy_live(connection, live, target, whole[-1].last if whole else START)
    _mark_joints(connection, whole)
    _recount(connection)


def _make(target: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{target.absolute().as_uri()}?mode=rwc", uri=True, isolation_level=None)
    # A copy that nobody needs after a crash.
    connection.execute("pragma journal_mode = off")
    connection.execute("pragma synchronous = off")
    connection.execute("pragma cache_size = -200000")
    migrate(connection)
    _let_ids_repeat(connection)
    return connection


def _let_ids_repeat(connection: sqlite3.Connection) -> None:
    """Make the table of decisions anew, without its unique key."""
    made = [sql for (sql,) in connection.execute(_OF_DECISIONS).fetchall()]
    connection.execute("drop table decisions")
    for sql in [*made, _INDEX_OF_IDS]:
        connection.execute(sql.replace(_UNIQUE_ID, _ID))
    connection.execute("drop trigger keep_creditable_decision")  # needs an index; nothing is credited in a copy
    connection.execute("drop trigger counted_by_unit")  # what was written was looked at then
    # So it is with rewards by unit, once the first one is archived.
    connection.execute("drop index unit_rewards_once")
    connection.execute("create index unit_rewards_once on unit_rewards (unit_id, reward_id)")


def _insert_part(connection: sqlite3.Connection, part: Part) -> None:
    connection.execute("begin")
    for table in ENTRY_TABLES:
        for rows in entry_rows(part, table):
            if table is PUBLISHED_MODELS:
                place = raw_names(table).index("signature")
                connection.executemany(INTERN_SIGNATURE, [row[place : place + 1] for row in rows])
            _insert(connection, part, table, rows)
    connection.executemany(_MARK, marks_of(part).items())
    connection.execute("commit")


def _insert(connection: sqlite3.Connection, part: Part, table: EntryTable, rows: Sequence[Sequence[object]]) -> None:
    try:
        connection.executemany(table.insert_new, rows)
    except sqlite3.IntegrityError as error:
        raise ArchiveDamaged(f"{part.folder}: an entry cannot be one of {table.name} ({error})") from error


def _insert_named(connection: sqlite3.Connection, part: Part) -> None:
    """The versions and builds of parts before that its decisions name; before them, since they open versions."""
    for table in (EXPERIMENTS, BUILDS):
        for rows in rows_of(part.folder / f"{NAMED}{file_of(table)}", raw_names(table)):
            _insert(connection, part, table, rows)


def _begin_with(connection: sqlite3.Connection, part: Part) -> None:
    """The log is cut before a part: what was learned and counted up to there is not in it."""
    cut, before = part.after, part.folder.with_name(f"parts before {part.name}")
    connection.execute(_MARK, (cut.position, cut.chain))
    connection.execute(_MISSING_PARTS, (cut.position, 1, cut.time, str(before), ""))
    connection.execute(_NOT_LEARNED)
    connection.execute(_CUT, (*cut, START, cut.time, 0, "", 0))
    entries, models = digest_of_entries(connection, KEPT, cut.position), digest_of_models(connection, cut.position)
    connection.execute("update cut set digest = ?", (digest_of_cut(connection, entries=entries, models=models),))


def _end_with(connection: sqlite3.Connection, part: Part) -> None:
    connection.execute("delete from marks where position = ?", (part.last,))  # a log has none at its end
    connection.execute("update head set position = ?, time = ?, chain = ?", part.until)
    if part.chain_start is not None:
        connection.execute("insert into chain_start (position, at) values (?, ?)", part.chain_start)


def _copy_live(connection: sqlite3.Connection, live: Path, target: Path, last: Position) -> None:
    """One transaction, so that everything is of one moment; the copy of the witness is older."""
    if witness_path(live).exists():
        shutil.copyfile(witness_path(live), witness_path(target))
    connection.execute("begin")
    (cut,) = connection.execute("select coalesce(max(position), 0) from live.cut").fetchone()
    if cut != last:
        raise LogError(f"{live}: was trimmed up to position {cut} meanwhile; try again")
    for table in ENTRY_TABLES:
        connection.execute(_copy_entries(table), (last,))
    connection.execute("insert into main.marks select * from live.marks where position > ?", (last,))
    connection.execute("insert into main.chain_start select * from live.chain_start")
    for table_name in _COPIED:
        connection.execute(f"insert into main.{table_name} select * from live.{table_name}")  # noqa: S608 - our names
    connection.execute(_COPY_SUM)  # not that over assignments: a copy has none
    connection.execute("delete from main.head")
    connection.execute("insert into main.head select * from live.head")
    connection.execute("commit")


def _copy_entries(table: EntryTable) -> str:
    names = ", ".join(["position", "time", *table.columns])
    return f"insert into main.{table.name} ({names}) select {names} from live.{table.name} where position > ?"  # noqa: S608


def _recount(connection: sqlite3.Connection) -> None:
    """What counts for limits follows from the entries."""
    (end,) = connection.execute("select time from main.head").fetchone()
    connection.execute("begin")
    recount(connection, version_reader(connection), end)
    connection.execute("commit")


def _join_persons(connection: sqlite3.Connection) -> None:
    """Parts have links, and no persons."""
    connection.execute("begin")
    join_all(connection)
    connection.execute("commit")


def _mark_joints(connection: sqlite3.Connection, parts: Sequence[Part]) -> None:
    """A part's end may have got its mark after the part was written."""
    (end,) = connection.execute("select position from main.head").fetchone()
    for part in parts:
        if part.last < end:
            connection.execute(_MARK, (part.last, part.until.chain))
