"""Totals of a log: between two marks by experiment version, and added up by names and labels.

Every log counts the former itself (in SQL where there is a database). `log_totals.py` adds them up for the metrics; the
log stores the sum as a checkpoint, in which nothing is by version, so that it does not grow with them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field, fields, replace
from itertools import chain
from typing import Any, NamedTuple, Self, TypeVar, cast

from decider.experiment.definition import ExperimentVersion
from decider.log import cell_totals, daily_totals
from decider.log.cell_totals import Cells, add_cells
from decider.log.daily_totals import OTHER as OTHER_VALUE
from decider.log.daily_totals import DailyTotals, DayCell, DayGroup, Earned, add_days, without_segments
from decider.log.exact_sum import ZERO, ExactSum
from decider.log.lift_totals import StrataTotals, add_stratum, from_rows, to_rows
from decider.types import ActionId, Context, Position, Reason, RewardOutcome

POLICY_DRAWS = (Reason.EXPLOIT, Reason.EXPLORE)
"""The reasons of draws from a policy's pmf."""

CALLED = ActionId("(called)")
"""Where others have an action: all that only calls knew, together. Their ids are no labels: there may be any number."""

CONTENT_FORMAT = 3
"""Of stored totals: to be raised when their meaning changes."""

POLICY, HOLDOUT = "policy", "holdout"
"""Groups of units, as labels. Older totals do not know them: there the label is empty."""

DELAY_BUCKETS = (1, 5, 15, 60, 300, 900, 3600, 14400, 86400, 604800)
"""Seconds from decision to reward; one more bucket holds what is later."""


SLOTS = 1_000_000
"""A pmf in the log is in millionths."""

VARIANCE_UNIT = 1e-9
"""Of `slots_variance`: small enough for rare actions, and sums over a log are no larger than SQL's whole numbers."""


