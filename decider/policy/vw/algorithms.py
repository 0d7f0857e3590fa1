"""The algorithms that Vowpal Wabbit offers, with the arguments that ask for them. One more is one more line here, and a
message in `experiment.proto`. Called by `policy/algorithms.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

from decider.policy.protocol import Algorithm, Parameter, Policy
from decider.policy.work import Estimate, vw_estimate

# `--clip_p 1`: the regression is not weighted by 1/propensity. With rare draws those weights (up to 1,000) cost a fifth
# to a third of the attainable lift; see `simulator/studies/RESULTS.md`.
_SINGLE = "--clip_p 1 -l 0.3"
# With more than one predictor in a workspace, what `--normalized` has seen does not survive save and load (found by
# trying: a resumed bag, cover or rnd learns otherwise once features have numbers). `--coin` normalizes without it.
_SEVERAL = "--clip_p 1 --coin"
_ONE_MODEL = vw_estimate(short=5, long=10)


def _algorithm(
    exploration: str,
    parameters: Mapping[str, Parameter],
    *,
    estimate: Estimate = _ONE_MODEL,
    resumable: bool = True,
    no_apprentice: str = "",
    deprecated: str = "",
) -> Algorithm:
    """exploration: VW's arguments, with the parameters' names in braces. The others: see `Algorithm`."""

    def arguments(given: Mapping[str, float], interactions: tuple[str, ...]) -> str:
        terms = "".join(f" --interactions {term}" if len(term) > 2 else f" -q {term}" for term in interactions)
        return f"--cb_explore_adf --cb_type mtr --quiet {exploration.format(**given)}{terms}"

    def make(
        given: Mapping[str, float],
        interactions: tuple[str, ...],
        reward_range: tuple[float, float],
        saved: bytes | None,
    ) -> Policy:
        from decider.policy.vw.workspace import VwPolicy  # here, so that reading a log does not load VW

        return VwPolicy(arguments(given, interactions), reward_range=reward_range, saved=saved)

    return Algorithm(
        parameters,
        {1: make},
        arguments,
        estimate,
        resumable=resumable,
        no_apprentice=no_apprentice,
        deprecated=deprecated,
    )


def _earned_less(worse: int, better: int, shares: str) -> str:
    """Of the 72 cells of the bake-off that were played with several seeds (2026-11)."""
    return (
        f"in 72 comparisons of the bake-off it earned significantly less than the default (learning code 2) in {worse} "
        f"and more in {better}; of the attainable lift it earned {shares} after 4,000, 20,000 and 100,000 visits, the "
        "default 0.59, 0.79 and 0.89"
    )


# Not resumable: VW's save and load loses a part of their state (found by trying: with a varying number of actions they
# then learn otherwise). What was loaded predicts the same, so it can serve; but a restarted learner begins at the log's
# start.
VW_ALGORITHMS: Mapping[str, Algorithm] = {
    "epsilon_greedy": _algorithm(
        f"--epsilon {{epsilon}} {_SINGLE}", {"epsilon": Parameter(0.05, 0, 1)}, estimate=vw_estimate(short=3, long=6)
    ),
    "softmax": _algorithm(f"--softmax --lambda {{lambda}} {_SINGLE}", {"lambda": Parameter(100.0, 1e-6, 1e6)}),
    "squarecb": _algorithm(
        f"--squarecb --gamma_scale {{gamma_scale}} --gamma_exponent {{gamma_exponent}} {_SINGLE}",
        {"gamma_scale": Parameter(30.0, 1e-6, 1e9), "gamma_exponent": Parameter(0.5, 0, 1)},
    ),
    "bag": _algorithm(
        f"--bag {{size}} --epsilon {{epsilon}} {_SEVERAL}",
        {"size": Parameter(5, 2, 100), "epsilon": Parameter(0.0, 0, 1)},
        estimate=vw_estimate(short=6, long=10),
        resumable=False,
        deprecated=_earned_less(62, 1, "0.43, 0.62 and 0.78"),
    ),
    "cover": _algorithm(
        f"--cover {{size}} --psi 0.01 {_SEVERAL}",
        {"size": Parameter(5, 2, 100)},
        estimate=vw_estimate(short=19, long=29),
        # Measured, 8 runs of 1,000 decisions of a default and then 1,500 of its own: the last 500 of these earned 0.43,
        # without the apprentice 0.47. thompson, squarecb and epsilon_greedy earned more with it.
        no_apprentice="it weighs what it learns by propensities, and those of an apprentice say nothing (they are 1)",
        deprecated=_earned_less(69, 0, "0.30, 0.39 and 0.58"),
    ),
    "rnd": _algorithm(
        f"--rnd {{size}} --rnd_alpha {{alpha}} --epsilon 0 {_SEVERAL}",
        {"size": Parameter(3, 1, 100), "alpha": Parameter(0.01, 1e-9, 1e6)},
        estimate=vw_estimate(short=48, long=58),
        resumable=False,
        deprecated=_earned_less(60, 1, "0.43, 0.60 and 0.72"),
    ),
    "first": _algorithm(
        f"--first {{count}} {_SINGLE}",
        {"count": Parameter(1000, 0, 1e9)},
        no_apprentice="an apprentice's decisions count as its uniform ones, and it would explore no more",
    ),
}
