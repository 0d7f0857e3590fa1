"""`make wide`: contexts with more features than the default policy has room for: lift, speed and size of both codes.

Learning code 1 keeps the features that come first, code 2 the frequent ones. Lift is what is earned more than by an
even choice. Both codes learn the same decisions in turns, each on its own count of processor time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from statistics import mean
from typing import NamedTuple

import click
from rich.console import Console
from rich.table import Table

from decider.policy.make import make_policy
from decider.policy.protocol import Choice, Policy
from decider.policy.spec import PolicySpec
from decider.types import ActionId, Context
from simulator.run.play import play
from simulator.worlds.cities import FREQUENCIES, cities_world

SPEC = PolicySpec()
FLOOR = 0.001
SLICE = 1_000
"""Decisions that one code learns before it is the other one's turn."""

WIDTH = 110
"""Of the tables, in letters, whether a terminal shows it or not."""


@dataclass(frozen=True, slots=True)
class Lift:
    """In one world, of one seed: of a policy that is told the 30 cities that matter only, and of both codes."""

    told: float
    counted: float
    first_come: float


def lift(frequencies: str, *, seed: int, rounds: int, code: int, all_known: bool) -> float:
    """Reward/visit above an even choice, learned at once."""
    world = cities_world(frequencies, all_known=all_known)
    visits = world.draw(seed, rounds)
    policy = make_policy(SPEC, code=code)
    played = play(world, visits, policy, floor=FLOOR, random=Random(seed), delayed=False)
    return float(played.earned.mean() - (visits.uniform * visits.means).sum(axis=1)[visits.seen].mean())


def lifts(frequencies: str, *, seed: int, rounds: int) -> Lift:
    """All three, on the same visits and with the same luck."""
    told, counted, first_come = (
        lift(frequencies, seed=seed, rounds=rounds, code=code, all_known=all_known)
        for code, all_known in ((2, False), (2, True), (1, True))
    )
    return Lift(told, counted, first_come)


class Lesson(NamedTuple):
    """A sealed decision of an even choice."""

    context: Context
    actions: tuple[Choice, ...]
    drawn: int
    reward: float


Visitor = Callable[[Random], Context]


def _cities(random: Random) -> Context:
    city = random.choices(range(500), [1 / rank for rank in range(1, 501)])[0]
    return Context(random.choice(("new", "vip")), random.choice(("ios", "web")), location=f"city-{city}")


def _fields(random: Random) -> Context:
    return Context(features={f"field-{field}": f"value-{random.randrange(10)}" for field in range(20)})


def _numbers(random: Random) -> Context:
    return Context(features={f"number-{number}": random.random() for number in range(40)})


def _shop(random: Random) -> Context:
    return Context(
        segment=f"segment-{random.randrange(8)}",
        device=random.choice(("ios", "android", "web")),
        location=f"city-{random.randrange(3_000)}",
        features={f"number-{number}": random.random() for number in range(40)}
        | {"sku": f"sku-{random.randrange(5_000)}", "query": f"query-{random.randrange(10**6)}"},
    )


CONTEXTS: dict[str, tuple[Visitor, int]] = {
    "500 cities, 10 actions": (_cities, 10),
    "20 fields of 10 values, 10 actions": (_fields, 10),
    "40 numbers, 10 actions": (_numbers, 10),
    "40 numbers, 3,000 cities, 5,000 skus, 10^6 queries": (_shop, 10),
    "500 cities, 100 actions": (_cities, 100),
    "500 cities, 1,000 actions": (_cities, 1_000),
}


def lessons(visitor: Visitor, *, actions: int, count: int, seed: int) -> Iterator[Lesson]:
    """The segment and the number of the action decide about the reward."""
    random = Random(seed)
    choices = tuple([Choice(ActionId(f"action-{number}")) for number in range(actions)])
    for _ in range(count):
        context, drawn = visitor(random), random.randrange(actions)
        likely = 0.3 if drawn % 2 == len(context.segment) % 2 else 0.1
        yield Lesson(context, choices, drawn, float(random.random() < likely))


