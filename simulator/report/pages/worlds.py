"""The page of `simulator worlds --report`. Called by the command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from simulator.report import worlds
from simulator.report.pages.glossary import Term
from simulator.report.pages.html import write_page
from simulator.report.plots.world import picture
from simulator.report.world_figures import Portrait

TERMS = (
    Term("Mean reward", "What one visit earns on average, in the unit of the world's rewards."),
    Term("Uniform choice", "Every eligible action with the same probability: what somebody earns who knows nothing."),
    Term(
        "Best single action", "The one action that, shown to everybody, earns most: what a perfect A/B test would find."
    ),
    Term(
        "Best",
        "The best action of every visit, chosen by somebody who knows the world: no policy can earn more.",
    ),
    Term("Attainable lift", "From a uniform choice to the best. A policy's figure is the share of it that it earns."),
    Term(
        "Beyond one action", "The part of the attainable lift that no single action brings: what personalising is for."
    ),
    Term("Window", "How long rewards are waited for; what comes later is late and is not learned."),
)


def write_worlds(found: Sequence[Portrait], folder: Path) -> Path:
    """Write `index.html` and the pictures into the folder; the page's path. Raises OSError."""
    return write_page(
        folder,
        "worlds.html.j2",
        [picture(one) for one in found],
        title="Worlds with known means",
        subject=found[0].world.name if len(found) == 1 else f"{len(found)} worlds",
        found=found,
        glossary=TERMS,
        tables=worlds,
    )
