"""What a pmf of the default policy costs for contexts that its model has not seen, without a server. Called by
`bench.py`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from random import Random

from decider.policy.make import make_policy
from decider.policy.protocol import Choice, Policy
from decider.policy.spec import PolicySpec
from decider.types import ActionId, Context
from simulator.studies.prepared import never_twice

LESSONS = 1_000
CONTEXTS = 400
ROUNDS = 10


def pmf_costs(sizes: Sequence[int], *, actions: int = 10) -> list[float]:
    """Microseconds of processor time for a context, where so many are asked for at once; the best of ROUNDS."""
    random, choices = Random(3), tuple([Choice(ActionId(f"action-{number}")) for number in range(actions)])
    policy = make_policy(PolicySpec())
    for _ in range(LESSONS):
        context, drawn = never_twice(random, ()).context, random.randrange(actions)
        policy.learn(context, choices, drawn=drawn, propensity=1 / actions, reward=float(random.random() < 0.1))
    contexts = [never_twice(random, ()).context for _ in range(CONTEXTS)]
    return [min([_cost(policy, contexts, choices, size) for _ in range(ROUNDS)]) for size in sizes]


def _cost(policy: Policy, contexts: Sequence[Context], choices: Sequence[Choice], size: int) -> float:
    serving = policy.snapshot()  # its caches are empty, as those of each new model
    begin = time.process_time()
    for at in range(0, len(contexts), size):
        if size == 1:
            serving.pmf(contexts[at], choices)
        else:
            serving.pmfs(contexts[at : at + size], choices)
    return 1e6 * (time.process_time() - begin) / len(contexts)
