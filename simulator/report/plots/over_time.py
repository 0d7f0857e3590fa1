"""The log over its time: mean reward by day, below it the share of each action drawn. Called by the page.

Names are untrusted. A day with few decisions has a wide interval: it is cut, so that the others stay readable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from decider.text import ROUNDING_ERROR, between, count, figure, percent, printable, shortened
from simulator.evaluate.result import LogSummary, OverTime, Period, PeriodUnit, VersionChange
from simulator.report.plots.canvas import (
    CANDIDATE,
    GRID,
    INK,
    LOGGED,
    MUTED,
    Plot,
    count_along,
    finished,
    frame,
    house_style,
)
from simulator.report.plots.forest import can_be_drawn

REWARD, SHARES, LINE, AIR = 1.25, 1.1, 0.19, 0.16
"""Inches: of the two parts, of a line of the key between them, and above and below that."""
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9")
"""Apart for every kind of colour vision (Okabe & Ito 2008); the order of the key is that of the bars as well."""
OTHERS = "others"
KEY_COLUMNS, KEY_WIDTH = 2, 24
TICKS = 4
TYPICAL = 0.1
"""Of the decisions of the largest period: with fewer, a period's interval does not decide how much is in view."""
NEAR = 0.06
"""Of the width: what a version's number takes."""
UNIT_WORDS: dict[PeriodUnit, str] = {
    "week": "week",
    "day": "day",
    "hour": "hour",
    "tenth": "tenth of the log's time",
}


def title(found: OverTime) -> str:
    """What is drawn, with the unit, for the lid that it is under and for the plot.

    >>> title(OverTime("day", (), ()))
    'Reward and actions by day'
    """
    return f"Reward and actions by {UNIT_WORDS[found.unit]}"


@house_style
def over_time(found: OverTime, log: LogSummary) -> Plot:
    """Two parts with one axis of time, and a mark where the experiment's version changed."""
    key = math.ceil((len(found.actions) + 1) / KEY_COLUMNS) * LINE + 2 * AIR
    drawing, upper = frame(title(found), "as logged", height=REWARD + key + SHARES, left=0.85, above=0.08)
    upper, lower = _parts(drawing, upper, key)
    _draw_rewards(upper, found.periods, log)
    _draw_shares(lower, found)
    _mark_versions(found, upper, lower)
    _write_times(lower, found)
    return finished(drawing, file="log-over-time", caption=_caption(found, log), alt=_alt(found))


def _parts(drawing: Figure, axes: Axes, key: float) -> tuple[Axes, Axes]:
    """The room of one axes for two, with room for the key between them."""
    left, bottom, width, height = axes.get_position().bounds
    inch = height / (REWARD + key + SHARES)
    axes.set_position((left, bottom + (SHARES + key) * inch, width, REWARD * inch))
    lower = drawing.add_axes((left, bottom, width, SHARES * inch), sharex=axes)
    for one in (axes, lower):
        one.tick_params(length=0, pad=5)
    axes.tick_params(labelbottom=False)
    return axes, lower


