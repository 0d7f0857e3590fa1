"""Totals of a log: between two marks by experiment version, and added up by names and labels.

Every log counts the former itself (in SQL where there is a database). `log_totals.py` adds them up for the metrics; the
log stores the sum as a checkpoint, in which nothing is by version, so that it does not grow with them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple, Self

from decider.experiment.definition import ExperimentVersion
from decider.log import daily_totals
from decider.log.daily_totals import DailyTotals, DayCell, DayGroup, Earned, add_days, without_segments
from decider.log.exact_sum import ZERO, ExactSum
from decider.log.lift_totals import StrataTotals, add_stratum, from_rows, to_rows
from decider.types import ActionId, Position, Reason, RewardOutcome

POLICY_DRAWS = (Reason.EXPLOIT, Reason.EXPLORE)
"""The reasons of draws from a policy's pmf."""

CALLED = ActionId("(called)")
"""Where others have an action: all that only calls knew, together. Their ids are no labels: there may be any number."""

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
    lift: StrataTotals = field(default_factory=dict)
    """By stratum, whose `first` is a version of the experiment."""
    days: Counter[DayCell] = field(default_factory=Counter)
    """Decisions of units that are not in the holdout."""
    earned: dict[DayGroup, Earned] = field(default_factory=dict)
    exploration: StrataTotals = field(default_factory=dict)
    """Of draws from a policy's pmf, by measure (`whole`): in place of LEARNED what exploration has cost."""

    def versions(self) -> set[Position]:
        """Every version of which something was counted."""
        by_label = (self.decisions, self.rewards, self.delays, self.sealed)
        strata = (*self.lift, *self.exploration)
        return {labels[0] for counts in by_label for labels in counts} | {stratum.first for stratum in strata}


MAX_REWARD_NAMES = 50
"""Names of rewards that get a label of their own, for each experiment; the rest count as `other`."""

OTHER, ALL = "other", ""
"""In place of a name of rewards: of the rest; and of all, also those without any."""

Labels = tuple[str, ...]


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
    lift: dict[str, StrataTotals] = field(default_factory=dict)
    """By experiment, of its newest strata."""
    daily: dict[str, DailyTotals] = field(default_factory=dict)
    """By experiment, of its newest days."""
    exploration: dict[str, StrataTotals] = field(default_factory=dict)
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
        for experiment in {experiments[version] for version, _, _ in counted.excess}:
            _merge_old_days(experiment, self.excess, self.variance)

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
        for experiment in {experiments[version] for version, _, _, _ in counted.rewarded}:
            _merge_old_days(experiment, self.rewarded)
            _merge_names(experiment, self.rewarded)

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
        return rest

    def without_units(self) -> LabelTotals:
        """A copy that has one bucket a group, and whose days know no segments: what is the same where units have other
        ids and contexts are gone."""
        lift, exploration = _by_group(self.lift), _by_group(self.exploration)
        return replace(self, lift=lift, exploration=exploration, daily=without_segments(self.daily))

    def without_groups(self) -> LabelTotals:
        """A copy that knows no groups, no days and no strata: what older releases counted."""
        counts: dict[str, Any] = {name: Counter() for name in ("excess", "variance", "rewarded")}
        rest = replace(self, lift={}, exploration={}, daily={}, **counts)
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
        return self.without_units() == stored.without_units() if forgotten else self == stored

    def to_json(self) -> str:
        """One text for the same totals. Equal totals may differ in the order of their labels alone."""
        content: dict[str, Any] = {name: [_to_row(*item) for item in getattr(self, name).items()] for name in _STORED}
        for name in _BY_UNIT:
            content[name] = to_rows(getattr(self, name))
        content["daily"] = daily_totals.to_rows(self.daily)
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
        totals._names.update([experiment for experiment, _ in totals.values])
        return totals


def _merge_old_days(experiment: str, *counts: Counter[Labels]) -> None:
    """Counts by labels, of which the last is the day. Which days are old depends on the days alone, and a day that is
    old stays so: so it does not matter where counting is interrupted, nor in which order days come."""
    days = {day for id_, *_, day in counts[0] if id_ == experiment and day != BEFORE}
    old = set(sorted(days, key=int)[:-DAYS])
    for count in counts:
        for key in [key for key in count if key[0] == experiment and key[-1] in old]:
            count[(*key[:-1], BEFORE)] += count.pop(key)


def _merge_names(experiment: str, counts: Counter[Labels]) -> None:
    """Names that come late in the alphabet count together: that does not depend on the order in which they came."""
    names = sorted({name for id_, name, *_ in counts if id_ == experiment} - {ALL, OTHER})
    late = set(names[MAX_REWARD_NAMES:])
    for key in [key for key in counts if key[0] == experiment and key[1] in late]:
        counts[(experiment, OTHER, *key[2:])] += counts.pop(key)


def _by_group(totals: Mapping[str, StrataTotals]) -> dict[str, StrataTotals]:
    return {
        experiment: {stratum: one.by_group() for stratum, one in strata.items()}
        for experiment, strata in totals.items()
    }


_BY_UNIT = ("lift", "exploration")
_STORED = [one.name for one in fields(LabelTotals) if one.init and one.name not in (*_BY_UNIT, "daily")]
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
