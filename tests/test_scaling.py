"""decider/SCALING.md: its figures are those of the studies that made them, and it stays short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from decider.log.postgres import writer
from simulator.studies import queueing, sizing
from simulator.studies.queueing import MICRO, MILLI, THIS_DISK, Costs
from simulator.studies.results import PAGE as RESULTS

TEXT = sizing.PAGE.read_text(encoding="utf-8")
FOUR_PAGES = 2_000
"""Words, those of tables included."""


def table(page: Path, markers: tuple[str, str]) -> list[str]:
    """Its rows, without the two of the heading."""
    begin, end = markers
    return page.read_text(encoding="utf-8").partition(begin)[2].partition(end)[0].splitlines()[2:]


def test_it_has_four_pages_at_most() -> None:
    """Whoever plans reads it at once."""
    assert len(TEXT.replace("|", " ").split()) <= FOUR_PAGES


def test_the_sizes_follow_from_the_costs() -> None:
    """A cost that is measured again must change them."""
    assert table(sizing.PAGE, sizing.SIZES_MARKERS) == list(sizing.size_rows())


def test_the_waits_are_what_the_simulation_says() -> None:
    """The first rows of two tables; all are made together."""
    assert table(sizing.PAGE, queueing.PLAN_MARKERS)[:1] == list(queueing.plan_rows(queueing.PLANNED[:1]))
    assert table(RESULTS, queueing.LOAD_MARKERS)[:1] == list(queueing.load_rows(queueing.RATES[:1]))


COSTS = Costs()


@pytest.mark.parametrize(
    "said",
    [
        f"{COSTS.hold / MILLI:.2f} + {COSTS.hold_each / MILLI:.3f} n",
        f"| {THIS_DISK.seconds / MILLI:.2f} (p50 0.15",
        f"{sizing.SERVING / MICRO:.0f} us per decision in a worker, {sizing.DATABASE / MICRO:.0f} in PostgreSQL",
        f"1 / ({sizing.LEARNING / MICRO:.0f} + {sizing.TOTALS / MICRO:.0f}) us",
        f"{sizing.LOG_RATE:,} decisions/s at random times",
        f"| 292 | {sizing.ROW} |",
        f"| {sizing.WAL}; 509 |",
        f"a worker {sizing.WORKER / 1e6:.0f} MB, a leader {sizing.LEADER / 1e6:.0f}, the parent",
        f"from {writer.COPY_FROM} decisions on",
    ],
)
def test_the_text_names_the_costs_that_the_studies_use(said: str) -> None:
    """Two figures for one cost would be one too many."""
    assert said in TEXT


def test_a_commit_is_streamed_where_the_log_does_it() -> None:
    """The simulation cannot import it: nobody outside the log names an implementation."""
    assert queueing.COPY_FROM == writer.COPY_FROM


def cells(line: str) -> list[str]:
    """Of a table's row."""
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_settings_have_the_measured_rates() -> None:
    """As RESULTS.md has them, in hundreds."""
    page = RESULTS.read_text(encoding="utf-8")
    measured = {
        f"{round(int(row[3].replace(',', '')), -2):,}"
        for row in map(
            cells, page.partition("<!-- settings -->\n")[2].partition("<!-- /settings -->")[0].splitlines()[2:]
        )
    }
    section = TEXT.partition("## Which settings matter")[2].partition("\n## ")[0]
    said = re.findall(r"^\| [^|]+ \| ([\d,]+) \|", section, re.MULTILINE)
    assert len(said) >= 8
    assert set(said) <= measured


def test_a_log_has_an_end() -> None:
    """Counting its totals alone takes a processor: more learners are no way out."""
    assert sizing.learners_of(1_000) == 1
    with pytest.raises(ValueError, match="its totals alone"):
        sizing.learners_of(0.8 / sizing.TOTALS)
