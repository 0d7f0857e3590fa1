"""Whether the models in a log are those of a process that never stopped: it learns the log from nothing, and stops
where each model was stored. Called by `kills`, and by the tests that kill servers.

`simulator verify` does so with each model that a decision names; here it is what a start goes on from.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from decider.experiment.definition import ExperimentVersion
from decider.learn.trainer import Trainer
from decider.log.protocol import LogReader, Mark, ModelName
from decider.policy.make import load_model
from decider.policy.protocol import Policy
from decider.types import Context, ExperimentId
from simulator.studies.ledger import DEVICES, SEGMENTS

CONTEXTS = 300
"""With which models are compared."""


class Compared(NamedTuple):
    """stored: models in the log. equal: those that choose as the ones that are learned again, to the last bit.
    learned: decisions. different: pmfs of the newest one."""

    stored: int
    equal: int
    learned: int
    different: int


def compare_models(log: LogReader, experiment: str) -> Compared:
    """Of the newest version's policy. Raises LogError."""
    version = log.versions()[-1]
    id_, spec = ExperimentId(experiment), version.experiment.policy
    fresh = Trainer(log, id_, spec)
    stored, equal, pmfs = log.models.stored_positions(id_, spec.signature), 0, set[tuple[float, ...]]()
    for position in sorted(stored):
        fresh.replay_up_to(Mark(position, log.time_at(position)))
        saved = log.models.load(ModelName(id_, position, spec.signature))
        assert saved is not None
        again = [*_pmfs(fresh.model().policy, version)]
        equal += again == [*_pmfs(load_model(spec, saved), version)]
        pmfs = set(again)
    fresh.replay_up_to(log.head().mark)
    return Compared(len(stored), equal, fresh.learned, len(pmfs))


def _pmfs(policy: Policy, version: ExperimentVersion) -> Iterator[tuple[float, ...]]:
    actions, random = version.choices_of(version.all_active, {}), Random(1)
    for number in range(CONTEXTS):
        context = Context(
            segment=random.choice(SEGMENTS), device=random.choice((*DEVICES, "new")), location=f"l{number % 30}"
        )
        yield tuple(policy.pmf(context, actions))
