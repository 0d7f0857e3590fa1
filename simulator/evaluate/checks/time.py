"""Gaps in the time of a log. Called by `checks/log.py`."""

from __future__ import annotations

import math

import numpy as np

from decider.text import duration
from simulator.evaluate.result import Finding
from simulator.evaluate.verdicts import MATERIAL, caution_if
from simulator.logs.columns import Columns


def time_gaps(columns: Columns) -> Finding | None:
    """The longest time without a decision. None where the log has no times. value: its length in seconds.

    Of n gaps of a Poisson process the longest exceeds mean x (ln n + 7) with probability exp(-7), about 0.001.
    """
    time = np.sort(columns.time)
    if len(time) < 2 or time[0] == time[-1]:
        return None
    gaps = np.diff(time) / 1e6
    longest, mean, whole = float(gaps.max()), float(gaps.mean()), float(gaps.sum())
    hole = longest > mean * (math.log(len(gaps)) + 7.0) and longest > MATERIAL * whole
    text = (
        f"The longest gap between decisions is {duration(longest)}; on average {duration(mean)} over {duration(whole)}."
    )
    backwards = int(np.count_nonzero(np.diff(columns.time) < 0))
    if backwards:
        text += f" {backwards:,} decisions stand before an earlier one."
    if hole:
        text += " Nights and weekends are such gaps; lost decisions as well."
    needed = "Compare with the traffic of that time." if hole else ""
    return Finding("time gaps", caution_if(hole), text, longest, needed)
