"""Sealed decisions in the order in which they were sealed, in pages. Called by `reader.py`.

Between two pages nothing of the log is held; it is exact all the same: what is sealed never changes, and nothing is
sealed before it any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from typing import Any

from decider.experiment.aggregate import NamedReward
from decider.experiment.definition import ExperimentVersion
from decider.log.postgres.connection import Pool
from decider.log.protocol import END, Mark, SealedDecision
from decider.log.rows import DECISION, decision, row_type
from decider.types import ExperimentId, Position, Time

FIRST_PAGE, PAGE, PAGE_VALUES = 100, 1_000, 100_000
"""Decisions that are read at once, at first and at most; and values in them (features, places of pmfs), about: calls
may have thousands."""

NOTHING_LATE = Mark(Position(-1), Time(-1))
"""No reward counts that came after its window."""

_ROW = row_type(f"{DECISION.columns}, deadline, overridden, activated, shown, name, in_force, weight")

# A version's windows end in the order of its decisions, but for those that a final reward has closed.
_DUE = """
select p.position, p.deadline from experiments e cross join lateral (
  (select d.position, d.time + e."window" as deadline from decisions d
    where d.version = e.position and d.time >= %(deadline)s - e."window" and d.time <= %(until)s - e."window"
      and (d.time + e."window", d.position) > (%(deadline)s, %(position)s)
      and not exists (select 1 from seals s where s.decision = d.position)
    order by d.time, d.position limit %(most)s)
  union all
  (select s.decision, s.time + 1 from seals s
    where s.version = e.position and s.time >= %(deadline)s - 1 and s.time < %(until)s
      and (s.time + 1, s.decision) > (%(deadline)s, %(position)s)
    order by s.time, s.decision limit %(most)s)) p
where e.experiment = %(experiment)s
order by p.deadline, p.position limit %(most)s
"""

_CAME = """(case when w.seal is null then {0}.time < w.deadline else {0}.position < w.seal end
  or (w.deadline <= %(late_time)s and {0}.position <= %(late)s))"""
"""In SQL: a reward, or a change of one, came in its decision's window; or late, and the window was over at `late`."""

_JOINED = f"""
select {", ".join(f"w.{column}" for column in DECISION.columns.split(", "))}, w.deadline, w.overridden, w.activated,
  w.shown, r.name, case when c.position is null then r.value else c.value end as in_force, r.weight
from {{source}}
  left join rewards r on r.decision = w.position and {_CAME.format("r")}
  left join lateral (select l.position, l.value from reward_changes l
    where l.reward = r.position and {_CAME.format("l")} order by l.position desc limit 1) c on true
"""  # noqa: S608 - constants

_PAGE = (
    f"with due as materialized ({_DUE})"
    + _JOINED.format(source="due join decision_windows w on w.position = due.position")
    + "order by due.deadline, due.position, r.position"
)


def _without(sql: str, *columns: str) -> str:
    for column in columns:
        sql = sql.replace(f"w.{column},", f"null as {column},")
    return sql


_ENDED = (
    _JOINED.format(
        source="""experiments e join decision_windows w on w.version = e.position
    and w.time > %(after)s - e."window" and w.time <= %(until)s - e."window" """
    )
    + "order by w.position, r.position"
)
ENDED_TO_COUNT = (_without(_ENDED, "features", "action_features"), _ROW)
"""Decisions of all versions whose declared window ended in (after, until], with their rewards: the query, its rows.
Without features: nothing is counted by them, and to read them takes most of the time."""

_Beyond = tuple[Time, Position]


def sealed_decisions(
    pool: Pool,
    version_at: Callable[[Position], ExperimentVersion],
    experiment: ExperimentId,
    *,
    after: Time,
    until: Time,
    late: Mark | None,
) -> Iterator[SealedDecision]:
    """Those whose windows ended in (after, until]. late: see LogReader.sealed_with_late; None: nothing late."""
    beyond: _Beyond = (after, END)
    most = FIRST_PAGE
    while True:
        page = _page(pool, version_at, experiment, beyond, until=until, late=late, most=most)
        yield from page
        if len(page) < most:
            return
        beyond = (page[-1].deadline, page[-1].position)
        values = sum(map(_values, page)) / len(page)
        most = max(1, min(PAGE, round(PAGE_VALUES / max(values, 1))))


def _page(
    pool: Pool,
    version_at: Callable[[Position], ExperimentVersion],
    experiment: ExperimentId,
    beyond: _Beyond,
    *,
    until: Time,
    late: Mark | None,
    most: int,
) -> Sequence[SealedDecision]:
    position, time = late or NOTHING_LATE
    values = {
        "experiment": experiment, "deadline": beyond[0], "position": beyond[1], "until": until, "most": most,
        "late": position, "late_time": time,
    }  # fmt: skip
    found = list(sealed_in(pool.read(_PAGE, values, _ROW), version_at))
    return found if late is not None else [replace(sealed, named=()) for sealed in found]


def sealed_in(
    rows: Iterator[Any] | Sequence[Any], version_at: Callable[[Position], ExperimentVersion]
) -> Iterator[SealedDecision]:
    """The decisions in rows of which each has one for each of its rewards, one after the other; `named` is filled."""
    for _, group in groupby(rows, key=attrgetter("position")):
        of_it = list(group)
        first, counted = of_it[0], [row for row in of_it if row.in_force is not None]
        yield SealedDecision(
            position=first.position,
            time=first.time,
            deadline=first.deadline,
            decision=decision(first, version_at(first.version).all_active),
            rewards=tuple([row.in_force * row.weight for row in counted]),
            overridden=first.overridden,
            activated=first.activated,
            shown=first.shown,
            named=tuple([NamedReward(row.name, row.in_force) for row in counted]),
        )


def _values(sealed: SealedDecision) -> int:
    made = sealed.decision
    return len(made.pmf) + len(made.context.features) + sum(map(len, made.action_features.values()))
