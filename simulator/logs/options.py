"""How a log is to be read: what every reader takes. Made by the commands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Literal

from simulator.logs.columns import Flags, Floats
from simulator.logs.errors import BadRow

LARGEST_NUMBER = 1e30
"""Of rewards and features: the fourth powers of a million of them, times squared weights, are still finite."""

FINITE = (-LARGEST_NUMBER, LARGEST_NUMBER)
"""The range of rewards where none is declared."""

MOST_TEXTS = 1_000_000
"""A field with more different texts is an id, not something to learn from; they would need a Python object each."""

SMALLEST_PROPENSITY = 1e-12
"""A smaller one is a fault: among n decisions of k actions none is drawn with it but with probability n k 1e-12.

Its weight, squared and summed over any log, is still far from overflow.
"""

DROP: Literal["drop"] = "drop"
"""Decisions with an empty reward are left out: nobody knows what they earned."""


def _ignore(_: object) -> None:
    pass


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """experiment: which one, where a log of ours has several. skip_bad: count bad rows instead of ending at the first.

    mapping: a TOML file that says which column is what; columns: the same as `reward=clicked`, which win (see
    `mapping.py`). reward_range: declared; otherwise what was seen. on_progress: called with the fraction that was read.
    on_note: called with what the reader took each column for, in words for people. block_bytes: of a CSV file, read at
    a time. most_texts: different ones that a column may have. empty_reward: what an empty reward of a table stands for,
    a number or DROP; None refuses it. actions: of a table, besides those seen: their ids, or how many there are in all.
    version: numbers of the experiment's versions; since, until: see `span.py`. archive: folders with the archived parts
    of a log of ours. rewards: names of its rewards with the weights that they shall have; none: as the experiment says.
    """

    experiment: str | None = None
    skip_bad: bool = False
    mapping: Path | None = None
    columns: tuple[str, ...] = ()
    reward_range: tuple[float, float] | None = None
    empty_reward: float | Literal["drop"] | None = None
    actions: tuple[str, ...] | int | None = None
    on_progress: Callable[[float], None] = _ignore
    on_note: Callable[[str], None] = _ignore
    block_bytes: int = 1 << 22
    most_texts: int = MOST_TEXTS
    version: tuple[int, ...] = ()
    since: str = ""
    until: str = ""
    archive: tuple[Path, ...] = ()
    rewards: tuple[tuple[str, float], ...] = ()


def reward_range(rewards: Floats, declared: tuple[float, float] | None) -> tuple[float, float]:
    """The declared range, or the smallest one that holds 0 and every reward that was seen; [0, 1] if all are 0.

    >>> import numpy as np
    >>> reward_range(np.array([0.0, 2.5]), None), reward_range(np.array([0.0]), None)
    ((0.0, 2.5), (0.0, 1.0))
    """
    if declared is not None:
        return declared
    low, high = min(0.0, float(rewards.min(initial=0.0))), float(rewards.max(initial=0.0))
    return (low, high) if low < high else (0.0, 1.0)


def out_of_range(rewards: Floats, declared: tuple[float, float] | None) -> Flags:
    """Which rewards are not numbers, or not in the declared range.

    >>> import numpy as np
    >>> out_of_range(np.array([0.5, 3.0, np.nan]), (0.0, 1.0)).tolist()
    [False, True, True]
    """
    low, high = declared or FINITE
    wrong: Flags = ~((rewards >= low) & (rewards <= high))
    return wrong


def bad_reward(value: object, declared: tuple[float, float] | None) -> BadRow:
    """What is wrong with a reward that is no number or not in range.

    >>> bad_reward("x", None).what
    "the reward 'x' is not a number"
    """
    if declared is None:
        return BadRow("reward", f"the reward {value!r} {no_number(value)}")
    return BadRow(
        "reward", f"the reward {value!r} is not a number in the declared range [{declared[0]:g}, {declared[1]:g}]"
    )


def no_number(value: object) -> str:
    """What is wrong with a value that is no number, or one whose sums would overflow.

    >>> no_number("x"), no_number("-1e308")
    ('is not a number', 'is too large: beyond 1e+30 sums overflow')
    """
    try:
        size = abs(float(value))  # type: ignore[arg-type]  # what is no number raises
    except (TypeError, ValueError, OverflowError):
        return "is not a number"
    return (
        f"is too large: beyond {LARGEST_NUMBER:g} sums overflow" if LARGEST_NUMBER < size < inf else "is not a number"
    )
