"""The actions that a call names or brings, against those of its experiment version. Pure.

A frontend is deployed later than an experiment: names of actions that were retired or removed are left out and told,
never an error. Called by `server/request_checks.py` before `decide`, for calls that name actions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from decider.decide.decide import nothing_left
from decider.errors import FailedPrecondition, InvalidArgument, Violation
from decider.experiment.definition import DEFAULT_KIND, KIND, ExperimentVersion
from decider.types import ActionId, DecisionRequest, Features

SHOWN = 20
"""Names in an error, each with MAX_SHOWN characters at most: a caller may send anything."""

MAX_SHOWN = 64


def inactive_actions(
    version: ExperimentVersion, named: Iterable[ActionId], called: Iterable[ActionId] = ()
) -> tuple[ActionId, ...]:
    """The ids in a call that are left out, in their order, each once: of retired actions, and of such as neither the
    experiment has nor the call brings. called: of those that it brings."""
    brought = list(called)
    known = version.active.keys() | {id_ for id_ in brought if id_ not in version.choices}
    return tuple(dict.fromkeys([id_ for id_ in (*named, *brought) if id_ not in known]))


def fit_actions(
    version: ExperimentVersion, request: DecisionRequest, ignored: tuple[ActionId, ...] = ()
) -> DecisionRequest:
    """The request as `decide` takes it, with nothing but actions that can be chosen. ignored: its `inactive_actions`.

    What is logged says which actions there were: those of the call are in `eligible`, their kinds and features among
    `action_features`. Raises InvalidArgument where the call may not bring what it brings, FailedPrecondition where
    `eligible` names actions and all of them are left out.
    """
    brought = _called(version, request)
    eligible = tuple([id_ for id_ in request.eligible if id_ not in ignored])
    if request.eligible and not eligible:
        raise FailedPrecondition(
            f"eligible_actions names no active action of experiment {version.experiment.id!r}: {shown_names(ignored)}; "
            f"active are {shown_names(version.all_active) or 'none'}",
            reason="NO_ELIGIBLE_ACTION",
        )
    excluded = tuple([id_ for id_ in request.excluded if id_ not in ignored])
    features = {id_: given for id_, given in request.action_features.items() if id_ not in ignored}
    default = None if request.default in ignored else request.default
    fitted = request._replace(
        eligible=eligible, excluded=excluded, action_features=features, called=(), default=default
    )
    return _with_called(version, fitted, brought) if brought else fitted


def check_default(version: ExperimentVersion, asked: DecisionRequest, fitted: DecisionRequest) -> None:
    """Raises InvalidArgument where the experiment serves default actions and the call, as it came and as it was fitted,
    has none, or one that it excludes itself."""
    default = fitted.default
    if default is None and version.experiment.baseline is None:
        problem = (
            f"is needed, an active action: the learning of experiment {version.experiment.id!r} is "
            f"{version.experiment.learning.upper()}, and it has no baseline_action to serve in its place"
        )
        raise InvalidArgument([Violation("default_action", problem)])
    if default is not None and (default in asked.excluded or (asked.eligible and default not in asked.eligible)):
        where = "is in excluded_actions" if default in asked.excluded else "is not in eligible_actions"
        raise InvalidArgument([Violation("default_action", f"{default!r} {where} of the same call")])


def shown_names(ids: tuple[ActionId, ...]) -> str:
    """The first of them, for a text.

    >>> shown_names((ActionId("old"), ActionId("x" * 100)))[:20]
    'old, xxxxxxxxxxxxxxx'
    """
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return ", ".join([id_[:MAX_SHOWN] for id_ in ids[:SHOWN]]) + more


def _called(version: ExperimentVersion, request: DecisionRequest) -> Mapping[ActionId, Features]:
    """What the call says about the actions that it brings, with the kind of those that only the call knows. Those that
    the experiment has retired are left out."""
    if not request.called:
        return {}
    _check_called(version, request)
    return {
        one.id: one.features if one.id in version.choices else {KIND: one.kind or DEFAULT_KIND, **one.features}
        for one in request.called
        if one.id in version.active or one.id not in version.choices
    }


def _check_called(version: ExperimentVersion, request: DecisionRequest) -> None:
    experiment = version.experiment
    if not experiment.most_actions:
        raise InvalidArgument(
            [
                Violation(
                    "actions",
                    f"experiment {experiment.id!r} takes no actions from calls: declare them in it, or set its "
                    "actions_in_calls",
                )
            ]
        )
    count = len(version.active) + sum(one.id not in version.choices for one in request.called)
    if count > experiment.most_actions:
        raise InvalidArgument(
            [
                Violation(
                    "actions",
                    f"would make {count} with the {len(version.active)} active ones of experiment {experiment.id!r}; "
                    f"its actions_in_calls.most is {experiment.most_actions}",
                )
            ]
        )
    violations = [
        Violation(f"actions[{index}].kind", f"{one.kind!r}: the experiment's action {one.id!r} is of kind {kind!r}")
        for index, one in enumerate(request.called)
        if one.id in version.choices and one.kind not in ("", kind := version.choices[one.id].kind)
    ]
    if violations:
        raise InvalidArgument(violations)


def _with_called(
    version: ExperimentVersion, request: DecisionRequest, brought: Mapping[ActionId, Features]
) -> DecisionRequest:
    """With the features of the call's actions; what the call says beside them wins. Of those that only it knew and that
    cannot be chosen nothing is left, neither to score nor to log."""
    wanted = set(request.eligible or brought) - set(request.excluded)
    kept = version.active.keys() | (brought.keys() & wanted)
    eligible = tuple([id_ for id_ in request.eligible if id_ in kept])
    if request.eligible and not eligible:
        raise nothing_left(version, request)
    given = request.action_features
    features = {
        id_: {**brought.get(id_, {}), **given.get(id_, {})}
        for id_ in sorted(brought.keys() | given.keys())
        if id_ in kept
    }
    excluded = tuple([id_ for id_ in request.excluded if id_ in version.active])
    return request._replace(eligible=eligible, excluded=excluded, action_features=features)
