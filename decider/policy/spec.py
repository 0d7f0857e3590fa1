"""Which policy an experiment asks for, and its name in Vowpal Wabbit's words.

The `signature` of a spec says what a model was made by; two specs with the same signature share models. Called by
`experiment/` (to build specs), `make.py` and the model store.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from decider.policy.vw.encode import ENCODER_VERSION

DEFAULT_ALGORITHM = "thompson"
DEFAULT_INTERACTIONS = ("CA",)

ALGORITHMS: dict[str, dict[str, float]] = {
    "thompson": {"width": 0.45, "memory": 1000.0, "draws": 2},
    "epsilon_greedy": {"epsilon": 0.05},
    "softmax": {"lambda": 100.0},
    "squarecb": {"gamma_scale": 30.0, "gamma_exponent": 0.5},
    "bag": {"size": 5, "epsilon": 0.0},
    "cover": {"size": 5},
    "rnd": {"size": 3, "alpha": 0.01},
    "first": {"count": 1000},
    "uniform": {},
    "fixed": {},
}
"""Every algorithm with its parameters' defaults."""

WITHOUT_MODEL = ("uniform", "fixed")

WITHOUT_VW = ("thompson",)
"""Learns, but not through Vowpal Wabbit."""

NOT_RESUMABLE = ("bag", "rnd")
"""VW's save and load loses a part of their state (found by trying: with a varying number of actions they then learn
otherwise). What was loaded predicts the same, so it can serve; but a restarted learner begins at the log's start."""

# `--clip_p 1`: the regression is not weighted by 1/propensity. With rare draws those weights (up to 1,000) cost a fifth
# to a third of the attainable lift; see the README, "Defaults and why".
_SINGLE = "--clip_p 1 -l 0.3"
# With more than one predictor in a workspace, what `--normalized` has seen does not survive save and load (found by
# trying: a resumed bag, cover or rnd learns otherwise once features have numbers). `--coin` normalizes without it.
_SEVERAL = "--clip_p 1 --coin"
_ARGUMENTS = {
    "epsilon_greedy": f"--epsilon {{epsilon}} {_SINGLE}",
    "softmax": f"--softmax --lambda {{lambda}} {_SINGLE}",
    "squarecb": f"--squarecb --gamma_scale {{gamma_scale}} --gamma_exponent {{gamma_exponent}} {_SINGLE}",
    "bag": f"--bag {{size}} --epsilon {{epsilon}} {_SEVERAL}",
    "cover": f"--cover {{size}} --psi 0.01 {_SEVERAL}",
    "rnd": f"--rnd {{size}} --rnd_alpha {{alpha}} --epsilon 0 {_SEVERAL}",
    "first": f"--first {{count}} {_SINGLE}",
}


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """An algorithm with all its parameters. reward_range: (minimum, maximum) declared, in the reward's unit."""

    algorithm: str = DEFAULT_ALGORITHM
    parameters: dict[str, float] = field(default_factory=lambda: dict(ALGORITHMS[DEFAULT_ALGORITHM]))
    interactions: tuple[str, ...] = DEFAULT_INTERACTIONS
    reward_range: tuple[float, float] = (0.0, 1.0)

    @property
    def learns(self) -> bool:
        """Whether there is a model at all."""
        return self.algorithm not in WITHOUT_MODEL

    @property
    def resumable(self) -> bool:
        """Whether a policy that was saved and loaded learns on as if nothing had happened."""
        return self.algorithm not in NOT_RESUMABLE

    @property
    def arguments(self) -> str:
        """Vowpal Wabbit's arguments, of an algorithm of its own.

        >>> PolicySpec("epsilon_greedy", {"epsilon": 0.1}).arguments
        '--cb_explore_adf --cb_type mtr --quiet --epsilon 0.1 --clip_p 1 -l 0.3 -q CA'
        """
        exploration = _ARGUMENTS[self.algorithm].format(**self.parameters)
        interactions = "".join(
            f" --interactions {term}" if len(term) > 2 else f" -q {term}" for term in self.interactions
        )
        return f"--cb_explore_adf --cb_type mtr --quiet {exploration}{interactions}"

    @property
    def signature(self) -> str:
        """Everything that a model depends on besides what it has learned."""
        if not self.learns:
            return self.algorithm
        return f"{self._made_by} range={self.reward_range} encoder={ENCODER_VERSION}"

    def same_but_code(self, signature: str) -> bool:
        """Whether a model of that signature differs from ours in the version of the learning code at most."""
        return signature.partition(" code=")[0] == self.signature.partition(" code=")[0]

    @property
    def _made_by(self) -> str:
        if self.algorithm not in WITHOUT_VW:
            return self.arguments
        parameters = " ".join(f"{name}={value}" for name, value in self.parameters.items())
        return f"{self.algorithm} {parameters} {'+'.join(self.interactions)}"
