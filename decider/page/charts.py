"""Where the bars and lines of the page's small charts go. Called by `page.py`; the templates write them as SVG.

Every drawing is stretched to the room that there is: so it holds no texts, and its lines are as thick as CSS says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

from decider.log.daily_totals import MOST_DAYS
from decider.log.totals import HOLDOUT, POLICY
from decider.page.figures import ActionMean, Day, Means, Segment, by_frequency
from decider.page.words import Fact, date, earns
from decider.text import count, figure, percent

COLOURS = 6
"""Actions with a colour of their own: the most frequent ones. The others share one."""

HEIGHT, SLOT, GAP = 100.0, 10.0, 1.0
"""Of a chart, and for each day in it."""

LEAST = 30
"""Decisions of a group on a day: with fewer its mean is not drawn."""

MOST = 0.5
"""Part of a segment's decisions for which it must be known what an action earns: with less it is greyed."""

FEW = 100
"""Decisions of a segment: with fewer it is greyed."""


@dataclass(frozen=True, slots=True)
class Bar:
    """colour: its place among COLOURS; COLOURS: of the others."""

    x: float
    y: float
    width: float
    height: float
    colour: int
    title: str


@dataclass(frozen=True, slots=True)
class Share:
    """An action's part in a bar, for the text beside it."""

    name: str
    colour: int
    text: str


@dataclass(frozen=True, slots=True)
class ActionRow:
    """share: of the segment's decisions. earns: what it earns there. covers: for which part of them that is known.
    is_thin: nothing is known, or not for most: then it is about a selection, and no figure of the segment."""

    name: str
    colour: int
    share: str
    earns: Fact
    covers: str
    is_thin: bool


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """is_thin: too little data to say much. actions: each with what it earns; empty where that is known of none.
    nearest: then, how far the one is of which most is known."""

    name: str
    decisions: int
    is_thin: bool
    bars: Sequence[Bar]
    shares: Sequence[Share]
    actions: Sequence[ActionRow] = ()
    nearest: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """Points of a line, in pieces: a day with too little data is a gap."""

    group: str
    pieces: Sequence[str]


@dataclass(frozen=True, slots=True)
class Daily:
    """Both charts of an experiment's days. marks: of changes. largest, smallest: of the axis of rewards."""

    width: float
    first: str
    last: str
    bars: Sequence[Bar]
    lines: Sequence[Line]
    smallest: str
    largest: str
    marks: Sequence[tuple[float, str]]
    rows: Sequence[tuple[str, str, str, str]]


class Colours:
    """Of an experiment's actions."""

    def __init__(self, actions: Sequence[str]) -> None:
        self._colours = {action: place for place, action in enumerate(actions[:COLOURS])}
        self.others = len(actions[COLOURS:])

    def of(self, action: str) -> int:
        """Its place; COLOURS for all others."""
        return self._colours.get(action, COLOURS)

    def parts(self, actions: dict[str, int]) -> list[tuple[str, int, int]]:
        """(name, colour, count) in the order of colours; the others as one."""
        found = [(name, colour, actions.get(name, 0)) for name, colour in self._colours.items()]
        rest = sum(actions.values()) - sum([number for _, _, number in found])
        return [*found, ("others", COLOURS, rest)] if rest else found

    @property
    def key(self) -> list[tuple[str, int]]:
        """(name, colour) of each."""
        named = [*self._colours.items()]
        return [*named, (f"{self.others} others", COLOURS)] if self.others else named


def colours(days: Sequence[Day]) -> Colours:
    """The most frequent action of the days has the first colour."""
    return Colours(by_frequency([day.totals.actions for day in days]))


def segment_rows(
    segments: Sequence[Segment], known: Colours, means: Means = MappingProxyType({})
) -> Sequence[SegmentRow]:
    """One bar of shares for each, with what actions earn; where no decision names a segment, one for all."""
    nameless = "no segment given" if len(segments) > 1 else "all"
    return [segment_row(segment, known, nameless, means.get(segment.name, ())) for segment in segments]


