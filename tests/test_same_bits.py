"""What release 0.1.0 said, said again: pmfs of every algorithm to the last bit, slots, tickets and draws.

`data/pmfs-0.1.0.json` was written by that release, on the streams of `streams.py`. A change of any of it means that
logs which were written before no longer replay; a policy that is meant to learn otherwise needs a new version of its
learning code (`policy/algorithms.py`), and then a file of its own here.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decider.decide.slots import check_pmf, draw, hash_ticket, to_slots
from decider.policy.algorithms import ALGORITHMS
from decider.policy.make import load_model, make_policy, save_model
from decider.policy.protocol import Choice, Policy, UnusablePmf
from decider.policy.spec import PolicySpec
from decider.policy.thompson.arrays import json_from_array
from decider.types import ActionId
from tests.streams import Step, pmfs, stream

SAID: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "pmfs-0.1.0.json").read_text(encoding="utf-8"))
RUNS: dict[str, Any] = SAID["pmfs"]


def choices(step: Step) -> tuple[Choice, ...]:
    """The actions as a policy sees them."""
    return tuple(Choice(ActionId(one.id), one.kind, one.features) for one in step.actions)


def asked(policy: Policy, step: Step) -> list[float]:
    """The pmf of a step."""
    return [float(p) for p in policy.pmf(step.context, choices(step))]


def learn(policy: Policy, step: Step) -> None:
    """What the step teaches."""
    policy.learn(step.context, choices(step), drawn=step.drawn, propensity=step.propensity, reward=step.reward)


def digest(found: Iterable[Sequence[float]]) -> str:
    """Of all values, to the last bit."""
    return sha256(b"".join(struct.pack(f"<{len(pmf)}d", *pmf) for pmf in found)).hexdigest()


def spec_of(run: dict[str, Any]) -> PolicySpec:
    """Which policy it was."""
    parameters = ALGORITHMS[run["algorithm"]].defaults | run["parameters"]
    low, high = SAID["reward_range"]
    return PolicySpec(run["algorithm"], parameters, tuple(run["interactions"]), (low, high))


def test_every_algorithm_is_among_the_runs() -> None:
    """One that is left out could change unseen."""
    assert {run["algorithm"] for run in RUNS.values()} == {*ALGORITHMS}


FULL = ("thompson CA+CCA", "wide thompson", "wide thompson CA+CCA", "wide thompson memory=0")
"""Runs in which a regression has no room for all features (or all pairs): there, code 2 counts and code 1 does not."""

OLD = (1, 2)
"""Codes that are to say the same as that release."""

LEARNED = [(name, code) for name in RUNS for code in ALGORITHMS[RUNS[name]["algorithm"]].codes if code in OLD]
SAME = [(name, code) for name, code in LEARNED if code == 1 or name not in FULL]


@pytest.mark.parametrize(("name", "code"), [(n, c) for n, c in SAME if RUNS[n]["algorithm"] != "fixed"])
def test_pmfs_are_those_of_release_0_1_0(name: str, code: int) -> None:
    """Before and after learning, after save and load, and where learning goes on from there."""
    run = RUNS[name]
    spec = spec_of(run)
    steps = list(stream(run["stream"], SAID["seeds"][run["stream"]], SAID["steps"]))
    policy, found = make_policy(spec, code=code), []
    for step in steps:
        found.append(asked(policy, step))
        learn(policy, step)
    assert [[p.hex() for p in pmf] for pmf in found[:: SAID["every"]]] == run["every_40th"]
    assert digest(found) == run["sha256"]
    loaded, again = load_model(spec, save_model(spec, policy, code), code), steps[: SAID["continued"]]
    after = [asked(loaded, step) for step in again]
    assert [p.hex() for p in after[0]] == run["loaded"]
    assert digest(after) == run["loaded_sha256"]
    assert digest([asked(policy.snapshot(), step) for step in again[:3]]) == digest(after[:3])
    continued = []
    for step in again:
        continued.append(asked(loaded, step))
        learn(loaded, step)
    assert digest(continued) == run["continued_sha256"]
    if run["evidence"] is not None:
        assert evidence(policy) == run["evidence"]


def evidence(policy: Policy) -> dict[str, str]:
    """Of every regression, also of those that were never asked."""
    with np.load(io.BytesIO(policy.save())) as arrays:
        return {name: value.hex() for name, value in json_from_array(arrays["evidence"]).items()}


@pytest.mark.parametrize("name", RUNS)
def test_a_model_is_named_as_before_and_by_its_learning_code(name: str) -> None:
    """An old log's models are found under today's name with ` code=1` at its end."""
    spec, before = spec_of(RUNS[name]), RUNS[name]["signature"]
    assert spec.signature_of(1) == (f"{before} code=1" if spec.learns else before)


def test_slots_tickets_and_draws_are_those_of_release_0_1_0() -> None:
    """The propensities in old logs are these slots, and their actions these draws."""
    for (pmf, minimum, key), (slots, ticket, index) in zip(
        pmfs(SAID["seeds"]["sampler"], SAID["cases"]), SAID["sampler"], strict=True
    ):
        assert hash_ticket(*key) == ticket
        if slots is None:
            with pytest.raises(UnusablePmf):
                check_pmf(pmf, len(pmf))
            continue
        check_pmf(pmf, len(pmf))
        found = to_slots(pmf, minimum=minimum)
        text = ",".join(map(str, found))
        assert (list(found) if len(found) <= 4 else sha256(text.encode()).hexdigest()[:16]) == slots
        assert draw(found, ticket) == index
