"""Policies on a log: one task evaluates one of them. What they found is compared by `on_decisions.py`.

Called by its command. A task keeps the sums of its headline estimator's terms by unit. The difference of two policies
is estimated from the difference of these sums: what the two share cancels, and who comes back counts once.
"""

from __future__ import annotations

import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np

from decider.errors import DeciderError
from decider.estimate.sample import Sample
from decider.experiment.definition import Experiment
from decider.experiment.schema import from_message
from decider.experiment_files import read_toml
from decider.policy.algorithms import ALGORITHMS
from simulator.compare.paired import Floats
from simulator.compare.result import Standing, TableRow, Value, parameters_of
from simulator.evaluate.candidates import Candidate, LoggedPolicies
from simulator.evaluate.checks.leaks import set_leaks_aside
from simulator.evaluate.checks.log import log_findings
from simulator.evaluate.estimates import Estimator
from simulator.evaluate.parse import experiment_candidate, log_experiment, parse
from simulator.evaluate.result import Finding, PolicyResult
from simulator.evaluate.run import evaluate_candidate
from simulator.evaluate.scores import Scores, score
from simulator.evaluate.support import Samples, Unseen, difference_of, samples_of
from simulator.logs.columns import Columns
from simulator.logs.open import ReadOptions, open_log
from simulator.run.policies import with_policy
from simulator.run.versions import state, version_of_policy

LOGGED = "logged"
ALGORITHM_NAMES = ("default", *[name for name, one in ALGORITHMS.items() if one.learns])
"""Names accepted besides those of `parse.py`: an algorithm, on the log's actions."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A log and how to read it, as on the command line. See `ReadOptions`."""

    log: str
    experiment: str | None = None
    columns: tuple[str, ...] = ()
    mapping: Path | None = None
    reward_range: tuple[float, float] | None = None
    skip_bad: bool = False
    empty_reward: float | Literal["drop"] | None = None
    actions: tuple[str, ...] | int | None = None
    version: tuple[int, ...] = ()
    since: str = ""
    until: str = ""
    archive: tuple[Path, ...] = ()
    rewards: tuple[tuple[str, float], ...] = ()

    @property
    def options(self) -> ReadOptions:
        """For `open_log`."""
        return ReadOptions(
            experiment=self.experiment,
            columns=self.columns,
            mapping=self.mapping,
            reward_range=self.reward_range or None,
            skip_bad=self.skip_bad,
            empty_reward=self.empty_reward,
            actions=self.actions,
            version=self.version,
            since=self.since,
            until=self.until,
            archive=self.archive,
            rewards=self.rewards,
        )


@dataclass(frozen=True, slots=True)
class LogTask:
    """A policy is evaluated on a log. delayed: what learns sees rewards when the log did."""

    reading: Reading
    policy: str
    delayed: bool = True


@dataclass(frozen=True, slots=True)
class Sums:
    """Of the headline's terms, by unit. packed: (3, units) of float64: totals, weights, decisions; packed with zlib.

    unseen: (2, units), likewise: what actions that the log cannot show add at least and at most; empty for nothing.
    low, high, idle: what one term can be at least and at most, and where its weight is 0. possible_weight: the largest
    one. decisions: a name for the decisions that these are of.
    """

    packed: str
    low: float
    high: float
    idle: tuple[float, float]
    possible_weight: float
    decisions: str
    unseen: str = ""

    @property
    def arrays(self) -> Floats:
        """(3, units)."""
        return _unpack(self.packed).reshape(3, -1)

    @property
    def added(self) -> Unseen | None:
        """What missing actions may add, by unit."""
        return Unseen(*_unpack(self.unseen).reshape(2, -1)) if self.unseen else None


def _pack(*arrays: Floats) -> str:
    return b64encode(zlib.compress(np.array(arrays, np.float64).tobytes(), 1)).decode()


