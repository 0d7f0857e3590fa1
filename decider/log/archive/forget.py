"""Removes a unit's ids from a part of an archive, and its contexts if asked for. Called by `sqlite/forgetting.py`.

A new folder is written beside the part's. Which of the two counts is said by the digest in the log; `take_place` gives
the new one its name.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from decider.log import chain
from decider.log.archive.files import file_errors, file_sha256, sync, write_text
from decider.log.archive.part import (
    DECISIONS_FILE,
    FORGOTTEN,
    OLD,
    PART_JSON,
    Part,
    PartFile,
    file_of,
    read_head,
    read_part,
    to_text,
)
from decider.log.archive.read import arrow_errors, entry_rows, marks_of, prove, rows_of
from decider.log.commits import Commit, commits_of, entries
from decider.log.forgotten import MADE_UP, ChangedCommit, Removal, made_up_id
from decider.log.tables import ENTRY_TABLES, LINKS, REWARDS, UNIT_REWARDS
from decider.types import ExperimentId, Position, Time

REWARDS_FILE, UNIT_REWARDS_FILE, LINKS_FILE = map(file_of, (REWARDS, UNIT_REWARDS, LINKS))

CONTEXT = ("segment", "device", "channel", "location", "intent_stage", "features", "action_features")
"""Columns of decisions that go with `--context`."""


@dataclass(frozen=True, slots=True)
class Traces:
    """What a part has of a unit. rewards: ids that rewards of forgotten decisions still have, by position, each with
    its decision. naming: files in which rewards by unit, or links, name the unit."""

    unit: str
    decisions: frozenset[Position]
    rewards: Mapping[Position, Position]
    naming: Collection[str]

    def __bool__(self) -> bool:
        return bool(self.decisions or self.rewards or self.naming)


def traces(part: Part, unit: str, forgotten: Collection[Position]) -> Traces:
    """What a part has of a unit. forgotten: decisions, of other parts too, whose rewards lose their ids."""
    rows = (row for rows in rows_of(part.folder / DECISIONS_FILE, ("position", "unit_id")) for row in rows)
    decisions = frozenset(Position(position) for position, one in rows if one == unit)
    found = (row for rows in rows_of(part.folder / REWARDS_FILE, ("position", "decision", "reward_id")) for row in rows)
    rewards = {
        position: decision
        for position, decision, id_ in found
        if (decision in decisions or decision in forgotten) and id_ is not None and not id_.startswith(MADE_UP)
    }
    columns = {UNIT_REWARDS_FILE: ("unit_id",), LINKS_FILE: ("unit_id", "same_as")}
    naming = [
        name
        for name, names in columns.items()
        if name in part.files and any(unit in row for some in rows_of(part.folder / name, names) for row in some)
    ]
    return Traces(unit, decisions, rewards, naming)


def write_without(part: Part, found: Traces, *, pseudonym: str | None, context: bool) -> tuple[Part, Removal]:
    """Write a part anew without these traces, and compare it with the chain. Returns it, and what was removed.

    pseudonym, context: see ForgettingLog. Raises ArchiveDamaged where the part is not what was written; LogError.
    """
    read_part(part.folder)
    place = part.folder.with_name(f"{FORGOTTEN}{part.name}")
    with file_errors(place.parent):
        if place.exists():
            shutil.rmtree(place)
        place.mkdir()
        files = dict(part.files)
        changes = _changes(found, pseudonym=pseudonym, context=context)
        for name, change in changes.items():
            files[name] = _rewrite(part.folder / name, place / name, change)
        for name in files.keys() - changes.keys():
            _link(part.folder / name, place / name)
        written = replace(part, folder=place, files=files)
        changed = tuple(_changed(part, written))
        decisions = tuple(sorted({*found.decisions, *found.rewards.values()}))
        removal = Removal(decisions, _first_seals(part, found.decisions) if context else {}, changed)
        written = replace(
            written,
            changed=(*part.changed, *changed),
            removals=(*part.removals, replace(removal, commits=())),
        )
        write_text(place / PART_JSON, to_text(written))
        sync(place)
        sync(place.parent)
    prove(read_head(place))
    return read_head(place), removal


def take_place(part: Part) -> Part:
    """Give the part that counts its own name, and delete what another run has left beside it. Raises LogError."""
    final, fresh, old = (part.folder.with_name(f"{before}{part.name}") for before in ("", FORGOTTEN, OLD))
    with file_errors(final.parent):
        if part.folder == fresh:
            if final.exists():
                _remove(old)
                final.rename(old)
            fresh.rename(final)
            sync(final.parent)
        if part.folder in (final, fresh):
            _remove(fresh)
            _remove(old)
            return read_head(final)
    return part


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the disk cannot do that."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
        sync(target)


def _changes(found: Traces, *, pseudonym: str | None, context: bool) -> Mapping[str, Callable[[Any], Any]]:
    """What is done to the rows of the files that change."""

    def forget_decisions(table: Any) -> Any:
        mine = [position in found.decisions for position in table["position"].to_pylist()]
        table = _replaced(table, "unit_id", mine, lambda: pseudonym or made_up_id())
        table = _replaced(table, "decision_id", mine, made_up_id)
        for column in CONTEXT if context else ():
            table = _replaced(table, column, mine, lambda: None)
        return table

    def forget_rewards(table: Any) -> Any:
        mine = [position in found.rewards for position in table["position"].to_pylist()]
        return _replaced(table, "reward_id", mine, made_up_id)

    def forget_unit_rewards(table: Any) -> Any:
        mine = [unit == found.unit for unit in table["unit_id"].to_pylist()]
        with_id = [
            is_mine and id_ is not None for is_mine, id_ in zip(mine, table["reward_id"].to_pylist(), strict=True)
        ]
        return _replaced(_replaced(table, "unit_id", mine, made_up_id), "reward_id", with_id, made_up_id)

    def forget_links(table: Any) -> Any:
        for column in ("unit_id", "same_as"):
            table = _replaced(table, column, [unit == found.unit for unit in table[column].to_pylist()], made_up_id)
        return table

    naming = {UNIT_REWARDS_FILE: forget_unit_rewards, LINKS_FILE: forget_links}
    return {
        DECISIONS_FILE: forget_decisions,
        REWARDS_FILE: forget_rewards,
        **{name: naming[name] for name in found.naming},
    }


def _replaced(table: Any, column: str, mine: list[bool], make: Callable[[], str | None]) -> Any:
    """A table with other values in a column, where `mine` says so."""
    index = table.schema.get_field_index(column)
    values = [make() if is_mine else value for value, is_mine in zip(table[column].to_pylist(), mine, strict=True)]
    field = table.schema.field(index)
    return table.set_column(index, field, pa.array(values, field.type))


def _rewrite(source: Path, target: Path, change: Callable[[Any], Any]) -> PartFile:
    """Write a file anew, row group by row group."""
    rows = 0
    with (
        arrow_errors(source),
        pq.ParquetFile(source) as file,
        pq.ParquetWriter(target, file.schema_arrow, compression="zstd") as writer,
    ):
        for group in range(file.num_row_groups):
            table = change(file.read_row_group(group))
            writer.write_table(table, row_group_size=len(table))
            rows += len(table)
    sync(target)
    return PartFile(rows, target.stat().st_size, file_sha256(target))


def _changed(part: Part, written: Part) -> Iterator[ChangedCommit]:
    """The commits that are not the same in both."""
    for old, new in zip(_commits(part), _commits(written), strict=True):
        before, after = chain.digest(old.kinds, old.rows), chain.digest(new.kinds, new.rows)
        if before != after:
            yield ChangedCommit(old.first, old.last, before, after)


def _commits(part: Part) -> Iterator[Commit]:
    streams = [entries(table, (row for rows in entry_rows(part, table) for row in rows)) for table in ENTRY_TABLES]
    return commits_of(streams, iter(sorted(marks_of(part))))


def _first_seals(part: Part, decisions: Collection[Position]) -> dict[ExperimentId, Time]:
    """By experiment, the end of the first of their windows."""
    seals: dict[ExperimentId, Time] = {}
    for position, id_, deadline in _windows(part):
        if position in decisions:
            seals[id_] = min(seals.get(id_, deadline), deadline)
    return seals


def _windows(part: Part) -> Iterable[tuple[Position, ExperimentId, Time]]:
    for rows in rows_of(part.folder / DECISIONS_FILE, ("position", "experiment", "deadline")):
        yield from rows
