"""The page of `simulator worlds --report`: every world with a heat map, and the heat maps as files beside it.

Called by the command. As every page of ours it opens from a disk, needs no script and loads nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from simulator.report.canvas import Plot, finished
from simulator.report.glossary import Term
from simulator.report.heat import heat
from simulator.report.page import filled, write_page
from simulator.report.portraits import SEED, Portrait
from simulator.report.terminal.worlds import rewards, traffic
from simulator.text import percent, printable

TITLE = "Worlds with known means"
WORDS = (
    Term("Mean reward", "What one visit earns on average, in the unit of the world's rewards."),
    Term("Even choice", "Every eligible action with the same probability: what somebody earns who knows nothing."),
    Term(
        "Best single action", "The one action that, shown to everybody, earns most: what a perfect A/B test would find."
    ),
    Term(
        "Best", "The best action of every visit, chosen by somebody who knows the world: no policy earns more a visit."
    ),
    Term("Attainable lift", "From an even choice to the best. A policy's figure is the share of it that it earns."),
    Term(
        "Beyond one action", "The part of the attainable lift that no single action brings: what personalising is for."
    ),
    Term("Window", "How long rewards are waited for; what comes later is late and is not learned."),
)


def write_worlds(portraits: Sequence[Portrait], folder: Path) -> Path:
    """Write `index.html` and the pictures into the folder, which is made if need be; the page's path.

    The same worlds give the same bytes. Raises OSError.

    >>> from tempfile import TemporaryDirectory
    >>> from simulator.worlds.registry import find
    >>> from simulator.report.portraits import portrait
    >>> with TemporaryDirectory() as folder:
    ...     page = write_worlds([portrait(find("push"), rounds=500)], Path(folder))
    >>> page.name
    'index.html'
    """
    plots = [picture(one) for one in portraits]
    return write_page(folder, plots, _rendered(portraits, plots))


def picture(one: Portrait) -> Plot:
    """The heat map of a world.

    >>> from simulator.worlds.registry import find
    >>> from simulator.report.portraits import portrait
    >>> picture(portrait(find("push"), rounds=500)).file
    'push'
    """
    seen, world = one.picture, one.world
    drawing = heat(
        seen.means, rows=world.actions, columns=seen.groups, title=f"Mean reward by {seen.field}", subtitle=world.name
    )
    best = "; ".join(f"{group}: {action}" for group, action in zip(seen.groups, seen.best, strict=True))
    return finished(
        drawing,
        file=re.sub(r"[^\w.-]+", "-", world.name)[:80],
        caption=f"Rows are actions, columns what is known as {printable(seen.field)}, the field that matters most "
        f"(seed {SEED}). Framed: the best of a column. {_alone(one)}",
        alt=f"Heat map of {printable(world.name)}. Best by {printable(seen.field)}: {printable(best)}.",
    )


def _alone(one: Portrait) -> str:
    lift = one.picture.lift
    told = f"Knowing it alone brings {percent(round(lift, 3))} of what lies beyond the best single action."
    return "" if math.isnan(lift) else told


def _rendered(portraits: Sequence[Portrait], plots: Sequence[Plot]) -> str:
    return filled(
        "worlds.html.j2",
        title=TITLE,
        subject=portraits[0].world.name if len(portraits) == 1 else f"{len(portraits)} worlds",
        worlds=list(zip(portraits, plots, strict=True)),
        glossary=WORDS,
        rewards=rewards,
        traffic=traffic,
    )
