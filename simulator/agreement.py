"""How far an apprentice agrees with the actions that were served in its place, and what it could have earned.

For every decision of an apprentice its policy is asked again, as it was then: the model that the decision names is
learned again, as `verify` does, and compared by the code that serves (`decide/agreement.py`). Called by
`simulator agreement`.

Such a log has one action for each context, so what the others earn cannot be estimated from it: no weight stands for an
action of probability 0, and a reward model would only guess. What holds all the same are bounds, with the lowest and
the highest possible reward where the policy would do something else (Manski, American Economic Review 1990).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from decider.decide.agreement import Agreement, agreement_of
from decider.errors import DeciderError
from decider.estimate.default_interval import default_interval
from decider.estimate.mean import Interval
from decider.estimate.sample import Floats, Units
from decider.experiment.aggregate import final_reward
from decider.experiment.definition import ExperimentVersion
from decider.log.protocol import LoggedDecision, LogReader, SealedDecision
from decider.replay.gaps import Gaps
from decider.replay.models import Models
from decider.replay.past import request_of
from decider.types import ActionId, ExperimentId, Position, Reason, Time
from simulator.logs.versions import differences

OPEN, NOT_ACTIVATED, OVERRIDDEN = "window open", "not activated", "overridden"
"""Decisions that are compared, and of which no reward is known."""

OTHER_VERSIONS, FORGOTTEN, FAILED = "in versions with another reward", "of forgotten units", "policy failed or too dear"
"""Decisions of an apprentice that are not compared."""


class NoApprentice(DeciderError):
    """The log has no decision of an apprentice."""

    reason = "NO_APPRENTICE"


class Compared(NamedTuple):
    """A decision and what the policy would have done. person: equal where units are linked. reward: None where it is
    not known, for a reason that the report counts."""

    position: Position
    person: str
    action: ActionId
    agreement: Agreement
    reward: float | None


class Shares(NamedTuple):
    """Of some decisions: how many they are, the mean probability of what was served, and how often that was the
    policy's most probable action."""

    decisions: int
    expected: float
    best: float


@dataclass(frozen=True, slots=True)
class Earned:
    """Rewards of a decision, with intervals by unit; linked units are one. served: of what was served. least, most:
    bounds of what the policy would have earned. agreeing: the mean where the policy agrees, each decision as much as it
    does; nan where it never does. kept: the part of the reward served that the policy would have earned in any case;
    nan without one."""

    decisions: int
    served: Interval
    least: Interval
    most: Interval
    agreeing: float
    kept: float


@dataclass(frozen=True, slots=True)
class AgreementReport:
    """Of one experiment. versions: the numbers of those that were read. compared: in the order of the log. left_out,
    unrewarded: decisions that are not compared, and such whose reward is not known, by the reason."""

    experiment: ExperimentId
    versions: tuple[int, ...]
    reward_range: tuple[float, float]
    compared: Sequence[Compared]
    left_out: Mapping[str, int]
    unrewarded: Mapping[str, int]

    def shares(self, *, action: ActionId | None = None, last: int | None = None) -> Shares:
        """Of all decisions, of those with an action, or of the last ones."""
        some = [one.agreement for one in self.compared if action in (None, one.action)]
        some = some if last is None else some[-last:]
        count = len(some)
        expected, best = sum([one.probability for one in some]), sum([one.best for one in some])
        return Shares(count, expected / count, best / count) if some else Shares(0, float("nan"), float("nan"))

    def actions(self) -> Sequence[ActionId]:
        """Those that were served, the most frequent first."""
        return [action for action, _ in Counter([one.action for one in self.compared]).most_common()]

    def earned(self) -> Earned | None:
        """None where no reward is known yet."""
        known = [(one, one.reward) for one in self.compared if one.reward is not None]
        if not known:
            return None
        agreed = np.array([one.agreement.probability for one, _ in known])
        codes = {person: code for code, person in enumerate(dict.fromkeys([one.person for one, _ in known]))}
        units = Units(np.array([codes[one.person] for one, _ in known], np.int64))
        return _earned(np.array([reward for _, reward in known]), agreed, units, self.reward_range)


