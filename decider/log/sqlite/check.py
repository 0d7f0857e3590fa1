"""Checks that a log holds what was acknowledged. Called by `reader.py` for `simulator verify`.

It computes the chain anew and compares it at every mark, compares columns that repeat others, and runs SQLite's own
check of its pages. A commit out of which `decider forget` removed something is compared with the digest that its entry
has. Not covered: a stored model that was deleted or looks unfinished (it can be learned anew), what is
unused (free pages, signatures without models), and an attacker who computes new checksums for the whole chain.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from functools import partial
from hashlib import sha256
from itertools import groupby
from operator import itemgetter

from decider.log import chain
from decider.log.chain_check import ChainCheck
from decider.log.check_rows import (
    NOWHERE,
    KeptExposures,
    wrong_assignments,
    wrong_definitions,
    wrong_exposures,
    wrong_model,
)
from decider.log.forgotten import MADE_UP, ChangedCommit
from decider.log.protocol import Damage, Head, Mark, OnProgress
from decider.log.rows import UNREADABLE, head_in
from decider.log.sqlite import action_counts, early, units
from decider.log.sqlite.archived import (
    ARCHIVED_DECISION,
    KEPT,
    KEPT_AT_FIRST,
    archived_sum,
    digest_of_cut,
    digest_of_entries,
    digest_of_models,
)
from decider.log.sqlite.checkpoints import Stored, stored_checkpoints
from decider.log.sqlite.commits import commits, originals
from decider.log.sqlite.exposures import counted
from decider.log.sqlite.read_rows import version_reader
from decider.log.sqlite.totals import add_totals
from decider.log.sqlite.trim import DELETED, FIRST_LEFT
from decider.log.stored_models import read_whole
from decider.log.tables import ENTRY_TABLES, EXPERIMENTS
from decider.log.totals import LabelTotals
from decider.types import START, Position, Time

LAST = 2**63 - 1


def check(
    connection: sqlite3.Connection,
    on_progress: OnProgress,
    *,
    acknowledged: Position,
    changed: Sequence[ChangedCommit] = (),
) -> Sequence[Damage]:
    """All damage of a log, from one snapshot: others may write meanwhile.

    acknowledged: the last acknowledged position, read before the snapshot; 0: unknown. changed: commits out of which
    something was removed by entries that are not in this log.
    """
    connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")  # damaged text must be readable
    connection.execute("begin")
    parts = (
        _check_pages(connection),
        _check_rows_of_one(connection),
        _check_end(connection, acknowledged),
        _check_chain(connection, on_progress, changed),
        _check_cut(connection),
        _check_archived(connection),
        _check_definitions(connection),
        _check_open_versions(connection),
        _check_refused(connection),
        _check_early(connection),
        _check_action_counts(connection),
        _check_assignments(connection),
        _check_row_sums(connection),
        _check_unit_decisions(connection),
        _check_units(connection),
        _check_seals(connection),
        _check_exposures(connection),
        _check_models(connection),
        _check_totals(connection, changed),
    )
    return [damage for part in parts for damage in _unreadable_too(part)]


def _unreadable_too(found: Iterator[Damage]) -> Iterator[Damage]:
    """The damage found, and one more where the file cannot be read to the end."""
    try:
        yield from found
    except (sqlite3.Error, *UNREADABLE) as error:
        yield Damage(*NOWHERE, f"cannot be read: {str(error) or type(error).__name__}")


def _check_pages(connection: sqlite3.Connection) -> Iterator[Damage]:
    """SQLite's own check; of indexes too, since a decision that its index has lost cannot be rewarded."""
    for (line,) in connection.execute("pragma integrity_check"):
        if line != "ok":
            yield Damage(*NOWHERE, f"the file: {line}")


def _check_rows_of_one(connection: sqlite3.Connection) -> Iterator[Damage]:
    for table, least in (("head", 1), ("chain_start", 0), ("model_bytes", 1), ("cut", 0), ("closed_until", 1)):
        (count,) = connection.execute(f"select count(*) from {table}").fetchone()  # noqa: S608 - our names
        if not least <= count <= 1:
            yield Damage(*NOWHERE, f"table {table} has {count} rows")


