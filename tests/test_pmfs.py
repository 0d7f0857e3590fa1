"""Pmfs of several contexts from one call: the same bits as one by one, for every code of Thompson sampling."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from decider.policy.algorithms import ALGORITHMS
from decider.policy.make import make_policy
from decider.policy.protocol import Choice, Policy
from decider.policy.spec import PolicySpec
from decider.policy.thompson import posterior
from tests.streams import REWARD_RANGE, Step, stream
from tests.test_same_bits import choices, learn

STREAMS = (("plain", "CA", 240), ("small", "CA+CCA", 160), ("hours", "CA", 160), ("many", "CA", 60), ("wide", "CA", 60))
"""Kind, interactions, steps: numbers, strangers, actions with features and more than 32, bins, pairs, many features."""

SIZES = (1, 2, 5, 21, 80)


def policies(code: int, kind: str, terms: str, steps: int) -> Iterator[tuple[Policy, list[Step]]]:
    """A policy with nothing learned, then twice with more, as itself and as what serves; and contexts to ask for."""
    policy = make_policy(
        PolicySpec("thompson", ALGORITHMS["thompson"].defaults, tuple(terms.split("+")), REWARD_RANGE), code=code
    )
    sent = list(stream(kind, 21, steps))
    for part in (sent[:0], sent[: steps // 2], sent[steps // 2 :]):
        for step in part:
            learn(policy, step)
        yield policy, sent[-80:]
        yield policy.snapshot(), sent[-80:]


@pytest.mark.parametrize("code", ALGORITHMS["thompson"].codes)
@pytest.mark.parametrize(("kind", "terms", "steps"), STREAMS)
def test_a_pmf_has_the_same_bits_in_a_batch(code: int, kind: str, terms: str, steps: int) -> None:
    """What a batch was answered is recomputed one by one, by `verify` and by a replay."""
    for policy, sent in policies(code, kind, terms, steps):
        contexts = [step.context for step in sent]
        own = choices(sent[0])
        for actions in (own, tuple([Choice(one.id, one.kind) for one in own])):
            alone = [policy.pmf(context, actions) for context in contexts]
            policy.shrink()
            for size in SIZES:
                groups = [policy.pmfs(contexts[at : at + size], actions) for at in range(0, len(contexts), size)]
                assert [pmf for group in groups for pmf in group] == alone


def test_reading_less_at_a_time_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The size of a block may change without a new version of the learning code."""
    *_, (policy, sent) = policies(3, "plain", "CA", 160)
    contexts, actions = [step.context for step in sent], tuple([Choice(one.id) for one in choices(sent[0])])
    wanted = policy.pmfs(contexts, actions)
    for cells in (1, 200, 3_000):
        monkeypatch.setattr(posterior, "AT_ONCE", cells)
        assert policy.pmfs(contexts, actions) == wanted
