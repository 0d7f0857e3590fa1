"""Checks that a log holds what was acknowledged. Called by `reader.py` for `simulator verify`, and by `transfer.py`.

It computes the chain anew, and compares it at every mark and at the end; and compares what stands beside the entries
with what follows from them. Not covered, other than in SQLite: counts of refused rewards, activations that are
remembered, and assignments that were taken away, which no checksum covers here; pages and indexes (PostgreSQL has
`pg_amcheck`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import psycopg

from decider.experiment.definition import ExperimentVersion
from decider.experiment.strata import measures_of_all, strata_of_all
from decider.log.chain_check import ChainCheck
from decider.log.check_rows import (
    NOWHERE,
    KeptExposures,
    wrong_assignments,
    wrong_definitions,
    wrong_exposures,
    wrong_model,
)
from decider.log.exposures import Exposure, follow_up, settled_exposure
from decider.log.forgotten import MADE_UP
from decider.log.postgres import queries
from decider.log.postgres.checkpoints import stored_checkpoints
from decider.log.postgres.commit_tables import derived, shown
from decider.log.postgres.commits import begin_of_chain, commits, originals
from decider.log.postgres.connection import Connection, read, read_one, stream
from decider.log.postgres.statements import DERIVED, select
from decider.log.postgres.totals import count_totals
from decider.log.postgres.units import persons
from decider.log.protocol import Damage, Head, Mark, OnProgress, TotalsCheckpoint
from decider.log.rows import UNREADABLE, experiment_version
from decider.log.stored_models import read_whole
from decider.log.tables import ENTRY_TABLES, EXPERIMENTS
from decider.log.totals import LabelTotals
from decider.types import START, Position, Time

_HEAD = "select position, time, chain from head"


def check(connection: Connection, on_progress: OnProgress) -> Sequence[Damage]:
    """All damage of a log, from the snapshot of the caller's transaction."""
    counts = list(_check_rows_of_one(connection))
    if counts:
        return counts
    end = Head(*read_one(connection, _HEAD))
    parts = (
        _check_chain(connection, end, on_progress),
        _check_nothing_behind(connection, end.position),
        _check_changed(connection),
        _check_definitions(connection),
        _check_early(connection),
        _check_assignments(connection),
        _check_unit_decisions(connection),
        _check_creditable(connection),
        _check_persons(connection),
        _check_seals(connection),
        _check_exposures(connection, end.time),
        _check_models(connection),
        _check_totals(connection, end.mark),
    )
    return [damage for part in parts for damage in _unreadable_too(connection, part)]


def _unreadable_too(connection: Connection, found: Iterator[Damage]) -> Sequence[Damage]:
    """The damage found, and one more where the rows cannot be read to the end."""
    damages: list[Damage] = []
    try:
        with connection.transaction():  # a savepoint: what fails must not end the caller's
            for damage in found:
                damages.append(damage)  # noqa: PERF402 - what is found before an error counts
    except (psycopg.DataError, *UNREADABLE) as error:
        damages.append(Damage(*NOWHERE, f"cannot be read: {' '.join(str(error).split())}"))
    return damages


def _check_rows_of_one(connection: Connection) -> Iterator[Damage]:
    for table, least in (("head", 1), ("lease", 1), ("chain_start", 0)):
        (count,) = read_one(connection, f"select count(*) from {table}")  # noqa: S608 - our names
        if not least <= count <= 1:
            yield Damage(*NOWHERE, f"table {table} has {count} rows")


def _check_chain(connection: Connection, end: Head, on_progress: OnProgress) -> Iterator[Damage]:
    marks = dict(read(connection, "select position, chain from marks"))
    following = ChainCheck(begin_of_chain(connection), end, marks, originals(connection))
    yield from following.follow(commits(connection, until=end.position), on_progress)


def _check_nothing_behind(connection: Connection, end: Position) -> Iterator[Damage]:
    for table in ENTRY_TABLES:
        sql = f"select min(position), max(position) from {table.name} where position > %(end)s"  # noqa: S608
        first, last = read_one(connection, sql, {"end": end})
        if first is not None:
            yield Damage(first, last, f"table {table.name} has entries behind the head, which stands at {end}")


_CHANGED = """
select changed, greatest((select coalesce(max(position), 0) from experiments),
  (select coalesce(max(position), 0) from serves)) as newest from head
"""


def _check_changed(connection: Connection) -> Iterator[Damage]:
    """That writers find out when another version serves. The column may name another entry of that commit."""
    changed, newest = read_one(connection, _CHANGED)
    if changed < newest:
        yield Damage(newest, newest, f"the head says that {changed} is the last entry that changes what serves")


