"""How many decisions an experiment has between two places of the log, by an index. Called by `reader.py`.

Of what an archive run has taken out, `archived_decisions` has what counts behind a base, of versions that learn. Before
it the archive says how many there are: who learns from there reads it anyway.
"""

from __future__ import annotations

import sqlite3

from decider.log.protocol import Mark
from decider.log.sqlite.deadlines import VERSIONS_TO_ASK
from decider.types import ExperimentId, Position

# A decision behind a place ends its window behind that place's time, so its version is one of those to ask.
_IN_LOG = f"""{VERSIONS_TO_ASK}
select a.position as version, (
  select count(*) from decisions d indexed by decisions_by_version
  where d.version = a.position and d.time >= :after and d.time <= :until and d.position > :first
    and d.position <= :last) as count
from asked a where a.experiment = :experiment
"""  # noqa: S608 - a constant

# `not indexed`: by position, so that nothing is read for a place behind the cut.
_ARCHIVED = """
select version, count(*) as count from archived_decisions not indexed
where position > :first and position <= :last and experiment = :experiment group by version
"""


def decided_by_version(
    connection: sqlite3.Connection, experiment: ExperimentId, *, after: Mark, until: Mark
) -> list[tuple[Position, int]]:
    """A version may come twice; each has one decision at least. In a transaction: a decision that is being archived is
    in one of two tables."""
    span = {"after": after.time, "until": until.time, "first": after.position, "last": until.position}
    counts = [
        row for sql in (_IN_LOG, _ARCHIVED) for row in connection.execute(sql, {**span, "experiment": experiment})
    ]
    return [(version, count) for version, count in counts if count]
