"""The strata and measures of the versions that the totals count, remembered. Called by `reader.py`, from any thread.

Only versions with a holdout are read, and each only once; of others the two texts that matter are compared.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator

from decider.errors import LogCorrupt
from decider.experiment.definition import ExperimentVersion
from decider.experiment.strata import Strata, Stratum, means_the_same, whole
from decider.types import START, Position

_WITH_HOLDOUT = "case when json_valid(definition) then json_extract(definition, '$.holdout') end > 0"
_EXPERIMENT = f"select experiment from experiments where position = ? and {_WITH_HOLDOUT}"  # noqa: S608 - a constant
_NEWER = f"""
select position from experiments where experiment = ? and position > ? and {_WITH_HOLDOUT} order by position
"""  # noqa: S608 - a constant

_UP_TO = """
select position, case when json_valid(definition)
  then json_array(json_extract(definition, '$.reward'), json_extract(definition, '$.activation')) end
from experiments where experiment = (select experiment from experiments where position = :version)
  and number <= (select number from experiments where position = :version)
order by number desc
"""


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


class KnownMeasures:
    """version_at: reads a version."""

    def __init__(self, version_at: Callable[[Position], ExperimentVersion]) -> None:
        self._version_at = version_at
        self._known: dict[Position, Stratum] = {}

    def of(self, connection: sqlite3.Connection, version: Position) -> Stratum:
        """`measures_of_all` of one version: back from it as long as a reward means the same."""
        if version not in self._known:
            self._known[version] = self._find(connection.execute(_UP_TO, {"version": version}))
        return self._known[version]

    def _find(self, rows: Iterator[tuple[Position, str | None]]) -> Stratum:
        first, text = next(rows, (START, None))
        if first == START:
            raise LogCorrupt("an experiment version has lost its number or its experiment; `decider check` says more")
        for position, other in rows:
            # Releases may have written the same definition in other words; equal words need no reading.
            if other != text and not means_the_same(self._version_at(position), self._version_at(first)):
                break
            if position in self._known:
                return self._known[position]
            first, text = position, other
        return whole(first)
