"""The models from which learning and replay go on behind a cut. Called by `archive.py` beside it and by `verify`.

Every model that a decision behind the cut names must be learned again without what lies before it, and so must what
serves and what waits. For each owner of models the smallest of these positions is its base.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from decider.errors import FailedPrecondition, UnknownCode
from decider.experiment.definition import ExperimentVersion
from decider.learn.trainer import Trainer
from decider.log.protocol import Base, CuttableLog, Mark, ModelName
from decider.policy.spec import PolicySpec
from decider.serving.lineup import Lineup
from decider.types import START, ExperimentId, Position, Time

FIRST_CODE = 1
"""Of logs whose decisions do not name their build: there was no other."""


def code_of(build: Mapping[str, Any], policy: PolicySpec) -> int:
    """The version of the learning code by which a build made a policy's models."""
    return int(build.get("codes", {}).get(policy.algorithm, FIRST_CODE))


@dataclass(frozen=True, slots=True)
class Need:
    """Models of an owner that are needed behind a cut. code: of the learning code. at_most: the smallest position that
    a decision names; None where none does."""

    version: ExperimentVersion
    code: int
    at_most: Position | None = None

    @property
    def experiment(self) -> ExperimentId:
        """Of the models."""
        return self.version.experiment.id

    @property
    def policy(self) -> PolicySpec:
        """Of the models."""
        return self.version.experiment.policy

    @property
    def signature(self) -> str:
        """Of the models."""
        return self.policy.signature_of(self.code)


def needs(log: CuttableLog, cut: Position) -> list[Need]:
    """The owners of models that decisions behind the cut name, or that serve or wait; each once."""
    found: dict[tuple[ExperimentId, str], Need] = {}
    for need in (*_named(log, cut), *_serving(log)):
        known = found.setdefault((need.experiment, need.signature), need)
        positions = [one.at_most for one in (known, need) if one.at_most is not None]
        found[need.experiment, need.signature] = Need(known.version, known.code, min(positions, default=None))
    return [need for need in found.values() if need.policy.learns]


def _named(log: CuttableLog, cut: Position) -> Iterator[Need]:
    builds = log.builds()
    for named in log.named_models(cut):
        version = log.version_at(named.version)
        yield Need(version, code_of(builds.get(named.build, {}), version.experiment.policy), named.model)


def _serving(log: CuttableLog) -> Iterator[Need]:
    lineup = Lineup(log)
    lineup.follow(log.follow(START))
    for rollout in lineup.values():
        for version in (rollout.serving, rollout.newest):
            # Where it can, an experiment that has ended goes on from its base, if it is begun again.
            if version.experiment.policy.resumable or not rollout.newest.experiment.ended:
                yield Need(version, version.experiment.policy.code)


def refuse_impossible(log: CuttableLog, cut: Position, needed: list[Need]) -> None:
    """Raises FailedPrecondition for a policy that cannot go on from a saved model, UnknownCode for decisions of a
    release that is not this one."""
    archived = log.count_archived(cut)
    for need in needed:
        if not archived.get(need.experiment):
            continue
        if not need.policy.resumable:
            raise FailedPrecondition(
                f"nothing was archived, of no experiment: experiment {need.experiment!r} has decisions with policy "
                f"{need.policy.algorithm}, which cannot go on from a stored model and so needs the whole log; either "
                "give it another policy, and archiving goes on once all of its decisions with the old one are older "
                "than --before; or serve it from a log of its own, by another server with another --db",
                reason="POLICY_NEEDS_WHOLE_LOG",
            )
        if need.code > need.policy.code:
            raise UnknownCode(
                f"experiment {need.experiment!r} has decisions by a newer release than this one (learning code "
                f"{need.code}); archive with that release"
            )


def make_base(log: CuttableLog, need: Need) -> Base:
    """Learn and store an owner's base; the one before stays where it is the same."""
    settled = log.settled_model(need.experiment, need.signature, need.at_most)
    before = log.models.base(need.experiment, need.signature)
    if before is not None and before.name.position >= settled.position:
        return before
    name = ModelName(need.experiment, settled.position, need.signature)
    if settled.position == START:
        return Base(name, Time(0), "")
    return _learn_base(log, need, name, settled)


def _learn_base(log: CuttableLog, need: Need, name: ModelName, mark: Mark) -> Base:
    trainer = Trainer(log, need.experiment, need.policy, code=need.code)
    try:
        trainer.replay_up_to(mark)
        saved = trainer.save()
    finally:
        trainer.close()
    log.store_base(name, saved)
    return Base(name, mark.time, saved.checksum)
