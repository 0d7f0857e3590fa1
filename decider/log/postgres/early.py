"""Activations that came before their decision: no entries yet, but rows of their own for a while. Called by the writer,
in the open transaction of a commit: so no kill comes between the decision and what was said of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from decider.log.commit_tables import Place
from decider.log.postgres.connection import Connection, execute, read
from decider.log.protocol import EARLY_MICROSECONDS, MOST_EARLY, EarlyActivation
from decider.types import ActionId, Time

_LAST = "(select coalesce(max(id), 0) from early_activations)"
_REMEMBER = f"""
insert into early_activations (id, decision_id, action, time)
values ({_LAST} + 1, %(decision_id)s, %(action)s, %(time)s) on conflict (decision_id) do nothing
"""  # noqa: S608 - a constant
_TAKE = """
delete from early_activations where decision_id = any(%(ids)s::text[]) returning decision_id, action, time
"""
# Times rise with the ids, so that only the rows that are deleted are read.
_DROP = f"""
delete from early_activations where id <= {_LAST} - %(most)s + 1 or id < coalesce(
  (select id from early_activations where time > %(before)s order by id limit 1), {_LAST} + 1)
"""  # noqa: S608 - a constant
_PLACES = "select decision_id, position, action from decisions where decision_id = any(%(ids)s::text[])"


def remember(connection: Connection, activation: EarlyActivation, at: Time) -> bool:
    """Whether it is the first one for its decision. Those that are too old or too many are dropped."""
    drop_old(connection, at)
    row = {"decision_id": activation.decision_id, "action": activation.action, "time": at}
    return execute(connection, _REMEMBER, row) == 1


def drop_old(connection: Connection, at: Time) -> None:
    """Drop what is remembered no longer."""
    execute(connection, _DROP, {"most": MOST_EARLY, "before": at - EARLY_MICROSECONDS})


def take(connection: Connection, decision_ids: Sequence[str], at: Time) -> Mapping[str, ActionId | None]:
    """What was said to be shown for these decisions; it is not remembered any more afterwards."""
    rows = read(connection, _TAKE, {"ids": list(decision_ids)})
    return {row["decision_id"]: row["action"] for row in rows if row["time"] > at - EARLY_MICROSECONDS}


def places(connection: Connection, activations: Sequence[EarlyActivation]) -> Mapping[str, Place]:
    """Those of the decisions that are there after all."""
    rows = read(connection, _PLACES, {"ids": [one.decision_id for one in activations]})
    return {row[0]: (row[1], row[2]) for row in rows}
