"""What an experiment's page lets people change, where the operator allows it: the forms that the templates write and
`server/http/changes.py` takes. Called by `page.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from decider.errors import DeciderError
from decider.experiment.definition import Experiment
from decider.learn.versions import learner
from decider.log.protocol import LogReader
from decider.page.words import moment
from decider.types import ExperimentId, Position

MODELS = 40
"""Stored models that can be chosen, the newest ones."""

Deed = Literal["pause", "resume", "rollback"]
"""What can be done."""


class StoredModel(NamedTuple):
    """One that had learned up to a position."""

    position: Position
    when: str


@dataclass(frozen=True, slots=True)
class Controls:
    """seen: the newest change that the page knows of; a form that knows less is refused. turn: pause or resume."""

    seen: Position
    turn: Deed
    effect: str
    models: list[StoredModel]


PAUSE = "Calls for a decision are refused from then on, so callers show what they show without an answer. Rewards are "
PAUSE += "still taken."
RESUME = "Decisions are made again."
END_FALLBACK = "The policy decides again. Guardrails are judged by what comes from then on."


def controls(log: LogReader, newest: Experiment, seen: Position) -> Controls | None:
    """Of the newest version; None where it has ended."""
    if newest.ended:
        return None
    turn: Deed = "resume" if newest.paused or newest.fallback is not None else "pause"
    effect = RESUME if newest.paused else END_FALLBACK if newest.fallback is not None else PAUSE
    return Controls(seen, turn, effect, _models(log, newest.id, newest))


def _models(log: LogReader, id_: ExperimentId, newest: Experiment) -> list[StoredModel]:
    try:
        signature = learner(id_, newest).policy.signature
    except DeciderError:  # it learns nothing: there is no older model
        return []
    positions = log.models.stored_positions(id_, signature)[-MODELS:]
    return [StoredModel(one, moment(log.time_at(one))) for one in reversed(positions) if one]
