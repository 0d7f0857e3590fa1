"""Sealed decisions from the parts of an archive, in the order in which they are learned. Called by the log's readers.

A file has its decisions in order of position, and so of time. So those with equal windows are in the order of their
deadlines already: one stream for each window that an experiment had is merged, and nothing is sorted. Those that a
final reward has closed are one stream more for each part, which is sorted on the way: each ends after it was made, so
those may go that end before the next one was made.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from heapq import heappop, heappush
from operator import attrgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from decider.experiment.definition import ExperimentVersion
from decider.log.archive.find import check_joined
from decider.log.archive.part import DECISIONS_FILE, Part, check_content, check_sizes
from decider.log.archive.read import BATCH_ROWS, arrow_errors
from decider.log.protocol import SealedDecision
from decider.log.rows import DECISION, decision, row_type
from decider.log.sqlite.merge import merge
from decider.types import START, ExperimentId, Position, Time

_ROW = row_type(f"{DECISION.columns}, deadline, overridden, activated, shown, rewards_in_time")
_NAMES = _ROW.columns.split(", ")
_NEW = ("activated", "shown")
"""Not in parts from before an experiment could need them."""


def sealed_in_parts(
    parts: Sequence[Part],
    experiment: ExperimentId,
    *,
    after: Time,
    until: Time,
    versions: Mapping[Position, ExperimentVersion],
) -> Iterator[SealedDecision]:
    """An experiment's archived decisions whose window ended in (after, until], in the order of (deadline, position).

    versions: of the log, at least those that the parts' decisions name. Memory does not grow with their number, only
    with that of final rewards within one window.
    Raises ArchiveMissing before anything is read; ArchiveDamaged, for a changed file before it is read.
    """
    check_joined(parts)
    windows = _by_window(versions, experiment)
    needed = [part for part in parts if windows and _ends_between(part, 0, max(windows), after, until)]
    for part in needed:
        check_sizes(part)
    streams = [
        (_first_deadline(window, needed, wanted, after), _sealed(needed, wanted, window, after, until))
        for window, wanted in windows.items()
    ]
    streams += [
        (_first_deadline(0, [part], wanted, after), _closed(part, wanted, window, after, until))
        for window, wanted in windows.items()
        for part in needed
    ]
    return merge(streams, key=attrgetter("deadline", "position"))


def count_in_parts(parts: Sequence[Part], versions: Collection[Position], *, after: Position, until: Position) -> int:
    """How many decisions versions have in an archive at positions in (after, until]. Raises ArchiveMissing,
    ArchiveDamaged."""
    check_joined(parts)
    wanted = pa.array(versions, pa.int64())
    return sum(
        pc.sum(pc.is_in(batch["version"].filter(_between(batch["position"], after, until)), value_set=wanted)).as_py()
        or 0
        for part in parts
        if part.first <= until and part.last > after
        for batch in _whole_numbers(part)
    )


def _whole_numbers(part: Part) -> Iterator[Any]:
    """Position and version of a part's decisions."""
    check_content(part, DECISIONS_FILE)
    path = part.folder / DECISIONS_FILE
    with arrow_errors(path), pq.ParquetFile(path) as file:
        yield from file.iter_batches(batch_size=BATCH_ROWS, columns=["position", "version"])


def _by_window(
    versions: Mapping[Position, ExperimentVersion], experiment: ExperimentId
) -> Mapping[int, Mapping[Position, ExperimentVersion]]:
    """The versions of an experiment, by their window."""
    found: dict[int, dict[Position, ExperimentVersion]] = defaultdict(dict)
    for position, version in versions.items():
        if version.experiment.id == experiment:
            found[version.experiment.reward.window][position] = version
    return found


def _ends_between(part: Part, shortest: int, longest: int, after: Time, until: Time) -> bool:
    """Whether a part may have decisions with such windows that end in (after, until]."""
    return part.until.time + longest > after and part.after.time + shortest <= until


