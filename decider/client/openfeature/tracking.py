"""What was decided for whom, and what is told of it: rewards for tracked events, activations for exposures."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from decider.client.blocking import Client
from decider.client.fallback import ABSENT

MOST_KNOWN = 10_000
"""Decisions that are remembered, the oldest are forgotten first."""

DEFAULT_SHOWN = "code-default"
"""The name of what was shown where the code's default has none."""


@dataclass(frozen=True, slots=True)
class Decision:
    """expires: from when on a reward for it is late, in RFC 3339; empty where nobody knows.

    >>> Decision("d", "2020-01-01T00:00:00Z").is_over
    True
    >>> Decision("d").is_over
    False
    """

    id: str
    expires: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing may be sent for it any more."""
        return bool(self.expires) and datetime.fromisoformat(self.expires) <= datetime.now(UTC)


class Tracker:
    """Of one provider, for any number of threads. exposures: whether `Activate` is sent at all."""

    def __init__(self, client: Client, *, exposures: bool) -> None:
        self._client, self._exposures = client, exposures
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str | None, str], Decision] = OrderedDict()

    def show(self, unit: str | None, flag: str, decision: Decision) -> None:
        """An evaluation gave this decision's action to the page. Told once for each decision."""
        key = (unit, flag.removesuffix(":object"))
        with self._lock:
            is_new = self._known.get(key) != decision
            self._known[key] = decision
            self._known.move_to_end(key)
            if len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)
        if is_new and self._exposures and not decision.is_over:
            self._client.activate_later(decision.id)

    def show_default(self, decision_id: str, default: Any) -> None:
        """No answer came, but the decision may have been made: it must not count as if its action had been shown."""
        name = default.get("action") if isinstance(default, dict) else default
        if self._exposures:
            self._client.activate_later(decision_id, name if isinstance(name, str) and name else DEFAULT_SHOWN)

    def track(self, name: str, context: Any, details: Any) -> None:
        """A reward: of the decision that `details` names; of the last one that was shown to the unit, if it names an
        `experiment`; otherwise by unit, and the server knows for which decision."""
        attributes = details.attributes if details else {}
        value = details.value if details and details.value is not None else ABSENT
        reward_id = attributes.get("reward_id")
        if decision_id := attributes.get("decision_id"):
            self._client.reward(decision_id, name, value, reward_id=reward_id)
            return
        unit, experiment = context.targeting_key if context else None, attributes.get("experiment")
        with self._lock:
            shown = self._known.get((unit, experiment)) if experiment else None
        if shown is None:
            self._client.reward_unit(unit or "", name, value, experiment=experiment, reward_id=reward_id)
        elif not shown.is_over:
            self._client.reward(shown.id, name, value, reward_id=reward_id)
