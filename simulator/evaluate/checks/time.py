"""Checks of a log over time: gaps, and whether the mean reward drifts. Called by `checks/log.py`."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import chdtrc

from decider.estimate.sample import Floats, Longs, Units
from decider.estimate.weights import usual_value
from simulator.evaluate.result import Finding
from simulator.evaluate.verdicts import ALARM, MATERIAL, caution_if
from simulator.logs.columns import Columns
from simulator.text import duration, figure

BLOCKS = 10
"""Of time, to test for drift: few enough that each has rewards."""

EVENTS = 10
"""Rewarded decisions per block, at least, on average: with fewer the chi-square limit is poor."""


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


def drift(columns: Columns) -> Finding | None:
    """Whether the mean reward differs between blocks of time by more than chance. value: the p-value.

    A one-way analysis of variance, with the chi-square limit of many decisions; before an alarm the
    statistic is divided by the design effect of units that come back. None where rewards are too few for two blocks.
    """
    order = np.argsort(columns.time, kind="stable")
    reward = columns.reward[order]
    blocks = min(BLOCKS, int(np.count_nonzero(reward != usual_value(reward))) // EVENTS)
    if blocks < 2:
        return None
    block = np.arange(len(reward)) * blocks // len(reward)
    counts = np.bincount(block)
    means = np.bincount(block, weights=reward) / counts
    apart = reward - reward.mean()
    statistic = float(np.dot(counts, (means - reward.mean()) ** 2) * len(reward) / np.dot(apart, apart))
    p = float(chdtrc(blocks - 1, statistic))
    if p < ALARM:
        p = float(chdtrc(blocks - 1, statistic / design_effect(apart, columns.unit[order])))
    farthest = float(np.abs(means - reward.mean()).max())
    moved = p < ALARM and farthest > MATERIAL * abs(float(reward.mean()))
    text = f"Mean reward in {blocks} blocks of time: {', '.join(map(figure, means.tolist()))}"
    if not moved:
        return Finding("drift", "fine", f"{text}. No material drift (p = {figure(p)}).", p)
    text += f". That is drift (p = {figure(p)}): the policy learned, or the world changed."
    return Finding("drift", "caution", text, p, "Evaluate the later part alone as well; repeat on a newer log.")


def design_effect(apart: Floats, units: Longs) -> float:
    """How many times larger the variance of a mean is because decisions share units; at least 1 (Kish, 1965).

    >>> design_effect(np.array([1.0, 1.0, -1.0, -1.0]), np.array([1, 1, 2, 2]))
    2.0
    """
    totals = Units(units).sums(apart)
    independent = float(np.dot(apart, apart))
    return max(1.0, float(np.dot(totals, totals)) / independent) if independent else 1.0
