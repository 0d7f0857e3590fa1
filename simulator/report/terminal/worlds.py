"""Worlds in the terminal: a line, a heat map and what can be earned. Called by `cli.py`.

A cell has a shade and a number besides its colour, so that it can be read in a pipe and on paper.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.color import Color
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.style import Style
from rich.table import Table
from rich.text import Text

from simulator.report.portraits import Portrait
from simulator.text import duration, figure, percent, shortened, signed_between

SHADES = "·░▒▓█"
LOW, MIDDLE, HIGH = (48, 84, 150), (70, 160, 140), (240, 200, 60)
"""From blue to yellow: apart for every kind of colour vision."""
ID_WIDTH, LABEL_WIDTH, LABELS_WIDTH = 16, 9, 60
"""Columns of an action's id, of a label at least, and of all labels together."""


def in_short(one: Portrait) -> RenderableType:
    """One world of many: its line, its picture, its lift.

    >>> from rich.console import Console
    >>> from simulator.worlds.registry import find
    >>> from simulator.report.portraits import portrait
    >>> console = Console(width=80)
    >>> with console.capture() as captured:
    ...     console.print(in_short(portrait(find("push"), rounds=500)))
    >>> captured.get().splitlines()[0]
    'push: A push at the right place and hour; none is often right.'
    """
    return Group(_headline(one), _indented(heat_map(one)), _indented(_lift(one)), Text())


def in_full(one: Portrait) -> Iterator[RenderableType]:
    """All that there is to say of one world.

    >>> from simulator.worlds.registry import find
    >>> from simulator.report.portraits import portrait
    >>> len(list(in_full(portrait(find("push"), rounds=500))))
    4
    """
    yield _headline(one)
    yield _facts(one)
    yield heat_map(one)
    yield Group(_lift(one), _alone(one))


def legend() -> Text:
    """What the pictures and the figures under them mean.

    >>> legend().plain.split(":")[0]
    'A cell'
    """
    return Text(
        "A cell: the mean reward a visit, by the field that matters most. even: an even choice. always: the best "
        "single action. best: the best action of every visit. beyond one action: the part of the lift from even to "
        "best that no single action brings.\n",
        "dim",
    )


def _headline(one: Portrait) -> Text:
    return Text.assemble((one.world.name, "bold"), ": ", one.world.line)


def _indented(part: RenderableType) -> Padding:
    return Padding(part, (0, 0, 0, 2), expand=False)


def heat_map(one: Portrait) -> Table:
    """Mean rewards of the actions by the field that matters most; the last row names the best action of each column.

    >>> from simulator.worlds.registry import find
    >>> from simulator.report.portraits import portrait
    >>> heat_map(portrait(find("push"), rounds=500)).row_count  # five actions, and the best
    6
    """
    picture = one.picture
    means = picture.means[~np.isnan(picture.means)]
    low, high = float(means.min()), float(means.max())
    width = max(LABEL_WIDTH, LABELS_WIDTH // len(picture.groups) - 1)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column(shortened(f"by {picture.field}", ID_WIDTH), no_wrap=True)
    for group in picture.groups:
        table.add_column(shortened(group, width), no_wrap=True)
    for action, row in zip(one.world.actions, picture.means.tolist(), strict=True):
        cells = [_cell(x, low, high, best=name == action) for x, name in zip(row, picture.best, strict=True)]
        table.add_row(Text(shortened(action, ID_WIDTH)), *cells)
    best = [Text(shortened(name, width), "bold") for name in picture.best]
    table.add_row(Text("best", "bold"), *best)
    return table


def _cell(x: float, low: float, high: float, *, best: bool) -> Text:
    if math.isnan(x):
        return Text("-", "dim")
    level = (x - low) / (high - low) if high > low else 0.5
    shade = SHADES[min(len(SHADES) - 1, int(level * len(SHADES)))]
    return Text.assemble((2 * shade, _colour(level)), f" {figure(x)}", style="bold" if best else "")


def _colour(level: float) -> Style:
    """level: in [0, 1]."""
    ends, part = ((LOW, MIDDLE), 2 * level) if level < 0.5 else ((MIDDLE, HIGH), 2 * level - 1)
    mixed = [round(a + part * (b - a)) for a, b in zip(*ends, strict=True)]
    return Style(color=Color.from_rgb(*mixed))


def _lift(one: Portrait) -> Text:
    single = f"always {shortened(one.single_action, ID_WIDTH)} {figure(one.single)}"
    return Text.assemble(
        f"even {figure(one.uniform)}, {single}, best ",
        (figure(one.best), "bold"),
        f": {percent(round(one.beyond_single, 2))} beyond one action",
    )


def _alone(one: Portrait) -> Text:
    picture = one.picture
    told = f"{picture.field} alone brings {percent(round(picture.lift, 3))} of what lies beyond the best single action"
    return Text("" if math.isnan(picture.lift) else told)


def _facts(one: Portrait) -> Table:
    world, reward = one.world, one.world.experiment.reward
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for action in world.experiment.actions:
        features = ", ".join(f"{name} {value}" for name, value in action.features.items())
        said = Text.assemble(action.id, (f" ({action.kind}{', ' + features if features else ''})", "dim"))
        table.add_row("actions" if action is world.experiment.actions[0] else "", said)
    for index, (name, values) in enumerate(one.fields.items()):
        table.add_row("" if index else "context", Text(f"{name}: {values}"))
    table.add_row("rewards", Text(rewards(one)))
    table.add_row("window", Text(f"{duration(reward.window / 1e6)}; mean delay {duration(one.delay)}"))
    table.add_row("late", Text(f"{percent(round(one.late, 3))} of the rewards"))
    table.add_row("traffic", Text(traffic(one)))
    if world.fitted:
        table.add_row("fitted on", Text(f"{world.fitted}: its means are estimates"))
    return table


def rewards(one: Portrait) -> str:
    """Names, weights and range in words.

    >>> from simulator.worlds.registry import find
    >>> from simulator.report.portraits import portrait
    >>> rewards(portrait(find("push"), rounds=500))
    'click x 1, unsubscribe x -4; a reward lies in -4 to +1'
    """
    reward = one.world.experiment.reward
    named = ", ".join(f"{name} x {weight:g}" for name, weight in reward.weights.items())
    return f"{named}; a reward lies in {signed_between(reward.minimum, reward.maximum)}"


def traffic(one: Portrait) -> str:
    """Visits in words.

    >>> from simulator.worlds.registry import find
    >>> from simulator.report.portraits import portrait
    >>> traffic(portrait(find("email"), rounds=500))
    '500 visits a day, in batches of 500'
    """
    world = one.world
    often = (
        f"{figure(world.traffic)} visits a second"
        if world.traffic >= 0.5
        else f"{world.traffic * 86_400:,.0f} visits a day"
    )
    return often + (f", in batches of {world.batch}" if world.batch > 1 else "")
