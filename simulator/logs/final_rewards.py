"""The rewards of our own log as columns, and what they come to for each decision. Called by `decider_log.py` and
`groups.py`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decider.experiment.aggregate import final_reward
from decider.experiment.definition import ExperimentVersion, RewardDefinition
from simulator.logs.arrow import category
from simulator.logs.columns import Flags, Floats, Longs
from simulator.logs.errors import BadLog


@dataclass(frozen=True, slots=True)
class Counted:
    """Which rewards count: see `load`."""

    weights: Mapping[str, float]
    range: tuple[float, float] | None

    def definition(self, declared: RewardDefinition) -> RewardDefinition:
        """How the rewards of a decision become one. declared: in the version that made the decision."""
        if not self.weights:
            return declared
        low, high = self.range or (-inf, inf)
        return replace(declared, minimum=low, maximum=high, default=min(max(declared.default, low), high))


class Rewards:
    """The rewards as they stand in the log, in the order of their decisions and of their arrival. named: names are
    read, too."""

    def __init__(self, batches: Iterable[Any], *, named: bool) -> None:
        found = list(batches)
        self.decision: Longs = concatenate([batch["decision"].to_numpy() for batch in found], np.int64)
        self.time: Longs = concatenate([batch["time"].to_numpy() for batch in found], np.int64)
        self.value: Floats = concatenate([batch["value"].to_numpy() for batch in found], np.float64)
        self.unweighted: Floats = concatenate([batch["unweighted"].to_numpy() for batch in found], np.float64)
        self.joined, self.retracted = (
            concatenate([batch[name].to_numpy() for batch in found], np.int64).astype(np.bool_)
            for name in ("joined", "retracted")
        )
        self.names = category([batch["name"] for batch in found]) if named else None

    def select(self, weights: Mapping[str, float]) -> tuple[Flags, Floats]:
        """Which rewards count, and what each is worth. weights: see `Counted`; none: those of the experiment."""
        in_force = self.joined & ~self.retracted
        if not weights:
            return in_force, self.value
        assert self.names is not None, "they were not read"
        given = np.array([*[weights.get(name, np.nan) for name in self.names.values], np.nan])[self.names.codes]
        return in_force & ~np.isnan(given), self.unweighted * given


def final_rewards(
    sent: Rewards,
    counted: Counted,
    versions: Sequence[ExperimentVersion],
    *,
    version: Longs,
    position: Longs,
    time: Longs,
) -> tuple[Floats, Floats]:
    """Final rewards; seconds to the first one in time that is in force, nan where the default was taken.

    version, position, time: (n,) of the decisions, in the order of the log; the version as index into `versions`.
    """
    definitions = [counted.definition(one.experiment.reward) for one in versions]
    reward = np.array([definition.default for definition in definitions])[version]
    delay = np.full(len(reward), np.nan)
    selected, worth = sent.select(counted.weights)
    row = np.searchsorted(position, sent.decision[selected])
    at, value = sent.time[selected], worth[selected]
    rewarded, first = np.unique(row, return_index=True)
    delay[rewarded] = (at[first] - time[rewarded]) / 1e6
    for where, values in zip(rewarded.tolist(), np.split(value, first[1:]), strict=False):
        reward[where] = final_reward(definitions[version[where]], values.tolist())
    return reward, delay


def check_names(log: str, sent: Rewards, weights: Mapping[str, float]) -> None:
    """Raises BadLog where no reward has one of the names."""
    known = sorted(sent.names.values) if sent.names else []
    for name in weights:
        if name not in known:
            raise BadLog(f"{log}: --reward {name}: no reward has that name; there are {', '.join(known) or 'none'}")


def concatenate(arrays: list[NDArray[Any]], dtype: Any) -> Any:
    """Of that type, also where there are none."""
    return np.concatenate([np.zeros(0, dtype), *arrays])
