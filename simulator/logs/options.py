"""How a log is to be read: what every reader takes. Made by the commands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simulator.logs.columns import Flags, Floats
from simulator.logs.errors import BadRow


def _ignore(_: object) -> None:
    pass


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """experiment: which one, where a log of ours has several. skip_bad: count bad rows instead of ending at the first.

    mapping: a TOML file that says which column is what; columns: the same as `reward=clicked`, which win (see
    `mapping.py`). reward_range: declared; otherwise what was seen. on_progress: told the fraction that was read.
    on_note: told in plain words what a reader took for what.

    >>> ReadOptions(columns=("reward=clicked",)).skip_bad
    False
    """

    experiment: str | None = None
    skip_bad: bool = False
    mapping: Path | None = None
    columns: tuple[str, ...] = ()
    reward_range: tuple[float, float] | None = None
    on_progress: Callable[[float], None] = _ignore
    on_note: Callable[[str], None] = _ignore


def reward_range(rewards: Floats, declared: tuple[float, float] | None) -> tuple[float, float]:
    """The declared range, or the smallest one that holds 0 and every reward that was seen; [0, 1] if all are 0.

    >>> reward_range(np.array([0.0, 2.5]), None), reward_range(np.array([0.0]), None)
    ((0.0, 2.5), (0.0, 1.0))
    """
    if declared is not None:
        return declared
    low, high = min(0.0, float(rewards.min(initial=0.0))), float(rewards.max(initial=0.0))
    return (low, high) if low < high else (0.0, 1.0)


def in_range(reward: float, declared: tuple[float, float] | None) -> bool:
    """Whether a finite reward is in the declared range, if there is one.

    >>> in_range(3.0, (0.0, 1.0)), in_range(3.0, None)
    (False, True)
    """
    return declared is None or declared[0] <= reward <= declared[1]


def outside(rewards: Floats, declared: tuple[float, float] | None) -> Flags:
    """Which rewards are not numbers, or not in the declared range.

    >>> outside(np.array([0.5, 3.0, np.nan]), (0.0, 1.0)).tolist()
    [False, True, True]
    """
    low, high = declared if declared is not None else (-np.finfo(np.float64).max, np.finfo(np.float64).max)
    wrong: Flags = ~((rewards >= low) & (rewards <= high))
    return wrong


def bad_reward(value: object, declared: tuple[float, float] | None) -> BadRow:
    """What is wrong with a reward that is no number or not in range.

    >>> bad_reward("x", None).what
    "the reward 'x' is not a number"
    """
    wanted = "a number" if declared is None else f"a number in the declared range [{declared[0]:g}, {declared[1]:g}]"
    return BadRow("reward", f"the reward {value!r} is not {wanted}")
