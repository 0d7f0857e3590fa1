"""After the attack: is anything in the log that the customers did not send, and all that was acknowledged to them?

Called by `__main__.py`, once the server has ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from decider.log.open import open_reader
from decider.log.protocol import LogReader
from decider.types import ExperimentId, RewardOutcome
from simulator.studies.attack.customers import REWARD_ID, REWARD_NAME, Ledger
from simulator.studies.attack.names import KNOWN_UNIT, MARK, OWN, VICTIM
from simulator.studies.attack.requests import VALUES

FIRST, LAST = "", chr(0x10FFFF)
"""Between these are all ids."""


def wrong_in_log(db: Path, ledger: Ledger, versions: list[tuple[str, int]]) -> dict[str, int]:
    """What must not be, counted; versions: (experiment, number) that the operator applied. Raises LogError."""
    with closing(open_reader(db)) as log:
        found = Counter(text for part in (_versions, _others) for text in part(log, versions))
        ids = _ids(log)
        found.update(_decisions(ledger, ids))
        found.update(_rewards(log, ledger, ids))
        found.update(_activations(log, ledger, ids))
    return dict(found)


def _versions(log: LogReader, applied: list[tuple[str, int]]) -> Iterator[str]:
    there = [(str(one.experiment.id), one.number) for one in log.versions()]
    for id_, number in there:
        if (id_, number) not in applied:
            yield f"version {number} of {id_!r} was applied by a stranger"
    yield from (f"version {number} of {id_!r} is lost" for id_, number in applied if (id_, number) not in there)


def _others(log: LogReader, _: object) -> Iterator[str]:
    """Links, rewards by unit, what is left out, what was removed."""
    if log.persons():
        yield "units were linked"
    if log.leave_outs(ExperimentId(VICTIM)) or log.removals():
        yield "something was left out or removed"
    for id_ in VALUES["reward_id"]:
        there = log.find_unit_reward(KNOWN_UNIT, id_)
        if there is not None and there.experiment != OWN:
            yield "a reward by unit was taken"


def _ids(log: LogReader) -> dict[str, int]:
    """The victim's decisions: position, by id. Those of others are the strangers' own."""
    ours = {one.position for one in log.versions() if one.experiment.id != OWN}
    found = log.decisions_between(FIRST, LAST)
    return {one.decision.decision_id: one.position for one in found if one.decision.version in ours}


def _decisions(ledger: Ledger, ids: dict[str, int]) -> Iterator[str]:
    for id_ in ids:
        if id_ not in ledger.decided:
            yield f"decisions that nobody of the customers asked for{' (marked)' if MARK in id_ else ''}"
    yield from ("decisions lost" for id_, acknowledged in ledger.decided.items() if acknowledged and id_ not in ids)


def _rewards(log: LogReader, ledger: Ledger, ids: dict[str, int]) -> Iterator[str]:
    seen: Counter[str] = Counter()
    for one in log.rewards_between(FIRST, LAST):
        if one.decision_id not in ids:
            continue
        sent = (REWARD_NAME, ledger.sent_rewards.get(one.decision_id), REWARD_ID)
        if (one.name, one.value, one.reward_id) != sent:
            yield "rewards that nobody of the customers sent"
        elif one.in_force != one.value and one.outcome is not RewardOutcome.LATE:
            yield "rewards that were changed"
        else:
            seen[one.decision_id] += 1
    yield from ("rewards lost" for id_ in ledger.rewarded if not seen[id_])
    yield from ("rewards twice" for times in seen.values() if times > 1)


def _activations(log: LogReader, ledger: Ledger, ids: dict[str, int]) -> Iterator[str]:
    by_position = {position: id_ for id_, position in ids.items()}
    activated: set[str] = set()
    for batch in log.arrow(ExperimentId(VICTIM), log.head()).decisions:
        columns = batch.to_pydict()
        for position, said, overridden in zip(
            columns["position"], columns["activated"], columns["overridden"], strict=True
        ):
            id_ = by_position.get(position, "")
            if overridden or (said and id_ not in ledger.sent_activations):
                yield "activations that nobody of the customers sent"
            elif said:
                activated.add(id_)
    yield from ("activations lost" for id_ in ledger.activated if id_ not in activated)
