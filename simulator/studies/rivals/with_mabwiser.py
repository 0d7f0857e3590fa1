"""MABWiser's `Simulator` on the log. Runs in the rivals' environment, see `requirements.txt`.

It evaluates its own bandits only. Offline: fitted on the independent sample, then asked about the log. Online: fitted
on the log's first 70 % (its default split), then it learns in batches from the rest. Its default evaluator counts the
logged reward where the bandit chose the logged action, and otherwise the mean reward of the chosen action in the
training data. It gives no interval. Started by `side_by_side.py`.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simulator.studies.rivals.exchange import About, Arrays, Codes, Floats, ToolEstimate, main

BATCH = 500
TEST = 0.3
SEED = 1
SETTINGS = "its LinUCB, alpha 0.1"


@dataclass(frozen=True, slots=True)
class History:
    """What the simulator is given; the last `test` rows are evaluated."""

    matrix: Floats
    action: Codes
    reward: Floats
    test: int


def rows(folder: Path) -> Iterator[ToolEstimate]:
    """LinUCB, as in its examples, with both kinds of simulation."""
    arrays = Arrays.read(folder)
    joined = History(
        matrix=np.concatenate([arrays.sample_matrix, arrays.matrix]),
        action=np.concatenate([arrays.sample_action, arrays.action]),
        reward=np.concatenate([arrays.sample_reward, arrays.reward]),
        test=len(arrays.action),
    )
    log = History(arrays.matrix, arrays.action, arrays.reward, test=round(TEST * len(arrays.action)))
    yield _simulate(arrays, joined, "Simulator, offline", "fixed policy", batch=0)
    yield _simulate(arrays, log, f"Simulator, online, batches of {BATCH}", "learning policy", batch=BATCH)


def _simulate(arrays: Arrays, history: History, estimator: str, about: About, *, batch: int) -> ToolEstimate:
    from mabwiser.mab import MAB, LearningPolicy  # type: ignore[import-not-found] # only in the rivals' environment
    from mabwiser.simulator import Simulator  # type: ignore[import-not-found] # the same

    actions = arrays.candidate.shape[1]
    with contextlib.redirect_stderr(io.StringIO()):
        bandit = MAB(arms=list(range(actions)), learning_policy=LearningPolicy.LinUCB(alpha=0.1), seed=SEED)
        simulator = Simulator(
            bandits=[("LinUCB", bandit)],
            decisions=history.action,
            rewards=history.reward,
            contexts=history.matrix,
            test_size=history.test / len(history.action),
            is_ordered=True,
            batch_size=batch,
            seed=SEED,
            is_quick=True,
        )
        simulator.run()
    stats = simulator.bandit_to_arm_to_stats_avg["LinUCB"]
    by_action = stats["total"] if batch else stats
    chosen = np.array(simulator.bandit_to_predictions["LinUCB"])
    tested = arrays.means[-history.test :]
    return ToolEstimate(
        tool="MABWiser",
        estimator=estimator,
        about=about,
        value=sum(one["sum"] for one in by_action.values() if one["count"]) / history.test,
        truth=float(tested[np.arange(history.test), chosen].mean()),
        unbiased=False,
        settings=SETTINGS,
    )


if __name__ == "__main__":
    main(rows)
