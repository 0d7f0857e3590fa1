"""Recompute every decision of a log with the code that serves, and compare. Called by `simulator verify`.

What the server added to a context of the unit's history is read again from the entries that it had seen. The models are
not trusted either: a trainer learns the log from its beginning and stops at every position that a
decision names as its model, with the version of the learning code that made it: the decision's build says which.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from decider.errors import ArchiveDamaged, ArchiveMissing
from decider.learn.bases import code_of
from decider.learn.rewards import rewards_of
from decider.log.protocol import LoggedDecision, LogReader
from decider.replay.gaps import Gaps, sources
from decider.replay.models import Models, Owner
from decider.replay.past import Past, UnitHistories
from decider.replay.recompute import Mismatch, compare
from decider.types import START, Position, Time


@dataclass(frozen=True, slots=True)
class Verification:
    """Of the decisions that could be recomputed; first: the difference with the lowest position.

    forgotten: decisions of forgotten units, whose ids and perhaps contexts are gone. unlearned: decisions by models
    that have learned from such contexts. imported: decisions that another system drew, by where they came from.
    unrecalled: decisions whose unit's history lies in an archive, in part or whole: what the context says of it was
    taken as logged.
    """

    decisions: int
    equal: int
    first: Mismatch | None
    forgotten: int = 0
    unlearned: int = 0
    imported: Mapping[str, int] = field(default_factory=dict)
    unrecalled: int = 0


def verify(log: LogReader, *, on_decision: Callable[[], None] = lambda: None) -> Verification:
    """Recompute everything; `on_decision` is called after each.

    Raises UnknownCode for decisions by a version of learning code that this build does not have; ArchiveMissing,
    ArchiveDamaged and LogCorrupt before anything begins, where what a model learned from cannot be read.
    """
    _check_learnable(log)
    models, gaps, imports, past, histories = Models(log), Gaps(log), sources(log), Past(log), UnitHistories(log)
    imported: Counter[str] = Counter()
    decisions = equal = forgotten = unlearned = 0
    first: Mismatch | None = None
    for position in log.versions_with_decisions():
        for logged in _decisions(log, position, models, gaps):
            on_decision()
            if logged.build in imports:
                imported[imports[logged.build]] += 1
                continue
            difference = None if gaps.has(logged) else _compare(log, logged, models, past, histories)
            if difference:
                gaps.read_news()  # `decider forget` may run meanwhile, and the trainer have read what it left
            if logged.position in gaps.decisions or (difference and histories.lost_something(logged)):
                forgotten += 1
            elif gaps.has_learned(logged.decision):
                unlearned += 1
            else:
                decisions += 1
                equal += difference is None
                if difference and (first is None or logged.position < first.logged.position):
                    first = difference
    return Verification(decisions, equal, first, forgotten, unlearned, imported, histories.unread)


def _check_learnable(log: LogReader) -> None:
    builds = log.builds()
    versions = {version.position: version for version in log.versions()}
    for id_ in {version.experiment.id for version in versions.values() if version.experiment.policy.learns}:
        log.leave_outs(id_)
    for named in log.named_models(START):
        version = versions.get(named.version)  # in a damaged log there may be none
        if version is not None and version.experiment.policy.learns and named.model > START:
            code = code_of(builds.get(named.build, {}), version.experiment.policy)
            _check_model_learnable(log, Owner(version.experiment.id, version.experiment.policy, code), named.model)


def _check_model_learnable(log: LogReader, owner: Owner, first: Position) -> None:
    """first: the smallest position of a model that is to be learned. The trainer goes on from a base before it."""
    base = log.models.base(*owner.key) if owner.policy.resumable else None
    if base is not None and base.name.position > START:
        log.models.load_base(base)
    goes_on = base is not None and base.name.position <= first
    try:
        after = base.time if base is not None and goes_on else Time(0)
        log.check_archive(owner.experiment, after=after, late=rewards_of(owner.policy.relearned).late)
    except (ArchiveMissing, ArchiveDamaged) as error:
        raise type(error)(
            f"experiment {owner.experiment!r}: its policy {owner.policy.algorithm} learned from archived decisions "
            f"that cannot be read: {error}"
        ) from error


def _decisions(log: LogReader, version: Position, models: Models, gaps: Gaps) -> Iterator[LoggedDecision]:
    """Of a version, as the log is now. What they name may be newer than what was read for the version before."""
    read = False
    for logged in log.decisions(version):
        if not read:
            models.read_news()
            gaps.read_news()
            read = True
        yield logged


def _compare(
    log: LogReader, logged: LoggedDecision, models: Models, past: Past, histories: UnitHistories
) -> Mismatch | None:
    version = models.versions.get(logged.decision.version)
    if version is None:
        return Mismatch(logged, None, f"version: there is none at position {logged.decision.version}")
    owner = models.owner(logged, version)
    if not models.published(owner, logged.decision.model):
        return Mismatch(logged, None, f"model: none was published at position {logged.decision.model}")
    return compare(
        log,
        logged,
        version,
        build=models.build(logged),
        model=partial(models.at, owner, logged.decision.model),
        histories=histories,
        history=partial(past.history, logged, version),
    )
