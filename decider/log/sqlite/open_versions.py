"""Closes the versions whose last window is over, so that nobody looks at them any more. Called by `writer.py`.

Closing only saves work: a trigger in schema.sql opens a version again with its next decision. Whoever asks for windows
that ended before `closed_until` looks at all versions, as if none were closed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

from decider.log.sqlite.connection import transaction
from decider.types import Position, Time

CLOSE_INTERVAL = 60.0
"""Seconds between two looks for versions that can be closed."""

AT_ONCE = 500
"""Versions that are closed in one transaction, while writers wait."""

SOON, LATER = 60_000_000, 3_600_000_000
"""Microseconds from a version's last window to its closing, where a newer one has come, and where it is the newest: it
opens again with its next decision. Not at once, so that who has read the log a minute ago is not sent to all versions.
"""

_OVER = """
with last (version, experiment, number, deadline) as (
  select o.version, e.experiment, e.number,
    coalesce((select max(time) from decisions d where d.version = o.version), 0) + e.window
  from open_versions o join experiments e on e.position = o.version)
select version, deadline from last
where deadline <= :now - :soon and (deadline <= :now - :later or exists (
  select 1 from experiments n where n.experiment = last.experiment and n.number > last.number))
"""
_OVER_AGAIN = f"{_OVER} and version in (select value from json_each(:versions))"  # noqa: S608 - a constant


def find_over(connection: sqlite3.Connection, now: Time) -> Iterator[Sequence[Position]]:
    """The versions that can be closed, as many as one transaction closes."""
    found = [version for version, _ in connection.execute(_OVER, _parameters(now))]
    for first in range(0, len(found), AT_ONCE):
        yield found[first : first + AT_ONCE]


def close_versions(connection: sqlite3.Connection, versions: Sequence[Position], now: Time) -> None:
    """Close those of these versions that can still be closed."""
    with transaction(connection):
        parameters = {**_parameters(now), "versions": f"[{','.join(map(str, versions))}]"}
        over = connection.execute(_OVER_AGAIN, parameters).fetchall()
        latest = max([deadline for _, deadline in over], default=0)
        connection.execute("update closed_until set time = max(time, ?)", (latest,))
        connection.executemany("delete from open_versions where version = ?", [(version,) for version, _ in over])


def _parameters(now: Time) -> dict[str, object]:
    return {"now": now, "soon": SOON, "later": LATER}
