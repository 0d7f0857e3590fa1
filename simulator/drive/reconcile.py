"""What was sent against what the log holds: nothing lost, nothing doubled, nothing other than it was answered.

An acknowledgement is a promise. Called by `live.py` once a drive is over; reads the log's file, if there is one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from decider.experiment.unit_history import without_history
from decider.log.protocol import LoggedReward, LogReader
from decider.types import Context, Decision, RewardOutcome
from simulator.drive.ledger import OUTCOMES, Ledger
from simulator.drive.plan import REWARD_ID, Plan
from simulator.worlds.world import Flags

STORED = tuple(name for name in OUTCOMES if name != "duplicate")

EXAMPLES = 5
"""Findings that are listed one by one; the others are counted."""


@dataclass(frozen=True, slots=True)
class SentCounts:
    """Of decisions or rewards: sent at least once, acknowledged, in the log (0 where it was not read)."""

    sent: int
    acknowledged: int
    logged: int


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """log: the file that was read; empty if none was, and only the answers were compared with each other.

    lost: acknowledged but not in the log. doubled: in the log more often than sent, or counted twice. different: in the
    log otherwise than it was asked or answered. examples: the first of these, in words. outcomes: answers of each kind.
    """

    log: str
    decisions: SentCounts
    rewards: SentCounts
    outcomes: dict[str, int]
    lost: int
    doubled: int
    different: int
    examples: tuple[str, ...]

    @property
    def clean(self) -> bool:
        """Nothing lost, doubled or different."""
        return not (self.lost or self.doubled or self.different)


@dataclass(slots=True)
class _Problems:
    counts: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def add(self, kind: str, text: str) -> None:
        self.counts[kind] += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(f"{kind}: {text}")


def duplicates_counted(log: LogReader) -> int:
    """How many duplicate rewards the log has refused so far."""
    return sum(count for (_, outcome), count in log.refused_rewards().items() if outcome == RewardOutcome.DUPLICATE)


def reconcile(plan: Plan, ledger: Ledger, log: LogReader | None, *, duplicates_before: int = 0) -> Reconciliation:
    """Compare. duplicates_before: what `duplicates_counted` was before the drive. Raises LogError."""
    problems = _Problems()
    _check_answers(plan, ledger, problems)
    decided = rewarded = 0
    if log is not None:
        decided = _check_decisions(plan, ledger, log, problems)
        rewarded = _check_rewards(plan, ledger, log, problems)
        _check_duplicates(ledger, duplicates_counted(log) - duplicates_before, problems)
    return Reconciliation(
        log=log.name if log else "",
        decisions=SentCounts(int(ledger.sent.sum()), int(ledger.acked.sum()), decided),
        rewards=SentCounts(int((ledger.tries > 0).sum()), int(ledger.rewarded_rounds.sum()), rewarded),
        outcomes=ledger.outcome_counts(),
        lost=problems.counts["lost"],
        doubled=problems.counts["doubled"],
        different=problems.counts["different"],
        examples=tuple(problems.examples),
    )


def _check_answers(plan: Plan, ledger: Ledger, problems: _Problems) -> None:
    """What the answers alone can give away."""
    for number in _numbers(ledger.missing):
        problems.add("lost", f"decision {plan.decision_id(number)} was acknowledged, but its reward found no decision")
    joined, clipped, late, duplicate = ledger.outcomes
    stored = joined + clipped + late
    for number in _numbers(stored > 1):
        problems.add("doubled", f"the reward of {plan.decision_id(number)} was counted {stored[number]} times")
    for number in _numbers((duplicate > 0) & (stored == 0) & (ledger.unanswered == 0)):
        problems.add("different", f"the reward of {plan.decision_id(number)} was called a duplicate of none")


def _check_decisions(plan: Plan, ledger: Ledger, log: LogReader, problems: _Problems) -> int:
    """Rows of this drive."""
    seen = np.zeros(len(plan.visits), np.int64)
    rows = 0
    for logged in log.decisions_between(*_ours(plan)):
        rows += 1
        decision = logged.decision
        number = _number(plan, decision.decision_id)
        if number is None or not ledger.sent[number]:
            problems.add("doubled", f"decision {decision.decision_id} is in the log but was never sent")
            continue
        seen[number] += 1
        if seen[number] > 1:
            problems.add("doubled", f"decision {decision.decision_id} is in the log {seen[number]} times")
        elif ledger.acked[number]:
            _check_decision(plan, ledger, number, decision, problems)
    for missing in _numbers(ledger.acked & (seen == 0)):
        problems.add("lost", f"decision {plan.decision_id(missing)} was acknowledged but is not in the log")
    return rows


def _check_decision(plan: Plan, ledger: Ledger, number: int, logged: Decision, problems: _Problems) -> None:
    """What was answered, and what was asked: a context that is logged otherwise would be learned and replayed so."""
    answer = (logged.unit_id, logged.action, logged.propensity, logged.model)
    context = without_history(logged.context) if plan.experiment.history is not None else logged.context
    question = (context, sorted(logged.eligible))
    if answer != (answered := _answer_of(plan, ledger, number)):
        problems.add("different", f"decision {logged.decision_id} was answered with {answered}, logged as {answer}")
    elif question != (asked := _question_of(plan, ledger, number)):
        problems.add("different", f"decision {logged.decision_id} was asked with {asked}, logged with {question}")


def _question_of(plan: Plan, ledger: Ledger, number: int) -> tuple[Context, list[str]]:
    """The context and the eligible actions as sent, all of the world's where none were named."""
    case = int(ledger.case[number])
    return plan.visits.contexts[case], sorted(plan.eligible(case) or plan.world.actions)


