"""Rewards that name a unit, from the message to the entry and from the commit to the reply. Called by `feedback.py`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from decider.errors import FailedPrecondition, InvalidArgument, PermissionDenied, UndeclaredReward, Violation
from decider.experiment.attribution import MOST_CREDITED, knows, takes
from decider.experiment.definition import Attribution, ExperimentVersion
from decider.log.protocol import DirectReward, LogReader, Mark, NewUnitReward, NewUnitRewardChange, UnitRewardRef
from decider.server import convert
from decider.server.convert import SentChange, SentReward
from decider.server.reward_checks import are_late, check_value, no_weight, weight_of
from decider.server.roles import ALL, Rights
from decider.serving.current import Current
from decider.types import ANY_NAME, DecisionId, ExperimentId, RewardOutcome, same_name

UnitEntry = NewUnitReward | NewUnitRewardChange

MOST_TOLD = 10
"""Credited decisions that a reply names: one of a batch has to fit into a message, however long their ids are."""

_WAY_OUT = "declare it (last, first or all), or name the decision"


class UnitRewards:
    """current: the experiments that serve; they say whether such rewards are taken."""

    def __init__(self, current: Current, log: LogReader) -> None:
        self._current = current
        self._log = log

    def prepare(self, sent: SentReward | SentChange, rights: Rights = ALL) -> UnitEntry:
        """What is to be written. Raises FailedPrecondition, NotFound, InvalidArgument, PermissionDenied."""
        experiment = ExperimentId(sent.experiment) if sent.experiment else None
        if rights.experiments is not None:
            self._check_rights(sent, experiment, rights)
        if isinstance(sent, SentChange):
            return self._prepare_change(sent, experiment)
        self._check(sent.unit_id, experiment, sent.name, sent.value)
        return NewUnitReward(
            sent.unit_id, sent.name, sent.value, sent.reward_id, sent.occurred_at, experiment, sent.final
        )

    def _check_rights(self, sent: SentReward | SentChange, experiment: ExperimentId | None, rights: Rights) -> None:
        """Whether nothing is meant but an experiment of the caller's. Raises PermissionDenied."""
        if experiment is None:
            rights.check_all("experiment: without it a reward by unit is for every experiment; name one")
        rights.check(sent.experiment)
        found = self._log.find_unit_reward(sent.unit_id, sent.reward_id) if sent.reward_id else None
        if found is not None and found.experiment != experiment:
            raise PermissionDenied(
                f"reward_id: it belongs to a reward that {rights.name!r} may not use; take a new id",
                reason="OTHER_EXPERIMENT",
            )

    def _prepare_change(self, sent: SentChange, experiment: ExperimentId | None) -> NewUnitRewardChange:
        """Under the name of the reward that is changed; under its own where that reward has not come yet."""
        found = self._log.find_unit_reward(sent.unit_id, sent.reward_id)
        named: Sequence[DirectReward] = () if found else self._log.by_decision(sent.unit_id, sent.reward_id, experiment)
        names = [found.name] if found else [one.name for one in named]
        name = sent.name or (names[0] if names else self._name_of_missing(sent.unit_id, experiment))
        if found:
            self._check_found(found, sent, experiment)
        elif named:
            self._check_named(named, name, sent.value)
        else:
            # Taken back before it came: it counts nothing, whatever its name will be.
            self._check(sent.unit_id, experiment, name if sent.value is not None else sent.name or None, sent.value)
        return NewUnitRewardChange(
            sent.unit_id, sent.reward_id, sent.value, name, sent.occurred_at, experiment, sent.final
        )

    def _check_named(self, named: Sequence[DirectReward], name: str, value: float | None) -> None:
        """Each one's version says whether the new value is right. Raises InvalidArgument, RewardOutOfRange."""
        for one in named:
            if value is not None and one.name == name:
                check_value(self._log.version_at(one.place.version), value, one.weight)

    def _check_found(self, found: UnitRewardRef, sent: SentChange, experiment: ExperimentId | None) -> None:
        """By the versions of the decisions that are credited, whatever serves now."""
        if sent.name and not same_name(sent.name, found.name):
            raise InvalidArgument([_other_name(found)])
        credited = self._log.credits(found.position)
        versions = [self._log.version_at(one.place.version) for one in credited]
        if found.name == ANY_NAME and sent.value is not None and any(v.experiment.reward.weights for v in versions):
            raise InvalidArgument([no_weight(sent.reward_id)])
        if experiment is not None:
            _check_experiment(experiment, found, {one.experiment.id for one in versions})
        if sent.value is not None and versions and not _any_takes(versions, found.name, sent.value):
            check_value(versions[0], sent.value, weight_of(versions[0], found.name))

    def _name_of_missing(self, unit: str, experiment: ExperimentId | None) -> str:
        """Of a reward that is changed before it came, where the change names none: the only one that can be meant."""
        able = [one.experiment.reward for one in [*self._serving(experiment), *self._open(unit, experiment)]]
        names = {name for one in able if one.attribution is not None for name in one.weights or (ANY_NAME,)}
        return names.pop() if len(names) == 1 else ANY_NAME

    def _check(self, unit: str, experiment: ExperimentId | None, name: str | None, value: float | None) -> None:
        """Whether such a reward may be credited: as what serves says, or the versions of the unit's open decisions. No
        name: any may be meant."""
        if experiment in self._current.ended:  # its last windows may still be open
            return
        serving = self._serving(experiment)
        if not (_any_takes(serving, name, value) or _any_takes(self._open(unit, experiment), name, value)):
            _refuse(serving, experiment, name or convert.DEFAULT_REWARD_NAME, value)

    def _serving(self, experiment: ExperimentId | None) -> Sequence[ExperimentVersion]:
        if experiment is None:
            return [serving.version for serving in self._current.all()]
        return [] if experiment in self._current.ended else [self._current[experiment].version]

    def _open(self, unit: str, experiment: ExperimentId | None) -> Sequence[ExperimentVersion]:
        """The versions of the unit's open decisions: what they said about rewards holds until their windows end."""
        return [one.version for one in self._log.open_decisions(unit, experiment)]

    def rows(self, entry: UnitEntry) -> int:
        """How many entries it writes, about, at most."""
        rules = [one.experiment.reward.attribution for one in self._named(entry.experiment)]
        credited = [MOST_CREDITED if rule is Attribution.ALL else 1 for rule in rules if rule is not None]
        return 1 + (sum(credited) or MOST_CREDITED)

    def _named(self, experiment: ExperimentId | None) -> Iterable[ExperimentVersion]:
        versions = [serving.version for serving in self._current.all()]
        return [one for one in versions if experiment in (None, one.experiment.id)]

    def reply(
        self, entry: UnitEntry, mark: Mark | None, rights: Rights = ALL
    ) -> tuple[RewardOutcome, list[DecisionId]]:
        """The outcome, and the newest decisions that are credited, as far as they are for the caller."""
        found = self._find(entry, mark)
        credited = self._log.credits(found.position) if found else ()
        if rights.experiments is not None:
            credited = [one for one in credited if rights.sees(self._log.version_at(one.place.version).experiment.id)]
        ids = [one.decision_id for one in credited[-MOST_TOLD:]]
        if isinstance(entry, NewUnitRewardChange):
            named = [one for one in self._named_decision(entry) if one.is_changed_by(entry)]
            ids = (ids + [one.decision_id for one in named])[-MOST_TOLD:]
            places = [one.place for one in credited] + [one.place for one in named]
            late = all(are_late(self._log, [(place, mark) for place in places]))
            return _outcome_of_change(entry, found, mark, credited=bool(ids), late=late), ids
        if mark is None:
            named = [one for one in self._named_decision(entry) if same_name(one.name, entry.name)]
            return RewardOutcome.DUPLICATE, (ids + [one.decision_id for one in named])[-MOST_TOLD:]
        if not ids:
            return RewardOutcome.NO_DECISION, ids
        inside = [self._log.version_at(one.place.version).experiment.reward.holds(one.worth) for one in credited]
        return RewardOutcome.JOINED if any(inside) else RewardOutcome.CLIPPED, ids

    def _named_decision(self, entry: UnitEntry) -> Sequence[DirectReward]:
        """The rewards with its id that the page has sent for a decision."""
        return self._log.by_decision(entry.unit, entry.reward_id, entry.experiment) if entry.reward_id else ()

    def _find(self, entry: UnitEntry, mark: Mark | None) -> UnitRewardRef | None:
        if isinstance(entry, NewUnitReward) and mark is not None:
            return UnitRewardRef(mark.position, entry.name, mark.position, entry.experiment)
        return self._log.find_unit_reward(entry.unit, entry.reward_id) if entry.reward_id else None


