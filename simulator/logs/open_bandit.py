"""The Open Bandit Dataset's sample as columns: `open-bandit:random/men` and the five others. Called by `open.py`.

Actions are `item-N`, as in `drive/open_bandit.py`. Every row is a visitor of its own; all items were eligible. The
uniform logger's pmf is known exactly, of Bernoulli Thompson sampling the data only has the propensity.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from decider.types import Features
from simulator.datasets import open_bandit
from simulator.datasets.open_bandit import Row, action_id, context
from simulator.logs.columns import Category, Columns

PREFIX = "open-bandit:"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TRAITS = ("item_feature_1", "item_feature_2", "item_feature_3")


def load(name: str) -> Columns:
    """The log with a name like `open-bandit:random/men`. Raises DatasetError where there is none."""
    campaign = name.removeprefix(PREFIX)
    items = open_bandit.items(campaign)
    return columns(name, open_bandit.load(campaign), items, uniform=campaign.startswith("random/"))


def columns(name: str, rows: list[Row], items: dict[int, Features], *, uniform: bool) -> Columns:
    """Rows of the dataset as columns; `uniform`: whether every item had the same probability.

    >>> visitor = Row(datetime(2019, 11, 24, tzinfo=UTC), 1, 3, 0, 0.5, ("a", "b", "c", "d"))
    >>> log = columns("log", [visitor], {0: {}, 1: {}}, uniform=True)
    >>> log.actions, log.action.tolist(), log.pmf, sorted(log.fields)[:2]
    (('item-0', 'item-1'), [1], array([0.5, 0.5], dtype=float32), ['position', 'user_feature_0'])
    """
    index = {item: number for number, item in enumerate(items)}
    time = np.array([(row.timestamp - _EPOCH) // timedelta(microseconds=1) for row in rows], np.int64)
    contexts = [context(row) for row in rows]
    return Columns(
        name=name,
        actions=tuple([action_id(item) for item in items]),
        action=np.array([index[row.item_id] for row in rows], np.int32),
        propensity=np.array([row.propensity_score for row in rows], np.float64),
        reward=np.array([row.click for row in rows], np.float64),
        reward_range=(0.0, 1.0),
        time=time,
        known=time,
        unit=np.arange(len(rows)),
        fields={field: Category.of([one[field] for one in contexts]) for field in (contexts[0] if contexts else ())},
        sets=(tuple(range(len(items))),),
        eligible=np.zeros(len(rows), np.int32),
        pmf=_uniform(len(rows), len(items)) if uniform else None,
        traits={trait: tuple([str(one.get(trait, "")) for one in items.values()]) for trait in _TRAITS},
    )


def _uniform(rows: int, items: int) -> NDArray[np.float32]:
    return np.full(rows * items, 1 / items, np.float32)
