"""Does the mean reward change over time, and is that the world or the policy? Called by `checks/log.py`.

A policy that learns earns more and more: that is its task, and nothing is to be done. Several models, or propensities
that change, show that it may have learned. A world that changes makes the answer one about the past. The control group
always gets the same action, so it tells which of the two it was.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc

from decider.estimate.sample import Floats, Longs, Units
from decider.estimate.weights import usual_value
from decider.text import figure
from simulator.evaluate.result import Finding
from simulator.evaluate.verdicts import ALARM, MATERIAL, Z_ALARM
from simulator.logs.columns import Category, Columns

BLOCKS = 10
"""Of time, to test for drift: few enough that each has rewards."""

EVENTS = 10
"""Rewarded decisions per block, at least, on average: with fewer the chi-square limit is poor."""

POLICY_CHANGED = 1e-6
"""Level at which the propensities are others than before: then the policy changed, and a rise is what was wanted."""

SAME_PROPENSITY = 1e-6
"""Variance of log propensities that differ by rounding alone."""

ROWS_OF_CELL = 20
"""Decisions with the same action and context, on average: with fewer a change cannot be told from the context."""

TOLD_APART = 0.01
"""Level at which the policy's movement is another one than the control group's. Nothing is refused by it."""


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Rewards by blocks of time. starts: microseconds since 1970, of each; variance: of a block's mean.

    p: of equal means. farthest: a block's distance from the mean. scale: the mean's distance from the nearer end of all
    rewards; for clicks that is the rate. farthest / scale is the same for r, r + c, -r and c r.
    """

    starts: Longs
    means: Floats
    variance: Floats
    p: float
    farthest: float
    scale: float

    @property
    def moved(self) -> bool:
        """Neither chance nor a trifle."""
        return self.p < ALARM and self.farthest > MATERIAL * self.scale

    @property
    def fell(self) -> bool:
        """The last block is surely, and not by a trifle, below an earlier one."""
        best = int(np.argmax(self.means))
        error = float(np.sqrt(self.variance[best] + self.variance[-1]))
        drop = float(self.means[best] - self.means[-1])
        return drop > Z_ALARM * error and drop > MATERIAL * self.scale


def drift(columns: Columns) -> Finding | None:
    """Whether the mean reward differs between blocks of time by more than chance, and why. value: the p-value.

    None where rewards are too few for two blocks.
    """
    blocks = _equal_blocks(columns)
    if blocks is None:
        return None
    text = f"Mean reward in {len(blocks.means)} blocks of time: {', '.join(map(figure, blocks.means.tolist()))}"
    if not blocks.moved:
        return Finding("drift", "fine", f"{text}. No material drift (p = {figure(blocks.p)}).", blocks.p)
    text += f". That is drift (p = {figure(blocks.p)})"
    if columns.holdout is not None and len(columns.holdout):
        return _beside_holdout(columns, columns.holdout, blocks, text)
    if columns.model is not None and len(np.unique(columns.model)) > 1:
        return _where_the_policy_changed(blocks, text, "several models decided")
    if _propensities_changed(columns, len(blocks.means)):
        return _where_the_policy_changed(blocks, text, "the propensities changed as well")
    return _changed(columns, blocks, f"{text}: the policy learned, or the world changed.")


