"""Counts decisions by version and action, piece by piece, so that the view `action_summary` need not read all of them.

Called by the writer between commits, by `trim.py` before it deletes decisions, and by `check.py`. Sums are whole
numbers, so that they do not depend on the order in which decisions come and go.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from decider.log.rows import whole_number

PIECE = 2_000
"""Positions that are counted in one transaction: about 2 ms."""

_SUMS = """
select version, action, reason in ('EXPLOIT', 'EXPLORE') as drawn, count(*) as decisions,
  sum(cast(round(propensity * 1e6) as integer)) as propensity,
  sum(cast(round(1e6 / propensity) as integer)) as inverse,
  sum(cast(round(1e4 / (propensity * propensity)) as integer)) as squared
from decisions not indexed where position > :after and position <= :until group by 1, 2, 3
"""
_ADD = f"""
insert into action_counts (version, action, drawn, decisions, propensity, inverse, squared)
select version, action, drawn, :sign * decisions, :sign * propensity, :sign * inverse, :sign * squared from ({_SUMS})
where true on conflict (version, action, drawn) do update set decisions = decisions + excluded.decisions,
  propensity = propensity + excluded.propensity, inverse = inverse + excluded.inverse,
  squared = squared + excluded.squared
"""  # noqa: S608 - a constant
_UNTIL = "select position from action_counts_until"
_HEAD = "select position from head"


def is_behind(connection: sqlite3.Connection) -> bool:
    """Whether there is a whole piece to count."""
    until, end = (whole_number(connection.execute(sql).fetchone()[0], "a place") for sql in (_UNTIL, _HEAD))
    return end - until >= PIECE


def count_piece(connection: sqlite3.Connection) -> None:
    """Count the next piece, in an open transaction."""
    (after,) = connection.execute(_UNTIL).fetchone()
    connection.execute(_ADD, {"sign": 1, "after": after, "until": after + PIECE})
    connection.execute("update action_counts_until set position = :end, again = :end", {"end": after + PIECE})


def take_out(connection: sqlite3.Connection, *, first: int, last: int) -> None:
    """Before the decisions at these positions are deleted, in the same transaction."""
    (until,) = connection.execute(_UNTIL).fetchone()
    connection.execute(_ADD, {"sign": -1, "after": first - 1, "until": min(last, until)})
    connection.execute("delete from action_counts where decisions = 0")


_WRONG = f"""
select * from (select * from action_counts except select * from ({_SUMS}))
union all select * from (select * from ({_SUMS}) except select * from action_counts)
"""  # noqa: S608 - constants


def problems(connection: sqlite3.Connection) -> Iterator[str]:
    """What is not as the decisions say."""
    rows = connection.execute("select id, position, again from action_counts_until").fetchall()
    if [(id_, position) for id_, position, _ in rows] != [(1, again) for _, _, again in rows] or len(rows) != 1:
        yield "table action_counts_until is not as it was written"
        return
    for version, action, *_ in connection.execute(_WRONG, {"after": 0, "until": rows[0][1]}):
        yield f"the count of decisions of the version at position {version} with {action!r} was changed"
