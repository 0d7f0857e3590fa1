"""The policies that learn: Vowpal Wabbit's contextual bandits with action-dependent features.

The only module that imports vowpal_wabbit_next. It feeds VW checked, escaped lines (`encode.py`), makes a workspace
when it is first needed, keeps parsed examples in it within a stated number of bytes, and turns rewards into VW's costs.
Made by `algorithms.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from sys import getsizeof
from typing import Any

from vowpal_wabbit_next import CBLabel, Workspace
from vowpal_wabbit_next import _core as core

from decider.policy.features import Vector, vector_of
from decider.policy.protocol import Choice, Scores, UnusablePmf
from decider.policy.vw.encode import action_line, context_line
from decider.policy.vw.scores import expected_costs
from decider.types import Context, Features

WORKSPACE_BYTES = 10_000_000
"""Of a workspace, whatever its algorithm: measured."""

EXAMPLE_BYTES, FEATURE_BYTES = 32_800, 180
"""Of a parsed line and its key without features, and of a feature, beside its name: measured."""

CACHE_BYTES = 40_000_000
"""Of the parsed action lines that one workspace keeps, at most: 1,000 actions with 20 features each fit. Then it keeps
what it has, and the others are parsed at every call."""

PATIENCE = 10
"""Lines that came again and found no room, for each one that is kept: then the cache starts anew, since what it keeps
may come no longer. An action set that is too large for the cache must not empty it in the middle of every call."""

LABELLED_CACHE, CONTEXT_CACHE = 100, 200
"""Most actions with labels, and contexts, whose parsed lines are kept: a decision that is learned at once after it was
scored is parsed once."""

SEEN_ONCE = 10_000
"""Most hashes of actions that came once. A line is kept when it comes again: a new price at every call is no reason to
forget the others."""

RECENT_SETS = 8
"""Eligible sets that are known as objects: hashing one costs a call for each of its actions."""

SETS = 50_000
"""Most actions of all eligible sets that are kept."""


def example_bytes(vector: Vector) -> int:
    """Of a parsed line that is kept, with its key."""
    return EXAMPLE_BYTES + sum([FEATURE_BYTES + 2 * getsizeof(name) for name, _ in vector])


class _Workspace:
    """A workspace of VW's with what it has parsed: an example belongs to the workspace that parsed it, since its hashes
    hold that workspace's constants."""

    def __init__(self, arguments: str, saved: bytes | None) -> None:
        # The public wrapper costs 30 of 45 us a prediction (it compares the label types of all examples one by one),
        # so this module calls the core beneath it. The version of the package is pinned for that reason.
        self.vw = Workspace(arguments.split(), model_data=saved)._workspace
        self._once: set[int] = set()
        self.shrink()

    def shrink(self) -> None:
        """Forget all parsed lines."""
        self._labelled: dict[Choice, core.Example] = {}
        self._contexts: dict[tuple[tuple[str, ...], Vector], core.Example] = {}
        self._last: tuple[Context | None, core.Example | None] = (None, None)
        self._context_bytes = self._labelled_bytes = 0
        self._forget_actions()

    def _forget_actions(self) -> None:
        self.examples: dict[Choice, core.Example] = {}
        self._sets: dict[tuple[Choice, ...], list[core.Example]] = {}
        self._in_sets = 0
        # Their examples would live on.
        self._recent: dict[int, tuple[tuple[Choice, ...], list[core.Example]]] = {}
        self._action_bytes = self._found_no_room = 0

    @property
    def size(self) -> int:
        """Bytes, about."""
        return WORKSPACE_BYTES + self._action_bytes + self._context_bytes + self._labelled_bytes

    def lines(self, context: Context, actions: tuple[Choice, ...]) -> list[core.Example]:
        """The parsed lines of a decision."""
        return [self._context(context), *self._examples_of(actions)]

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
                self._context_bytes = 0
            example = self._contexts[key] = self._parse(context_line(*key))
            self._context_bytes += example_bytes(key[1]) + sum(map(getsizeof, fields))
        return example

    def _parse(self, line: str) -> core.Example:
        return core._parse_line_text(self.vw, line)

    def _examples_of(self, actions: tuple[Choice, ...]) -> list[core.Example]:
        # Sets of actions recur even more often than single ones, mostly as the same object.
        recent = self._recent.get(id(actions))
        if recent is not None:  # kept with its examples, so nothing else can have its id
            return recent[1]
        examples = self._sets.get(actions)
        if examples is None:
            examples = [self._example(one) for one in actions]
            if not all(one in self.examples for one in actions):
                return examples
            self._keep_set(actions, examples)
        if len(self._recent) >= RECENT_SETS:
            self._recent.clear()
        self._recent[id(actions)] = (actions, examples)
        return examples

    def _keep_set(self, actions: tuple[Choice, ...], examples: list[core.Example]) -> None:
        if self._in_sets + len(actions) > SETS:
            self._sets.clear()
            self._in_sets = 0
        self._sets[actions] = examples
        self._in_sets += len(actions)

    def _example(self, action: Choice) -> core.Example:
        """Kept from the second time on, where there is room."""
        example = self.examples.get(action)
        if example is None:
            example = self._parse(action_line(action))
            if self._came_before(hash(action)):
                self._keep(action, example)
        return example

    def _came_before(self, action: int) -> bool:
        if action in self._once:
            return True
        if len(self._once) >= SEEN_ONCE:
            self._once.clear()
        self._once.add(action)
        return False

    def _keep(self, action: Choice, example: core.Example) -> None:
        size = example_bytes(action.vector)
        if self._action_bytes + size > CACHE_BYTES:
            self._found_no_room += 1
            if self._found_no_room <= PATIENCE * len(self.examples):
                return
            self._forget_actions()
        self.examples[action] = example
        self._action_bytes += size

    def labelled(self, action: Choice) -> core.Example:
        """An example of its own for the label, which is never used to predict; kept where the action's own is."""
        example = self._labelled.get(action)
        if example is None:
            example = self._parse(action_line(action))
            if action in self.examples:
                self._keep_labelled(action, example)
        return example

    def _keep_labelled(self, action: Choice, example: core.Example) -> None:
        if len(self._labelled) >= LABELLED_CACHE:
            self._labelled.clear()
            self._labelled_bytes = 0
        self._labelled[action] = example
        self._labelled_bytes += example_bytes(action.vector)


