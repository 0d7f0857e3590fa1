"""Which requests of an experiment version cost more than a budget. `decide` asks for every request, and
`learn/versions.py` before a version is applied.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence

from decider.experiment.features import MAX_FEATURES
from decider.policy.spec import PolicySpec
from decider.policy.work import Budget, Shape
from decider.types import CONTEXT_FIELDS, NO_FEATURES, ActionId, Context, Features

SURELY = 1 - 1e-9
"""Of a budget: two sums of the same costs may differ in their last bits."""

FIELDS = len(CONTEXT_FIELDS)


class Workload:
    """The work of one version's decisions, by the numbers of features alone. own: features of each action; active: the
    actions that can be chosen."""

    __slots__ = ("_active", "_fit", "_most_own", "_own", "_policy")

    def __init__(self, policy: PolicySpec, own: Mapping[ActionId, Features], active: Sequence[ActionId]) -> None:
        self._policy = policy
        self._own = own
        self._active = active
        self._most_own = max(map(len, own.values()), default=0)
        self._fit: tuple[Budget | None, int] = (None, -1)

    def fits(
        self,
        budget: Budget,
        context: Context,
        eligible: Sequence[ActionId],
        action_features: Mapping[ActionId, Features],
    ) -> bool:
        """Whether a decision costs no more than the budget."""
        # Nearly every request ends here. More features never cost less: what fits with all fields and all actions fits
        # with some of them.
        if not action_features and len(context.features) <= self.most_features(budget):
            return True
        if action_features and self._policy.seconds(self._largest(context, action_features)) < SURELY * budget.seconds:
            return True
        return self.seconds(context, eligible, action_features) <= budget.seconds

    def _largest(self, context: Context, action_features: Mapping[ActionId, Features]) -> Shape:
        """A shape that no decision with such features exceeds, without looking at each action."""
        most = self._most_own + max(map(len, action_features.values()))
        # Actions that the call brings are among those with features, beside the active ones.
        return Shape(FIELDS + len(context.features), {most: len(self._active) + len(action_features)})

    def seconds(
        self, context: Context, eligible: Sequence[ActionId], action_features: Mapping[ActionId, Features]
    ) -> float:
        """Estimated, of one decision."""
        own, new = self._own, {id_: action_features[id_] for id_ in eligible if id_ in action_features}
        sizes = [_size(own.get(id_, NO_FEATURES), new.get(id_, NO_FEATURES)) for id_ in eligible]
        given = FIELDS - context[:FIELDS].count("")
        return self._policy.seconds(Shape(given + len(context.features), Counter(sizes)))

    def most_features(self, budget: Budget) -> int:
        """How many free features a context may have, with all of its fields and all actions; -1: not even none."""
        known, most = self._fit
        if known != budget:
            sizes = Counter([len(self._own[id_]) for id_ in self._active])
            most = (
                bisect_right(
                    range(MAX_FEATURES + 1),
                    budget.seconds,
                    key=lambda free: self._policy.seconds(Shape(FIELDS + free, sizes)),
                )
                - 1
            )
            self._fit = (budget, most)
        return most


def _size(own: Features, new: Features) -> int:
    return len(own.keys() | new.keys()) if new else len(own)
