"""What a policy is: (context, eligible actions) -> pmf, and learning from sealed decisions; and what an algorithm is.

Implementations: `thompson/`, `vw/` and `static.py`, listed in `algorithms.py`. A policy never draws; `decide/` does. It
cannot tell whether it runs in the server or in the simulator. Whoever owns one policy is its only learner; what serves
is a snapshot that nobody teaches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from decider.policy.features import Vector, vector_of
from decider.policy.work import Estimate
from decider.types import START, ActionId, Context, Features, Position


@dataclass(slots=True, eq=False)  # not frozen: that takes twice as long to make, and calls make hundreds
class Choice:
    """An action as a policy sees it, made once for each experiment version, or for a call with features of its own;
    `vector`: its features as models see them. Never changed.

    Two are equal if no model can tell them apart: the order of features does not matter, and the flag True is not the
    number 1.

    >>> Choice(ActionId("sale"), "offer", {"new": True}) == Choice(ActionId("sale"), "offer", {"new": 1.0})
    False
    """

    id: ActionId
    kind: str = "content"
    features: Features = field(default_factory=dict)
    vector: Vector = field(init=False, repr=False)
    _hash: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.vector = vector_of(self.features)
        # Computed once: tuples of choices are the keys of every policy's caches, looked up for each decision.
        self._hash = hash((self.id, self.kind, self.vector))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Choice):
            return NotImplemented
        return (self.id, self.kind, self.vector) == (other.id, other.kind, other.vector)

    def __reduce__(self) -> tuple[type[Choice], tuple[ActionId, str, Features]]:
        """Unpickling makes it anew: `_hash` differs between processes, since hashes of texts do."""
        return Choice, (self.id, self.kind, self.features)


class UnusablePmf(ValueError):
    """A policy's answer is no probability distribution over the eligible actions."""


class PlainPolicy(Protocol):
    """All that `decide` needs; enough for a policy of one's own in the simulator."""

    def pmf(self, context: Context, actions: Sequence[Choice]) -> Sequence[float]:
        """Probability of every action, in their order; sums to 1 within float32 rounding."""

    def learn(
        self, context: Context, actions: Sequence[Choice], *, drawn: int, propensity: float, reward: float
    ) -> None:
        """Learn from one sealed decision: `drawn` indexes `actions`; propensity in (0, 1]; reward in the
        experiment's unit, higher is better."""


@runtime_checkable
class CountsUnderWay(Protocol):
    """A policy that wants to know how many decisions are under way: made, and their rewards not yet final."""

    def count_under_way(self, *, decided: int, sealed: int) -> None:
        """Of further decisions of its experiment: how many were made, and how many of all have been sealed, whether
        they were learned from or not."""


class Vocabulary(NamedTuple):
    """The number of features that a policy uses, and (estimated) of others that it has seen and leaves out."""

    known: int
    left_out: int


class Scores(NamedTuple):
    """What a policy expects of each action, in their order and in the experiment's unit.

    expected: rewards. spread: how unsure of each its pmf takes it to be, as a standard deviation; empty where the pmf
    does not depend on that.
    """

    expected: tuple[float, ...]
    spread: tuple[float, ...] = ()


class Policy(PlainPolicy, CountsUnderWay, Protocol):
    """A policy that can be served, stored, and pickled within the process.

    size: bytes that it takes, about, with its caches.
    """

    def pmfs(self, contexts: Sequence[Context], actions: Sequence[Choice]) -> Sequence[Sequence[float]]:
        """`pmf` of each of several contexts, to the last bit; it may cost less than one by one."""

    @property
    def size(self) -> int:
        """See above."""
        ...

    def save(self) -> bytes:
        """Everything it has learned."""

    def snapshot(self) -> Policy:
        """A copy that serves: the same pmfs to the last bit; later learning does not change it."""

    def shrink(self) -> None:
        """Forget what can be computed again."""

    def vocabulary(self) -> Vocabulary | None:
        """None where a policy has room for every feature."""

    def scores(self, contexts: Sequence[Context], actions: Sequence[Choice]) -> Sequence[Scores] | None:
        """From which it makes the pmf of each context: for explanations, not for calls. None where the context makes
        no difference to it."""


@dataclass(frozen=True, slots=True)
class Model:
    """A policy, named by the position it has learned up to."""

    policy: Policy
    position: Position = START


class Parameter(NamedTuple):
    """A number that an experiment may set, in [low, high]."""

    default: float
    low: float
    high: float


Factory = Callable[[Mapping[str, float], tuple[str, ...], tuple[float, float], bytes | None], Policy]
"""(all parameters, interactions, reward range, saved) -> a policy: a fresh one, or one that goes on from `save()`."""


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One way to make pmfs.

    codes: by the version of its learning code, what makes its policy; the newest serves, older ones recompute old
    decisions. Whatever changes what is learned from the same log (a constant, the order of a sum) needs a new version.
    made_by: (parameters, interactions) -> their part of a model's name. estimate: seconds of a decision. terms: the
    interactions that it knows; None is all. resumable: whether a policy that was saved and loaded learns on as if
    nothing had happened. uses_propensity: whether what it learns depends on the propensity of the action.
    shares: whether what it learns about an action says something about another one, and takes no more memory for each;
    else actions that only calls know are not for it. no_apprentice: why it cannot learn from actions that others
    chose, of propensity 1; empty where it can. deprecated: why nobody should choose it any more, with figures; it goes
    on working, in old experiments and new ones.
    """

    parameters: Mapping[str, Parameter]
    codes: Mapping[int, Factory]
    made_by: Callable[[Mapping[str, float], tuple[str, ...]], str]
    estimate: Estimate
    terms: tuple[str, ...] | None = None
    learns: bool = True
    resumable: bool = True
    uses_propensity: bool = True
    shares: bool = True
    no_apprentice: str = ""
    deprecated: str = ""

    @property
    def defaults(self) -> dict[str, float]:
        """Every parameter's."""
        return {name: parameter.default for name, parameter in self.parameters.items()}