def _answer_of(plan: Plan, ledger: Ledger, number: int) -> tuple[str, str, float, int]:
    """Unit, action, propensity and model."""
    action = plan.world.actions[ledger.action[number]]
    return plan.unit_id(number), action, float(ledger.propensity[number]), int(ledger.model[number])


def _check_rewards(plan: Plan, ledger: Ledger, log: LogReader, problems: _Problems) -> int:
    """Rows of this drive."""
    seen = np.zeros(len(plan.visits), np.int64)
    rows = 0
    for reward in log.rewards_between(*_ours(plan)):
        rows += 1
        id_ = reward.decision_id
        number = _number(plan, id_)
        if number is None or not ledger.tries[number] or reward.reward_id != REWARD_ID:
            problems.add("doubled", f"reward {reward.reward_id!r} of decision {id_} is in the log but was never sent")
            continue
        seen[number] += 1
        if seen[number] > 1:
            problems.add("doubled", f"the reward of decision {id_} is in the log {seen[number]} times")
        else:
            _check_reward(plan, ledger, number, reward, problems)
    for missing in _numbers(ledger.rewarded_rounds & (seen == 0)):
        problems.add(
            "lost", f"the reward of decision {plan.decision_id(missing)} was acknowledged but is not in the log"
        )
    return rows


def _check_reward(plan: Plan, ledger: Ledger, number: int, reward: LoggedReward, problems: _Problems) -> None:
    """Name, value and outcome; where every answer was `duplicate`, an attempt without an answer was stored."""
    action = int(ledger.action[number])
    logged = (reward.name, reward.value, str(reward.outcome))
    answers = [name for name in STORED if ledger.outcomes[OUTCOMES.index(name), number]] or [logged[2]]
    sent = (plan.name(number, action), plan.value(number, action), answers[0])
    if logged != sent:
        problems.add("different", f"the reward of decision {reward.decision_id}: sent as {sent}, logged as {logged}")


def _check_duplicates(ledger: Ledger, counted: int, problems: _Problems) -> None:
    """The log keeps their number only; attempts without an answer, and others who use the server, add to it."""
    acknowledged = ledger.outcome_counts()["duplicate"]
    if counted < acknowledged:
        problems.add("lost", f"{acknowledged} duplicates were acknowledged, the log has counted {counted}")


def _numbers(wanted: Flags) -> list[int]:
    """The rounds where it is true."""
    found: list[int] = np.flatnonzero(wanted).tolist()
    return found


def _ours(plan: Plan) -> tuple[str, str]:
    """All ids of this drive: from the first, up to before the second."""
    return f"{plan.run}-", f"{plan.run}."


def _number(plan: Plan, decision_id: str) -> int | None:
    """Which round it was; None for what this drive cannot have sent."""
    digits = decision_id.removeprefix(f"{plan.run}-")
    if not digits.isdecimal() or int(digits) >= len(plan.visits):
        return None
    return int(digits)
