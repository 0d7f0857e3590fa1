"""A small worked comparison: read by doctests and tests."""

from __future__ import annotations

from functools import cache

from simulator.compare.on_world import compare, parameters, try_run
from simulator.compare.result import ComparisonResult
from simulator.run.result import tasks_of
from simulator.worlds.registry import find

NAMES = ("uniform", "default", "best")


@cache
def example_result() -> ComparisonResult:
    """Three policies, three seeds of 100 visits of the storefront.

    >>> [one.name for one in example_result().standings][0]
    'best'
    """
    world = find("storefront")
    tasks = tasks_of("storefront", NAMES, seeds=range(3), rounds=100, delayed=False)
    runs = {name: [try_run(task) for task in tasks if task.policy == name] for name in NAMES}
    policies = {name: parameters(name, world) for name in NAMES}
    return compare(world, policies, runs, reference="uniform", every_pair=False)
