"""Decisions and experiment versions <-> rows of schema.sql. Nothing is lost: a row read gives the decision written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from decider.errors import LogCorrupt
from decider.experiment.definition import ExperimentVersion
from decider.experiment.schema import from_message, read_json, to_message, write_json
from decider.log.protocol import LoggedDecision, Mark, NewVersion
from decider.types import ActionId, Context, Decision, DecisionId, Features, Position, Reason, Time

DECISION_COLUMNS = (
    "d.position, d.time, d.version, d.decision_id, d.unit_id, d.segment, d.device, d.channel, d.location, "
    "d.intent_stage, d.features, d.eligible, d.action_features, d.pmf, d.action, d.propensity, d.reason, d.model"
)
_DECISION = "(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
INSERT_DECISION = f"insert or ignore into decisions values {_DECISION}"  # noqa: S608 - only question marks
INSERT_VERSION = "insert or ignore into experiments values (?,?,?,?,?,?,?,?,?,?)"

Row = tuple[Any, ...]


@lru_cache
def insert_decisions(count: int) -> str:
    """One statement for so many rows; it fails as a whole where a decision id was there."""
    return "insert into decisions values " + ",".join([_DECISION] * count)  # noqa: S608 - only question marks


def _json(value: Any) -> str | None:
    if not value:
        return None
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def decision_row(mark: Mark, decision: Decision, version: ExperimentVersion) -> Row:
    """The row of a decision; an eligible set that is all active actions is left out."""
    context = decision.context
    all_active = decision.eligible == version.all_active
    return (
        mark.position,
        mark.time,
        decision.version,
        decision.decision_id,
        decision.unit_id,
        context.segment or None,
        context.device or None,
        context.channel or None,
        context.location or None,
        context.intent_stage or None,
        _json(context.features) if context.features else None,
        None if all_active else _json(decision.eligible),
        _json(decision.action_features) if decision.action_features else None,
        f"[{','.join(map(str, decision.pmf))}]",
        decision.action,
        decision.propensity,
        decision.reason,
        decision.model,
    )


def logged_decision(row: Row, versions: Mapping[Position, ExperimentVersion]) -> LoggedDecision:
    """The decision in a row of DECISION_COLUMNS. Raises LogCorrupt if it cannot be one."""
    try:
        return LoggedDecision(Position(row[0]), Time(row[1]), _decision(row, versions))
    except (ValueError, TypeError) as error:
        raise LogCorrupt(f"the decision at position {row[0]} is damaged: {error}") from error


def _decision(row: Row, versions: Mapping[Position, ExperimentVersion]) -> Decision:
    version, decision_id, unit_id, *fields, features, eligible, extra, pmf, action, propensity, reason, model = row[
        2:18
    ]
    all_active = versions[version].all_active if version in versions else ()
    return Decision(
        decision_id=DecisionId(decision_id),
        version=Position(version),
        unit_id=unit_id,
        context=context_of(fields, json.loads(features) if features else {}),
        eligible=tuple(json.loads(eligible)) if eligible else all_active,
        action_features=json.loads(extra) if extra else {},
        pmf=tuple(json.loads(pmf)),
        action=ActionId(action),
        propensity=propensity,
        reason=Reason(reason),
        model=Position(model),
    )


def context_of(fields: Sequence[str | None], features: Features) -> Context:
    """A context from the five columns, in the order of CONTEXT_FIELDS; null is a field that was not given."""
    return Context(*[field or "" for field in fields], features=features)  # type: ignore[misc, arg-type]


def version_row(mark: Mark, new: NewVersion) -> Row:
    """The row of an experiment version."""
    reward = new.experiment.reward
    return (
        mark.position,
        mark.time,
        new.experiment.id,
        new.number,
        write_json(to_message(new.experiment)),
        reward.window,
        reward.default,
        reward.minimum,
        reward.maximum,
        reward.aggregation,
    )


def experiment_version(position: int, time: int, number: int, definition: str) -> ExperimentVersion:
    """The experiment version in a row."""
    experiment = from_message(read_json(definition))
    return ExperimentVersion(experiment, number=number, position=Position(position), time=Time(time))
