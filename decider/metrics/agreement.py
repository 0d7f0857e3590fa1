"""Counts of how far the policies of apprentices agree with what was served in their place, in this process.

Each decision is compared by the model that would have served it. The labels are experiments alone. Called by
`server/service.py`; `simulator agreement` computes the same from the log, exactly and for ever.
"""

from __future__ import annotations

from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter

from decider.decide.agreement import Agreement
from decider.types import ExperimentId


class AgreementMetrics:
    """registry: None counts for nobody."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        def counter(name: str, text: str) -> Counter:
            return Counter(name, text, ("experiment",), registry=registry)

        self._compared = counter("decider_apprentice_decisions_total", "Decisions compared with the policy.")
        self._expected = counter(
            "decider_apprentice_agreement_total", "Sum of the policy's probabilities of the actions served."
        )
        self._best = counter(
            "decider_apprentice_best_total", "Decisions whose served action is the policy's most probable one."
        )

    def observe(self, experiment: ExperimentId, agreement: Agreement) -> None:
        """Of one decision."""
        self._compared.labels(experiment).inc()
        self._expected.labels(experiment).inc(agreement.probability)
        self._best.labels(experiment).inc(agreement.best)

    def forget(self, experiment: ExperimentId) -> None:
        """No longer name an experiment, if it has been named."""
        for counted in (self._compared, self._expected, self._best):
            with suppress(KeyError):
                counted.remove(experiment)
