"""Rows with the id of an earlier one: second deliveries, or other decisions. Called by `dsjson.py` and tables."""

from __future__ import annotations

from typing import Any

import numpy as np

from simulator.logs.columns import Columns, Flags


def other_decisions(columns: Columns, keys: Any, *, timed: bool) -> Flags:
    """Rows whose id stood before, where one of its rows says something else than the first: no second delivery.

    keys: (n,) of the ids; timed: every row has a time of its own.

    >>> from simulator.logs.example import example
    >>> other_decisions(example(), np.array([7, 7]), timed=True).tolist()
    [False, True]
    """
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    before = first[which]
    differs = (columns.action != columns.action[before]) | (columns.reward != columns.reward[before])
    if timed:
        differs |= columns.time != columns.time[before]
    flags: Flags = (np.bincount(which, weights=differs) > 0)[which] & (before != np.arange(len(keys)))
    return flags
