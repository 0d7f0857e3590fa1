"""Which listener of gRPC answers which service. Called by `serve.py`, whose worker opens them, and by `access.py`,
which warns of those that others reach.

Without `--operate-listen` one listener answers everything. With it each service is answered at one of two, and at no
other: what a port lets in is said by its service alone, whatever tokens there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from decider.server.limits import share_of_descriptors
from decider.server.settings import Settings

DECISIONS, EXPERIMENTS = SERVICES = ("decider.v1.DeciderService", "decider.v1.ExperimentService")

FLAGS = ("flagd.evaluation.v1.Service", "flagd.evaluation.v2.Service")
"""Decisions in the words of OpenFeature's flagd providers: answered where DECISIONS is."""

LISTEN, OPERATE_LISTEN = "--listen", "--operate-listen"

WEB = "--web"
"""The option of the port for HTTP (`web/port.py`), which answers DeciderService, too."""


OPERATORS = 256
"""Connections at once to the listener for operators."""


class Listener(NamedTuple):
    """option: that names the address. services: that it answers. elsewhere: those that it does not, with the option of
    the listener that does. most_connections: at once; one more is closed before it has said anything."""

    option: str
    address: str
    services: tuple[str, ...]
    elsewhere: Mapping[str, str]
    most_connections: int


def listeners(settings: Settings) -> Sequence[Listener]:
    """The one for decisions first."""
    most = share_of_descriptors(2 if settings.web is None else 4, most=settings.max_connections)
    if settings.operate_listen is None:
        return [Listener(LISTEN, settings.listen, (*SERVICES, *FLAGS), {}, most)]
    few = share_of_descriptors(16, most=OPERATORS)
    return [
        Listener(LISTEN, settings.listen, (DECISIONS, *FLAGS), {EXPERIMENTS: OPERATE_LISTEN}, most),
        Listener(
            OPERATE_LISTEN, settings.operate_listen, (EXPERIMENTS,), dict.fromkeys((DECISIONS, *FLAGS), LISTEN), few
        ),
    ]
