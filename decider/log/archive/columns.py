"""The columns of a part's files, as Arrow schemas. Called by `write.py` and `restore.py`.

Entries have the raw columns that the chain covers; decisions have more beside them, for people and for learning.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from decider.log.tables import BUILDS, EntryTable

_INTEGERS = {
    *("position", "time", "number", "window", "waits", "version", "model", "build", "decision"),
    *("reward", "occurred_at", "learned", "seen_after", "seen_until", "seen_time", "last"),
    *("sealed_after", "sealed_until", "replaces"),
}
_REALS = {"default_reward", "minimum_reward", "maximum_reward", "propensity", "value", "weight"}

FOR_PEOPLE = pa.schema(
    [
        ("experiment", pa.string()),
        ("experiment_version", pa.int64()),
        ("decided_at", pa.timestamp("us", "UTC")),
        ("eligible_actions", pa.list_(pa.string())),
        ("deadline", pa.int64()),
        ("overridden", pa.bool_()),
        ("activated", pa.bool_()),
        ("shown", pa.string()),
        ("rewards", pa.int64()),
        ("rewards_in_time", pa.list_(pa.float64())),
        ("reward", pa.float64()),
    ]
)
"""Beside the raw columns of decisions. The chain does not cover them: they follow from the entries.

deadline: microseconds since 1970. overridden, activated, shown: see the view `decision_windows`; the last two are not
in parts that were written before they were known. eligible_actions: in the order of the pmf. rewards: how many of those
in time are in force, wherever they lie in the log; rewards_in_time: each as value x weight, in the order of arrival;
reward: what counts of them, see the view `sealed_decisions`.
"""

MARKS = pa.schema([("position", pa.int64()), ("chain", pa.binary())])


def type_of(table: EntryTable, column: str) -> Any:
    """The Arrow type of a raw column."""
    if column in _INTEGERS and (table, column) != (BUILDS, "build"):  # a decision's build is a position
        return pa.int64()
    return pa.float64() if column in _REALS else pa.string()


def raw_names(table: EntryTable) -> tuple[str, ...]:
    """The raw columns of a table's entries."""
    return ("position", "time", *table.columns)


def raw_schema(table: EntryTable) -> Any:
    """Of a table's entries, without what is for people."""
    return pa.schema([(name, type_of(table, name)) for name in raw_names(table)])
