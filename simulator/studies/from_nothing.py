"""`make from-nothing`: after how many visits does the default, from nothing, beat the best single action of the demo?
And after how many, if it begins with the log of another policy, as `simulator import` makes it begin?

Learning code 2 and the newest one play the same visits, with rewards that are learned when their window ends. Beaten is
the best single action from the visit on from which the earned mean is above its own until the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import combinations
from random import Random
from typing import NamedTuple

import click
import numpy as np
from rich.console import Console

from decider.policy.protocol import Choice, PlainPolicy, Policy
from decider.types import Context
from simulator.run.play import play_reference
from simulator.run.policies import LearningPolicy, find_policy
from simulator.studies.codes import codes, play_as_served, policy_of
from simulator.studies.results import write_results
from simulator.worlds.registry import find
from simulator.worlds.world import Floats, World

WORLD = "storefront"
VISITS = 6_000
FIRST_SEED = 40_901
"""Nothing of the default was chosen on these seeds."""

RUNNING = 500
"""Visits of the running mean."""

LOGGED = (500, 2_000)
LOGGER = "epsilon_greedy:epsilon=0.2"
"""Decisions of the logs that the newest code also begins with, and whose: that of Personalizer, 20 % exploration."""

LOG_SEED = 1_000_000
"""Of a log: so much above that of the visits."""

MARKERS = ("<!-- from nothing -->\n", "<!-- /from nothing -->")


class Start(NamedTuple):
    """A learning code, and how many decisions of a log it has learned before the first visit."""

    code: int
    logged: int = 0

    def __str__(self) -> str:
        return f"code {self.code} after a log of {self.logged:,}" if self.logged else f"code {self.code}"


class _Taught:
    """Decides as one policy does; a pupil learns the same decisions."""

    def __init__(self, decides: PlainPolicy, pupil: Policy) -> None:
        self._decides, self._pupil = decides, pupil
        self.pmf, self.count_under_way = decides.pmf, pupil.count_under_way

    def learn(
        self, context: Context, actions: Sequence[Choice], *, drawn: int, propensity: float, reward: float
    ) -> None:
        """See PlainPolicy."""
        for policy in (self._decides, self._pupil):
            policy.learn(context, actions, drawn=drawn, propensity=propensity, reward=reward)


def learn_log(pupil: Policy, world: World, decisions: int, *, seed: int) -> None:
    """So many decisions of LOGGER, all of them final but the last."""
    player = find_policy(LOGGER, world)
    assert isinstance(player, LearningPolicy)
    taught = _Taught(player.make(seed), pupil)
    play_as_served(world, world.draw(seed, decisions), taught, seed=seed, delayed=False)


def lead(seed: int, *, start: Start, visits: int = VISITS) -> Floats:
    """(visits,): what the policy earned more than the best single action, in the mean of what may come."""
    world = find(WORLD)
    drawn, policy = world.draw(seed, visits), policy_of(world, start.code)
    if start.logged:
        learn_log(policy, world, start.logged, seed=LOG_SEED + seed)
    played = play_as_served(world, drawn, policy, seed=seed, delayed=True)
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


def line(start: Start, leads: Sequence[Floats]) -> str:
    """A row of the table."""
    mean = np.mean(leads, axis=0)
    cells = [
        str(start),
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


def report(found: Sequence[tuple[Start, Sequence[Floats]]]) -> str:
    """The table in Markdown."""
    (_, leads), *_ = found
    table = (
        f"`{WORLD}`, {len(leads)} seeds from {FIRST_SEED} on, {len(leads[0]):,} visits each. Running: of the last "
        f"{RUNNING} visits. In brackets the quartiles over the seeds. Logs are those of `{LOGGER}`, from nothing.\n\n"
        "| who begins | ahead after, mean of all seeds | running | ahead after, median of the seeds | running "
        "| more than the best single action, reward per 1,000 visits |\n|---|--:|--:|--:|--:|--:|\n"
    ) + "".join([line(start, leads) for start, leads in found])
    pairs = [(before, after) for before, after in combinations(found, 2) if is_compared(before[0], after[0])]
    return table + "".join([f"\n{sooner(*pair)}\n" for pair in pairs])


def is_compared(before: Start, after: Start) -> bool:
    """Whether they differ in one thing: two codes from nothing, or a code from nothing and after a log."""
    return not before.logged and (before.code == after.code or not after.logged)


def sooner(before: tuple[Start, Sequence[Floats]], after: tuple[Start, Sequence[Floats]]) -> str:
    """Of two starts with the same seeds; a seed that is never ahead counts as if it were after its last visit."""
    old, new = (
        np.array([ahead_after(np.cumsum(lead)) or len(lead) + 1 for lead in leads]) for _, leads in (before, after)
    )
    saved = old - new
    error = f" +- {saved.std(ddof=1) / np.sqrt(len(saved)):.0f} (standard error)" if len(saved) > 1 else ""
    who = str(after[0]).capitalize()
    return f"{who} is ahead {saved.mean():+,.0f}{error} visits sooner than {before[0]}, paired by seed."


def starts() -> list[Start]:
    """What is compared: learning codes from nothing, and the newest one after logs."""
    return [*map(Start, codes()), *[Start(codes()[-1], logged) for logged in LOGGED]]


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--seeds", type=click.IntRange(min=1), default=30, show_default=True, help="Runs of each start.")
@click.option("--visits", type=click.IntRange(min=1), default=VISITS, show_default=True, help="Of each run.")
@click.option("--processes", type=click.IntRange(min=1), default=2, show_default=True, help="At once.")
@click.option("--publish", is_flag=True, help="Write the table into simulator/studies/RESULTS.md.")
def main(seeds: int, visits: int, processes: int, publish: bool) -> None:
    """Visits until the default beats the best single action in the demo's world: by learning code 2 and the newest,
    and by the newest after a log of another policy."""
    wanted = range(FIRST_SEED, FIRST_SEED + seeds)
    with ProcessPoolExecutor(processes) as pool:
        found = [(one, list(pool.map(partial(lead, start=one, visits=visits), wanted))) for one in starts()]
    text = report(found)
    Console().print(text, markup=False, highlight=False, soft_wrap=True)
    if publish:
        write_results(text, MARKERS)


if __name__ == "__main__":
    main()
