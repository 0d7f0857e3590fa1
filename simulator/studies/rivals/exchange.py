"""What passes between us and a rival's process: the log as arrays, and rows of the table as JSON lines.

Runs in both environments, so it imports numpy only. Written and read by `side_by_side.py`, read by every `with_*.py`.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.int32]

About = Literal["fixed policy", "learning policy"]


@dataclass(frozen=True, slots=True)
class ToolEstimate:
    """One estimate of one tool. low, high: its 95 % interval, nan where the tool gives none; interval: which one.

    unbiased: on paper, at least as the log grows. about: what it estimates; truth: what that is in truth. For a
    learning policy: the mean, over the log's contexts, of what the policies that it went through earn there.
    settings: how the tool was used; note: what its own result says; failure: what it said instead of a value.
    """

    tool: str
    estimator: str
    about: About
    value: float
    truth: float
    unbiased: bool
    settings: str = ""
    low: float = math.nan
    high: float = math.nan
    interval: str = ""
    note: str = ""
    failure: str = ""

    @property
    def off(self) -> float:
        """Relative error.

        >>> round(ToolEstimate("ours", "ips", "fixed policy", 0.33, 0.30, True).off, 6)
        0.1
        """
        return self.value / self.truth - 1

    @property
    def inside(self) -> bool | None:
        """Whether the truth is in the interval; None where there is none."""
        return None if math.isnan(self.low) else self.low <= self.truth <= self.high


@dataclass(frozen=True, slots=True)
class Arrays:
    """The log for a rival. matrix: (n, 26), a constant, the categories as 0 or 1, the numbers; codes, numbers: the same
    as (n, 5) and (n, 3). means, candidate: (n, actions), true mean rewards and the fixed candidate's pmf.

    sample_*: the independent visits that the candidate was fitted on.
    """

    matrix: Floats
    codes: Codes
    numbers: Floats
    action: Codes
    propensity: Floats
    reward: Floats
    means: Floats
    candidate: Floats
    sample_matrix: Floats
    sample_action: Codes
    sample_reward: Floats

    @property
    def truth(self) -> float:
        """Of the fixed candidate."""
        return self.earned(self.candidate)

    def earned(self, pmf: Floats) -> float:
        """What policies with these pmfs (n, actions) earn on the log's contexts."""
        return float((pmf * self.means).sum(axis=1).mean())

    def write(self, folder: Path) -> None:
        """Where `read` finds them."""
        np.savez(folder / "log.npz", **{name: getattr(self, name) for name in self.__slots__})

    @classmethod
    def read(cls, folder: Path) -> Arrays:
        """What was written."""
        with np.load(folder / "log.npz") as stored:
            return cls(**{name: stored[name] for name in stored.files})


@dataclass(frozen=True, slots=True)
class Points:
    """Rows for point estimates. action, propensity, reward: (n,); pmf, predicted: (n, actions), the candidate's and a
    reward model's.
    """

    action: Codes
    propensity: Floats
    reward: Floats
    pmf: Floats
    predicted: Floats

    @classmethod
    def random(cls, rows: int, *, actions: int) -> Points:
        """A uniform log with Bernoulli rewards.

        >>> Points.random(5, actions=2).pmf.shape
        (5, 2)
        """
        rng = np.random.default_rng(rows)
        pmf = rng.random((rows, actions))
        return cls(
            action=rng.integers(actions, size=rows, dtype=np.int32),
            propensity=np.full(rows, 1 / actions),
            reward=(rng.random(rows) < 0.1).astype(np.float64),
            pmf=pmf / pmf.sum(axis=1, keepdims=True),
            predicted=rng.random((rows, actions)),
        )

    def write(self, folder: Path) -> None:
        """Where `read` finds them."""
        np.savez(folder / "points.npz", **{name: getattr(self, name) for name in self.__slots__})

    @classmethod
    def read(cls, folder: Path) -> Points:
        """What was written."""
        with np.load(folder / "points.npz") as stored:
            return cls(**{name: stored[name] for name in stored.files})


def seconds(run: Callable[[], object]) -> float:
    """Of one core that one call takes, all threads together: what else runs on the machine is not counted."""
    started = time.process_time()
    run()
    return time.process_time() - started


def usual_seconds(run: Callable[[], object], *, times: int = 7) -> float:
    """The median of some calls: of what takes milliseconds only.

    >>> 0 <= usual_seconds(lambda: None) < 1
    True
    """
    return statistics.median([seconds(run) for _ in range(times)])


def main(rows: Callable[[Path], Iterable[ToolEstimate]]) -> None:
    """A rival's script: its one argument is the folder with the arrays; each row is printed once it is known."""
    for row in rows(Path(sys.argv[1])):
        print(dumps(row), flush=True)


def dumps(row: ToolEstimate) -> str:
    """One line."""
    return json.dumps(asdict(row))


def loads(line: str) -> ToolEstimate:
    """
    >>> row = ToolEstimate("ours", "ips", "fixed policy", 0.33, 0.30, True)
    >>> loads(dumps(row)).off == row.off
    True
    """
    return ToolEstimate(**json.loads(line))
