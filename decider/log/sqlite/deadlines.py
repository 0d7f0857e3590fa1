"""When windows end, by version: asked at each step and scrape, so only of versions that may have open windows.

views.sql defines what is sealed. Whoever wants the decisions whose deadline lies in (after, until] writes that as a
range of their times, since the index is on (version, time). Called by `reader.py` and `sealed.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from decider.types import Position, Time

VERSIONS_TO_ASK = """
with asked (position, experiment) as (
  select o.version, o.experiment from closed_until c cross join open_versions o where c.id = 1 and c.time <= :after
  union all
  select e.position, e.experiment from closed_until c cross join experiments e where c.id = 1 and c.time > :after)
"""
"""The versions that may have a window's end beyond :after: the open ones, but all of them where closed ones have."""

FIRST_DEADLINES = f"""{VERSIONS_TO_ASK}
select v.position, v.experiment, v.closed,
  nullif(min(ifnull(v.usual, 1 << 62), ifnull(v.closed, 1 << 62)), 1 << 62) as deadline
from (
  select a.position, a.experiment, (select d.time + e.window from decisions d
      where d.version = a.position and d.time > :after - e.window order by d.time limit 1) as usual,
    (select s.time + 1 from seals s
      where s.version = a.position and s.time >= :after order by s.time limit 1) as closed
  from asked a join experiments e on e.position = a.position) v
"""  # noqa: S608 - a constant
"""The first deadline beyond :after of the versions that may have one; null where there is none. For a decision that a
final reward has closed, both ends of its window count: to step over those that are closed could take long. closed: the
first of those."""

FIRST_DEADLINES_OF = f"{FIRST_DEADLINES} where v.experiment = :experiment"


def due_until(rows: Iterable[Any], until: Time) -> dict[Position, Time]:
    """Of FIRST_DEADLINES those up to a time, by version."""
    found = {row["position"]: row["deadline"] for row in rows if row["deadline"] is not None}
    return {version: deadline for version, deadline in found.items() if deadline <= until}
