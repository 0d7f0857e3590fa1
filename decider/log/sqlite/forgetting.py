"""A log out of which units are removed, and out of its archive. See ForgettingLog in `protocol.py`; made by `open.py`.

Every step can be done again: what is left of a unit is looked for, not remembered. So a run that was killed, or for
which a part was missing, is finished by the next one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from decider.errors import ArchiveDamaged, ArchiveMissing, LogCorrupt
from decider.log.archive.find import NamedPart, parts_of
from decider.log.archive.part import Part
from decider.log.entry_writer import OpenCommit
from decider.log.forgotten import MADE_UP, Removal, made_up_id
from decider.log.protocol import Forgotten, NewBuild
from decider.log.rows import head_in
from decider.log.sqlite.archived import CUT, KEPT, digest_of_cut, digest_of_entries, digest_of_models
from decider.log.sqlite.assignments import forget_assignments
from decider.log.sqlite.connection import transaction
from decider.log.sqlite.cut import SqliteCuttableLog
from decider.log.sqlite.errors import sqlite_errors
from decider.log.sqlite.exposures import forget_exposures
from decider.log.sqlite.forget import (
    DECISIONS_OF_UNIT,
    FORGET_AT_ONCE,
    IS_OF_UNIT,
    NAMES_UNIT,
    clear_unused,
    forget_decisions,
    forget_naming,
)
from decider.log.sqlite.units import forget_unit
from decider.types import Position

_REWARDED = f"""
select distinct decision from rewards
where decision <= {CUT} and reward_id is not null and reward_id not like '{MADE_UP}%' order by decision
"""  # noqa: S608 - constants

Change = Callable[[sqlite3.Connection], Removal]


@dataclass(frozen=True, slots=True)
class _Unit:
    """What is to be forgotten, and how: see ForgettingLog. found: decisions of which something was changed."""

    id: str
    pseudonym: str | None
    context: bool
    found: set[Position] = field(default_factory=set)


class SqliteForgettingLog(SqliteCuttableLog):
    """See ForgettingLog."""

    def forget(self, unit: str, *, pseudonym: bool, context: bool, rebuild: bool) -> Forgotten:
        """See ForgettingLog."""
        one = _Unit(unit, made_up_id() if pseudonym else None, context)
        self._writer.execute("pragma secure_delete = on")
        parts: list[str] = []
        left: list[str] = []
        with self.archiving():
            self.finish_cut(lambda _: None)
            linked = self._forget_in_log(one)
            for named in parts_of(self.path, self._archives):
                try:
                    parts += self._forget_in_part(named, one)
                except (ArchiveMissing, ArchiveDamaged) as error:
                    left.append(str(error))
            self._forget_late_rewards()
        with sqlite_errors(self.path):
            cleared = clear_unused(self.path, rebuild=rebuild)
        return Forgotten(len(one.found), one.pseudonym, cleared, parts, left, linked)

    def _forget_in_log(self, unit: _Unit) -> Sequence[str]:
        """Returns the units that it was linked with."""
        with self._exclusive(), transaction(self._writer) as writer:
            forget_assignments(writer, unit.id)
            linked = forget_unit(writer, unit.id)
        while self._one(NAMES_UNIT, {"unit": unit.id}):
            self._remove(partial(forget_naming, unit=unit.id))
        while found := [row["position"] for row in self._read(DECISIONS_OF_UNIT, (unit.id,))]:
            for some in _pieces(found):
                unit.found.update(self._remove(partial(_removal, unit=unit, decisions=some)).decisions)
        with self._exclusive(), transaction(self._writer) as writer:
            forget_exposures(writer, unit.id)
        return linked

    def _forget_in_part(self, named: NamedPart, unit: _Unit) -> list[str]:
        """Returns the part's folder where it was changed. Raises ArchiveMissing, ArchiveDamaged."""
        from decider.log.archive.forget import take_place, traces, write_without

        if named.part is None:
            raise ArchiveMissing(
                f"{named.path}: the part (positions {named.first} to {named.last}) is missing; say where it is: "
                "--archive DIR"
            )
        part = take_place(named.part)
        found = traces(part, unit.id, {one for removal in self.removals() for one in removal.decisions})
        if not found:
            return []
        written, removal = write_without(part, found, pseudonym=unit.pseudonym, context=unit.context)

        def name(writer: sqlite3.Connection) -> Removal:
            _name_part(writer, part, written)
            return removal

        self._remove(name)
        take_place(written)
        unit.found.update(removal.decisions)
        return [str(part.folder)]

    def _forget_late_rewards(self) -> None:
        """Those that came behind the cut, for decisions that only a part has."""
        forgotten = {one for removal in self.removals() for one in removal.decisions}
        rewarded = [row["decision"] for row in self._read(_REWARDED) if row["decision"] in forgotten]
        for some in _pieces(rewarded):
            self._remove(partial(forget_decisions, decisions=some, pseudonym=None, context=False))

    def _remove(self, change: Change) -> Removal:
        """Change rows and append the entry that names them, in one transaction."""
        with self._exclusive():
            with transaction(self._writer) as writer:
                removal = change(writer)
                head = head_in(writer.execute("select position, time, chain from head").fetchone())
                commit = OpenCommit(head, self._time_after(head))
                self._entries.write(commit, [NewBuild(removal.to_build())])
                after = commit.end()
                writer.execute("update head set position = ?, time = ?, chain = ?", after)
            self._head = after
            self._witness.remember(after.position)
        return removal


def _pieces(positions: Sequence[Position]) -> Iterator[Sequence[Position]]:
    for first in range(0, len(positions), FORGET_AT_ONCE):
        yield positions[first : first + FORGET_AT_ONCE]


def _removal(writer: sqlite3.Connection, unit: _Unit, decisions: Sequence[Position]) -> Removal:
    # Another run may have been quicker.
    left = [one for one in decisions if writer.execute(IS_OF_UNIT, (one, unit.id)).fetchone()]
    return forget_decisions(writer, left, pseudonym=unit.pseudonym, context=unit.context)


def _name_part(writer: sqlite3.Connection, part: Part, written: Part) -> None:
    """From here on the new part counts. Raises LogCorrupt where the log's rows about its archive were changed: the new
    digest would hide that."""
    last, before = writer.execute("select position, digest from cut").fetchone()
    entries, models = digest_of_entries(writer, KEPT, last), digest_of_models(writer, last)
    if digest_of_cut(writer, entries=entries, models=models) != before:
        raise LogCorrupt("what the log says of its archive was changed; `simulator verify` says more")
    writer.execute("update archives set digest = ? where last = ?", (written.digest, part.last))
    writer.execute("update cut set digest = ?", (digest_of_cut(writer, entries=entries, models=models),))
