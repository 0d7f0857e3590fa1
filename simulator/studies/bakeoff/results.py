"""One run of the bake-off, and the file of all results: what tables and plot are made of. Called by `__main__.py`."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from simulator.run.policies import served_experiment
from simulator.run.sweep import packages
from simulator.run.task import HORIZONS, Task, run
from simulator.run.versions import version_of
from simulator.studies.bakeoff.before import BEFORE
from simulator.studies.bakeoff.plan import DEFAULT
from simulator.studies.bakeoff.rivals import RIVALS
from simulator.worlds.registry import find

HERE = Path(__file__).parent
_ROOT = HERE.parents[2]
_ALL = (
    *(
        "decider/policy/features.py",
        "decider/policy/vw/algorithms.py",
        "decider/policy/vw/encode.py",
        "decider/policy/vw/workspace.py",
        "decider/decide/slots.py",
        "decider/decide/decide.py",
    ),
    *("simulator/run/play.py", "simulator/run/task.py", "simulator/storefront.toml", "simulator/worlds/scene.py"),
    *("simulator/worlds/world.py", "simulator/worlds/logistic.py", "simulator/worlds/many_actions.py"),
    "simulator/worlds/classification.py",
)
_RIVALS = tuple([f"simulator/studies/bakeoff/{name}.py" for name in ("rival_inputs", "rivals", "vectors")])
"""Code that results depend on, besides the world's own file and the rival's: a change of our default does not make
everybody else play again."""


@dataclass(frozen=True, slots=True)
class HorizonShares:
    """horizons: those that the run reached; shares: of the attainable lift, up to each. seconds: of processor time."""

    task: Task
    horizons: list[int]
    shares: list[float]
    seconds: float


def play_task(task: Task) -> HorizonShares:
    """What the sweep maps. Equal tasks have equal shares. Raises what `run` raises."""
    started = time.process_time()
    found = run(task)
    reached = [horizon for horizon in HORIZONS if horizon in found.rounds]
    shares = [found.share(found.rounds.index(horizon)) for horizon in reached]
    return HorizonShares(task, reached, shares, time.process_time() - started)


def depends_on(task: Task) -> str:
    """Versions and code behind a result; for a rival, of its library too.

    >>> depends_on(Task("storefront", "rival:vw", seed=1, rounds=4000)).startswith("vowpal-wabbit-next 0.7.0")
    True
    """
    if task.policy == DEFAULT:
        return version_of(task)
    if task.policy == BEFORE:  # a learning code keeps its bits: tests/test_learning_code.py
        return f"{BEFORE}, {packages()}, {_code(task.world, 'simulator/studies/bakeoff/before.py')}"
    kind, _, name = task.policy.partition(":")
    if kind == "rival":
        package = RIVALS[name].package
        library = f"simulator/studies/bakeoff/with_{name.partition('-')[0]}.py"
        return f"{package} {_installed(package)}, {packages()}, {_code(task.world, *_RIVALS, library)}"
    experiment = served_experiment(task.policy, find(task.world))
    return f"{experiment.policy.signature} {experiment.minimum_propensity}, {packages()}, {_code(task.world)}"


def _code(world: str, *others: str) -> str:
    """Of the files; those that are not there count as nothing."""
    scene = f"simulator/worlds/scenes/{world.replace('-', '_')}.py"
    files = [_ROOT / file for file in (*_ALL, *others, scene)]
    return blake2b(b"".join(file.read_bytes() for file in files if file.is_file()), digest_size=6).hexdigest()


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


@dataclass(frozen=True, slots=True)
class SeedResult:
    """One policy in one world with one seed up to one horizon. seconds: of processor time, in proportion."""

    world: str
    delayed: bool
    policy: str
    seed: int
    horizon: int
    share: float
    seconds: float


def rows(results: Iterable[HorizonShares]) -> list[SeedResult]:
    """One for each horizon that a run reached.

    >>> task = Task("storefront", "default", seed=1, rounds=20_000)
    >>> found = HorizonShares(task, [4_000, 20_000], [0.5, 0.75], 10.0)
    >>> [(one.horizon, one.share, one.seconds) for one in rows([found])]
    [(4000, 0.5, 2.0), (20000, 0.75, 10.0)]
    """
    return [
        SeedResult(one.task.world, one.task.delayed, one.task.policy, one.task.seed, horizon, share, seconds)
        for one in results
        for horizon, share in zip(one.horizons, one.shares, strict=True)
        for seconds in (one.seconds * horizon / one.task.rounds,)
    ]


def with_others(played: Sequence[SeedResult], others: Iterable[SeedResult]) -> list[SeedResult]:
    """What was played, and of an earlier run what was not.

    >>> old, new = (SeedResult("storefront", False, "default", 1, 4_000, share, 1.0) for share in (0.5, 0.6))
    >>> with_others([new], [old]) == [new]
    True
    """
    known = {_place(one) for one in played}
    return [*played, *[one for one in others if _place(one) not in known]]


def _place(one: SeedResult) -> tuple[str, bool, str, int, int]:
    return one.world, one.delayed, one.policy, one.seed, one.horizon


def write(file: Path, found: Iterable[SeedResult]) -> None:
    """As CSV. Raises OSError."""
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, [field.name for field in fields(SeedResult)], lineterminator="\n")
        writer.writeheader()
        for one in found:
            writer.writerow(
                asdict(one)
                | {"delayed": int(one.delayed), "share": f"{one.share:.6f}", "seconds": f"{one.seconds:.2f}"}
            )


def read(file: Path) -> list[SeedResult]:
    """What `write` wrote, to six digits. Raises OSError."""
    with file.open(encoding="utf-8", newline="") as opened:
        return [
            SeedResult(
                world=one["world"],
                delayed=one["delayed"] == "1",
                policy=one["policy"],
                seed=int(one["seed"]),
                horizon=int(one["horizon"]),
                share=float(one["share"]),
                seconds=float(one["seconds"]),
            )
            for one in csv.DictReader(opened)
        ]
