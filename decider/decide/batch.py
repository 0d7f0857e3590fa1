"""The slots of several requests, from one call of the policy for those with the same eligible actions: a call of NumPy
costs more than what it computes for one context.

A policy gives a context the same pmf among others as alone, so `verify` recomputes each decision by itself. Whatever
goes wrong here is left to `decide`: it asks again, for that request alone, and falls back for that request alone.
Called by `server/service.py`, for a batch and for calls of a thread that wait at the same time; a call alone asks the
cache of slots.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from decider.decide.decide import (
    Ask,
    CacheKey,
    Eligible,
    SlotsAndReason,
    SlotsCache,
    rule_slots,
    slots_before_policy,
    slots_of_pmf,
)
from decider.decide.slots import check_pmf
from decider.experiment.definition import ExperimentVersion
from decider.policy.protocol import Choice, Model
from decider.policy.work import Budget
from decider.types import ActionId, Context, DecisionRequest

logger = logging.getLogger(__name__)


class Waiting(NamedTuple):
    """A request that will be decided. cache: of this version and this model. budget: see `decide`."""

    request: DecisionRequest
    version: ExperimentVersion
    model: Model
    cache: SlotsCache
    eligible: Eligible
    budget: Budget | None

    @property
    def is_new(self) -> bool:
        """Whether its slots may have to be computed, and may be computed with others'."""
        actions, features = self.eligible.actions, self.request.action_features
        return not features and len(actions) > 1 and self.cache.key(self.request, actions) not in self.cache


class AskAll(Protocol):
    """`asks_for`, for several calls at once."""

    def is_alone(self) -> bool:
        """Whether the call that asks is the only one: the cache, asked directly, gives the same."""
        ...

    def __call__(self, waiting: Sequence[Waiting], /) -> list[Ask]:
        """What `decide` is to ask for each of them."""
        ...


class _Group:
    """Requests with the same version, model and eligible actions, whose policy will be asked."""

    def __init__(self, version: ExperimentVersion, model: Model, cache: SlotsCache) -> None:
        self._version, self._model, self._cache = version, model, cache
        # Equal contexts are computed once where they are cached; then the cache has them.
        self._contexts: dict[CacheKey | int, Context] = {}

    def add(self, index: int, key: CacheKey | None, context: Context) -> None:
        """The request at this index."""
        self._contexts[index if key is None else key] = context

    def compute(self, eligible: tuple[ActionId, ...]) -> Iterable[tuple[int, SlotsAndReason]]:
        """Index and slots of those that are not cached; the others are in the cache then. Nothing of those whose pmf
        cannot be used."""
        choices = self._version.choices_of(eligible, {})
        if len(self._contexts) == 1 or rule_slots(self._version, self._model.policy, choices) is not None:
            return
        for key, pmf in self._pmfs(choices):
            try:
                check_pmf(pmf, len(choices))
                made: SlotsAndReason = slots_of_pmf(self._version, pmf, choices), None
            except Exception:
                logger.debug("the pmf of one context cannot be used", exc_info=True)
                continue
            if isinstance(key, int):
                yield key, made
            else:
                self._cache.keep(key, made)

    def _pmfs(self, choices: Sequence[Choice]) -> list[tuple[CacheKey | int, Sequence[float]]]:
        """None of them where one raises: `decide` asks for each alone, and logs what it raises then."""
        try:
            pmfs = self._model.policy.pmfs(list(self._contexts.values()), choices)
            return list(zip(self._contexts, pmfs, strict=True))
        except Exception:
            logger.debug("the pmfs of several contexts cannot be had at once", exc_info=True)
            return []


def asks_for(waiting: Sequence[Waiting]) -> list[Ask]:
    """What `decide` is to ask for the slots of each request, computed as far as they can be at once."""
    asks: list[Ask] = [one.cache for one in waiting]
    if len(waiting) == 1:
        return asks
    groups: dict[tuple[int, tuple[ActionId, ...]], _Group] = {}
    for index, one in enumerate(waiting):
        request, version, model, cache, (eligible, _, _), budget = one
        if one.is_new and slots_before_policy(request, version, eligible, budget) is None:
            group = groups.get((id(cache), eligible))
            if group is None:
                group = groups[id(cache), eligible] = _Group(version, model, cache)
            group.add(index, cache.key(request, eligible), request.context)
    for (_, eligible), group in groups.items():
        for index, made in group.compute(eligible):
            asks[index] = _given(made)
    return asks


def ask_together(ask_all: AskAll, cache: SlotsCache, budget: Budget | None) -> Ask:
    """Asks the cache, and for what is not there `ask_all`, together with others."""

    def ask(
        request: DecisionRequest, version: ExperimentVersion, model: Model, eligible: tuple[ActionId, ...]
    ) -> SlotsAndReason:
        waiting = Waiting(request, version, model, cache, Eligible(eligible), budget)
        (known,) = ask_all([waiting]) if waiting.is_new else [cache]
        return known(request, version, model, eligible)

    return ask


def _given(made: SlotsAndReason) -> Ask:
    return lambda *_: made
