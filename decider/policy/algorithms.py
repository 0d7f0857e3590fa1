"""Every algorithm of an experiment's policy in one table: its parameters, its factory, its abilities.

To add one, write its message in `experiment.proto` and its line here (one of Vowpal Wabbit's: in `vw/algorithms.py`).
Checks, defaults, names of models, the simulator's names of policies and the conformance tests read this table. Called
by `experiment/`, `spec.py` and `make.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from decider.policy.protocol import Algorithm, Factory, Parameter, Policy
from decider.policy.static import Fixed, Uniform
from decider.policy.vw.algorithms import VW_ALGORITHMS
from decider.policy.work import static_estimate, thompson_estimate

DEFAULT_ALGORITHM = "thompson"
DEFAULT_INTERACTIONS = ("CA",)


def _thompson(code: int) -> Factory:
    """code: version of the learning code; see `thompson/rules.py`."""

    def make(
        parameters: Mapping[str, float],
        interactions: tuple[str, ...],
        reward_range: tuple[float, float],
        saved: bytes | None,
    ) -> Policy:
        # imported here, so that reading a log does not load SciPy
        from decider.policy.thompson.rules import CODES
        from decider.policy.thompson.thompson import ThompsonPolicy

        return ThompsonPolicy(
            width=parameters["width"],
            memory=parameters["memory"],
            draws=int(parameters["draws"]),
            pairs="CCA" in interactions,
            rules=CODES[code],
            reward_range=reward_range,
            saved=saved,
        )

    return make


def _made_by_thompson(parameters: Mapping[str, float], interactions: tuple[str, ...]) -> str:
    return f"thompson {' '.join(f'{name}={value}' for name, value in parameters.items())} {'+'.join(interactions)}"


def _static(name: str, make: type[Uniform]) -> Algorithm:
    factory: Factory = lambda parameters, interactions, reward_range, saved: make()  # noqa: ARG005, E731 - needs nothing
    made_by: Callable[[Mapping[str, float], tuple[str, ...]], str] = lambda parameters, interactions: name  # noqa: ARG005, E731 - the same
    return Algorithm({}, {1: factory}, made_by, static_estimate, learns=False, uses_propensity=False)


ALGORITHMS: Mapping[str, Algorithm] = {
    "thompson": Algorithm(
        {"width": Parameter(0.45, 1e-6, 100), "memory": Parameter(1000.0, 0, 1e9), "draws": Parameter(2, 1, 10)},
        codes={code: _thompson(code) for code in (1, 2, 3)},
        made_by=_made_by_thompson,
        estimate=thompson_estimate,
        terms=("CA", "CCA"),
        uses_propensity=False,
        shares=False,
    ),
    **VW_ALGORITHMS,
    "uniform": _static("uniform", Uniform),
    "fixed": _static("fixed", Fixed),
}


def code_versions() -> dict[str, int]:
    """The newest version of the learning code of each algorithm: what this build makes."""
    return {name: max(algorithm.codes) for name, algorithm in ALGORITHMS.items()}
