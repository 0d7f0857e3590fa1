"""The statements that write rows of entries. Called by `writer.py` and `commit_tables.py`.

A commit of new entries of one kind is one statement: it takes the head's row, moves it, and writes the rows at the
positions that it dealt. All else is a transaction that takes the head's row first.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from decider.log.chain import EntryRow
from decider.log.tables import (
    DECISIONS,
    EXPERIMENTS,
    LEAVE_OUTS,
    PUBLISHED_MODELS,
    RECALLS,
    REWARD_CHANGES,
    REWARDS,
    UNIT_REWARDS,
    EntryTable,
)

_NUMBERS = {
    EXPERIMENTS: ("number", "window", "waits"),
    DECISIONS: ("version", "model", "build"),
    REWARDS: ("decision", "occurred_at"),
    REWARD_CHANGES: ("decision", "reward", "occurred_at"),
    UNIT_REWARDS: ("occurred_at", "last"),
    LEAVE_OUTS: ("sealed_after", "sealed_until", "replaces"),
    PUBLISHED_MODELS: ("signature", "model", "learned"),
    RECALLS: ("seen_after", "seen_until", "seen_time"),
}
_REALS = ("default_reward", "minimum_reward", "maximum_reward", "propensity", "value", "weight")

DERIVED = {EXPERIMENTS: ("needs_activation", "has_attribution", "has_limits")}
"""Columns behind those of the entry that follow from it."""

_UNIQUE = {REWARD_CHANGES: "reward, value, occurred_at"}
"""Where the key is written in another way than in SQLite."""


def _type_of(table: EntryTable, column: str) -> str:
    if column in DERIVED.get(table, ()):
        return "boolean"
    if column in _REALS:
        return "double precision"
    is_number = column in _NUMBERS.get(table, ()) or column in ("decision", "version")
    return "bigint" if is_number else "text"


def columns_of(table: EntryTable) -> tuple[str, ...]:
    """All columns but position and time."""
    return (*table.columns, *DERIVED.get(table, ()))


def _names(columns: Sequence[str], alias: str = "") -> str:
    return "".join(f', {alias}"{column}"' for column in columns)


def _unnest(table: EntryTable) -> str:
    """The rows, given as one list for each column; `place` counts from 1."""
    columns = columns_of(table)
    if not columns:
        return "generate_series(1, %(_count)s) as r (place)"
    lists = ", ".join(f"%({column})s::{_type_of(table, column)}[]" for column in columns)
    return f"unnest({lists}) with ordinality as r ({_names(columns)[2:]}, place)"


# Who waits for the writer's own row first, and sees its last commit there, cannot write a commit twice: also where the
# connection of the first try is gone, and PostgreSQL has not noticed yet.
MOVE_HEAD = """
with w as (select writer from writers where writer = %(_writer)s and commits < %(_commit)s for update),
h as (
  update head set position = position + %(_count)s, time = greatest(time, %(_at)s),
    chain = sha256(chain || int8send(position + 1) || int8send(greatest(time, %(_at)s)) || %(_digest)s)
  from w where changed = %(_changed)s returning position - %(_count)s as before, time),
c as (
  update writers u set commits = %(_commit)s, time = h.time,
    positions = array(select generate_series(h.before + 1, h.before + %(_count)s))
  from h where u.writer = %(_writer)s)
"""


@lru_cache
def append(table: EntryTable) -> str:
    """The whole commit of new rows of a table; a row that is not new is an error. It gives positions and time; nothing
    where this commit was written before, or where another version serves since the writer looked."""
    columns = columns_of(table)
    return f"""{MOVE_HEAD}
insert into {table.name} (position, time{_names(columns)})
select h.before + r.place, h.time{_names(columns, "r.")} from h, {_unnest(table)}
returning position, time
"""  # noqa: S608 - our names


TAKE_PLACE = f"{MOVE_HEAD} select before, time from h"  # noqa: S608 - our names
"""The head's part of a commit alone; nothing in the same cases."""


@lru_cache
def copy(table: EntryTable) -> str:
    """Rows with positions and time, streamed behind TAKE_PLACE: cheaper than `append` where there are many."""
    return f"copy {table.name} (position, time{_names(columns_of(table))}) from stdin"


@lru_cache
def insert(table: EntryTable) -> str:
    """Rows behind the last position, at a time, in a transaction that has the head; those whose key is there, or comes
    twice, are left out without a gap. It gives the places of those that were written."""
    columns = columns_of(table)
    unique = _UNIQUE.get(table, table.unique)
    first, is_new = "true", "true"
    if unique:
        keys = [key.strip() for key in unique.split(",")]
        same = " and ".join(_same(table, f't."{key}"', f'r."{key}"') for key in keys)
        before = " and ".join(_same(table, f's."{key}"', f'r."{key}"') for key in keys)
        is_new = f"not exists (select 1 from {table.name} t where {same})"  # noqa: S608 - our names
        first = f"not exists (select 1 from given s where s.place < r.place and {before})"  # noqa: S608 - our names
    if table is REWARDS:
        is_new += (
            " and not (r.reward_id is not null and exists (select 1 from unit_rewards) and exists "
            "(select 1 from find_credited(r.decision, r.reward_id, r.name, %(_last)s + 1)))"
        )
    return f"""
with given as (select r.* from {_unnest(table)}),
fresh as (
  select r.*, row_number() over (order by r.place) as number_ from given r where {first} and {is_new}),
written as (
  insert into {table.name} (position, time{_names(columns)})
  select %(_last)s + r.number_, %(_at)s{_names(columns, "r.")} from fresh r)
select place from fresh
"""  # noqa: S608 - our names


def _same(table: EntryTable, one: str, other: str) -> str:
    """Nulls are equal only where the key says so: a reward without an id is never refused."""
    return f"{one} is not distinct from {other}" if table is REWARD_CHANGES else f"{one} = {other}"


@lru_cache
def select(table: EntryTable) -> str:
    """Position, time, then the columns that the chain covers, of rows in (after, until], in order."""
    columns = ", ".join(
        "(select s.signature from signatures s where s.id = e.signature)" if name == "signature" else f'e."{name}"'
        for name in ("position", "time", *table.columns)
    )
    return f"""
select {columns} from {table.name} e where position > %(after)s and position <= %(until)s order by position
"""  # noqa: S608 - our names


def by_column(table: EntryTable, rows: Sequence[EntryRow]) -> dict[str, Any]:
    """Rows as the statements want them."""
    columns = zip(columns_of(table), zip(*rows, strict=True), strict=True)
    return {"_count": len(rows), **{column: list(values) for column, values in columns}}