def _outcome_of_change(
    change: NewUnitRewardChange, found: UnitRewardRef | None, mark: Mark | None, *, credited: bool, late: bool
) -> RewardOutcome:
    if found is None and not credited:
        return RewardOutcome.DUPLICATE  # it has come for a decision
    if found is not None and not credited:
        # Where it was credited to something, that is archived.
        return RewardOutcome.LATE if found.last > found.position else RewardOutcome.NO_DECISION
    if late:
        return RewardOutcome.LATE
    if mark is None:
        return RewardOutcome.DUPLICATE
    return RewardOutcome.RETRACTED if change.value is None else RewardOutcome.CORRECTED


def _other_name(found: UnitRewardRef) -> Violation:
    return Violation("name", f"the reward was sent as {found.name!r}; send that name, or none")


def _check_experiment(experiment: ExperimentId, found: UnitRewardRef, credited: Collection[ExperimentId]) -> None:
    """Whether a change that names an experiment means all of the reward. Raises InvalidArgument."""
    others = {*credited, found.experiment or experiment} - {experiment}
    if others:
        raise InvalidArgument(
            [
                Violation(
                    "experiment",
                    f"the reward counts in {', '.join(map(repr, sorted(others)))}, too; leave experiment out: a change "
                    "holds wherever the reward was credited"
                    if found.experiment is None
                    else f"the reward was sent for {found.experiment!r}; send that, or none",
                )
            ]
        )


