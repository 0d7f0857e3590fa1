"""Deletes rows beside the entries that count no longer. Called by the writer now and then."""

from __future__ import annotations

from decider.experiment.limits import LONGEST_DAY
from decider.log.postgres import early
from decider.log.postgres.connection import Connection, execute
from decider.types import Time

AT_ONCE = 5_000
"""Rows of a table that one look deletes."""

_OVER = f"""
delete from {{table}} where ctid = any(array(select ctid from {{table}} where until <= %(at)s limit {AT_ONCE}))
"""  # noqa: S608 - our names
# A reservation that has ended counts for nothing, and is taken out of its day.
_ENDED = f"""
with gone as (
  delete from exposures where decision = any(array(
    select decision from exposures where reserved_until <= %(at)s order by reserved_until limit {AT_ONCE}))
  returning experiment, action, day_begin, day_end),
counts as (
  select experiment, action, day_begin, day_end, count(*) as count from gone where day_begin is not null
  group by experiment, action, day_begin, day_end)
update daily_counts d set count = d.count - c.count from counts c
where d.experiment = c.experiment and d.action = c.action and d.day_begin = c.day_begin and d.day_end = c.day_end
"""  # noqa: S608 - a number
_OVER_EXPOSURES = f"""
delete from exposures where decision = any(array(
  select decision from exposures where until <= %(at)s and reserved_until is null order by until limit {AT_ONCE}))
"""  # noqa: S608 - a number


def drop_over(connection: Connection, at: Time, log_time: Time) -> None:
    """Within the caller's transaction. at: of the clock, for what units keep. log_time: limits and windows end in the
    log's time, since a clock that is ahead must not end them too early."""
    # Commits change the same rows of daily_counts, behind the head: in another order two could wait for each other.
    execute(connection, "select 1 from head for update")
    execute(connection, _ENDED, {"at": log_time})
    execute(connection, _OVER_EXPOSURES, {"at": log_time})
    execute(connection, "delete from daily_counts where day_end <= %(over)s", {"over": log_time - LONGEST_DAY})
    execute(connection, _OVER.format(table="assignments"), {"at": at})
    execute(connection, _OVER.format(table="creditable_decisions"), {"at": log_time})
    early.drop_old(connection, at)
