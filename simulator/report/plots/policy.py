"""Which plots an evaluation gives, and the names of their files. Called by the page.

Names are untrusted and any figure may be nan or infinite: what cannot be drawn is left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from simulator.evaluate.result import LogSummary, PolicyResult
from simulator.report.plots.canvas import Plot
from simulator.report.plots.curve import curve
from simulator.report.plots.estimates import estimators, segments
from simulator.report.plots.overlap import actions, shown_actions, weights


def of_policy(result: PolicyResult, log: LogSummary, number: int) -> Iterator[Plot]:
    """One candidate's plots, those for which there are figures; one that is refused has no estimates."""
    stem = f"policy-{number}-{_slug(result.name)}"
    if not result.refused and result.estimates:
        yield estimators(result, log, stem)
    if not result.refused and result.curve and any(map(math.isfinite, result.curve.value)):
        yield curve(result.curve, result.name, log, stem)
    if result.weights and any(result.weights.counts):
        yield weights(result.weights, result.name, stem)
    if shown_actions(result.actions):
        yield actions(result.actions, result.name, stem)
    if not result.refused and result.segments:
        yield segments(result.segments, result.name, stem)


def _slug(name: str) -> str:
    """A part of a file's name that is safe everywhere."""
    return re.sub("[^a-z0-9]+", "-", name.lower())[:32].strip("-") or "unnamed"
