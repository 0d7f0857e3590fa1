"""vw-estimators' point estimates and intervals of the fixed candidate. Runs in the rivals' environment.

Given what its authors ask for: the smallest and largest possible weight, and the range of rewards. Its intervals are
for the value, not for one of the estimators, so each stands in a row with the estimator that it belongs to. Started by
`side_by_side.py`; see `requirements.txt`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from simulator.studies.rivals.exchange import Arrays, ToolEstimate, main

ALPHA = 0.05


def rows(folder: Path) -> Iterator[ToolEstimate]:
    """One pass over the log for each estimator and its interval."""
    arrays = Arrays.read(folder)
    from estimators.bandits import (  # type: ignore[import-not-found] # only in the rivals' environment
        clopper_pearson,
        cressieread,
        cs,
        gaussian,
        ips,
        snips,
    )

    largest = float(1 / arrays.propensity.min())
    weights = {"wmin": 0.0, "wmax": largest}
    rewards = {"rmin": 0.0, "rmax": 1.0}
    pairs: tuple[tuple[str, Any, str, Any], ...] = (
        ("IPS", ips.Estimator(), "Gaussian", gaussian.Interval()),
        ("IPS", ips.Estimator(), "Clopper-Pearson", clopper_pearson.Interval(**rewards)),
        ("IPS", ips.Estimator(), "confidence sequence", cs.Interval(**rewards)),
        ("SNIPS", snips.Estimator(), "", None),
        ("Cressie-Read", cressieread.Estimator(**weights), "Cressie-Read", cressieread.Interval(**weights, **rewards)),
    )
    for name, estimator, interval_name, interval in pairs:
        low, high = (np.nan, np.nan) if interval is None else _feed(arrays, interval).get(ALPHA)
        yield ToolEstimate(
            tool="vw-estimators",
            estimator=name,
            about="fixed policy",
            value=float(_feed(arrays, estimator).get()),
            truth=arrays.truth,
            unbiased=True,
            low=float(low),
            high=float(high),
            interval=interval_name,
        )


def _feed(arrays: Arrays, one: Any) -> Any:
    """An estimator or interval that has seen the log."""
    chosen = arrays.candidate[np.arange(len(arrays.action)), arrays.action]
    for p_log, r, p_pred in zip(arrays.propensity.tolist(), arrays.reward.tolist(), chosen.tolist(), strict=True):
        one.add_example(p_log, r, p_pred)
    return one


if __name__ == "__main__":
    main(rows)
