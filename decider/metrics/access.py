"""Whether the files of tokens and certificates can be read, and who is refused at the web port. Called by the registry
at each scrape, and by `server/web/`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class AccessCollector(Collector):
    """problems: what is wrong with a file now, by its kind; empty where nothing is."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        self._problems = problems

    def collect(self) -> Iterator[Metric]:
        """The one family."""
        family = GaugeMetricFamily(
            "decider_access_problem",
            "1: the files of tokens or certificates cannot be read or are wrong; what they said before holds.",
            labels=("files",),
        )
        for files, problem in self._problems.items():
            family.add_metric([files], 1.0 if problem else 0.0)
        yield family


REASONS = frozenset(
    {"NOT_FOR_PAGES", "NO_CERTIFICATE", "NO_TOKEN", "OTHER_EXPERIMENT", "OTHER_ORIGIN", "RATE_EXCEEDED", "ROLE_MISSING"}
    | {"TOKEN_EXPIRED", "UNKNOWN_TOKEN"}
)


class RefusalMetrics:
    """Calls to the web port of those who may not call, in this process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._refused = Counter(
            "decider_web_refused_total",
            "Calls to the web port that were refused for who sent them, by the key of their page and by the reason.",
            ("key", "reason"),
            registry=registry,
        )

    def count(self, key: str, reason: str) -> None:
        """One call. key: the name of the page's key, as the tokens file has it; empty: it came with none."""
        self._refused.labels(key, reason if reason in REASONS else "OTHER").inc()
