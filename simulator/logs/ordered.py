"""Decisions in the order of their times, as learning along a log needs them. Called by `open.py` and import."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from simulator.logs.columns import Category, Columns, Number


def in_order_of_time(columns: Columns) -> Columns:
    """The same decisions, the earliest first; those of one time as they were.

    >>> from simulator.logs.example import example
    >>> late_first = replace(example(), time=np.array([9, 3]))
    >>> in_order_of_time(late_first).pmf.tolist()
    [0.75, 0.25, 0.5, 0.5]
    """
    if bool((np.diff(columns.time) >= 0).all()):
        return columns
    order = np.argsort(columns.time, kind="stable")
    arrays = ("action", "propensity", "reward", "time", "known", "unit", "eligible", "default", "delay", "model")
    moved: dict[str, Any] = {name: values[order] for name in arrays if (values := getattr(columns, name)) is not None}
    for name in ("reason", "action_features"):
        one = getattr(columns, name)
        moved[name] = None if one is None else Category(one.codes[order], one.values)
    fields = {
        name: Number(one.values[order]) if isinstance(one, Number) else Category(one.codes[order], one.values)
        for name, one in columns.fields.items()
    }
    pmf = None
    if columns.pmf is not None:
        sizes = np.diff(columns.starts)[order]
        begin = np.repeat(columns.starts[:-1][order] - (np.cumsum(sizes) - sizes), sizes)
        pmf = columns.pmf[begin + np.arange(len(begin))]
    return replace(columns, **moved, fields=fields, pmf=pmf)
