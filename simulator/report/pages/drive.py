"""The page of `simulator drive --report`. Called by the command."""

from __future__ import annotations

from pathlib import Path

from simulator.drive.result import DriveResult
from simulator.report import drive
from simulator.report.pages.glossary import Term
from simulator.report.pages.html import write_page
from simulator.report.plots.drive import latencies

TERMS = (
    Term("Acknowledged", "The server answered. From then on it must be in the log, whatever happens to the server."),
    Term("Lost", "Acknowledged, but not in the log."),
    Term("Doubled", "In the log more often than it was sent, or counted twice."),
    Term("Different", "In the log otherwise than it was asked or answered."),
    Term(
        "Sent again",
        "Who gets no answer cannot know whether the call was carried out, and sends it again with the same ids; the "
        "log holds it once.",
    ),
    Term("p99", "99 of 100 calls took at most so long. Each percentile is a call that was measured."),
    Term("Regret/visit", "Mean shortfall per visit against the best action."),
    Term(
        "Share of the attainable lift", "How far from a uniform choice (0 %) to the best action of every visit (100 %)."
    ),
    Term("Uniform choice", "Every eligible action with the same probability: what is earned without any knowledge."),
    Term("Best single action", "The one action that, shown to everybody, earns most."),
)


def write_drive_report(result: DriveResult, folder: Path) -> Path:
    """Write `index.html` and the plot into the folder; the page's path. Raises OSError."""
    calls = drive.calls_of(result)
    return write_page(
        folder,
        "drive.html.j2",
        [latencies(result, calls)] if calls else [],
        title="A world driven against a live server",
        subject=result.world,
        result=result,
        glossary=TERMS,
        tables=drive,
    )
