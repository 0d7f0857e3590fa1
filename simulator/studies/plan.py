"""`make plan`: whether the days that `simulator plan` promises are those after which simulated logs show the lift.

Each log grows, and somebody looks whenever it is 1 % longer, at the service's own interval. Results: RESULTS.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import click
import numpy as np
from rich.console import Console

from decider.estimate.lift import HOLDOUT, POLICY, GroupSums, lift
from decider.estimate.sample import Floats
from decider.experiment.strata import BUCKETS
from simulator.commands.options import counted
from simulator.lift.power import POWER, Design, Rewards, decisions_needed
from simulator.studies.results import write_results

MARKERS = ("<!-- plan -->\n", "<!-- /plan -->")

LOOKS = 0.01
"""From one look to the next, as a share of the time so far: as if somebody looked always, about."""

SHARE_BOUGHT, SPREAD = 0.05, 0.8
"""Of visits, and of the logarithm of the amounts: in the world of amounts."""


def _amounts() -> Rewards:
    mean, square = math.exp(SPREAD**2 / 2), math.exp(2 * SPREAD**2)
    deviation = math.sqrt(SHARE_BOUGHT * square - (SHARE_BOUGHT * mean) ** 2)
    return Rewards(SHARE_BOUGHT * mean, deviation)


DESIGNS = {
    "half": Design(Rewards.of_rate(0.1), share=0.5, lift=0.04),
    "visits": Design(Rewards.of_rate(0.2, visits=5, correlation=0.2), share=0.2, lift=0.05),
    "amounts": Design(_amounts(), share=0.2, lift=0.02),
    "hardly any spread": Design(Rewards(100.0, 2.0), share=0.1, lift=1.0),
}
"""Small ones, for tests."""

CASES = {
    "10 % and 0.02 more, holdout 10 %": Design(Rewards.of_rate(0.1), share=0.1, lift=0.02),
    "10.5 % and a tenth more, holdout 5 %": Design(Rewards.of_rate(0.105), share=0.05, lift=0.0105),
    "10.5 % and a tenth more, holdout 10 %": Design(Rewards.of_rate(0.105), share=0.1, lift=0.0105),
    "20 % of 5 visits, correlation 0.2, and 0.05 more, holdout 20 %": DESIGNS["visits"],
    "amounts of 5 % (0.069) and 0.02 more, holdout 20 %": DESIGNS["amounts"],
    "1 % and half as much again, holdout 50 %": Design(Rewards.of_rate(0.01), share=0.5, lift=0.005),
}


class World:
    """A log of a design, whose sums grow."""

    def __init__(self, design: Design, rng: np.random.Generator) -> None:
        self.design, self._rng = design, rng
        self.sums = GroupSums(np.zeros((2, BUCKETS)), np.zeros((2, BUCKETS)))

    def go_on(self, decisions: float) -> None:
        """More units, all of whose visits come at once."""
        visits = round(self.design.rewards.visits)
        units = self._rng.poisson(decisions / visits)
        holdout = self._rng.random(units) < self.design.share
        bucket = self._rng.integers(0, BUCKETS, units)
        earned = self._earned(np.where(holdout, 0.0, self.design.lift), visits)
        for group, mine in ((POLICY, ~holdout), (HOLDOUT, holdout)):
            self.sums.decisions[group] += visits * np.bincount(bucket[mine], minlength=BUCKETS)
            self.sums.rewards[group] += np.bincount(bucket[mine], weights=earned[mine], minlength=BUCKETS)

    def _earned(self, more: Floats, visits: int) -> Floats:
        rewards = self.design.rewards
        rates = rewards.mean + more
        if rewards.deviation < rewards.mean and not rewards.is_rate:
            return np.asarray(rates + rewards.deviation * self._rng.standard_normal(len(more)))
        if not rewards.is_rate:
            share = rates / rewards.mean * SHARE_BOUGHT
            amount = np.exp(SPREAD * self._rng.standard_normal(len(more)))
            return np.where(self._rng.random(len(more)) < share, amount, 0.0)
        if rewards.correlation:
            size = 1.0 / rewards.correlation - 1.0
            rates = self._rng.beta(rates * size, (1.0 - rates) * size)
        return self._rng.binomial(visits, rates).astype(np.float64)


def found_after(design: Design, seed: int, around: float, *, until: float = 1.3) -> float:
    """Decisions until the service's interval excludes 0, in one simulated log; infinite: not soon. around: where it is
    looked at often; until: the last look, as a multiple of it."""
    world, at = World(design, np.random.default_rng(seed)), 0.0
    for look in _looks(design.start / 2, around, until).tolist():
        world.go_on(look - at)
        at = look
        found = lift({0: world.sums}, design.level)
        if found.is_known and found.interval.low > 0:
            return float(at)
    return math.inf


def _looks(start: float, around: float, until: float) -> Floats:
    first, often, last = np.log([min(start, around / 3), 0.6 * around, until * around])
    found: Floats = np.exp(np.r_[np.arange(first, often, 3 * LOOKS), np.arange(often, last, LOOKS), last])
    return found


def judge(design: Design, seeds: Sequence[int]) -> Floats:
    """Decisions of each log until the lift was found, up to those of the power that is asked for."""
    median = decisions_needed(design, 0.5)
    until = decisions_needed(design, POWER) / median
    return np.array([found_after(design, seed, median, until=until) for seed in seeds])


def line(name: str, design: Design, after: Floats) -> str:
    """A row of the table."""
    share = float(np.isfinite(after).mean())
    error = math.sqrt(share * (1 - share) / len(after))
    numbers = (design.fixed(POWER), decisions_needed(design, POWER), decisions_needed(design, 0.5), np.median(after))
    cells = [name, *[f"{one:,.0f}" for one in numbers], f"{100 * share:.1f} ± {100 * error:.1f} %"]
    return f"| {' | '.join(cells)} |"


def report(found: Mapping[str, Floats]) -> str:
    """The table in Markdown."""
    head = (
        "| reward, lift, holdout | one look | planned, 80 % | planned, median | simulated, median | found by the "
        "planned 80 % |\n|---|--:|--:|--:|--:|--:|\n"
    )
    logs = min(map(len, found.values()))
    rows = "".join([f"{line(name, CASES[name], after)}\n" for name, after in found.items()])
    return f"{logs:,} logs of each kind; decisions of both groups.\n\n{head}{rows}"


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--logs", type=click.IntRange(min=1), default=400, show_default=True, help="Of each kind.")
@click.option("--publish", is_flag=True, help="Write the table into simulator/studies/RESULTS.md.")
def main(logs: int, publish: bool) -> None:
    """How many decisions are planned until a lift is found, and how many it takes."""
    found: dict[str, Floats] = {}
    with counted(Console(stderr=True), len(CASES), "cases") as progress:
        for name, design in CASES.items():
            found[name] = judge(design, range(logs))
            progress()
    text = report(found)
    click.echo(text, nl=False)
    if publish:
        write_results(text, MARKERS)


if __name__ == "__main__":
    main()
