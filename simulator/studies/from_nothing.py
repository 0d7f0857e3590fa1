"""`make from-nothing`: after how many visits does the default, from nothing, beat the best single action of the demo?

Learning code 2 and the newest one play the same visits, with rewards that are learned when their window ends. Beaten is
the best single action from the visit on from which the earned mean is above its own until the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from random import Random

import click
import numpy as np
from rich.console import Console

from simulator.run.play import play_reference
from simulator.studies.codes import codes, play_code
from simulator.studies.results import write_results
from simulator.worlds.registry import find
from simulator.worlds.world import Floats

WORLD = "storefront"
VISITS = 6_000
FIRST_SEED = 40_901
"""Nothing of the default was chosen on these seeds."""

RUNNING = 500
"""Visits of the running mean."""

MARKERS = ("<!-- from nothing -->\n", "<!-- /from nothing -->")


def lead(seed: int, *, code: int, visits: int = VISITS) -> Floats:
    """(visits,): what the policy earned more than the best single action, in the mean of what may come."""
    world = find(WORLD)
    drawn = world.draw(seed, visits)
    played = play_code(world, drawn, code, seed=seed)
    singles = [play_reference(drawn, drawn.always(one), random=Random(seed)) for one in range(drawn.means.shape[1])]
    return np.asarray(played.earned - max(singles, key=lambda earned: float(earned.sum())))


def ahead_after(sums: Floats) -> int | None:
    """Visits, after which a sum is above 0 until the end; None where it is not at the end.

    >>> ahead_after(np.array([1.0, -1.0, 2.0, 3.0])), ahead_after(np.array([1.0, 0.0])), ahead_after(np.array([1.0]))
    (3, None, 1)
    """
    behind = np.flatnonzero(sums <= 0)
    first = int(behind[-1]) + 1 if len(behind) else 0
    return first + 1 if first < len(sums) else None


def running(lead: Floats, length: int = RUNNING) -> Floats:
    """The sums of the last `length` visits, of fewer at the beginning.

    >>> running(np.array([1.0, 1.0, 1.0, 5.0]), 2).tolist()
    [1.0, 2.0, 2.0, 6.0]
    """
    sums = np.cumsum(lead)
    return np.asarray(sums - np.concatenate([np.zeros(min(length, len(sums))), sums[:-length]])[: len(sums)])


def line(code: int, leads: Sequence[Floats]) -> str:
    """A row of the table."""
    mean = np.mean(leads, axis=0)
    cells = [
        str(code),
        *[_visits(ahead_after(sums(mean))) for sums in (np.cumsum, running)],
        *[_spread([ahead_after(sums(one)) for one in leads]) for sums in (np.cumsum, running)],
        f"{1000 * float(mean.mean()):+.2f}",
    ]
    return f"| {' | '.join(cells)} |\n"


def _visits(after: int | None) -> str:
    return f"{after:,}" if after is not None else "never"


def _spread(found: Sequence[int | None]) -> str:
    """Median and quartiles; a seed that is never ahead counts as the longest."""
    sortable = sorted(np.inf if one is None else one for one in found)
    low, middle, high = np.quantile(sortable, [0.25, 0.5, 0.75], method="nearest")
    return f"{_number(middle)} ({_number(low)} to {_number(high)})"


def _number(visits: float) -> str:
    return "never" if visits == np.inf else f"{visits:,.0f}"


def report(found: Sequence[tuple[int, Sequence[Floats]]]) -> str:
    """The table in Markdown."""
    (_, leads), *_ = found
    table = (
        f"`{WORLD}`, {len(leads)} seeds from {FIRST_SEED} on, {len(leads[0]):,} visits each. Running: of the last "
        f"{RUNNING} visits. In brackets the quartiles over the seeds.\n\n"
        "| learning code | ahead after, mean of all seeds | running | ahead after, median of the seeds | running "
        "| more than the best single action, reward per 1,000 visits |\n|---|--:|--:|--:|--:|--:|\n"
    ) + "".join([line(code, leads) for code, leads in found])
    return table + "".join([f"\n{sooner(found[0], other)}\n" for other in found[1:]])


def sooner(before: tuple[int, Sequence[Floats]], after: tuple[int, Sequence[Floats]]) -> str:
    """Of two codes with the same seeds; a seed that is never ahead counts as if it were after its last visit."""
    old, new = (
        np.array([ahead_after(np.cumsum(lead)) or len(lead) + 1 for lead in leads]) for _, leads in (before, after)
    )
    saved = old - new
    error = f" +- {saved.std(ddof=1) / np.sqrt(len(saved)):.0f} (standard error)" if len(saved) > 1 else ""
    return f"Code {after[0]} is ahead {saved.mean():+.0f}{error} visits sooner than code {before[0]}, paired by seed."


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--seeds", type=click.IntRange(min=1), default=30, show_default=True, help="Runs of each code.")
@click.option("--visits", type=click.IntRange(min=1), default=VISITS, show_default=True, help="Of each run.")
@click.option("--processes", type=click.IntRange(min=1), default=2, show_default=True, help="At once.")
@click.option("--publish", is_flag=True, help="Write the table into simulator/studies/RESULTS.md.")
def main(seeds: int, visits: int, processes: int, publish: bool) -> None:
    """Visits until the default beats the best single action in the demo's world, by learning code 2 and the newest."""
    wanted = range(FIRST_SEED, FIRST_SEED + seeds)
    with ProcessPoolExecutor(processes) as pool:
        found = [(code, list(pool.map(partial(lead, code=code, visits=visits), wanted))) for code in codes()]
    text = report(found)
    Console().print(text, markup=False, highlight=False, soft_wrap=True)
    if publish:
        write_results(text, MARKERS)


if __name__ == "__main__":
    main()