def _check_end(connection: sqlite3.Connection, acknowledged: Position) -> Iterator[Damage]:
    behind = Position(_head(connection).position + 1)
    if behind <= acknowledged:
        yield Damage(
            behind, acknowledged, "were acknowledged and are not there: the write-ahead log is damaged or gone"
        )


def _head(connection: sqlite3.Connection) -> Head:
    return head_in(connection.execute("select position, time, chain from head").fetchone())


def _check_chain(
    connection: sqlite3.Connection, on_progress: OnProgress, changed: Sequence[ChangedCommit]
) -> Iterator[Damage]:
    end = _head(connection)
    begin = _begin_of_chain(connection)
    marks = dict(connection.execute("select position, chain from marks where position >= ?", (begin.position,)))
    following = ChainCheck(begin, end, marks, originals(connection).with_more(changed))
    there = commits(connection, ENTRY_TABLES, after=begin.position, until=end.position)
    yield from following.follow(there, on_progress)
    yield from _check_nothing_behind(connection, end.position)


def _check_nothing_behind(connection: sqlite3.Connection, end: Position) -> Iterator[Damage]:
    for table in ENTRY_TABLES:
        sql = f"select min(position), max(position) from {table.name} where position > ?"  # noqa: S608 - our names
        first, last = connection.execute(sql, (end,)).fetchone()
        if first is not None:
            yield Damage(first, last, f"table {table.name} has entries behind the head, which stands at {end}")


def _begin_of_chain(connection: sqlite3.Connection) -> Head:
    """Where the chain begins: behind the archive, if there is one."""
    cut = connection.execute("select position, time, chain from cut").fetchone()
    if cut is not None:
        return head_in(cut)
    start = connection.execute("select position, at from chain_start").fetchone()
    return Head(START, Time(0), chain.start(*start) if start else chain.EMPTY)


def _check_cut(connection: sqlite3.Connection) -> Iterator[Damage]:
    """Whether what an archive run left in the log is still what it left."""
    cut = connection.execute("select position, digest from cut").fetchone()
    if cut is None:
        yield from _check_never_cut(connection)
        return
    last, written = cut
    models = digest_of_models(connection, last)
    digests = (
        digest_of_cut(connection, entries=digest_of_entries(connection, tables, last), models=models)
        for tables in (KEPT, KEPT_AT_FIRST)
    )
    if written not in digests:
        yield Damage(Position(1), last, "something that the log has kept of its archived entries was changed")
    for base in connection.execute("select experiment, signature, position, checksum from bases where position > 0"):
        pieces = connection.execute(_BASE_PIECES, base[:3])
        if sha256(b"".join([data for (data,) in pieces])).hexdigest() != base[3]:
            yield Damage(*NOWHERE, f"the model of {base[0]} up to position {base[2]}, kept at the cut, is damaged")
    yield from _check_left(connection, last)


_BASE_PIECES = "select data from base_pieces where experiment = ? and signature = ? and position = ? order by part"


def _check_never_cut(connection: sqlite3.Connection) -> Iterator[Damage]:
    for table in ("archives", "archived_experiments", "archived_times", "kept_models", "archived_decisions", "bases"):
        (count,) = connection.execute(f"select count(*) from {table}").fetchone()  # noqa: S608 - our names
        if count:
            yield Damage(*NOWHERE, f"table {table} has rows, and nothing was archived")


def _check_left(connection: sqlite3.Connection, last: Position) -> Iterator[Damage]:
    """What is not deleted yet is deleted in order of position: an entry before a gap was added. Behind the cut before,
    that is; up to there only models are left that had stayed, and they go first."""
    (first,) = connection.execute(FIRST_LEFT, {"cut": last, "clean": START}).fetchone()
    if first is None:
        return
    (before,) = connection.execute(_CUT_BEFORE, (last,)).fetchone()
    begin = max(first, before + 1)
    rest = commits(connection, ENTRY_TABLES, after=Position(begin - 1), until=last)
    there = sum([commit.last - commit.first + 1 for commit in rest if commit.gapless])
    if there != last - begin + 1 or any(_is_left(connection, table, before) for table in DELETED):
        yield Damage(first, last, "entries lie before the cut that are in the archive, with gaps between them")