def _check_definitions(connection: Connection) -> Iterator[Damage]:
    kept = {tuple(row[:2]): row[2] for row in read(connection, "select experiment, action, kind from action_kinds")}
    versions = read(connection, select(EXPERIMENTS), {"after": START, "until": 2**62})
    yield from wrong_definitions(versions, kept)
    names = DERIVED[EXPERIMENTS]
    for position, definition, *written in read(
        connection,
        f"select position, definition, {', '.join(names)} from experiments",  # noqa: S608 - our names
    ):
        for name, value, expected in zip(names, written, derived(definition), strict=True):
            if value != expected:
                yield Damage(position, position, f"column {name} is {value!r}, the definition says {expected!r}")


# Where one is forgotten and made anew, the id is that of another decision, which is younger.
_LEFT = """
select e.decision_id from early_activations e join decisions d on d.decision_id = e.decision_id and d.time >= e.time
"""


def _check_early(connection: Connection) -> Iterator[Damage]:
    for (id_,) in read(connection, _LEFT):
        yield Damage(*NOWHERE, f"the activation remembered for {id_!r} should have been written with its decision")


_ASSIGNMENTS = """
select a.experiment, a.unit_id, a.until, a.decision, d.unit_id as unit, d.time, d.version
from assignments a left join decisions d on d.position = a.decision
"""
_VERSION_ROW = "select experiment, definition from experiments where position = %(version)s"


def _check_assignments(connection: Connection) -> Iterator[Damage]:
    def version_row(version: int | None) -> tuple[str, str] | None:
        found = read_one(connection, _VERSION_ROW, {"version": version})
        return (found[0], found[1]) if found else None

    yield from wrong_assignments(read(connection, _ASSIGNMENTS), version_row)


_OF_UNITS = """
select e.experiment, d.unit_id, d.position as decision from recalls r join decisions d on d.position = r.decision
join experiments e on e.position = d.version
"""
_KEPT_OF_UNITS = "select experiment, unit_id, decision from unit_decisions"
_NOT_MADE_UP = f"not starts_with({{}}, '{MADE_UP}')"
_WRONG_UNIT_DECISIONS = f"""
select decision from (
  ({_OF_UNITS} where {_NOT_MADE_UP.format("d.unit_id")} except {_KEPT_OF_UNITS})
  union all ({_KEPT_OF_UNITS} except {_OF_UNITS})) w order by 1
"""  # noqa: S608 - constants


def _check_unit_decisions(connection: Connection) -> Iterator[Damage]:
    """That each unit has the decisions with a history, and no others. Those of a forgotten unit are nobody's."""
    for (decision,) in read(connection, _WRONG_UNIT_DECISIONS):
        yield Damage(decision, decision, "the decision is missing in its unit's history, or in one that is not its own")


_CREDITABLE = f"""
select d.unit_id, d.position as decision, d.time + e."window" as until
from decisions d join experiments e on e.position = d.version
where e.has_attribution and {_NOT_MADE_UP.format("d.unit_id")}
"""  # noqa: S608 - constants
_KEPT_CREDITABLE = "select unit_id, decision, until from creditable_decisions"
_WRONG_CREDITABLE = f"""
select distinct decision from (
  ({_KEPT_CREDITABLE} except {_CREDITABLE})
  union all
  ({_CREDITABLE} and d.time + e."window" > (select time from head) except {_KEPT_CREDITABLE})) w order by 1
"""  # noqa: S608 - constants


def _check_creditable(connection: Connection) -> Iterator[Damage]:
    for (decision,) in read(connection, _WRONG_CREDITABLE):
        yield Damage(*NOWHERE, f"the open decision at position {decision} is not as written among those of its unit")


def _check_persons(connection: Connection) -> Iterator[Damage]:
    """That units are one person where links join them, and where none does they are not. A unit that was forgotten may
    have joined others, which stay one person."""
    links = read(connection, "select position, unit_id, same_as from links order by position")
    whole = [row for row in links if not (row[1].startswith(MADE_UP) or row[2].startswith(MADE_UP))]
    kept = persons(lambda sql: read(connection, sql))
    for position, unit, same_as in whole:
        if kept.get(unit) is None or kept.get(unit) != kept.get(same_as):
            yield Damage(*NOWHERE, f"the units of the link at position {position} are not one person")
    linked = {unit for row in links for unit in row[1:]}
    if (len(whole) == len(links) and kept != _persons_of(whole)) or not linked.issuperset(kept):
        yield Damage(*NOWHERE, "table persons has other rows than were written")


