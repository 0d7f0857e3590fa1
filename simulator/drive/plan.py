"""World + options -> what a drive is to send: who comes when, whose hands it goes through, what becomes of each reward.

Pure. Called by the command, the demo and the tests; carried out by `send.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from decider.errors import DeciderError
from decider.experiment.definition import Experiment
from simulator.worlds.world import Flags, Floats, Visits, World

SUPPOSED_RATE = 1_000.0
"""Visits a second that a window is made for where the drive sends as fast as it gets answers."""

SHORTEST_WINDOW = 0.5
"""Seconds. In a shorter one the network and the learner's interval would be a large part."""

LONGEST_WINDOW = 7_776_000.0
"""Seconds: 90 days, which is all that a server takes."""

REWARD_ID = "reward-1"
"""Of the one reward of a decision: the same at every attempt, and for its duplicate."""

MOST_AT_ONCE = 1_000
"""Decisions of one DecideBatch."""

LATE = (1.02, 1.15)
"""When late rewards are sent, in windows after the answer to their decision."""

REORDER_DELAY = 0.1
"""Windows for which a reward waits at most so that later ones overtake it."""


class BadDrive(DeciderError):
    """Options that do not go together."""

    reason = "BAD_DRIVE"


@dataclass(frozen=True, slots=True)
class Shares:
    """Of the rewards that happen, each in [0, 1]: never sent; sent after the window; sent twice; sent out of order."""

    lost: float = 0.02
    late: float = 0.03
    duplicate: float = 0.05
    reordered: float = 0.05


@dataclass(frozen=True, slots=True)
class Fates:
    """What becomes of the reward of each round, if there is one.

    after: (rounds,) seconds from the answer to a decision to its reward's sending. Of lost ones nothing else is true.
    """

    lost: Flags
    late: Flags
    duplicate: Flags
    reordered: Flags
    after: Floats


@dataclass(frozen=True)
class Plan:
    """world: its experiment is what runs on the server, with the live window. visits: drawn from the world.

    run: what the ids of this drive begin with. scale: seconds here for one second of the world. rate: visits per
    second; None: as fast as answers come. clients: at once, each with a connection of its own.
    """

    world: World
    visits: Visits
    fates: Fates
    run: str
    scale: float
    rate: float | None
    clients: int

    @property
    def experiment(self) -> Experiment:
        """As applied."""
        return self.world.experiment

    @property
    def window(self) -> float:
        """Seconds here."""
        return self.experiment.reward.window / 1e6

    def due(self, number: int) -> float:
        """Seconds from the start of the drive to that round, at a fixed rate."""
        return number / self.rate if self.rate else 0.0

    def decision_id(self, number: int) -> str:
        """Rising, so that the log writes them quickly; the same at every attempt."""
        return f"{self.run}-{number:07d}"

    def unit_id(self, number: int) -> str:
        """Of who comes in that round."""
        return f"{self.run}-visitor-{self.visits.units[number]}"

    def eligible(self, case: int) -> list[str]:
        """The actions that may be chosen there; none named where all may."""
        row = self.visits.eligible[case]
        return [] if row.all() else [self.world.actions[index] for index in row.nonzero()[0]]

    def value(self, number: int, action: int) -> float | None:
        """The reward as it is sent: its worth without the weight of its name; None where none comes."""
        index = int(self.visits.names[number, action])
        if index < 0:
            return None
        return unweighted(
            float(self.visits.rewards[number, action]),
            self.experiment.reward.weights.get(self.world.reward_names[index], 1.0),
            minimum=self.experiment.reward.minimum,
            maximum=self.experiment.reward.maximum,
        )

    def name(self, number: int, action: int) -> str:
        """Of that reward."""
        return self.world.reward_names[int(self.visits.names[number, action])]


def live_window(world: World, rate: float | None) -> float:
    """Seconds in which as many visits are sent as come to the world in its window; not below SHORTEST_WINDOW.

    >>> from simulator.worlds.registry import find
    >>> live_window(find("storefront"), rate=400.0)
    3.0
    """
    visits = world.experiment.reward.window / 1e6 * world.traffic
    return max(SHORTEST_WINDOW, visits / (rate or SUPPOSED_RATE))


