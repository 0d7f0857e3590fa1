"""Calls of Decide against what their experiment declares: the actions that they name, the features that they have.

What does not fit is counted, and logged once for each kind, so that a line a call cannot flood the output. Called by
`service.py` before it decides.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from decider.decide.named_actions import fit_actions, inactive_actions, shown_names
from decider.errors import InvalidArgument, Violation
from decider.experiment.definition import ExperimentVersion
from decider.experiment.feature_schema import Breach, FeatureSchema
from decider.metrics.requests import RequestMetrics
from decider.types import ActionId, Context, DecisionRequest, ExperimentId

logger = logging.getLogger(__name__)

MAX_KNOWN = 1_000
"""Most kinds of lines that are remembered as logged; then all are forgotten."""


class RequestChecks:
    """Of one server."""

    def __init__(self, metrics: RequestMetrics) -> None:
        self._metrics = metrics
        self._logged: set[tuple[str, ...]] = set()

    def fit(self, version: ExperimentVersion, request: DecisionRequest) -> tuple[DecisionRequest, Sequence[ActionId]]:
        """The request without the actions that cannot be chosen, and their ids. Raises as `fit_actions` does."""
        default = () if request.default is None else (request.default,)
        named = (*request.eligible, *request.excluded, *request.action_features, *default)
        if not request.called and version.active.keys() >= set(named):  # nearly every request ends here
            return request, ()
        ignored = inactive_actions(version, named, [one.id for one in request.called])
        if ignored:
            self._tell_ignored(version, ignored)
        return fit_actions(version, request, ignored), ignored

    def _tell_ignored(self, version: ExperimentVersion, ignored: tuple[ActionId, ...]) -> None:
        id_ = version.experiment.id
        self._metrics.observe_ignored(id_, len(ignored))
        for kind, ids in _by_kind(version, ignored).items():
            if ids and self._is_new(id_, kind):
                logger.warning(
                    "experiment %s: calls name %s actions, which are left out: %s (decider_ignored_actions_total)",
                    id_, kind, shown_names(ids),
                )  # fmt: skip

    def check_features(self, experiment: ExperimentId, schema: FeatureSchema, context: Context) -> None:
        """Count what breaks the schema. Raises InvalidArgument with everything that it wants refused."""
        breaches = list(schema.breaches(context))
        for breach in breaches:
            self._metrics.observe_breach(experiment, breach)
            self._tell_breach(experiment, breach)
        refused = [Violation(breach.path, breach.text) for breach in breaches if breach.refused]
        if refused:
            raise InvalidArgument(refused)

    def _tell_breach(self, experiment: ExperimentId, breach: Breach) -> None:
        # Without the value: it may be personal, and this output is kept elsewhere than the log.
        name = breach.feature if breach.declared else ""
        if self._is_new(experiment, "feature", name, breach.problem):
            logger.warning(
                "experiment %s: a request breaks the schema: %s (%s); decider_feature_problems_total counts them",
                experiment, breach.path, breach.problem,
            )  # fmt: skip

    def _is_new(self, *kind: str) -> bool:
        if kind in self._logged:
            return False
        if len(self._logged) >= MAX_KNOWN:
            self._logged.clear()
        self._logged.add(kind)
        return True


def _by_kind(version: ExperimentVersion, ignored: tuple[ActionId, ...]) -> dict[str, tuple[ActionId, ...]]:
    return {
        "retired": tuple([id_ for id_ in ignored if id_ in version.choices]),
        "unknown": tuple([id_ for id_ in ignored if id_ not in version.choices]),
    }
