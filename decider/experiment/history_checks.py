"""Validates what an experiment asks of the history of units: every violation, with its field. Called by `checks.py`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from decider.errors import Violation
from decider.experiment.features import MAX_NAME
from decider.experiment.unit_history import DAY, PREFIX, REWARD_FEATURES
from decider.v1 import experiment_pb2 as pb

DEFAULT_PERIOD, SHORTEST_PERIOD, LONGEST_PERIOD = 90 * DAY, DAY // 24, 365 * DAY
DEFAULT_MOST_DECISIONS, MOST_DECISIONS = 20, 100
MOST_REWARDS = 10

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
LONGEST_REWARD = MAX_NAME - len(PREFIX) - 1 - max(map(len, REWARD_FEATURES))
"""Characters of a reward's name: its features have names, too."""


def history_violations(message: pb.Experiment) -> Iterator[Violation]:
    """What is wrong with it, by itself and beside the rest of the experiment."""
    history = message.history
    if not (history.rewards or history.decisions or history.last_action or history.last_channel):
        problem = "asks for nothing: name rewards, or set decisions, last_action or last_channel; or leave it out"
        yield Violation("history", problem)
    if history.HasField("period") and not SHORTEST_PERIOD <= history.period.ToMicroseconds() <= LONGEST_PERIOD:
        yield Violation("history.period", f"{history.period.ToMicroseconds() / 1e6:g} s is not in [1 hour, 365 days]")
    if history.most > MOST_DECISIONS:
        yield Violation("history.most", f"{history.most} is not in [1, {MOST_DECISIONS}]")
    yield from _reward_violations(message)
    for name in sorted(message.schema.features):
        if name.startswith(PREFIX):
            problem = f"a call cannot send it: names that begin with {PREFIX!r} are those of the unit's history"
            yield Violation(f"schema.features[{name[:MAX_NAME]}]", problem)


def _reward_violations(message: pb.Experiment) -> Iterator[Violation]:
    names, weights = message.history.rewards, message.reward.weights
    if len(names) > MOST_REWARDS:
        yield Violation("history.rewards", f"has {len(names)} names; at most {MOST_REWARDS} are possible")
        return
    for index, name in enumerate(names):
        path = f"history.rewards[{index}]"
        if name in names[:index]:
            yield Violation(path, f"{name[:MAX_NAME]!r} is there twice")
        if not _NAME.fullmatch(name) or len(name) > LONGEST_REWARD:
            problem = f"is not 1 to {LONGEST_REWARD} letters, digits, '-', '_' or '.'"
            yield Violation(path, f"{name[:MAX_NAME]!r} {problem}")
        elif weights and name not in weights:
            yield Violation(path, f"{name!r} never comes: reward.weights has {', '.join(sorted(weights))}")
