"""One part of a log as a pure function: what its decisions add up to. Tasks for a sweep, called through `total.py`.

evaluate_part: policies on a part -> sums; the terms of each unit go to a file beside the part
spread_of_part, count_of_part: these terms -> points on one grid for all parts (`decider/estimate/divided.py`)
check_part: everything that `simulator evaluate` looks for, on one part
"""

from __future__ import annotations

import os
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from decider.estimate.divided import SampleSums, Spread
from decider.estimate.sample import Floats
from simulator.compare.on_log import Reading
from simulator.evaluate.candidates import LEARNER, Candidate
from simulator.evaluate.checks.leaks import set_leaks_aside
from simulator.evaluate.estimates import Estimator
from simulator.evaluate.parse import parse
from simulator.evaluate.result import LogSummary, PolicyResult
from simulator.evaluate.run import evaluate
from simulator.evaluate.scores import score
from simulator.evaluate.support import Samples
from simulator.load_policy import BadPolicy
from simulator.logs.columns import Columns
from simulator.logs.open import open_log

DIFFERENCE = "difference"
"""Name of the mean of the headline's terms less what was logged."""

KINDS = ("own", "lowest", "highest")
"""With what the estimate takes missing actions to earn, with the lowest reward, with the highest; see `Samples`."""


@dataclass(frozen=True, slots=True)
class PartTask:
    """reading: of the part. logged: the policy that made the log comes first."""

    reading: Reading
    policies: tuple[str, ...]

    def __str__(self) -> str:
        return self.reading.log


@dataclass(frozen=True, slots=True)
class MeanOfPart:
    """An estimate that is a mean of terms. file: of the units' sums. sums: of each of KINDS; of `own` alone where the
    log can show everything."""

    file: str
    sums: tuple[SampleSums, ...]


@dataclass(frozen=True, slots=True)
class PolicyOfPart:
    """What a policy's decisions add up to. squares: of the weights. means: by the estimator's name, and
    DIFFERENCE.
    """

    name: str
    estimand: str
    weights: float
    squares: float
    max_weight: float
    missing: float
    weighted_rewards: float
    means: Mapping[str, MeanOfPart]


@dataclass(frozen=True, slots=True)
class PartSums:
    """Of one part."""

    decisions: int
    units: int
    left_out: Mapping[str, int]
    policies: tuple[PolicyOfPart, ...]


@dataclass(frozen=True, slots=True)
class PartChecks:
    """What `simulator evaluate` says of one part."""

    log: LogSummary
    policies: tuple[PolicyResult, ...]


@dataclass(frozen=True, slots=True)
class Placing:
    """The points of one mean in one part: row of its file, with the sums of all parts. spread: None until known."""

    file: str
    kind: int
    sums: SampleSums
    spread: Spread | None = None


@dataclass(frozen=True, slots=True)
class PlacingTask:
    """All means of one part."""

    placings: tuple[Placing, ...]

    def __str__(self) -> str:
        return f"{Path(self.placings[0].file).parent}"


@dataclass(frozen=True, slots=True)
class SpreadsOfPart:
    """In the order of the placings."""

    spreads: tuple[Spread, ...]


@dataclass(frozen=True, slots=True)
class CountsOfPart:
    """In the order of the placings: (1, nodes) of float64 each, packed."""

    counts: tuple[str, ...]


def check_part(task: PartTask) -> PartChecks:
    """As `simulator evaluate` does. Raises as `evaluate_part` does."""
    columns = _read(task)
    found = evaluate(columns, _candidates(task, columns), force=False, breakdown=False)
    return PartChecks(found.log, found.policies)


def evaluate_part(task: PartTask) -> PartSums:
    """The sums; writes the units' terms beside the part. Raises DeciderError or OSError."""
    columns = _read(task)
    candidates = _candidates(task, columns)
    found = []
    for place, (one, scores) in enumerate(zip(candidates, score(columns, candidates), strict=True)):
        estimator = Estimator(scores)
        means = {"ips": estimator.ips()}
        if estimator.headline == "dr":
            means["dr"] = estimator.dr()
        means[DIFFERENCE] = estimator.less_logged
        found.append(
            PolicyOfPart(
                name=one.name,
                estimand=one.estimand,
                weights=float(scores.weight.sum()),
                squares=float(np.dot(scores.weight, scores.weight)),
                max_weight=float(scores.weight.max(initial=0.0)),
                missing=float(scores.missing.sum()),
                weighted_rewards=float(np.dot(scores.weight, columns.reward)),
                means={
                    name: _mean(estimator.samples(terms), Path(task.reading.log) / f"{place}-{name}.npy")
                    for name, terms in means.items()
                },
            )
        )
    return PartSums(len(columns), len(columns.units.size), dict(columns.left_out), tuple(found))


def _read(task: PartTask) -> Columns:
    columns = set_leaks_aside(open_log(task.reading.log, task.reading.options))
    if not columns.has_propensities:
        raise BadPolicy(f"{task.reading.log}: has no propensities, and without them no sum says anything; log them")
    return columns


def _candidates(task: PartTask, columns: Columns) -> list[Candidate]:
    candidates = [parse(name, columns) for name in task.policies]
    for one in candidates:
        if one.estimand == LEARNER or one.rows(columns) is not None:
            raise BadPolicy(
                f"{one.name}: learns along the log, or from a part of it, and a divided log has no order; evaluate it "
                "on a log that fits into memory: simulator evaluate"
            )
    return candidates


def _mean(samples: Samples, file: Path) -> MeanOfPart:
    kinds = [samples.own] if samples.lowest is samples.own else [samples.own, samples.lowest, samples.highest]
    unfinished = file.with_suffix(f".{os.getpid()}.unfinished")
    with unfinished.open("wb") as target:
        np.save(target, np.stack([samples.own.weight, samples.own.size, *[one.total for one in kinds]]))
    unfinished.replace(file)
    return MeanOfPart(str(file), tuple(map(SampleSums.of, kinds)))


def spread_of_part(task: PlacingTask) -> SpreadsOfPart:
    """The spread of the points of each placing."""
    return SpreadsOfPart(tuple(Spread.of(_points(one)) for one in task.placings))


def count_of_part(task: PlacingTask) -> CountsOfPart:
    """The counts of the points of each placing on the grid of its spread."""
    counts = []
    for one in task.placings:
        assert one.spread
        counts.append(_pack(one.spread.grid.count(_points(one))))
    return CountsOfPart(tuple(counts))


def _points(one: Placing) -> Floats:
    weight, size, *totals = np.load(one.file)
    total = totals[one.kind if len(totals) > 1 else 0]  # a part in which nothing is missing has one kind for all
    return one.sums.points(replace(one.sums.bounds, total=total, weight=weight, size=size))


def _pack(count: Floats) -> str:
    return b64encode(zlib.compress(count.tobytes(), 1)).decode()


def unpack(packed: str) -> Floats:
    """(1, nodes).

    >>> unpack(_pack(np.ones((1, 2)))).tolist()
    [[1.0, 1.0]]
    """
    return np.frombuffer(zlib.decompress(b64decode(packed))).reshape(1, -1)
