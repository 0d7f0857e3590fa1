"""A whole log from one database into another: the same entries at the same positions, in the same commits.

Called by `open.py` for `decider copy`; `sqlite/transfer.py` and `postgres/transfer.py` are the two ends. The copy is
compared with its own checksums before it counts as a log, so that what is there is whole: a copy that was killed leaves
nothing that looks like one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from decider.errors import LogCorrupt, LogError
from decider.log.protocol import Damage, Head, Mark, OnProgress, TotalsCheckpoint
from decider.log.tables import ENTRY_TABLES, EXPERIMENTS, EntryTable
from decider.types import Position

Row = Sequence[Any]


class SideTable(NamedTuple):
    """A table beside the entries that every database has, with the same columns."""

    name: str
    columns: tuple[str, ...]


def _side(name: str, columns: str) -> SideTable:
    return SideTable(name, tuple(columns.split()))


SIDE_TABLES = (
    _side("refused_rewards", "name outcome count"),
    _side("early_activations", "id decision_id action time"),
    _side("unit_decisions", "experiment unit_id decision"),
    _side("assignments", "experiment unit_id until decision"),
    _side("persons", "unit_id person"),
    _side("creditable_decisions", "unit_id decision until"),
    _side("exposures", "decision experiment unit_id action kind time until reserved_until day_begin day_end"),
    _side("daily_counts", "experiment day_end day_begin action count"),
    _side("action_kinds", "experiment action kind"),
)
"""They do not follow from the entries alone: entries may be forgotten, and what is over goes by a clock."""

VERSIONS_FIRST = (EXPERIMENTS, *[table for table in ENTRY_TABLES if table is not EXPERIMENTS])


class StoredModel(NamedTuple):
    """A stored model. data: as it is stored, in one piece."""

    experiment: str
    signature: str
    position: Position
    created: int
    checksum: str
    data: bytes


class LogSource(Protocol):
    """A log at one moment. Every iterator reads as it goes; memory does not grow with the log."""

    @property
    def name(self) -> str:
        """Of the log, in messages."""

    @property
    def head(self) -> Head:
        """Its end."""

    def chain_start(self) -> Mark | None:
        """See LogReader."""

    def marks(self) -> Iterator[Row]:
        """Position and chain, rising."""

    def signatures(self) -> Sequence[str]:
        """In the order in which they came."""

    def entries(self, table: EntryTable) -> Iterator[Row]:
        """Position, time, then the table's columns, in order of position."""

    def side_rows(self, table: SideTable) -> Iterator[Row]:
        """All of them."""

    def models(self) -> Iterator[StoredModel]:
        """Those that are stored as a whole."""

    def checkpoints(self) -> Iterator[TotalsCheckpoint]:
        """Those that can be used, the oldest first."""


class LogTarget(Protocol):
    """An empty log that nobody else can read yet. Each method is called once for each table, in the order of `fill`."""

    def write_signatures(self, signatures: Sequence[str]) -> None:
        """Before anything that names one."""

    def write_entries(self, table: EntryTable, rows: Iterable[Row]) -> None:
        """As `LogSource.entries` gives them."""

    def write_side(self, table: SideTable, rows: Iterable[Row]) -> None:
        """As `LogSource.side_rows` gives them."""

    def write_marks(self, marks: Iterable[Row], start: Mark | None) -> None:
        """start: see LogReader.chain_start."""

    def write_models(self, models: Iterable[StoredModel]) -> None:
        """All of them."""

    def write_checkpoint(self, checkpoint: TotalsCheckpoint) -> None:
        """The newest last."""

    def finish(self, head: Head) -> None:
        """Behind all else: the end of the log, and what follows from its rows."""

    def check(self, on_progress: OnProgress) -> Sequence[Damage]:
        """See LogReader."""


class LogPlace(Protocol):
    """Where a log can be made."""

    def filling(self) -> AbstractContextManager[LogTarget]:
        """An empty log, which counts once the block has ended without an exception, and leaves nothing otherwise.
        Raises LogError where there is a log with entries."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What is there now."""

    head: Head
    models: int


Say = Callable[[str], None]
"""Progress, for a person."""

TELL_EVERY = 1_000
"""Entries."""


def copy_log(source: LogSource, place: LogPlace, say: Say) -> Copied:
    """Make a log at the place with everything that the source has. Raises LogError; then there is none."""
    with place.filling() as target:
        models = _fill(target, source, say)
        damages = target.check(lambda at: say(f"checked the copy up to position {at} of {source.head.position}"))
        if damages:
            raise LogCorrupt(
                f"{source.name}: the copy is damaged, as the log is or by the way: {damages[0]} ({len(damages)} in "
                "all); `decider check` on the log says more"
            )
    return Copied(source.head, models)


def _fill(target: LogTarget, source: LogSource, say: Say) -> int:
    """Returns the number of models."""
    target.write_signatures(source.signatures())
    copied = _Counted(source.head.position, say)
    for table in VERSIONS_FIRST:
        target.write_entries(table, copied.all_of(source.entries(table)))
    if copied.entries != source.head.position:
        raise LogCorrupt(
            f"{source.name}: has {copied.entries} entries, and its last one is at position {source.head.position}; "
            "`decider check` says more"
        )
    for side in SIDE_TABLES:
        target.write_side(side, source.side_rows(side))
    target.write_marks(source.marks(), source.chain_start())
    models = _Counted(None, say)
    target.write_models(models.all_of(source.models()))
    for checkpoint in source.checkpoints():
        target.write_checkpoint(checkpoint)
    target.finish(source.head)
    return models.entries


class _Counted:
    """Counts what goes by. of: how many there are in all; None: nobody says."""

    def __init__(self, of: int | None, say: Say) -> None:
        self._of, self._say = of, say
        self.entries = 0

    def all_of(self, rows: Iterable[Any]) -> Iterator[Any]:
        """The same."""
        for row in rows:
            self.entries += 1
            if self._of is not None and self.entries % TELL_EVERY == 0:
                self._say(f"copied {self.entries} of {self._of} entries")
            yield row


def refuse_archive(name: str, cut: Position) -> None:
    """Raises LogError where a log's first entries lie in an archive."""
    if cut:
        raise LogError(
            f"{name}: its entries up to position {cut} lie in an archive, and only whole logs are copied; keep this "
            "log (simulator reads it with its archive) and begin a new one, or copy a backup from before the archive"
        )


def has_entries(name: str, head: Head) -> LogError:
    """Why a log is not written over."""
    return LogError(
        f"{name}: is a log with {head.position} entries already, and nothing is written over; name an empty place"
    )
