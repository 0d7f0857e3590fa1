"""Says which parts of an archive hold decisions of a unit. Called by `open.py` for `decider forget`."""

from __future__ import annotations

import pyarrow.compute as pc
import pyarrow.parquet as pq

from decider.log.archive.part import DECISIONS_FILE, Part
from decider.log.archive.read import arrow_errors


def count_decisions_of(unit: str, part: Part) -> int:
    """In a part; nothing but the units is read. Raises ArchiveDamaged."""
    path = part.folder / DECISIONS_FILE
    with arrow_errors(path), pq.ParquetFile(path) as file:
        batches = file.iter_batches(columns=["unit_id"])
        return sum(pc.sum(pc.equal(batch["unit_id"], unit)).as_py() or 0 for batch in batches)