def _first_deadline(
    window: int, parts: Sequence[Part], versions: Mapping[Position, ExperimentVersion], after: Time
) -> tuple[int, Position]:
    """Not above the first one of a stream, so that it is opened late: each keeps a piece of a file in memory."""
    first = max(parts[0].after.time if parts else 0, min([version.time for version in versions.values()]))
    return max(after + 1, first + window), START


def _sealed(
    parts: Sequence[Part], versions: Mapping[Position, ExperimentVersion], window: int, after: Time, until: Time
) -> Iterator[SealedDecision]:
    """Those of versions with one window, which ended at its usual time."""
    for part in parts:
        if _ends_between(part, window, window, after, until):
            check_content(part, DECISIONS_FILE)
            for batch in _batches(part.folder / DECISIONS_FILE, versions, after, until):
                for _, sealed in _decisions(batch.filter(pc.equal(_lasted(batch), window)), versions):
                    yield sealed


def _closed(
    part: Part, versions: Mapping[Position, ExperimentVersion], window: int, after: Time, until: Time
) -> Iterator[SealedDecision]:
    """Those of a part that ended before."""
    waiting: list[tuple[Time, Position, SealedDecision]] = []
    check_content(part, DECISIONS_FILE)
    for batch in _batches(part.folder / DECISIONS_FILE, versions, after, until):
        for made, sealed in _decisions(batch.filter(pc.less(_lasted(batch), window)), versions):
            while waiting and waiting[0][0] <= made:
                yield heappop(waiting)[2]
            heappush(waiting, (sealed.deadline, sealed.position, sealed))
    while waiting:
        yield heappop(waiting)[2]


def _lasted(batch: Any) -> Any:
    return pc.subtract(batch["deadline"], batch["time"])


def _batches(path: Path, versions: Collection[Position], after: Time, until: Time) -> Iterator[Any]:
    """The rows of those versions whose windows end in (after, until]; row groups that have none are skipped."""
    wanted = pa.array(versions, pa.int64())
    with arrow_errors(path), pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            least, most = _ranges(file.metadata.row_group(group))
            if least["deadline"] > until or most["deadline"] <= after:
                continue
            if not any(least["version"] <= position <= most["version"] for position in versions):
                continue
            for batch in file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group], columns=_NAMES):
                inside = _between(batch["deadline"], after, until)
                yield batch.filter(pc.and_(inside, pc.is_in(batch["version"], value_set=wanted)))


def _between(column: Any, after: int, until: int) -> Any:
    """Which values lie in (after, until]."""
    return pc.and_(pc.greater(column, after), pc.less_equal(column, until))


def _ranges(group: Any) -> tuple[dict[str, int], dict[str, int]]:
    """The least and the largest value of each whole-number column of a row group."""
    columns = [group.column(index) for index in range(group.num_columns)]
    known = {one.path_in_schema: one.statistics for one in columns if one.path_in_schema in ("deadline", "version")}
    return {name: one.min for name, one in known.items()}, {name: one.max for name, one in known.items()}


def _decisions(batch: Any, versions: Mapping[Position, ExperimentVersion]) -> Iterator[tuple[Time, SealedDecision]]:
    """Each with the time at which it was made."""
    for values in zip(*[_column(batch, name) for name in _NAMES], strict=True):
        row = _ROW.make(values)
        yield (
            row.time,
            SealedDecision(
                position=row.position,
                time=row.time,
                deadline=row.deadline,
                decision=decision(row, versions[row.version].all_active),
                rewards=tuple(row.rewards_in_time),
                overridden=row.overridden,
                activated=bool(row.activated),
                shown=row.shown,
            ),
        )


def _column(batch: Any, name: str) -> Sequence[Any]:
    is_there = name not in _NEW or name in batch.schema.names
    values: Sequence[Any] = batch[name].to_pylist() if is_there else [None] * len(batch)
    return values
