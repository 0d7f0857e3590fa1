"""How fast a rival is, measured inside its own process, without its start. Runs in the rivals' environment.

`python -m simulator.studies.rivals.speed WHAT FOLDER` prints one JSON object: rows per second by name (of a bootstrap:
seconds). Called by `bench_evaluate.py`, which writes the folder.
"""

from __future__ import annotations

import json
import sys
from collections import deque
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from simulator.studies.rivals.exchange import Arrays, Points, seconds, usual_seconds
from simulator.studies.rivals.with_coba import RECORD, CobaLog, learner
from simulator.studies.rivals.with_obp import without_torch
from simulator.studies.rivals.with_vw import ARGUMENTS, LOG

COBA_ROUNDS = 20_000
"""Of the log: it is the slowest, and its rate does not depend on the length."""


def vw(folder: Path) -> dict[str, float]:
    """Decisions a second over the text file: with our squarecb's arguments, and with the least that VW takes."""
    import vowpalwabbit  # type: ignore[import-not-found] # only in the rivals' environment

    rounds = len(Arrays.read(folder).action)
    policies = {"vw": (folder / ARGUMENTS).read_text(), "vw, no interactions": "--cb_explore_adf"}
    return {
        name: rounds / seconds(partial(vowpalwabbit.Workspace, f"-d {folder / LOG} {arguments} --quiet"))
        for name, arguments in policies.items()
    }


def coba(folder: Path) -> dict[str, float]:
    """Decisions a second of its off-policy evaluation of a learner, over interactions that are in memory."""
    from coba import CobaContext, NullLogger, SequentialCB  # type: ignore[import-not-found] # the same

    CobaContext.logger = NullLogger()
    interactions = list(islice(CobaLog(Arrays.read(folder)).read(), COBA_ROUNDS))
    evaluator = SequentialCB(RECORD, learn="off", eval="ips", seed=1)
    run = partial(evaluator.evaluate, _InMemory(interactions), learner())
    return {"coba": len(interactions) / seconds(lambda: deque(run(), maxlen=0))}


class _InMemory:
    def __init__(self, interactions: list[Any]) -> None:
        self.params: dict[str, str] = {}
        self._interactions = interactions

    def read(self) -> list[Any]:
        """All."""
        return self._interactions


def obp(folder: Path) -> dict[str, float]:
    """Rows a second of its point estimates; seconds of its bootstrap."""
    without_torch()
    from obp import ope  # type: ignore[import-not-found] # the same

    points = Points.read(folder)
    weighting = {
        "reward": points.reward,
        "action": points.action,
        "pscore": points.propensity,
        "action_dist": points.pmf[:, :, None],
    }
    modelled = {**weighting, "estimated_rewards_by_reg_model": points.predicted[:, :, None]}
    estimators = {
        "obp IPS": (ope.InverseProbabilityWeighting(), weighting),
        "obp SNIPS": (ope.SelfNormalizedInverseProbabilityWeighting(), weighting),
        "obp DR": (ope.DoublyRobust(), modelled),
    }
    rates = {
        name: len(points.action) / usual_seconds(partial(one.estimate_policy_value, **inputs))
        for name, (one, inputs) in estimators.items()
    }
    resampled = estimators["obp IPS"][0].estimate_interval
    options = {"n_bootstrap_samples": 1_000, "random_state": 1}
    return {**rates, "obp bootstrap": seconds(partial(resampled, **weighting, **options))}


if __name__ == "__main__":
    print(json.dumps({"vw": vw, "coba": coba, "obp": obp}[sys.argv[1]](Path(sys.argv[2]))))
