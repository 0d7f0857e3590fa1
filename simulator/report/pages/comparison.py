"""The page of `simulator compare --report`. Called by the command."""

from __future__ import annotations

from pathlib import Path

from simulator.compare.result import ComparisonResult
from simulator.report import comparison
from simulator.report.pages.glossary import Term
from simulator.report.pages.html import write_page
from simulator.report.plots.comparison import plots_of

TERMS = (
    Term(
        "Share of the attainable lift",
        "0 % is what a uniform choice earns, 100 % what the best action of every visit earns.",
    ),
    Term(
        "Paired",
        "All policies met the same visitors with the same luck (or are judged by the same decisions), so what these "
        "had in common cancels in a difference.",
    ),
    Term(
        "Simultaneous 95 % confidence intervals",
        "Each is wide enough that all of a table hold at once in 95 of 100 such comparisons. With intervals for one "
        "policy alone, one in twenty would miss, and the best of many would look better than it is.",
    ),
    Term("p, adjusted", "How often the largest of so many differences would look as large if there were none at all."),
    Term(
        "Better, worse", "The interval of the difference does not hold 0. Otherwise there is no significant difference."
    ),
)


def write_comparison_report(found: ComparisonResult, folder: Path) -> Path:
    """Write `index.html` and the plots into the folder; the page's path. Raises OSError."""
    return write_page(
        folder,
        "comparison.html.j2",
        list(plots_of(found)),
        title="Which policy is better, and is the difference real",
        subject=found.subject,
        found=found,
        summary=summary(found),
        glossary=TERMS,
        tables=comparison,
    )


def summary(found: ComparisonResult) -> str:
    """The page's first sentence.

    >>> from simulator.compare.example import example_result
    >>> summary(example_result()).partition(",")[0]
    'Of 2 policies that are compared with uniform'
    """
    if found.head is None:
        return "Nothing could be compared."
    said = [one.conclusion for one in found.head.comparisons]
    counted = {word: said.count(word) for word in dict.fromkeys(said)}
    told = "; ".join(f"{count} {word}" for word, count in counted.items())
    many = f"{len(said)} {'policy that is' if len(said) == 1 else 'policies that are'}"
    return f"Of {many} compared with {found.reference}, by {found.figure}: {told}."
