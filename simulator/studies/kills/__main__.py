"""`make kills`: a leader and two workers are killed again and again while many call them. Is anything lost or doubled,
does the log replay, are its models those of a process that never stopped, and how soon is everybody back? Then all
processes are renewed, as by `decider reload`: is a call refused?

Kinds of kills come in a seeded order, each as often as the others. Between two kills everybody must be back, decisions
are answered, and a new model is published. Linux only.
"""

from __future__ import annotations

import math
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import click
from rich.console import Console
from rich.progress import track

from decider.experiment.schema import from_message
from decider.learn.versions import Versions
from decider.log.open import open_log, open_reader
from decider.log.protocol import LogReader
from decider.types import ExperimentId
from decider.v1 import experiment_pb2
from simulator.studies.kills.crew import KINDS, Crew, Kind, Scene, wait_until
from simulator.studies.ledger import ACTIONS, ID, Counts, Visitor, count_decisions, count_rewards, visiting
from simulator.studies.results import write_results
from simulator.studies.same_models import Compared, compare_models
from simulator.studies.served import children
from simulator.studies.soak.check import Replay, replay

MARKERS = ("<!-- kills -->\n", "<!-- /kills -->")

WORKERS = 2
VISITORS = 16
"""Each with a connection; half of them with a new one every BURST seconds."""

PAUSE = 0.01
"""Seconds between two calls of a visitor."""

WINDOW = 0.4
OPTIONS = ("--learn-interval", "0.05", "--store-interval", "0.2", "--grace", "3", "--max-age", "2")

CALM = (0.05, 0.5)
"""Seconds between two kills, once everybody is back, at least and at most."""

MANY = 20
"""Decisions that must have been answered between two kills."""


@dataclass(frozen=True, slots=True)
class Killed:
    """hit: whether it died where it was meant to. back: seconds until all had a successor; gap: the longest time that a
    visitor waited for an answer; learned: seconds until the next model was published."""

    kind: str
    processes: int
    hit: bool
    back: float
    gap: float
    learned: float


@dataclass(frozen=True, slots=True)
class Reloaded:
    """calls: answered meanwhile. refused: ended otherwise than OK. seconds: until all were new."""

    calls: int
    refused: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Result:
    """A study's. refused: calls that ended otherwise than OK, by status. starts: that ended since the processes before
    were not gone."""

    kills: Sequence[Killed]
    reloads: Sequence[Reloaded]
    decisions: Counts
    rewards: Counts
    replays: Sequence[Replay]
    models: Compared
    damages: Sequence[str]
    refused: str
    starts: int
    tracebacks: int
    exit_code: int

    @property
    def wrong(self) -> list[str]:
        """What must not be."""
        found = [
            f"{what}: {one}"
            for what, one in (("decisions", self.decisions), ("rewards", self.rewards))
            if not one.sound
        ]
        found += [f"verify of {one.what}: {one.text[-400:]}" for one in self.replays if not one.ok]
        if self.models.equal != self.models.stored or not self.models.stored or self.models.different < 2:
            found.append(f"models: {self.models}")
        found += self.damages
        if refused := sum(one.refused for one in self.reloads):
            found.append(f"{refused} calls refused while all processes were renewed")
        if self.tracebacks:
            found.append(f"{self.tracebacks} tracebacks in the output")
        if self.exit_code:
            found.append(f"exit code {self.exit_code}")
        return found


def experiment() -> experiment_pb2.Experiment:
    """The one that is called: it learns each decision after WINDOW seconds."""
    made = experiment_pb2.Experiment(id=ID, actions=[experiment_pb2.Action(id=action) for action in ACTIONS])
    made.reward.window.FromMicroseconds(round(WINDOW * 1e6))
    return made


def draw_kinds(kills: int, random: Random) -> list[Kind]:
    """Each as often as the others, as far as that is possible, in any order."""
    whole, rest = divmod(kills, len(KINDS))
    drawn = [*KINDS * whole, *random.sample(KINDS, rest)]
    random.shuffle(drawn)
    return drawn