def plan(
    world: World,
    experiment: Experiment,
    *,
    run: str,
    visitors: int,
    seed: int,
    clients: int = 4,
    rate: float | None = None,
    window: float | None = None,
    shares: Shares | None = None,
) -> Plan:
    """What is to be sent. experiment: the world's, perhaps with another policy. window: seconds; by default see
    `live_window`. Equal arguments give equal plans. Raises BadDrive.
    """
    shares = shares or Shares()
    if shares.lost + shares.late > 1:
        raise BadDrive(
            f"--lost {shares.lost:g} and --late {shares.late:g}: a reward is one or the other; at most 1 in all"
        )
    seconds = window or live_window(world, rate)
    if seconds > LONGEST_WINDOW:
        asked = f"--window {window:g}" if window else f"--rate {rate or SUPPOSED_RATE:g}"
        raise BadDrive(f"{asked}: the window would last {seconds:.3g} s, a server takes 90 days; give another --window")
    scale = seconds / (world.experiment.reward.window / 1e6)
    visits = world.draw(seed, visitors)
    live = replace(experiment, reward=replace(experiment.reward, window=round(seconds * 1e6)))
    return Plan(
        world=replace(world, experiment=live),
        visits=visits,
        fates=fates(visits.delays * scale, seed=seed, window=seconds, shares=shares),
        run=run,
        scale=scale,
        rate=rate,
        clients=clients,
    )


def fates(delays: Floats, *, seed: int, window: float, shares: Shares) -> Fates:
    """What becomes of each reward. delays: (rounds,) seconds here. Equal arguments give equal fates.

    >>> fates(np.array([1.0, 9.0]), seed=1, window=3.0, shares=Shares(0, 0, 0, 0)).after.round(2).tolist()
    [1.0, 3.45]
    """
    luck = np.random.default_rng([seed, 2]).random((5, len(delays)))
    lost = luck[0] < shares.lost
    late = ~lost & (luck[0] < shares.lost + shares.late)
    reordered = ~lost & (luck[1] < shares.reordered)
    after = np.minimum(delays, window * LATE[1])
    after = np.where(late, window * (LATE[0] + (LATE[1] - LATE[0]) * luck[2]), after)
    after = after + np.where(reordered, REORDER_DELAY * window * luck[3], 0.0)
    return Fates(lost, late, ~lost & (luck[4] < shares.duplicate), reordered, after)


def unweighted(worth: float, weight: float, *, minimum: float, maximum: float) -> float:
    """The value that is worth so much under this weight; rounded so that value x weight stays in the range.

    >>> unweighted(0.5, 0.25, minimum=0.0, maximum=1.0)
    2.0
    """
    value = worth / weight if weight else worth
    if value * weight < minimum:
        return math.nextafter(value, math.copysign(math.inf, weight))
    if value * weight > maximum:
        return math.nextafter(value, math.copysign(math.inf, -weight))
    return value


def lanes(plan: Plan) -> list[list[tuple[int, ...]]]:
    """The calls of each client, in order: the rounds that each call decides.

    Rounds of one unit stay in one lane, in order, where what was chosen before matters. Batches go round in turn.
    """
    clients = plan.clients
    found: list[list[tuple[int, ...]]] = [[] for _ in range(clients)]
    if plan.world.batch == 1:
        for number, unit in enumerate(plan.visits.units.tolist()):
            found[unit % clients].append((number,))
        return found
    for turn, rounds in enumerate(_batches(len(plan.visits), plan.world.batch)):
        found[0 if plan.visits.answers else turn % clients].append(rounds)
    return found


def _batches(rounds: int, size: int) -> list[tuple[int, ...]]:
    """A world's batches, in calls that are not too large."""
    starts = [
        (first, min(first + MOST_AT_ONCE, start + size, rounds))
        for start in range(0, rounds, size)
        for first in range(start, min(start + size, rounds), MOST_AT_ONCE)
    ]
    return [tuple(range(first, end)) for first, end in starts]
