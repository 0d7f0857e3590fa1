"""Learning code has a version, and what it learns from a fixed stream is written down: who changes the one without the
other is told here.

A model's name says which code made it. If a constant changes under the same name, a restart loads a model that means
something else, and `verify` finds most of a log different. After a change on purpose give the algorithm a new code
(`policy/algorithms.py`), keep the old one for as long as its logs are to replay, and run this file as a module:
`python -m tests.test_learning_code` adds what is new to `data/learning-code.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from decider.policy.algorithms import ALGORITHMS
from decider.policy.make import make_policy
from decider.policy.protocol import Choice
from decider.policy.spec import PolicySpec
from decider.policy.thompson import (
    admission,
    arrays,
    counts,
    evidence,
    features,
    levels,
    noise,
    pmf,
    posterior,
    prior,
    regression,
    rules,
    shared,
    thompson,
    views,
)
from decider.types import ActionId
from tests.streams import REWARD_RANGE, stream
from tests.test_same_bits import evidence as evidence_of

FILE = Path(__file__).parent / "data" / "learning-code.json"

PLAIN = "plain CA"
THOMPSON = (PLAIN, "small CA+CCA", "hours CA", "many CA", "wide CA", "moving CA", "told CA", "titled CA")
"""Streams (see `streams.py`) with the interactions: together they come by every constant of its learning."""

STEPS = {"wide": 260, "moving": 1_400, "told": 150, "titled": 150}
"""Of the stream; 400 of others."""

SEED = 21


def streams_of(algorithm: str) -> tuple[str, ...]:
    """What an algorithm is tried on."""
    return THOMPSON if algorithm == "thompson" else (PLAIN,)


def fingerprint(algorithm: str, code: int, name: str) -> str:
    """Of all pmfs on the way, and of what decides between Thompson's regressions, also where it decides the same.

    To nine digits: the last bits may depend on the machine, a constant changes the first.
    """
    kind, _, terms = name.partition(" ")
    spec = PolicySpec(algorithm, ALGORITHMS[algorithm].defaults, tuple(terms.split("+")), REWARD_RANGE)
    policy, found = make_policy(spec, code=code), sha256()
    for step in stream(kind, SEED, STEPS.get(kind, 400)):
        actions = [Choice(ActionId(one.id), one.kind, one.features) for one in step.actions]
        found.update(",".join([f"{p:.9f}" for p in policy.pmf(step.context, actions)]).encode())
        policy.learn(step.context, actions, drawn=step.drawn, propensity=step.propensity, reward=step.reward)
    if algorithm == "thompson":
        found.update(
            ",".join([f"{name} {float.fromhex(value):.9g}" for name, value in evidence_of(policy).items()]).encode()
        )
    return found.hexdigest()[:32]


def every_code() -> list[tuple[str, int, str]]:
    """Algorithm, code and stream of everything that learns."""
    return [
        (algorithm, code, name)
        for algorithm, record in ALGORITHMS.items()
        if record.learns
        for code in record.codes
        for name in streams_of(algorithm)
    ]


def written() -> dict[str, str]:
    """What each code is known to learn."""
    known: dict[str, str] = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    return known


@pytest.mark.parametrize(("algorithm", "code", "name"), every_code())
def test_code_learns_what_it_is_known_to_learn(algorithm: str, code: int, name: str) -> None:
    """Otherwise it is another code and needs another number: see above."""
    assert fingerprint(algorithm, code, name) == written()[f"{algorithm} {code} {name}"]


@dataclass(frozen=True)
class Change:
    """A constant of a module, with another value, and a stream and a code that come by it."""

    module: object
    name: str
    value: object
    stream: str
    code: int = 1


CHANGES = (
    Change(regression, "RESOLVE_AFTER_SHARE", 8, PLAIN),
    Change(features, "PAIR_PENALTY", 20.0, "small CA+CCA"),
    Change(noise, "GUESS", 0.2, PLAIN),
    Change(admission, "CELLS", 200_000, "wide CA"),
    Change(admission, "CELLS", 200_000, "moving CA", code=2),
    Change(admission, "ADMIT_FACTOR", 3.0, "moving CA", code=2),
    Change(admission, "ADMIT_MARGIN", 2, "moving CA", code=2),
    Change(admission, "CHECK_AFTER", 20, "moving CA", code=2),
    Change(admission, "HALVE_AFTER", 100, "moving CA", code=2),
    Change(counts, "BYTES", 20_000, "moving CA", code=2),
    Change(admission, "RARE", 40, "moving CA", code=2),
    Change(thompson, "WORK", 500_000, "moving CA", code=2),
    Change(thompson, "LITTLE_WORK", 500_000, "moving CA", code=2),
    Change(views, "BINS", 6, "hours CA"),
    Change(views, "BIN_AFTER", 90, "hours CA"),
    Change(views, "MAX_NUMBERS", 3, PLAIN),
    Change(evidence, "EVIDENCE_MEMORY", 1_000, "hours CA"),
    Change(evidence, "EVIDENCE_MEMORY", 1_000, "hours CA", code=3),
    Change(pmf, "CANDIDATES", 16, "many CA"),
    Change(pmf, "CANDIDATES", 16, "many CA", code=3),
    Change(pmf, "_GRID", np.linspace(-3.5, 3.5, 15), PLAIN),
    Change(pmf, "_NODES", pmf._NODES[:, 1:-1], "hours CA", code=3),
    Change(pmf, "POINTS", 40, "hours CA", code=3),
    Change(prior, "SIZE", 2.2, "hours CA", code=3),
    Change(prior, "PSEUDO_WEIGHTS", 10.0, "hours CA", code=3),
    Change(prior, "NUMBER", 0.4, "hours CA", code=3),
    Change(prior, "LARGEST_PENALTY", 250.0, "hours CA", code=3),
    Change(prior, "LARGEST_VARIANCE", 2.0, "titled CA", code=3),
    Change(noise, "GUESS", 0.2, "hours CA", code=3),
    Change(pmf, "OPTIMISM", 1.2, "hours CA", code=3),
    Change(pmf, "NARROW", 0.6, "hours CA", code=3),
    Change(levels, "PENALTY", 5.0, "hours CA", code=3),
    Change(levels, "STEPS", 32, "hours CA", code=3),
    Change(thompson, "LEVELS_MEMORY", 0.4, "hours CA", code=3),
    Change(thompson, "LEVELS_MARGIN", 2.0, "hours CA", code=3),
    Change(rules, "CODES", rules.CODES | {3: rules.CODES[3]._replace(margin=3.0)}, PLAIN, code=3),
    Change(thompson, "LEAST_ACTIONS", 40, "told CA", code=3),
    Change(shared, "MOST_FACTORS", 2, "told CA", code=3),
    Change(shared, "MOST_FEATURES", 150, "titled CA", code=3),
    Change(thompson, "SHARED_WORK", 100**3, "titled CA", code=3),
)


@pytest.fixture
def fresh_places() -> Iterator[None]:
    """The places of the integral's points are cached."""
    pmf._places.cache_clear()
    yield
    pmf._places.cache_clear()


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: f"{change.name}-{change.code}")
@pytest.mark.usefixtures("fresh_places")
def test_a_changed_constant_is_noticed(change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    """With such a change all other tests may pass."""
    before = written()[f"thompson {change.code} {change.stream}"]
    monkeypatch.setattr(change.module, change.name, change.value)
    assert fingerprint("thompson", change.code, change.stream) != before


@pytest.mark.parametrize("memory", [900.0, 0.0])
def test_a_changed_default_is_noticed_by_the_name_of_the_model(memory: float) -> None:
    """Parameters are part of the name as they are."""
    changed = ALGORITHMS["thompson"].defaults | {"memory": memory}
    assert PolicySpec("thompson", changed).signature != PolicySpec().signature


@pytest.mark.parametrize(
    "change",
    [
        Change(posterior, "GROWTH", 5, PLAIN),
        Change(arrays, "CACHE", 3, PLAIN),
        Change(arrays, "CACHE_FLOATS", 300, PLAIN),
        Change(admission, "BATCH", 3, "moving CA", code=2),
        Change(pmf, "AT_ONCE", 2_000, PLAIN, code=3),
    ],
    ids=lambda change: change.name,
)
def test_what_only_costs_time_or_room_changes_nothing(change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a constant may change under the same number."""
    before = written()[f"thompson {change.code} {change.stream}"]
    monkeypatch.setattr(change.module, change.name, change.value)
    assert fingerprint("thompson", change.code, change.stream) == before


if __name__ == "__main__":
    known = written()
    new = {f"{a} {c} {name}": fingerprint(a, c, name) for a, c, name in every_code() if f"{a} {c} {name}" not in known}
    FILE.write_text(json.dumps(known | new, indent=1, sort_keys=True) + "\n", encoding="utf-8")
