"""The slots of several requests, from one call of the policy for those with the same eligible actions: a call of NumPy
costs more than what it computes for one context.

A policy gives a context the same pmf among others as alone, so `verify` recomputes each decision by itself. Whatever
goes wrong here is left to `decide`: it asks again, for that request alone, and falls back for that request alone.
Called by `server/service.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

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
from decider.policy.protocol import Model, UnusablePmf
from decider.policy.work import Budget
from decider.types import ActionId, Context, DecisionRequest


class Waiting(NamedTuple):
    """A request that will be decided. cache: of this version and this model."""

    request: DecisionRequest
    version: ExperimentVersion
    model: Model
    cache: SlotsCache
    eligible: Eligible


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
        try:
            pmfs = self._model.policy.pmfs(list(self._contexts.values()), choices)
        except Exception:  # whichever context it is about: `decide` asks for each one alone, and logs what it raises
            return
        for key, pmf in zip(self._contexts, pmfs, strict=True):
            try:
                check_pmf(pmf, len(choices))
            except UnusablePmf:
                continue
            made: SlotsAndReason = slots_of_pmf(self._version, pmf, choices), None
            if isinstance(key, int):
                yield key, made
            else:
                self._cache.keep(key, made)


def asks_for(waiting: Sequence[Waiting], budget: Budget | None) -> list[Ask]:
    """What `decide` is to ask for the slots of each request, computed as far as they can be at once."""
    asks: list[Ask] = [one.cache for one in waiting]
    groups: dict[tuple[int, tuple[ActionId, ...]], _Group] = {}
    for index, (request, version, model, cache, (eligible, _, is_empty)) in enumerate(waiting):
        key = cache.key(request, eligible)
        if is_empty or request.action_features or key in cache:
            continue
        if slots_before_policy(request, version, eligible, budget) is None:
            group = groups.setdefault((id(cache), eligible), _Group(version, model, cache))
            group.add(index, key, request.context)
    for (_, eligible), group in groups.items():
        for index, made in group.compute(eligible):
            asks[index] = _given(made)
    return asks


def _given(made: SlotsAndReason) -> Ask:
    return lambda *_: made
