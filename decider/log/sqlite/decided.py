"""How many decisions an experiment has between two places of the log, by an index. Called by `reader.py`.

What an archive run has taken out counts as before: `archived_experiments` has the number of all, `archived_decisions`
each one that was not sealed at the base.
"""

from __future__ import annotations

import sqlite3

from decider.log.protocol import Mark
from decider.log.sqlite.archived import read_cut
from decider.log.sqlite.deadlines import VERSIONS_TO_ASK
from decider.types import START, ExperimentId

# A decision behind a place ends its window behind that place's time, so its version is one of those to ask.
_IN_LOG = f"""{VERSIONS_TO_ASK}
select count(*) from asked a cross join decisions d indexed by decisions_by_version on d.version = a.position
where a.experiment = :experiment and d.time >= :after and d.time <= :until and d.position > :first
  and d.position <= :last
"""  # noqa: S608 - a constant

_ARCHIVED = "select decisions from archived_experiments where experiment = ?"

_ARCHIVED_BETWEEN = """
select count(*) from archived_decisions where experiment = :experiment and position > :first and position <= :last
"""


def count_decided(connection: sqlite3.Connection, experiment: ExperimentId, *, after: Mark, until: Mark) -> int:
    """See LogReader. In a transaction: a decision that is being archived is in one of two tables."""
    cut = read_cut(connection)
    if after.position >= cut.position:
        return _in_log(connection, experiment, after, until)
    return _up_to(connection, experiment, until, cut) - _up_to(connection, experiment, after, cut)


def _up_to(connection: sqlite3.Connection, experiment: ExperimentId, place: Mark, cut: Mark) -> int:
    if place.position == START:
        return 0
    row = connection.execute(_ARCHIVED, (experiment,)).fetchone()
    archived = int(row[0]) if row else 0
    if place.position >= cut.position:
        return archived + _in_log(connection, experiment, cut, place)
    between = {"experiment": experiment, "first": place.position, "last": cut.position}
    (kept,) = connection.execute(_ARCHIVED_BETWEEN, between).fetchone()
    return archived - int(kept) - _in_log(connection, experiment, place, cut)


def _in_log(connection: sqlite3.Connection, experiment: ExperimentId, after: Mark, until: Mark) -> int:
    """Rows; up to a cut those that are still to be deleted."""
    span = {"after": after.time, "until": until.time, "first": after.position, "last": until.position}
    (count,) = connection.execute(_IN_LOG, {"experiment": experiment, **span}).fetchone()
    return int(count)
