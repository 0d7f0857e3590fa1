"""OpenFeature's stock providers for Python, with rewards and exposures. For pages and Node there is `openfeature.js`.

Flags come from the stock provider, as ever; `track(name, value)` becomes a reward, an evaluation an activation, and
both go through the `Client`, which sends them again where no answer comes. Extra: `openfeature`.
"""

from decider.client.openfeature.providers import flagd_provider, ofrep_provider

__all__ = ["flagd_provider", "ofrep_provider"]
