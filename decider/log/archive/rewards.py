"""The rewards of archived decisions with all that came late, wherever they lie: in the part of the decision, in a later
one, or still in the log. Called by the log's readers, for `sealed_with_late`.

They are put into a temporary file, by decision: memory does not grow with their number.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace

from decider.experiment.aggregate import NamedReward
from decider.log.archive.part import Part, check_content, file_of
from decider.log.archive.read import rows_of
from decider.log.protocol import Mark, SealedDecision
from decider.log.sqlite.sealed import CAME_BEFORE
from decider.log.tables import REWARD_CHANGES, REWARDS, SEALS, EntryTable
from decider.types import Position

_COLUMNS = {
    REWARDS: ("position", "time", "decision", "name", "value", "weight"),
    REWARD_CHANGES: ("position", "time", "reward", "value"),
    SEALS: ("position", "time", "decision"),
}

_CREATE = tuple(
    f"create table {table.name} (position integer primary key, {', '.join(columns[1:])})"
    for table, columns in _COLUMNS.items()
)

_INDEX = (
    "create index rewards_by_decision on rewards (decision, position)",
    "create index changes_by_reward on reward_changes (reward, position)",
    "create index seals_by_decision on seals (decision)",
)

_NAMED = f"""
select r.name, case when c.position is null then r.value else c.value end, r.weight
from (select :deadline as deadline, (select position from seals where decision = :decision) as seal) w
  join rewards r on r.decision = :decision and {CAME_BEFORE.format("r")}
  left join reward_changes c on c.position = (select max(last.position) from reward_changes last
    where last.reward = r.position and {CAME_BEFORE.format("last")})
order by r.position
"""  # noqa: S608 - constants


class ArchivedRewards:
    """See above. `read_log` first, then `read_parts` with the parts up to the cut that it returned."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for sql in _CREATE:
            self._connection.execute(sql)

    def read_log(self, log: sqlite3.Connection, cut: Position) -> None:
        """What the log has behind the cut for decisions before it."""
        for table, columns in _COLUMNS.items():
            sql = f"select {', '.join(columns)} from {table.name} where position > ? and decision <= ?"  # noqa: S608
            self._insert(table, log.execute(sql, (cut, cut)))

    def read_parts(self, parts: Sequence[Part]) -> None:
        """Everything in the parts. Raises ArchiveDamaged."""
        for part in parts:
            for table, columns in _COLUMNS.items():
                if file_of(table) in part.files:  # the parts of older releases have no others
                    check_content(part, file_of(table))
                    for rows in rows_of(part.folder / file_of(table), columns):
                        self._insert(table, rows)
        for sql in _INDEX:
            self._connection.execute(sql)

    def _insert(self, table: EntryTable, rows: Iterator[tuple[object, ...]] | Sequence[tuple[object, ...]]) -> None:
        places = ", ".join("?" * len(_COLUMNS[table]))
        self._connection.execute("begin")
        self._connection.executemany(f"insert into {table.name} values ({places})", rows)  # noqa: S608 - our names
        self._connection.execute("commit")

    def add_to(self, decisions: Iterator[SealedDecision], late: Mark) -> Iterator[SealedDecision]:
        """Archived decisions as `sealed_with_late` gives them; it closes the file behind the last one."""
        try:
            for sealed in decisions:
                yield self._with_rewards(sealed, late)
        finally:
            self._connection.close()

    def _with_rewards(self, sealed: SealedDecision, late: Mark) -> SealedDecision:
        place = {
            "decision": sealed.position,
            "deadline": sealed.deadline,
            "late": late.position,
            "late_time": late.time,
        }
        rows = [row for row in self._connection.execute(_NAMED, place) if row[1] is not None]
        return replace(
            sealed,
            rewards=tuple([value * weight for _, value, weight in rows]),
            named=tuple([NamedReward(name, value) for name, value, _ in rows]),
        )