_CUT_BEFORE = "select coalesce(max(last), 0) from archives where last < ?"


def _is_left(connection: sqlite3.Connection, table: str, last: Position) -> bool:
    """Whether a table has entries up to a position."""
    sql = f"select 1 from {table} where position <= ? limit 1"  # noqa: S608 - our names
    return connection.execute(sql, (last,)).fetchone() is not None


def _check_archived(connection: sqlite3.Connection) -> Iterator[Damage]:
    rows = connection.execute(f"select {ARCHIVED_DECISION.columns} from archived_decisions")  # noqa: S608 - a constant
    total = sum(map(archived_sum, rows)) & chain.REFUSED_BITS
    (written,) = connection.execute("select archived from cut").fetchone() or (0,)
    if total != written:
        yield Damage(*NOWHERE, "the archived decisions that the log has kept were changed")


def _check_definitions(connection: sqlite3.Connection) -> Iterator[Damage]:
    kept = {(experiment, action): kind for experiment, action, kind in connection.execute(_ACTION_KINDS)}
    yield from wrong_definitions(connection.execute(EXPERIMENTS.select, (START, LAST)), kept)


_ACTION_KINDS = "select experiment, action, kind from action_kinds"

_WRONGLY_CLOSED = """
select e.position, 'has decisions whose window is open, and counts as closed'
from closed_until c cross join experiments e
where e.position not in (select version from open_versions)
  and exists (select 1 from decisions d where d.version = e.position and d.time > c.time - e.window)
union all
select o.version, 'counts as open for another experiment'
from open_versions o left join experiments e on e.position = o.version where o.experiment is not e.experiment
"""


def _check_open_versions(connection: sqlite3.Connection) -> Iterator[Damage]:
    """Whether the learner and the metrics would find every window that is open."""
    if connection.execute("select 1 from closed_until where id = 1").fetchone() is None:
        yield Damage(*NOWHERE, "table closed_until has lost its row")
    for position, problem in connection.execute(_WRONGLY_CLOSED):
        yield Damage(position, position, f"the version {problem}")


def _check_refused(connection: sqlite3.Connection) -> Iterator[Damage]:
    if connection.execute("select refused from head").fetchone() != (early.sum_of_refused(connection),):
        yield Damage(*NOWHERE, "the counts of refused rewards, or the activations that are remembered, were changed")


def _check_assignments(connection: sqlite3.Connection) -> Iterator[Damage]:
    yield from wrong_assignments(connection.execute(_ASSIGNMENTS), partial(_version_row, connection))


def _version_row(connection: sqlite3.Connection, version: int | None) -> tuple[str, str] | None:
    sql = "select experiment, definition from experiments where position = ?"
    row: tuple[str, str] | None = connection.execute(sql, (version,)).fetchone()
    return row


_ASSIGNMENTS = """
select a.experiment, a.unit_id, a.until, a.decision, coalesce(d.unit_id, k.unit_id), coalesce(d.time, k.time),
  coalesce(d.version, k.version)
from assignments a left join decisions d on d.position = a.decision
  left join archived_decisions k on k.position = a.decision
where a.decision > coalesce((select position from cut), 0) or d.position is not null or k.position is not null
"""


def _check_row_sums(connection: sqlite3.Connection) -> Iterator[Damage]:
    """Whether tables that entries alone do not explain have the rows that were written, no more and no fewer: units
    were linked by entries that may be archived or forgotten, and assignments are dropped by a clock."""
    (decisions,) = connection.execute("select coalesce(sum(decision), 0) from assignments").fetchone()
    persons = units.sum_of_persons(connection.execute("select unit_id, person from persons"))
    written = dict(connection.execute("select name, sum from row_sums"))
    for table, total in (("assignments", decisions), ("persons", persons)):
        if written.pop(table, None) != total:
            yield Damage(*NOWHERE, f"table {table} has other rows than were written")
    for name in written:
        yield Damage(*NOWHERE, f"table row_sums has a row {name!r}, which nobody wrote")