@contextmanager
def crew_of(db: Path) -> Iterator[Crew]:
    """On a new log, ready."""
    with closing(open_log(db)) as log:
        Versions(log).apply(from_message(experiment()))
    crew = Crew(db, *OPTIONS, workers=WORKERS)
    crew.start()
    try:
        yield crew
    finally:
        crew.close()


class Storm:
    """Kills beside visitors. Raises TooLate where somebody is not back in time."""

    def __init__(self, crew: Crew, visitors: Sequence[Visitor], log: LogReader, random: Random) -> None:
        self._crew = crew
        self._visitors = visitors
        self._log = log
        self._random = random
        self._signature = log.versions()[-1].experiment.policy.signature

    def kill(self, kind: Kind) -> Killed:
        """Wait until it may be; kill; wait until all are back."""
        self._wait_until_at_work()
        time.sleep(self._random.uniform(*CALM))
        scene = Scene(self._crew, self._crew.pids(), self._random)
        names, hit = kind.do(scene)
        published = self._published()
        self._crew.wait_for(names, scene.pids)
        back = time.monotonic() - scene.died
        wait_until(lambda: self._published() > published, "a new model is published")
        learned = time.monotonic() - scene.died
        self._wait_until_at_work()
        return Killed(kind.name, kind.processes, hit, back, self._longest_gap(scene.died), learned)

    def reload(self) -> Reloaded:
        """Renew all processes, once everybody is at work."""
        self._wait_until_at_work()
        pids, begun = self._crew.pids(), time.monotonic()
        answered, refused = self._answered(), self._refused()
        os.kill(self._crew.parent, signal.SIGUSR2)
        self._crew.wait_for(self._crew.names, pids)
        wait_until(lambda: not {*pids.values()} & {*children(self._crew.parent)}, "the last one before has left")
        seconds = time.monotonic() - begun
        self._wait_until_at_work()
        return Reloaded(self._answered() - answered, self._refused() - refused, seconds)

    def _refused(self) -> int:
        return sum(visitor.refused.total() for visitor in self._visitors)

    def _published(self) -> int:
        return self._log.models.last_published_position(ExperimentId(ID), self._signature)

    def _answered(self) -> int:
        return sum(len(visitor.decided) for visitor in self._visitors)

    def _wait_until_at_work(self) -> None:
        goal = self._answered() + MANY
        wait_until(lambda: self._answered() >= goal, "decisions are answered")

    def _longest_gap(self, begun: float) -> float:
        gaps = [gap for visitor in self._visitors for gap in visitor.gaps]
        return max([gap.seconds for gap in gaps if gap.began + gap.seconds > begun], default=0.0)


def study(folder: Path, *, kills: int, reloads: int, seed: int) -> Result:
    """Raises TooLate, NotServing and LogError."""
    random, db = Random(seed), folder / "kills.db"
    visitors = [Visitor(number, seed) for number in range(VISITORS)]
    with crew_of(db) as crew, closing(open_reader(db)) as log:
        storm = Storm(crew, visitors, log, random)
        with (
            visiting(crew.target, visitors[::2], pause=PAUSE),
            visiting(crew.target, visitors[1::2], pause=PAUSE, burst=math.inf),
        ):
            killed = [storm.kill(kind) for kind in track(draw_kinds(kills, random), "killing", console=_CONSOLE)]
            renewed = [storm.reload() for _ in track(range(reloads), "renewing", console=_CONSOLE)]
        for visitor in visitors:
            visitor.settle(crew.target)
        wait_until(lambda: log.next_deadline(after=log.head().time) is None, "all is sealed")
        code = crew.stop()
    return _checked(db, crew, visitors, killed, renewed, code)