def _unpack(packed: str) -> Floats:
    return np.frombuffer(zlib.decompress(b64decode(packed)))


@dataclass(frozen=True, slots=True)
class LogResult:
    """What a task found, or why it found nothing. sums: None where the log cannot carry it."""

    result: PolicyResult | None
    sums: Sums | None
    reward_range: tuple[float, float] = (0.0, 1.0)
    failed: str = ""


def try_evaluate(task: LogTask) -> LogResult:
    """Evaluate one policy as `simulator evaluate` does. Equal tasks have equal results while the log is the same."""
    try:
        columns, findings = _read(task.reading)
        one = candidate(task.policy, columns, delayed=task.delayed)
        (scores,) = score(columns, [one])
        result = evaluate_candidate(one, scores, findings=findings, force=False)
        return LogResult(result, sums_of(one, scores, columns) if _carries(result) else None, columns.reward_range)
    except (OSError, MemoryError):
        raise
    except DeciderError as error:
        return LogResult(None, None, failed=str(error))
    except Exception as error:  # somebody's own policy
        return LogResult(None, None, failed=f"{type(error).__name__}: {error}")


@lru_cache(maxsize=1)
def _read(reading: Reading) -> tuple[Columns, tuple[Finding, ...]]:
    columns = set_leaks_aside(open_log(reading.log, reading.options))
    return columns, tuple(log_findings(columns))


def candidate(name: str, columns: Columns, *, delayed: bool) -> Candidate:
    """As `parse` does; besides, algorithms by their name and files that hold only a policy, on the log's actions.

    >>> from simulator.logs.example import example
    >>> candidate("squarecb:gamma_scale=100", example(), delayed=True).estimand
    'progressive learner'
    """
    experiment = _experiment(name, columns)
    if experiment is None:
        return parse(name, columns, delayed=delayed)
    return experiment_candidate(name, experiment, columns, delayed=delayed)


def parameters(name: str, columns: Columns) -> dict[str, Value]:
    """All parameters that a policy of this name has there, its defaults, too.

    >>> from simulator.logs.example import example
    >>> parameters("softmax:lambda=3", example())["softmax.lambda"]
    3.0
    """
    return parameters_of(name, _experiment(name, columns))


def _experiment(name: str, columns: Columns) -> Experiment | None:
    """What is served under the name; None where it is no policy of the server's."""
    if name.endswith(".toml"):
        message = read_toml(Path(name))
        return from_message(message) if message.actions else with_policy(name, log_experiment(columns))
    return with_policy(name, log_experiment(columns)) if name.partition(":")[0] in ALGORITHM_NAMES else None


def version_of(task: LogTask) -> str:
    """All that a result depends on besides the task: code, the log's and the policy's files.

    >>> version_of(LogTask(Reading("clicks.csv"), "uniform")) == version_of(LogTask(Reading("clicks.csv"), "uniform"))
    True
    """
    reading = task.reading
    files = [
        reading.log,
        *map(str, reading.archive),
        str(reading.mapping or ""),
        task.policy.partition(":")[2].partition("@")[0],
    ]
    return f"{version_of_policy(task.policy)}, {state(*files)}"


def _carries(result: PolicyResult) -> bool:
    return not result.refused and bool(result.estimates) and result.headline in ("dr", "ips")


