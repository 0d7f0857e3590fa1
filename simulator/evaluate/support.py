"""What the log cannot show: actions that it could not draw where a candidate would. Called by `scores.py` and the
estimates.

With logged pmfs these are the actions of probability 0. Without them it is told by their absence: an action that never
came with a value of a field, although it would have come there if it had been as probable as elsewhere. What such
actions earn is unknown. Bounds that hold all the same put the lowest and the highest possible reward in their place
(Manski, American Economic Review 1990).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from decider.estimate.default_interval import default_interval
from decider.estimate.mean import Interval
from decider.estimate.possible import Range
from decider.estimate.sample import Sample, Units
from simulator.evaluate.reward_model import MOST_LEVELS, Levels, levels_of
from simulator.evaluate.verdicts import ALARM
from simulator.logs.columns import Codes, Columns, Flags, Floats, Longs

RARELY = 0.05
"""Quantile of an action's propensities that is taken for what it has where it was not seen: not below all the others,
since one tiny propensity would make every absence chance, nor their mean, since a policy may dislike it somewhere."""

MOST_ROWS = 50_000
"""Decisions that are enough for that quantile."""

WHOLE_LOG = Levels("", np.zeros(0, np.int32), np.zeros(0), 1)
"""One level that all decisions have."""


@dataclass(frozen=True, slots=True)
class UndrawnCells:
    """Of a log without pmfs. cells: by field, (levels, actions): True where the action cannot have been drawn."""

    cells: tuple[tuple[Levels, Flags], ...]

    def at(self, block: Columns) -> Flags | None:
        """(n, actions) of a block; None where every action could be drawn."""
        if not self.cells:
            return None
        undrawn = np.zeros((len(block), len(block.actions)), np.bool_)
        for levels, flags in self.cells:
            undrawn |= flags[_codes(levels, block)]
        return undrawn


def undrawn_cells(columns: Columns) -> UndrawnCells:
    """Actions that are absent where chance does not explain it, with a correction for the number of places.

    >>> from simulator.logs.example import example
    >>> undrawn_cells(example()).cells
    ()
    """
    if columns.pmf is not None or not columns.has_propensities or not len(columns):
        return UndrawnCells(())
    places = [WHOLE_LOG, *[levels_of(name, field, MOST_LEVELS) for name, field in columns.fields.items()]]
    counted = [(levels, *_count(levels, columns)) for levels in places]
    number = sum(drawn.size for _, drawn, _ in counted)
    usual = np.log1p(-np.minimum(usual_propensities(columns), 1 - 1e-12))
    draws = columns.unit_count / len(columns)  # a unit may keep its action: then it is one draw
    found = [
        (levels, (drawn == 0) & (usual * eligible * draws < np.log(ALARM / number)))
        for levels, drawn, eligible in counted
    ]
    return UndrawnCells(tuple((levels, flags) for levels, flags in found if flags.any()))


def usual_propensities(columns: Columns) -> Floats:
    """(actions,): a low quantile, over decisions, of each action's propensity; of all actions for one never drawn.

    >>> from simulator.logs.example import example
    >>> usual_propensities(example()).tolist()
    [0.75, 0.5]
    """
    step = max(1, len(columns) // MOST_ROWS)
    action, propensity = columns.action[::step], columns.propensity[::step]
    everything = _low_quantile(np.zeros(len(action), np.int32), propensity, 1)
    own = _low_quantile(action, propensity, len(columns.actions))
    return np.where(np.isnan(own), everything[0], own)


def _low_quantile(group: Codes, p: Floats, groups: int) -> Floats:
    """(groups,) of propensities; each draw stands for 1/p decisions. nan for groups without any."""
    order = np.lexsort((p, group))
    sorted_group, stands = group[order], 1.0 / p[order]
    total = np.bincount(group, weights=1.0 / p, minlength=groups)
    before = np.concatenate([np.zeros(1), np.cumsum(total)])[:-1]
    reached = np.cumsum(stands) - before[sorted_group] >= RARELY * total[sorted_group]
    found = np.full(groups, np.nan)
    rows = np.flatnonzero(reached)[::-1]
    found[sorted_group[rows]] = p[order][rows]  # backwards: the first that reaches it is written last
    return found


def _count(levels: Levels, columns: Columns) -> tuple[Longs, Longs]:
    """(levels, actions) each: how often an action was drawn, and how often it was eligible."""
    code, actions = _codes(levels, columns), len(columns.actions)
    drawn = np.bincount(code * actions + columns.action, minlength=levels.count * actions)
    sets = np.bincount(code * len(columns.sets) + columns.eligible, minlength=levels.count * len(columns.sets))
    eligible = sets.reshape(levels.count, -1) @ columns.member.astype(np.int64)
    return drawn.reshape(levels.count, actions), eligible


def _codes(levels: Levels, columns: Columns) -> Longs:
    return levels.codes(columns.fields[levels.name]) if levels.name else np.zeros(len(columns), np.int64)


@dataclass(frozen=True, slots=True)
class Unseen:
    """What is to be added to a decision's term where missing actions earn the least, and the most. (n,) each."""

    low: Floats
    high: Floats

    def sums(self, units: Units) -> Unseen:
        """By unit."""
        return Unseen(units.sums(self.low), units.sums(self.high))

    def times(self, share: float) -> Unseen:
        """Of so much of every term."""
        return Unseen(share * self.low, share * self.high)

    def part(self, rows: Longs) -> Unseen:
        """Of some decisions."""
        return Unseen(self.low[rows], self.high[rows])


