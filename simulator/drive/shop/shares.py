"""The shop's places as the log has them: which action the newest visitors got. Called by `port.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

from decider.experiment.definition import Experiment
from decider.log.protocol import DecisionLine, LogReader
from decider.types import ExperimentId
from simulator.drive.shop.crowd import RUN
from simulator.drive.shop.places import PLACES

NEWEST = 200
"""Decisions whose shares are shown."""

VERSIONS = 5
"""The newest, among which they are looked for."""


def shares(log: LogReader) -> dict[str, Any]:
    """By experiment: what the newest visitors got, and how many decisions and visits of persons there are."""
    experiments = [place.experiment() for place in PLACES]
    return {experiment.id: _shares_of(log, experiment) for experiment in experiments}


def _shares_of(log: LogReader, experiment: Experiment) -> dict[str, Any]:
    lines = list(islice(_newest(log, experiment.id), NEWEST))
    counts = Counter(line.action for line in lines)
    return {
        "decisions": log.count_decisions(experiment.id),
        "persons": sum(not line.decision_id.startswith(RUN) for line in lines),
        "newest": len(lines),
        "actions": {action.id: counts[action.id] / len(lines) if lines else 0.0 for action in experiment.actions},
    }


def _newest(log: LogReader, experiment: ExperimentId) -> Iterator[DecisionLine]:
    for version in log.newest_versions(experiment, most=VERSIONS):
        yield from log.newest_decisions(version, most=NEWEST)
