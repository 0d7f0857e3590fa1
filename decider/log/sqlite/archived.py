"""What is left in a log of the entries that `decider archive` has taken out. Called by `reader.py` and `check.py`.

Behind the cut the log is whole. Up to the cut it has the entries that say what serves (`KEPT`), models to go on from
(`bases`), and the decisions that are still needed (`archived_decisions`); the rest lies in the parts of the archive.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from hashlib import sha256
from types import MappingProxyType
from typing import Any, NamedTuple

from decider.experiment.aggregate import NamedReward
from decider.experiment.definition import ExperimentVersion
from decider.log.chain import REFUSED_BITS
from decider.log.protocol import Mark, SealedDecision
from decider.log.rows import DECISION, decision, row_type
from decider.log.sqlite.read_rows import read
from decider.log.tables import (
    BUILDS,
    EXPERIMENTS,
    LEAVE_OUTS,
    PUBLISHED_MODELS,
    SERVES,
    VERSION_NOTES,
    EntryTable,
    json_text,
)
from decider.types import START, ExperimentId, Position, Time

ARCHIVED_DECISION = row_type(
    f"{DECISION.columns}, experiment, deadline, overridden, activated, shown, rewards, input, remember_until"
)

CUT = "coalesce((select position from cut), 0)"
"""In SQL: the last position that is in an archive."""

KEPT_AT_FIRST = (EXPERIMENTS, SERVES, BUILDS, VERSION_NOTES)
KEPT = (*KEPT_AT_FIRST, LEAVE_OUTS)
"""Tables of which every row stays. The digests of the first cuts did not cover the last one."""

_ARCHIVED_SEALED = f"""
select {ARCHIVED_DECISION.columns} from archived_decisions
where experiment = :experiment and deadline > :after and deadline <= :until order by deadline, position
"""  # noqa: S608 - a constant

FIRST_ARCHIVED_DEADLINE = """
select min((select a.deadline from archived_decisions a
  where a.experiment = e.experiment and a.deadline > :after order by a.deadline limit 1)) as deadline
from archived_experiments e
where :after < (select sealed from cut) and (:experiment is null or e.experiment = :experiment)
"""

_KEPT_MODELS = PUBLISHED_MODELS.select.replace(
    "where", "where e.position in (select k.position from kept_models k) and"
)
_CHOSEN_MODELS = PUBLISHED_MODELS.select.replace(
    "where position", "where position in (select value from json_each(?)) and position"
)

TIMES = "select position, time from archived_times order by position"
KEPT_POSITIONS = "select position from kept_models order by position"

_COVERED = (
    "select position, time, chain, counted, sealed, remember from cut",
    "select position, at from chain_start",
    "select first, last, time, path, digest from archives order by last",
    "select experiment, decisions, complete_after from archived_experiments order by experiment",
    TIMES,
    KEPT_POSITIONS,
    "select experiment, signature, position, time, checksum from bases order by experiment, signature",
)
"""What the digest of a cut covers besides the entries that stay."""


def read_cut(connection: sqlite3.Connection) -> Mark:
    """The end of the last part; (0, 0) where nothing was archived."""
    row = connection.execute("select position, time from cut").fetchone()
    return Mark(*row) if row else Mark(START, Time(0))


def digest_of_entries(connection: sqlite3.Connection, tables: tuple[EntryTable, ...], last: Position) -> str:
    """Over all rows of tables up to a position."""
    rows = (row for table in tables for row in connection.execute(table.select, (START, last)))
    return _digest(rows)


def digest_of_models(connection: sqlite3.Connection, last: Position) -> str:
    """Over the rows of `published` that stay."""
    return _digest(connection.execute(_KEPT_MODELS, (START, last)))


def digest_of_chosen_models(connection: sqlite3.Connection, chosen: Collection[int]) -> str:
    """The same before `kept_models` has their positions."""
    return _digest(connection.execute(_CHOSEN_MODELS, (json_text(sorted(chosen)), START, max(chosen, default=START))))


def digest_of_cut(
    connection: sqlite3.Connection, *, entries: str, models: str, known: Mapping[str, bytes] = MappingProxyType({})
) -> str:
    """The digest that is stored with a cut, from those of the entries and models that stay.

    known: `lines` of the rows that TIMES and KEPT_POSITIONS give, by these, so that they need not be read.
    """
    summed = sha256()
    for sql in _COVERED:
        summed.update(known[sql] if sql in known else lines(connection.execute(sql)))
    return sha256(f"{entries} {models} {summed.hexdigest()}".encode()).hexdigest()


def lines(rows: Iterable[Any]) -> bytes:
    """What a digest covers of rows."""
    return b"".join(map(_line, rows))


def _line(row: Any) -> bytes:
    return _text(row).encode("utf-8", "surrogateescape") + b"\n"


def _digest(rows: Iterable[Any]) -> str:
    summed = sha256()
    for row in rows:
        summed.update(_line(row))
    return summed.hexdigest()


def _text(row: Any) -> str:
    return json_text([value.hex() if isinstance(value, bytes) else value for value in row])


def archived_sum(row: Any) -> int:
    """What one row of `archived_decisions` adds to the checksum over all."""
    digest = sha256(_text(row).encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") & REFUSED_BITS


class ArchivedSealed(NamedTuple):
    """An archived decision that the log still holds, with its rewards by name."""

    sealed: SealedDecision
    named: tuple[NamedReward, ...]


def archived_sealed(
    connection: sqlite3.Connection,
    version_at: Callable[[Position], ExperimentVersion],
    experiment: ExperimentId,
    *,
    after: Time,
    until: Time,
) -> Iterator[ArchivedSealed]:
    """The archived decisions that the log still holds, as `LogReader.sealed_decisions` gives them."""
    parameters = {"experiment": experiment, "after": after, "until": until}
    for row in read(connection, _ARCHIVED_SEALED, parameters, ARCHIVED_DECISION):
        rewards = [_archived_reward(one) for one in json.loads(row.rewards)]
        sealed = SealedDecision(
            position=row.position,
            time=row.time,
            deadline=row.deadline,
            decision=decision(row, version_at(row.version).all_active),
            rewards=tuple([reward for _, reward in rewards]),
            overridden=bool(row.overridden),
            activated=bool(row.activated),
            shown=row.shown,
        )
        yield ArchivedSealed(sealed, tuple([named for named, _ in rewards]))


def _archived_reward(content: Any) -> tuple[NamedReward, float]:
    """With its name, and what it counts. Older releases wrote no names."""
    if isinstance(content, list):
        name, value, weight = content
        return NamedReward(name, value), value * weight
    return NamedReward("", content), content
