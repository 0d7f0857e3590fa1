"""What comes to the web port, by protocol. Called by `server/web/app.py`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter


class WebMetrics:
    """Of this process. Label children are kept, since a lookup costs more than counting."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "decider_web_requests_total",
            "Requests to the web port, by protocol and by whether they were answered.",
            ("protocol", "outcome"),
            registry=registry,
        )
        self._counts: dict[tuple[str, bool], Counter] = {}

    def count(self, protocol: str, failed: bool) -> None:
        """One request. protocol: of few."""
        count = self._counts.get((protocol, failed))
        if count is None:
            outcome = "failed" if failed else "answered"
            count = self._counts[protocol, failed] = self._requests.labels(protocol, outcome)
        count.inc()
