"""`make defaults`: the study behind the default policy, with the code that serves.

Every policy meets the same simulated visits, world by world. It earns a share of the attainable lift: the mean reward
that its own probabilities lead to, on a scale where uniform is 0 and the best action of every visit is 1. The seeds
took no part in choosing the defaults.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from operator import mul
from random import Random
from typing import TextIO

import click
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from decider.experiment.schema import DEFAULT_EXPLORATION_SHARE, DEFAULT_MINIMUM_PROPENSITY
from decider.policy.make import make_policy
from decider.policy.protocol import Policy
from decider.policy.sampler import SLOTS, draw, to_slots
from decider.policy.spec import ALGORITHMS, DEFAULT_ALGORITHM, DEFAULT_INTERACTIONS, PolicySpec
from decider.types import Context
from simulator.rivals import LinTs, LinUcb
from simulator.worlds.logistic import ACTIONS, FIELDS, Floats, Visits, World, draw_visits

FIRST_SEED = 100
"""Those before were used to choose the defaults."""

CLICKS = World("CTR 10 %", stream=2, rate=0.10)
WORLDS = (
    CLICKS,
    World("CTR 2 %", stream=3, rate=0.02),
    replace(CLICKS, name="CTR 10 %, delayed", delay=1_000, batch=500),
    World("purchases", stream=5, rate=0.03, amounts=True),
    World("interactions", stream=6, rate=0.10, linear=0.25, pairwise=0.9),
)
"""Delayed: rewards are known 1,000 rounds later and learned 500 at a time. Purchases: 3 % buy, for 20 to 200.
Interactions: what a visitor clicks depends on segment and intent stage together."""

FLOOR = min(DEFAULT_MINIMUM_PROPENSITY, DEFAULT_EXPLORATION_SHARE / len(ACTIONS))
"""The minimum propensity that an experiment with as many actions has by default."""

Maker = Callable[[World, int], Policy]
"""A fresh policy for a world and a seed."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A policy of the table, and the minimum propensity that it is served with."""

    make: Maker
    floor: float = FLOOR


def served(
    algorithm: str = DEFAULT_ALGORITHM, *, interactions: tuple[str, ...] = DEFAULT_INTERACTIONS, **changed: float
) -> Maker:
    """A policy that the server offers, with the algorithm's defaults but for the `changed` parameters."""
    parameters = {**ALGORITHMS[algorithm], **changed}
    return lambda world, _: make_policy(PolicySpec(algorithm, parameters, interactions, world.reward_range))


def lin_ucb(alpha: float) -> Maker:
    """A rival that the server does not offer."""
    actions, values = len(ACTIONS), sum(FIELDS.values())
    return lambda world, _: LinUcb(alpha=alpha, actions=actions, values=values, reward_range=world.reward_range)


def lin_ts(alpha: float) -> Maker:
    """Another one."""
    actions, values = len(ACTIONS), sum(FIELDS.values())
    return lambda world, seed: LinTs(
        alpha=alpha, actions=actions, values=values, seed=seed, reward_range=world.reward_range
    )


DEFAULT = "default"
RIVALS = ("LinUCB 0.1", "LinTS 0.1")
CONTENDERS = {
    DEFAULT: Contender(served()),
    **{f"default, floor {floor}": Contender(served(), floor) for floor in (0, 0.001, 0.005, 0.01)},
    "default, CA and CCA": Contender(served(interactions=("CA", "CCA"))),
    **{f"squarecb, gamma_scale {scale}": Contender(served("squarecb", gamma_scale=scale)) for scale in (10, 100, 1000)},
    **{name: Contender(served(name)) for name in ("epsilon_greedy", "softmax", "bag", "cover", "rnd", "first")},
    **{f"LinUCB {alpha}": Contender(lin_ucb(alpha), floor=0) for alpha in (0.1, 0.3)},
    "LinTS 0.1": Contender(lin_ts(0.1), floor=0),
}
"""In the order of the table. SquareCB: Foster and Rakhlin, ICML 2020."""


