"""Columns -> dsjson lines that `vw --dsjson --cb_explore_adf -q CA` learns from. Called by `export_log.py`.

The context is VW's namespace C and an action's features are A, as in our models; `_tag` is the action's id. Our own
reader takes everything back: `dsjson_event.py` says what a line means. `UnitId` is ours; VW does not look at it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from simulator.logs.columns import Category, Columns, Floats, Number
from simulator.logs.errors import BadLog


def dsjson_lines(columns: Columns) -> Iterator[str]:
    """One line for each decision. Raises BadLog where there are no propensities: the format requires them.

    >>> from simulator.logs.example import example
    >>> line = json.loads(next(dsjson_lines(example())))
    >>> line["_label_cost"], line["_label_probability"], line["a"], line["p"]
    (-1.0, 0.5, [2, 1], [0.5, 0.5])
    >>> line["c"]["C"], line["c"]["_multi"][0]
    ({'segment': 'vip', 'device': 'phone', 'age': 31.0}, {'_tag': 'a', 'A': {'id': 'a'}})
    """
    if not columns.has_propensities:
        raise BadLog(f"{columns.name}: dsjson requires propensities, and it has none; export it to CSV or Parquet")
    multi = _Multi(columns)
    prefix = columns.id_prefix
    units = len(columns.units.size) < len(columns)
    for rows, block in columns.blocks():
        yield from _block_lines(block, rows.start, prefix, multi, units=units)


def _block_lines(block: Columns, start: int, prefix: str, multi: _Multi, *, units: bool) -> Iterator[str]:
    ids = [f"{prefix}-{number}" for number in range(start, start + len(block))]
    orders = _orders(block)
    members = (
        _labels(block, orders),
        _outcomes(block, ids),
        _events(block, ids, units=units),
        [f'"a":{order},' for order in orders],
        _contexts(block, multi),
        _pmfs(block, orders),
        _models(block),
    )
    for line in zip(*members, strict=True):
        yield f"{{{''.join(line)}}}\n"


def _labels(block: Columns, orders: list[list[int]]) -> list[str]:
    rows = zip(cost_of(block.reward).tolist(), block.propensity.tolist(), orders, strict=True)
    return [
        f'"_label_cost":{cost!r},"_label_probability":{propensity!r},"_label_Action":{order[0]},'
        f'"_labelIndex":{order[0] - 1},'
        for cost, propensity, order in rows
    ]


def cost_of(rewards: Floats) -> Floats:
    """Rewards as VW's costs: the only place that turns the sign when a log is written.

    >>> cost_of(np.array([1.0, 0.0])).tolist()
    [-1.0, 0.0]
    """
    return 0.0 - rewards


def _orders(block: Columns) -> list[list[int]]:
    """Action numbers from 1 by place in the eligible set, the drawn one first."""
    pairs = zip(block.eligible.tolist(), block.action.tolist(), strict=True)
    drawn = [(block.sets[code].index(action) + 1, len(block.sets[code])) for code, action in pairs]
    return [[first, *[number for number in range(1, size + 1) if number != first]] for first, size in drawn]


def _pmfs(block: Columns, orders: list[list[int]]) -> list[str]:
    """In the order of `a`; nothing where they are not known."""
    if block.pmf is None:
        return [""] * len(block)
    pmf, starts = _short_floats(block.pmf), block.starts[:-1].tolist()
    pairs = zip(orders, starts, strict=True)
    return [f'"p":{[pmf[start + number - 1] for number in order]},' for order, start in pairs]


def _short_floats(values: Any) -> list[float]:
    """float32 numbers with the few digits that give the same float32 again."""
    distinct, inverse = np.unique(values, return_inverse=True)
    short: list[float] = np.array([float(f"{value:.9g}") for value in distinct.tolist()])[inverse].tolist()
    return short


def _times(times: Any) -> list[str]:
    texts: list[str] = np.datetime_as_string(times.astype("datetime64[us]")).tolist()
    return texts


def _events(block: Columns, ids: Sequence[str], *, units: bool) -> list[str]:
    found = [f'"UnitId":"{unit}",' for unit in block.cluster.tolist()] if units else [""] * len(block)
    rows = zip(ids, _times(block.time), found, strict=True)
    return [f'"Timestamp":"{time}Z","Version":"1","EventId":"{id_}",{unit}' for id_, time, unit in rows]


def _models(block: Columns) -> list[str]:
    models = [0] * len(block) if block.model is None else block.model.tolist()
    return [f'"VWState":{{"m":"{model}"}}' for model in models]


def _contexts(block: Columns, multi: _Multi) -> list[str]:
    """The context of every decision, and its actions."""
    columns = [_values(one) for one in block.fields.values()]
    values = zip(*columns, strict=True) if columns else iter([()] * len(block))
    codes = [-1] * len(block) if block.action_features is None else block.action_features.codes.tolist()
    names = list(block.fields)
    rows = zip(values, block.eligible.tolist(), codes, strict=True)
    return [f'"c":{{"C":{_features(names, one)},"_multi":{multi.text(members, code)}}},' for one, members, code in rows]


def _features(names: Sequence[str], values: Sequence[Any]) -> str:
    return _json({name: value for name, value in zip(names, values, strict=True) if value is not None})


def _values(field: Category | Number) -> list[Any]:
    """None where it was not given."""
    if isinstance(field, Category):
        values = [*field.values, None]
        return [values[code] for code in field.codes.tolist()]
    return [None if value != value else value for value in field.values.tolist()]  # nan


def _outcomes(block: Columns, ids: Sequence[str]) -> list[str]:
    """`"o":[...],` of every decision; nothing where the log does not say whether a reward came."""
    if block.default is None:
        return [""] * len(block)
    arrived = [""] * len(block) if block.delay is None else _arrival_times(block)
    rows = zip(ids, block.default.tolist(), block.reward.tolist(), arrived, strict=True)
    return [
        '"o":[],' if default else f'"o":[{{"v":{reward!r},"EventId":"{id_}"{time}}}],'
        for id_, default, reward, time in rows
    ]


def _arrival_times(block: Columns) -> list[str]:
    assert block.delay is not None
    delays = np.nan_to_num(block.delay)
    times = _times(block.time + np.round(delays * 1e6).astype(np.int64))
    known = (~np.isnan(block.delay)).tolist()
    return [f',"EnqueuedTimeUtc":"{time}Z"' if here else "" for time, here in zip(times, known, strict=True)]


class _Multi:
    """The JSON array of a set's actions; each is made once."""

    CACHE_SIZE = 10_000

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._own = [
            {"id": id_, **{name: texts[index] for name, texts in columns.traits.items() if texts[index]}}
            for index, id_ in enumerate(columns.actions)
        ]
        self._texts: dict[tuple[int, int], str] = {}

    def text(self, members: int, features: int) -> str:
        """Of the set and the features with these codes."""
        key = (members, features)
        if key not in self._texts:
            if len(self._texts) >= self.CACHE_SIZE:
                self._texts.clear()
            self._texts[key] = self._array(members, features)
        return self._texts[key]

    def _array(self, members: int, features: int) -> str:
        given = self._columns.action_features
        extra = json.loads(given.values[features]) if given is not None and features >= 0 else {}
        actions = self._columns.actions
        return _json(
            [
                {"_tag": actions[index], "A": {**self._own[index], **extra.get(actions[index], {})}}
                for index in self._columns.sets[members]
            ]
        )


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
