"""The page of `simulator run --report`. Called by the command."""

from __future__ import annotations

from pathlib import Path

from simulator.report import run
from simulator.report.pages.glossary import Term
from simulator.report.pages.html import write_page
from simulator.report.plots.run import plots_of
from simulator.run.result import WorldRuns

TERMS = (
    Term("Reward/visit", "What one visit earned on average. Known exactly here: the world says what is earned."),
    Term("Uniform choice", "Every eligible action with the same probability: what is earned without any knowledge."),
    Term("Best single action", "The one action that earns most if everybody gets it. An A/B test finds at best this."),
    Term("Best", "The best action of every visit, known from the start. Nothing can earn more from one visit."),
    Term("Share of lift", "How far from a uniform choice (0 %) to best (100 %)."),
    Term("Regret/visit", "Mean shortfall per visit against the best action."),
    Term("Total regret", "The same, summed over all visits."),
    Term("Best action", "How often an action was chosen that is best for the visit."),
    Term(
        "95 % interval over seeds",
        "Each seed is another set of visitors, with other luck. The interval holds the mean over all seeds that there "
        "could be in 95 of 100 such tries (Student t, point by point). With one seed there is none.",
    ),
    Term(
        "Deployed learning curve in a simulated world",
        "Estimand: what the policy earns while it learns from its own decisions, starting with nothing. The world is "
        "made up: it says how fast a policy learns there, not what it will earn in your shop.",
    ),
)


def write_run_report(found: WorldRuns, folder: Path) -> Path:
    """Write `index.html` and the plots into the folder; the page's path. Raises OSError."""
    return write_page(
        folder,
        "run.html.j2",
        plots_of(found),
        title="What policies earn in a simulated world",
        subject=found.world,
        found=found,
        glossary=TERMS,
        tables=run,
    )
