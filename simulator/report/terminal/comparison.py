"""A comparison in the terminal: the policies, the best first, and which differences are real. Called by `cli.py`."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from simulator.compare.paired import Comparison
from simulator.compare.result import Compared, Family, Standing
from simulator.text import NOTHING, between, figure, signed, signed_between

STYLES = {"better": "bold green", "worse": "bold red"}
PAIRS = 30
"""Pairs that are shown at most; the page and the JSON hold all."""


def shown(found: Compared) -> Iterator[RenderableType]:
    """What must be known first, then the tables.

    >>> from simulator.compare.example import found
    >>> len(list(shown(found()))) > 2
    True
    """
    yield Text(f"{found.subject}: {found.line}" if found.line else found.subject, "bold")
    yield Text(found.conditions)
    for one in found.standings:
        if one.trouble:
            yield Text(f"{one.name} {one.trouble}", "yellow")
    for note in found.notes:
        yield Text(note, "yellow")
    yield standings_table(found)
    for family in found.families:
        if family.how.startswith("every pair"):
            yield pairs_table(family)
    yield Text(f"{found.seconds:.1f} s", "dim")


def standings_table(found: Compared) -> Table:
    """One row a policy: its figure, and its difference to the reference.

    >>> from simulator.compare.example import found
    >>> standings_table(found()).row_count
    3
    """
    head = found.head
    how = f"less {found.reference}, {head.how}; p is corrected for their number" if head else ""
    table = _table(f"{found.figure.capitalize()}, the best first", how)
    table.add_column("policy", overflow="fold", ratio=1)
    for heading in ("estimate", "difference", "p"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("said", no_wrap=True)
    for one in found.standings:
        table.add_row(
            _named(one, found.conditions),
            _estimate(one),
            *_compared(one, found.reference, head.of(one.name) if head else None),
        )
    return table


def pairs_table(family: Family) -> Table:
    """One row a pair, those with the smallest p first.

    >>> from simulator.compare.example import found
    >>> pairs_table(found().families[0]).row_count
    2
    """
    few = sorted(family.comparisons, key=lambda one: (one.p_adjusted, one.name))[:PAIRS]
    left = len(family.comparisons) - len(few)
    table = _table(f"{family.figure.capitalize()}, by pairs", family.how + (f"; {left} more pairs" if left else ""))
    table.add_column("policy", overflow="fold", ratio=1)
    table.add_column("less", overflow="fold", ratio=1)
    for heading in ("difference", "p"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("said", no_wrap=True)
    for one in few:
        table.add_row(Text(one.name), Text(one.against), *_cells(one))
    return table


def _table(title: str, caption: str) -> Table:
    return Table(
        title=Text(title, "bold"),
        title_justify="left",
        caption=Text(f"Differences: {caption}" if caption else "", "dim"),
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )


def _named(one: Standing, conditions: str) -> Text:
    """With its estimand, where the line above the table does not say it."""
    return Text(one.name) if one.estimand in conditions else Text.assemble(one.name, "\n", (one.estimand, "dim"))


def _estimate(one: Standing) -> Text:
    if one.estimate is None:
        return Text("refused" if one.trouble.startswith("refused") else "failed", "bold red")
    return Text(_lines(figure(one.estimate.value), between(one.estimate.low, one.estimate.high)))


def _compared(one: Standing, reference: str, comparison: Comparison | None) -> tuple[Text, Text, Text]:
    if one.name == reference:
        return Text(""), Text(""), Text("compared with", "dim")
    if comparison is None:
        return Text("-"), Text("-"), Text("not compared", "dim")
    return _cells(comparison)


def _cells(one: Comparison) -> tuple[Text, Text, Text]:
    difference = _lines(signed(one.difference), signed_between(one.low, one.high))
    return Text(difference), Text(p_text(one.p_adjusted)), Text(one.conclusion, STYLES.get(one.conclusion, "dim"))


def p_text(p: float) -> str:
    """At most three digits.

    >>> p_text(0.0004), p_text(0.04321), p_text(float("nan"))
    ('< 0.001', '0.043', '-')
    """
    if math.isnan(p):
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _lines(value: str, interval: str) -> str:
    return value if interval == NOTHING else f"{value}\n{interval}"
