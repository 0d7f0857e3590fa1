"""Which policy an experiment asks for, and the name that its models have.

The `signature` of a spec says what a model was made by; two specs with the same signature share models. Called by
`experiment/` (to build specs), `make.py`, the learner and the model store.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256

from decider.policy.algorithms import ALGORITHMS, DEFAULT_ALGORITHM, DEFAULT_INTERACTIONS
from decider.policy.features import ENCODER_VERSION
from decider.policy.work import Shape
from decider.types import Position, Time


@dataclass(frozen=True, slots=True)
class Relearned:
    """What a model learned anew: see the proto message of the same name. reward: the definition as canonical JSON, for
    `experiment/`, which is above this room."""

    until: Position
    at: Time
    reward: str

    def __str__(self) -> str:
        return f" relearned={self.until}:{sha256(self.reward.encode()).hexdigest()[:16]}"


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """An algorithm with all its parameters. reward_range: (minimum, maximum) declared, in the reward's unit. relearned:
    None: it learns each decision as it was sealed."""

    algorithm: str = DEFAULT_ALGORITHM
    parameters: dict[str, float] = field(default_factory=lambda: ALGORITHMS[DEFAULT_ALGORITHM].defaults)
    interactions: tuple[str, ...] = DEFAULT_INTERACTIONS
    reward_range: tuple[float, float] = (0.0, 1.0)
    relearned: Relearned | None = None

    @property
    def learns(self) -> bool:
        """Whether there is a model at all."""
        return ALGORITHMS[self.algorithm].learns

    @property
    def resumable(self) -> bool:
        """Whether a policy that was saved and loaded learns on as if nothing had happened."""
        return ALGORITHMS[self.algorithm].resumable

    @property
    def uses_propensity(self) -> bool:
        """Whether what it learns depends on the propensity of the action."""
        return ALGORITHMS[self.algorithm].uses_propensity

    @property
    def code(self) -> int:
        """The newest version of the learning code: the one that serves."""
        return max(ALGORITHMS[self.algorithm].codes)

    @property
    def made_by(self) -> str:
        """Algorithm, parameters and interactions; of an algorithm of Vowpal Wabbit's, its arguments.

        >>> PolicySpec("epsilon_greedy", {"epsilon": 0.1}).made_by
        '--cb_explore_adf --cb_type mtr --quiet --epsilon 0.1 --clip_p 1 -l 0.3 -q CA'
        """
        return ALGORITHMS[self.algorithm].made_by(self.parameters, self.interactions)

    @property
    def signature(self) -> str:
        """Everything that a model depends on besides what it has learned from.

        >>> PolicySpec().signature
        'thompson width=0.45 memory=1000.0 draws=2 CA range=(0.0, 1.0) encoder=1 code=3'
        """
        return self.signature_of(self.code)

    def signature_of(self, code: int) -> str:
        """The signature for another version of the learning code, which this build may not have."""
        if not self.learns:
            return self.made_by
        return f"{self.made_by} range={self.reward_range}{self.relearned or ''} encoder={ENCODER_VERSION} code={code}"

    def same_but_code(self, signature: str) -> bool:
        """Whether a model of that signature differs from ours in the version of the learning code at most.

        >>> PolicySpec().same_but_code(PolicySpec().signature_of(99))
        True
        """
        return signature.partition(" code=")[0] == self.signature.partition(" code=")[0]

    def seconds(self, shape: Shape) -> float:
        """How long a decision takes at most, estimated.

        >>> round(PolicySpec("squarecb", interactions=("CCCC",)).seconds(Shape(context=105, actions={20: 100})), 1)
        5.4
        """
        return ALGORITHMS[self.algorithm].estimate(self.parameters, self.interactions, shape)
