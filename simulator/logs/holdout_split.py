"""How units fell into the control group, for the check of the split. Made by `decider_log.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from decider.experiment.definition import Experiment


@dataclass(frozen=True, slots=True)
class Split:
    """The units in the order in which they came, each in the version in which it was seen for the first time.

    share: (units,) of control units that this version declares; control: (units,), whether it is one. Versions that
    send no units, or all, to the control group are not among them. declared: the newest share. in_both: units that were
    in both groups while one share was declared.
    """

    share: NDArray[np.float64]
    control: NDArray[np.bool_]
    declared: float
    in_both: int


def split_of(
    experiments: Sequence[Experiment],
    *,
    version: NDArray[np.int64],
    unit: NDArray[np.int64],
    new: NDArray[np.bool_],
    control: NDArray[np.bool_],
    rows: NDArray[np.bool_],
) -> Split:
    """All decisions in the order of the log, (n,) each. version: index into `experiments`; unit: codes from 0 on.

    new: the first decision of its unit. rows: those that are read. A unit whose first decision is not among them is no
    new one there: who comes back may have been brought back by what it was shown.
    """
    declared = np.array([one.control_share for one in experiments])[version]
    split = rows & (declared > 0) & (declared < 1)
    counted = new & split
    keys = [(one.control_share, one.salt, one.baseline) for one in experiments]
    rules = list(dict.fromkeys(keys))
    rule = np.array([rules.index(key) for key in keys], np.int64)[version]
    group = (unit * len(rules) + rule)[split]
    controls, size = np.bincount(group, weights=control[split]), np.bincount(group)
    return Split(
        share=declared[counted],
        control=control[counted],
        declared=float(declared[rows][-1]) if rows.any() else 0.0,
        in_both=int(np.count_nonzero((controls > 0) & (controls < size))),
    )
