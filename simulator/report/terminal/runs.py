"""Runs in the terminal: what each policy earned of what could be earned, over all visits and at the end. Called by
`cli.py`."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from simulator.run.result import LEARNS, SINGLE, Band, Figures, PolicyRuns, WorldRuns
from simulator.text import figure, percent

BARS = "▁▂▃▄▅▆▇█"
SPARKS = 16
"""Bars of a small curve."""


def shown(found: WorldRuns) -> Iterator[RenderableType]:
    """Both tables, and what must be known to read them."""
    yield Text(f"{found.world}: {found.line}", "bold")
    yield Text(conditions(found))
    seeds, policies = len(found.seeds), found.policies
    bands = "95 % bands over seeds" if seeds > 1 else "one seed: no bands"
    curves = [(Text.assemble(one.name, "\n", (sparkline(one.curve.share.mean), "dim")), one.whole) for one in policies]
    yield _table(f"All {found.rounds:,} visits, {bands}", curves)
    last = [(Text(one.name), one.last_fifth) for one in policies]
    yield _table(f"The last {policies[0].last_fifth.visits:,} visits, {bands}", last)
    for policy in policies:
        if not policy.reference:
            yield Text(f"{policy.name}: {against_single(policy)}")
    yield Text(f"{found.seconds:.1f} s", "dim")


def conditions(found: WorldRuns) -> str:
    """Under which all of it was played.

    >>> from simulator.run.example import found
    >>> conditions(found()).split("; ")[1:]
    ['200 visits x 2 seeds', 'rewards are learned when their window ends.']
    """
    seeds = len(found.seeds)
    learned = "when their window ends" if found.delayed else "at once"
    fitted = f" The world's means are fitted to {found.fitted}: they are no truth." if found.fitted else ""
    return (
        f"Estimand: {LEARNS}; {found.rounds:,} visits x {seeds} seed{'s' * (seeds > 1)}; "
        f"rewards are learned {learned}.{fitted}"
    )


def against_single(policy: PolicyRuns) -> str:
    """When it has paid to have more than one action.

    >>> from simulator.run.example import found
    >>> against_single(found().policies[2])
    'beats the best single action after 2 decisions'
    """
    if policy.beats_single_after is None:
        return f"does not beat the {SINGLE} by its mean reward so far"
    many = policy.beats_single_after
    return f"beats the {SINGLE} after {many:,} decision{'s' * (many > 1)}"


def _table(title: str, rows: list[tuple[Text, Figures]]) -> Table:
    table = Table(title=Text(title, "bold"), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("policy", overflow="fold", ratio=1)
    for heading in ("reward\na visit", "share\nof lift", "best\naction", "regret\na visit", "regret\nin all"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, figures in rows:
        table.add_row(name, *cells(figures))
    return table


def cells(figures: Figures) -> list[Text]:
    """Of one row, in the order of the headings.

    >>> from simulator.run.example import found
    >>> [cell.plain for cell in cells(found().policies[2].whole)][1:4]
    ['100 %\\n±0 %', '100 %\\n±0 %', '0\\n±0']
    """
    return [
        _number(figures.reward),
        _percent(figures.share),
        _percent(figures.right),
        _number(figures.regret),
        _number(figures.total_regret),
    ]


def _number(band: Band) -> Text:
    """The mean above half of its band."""
    half = _half(band)
    return Text(figure(band.mean) + ("" if half is None else f"\n±{figure(half)}"))


def _percent(band: Band | None) -> Text:
    if band is None:
        return Text("-")
    half = _half(band)
    return Text(percent(round(band.mean, 3)) + ("" if half is None else f"\n±{percent(round(half, 3))}"))


def _half(band: Band) -> float | None:
    return None if band.high is None else band.high - band.mean


def sparkline(values: tuple[float, ...]) -> str:
    """The curve of a share in one line of text: 0 and less is the lowest bar, 1 and more the highest.

    >>> sparkline((0.0, 0.25, 0.5, 0.75, 1.0))
    '▁▃▅▆█'
    """
    step = max(1, math.ceil(len(values) / SPARKS))
    return "".join([_bar(value) for value in values[step - 1 :: step]])


def _bar(value: float) -> str:
    if math.isnan(value):
        return " "
    return BARS[round(min(max(value, 0.0), 1.0) * (len(BARS) - 1))]
