"""Two decisions, for doctests and as a picture of what a `Columns` holds."""

from __future__ import annotations

import numpy as np

from simulator.logs.columns import Category, Columns, Number


def example() -> Columns:
    """A vip on a phone got `b`, with probability 1/2, and clicked; somebody else got `a`, with 3/4, and did not.

    >>> example().actions, example().reward.tolist()
    (('a', 'b'), [1.0, 0.0])
    """
    return Columns(
        name="example",
        actions=("a", "b"),
        action=np.array([1, 0], np.int32),
        propensity=np.array([0.5, 0.75]),
        reward=np.array([1.0, 0.0]),
        reward_range=(0.0, 1.0),
        time=np.array([0, 1_000_000]),
        known=np.array([5_000_000, 6_000_000]),
        unit=np.array([0, 1]),
        fields={
            "segment": Category.of(["vip", ""]),
            "device": Category.of(["phone", "desktop"]),
            "age": Number(np.array([31.0, np.nan])),
        },
        sets=((0, 1),),
        eligible=np.array([0, 0], np.int32),
        pmf=np.array([0.5, 0.5, 0.75, 0.25], np.float32),
    )
