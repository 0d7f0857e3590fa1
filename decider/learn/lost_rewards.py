"""Rewards that came and are lost: the log has only their number by name. Called by `diagnosis.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from difflib import get_close_matches

from decider.learn.finding import Finding
from decider.log.log_totals import LogTotals
from decider.text import count
from decider.types import RewardOutcome

MANY_LOST = 0.1
"""The share of rewards that may be lost without a word."""

FEW_LOST = 20
"""Rewards that may be lost without a word."""


def lost_rewards(counted: LogTotals) -> Iterator[Finding]:
    """Rewards of which nothing is in the log but their number: nobody knows the experiment."""
    came = sum(counted.totals.rewards.values())
    for outcome, check, what, way_out in (
        (
            RewardOutcome.ORPHAN, "unknown_ids", "name a decision that the log does not have",
            "send the decision_id that Decide has answered, whole, to the server that has decided: look where it is "
            "cut off, changed in case, or made anew; `decider explain ID --db LOG` says whether an id is known",
        ),
        (
            RewardOutcome.OUT_OF_RANGE, "out_of_range", "were refused, since value x weight is not in reward.range",
            'send values in reward.range, declare a wider range, or take reward.out_of_range = "clip"',
        ),
    ):  # fmt: skip
        refused = _refused_as(outcome, counted)
        lost = refused.total()
        if _is_much(lost, came):
            names = ", ".join(sorted([name or "(without a name)" for name in refused]))
            text = f"{count(lost)} of {count(came + lost)} rewards {what}; their names: {names}. They are lost"
            yield Finding("", check, text, way_out)


def undeclared_rewards(counted: LogTotals, declared: Collection[str]) -> Iterator[Finding]:
    """Rewards with names that no experiment declares. declared: the names of all that have not ended.

    A name is compared with the declared one that it looks like, as far as there is one: purchases are rare, and lost
    ones hardly to be seen among clicks. The numbers are of the log's whole life, so a name that is sent right since
    then is no longer told once it has outgrown what was lost.
    """
    refused = _refused_as(RewardOutcome.UNDECLARED, counted)
    told = [_describe(name, refused[name], declared) for name in refused if _is_many(name, refused, counted, declared)]
    if told:
        yield Finding(
            "",
            "undeclared",
            f"{count(refused.total())} rewards were refused and are lost, since their experiment does not declare "
            f"their names: {', '.join(told)}",
            f"send a name that reward.weights declares ({', '.join(sorted(declared)) or 'there is none'}), or declare "
            "the one that is sent; the caller gets INVALID_ARGUMENT, field name, and decider_rewards_total counts them "
            'with outcome="undeclared"',
        )


def _is_many(name: str, refused: Counter[str], counted: LogTotals, declared: Collection[str]) -> bool:
    meant = _alike(name, declared)
    came = sum([number for (_, one, _), number in counted.totals.rewards.items() if not meant or one in meant])
    return _is_much(refused[name], came)


def _describe(name: str, lost: int, declared: Collection[str]) -> str:
    hint = [f"did you mean {one}?" for one in _alike(name, declared) if one != name]
    return f"{name} ({'; '.join([count(lost), *hint])})"


def _alike(name: str, declared: Collection[str]) -> list[str]:
    return get_close_matches(name, sorted(declared), n=1)


def _refused_as(outcome: RewardOutcome, counted: LogTotals) -> Counter[str]:
    """By name."""
    return Counter({name: number for (name, one), number in counted.refused.items() if one == outcome})


def _is_much(lost: int, came: int) -> bool:
    return lost > FEW_LOST and lost > MANY_LOST * (came + lost)