class VwPolicy:
    """One VW workspace. `saved` continues from `save()` of a policy with the same arguments.

    The cost that VW learns from is the share of the reward's declared range that was missed, in [0, 1]: parameters such
    as SquareCB's gamma_scale mean the same in every experiment, and VW's first guess of 0 for an action it does not
    know is hopeful. This is the one place where rewards become costs.

    The workspace is made by the first call that needs it. Calls into VW hold the interpreter lock from start to end:
    each is atomic.
    """

    def __init__(
        self, arguments: str, *, reward_range: tuple[float, float] = (0.0, 1.0), saved: bytes | None = None
    ) -> None:
        self._arguments = arguments
        self._minimum, self._maximum = reward_range
        self._saved = saved
        self._made: _Workspace | None = None

    @property
    def _workspace(self) -> _Workspace:
        # Two threads at once may make two: both answer alike, and one stays. What was saved is read first, since the
        # other thread forgets it last.
        saved, made = self._saved, self._made
        if made is None:
            made = self._made = _Workspace(self._arguments, saved)
            self._saved = None
        return made

    @property
    def size(self) -> int:
        """Of the workspace, or of what it will be made from."""
        return self._made.size if self._made else len(self._saved or b"")

    def __reduce__(self) -> tuple[Any, ...]:
        """What was saved, for a workspace that is not there."""
        return _load, (self._arguments, (self._minimum, self._maximum), self._state())

    def _state(self) -> bytes | None:
        """From which another one would be made. It makes no workspace."""
        return self.save() if self._made else self._saved

    def pmf(self, context: Context, actions: Sequence[Choice]) -> Sequence[float]:
        """VW's pmf, in the order of the actions. Raises UnusablePmf where VW gives none."""
        try:
            workspace = self._made or self._workspace
            scored: Any = workspace.vw.predict_multi_ex_one(workspace.lines(context, tuple(actions)))
        except RuntimeError as error:
            raise UnusablePmf(str(error)) from error
        pmf = [0.0] * len(actions)
        for index, probability in scored:
            pmf[index] = probability
        return pmf

    def pmfs(self, contexts: Sequence[Context], actions: Sequence[Choice]) -> Sequence[Sequence[float]]:
        """One by one."""
        return [self.pmf(context, actions) for context in contexts]

    def learn(
        self, context: Context, actions: Sequence[Choice], *, drawn: int, propensity: float, reward: float
    ) -> None:
        """The drawn action's line is replaced by one with the label."""
        workspace = self._workspace
        lines = workspace.lines(context, tuple(actions))
        example = lines[drawn + 1] = workspace.labelled(actions[drawn])
        cost = (self._maximum - reward) / (self._maximum - self._minimum)
        example._set_label(CBLabel(label=(0, cost, propensity)))
        workspace.vw.learn_multi_ex_one(lines)

    def count_under_way(self, *, decided: int, sealed: int) -> None:
        """It makes no difference to VW."""

    def save(self) -> bytes:
        """The workspace as VW's model file; without a workspace, what it would be made from."""
        saved = self._saved
        return self._workspace.vw.serialize() if saved is None or self._made else saved

    def snapshot(self) -> VwPolicy:
        """Loaded from what it saves: VW has no other way to copy a workspace."""
        return VwPolicy(self._arguments, reward_range=(self._minimum, self._maximum), saved=self._state())

    def shrink(self) -> None:
        """Forget all parsed lines."""
        if self._made:
            self._made.shrink()

    def vocabulary(self) -> None:
        """Features share a table of fixed size by their hashes: none is left out."""

    def scores(self, contexts: Sequence[Context], actions: Sequence[Choice]) -> Sequence[Scores]:
        """See `Policy`. Asked of a copy: VW says what it expects only in a workspace that is made for that."""
        costs = expected_costs(self._arguments, self.save(), contexts, actions)
        size = self._maximum - self._minimum
        return [
            Scores(
                tuple([self._maximum - size * cost for cost in of_one.mean]),
                tuple([size * deviation for deviation in of_one.deviation]),
            )
            for of_one in costs
        ]


def _load(arguments: str, reward_range: tuple[float, float], saved: bytes | None) -> VwPolicy:
    return VwPolicy(arguments, reward_range=reward_range, saved=saved)
