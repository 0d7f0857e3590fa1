"""Parquet logs of units that come back, for tests of evaluations in parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ACTIONS = ("a", "b", "c", "rare")
PROPENSITIES = np.array([[0.5, 0.3, 0.198, 0.002], [0.2, 0.2, 0.598, 0.002]])
"""By segment."""
MEANS = np.array([[0.2, 0.1, 0.3, 0.1], [0.3, 0.1, 0.1, 0.1]])


def write_large(file: Path, *, rows: int = 80_000, units: int = 60_000, seed: int = 1, pmf: bool = False) -> None:
    """pmf: with the whole pmf, in which `c` cannot be drawn in the second segment."""
    chance = np.random.default_rng(seed)
    unit = chance.integers(0, units, rows)
    segment = unit % 2
    probabilities = PROPENSITIES.copy()
    if pmf:
        probabilities[1] = [0.5, 0.498, 0.0, 0.002]
    known = probabilities[segment]
    action = np.minimum((chance.random((rows, 1)) > known.cumsum(axis=1)).sum(axis=1), len(ACTIONS) - 1)
    drawn = known[np.arange(rows), action]
    columns = {
        "user_id": [f"u{one}" for one in unit.tolist()],
        "time": pa.array(1_760_000_000_000_000 + np.arange(rows) * 1_000).cast(pa.timestamp("us")),
        "action": np.array(ACTIONS)[action],
        "reward": (chance.random(rows) < MEANS[segment, action]).astype(np.float64),
        "propensity": drawn,
        "segment": np.array(["young", "old"])[segment],
    }
    if pmf:
        columns |= {f"pmf.{name}": known[:, place] for place, name in enumerate(ACTIONS)}
    pq.write_table(pa.table(columns), file, row_group_size=rows // 5)