def _earned(reward: Floats, agreed: Floats, units: Units, reward_range: tuple[float, float]) -> Earned:
    low, high = reward_range

    def mean(terms: Floats) -> Interval:
        sample = units.sample(terms, np.ones(len(terms)), low=low, high=high, max_weight=1.0)
        found = default_interval(sample, value_range=reward_range)
        return Interval(sample.value, found.low, found.high)  # its own value is the likeliest one, not the mean

    both, whole, weight = float(agreed @ reward), float(reward.sum()), float(agreed.sum())
    return Earned(
        decisions=len(reward),
        served=mean(reward),
        least=mean(agreed * reward + (1 - agreed) * low),
        most=mean(agreed * reward + (1 - agreed) * high),
        agreeing=both / weight if weight > 0 else float("nan"),
        kept=both / whole if whole > 0 and low >= 0 else float("nan"),
    )


def compare(
    log: LogReader, experiment: ExperimentId, *, on_decision: Callable[[], None] = lambda: None
) -> AgreementReport:
    """Every decision of an apprentice, of the newest versions that count rewards alike; `on_decision` is called after
    each.

    Raises NoApprentice; UnknownCode for models of learning code that this build does not have; ArchiveMissing,
    ArchiveDamaged and LogCorrupt where what a model learned from cannot be read.
    """
    versions = [v for v in log.versions() if v.experiment.id == experiment and v.default_reason is Reason.APPRENTICE]
    if not versions:
        raise NoApprentice(
            f"{log.name}: no version of experiment {experiment!r} was an apprentice; the line learning = "
            '"apprentice" in its file makes it one'
        )
    newest = versions[-1].experiment
    end = log.head().time
    rewards = _rewards(log, experiment, end)
    unrewarded: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    compared: list[Compared] = []
    models, gaps, persons = Models(log), Gaps(log), log.persons()
    for version in versions:
        alike = not differences(version.experiment, newest)
        for logged in _of_apprentice(log, version):
            on_decision()
            made = logged.decision
            kind = OTHER_VERSIONS if not alike else FORGOTTEN if gaps.has(logged) else FAILED
            agreement = _agreement(logged, version, models) if kind == FAILED else None
            if agreement is None:
                left_out[kind] += 1
            else:
                is_over = logged.time + version.experiment.reward.window <= end
                reward = rewards.get(logged.position, OPEN) if is_over else OPEN
                if isinstance(reward, str):
                    unrewarded[reward] += 1
                known = None if isinstance(reward, str) else reward
                person = persons.get(made.unit_id, made.unit_id)
                compared.append(Compared(logged.position, person, made.action, agreement, known))
    compared.sort()
    return AgreementReport(
        experiment=experiment,
        versions=tuple([v.number for v in versions if not differences(v.experiment, newest)]),
        reward_range=(newest.reward.minimum, newest.reward.maximum),
        compared=compared,
        left_out=left_out,
        unrewarded=unrewarded,
    )


def _of_apprentice(log: LogReader, version: ExperimentVersion) -> Iterator[LoggedDecision]:
    for logged in log.decisions(version.position):
        if logged.decision.reason is Reason.APPRENTICE:
            yield logged


def _agreement(logged: LoggedDecision, version: ExperimentVersion, models: Models) -> Agreement | None:
    request = request_of(logged.decision, version, {})  # what the policy is asked about is what was eligible
    model = models.that_served(logged, version)
    return agreement_of(request, logged.decision, version, model, budget=models.budget(logged))


def _rewards(log: LogReader, experiment: ExperimentId, end: Time) -> dict[Position, float | str]:
    """Of an apprentice's sealed decisions: the final reward, or why there is none."""
    return {
        sealed.position: _reward(sealed, log.version_at(sealed.decision.version))
        for sealed in log.sealed_decisions(experiment, after=Time(0), until=end)
        if sealed.decision.reason is Reason.APPRENTICE
    }


def _reward(sealed: SealedDecision, version: ExperimentVersion) -> float | str:
    if not version.counts(activated=sealed.activated):
        return NOT_ACTIVATED
    return OVERRIDDEN if sealed.overridden else final_reward(version.experiment.reward, sealed.rewards)