def difference_of(one: Unseen | None, other: Unseen | None) -> Unseen | None:
    """Of one less the other: the farther ends, since the two need not miss the same actions.

    >>> one = np.ones(1)
    >>> difference_of(None, Unseen(0 * one, one)), difference_of(None, None)
    (Unseen(low=array([-1.]), high=array([0.])), None)
    """
    if one is None or other is None:
        return one or (other and Unseen(-other.high, 0.0 - other.low))
    return Unseen(one.low - other.high, one.high - other.low)


@dataclass(frozen=True, slots=True)
class Samples:
    """A sample with missing actions at the lowest reward, and at the highest; both are one where nothing is missing.

    own: with what the estimate itself takes them to earn.
    """

    own: Sample
    lowest: Sample
    highest: Sample

    def interval(self, value_range: Range, *, level: float = 0.95) -> Interval:
        """The default one, from the lower end of the lowest to the upper end of the highest, within the range.

        An interval that uses the weights may miss the mean term: it is widened to hold it.
        """
        found = _default(self.lowest, value_range, level)
        highest = found if self.highest is self.lowest else _default(self.highest, value_range, level)
        return Interval(self.own.value, found.low, highest.high)


def _default(sample: Sample, value_range: Range, level: float) -> Interval:
    return wide_enough(default_interval(sample, value_range=value_range, level=level), sample.value, value_range)


def wide_enough(found: Interval, value: float, value_range: Range) -> Interval:
    """The mean term with an interval that holds it, as far as it is in the range.

    >>> wide_enough(Interval(0.5, 0.4, 0.6), 0.7, (0.0, 1.0))
    Interval(value=0.7, low=0.4, high=0.7)
    """
    held = min(max(value, value_range[0]), value_range[1])
    return Interval(value, min(found.low, held), max(found.high, held))


def samples_of(sample: Sample, unseen: Unseen | None) -> Samples:
    """Of a sample of terms and what is to be added to its sums, by unit, for the actions that the log cannot show.

    >>> one = np.ones(2)
    >>> sample = Sample(one, one, one, low=0.0, high=1.0, max_weight=1.0)
    >>> samples_of(sample, None).highest is sample
    True
    >>> samples_of(sample, Unseen(-one / 2, one)).highest.total.tolist()
    [2.0, 2.0]
    """
    if unseen is None:
        return Samples(sample, sample, sample)
    return Samples(sample, _shift(sample, unseen.low), _shift(sample, unseen.high))


def _shift(sample: Sample, added: Floats) -> Sample:
    each = added / sample.size
    least, most = min(0.0, float(each.min(initial=0.0))), max(0.0, float(each.max(initial=0.0)))
    idle = sample.idle and (sample.idle[0] + least, sample.idle[1] + most)
    return replace(sample, total=sample.total + added, low=sample.low + least, high=sample.high + most, idle=idle)
