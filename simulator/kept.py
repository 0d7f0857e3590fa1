"""Compares what a log has kept of its archived entries with the archive. Called by `simulator verify --archive`.

A log alone can only say that its models at the cut and its totals are still those that were written. With the archive
they are computed again, from the first entry on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from decider.experiment.definition import ExperimentVersion
from decider.learn.bases import FIRST_CODE, code_of
from decider.learn.trainer import Trainer
from decider.log.protocol import Base, Damage, LogReader, Mark, TotalsCheckpoint
from decider.log.totals import LabelTotals
from decider.policy.make import load_model
from decider.policy.protocol import Choice, Policy
from decider.policy.saved import SavedModel
from decider.policy.spec import PolicySpec
from decider.replay.gaps import Gaps
from decider.types import START, Context, ExperimentId, Position, Time

COMPARED = 200
"""Logged contexts on which a model is compared that may be saved with other bytes."""

SAME_BYTES = ("thompson",)
"""Algorithms whose model has one form; Vowpal Wabbit's bytes also depend on how often it was saved and loaded."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose model is kept. code: of the learning code."""

    experiment: ExperimentId
    policy: PolicySpec
    code: int


@dataclass(frozen=True, slots=True)
class ComparedBase:
    """A model that the log has kept at the cut. forgotten: it cannot be learned again, since contexts were removed."""

    base: Base
    equal: bool
    forgotten: bool = False


def compare_bases(live: LogReader, whole: LogReader) -> Iterator[ComparedBase]:
    """Learn each model that is kept at the cut again, from the first decision on. whole: with the archive.

    Raises LogCorrupt, ModelMismatch where a kept model cannot be read.
    """
    gaps = Gaps(whole)
    for owner, base in _bases(live):
        if START < base.name.position <= whole.head().position:
            if gaps.has_learned_before(owner.experiment, base.name.position):
                yield ComparedBase(base, equal=False, forgotten=True)
            else:
                yield ComparedBase(base, _is_equal(owner, base, live.models.load_base(base), whole))


def _bases(live: LogReader) -> Iterator[tuple[Owner, Base]]:
    """Each once, with whose it is."""
    builds = list(live.builds().values())
    seen: set[tuple[ExperimentId, str]] = set()
    for version in live.versions():
        id_, policy = version.experiment.id, version.experiment.policy
        for code in {FIRST_CODE, policy.code, *[code_of(build, policy) for build in builds]}:
            key = id_, policy.signature_of(code)
            base = None if key in seen else live.models.base(*key)
            seen.add(key)
            if base is not None:
                yield Owner(id_, policy, code), base


def _is_equal(owner: Owner, base: Base, kept: SavedModel, whole: LogReader) -> bool:
    trainer = Trainer(whole, owner.experiment, owner.policy, code=owner.code)
    try:
        trainer.replay_up_to(Mark(base.name.position, base.time))
        saved = trainer.save()
        if saved == kept or owner.policy.algorithm in SAME_BYTES:
            return saved == kept
        return _predict_the_same(trainer.model().policy, load_model(owner.policy, kept, owner.code), owner, whole)
    finally:
        trainer.close()


def _predict_the_same(learned: Policy, kept: Policy, owner: Owner, whole: LogReader) -> bool:
    versions = [version for version in whole.versions() if version.experiment.id == owner.experiment]
    return all(
        learned.pmf(context, choices) == kept.pmf(context, choices)
        for version in versions
        for context, choices in _questions(version, whole)
    )


def _questions(version: ExperimentVersion, whole: LogReader) -> Iterator[tuple[Context, Sequence[Choice]]]:
    for logged in islice(whole.decisions(version.position), COMPARED):
        decision = logged.decision
        yield decision.context, version.choices_of(decision.eligible, decision.action_features)


def compare_totals(live: LogReader, whole: LogReader) -> Iterator[Damage]:
    """Count the stored totals again, from the first entry on."""
    for stored in _checkpoints(live, whole.head().mark):
        counted = whole.totals(Mark(START, Time(0)), stored.mark)
        totals = LabelTotals()
        totals.add(counted, whole.experiment_ids(counted.versions()))
        if not totals.agrees_with(LabelTotals.from_json(stored.content), forgotten=bool(whole.removals())):
            position = stored.mark.position
            yield Damage(position, position, "the totals stored there are not those of the log and its archive")


def _checkpoints(live: LogReader, until: Mark) -> Iterable[TotalsCheckpoint]:
    """Those that can be used, the newest first."""
    stored = live.totals_checkpoint(until)
    while stored is not None:
        yield stored
        stored = live.totals_checkpoint(Mark(Position(stored.mark.position - 1), until.time))
