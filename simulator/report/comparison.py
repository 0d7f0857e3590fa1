"""Tables of a comparison, and their order in the terminal: the policies, the best first, and which really differ.

Called by `simulator compare` and by its page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from rich.console import RenderableType
from rich.text import Text

from decider.text import figure, percent, signed, signed_percent
from simulator.compare.on_world import SHARE
from simulator.compare.paired import Comparison
from simulator.compare.result import ComparisonResult, Family, Standing
from simulator.report.table import Cell, Column, Table, Tone, estimate, in_terminal

TONES: Mapping[str, Tone] = {"better": "fine", "worse": "do not use"}
PAIRS = 30
"""Pairs that the terminal shows at most; the page and the JSON hold all."""


def terminal_parts(found: ComparisonResult) -> Iterator[RenderableType]:
    """What must be known first, then the tables."""
    yield Text(f"{found.subject}: {found.line}" if found.line else found.subject, "bold")
    yield Text(found.conditions)
    for one in found.standings:
        if one.trouble:
            yield Text(f"{one.name} {one.trouble}", "yellow")
    for note in found.notes:
        yield Text(note, "yellow")
    yield in_terminal(standings_table(found))
    for family in found.families:
        if family.how.startswith("every pair"):
            yield in_terminal(family_table(smallest_p(family)))
    yield Text(f"{found.seconds:.1f} s", "dim")


def standings_table(found: ComparisonResult) -> Table[Standing]:
    """One row a policy: its figure, and its difference to the reference."""
    head = found.head

    def against(one: Standing) -> Comparison | None:
        return head.of(one.name) if head else None

    difference_to = f"Difference to {found.reference}"
    columns: Sequence[Column[Standing]] = (
        Column("Policy", lambda one: one.name, "name"),
        *_estimand(found),
        Column(
            found.figure.capitalize(), lambda one: _estimate(one, found.figure), "number", "pointwise 95 % interval"
        ),
        Column(
            difference_to, lambda one: _difference(against(one), found.figure), "number", "simultaneous 95 % intervals"
        ),
        Column("p, adjusted", lambda one: p_text(against(one)), "number"),
        Column("Verdict", lambda one: _verdict(against(one), one.name == found.reference), "verdict"),
    )
    return Table(
        f"{found.figure.capitalize()}, the best first",
        columns,
        found.standings,
        note=f"Differences to {found.reference}: {head.how}; p adjusted for multiple comparisons (maxT)"
        if head
        else "",
        look=lambda one: "logged" if one.name == found.reference else "",
    )


def _estimand(found: ComparisonResult) -> Iterator[Column[Standing]]:
    """Where the conditions above the table do not name that of every policy."""

    def apart(one: Standing) -> str:
        return "" if one.estimand and one.estimand in found.conditions else one.estimand or "-"

    if any(map(apart, found.standings)):
        yield Column("Estimand", apart, narrow="joined")


def _estimate(one: Standing, of: str) -> Cell:
    if one.estimate is None:
        return Cell("refused" if one.trouble.startswith("refused") else "failed", tone="do not use")
    return estimate(one.estimate.value, one.estimate.low, one.estimate.high, written=writer(of))


def _difference(one: Comparison | None, of: str) -> Cell:
    return estimate(one.difference, one.low, one.high, written=signed_writer(of)) if one else Cell("-")


def writer(of: str) -> Callable[[float], str]:
    """How a figure of that name is written: the share as percent, to the sampler's step of a millionth.

    >>> writer(SHARE)(0.861), writer(SHARE)(3.917e-8), writer("reward/visit")(0.861)
    ('86.1 %', '0 %', '0.861')
    """
    return (lambda x: percent(round(x, 6))) if of == SHARE else figure


def signed_writer(of: str) -> Callable[[float], str]:
    """The same of a difference.

    >>> signed_writer(SHARE)(0.0123), signed_writer(SHARE)(-3.917e-8), signed_writer("reward/visit")(0.861)
    ('+1.23 %', '0 %', '+0.861')
    """
    return (lambda x: signed_percent(round(x, 6))) if of == SHARE else signed


def _verdict(one: Comparison | None, is_reference: bool = False) -> Cell:
    if one is None:
        return Cell("compared with" if is_reference else "not compared")
    return Cell(one.conclusion, tone=TONES.get(one.conclusion, ""))


def family_table(family: Family) -> Table[Comparison]:
    """One row a comparison."""
    columns: Sequence[Column[Comparison]] = (
        Column("Policy", lambda one: one.name, "name"),
        Column("Difference to", lambda one: one.against, "prose"),
        Column(f"Difference of the {family.figure}", lambda one: _difference(one, family.figure), "number"),
        Column("p, adjusted", p_text, "number"),
        Column("Verdict", _verdict, "verdict"),
    )
    return Table(f"Differences of the {family.figure}", columns, family.comparisons, note=f"Differences {family.how}")


def smallest_p(family: Family) -> Family:
    """With no more comparisons than the terminal shows."""
    few = sorted(family.comparisons, key=lambda one: (one.p_adjusted, one.name))[:PAIRS]
    left = len(family.comparisons) - len(few)
    return replace(family, comparisons=tuple(few), how=family.how + (f"; {left} more pairs" if left else ""))


def parameters_table(found: ComparisonResult) -> Table[Standing]:
    """With which parameters each policy ran, and its other figures. Only on the page."""
    columns: Sequence[Column[Standing]] = (
        Column("Policy", lambda one: one.name, "name"),
        Column("Estimand", lambda one: one.estimand or "-"),
        Column("Parameters", lambda one: _join(one.parameters), "prose"),
        Column(
            "Other figures",
            lambda one: _join({name.replace("_", " "): figure(x) for name, x in one.beside.items()}) or "-",
            "prose",
        ),
    )
    return Table("The parameters of each policy", columns, found.standings)


def _join(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def p_text(one: Comparison | None) -> str:
    """At most three digits.

    >>> from dataclasses import replace
    >>> one = Comparison("a", "b", 0.1, 0.0, 0.2, 0.0004, real=True)
    >>> p_text(one), p_text(replace(one, p_adjusted=0.04321)), p_text(None)
    ('< 0.001', '0.043', '-')
    """
    if one is None or math.isnan(one.p_adjusted):
        return "-"
    return "< 0.001" if one.p_adjusted < 0.001 else f"{one.p_adjusted:.3f}"
