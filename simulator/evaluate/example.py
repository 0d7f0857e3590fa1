"""The two decisions of `logs/example.py`, scored and evaluated: for doctests, and to see what the pieces look like."""

from __future__ import annotations

from functools import cache

from simulator.evaluate.parse import parse
from simulator.evaluate.result import Evaluation, PolicyResult
from simulator.evaluate.run import evaluate
from simulator.evaluate.scores import Scores, score
from simulator.logs.example import example


def scores() -> Scores:
    """What `uniform` would have done.

    >>> scores().weight.round(3).tolist()
    [1.0, 0.667]
    """
    (found,) = score(example(), [parse("uniform", example())])
    return found


@cache
def evaluation() -> Evaluation:
    """`logged` and `uniform`, forced: two decisions carry nothing.

    >>> [policy.name for policy in evaluation().policies]
    ['logged', 'uniform']
    """
    return evaluate(example(), [parse(name, example()) for name in ("logged", "uniform")], force=True)


def uniform() -> PolicyResult:
    """The second of them.

    >>> uniform().estimates["ips"].value
    0.5
    """
    return evaluation().policies[1]