def _check_unit_decisions(connection: sqlite3.Connection) -> Iterator[Damage]:
    """That each unit has the decisions with a history, and no others. Those of a forgotten unit are nobody's."""
    for (decision,) in connection.execute(_WRONG_UNIT_DECISIONS, {"made_up": f"{MADE_UP}*"}):
        yield Damage(decision, decision, "the decision is missing in its unit's history, or in one that is not its own")


_OF_UNITS = """
select e.experiment, d.unit_id, d.position from recalls r join decisions d on d.position = r.decision
join experiments e on e.position = d.version
"""
_KEPT_OF_UNITS = "select experiment, unit_id, decision from unit_decisions"
_WRONG_UNIT_DECISIONS = f"""
select position from ({_OF_UNITS} where d.unit_id not glob :made_up except {_KEPT_OF_UNITS})
union select decision from ({_KEPT_OF_UNITS} except {_OF_UNITS}) order by 1
"""  # noqa: S608 - constants


def _check_units(connection: sqlite3.Connection) -> Iterator[Damage]:
    """What follows from decisions and links, for rewards by unit. A copy of an archive credits nothing: it has neither
    all persons nor open decisions."""
    if connection.execute(_CREDITS).fetchone():
        for (problem,) in connection.execute(_WRONG_UNITS, {"made_up": f"{MADE_UP}*"}):
            yield Damage(*NOWHERE, problem)


_CREDITS = "select 1 from sqlite_master where type = 'trigger' and name = 'keep_creditable_decision'"
_CREDITABLE = """
select d.unit_id, d.position as decision, d.time + e.window as until
from decisions d join experiments e on e.position = d.version
where json_extract(e.definition, '$.reward.attribution') is not null and d.unit_id not glob :made_up
"""
_KEPT_CREDITABLE = """
select unit_id, decision, until from creditable_decisions where decision > coalesce((select position from cut), 0)
"""
_WRONG_UNITS = f"""
select 'the open decision at position ' || decision || ' is not as written among those of its unit' from (
  select * from ({_KEPT_CREDITABLE} except {_CREDITABLE})
  union
  select * from ({_CREDITABLE} and d.time + e.window > (select time from head) except {_KEPT_CREDITABLE}))
union all
select 'the units of the link at position ' || l.position || ' are not one person'
from links l left join persons a on a.unit_id = l.unit_id left join persons b on b.unit_id = l.same_as
where l.unit_id not glob :made_up and l.same_as not glob :made_up and (a.person is null or a.person is not b.person)
"""  # noqa: S608 - constants


def _check_exposures(connection: sqlite3.Connection) -> Iterator[Damage]:
    now = _head(connection).time
    behind = connection.execute("select position, time from cut").fetchone() or (START, Time(0))
    kept = KeptExposures(
        rows={row[0]: row for row in connection.execute(_EXPOSURES, behind[:1])},
        forgotten={row[0] for row in connection.execute(_FORGOTTEN)},
        days={row[:4]: row[4] for row in connection.execute(_DAILY_COUNTS)},
        since=behind[1],
    )
    yield from wrong_exposures(counted(connection, version_reader(connection)), kept, now)


_EXPOSURES = """
select decision, experiment, unit_id, action, kind, time, until, reserved_until, day_begin, day_end
from exposures where decision > ?
"""
_FORGOTTEN = f"""
select position from decisions where position in (select decision from exposures) and decision_id like '{MADE_UP}%'
"""  # noqa: S608 - a constant
_DAILY_COUNTS = "select experiment, day_end, day_begin, action, count from daily_counts"


def _check_early(connection: sqlite3.Connection) -> Iterator[Damage]:
    for problem in early.problems(connection):
        yield Damage(*NOWHERE, problem)


