"""What a log says about its time: holes in it, and whether rewards were the same all along. Called by `log_checks`."""

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
"""Of time, for drift: few enough to have rewards in each."""

EVENTS = 10
"""Rewarded decisions that a block has at least on average: fewer, and the chi-square distribution does not hold."""


def time_gaps(columns: Columns) -> Finding | None:
    """The longest time without a decision. None where the log has no times. value: its length in seconds.

    Of n independent arrivals the longest gap exceeds mean x (ln n + 7) with probability 0.001.
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
        text += " Nights and weekends do this; so do lost decisions."
    needed = "Compare with the traffic of that time." if hole else ""
    return Finding("time gaps", caution_if(hole), text, longest, needed)


def drift(columns: Columns) -> Finding | None:
    """Whether the mean reward changed from block to block of time by more than chance. value: probability by chance.

    A one-way analysis of variance, with the chi-square limit of many decisions; before an alarm the variance is
    multiplied by what decisions of one unit have in common. None where rewards are too few for two blocks.
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
    chance = float(chdtrc(blocks - 1, statistic))
    if chance < ALARM:
        chance = float(chdtrc(blocks - 1, statistic / clustering(apart, columns.unit[order])))
    farthest = float(np.abs(means - reward.mean()).max())
    moved = chance < ALARM and farthest > MATERIAL * abs(float(reward.mean()))
    text = f"Mean reward in {blocks} blocks of time: {', '.join(figure(float(mean)) for mean in means)}"
    if not moved:
        return Finding("drift", "fine", f"{text}. Chance explains it ({figure(chance)}).", chance)
    text += f". That is not chance ({figure(chance)}): the policy learned, or the world changed."
    return Finding("drift", "caution", text, chance, "Judge by the later part too; repeat on a newer log.")


def clustering(apart: Floats, units: Longs) -> float:
    """How many times the variance of a mean is larger because decisions share units; at least 1.

    >>> clustering(np.array([1.0, 1.0, -1.0, -1.0]), np.array([1, 1, 2, 2]))
    2.0
    """
    totals = Units(units).sums(apart)
    alone = float(np.dot(apart, apart))
    return max(1.0, float(np.dot(totals, totals)) / alone) if alone else 1.0
