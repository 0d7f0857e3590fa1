"""Which fields of a log that is no table are its context: as the user says, and as they look.

Called by `open.py` and `dsjson.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from simulator.logs.columns import Columns
from simulator.logs.errors import BadLog
from simulator.logs.id_fields import id_fields, names_of_actions, unit_by_shape, without_fields
from simulator.logs.mapping import WAYS_OUT, check_context, pairs_of
from simulator.logs.options import ReadOptions

CONTEXT_WORDS = ("context", "ignore")
"""Words of `--column` that every log understands."""


def with_context(columns: Columns, options: ReadOptions) -> Columns:
    """Without the fields that the user ignores; those that are context for sure are remembered. Raises BadLog.

    >>> from simulator.logs.example import example
    >>> chosen = with_context(example(), ReadOptions(columns=("ignore=segment", "context=age")))
    >>> sorted(chosen.fields), chosen.insisted
    (['age', 'device'], frozenset({'age'}))
    """
    pairs = {word: pairs_of(options).get(word, []) for word in CONTEXT_WORDS}
    check_context(pairs, columns.name)
    for word, names in pairs.items():
        unknown = [name for name in names if name not in columns.fields]
        if unknown:
            has = ", ".join(columns.fields) or "none"
            raise BadLog(f"{columns.name}: has no context field {unknown[0]!r} ({word}); it has {has}")
    return _chosen(columns, frozenset(pairs["context"]), frozenset(pairs["ignore"]))


def _chosen(columns: Columns, insisted: frozenset[str], ignored: frozenset[str]) -> Columns:
    """The same of the control group."""
    return replace(
        columns,
        fields={name: field for name, field in columns.fields.items() if name not in ignored},
        insisted=insisted,
        holdout=columns.holdout and _chosen(columns.holdout, insisted, ignored),
    )


def without_ids(columns: Columns, on_note: Callable[[str], None]) -> Columns:
    """Without the fields that look like ids; said, if there are any."""
    found = id_fields(columns.fields, but=columns.insisted)
    found = {name: found[name] for name in found if name not in names_of_actions(columns, found)}
    units_known = len(columns.units.size) < len(columns)
    chosen = without_fields(columns if units_known else unit_by_shape(columns, found), found)
    for name in found:
        on_note(f"{columns.name}: {name}: left out, {chosen.set_aside[name]}")
    if found:
        on_note(WAYS_OUT)
    return chosen
