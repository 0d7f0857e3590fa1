"""The stock providers, each a subclass of its own. OpenFeature is imported when one is made: nothing else needs it."""

from __future__ import annotations

from typing import Any

from decider.client.blocking import Client
from decider.client.openfeature.evaluations import Evaluations
from decider.client.openfeature.tracking import Tracker


def ofrep_provider(base_url: str, client: Client, *, exposures: bool = True, **settings: Any) -> Any:
    """An OFREPProvider for the server's `--web` port at this URL. Rewards and exposures go through the client.

    exposures: False sends no activation for an evaluation. settings: OFREPProvider's own; `timeout` in seconds.
    Raises ImportError without the extra `openfeature`.
    """
    from openfeature.contrib.provider.ofrep import OFREPProvider

    return _tracking(OFREPProvider, client, exposures=exposures)(base_url, **settings)


def flagd_provider(host: str, port: int, client: Client, *, exposures: bool = True, **settings: Any) -> Any:
    """A FlagdProvider for the server's gRPC port, as `ofrep_provider`; `deadline_ms` is among its settings.

    The stock one drops a flag's metadata. So a string flag's decision has the id that it was asked for with; where the
    experiment is sticky that is another one than the unit's: take the object flag (KEY:object) there.
    """
    from openfeature.contrib.provider.flagd import FlagdProvider

    return _tracking(FlagdProvider, client, exposures=exposures)(host=host, port=port, **settings)


def _tracking(stock: type[Any], client: Client, *, exposures: bool) -> type[Any]:
    """A subclass with a hook and with `track`, which OpenFeature's own providers leave empty."""
    tracker = Tracker(client, exposures=exposures)

    class Provider(stock):
        def get_provider_hooks(self) -> list[Any]:
            return [*super().get_provider_hooks(), Evaluations(tracker)]

        def track(
            self, tracking_event_name: str, evaluation_context: Any = None, tracking_event_details: Any = None
        ) -> None:
            tracker.track(tracking_event_name, evaluation_context, tracking_event_details)

    return Provider
