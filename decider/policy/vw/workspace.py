"""The policies that learn: Vowpal Wabbit's contextual bandits with action-dependent features.

The only module that imports vowpal_wabbit_next. It feeds VW checked, escaped lines (`encode.py`), keeps parsed action
examples for as long as the workspace lives, and turns rewards into VW's costs. Made by `algorithms.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vowpal_wabbit_next import CBLabel, Workspace
from vowpal_wabbit_next import _core as core

from decider.policy.features import Vector, vector_of
from decider.policy.protocol import Choice, UnusablePmf
from decider.policy.vw.encode import action_line, context_line
from decider.types import Context, Features

ACTION_CACHE = 2_000
"""Parsed action lines that one workspace keeps, at 32 kB each; then it starts anew."""

RECENT_SETS = 8
"""Eligible sets that are known as objects: hashing one costs a call for each of its actions."""

CONTEXT_CACHE = 500
"""The same for context lines: a decision that is learned at once after it was scored is parsed once."""


class VwPolicy:
    """One VW workspace. `saved` continues from `save()` of a policy with the same arguments.

    The cost that VW learns from is the share of the reward's declared range that was missed, in [0, 1]: parameters such
    as SquareCB's gamma_scale mean the same in every experiment, and VW's first guess of 0 for an action it does not
    know is hopeful. This is the one place where rewards become costs.

    A parsed example belongs to the workspace that parsed it (its hashes hold that workspace's constants), so the cache
    lives and dies with it. Calls into VW hold the interpreter lock from start to end: each is atomic.
    """

    def __init__(
        self, arguments: str, *, reward_range: tuple[float, float] = (0.0, 1.0), saved: bytes | None = None
    ) -> None:
        self._arguments = arguments
        self._minimum, self._maximum = reward_range
        # The public wrapper costs 30 of 45 us a prediction (it compares the label types of all examples one by one),
        # so this module calls the core beneath it. The version of the package is pinned for that reason.
        self._vw = Workspace(arguments.split(), model_data=saved)._workspace
        self._examples: dict[Choice, core.Example] = {}
        self._labelled: dict[Choice, core.Example] = {}
        self._sets: dict[tuple[Choice, ...], list[core.Example]] = {}
        self._contexts: dict[tuple[tuple[str, ...], Vector], core.Example] = {}
        self._recent: dict[int, tuple[tuple[Choice, ...], list[core.Example]]] = {}
        self._last: tuple[Context | None, core.Example | None] = (None, None)

    def pmf(self, context: Context, actions: Sequence[Choice]) -> Sequence[float]:
        """VW's pmf, in the order of the actions. Raises UnusablePmf where VW gives none."""
        try:
            scored: Any = self._vw.predict_multi_ex_one(self._lines(context, actions))
        except RuntimeError as error:
            raise UnusablePmf(str(error)) from error
        pmf = [0.0] * len(actions)
        for index, probability in scored:
            pmf[index] = probability
        return pmf

    def learn(
        self, context: Context, actions: Sequence[Choice], *, drawn: int, propensity: float, reward: float
    ) -> None:
        """The drawn action is replaced by an example of its own with the label, which is never used to predict."""
        lines = self._lines(context, actions)
        example = lines[drawn + 1] = self._example(actions[drawn], self._labelled)
        cost = (self._maximum - reward) / (self._maximum - self._minimum)
        example._set_label(CBLabel(label=(0, cost, propensity)))
        self._vw.learn_multi_ex_one(lines)

    def save(self) -> bytes:
        """The workspace as VW's model file."""
        return self._vw.serialize()

    def snapshot(self) -> VwPolicy:
        """Loaded from what it saves: VW has no other way to copy a workspace."""
        return VwPolicy(self._arguments, reward_range=(self._minimum, self._maximum), saved=self.save())

    def vocabulary(self) -> None:
        """Features share a table of fixed size by their hashes: none is left out."""

    def _lines(self, context: Context, actions: Sequence[Choice]) -> list[core.Example]:
        return [self._context(context), *self._examples_of(tuple(actions))]

    def _context(self, context: Context) -> core.Example:
        """The last one is known as an object: learning at once asks for it again."""
        last, kept = self._last
        if last is context and kept is not None:
            return kept
        example = self._parsed(context[:5], context.features)
        self._last = (context, example)
        return example

    def _parsed(self, fields: tuple[str, ...], features: Features) -> core.Example:
        """Kept by its features, but for those with numbers, which hardly ever come twice."""
        key = (fields, vector_of(features) if features else ())
        if float in map(type, features.values()):
            return self._parse(context_line(*key))
        example = self._contexts.get(key)
        if example is None:
            if len(self._contexts) >= CONTEXT_CACHE:
                self._contexts.clear()
            example = self._contexts[key] = self._parse(context_line(*key))
        return example

    def _parse(self, line: str) -> core.Example:
        return core._parse_line_text(self._vw, line)

    def _examples_of(self, actions: tuple[Choice, ...]) -> list[core.Example]:
        # Sets of actions recur even more often than single ones, mostly as the same object.
        recent = self._recent.get(id(actions))
        if recent is not None:  # kept with its examples, so nothing else can have its id
            return recent[1]
        examples = self._sets.get(actions)
        if examples is None:
            if len(self._examples) + len(actions) > ACTION_CACHE or len(self._sets) >= ACTION_CACHE:
                self._examples.clear()
                self._labelled.clear()
                self._sets.clear()
                self._recent.clear()  # or their examples would live on
            examples = self._sets[actions] = [self._example(one, self._examples) for one in actions]
        if len(self._recent) >= RECENT_SETS:
            self._recent.clear()
        self._recent[id(actions)] = (actions, examples)
        return examples

    def _example(self, action: Choice, kept: dict[Choice, core.Example]) -> core.Example:
        example = kept.get(action)
        if example is None:
            example = kept[action] = self._parse(action_line(action))
        return example
