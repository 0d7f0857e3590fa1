"""Drives OpenFeature's stock providers for Python, and ours over them, for `test_frontends.py`.

Run by `.venv-frontends`: lines of JSON come in, each with a `phase`, and a line with what each client got goes out.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from typing import Any

from openfeature import api
from openfeature.contrib.provider.flagd import FlagdProvider
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.track import TrackingEventDetails

from decider.client import Client
from decider.client.openfeature import flagd_provider, ofrep_provider

DEADLINE = 2.0
"""Seconds."""


class Drives:
    """All providers of one process, each for a unit of its own name."""

    def __init__(self, web: str, grpc: str) -> None:
        self.web = web
        host, port = grpc.rsplit(":", 1)
        self.client = Client(grpc, timeout=DEADLINE)
        flagd = {"tls": False, "deadline_ms": int(1000 * DEADLINE), "retry_grace_period": 60}
        self.providers = {
            "python-ofrep": OFREPProvider(web, timeout=DEADLINE),
            "python-ofrep-ours": ofrep_provider(web, self.client, timeout=DEADLINE),
            "python-flagd": FlagdProvider(host=host, port=int(port), **flagd),
            "python-flagd-ours": flagd_provider(host, int(port), self.client, **flagd),
        }
        for name, provider in self.providers.items():
            api.set_provider_and_wait(provider, name)

    def ready(self) -> dict[str, Any]:
        """The providers are."""
        return {}

    def live(self) -> dict[str, Any]:
        """Evaluate both flags, track a click. Which decision it was, as the application knows it."""
        found = {}
        for name in self.providers:
            client, context = api.get_client(name), self.context(name)
            details = client.get_string_details("storefront", "code", context)
            client.track("click", context, TrackingEventDetails(attributes={"experiment": "storefront"}))
            decision = details.flag_metadata.get("decisionId")
            if decision is None:  # flagd's provider drops it: the object flag has it in its value
                value = client.get_object_details("storefront:object", {}, context).value
                assert isinstance(value, dict), value
                decision = value.get("decision_id")
            found[name] = {"value": details.value, "reason": details.reason, "decision": decision}
        reply = self.client.decide("storefront", "python-client", segment="vip", cart_value=80.5)
        self.client.activate(reply.decision_id)
        self.client.reward(reply.decision_id, "click")
        found["python-client"] = {"value": reply.action.id, "decision": reply.decision_id}
        assert self.client.flush()
        return found

    def context(self, unit: str) -> EvaluationContext:
        """Of one drive."""
        return EvaluationContext(unit, {"segment": "vip", "cart_value": 80.5, "tags": ["new", "sale"]})

    def purchase(self, decisions: dict[str, str]) -> dict[str, Any]:
        """In another process than the decision: ours track it, of the others the application has the id."""
        for name, decision in decisions.items():
            if name == "python-client":
                self.client.reward(decision, "purchase", 80.5)
            elif name.endswith("-ours"):
                details = TrackingEventDetails(80.5, {"decision_id": decision})
                api.get_client(name).track("purchase", self.context(name), details)
            else:
                body = json.dumps({"decisionId": decision, "name": "purchase", "value": 80.5}).encode()
                headers = {"content-type": "application/json"}
                address = f"{self.web}/decider.v1.DeciderService/Reward"
                urllib.request.urlopen(urllib.request.Request(address, body, headers)).read()
        assert self.client.flush()
        return {}

    def gone(self) -> dict[str, Any]:
        """Nobody answers: the code's default, and after how many seconds."""
        return {name: self.gone_for(name) for name in ("python-client", *self.providers)}

    def gone_for(self, name: str) -> dict[str, Any]:
        """One of them."""
        begin = time.monotonic()
        if name == "python-client":
            value = self.client.decide("storefront", name, fallback="code").action.id
        else:
            value = api.get_client(name).get_string_value("storefront", "code", self.context(name))
        return {"value": value, "seconds": time.monotonic() - begin}


def main() -> None:
    """Until standard input ends."""
    drives = Drives(*sys.argv[1:])
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(getattr(drives, asked.pop("phase"))(**asked)), flush=True)


main()
