"""What the experiments of one server may take together: their number, their definitions, and learners that have to stay
in memory. Called by `versions.py` before a version is appended.

A limit that was lowered ends nothing, and what does not grow is never refused: a pause always goes through.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from sys import getsizeof
from typing import Any

from decider.errors import LimitReached
from decider.experiment.definition import Experiment, ExperimentVersion
from decider.experiment.schema import to_message
from decider.policy.memory import FIXED_BYTES
from decider.serving.lineup import Lineup
from decider.types import Features, Position

MEMORY = 1_000_000_000
"""Bytes of memory of a process, by default."""

DEFINITIONS_SHARE, FIXED_SHARE = 0.2, 0.15
"""Of the memory, what definitions and learners that cannot be evicted may take. Policies as a whole have a share of
their own, see `server/process.py`."""

LARGEST_DEFINITION = 3 * 2**20
"""Bytes as a message, by default."""

ACTION_BYTES = 600
"""Of an action without features and payload: measured."""


@dataclass(frozen=True, slots=True)
class Limits:
    """experiments: most that have not ended. memory: bytes of the process, of which definitions and learners have a
    share. definition: bytes of one as a message."""

    experiments: int = 1_000
    memory: int = MEMORY
    definition: int = LARGEST_DEFINITION


def largest_definition(reply: int) -> int:
    """Bytes that one definition may have where replies have so many, so that every reply with it has room.

    >>> largest_definition(4_000_000)
    3000000
    """
    return reply * 3 // 4


class LimitChecker:
    """Checks new versions. It remembers how large definitions are."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._sizes: dict[Position, int] = {}

    def check(self, experiment: Experiment, lineup: Lineup) -> None:
        """Raises LimitReached where this version would be too much."""
        others = [one.newest for id_, one in lineup.items() if id_ != experiment.id and not one.newest.experiment.ended]
        known = lineup.get(experiment.id)
        before = known.newest if known and not known.newest.experiment.ended else None
        if not experiment.ended:
            self._check_number(experiment, before, len(others))
            self._check_definition(experiment, before)
            self._check_definitions(experiment, before, others)
            self._check_learners(experiment, before, others)

    def _check_number(self, experiment: Experiment, before: ExperimentVersion | None, others: int) -> None:
        if before is None and others >= self._limits.experiments:
            raise LimitReached(
                f"experiment {experiment.id!r} would be one too many: {others} have not ended, and this server takes "
                f"{self._limits.experiments}; end some (state ENDED) or raise --max-experiments",
                reason="TOO_MANY_EXPERIMENTS",
            )

    def _check_definition(self, experiment: Experiment, before: ExperimentVersion | None) -> None:
        size = to_message(experiment).ByteSize()
        if size > self._limits.definition and (before is None or size > to_message(before.experiment).ByteSize()):
            raise LimitReached(
                f"experiment {experiment.id!r} has {size} bytes as a message, and {self._limits.definition} are "
                "possible, so that replies with it fit; shorten payloads (an address in place of what is there), or "
                "raise --max-reply-bytes",
                reason="DEFINITION_TOO_LARGE",
            )

    def _check_definitions(
        self, experiment: Experiment, before: ExperimentVersion | None, others: list[ExperimentVersion]
    ) -> None:
        most = int(DEFINITIONS_SHARE * self._limits.memory)
        size = definition_bytes(experiment)
        if before is not None and size <= self._size(before):
            return
        total = size + sum(map(self._size, others))
        if total > most:
            raise LimitReached(
                f"experiment {experiment.id!r} takes {size} bytes of memory, and with it the definitions of all that "
                f"have not ended would take {total} of {most}; end some (state ENDED), shorten payloads, or raise "
                "--memory",
                reason="TOO_MANY_EXPERIMENTS",
            )

    def _size(self, version: ExperimentVersion) -> int:
        if len(self._sizes) > 2 * self._limits.experiments:
            self._sizes.clear()  # of versions that are gone, mostly
        size = self._sizes.get(version.position)
        if size is None:
            size = self._sizes[version.position] = definition_bytes(version.experiment)
        return size

    def _check_learners(
        self, experiment: Experiment, before: ExperimentVersion | None, others: list[ExperimentVersion]
    ) -> None:
        most = int(FIXED_SHARE * self._limits.memory) // FIXED_BYTES
        if experiment.policy.resumable or (before is not None and not before.experiment.policy.resumable):
            return
        if sum(not other.experiment.policy.resumable for other in others) >= most:
            raise LimitReached(
                f"experiment {experiment.id!r} would be one too many with a policy that has to stay in memory (bag, "
                f"rnd): this server takes {most}; take another policy, end some (state ENDED), or raise --memory",
                reason="TOO_MANY_EXPERIMENTS",
            )


def definition_bytes(experiment: Experiment) -> int:
    """What the definition takes in memory, about.

    >>> from decider.experiment.definition import Action
    >>> from decider.types import ActionId, ExperimentId
    >>> 600 < definition_bytes(Experiment(ExperimentId("e"), (Action(ActionId("a")),) * 10)) / 10 < 900
    True
    """
    rules = experiment.schema.rules.values() if experiment.schema is not None else ()
    return sum(
        ACTION_BYTES + _bytes(action.payload) + 2 * _flat_bytes(action.features) for action in experiment.actions
    ) + sum(ACTION_BYTES + sum(map(getsizeof, rule.values)) for rule in rules)


def _flat_bytes(features: Features) -> int:
    """Of up to 100,000 features in all, so nothing is called for each but `getsizeof`."""
    return getsizeof(features) + sum(map(getsizeof, features)) + sum(map(getsizeof, features.values()))


def _bytes(value: Any) -> int:
    if isinstance(value, Mapping):
        return getsizeof(value) + sum([getsizeof(name) + _bytes(item) for name, item in value.items()])
    if isinstance(value, list):
        return getsizeof(value) + sum(map(_bytes, value))
    return getsizeof(value)