def _changed(columns: Columns, blocks: _Blocks, text: str) -> Finding:
    later = "Evaluate the later part alone as well"
    if columns.time.any():
        middle = np.datetime64(int(blocks.starts[len(blocks.starts) // 2]), "us").astype("datetime64[s]")
        later += f": --since {middle}Z"
    return Finding("drift", "caution", text, blocks.p, f"{later}; repeat on a newer log.")


def _where_the_policy_changed(blocks: _Blocks, text: str, sign: str) -> Finding:
    if not blocks.fell:
        text += f": {sign}, so the policy learned, or the world changed."
        return Finding("drift", "fine", text, blocks.p)
    text += f": it fell, and {sign}. The world changed, or the policy unlearned."
    needed = "A control group (holdout), which tells which; evaluate the later part alone as well: --since."
    return Finding("drift", "caution", text, blocks.p, needed)


def _propensities_changed(columns: Columns, blocks: int) -> bool:
    """Whether the same action in the same context was drawn with other propensities at other times.

    A table of a learner has no names of models. Visitors of another kind alone change no propensity within a cell.
    """
    if not columns.has_propensities:
        return False
    order = np.argsort(columns.time, kind="stable")
    logs, cell = np.log(columns.propensity[order]), _cells(columns)[order]
    apart = logs - (np.bincount(cell, weights=logs) / np.maximum(np.bincount(cell), 1))[cell]
    if float(np.var(apart)) < SAME_PROPENSITY:
        return False
    block = np.arange(len(apart)) * blocks // len(apart)
    return _blocks(apart, block, columns.cluster[order], columns.time[:0]).p < POLICY_CHANGED


def _cells(columns: Columns) -> Longs:
    """(n,): equal where the drawn action, the eligible ones and the categories of the context are.

    Without fields that would leave hardly two decisions in a cell.
    """
    drawn = columns.action.astype(np.int64) * len(columns.sets) + columns.eligible
    cell: Longs = np.unique(drawn, return_inverse=True)[1]
    for field in columns.fields.values():
        if isinstance(field, Category):
            finer, codes = np.unique(cell * (len(field.values) + 1) + field.codes + 1, return_inverse=True)
            cell = codes if ROWS_OF_CELL * len(finer) <= len(columns) else cell
    return cell


def _beside_holdout(columns: Columns, holdout: Columns, blocks: _Blocks, text: str) -> Finding:
    control = _equal_blocks(holdout)
    if control is not None and control.moved:
        return _changed(columns, blocks, f"{text}: the control group drifted as well, so the world changed.")
    if not _moves_apart(blocks, holdout):
        return _too_small_to_tell(columns, blocks, text)
    if not blocks.fell:
        text += ": the control group did not change, so the policy learned."
        return Finding("drift", "fine", text, blocks.p)
    text += ": it fell, and the control group did not, so the policy got worse."
    needed = "Look at what the policy learned when the reward fell; an older model may be the better one."
    return Finding("drift", "caution", text, blocks.p, needed)


def _too_small_to_tell(columns: Columns, blocks: _Blocks, text: str) -> Finding:
    text += ": the policy learned, or the world changed; the control group is too small to tell."
    return _changed(columns, blocks, text) if blocks.fell else Finding("drift", "fine", text, blocks.p)


def _equal_blocks(columns: Columns) -> _Blocks | None:
    """As many decisions in each. None where rewards are too few."""
    order = np.argsort(columns.time, kind="stable")
    reward = columns.reward[order]
    blocks = min(BLOCKS, int(np.count_nonzero(reward != usual_value(reward))) // EVENTS)
    if blocks < 2:
        return None
    block = np.arange(len(reward)) * blocks // len(reward)
    starts = columns.time[order][np.searchsorted(block, np.arange(blocks))]
    return _blocks(reward, block, columns.cluster[order], starts)


def _blocks(reward: Floats, block: Longs, unit: Longs, starts: Longs) -> _Blocks:
    """A one-way analysis of variance, with the chi-square limit of many decisions.

    Before an alarm the statistic is divided by the design effect of units that come back.
    """
    counts = np.bincount(block)
    means = np.bincount(block, weights=reward) / counts
    apart = reward - reward.mean()
    spread = float(np.dot(apart, apart)) / len(reward)
    statistic = float(np.dot(counts, (means - reward.mean()) ** 2)) / spread
    effect = 1.0
    if chdtrc(len(counts) - 1, statistic) < ALARM:
        effect = design_effect(apart, unit)
    return _Blocks(
        starts=starts,
        means=means,
        variance=spread * effect / counts,
        p=float(chdtrc(len(counts) - 1, statistic / effect)),
        farthest=float(np.abs(means - reward.mean()).max()),
        scale=float(min(-apart.min(), apart.max())),
    )


def _moves_apart(blocks: _Blocks, holdout: Columns) -> bool:
    """Whether the policy's distance from the control group changes between blocks of time by more than chance."""
    block = np.clip(np.searchsorted(blocks.starts, holdout.time, side="right") - 1, 0, len(blocks.starts) - 1)
    counts = np.bincount(block, minlength=len(blocks.starts))
    seen = counts > 0
    means = np.bincount(block, weights=holdout.reward, minlength=len(counts))[seen] / counts[seen]
    apart = holdout.reward - holdout.reward.mean()
    spread = float(np.dot(apart, apart)) / len(apart) * design_effect(apart, holdout.cluster)
    weight = 1.0 / (blocks.variance[seen] + spread / counts[seen])
    distance = blocks.means[seen] - means
    statistic = float(np.dot(weight, (distance - np.average(distance, weights=weight)) ** 2))
    return bool(chdtrc(max(1, len(distance) - 1), statistic) < TOLD_APART)


def design_effect(apart: Floats, units: Longs) -> float:
    """How many times larger the variance of a mean is because decisions share units; at least 1 (Kish, 1965).

    >>> design_effect(np.array([1.0, 1.0, -1.0, -1.0]), np.array([1, 1, 2, 2]))
    2.0
    """
    totals = Units(units).sums(apart)
    independent = float(np.dot(apart, apart))
    return max(1.0, float(np.dot(totals, totals)) / independent) if independent else 1.0
