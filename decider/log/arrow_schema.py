"""The columns of `LogReader.arrow`, for logs that make the batches from rows. Imported where Arrow is asked for."""

from __future__ import annotations

import pyarrow as pa

_NUMBERS = ("position", "time", "version", "model", "deadline", "sealed", "overridden", "activated")
_TEXTS = (
    "unit_id", "action", "reason", "segment", "device", "channel", "location", "intent_stage",
    "features", "eligible", "action_features", "pmf", "slot",
)  # fmt: skip
DECISIONS = pa.schema(
    [
        *[(name, pa.int64()) for name in _NUMBERS],
        ("propensity", pa.float64()),
        *[(name, pa.string()) for name in _TEXTS],
    ]
)
"""Of decisions: see LogReader.arrow."""

REWARDS = pa.schema(
    [
        *[(name, pa.int64()) for name in ("decision", "time", "joined", "retracted")],
        ("value", pa.float64()),
        ("unweighted", pa.float64()),
        ("name", pa.string()),
    ]
)
"""Of rewards."""
