"""How the attacks ended, counted; what must not be is kept in words. Filled by the strangers' threads."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

MOST_BREACHES = 1_000
"""That are kept apart."""


class Finding(NamedTuple):
    """How an attack ended. breach: why it must not end so; empty where it may."""

    attack: str
    identity: str
    what: str
    outcome: str
    breach: str = ""


@dataclass(slots=True)
class Findings:
    """planned: (identity, what), by attack. outcomes: (attack, identity, outcome), counted. breaches: in words.
    failures: errors of the strangers' own code, where nothing was tried."""

    planned: Mapping[str, Sequence[tuple[str, str]]]
    outcomes: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    tried: set[tuple[str, str]] = field(default_factory=set)
    breaches: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, found: Finding) -> None:
        """One more."""
        with self._lock:
            self.outcomes[found.attack, found.identity, found.outcome] += 1
            self.tried.add((found.identity, found.what))
            if found.breach and len(self.breaches) < MOST_BREACHES:
                self.breaches[f"{found.what} by {found.identity!r}: {found.outcome}: {found.breach}"] += 1

    def fail(self, attack: str, error: BaseException) -> None:
        """The attack itself went wrong."""
        with self._lock:
            self.failures[f"{attack}: {type(error).__name__}: {error}"[:200]] += 1

    def to_json(self) -> Mapping[str, object]:
        """For the process that judges."""
        with self._lock:
            return {
                "outcomes": [[*key, count] for key, count in sorted(self.outcomes.items())],
                "untried": {name: self._untried(name) for name in self.planned},
                "breaches": dict(self.breaches.most_common()),
                "failures": dict(self.failures.most_common(50)),
            }

    def _untried(self, attack: str) -> int:
        return len({*self.planned[attack]} - self.tried)
