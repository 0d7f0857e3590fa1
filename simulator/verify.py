"""Recompute every decision of a log with the code that serves, and compare. Called by `simulator verify`.

What the server added to a context of the unit's history is read again from the entries that it had seen. The models are
not trusted either: a trainer learns the log from its beginning and stops at every position that a
decision names as its model, with the version of the learning code that made it: the decision's build says which.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from decider.decide.decide import RULES, decide, eligible_actions
from decider.errors import ArchiveDamaged, ArchiveMissing, DeciderError, LogCorrupt, UnknownCode
from decider.experiment.definition import ExperimentVersion
from decider.learn.bases import code_of
from decider.learn.rewards import rewards_of
from decider.learn.trainer import Trainer
from decider.log.evicted import EvictedPolicies
from decider.log.protocol import LoggedDecision, LogReader, Mark
from decider.policy.make import make_policy
from decider.policy.memory import PolicyMemory
from decider.policy.protocol import Model
from decider.policy.spec import PolicySpec
from decider.policy.work import ESTIMATE, Budget
from decider.types import START, ActionId, Decision, DecisionRequest, ExperimentId, History, Position, Time
from simulator.past import Past, UnitHistories, moments, request_of


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A decision that was recomputed otherwise; the names of the fields that differ, or the error."""

    logged: LoggedDecision
    recomputed: Decision | None
    what: str


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


def sources(log: LogReader) -> Mapping[Position, str]:
    """What `simulator import` wrote, by the position of its build: where that came from. No model of ours made it."""
    return {
        position: str(build["imported_from"]) for position, build in log.builds().items() if "imported_from" in build
    }


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
    for named in log.named_models(START):
        version = versions.get(named.version)  # in a damaged log there may be none
        if version is not None and version.experiment.policy.learns and named.model > START:
            code = code_of(builds.get(named.build, {}), version.experiment.policy)
            _check_model_learnable(log, _Owner(version.experiment.id, version.experiment.policy, code), named.model)


def _check_model_learnable(log: LogReader, owner: _Owner, first: Position) -> None:
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


LOGS_WITHHELD = 3
"""From this version of the rules on it is logged what was withheld."""


def _compare(
    log: LogReader, logged: LoggedDecision, models: Models, past: Past, histories: UnitHistories
) -> Mismatch | None:
    version = models.versions.get(logged.decision.version)
    if version is None:
        return Mismatch(logged, None, f"version: there is none at position {logged.decision.version}")
    owner = _Owner(version.experiment.id, version.experiment.policy, models.code(logged, version))
    if not models.published(owner, logged.decision.model):
        return Mismatch(logged, None, f"model: none was published at position {logged.decision.model}")
    try:
        context = histories.context(logged, version)
        if context is None:
            return Mismatch(logged, None, "context: no entry says from what the unit's history was read")
        restricted = version.rules or version.scheduled or version.limits
        withheld = log.withheld(logged.position) if restricted else {}
        request = request_of(logged.decision, version, withheld)._replace(context=context)
        history = past.history(logged, version, withheld)
        first = None
        for at in moments(version, logged.time) if version.scheduled else (None,):
            difference = _compare_at(logged, version, request._replace(at=at), models, history, withheld)
            if difference is None:
                return None
            first = first or difference
    except (UnknownCode, ArchiveMissing, ArchiveDamaged):
        raise
    except DeciderError as error:
        return Mismatch(logged, None, f"{type(error).__name__}: {error}")
    return first


def _compare_at(
    logged: LoggedDecision,
    version: ExperimentVersion,
    request: DecisionRequest,
    models: Models,
    history: History,
    withheld: Mapping[ActionId, str],
) -> Mismatch | None:
    """As if the request had come at that time."""
    try:
        model = models.that_served(logged, version)
        budget, rules = models.budget(logged), models.rules(logged)
        eligible = eligible_actions(version, request, history)
        recomputed = decide(request, version, model, budget=budget, rules=rules, eligible=eligible)
    except (UnknownCode, ArchiveMissing, ArchiveDamaged):
        raise
    except DeciderError as error:
        return Mismatch(logged, None, f"{type(error).__name__}: {error}")
    names = [n for n in Decision._fields if getattr(recomputed, n) != getattr(logged.decision, n)]
    if eligible.withheld != withheld and (rules >= LOGS_WITHHELD or version.limits):
        names.append(f"withheld: {dict(eligible.withheld)}, logged as {dict(withheld)}")
    return Mismatch(logged, recomputed, ", ".join(names)) if names else None


