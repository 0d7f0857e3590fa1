"""Policies on a world: tasks, what they found, which differences over seeds are real. Called by its command."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from decider.decide.slots import SLOTS
from decider.errors import DeciderError
from simulator.compare.paired import Floats, all_pairs, paired
from simulator.compare.result import (
    LEVEL,
    ComparisonResult,
    Family,
    ShareCurve,
    Standing,
    TableRow,
    Value,
    parameters_of,
    rank,
)
from simulator.evaluate.result import Estimate
from simulator.load_policy import BadPolicy
from simulator.run.policies import LearningPolicy, find_policy, with_policy
from simulator.run.result import KNOWN, LEARNS, Band, band
from simulator.run.task import Run, Task, run, share_of_lift
from simulator.worlds.world import World

SHARE = "share of the attainable lift"
REWARD = "reward/visit"

ONE_SEED = "One seed says nothing about chance, so no difference is called real: run more seeds (--seeds 10)."


@dataclass(frozen=True, slots=True)
class WorldResult:
    """A run, or why there is none: one policy that fails must not end the others."""

    run: Run | None
    failed: str = ""


def try_run(task: Task) -> WorldResult:
    """What `run` gives. Equal tasks have equal results.

    >>> try_run(Task("storefront", "best", seed=1, rounds=10)).failed
    ''
    """
    try:
        return WorldResult(run(task))
    except (OSError, MemoryError):
        raise
    except BadPolicy as error:  # somebody's own policy; its name stands beside
        cause = error.__cause__ or error
        return WorldResult(None, f"{type(cause).__name__}: {cause}")
    except DeciderError as error:
        return WorldResult(None, str(error))
    except Exception as error:
        return WorldResult(None, f"{type(error).__name__}: {error}")


def parameters(name: str, world: World) -> dict[str, Value]:
    """All parameters that a policy of this name has there, its defaults, too. Raises as `find_policy` does.

    >>> from simulator.worlds.registry import find
    >>> found = parameters("softmax:floor=0.01", find("storefront"))
    >>> found["algorithm"], found["softmax.lambda"], found["interactions"], found["minimum_propensity"]
    ('softmax', 100.0, 'CA', 0.01)
    """
    find_policy(name, world)  # raises what there is to say
    return parameters_of(name, with_policy(name, world.experiment))


def row(task: Task, found: WorldResult, given: Mapping[str, Value]) -> TableRow:
    """One line of the table. Every figure is a mean over the visits of this seed.

    >>> task = Task("storefront", "best", seed=1, rounds=10)
    >>> row(task, try_run(task), {"algorithm": "best"})["share_of_lift"]
    1.0
    """
    line: dict[str, Value] = {"world": task.world, "policy": task.policy, **given, "seed": task.seed}
    line |= {"rounds": task.rounds, "delayed": task.delayed}
    if found.run is not None:
        line |= _figures(found.run)
    return line | {"failed": found.failed or None}


def _figures(one: Run) -> dict[str, Value]:
    sums = {
        "reward": one.earned,
        "drawn_reward": one.got,
        "best_reward": one.best,
        "uniform_reward": one.uniform,
        "single_action_reward": one.fixed,
        "best_action_share": one.right,
    }
    share = one.share()
    means: dict[str, Value] = {name: sum_[-1] / one.rounds[-1] for name, sum_ in sums.items()}
    return {"share_of_lift": None if np.isnan(share) else share, **means}


def compare(
    world: World,
    policies: Mapping[str, Mapping[str, Value]],
    runs: Mapping[str, Sequence[WorldResult]],
    *,
    reference: str,
    every_pair: bool,
) -> ComparisonResult:
    """policies: the parameters of each, by name; runs: what it did, seed by seed, in the same order for all."""
    whole = {name: [one.run for one in found if one.run] for name, found in runs.items()}
    complete = [name for name in policies if len(whole[name]) == len(runs[name])]
    tasks = [one.task for found in whole.values() for one in found]
    figures = {REWARD: _rewards, SHARE: _shares}
    values = {figure: {name: of(whole[name]) for name in complete} for figure, of in figures.items()}
    lift = all(np.isfinite(one).all() for one in values[SHARE].values())
    order = [SHARE, REWARD] if lift else [REWARD]
    learns = {name: isinstance(find_policy(name, world), LearningPolicy) for name in policies}
    standings = [
        _standing(
            name, policies[name], runs[name], {figure: values[figure].get(name) for figure in order}, learns[name]
        )
        for name in policies
    ]
    seeds = max(map(len, runs.values()))
    families = [_family(figure, values[figure], reference, every_pair=False) for figure in order]
    if every_pair:
        families.append(_family(order[0], values[order[0]], reference, every_pair=True))
    return ComparisonResult(
        subject=world.name,
        line=world.line,
        figure=order[0],
        conditions=_conditions(world, tasks, seeds),
        reference=reference,
        standings=rank(standings),
        families=tuple([one for one in families if one.comparisons]),
        curves=tuple([_curve(name, whole[name]) for name in complete]) if lift else (),
        notes=_notes(reference, complete, seeds=seeds, lift=lift),
    )


def _rewards(runs: Sequence[Run]) -> Floats:
    return np.array([one.earned[-1] / one.rounds[-1] for one in runs])


def _shares(runs: Sequence[Run]) -> Floats:
    return np.array([one.share() for one in runs])


def _standing(
    name: str,
    given: Mapping[str, Value],
    found: Sequence[WorldResult],
    values: Mapping[str, Floats | None],
    learns: bool,
) -> Standing:
    estimand = LEARNS if learns else KNOWN
    failed = [one.failed for one in found if one.run is None]
    if failed:
        trouble = f"failed at {len(failed)} of {len(found)} seeds, so it is not compared: {failed[0]}"
        return Standing(name, estimand, given, None, trouble=trouble)
    highest = {SHARE: 1.0}
    bands = {
        figure: band(one, highest=highest.get(figure, math.inf)) for figure, one in values.items() if one is not None
    }
    first, *others = bands
    beside = {figure: bands[figure].mean for figure in others}
    return Standing(name, estimand, given, _estimate(bands[first]), beside)


def _estimate(one: Band) -> Estimate:
    low, high = (float("nan") if end is None else end for end in (one.low, one.high))
    return Estimate(one.mean, low, high, "Student's t over seeds")


def _family(figure: str, values: Mapping[str, Floats], reference: str, *, every_pair: bool) -> Family:
    names, seeds = list(values), max((len(one) for one in values.values()), default=0)
    many = f"{seeds} seeds" if seeds > 1 else "one seed"
    how = f"paired by seed over {many}; simultaneous {100 * LEVEL:g} % confidence intervals"
    if len(names) < 2 or reference not in names:
        return Family(figure, how, ())
    matrix = _rounded(np.array([values[name] for name in names]))
    if every_pair:
        return Family(figure, f"every pair, {how}", tuple(all_pairs(matrix, names, level=LEVEL)))
    return Family(figure, how, tuple(paired(matrix, names, reference=names.index(reference), level=LEVEL)))


def _rounded(values: Floats) -> Floats:
    """To the step of the sampler, a millionth: two policies that only round otherwise are the same."""
    step = max(float(np.abs(values).max()), 1e-300) / SLOTS
    return np.asarray(np.round(values / step) * step)


def _conditions(world: World, tasks: Sequence[Task], seeds: int) -> str:
    fitted = f" The world's means are fitted to {world.fitted}: they are no truth." if world.fitted else ""
    if not tasks:
        return f"No run ended well.{fitted}"
    learned = "when their window ends" if tasks[0].delayed else "at once"
    many = f"{tasks[0].rounds:,} visits x {seeds} seed{'s' * (seeds > 1)}"
    return f"Estimand: {LEARNS}; {many}; rewards are learned {learned}.{fitted}"


def _curve(name: str, runs: Sequence[Run]) -> ShareCurve:
    earned, best, uniform = (np.array([getattr(one, sums) for one in runs]) for sums in ("earned", "best", "uniform"))
    share = share_of_lift(earned, best=best, uniform=uniform).mean(axis=0)
    return ShareCurve(name, tuple(runs[0].rounds), tuple(share.tolist()))


def _notes(reference: str, complete: Sequence[str], *, seeds: int, lift: bool) -> tuple[str, ...]:
    notes = [ONE_SEED] if seeds < 2 else []
    if not lift:
        notes.append("At some seed there is no lift to attain, so rewards are compared.")
    if reference not in complete:
        notes.append(f"{reference} failed, so nothing is compared with it; name another one: --against NAME.")
    return tuple(notes)