def _any_takes(versions: Iterable[ExperimentVersion], name: str | None, value: float | None) -> bool:
    """Whether one of them takes such a reward by unit. No name: any; no value: it is taken back."""
    rewards = [version.experiment.reward for version in versions]
    if name is None:
        return any(reward.attribution is not None for reward in rewards)
    return any(knows(reward, name) if value is None else takes(reward, name, value) for reward in rewards)


def _refuse(
    serving: Sequence[ExperimentVersion], experiment: ExperimentId | None, name: str, value: float | None
) -> None:
    """Raise an error that says why: none of these takes it."""
    if experiment is not None:
        _check_one(serving[0], name, value)
    if all(version.experiment.reward.attribution is None for version in serving):
        raise FailedPrecondition(
            f"no experiment has reward.attribution, so rewards by unit_id are not taken; {_WAY_OUT}",
            reason="NO_ATTRIBUTION",
        )
    known = any(knows(version.experiment.reward, name) for version in serving)
    raise (InvalidArgument if known else UndeclaredReward)(
        [
            Violation(
                "name",
                f"no experiment that has reward.attribution takes a reward {name!r} with this value; name one in "
                "`experiment` to learn why",
            )
        ]
    )


def _check_one(version: ExperimentVersion, name: str, value: float | None) -> None:
    if version.experiment.reward.attribution is None:
        raise FailedPrecondition(
            f"experiment {version.experiment.id!r} has no reward.attribution, so it takes no rewards by unit_id; "
            f"{_WAY_OUT}",
            reason="NO_ATTRIBUTION",
        )
    weight = weight_of(version, name)
    if value is not None:
        check_value(version, value, weight)