@dataclass(frozen=True, slots=True)
class Task:
    """One run: names, not things, since it goes to another process. world: index into WORLDS."""

    policy: str
    world: int
    seed: int
    rounds: int


@dataclass(frozen=True, slots=True)
class Result:
    """Shares of the attainable lift over the first fifth of the rounds, and over all."""

    policy: str
    world: str
    seed: int
    rounds: int
    early: float
    share: float


def run(task: Task) -> Result:
    """Pure: equal tasks have equal results, in every process."""
    world, contender = WORLDS[task.world], CONTENDERS[task.policy]
    visits = _visits(world, task.seed, task.rounds)
    policy = contender.make(world, task.seed)
    earned = simulate(policy, visits, world, floor=contender.floor, random=Random(task.seed))
    early, share = (lift_share(visits, earned[:rounds]) for rounds in (_early(task.rounds), task.rounds))
    return Result(task.policy, world.name, task.seed, task.rounds, early, share)


@lru_cache(maxsize=1)
def _visits(world: World, seed: int, rounds: int) -> Visits:
    return draw_visits(world, seed=seed, rounds=rounds)


def _early(rounds: int) -> int:
    return max(1, rounds // 5)


@dataclass(frozen=True, slots=True)
class _Decided:
    """A round whose reward is not known yet."""

    number: int
    context: Context
    drawn: int
    propensity: float
    reward: float


def simulate(policy: Policy, visits: Visits, world: World, *, floor: float, random: Random) -> Floats:
    """The mean reward that the policy's probabilities lead to in each round, while it learns from its own draws.

    `random` gives each round one ticket: policies with the same seed have the same luck.
    """
    earned, waiting = [], deque[_Decided]()
    means, rewards = visits.means.tolist(), visits.rewards.tolist()
    for number, index in enumerate(visits.seen.tolist()):
        if number % world.batch == 0:
            _teach(policy, waiting, before=number - world.delay)
        context = visits.contexts[index]
        slots = to_slots(policy.pmf(context, ACTIONS), minimum=floor)
        drawn = draw(slots, random.randrange(SLOTS))
        earned.append(sum(map(mul, slots, means[index])) / SLOTS)
        waiting.append(_Decided(number, context, drawn, slots[drawn] / SLOTS, rewards[number][drawn]))
    return np.array(earned)


def _teach(policy: Policy, waiting: deque[_Decided], *, before: int) -> None:
    while waiting and waiting[0].number < before:
        known = waiting.popleft()
        policy.learn(known.context, ACTIONS, drawn=known.drawn, propensity=known.propensity, reward=known.reward)


def lift_share(visits: Visits, earned: Floats) -> float:
    """The share of the attainable lift over uniform in the first rounds, as many as `earned` has."""
    means = visits.means[visits.seen[: len(earned)]]
    uniform, best = means.mean(axis=1).sum(), means.max(axis=1).sum()
    return float((earned.sum() - uniform) / (best - uniform))


def run_all(tasks: Sequence[Task], *, workers: int, console: Console) -> list[Result]:
    """All results, in the order of the tasks, with a progress bar."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with multiprocessing.get_context("spawn").Pool(workers) as pool, Progress(*columns, console=console) as progress:
        return list(progress.track(pool.imap(run, tasks), total=len(tasks), description="runs"))


def shares(results: Iterable[Result], policy: str) -> Floats:
    """(seeds, columns of the table) of one policy; the last column is the mean of the others."""
    found = {(result.seed, result.world): result for result in results if result.policy == policy}
    rows = [
        [found[seed, CLICKS.name].early, *[found[seed, world.name].share for world in WORLDS]]
        for seed in sorted({seed for seed, _ in found})
    ]
    table = np.array(rows)
    return np.column_stack([table, table.mean(axis=1)])


def headings(rounds: int) -> list[str]:
    """Of the columns that `shares` has."""
    first, *others = [world.name for world in WORLDS]
    return [f"{first}, {_early(rounds):,} rounds", f"{first}, {rounds:,} rounds", *others, "mean"]


def markdown(corner: str, columns: Sequence[str], rows: dict[str, Floats], *, sign: str = "") -> str:
    """A table with a mean ± standard error over seeds in each cell.

    >>> print(markdown("policy", ["clicks"], {"ours": np.array([[0.5], [0.7]])}))
    | policy | clicks |
    |---|--:|
    | ours | 0.600 ±0.100 |
    """
    lines = [[corner, *columns], *[[name, *_cells(found, sign)] for name, found in rows.items()]]
    first, *others = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([first, "|---" + "|--:" * len(columns) + "|", *others])


def _cells(found: Floats, sign: str) -> list[str]:
    means = [f"{mean:{sign}.3f}" for mean in found.mean(axis=0)]
    if len(found) < 2:
        return means
    errors = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    return [f"{mean} ±{error:.3f}" for mean, error in zip(means, errors, strict=True)]


def report(results: Sequence[Result], policies: Sequence[str], *, seeds: int, rounds: int) -> str:
    """Both tables, each with a line that says what it shows."""
    table = {policy: shares(results, policy) for policy in policies}
    text = (
        f"Share of the attainable lift over uniform: mean ± standard error over {seeds} seeds from {FIRST_SEED} on,\n"
        f"{rounds:,} rounds, {len(ACTIONS)} actions, minimum propensity {FLOOR} where no other floor is named (the\n"
        f"rivals LinUCB and LinTS have none).\n\n{markdown('policy', headings(rounds), table)}\n"
    )
    rivals = [rival for rival in RIVALS if DEFAULT in table and rival in table]
    if rivals:
        apart = {f"{DEFAULT} - {rival}": table[DEFAULT] - table[rival] for rival in rivals}
        text += f"\nPaired by seed:\n\n{markdown('difference', headings(rounds), apart, sign='+')}\n"
    return text


def _matching(_: click.Context, __: click.Parameter, pattern: str) -> list[str]:
    try:
        found = [name for name in CONTENDERS if re.search(pattern, name)]
    except re.error as error:
        raise click.BadParameter(f"{pattern!r} is not a regular expression: {error}") from error
    if not found:
        raise click.BadParameter(f"{pattern!r} matches none of: {'; '.join(CONTENDERS)}")
    return found


_EXAMPLE = """\b
Examples:
  python -m simulator.study --seeds 2 --policies '^default$|^Lin'
  python -m simulator.study --json study.json > study.md"""


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120}, epilog=_EXAMPLE)
@click.option("--seeds", type=click.IntRange(min=1), default=5, show_default=True, help="Worlds of each kind.")
@click.option("--rounds", type=click.IntRange(min=1), default=20_000, show_default=True, help="Visits to each.")
@click.option("--policies", callback=_matching, default="", metavar="REGEX", help="Only those whose name it finds.")
@click.option("--workers", type=click.IntRange(min=1), default=os.cpu_count, help="Processes.  [default: one a core]")
@click.option("--json", "file", type=click.File("w", lazy=False), metavar="FILE", help="Write every run's result, too.")
def main(seeds: int, rounds: int, policies: list[str], workers: int, file: TextIO | None) -> None:
    """How much of what can be earned each policy earns, in several simulated worlds; Markdown tables."""
    tasks = [
        Task(policy, world, seed, rounds)
        for seed in range(FIRST_SEED, FIRST_SEED + seeds)
        for world in range(len(WORLDS))
        for policy in policies
    ]
    results = run_all(tasks, workers=workers, console=Console(stderr=True))
    click.echo(report(results, policies, seeds=seeds, rounds=rounds), nl=False)
    if file is not None:
        json.dump([asdict(result) for result in results], file, indent=1)


if __name__ == "__main__":
    main()