class Gaps:
    """What cannot be recomputed, since `decider forget` removed what it was computed from.

    decisions: positions of those of forgotten units. Raises LogCorrupt where the log's entries about that are damaged.
    """

    def __init__(self, log: LogReader) -> None:
        self._log = log
        self._head = Position(-1)
        self.read_news()

    def read_news(self) -> None:
        """Read the log again where it has grown."""
        head = self._log.head().position
        if head == self._head:
            return
        self._head = head
        self._versions = {version.position: version for version in self._log.versions()}
        made = self._log.removals()
        self.decisions = {position for removal in made for position in removal.decisions}
        self._sealed: dict[ExperimentId, Time] = {}
        for removal in made:
            for id_, time in removal.sealed.items():
                self._sealed[id_] = min(self._sealed.get(id_, time), time)

    def has(self, logged: LoggedDecision) -> bool:
        """Whether a decision cannot be recomputed."""
        return logged.position in self.decisions or self.has_learned(logged.decision)

    def has_learned(self, decision: Decision) -> bool:
        """Whether the decision's model has learned from contexts that are gone."""
        version = self._versions.get(decision.version)
        if not self._sealed or version is None or not version.experiment.policy.learns or decision.model == START:
            return False
        return self.has_learned_before(version.experiment.id, decision.model)

    def has_learned_before(self, experiment: ExperimentId, model: Position) -> bool:
        """Whether an experiment's model up to a position has learned from contexts that are gone."""
        sealed = self._sealed.get(experiment)
        return sealed is not None and sealed <= self._log.time_at(model)


class _Owner(NamedTuple):
    """What a model is of. code: of the learning code."""

    experiment: ExperimentId
    policy: PolicySpec
    code: int

    @property
    def key(self) -> tuple[ExperimentId, str]:
        """By which its models are found."""
        return self.experiment, self.policy.signature_of(self.code)


MEMORY = 1_000_000_000
"""Bytes of the policies in memory, at most: a log may have thousands of experiments."""


class Models:
    """Models by name. Asked in rising order of position it learns the log once for each policy spec and code."""

    def __init__(self, log: LogReader) -> None:
        self._log = log
        self._memory = PolicyMemory(MEMORY, EvictedPolicies())
        self._head = Position(-1)
        self._trainers: dict[tuple[ExperimentId, str], Trainer] = {}
        self._models: dict[tuple[ExperimentId, str], tuple[Position, Model]] = {}
        self.read_news()

    def read_news(self) -> None:
        """Read the log again where it has grown."""
        head = self._log.head().position
        if head == self._head:
            return
        self._head = head
        self._builds = self._log.builds()
        self._published: dict[tuple[ExperimentId, str], set[Position]] = {}
        self.versions = {version.position: version for version in self._log.versions()}

    def that_served(self, logged: LoggedDecision, version: ExperimentVersion) -> Model:
        """The model that a decision of this version names. Raises UnknownCode."""
        owner = _Owner(version.experiment.id, version.experiment.policy, self.code(logged, version))
        return self.at(owner, logged.decision.model)

    def code(self, logged: LoggedDecision, version: ExperimentVersion) -> int:
        """Of the learning code that made the decision's model."""
        return code_of(self._builds.get(logged.build, {}), version.experiment.policy)

    def budget(self, logged: LoggedDecision) -> Budget | None:
        """What a decision was allowed to cost; earlier builds had no limit. Raises UnknownCode and LogCorrupt."""
        named = self._builds.get(logged.build, {}).get("budget")
        if named is None:
            return None
        try:
            budget = Budget(float(named["seconds"]), int(named["estimate"]))
        except (KeyError, TypeError, ValueError) as error:
            raise LogCorrupt(f"the build at position {logged.build} has no usable budget: {named!r}") from error
        if budget.estimate != ESTIMATE:
            raise UnknownCode(f"work estimated by version {budget.estimate}, which this build does not have")
        return budget

    def rules(self, logged: LoggedDecision) -> int:
        """Version of the rules by which a decision was made; earlier builds did not name it. Raises UnknownCode and
        LogCorrupt."""
        rules = self._builds.get(logged.build, {}).get("rules", 1)
        if not isinstance(rules, int):
            raise LogCorrupt(f"the build at position {logged.build} has no usable version of the rules: {rules!r}")
        if not 1 <= rules <= RULES:
            raise UnknownCode(f"rules of version {rules}, which this build does not have")
        return rules

    def published(self, owner: _Owner, position: Position) -> bool:
        """Whether the log says that there was such a model."""
        if owner.key not in self._published:
            self._published[owner.key] = {START, *self._log.models.published_positions(*owner.key)}
        return position in self._published[owner.key]

    def at(self, owner: _Owner, position: Position) -> Model:
        """The policy as it was after learning the log up to this position. Raises UnknownCode."""
        known = self._models.get(owner.key)
        if known is not None and known[0] == position:
            return known[1]
        if not owner.policy.learns:
            model = Model(make_policy(owner.policy, code=owner.code))
        else:
            if known is None or known[0] > position:
                self._trainers[owner.key] = Trainer(
                    self._log, owner.experiment, owner.policy, code=owner.code, memory=self._memory
                )
            trainer = self._trainers[owner.key]
            if trainer.position > position:  # older than the model that was kept at the cut
                trainer.begin_with_nothing()
            if position > START:
                trainer.learn_up_to(Mark(position, self._log.time_at(position)))
            model = Model(trainer.model().policy, position)
        self._models[owner.key] = (position, model)
        self._memory.trim()
        return model
