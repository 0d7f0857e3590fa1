"""What an evaluation in parts found, as plain data: its JSON and its table are made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from simulator.evaluate.result import Diagnostics, Difference, Estimate


@dataclass(frozen=True, slots=True)
class LargePolicy:
    """One policy over all parts. diagnostics: of the first part alone, a random sample of the units.

    ess, max_weight, missing_mass: of all parts. estimates: by the estimator's name; empty, without difference, where
    the first part refused the question.
    """

    name: str
    estimand: str
    refused: bool
    headline: str
    ess: float
    max_weight: float
    missing_mass: float
    diagnostics: Diagnostics
    estimates: Mapping[str, Estimate]
    difference: Difference | None


@dataclass(frozen=True, slots=True)
class LargeEvaluation:
    """All of it. units: of all parts. checked: decisions of the first part, on which the checks ran."""

    log: str
    decisions: int
    units: int
    parts: int
    checked: int
    reward_range: tuple[float, float]
    left_out: Mapping[str, int]
    policies: tuple[LargePolicy, ...]
    seconds: float
