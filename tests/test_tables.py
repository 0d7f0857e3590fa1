"""Terminal and page of the same result say the same: each is read as people read it, and the texts are compared."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from html import unescape
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType

from simulator.compare.example import example_result as example_comparison
from simulator.drive.example import example_result as example_drive
from simulator.report import comparison, drive, evaluation, run, worlds
from simulator.report.checks import log_panel
from simulator.report.pages.comparison import write_comparison_report
from simulator.report.pages.drive import write_drive_report
from simulator.report.pages.evaluation import write_report
from simulator.report.pages.run import write_run_report
from simulator.report.pages.worlds import write_worlds
from simulator.report.table import Column, Table, in_terminal
from simulator.report.world_figures import portrait
from simulator.run.example import example_result as example_run
from simulator.worlds.registry import find
from tests.evaluations import EVALUATION
from tests.test_report import parsed

JOINED = {"Estimand", "Bias", "Share of lift so far"}
"""Columns of a page that the terminal writes below the column before."""

NOT_ON_A_PAGE, INSPECT = {"by hour"}, "simulator inspect"
"""The heat map is a drawing there; findings that are fine are only counted above an evaluation."""

END = "¶"
"""Printed after each part of the terminal's output."""

Columns = Mapping[str, str]
"""What stands in each column of a table, from the top; by its heading."""


class Case(NamedTuple):
    """One kind of result: how many tables and sentences stand in both, and at least how many figures with a name."""

    shown: Callable[[Any], Iterable[RenderableType]]
    write: Callable[[Any, Path], Path]
    result: Any
    tables: int
    facts: int
    sentences: Callable[[Any], Iterable[str]] = lambda _: ()


CASES = {
    "evaluation": Case(
        lambda one: [log_panel(one.log), *evaluation.terminal_parts(one)], write_report, EVALUATION, tables=8, facts=26
    ),
    "comparison": Case(
        comparison.terminal_parts, write_comparison_report, example_comparison(), tables=1, facts=0,
        sentences=lambda one: [one.conditions],
    ),
    "run": Case(
        run.terminal_parts, write_run_report, example_run(), tables=2, facts=0,
        sentences=lambda one: [run.against_single(policy) for policy in one.policies if not policy.reference],
    ),
    "drive": Case(
        drive.terminal_parts, write_drive_report, example_drive(), tables=3, facts=8,
        sentences=lambda one: [drive.verdict(one), drive.answers(one), *drive.pace_lines(one)],
    ),
    "world": Case(
        worlds.in_full, lambda one, folder: write_worlds([one], folder), portrait(find("push"), rounds=500),
        tables=1, facts=6, sentences=lambda one: [worlds.rewards(one), worlds.traffic(one)],
    ),
}  # fmt: skip


def printed(parts: Iterable[RenderableType]) -> list[str]:
    """Each part as a wide terminal shows it."""
    console = Console(width=500, emoji=False, markup=False)
    with console.capture() as captured:
        for part in parts:
            console.print(part)
            console.print(END)
    return re.sub("[╭╰].*|│", "", captured.get()).split(END)


def terminal_columns(text: str) -> Columns:
    """Of the one table in the text: columns are parted by two blanks in every line."""
    lines = ["".join(char + "\0" * (cell_len(char) - 1) for char in line) for line in text.splitlines()]
    rule = next(place for place, line in enumerate(lines) if re.fullmatch(" *─{9,} *", line))
    first = next((place for place in range(rule - 1, -1, -1) if not lines[place].strip()), -1) + 1
    last = next((place for place in range(rule, len(lines)) if not lines[place].strip()), len(lines))
    head, body = lines[first:rule], lines[rule + 1 : last]
    taken = "".join("x" if any(line[at : at + 1].strip() for line in head + body) else " " for at in range(500))
    places = [found.span() for found in re.finditer("x+( x+)*", taken)]
    return {_column(head, *place).replace(",", ""): _column(body, *place) for place in places}


def _column(lines: Iterable[str], start: int, end: int) -> str:
    return " ".join(" ".join(line[start:end].replace("\0", "") for line in lines).split())


def page_columns(rows: list[list[str]]) -> Columns:
    """The same of a page's table as the terminal has it: columns joined with the one before, verdicts without signs."""
    head, *body = [[re.sub("^[!✓✕] ", "", " ".join(cell.split())) for cell in row] for row in rows]
    columns: dict[str, list[list[str]]] = {}
    for place, heading in enumerate(head):
        cells = [row[place] for row in body]
        if heading in JOINED:
            last = next(reversed(columns.values()))
            last[:] = [
                [*before, cell] if cell not in ("", "-") else before for before, cell in zip(last, cells, strict=True)
            ]
        else:
            columns[heading.replace(",", "")] = [[cell] for cell in cells]
    return {heading: " ".join(" ".join(cell) for cell in cells) for heading, cells in columns.items()}


def facts_of(html: str) -> Iterator[str]:
    """Each single figure of a page with its name and note."""
    for name, value in re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", html):
        yield plain(unescape(re.sub("<.*?>", "", f"{name} {value}")))


def plain(text: str) -> str:
    """Words alone: the terminal puts notes into brackets, and facts into one line."""
    return " ".join(re.sub("[();]", " ", text).split())


@pytest.mark.parametrize("name", CASES)
def test_terminal_and_page_show_the_same_figures_and_verdicts(name: str, tmp_path: Path) -> None:
    """Two people who read the same result, one here and one there, must not argue about a digit."""
    case = CASES[name]
    html = case.write(case.result, tmp_path).read_text(encoding="utf-8")
    page = [page_columns(rows) for rows in parsed(html).tables]
    parts = printed(case.shown(case.result))
    tables = [terminal_columns(part) for part in parts if re.search("^ *─{9,} *$", part, re.M)]
    for table in (tables := [one for one in tables if not NOT_ON_A_PAGE & set(one) and INSPECT not in str(one)]):
        assert any(_same(table, other) for other in page), table
    assert len(tables) == case.tables
    text = plain(" ".join(parts))
    assert sum(fact in text for fact in facts_of(html)) >= case.facts
    for said in case.sentences(case.result):
        assert plain(said) in text
        assert plain(said) in plain(parsed(html).text)


def _same(terminal: Columns, page: Columns) -> bool:
    """Of findings a candidate's panel shows only those that are not fine, which stand first."""
    if "Found" in terminal:
        return all(page.get(heading, "").startswith(said) for heading, said in terminal.items())
    return terminal.items() <= page.items()


def test_a_narrow_terminal_marks_the_figures_that_it_cuts() -> None:
    """0.3953 that reads 0.395 is another number."""
    figures = [f"{number}.123456789" for number in range(10, 20)]
    columns = [Column(f"Figure {place}", lambda row, place=place: row[place], "number") for place in range(10)]  # type: ignore[misc]
    console = Console(width=60)
    with console.capture() as captured:
        console.print(in_terminal(Table("", columns, [figures])))
    line = captured.get().splitlines()[-1]
    assert len(line.split()) == 10
    assert all(cell.endswith("…") for cell in line.split())
