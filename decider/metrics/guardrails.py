"""The metrics of guardrails, as the leader judged them last. Called by the server's registry."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from decider.learn.guardrails import Guardrails


class GuardrailCollector(Collector):
    """Reads no log: a scrape shows what was found some seconds ago."""

    def __init__(self, guardrails: Guardrails) -> None:
        self._guardrails = guardrails

    def describe(self) -> list[Metric]:
        """Nothing, so that registering calls nothing."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families."""
        labels = ("experiment", "name")
        evidence = GaugeMetricFamily(
            "decider_guardrail_log_evalue",
            "Evidence that the lift of a reward is beyond its guardrail, valid at every look; 0: there is none.",
            labels=labels,
        )
        crossed = GaugeMetricFamily(
            "decider_guardrail_crossed",
            "1 where a guardrail is crossed, or everybody gets the baseline since it was; 0 otherwise.",
            labels=labels,
        )
        outweighed = GaugeMetricFamily(
            "decider_guardrail_outweighed",
            "1 where a guardrail cannot be judged, since a few units have nearly all of its reward; 0 otherwise.",
            labels=labels,
        )
        for id_, judged in [*self._guardrails.judged.items()]:
            for one in judged:
                evidence.add_metric((id_, one.guardrail.reward), one.evidence.log_evalue)
                crossed.add_metric((id_, one.guardrail.reward), float(one.crossed))
                outweighed.add_metric((id_, one.guardrail.reward), float(one.evidence.outweighed))
        yield from (evidence, crossed, outweighed)
