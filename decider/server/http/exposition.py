"""/metrics: text for Prometheus, OpenMetrics for who asks for it, compressed for who can read that. Called by
`server/leading.py`.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

from prometheus_client import disable_created_metrics, generate_latest
from prometheus_client.exposition import gzip_accepted
from prometheus_client.openmetrics import exposition as openmetrics
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from decider.metrics.merged import Source
from decider.server.http.turns import Turns

# One more series for each counter, of which nobody asks when this process began to count.
disable_created_metrics()  # type: ignore[no-untyped-call]

TEXT = "text/plain; version=0.0.4; charset=utf-8"
"""What every reader knows; the default."""

OPENMETRICS = openmetrics.CONTENT_TYPE_LATEST

ENCODERS: dict[str, Callable[[Any], bytes]] = {
    TEXT: generate_latest,
    OPENMETRICS: openmetrics.generate_latest,
}

GZIP_LEVEL = 5


def exposition(registry: Source) -> Route:
    """The route. registry: what has the metrics. A scrape reads the log, so scrapes take turns, and those that wait
    share one."""
    turns = Turns()
    forms = {form: partial(_expose, registry, *form) for form in product(ENCODERS, (False, True))}

    async def metrics(request: Request) -> Response:
        content_type = content_type_for(request.headers.get("Accept", ""))
        zipped = gzip_accepted(request.headers.get("Accept-Encoding", ""))
        content = await turns.run(forms[content_type, zipped])
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        return Response(content, headers=headers | ({"Content-Encoding": "gzip"} if zipped else {}))

    return Route("/metrics", metrics)


def content_type_for(accept: str) -> str:
    """The form that suits an Accept header.

    >>> content_type_for("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    'application/openmetrics-text; version=1.0.0; charset=utf-8'
    >>> content_type_for("*/*")
    'text/plain; version=0.0.4; charset=utf-8'
    """
    asked = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    return OPENMETRICS if "application/openmetrics-text" in asked else TEXT


def _expose(registry: Source, content_type: str, zipped: bool) -> bytes:
    content = ENCODERS[content_type](registry)
    return gzip.compress(content, GZIP_LEVEL) if zipped else content