def _checked(
    db: Path,
    crew: Crew,
    visitors: Sequence[Visitor],
    killed: Sequence[Killed],
    renewed: Sequence[Reloaded],
    code: int,
) -> Result:
    with closing(open_reader(db)) as log:
        decisions, rewards = count_decisions(log, visitors), count_rewards(log, visitors)
        models, damages = compare_models(log, ID), [str(one) for one in log.check(lambda _: None)]
    refused: dict[str, int] = {}
    for status, times in [item for visitor in visitors for item in visitor.refused.items()]:
        refused[status.name] = refused.get(status.name, 0) + times
    said = ", ".join(f"{name} {times}" for name, times in sorted(refused.items()))
    tracebacks = sum(output.count("Traceback") for output in crew.outputs)
    replays = replay(db, None, None)
    return Result(killed, renewed, decisions, rewards, replays, models, damages, said, crew.refused, tracebacks, code)


HEADINGS = ("killed", "times", "SIGKILLs", "back, s", "longest", "next model, s", "longest", "no answer, s", "longest")


def rows(kills: Iterable[Killed]) -> list[str]:
    """A line for each kind, in Markdown: medians, and the longest."""
    by_kind: dict[str, list[Killed]] = {}
    for one in kills:
        by_kind.setdefault(one.kind, []).append(one)
    lines = [f"| {' | '.join(HEADINGS)} |", f"|---|{'--:|' * (len(HEADINGS) - 1)}"]
    for kind in [kind.name for kind in KINDS if kind.name in by_kind]:
        of = by_kind[kind]
        times = [spread([getattr(one, name) for one in of]) for name in ("back", "learned", "gap")]
        lines.append(f"| {kind} | {len(of)} | {sum(one.processes for one in of)} | {' | '.join(times)} |")
    return lines


def spread(seconds: Sequence[float]) -> str:
    """Median and longest.

    >>> spread([1, 2, 4])
    '2.0 | 4.0'
    """
    return f"{statistics.median(seconds):.1f} | {max(seconds):.1f}"


def summary(result: Result) -> list[str]:
    """What came out, in Markdown."""
    kills, (verified, *_) = result.kills, result.replays
    hit = sum(one.hit for one in kills)
    counts = [
        f"- **{what}**: {one.acknowledged:,} acknowledged, {one.in_log:,} in the log; lost {one.lost}, doubled "
        f"{one.doubled}, otherwise than answered {one.other}."
        for what, one in (("Decisions", result.decisions), ("Rewards", result.rewards))
    ]
    return [
        f"- **{len(kills)} kills**, {sum(one.processes for one in kills)} SIGKILLs; {hit} where they were meant to be. "
        f"Starts refused, since processes of the parent before still drained: {result.starts}.",
        *counts,
        f"- **`simulator verify`**: {verified.equal:,} of {verified.decisions:,} equal.",
        f"- **Models**: {result.models.equal} of {result.models.stored} stored ones are to the last bit those of a "
        f"process that learned the whole log ({result.models.learned:,} decisions) without a stop.",
        f"- **Calls that had to be sent again**: {result.refused or 'none'}.",
        f"- **{len(result.reloads)} reloads** afterwards: {sum(one.refused for one in result.reloads)} calls refused "
        f"of {sum(one.calls + one.refused for one in result.reloads):,}; "
        f"{max([one.seconds for one in result.reloads], default=0.0):.0f} s at most, with `--max-age 2`.",
    ]


_CONSOLE = Console(stderr=True)


@click.command()
@click.option("--kills", default=200, show_default=True, help="How many.")
@click.option("--reloads", default=5, show_default=True, help="How many afterwards.")
@click.option("--seed", default=1, show_default=True, help="Of kinds, moments and visitors.")
@click.option("--publish", is_flag=True, help="Write the results into RESULTS.md.")
def main(kills: int, reloads: int, seed: int, publish: bool) -> None:
    """Kill a leader, workers and their parent under load; exit 1 if anything was lost or does not replay."""
    with tempfile.TemporaryDirectory() as name:
        result = study(Path(name), kills=kills, reloads=reloads, seed=seed)
    text = "\n".join([*rows(result.kills), "", *summary(result)])
    click.echo(text)
    for one in result.wrong:
        click.echo(f"WRONG: {one}")
    if publish:
        write_results(f"{text}\n", MARKERS)
    sys.exit(1 if result.wrong else 0)


if __name__ == "__main__":
    main()
