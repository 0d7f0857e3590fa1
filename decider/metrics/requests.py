"""Counts of what calls of Decide have that their experiment does not know, in this process.

The labels are bounded: they come from definitions, never from calls. Called by `server/request_checks.py`.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter

from decider.experiment.feature_schema import Breach
from decider.types import ExperimentId


class RequestMetrics:
    """registry: None counts for nobody."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._ignored = Counter(
            "decider_ignored_actions_total",
            "Action ids in requests that were left out: retired ones, and such as the experiment does not have.",
            ("experiment",),
            registry=registry,
        )
        self._problems = Counter(
            "decider_feature_problems_total",
            "Features in requests that break the experiment's schema.",
            ("experiment", "feature", "problem"),
            registry=registry,
        )
        self._withheld = Counter(
            "decider_withheld_actions_total",
            "Actions that a rule of the experiment took out of new decisions.",
            ("experiment", "rule"),
            registry=registry,
        )
        self._named: defaultdict[str, set[tuple[Counter, tuple[str, ...]]]] = defaultdict(set)
        """Every series, by experiment."""

    def observe_withheld(self, experiment: ExperimentId, rules: Iterable[str]) -> None:
        """What was taken out of one decision. All caps of an experiment are one rule."""
        for rule, count in Tally([rule.partition("[")[0] for rule in rules]).items():
            self._count(self._withheld, experiment, rule, by=count)

    def observe_ignored(self, experiment: ExperimentId, count: int) -> None:
        """Ids that were left out of one request."""
        self._count(self._ignored, experiment, by=count)

    def observe_breach(self, experiment: ExperimentId, breach: Breach) -> None:
        """One feature of one request. Features without a rule have no label of their own: a caller may name any."""
        self._count(self._problems, experiment, breach.feature if breach.declared else "", breach.problem)

    def _count(self, counter: Counter, *labels: str, by: int = 1) -> None:
        self._named[labels[0]].add((counter, labels))
        counter.labels(*labels).inc(by)

    def forget(self, experiment: ExperimentId) -> None:
        """No longer name an experiment, if it has been named."""
        for counter, labels in self._named.pop(experiment, ()):
            with suppress(KeyError):
                counter.remove(*labels)
