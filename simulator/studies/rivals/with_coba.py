"""coba's off-policy evaluators. Runs in the rivals' environment, see `requirements.txt`.

Used as its notebook "Logged Bandit Data" does: `SequentialCB(learn='off', eval='ips' | 'dr' | 'dm')` with
`VowpalEpsilonLearner(features=[1, 'a', 'ax'])`, and `RejectionCB`; the interval is its own `StdErrCI`. The fixed
candidate is a learner that looks up its action and learns nothing. Every learner notes the pmfs that it was asked
for, since its truth depends on them. Started by `side_by_side.py` and `bench_evaluate.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simulator.studies.rivals.exchange import About, Arrays, Floats, ToolEstimate, main

EVALUATORS = ("ips", "dr", "dm")
RECORD = ["reward"]
"""Nothing else, so that its IPS reads the learner's probability instead of a draw."""


class CobaLog:
    """The log as coba's environment: contexts are the categories as texts and the numbers."""

    def __init__(self, arrays: Arrays) -> None:
        self.params: dict[str, str] = {}
        self._arrays = arrays

    def read(self) -> Iterator[Any]:
        """Its interactions, in the order of the log."""
        from coba import LoggedInteraction  # type: ignore[import-not-found] # only in the rivals' environment

        arrays = self._arrays
        actions = names(arrays)
        facts = zip(
            contexts(arrays), arrays.action.tolist(), arrays.reward.tolist(), arrays.propensity.tolist(), strict=True
        )
        for context, action, reward, propensity in facts:
            yield LoggedInteraction(context, actions[action], reward, probability=propensity, actions=actions)


class Lookup:
    """The fixed candidate as coba's learner."""

    def __init__(self, arrays: Arrays) -> None:
        self.params: dict[str, str] = {}
        chosen = arrays.candidate.argmax(axis=1).tolist()
        self._chosen = {_key(one): action for one, action in zip(contexts(arrays), chosen, strict=True)}

    def score(self, context: Mapping[str, Any], actions: Sequence[str], action: str) -> float:
        """Probability of the action."""
        return float(actions[self._chosen[_key(context)]] == action)

    def predict(self, context: Mapping[str, Any], actions: Sequence[str]) -> tuple[str, float]:
        """The action and its probability."""
        return actions[self._chosen[_key(context)]], 1.0

    def learn(self, *args: object, **kwargs: object) -> None:
        """Nothing."""


def contexts(arrays: Arrays) -> Iterator[dict[str, Any]]:
    """One by one, by the names of their features."""
    for codes, numbers in zip(arrays.codes.tolist(), arrays.numbers.tolist(), strict=True):
        categories = {f"category-{row}": f"value-{code}" for row, code in enumerate(codes)}
        yield {**categories, **{f"number-{row}": number for row, number in enumerate(numbers)}}


def names(arrays: Arrays) -> list[str]:
    """Of the actions."""
    return [f"action-{number}" for number in range(arrays.candidate.shape[1])]


def _key(context: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(context.values())


def learner() -> Any:
    """VW's epsilon-greedy learner with coba's default epsilon, as in the notebook."""
    from coba import VowpalEpsilonLearner

    return VowpalEpsilonLearner(features=[1, "a", "ax"])


def rows(folder: Path) -> Iterator[ToolEstimate]:
    """Both candidates with every evaluator."""
    from coba import CobaContext, NullLogger, RejectionCB, SequentialCB

    arrays = Arrays.read(folder)
    CobaContext.logger = NullLogger()
    for kind in EVALUATORS:
        outcomes = SequentialCB(RECORD, learn=None, eval=kind, seed=1).evaluate(CobaLog(arrays), Lookup(arrays))
        settings = f"learn=None, eval={kind!r}"
        yield _row(kind.upper(), "fixed policy", _rewards(outcomes), arrays.truth, settings)
    for kind in EVALUATORS:
        evaluator = SequentialCB(RECORD, learn="off", eval=kind, seed=1)
        values, pmfs = _watched(arrays, evaluator)
        settings = f"learn='off', eval={kind!r}"
        yield _row(kind.upper(), "learning policy", values, arrays.earned(pmfs), settings)
    values, pmfs = _watched(arrays, RejectionCB(seed=1))
    yield _row("rejection", "learning policy", values, arrays.earned(pmfs), "RejectionCB()")


def _watched(arrays: Arrays, evaluator: Any) -> tuple[list[float], Floats]:
    """The rewards that it reports, and (n, actions): the pmf that the learner had at each interaction of the log."""
    watched = learner()
    inner, pmfs = watched._pmf, []

    def noted(context: Any, actions: Any) -> Any:
        pmf, extra = inner(context, actions)
        pmfs.append(pmf)
        return pmf, extra

    watched._pred._pmfcall = noted
    values = _rewards(evaluator.evaluate(CobaLog(arrays), watched))
    return values, np.array(pmfs)


def _rewards(outcomes: Any) -> list[float]:
    return [outcome["reward"] for outcome in outcomes]


def _row(estimator: str, about: About, values: list[float], truth: float, settings: str) -> ToolEstimate:
    from coba import StdErrCI

    value, (below, above) = StdErrCI().point_interval(values)
    return ToolEstimate(
        tool="coba",
        estimator=estimator,
        about=about,
        value=float(value),
        truth=truth,
        unbiased=estimator in ("IPS", "DR"),
        settings=settings,
        low=float(value - below),
        high=float(value + above),
        interval="normal",
    )


if __name__ == "__main__":
    main(rows)
