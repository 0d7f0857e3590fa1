"""A grid of parameters in a TOML file -> names of policies: the product of all that it lists. Called by its command.

algorithm = ["squarecb", "softmax"]
squarecb.gamma_scale = [10, 100]
interactions = [["CA"], ["CA", "CCA"]]
minimum_propensity = [0.001, 0.01]
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Any

from decider.policy.algorithms import ALGORITHMS
from simulator.compare.result import BadComparison

DEFAULT = "default"
SHARED = ("algorithm", "interactions", "minimum_propensity")
LEARNING = tuple(name for name, one in ALGORITHMS.items() if one.learns)
WRITTEN = {"interactions": "interactions", "minimum_propensity": "floor"}
"""As `simulator/run/policies.py` calls them in a policy's name."""


class BadGrid(BadComparison):
    """A grid that cannot be run."""

    reason = "BAD_GRID"


def read_grid(file: Path) -> list[str]:
    """Names of policies, in the order of the file. Raises BadGrid, naming the field; OSError."""
    try:
        given = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadGrid(f"{file}: is no TOML: {error}") from error
    try:
        return policies(given)
    except BadGrid as error:
        raise BadGrid(f"{file}: {error}") from error


def policies(given: Mapping[str, Any]) -> list[str]:
    """Every combination. Without `algorithm`: those whose parameters are given, or the default one. Raises BadGrid.

    >>> policies({"algorithm": ["softmax", "squarecb"], "squarecb": {"gamma_scale": [10, 100]}})
    ['softmax', 'squarecb:gamma_scale=10', 'squarecb:gamma_scale=100']
    >>> policies({"minimum_propensity": 0.01, "interactions": [["CA", "CCA"]]})
    ['default:interactions=CA+CCA,floor=0.01']
    >>> policies({"squarecb": {"gama_scale": [10]}})
    Traceback (most recent call last):
    simulator.compare.grid.BadGrid: squarecb.gama_scale: there is no such field; did you mean gamma_scale?
    """
    _check_known(given, [*SHARED, *LEARNING], "")
    algorithms = _algorithms(given)
    shared = {WRITTEN[name]: _listed(name, given[name]) for name in SHARED[1:] if name in given}
    if "interactions" in shared:
        shared["interactions"] = [_interactions(one) for one in shared["interactions"]]
    if "floor" in shared:
        shared["floor"] = [_number("minimum_propensity", one) for one in shared["floor"]]
    return [name for one in algorithms for name in _named(one, _own(one, given) | shared)]


def _algorithms(given: Mapping[str, Any]) -> list[str]:
    tables = [name for name in LEARNING if name in given]
    chosen = _listed("algorithm", given["algorithm"]) if "algorithm" in given else tables or [DEFAULT]
    for one in chosen:
        if one not in (*LEARNING, DEFAULT):
            raise BadGrid(f"algorithm: there is no {one!r} to learn with; {_nearest(str(one), [*LEARNING, DEFAULT])}")
    unused = [name for name in tables if name not in chosen]
    if unused:
        raise BadGrid(f"{unused[0]}: has parameters, but is not in algorithm; add it there, or leave them out")
    return [str(one) for one in chosen]


def _own(algorithm: str, given: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """The parameters of one algorithm, written out."""
    table = given.get(algorithm, {})
    if not isinstance(table, Mapping):
        raise BadGrid(f"{algorithm}: must be a table of parameters, as {algorithm}.NAME = [1, 2]")
    _check_known(table, list(ALGORITHMS[algorithm].parameters) if algorithm in ALGORITHMS else [], f"{algorithm}.")
    return {
        name: [_number(f"{algorithm}.{name}", one) for one in _listed(name, values)] for name, values in table.items()
    }


def _named(algorithm: str, axes: Mapping[str, Sequence[str]]) -> list[str]:
    combined = product(*[[f"{name}={value}" for value in values] for name, values in axes.items()])
    return [f"{algorithm}:{','.join(one)}" if one else algorithm for one in combined]


def _listed(name: str, values: Any) -> list[Any]:
    """A single value is a list of one."""
    listed = values if isinstance(values, list) else [values]
    if not listed:
        raise BadGrid(f"{name}: is an empty list, so there is nothing to run; give it a value, or leave it out")
    return listed


def _number(name: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadGrid(f"{name}: {value!r} is no number")
    return repr(value)


def _interactions(value: Any) -> str:
    if not isinstance(value, list) or not value or not all(isinstance(one, str) and one for one in value):
        raise BadGrid(f'interactions: {value!r} is no list of interactions; write [["CA"], ["CA", "CCA"]]')
    return "+".join(value)


def _check_known(given: Mapping[str, Any], known: Sequence[str], prefix: str) -> None:
    for name in given:
        if name not in known:
            raise BadGrid(f"{prefix}{name}: there is no such field; {_nearest(name, known)}")


def _nearest(name: str, known: Sequence[str]) -> str:
    close = get_close_matches(name, known, n=1)
    if close:
        return f"did you mean {close[0]}?"
    return f"there are {', '.join(known)}" if known else "there are none"