def _check_action_counts(connection: sqlite3.Connection) -> Iterator[Damage]:
    for problem in action_counts.problems(connection):
        yield Damage(*NOWHERE, problem)


_WRONG_SEALS = """
select s.position from seals s join decisions d on d.position = s.decision
  left join rewards r on r.position = s.position - 1 left join reward_changes c on c.position = s.position - 1
where s.version <> d.version or s.decision is not coalesce(r.decision, c.decision)
"""


def _check_seals(connection: sqlite3.Connection) -> Iterator[Damage]:
    """That each stands behind a reward or a change of its decision, and names that decision's version."""
    for (position,) in connection.execute(_WRONG_SEALS):
        yield Damage(position, position, "the seal does not stand behind a reward of its decision")


def _check_models(connection: sqlite3.Connection) -> Iterator[Damage]:
    rows = connection.execute(
        "select experiment, signature, position, part, parts, checksum, data from models order by 1, 2, 3, 4"
    )
    for key, group in groupby(rows, key=itemgetter(0, 1, 2)):
        is_published = connection.execute(_PUBLISHED_MODEL, key).fetchone() is not None
        is_intact = _are_intact([row[3:] for row in group])
        yield from wrong_model(key[0], key[2], is_published=is_published, is_intact=is_intact)

    (bytes_,) = connection.execute("select coalesce(sum(length(data)), 0) from models").fetchone()
    if connection.execute("select bytes from model_bytes").fetchone() != (bytes_,):
        yield Damage(*NOWHERE, f"table model_bytes does not say {bytes_}")


_PUBLISHED_MODEL = """
select 1 from published
where experiment = ? and signature = (select id from signatures where signature = ?) and model = ?
"""


def _are_intact(pieces: Sequence[tuple[int, int, str, bytes]]) -> bool:
    """Whether all pieces are there with the right checksum, or only the first few: a killed process leaves those."""
    numbers, counts, checksums, data = zip(*pieces, strict=True)
    if numbers != tuple(range(len(pieces))) or len(set(counts)) > 1 or len(set(checksums)) > 1:
        return False
    complete: bool = len(pieces) == counts[0]
    return not complete or read_whole(data, checksums[0]) is not None


def _check_totals(connection: sqlite3.Connection, changed: Sequence[ChangedCommit]) -> Iterator[Damage]:
    """Count anew, and compare with what is stored; from the totals that are kept where entries before are gone."""
    yield from _check_kept_totals(connection)
    forgotten = bool(changed) or originals(connection).are_known
    usable: list[Stored] = []
    for stored in stored_checkpoints(connection):
        problem = stored.problem(connection)
        if problem:
            yield Damage(stored.position, stored.position, f"the totals stored there cannot be used: {problem}")
        else:
            usable.insert(0, stored)
    whole = all(_is_whole(connection, stored.position) for stored in usable if stored.kept)
    mark, totals = Mark(START, Time(0)), LabelTotals()
    for stored in usable:
        until = stored.checkpoint.mark
        if whole or not stored.kept:
            add_totals(totals, connection, after=mark, until=until)
            if not totals.agrees_with(stored.totals, forgotten=forgotten):
                yield Damage(until.position, until.position, "the totals stored there are not those of the entries")
        else:
            totals = stored.totals
        mark = until


def _check_kept_totals(connection: sqlite3.Connection) -> Iterator[Damage]:
    """Before the first archived entry is deleted, what is counted up to there is kept."""
    cut, counted = connection.execute("select position, counted from cut").fetchone() or (START, START)
    has_any = connection.execute("select 1 from totals_checkpoints where kept = 1").fetchone() is not None
    if counted > START and not has_any and not _is_whole(connection, cut):
        yield Damage(Position(1), cut, "the totals of these archived entries are gone")


def _is_whole(connection: sqlite3.Connection, until: Position) -> bool:
    """Whether every entry up to a position is there."""
    counts = (
        connection.execute(f"select count(*) from {table.name} where position <= ?", (until,)).fetchone()  # noqa: S608
        for table in ENTRY_TABLES
    )
    return bool(sum(count for (count,) in counts) == until)
