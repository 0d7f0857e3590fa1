"""The policies that learn: Vowpal Wabbit's contextual bandits with action-dependent features.

The only module that imports vowpal_wabbit_next. It feeds VW checked, escaped lines (`encode.py`), keeps parsed action
examples for as long as the workspace lives, and turns rewards into VW's costs. Called through `make.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vowpal_wabbit_next import CBLabel, Workspace
from vowpal_wabbit_next import _core as core

from decider.policy.protocol import Choice, UnusablePmf
from decider.policy.vw.encode import context_line
from decider.types import Context

ACTION_CACHE = 2_000
"""Parsed action lines that one workspace keeps, at 32 kB each; then it starts anew."""

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
        self._minimum, self._maximum = reward_range
        # The public wrapper costs 30 of 45 us a prediction (it compares the label types of all examples one by one),
        # so this module calls the core beneath it. The version of the package is pinned for that reason.
        self._vw = Workspace(arguments.split(), model_data=saved)._workspace
        self._examples: dict[Choice, core.Example] = {}
        self._labelled: dict[Choice, core.Example] = {}
        self._sets: dict[tuple[Choice, ...], list[core.Example]] = {}
        self._contexts: dict[str, core.Example] = {}
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
        """The drawn action stands in as an example of its own, which carries the label and is never predicted with."""
        lines = self._lines(context, actions)
        example = lines[drawn + 1] = self._example(actions[drawn], self._labelled)
        cost = (self._maximum - reward) / (self._maximum - self._minimum)
        example._set_label(CBLabel(label=(0, cost, propensity)))
        self._vw.learn_multi_ex_one(lines)

    def save(self) -> bytes:
        """The workspace as VW's model file."""
        return self._vw.serialize()

    def _lines(self, context: Context, actions: Sequence[Choice]) -> list[core.Example]:
        return [self._context(context), *self._examples_of(tuple(actions))]

    def _context(self, context: Context) -> core.Example:
        """Kept by the line, and the last one by the object: learning at once asks for it again."""
        last, kept = self._last
        if last is context and kept is not None:
            return kept
        line = context_line(context)
        example = self._contexts.get(line)
        if example is None:
            if len(self._contexts) >= CONTEXT_CACHE:
                self._contexts.clear()
            example = self._contexts[line] = core._parse_line_text(self._vw, line)
        self._last = (context, example)
        return example

    def _examples_of(self, lines: tuple[Choice, ...]) -> list[core.Example]:
        """Which actions are eligible recurs even more often than each of their lines."""
        examples = self._sets.get(lines)
        if examples is None:
            if len(self._examples) + len(lines) > ACTION_CACHE or len(self._sets) >= ACTION_CACHE:
                self._examples.clear()
                self._labelled.clear()
                self._sets.clear()
            examples = self._sets[lines] = [self._example(line, self._examples) for line in lines]
        return examples

    def _example(self, line: Choice, kept: dict[Choice, core.Example]) -> core.Example:
        example = kept.get(line)
        if example is None:
            example = kept[line] = core._parse_line_text(self._vw, line)
        return example
