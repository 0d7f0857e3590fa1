"""Keeps the policies of one process within a stated number of bytes: those that were not asked for the longest time are
evicted to a file, and loaded again when somebody asks.

Evicting changes no bit of what a policy answers or learns: its whole state is pickled, and what Vowpal Wabbit saves
predicts and learns on as before. Two of its algorithms do not learn on as before; their learners are `fixed`: they
count, and stay, and only shrink. Called by `learn/` and `serving/`; without a `PolicyMemory` all policies stay.
"""

from __future__ import annotations

import logging
import pickle
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from itertools import count
from typing import Protocol

from decider.errors import DeciderError
from decider.policy.protocol import Choice, Policy, Scores, Vocabulary
from decider.types import Context

logger = logging.getLogger(__name__)

FIXED_BYTES = 10_000_000
"""Of a learner that stays in memory, once it has shrunk."""

GROWTH = 1_000_000
"""Bytes by which a policy may grow before memory is trimmed at once."""


class Storage(Protocol):
    """Where evicted policies are, by number."""

    def put(self, key: int, data: bytes) -> None:
        """Store, or replace."""

    def get(self, key: int) -> bytes:
        """What was stored."""
        ...

    def delete(self, key: int) -> None:
        """Forget, if it is there."""


class PolicyMemory:
    """most_bytes: of all policies in memory, may be changed. evictions: how many there have been."""

    def __init__(self, most_bytes: int, storage: Storage) -> None:
        self.evictions = 0
        self.most_bytes = most_bytes
        self._storage = storage
        self._lock = threading.Lock()
        self._keys = count(1)
        self._uses = count(1)
        self._in_memory: dict[int, weakref.ref[EvictablePolicy]] = {}
        self._gone: deque[int] = deque()

    def keep(self, policy: Policy, *, fixed: bool = False) -> EvictablePolicy:
        """The policy, evicted when memory is short. fixed: it counts, and only its caches go."""
        kept = EvictablePolicy(self, next(self._keys), policy, fixed=fixed)
        # Whatever thread drops it says so, also in the middle of a call of the storage: `trim` deletes it.
        weakref.finalize(kept, self._gone.append, kept.key).atexit = False
        return kept

    @property
    def bytes(self) -> int:
        """Of all policies in memory, when they were last measured."""
        return sum(policy.measured for policy in self._alive())

    @property
    def count(self) -> int:
        """Policies in memory, also such that are still to be made."""
        return len(self._alive())

    def _alive(self) -> list[EvictablePolicy]:
        return [policy for ref in list(self._in_memory.values()) if (policy := ref()) is not None]

    def enter(self, policy: EvictablePolicy) -> None:
        """It is in memory from now on."""
        self._in_memory[policy.key] = weakref.ref(policy)

    def leave(self, policy: EvictablePolicy) -> None:
        """It is in memory no longer."""
        self._in_memory.pop(policy.key, None)

    def next_use(self) -> int:
        """A number larger than all before."""
        return next(self._uses)

    def load(self, key: int) -> Policy:
        """What was evicted."""
        policy: Policy = pickle.loads(self._storage.get(key))
        return policy

    def store(self, key: int, policy: Policy) -> None:
        """Before it is evicted. Raises LogError where there is no room for it."""
        self._storage.put(key, pickle.dumps(policy, pickle.HIGHEST_PROTOCOL))

    def trim(self) -> None:
        """Measure the policies, and evict what is too much. Called from time to time, and whenever a policy has been
        loaded."""
        with self._lock:
            while self._gone:
                key = self._gone.popleft()
                self._in_memory.pop(key, None)
                self._storage.delete(key)
            alive = self._alive()
            for policy in alive:
                policy.measure()
            excess = sum([policy.measured for policy in alive]) - self.most_bytes
            if excess > 0:
                try:
                    self._evict(alive, excess)
                except DeciderError as error:
                    logger.error("policies take %d bytes more than they should: %s", excess, error)

    def _evict(self, alive: Sequence[EvictablePolicy], excess: int) -> None:
        for policy in sorted(alive, key=lambda policy: policy.last_used):
            size = policy.measured
            if size and policy.evict():
                self.evictions += 1
                excess -= size - policy.measured
                if excess <= 0:
                    return


