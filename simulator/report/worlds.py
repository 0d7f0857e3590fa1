"""Tables of worlds, and their order in the terminal: a line, a heat map and what can be earned.

Called by `simulator worlds` and by its page. A cell of the heat map has a shade and a number besides its colour, so
that it can be read in a pipe and on paper.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from rich import table as rich_table
from rich.box import SIMPLE_HEAD
from rich.color import Color
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.style import Style
from rich.text import Text

from decider.experiment.definition import Action
from decider.text import count, duration, figure, percent, shortened, signed_between
from simulator.report.table import Cell, Column, Facts, Table, facts_in_terminal, in_terminal
from simulator.report.world_figures import Portrait

SHADES = "·░▒▓█"
LOW, MIDDLE, HIGH = (48, 84, 150), (70, 160, 140), (240, 200, 60)
"""From blue to yellow: apart for every kind of colour vision."""
ID_WIDTH, LABEL_WIDTH, LABELS_WIDTH = 16, 9, 60
"""Columns of an action's id, of a label at least, and of all labels together."""

EARNED: Sequence[Column[Portrait]] = (
    Column("Uniform choice", lambda one: figure(one.uniform), "number"),
    Column("Best single action", lambda one: Cell(figure(one.single), note=one.single_action), "number"),
    Column("Best", lambda one: figure(one.best), "number"),
    Column("Beyond one action", lambda one: percent(round(one.beyond_single, 3)), "number"),
)
"""What can be earned in a world."""

LEGEND = (
    "A cell: the mean reward/visit, by the field that matters most. Uniform choice: every eligible action with the "
    "same probability. Best: the best action of every visit. Beyond one action: the part of the lift from a uniform "
    "choice to the best that no single action brings.\n"
)


def in_short(one: Portrait) -> RenderableType:
    """One world of many: its line, its picture, its lift."""
    return Group(_headline(one), _indented(heat_map(one)), _indented(facts_in_terminal(earned_facts(one))), Text())


def in_full(one: Portrait) -> Iterator[RenderableType]:
    """All that there is to say of one world."""
    yield _headline(one)
    if one.world.fitted:
        yield Text(fitted(one), "yellow")
    yield in_terminal(actions_table(one))
    yield from [Text(f"{name}: {values}") for name, values in about(one).items()]
    yield heat_map(one)
    yield facts_in_terminal(world_facts(one))
    yield Text(alone(one))


def _headline(one: Portrait) -> Text:
    return Text.assemble((one.world.name, "bold"), ": ", one.world.line)


def _indented(part: RenderableType) -> Padding:
    return Padding(part, (0, 0, 0, 2), expand=False)


def worlds_table(found: Sequence[Portrait]) -> Table[Portrait]:
    """The worlds side by side. Only on the page: the terminal has the same facts below each picture."""
    columns: Sequence[Column[Portrait]] = (
        Column("World", lambda one: Cell(one.world.name, link=f"#world-{found.index(one) + 1}"), "name"),
        Column("What it is", lambda one: one.world.line, "prose"),
        *EARNED,
    )
    return Table("", columns, found)


def earned_facts(one: Portrait) -> Facts:
    """What can be earned there."""
    return {column.heading: column.of(one) for column in EARNED}


def world_facts(one: Portrait) -> Facts:
    """The same, and how late rewards come."""
    window = duration(one.world.experiment.reward.window / 1e6)
    return {
        **earned_facts(one),
        "Window": Cell(window, note=f"mean delay {duration(one.delay)}"),
        "Late rewards": Cell(percent(round(one.late, 3))),
    }


def actions_table(one: Portrait) -> Table[Action]:
    """What can be chosen there."""
    columns: Sequence[Column[Action]] = (
        Column("Action", lambda action: action.id, "name"),
        Column("Kind", lambda action: action.kind),
        Column("Features", lambda action: _join(action) or "-", "prose"),
    )
    return Table("", columns, one.world.experiment.actions)


def _join(action: Action) -> str:
    return ", ".join(f"{name} {value}" for name, value in action.features.items())


def about(one: Portrait) -> dict[str, str]:
    """The fields of the context, rewards and traffic in words."""
    return {**one.fields, "rewards": rewards(one), "traffic": traffic(one)}


def rewards(one: Portrait) -> str:
    """Names, weights and range in words.

    >>> from simulator.worlds.registry import find
    >>> from simulator.report.world_figures import portrait
    >>> rewards(portrait(find("push"), rounds=500))
    'click x 1, unsubscribe x -4; a reward lies in -4 to +1'
    """
    reward = one.world.experiment.reward
    named = ", ".join(f"{name} x {figure(weight)}" for name, weight in reward.weights.items())
    return f"{named}; a reward lies in {signed_between(reward.minimum, reward.maximum)}"


def traffic(one: Portrait) -> str:
    """Visits in words.

    >>> from simulator.worlds.registry import find
    >>> from simulator.report.world_figures import portrait
    >>> traffic(portrait(find("email"), rounds=500))
    '500 visits per day, in batches of 500'
    """
    world = one.world
    per_day = f"{count(round(world.traffic * 86_400))} visits per day"
    often = f"{figure(world.traffic)} visits per second" if world.traffic >= 0.5 else per_day
    return often + (f", in batches of {world.batch}" if world.batch > 1 else "")


def fitted(one: Portrait) -> str:
    """That a world is not the truth, where it was fitted on a log."""
    return f"Fitted on {one.world.fitted}: its means are estimates, not the truth."


def alone(one: Portrait) -> str:
    """What the field that matters most is worth; empty where there is nothing beyond the best single action."""
    picture = one.picture
    told = f"{picture.field} alone brings {percent(round(picture.lift, 3))} of what lies beyond the best single action."
    return "" if math.isnan(picture.lift) else told


def heat_map(one: Portrait) -> rich_table.Table:
    """Mean rewards of the actions by the field that matters most, of the best 20 where there are many; the last row
    names the best action of each column."""
    picture = one.picture
    low, high = float(np.nanmin(picture.means)), float(np.nanmax(picture.means))
    width = max(LABEL_WIDTH, LABELS_WIDTH // len(picture.groups) - 1)
    table = rich_table.Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column(shortened(f"by {picture.field}", ID_WIDTH), no_wrap=True)
    for group in picture.groups:
        table.add_column(shortened(group, width), no_wrap=True)
    for place in one.rows:
        action, row = one.world.actions[place], picture.means[place].tolist()
        cells = [_cell(x, low, high, best=name == action) for x, name in zip(row, picture.best, strict=True)]
        table.add_row(Text(shortened(action, ID_WIDTH)), *cells)
    if one.left_out:
        table.add_row(Text(one.left_out, "dim"))
    table.add_row(*(Text(shortened(name, width), "bold") for name in ("best", *picture.best)))
    return table


def _cell(x: float, low: float, high: float, *, best: bool) -> Text:
    if math.isnan(x):
        return Text("-", "dim")
    level = (x - low) / (high - low) if high > low else 0.5
    shade = SHADES[min(len(SHADES) - 1, int(level * len(SHADES)))]
    return Text.assemble((shade, _colour(level)), f" {figure(x)}", style="bold" if best else "")


def _colour(level: float) -> Style:
    """level: in [0, 1]."""
    ends, part = ((LOW, MIDDLE), 2 * level) if level < 0.5 else ((MIDDLE, HIGH), 2 * level - 1)
    mixed = [round(a + part * (b - a)) for a, b in zip(*ends, strict=True)]
    return Style(color=Color.from_rgb(*mixed))