@dataclass(slots=True)
class Cost:
    """Of one code. seconds: of the processor, for all that was learned; worst: for one decision."""

    policy: Policy
    seconds: float = 0.0
    worst: float = 0.0

    def learn(self, lesson: Lesson) -> None:
        """On the clock."""
        start = time.process_time()
        self.policy.learn(
            lesson.context,
            lesson.actions,
            drawn=lesson.drawn,
            propensity=1 / len(lesson.actions),
            reward=lesson.reward,
        )
        took = time.process_time() - start
        self.seconds += took
        self.worst = max(self.worst, took)

    def snapshots(self, lesson: Lesson) -> float:
        """How many snapshots cost as much as to save and load once; both answer the same."""
        start = time.process_time()
        loaded = make_policy(SPEC, self.policy.save())
        between = time.process_time()
        snapshot = self.policy.snapshot()
        end = time.process_time()
        asked = lesson.context, lesson.actions
        assert snapshot.pmf(*asked) == loaded.pmf(*asked) == self.policy.pmf(*asked)
        return (between - start) / (end - between)


def costs(visitor: Visitor, *, actions: int, count: int, seed: int) -> tuple[Cost, Cost, Lesson]:
    """Of codes 1 and 2, and the last decision."""
    first, counted = Cost(make_policy(SPEC, code=1)), Cost(make_policy(SPEC, code=2))
    given = list(lessons(visitor, actions=actions, count=count, seed=seed))
    for start in range(0, count, SLICE):
        for cost in (first, counted):
            for lesson in given[start : start + SLICE]:
                cost.learn(lesson)
    return first, counted, given[-1]


def show_lifts(console: Console, *, seeds: int, rounds: int) -> None:
    """One line a world, means over the seeds; the ratios of each seed."""
    title = f"500 cities of which 30 matter, 10 actions, {rounds:,} visits: lift/visit, mean of {seeds} seeds"
    table = Table("frequencies", "told the 30", "code 2", "code 1", "code 2/told", "code 1/told", title=title)
    for frequencies in FREQUENCIES:
        found = [lifts(frequencies, seed=seed, rounds=rounds) for seed in range(1, seeds + 1)]
        means = [mean(one) for one in zip(*[(one.told, one.counted, one.first_come) for one in found], strict=True)]
        counted, first = ([f"{value / one.told:.2f}" for one, value in pairs] for pairs in _pairs(found))
        table.add_row(frequencies, *[f"{value:.4f}" for value in means], " ".join(counted), " ".join(first))
    console.print(table)


def _pairs(found: list[Lift]) -> tuple[list[tuple[Lift, float]], list[tuple[Lift, float]]]:
    return [(one, one.counted) for one in found], [(one, one.first_come) for one in found]


def show_costs(console: Console, *, count: int) -> None:
    """One line a kind of context."""
    table = Table(
        "contexts",
        "learned/s\ncode 2",
        "code 2/\ncode 1",
        "worst ms\ncode 2",
        "model, MB\ncode 1",
        "model, MB\ncode 2",
        "known",
        "left out",
        "snapshots per\nsave and load",
        title=f"{count:,} decisions learned, seconds of the processor",
    )
    for name, (visitor, actions) in CONTEXTS.items():
        first, counted, last = costs(visitor, actions=actions, count=count, seed=1)
        vocabulary = counted.policy.vocabulary()
        assert vocabulary is not None
        table.add_row(
            name,
            f"{count / counted.seconds:,.0f}",
            f"{first.seconds / counted.seconds:.2f}",
            f"{1e3 * counted.worst:.0f}",
            *[f"{len(cost.policy.save()) / 1e6:.2f}" for cost in (first, counted)],
            *[f"{number:,}" for number in vocabulary],
            f"{counted.snapshots(last):.0f}",
        )
    console.print(table)


@click.command
@click.option("--seeds", default=3, help="Runs of each world.")
@click.option("--rounds", default=20_000, help="Visits of a run, and decisions to learn.")
def main(seeds: int, rounds: int) -> None:
    """Prints both tables."""
    console = Console(width=WIDTH)
    show_costs(console, count=rounds)
    show_lifts(console, seeds=seeds, rounds=rounds)


if __name__ == "__main__":
    main()