def _persons_of(links: Sequence[Sequence[Any]]) -> Mapping[str, str]:
    """Each unit, and the first one of its person's."""
    found: dict[str, set[str]] = {}
    for _, *pair in links:
        joined = set(pair).union(*[found.get(unit, ()) for unit in pair])
        found |= dict.fromkeys(joined, joined)
    return {unit: min(units) for unit, units in found.items()}


_WRONG_SEALS = """
select s.position from seals s join decisions d on d.position = s.decision
  left join rewards r on r.position = s.position - 1 left join reward_changes c on c.position = s.position - 1
where s.version <> d.version or s.decision is distinct from coalesce(r.decision, c.decision)
"""


def _check_seals(connection: Connection) -> Iterator[Damage]:
    """That each stands behind a reward or a change of its decision, and names that decision's version."""
    for (position,) in read(connection, _WRONG_SEALS):
        yield Damage(position, position, "the seal does not stand behind a reward of its decision")


_EXPOSURES = """
select decision, experiment, unit_id, action, kind, time, until, reserved_until, day_begin, day_end from exposures
"""
_FORGOTTEN = f"""
select d.position from decisions d join exposures x on x.decision = d.position
where starts_with(d.decision_id, '{MADE_UP}')
"""  # noqa: S608 - a constant
_DAILY_COUNTS = "select experiment, day_end, day_begin, action, count from daily_counts"


def _check_exposures(connection: Connection, now: Time) -> Iterator[Damage]:
    kept = KeptExposures(
        rows={row[0]: row for row in read(connection, _EXPOSURES)},
        forgotten={row[0] for row in read(connection, _FORGOTTEN)},
        days={tuple(row[:4]): row[4] for row in read(connection, _DAILY_COUNTS)},
    )
    yield from wrong_exposures(_counted(connection), kept, now)


def _counted(connection: Connection) -> Iterator[Exposure]:
    """The exposures of all decisions of a log, whether they still count or not."""
    version_at = version_reader(connection)
    for row in stream(connection, queries.SHOWN):
        one = settled_exposure(shown(row[:6], version_at), follow_up(row[0], *row[6:]))
        if one is not None:
            yield one


def version_reader(connection: Connection) -> Callable[[Position], ExperimentVersion]:
    """Reads versions by position, each once. It raises LogCorrupt where a definition cannot be read."""

    @lru_cache
    def version_at(position: Position) -> ExperimentVersion:
        sql = f"{queries.VERSIONS} where position = %(position)s"
        return experiment_version(read_one(connection, sql, {"position": position}))

    return version_at


_MODELS = """
select m.experiment, m.position, m.checksum, m.data, exists (
  select 1 from published p where p.experiment = m.experiment and p.signature = m.signature
    and p.model = m.position) as published
from models m order by m.experiment, m.signature, m.position
"""


def _check_models(connection: Connection) -> Iterator[Damage]:
    for experiment, position, checksum, data, is_published in stream(connection, _MODELS, at_once=1):
        is_intact = read_whole([data], checksum) is not None
        yield from wrong_model(experiment, position, is_published=is_published, is_intact=is_intact)


def _check_totals(connection: Connection, end: Mark) -> Iterator[Damage]:
    """Count anew, and compare with what is stored."""
    forgotten = originals(connection).are_known
    usable: list[TotalsCheckpoint] = []
    for stored in stored_checkpoints(connection):
        mark = stored.checkpoint.mark
        problem = stored.problem(connection) if mark.position <= end.position else f"the log ends at {end.position}"
        if problem:
            yield Damage(mark.position, mark.position, f"the totals stored there cannot be used: {problem}")
        else:
            usable.insert(0, stored.checkpoint)
    after, totals = Mark(START, Time(0)), LabelTotals()
    for checkpoint in usable:
        _add_totals(totals, connection, after=after, until=checkpoint.mark)
        after = checkpoint.mark
        if not totals.agrees_with(LabelTotals.from_json(checkpoint.content), forgotten=forgotten):
            yield Damage(after.position, after.position, "the totals stored there are not those of the entries")


def _add_totals(totals: LabelTotals, connection: Connection, *, after: Mark, until: Mark) -> None:
    """Add everything in (after, until] to totals by labels."""
    versions = {row["position"]: experiment_version(row) for row in read(connection, queries.VERSIONS)}
    groups = (strata_of_all(versions.values()), measures_of_all(versions.values()))
    counted = count_totals(connection, versions.__getitem__, groups, after=after, until=until)
    totals.add(counted, {position: version.experiment.id for position, version in versions.items()})