def _draw_rewards(axes: Axes, periods: Sequence[Period], log: LogSummary) -> None:
    bottom, top = _view(periods, log.mean_reward)
    axes.set_ylim(bottom, top)
    for period in periods:
        mean, middle = period.mean_reward, period.place + 0.5
        ends = np.clip(np.nan_to_num([mean.low, mean.high], posinf=top, neginf=bottom), bottom, top)
        axes.vlines(middle, *ends, color=CANDIDATE, linewidth=1.6, alpha=0.5)
        if can_be_drawn(mean.value):
            axes.plot(middle, np.clip(mean.value, bottom, top), "o", color=CANDIDATE, markersize=4, clip_on=False)
    if can_be_drawn(log.mean_reward):
        axes.axhline(log.mean_reward, color=LOGGED, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.set_ylabel("mean reward")
    count_along(axes.yaxis, FuncFormatter(lambda y, _: figure(y)), parts=4)


def _view(periods: Sequence[Period], mean: float) -> tuple[float, float]:
    """From the lowest to the highest end of the periods that are not small, and some air."""
    typical = TYPICAL * max(period.decisions for period in periods)
    known = [period.mean_reward for period in periods if period.decisions >= typical]
    drawn = list(filter(can_be_drawn, [mean, *(end for one in known for end in (one.low, one.value, one.high))]))
    if not drawn:
        return 0.0, 1.0
    air = (max(drawn) - min(drawn)) / 20 or abs(max(drawn)) / 20 or 0.5
    return min(drawn) - air, max(drawn) + air


def _draw_shares(axes: Axes, found: OverTime) -> None:
    middle = np.array([period.place + 0.5 for period in found.periods])
    shares = np.array([period.shares for period in found.periods]).reshape(len(middle), len(found.actions))
    others = np.maximum(0.0, 1 - shares.sum(axis=1))
    below = np.zeros(len(middle))
    for share, colour in zip([*shares.T, others], [*COLOURS[: len(found.actions)], GRID], strict=True):
        axes.bar(middle, share, width=0.92, bottom=below, color=colour, edgecolor="white", linewidth=0.4)
        below = below + share
    axes.set_ylim(0, 1)
    axes.set_ylabel("share of draws")
    axes.set_yticks([0, 0.5, 1], [percent(share) for share in (0, 0.5, 1)])
    _write_key(axes, found.actions, others=bool((others > ROUNDING_ERROR).any()))


def _write_key(axes: Axes, actions: Sequence[str], *, others: bool) -> None:
    names = [shortened(action, KEY_WIDTH) for action in actions]
    looks = [Patch(color=colour) for colour, _ in zip(COLOURS, names, strict=False)]
    if others:
        names, looks = [*names, OTHERS], [*looks, Patch(color=GRID)]
    key = axes.legend(
        looks,
        [""] * len(looks),
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=KEY_COLUMNS,
        borderpad=0,
        borderaxespad=0.7,
        labelspacing=0.3,
        handlelength=1.0,
        handletextpad=0.5,
    )
    for text, name in zip(key.get_texts(), names, strict=True):
        text.set_text(name)  # as a label, one that begins with "_" would be left out


def _mark_versions(found: OverTime, upper: Axes, lower: Axes) -> None:
    """A thin line where a version began, with its number; those that are near each other have one text."""
    for change in found.versions:
        for axes in (upper, lower):
            axes.axvline(change.place, color=INK, linewidth=0.8, linestyle=(0, (1, 1.5)), zorder=3)
    for near in _near(found.versions, NEAR * (found.periods[-1].place + 1)):
        upper.annotate(
            " to ".join(dict.fromkeys(f"v{one.number}" for one in (near[0], near[-1]))),
            (near[0].place, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            size=8,
            color=MUTED,
        )


def _near(versions: Sequence[VersionChange], room: float) -> list[list[VersionChange]]:
    """Groups, each with all that begin within the room after its first one; the text of two takes three times that."""
    groups: list[list[VersionChange]] = []
    for change in versions:
        last = groups[-1] if groups else []
        if last and change.place - last[0].place < room * (1 if len(last) == 1 else 3):
            last.append(change)
        else:
            groups.append([change])
    return groups


def _write_times(axes: Axes, found: OverTime) -> None:
    """A few of the periods by their beginnings."""
    length = found.periods[-1].place + 1
    step = math.ceil(length / TICKS)
    spread = found.periods[:1]
    for period in found.periods:
        spread = (*spread, period) if period.place >= spread[-1].place + step else spread
    axes.set_xlim(0, length)
    axes.set_xticks([period.place + 0.5 for period in spread], [_moment(period.begins, found) for period in spread])
    beginning = "" if found.unit == "day" else ", by its beginning"
    axes.set_xlabel(f"{UNIT_WORDS[found.unit]}{beginning} (UTC)")


def _moment(begins: str, found: OverTime) -> str:
    """A date, or a time with as much of the date and of the second as tells the periods apart.

    >>> _moment("2026-11-28T10:00:00Z", OverTime("hour", (), ()))
    '11-28 10:00'
    """
    if found.unit in ("day", "week"):
        return begins[:10]
    if found.unit == "hour" or len({period.begins[:16] for period in found.periods}) == len(found.periods):
        one_day = len({period.begins[:10] for period in found.periods}) == 1
        return begins[11:16] if one_day else f"{begins[5:10]} {begins[11:16]}"
    return begins[11:19]


def _caption(found: OverTime, log: LogSummary) -> str:
    unit = UNIT_WORDS[found.unit]
    marks = " Dotted lines: another version of the experiment began." if found.versions else ""
    without = " The holdout is not in it." if log.holdout else ""
    return (
        f"Above: the mean reward of each {unit} as logged, with its 95 % interval; dashed: the mean of the log. "
        "An interval that is much wider than the others is cut. Below: the share of the decisions that drew each "
        f"action, from the bottom up in the order of the key, the most frequent first.{marks}{without} "
        "A change shows what happened, not why: other visitors, another season and another version look alike."
    )


def _alt(found: OverTime) -> str:
    first, last = found.periods[0], found.periods[-1]
    changes = ", ".join(f"version {one.number} at {one.begins}" for one in found.versions)
    return (
        f"{title(found)}, {count(len(found.periods))} of them with decisions. {_told('First', first, found)} "
        f"{_told('Last', last, found)}" + (f" Changes: {changes}." if changes else " No change of version is known.")
    )


def _told(which: str, period: Period, found: OverTime) -> str:
    """One period in words."""
    mean = period.mean_reward
    shares = "; ".join(
        f"{printable(action)} {percent(share)}" for action, share in zip(found.actions, period.shares, strict=True)
    )
    return (
        f"{which}, {period.begins}: {figure(mean.value)} ({between(mean.low, mean.high)}) in "
        f"{count(period.decisions)} decisions; {shares}."
    )
