"""One log of a scene -> what the evaluation and the learner make of it, as sums that add up. Called by the command."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zlib import crc32

import numpy as np

from decider.experiment.aggregate import final_reward
from decider.log.open import open_reader
from decider.types import Time
from simulator.evaluate.result import Evaluation, PolicyResult
from simulator.evaluate.run import evaluate
from simulator.logs.decider_log import load
from simulator.studies.semantics.scenes import ACTIONS, DEVICES, SCENES, SEGMENTS, Scene, candidates
from simulator.studies.semantics.shop import open_shop
from simulator.verify import Verification, verify


@dataclass(slots=True)
class Sums:
    """Of numbers, one a log."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, number: float) -> None:
        """One more."""
        self.count += 1
        self.total += number
        self.squares += number**2

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.count + other.count, self.total + other.total, self.squares + other.squares)

    @property
    def mean(self) -> float:
        """nan of none."""
        return self.total / self.count if self.count else math.nan

    @property
    def error(self) -> float:
        """Standard error of the mean; nan below two."""
        if self.count < 2:
            return math.nan
        return math.sqrt(max(0.0, self.squares / self.count - self.mean**2) / (self.count - 1))


@dataclass(slots=True)
class Judged:
    """One question of a scene, over its logs. weight: the mean weight of each log; off: the estimate less the truth.

    covered: intervals that hold the truth, of all. refused: logs in which log or candidate is "do not use".
    """

    scene: str
    policy: str
    estimator: str
    logs: int = 0
    covered: int = 0
    refused: int = 0
    weight: Sums = field(default_factory=Sums)
    off: Sums = field(default_factory=Sums)
    truth: Sums = field(default_factory=Sums)

    def __add__(self, other: Judged) -> Judged:
        return Judged(
            self.scene,
            self.policy,
            self.estimator,
            self.logs + other.logs,
            self.covered + other.covered,
            self.refused + other.refused,
            self.weight + other.weight,
            self.off + other.off,
            self.truth + other.truth,
        )


@dataclass(slots=True)
class Learned:
    """What a scene's decisions teach, over its logs. off: of each log, the mean of lesson less truth. within: logs in
    which it is within 1.96 standard errors of 0."""

    scene: str
    lessons: Sums = field(default_factory=Sums)
    off: Sums = field(default_factory=Sums)
    within: int = 0

    def __add__(self, other: Learned) -> Learned:
        within = self.within + other.within
        return Learned(self.scene, self.lessons + other.lessons, self.off + other.off, within)


Result = Judged | Learned


def play(scene: Scene, db: Path, *, visits: int, seed: int, number: int) -> None:
    """The log with this number: the same for the same seed."""
    with open_shop(db, scene.experiment(salt=f"{seed}-{number}")) as shop:
        scene.play(shop, scene.times * visits, np.random.default_rng((seed, crc32(scene.name.encode()), number)))


def check(db: Path) -> Verification:
    """Whether the log replays."""
    with closing(open_reader(db)) as log:
        return verify(log)


def judge(scene: Scene, db: Path) -> list[Result]:
    """What is made of a log."""
    columns, asked = load(db), candidates()
    found = evaluate(columns, asked, force=True, breakdown=False)
    policies = found.slates.policies if scene.pages and found.slates else found.policies
    judged: list[Result] = [
        _judge(scene, found, policy, estimator, scene.truth(columns, candidate))
        for candidate, policy in zip(asked, policies, strict=True)
        for estimator in scene.estimators
    ]
    return [*judged, _learned(scene, db)] if scene.lesson is not None else judged


def _judge(scene: Scene, found: Evaluation, policy: PolicyResult, estimator: str, truth: float) -> Judged:
    estimate = policy.estimates[estimator or policy.headline]
    verdicts = (policy.diagnostics.verdict, found.log.verdict)
    one = Judged(scene.name, policy.name, estimator or policy.headline, logs=1)
    one.covered = int(estimate.low <= truth <= estimate.high)
    one.refused = int("do not use" in verdicts)
    one.weight.add(policy.diagnostics.mean_weight)
    one.off.add(estimate.value - truth)
    one.truth.add(truth)
    return one


def _learned(scene: Scene, db: Path) -> Learned:
    """The lessons as the learner takes them, against the truth of the action that they are taken for."""
    assert scene.lesson is not None
    apart = Sums()
    with closing(open_reader(db)) as log:
        (version,) = log.versions()
        for one in log.sealed_decisions(version.experiment.id, after=Time(0), until=log.head().time):
            if not version.learns_from(one.decision.reason, activated=one.activated, overridden=one.overridden):
                continue
            action = one.shown if one.overridden else one.decision.action
            context = one.decision.context
            means = scene.lesson if scene.lesson.ndim == 2 else scene.lesson[DEVICES.index(context.device)]
            truth = float(means[SEGMENTS.index(context.segment), ACTIONS.index(action or "")])
            apart.add(final_reward(version.experiment.reward, one.rewards) - truth)
    result = Learned(scene.name)
    result.lessons.add(apart.count)
    result.off.add(apart.mean)
    result.within = int(abs(apart.total) <= 1.96 * math.sqrt(apart.squares))
    return result


@dataclass(frozen=True, slots=True)
class Task:
    """Some logs of one scene, by its name. first: the number of the first."""

    scene: str
    first: int
    logs: int
    visits: int
    seed: int


def run(task: Task) -> tuple[list[Result], list[Verification]]:
    """The sums of a task's logs; of its first log whether it replays."""
    scene, found, checked = SCENES[task.scene], dict[Any, Result](), []
    with TemporaryDirectory() as folder:
        for number in range(task.first, task.first + task.logs):
            db = Path(folder, f"{number}.db")
            play(scene, db, visits=task.visits, seed=task.seed, number=number)
            if number == task.first:
                checked.append(check(db))
            add(found, judge(scene, db))
    return list(found.values()), checked


def add(found: dict[Any, Any], results: list[Result]) -> None:
    """To what was found so far, by question."""
    for one in results:
        key = (one.scene, one.policy, one.estimator) if isinstance(one, Judged) else (one.scene,)
        found[key] = found[key] + one if key in found else one
