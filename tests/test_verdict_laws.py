"""A verdict is about a log and a question, not about how rewards are written: laws over logs of known worlds."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from decider.estimate.sample import Floats
from simulator.evaluate.parse import parse
from simulator.evaluate.result import Finding, Verdict
from simulator.evaluate.run import evaluate
from simulator.logs.columns import Columns
from tests.logged_worlds import logged_world

CANDIDATES = ("uniform", "fixed:gift", "fixed:sale", "logged")

DRIFT = "drift"


class Kind(NamedTuple):
    """What rewards a world has. share: of the decisions with the larger one; amounts: it varies."""

    name: str
    share: float
    low: float = 0.0
    high: float = 1.0
    amounts: bool = False


KINDS = (
    Kind("clicks of 1 %", 0.01),
    Kind("clicks of 40 %", 0.4),
    Kind("successes of 99.5 %", 0.995),
    Kind("plus and minus one", 0.5, low=-1.0),
    Kind("nothing ever", 0.0),
    Kind("always", 1.0),
    Kind("amounts", 0.2, high=500.0, amounts=True),
)


def world_of(kind: Kind, *, seed: int, decisions: int, with_pmf: bool) -> Columns:
    """A log with rewards of this kind; one action in a segment gets more."""
    columns = logged_world(seed=seed, decisions=decisions, with_pmf=with_pmf).columns
    rng = np.random.default_rng(seed)
    share = np.where(columns.action == 4, min(1.0, 1.5 * kind.share), kind.share)
    more = rng.random(decisions) < share
    high = np.minimum(rng.lognormal(3.0, 1.0, decisions), kind.high) if kind.amounts else np.full(decisions, kind.high)
    return replace(columns, reward=np.where(more, high, kind.low), reward_range=(kind.low, kind.high))


def transformed(columns: Columns, *, factor: float, shift: float) -> Columns:
    """The same log with its rewards and their range on another scale."""
    low, high = sorted(factor * np.array(columns.reward_range) + shift)
    reward: Floats = np.clip(factor * columns.reward + shift, low, high)
    return replace(columns, reward=reward, reward_range=(float(low), float(high)))


def verdicts(columns: Columns) -> dict[str, dict[str, Verdict]]:
    """By policy and check; of the log under ''."""
    found = evaluate(columns, [parse(name, columns) for name in CANDIDATES], breakdown=False)
    return {"": _by_check(found.log.findings)} | {
        one.name: _by_check(one.diagnostics.findings) for one in found.policies
    }


def _by_check(findings: tuple[Finding, ...]) -> dict[str, Verdict]:
    return {one.name: one.verdict for one in findings if one.name != DRIFT}


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 1_000),
    decisions=st.sampled_from([40, 300, 2_000]),
    with_pmf=st.booleans(),
    factor=st.sampled_from([-100.0, -2.0, -1.0, 0.25, 1.0, 1_000.0]),
    shift=st.sampled_from([-50.0, -1.0, 0.0, 0.5, 1.0]),
)
def test_a_verdict_does_not_depend_on_how_rewards_are_written(
    kind: Kind, seed: int, decisions: int, with_pmf: bool, factor: float, shift: float
) -> None:
    """Clicks as -1 and 0, costs in place of gains, cents in place of euros: the log knows as much as before."""
    columns = world_of(kind, seed=seed, decisions=decisions, with_pmf=with_pmf)
    assert verdicts(columns) == verdicts(transformed(columns, factor=factor, shift=shift))
