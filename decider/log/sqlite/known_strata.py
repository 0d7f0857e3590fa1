"""The strata of the versions that the totals count, remembered. Called by `reader.py`, from any thread.

Only versions with a holdout are read, and each only once.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable

from decider.experiment.definition import ExperimentVersion
from decider.experiment.strata import Strata, Stratum
from decider.types import Position

_WITH_HOLDOUT = "case when json_valid(definition) then json_extract(definition, '$.holdout') end > 0"
_EXPERIMENT = f"select experiment from experiments where position = ? and {_WITH_HOLDOUT}"  # noqa: S608 - a constant
_NEWER = f"""
select position from experiments where experiment = ? and position > ? and {_WITH_HOLDOUT} order by position
"""  # noqa: S608 - a constant


class KnownStrata:
    """version_at: reads a version."""

    def __init__(self, version_at: Callable[[Position], ExperimentVersion]) -> None:
        self._version_at = version_at
        self._by_experiment: dict[str, Strata] = {}
        self._lock = threading.Lock()

    def of(self, connection: sqlite3.Connection, version: Position) -> Stratum | None:
        """Of a version; None where it has no holdout, or nothing else."""
        row = connection.execute(_EXPERIMENT, (version,)).fetchone()
        if row is None:
            return None
        with self._lock:
            strata = self._by_experiment.setdefault(row[0], Strata())
            if version > strata.until:
                for (position,) in connection.execute(_NEWER, (row[0], strata.until)).fetchall():
                    strata.add(self._version_at(position))
            return strata.found.get(version)
