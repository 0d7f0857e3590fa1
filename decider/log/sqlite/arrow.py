"""A log in SQLite as Arrow record batches, straight from C: no Python object per row. Called by `reader.py`.

Imported only where Arrow is asked for: a server needs neither ADBC nor pyarrow. The columns: see `LogReader.arrow`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import adbc_driver_sqlite
import pyarrow as pa
from adbc_driver_sqlite import dbapi

from decider.errors import LogError
from decider.log.protocol import ArrowBatches, Head
from decider.types import ExperimentId

BATCH_ROWS = 65_536

# `+experiment` keeps SQLite from the index on versions: with it, it would collect all decisions and sort them.
# No column may be null in the first rows: ADBC takes the type of a column from there.
_DECISIONS = """
select position, time, version, model, deadline, deadline <= ? as sealed, overridden, activated, propensity, unit_id,
  action, reason, coalesce(segment, '') as segment, coalesce(device, '') as device, coalesce(channel, '') as channel,
  coalesce(location, '') as location, coalesce(intent_stage, '') as intent_stage, coalesce(features, '') as features,
  coalesce(eligible, '') as eligible, coalesce(action_features, '') as action_features,
  substr(pmf, 2, length(pmf) - 2) as pmf,
  case when decision_id glob '*/[0-9]' or decision_id glob '*/[1-9][0-9]' then decision_id else '' end as slot
from decision_windows where +experiment = ? and position <= ? order by position
"""
_REWARDS = """
select position as decision, reward_time as time, joined, in_force is null as retracted,
  coalesce(in_force * weight, 0.0) as value, coalesce(in_force, 0.0) as unweighted, name
from decision_rewards where +experiment = ? and reward_position <= ? order by position, reward_position
"""


def arrow_batches(path: Path, experiment: ExperimentId, head: Head) -> ArrowBatches:
    """See LogReader.arrow."""
    return ArrowBatches(
        decisions=_batches(path, _DECISIONS, (head.time, experiment, head.position)),
        rewards=_batches(path, _REWARDS, (experiment, head.position)),
    )


def _batches(path: Path, sql: str, parameters: tuple[Any, ...]) -> Iterator[Any]:
    uri = f"file:{quote(str(path.resolve()))}?mode=ro"
    try:
        with dbapi.connect(uri) as connection, connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**{adbc_driver_sqlite.StatementOptions.BATCH_ROWS.value: str(BATCH_ROWS)})
            cursor.execute(sql, parameters)
            yield from cursor.fetch_record_batch()
    except (dbapi.Error, pa.ArrowException) as error:
        raise LogError(f"{path}: {error}") from error
