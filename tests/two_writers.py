"""A sample decision; and a process of its own that writes a log beside others, and says what it was answered.

Run by `test_log_writers.py`: `python -m tests.two_writers PATH NAME COUNT`.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from decider.decide.slots import to_slots
from decider.experiment.definition import ExperimentVersion
from decider.log.open import open_log
from decider.log.protocol import Entry, EventLog, Mark, NewReward
from decider.types import START, Context, Decision, DecisionId, Reason

SHARED_EVERY = 4
"""Of so many decisions one has an id that the other writer uses as well, as a retry that another worker gets."""


def decision(version: ExperimentVersion, id_: str, unit: str = "unit", **changes: Any) -> Decision:
    """A decision of a version, with everything else plain but for `changes`."""
    count = len(version.all_active)
    plain = Decision(
        decision_id=DecisionId(id_),
        version=version.position,
        unit_id=unit,
        context=Context(segment="vip"),
        eligible=version.all_active,
        action_features={},
        pmf=to_slots([1 / count] * count),
        action=version.all_active[0],
        propensity=1 / count,
        reason=Reason.EXPLORE,
        model=START,
    )
    return plain._replace(**changes)


def write(log: EventLog, name: str, count: int) -> list[tuple[str, Mark | None]]:
    """So many decisions in groups of different sizes, a reward for each that was new; and what was answered."""
    (version, *_) = log.versions()
    answers: list[tuple[str, Mark | None]] = []
    number = 0
    while number < count:
        size = 1 + number % 7
        ids = [f"shared-{n}" if n % SHARED_EVERY == 0 else f"{name}-{n}" for n in range(number, number + size)]
        marks = log.append([decision(version, id_, name) for id_ in ids])
        answers += zip(ids, marks, strict=True)
        places = [(id_, log.locate(DecisionId(id_))) for id_ in ids]
        rewards: list[Entry] = [NewReward(p.position, "click", 1.0, reward_id="once") for _, p in places if p]
        assert len(rewards) == len(ids), "what was answered or refused is in the log"
        answers += zip([f"reward of {id_}" for id_ in ids], log.append(rewards), strict=True)
        number += size
    return answers


if __name__ == "__main__":
    path, name, count = sys.argv[1:]
    with closing(open_log(Path(path))) as log:
        print("ready", flush=True)
        sys.stdin.readline()
        print(json.dumps(write(log, name, int(count))))
