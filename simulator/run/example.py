"""A small worked example of what `simulator run` finds: read by doctests and tests."""

from __future__ import annotations

from functools import cache

from simulator.run.result import REFERENCES, WorldRuns, summarize, summarize_reference, tasks_of
from simulator.run.task import run


@cache
def example_result() -> WorldRuns:
    """Two seeds of 200 visits: the three references, and two policies; one learns.

    >>> [policy.name for policy in example_result().policies]
    ['uniform', 'best single action', 'best', 'default', 'fixed:sale']
    """
    names = {"default": True, "fixed:sale": False}
    runs = [run(task) for task in tasks_of("storefront", list(names), seeds=[1, 2], rounds=200, delayed=True)]
    of = {name: [one for one in runs if one.task.policy == name] for name in names}
    return WorldRuns(
        world="storefront",
        line="A line about it.",
        fitted="",
        rounds=200,
        seeds=(1, 2),
        delayed=True,
        policies=(
            *[summarize_reference(name, of["default"]) for name in REFERENCES],
            *[summarize(name, of[name], learns=learns) for name, learns in names.items()],
        ),
        seconds=0.5,
    )
