"""A log in PostgreSQL as Arrow record batches: PostgreSQL writes CSV, Arrow reads it; no row becomes Python objects.

Called by `reader.py`; imported where Arrow is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
from pyarrow import csv

from decider.errors import LogError
from decider.log.arrow_schema import DECISIONS, REWARDS
from decider.log.postgres.connection import ESCAPE, Pool, from_text, to_stored
from decider.log.protocol import ArrowBatches, Head
from decider.types import ExperimentId

PIECE_BYTES = 4 * 2**20
"""Of CSV that is read at once."""

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
    try:
        with (
            pool.snapshot() as connection,
            connection.cursor() as cursor,
            cursor.copy(
                f"copy ({sql}) to stdout (format csv)".encode(),
                {name: to_stored(value) for name, value in values.items()},
            ) as rows,
        ):
            for text in _pieces(rows):
                yield from _parse(text, schema).to_batches()
    except pa.ArrowException as error:
        raise LogError(f"{pool.name}: {error}") from error


def _pieces(rows: Iterable[Any]) -> Iterator[bytes]:
    """Rows in pieces of about PIECE_BYTES: PostgreSQL sends one by one."""
    piece = bytearray()
    for row in rows:
        piece += row
        if len(piece) >= PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


def _parse(text: bytes, schema: pa.Schema) -> pa.Table:
    table = csv.read_csv(
        pa.BufferReader(text),
        read_options=csv.ReadOptions(column_names=schema.names, use_threads=False),
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(column_types=schema, strings_can_be_null=False),
    )
    if ESCAPE.encode() not in text:
        return table
    for place, field in enumerate(schema):
        if field.type == pa.string():
            table = table.set_column(place, field, [list(map(from_text, table.column(place).to_pylist()))])
    return table
