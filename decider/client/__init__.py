"""The Python client. A page must show something even when the server does not answer: `fallback`.

>>> client = Client("127.0.0.1:1", timeout=0.05)  # nobody listens there
>>> choice = client.decide("storefront", "visitor-1", fallback="new-arrivals", segment="vip")
>>> choice.action.id, choice.decision_id
('new-arrivals', '')
>>> client.fallbacks
Counter({Kind(code='UNAVAILABLE', reason=''): 1})
>>> client.reward(choice.decision_id, "click")  # nothing to reward: nothing is sent
'nothing'
>>> client.close()
"""

from decider.client.asynchronous import AsyncClient
from decider.client.blocking import Client
from decider.client.deliveries import NOTHING, QUEUED, REFUSED, Outcome
from decider.client.failures import Consequence, Failure, Kind
from decider.client.fallback import Fallback

__all__ = [
    "NOTHING",
    "QUEUED",
    "REFUSED",
    "AsyncClient",
    "Client",
    "Consequence",
    "Failure",
    "Fallback",
    "Kind",
    "Outcome",
]
