"""The newest decision of each action, so that a person finds one to be explained. Called by `page.py`.

It reads the newest decisions of the newest versions by an index, a bounded number of each: however long the log is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import quote

from decider.log.protocol import DecisionLine, LogReader
from decider.text import duration
from decider.types import DecisionId, ExperimentId, Time

LINES = 200
"""Decisions that are read."""

VERSIONS = 10
"""The newest, among which they are looked for."""

SHOWN = 8
"""Actions."""

MICROSECONDS = 1e6


class Latest(NamedTuple):
    """The newest decision of an action. reason: as the log has it."""

    action: str
    id: DecisionId
    address: str
    age: str
    reason: str


def latest(log: LogReader, experiment: ExperimentId, now: Time) -> list[Latest]:
    """Of the actions among the newest decisions, the newest first."""
    found: dict[str, DecisionLine] = {}
    for line in _newest(log, experiment):
        found.setdefault(line.action, line)
    return [
        Latest(action, line.decision_id, decision_address(line.decision_id), _age(line.time, now), str(line.reason))
        for action, line in [*found.items()][:SHOWN]
    ]


def _newest(log: LogReader, experiment: ExperimentId) -> Iterable[DecisionLine]:
    left = LINES
    for version in log.newest_versions(experiment, most=VERSIONS):
        lines = log.newest_decisions(version, most=left)
        yield from lines
        left -= len(lines)
        if left <= 0:
            return


def _age(time: Time, now: Time) -> str:
    return duration(max(0.0, round((now - time) / MICROSECONDS)))


def decision_address(id_: DecisionId) -> str:
    """Where a decision is explained.

    >>> decision_address(DecisionId("a/0?"))
    '/decisions/a%2F0%3F'
    """
    return f"/decisions/{quote(id_, safe='')}"