def sums_of(one: Candidate, scores: Scores, columns: Columns) -> Sums:
    """What is kept of a candidate, so that it can be compared with others. columns: the whole log.

    >>> from simulator.evaluate.candidates import UniformPolicy
    >>> from simulator.evaluate.example import scores
    >>> sums_of(UniformPolicy(), scores(), scores().columns).arrays.round(2).tolist()  # totals, weights, decisions
    [[1.0, 0.33], [1.0, 0.67], [1.0, 1.0]]
    """
    estimator = Estimator(scores)
    samples, unseen = estimator.samples(estimator.terms), estimator.terms.unseen
    sample = samples.own
    idle = sample.idle or (sample.low, sample.high)
    bounds = (sample.low, sample.high, idle)
    if isinstance(one, LoggedPolicies):  # its terms are the rewards
        bounds = (*estimator.value_range, estimator.value_range)
    rows = one.rows(columns)
    decisions = "all" if rows is None or rows.all() else blake2b(np.packbits(rows).tobytes(), digest_size=8).hexdigest()
    packed = _pack(sample.total, sample.weight, sample.size)
    added = unseen and unseen.sums(scores.columns.units)
    beyond = _pack(added.low, added.high) if added else ""
    return Sums(packed, *bounds, possible_weight=sample.max_weight, decisions=decisions, unseen=beyond)


def difference(one: Sums, other: Sums) -> Samples:
    """One less the other by unit; the weights of `one` are the control, whose mean is known to be 1."""
    total, weight, size = one.arrays
    idle = (one.idle[0] - other.high, one.idle[1] - other.low)
    low, high = one.low - other.high, one.high - other.low
    sample = Sample(total - other.arrays[0], weight, size, low, high, one.possible_weight, idle=idle)
    return samples_of(sample, difference_of(one.added, other.added))


def row(task: LogTask, found: LogResult, given: Mapping[str, Value]) -> TableRow:
    """One line of the table."""
    line: dict[str, Value] = {"log": task.reading.log, "policy": task.policy, **given, "delayed": task.delayed}
    if found.result is not None:
        line |= _figures(found.result)
    return line | {"failed": found.failed or None}


def _figures(result: PolicyResult) -> dict[str, Value]:
    line: dict[str, Value] = {
        "estimand": result.estimand,
        "decisions": result.decisions,
        "verdict": result.diagnostics.verdict,
        "refused": result.refused,
        "ess": result.diagnostics.ess,
        "effective_successes": result.diagnostics.effective_successes,
        "estimator": result.headline,
    }
    estimate, logged = result.estimates.get(result.headline), result.difference
    if estimate:
        line |= {"reward": estimate.value, "reward_low": estimate.low, "reward_high": estimate.high}
    if logged:
        line |= {"more_than_logged": logged.value}
        line |= {"more_than_logged_low": logged.low, "more_than_logged_high": logged.high}
    return line


def standing(name: str, found: LogResult, given: Mapping[str, Value]) -> Standing:
    """One policy in the table; what is refused is named with its reasons, and has no figure."""
    if found.result is None:
        return Standing(name, "", given, None, trouble=f"failed: {found.failed}")
    result = found.result
    beside = {"ess": result.diagnostics.ess, "effective_successes": result.diagnostics.effective_successes}
    if result.refused:
        reasons = " ".join(result.diagnostics.reasons)
        return Standing(name, result.estimand, given, None, beside, f"refused, this log cannot answer it: {reasons}")
    estimate = result.estimates.get(result.headline)
    if found.sums is None:
        return Standing(name, result.estimand, given, estimate, beside, "has no propensities to be compared by")
    return Standing(name, result.estimand, given, estimate, beside)


def on_same_decisions(found: Mapping[str, LogResult], reference: str) -> dict[str, Sums]:
    """Those that can be compared with the reference: on the same decisions. Empty where the reference cannot be."""
    sums = {name: one.sums for name, one in found.items() if one.sums}
    if reference not in sums:
        return {}
    return {name: one for name, one in sums.items() if one.decisions == sums[reference].decisions}


def note_other_decisions(standings: Sequence[Standing], compared: Mapping[str, Sums], reference: str) -> list[Standing]:
    """Those that have an estimate, but on other decisions than the reference, say so."""
    text = f"is evaluated on other decisions than {reference}, so it is not compared with it"
    apart = [one.estimate is not None and not one.trouble and one.name not in compared for one in standings]
    return [replace(one, trouble=text) if alone else one for one, alone in zip(standings, apart, strict=True)]
