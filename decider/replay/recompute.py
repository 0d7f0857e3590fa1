"""One decision, made again by the code that serves, and compared with the log. Called by `explain.py` and by
`simulator verify`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from decider.decide.decide import RULES, decide, eligible_actions
from decider.errors import ArchiveDamaged, ArchiveMissing, DeciderError, LogCorrupt, UnknownCode
from decider.experiment.definition import ExperimentVersion
from decider.log.protocol import LoggedDecision, LogReader
from decider.policy.protocol import Model
from decider.policy.work import ESTIMATE, Budget
from decider.replay.past import UnitHistories, moments, request_of
from decider.types import ActionId, Decision, DecisionRequest, History, Position

LOGS_WITHHELD = 3
"""From this version of the rules on it is logged what was withheld."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A decision that was recomputed otherwise; the names of the fields that differ, or the error."""

    logged: LoggedDecision
    recomputed: Decision | None
    what: str


class Build(NamedTuple):
    """What wrote a decision. position: of its entry; 0 where there is none. content: as it is logged."""

    position: Position
    content: Mapping[str, Any]


def budget_of(build: Build) -> Budget | None:
    """What a decision was allowed to cost; earlier builds had no limit. Raises UnknownCode and LogCorrupt."""
    named = build.content.get("budget")
    if named is None:
        return None
    try:
        budget = Budget(float(named["seconds"]), int(named["estimate"]))
    except (KeyError, TypeError, ValueError) as error:
        raise LogCorrupt(f"the build at position {build.position} has no usable budget: {named!r}") from error
    if budget.estimate != ESTIMATE:
        raise UnknownCode(f"work estimated by version {budget.estimate}, which this build does not have")
    return budget


def rules_of(build: Build) -> int:
    """Version of the rules by which a decision was made; earlier builds did not name it. Raises UnknownCode and
    LogCorrupt."""
    rules = build.content.get("rules", 1)
    if not isinstance(rules, int):
        raise LogCorrupt(f"the build at position {build.position} has no usable version of the rules: {rules!r}")
    if not 1 <= rules <= RULES:
        raise UnknownCode(f"rules of version {rules}, which this build does not have")
    return rules


def withheld_from(log: LogReader, logged: LoggedDecision, version: ExperimentVersion) -> Mapping[ActionId, str]:
    """What is logged of what rules took out."""
    restricted = version.rules or version.scheduled or version.limits
    return log.withheld(logged.position) if restricted else {}


def compare(
    log: LogReader,
    logged: LoggedDecision,
    version: ExperimentVersion,
    *,
    build: Build,
    model: Callable[[], Model],
    histories: UnitHistories,
    history: Callable[[Mapping[ActionId, str]], History],
) -> Mismatch | None:
    """None where the decision is what the code makes again. history: for what was withheld.

    Raises UnknownCode, ArchiveMissing, ArchiveDamaged; any other DeciderError is the difference.
    """
    try:
        context = histories.context(logged, version)
        if context is None:
            return Mismatch(logged, None, "context: no entry says from what the unit's history was read")
        withheld = withheld_from(log, logged, version)
        request = request_of(logged.decision, version, withheld)._replace(context=context)
        past = history(withheld)
        first = None
        for at in moments(version, logged.time) if version.scheduled else (None,):
            difference = _compare_at(logged, version, request._replace(at=at), build, model, past, withheld)
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
    build: Build,
    model: Callable[[], Model],
    history: History,
    withheld: Mapping[ActionId, str],
) -> Mismatch | None:
    """As if the request had come at that time."""
    try:
        served, budget, rules = model(), budget_of(build), rules_of(build)
        eligible = eligible_actions(version, request, history)
        recomputed = decide(request, version, served, budget=budget, rules=rules, eligible=eligible)
    except (UnknownCode, ArchiveMissing, ArchiveDamaged):
        raise
    except DeciderError as error:
        return Mismatch(logged, None, f"{type(error).__name__}: {error}")
    names = [n for n in Decision._fields if getattr(recomputed, n) != getattr(logged.decision, n)]
    if eligible.withheld != withheld and (rules >= LOGS_WITHHELD or version.limits):
        names.append(f"withheld: {dict(eligible.withheld)}, logged as {dict(withheld)}")
    return Mismatch(logged, recomputed, ", ".join(names)) if names else None