class EvictablePolicy:
    """A policy that may be in memory or not; see `PolicyMemory.keep`. measured: its bytes. last_used: a number of
    `next_use`."""

    def __init__(self, memory: PolicyMemory, key: int, policy: Policy, *, fixed: bool) -> None:
        self._memory = memory
        self.key = key
        self._policy: Policy | None = policy
        self._fixed = fixed
        self._stored = False
        self._used = False
        self._lock = threading.Lock()
        self._vocabulary: Vocabulary | None = None
        self.measured = policy.size
        self.last_used = memory.next_use()
        memory.enter(self)

    @property
    def size(self) -> int:
        """See `Policy`."""
        policy = self._policy
        return policy.size if policy is not None else 0

    def pmf(self, context: Context, actions: Sequence[Choice]) -> Sequence[float]:
        """See `Policy`."""
        policy = self._policy
        if policy is not None and self._used:
            return policy.pmf(context, actions)
        (pmf,) = self._first_pmfs([context], actions)
        return pmf

    def pmfs(self, contexts: Sequence[Context], actions: Sequence[Choice]) -> Sequence[Sequence[float]]:
        """See `Policy`."""
        policy = self._policy
        if policy is not None and self._used:
            return policy.pmfs(contexts, actions)
        return self._first_pmfs(contexts, actions)

    def _first_pmfs(self, contexts: Sequence[Context], actions: Sequence[Choice]) -> Sequence[Sequence[float]]:
        """The first since it was measured."""
        with self._lock:
            policy = self._loaded()
        pmfs = policy.pmfs(contexts, actions)
        self._trim_if_grown()
        return pmfs

    def _trim_if_grown(self) -> None:
        """After the first use: it may have been loaded or made by it. Not with the lock: it may be evicted itself."""
        if self.size > self.measured + GROWTH:
            self._memory.trim()

    def _loaded(self) -> Policy:
        """Call it with the lock."""
        self._used = True
        self.last_used = self._memory.next_use()
        if self._policy is None:
            self._policy = self._memory.load(self.key)
            self._memory.enter(self)
        return self._policy

    def learn(
        self, context: Context, actions: Sequence[Choice], *, drawn: int, propensity: float, reward: float
    ) -> None:
        """See `Policy`."""
        with self._lock:
            first = not self._used
            self._stored = False
            self._loaded().learn(context, actions, drawn=drawn, propensity=propensity, reward=reward)
        if first:
            self._trim_if_grown()

    def count_under_way(self, *, decided: int, sealed: int) -> None:
        """See `Policy`."""
        with self._lock:
            first = not self._used
            self._stored = False
            self._loaded().count_under_way(decided=decided, sealed=sealed)
        if first:
            self._trim_if_grown()

    def save(self) -> bytes:
        """See `Policy`."""
        with self._lock:
            return self._loaded().save()

    def snapshot(self) -> Policy:
        """See `Policy`."""
        with self._lock:
            return self._memory.keep(self._loaded().snapshot())

    def shrink(self) -> None:
        """See `Policy`."""
        with self._lock:
            if self._policy is not None:
                self._policy.shrink()

    def vocabulary(self) -> Vocabulary | None:
        """See `Policy`. It loads nothing: a scrape asks every policy."""
        with self._lock:
            return self._vocabulary if self._policy is None else self._policy.vocabulary()

    def scores(self, contexts: Sequence[Context], actions: Sequence[Choice]) -> Sequence[Scores] | None:
        """See `Policy`."""
        with self._lock:
            return self._loaded().scores(contexts, actions)

    def measure(self) -> None:
        """Bring `measured` up to date."""
        # Also where it was not used since the last time: then it may have been in the middle of a call, and have grown.
        self.measured, self._used = self.size, False

    def evict(self) -> bool:
        """As far as it can be. Returns whether it was: not in the middle of learning."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self._policy is not None and self._fixed:
                self._policy.shrink()
            elif self._policy is not None:
                self._leave_memory(self._policy)
            self.measured = self.size
            return True
        finally:
            self._lock.release()

    def _leave_memory(self, policy: Policy) -> None:
        if not self._stored:
            self._memory.store(self.key, policy)
        self._stored, self._vocabulary = True, policy.vocabulary()
        self._policy = None
        self._memory.leave(self)
