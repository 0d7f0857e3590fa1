"""The demo: a real server, a simulated storefront over real gRPC, and what was earned.

Called by `simulator demo` (`make demo`). Rewards are read from the log, so a second run adds to the first's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from decider.estimate.mean import Mean
from decider.experiment.aggregate import final_reward
from decider.experiment.schema import from_message
from decider.experiment_files import read_toml
from decider.log.open import LogUrl, check_unused, open_reader
from decider.log.protocol import LogReader
from decider.types import Context, Reason, Time
from simulator.drive import returning
from simulator.drive.live import count_fates, new_run
from simulator.drive.plan import Shares, plan
from simulator.drive.send import Drive
from simulator.drive.server import OwnServer, serving
from simulator.drive.server import wait_until_sealed as server_wait
from simulator.drive.shop import places
from simulator.drive.shop.crowd import Crowd
from simulator.drive.shop.port import Shop
from simulator.drive.target import failures
from simulator.worlds.scenes import storefront

EXPERIMENT_FILE = Path(__file__).parents[1] / "storefront.toml"
EXPERIMENT = from_message(read_toml(EXPERIMENT_FILE))
ACTIONS = storefront.WORLD.actions
WINDOW = EXPERIMENT.reward.window / 1e6
MEAN_DELAY = storefront.DELAY * EXPERIMENT.reward.window / storefront.WORLD.experiment.reward.window
"""Seconds, as in storefront.toml."""

SHARES = Shares(reordered=0.0)
RETURNING_ONE_IN = 20


class Sent(NamedTuple):
    """What was sent and how it was answered. lost: clicks that never arrived; outcomes: rewards of each kind."""

    decisions: int
    clicks: int
    lost: int
    outcomes: dict[str, int]


def server(db: Path, *, listen: str, http: str, web: str, origins: Sequence[str]) -> AbstractContextManager[OwnServer]:
    """`decider serve` with the demo's experiments as a process of its own, drained at the end. web: its port for pages
    of these origins. Raises ServerFailed."""
    files = [EXPERIMENT_FILE, *returning.FILES, *places.FILES]
    options = ["--web", web, *(part for origin in origins for part in ("--web-origin", origin))]
    return serving(db, listen=listen, http=http, experiments=files, options=options)


def shop(server: OwnServer, db: Path) -> Shop:
    """The shop for a person, of a server that is ready."""
    return Shop(web=f"http://{server.web}", page=f"http://{server.http}", db=db, crowd=Crowd(server.target))


def storefront_drive(target: str, visitors: int, *, seed: int, clients: int = 4) -> Drive:
    """The storefront's visitors, who have not come yet."""
    made = plan(
        storefront.WORLD, EXPERIMENT, run=new_run(), visitors=visitors, seed=seed, clients=clients, window=WINDOW,
        shares=SHARES,
    )  # fmt: skip
    return Drive(made, target)


def run(driven: Drive, console: Console, *, alongside: Sequence[Callable[[Drive], None]] = ()) -> Sent:
    """Let them come, with a progress bar. alongside: see Drive.run. Raises DriveFailed."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("visitors", total=len(driven.plan.visits))
        ledger = driven.run(alongside=alongside, on_progress=lambda done: progress.update(task, completed=done))
    if driven.interrupted:
        raise KeyboardInterrupt
    if driven.failure:
        raise driven.failure
    rewards = count_fates(driven.plan, ledger)
    return Sent(ledger.acknowledged, rewards.happened, rewards.lost, ledger.outcome_counts())


def drive_returning(target: str, visitors: int) -> list[returning.Place]:
    """One in twenty of so many visitors comes back. Raises DriveFailed."""
    with failures(target):
        return returning.play(target, max(1, visitors // RETURNING_ONE_IN), run=new_run())


def delivered_share() -> float:
    """Share of clicks that reach the server within the window."""
    return (1 - SHARES.lost - SHARES.late) * (1 - math.exp(-WINDOW / MEAN_DELAY))


class Group:
    """What one group of visitors earned, and would have earned."""

    def __init__(self) -> None:
        self.learned, self.uniform, self.fixed = Mean(), Mean(), Mean()
        self.above_uniform, self.above_fixed = Mean(), Mean()

    def add(self, reward: float, uniform: float, fixed: float) -> None:
        """A visit: its reward, and the mean reward of the uniform choice and of the best single action."""
        self.learned.add(reward)
        self.uniform.add(uniform)
        self.fixed.add(fixed)
        self.above_uniform.add(reward - uniform)
        self.above_fixed.add(reward - fixed)


class GroupRewards(NamedTuple):
    """groups: those that had visits, by name. best: the single action that would have earned most."""

    groups: dict[str, Group]
    best: str


def _read_visits(log: LogReader) -> list[tuple[Context, float]]:
    """Contexts and final rewards of what a policy drew and whose window is over; in the order of the visits."""
    reward = {version.position: version.experiment.reward for version in log.versions()}
    sealed = log.sealed_decisions(EXPERIMENT.id, after=Time(0), until=log.head().time)
    drawn = [one for one in sealed if one.decision.reason in (Reason.EXPLOIT, Reason.EXPLORE)]
    return [
        (one.decision.context, final_reward(reward[one.decision.version], one.rewards))
        for one in sorted(drawn, key=lambda one: one.position)
    ]


def rewards(db: Path | LogUrl) -> GroupRewards:
    """Rewards of the learning policy against what the same visits were worth to others, by segment."""
    with closing(open_reader(db)) as log:
        visits = _read_visits(log)
    arriving = delivered_share()
    means = [{action: arriving * storefront.mean(context, action) for action in ACTIONS} for context, _ in visits]
    best = max(ACTIONS, key=lambda action: sum(m[action] for m in means))
    groups = {name: Group() for name in (*storefront.SEGMENTS, "(unknown)", "all", "all, last third")}
    for index, ((context, reward), known) in enumerate(zip(visits, means, strict=True)):
        names = [context.segment or "(unknown)", "all"]
        if index >= len(visits) * 2 // 3:
            names.append("all, last third")
        for name in names:
            groups[name].add(reward, sum(known.values()) / len(known), known[best])
    return GroupRewards({name: group for name, group in groups.items() if group.learned.count}, best)


def remove(db: Path) -> None:
    """Forget an earlier run. Raises LogLocked while a server writes it."""
    check_unused(db)
    for suffix in ("", "-wal", "-shm", ".log"):
        Path(f"{db}{suffix}").unlink(missing_ok=True)


def wait_until_sealed(db: Path | LogUrl) -> None:
    """Until the last visitors' windows are over."""
    server_wait(db, EXPERIMENT.id, window=WINDOW)
