"""Open Bandit Pipeline's estimators of the fixed candidate. Runs in the rivals' environment, see `requirements.txt`.

Used as its quickstart does: `OffPolicyEvaluation` with a `RegressionModel` over scikit-learn's logistic regression,
which is fitted and asked on the same rows unless it is told otherwise; and at its best, as in its examples: with
gradient boosting, cross-fitted. Intervals by its bootstrap. Started by `side_by_side.py`.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np

from simulator.studies.rivals.exchange import Arrays, Floats, ToolEstimate, main

RESAMPLES = 1_000
FOLDS = 3
SEED = 1
LAMBDAS = [1.0, 3.0, 10.0, 30.0, 100.0, np.inf]
"""What the tuned estimators choose from: weights here are 0, 1.2 or 50."""

SAME_ROWS = "logistic regression, fitted on the same rows"


def rows(folder: Path) -> Iterator[ToolEstimate]:
    """Every estimator that applies to one log, one deterministic policy and true propensities."""
    arrays = Arrays.read(folder)
    without_torch()
    from obp import ope  # type: ignore[import-not-found] # only in the rivals' environment
    from sklearn.ensemble import HistGradientBoostingClassifier  # type: ignore[import-not-found] # the same
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-not-found] # the same

    logistic, boosting = LogisticRegression(max_iter=10_000), HistGradientBoostingClassifier(random_state=SEED)
    weighting = {
        "IPW": (ope.InverseProbabilityWeighting(), True),
        "SNIPW": (ope.SelfNormalizedInverseProbabilityWeighting(), True),
        "replay": (ope.ReplayMethod(), False),
    }
    modelled = {
        "DM": (ope.DirectMethod(), False),
        "DR": (ope.DoublyRobust(), True),
        "SNDR": (ope.SelfNormalizedDoublyRobust(), True),
        "Switch-DR, SLOPE": (ope.SwitchDoublyRobustTuning(lambdas=LAMBDAS), False),
        "DRos, SLOPE": (ope.DoublyRobustWithShrinkageTuning(lambdas=LAMBDAS), False),
    }
    in_sample = {name: (modelled[name][0], False) for name in ("DM", "DR")}
    yield from _estimate(arrays, weighting, None, "")
    yield from _estimate(arrays, in_sample, _predict(arrays, logistic, 1), SAME_ROWS)
    yield from _estimate(arrays, modelled, _predict(arrays, boosting, FOLDS), f"gradient boosting, {FOLDS} folds")
    yield from _replay(arrays)


def without_torch() -> None:
    """obp imports torch for its neural policies. No estimator uses it, so a stand-in is enough.

    Checked: with torch 2.13.0 every row is the same to the last digit.

    >>> before = set(sys.modules)
    >>> without_torch()
    >>> import torch.nn as nn
    >>> for name in set(sys.modules) - before: del sys.modules[name]
    """
    torch: Any = MagicMock()
    torch.Tensor = type("Tensor", (), {})
    torch.utils.data.Dataset = object
    for name in ("torch", "torch.nn", "torch.nn.functional", "torch.optim", "torch.utils", "torch.utils.data"):
        sys.modules[name] = torch


def _feedback(arrays: Arrays) -> dict[str, Any]:
    return {
        "n_rounds": len(arrays.action),
        "n_actions": arrays.candidate.shape[1],
        "context": arrays.matrix[:, 1:],
        "action": arrays.action.astype(int),
        "reward": arrays.reward,
        "pscore": arrays.propensity,
        "position": None,
    }


def _predict(arrays: Arrays, model: object, folds: int) -> Floats:
    """(n, actions, 1): its model's mean rewards."""
    from obp.ope import RegressionModel  # type: ignore[import-not-found] # only in the rivals' environment

    feedback = _feedback(arrays)
    regression = RegressionModel(n_actions=feedback["n_actions"], base_model=model)
    return np.asarray(
        regression.fit_predict(
            context=feedback["context"],
            action=feedback["action"],
            reward=feedback["reward"].astype(int),
            n_folds=folds,
            random_state=SEED,
        )
    )


def _estimate(
    arrays: Arrays, estimators: dict[str, tuple[Any, bool]], predicted: Floats | None, settings: str
) -> Iterator[ToolEstimate]:
    from obp.ope import OffPolicyEvaluation

    for name, (estimator, unbiased) in estimators.items():
        evaluation = OffPolicyEvaluation(bandit_feedback=_feedback(arrays), ope_estimators=[estimator])
        inputs = {"action_dist": arrays.candidate[:, :, None], "estimated_rewards_by_reg_model": predicted}
        (value,) = evaluation.estimate_policy_values(**inputs).values()
        (bounds,) = evaluation.estimate_intervals(**inputs, n_bootstrap_samples=RESAMPLES, random_state=SEED).values()
        yield ToolEstimate(
            tool="obp",
            estimator=name,
            about="fixed policy",
            value=float(value),
            truth=arrays.truth,
            unbiased=unbiased,
            settings=settings,
            low=float(bounds["95.0% CI (lower)"]),
            high=float(bounds["95.0% CI (upper)"]),
            interval="bootstrap",
        )


def _replay(arrays: Arrays) -> Iterator[ToolEstimate]:
    """Its replay of a policy that learns: what it says instead of running (0.5.10 calls the module tqdm)."""
    from obp.policy import LinUCB  # type: ignore[import-not-found] # only in the rivals' environment
    from obp.simulator.replay import run_bandit_replay  # type: ignore[import-not-found] # the same

    policy = LinUCB(dim=arrays.matrix.shape[1] - 1, n_actions=arrays.candidate.shape[1], epsilon=0.1, random_state=SEED)
    try:
        run_bandit_replay(bandit_feedback=_feedback(arrays), policy=policy)
    except TypeError as error:
        yield ToolEstimate(
            tool="obp",
            estimator="replay",
            about="learning policy",
            value=math.nan,
            truth=math.nan,
            unbiased=False,
            settings="run_bandit_replay, LinUCB",
            failure=f"TypeError: {error}",
        )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(rows)
