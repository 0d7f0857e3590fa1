"""A log in PostgreSQL as Arrow record batches, by way of Python's rows: ADBC's driver would be faster. Called by
`reader.py`; imported where Arrow is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import pyarrow as pa

from decider.log.arrow_schema import DECISIONS, REWARDS
from decider.log.postgres.connection import Pool, stream
from decider.log.protocol import ArrowBatches, Head
from decider.types import ExperimentId

BATCH_ROWS = 8_192

_DECISIONS = """
select position, time, version, model, deadline, (deadline <= %(time)s)::int as sealed, overridden::int, activated::int,
  propensity, unit_id, action, reason, coalesce(segment, '') as segment, coalesce(device, '') as device,
  coalesce(channel, '') as channel, coalesce(location, '') as location, coalesce(intent_stage, '') as intent_stage,
  coalesce(features, '') as features, coalesce(eligible, '') as eligible,
  coalesce(action_features, '') as action_features, substr(pmf, 2, length(pmf) - 2) as pmf,
  case when decision_id ~ '/([0-9]|[1-9][0-9])$' then decision_id else '' end as slot
from decision_windows where experiment = %(experiment)s and position <= %(position)s order by position
"""
_REWARDS = """
select position as decision, reward_time as time, joined::int, (in_force is null)::int as retracted,
  coalesce(in_force * weight, 0.0) as value, coalesce(in_force, 0.0) as unweighted, name
from decision_rewards where experiment = %(experiment)s and reward_position <= %(position)s
order by position, reward_position
"""


def arrow_batches(pool: Pool, experiment: ExperimentId, head: Head) -> ArrowBatches:
    """See LogReader.arrow."""
    values = {"experiment": experiment, "time": head.time, "position": head.position}
    return ArrowBatches(_batches(pool, _DECISIONS, DECISIONS, values), _batches(pool, _REWARDS, REWARDS, values))


def _batches(pool: Pool, sql: str, schema: pa.Schema, values: dict[str, Any]) -> Iterator[Any]:
    with pool.snapshot() as connection:
        rows = stream(connection, sql, values)
        while some := list(islice(rows, BATCH_ROWS)):
            columns = zip(*some, strict=True)
            arrays = [
                pa.array(column, type=schema.field(name).type)
                for name, column in zip(schema.names, columns, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)
