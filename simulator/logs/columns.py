"""A log as columns: one experiment's decisions in numpy arrays, whatever file they came from.

Every reader of this folder ends in a `Columns`; everything that evaluates, inspects or exports begins with one. There
is no Python object per decision: about 100 bytes a decision, plus 4 for each probability of a logged pmf.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decider.estimate.sample import Units
from simulator.logs.holdout_split import Split
from simulator.logs.versions import VersionsRead

Floats = NDArray[np.float64]
Codes = NDArray[np.int32]
Longs = NDArray[np.int64]
Flags = NDArray[np.bool_]
Rows = slice | Flags | Longs
"""Which decisions: a slice, a mask of all of them, or their numbers in the order wanted."""

BLOCK = 16_384
"""Decisions in a block, unless somebody asks for smaller ones."""

KIND = "content"
"""Of an action where nobody says it, as in an experiment file."""

DENSE = 4_000_000
"""Probabilities that a block has at most when its pmfs are made dense."""


@dataclass(frozen=True, slots=True)
class Category:
    """A field of texts. codes: (n,), index into `values`; -1 where it was not given.

    >>> Category.of(["web", "app", "", "web"])
    Category(codes=array([ 0,  1, -1,  0], dtype=int32), values=('web', 'app'))
    """

    codes: Codes
    values: tuple[str, ...]

    @classmethod
    def of(cls, texts: list[str]) -> Category:
        """From texts; an empty one is not given."""
        index: dict[str, int] = {"": -1}
        codes = [index.setdefault(text, len(index) - 1) for text in texts]
        return cls(np.array(codes, np.int32), tuple(index)[1:])

    def take(self, rows: Rows) -> Category:
        """The field of some decisions, with the same values."""
        return Category(self.codes[rows], self.values)


@dataclass(frozen=True, slots=True)
class Number:
    """A field of numbers. values: (n,); nan where it was not given."""

    values: Floats

    def take(self, rows: Rows) -> Number:
        """The field of some decisions."""
        return Number(self.values[rows])


Field = Category | Number


@dataclass(frozen=True, slots=True)
class LeftOutRows:
    """Decisions that a reader left out, as far as they could be read. (m,) each, in the order of the log.

    action: index into the log's actions, -1 where it is not known. reward: nan, time: -1 where they are not.
    """

    action: Codes
    reward: Floats
    time: Longs


@dataclass(frozen=True, slots=True)
class Pages:
    """Decisions that are the slots of pages. page: (n,) its number, -1 where the decision is no slot.

    slots: (n,) how many slots its page has in the log, of which some may have been left out here. left_out: how many
    pages have been left out with all of their slots.
    """

    page: Longs
    slots: Longs
    left_out: int = 0

    def take(self, rows: Rows) -> Pages:
        """Of some decisions."""
        return Pages(self.page[rows], self.slots[rows], self.left_out)

    def without(self, rows: Flags, *, wanted: Flags) -> Pages:
        """The same decisions, with the count of the pages that are lost once these rows are left out. wanted: the
        decisions that were asked for: of a page without any of them nothing is lost.

        >>> pages = Pages(np.array([0, 0, 1, 1, 2, -1]), np.array([2, 2, 2, 2, 1, 1]))
        >>> everything, some = np.ones(6, np.bool_), np.array([True, True, True, False, False, False])
        >>> pages.without(some, wanted=everything).left_out, pages.without(~some, wanted=some).left_out
        (1, 0)
        """
        asked, left = self.page[wanted & (self.page >= 0)], self.page[~rows & (self.page >= 0)]
        return replace(self, left_out=len(np.setdiff1d(asked, left)))


@dataclass(frozen=True)
class Columns:
    """n decisions of one experiment, in the order of the log; only those that can be evaluated.

    name: of the log. actions: the ids of all actions. action: (n,), the drawn one as index into `actions`.
    propensity: (n,) in (0, 1]; nan where the log does not say. reward: (n,), final. reward_range: declared (or seen).
    time, known: (n,) microseconds since 1970, of the decision and of the moment when its reward is final.
    unit: (n,), equal where the unit is. person: (n,), equal where the person is, who may be several linked units; None
    where each unit is a person of its own. fields: the context, by name.
    sets: the distinct sets of eligible actions, as indexes into `actions`; eligible: (n,), index into `sets`.
    pmf: the logged pmfs one after the other, each in the order of its eligible set; None where the log has none.
    default: (n,), no reward arrived. delay: (n,) seconds from the decision to its first reward, nan where none.
    reason: why the drawn action was drawn. model: (n,), name of the model that decided.
    action_features: JSON objects given with the call, by action. traits: what the actions are, as texts by action.
    baseline: index of the experiment's baseline action. left_out: decisions (or lines) that are not here, by kind;
    left_out_rows: those of them whose loss has to be judged. counts: other things that were counted, by name. None
    where a log does not have it.
    range_declared: somebody said what a reward can be; otherwise the range is that of the rewards seen.
    eligible_logged: the log itself says which actions could be drawn; otherwise these are the ones seen or declared.
    insisted: context fields that the user named as such, set_aside: those left out because they cannot be context, each
    with the reason. screened: leaks were looked for. holdout: the decisions of the control group; split: how units fell
    into it. experiment: its id.
    versions: which of it were read. pages: None where no decision is the slot of a page.
    """

    name: str
    actions: tuple[str, ...]
    action: Codes
    propensity: Floats
    reward: Floats
    reward_range: tuple[float, float]
    time: Longs
    known: Longs
    unit: Longs
    fields: Mapping[str, Field]
    sets: tuple[tuple[int, ...], ...]
    eligible: Codes
    pmf: NDArray[np.float32] | None = None
    default: Flags | None = None
    delay: Floats | None = None
    reason: Category | None = None
    model: Longs | None = None
    action_features: Category | None = None
    traits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    baseline: int | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    left_out_rows: LeftOutRows | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    range_declared: bool = True
    eligible_logged: bool = False
    insisted: frozenset[str] = frozenset()
    set_aside: Mapping[str, str] = field(default_factory=dict)
    screened: bool = False
    holdout: Columns | None = None
    experiment: str = ""
    split: Split | None = None
    versions: VersionsRead | None = None
    pages: Pages | None = None
    person: Longs | None = None

    def __len__(self) -> int:
        return len(self.action)

    @cached_property
    def member(self) -> Flags:
        """(sets, actions): which action is in which set."""
        member = np.zeros((len(self.sets), len(self.actions)), np.bool_)
        for row, members in enumerate(self.sets):
            member[row, list(members)] = True
        return member

    @cached_property
    def starts(self) -> Longs:
        """(n + 1,): where each decision's pmf begins in `pmf`, and the end."""
        sizes = np.array([len(members) for members in self.sets], np.int64)
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes[self.eligible])])

    @property
    def cluster(self) -> Longs:
        """(n,): equal where decisions depend on each other. Linked units are one: they may share a reward."""
        return self.unit if self.person is None else self.person

    @cached_property
    def units(self) -> Units:
        """Which decisions are of the same unit; linked units are one."""
        return Units(self.cluster)

    @cached_property
    def unit_count(self) -> int:
        """Of units as they were sent: each has draws of its own, linked or not."""
        return len(self.units.size) if self.person is None else len(np.unique(self.unit))

    @property
    def id_prefix(self) -> str:
        """What the ids that its decisions get begin with, so that those of two logs differ."""
        return blake2b(self.name.encode(), digest_size=4).hexdigest()

    @property
    def has_propensities(self) -> bool:
        """Whether every decision has one."""
        return not bool(np.isnan(self.propensity).any())

    def dense_pmf(self) -> Floats:
        """(n, actions): the logged pmfs, 0 for actions that were not eligible. For blocks: it is large."""
        assert self.pmf is not None
        return self.dense(self.pmf)

    def dense(self, flat: NDArray[np.floating]) -> Floats:
        """(n, actions) from values one after the other, laid out as `pmf` is."""
        if self.sets == (tuple(range(len(self.actions))),):
            return flat.reshape(len(self), len(self.actions)).astype(np.float64)
        sizes = np.diff(self.starts)
        members = np.concatenate([np.array(one, np.int64) for one in self.sets]) if self.sets else np.zeros(0, np.int64)
        first = np.concatenate([[0], np.cumsum([len(one) for one in self.sets])])[self.eligible]
        row = np.repeat(np.arange(len(self)), sizes)
        within = np.arange(len(row)) - np.repeat(self.starts[:-1], sizes)
        dense = np.zeros((len(self), len(self.actions)))
        dense[row, members[np.repeat(first, sizes) + within]] = flat
        return dense

    def take(self, rows: Rows) -> Columns:
        """Some of the decisions; a slice copies nothing.

        >>> from simulator.logs.example import example
        >>> example().take(np.array([1, 0])).pmf.tolist()
        [0.75, 0.25, 0.5, 0.5]
        """
        taken = {name: getattr(self, name) for name in _BY_DECISION}
        return replace(
            self,
            pmf=self._pmf_of(rows),
            fields={name: one.take(rows) for name, one in self.fields.items()},
            reason=self.reason and self.reason.take(rows),
            action_features=self.action_features and self.action_features.take(rows),
            pages=self.pages and self.pages.take(rows),
            **{name: values[rows] for name, values in taken.items() if values is not None},
        )

    def _pmf_of(self, rows: Rows) -> NDArray[np.float32] | None:
        if self.pmf is None:
            return None
        if isinstance(rows, slice):
            bounds = range(*rows.indices(len(self)))
            assert bounds.step == 1, "a slice of decisions has no step"
            return self.pmf[self.starts[bounds.start] : self.starts[bounds.stop]]
        if rows.dtype == np.bool_:
            return self.pmf[np.repeat(rows, np.diff(self.starts))]
        sizes = np.diff(self.starts)[rows]
        shift = self.starts[:-1][rows] - (np.cumsum(sizes) - sizes)  # from the place in the new pmf to that in the old
        moved: NDArray[np.float32] = self.pmf[np.repeat(shift, sizes) + np.arange(sizes.sum())]
        return moved

    def in_order_of_time(self) -> Columns:
        """The same decisions, the earliest first; those of one time as they were. Learning along a log needs it."""
        if bool((np.diff(self.time) >= 0).all()):
            return self
        return self.take(np.argsort(self.time, kind="stable"))

    def blocks(self, most: int | None = None) -> Iterator[tuple[slice, Columns]]:
        """The decisions in pieces whose dense pmfs fit into the processor's caches and memory, of `most` at most."""
        size = max(1, min(most or BLOCK, DENSE // max(1, len(self.actions))))
        for start in range(0, len(self), size):
            rows = slice(start, min(start + size, len(self)))
            yield rows, self.take(rows)


_BY_DECISION = (
    "action", "propensity", "reward", "time", "known", "unit", "person", "eligible", "default", "delay", "model",
)  # fmt: skip
"""The plain arrays of a `Columns`: one value a decision."""


def first_of_each(keys: NDArray[Any]) -> Flags:
    """(n,): True where a key comes for the first time.

    >>> first_of_each(np.array([7, 8, 7])).tolist()
    [True, True, False]
    """
    first = np.zeros(len(keys), np.bool_)
    first[np.unique(keys, return_index=True)[1]] = True
    return first
