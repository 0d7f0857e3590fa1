"""What `check` finds of a log in PostgreSQL: what it finds of the same log in SQLite.

Each damage is done and looked for in one transaction, which is rolled back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from decider.log.open import LogUrl, copy_log
from decider.log.postgres.check import check
from decider.log.postgres.connection import Connection, connect, read
from tests.copied_logs import quiet, write_odd_rows
from tests.postgres import PostgresServer
from tests.test_log_damage import ADDED_ANYWHERE


@pytest.fixture(scope="module")
def connection(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    """To a log with a bit of everything."""
    path = tmp_path_factory.mktemp("damage") / "log.db"
    write_odd_rows(path)
    url = LogUrl(postgres.new_schema())
    copy_log(path, url, say=quiet)
    with connect(url) as opened:
        opened.execute("set session_replication_role = replica")  # no trigger, as of somebody who changes files
        yield opened


@contextmanager
def changed(connection: Connection, sql: str) -> Iterator[list[str]]:
    """What is found after a change that touched at least a row."""
    with connection.transaction(force_rollback=True):
        assert connection.execute(sql.encode()).rowcount > 0, sql
        yield [str(one) for one in check(connection, lambda _: None)]


_COLUMNS = """
select c.table_name, c.column_name, c.data_type from information_schema.columns c
join information_schema.tables t using (table_schema, table_name)
where c.table_schema = current_schema() and t.table_type = 'BASE TABLE' order by 1, c.ordinal_position
"""

CHANGES = {
    "bigint": "coalesce({0}, 0) {1} 1",
    "double precision": "{0} + 0.0000001",
    "text": "coalesce({0}, '') || 'x'",
    "bytea": "sha256({0})",
    "boolean": "not {0}",
}

HARMLESS = {
    ("models", "created"): "says when a model was stored; nothing is decided by it",
    ("lease", "epoch"): "a leader with another one ends; the next one raises it",
    ("lease", "code"): "learners of another one learn nothing; the next leader writes its own",
    ("head", "changed"): "higher: each writer looks once more; lower: found, see below",
    ("refused_rewards", "count"): "no checksum covers it here; so for the next ones",
    ("refused_rewards", "name"): "",
    ("refused_rewards", "outcome"): "",
    ("early_activations", "id"): "",
    ("early_activations", "decision_id"): "",
    ("early_activations", "action"): "",
    ("early_activations", "time"): "",
    ("signatures", "id"): "found where a model names it",
}

OURS = ("migrations", "writers", "leader_news", "shared_models", "learners")
"""Of the database's own work."""


def test_a_changed_value_is_found(connection: Connection) -> None:
    """Of every column of every table: views, metrics and reports read columns that replay does not."""
    unseen = []
    for number, (table, column, kind) in enumerate(read(connection, _COLUMNS)):
        if table in OURS or (table, column) in HARMLESS or table == "chain_start":
            continue
        last = "desc" if number % 2 else "asc"
        # away from the other rows, whose keys must allow it
        value = CHANGES[kind].format(f'"{column}"', "+" if number % 2 else "-")
        row = f"(select ctid from {table} order by 1 {last} limit 1)"  # noqa: S608 - from the schema
        with changed(connection, f'update {table} set "{column}" = {value} where ctid = {row}') as found:  # noqa: S608
            if not found:
                unseen.append((table, column))
    assert unseen == []


TAKEN = (
    "decisions", "rewards", "activations", "recalls", "published", "builds", "serves", "ticks", "experiments", "head",
    "withheld", "exposures", "reward_changes", "seals", "unit_rewards", "links", "marks", "signatures", "persons",
    "creditable_decisions", "unit_decisions", "daily_counts", "action_kinds", "version_notes", "leave_outs", "lease",
)  # fmt: skip


def test_a_row_that_was_taken_away_is_found(connection: Connection) -> None:
    """Also of what follows from entries, since it decides what comes."""
    unseen = []
    for table in TAKEN:
        row = f"(select ctid from {table} order by 1 limit 1)"  # noqa: S608 - from the schema
        with changed(connection, f"delete from {table} where ctid = {row}") as found:  # noqa: S608
            if not found:
                unseen.append(table)
    assert unseen == []


ADDED = {
    **ADDED_ANYWHERE,
    "marks": "select position, sha256('') from decisions where position not in (select position from marks) limit 1",
    "head": "select * from head",
    "lease": "select * from lease",
    "ticks": "select position + 1, time from head",
    "models": "select experiment, signature, position + 1, created, checksum, data from models limit 1",
}  # fmt: skip


def test_a_row_that_nobody_wrote_is_found(connection: Connection) -> None:
    """It would make somebody a person with strangers, or use up a budget."""
    unseen = []
    for table, rows in ADDED.items():
        with changed(connection, f"insert into {table} {rows}") as found:
            if not found:
                unseen.append(table)
    assert unseen == []


@pytest.mark.parametrize(("sql", "what"), [
    ("update persons set person = (select min(person) from persons)", "table persons has other rows than were written"),
    ("update head set changed = changed - 1", "is the last entry that changes what serves"),
    ("update models set data = sha256(data)", "the stored model of home up to position"),
    ("update totals_checkpoints set content = content || ' '", "its checksum is wrong"),
    ("update experiments set definition = '{'", "the definition of an experiment cannot be read"),
    ("update exposures set unit_id = 'x'", "what counts for limits of the decision at position"),
    ("update daily_counts set count = 9", "the count of a day's decisions of limited"),
    ("insert into early_activations select 99, decision_id, null, 0 from decisions limit 1", "should have been"),
])  # fmt: skip
def test_damage_has_a_name(connection: Connection, sql: str, what: str) -> None:
    """Whoever reads it must know where to look."""
    with changed(connection, sql) as found:
        assert any(what in one for one in found), found


def test_the_whole_log_has_no_damage(connection: Connection) -> None:
    """Else the tests above find nothing of their own."""
    assert check(connection, lambda _: None) == []
