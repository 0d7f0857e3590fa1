"""Rewards that name a unit, from the message to the entry and from the commit to the reply. Called by `feedback.py`."""

from __future__ import annotations

from decider.errors import FailedPrecondition, InvalidArgument, Violation
from decider.experiment.attribution import takes
from decider.experiment.definition import ExperimentVersion, RewardDefinition
from decider.log.protocol import LogReader, Mark, NewUnitReward, NewUnitRewardChange, UnitRewardRef
from decider.server import convert
from decider.server.convert import SentChange, SentReward
from decider.server.reward_checks import are_late, check_value, weight_of
from decider.serving.current import Current
from decider.types import DecisionId, ExperimentId, RewardOutcome

UnitEntry = NewUnitReward | NewUnitRewardChange

_WAY_OUT = "declare it (last, first or all), or name the decision"


class UnitRewards:
    """current: the experiments that serve; they say whether such rewards are taken."""

    def __init__(self, current: Current, log: LogReader) -> None:
        self._current = current
        self._log = log

    def prepare(self, sent: SentReward | SentChange) -> UnitEntry:
        """What is to be written. Raises FailedPrecondition, NotFound, InvalidArgument."""
        experiment = ExperimentId(sent.experiment) if sent.experiment else None
        if isinstance(sent, SentReward):
            self._check(experiment, sent.name, sent.value)
            return NewUnitReward(
                sent.unit_id, sent.name, sent.value, sent.reward_id, sent.occurred_at, experiment, sent.final
            )
        found = self._log.find_unit_reward(sent.unit_id, sent.reward_id)
        name = sent.name or (found.name if found else convert.DEFAULT_REWARD_NAME)
        if found and found.name != name:
            raise InvalidArgument(
                [Violation("name", f"the reward was sent as {found.name!r}; send that name, or none")]
            )
        self._check(experiment, name, sent.value)
        return NewUnitRewardChange(
            sent.unit_id, sent.reward_id, sent.value, name, sent.occurred_at, experiment, sent.final
        )

    def _check(self, experiment: ExperimentId | None, name: str, value: float | None) -> None:
        if experiment is None:
            _check_some([serving.version.experiment.reward for serving in self._current.all()], name, value)
        elif experiment not in self._current.ended:  # its last windows may still be open
            _check_one(self._current[experiment].version, name, value)

    def reply(self, entry: UnitEntry, mark: Mark | None) -> tuple[RewardOutcome, list[DecisionId]]:
        """The outcome, and the decisions that are credited."""
        found = self._find(entry, mark)
        credited = self._log.credits(found.position) if found else ()
        ids = [one.decision_id for one in credited]
        if isinstance(entry, NewUnitRewardChange):
            late = all(are_late(self._log, [(one.place, mark) for one in credited]))
            return _outcome_of_change(entry, found, mark, credited=bool(ids), late=late), ids
        if mark is None:
            return RewardOutcome.DUPLICATE, ids
        if not ids:
            return RewardOutcome.NO_DECISION, ids
        inside = [self._log.version_at(one.place.version).experiment.reward.holds(one.worth) for one in credited]
        return RewardOutcome.JOINED if any(inside) else RewardOutcome.CLIPPED, ids

    def _find(self, entry: UnitEntry, mark: Mark | None) -> UnitRewardRef | None:
        if isinstance(entry, NewUnitReward) and mark is not None:
            return UnitRewardRef(mark.position, entry.name, mark.position)
        return self._log.find_unit_reward(entry.unit, entry.reward_id) if entry.reward_id else None


def _outcome_of_change(
    change: NewUnitRewardChange, found: UnitRewardRef | None, mark: Mark | None, *, credited: bool, late: bool
) -> RewardOutcome:
    if not credited:
        # Where it was credited to something, that is archived.
        return RewardOutcome.LATE if found and found.last > found.position else RewardOutcome.NO_DECISION
    if late:
        return RewardOutcome.LATE
    if mark is None:
        return RewardOutcome.DUPLICATE
    return RewardOutcome.RETRACTED if change.value is None else RewardOutcome.CORRECTED


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


def _check_some(rewards: list[RewardDefinition], name: str, value: float | None) -> None:
    able = [reward for reward in rewards if reward.attribution is not None]
    if not able:
        raise FailedPrecondition(
            f"no experiment has reward.attribution, so rewards by unit_id are not taken; {_WAY_OUT}",
            reason="NO_ATTRIBUTION",
        )
    if not any(takes(reward, name, 0.0 if value is None else value) for reward in able):
        raise InvalidArgument(
            [
                Violation(
                    "name",
                    f"no experiment that has reward.attribution takes a reward {name!r} with this value; name one in "
                    "`experiment` to learn why",
                )
            ]
        )