def slots_variance(slots: int) -> int:
    """p (1 - p) of an action with so many slots, rounded up.

    >>> slots_variance(500_000), slots_variance(1)
    (250000000, 1000)
    """
    return -(slots * (slots - SLOTS) // 1000)


DAYS, BEFORE = 7, ""
"""So many days with draws are counted apart, and all earlier ones together: what begins to go wrong after years must
not be lost among what was right."""


class ActionNames(NamedTuple):
    """active: the active actions of a version. open: calls may bring others."""

    active: tuple[ActionId, ...]
    open: bool = False

    def counted_as(self, action: ActionId) -> ActionId:
        """An action's name in totals.

        >>> names = ActionNames((ActionId("sale"),), open=True)
        >>> names.counted_as(ActionId("sale")), names.counted_as(ActionId("article-7"))
        ('sale', '(called)')
        """
        return CALLED if self.open and action not in self.active else action


def names_of(version: ExperimentVersion) -> ActionNames:
    """Of a version's actions."""
    return ActionNames(version.all_active, version.experiment.most_actions > 0)


@dataclass(frozen=True, slots=True)
class SealedTotals:
    """Of decisions whose declared window is over. reward, squared: sums of their final rewards and of the squares.
    not_activated: those that had to be and were not; they are in none of the others."""

    count: int = 0
    defaulted: int = 0
    overridden: int = 0
    activated: int = 0
    not_activated: int = 0
    reward: ExactSum = ZERO
    squared: ExactSum = ZERO

    def __add__(self, more: SealedTotals) -> SealedTotals:
        return SealedTotals(
            self.count + more.count,
            self.defaulted + more.defaulted,
            self.overridden + more.overridden,
            self.activated + more.activated,
            self.not_activated + more.not_activated,
            self.reward + more.reward,
            self.squared + more.squared,
        )


@dataclass(frozen=True, slots=True)
class RewardTotals:
    """Of rewards of one name and outcome. value, squared: sums of the values as sent, and of the squares."""

    count: int = 0
    value: ExactSum = ZERO
    squared: ExactSum = ZERO

    def __add__(self, more: RewardTotals) -> RewardTotals:
        return RewardTotals(self.count + more.count, self.value + more.value, self.squared + more.squared)


@dataclass(frozen=True, slots=True)
class NamedTotals:
    """Of sealed decisions with rewards of one name. value: their sum, as they are in force and without the name's
    weight; squared: of the square of what each decision has of them."""

    value: ExactSum = ZERO
    squared: ExactSum = ZERO

    @classmethod
    def of(cls, value: float) -> NamedTotals:
        """Of one decision."""
        return cls(ExactSum.of(value), ExactSum.of(value * value))

    def __add__(self, more: NamedTotals) -> NamedTotals:
        return NamedTotals(self.value + more.value, self.squared + more.squared)


MAX_REWARD_NAMES = 50
"""Names of rewards that get a label of their own, for each experiment; the rest count as `other`."""

MAX_ACTION_NAMES = 2_000
"""Actions that get a label of their own, for each experiment, over all of its versions: twice as many as one version
may have. The rest counts as OTHER_ACTION."""

OTHER_ACTION = "(other)"

OTHER, ALL = "other", ""
"""In place of a name of rewards: of the rest; and of all, also those without any."""

SEGMENT, DEVICE, CHANNEL = "segment", "device", "channel"
"""Fields of the context by which rewarded decisions are counted."""

ANY = "(any)"
"""In place of a name of rewards: decisions with any reward."""

MOST_VALUES = {SEGMENT: 20, DEVICE: 8, CHANNEL: 8}
"""Of each field, for each experiment, that are counted apart: those that come first in the alphabet. The rest counts as
OTHER; so do all but MOST_CHANNEL_NAMES names."""
MOST_CHANNEL_NAMES = 8


class FieldCell(NamedTuple):
    """Sealed decisions of a version that are counted together. name: of a reward that they have, by channel; ANY, by
    segment and device; ALL: of these and of those without any. group: by channel alone; "" otherwise."""

    version: Position
    field: str
    value: str
    name: str
    group: str
    day: int


@dataclass(slots=True)
class Totals:
    """`version` is the position of an experiment version everywhere, an action what `ActionNames` counts it as. Entries
    come with those of their own position; sealed decisions by the time at which the window is over that their version
    declares, also where a final reward has sealed them before: all decisions of a time come together, or whoever was
    rewarded would come first, and be compared with others who were."""

    decisions: Counter[tuple[Position, ActionId, Reason]] = field(default_factory=Counter)
    inverse_propensity: dict[tuple[Position, ActionId], ExactSum] = field(default_factory=dict)
    """Sum of 1/propensity of draws from a policy's pmf (reasons EXPLOIT and EXPLORE)."""
    possible: Counter[tuple[Position, ActionId]] = field(default_factory=Counter)
    """Draws from a policy's pmf in which the action had a slot."""
    excess: Counter[tuple[Position, ActionId, int]] = field(default_factory=Counter)
    """How often a policy's pmf gave the action, less the sum of its probabilities, in slots; by `day_of` decisions."""
    variance: Counter[tuple[Position, ActionId, int]] = field(default_factory=Counter)
    """Of that, as `slots_variance` has it."""
    rewards: dict[tuple[Position, str, RewardOutcome], RewardTotals] = field(default_factory=dict)
    """By (version, name, outcome), in the order in which the names first came. Changes of rewards are counted with
    their own outcome and no value: so the values are those that were sent."""
    delays: Counter[tuple[Position, int]] = field(default_factory=Counter)
    """Rewards by (version, index into DELAY_BUCKETS)."""
    delay: Counter[Position] = field(default_factory=Counter)
    """Microseconds, all together."""
    sealed: dict[tuple[Position, str], SealedTotals] = field(default_factory=dict)
    """By version and group."""
    rewarded: Counter[tuple[Position, str, str, int]] = field(default_factory=Counter)
    """Sealed decisions by version, name of a reward that they have, group and day; ALL: of any, and of none."""
    named: dict[tuple[Position, str, str], NamedTotals] = field(default_factory=dict)
    """By version, name of a reward and group."""
    by_field: Counter[FieldCell] = field(default_factory=Counter)
    """The same by a field of the context."""
    lift: StrataTotals = field(default_factory=dict)
    """By stratum, whose `first` is a version of the experiment."""
    days: Counter[DayCell] = field(default_factory=Counter)
    """Decisions of units that are not in the holdout."""
    earned: dict[DayGroup, Earned] = field(default_factory=dict)
    exploration: StrataTotals = field(default_factory=dict)
    """Of draws from a policy's pmf, by measure (`whole`): in place of LEARNED what exploration has cost."""
    cells: Cells = field(default_factory=dict)
    """Of the same draws."""

    def count_fields(
        self, version: Position, context: Context, group: str, day: int, *, count: int, rewarded: int
    ) -> None:
        """More sealed decisions of such a context, of which so many have a reward."""
        for name, value in ((SEGMENT, context.segment), (DEVICE, context.device)):
            self.by_field[FieldCell(version, name, value, ALL, "", day)] += count
            if rewarded:
                self.by_field[FieldCell(version, name, value, ANY, "", day)] += rewarded
        self.by_field[FieldCell(version, CHANNEL, context.channel, ALL, group, day)] += count

    def versions(self) -> set[Position]:
        """Every version of which something was counted."""
        by_label = (self.decisions, self.rewards, self.delays, self.sealed)
        strata = {stratum.first for stratum in (*self.lift, *self.exploration)}
        return {labels[0] for counts in by_label for labels in counts} | strata | {cell.measure for cell in self.cells}


Labels = tuple[str, ...]

LabelT = TypeVar("LabelT")


class LabelSums(dict[Labels, ExactSum]):
    """Sums by labels; a missing key reads as 0 and is not added by reading."""

    def __missing__(self, key: Labels) -> ExactSum:
        return ZERO


@dataclass(slots=True)
class LabelTotals:
    """Counts by labels; the labels are the tuple's parts in the order given."""

    decisions: Counter[Labels] = field(default_factory=Counter)  # experiment, action, reason
    inverse_propensity: LabelSums = field(default_factory=LabelSums)  # experiment, action; drawn from a pmf
    possible: Counter[Labels] = field(default_factory=Counter)  # experiment, action; its pmf was above 0
    excess: Counter[Labels] = field(default_factory=Counter)  # experiment, action, day or BEFORE; in slots
    variance: Counter[Labels] = field(default_factory=Counter)  # the same; as `slots_variance`
    rewards: Counter[Labels] = field(default_factory=Counter)  # experiment, name, outcome
    values: LabelSums = field(default_factory=LabelSums)  # experiment, name
    squared_values: LabelSums = field(default_factory=LabelSums)  # experiment, name
    delays: Counter[Labels] = field(default_factory=Counter)  # experiment, index of bucket
    delay: Counter[Labels] = field(default_factory=Counter)  # experiment; microseconds
    sealed: Counter[Labels] = field(default_factory=Counter)  # experiment, group
    defaulted: Counter[Labels] = field(default_factory=Counter)  # experiment, group
    overridden: Counter[Labels] = field(default_factory=Counter)  # experiment, group
    activated: Counter[Labels] = field(default_factory=Counter)  # experiment, group
    not_activated: Counter[Labels] = field(default_factory=Counter)  # experiment, group
    sealed_reward: LabelSums = field(default_factory=LabelSums)  # experiment, group
    squared_sealed_reward: LabelSums = field(default_factory=LabelSums)  # experiment, group
    rewarded: Counter[Labels] = field(default_factory=Counter)  # experiment, name or ALL, group, day or BEFORE
    sealed_values: LabelSums = field(default_factory=LabelSums)  # experiment, name, group
    squared_sealed_values: LabelSums = field(default_factory=LabelSums)  # experiment, name, group
    by_field: Counter[Labels] = field(default_factory=Counter)  # experiment, the rest of a FieldCell; day or BEFORE
    lift: dict[str, StrataTotals] = field(default_factory=dict)
    """By experiment, of its newest strata."""
    daily: dict[str, DailyTotals] = field(default_factory=dict)
    """By experiment, of its newest days."""
    exploration: dict[str, StrataTotals] = field(default_factory=dict)
    """By experiment, of its newest measure."""
    cells: dict[str, Cells] = field(default_factory=dict)
    """By experiment, of its newest measure."""
    _names: Counter[str] = field(default_factory=Counter, init=False, repr=False, compare=False)
    """By experiment, how many names of rewards have a label."""

    def add(self, counted: Totals, experiments: Mapping[Position, str]) -> None:
        """What was counted behind these. experiments: of its versions."""
        self._add_decisions(counted, experiments)
        self._add_rewards(counted, experiments)
        self._add_sealed(counted, experiments)
        for stratum, more in counted.lift.items():
            add_stratum(self.lift.setdefault(experiments[stratum.first], {}), stratum, more)
        add_days(self.daily, counted.days, counted.earned, experiments)
        for stratum, more in counted.exploration.items():
            add_stratum(self.exploration.setdefault(experiments[stratum.first], {}), stratum, more)
        add_cells(self.cells, counted.cells, experiments)

    def _add_decisions(self, counted: Totals, experiments: Mapping[Position, str]) -> None:
        for (version, action, reason), count in counted.decisions.items():
            self.decisions[experiments[version], action, reason] += count
        for (version, action), inverse in counted.inverse_propensity.items():
            self.inverse_propensity[experiments[version], action] += inverse
        for (version, action), count in counted.possible.items():
            self.possible[experiments[version], action] += count
        for (version, action, day), slots in counted.excess.items():
            self.excess[experiments[version], action, str(day)] += slots
        for (version, action, day), variance in counted.variance.items():
            self.variance[experiments[version], action, str(day)] += variance
        _merge_old_days({experiments[version] for version, _, _ in counted.excess}, self.excess, self.variance)
        self._merge_actions({experiments[version] for version, _, _ in counted.decisions})

    def _merge_actions(self, experiments: Collection[str]) -> None:
        """Excess and variance of several actions add up to those of the group: its variance is no larger."""
        named = chain(((id_, name) for id_, name, _ in self.decisions), self.possible)
        late = _late_names(cast(Iterable[tuple[str, str]], named), experiments, MAX_ACTION_NAMES, OTHER_ACTION)
        if late:
            for counts in (self.decisions, self.inverse_propensity, self.possible, self.excess, self.variance):
                _pour(counts, late, OTHER_ACTION)

    def _add_rewards(self, counted: Totals, experiments: Mapping[Position, str]) -> None:
        for (version, name, outcome), rewards in counted.rewards.items():
            experiment = experiments[version]
            label = self._reward_label(experiment, name)
            self.rewards[experiment, label, str(outcome)] += rewards.count
            self.values[experiment, label] += rewards.value
            self.squared_values[experiment, label] += rewards.squared
        for (version, bucket), count in counted.delays.items():
            self.delays[experiments[version], str(bucket)] += count
        for version, microseconds in counted.delay.items():
            self.delay[experiments[version],] += microseconds

    def _reward_label(self, experiment: str, name: str) -> str:
        if (experiment, name) in self.values:
            return name
        if self._names[experiment] >= MAX_REWARD_NAMES:
            return OTHER
        self._names[experiment] += 1
        return name

    def _add_sealed(self, counted: Totals, experiments: Mapping[Position, str]) -> None:
        for (version, group), sealed in counted.sealed.items():
            key = (experiments[version], group)
            self.sealed[key] += sealed.count
            self.defaulted[key] += sealed.defaulted
            self.overridden[key] += sealed.overridden
            self.activated[key] += sealed.activated
            self.not_activated[key] += sealed.not_activated
            self.sealed_reward[key] += sealed.reward
            self.squared_sealed_reward[key] += sealed.squared
        for (version, name, group, day), count in counted.rewarded.items():
            self.rewarded[experiments[version], name, group, str(day)] += count
        for (version, name, group), named in counted.named.items():
            self.sealed_values[experiments[version], name, group] += named.value
            self.squared_sealed_values[experiments[version], name, group] += named.squared
        for (version, *labels, day), count in counted.by_field.items():
            self.by_field[experiments[version], *labels, str(day)] += count
        sealed_now = {experiments[version] for version, _, _, _ in counted.rewarded}
        _merge_old_days(sealed_now, self.rewarded)
        for by_name in (self.rewarded, self.sealed_values, self.squared_sealed_values):
            _merge_names(sealed_now, by_name)
        counted_by_field = {experiments[cell.version] for cell in counted.by_field}
        _merge_old_days(counted_by_field, self.by_field)
        _merge_values(counted_by_field, self.by_field)

    def open_decisions(self) -> Counter[Labels]:
        """Decisions whose declared window is not over, of every experiment that has decisions."""
        open_: Counter[Labels] = Counter()
        for (experiment, _, _), count in self.decisions.items():
            open_[experiment,] += count
        for over in (self.sealed, self.not_activated):
            for (experiment, _), count in over.items():
                open_[experiment,] -= count
        return open_

    def without(self, experiments: Collection[str]) -> LabelTotals:
        """A copy that does not name these experiments."""
        rest = LabelTotals()
        for name in _STORED:
            kept = {key: total for key, total in getattr(self, name).items() if key[0] not in experiments}
            getattr(rest, name).update(kept)
        rest._names.update([experiment for experiment, _ in rest.values])
        for name in _BY_UNIT:
            by_unit: Mapping[str, StrataTotals] = getattr(self, name)
            setattr(rest, name, {id_: strata for id_, strata in by_unit.items() if id_ not in experiments})
        rest.daily = {experiment: days for experiment, days in self.daily.items() if experiment not in experiments}
        rest.cells = {experiment: cells for experiment, cells in self.cells.items() if experiment not in experiments}
        return rest

    def without_units(self) -> LabelTotals:
        """A copy that has one bucket a group, whose days know no segments, and that has no cells and no fields of
        contexts: what is the same where units have other ids and contexts are gone."""
        lift, exploration = _by_group(self.lift), _by_group(self.exploration)
        daily = without_segments(self.daily)
        return replace(self, lift=lift, exploration=exploration, daily=daily, cells={}, by_field=Counter())

    def without_groups(self) -> LabelTotals:
        """A copy that knows no groups, days, strata and cells: what older releases counted."""
        counts: dict[str, Any] = {name: Counter() for name in ("excess", "variance", "rewarded", "by_field")}
        counts |= {name: LabelSums() for name in ("sealed_values", "squared_sealed_values")}
        rest = replace(self, lift={}, exploration={}, daily={}, cells={}, **counts)
        for name in _BY_GROUP:
            total = type(getattr(self, name))()
            for (experiment, _), count in getattr(self, name).items():
                total[experiment, ""] += count
            setattr(rest, name, total)
        return rest

    def agrees_with(self, stored: LabelTotals, *, forgotten: bool) -> bool:
        """Whether these, counted anew, are what is stored, as far as that can be told: an older release knew no groups,
        and where units are forgotten they have other ids since."""
        if any(not group for name in _BY_GROUP for _, group in getattr(stored, name)):
            return self.without_groups() == stored.without_groups()
        if forgotten:
            return self.without_units() == stored.without_units()
        return self == stored or (
            cell_totals.began_later(stored.cells, self.cells) and replace(self, cells=stored.cells) == stored
        )

    def to_json(self) -> str:
        """One text for the same totals. Equal totals may differ in the order of their labels alone."""
        content: dict[str, Any] = {name: [_to_row(*item) for item in getattr(self, name).items()] for name in _STORED}
        for name in _BY_UNIT:
            content[name] = to_rows(getattr(self, name))
        content["daily"] = daily_totals.to_rows(self.daily)
        content["cells"] = cell_totals.to_rows(self.cells)
        return json.dumps(content, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The opposite of `to_json`; a total that the text does not have yet is empty. Raises ValueError, TypeError or
        KeyError where it cannot be."""
        totals, content = cls(), json.loads(text)
        for name in _STORED:
            getattr(totals, name).update(dict(map(_from_row, content.get(name, ()))))
        for name in _BY_GROUP:
            total = getattr(totals, name)
            for labels in [labels for labels in total if len(labels) == 1]:
                total[(*labels, "")] = total.pop(labels)
        for name in _BY_UNIT:
            setattr(totals, name, from_rows(content.get(name, ())))
        totals.daily = daily_totals.from_rows(content.get("daily", ()))
        totals.cells = cell_totals.from_rows(content.get("cells", ()))
        totals._merge_actions({experiment for experiment, _, _ in totals.decisions})
        totals._names.update([experiment for experiment, _ in totals.values])
        return totals


def _merge_old_days(experiments: Collection[str], *counts: Counter[Labels]) -> None:
    """Counts by labels, of which the last is the day, of these experiments. Which days are old depends on the days
    alone, and a day that is old stays so: so it does not matter where counting is interrupted, nor in which order days
    come."""
    # One pass for all experiments: a scrape may bring entries of hundreds, each with hundreds of labels.
    days = _labels_of(experiments, ((id_, day) for id_, *_, day in counts[0] if day != BEFORE))
    old = {id_: set(sorted(known, key=int)[:-DAYS]) for id_, known in days.items() if len(known) > DAYS}
    if not old:
        return
    for count in counts:
        for key in [key for key in count if key[-1] in old.get(key[0], ())]:
            count[(*key[:-1], BEFORE)] += count.pop(key)


def _merge_names(experiments: Collection[str], counts: MutableMapping[Labels, Any]) -> None:
    late = _late_names(((id_, name) for id_, name, *_ in counts if name != ALL), experiments, MAX_REWARD_NAMES, OTHER)
    if late:
        _pour(counts, late, OTHER)


def _late_names(
    pairs: Iterable[tuple[str, str]], experiments: Collection[str], most: int, other: str
) -> dict[str, set[str]]:
    """By experiment, the names that have no label of their own. Those that come late in the alphabet: that does not
    depend on the order in which they came."""
    names = _labels_of(experiments, pairs)
    return {id_: set(sorted(known - {other})[most:]) for id_, known in names.items() if len(known) > most}


def _pour(counts: MutableMapping[Labels, Any], late: Mapping[str, set[str]], other: str) -> None:
    """Count these names, which are the second label, as the other one."""
    for key in [key for key in counts if key[1] in late.get(key[0], ())]:
        counts[(key[0], other, *key[2:])] += counts.pop(key)


def _labels_of(experiments: Collection[str], pairs: Iterable[tuple[str, LabelT]]) -> dict[str, set[LabelT]]:
    """The second of each pair, by experiment."""
    found: dict[str, set[LabelT]] = {}
    for experiment, label in pairs:
        if experiment in experiments:
            found.setdefault(experiment, set()).add(label)
    return found


def _merge_values(experiments: Collection[str], counts: Counter[Labels]) -> None:
    """Of `by_field`: as `_merge_names` does it."""
    values = _labels_of(experiments, ((id_, (field_, value)) for id_, field_, value, *_ in counts))
    names = _late_names(
        ((id_, name) for id_, _, _, name, *_ in counts if name not in (ALL, ANY)),
        experiments, MOST_CHANNEL_NAMES, OTHER,
    )  # fmt: skip
    late = {id_: _late_values(known) for id_, known in values.items()}
    for key in [key for key in counts if key[0] in experiments]:
        id_, field_, value, name, *rest = key
        is_late, is_late_name = (field_, value) in late[id_], name in names.get(id_, ())
        if is_late or is_late_name:
            value, name = OTHER_VALUE if is_late else value, OTHER if is_late_name else name
            counts[(id_, field_, value, name, *rest)] += counts.pop(key)


def _late_values(known: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
    """Of (field, value): those that come late in the alphabet."""
    return {
        (field_, value)
        for field_, most in MOST_VALUES.items()
        for value in sorted({value for one, value in known if one == field_} - {OTHER_VALUE})[most:]
    }


def _by_group(totals: Mapping[str, StrataTotals]) -> dict[str, StrataTotals]:
    return {
        experiment: {stratum: one.by_group() for stratum, one in strata.items()}
        for experiment, strata in totals.items()
    }


_BY_UNIT = ("lift", "exploration")
_STORED = [one.name for one in fields(LabelTotals) if one.init and one.name not in (*_BY_UNIT, "daily", "cells")]
_BY_GROUP = (
    *("sealed", "defaulted", "overridden", "activated", "not_activated"),
    *("sealed_reward", "squared_sealed_reward"),
)

Row = tuple[list[str], int] | tuple[list[str], int, int]
"""Labels with a count, or with the pair of an ExactSum."""


def _to_row(labels: Labels, total: int | ExactSum) -> Row:
    return (list(labels), *total.pair()) if isinstance(total, ExactSum) else (list(labels), total)


def _from_row(row: Any) -> Any:
    labels, *total = row
    return tuple(labels), (total[0] if len(total) == 1 else ExactSum.from_pair(total))