def segment_row(
    segment: Segment, known: Colours, nameless: str = "all", means: Sequence[ActionMean] = ()
) -> SegmentRow:
    """One bar of shares."""
    bars, shares, x = [], [], 0.0
    for name, colour, number in known.parts(segment.actions):
        share = number / segment.decisions
        if number:
            told = percent(float(f"{share:.2g}"))
            bars.append(Bar(x, 0.0, 100.0 * share, 1.0, colour, f"{name} {told}"))
            shares.append(Share(name, colour, told))
        x += 100.0 * share
    name, is_thin = segment.name or nameless, segment.decisions < FEW
    by_share = sorted(means, key=lambda one: (-segment.actions[one.action], one.action))
    actions = [_action_row(one, segment, known) for one in by_share]
    if any(one.mean.is_known for one in means):
        return SegmentRow(name, segment.decisions, is_thin, bars, shares, actions)
    best = max(means, key=lambda one: one.mean.effective, default=None)
    told = f"{best.action}: {earns(best.mean).note}" if best is not None else ""
    return SegmentRow(name, segment.decisions, is_thin, bars, shares, nearest=told)


def _action_row(one: ActionMean, segment: Segment, known: Colours) -> ActionRow:
    share = percent(float(f"{segment.actions[one.action] / segment.decisions:.2g}"))
    covers = percent(float(f"{one.mean.coverage:.2g}"))
    return ActionRow(
        one.action,
        known.of(one.action),
        share,
        earns(one.mean),
        covers,
        not one.mean.is_known or one.mean.coverage < MOST,
    )


def daily(days: Sequence[Day], known: Colours, changes: Sequence[tuple[str, int]]) -> Daily | None:
    """changes: (title, day). None without any day."""
    if not days:
        return None
    last = days[-1].number
    first = max(days[0].number, last - MOST_DAYS + 1)
    shown = [day for day in days if day.number >= first]
    low, high = _ends(shown)
    marks = [((day - first) * SLOT, title) for title, day in changes if first <= day <= last]
    return Daily(
        width=(last - first + 1) * SLOT,
        first=date(first),
        last=date(last),
        bars=[bar for day in shown for bar in _bars(day, first, known)],
        lines=[Line(group, _pieces(shown, group, first, low, high)) for group in (POLICY, HOLDOUT)],
        smallest=figure(low),
        largest=figure(high),
        marks=marks,
        rows=[_row(day, known) for day in reversed(shown)],
    )


def _bars(day: Day, first: int, known: Colours) -> Sequence[Bar]:
    all_ = day.totals.actions.total()
    bars, y = [], HEIGHT
    for name, colour, number in known.parts(day.totals.actions):
        if number:
            height = HEIGHT * number / all_
            y -= height
            title = f"{date(day.number)}: {name} {percent(number / all_)} of {count(all_)}"
            bars.append(Bar((day.number - first) * SLOT + GAP / 2, y, SLOT - GAP, height, colour, title))
    return bars


def _means(day: Day) -> dict[str, float]:
    """Of the groups with enough decisions."""
    return {
        group: earned.mean
        for group, earned in day.totals.earned.items()
        if earned.decisions >= LEAST and earned.mean is not None
    }


def _ends(days: Sequence[Day]) -> tuple[float, float]:
    means = [mean for day in days for mean in _means(day).values()]
    low, high = min([0.0, *means]), max([0.0, *means])
    return low, high if high > low else low + 1.0


def _pieces(days: Sequence[Day], group: str, first: int, low: float, high: float) -> Sequence[str]:
    """Paths through the middle of each day."""
    pieces: list[str] = []
    before = None
    for day in days:
        mean = _means(day).get(group)
        if mean is None:
            continue
        place = f"{(day.number - first + 0.5) * SLOT:g} {HEIGHT * (1.0 - (mean - low) / (high - low)):.5g}"
        if before == day.number - 1:
            pieces[-1] += f" L{place}"
        else:
            pieces.append(f"M{place} h0")  # a day alone is a dot
        before = day.number
    return pieces


def _row(day: Day, known: Colours) -> tuple[str, str, str, str]:
    """Day, decisions, means, mix: the drawing in words."""
    all_ = day.totals.actions.total()
    means = _means(day)
    told = [f"{group} {figure(means[group])}" if group in means else "" for group in (POLICY, HOLDOUT)]
    parts = known.parts(day.totals.actions)
    mix = [f"{name} {percent(float(f'{number / all_:.2g}'))}" for name, _, number in parts if number]
    return date(day.number), count(all_), ", ".join(filter(None, told)) or "too little data", ", ".join(mix)
