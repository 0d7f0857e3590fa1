"""One description of a table, drawn in the terminal and on a page: both show the same texts.

Called by the modules beside this one, which describe tables and facts; the page draws them with the macros `table` and
`facts` of `pages/macros.html.j2`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any, Generic, Literal, TypeVar

from rich import table as rich_table
from rich.box import SIMPLE_HEAD
from rich.text import Text

from decider.text import NOTHING, between, figure, printable, signed

RowT = TypeVar("RowT")

Tone = Literal["", "fine", "caution", "do not use"]
"""A verdict's colour. The words are always there too: not everybody sees colours, and files have none."""

STYLES: Mapping[Tone, str] = {"": "", "fine": "green", "caution": "yellow", "do not use": "bold red"}

BARS = "▁▂▃▄▅▆▇█"
SPARKS = 16
"""Bars of a sparkline."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What stands in one place: a name, figure or sentence, below it an interval and a note. link: on the page."""

    text: str
    interval: str = ""
    note: str = ""
    tone: Tone = ""
    link: str = ""


@dataclass(frozen=True, slots=True)
class Column(Generic[RowT]):
    """How one figure of a row is headed and written. unit: the heading's second line.

    kind: `name` says what the row is about. narrow: what the terminal does with it, which has less room than a page;
    `joined`: it is written below the column before it, unless there is nothing to say.
    """

    heading: str
    cell: Callable[[RowT], Cell | str]
    kind: Literal["", "name", "number", "prose", "verdict"] = ""
    unit: str = ""
    narrow: Literal["shown", "joined", "left out"] = "shown"

    def of(self, row: RowT) -> Cell:
        """The row's cell."""
        cell = self.cell(row)
        return Cell(cell) if isinstance(cell, str) else cell


@dataclass(frozen=True, slots=True)
class Table(Generic[RowT]):
    """title, note: above and below it in the terminal; a page has its own headings.

    look: how a row differs from others: `logged` is compared with, `headline` is to be read first, `foot` stands below.
    """

    title: str
    columns: Sequence[Column[RowT]]
    rows: Sequence[RowT]
    note: str = ""
    look: Callable[[RowT], str] = lambda _: ""

    def lines(self, *, foot: bool) -> Iterator[tuple[str, list[tuple[Column[RowT], Cell]]]]:
        """The look of each row and its cells by column; those of the foot or all others."""
        for row in self.rows:
            if (self.look(row) == "foot") == foot:
                yield self.look(row), [(column, column.of(row)) for column in self.columns]


Facts = Mapping[str, Cell]
"""Single figures by their names."""


def in_terminal(table: Table[Any]) -> rich_table.Table:
    """The description as rich draws it.

    >>> from rich.console import Console
    >>> rows = [("softmax", 0.25), ("bag", 0.5)]
    >>> columns = [Column("Policy", lambda row: row[0], "name"), Column("Reward", lambda row: f"{row[1]}", "number")]
    >>> Console(width=40).print(in_terminal(Table("", columns, rows)))  # doctest: +NORMALIZE_WHITESPACE
    Policy   Reward
    ───────────────
    softmax    0.25
    bag         0.5
    """
    drawn = rich_table.Table(
        title=Text(table.title, "bold") if table.title else None,
        title_justify="left",
        caption=Text(table.note, "dim") if table.note else None,
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=bool(table.title),
    )
    shown = [column for column in table.columns if column.narrow == "shown"]
    rows = [list(_texts(cells)) for foot in (False, True) for _, cells in table.lines(foot=foot)]
    for place, column in enumerate(shown):
        number = column.kind == "number"
        drawn.add_column(
            _heading(column, [row[place] for row in rows]),
            justify="right" if number else "left",
            no_wrap=number,
            overflow="ellipsis" if number else "fold",  # a cut figure must not look like another one
        )
    for row in rows:
        drawn.add_row(*row)
    return drawn


def _texts(cells: Iterable[tuple[Column[Any], Cell]]) -> Iterator[Text]:
    text: Text | None = None
    for column, cell in cells:
        if column.narrow == "joined" and text is not None:
            if cell.text not in ("", NOTHING):
                text.append("\n").append_text(_text(cell, "dim"))
        elif column.narrow == "shown":
            if text is not None:
                yield text
            text = _text(cell)
    if text is not None:
        yield text


def _text(cell: Cell, quiet: str = "") -> Text:
    text = Text(printable(cell.text), STYLES[cell.tone] or quiet)
    for below, style in ((cell.interval, ""), (cell.note, "dim")):
        if below:
            text.append(f"\n{printable(below)}", style)
    return text


def _heading(column: Column[Any], cells: Sequence[Text]) -> Text:
    """In lines that are no wider than the column's figures have to be."""
    width = max([8, *(len(line) for cell in cells for line in cell.plain.splitlines())])
    parts = [wrap(printable(part), width, break_long_words=False) for part in (column.heading, column.unit)]
    return Text("\n".join([line for part in parts for line in part]))


def facts_in_terminal(facts: Facts) -> Text:
    """One after the other.

    >>> facts_in_terminal({"Seeds": Cell("20", note="each with other visitors"), "Visits": Cell("3,000")}).plain
    'Seeds 20 (each with other visitors); Visits 3,000'
    """
    told = [
        f"{name} {cell.text}" + "".join([f" ({note})" for note in (cell.interval, cell.note) if note])
        for name, cell in facts.items()
    ]
    return Text(printable("; ".join(told)))


def estimate(
    value: float, low: float, high: float, *, note: str = "", written: Callable[[float], str] = figure
) -> Cell:
    """A figure with its interval, where it has one. written: a number in words.

    >>> estimate(0.5, 0.4, 0.6), estimate(0.5, math.nan, math.nan)  # doctest: +ELLIPSIS
    (Cell(text='0.5', interval='0.4 to 0.6', ...), Cell(text='0.5', interval='-', ...))
    """
    return Cell(written(value), between(low, high, written=written), note)


def difference(value: float, low: float, high: float, *, note: str = "") -> Cell:
    """The same of a difference: what is more has a plus."""
    return estimate(value, low, high, note=note, written=signed)


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
