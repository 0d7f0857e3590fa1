"""At the end: is everything that was acknowledged in the log, once, and as it was answered? Called by `__main__.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field

from decider.log.open import LogUrl, open_reader
from decider.log.protocol import LogReader
from simulator.studies.faults.ledger import Decided, Line, Rewarded, Sent

FIRST, LAST = "", chr(0x10FFFF)
"""Between these are all ids."""


@dataclass(slots=True)
class Counts:
    """decisions, rewards: acknowledged. lost: acknowledged and not in the log, with the time of the answer. doubled: in
    the log more often than once. differing: answered in another way than the log has it, or twice in two ways.
    strange: in the log, and nobody has sent it."""

    decisions: int = 0
    rewards: int = 0
    in_log: int = 0
    asked_again: int = 0
    lost: list[float] = field(default_factory=list)
    doubled: list[float] = field(default_factory=list)
    differing: list[float] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)


def count(log: LogReader, lines: Iterable[Line]) -> Counts:
    """Of a whole log and the whole ledger. Raises LogError."""
    kept = list(lines)
    counts = Counts()
    _count_decisions(log, kept, counts)
    _count_rewards(log, kept, counts)
    return counts


def count_log(url: str, lines: Iterable[Line]) -> Counts:
    """As `count`, of the log at an address. Raises LogError."""
    with closing(open_reader(LogUrl(url))) as log:
        return count(log, lines)


def _count_decisions(log: LogReader, lines: Iterable[Line], counts: Counts) -> None:
    sent = {line.id: line.at for line in lines if isinstance(line, Sent)}
    found: Counter[str] = Counter()
    answer: dict[str, tuple[str, float]] = {}
    for logged in log.decisions_between(FIRST, LAST):
        decision = logged.decision
        found[decision.decision_id] += 1
        answer[decision.decision_id] = decision.action, decision.propensity
    counts.in_log = sum(found.values())
    counts.strange = [id_ for id_ in found if id_ not in sent]
    counts.doubled += [sent[id_] for id_, times in found.items() if times > 1 and id_ in sent]
    for line in lines:
        if not isinstance(line, Decided):
            continue
        counts.decisions += not line.again
        counts.asked_again += line.again
        if line.id not in answer:
            counts.lost.append(line.at)
        elif answer[line.id] != (line.action, line.propensity):
            counts.differing.append(line.at)


def _count_rewards(log: LogReader, lines: Iterable[Line], counts: Counts) -> None:
    """Each has a value of its own, so that one that was counted twice is seen also where it has no id."""
    found: Counter[tuple[str, float]] = Counter()
    for reward in log.rewards_between(FIRST, LAST):
        key = reward.decision_id, reward.value
        found[key] += 1
        if found[key] > 1:
            counts.doubled.append(reward.time / 1e6)
    acknowledged = {(line.id, line.value): line.at for line in lines if isinstance(line, Rewarded)}
    counts.rewards = len(acknowledged)
    counts.lost += [at for key, at in acknowledged.items() if not found[key]]
