"""The log in memory as Arrow record batches: see `LogReader.arrow`. Imported by `memory.py` when somebody asks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from decider.experiment.definition import ExperimentVersion
from decider.log.arrow_schema import DECISIONS, REWARDS
from decider.log.protocol import ArrowBatches, Head, LoggedDecision, Mark, NewReward, SealedDecision

Rewards = Sequence[tuple[Mark, NewReward, float | None, bool]]
"""With the value in force, None: retracted; and whether it came in time."""

_SLOT = re.compile(r"/([0-9]|[1-9][0-9])\Z")


def arrow_batches(
    logged: Iterable[tuple[LoggedDecision, SealedDecision, ExperimentVersion, Rewards]], head: Head
) -> ArrowBatches:
    """An experiment's decisions in order, each with what it will be once sealed, its version and all its rewards."""
    until = [one for one in logged if one[0].position <= head.position]
    decisions = [_decision(one, sealed, version, head) for one, sealed, version, _ in until]
    rewards = [
        _reward(one, *of_it) for one, _, _, sent in until for of_it in sent if of_it[0].position <= head.position
    ]
    return ArrowBatches(
        iter([pa.RecordBatch.from_pylist(decisions, DECISIONS)]), iter([pa.RecordBatch.from_pylist(rewards, REWARDS)])
    )


def _decision(
    logged: LoggedDecision, sealed: SealedDecision, version: ExperimentVersion, head: Head
) -> dict[str, object]:
    decision = logged.decision
    context = decision.context._asdict()
    return {
        **decision._asdict(),
        **context,
        "position": logged.position,
        "time": logged.time,
        "deadline": sealed.deadline,
        "sealed": int(sealed.deadline <= head.time),
        "overridden": int(sealed.overridden),
        "activated": int(sealed.activated),
        "features": _json(decision.context.features),
        "eligible": "" if decision.eligible == version.all_active else _json(decision.eligible),
        "action_features": _json(decision.action_features),
        "pmf": ",".join(map(str, decision.pmf)),
        "slot": decision.decision_id if _SLOT.search(decision.decision_id) else "",
    }


def _reward(
    logged: LoggedDecision, mark: Mark, reward: NewReward, in_force: float | None, in_time: bool
) -> dict[str, object]:
    value = 0.0 if in_force is None else in_force
    return {
        "decision": logged.position,
        "time": mark.time,
        "value": value * reward.weight,
        "unweighted": value,
        "joined": int(in_time),
        "retracted": int(in_force is None),
        "name": reward.name,
    }


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False) if value else ""
